package model

// Coefficients of a certified form are bounded so that costs cannot overflow: a square of at most MaxSlices,
// at most MaxDkernels times.
const (
	maxSquare = 1 << 10
	maxCoef   = 1 << 20
)

// atomOf recognises the atom of a constraint. What it does not recognise is loose.
func atomOf(p *Policy, s *statement) (Atom, error) {
	a := Atom{Name: s.name, Pos: s.pos, Hard: s.goal == Check, Sign: 1, stmt: s}
	if !a.Hard {
		a.Tier = s.tier
	}
	if s.goal == Maximize {
		a.Sign = -1
	}
	a.Form.Div = -1
	top, decided := decidedTables(s)
	switch {
	case decided == 0:
		a.Kind, a.Why = Loose, "it reads the placement through a view"
	case decided == 1 && len(top) == 1 && s.sel.from[top[0]].rel.id == relPending:
		return pendingAtom(p, s, a, top[0])
	case decided == 1 && len(top) == 1 && len(s.sel.from) == 1:
		return formAtom(p, s, a)
	case decided == 2 && len(top) == 2 && len(s.sel.from) == 2 && bothPending(s):
		return pairAtom(s, a)
	default:
		a.Kind, a.Why = Loose, "it combines several relations that depend on the placement"
	}
	return a, nil
}

// decidedTables gives the places in the outer FROM that are built-in decided relations, and the number of
// decided relations in the whole statement. A decided view counts as several.
func decidedTables(s *statement) (top []int, n int) {
	count := func(sel *selectExpr) {
		for i := range sel.from {
			if r := sel.from[i].rel; r.Decided {
				n++
				if r.view != nil {
					n += 2
				}
			}
		}
	}
	count(s.sel)
	f := func(e expr) bool {
		switch e := e.(type) {
		case *in:
			if e.sub != nil {
				count(e.sub)
			}
		case *exists:
			count(e.sub)
		case *scalar:
			count(e.sub)
		}
		return true
	}
	walkSelect(s.sel, f)
	walk(s.expr, f)
	for i := range s.sel.from {
		if r := s.sel.from[i].rel; r.Decided && r.view == nil {
			top = append(top, i)
		}
	}
	return top, n
}

func bothPending(s *statement) bool {
	return s.sel.from[0].rel.id == relPending && s.sel.from[1].rel.id == relPending
}

// pendingAtom handles statements over pending and relations that do not depend on the decisions.
func pendingAtom(p *Policy, s *statement, a Atom, at int) (Atom, error) {
	a.slot = s.sel.slots[at]
	if usesColumn(s, a.slot, pendID) {
		a.Kind, a.Why = Loose, "it tells rows of one request apart by pending.id"
		return a, nil
	}
	if len(s.sel.groupBy) == 0 && !hasAggregate(s.expr) {
		a.Kind = Row
		a.Reach = reachOf(s, a.slot)
		var uses uint32
		markUses(&uses, s)
		a.Stable = a.Reach == ByNode && uses&^(1<<relPending|1<<relHealth) == 0 && !usesCall(s, "random")
		return a, nil
	}
	if c, ok := s.expr.(*call); ok && c.name == "capacity_constraint" && len(s.sel.groupBy) == 0 {
		return capacityAtom(s, a, c)
	}
	return groupAtom(s, a)
}

func usesCall(s *statement, name string) bool {
	found := false
	f := func(e expr) bool {
		c, ok := e.(*call)
		found = found || ok && c.name == name
		return !found
	}
	walkSelect(s.sel, f)
	walk(s.expr, f)
	return found
}

func usesColumn(s *statement, slot, idx int) bool {
	found := false
	f := func(e expr) bool {
		if c, ok := e.(*column); ok && c.slot == slot && c.idx == idx {
			found = true
		}
		return !found
	}
	walkSelect(s.sel, f)
	walk(s.expr, f)
	return found
}

// groupAtom recognises all_different, all_equal, increasing and count(DISTINCT) of the decision over the rows of
// each process or request.
func groupAtom(s *statement, a Atom) (Atom, error) {
	loose := func(why string) (Atom, error) { a.Kind, a.Why = Loose, why; return a, nil }
	if len(s.sel.from) != 1 || s.sel.having != nil {
		return loose("grouped rows of several relations; write it over load or held")
	}
	c, ok := s.expr.(*call)
	if !ok || len(c.args) != 1 || !isDecision(c.args[0]) {
		return loose("an aggregate other than of controllable__dkernel; write it over load or held")
	}
	byRequest, byProcess, byResource := false, false, false
	for _, g := range s.sel.groupBy {
		k, ok := g.(*column)
		switch {
		case ok && k.idx == pendRequest:
			byRequest = true
		case ok && k.idx == pendProcess:
			byProcess = true
		case ok && k.idx == pendResource:
			byResource = true
		default:
			return loose("groups other than processes and requests")
		}
	}
	if !byRequest && !byProcess {
		return loose("one group of all rows")
	}
	a.ByRequest = byRequest
	if c.name == "increasing" && byRequest && byResource {
		a.Kind = Symmetry
		return a, nil
	}
	if byResource {
		return loose("groups by resource; put resource into WHERE")
	}
	for _, f := range conjuncts(nil, s.sel.where) {
		if touchesDecision(f) {
			return loose("WHERE depends on the placement")
		}
		a.filter = append(a.filter, compileExpr(f))
	}
	switch {
	case c.name == "all_different" && a.Hard:
		a.Kind = Different
	case c.name == "all_equal" && a.Hard:
		a.Kind = Equal
	case c.name == "count" && c.distinct && !a.Hard:
		a.Kind, a.Weight = Span, a.Sign
		if a.Sign < 0 {
			a.Why = "maximising the dkernels of a group has no bound; MINIMIZE pairs instead"
		}
	default:
		return loose("this use of " + c.name)
	}
	return a, nil
}

