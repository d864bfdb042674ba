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
			if how = bestFit; len(s.ownTiers()) == 0 {
				continue // every goal is about the load, which best fit sets aside
			}
		}
		for _, i := range s.order {
			s.place(int(i), how, 0)
		}
		if s.isBest = pass == 0 || s.value.Compare(&s.best.value) < 0; s.isBest {
			s.save(&s.best, nil)
		}
		if n == 1 || s.enough() {
			break
		}
		if pass < 2 {
			s.isBest = false
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
	even := s.evenPays(i)
	for {
		ok := s.split(i, even, from)
		if ok && (d < 0 || s.value.Compare(&v) < 0) {
			s.settle(i)
			return true
		}
		s.unput(i)
		if ok || !even {
			break
		}
		even = false
	}
	if d < 0 {
		return false
	}
	s.put(i, d, it.want)
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
