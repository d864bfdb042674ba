package replay

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"dinos/sched/model"
	"dinos/sched/solve"
)

// Comparison is one instance of a suite: what the solver found and what the exact solver did.
type Comparison struct {
	Name    string
	Proved  bool
	Refused int
	Cost    solve.Vector
	Exact   []int64 // tiers from 1; nil where there was no answer
	Note    string  // why there was none
	Nanos   int64   // of the solver
	ExactNs int64
}

// Equal says that the solver met the exact optimum in all tiers that the exact model knows.
func (c *Comparison) Equal() bool {
	for t, x := range c.Exact {
		if c.Cost[t+1] != x {
			return false
		}
	}
	return c.Exact != nil
}

// heldRows is a model.Held of fixed rows.
type heldRows struct{ procs, cells [][]int64 }

func (h *heldRows) Len() int                { return len(h.procs) }
func (h *heldRows) CellsAt(i int) []int64   { return h.cells[i] }
func (h *heldRows) ProcessAt(i int) []int64 { return h.procs[i] }
func (h *heldRows) Find(p int64) int {
	if p >= 1 && p <= int64(len(h.procs)) {
		return int(p - 1)
	}
	return -1
}

// RandomRound makes a round on equal dkernels, a share of which is held by running processes, and requests of new
// processes and some of the running ones.
func RandomRound(seed uint64, nodes int, cores, slices int64, requests int, fill float64) *model.Instance {
	r := rand.New(rand.NewPCG(seed, 11))
	in := &model.Instance{Number: int64(seed), Cursor: -1, Seed: seed}
	for d := range nodes {
		in.Nodes = append(in.Nodes, model.Node{ID: int64(d + 1), Cores: cores, Slices: slices, Generation: 1, Alive: true})
	}
	h := &heldRows{}
	used := int64(0)
	for used < int64(fill*float64(int64(nodes)*cores)) {
		n := &in.Nodes[r.IntN(nodes)]
		c := 1 + r.Int64N(min(4, cores))
		s := r.Int64N(c*slices/cores + 1)
		if n.UsedCores+c > n.Cores || n.UsedSlices+s > n.Slices {
			used++ // a full dkernel must not keep the loop for ever
			continue
		}
		n.UsedCores += c
		n.UsedSlices += s
		used += c
		p := int64(len(h.procs) + 1)
		h.procs = append(h.procs, []int64{p, c, s})
		h.cells = append(h.cells, []int64{p, n.ID, c, s})
	}
	in.Held = h
	for i := range requests {
		it := model.Item{Process: int64(len(h.procs) + 1 + i), Cores: 1 + r.Int64N(min(4, cores)), Slices: r.Int64N(4*slices/cores/2 + 1)}
		switch k := r.IntN(10); {
		case k < 2 && len(h.procs) > 0:
			it.Process = 1 + r.Int64N(int64(len(h.procs)))
		case k < 4:
			it.Shape = model.Spread
		case k == 4 && it.Cores <= int64(nodes)/2:
			it.Shape = model.Apart
		case k == 5:
			it.Near = []int64{1 + r.Int64N(int64(nodes))}
		case k == 6:
			it.Pins = []int64{1 + r.Int64N(int64(nodes)), 0}
			it.Pins[1] = it.Pins[0]%int64(nodes) + 1
		}
		in.Items = append(in.Items, it)
	}
	return in
}

// SmallRound is the i-th instance of the small suite: 2 to 4 dkernels with 4 or 8 cores, up to 4 requests.
func SmallRound(i int) *model.Instance {
	cores := int64(4 + 4*(i%2))
	return RandomRound(uint64(i), 2+i%3, cores, 2*cores, 1+i%4, []float64{0.2, 0.5, 0.7}[i/3%3])
}

// Compare solves one instance and asks the exact solver about it, if limit is positive.
func Compare(name string, p *model.Policy, in *model.Instance, b solve.Budget, limit time.Duration) (*Comparison, error) {
	s := solve.New(1)
	var out solve.Solution
	start := time.Now()
	if err := s.Solve(p, in, b, &out); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	c := &Comparison{Name: name, Proved: out.Status == solve.Optimal, Refused: len(out.Refused), Cost: out.Cost, Nanos: int64(time.Since(start))}
	switch {
	case limit <= 0:
		c.Note = "not asked"
		return c, nil
	case c.Refused > 0:
		c.Note = "some are refused"
		return c, nil
	}
	start = time.Now()
	exact, err := Exact(p.Name, in, limit)
	c.ExactNs = int64(time.Since(start))
	switch {
	case errors.Is(err, ErrTime):
		c.Note = "no answer in time"
	case err != nil:
		return nil, fmt.Errorf("%s: %w", name, err)
	default:
		c.Exact = exact
	}
	return c, nil
}

// TightRound makes a round of large requests, 1 to 40 cores, that fill 64 dkernels of 96 cores and 512 slices from about
// 57 % to the share given.
func TightRound(seed uint64, fill float64) *model.Instance {
	r := rand.New(rand.NewPCG(seed, 3))
	in := &model.Instance{Cursor: -1, Number: int64(seed), Seed: seed}
	used := int64(0)
	for d := range int64(64) {
		n := model.Node{ID: d + 1, Cores: 96, Slices: 512, UsedCores: 40 + r.Int64N(30), UsedSlices: 150 + r.Int64N(200), Alive: true}
		in.Nodes = append(in.Nodes, n)
		used += n.UsedCores
	}
	for p := int64(1); used < int64(fill*64*96); p++ {
		c := 1 + r.Int64N(40)
		in.Items = append(in.Items, model.Item{Process: p, Cores: c, Slices: r.Int64N(5 * c)})
		used += c
	}
	return in
}
