package latency

import (
	"testing"
	"time"

	"dinos/sched/model"
	"dinos/sched/solve"

	"github.com/stretchr/testify/require"
)

func TestMeasure(t *testing.T) {
	start := time.Now()
	for _, p := range model.Shipped() {
		c := Case{Nodes: 8, Cores: 16, Slices: 64, Fill: 0.5, Batch: 5, Rounds: 10, Policy: p, Budget: solve.Budget{Iterations: 4}, Seed: 3}
		r, err := Measure(c, func() int64 { return int64(time.Since(start)) })
		require.NoError(t, err, "%v", c)
		require.Len(t, r.Nanos, 10)
		require.Equal(t, 50, r.Requests)
		require.Zero(t, r.Refused, "%v: a rack that is half full has room", c)
		require.LessOrEqual(t, r.Quantile(0.5), r.Quantile(0.99))
	}
	_, err := Measure(Case{Policy: "nonesuch"}, nil)
	require.Error(t, err)
}
