package solve

import "dinos/sched/model"

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
	if len(s.score) < s.nodes {
		s.score = make([]Vector, s.nodes)
	}
	s.emptiest(i, r, int((left[r]+unit[r]-1)/unit[r]))
	n := 0
	for _, d := range s.heap {
		if s.rate(i, int(d), unit) {
			s.heap[n] = d
			n++
		}
	}
	s.heap = s.heap[:n]
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

// emptiest leaves in s.heap the nodes to consider for n pieces: all of them, or where many only differ by their
// load, a few times as many as there are pieces, those with the most room.
func (s *Solver) emptiest(i, r, n int) {
	s.heap = s.heap[:0]
	most := 4*n + 16
	if most >= s.nodes || s.hasCells(i) || len(s.rowTiers) > 0 && s.rowed(i) {
		for d := range s.nodes {
			s.heap = append(s.heap, int32(d))
		}
		return
	}
	// A heap of the nodes chosen so far, the fullest first.
	ok := s.allow[2*i+r]
	fuller := [...]func(s *Solver, a, b int32) bool{fullerCores, fullerSlices}[r]
	for d := range s.nodes {
		switch {
		case !ok[d]:
		case len(s.heap) < most:
			s.heap = append(s.heap, int32(d))
			for k := len(s.heap) - 1; k > 0 && fuller(s, s.heap[k], s.heap[(k-1)/2]); k = (k - 1) / 2 {
				s.heap[k], s.heap[(k-1)/2] = s.heap[(k-1)/2], s.heap[k]
			}
		case fuller(s, s.heap[0], int32(d)):
			s.heap[0] = int32(d)
			s.sinkBy(0, fuller)
		}
	}
}

func fullerCores(s *Solver, a, b int32) bool  { return s.roomFor(0, a) < s.roomFor(0, b) }
func fullerSlices(s *Solver, a, b int32) bool { return s.roomFor(1, a) < s.roomFor(1, b) }

// roomFor is the free share of a resource at a node, in 2^−20.
func (s *Solver) roomFor(r int, d int32) int64 {
	v := &s.vars[d]
	return (v[model.VarTotalCores+r] - v[r]) * s.free[d][r]
}

// rowed says that item i has costs that depend on the node.
func (s *Solver) rowed(i int) bool {
	for _, row := range s.cost[2*i*len(s.rowTiers) : (2*i+2)*len(s.rowTiers)] {
		if row != nil {
			return true
		}
	}
	return false
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
func (s *Solver) sink(k int) { s.sinkBy(k, (*Solver).before) }

func (s *Solver) sinkBy(k int, before func(s *Solver, a, b int32) bool) {
	h := s.heap
	for {
		c := 2*k + 1
		if c >= len(h) {
			return
		}
		if c+1 < len(h) && before(s, h[c+1], h[c]) {
			c++
		}
		if !before(s, h[c], h[k]) {
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
