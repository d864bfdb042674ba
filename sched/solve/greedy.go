package solve

import (
	"cmp"
	"slices"

	"dinos/sched/model"
)

// manner is how a greedy pass breaks ties and how it orders requests.
type manner uint8

const (
	// byPolicy follows the tiers to the end. bestFit stops at the tiers that are about single requests and then
	// prefers the node with the least room left, which keeps room for large requests.
	byPolicy manner = iota
	bestFit
)

// greedy builds up to three solutions, keeps the best, and leaves it in s.best: descending size by the policy's
// tiers, descending by best fit, and ascending. Later ones are skipped when the bound shows there is no need.
func (s *Solver) greedy() {
	n := len(s.items)
	s.order = resize(s.order, n)
	for i := range s.order {
		s.order[i] = int32(i)
	}
	s.sortBySize(s.order, true)
	s.lowerBound(&s.lb.root)
	s.proved = false
	for pass := range 3 {
		if pass == 2 {
			slices.Reverse(s.order)
		}
		how := byPolicy
		if pass == 1 {
			how = bestFit
		}
		for _, i := range s.order {
			s.place(int(i), how, 0)
		}
		if pass == 0 || s.value.Compare(&s.best.value) < 0 {
			s.save(&s.best, nil)
		}
		if n == 1 || s.enough() {
			break
		}
		if pass < 2 {
			s.clear()
		}
	}
}

// enough says that other orders would not help: the goals that are about more than the load are at their bounds, and
// the search that follows is better than another pass at the rest.
func (s *Solver) enough() bool {
	if s.loose || s.best.value[0] > s.lb.root[0] {
		return false
	}
	own := s.ownTiers()
	if len(own) == 0 {
		own = s.tiers
	}
	for k := range own {
		if t := own[k].tier; s.best.value[t] > s.lb.root[t] {
			return false
		}
	}
	return true
}

func (s *Solver) clear() {
	for i := range s.items {
		s.remove(i)
	}
}

// sortBySize orders items by their share of a node, those with fewer choices first among equals.
func (s *Solver) sortBySize(order []int32, descending bool) {
	sign := 1
	if descending {
		sign = -1
	}
	slices.SortStableFunc(order, func(a, b int32) int {
		if c := sign * cmp.Compare(s.size(int(a)), s.size(int(b))); c != 0 {
			return c
		}
		return cmp.Compare(len(s.in.Items[b].Pins), len(s.in.Items[a].Pins))
	})
}

// size is a request's larger share, of the cores or the slices of a node, in 1/2^20.
func (s *Solver) size(i int) int64 {
	w := s.items[i].want
	var c, m int64 = 1, 1
	if s.nodes > 0 {
		c, m = max(s.in.Nodes[0].Cores, 1), max(s.in.Nodes[0].Slices, 1)
	}
	return max(w[0]<<20/c, w[1]<<20/m)
}

// place puts item i where it costs least; false leaves it out. from is where the scan of the nodes begins, which
// breaks ties.
func (s *Solver) place(i int, how manner, from int) bool {
	it := &s.items[i]
	if it.want == [2]int64{} {
		s.settle(i)
		return true
	}
	d, v := s.single(i, it.want, how, from)
	if d >= 0 && !s.splitPays(i, &v) {
		s.put(i, d, it.want)
		s.settle(i)
		// All single nodes have been compared, and no split is better.
		s.proved = len(s.items) == 1 && how == byPolicy
		return true
	}
	before := s.value
	if d >= 0 {
		v = addVector(&before, &v)
	}
	tried := false
	even := s.evenPays(i)
	for range 2 {
		ok := s.split(i, even, from)
		if ok && (d < 0 || s.value.Compare(&v) < 0) {
			tried = true
			s.chose = s.chose[:0]
			s.keepParts(i)
		}
		s.unput(i)
		if ok || !even {
			break
		}
		even = false
	}
	switch {
	case tried:
		s.takeParts(i)
	case d >= 0:
		s.put(i, d, it.want)
	default:
		return false
	}
	s.settle(i)
	return true
}

func addVector(a, b *Vector) Vector {
	var v Vector
	for t := range v {
		v[t] = a[t] + b[t]
	}
	return v
}

func (s *Solver) keepParts(i int) {
	for _, p := range s.items[i].parts {
		s.chose = append(s.chose, p.node, p.x[0], p.x[1])
	}
}

