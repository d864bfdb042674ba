package solve

import "dinos/sched/model"

// Instances of at most this many items × nodes are searched exhaustively within the budget.
const (
	smallInstance = 96
	smallNodes    = 16
)

// visitsPerIteration makes a visit of the branch and bound, which is cheaper, count as a part of an iteration of the
// large-neighbourhood search.
const visitsPerIteration = 8

// search is the state of the branch and bound.
type search struct {
	visits, limit int
	stop          bool
	order         []int32
}

// clocked tells when the budget is spent.
type clocked struct {
	b     Budget
	start int64
}

func (c *clocked) over(done int) bool {
	if c.b.Iterations > 0 && done >= c.b.Iterations {
		return true
	}
	return c.b.Clock != nil && c.b.Nanos > 0 && c.b.Clock()-c.start >= c.b.Nanos
}

// improve spends the budget on a better solution or a proof. On return s.best is the best solution known.
func (s *Solver) improve(b Budget, start int64, out *Solution) {
	c := clocked{b, start}
	n := len(s.items)
	if s.loose {
		s.best.value = s.looseValue()
		s.save(&s.best, nil)
		s.best.value = s.looseValue()
	}
	s.restore(&s.best)
	small := n*s.nodes <= smallInstance && s.nodes <= smallNodes && !s.loose
	if small {
		if n > 1 {
			s.neighbourhoods(&c, out, 16)
		}
		if !s.provedBy(&out.Bound) && s.exhaust(&c, out) {
			out.Bound = s.best.value
			return
		}
		s.restore(&s.best)
	}
	if n > 1 || s.loose {
		s.neighbourhoods(&c, out, 0)
	}
}

// looseValue is the cost with that of the loose constraints; one that is broken counts as a refused request each.
func (s *Solver) looseValue() Vector {
	v := s.value
	if !s.loose {
		return v
	}
	s.parts = s.parts[:0]
	for i := range s.items {
		for _, p := range s.items[i].parts {
			s.parts = append(s.parts, model.Part{Item: int32(i), Node: p.node, Cores: p.x[0], Slices: p.x[1]})
		}
	}
	o := s.pol.EvaluateLoose(s.in, s.parts)
	for _, x := range o.Violations {
		if !s.setAside(x.Constraint) {
			v[0] += int64(x.Rows) * int64(len(s.items)+1)
		}
	}
	for t := range o.Cost {
		v[t] += o.Cost[t]
	}
	return v
}

// repairLoose refuses requests until no loose constraint is broken: first those without which fewer rows break one.
func (s *Solver) repairLoose() {
	for {
		bad := s.looseValue()[0] - s.value[0]
		if bad == 0 {
			break
		}
		last := -1
		for i := len(s.items) - 1; i >= 0; i-- {
			if s.items[i].out {
				continue
			}
			last = i
			one := [1]int32{int32(i)}
			s.save(&s.undo, one[:])
			s.remove(i)
			if s.looseValue()[0]-s.value[0] < bad {
				last = -1
				break
			}
			s.restore(&s.undo)
		}
		if last >= 0 {
			s.remove(last)
		}
	}
	s.best.value = s.looseValue()
	s.value = s.best.value
}

func (s *Solver) setAside(name string) bool {
	for i := range s.off {
		if s.off[i] && s.pol.Atoms[i].Name == name {
			return true
		}
	}
	return false
}

// neighbourhoods takes a few requests out and puts them back in another order, and keeps what is not worse. most
// bounds the iterations further; 0 does not.
func (s *Solver) neighbourhoods(c *clocked, out *Solution, most int) {
	s.restore(&s.best)
	now := s.looseValue()
	upTo := s.plateau()
	for n := 0; most == 0 || n < most; n++ {
		if c.over(out.Iterations) || !s.loose && s.best.value.Compare(&out.Bound) <= 0 {
			return
		}
		out.Iterations++
		s.pick()
		s.save(&s.undo, s.order)
		for _, i := range s.order {
			s.remove(int(i))
		}
		how := manner(s.random(2))
		if s.random(4) > 0 {
			s.sortBySize(s.order, true)
		}
		for _, i := range s.order {
			if !s.loose || s.random(8) > 0 {
				s.place(int(i), how, s.random(s.nodes))
			}
		}
		v := s.looseValue()
		limit := upTo
		if n&3 == 3 {
			limit = model.MaxTiers - 1
		}
		if worse(&v, &now, limit) {
			s.restore(&s.undo)
			continue
		}
		now = v
		if v.Compare(&s.best.value) < 0 {
			s.save(&s.best, nil)
			s.best.value = v
			upTo = s.plateau()
			if s.within(c.b.Gap, &out.Bound) {
				return
			}
		}
	}
}

// plateau is the last tier that a walk must not make worse: the first goal about more than the load that is not at its
// bound, or the last tier. Free in the tiers after it, the walk finds its way around more easily.
func (s *Solver) plateau() int {
	if s.best.value[0] > s.lb.root[0] {
		return 0
	}
	for k := range s.tiers {
		t := &s.tiers[k]
		if (t.row >= 0 || len(t.cells)+len(t.groups) > 0) && s.best.value[t.tier] > s.lb.root[t.tier] {
			return t.tier
		}
	}
	return model.MaxTiers - 1
}

