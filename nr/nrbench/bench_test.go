package nrbench

import (
	"bytes"
	"encoding/csv"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestRunPrintsEverything runs a tiny version: every contender at every mix, in the table and in the CSV.
func TestRunPrintsEverything(t *testing.T) {
	var table, data bytes.Buffer
	o := Options{Keys: 512, Threads: []int{1, 2}, Writes: []int{0, 50}, Rounds: 1, CatchUp: 1 << 10, Duration: time.Millisecond, CSV: &data}
	require.NoError(t, Run(&table, o))
	for _, c := range contenders {
		require.Contains(t, table.String(), c.name)
	}
	rows, err := csv.NewReader(&data).ReadAll()
	require.NoError(t, err)
	one := 0
	for _, c := range contenders {
		if c.replicas < 2 {
			one++
		}
	}
	require.Len(t, rows, 1+3+2*one+2*len(contenders))
	for _, r := range rows[1:] {
		require.False(t, strings.HasPrefix(r[5], "0.00"), "%v", r)
	}
}

func TestRunRefusesNonsense(t *testing.T) {
	var out bytes.Buffer
	require.ErrorContains(t, Run(&out, Options{Writes: []int{101}}), "write share 101 %")
	require.ErrorContains(t, Run(&out, Options{Threads: []int{0}}), "0 threads")
	require.ErrorContains(t, Run(&out, Options{Keys: -1}), "-1 keys")
	require.Zero(t, out.Len())
}

// TestCatchUpApplies checks the benchmark itself: the lagging replica ends with all ops.
func TestCatchUpApplies(t *testing.T) {
	ns, err := CatchUp(1 << 10)
	require.NoError(t, err)
	require.Positive(t, ns)
}

// BenchmarkTable prints the whole table once: go test -bench Table ./nr/nrbench
func BenchmarkTable(b *testing.B) {
	for range b.N {
		if err := Run(os.Stdout, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCatchUp(b *testing.B) {
	best := 0.0
	for b.Loop() {
		ns, err := CatchUp(1 << 20)
		if err != nil {
			b.Fatal(err)
		}
		if best == 0 || ns < best {
			best = ns
		}
	}
	b.ReportMetric(best, "ns/caught-up-op")
	b.ReportMetric(1e3/best, "Mops/s")
}
