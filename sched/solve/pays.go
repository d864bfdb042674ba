package solve

import "dinos/sched/model"

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