func (s *Solver) takeParts(i int) {
	for k := 0; k < len(s.chose); k += 3 {
		s.put(i, int(s.chose[k]), [2]int64{int64(s.chose[k+1]), int64(s.chose[k+2])})
	}
}

// single is the node at which all of want fits and costs least, with that cost; −1 where it fits nowhere.
func (s *Solver) single(i int, want [2]int64, how manner, from int) (int, Vector) {
	best := -1
	var bestV Vector
	tiers := s.active(i, how)
	var left int64
	for k := range s.nodes {
		d := k + from
		if d >= s.nodes {
			d -= s.nodes
		}
		if !s.fits(i, d, want) {
			continue
		}
		c := s.closer(tiers, i, d, want, &bestV, best < 0)
		if c > 0 {
			continue
		}
		// Among equals best fit takes the fullest node, the policy's manner the emptiest.
		l := s.leftover(d)
		if how == byPolicy {
			l = -l
		}
		if c == 0 && l >= left {
			continue
		}
		best, left = d, l
	}
	if best >= 0 {
		s.closer(s.tiers, i, best, want, &bestV, true)
	}
	return best, bestV
}

// active lists the tiers in which nodes may differ for item i: a process that is nowhere yet opens a dkernel
// wherever it goes, and a group without rows has no pairs anywhere.
func (s *Solver) active(i int, how manner) []tierAtoms {
	tiers := s.tiers
	if how == bestFit {
		tiers = s.ownTiers()
	}
	s.live = s.live[:0]
	for k := range tiers {
		t := &tiers[k]
		on := len(t.loads)+len(t.extremes) > 0 || len(t.cells) > 0 && s.hasCells(i)
		if t.row >= 0 && !on {
			at := 2*i*len(s.rowTiers) + t.row
			on = s.cost[at] != nil || s.cost[at+len(s.rowTiers)] != nil
		}
		for n := 0; n < len(t.groups) && !on; n++ {
			gr := &s.groups[t.groups[n]]
			on = gr.covered(i, s.items[i].want) > 0 && gr.total[s.group(gr, i)] > 0
		}
		if on {
			s.live = append(s.live, *t)
			l := &s.live[len(s.live)-1]
			if !s.hasCells(i) {
				l.cells = nil
			}
			quiet := true
			for _, g := range l.groups {
				gr := &s.groups[g]
				quiet = quiet && (gr.covered(i, s.items[i].want) == 0 || gr.total[s.group(gr, i)] == 0)
			}
			if quiet {
				l.groups = nil
			}
		}
	}
	return s.live
}

// leftover is the room of a node, both resources in shares of 2^−20.
func (s *Solver) leftover(d int) int64 {
	v, w := &s.vars[d], &s.free[d]
	return (v[model.VarTotalCores]-v[model.VarCores])*w[0] + (v[model.VarTotalSlices]-v[model.VarSlices])*w[1]
}

// ownTiers are the tiers up to the last that looks at more than the load.
func (s *Solver) ownTiers() []tierAtoms {
	n := 0
	for k := range s.tiers {
		if t := &s.tiers[k]; t.row >= 0 || len(t.cells)+len(t.groups) > 0 {
			n = k + 1
		}
	}
	return s.tiers[:n]
}

// closer compares the cost of x at node d with best: negative for less, 0 for equal, positive for more. Where it
// is less, or first is set, best becomes that cost.
func (s *Solver) closer(tiers []tierAtoms, i, d int, x [2]int64, best *Vector, first bool) int {
	less := first
	c := 0
	for k := range tiers {
		t := &tiers[k]
		v := s.delta(t, i, d, x)
		if !less {
			if v > best[t.tier] {
				return 1
			}
			if v < best[t.tier] {
				less, c = true, -1
			}
		}
		if less {
			best[t.tier] = v
		}
	}
	if first {
		return -1
	}
	return c
}

