package solve

import "dinos/sched/model"

// cellValue is what an atom says of a cell that holds x. A cell without anything is no row.
func (s *Solver) cellValue(a *model.Atom, c *cell, x [2]int32) int64 {
	if x[0] == 0 && x[1] == 0 {
		return 0
	}
	var v model.Vars
	v[model.VarCores], v[model.VarSlices] = int64(x[0]), int64(x[1])
	if c.held[0] == 0 && c.held[1] == 0 {
		v[model.VarNew] = 1
	}
	return a.Form.Eval(&v)
}

// apply adds x units of item i to node d, or takes them away where x is negative, and keeps value.
func (s *Solver) apply(i, d int, x [2]int64) {
	v := &s.vars[d]
	for h, a := range s.hardLoad {
		s.slack[h*s.nodes+d] -= a.Form.Lin.Coef[model.VarCores]*x[0] + a.Form.Lin.Coef[model.VarSlices]*x[1]
	}
	v[model.VarCores] += x[0]
	v[model.VarSlices] += x[1]
	for g := range s.loads {
		l := &s.loads[g]
		n := l.Form.Eval(v)
		s.value[l.Tier] += n - l.now[d]
		l.now[d] = n
	}
	for g := range s.extremes {
		l := &s.extremes[g]
		old := l.now[d]
		l.now[d] = l.Form.Eval(v)
		top := s.top[g]
		if l.now[d] >= top {
			top = l.now[d]
		} else if old == top {
			top = maximum(l.now)
		}
		s.value[l.Tier] += top - s.top[g]
		s.top[g] = top
	}
	for k, t := range s.rowTiers {
		for r := range 2 {
			if row := s.cost[(2*i+r)*len(s.rowTiers)+k]; row != nil && x[r] != 0 {
				s.value[t] += x[r] * row[d]
			}
		}
	}
	if len(s.cellX) > 0 {
		c := &s.cellX[int(s.items[i].group)*s.nodes+d]
		after := [2]int32{c.x[0] + int32(x[0]), c.x[1] + int32(x[1])}
		for _, a := range s.cells {
			s.value[a.Tier] += s.cellValue(a, c, after) - s.cellValue(a, c, c.x)
		}
		if g := s.items[i].group; c.x == [2]int32{} && after != c.x {
			s.filled[g]++
		} else if after == [2]int32{} && after != c.x {
			s.filled[g]--
		}
		c.x = after
	}
	for g := range s.groups {
		s.applyGroup(&s.groups[g], i, d, x)
	}
}

// covered is how many of the units x of item i a grouping counts.
func (gr *grouping) covered(i int, x [2]int64) int64 {
	n := int64(0)
	if gr.covers[2*i] {
		n = x[0]
	}
	if gr.covers[2*i+1] {
		n += x[1]
	}
	return n
}

func (s *Solver) applyGroup(gr *grouping, i, d int, x [2]int64) {
	m := gr.covered(i, x)
	if m == 0 {
		return
	}
	g := s.group(gr, i)
	p := &gr.n[g*s.nodes+d]
	old := int64(*p)
	*p += int32(m)
	gr.total[g] += int32(m)
	if !gr.Hard {
		s.value[gr.Tier] += gr.change(old, old+m)
	}
}

// change is the cost of going from a to b rows at one node.
func (gr *grouping) change(a, b int64) int64 {
	if gr.Kind == model.Pair {
		return gr.Weight * (b*(b-1) - a*(a-1))
	}
	switch {
	case a == 0 && b > 0:
		return gr.Weight
	case a > 0 && b == 0:
		return -gr.Weight
	}
	return 0
}

// room is how many more units of each resource item i could have at node d, up to want. The second number is
// computed as if the first were used, so that both can be had together.
func (s *Solver) room(i, d int, want [2]int64) [2]int64 {
	x := want
	for r := range 2 {
		if x[r] > 0 && !s.allow[2*i+r][d] {
			x[r] = 0
		}
	}
	for h, a := range s.hardLoad {
		x = limit(x, s.slack[h*s.nodes+d], &a.Form.Lin)
	}
	if len(s.hardCell) > 0 {
		c := &s.cellX[int(s.items[i].group)*s.nodes+d]
		var v model.Vars
		v[model.VarCores], v[model.VarSlices] = int64(c.x[0]), int64(c.x[1])
		for _, a := range s.hardCell {
			x = limit(x, -a.Form.Lin.Eval(&v), &a.Form.Lin)
		}
	}
	for g := range s.groups {
		if gr := &s.groups[g]; gr.Hard {
			x = s.groupRoom(gr, i, d, x)
		}
	}
	return x
}

// fits says whether all of want has room at node d.
func (s *Solver) fits(i, d int, want [2]int64) bool {
	if want[0] > 0 && !s.allow[2*i][d] || want[1] > 0 && !s.allow[2*i+1][d] {
		return false
	}
	for h, a := range s.hardLoad {
		if k := &a.Form.Lin.Coef; s.slack[h*s.nodes+d] < k[0]*want[0]+k[1]*want[1] {
			return false
		}
	}
	if len(s.hardCell) == 0 && !s.items[i].tied {
		return true
	}
	return s.room(i, d, want) == want
}

