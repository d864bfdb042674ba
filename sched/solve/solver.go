// Package solve assigns the requests of a model.Instance to dkernels under a model.Policy.
//
// Rows that are equal in every referenced column are one integer class, the cores or the slices of one request, so a
// decision is how many units of a class go to a node. A round binds the policy's atoms to the instance, builds three
// greedy solutions, compares the best with a combinatorial bound, and where that does not prove it optimal goes on
// with branch and bound on small instances and large-neighbourhood search (Shaw, CP'98) on others, until the budget is spent.
// Costs are vectors compared lexicographically, tier by tier.
//
// A Solver has no goroutines, clock or other input than its arguments: the same calls give the same results. It is
// used by one goroutine at a time and keeps its buffers from round to round.
package solve

import (
	"errors"
	"fmt"

	"dinos/sched/model"
)

// Vector is a cost by tier, compared lexicographically; tier 0 counts refused requests.
type Vector [model.MaxTiers]int64

// Compare is −1, 0 or 1 as a is less than, equal to or more than b.
func (a *Vector) Compare(b *Vector) int {
	for t := range a {
		if a[t] != b[t] {
			if a[t] < b[t] {
				return -1
			}
			return 1
		}
	}
	return 0
}

// Unbounded is the bound of a tier of which nothing is known.
const Unbounded = -1 << 62

// Budget limits a Solve. The search ends when either limit that is set is reached.
type Budget struct {
	Iterations int          // of the search; 0 for no limit if there is a Clock
	Nanos      int64        // by Clock, from the beginning of the Solve
	Clock      func() int64 // monotonic nanoseconds; nil where there is none
	Gap        float64      // relative gap of every tier at which the search may end; 0 for a proof
}

// ErrNoBudget is the refusal of a Solve without time or iterations.
var ErrNoBudget = errors.New("solver budget is zero: give it iterations, or nanoseconds and a clock")

func (b Budget) valid() error {
	if b.Iterations < 0 || b.Nanos < 0 || b.Gap < 0 {
		return fmt.Errorf("solver budget of %d iterations, %d ns and gap %g is negative", b.Iterations, b.Nanos, b.Gap)
	}
	if b.Iterations == 0 && (b.Clock == nil || b.Nanos == 0) {
		return ErrNoBudget
	}
	return nil
}

// Status says how good a solution is known to be.
type Status uint8

const (
	// Feasible: it satisfies all hard constraints; the gap to Bound is open. Optimal: nothing better exists.
	Feasible Status = iota
	Optimal
)

func (s Status) String() string { return [...]string{"feasible", "optimal"}[s] }

// Solution is what Solve found. Its slices are reused by the next Solve into the same Solution.
type Solution struct {
	Status     Status
	Cost       Vector
	Bound      Vector // no solution has a lesser cost; Unbounded in tiers without a bound
	Parts      []model.Part
	Refused    []int32 // indexes of items that found no place
	Iterations int
}

// Gap is the relative distance of cost and bound in a tier: 0 where they meet, 1 for 100 %. The bound of a tier is for
// solutions that meet the bounds of the tiers before it; where those are not met the cost may be below it.
func (s *Solution) Gap(tier int) float64 {
	if s.Status == Optimal || s.Cost[tier] == s.Bound[tier] {
		return 0
	}
	if s.Bound[tier] == Unbounded {
		return 1
	}
	base := max(s.Bound[tier], -s.Bound[tier], 1)
	return max(0, float64(s.Cost[tier]-s.Bound[tier])/float64(base))
}

// part is a Part of a known item.
type part struct {
	node int32
	x    [2]int32 // cores, slices
}

// item is one request during a round.
type item struct {
	want  [2]int64
	group int32 // index of its process among those of the round
	apart bool
	parts []part
	out   bool // refused at present
	tied  bool // by a Different or Equal atom
	gone  bool // refused for good, in branch and bound
}

// tierAtoms are the goals of one tier.
type tierAtoms struct {
	tier     int
	row      int // index into rowTiers, −1 for none
	cells    []*model.Atom
	loads    []int // indexes into Solver.loads
	extremes []int // indexes into Solver.extremes
	groups   []int // indexes into Solver.groups
}

