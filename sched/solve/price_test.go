package solve

import (
	"testing"

	"dinos/sched/model"

	"github.com/stretchr/testify/require"
)

// TestCertify: three requests fit only the one large dkernel of each set, if they were alone; there is room for one. The
// greedy bound sees each alone, the prices see the contention.
func TestCertify(t *testing.T) {
	in := &model.Instance{Cursor: -1}
	for set := range int64(5) {
		in.Nodes = append(in.Nodes, model.Node{ID: 10*set + 1, Cores: 8, Slices: 8, Alive: true})
		for k := range int64(6) {
			in.Nodes = append(in.Nodes, model.Node{ID: 10*set + 2 + k, Cores: 4, Slices: 4, Alive: true})
		}
		for k := range int64(3) {
			in.Items = append(in.Items, model.Item{Process: 3*set + k + 1, Cores: 6, Slices: 2})
		}
	}
	p := model.MustShipped("ours")
	s := New(1)
	var out Solution
	require.NoError(t, s.Solve(p, in, Budget{Iterations: 200}, &out))
	require.Equal(t, int64(25), out.Cost[2], "one request of a set whole, two in halves")
	require.Equal(t, int64(15), out.Bound[2])
	require.NoError(t, s.Certify(p, in, &out, 300))
	require.GreaterOrEqual(t, out.Bound[2], int64(23), "4.67 dkernels a set")
	require.LessOrEqual(t, out.Bound[2], out.Cost[2])
}