// splitPays says whether putting item i on several nodes could cost less than v, its cost at one.
func (s *Solver) splitPays(i int, v *Vector) bool {
	it := &s.items[i]
	if it.want[0]+it.want[1] <= 1 {
		return false
	}
	if it.apart && it.want[0] > 1 {
		return true
	}
	for k := range s.tiers {
		t := &s.tiers[k]
		low, strict := s.itemLow(t, i)
		if v[t.tier] > low {
			// Within the bound of the whole round there is nothing to gain in this tier, though no proof either.
			if len(s.items) == 1 || s.value[t.tier]+v[t.tier] > s.lb.root[t.tier] {
				return true
			}
		}
		if strict {
			return false
		}
	}
	return false
}

// itemLow is a lower bound of the change of a tier's cost by placing item i, and whether any split costs more
// than that bound.
func (s *Solver) itemLow(t *tierAtoms, i int) (low int64, strict bool) {
	it := &s.items[i]
	for r := range 2 {
		if t.row < 0 || it.want[r] == 0 {
			continue
		}
		if row := s.cost[(2*i+r)*len(s.rowTiers)+t.row]; row != nil {
			low += it.want[r] * s.cheapest(row, s.allow[2*i+r])
		}
	}
	for _, g := range t.groups {
		gr := &s.groups[g]
		n := gr.covered(i, it.want)
		if n == 0 {
			continue
		}
		l, st := s.groupLow(gr, i, n)
		low += l
		strict = strict || st
	}
	for _, a := range t.cells {
		if !opens(a) {
			low += s.cellLow(a)
			continue
		}
		if !s.hasCells(i) {
			low += a.Form.Lin.Const
			strict = true
		}
	}
	for _, g := range t.loads {
		if !rises(&s.loads[g].Form) {
			low = Unbounded >> 8
		}
	}
	return low, strict
}

func (s *Solver) cellLow(a *model.Atom) int64 {
	if notNegative(&a.Form) {
		return 0
	}
	return Unbounded >> 8
}

// groupLow bounds what n more rows of a group cost.
func (s *Solver) groupLow(gr *grouping, i int, n int64) (int64, bool) {
	g := s.group(gr, i)
	if gr.Kind == model.Span {
		return 0, false
	}
	if gr.Weight < 0 {
		all := int64(gr.total[g]) + n
		old := int64(gr.total[g])
		return gr.Weight * (all*(all-1) - old*(old-1)), n > 1 && old == 0
	}
	if gr.total[g] > 0 {
		return 0, false
	}
	return gr.Weight * evenPairs(n, s.allowed(i)), false
}

// evenPairs is the least number of ordered pairs at the same node of n rows over m nodes.
func evenPairs(n, m int64) int64 {
	if m == 0 {
		return 0
	}
	q, r := n/m, n%m
	return r*(q+1)*q + (m-r)*q*(q-1)
}

func (s *Solver) allowed(i int) int64 {
	n := int64(0)
	for d := range s.nodes {
		if s.allow[2*i][d] || s.allow[2*i+1][d] {
			n++
		}
	}
	return n
}

func (s *Solver) cheapest(row []int64, ok []bool) int64 {
	low, any := int64(0), false
	for d, c := range row {
		if ok[d] && (!any || c < low) {
			low, any = c, true
		}
	}
	return low
}

// hasCells says whether the process of item i holds something already.
func (s *Solver) hasCells(i int) bool { return s.filled[s.items[i].group] > 0 }

// evenPays says whether an even split is worth trying: some goal rewards it.
func (s *Solver) evenPays(i int) bool {
	it := &s.items[i]
	if it.apart && it.want[0] > 1 {
		return true
	}
	for k := range s.tiers {
		t := &s.tiers[k]
		for _, g := range t.groups {
			gr := &s.groups[g]
			n := gr.covered(i, it.want)
			switch {
			case n == 0:
			case gr.Kind == model.Pair && gr.Weight > 0:
				return true
			default:
				return false
			}
		}
		if len(t.cells) > 0 {
			return false
		}
		if len(t.loads)+len(t.extremes) > 0 || t.row >= 0 {
			return true
		}
	}
	return false
}

// split puts item i on several nodes: block by block, each the one that costs least a unit; or evenly, a few
// units at a time. It reports whether everything found a place; if not, what was put is still there.
func (s *Solver) split(i int, even bool, from int) bool {
	left := s.items[i].want
	if even {
		left = s.evenly(i, 0, left)
		switch {
		case s.paired: // what is left goes to one node below
			even = false
		case s.affine:
			left = s.follow(i, left)
		default:
			left = s.evenly(i, 1, left)
		}
	}
	for left[0]+left[1] > 0 {
		if !even {
			if d, _ := s.single(i, left, bestFit, from); d >= 0 {
				s.put(i, d, left)
				return true
			}
		}
		d, x := s.block(i, left, from)
		if d < 0 {
			return false
		}
		s.put(i, d, x)
		left[0] -= x[0]
		left[1] -= x[1]
	}
	return true
}

