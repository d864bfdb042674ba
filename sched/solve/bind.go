package solve

import "dinos/sched/model"

// bindPolicy sorts the atoms of a policy by what they need.
func (s *Solver) bindPolicy(p *model.Policy) {
	s.bound = p
	s.health = s.health[:0]
	s.tiers, s.rowTiers, s.rows = s.tiers[:0], s.rowTiers[:0], s.rows[:0]
	s.hardRows, s.hardLoad, s.hardCell, s.cells = s.hardRows[:0], s.hardLoad[:0], s.hardCell[:0], s.cells[:0]
	s.loads, s.extremes, s.groups = s.loads[:0], s.extremes[:0], s.groups[:0]
	s.loose, s.uniform = false, true
	for i := range p.Atoms {
		if a := &p.Atoms[i]; a.Kind == model.Row && a.Reach != model.ByNode && a.ByResource() {
			s.uniform = false
		}
	}
	for t := 1; t < model.MaxTiers; t++ {
		ta := tierAtoms{tier: t, row: -1}
		for i := range p.Atoms {
			if a := &p.Atoms[i]; !a.Hard && a.Tier == t {
				s.bindGoal(&ta, a)
			}
		}
		if ta.row >= 0 || len(ta.cells)+len(ta.loads)+len(ta.extremes)+len(ta.groups) > 0 {
			s.tiers = append(s.tiers, ta)
		}
	}
	for i := range p.Atoms {
		a := &p.Atoms[i]
		if !a.Hard || i < len(s.off) && s.off[i] {
			continue
		}
		switch a.Kind {
		case model.Row:
			s.hardRows = append(s.hardRows, a)
		case model.Load:
			s.hardLoad = append(s.hardLoad, a)
		case model.Cell:
			s.hardCell = append(s.hardCell, a)
		case model.Different, model.Equal:
			s.groups = append(s.groups, grouping{Atom: a})
		case model.Loose:
			s.loose = true
		}
	}
}

func (s *Solver) bindGoal(ta *tierAtoms, a *model.Atom) {
	switch a.Kind {
	case model.Row:
		if ta.row < 0 {
			ta.row = len(s.rowTiers)
			s.rowTiers = append(s.rowTiers, ta.tier)
		}
		s.rows = append(s.rows, a)
	case model.Cell:
		ta.cells = append(ta.cells, a)
		s.cells = append(s.cells, a)
	case model.Load:
		ta.loads = append(ta.loads, len(s.loads))
		s.loads = append(s.loads, formOf(a))
	case model.Extreme:
		ta.extremes = append(ta.extremes, len(s.extremes))
		s.extremes = append(s.extremes, formOf(a))
	case model.Pair, model.Span:
		ta.groups = append(ta.groups, len(s.groups))
		s.groups = append(s.groups, grouping{Atom: a})
	case model.Loose:
		s.loose = true
	}
}

// bind loads an instance: empty assignment, all items out.
func (s *Solver) bind(p *model.Policy, in *model.Instance) {
	if s.bound != p {
		s.bindPolicy(p)
	}
	s.pol, s.in, s.nodes = p, in, len(in.Nodes)
	s.value = Vector{}
	s.bindItems()
	s.bindNodes()
	s.ints.reset()
	s.bools.reset()
	s.bindBase()
	n := len(in.Items)
	s.allow = resize(s.allow, 2*n)
	s.cost = resize(s.cost, 2*n*len(s.rowTiers))
	for i := range in.Items {
		s.bindRows(i)
	}
	s.bindGroups()
	s.free = resize(s.free, s.nodes)
	for d := range s.free {
		n := &in.Nodes[d]
		s.free[d] = [2]int64{1 << 20 / max(n.Cores, 1), 1 << 20 / max(n.Slices, 1)}
	}
	s.affine, s.paired = false, false
	for k := range s.tiers {
		s.affine = s.affine || len(s.tiers[k].cells) > 0
		for _, g := range s.tiers[k].groups {
			s.paired = s.paired || s.groups[g].Weight < 0
		}
	}
}

func (s *Solver) bindItems() {
	n := len(s.in.Items)
	for len(s.items) < n {
		s.items = append(s.items, item{})
	}
	s.items = s.items[:n]
	clear(s.procOf)
	s.procs = 0
	for i := range s.items {
		m := &s.in.Items[i]
		g, ok := s.procOf[m.Process]
		if !ok {
			g = int32(s.procs)
			s.procOf[m.Process] = g
			s.procs++
		}
		it := &s.items[i]
		it.want = [2]int64{m.Cores, m.Slices}
		it.group, it.apart, it.parts, it.out = g, m.Shape == model.Apart, it.parts[:0], true
		it.gone, it.tied = false, false
	}
	s.value[0] = int64(n)
	s.cellX = s.cellX[:0]
	s.filled = resize(s.filled, s.procs)
	if len(s.cells)+len(s.hardCell) == 0 {
		return
	}
	s.cellX = resize(s.cellX, s.procs*s.nodes)
	if s.in.Held == nil {
		return
	}
	next := int32(0) // groups are numbered in the order of their first item
	for i := range s.items {
		if s.items[i].group == next {
			next++
			s.bindHeld(int(s.items[i].group), s.in.Items[i].Process)
		}
	}
}