// worse compares the tiers up to one.
func worse(a, b *Vector, upTo int) bool {
	for t := range upTo + 1 {
		if a[t] != b[t] {
			return a[t] > b[t]
		}
	}
	return false
}

// pick chooses the requests of the next neighbourhood and leaves them in s.order, shuffled: all that are out and
// some at random, or some that share a node with one that could be better placed.
func (s *Solver) pick() {
	n := len(s.items)
	want := min(n, 2+s.random(5))
	s.order = s.order[:0]
	first := s.random(n)
	if s.value[0] > 0 || s.random(2) == 0 {
		// Begin with one that is out or in pieces, if the walk from a random place meets one.
		for k := range n {
			i := (first + k) % n
			if it := &s.items[i]; it.out || len(it.parts) > 1 {
				first = i
				break
			}
		}
	}
	s.order = append(s.order, int32(first))
	node := int32(s.random(s.nodes))
	if ps := s.items[first].parts; len(ps) > 0 && s.random(2) == 0 {
		node = ps[s.random(len(ps))].node
	}
	if len(s.extremes) > 0 && s.random(2) == 0 {
		node = s.fullest(s.random(len(s.extremes)))
		first = s.userOf(node, first)
		s.order[0] = int32(first)
	}
	together := s.random(3) > 0
	start := s.random(n)
	for k := 0; k < n && len(s.order) < want; k++ {
		i := (start + k) % n
		if i != first && (!together || s.uses(i, node)) {
			s.order = append(s.order, int32(i))
		}
	}
	for k := 0; k < n && len(s.order) < min(want, 2); k++ {
		if i := (start + k) % n; i != first {
			s.order = append(s.order, int32(i))
		}
	}
	for k := len(s.order) - 1; k > 0; k-- {
		j := s.random(k + 1)
		s.order[k], s.order[j] = s.order[j], s.order[k]
	}
}

// fullest is the node at which an extreme is reached.
func (s *Solver) fullest(g int) int32 {
	for d, x := range s.extremes[g].now {
		if x == s.top[g] {
			return int32(d)
		}
	}
	return 0
}

// userOf is an item at a node, or i where there is none.
func (s *Solver) userOf(node int32, i int) int {
	for k := range s.items {
		if j := (i + k) % len(s.items); s.uses(j, node) {
			return j
		}
	}
	return i
}

func (s *Solver) uses(i int, node int32) bool {
	for _, p := range s.items[i].parts {
		if p.node == node {
			return true
		}
	}
	return false
}

// exhaust is a branch and bound over all distributions of all requests; true says that s.best is optimal.
func (s *Solver) exhaust(c *clocked, out *Solution) bool {
	b := &s.bb
	b.visits, b.stop = 0, false
	b.limit = 1 << 62
	if c.b.Iterations > 0 {
		b.limit = (c.b.Iterations - out.Iterations) * visitsPerIteration
	}
	s.clear()
	b.order = b.order[:0]
	for i := range s.items {
		b.order = append(b.order, int32(i))
	}
	s.sortBySize(b.order, true)
	s.branch(c, 0)
	for i := range s.items {
		s.items[i].gone = false
	}
	out.Iterations += b.visits / visitsPerIteration
	return !b.stop
}

// visit counts and says whether to go on below the present partial assignment.
func (s *Solver) visit(c *clocked) bool {
	b := &s.bb
	b.visits++
	if b.visits > b.limit || b.visits%4 == 0 && c.over(0) {
		b.stop = true
	}
	if b.stop {
		return false
	}
	return s.below(&s.best.value)
}

// branch tries all placements of the items from the k-th on.
func (s *Solver) branch(c *clocked, k int) {
	if k == len(s.bb.order) {
		if s.value.Compare(&s.best.value) < 0 {
			s.save(&s.best, nil)
		}
		return
	}
	if !s.visit(c) {
		return
	}
	i := int(s.bb.order[k])
	s.distribute(c, k, 0, s.items[i].want)
	if s.bb.stop || s.items[i].want == [2]int64{} {
		return
	}
	s.items[i].gone = true
	s.branch(c, k+1)
	s.items[i].gone = false
}

// distribute tries all ways to put left of the k-th item on the nodes from d on.
func (s *Solver) distribute(c *clocked, k, d int, left [2]int64) {
	i := int(s.bb.order[k])
	it := &s.items[i]
	if left == [2]int64{} {
		s.settle(i)
		s.branch(c, k+1)
		it.out = true
		s.value[0]++
		return
	}
	if d == s.nodes || s.bb.stop {
		return
	}
	most := s.room(i, d, [2]int64{left[0], 0})[0]
	for x0 := most; x0 >= 0; x0-- {
		x1 := s.room(i, d, [2]int64{x0, left[1]})[1]
		for ; x1 >= 0 && !s.bb.stop; x1-- {
			x := [2]int64{x0, x1}
			if x == ([2]int64{}) {
				s.distribute(c, k, d+1, left)
				continue
			}
			s.apply(i, d, x)
			it.parts = append(it.parts, part{int32(d), [2]int32{int32(x0), int32(x1)}})
			rest := [2]int64{left[0] - x0, left[1] - x1}
			if rest == ([2]int64{}) || s.visit(c) {
				s.distribute(c, k, d+1, rest)
			}
			it.parts = it.parts[:len(it.parts)-1]
			s.apply(i, d, [2]int64{-x0, -x1})
		}
	}
}
