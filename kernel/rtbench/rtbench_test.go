package rtbench

import (
	"bytes"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestQuick runs the whole table and reads the lines back.
func TestQuick(t *testing.T) {
	procs := runtime.GOMAXPROCS(0)
	var out bytes.Buffer
	var pinned []int
	env := Env{Out: &out, Quick: true, Pin: func(cpu int) error { pinned = append(pinned, cpu); return nil }}
	require.NoError(t, Run(env))
	require.Equal(t, procs, runtime.GOMAXPROCS(0), "restored")
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	require.Len(t, lines, len(Table()))
	for i, b := range Table() {
		r, ok, err := Parse("console noise " + lines[i])
		require.True(t, ok)
		require.NoError(t, err)
		require.Equal(t, b.Name, r.Name)
		require.Equal(t, b.Unit, r.Unit)
		require.Equal(t, runtime.NumCPU(), r.CPUs)
		if b.Name == "handover-cpu" && runtime.NumCPU() < 2 {
			require.NotEmpty(t, r.Skip)
			continue
		}
		require.Empty(t, r.Skip)
		require.Positive(t, r.N)
		require.Positive(t, r.P50)
		require.GreaterOrEqual(t, r.P50, r.Min)
		require.GreaterOrEqual(t, r.P99, r.P50)
	}
	if runtime.NumCPU() >= 2 {
		require.Equal(t, []int{1, 0}, pinned)
	}
}

func TestSelection(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, Run(Env{Out: &out, Quick: true}, "ping", "yield"))
	require.Equal(t, 2, strings.Count(out.String(), Prefix))
	require.ErrorContains(t, Run(Env{Out: &out}, "nonsense"), `no benchmark matches ["nonsense"]`)
}

func TestFailuresAreReported(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("needs 2 CPUs")
	}
	var out bytes.Buffer
	require.NoError(t, Run(Env{Out: &out, Quick: true}, "handover-cpu"))
	r, _, err := Parse(out.String())
	require.NoError(t, err)
	require.Contains(t, r.Skip, "cannot be bound")
	for bad := range 2 {
		pin := func(cpu int) error {
			if cpu == bad {
				return errors.New("no such CPU")
			}
			return nil
		}
		require.ErrorContains(t, Run(Env{Out: &out, Quick: true, Pin: pin}, "handover-cpu"), "handover-cpu: no such CPU")
	}
}

func TestParse(t *testing.T) {
	_, ok, err := Parse("nothing")
	require.False(t, ok)
	require.NoError(t, err)
	for _, line := range []string{Prefix + "{", Prefix + "{}", Prefix + `{"name":3}`} {
		_, ok, err = Parse(line)
		require.True(t, ok)
		require.Error(t, err)
	}
}

func TestPercentile(t *testing.T) {
	var s samples
	for i := range 200 {
		s = append(s, float64(200-i))
	}
	require.Equal(t, 100.0, s.percentile(50))
	require.Equal(t, 198.0, s.percentile(99))
	require.Equal(t, 7.0, samples{7}.percentile(99))
	require.Equal(t, 7.0, samples{7, 3}.percentile(99))
}

func TestDamageIsFound(t *testing.T) {
	head, n := liveHeap(&Env{Quick: true})
	require.NoError(t, head.check(n))
	head.next.sum = nil
	require.EqualError(t, head.check(n), "live heap damaged: nodes 1, want 8192")
}