func (s *Solver) bindHeld(g int, process int64) {
	at := s.in.Held.Find(process)
	if at < 0 {
		return
	}
	for rows := s.in.Held.CellsAt(at); len(rows) >= 4; rows = rows[4:] {
		if d := s.in.Rank(rows[1]); d >= 0 {
			x := [2]int32{int32(rows[2]), int32(rows[3])}
			c := &s.cellX[g*s.nodes+d]
			*c = cell{x, x}
			if x != [2]int32{} {
				s.filled[g]++
			}
			for _, a := range s.cells {
				s.value[a.Tier] += s.cellValue(a, c, x)
			}
		}
	}
}

func (s *Solver) bindNodes() {
	s.vars = resize(s.vars, s.nodes)
	for d := range s.vars {
		n := &s.in.Nodes[d]
		v := &s.vars[d]
		v[model.VarCores], v[model.VarSlices] = n.UsedCores, n.UsedSlices
		v[model.VarTotalCores], v[model.VarTotalSlices] = n.Cores, n.Slices
	}
	s.slack = resize(s.slack, len(s.hardLoad)*s.nodes)
	for h, a := range s.hardLoad {
		for d := range s.vars {
			s.slack[h*s.nodes+d] = -a.Form.Lin.Eval(&s.vars[d])
		}
	}
	for g := range s.loads {
		l := &s.loads[g]
		l.now = resize(l.now, s.nodes)
		for d := range s.vars {
			l.now[d] = l.Form.Eval(&s.vars[d])
			s.value[l.Tier] += l.now[d]
		}
	}
	s.top = resize(s.top, len(s.extremes))
	for g := range s.extremes {
		l := &s.extremes[g]
		l.now = resize(l.now, s.nodes)
		for d := range s.vars {
			l.now[d] = l.Form.Eval(&s.vars[d])
		}
		s.top[g] = maximum(l.now)
		s.value[l.Tier] += s.top[g]
	}
}

func maximum(xs []int64) int64 {
	if len(xs) == 0 {
		return 0
	}
	m := xs[0]
	for _, x := range xs {
		m = max(m, x)
	}
	return m
}

// bindBase evaluates the row atoms that depend on the node alone.
func (s *Solver) bindBase() {
	s.base = resize(s.base, len(s.rowTiers))
	clear(s.shared)
	if len(s.items) == 0 {
		s.baseOK = resize(s.baseOK, s.nodes)
		return
	}
	if !s.sameNodes() {
		s.stable = resize(s.stable, s.nodes)
		for d := range s.stable {
			s.stable[d] = true
		}
		for _, a := range s.hardRows {
			if a.Stable {
				s.narrow(s.stable, a)
			}
		}
	}
	s.baseOK = append(s.baseOK[:0], s.stable...)
	for _, a := range s.hardRows {
		if a.Reach == model.ByNode && !a.Stable {
			s.narrow(s.baseOK, a)
		}
	}
	for k, t := range s.rowTiers {
		for _, a := range s.rows {
			if a.Tier != t || a.Reach != model.ByNode {
				continue
			}
			if s.base[k] == nil {
				s.base[k] = s.ints.take(s.nodes)
				clear(s.base[k])
			}
			for d := range s.nodes {
				s.base[k][d] += s.pol.RowValue(a, s.in, 0, 0, d)
			}
		}
	}
}

func (s *Solver) narrow(ok []bool, a *model.Atom) {
	for d := range ok {
		ok[d] = ok[d] && s.pol.RowValue(a, s.in, 0, 0, d) != 0
	}
}

// sameNodes says whether the nodes are those of the last round, in the same health, and remembers them.
func (s *Solver) sameNodes() bool {
	same := len(s.health) == s.nodes
	for d := range s.nodes {
		n := s.in.Nodes[d]
		n.UsedCores, n.UsedSlices = 0, 0
		if same && s.health[d] == n {
			continue
		}
		if same {
			s.health = s.health[:d]
			same = false
		} else if d == 0 {
			s.health = s.health[:0]
		}
		s.health = append(s.health, n)
	}
	return same
}

// bindRows evaluates the row atoms of the two classes of item i. Where an atom is sparse, only the nodes that the
// request names or the process is at are visited, and one of the others stands for the rest.
func (s *Solver) bindRows(i int) {
	s.nearNodes(i)
	for r := range 2 {
		class := 2*i + r
		if s.items[i].want[r] == 0 {
			s.allow[class] = s.baseOK
			continue
		}
		if r == 1 && s.items[i].want[0] > 0 && s.uniform {
			s.allow[class] = s.allow[class-1]
			copy(s.cost[class*len(s.rowTiers):(class+1)*len(s.rowTiers)], s.cost[(class-1)*len(s.rowTiers):])
			continue
		}
		s.allow[class] = s.hardRow(i, r)
		for k := range s.rowTiers {
			s.cost[class*len(s.rowTiers)+k] = s.costRow(i, r, k)
		}
	}
}