// evenly puts units of one resource where the next one costs least, with a heap of the nodes: after each step only
// the score of one node changes. Large requests go in pieces, so that the work stays in proportion to the nodes.
func (s *Solver) evenly(i, r int, left [2]int64) [2]int64 {
	if left[r] == 0 {
		return left
	}
	var unit [2]int64
	unit[r] = max(1, left[r]/(2*int64(s.nodes)+16))
	if s.items[i].apart && r == 0 {
		unit[r] = 1
	}
	s.heap = s.heap[:0]
	s.score = resize(s.score, s.nodes)
	for d := range s.nodes {
		if s.rate(i, d, unit) {
			s.heap = append(s.heap, int32(d))
		}
	}
	for k := len(s.heap)/2 - 1; k >= 0; k-- {
		s.sink(k)
	}
	for left[r] > 0 && len(s.heap) > 0 {
		d := int(s.heap[0])
		x := unit
		x[r] = min(x[r], left[r])
		s.put(i, d, x)
		left[r] -= x[r]
		if !s.rate(i, d, unit) {
			s.heap[0] = s.heap[len(s.heap)-1]
			s.heap = s.heap[:len(s.heap)-1]
		}
		s.sink(0)
	}
	return left
}

// rate computes the score of a node for x more units; false where they have no room.
func (s *Solver) rate(i, d int, x [2]int64) bool {
	if !s.fits(i, d, x) {
		return false
	}
	v := &s.score[d]
	for k := range s.tiers {
		v[s.tiers[k].tier] = s.delta(&s.tiers[k], i, d, x)
	}
	v[0] = 0
	return true
}

// sink restores the heap below place k.
func (s *Solver) sink(k int) {
	h := s.heap
	for {
		c := 2*k + 1
		if c >= len(h) {
			return
		}
		if c+1 < len(h) && s.before(h[c+1], h[c]) {
			c++
		}
		if !s.before(h[c], h[k]) {
			return
		}
		h[k], h[c] = h[c], h[k]
		k = c
	}
}

func (s *Solver) before(a, b int32) bool {
	c := s.score[a].Compare(&s.score[b])
	if c == 0 {
		la, lb := s.leftover(int(a)), s.leftover(int(b))
		return la > lb || la == lb && a < b
	}
	return c < 0
}

// follow puts slices where the cores of the item are, in proportion.
func (s *Solver) follow(i int, left [2]int64) [2]int64 {
	it := &s.items[i]
	cores := it.want[0] - left[0]
	for k := 0; k < len(it.parts) && left[1] > 0 && cores > 0; k++ {
		p := it.parts[k]
		share := (it.want[1]*int64(p.x[0]) + cores - 1) / cores
		x := s.room(i, int(p.node), [2]int64{0, min(share, left[1])})
		if x[1] > 0 {
			s.put(i, int(p.node), x)
			left[1] -= x[1]
		}
	}
	return left
}

// block is the node and the part of want that costs least a unit there; −1 where there is no room at all.
func (s *Solver) block(i int, want [2]int64, from int) (int, [2]int64) {
	best := -1
	var bestX [2]int64
	var bestV Vector
	for k := range s.nodes {
		d := k + from
		if d >= s.nodes {
			d -= s.nodes
		}
		x := s.room(i, d, want)
		n := x[0] + x[1]
		if n == 0 {
			continue
		}
		var v Vector
		worse, less := false, best < 0
		for t := range s.tiers {
			ta := &s.tiers[t]
			v[ta.tier] = s.delta(ta, i, d, x)
			if !less {
				a, b := v[ta.tier]*(bestX[0]+bestX[1]), bestV[ta.tier]*n
				if a > b {
					worse = true
					break
				}
				less = a < b
			}
		}
		if worse || !less && n <= bestX[0]+bestX[1] {
			continue
		}
		best, bestX, bestV = d, x, v
	}
	return best, bestX
}
