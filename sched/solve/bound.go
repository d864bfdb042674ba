package solve

import (
	"slices"

	"dinos/sched/model"
)

// bounder holds the buffers of lowerBound.
type bounder struct {
	root  Vector
	room  [2][]int64 // free units of the nodes that take anything, descending
	sum   [2][]int64 // prefix sums of room
	open  [][2]int64 // free units by node
	left  [][2]int64 // unplaced units by process
	first []int32    // an item of each process
	costs []int64
	flow  []flow
	sizes []int64 // of processes that must be whole
	nows  []int64 // of the nodes that take anything
	need  []int64 // dkernels that each process must be at, by its spread and apart requests
}

// opens recognises a cell atom that costs a constant for each dkernel newly used by a process.
func opens(a *model.Atom) bool {
	f := &a.Form
	if !f.Exact() || len(f.Guards) != 1 || f.Div >= 0 || f.Square != [2]int64{} || f.Lin.Const <= 0 {
		return false
	}
	g := &f.Guards[0]
	var isNew model.Linear
	isNew.Coef[model.VarNew] = 1
	return g.Test == model.NotZero && g.Lin == isNew && f.Lin == model.Linear{Const: f.Lin.Const}
}

// notNegative says that the form is never less than zero.
func notNegative(f *model.Form) bool {
	if !f.Exact() || f.Lin.Const < 0 || f.Square[0] < 0 || f.Square[1] < 0 {
		return false
	}
	for _, c := range f.Lin.Coef {
		if c < 0 {
			return false
		}
	}
	return true
}

// rises says that the form cannot fall while cores and slices rise.
func rises(f *model.Form) bool {
	if !f.Exact() || f.Lin.Coef[0] < 0 || f.Lin.Coef[1] < 0 || f.Square[0] < 0 || f.Square[1] < 0 {
		return false
	}
	for i := range f.Guards {
		g := &f.Guards[i]
		if g.Test != model.NotNegative || g.Lin.Coef[0] < 0 || g.Lin.Coef[1] < 0 {
			return false
		}
		// A guard that comes true must not bring a negative value.
		if !notNegative(f) {
			return false
		}
	}
	return true
}

// lowerBound fills b with a vector that no completion of the present assignment is less than. What is placed stays,
// what is left of the items that are out comes in or is refused, items that are gone stay refused. Each tier has the
// sum of the bounds of its atoms; such vectors are bounds because lexicographic order is kept by addition. If some
// of the items must be refused, which ones is open and so is the cost of the rest: tiers are then Unbounded.
func (s *Solver) lowerBound(b *Vector) {
	s.boundRooms()
	*b = Vector{}
	low := s.refusedLow()
	b[0] = low
	for i := range s.items {
		if s.items[i].gone {
			b[0]++
		}
	}
	for k := range s.tiers {
		t := &s.tiers[k]
		if b[t.tier] = Unbounded; low == 0 {
			b[t.tier] = s.tierLow(t)
		}
	}
}

// below says whether some completion of the present assignment may be less than v. It looks at no more tiers than
// that takes.
func (s *Solver) below(v *Vector) bool {
	s.boundRooms()
	low := s.refusedLow()
	b := low
	for i := range s.items {
		if s.items[i].gone {
			b++
		}
	}
	if b != v[0] || low > 0 {
		return b < v[0] || b == v[0] && low > 0
	}
	for k := range s.tiers {
		t := &s.tiers[k]
		if b := s.tierLow(t); b != v[t.tier] {
			return b < v[t.tier]
		}
	}
	return false
}

// rest is what item i still wants.
func (s *Solver) rest(i int) [2]int64 {
	it := &s.items[i]
	if !it.out || it.gone {
		return [2]int64{}
	}
	x := it.want
	for _, p := range it.parts {
		x[0] -= int64(p.x[0])
		x[1] -= int64(p.x[1])
	}
	return x
}

// boundRooms computes what is free without the assignment of items that are out.
func (s *Solver) boundRooms() {
	l := &s.lb
	l.open = resize(l.open, s.nodes)
	l.left = resize(l.left, s.procs)
	l.first = resize(l.first, s.procs)
	for d := range l.open {
		if s.baseOK[d] {
			v := &s.vars[d]
			l.open[d] = [2]int64{max(0, v[model.VarTotalCores]-v[model.VarCores]), max(0, v[model.VarTotalSlices]-v[model.VarSlices])}
		}
	}
	for i := len(s.items) - 1; i >= 0; i-- {
		g := s.items[i].group
		l.first[g] = int32(i)
		x := s.rest(i)
		l.left[g][0] += x[0]
		l.left[g][1] += x[1]
	}
	for r := range 2 {
		l.room[r] = resize(l.room[r], s.nodes)
		for d := range l.open {
			l.room[r][d] = l.open[d][r]
		}
		slices.Sort(l.room[r])
		slices.Reverse(l.room[r])
		l.sum[r] = resize(l.sum[r], s.nodes+1)
		for d, n := range l.room[r] {
			l.sum[r][d+1] = l.sum[r][d] + n
		}
	}
}