// nearNodes lists the nodes at which the sparse atoms of item i may differ from the rest.
func (s *Solver) nearNodes(i int) {
	if len(s.mark) < s.nodes {
		s.mark = make([]int32, s.nodes)
		s.stamp = 0
	}
	s.stamp++
	s.near = s.near[:0]
	m := &s.in.Items[i]
	for _, id := range m.Pins {
		s.addNear(id)
	}
	for _, id := range m.Near {
		s.addNear(id)
	}
	if m.Home != 0 {
		s.addNear(m.Home)
	}
	if s.in.Held == nil {
		return
	}
	if at := s.in.Held.Find(m.Process); at >= 0 {
		for rows := s.in.Held.CellsAt(at); len(rows) >= 4; rows = rows[4:] {
			s.addNear(rows[1])
		}
	}
}

func (s *Solver) addNear(id int64) {
	if d := s.in.Rank(id); d >= 0 && s.mark[d] != s.stamp {
		s.mark[d] = s.stamp
		s.near = append(s.near, int32(d))
	}
}

// far is a node that is not among near, −1 for none.
func (s *Solver) far() int {
	for d := range s.nodes {
		if s.mark[d] != s.stamp {
			return d
		}
	}
	return -1
}

func (s *Solver) hardRow(i, r int) []bool {
	row := s.baseOK
	own := func() []bool {
		if &row[0] == &s.baseOK[0] {
			row = s.bools.take(s.nodes)
			copy(row, s.baseOK)
		}
		return row
	}
	for _, a := range s.hardRows {
		switch a.Reach {
		case model.Dense:
			for d := range s.nodes {
				if s.pol.RowValue(a, s.in, i, r, d) == 0 {
					own()[d] = false
				}
			}
		case model.Sparse:
			if d := s.far(); d >= 0 && s.pol.RowValue(a, s.in, i, r, d) == 0 {
				row := own()
				for d := range row {
					row[d] = row[d] && s.mark[d] == s.stamp
				}
			}
			for _, d := range s.near {
				if s.pol.RowValue(a, s.in, i, r, int(d)) == 0 {
					own()[d] = false
				}
			}
		}
	}
	return row
}

func (s *Solver) costRow(i, r, k int) []int64 {
	rest, dense := int64(0), false
	far := s.far()
	for _, a := range s.rows {
		if a.Tier != s.rowTiers[k] {
			continue
		}
		if a.Reach == model.Sparse && far >= 0 {
			rest += s.pol.RowValue(a, s.in, i, r, far)
		}
		dense = dense || a.Reach == model.Dense
	}
	if !dense && len(s.near) == 0 {
		return s.sharedRow(k, rest)
	}
	row := s.ints.take(s.nodes)
	if s.base[k] != nil {
		copy(row, s.base[k])
	} else {
		clear(row)
	}
	for d := range row {
		if s.mark[d] != s.stamp {
			row[d] += rest
		}
	}
	for _, a := range s.rows {
		if a.Tier != s.rowTiers[k] {
			continue
		}
		switch a.Reach {
		case model.Sparse:
			for _, d := range s.near {
				row[d] += s.pol.RowValue(a, s.in, i, r, int(d))
			}
		case model.Dense:
			s.pol.AddRowValues(a, s.in, i, r, row)
		}
	}
	return row
}

// sharedRow is one row of costs for all classes that have no node of their own.
func (s *Solver) sharedRow(k int, rest int64) []int64 {
	if rest == 0 {
		return s.base[k]
	}
	key := rest<<3 | int64(k)
	row, ok := s.shared[key]
	if !ok {
		row = s.ints.take(s.nodes)
		for d := range row {
			row[d] = rest
			if s.base[k] != nil {
				row[d] += s.base[k][d]
			}
		}
		s.shared[key] = row
	}
	return row
}

func (s *Solver) bindGroups() {
	for g := range s.groups {
		gr := &s.groups[g]
		n := s.procs
		if gr.ByRequest {
			n = len(s.items)
		}
		gr.n = resize(gr.n, n*s.nodes)
		gr.total = resize(gr.total, n)
		gr.covers = resize(gr.covers, 2*len(s.items))
		for i := range s.items {
			for r := range 2 {
				gr.covers[2*i+r] = s.items[i].want[r] > 0 && s.pol.Covers(gr.Atom, s.in, i, r)
				s.items[i].tied = s.items[i].tied || gr.Hard && gr.covers[2*i+r]
			}
		}
	}
}

// group is the index of item i's group in gr.
func (s *Solver) group(gr *grouping, i int) int {
	if gr.ByRequest {
		return i
	}
	return int(s.items[i].group)
}