// grouping is a Pair, Span, Different or Equal atom bound to the instance.
type grouping struct {
	*model.Atom
	covers []bool  // by class
	n      []int32 // rows by group × node
	total  []int32 // rows by group
}

type loadGoal struct {
	*model.Atom
	now  []int64 // value by node
	form loadForm
	r    int   // resource of a square
	k    int64 // factor of a square, value of a step
}

// loadForm is a frequent shape of a goal on the load, which is evaluated without the general form.
type loadForm uint8

const (
	anyForm    loadForm = iota
	squareForm          // k·u²/total of resource r
	stepForm            // k where the only guard, ≥ 0, holds
	linearForm          // coefficients alone
)

// formOf recognises the shape of a form.
func formOf(a *model.Atom) loadGoal {
	g := loadGoal{Atom: a}
	f := &a.Form
	flat := model.Linear{Const: f.Lin.Const}
	switch {
	case !f.Exact():
	case len(f.Guards) == 0 && f.Div < 0 && f.Square == [2]int64{}:
		g.form = linearForm
	case len(f.Guards) == 1 && f.Guards[0].Test == model.NotNegative && f.Div < 0 && f.Square == [2]int64{} && f.Lin == flat:
		g.form, g.k = stepForm, f.Lin.Const
	case len(f.Guards) == 0 && f.Lin == model.Linear{} && f.Div == model.VarTotalCores && f.Square[1] == 0:
		g.form, g.k = squareForm, f.Square[0]
	case len(f.Guards) == 0 && f.Lin == model.Linear{} && f.Div == model.VarTotalSlices && f.Square[0] == 0:
		g.form, g.r, g.k = squareForm, 1, f.Square[1]
	}
	return g
}

// after is the value at a node with load v if x were added. Forms other than anyForm are computed in place.
func (g *loadGoal) after(v *model.Vars, x [2]int64) int64 {
	switch g.form {
	case squareForm:
		u, t := v[g.r]+x[g.r], v[model.VarTotalCores+g.r]
		if p := uint64(g.k * u * u); t > 0 && g.k >= 0 {
			if p>>32 == 0 {
				return int64(uint32(p) / uint32(t)) // a division of 32 bits is much faster
			}
			return int64(p / uint64(t))
		}
	case stepForm:
		l := &g.Form.Guards[0].Lin
		if l.Eval(v)+l.Coef[0]*x[0]+l.Coef[1]*x[1] >= 0 {
			return g.k
		}
		return 0
	case linearForm:
		l := &g.Form.Lin
		return l.Eval(v) + l.Coef[0]*x[0] + l.Coef[1]*x[1]
	}
	w := *v
	w[model.VarCores] += x[0]
	w[model.VarSlices] += x[1]
	return g.Form.Eval(&w)
}

// Solver solves rounds. Make it by New.
type Solver struct {
	seed, rng uint64
	off       []bool // hard atoms that Explain has set aside, by index in Policy.Atoms

	pol   *model.Policy
	bound *model.Policy // the policy whose atom lists are below
	in    *model.Instance

	nodes  int
	procs  int
	vars   []model.Vars // load by node
	items  []item
	procOf map[int64]int32

	tiers    []tierAtoms
	rowTiers []int
	rows     []*model.Atom // goals of kind Row
	hardRows []*model.Atom
	hardLoad []*model.Atom
	hardCell []*model.Atom
	cells    []*model.Atom
	loads    []loadGoal
	extremes []loadGoal
	groups   []grouping
	loose    bool // some constraint is evaluated as a whole
	uniform  bool // no row atom tells cores from slices

	slack  []int64 // by hardLoad × node
	top    []int64 // by extreme: the present maximum
	cellX  []cell  // by process × node
	filled []int32 // by process: its cells that are not empty
	live   []tierAtoms
	allow  [][]bool  // by class
	cost   [][]int64 // by class × rowTiers; nil is zero
	base   [][]int64 // by rowTiers: costs of the ByNode atoms; nil is zero
	baseOK []bool    // hard ByNode atoms
	stable []bool    // those of them that are Stable, for the nodes in health
	health []model.Node
	shared map[int64][]int64
	ints   arena[int64]
	bools  arena[bool]
	near   []int32 // nodes at which the sparse atoms of an item differ from the rest
	mark   []int32
	stamp  int32
	free   [][2]int64 // weight of a free core and slice of each node, in shares of 2^−20
	affine bool       // some goal wants the units of a process at few nodes
	paired bool       // some goal wants as many as possible of them at one node
	isBest bool       // the present assignment is the best known one
	proved bool       // the greedy solution is known to be optimal
	heap   []int32    // nodes, the one with the least score first
	score  []Vector   // by node

	value Vector
	order []int32
	best  saved
	undo  saved
	parts []model.Part
	bb    search
	chk   checker
	lb    bounder
}