// refusedLow is the number of requests that must stay out for want of room: the largest ones first.
func (s *Solver) refusedLow() int64 {
	low := int64(0)
	for r := range 2 {
		free, want := s.lb.sum[r][s.nodes], int64(0)
		s.lb.costs = s.lb.costs[:0]
		for i := range s.items {
			if x := s.rest(i)[r]; x > 0 {
				want += x
				s.lb.costs = append(s.lb.costs, x)
			}
		}
		if want <= free {
			continue
		}
		slices.Sort(s.lb.costs)
		n := int64(0)
		for ; want > free; n++ {
			want -= s.lb.costs[len(s.lb.costs)-1-int(n)]
		}
		low = max(low, n)
	}
	return low
}

func (s *Solver) tierLow(t *tierAtoms) int64 {
	low := int64(0)
	if t.row >= 0 {
		low += s.rowLow(t.row)
	}
	for _, g := range t.groups {
		low += s.groupsLow(&s.groups[g])
	}
	for _, a := range t.cells {
		low += s.cellsLow(a)
	}
	for _, g := range t.loads {
		low += s.loadLow(&s.loads[g])
	}
	for _, g := range t.extremes {
		low += s.extremeLow(g)
	}
	if low < Unbounded>>4 {
		return Unbounded
	}
	return low
}

const noBound = Unbounded >> 2

// rowLow bounds a row tier: what is placed, and for each unit that is not its cheapest node with room.
func (s *Solver) rowLow(k int) int64 {
	low := int64(0)
	for i := range s.items {
		it, rest := &s.items[i], s.rest(i)
		for r := range 2 {
			row := s.cost[(2*i+r)*len(s.rowTiers)+k]
			if row == nil {
				continue
			}
			low += s.fillCheapest(row, s.allow[2*i+r], r, rest[r])
			for _, p := range it.parts {
				low += int64(p.x[r]) * row[p.node]
			}
		}
	}
	return low
}

// fillCheapest is the least cost of n units of resource r with costs by node, alone in the system.
func (s *Solver) fillCheapest(row []int64, ok []bool, r int, n int64) int64 {
	cost, last, first := int64(0), int64(0), true
	for n > 0 {
		// The next cost above last, and the room at the nodes that have it.
		next, room, found := int64(0), int64(0), false
		for d, c := range row {
			if !ok[d] || !first && c <= last {
				continue
			}
			switch {
			case !found || c < next:
				next, room, found = c, s.lb.open[d][r], true
			case c == next:
				room += s.lb.open[d][r]
			}
		}
		if !found {
			return min(cost, 0) // it does not fit; it will be refused and cost nothing here
		}
		take := min(n, room)
		cost += take * next
		n -= take
		last, first = next, false
	}
	return cost
}

func (s *Solver) groupsLow(gr *grouping) int64 {
	now := int64(0)
	for g := range gr.total {
		if gr.total[g] == 0 {
			continue
		}
		for _, n := range gr.n[g*s.nodes : (g+1)*s.nodes] {
			now += gr.change(0, int64(n))
		}
	}
	if gr.Kind == model.Span && gr.Weight > 0 {
		return now
	}
	if gr.Kind == model.Span {
		return noBound
	}
	low := now
	for g := range gr.total {
		rest, most, item := s.groupLeft(gr, g)
		n := rest[0] + rest[1]
		switch {
		case n == 0:
		case gr.Weight < 0 && gr.total[g] == 0:
			low += gr.Weight * s.freshPairs(rest, most)
		case gr.Weight < 0:
			low += gr.Weight * s.morePairs(gr, g, n, most)
		case gr.total[g] == 0:
			low += gr.Weight * evenPairs(n, s.allowedBy(gr, item))
		}
	}
	return low
}

// groupLeft counts the rows of a group that are not placed, and how many of them can be at one node at most.
func (s *Solver) groupLeft(gr *grouping, g int) (rest, most [2]int64, item int) {
	if gr.ByRequest {
		s.addLeft(gr, g, &rest, &most)
		return rest, most, g
	}
	if s.lb.left[g] == [2]int64{} {
		return rest, most, -1
	}
	for i := int(s.lb.first[g]); i < len(s.items); i++ {
		if int(s.items[i].group) == g {
			s.addLeft(gr, i, &rest, &most)
			item = i
		}
	}
	return rest, most, item
}

func (s *Solver) addLeft(gr *grouping, i int, rest, most *[2]int64) {
	x := s.rest(i)
	for r := range 2 {
		if !gr.covers[2*i+r] {
			continue
		}
		rest[r] += x[r]
		if r == 0 && s.items[i].apart {
			x[r] = min(x[r], 1)
		}
		most[r] += x[r]
	}
}

func (s *Solver) allowedBy(gr *grouping, item int) int64 {
	if gr.ByRequest {
		return s.allowed(item)
	}
	return int64(s.nodes)
}

