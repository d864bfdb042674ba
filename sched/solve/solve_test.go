package solve

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"dinos/sched/model"

	"github.com/stretchr/testify/require"
)

// heldTable is a model.Held for tests.
type heldTable struct {
	procs [][]int64
	cells [][]int64
}

func (h *heldTable) Len() int                { return len(h.procs) }
func (h *heldTable) CellsAt(i int) []int64   { return h.cells[i] }
func (h *heldTable) ProcessAt(i int) []int64 { return h.procs[i] }
func (h *heldTable) Find(p int64) int {
	for i := range h.procs {
		if h.procs[i][0] == p {
			return i
		}
	}
	return -1
}

// randomInstance makes a small round: nodes partly used by held processes, and requests of all kinds.
func randomInstance(r *rand.Rand, nodes, items int) *model.Instance {
	in := &model.Instance{Number: int64(r.IntN(100)), Cursor: int64(r.IntN(nodes)), Seed: r.Uint64()}
	for d := range nodes {
		in.Nodes = append(in.Nodes, model.Node{ID: int64(d + 1), Cores: int64(1 + r.IntN(6)), Slices: int64(1 + r.IntN(6)),
			Generation: 1, Alive: r.IntN(10) > 0, Drained: r.IntN(10) == 0})
	}
	h := &heldTable{}
	for p := range int64(3) {
		var cells []int64
		sumC, sumS := int64(0), int64(0)
		for d := range in.Nodes {
			n := &in.Nodes[d]
			if r.IntN(3) > 0 {
				continue
			}
			c, s := r.Int64N(n.Cores-n.UsedCores+1), r.Int64N(n.Slices-n.UsedSlices+1)
			if c+s == 0 {
				continue
			}
			n.UsedCores += c
			n.UsedSlices += s
			cells = append(cells, p+1, n.ID, c, s)
			sumC += c
			sumS += s
		}
		h.procs = append(h.procs, []int64{p + 1, sumC, sumS})
		h.cells = append(h.cells, cells)
	}
	in.Held = h
	for range items {
		it := model.Item{Process: int64(1 + r.IntN(5)), Cores: int64(r.IntN(4)), Slices: int64(r.IntN(4)), Shape: model.Shape(r.IntN(3))}
		if it.Cores+it.Slices == 0 {
			it.Cores = 1
		}
		for d := range in.Nodes {
			if r.IntN(6) == 0 {
				it.Pins = append(it.Pins, int64(d+1))
			}
			if r.IntN(6) == 0 {
				it.Near = append(it.Near, int64(d+1))
			}
		}
		in.Items = append(in.Items, it)
	}
	return in
}

// looseText is a policy whose constraints are not recognised as atoms, or have no bound.
const looseText = `
CREATE VIEW crowd AS SELECT process, count(DISTINCT controllable__dkernel) AS n FROM pending GROUP BY process;
CREATE CONSTRAINT few AS SELECT * FROM crowd CHECK n <= 2;
CREATE CONSTRAINT odd AS SELECT * FROM load MINIMIZE cores % 2 TIER 1;
CREATE CONSTRAINT span AS SELECT process FROM pending GROUP BY process MINIMIZE count(DISTINCT controllable__dkernel) TIER 2;
CREATE CONSTRAINT cap AS SELECT * FROM held CHECK cores <= 3;
`

func policies(t *testing.T) []*model.Policy {
	var out []*model.Policy
	for _, n := range model.Shipped() {
		out = append(out, model.MustShipped(n))
	}
	p, err := model.Compile("loose", looseText)
	require.NoError(t, err)
	return append(out, p)
}

// TestAgainstInterpreter checks on random rounds that what the solver says of its solution is what the policy's text
// says, that bounds are bounds, and that a proved optimum is one: no random solution is better.
func TestAgainstInterpreter(t *testing.T) {
	s := New(7)
	proved := map[string]int{}
	for _, p := range policies(t) {
		for seed := range uint64(150) {
			r := rand.New(rand.NewPCG(seed, 1))
			in := randomInstance(r, 1+r.IntN(5), 1+r.IntN(5))
			var out Solution
			name := fmt.Sprintf("policy %s seed %d", p.Name, seed)
			require.NoError(t, s.Solve(p, in, Budget{Iterations: 30}, &out), name)
			o := p.Evaluate(in, out.Parts)
			require.Empty(t, o.Violations, name)
			o.Cost[0] = int64(len(out.Refused))
			require.Equal(t, o.Cost, [model.MaxTiers]int64(out.Cost), name)
			require.LessOrEqual(t, out.Bound.Compare(&out.Cost), 0, "%s: bound %v cost %v", name, out.Bound, out.Cost)
			if out.Status == Optimal {
				proved[p.Name]++
			}
			for range 20 {
				parts, refused := randomAssignment(r, in)
				if o := p.Evaluate(in, parts); len(o.Violations) == 0 {
					o.Cost[0] = refused
					v := Vector(o.Cost)
					require.LessOrEqual(t, out.Bound.Compare(&v), 0, "%s: bound %v, but %v costs %v", name, out.Bound, parts, v)
				}
			}
		}
	}
	t.Log("proved of 150:", proved)
}

// randomAssignment gives each item units at random nodes with room.
func randomAssignment(r *rand.Rand, in *model.Instance) (parts []model.Part, refused int64) {
	free := make([][2]int64, len(in.Nodes))
	for d, n := range in.Nodes {
		if n.Alive && !n.Drained {
			free[d] = [2]int64{n.Cores - n.UsedCores, n.Slices - n.UsedSlices}
		}
	}
	for i, it := range in.Items {
		got := make([][2]int64, len(in.Nodes))
		last := -1
		want := [2]int64{it.Cores, it.Slices}
		for try := 0; try < 40 && want != [2]int64{}; try++ {
			d, k := r.IntN(len(in.Nodes)), r.IntN(2)
			if last >= 0 && r.IntN(3) > 0 {
				d = last
			}
			if want[k] > 0 && free[d][k] > 0 {
				last = d
				got[d][k]++
				free[d][k]--
				want[k]--
			}
		}
		if want != [2]int64{} {
			refused++
			for d, g := range got {
				free[d][0] += g[0]
				free[d][1] += g[1]
			}
			continue
		}
		for d, g := range got {
			if g == [2]int64{} {
				continue
			}
			parts = append(parts, model.Part{Item: int32(i), Node: int32(d), Cores: int32(g[0]), Slices: int32(g[1])})
		}
	}
	return parts, refused
}