func isDecision(e expr) bool {
	c, ok := e.(*column)
	return ok && c.col.Decision
}

func touchesDecision(e expr) bool {
	found := false
	walk(e, func(e expr) bool {
		found = found || isDecision(e)
		return !found
	})
	return found
}

// capacityAtom turns DCM's capacity_constraint into a condition on the load.
func capacityAtom(s *statement, a Atom, c *call) (Atom, error) {
	a.Kind, a.Why = Loose, "a capacity_constraint other than of cores and slices per dkernel"
	if !a.Hard || !isDecision(c.args[0]) || s.sel.where != nil && touchesDecision(s.sel.where) || len(s.sel.from) != 2 {
		return a, nil
	}
	demand, ok1 := c.args[2].(*column)
	supply, ok2 := c.args[3].(*column)
	dom, ok3 := c.args[1].(*column)
	if !ok1 || !ok2 || !ok3 || dom.idx != 0 || dom.rel.id != relUnallocated || supply.rel.id != relUnallocated ||
		demand.rel.id != relPending || s.sel.where != nil || s.sel.from[1].on != nil {
		return a, nil
	}
	v, t := VarCores, VarTotalCores
	if demand.idx == pendSlices && supply.name == "slices" {
		v, t = VarSlices, VarTotalSlices
	} else if demand.idx != pendCores || supply.name != "cores" {
		return a, nil
	}
	a.Kind, a.Why = Load, ""
	a.Form.Lin.Coef[v], a.Form.Lin.Coef[t] = 1, -1
	return a, nil
}

// formAtom handles statements over held alone or load alone.
func formAtom(p *Policy, s *statement, a Atom) (Atom, error) {
	rel := s.sel.from[0].rel
	a.Kind = Cell
	if rel.id == relLoad {
		a.Kind = Load
	}
	e := s.expr
	if c, ok := e.(*call); ok && isAggregate(c.name) && len(s.sel.groupBy) == 0 && !a.Hard {
		switch {
		case c.name == "sum":
			e = c.args[0]
		case c.name == "count" && c.star:
			e = &literal{pos: c.pos, typ: Int, num: 1}
		case a.Kind == Load && s.sel.where == nil && (c.name == "max" && a.Sign > 0 || c.name == "min" && a.Sign < 0):
			// The cost of MAXIMIZE min(x) is max(−x).
			a.Kind, e = Extreme, c.args[0]
		}
	}
	// Grouping held by process and adding up or counting is the same sum.
	if a.Kind == Cell && !a.Hard && s.sel.having == nil && len(s.sel.groupBy) > 0 {
		if c, ok := e.(*call); ok && (c.name == "count" && c.star || c.name == "sum") {
			e = &literal{pos: c.pos, typ: Int, num: 1}
			if c.name == "sum" {
				e = c.args[0]
			}
		}
	} else if len(s.sel.groupBy) > 0 {
		a.Kind, a.Why = Loose, "this grouping of "+rel.Name
		return a, nil
	}
	if hasAggregate(e) {
		a.Kind, a.Why = Loose, "this aggregate of "+rel.Name
		return a, nil
	}
	if a.Hard {
		return hardForm(s, a, e, rel)
	}
	f, ok := toForm(e, s.sel.where, rel, a.Sign)
	if !ok {
		a.Why = "not a quadratic function with conditions"
		f = slowForm(p, s, e, rel, a.Sign)
	}
	a.Form = f
	if a.Kind == Extreme && (!ok || !monotone(&f)) {
		a.Kind, a.Why = Loose, "the extreme of a function that may fall while the load rises"
	}
	return a, nil
}

// hardForm wants a condition that, once broken by a growing load, stays broken: lin ≤ 0 with no negative
// coefficient of what grows.
func hardForm(s *statement, a Atom, e expr, rel *Relation) (Atom, error) {
	a.Why = ""
	loose := func() (Atom, error) {
		a.Kind, a.Why = Loose, "a CHECK that more load can repair, or that is not linear"
		return a, nil
	}
	b, ok := e.(*binary)
	if !ok || s.sel.where != nil {
		return loose()
	}
	l, ok1 := toLinear(b.l, rel)
	r, ok2 := toLinear(b.r, rel)
	if !ok1 || !ok2 {
		return loose()
	}
	switch b.op {
	case ">=", ">":
		l, r = r, l
	case "<=", "<":
	default:
		return loose()
	}
	l = addLinear(l, r, -1)
	if b.op == "<" || b.op == ">" {
		l.Const++
	}
	if l.Coef[VarCores] < 0 || l.Coef[VarSlices] < 0 || l.Coef[VarNew] != 0 || !inRange(&l) {
		return loose()
	}
	a.Form.Lin = l
	return a, nil
}

// monotone says that the form cannot fall while cores and slices rise.
func monotone(f *Form) bool {
	return len(f.Guards) == 0 && f.Lin.Coef[VarCores] >= 0 && f.Lin.Coef[VarSlices] >= 0 && f.Square[0] >= 0 && f.Square[1] >= 0
}

func inRange(l *Linear) bool {
	for _, c := range l.Coef {
		if c > maxCoef || c < -maxCoef {
			return false
		}
	}
	return l.Const <= saturated>>16 && l.Const >= -saturated>>16
}