// limit cuts x to what a linear condition with this slack allows.
func limit(x [2]int64, slack int64, l *model.Linear) [2]int64 {
	if slack < 0 {
		return [2]int64{} // broken before the round: what changes the row must repair it, and more cannot
	}
	for r := range 2 {
		if k := l.Coef[r]; k > 0 {
			if slack < k*x[r] {
				x[r] = max(slack, 0) / k
			}
			slack -= k * x[r]
		}
	}
	return x
}

func (s *Solver) groupRoom(gr *grouping, i, d int, x [2]int64) [2]int64 {
	g := s.group(gr, i)
	here := gr.n[g*s.nodes+d]
	left := int64(1 << 30)
	switch {
	case gr.Kind == model.Different:
		left = int64(1 - here)
	case gr.Kind == model.Equal && gr.total[g] > here:
		left = 0
	}
	for r := range 2 {
		if gr.covers[2*i+r] {
			x[r] = min(x[r], left)
			left -= x[r]
		}
	}
	return x
}

// delta is the change of one tier's cost if item i had x more at node d.
func (s *Solver) delta(ta *tierAtoms, i, d int, x [2]int64) int64 {
	sum := int64(0)
	if ta.row >= 0 {
		at := 2*i*len(s.rowTiers) + ta.row
		if row := s.cost[at]; row != nil {
			sum = x[0] * row[d]
		}
		if row := s.cost[at+len(s.rowTiers)]; row != nil {
			sum += x[1] * row[d]
		}
	}
	for _, g := range ta.groups {
		gr := &s.groups[g]
		if m := gr.covered(i, x); m > 0 {
			old := int64(gr.n[s.group(gr, i)*s.nodes+d])
			sum += gr.change(old, old+m)
		}
	}
	if len(ta.cells) > 0 {
		c := &s.cellX[int(s.items[i].group)*s.nodes+d]
		after := [2]int32{c.x[0] + int32(x[0]), c.x[1] + int32(x[1])}
		for _, a := range ta.cells {
			sum += s.cellValue(a, c, after) - s.cellValue(a, c, c.x)
		}
	}
	if len(ta.loads)+len(ta.extremes) == 0 {
		return sum
	}
	v := &s.vars[d]
	for _, g := range ta.loads {
		l := &s.loads[g]
		sum += l.after(v, x) - l.now[d]
	}
	for _, g := range ta.extremes {
		sum += max(0, s.extremes[g].after(v, x)-s.top[g])
	}
	return sum
}

// remove takes item i out of the assignment.
func (s *Solver) remove(i int) {
	it := &s.items[i]
	if it.out {
		return
	}
	for _, p := range it.parts {
		s.apply(i, int(p.node), [2]int64{-int64(p.x[0]), -int64(p.x[1])})
	}
	it.parts, it.out = it.parts[:0], true
	s.value[0]++
}

// put adds x units of item i at node d and notes the part. The item stays out until settle.
func (s *Solver) put(i, d int, x [2]int64) {
	s.apply(i, d, x)
	it := &s.items[i]
	for k := range it.parts {
		if p := &it.parts[k]; p.node == int32(d) {
			p.x[0] += int32(x[0])
			p.x[1] += int32(x[1])
			return
		}
	}
	it.parts = append(it.parts, part{int32(d), [2]int32{int32(x[0]), int32(x[1])}})
}

func (s *Solver) settle(i int) {
	s.items[i].out = false
	s.value[0]--
}

// unput undoes all puts of an item that has not settled.
func (s *Solver) unput(i int) {
	it := &s.items[i]
	for _, p := range it.parts {
		s.apply(i, int(p.node), [2]int64{-int64(p.x[0]), -int64(p.x[1])})
	}
	it.parts = it.parts[:0]
}

// saved is a copy of the parts of some items.
type saved struct {
	value Vector
	items []int32
	ends  []int32 // of the parts of each item
	out   []bool
	parts []part
}

// save copies the parts of the items; none means all.
func (s *Solver) save(to *saved, items []int32) {
	to.value = s.value
	to.items, to.ends, to.out, to.parts = to.items[:0], to.ends[:0], to.out[:0], to.parts[:0]
	if items == nil {
		for i := range s.items {
			to.add(s, int32(i))
		}
		return
	}
	for _, i := range items {
		to.add(s, i)
	}
}

func (to *saved) add(s *Solver, i int32) {
	it := &s.items[i]
	to.items = append(to.items, i)
	to.parts = append(to.parts, it.parts...)
	to.ends = append(to.ends, int32(len(to.parts)))
	to.out = append(to.out, it.out)
}

// restore brings the items of from back to what they were.
func (s *Solver) restore(from *saved) {
	for _, i := range from.items {
		s.remove(int(i))
	}
	begin := int32(0)
	for k, i := range from.items {
		if !from.out[k] {
			for _, p := range from.parts[begin:from.ends[k]] {
				s.put(int(i), int(p.node), [2]int64{int64(p.x[0]), int64(p.x[1])})
			}
			s.settle(int(i))
		}
		begin = from.ends[k]
	}
}
