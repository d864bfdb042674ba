package replay

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"dinos/sched/model"
	"dinos/sched/solve"

	"github.com/stretchr/testify/require"
)

var small = Workload{Seed: 5, Processes: 120, Gap: 40, Batch: 3, Cores: 3, Slices: 4, Life: 900, Spread: 0.2, Apart: 0.1, Change: 0.3}

func TestTraceRoundTrip(t *testing.T) {
	events, err := Generate(small)
	require.NoError(t, err)
	var b bytes.Buffer
	require.NoError(t, Write(&b, events))
	back, err := Read(&b)
	require.NoError(t, err)
	require.Equal(t, events, back)
	for text, want := range map[string]string{
		"1 arrive 1 1":                             "line 1: 4 words",
		"# c\n\n1 come 1 1 1 pack":                 "line 3: unknown verb \"come\"",
		"1 arrive 1 -1 1 pack":                     "\"-1\" is not a count",
		"1 arrive 1 1 1 wide":                      "unknown shape \"wide\"",
		"5 arrive 1 1 1 pack\n4 arrive 2 1 1 pack": "line 2: time 4 after 5",
	} {
		_, err := Read(strings.NewReader(text))
		require.ErrorContains(t, err, want)
	}
	_, err = Generate(Workload{})
	require.Error(t, err)
}

func TestReplayAndPlot(t *testing.T) {
	events, err := Generate(small)
	require.NoError(t, err)
	start := time.Now()
	clock := func() int64 { return int64(time.Since(start)) }
	var reports []*Report
	for _, p := range model.Shipped() {
		rep, err := Run(Rack{Dkernels: 6, Cores: 16, Slices: 64, Policy: p, Seed: 1, Budget: solve.Budget{Iterations: 8}, Rebalance: 1}, events, clock)
		require.NoError(t, err, p)
		require.NotEmpty(t, rep.Points)
		require.Positive(t, rep.Proved, p)
		reports = append(reports, rep)
		t.Logf("%-14s %d of %d refused, %.0f %% whole, %d moves", p, rep.Refused, rep.Requests, 100*rep.Whole(), rep.Moves)
	}
	require.GreaterOrEqual(t, reports[5].Whole(), reports[2].Whole(), "ours keeps processes together better than a lot does")
	dir := t.TempDir()
	paths, err := Plot(dir, reports)
	require.NoError(t, err)
	for _, p := range paths {
		info, err := os.Stat(p)
		require.NoError(t, err)
		require.Greater(t, info.Size(), int64(1000))
	}
}

// TestAgainstExact compares small rounds with a mixed-integer program that is stated independently.
func TestAgainstExact(t *testing.T) {
	if _, err := exec.LookPath("cbc"); err != nil {
		t.Skip(ErrNoSolver)
	}
	n := 6
	if os.Getenv("DINOS_LONG") != "" {
		n = 60
	}
	for _, name := range []string{"locality", "ours"} {
		p := model.MustShipped(name)
		asked := 0
		for i := range n {
			c, err := Compare(fmt.Sprintf("%s %d", name, i), p, SmallRound(i), solve.Budget{Iterations: 20000}, 20*time.Second)
			require.NoError(t, err)
			if c.Exact == nil {
				t.Logf("%s: %s", c.Name, c.Note)
				continue
			}
			asked++
			require.True(t, c.Equal(), "%s: cost %v, exact %v, proved %v", c.Name, c.Cost, c.Exact, c.Proved)
		}
		require.Positive(t, asked)
	}
}

func TestExactRefuses(t *testing.T) {
	_, err := Exact("random", SmallRound(0), time.Second)
	if errors.Is(err, ErrNoSolver) {
		t.Skip(err)
	}
	require.ErrorContains(t, err, "no exact model of policy")
}