type cell struct {
	x, held [2]int32
}

// arena hands out slices that live until reset.
type arena[T any] struct {
	buf  []T
	used int
}

func (a *arena[T]) reset() { a.used = 0 }

func (a *arena[T]) take(n int) []T {
	if a.used+n > len(a.buf) {
		a.buf = make([]T, max(2*len(a.buf), n, 1024))
		a.used = 0
	}
	s := a.buf[a.used : a.used+n : a.used+n]
	a.used += n
	return s
}

// New makes a solver; equal seeds give equal results.
func New(seed uint64) *Solver {
	return &Solver{seed: seed, procOf: map[int64]int32{}, shared: map[int64][]int64{}}
}

// Solve finds a solution of in under p within the budget and leaves it in out. Requests that find no place are in
// out.Refused; they never fail the others. The error is a bad budget, an instance out of its limits, or a
// solution that the independent checker refuses, which is a fault of this package: nothing may be committed then.
func (s *Solver) Solve(p *model.Policy, in *model.Instance, b Budget, out *Solution) error {
	if err := b.valid(); err != nil {
		return err
	}
	if err := in.Prepare(p); err != nil {
		return err
	}
	start := int64(0)
	if b.Clock != nil {
		start = b.Clock()
	}
	s.bind(p, in)
	s.rng = model.Mix(s.seed ^ uint64(in.Number)<<1 | 1)
	out.Iterations = 0
	s.greedy()
	out.Bound = s.lb.root
	if !s.provedBy(&out.Bound) && !s.within(b.Gap, &out.Bound) {
		s.improve(b, start, out)
		s.isBest = false
	}
	if !s.isBest {
		s.restore(&s.best)
	}
	if s.loose {
		s.repairLoose()
	}
	s.export(out)
	if out.Status = Feasible; s.provedBy(&out.Bound) {
		out.Status = Optimal
	}
	if err := s.chk.check(p, in, out); err != nil {
		return fmt.Errorf("the solver broke a constraint, nothing is granted: %w", err)
	}
	return nil
}

// provedBy says that no solution is less than the best known one.
func (s *Solver) provedBy(bound *Vector) bool {
	return (s.proved || s.best.value.Compare(bound) <= 0) && !s.loose
}

// within says that the best known solution is as close to the bound as the budget asks for.
func (s *Solver) within(gap float64, bound *Vector) bool {
	if gap <= 0 || s.loose || s.best.value[0] > bound[0] {
		return false
	}
	for t := range bound {
		if d := s.best.value[t] - bound[t]; d > 0 && float64(d) > gap*float64(max(bound[t], -bound[t], 1)) {
			return false
		}
	}
	return true
}

func (s *Solver) export(out *Solution) {
	out.Cost = s.value
	out.Parts, out.Refused = out.Parts[:0], out.Refused[:0]
	for i := range s.items {
		it := &s.items[i]
		if it.out {
			out.Refused = append(out.Refused, int32(i))
			continue
		}
		for _, p := range it.parts {
			out.Parts = append(out.Parts, model.Part{Item: int32(i), Node: p.node, Cores: p.x[0], Slices: p.x[1]})
		}
	}
}

func (s *Solver) random(n int) int {
	s.rng ^= s.rng << 13
	s.rng ^= s.rng >> 7
	s.rng ^= s.rng << 17
	return int((s.rng >> 11) % uint64(n))
}

// resize gives a slice of n zero values, reusing buf where it is long enough.
func resize[T any](buf []T, n int) []T {
	if cap(buf) < n {
		return make([]T, n, n+n/2)
	}
	buf = buf[:n]
	clear(buf)
	return buf
}