// freshPairs bounds from above the pairs of rows that have no node yet. Cores go to the largest rooms for cores first
// and slices to the largest rooms for slices, and the k-th of either stand together for the k-th node: the sum of
// sorted sequences majorises every sum of them, and a sum of squares rises with majorisation.
func (s *Solver) freshPairs(rest, most [2]int64) int64 {
	pairs := int64(0)
	for d := 0; d < s.nodes && rest != [2]int64{}; d++ {
		k := int64(0)
		for r := range 2 {
			x := min(rest[r], most[r], s.lb.room[r][d])
			rest[r] -= x
			k += x
		}
		pairs += k * (k - 1)
	}
	return pairs
}

// morePairs bounds from above the pairs that rest more rows can add to a group: the fullest possible nodes first,
// each with what it has of the group and what it has room for.
func (s *Solver) morePairs(gr *grouping, g int, n int64, rest [2]int64) int64 {
	have := gr.n[g*s.nodes : (g+1)*s.nodes]
	pairs, last := int64(0), int64(1)<<62
	total := n
	for _, h := range have {
		total += int64(h)
		pairs -= int64(h) * (int64(h) - 1)
	}
	// The sum of k² over nodes with k ≤ cap and Σ k = total is greatest when the largest caps are filled.
	for left := total; left > 0; {
		top, count := int64(0), int64(0)
		for d, h := range have {
			c := int64(h) + min(rest[0], s.lb.open[d][0]) + min(rest[1], s.lb.open[d][1])
			switch {
			case c >= last:
			case c > top:
				top, count = c, 1
			case c == top:
				count++
			}
		}
		if top == 0 {
			break
		}
		for ; count > 0 && left > 0; count-- {
			k := min(top, left)
			pairs += k * (k - 1)
			left -= k
		}
		last = top
	}
	return pairs
}

func (s *Solver) cellsLow(a *model.Atom) int64 {
	if opens(a) {
		return s.openLow(a)
	}
	if !notNegative(&a.Form) {
		return noBound
	}
	// What processes hold that ask for nothing more cannot change.
	low := int64(0)
	for g := range s.procs {
		if s.lb.left[g] != [2]int64{} {
			continue // more may come
		}
		for d := range s.nodes {
			c := &s.cellX[g*s.nodes+d]
			low += s.cellValue(a, c, c.x)
		}
	}
	return low
}

// openLow bounds the number of dkernels that processes must newly use.
func (s *Solver) openLow(a *model.Atom) int64 {
	s.distinctNeeds(a.Tier)
	low := int64(0)
	for g := range s.procs {
		left := s.lb.left[g]
		if left == [2]int64{} && s.value[0] == int64(len(s.items)) {
			continue // nothing is placed and nothing is wanted
		}
		cells := s.cellX[g*s.nodes : (g+1)*s.nodes]
		now, here := int64(0), int64(0)
		for d := range cells {
			c := &cells[d]
			if c.x == [2]int32{} {
				continue
			}
			here++
			if c.held == [2]int32{} {
				now++
			}
			left[0] -= min(left[0], s.lb.open[d][0])
			left[1] -= min(left[1], s.lb.open[d][1])
		}
		low += a.Form.Lin.Const * (now + max(s.nodesFor(cells, left), s.lb.need[g]-here))
	}
	return low
}

// distinctNeeds computes how many dkernels each process must be at because cores of a request are apart, or spread by
// a goal of an earlier tier: a solution in which that goal is not at its bound is more than the bound anyway.
func (s *Solver) distinctNeeds(tier int) {
	s.lb.need = resize(s.lb.need, s.procs)
	for i := range s.items {
		it := &s.items[i]
		n := s.rest(i)[0]
		if n == 0 {
			continue
		}
		for g := range s.groups {
			gr := &s.groups[g]
			if !gr.covers[2*i] || gr.covers[2*i+1] || !gr.ByRequest {
				continue
			}
			if gr.Kind == model.Different || gr.Kind == model.Pair && gr.Weight > 0 && gr.Tier < tier && len(it.parts) == 0 {
				s.lb.need[it.group] = max(s.lb.need[it.group], min(n, s.allowed(i)))
			}
		}
	}
}

// nodesFor is a lower bound of the number of nodes that hold left units besides those of cells.
func (s *Solver) nodesFor(cells []cell, left [2]int64) int64 {
	if left == [2]int64{} {
		return 0
	}
	need := int64(1)
	for r := range 2 {
		k, _ := slices.BinarySearch(s.lb.sum[r], left[r])
		if k > s.nodes {
			return 0 // it does not fit; something will be refused
		}
		need = max(need, int64(k))
	}
	if need > 1 {
		return need
	}
	for d := range cells {
		if cells[d].x == [2]int32{} && s.lb.open[d][0] >= left[0] && s.lb.open[d][1] >= left[1] {
			return 1
		}
	}
	return 2
}
