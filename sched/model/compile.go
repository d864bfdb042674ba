package model

import "fmt"

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

// variable is the Vars index of a column of held or load, −1 for dkernel and process.
func variable(c *column, rel *Relation) int {
	if rel.id == relHeld {
		switch c.idx {
		case heldCores:
			return VarCores
		case heldSlices:
			return VarSlices
		case heldNew:
			return VarNew
		}
		return -1
	}
	switch c.idx {
	case loadCores:
		return VarCores
	case loadSlices:
		return VarSlices
	case loadTotalCores:
		return VarTotalCores
	case loadTotalSlices:
		return VarTotalSlices
	}
	return -1
}

// quad is a polynomial during recognition.
type quad struct {
	lin Linear
	sq  [2]int64
}

func (q *quad) isConst() bool { return q.lin.constant() && q.sq == [2]int64{} }

func addLinear(a, b Linear, k int64) Linear {
	a.Const += k * b.Const
	for i := range a.Coef {
		a.Coef[i] += k * b.Coef[i]
	}
	return a
}

func toLinear(e expr, rel *Relation) (Linear, bool) {
	q, ok := toQuad(e, rel)
	return q.lin, ok && q.sq == [2]int64{}
}

// toQuad recognises sums and products of columns and numbers up to cores² and slices².
func toQuad(e expr, rel *Relation) (quad, bool) {
	var q quad
	switch e := e.(type) {
	case *literal:
		q.lin.Const = e.num
		return q, e.typ != Text
	case *column:
		v := variable(e, rel)
		if v < 0 {
			return q, false
		}
		q.lin.Coef[v] = 1
		return q, true
	case *unary:
		if e.op != "-" {
			return q, false
		}
		x, ok := toQuad(e.x, rel)
		return scaleQuad(x, -1), ok
	case *binary:
		l, ok1 := toQuad(e.l, rel)
		r, ok2 := toQuad(e.r, rel)
		if !ok1 || !ok2 {
			return q, false
		}
		return combine(e.op, l, r)
	}
	return q, false
}

func scaleQuad(q quad, k int64) quad {
	q.lin = addLinear(Linear{}, q.lin, k)
	q.sq[0] *= k
	q.sq[1] *= k
	return q
}

func combine(op string, l, r quad) (quad, bool) {
	switch op {
	case "+", "-":
		if op == "-" {
			r = scaleQuad(r, -1)
		}
		l.lin = addLinear(l.lin, r.lin, 1)
		l.sq[0] += r.sq[0]
		l.sq[1] += r.sq[1]
		return l, inRange(&l.lin)
	case "*":
		if r.isConst() {
			l, r = r, l
		}
		if l.isConst() {
			q := scaleQuad(r, l.lin.Const)
			return q, inRange(&q.lin) && max(q.sq[0], q.sq[1], -q.sq[0], -q.sq[1]) <= maxSquare
		}
		// k·v times m·v, of cores or of slices.
		for v := VarCores; v <= VarSlices; v++ {
			k, m := l.lin.Coef[v], r.lin.Coef[v]
			var onlyL, onlyR Linear
			onlyL.Coef[v], onlyR.Coef[v] = k, m
			if k != 0 && m != 0 && l.lin == onlyL && r.lin == onlyR && l.sq == r.sq && l.sq == [2]int64{} {
				var q quad
				q.sq[v] = k * m
				return q, q.sq[v] <= maxSquare && q.sq[v] >= -maxSquare
			}
		}
	}
	return quad{}, false
}

// toForm recognises e under the condition where.
func toForm(e, where expr, rel *Relation, sign int64) (Form, bool) {
	f := Form{Div: -1}
	for _, c := range conjuncts(nil, where) {
		if !addGuard(&f, c, rel) {
			return f, false
		}
	}
	if b, ok := e.(*binary); ok && b.op == "/" && sign > 0 {
		if c, ok := b.r.(*column); ok {
			if v := variable(c, rel); v == VarTotalCores || v == VarTotalSlices {
				f.Div, e = int8(v), b.l
			}
		}
	}
	// weight * condition, and a bare condition, become a guard with a constant.
	k := sign
	if b, ok := e.(*binary); ok && b.op == "*" {
		if n, ok := b.l.(*literal); ok && isCondition(b.r) {
			k, e = sign*n.num, b.r
		} else if n, ok := b.r.(*literal); ok && isCondition(b.l) {
			k, e = sign*n.num, b.l
		}
	}
	if isCondition(e) {
		f.Lin.Const = k
		for _, c := range conjuncts(nil, e) {
			if !addGuard(&f, c, rel) {
				return f, false
			}
		}
		return f, true
	}
	q, ok := toQuad(e, rel)
	if !ok {
		return f, false
	}
	q = scaleQuad(q, k)
	f.Lin, f.Square = q.lin, q.sq
	return f, true
}

func isCondition(e expr) bool {
	switch e := e.(type) {
	case *binary:
		switch e.op {
		case "and", "or", "=", "<>", "<", "<=", ">", ">=":
			return true
		}
	case *unary:
		return e.op == "not"
	case *column:
		return e.col.Type == Bool
	}
	return false
}

func addGuard(f *Form, e expr, rel *Relation) bool {
	if c, ok := e.(*column); ok && c.col.Type == Bool {
		l, ok := toLinear(c, rel)
		f.Guards = append(f.Guards, Guard{l, NotZero})
		return ok
	}
	if u, ok := e.(*unary); ok && u.op == "not" {
		l, ok := toLinear(u.x, rel)
		f.Guards = append(f.Guards, Guard{l, Zero})
		return ok && isCondition(u.x) // a boolean column
	}
	b, ok := e.(*binary)
	if !ok {
		return false
	}
	l, ok1 := toLinear(b.l, rel)
	r, ok2 := toLinear(b.r, rel)
	if !ok1 || !ok2 {
		return false
	}
	g := Guard{}
	switch b.op {
	case "=":
		g = Guard{addLinear(l, r, -1), Zero}
	case "<>":
		g = Guard{addLinear(l, r, -1), NotZero}
	case ">=", ">":
		g = Guard{addLinear(l, r, -1), NotNegative}
	case "<=", "<":
		g = Guard{addLinear(r, l, -1), NotNegative}
	default:
		return false
	}
	if b.op == ">" || b.op == "<" {
		g.Lin.Const--
	}
	f.Guards = append(f.Guards, g)
	return inRange(&g.Lin)
}

// slowForm evaluates the expression itself on a row. Only the columns that are Vars are filled.
func slowForm(p *Policy, s *statement, e expr, rel *Relation, sign int64) Form {
	slot := s.sel.slots[0]
	x := compileExpr(e)
	var where fn
	if s.sel.where != nil {
		where = compileExpr(s.sel.where)
	}
	row := make([]int64, len(rel.Cols))
	return Form{Div: -1, slow: func(v Vars) int64 {
		ev := &p.scratch.env
		if rel.id == relHeld {
			row[heldCores], row[heldSlices], row[heldNew] = v[VarCores], v[VarSlices], v[VarNew]
		} else {
			row[loadCores], row[loadSlices] = v[VarCores], v[VarSlices]
			row[loadTotalCores], row[loadTotalSlices] = v[VarTotalCores], v[VarTotalSlices]
		}
		ev.frames[slot] = row
		if where != nil && where(ev) == 0 {
			return 0
		}
		return satMul(sign, x(ev))
	}}
}

// pairAtom recognises [weight *] (a.controllable__dkernel = b.controllable__dkernel) over ordered pairs of rows of a
// process or request.
func pairAtom(s *statement, a Atom) (Atom, error) {
	loose := func(why string) (Atom, error) { a.Kind, a.Why = Loose, why; return a, nil }
	if a.Hard || len(s.sel.groupBy) > 0 || hasAggregate(s.expr) {
		return loose("this use of pairs of rows")
	}
	weight, ok := pairWeight(s.expr, s.sel.slots[0], s.sel.slots[1])
	if !ok {
		return loose("pairs of rows are compared by a.controllable__dkernel = b.controllable__dkernel")
	}
	conds := conjuncts(conjuncts(conjuncts(nil, s.sel.where), s.sel.from[0].on), s.sel.from[1].on)
	var keyed, distinct bool
	var rest [2][]expr
	for _, c := range conds {
		b, ok := c.(*binary)
		if ok {
			l, ok1 := b.l.(*column)
			r, ok2 := b.r.(*column)
			if ok1 && ok2 && l.slot != r.slot && l.idx == r.idx {
				switch {
				case b.op == "=" && (l.idx == pendRequest || l.idx == pendProcess):
					keyed = true
					a.ByRequest = a.ByRequest || l.idx == pendRequest
					continue
				case b.op == "<>" && l.idx == pendID:
					distinct = true
					continue
				}
			}
		}
		side, ok := sideOf(c, s.sel.slots)
		if !ok || touchesDecision(c) {
			return loose("a condition on both rows of a pair")
		}
		rest[side] = append(rest[side], c)
	}
	if !keyed || !distinct {
		return loose("pairs want a.request = b.request or a.process = b.process, and a.id <> b.id")
	}
	for side := range rest {
		for _, c := range rest[side] {
			if !mirrored(c, rest[1-side]) && !determined(c, a.ByRequest) {
				return loose("a condition on one row of a pair and not on the other")
			}
		}
	}
	// The filter of one side, with what the other side says of columns that the group determines.
	a.Kind, a.Weight, a.slot = Pair, a.Sign*weight, s.sel.slots[0]
	for _, c := range rest[0] {
		a.filter = append(a.filter, compileExpr(c))
	}
	for _, c := range rest[1] {
		if !mirrored(c, rest[0]) {
			a.filter = append(a.filter, onSlot(c, a.slot))
		}
	}
	return a, nil
}

// onSlot compiles a condition on one table as if it were on the table of another slot.
func onSlot(c expr, slot int) fn {
	var at int
	walk(c, func(e expr) bool {
		if k, ok := e.(*column); ok {
			at = k.slot
		}
		return true
	})
	f := compileExpr(c)
	return func(e *env) int64 {
		e.frames[at] = e.frames[slot]
		return f(e)
	}
}

func pairWeight(e expr, s0, s1 int) (int64, bool) {
	b, ok := e.(*binary)
	if !ok {
		return 0, false
	}
	if b.op == "*" {
		if n, ok := b.l.(*literal); ok {
			w, ok := pairWeight(b.r, s0, s1)
			return w * n.num, ok && n.num <= maxSquare<<4
		}
		if n, ok := b.r.(*literal); ok {
			w, ok := pairWeight(b.l, s0, s1)
			return w * n.num, ok && n.num <= maxSquare<<4
		}
		return 0, false
	}
	l, ok1 := b.l.(*column)
	r, ok2 := b.r.(*column)
	return 1, b.op == "=" && ok1 && ok2 && l.col.Decision && r.col.Decision && l.slot != r.slot && l.slot+r.slot == s0+s1
}

// sideOf says which of the two tables a condition reads.
func sideOf(e expr, slots []int) (int, bool) {
	side, ok := -1, true
	walk(e, func(e expr) bool {
		switch e := e.(type) {
		case *column:
			i := 0
			if e.slot == slots[1] {
				i = 1
			}
			ok = ok && (side < 0 || side == i) && (e.slot == slots[0] || e.slot == slots[1]) && e.idx != pendID
			side = i
		case *in:
			ok = ok && e.sub == nil
		case *exists, *scalar:
			ok = false
		}
		return ok
	})
	return side, ok && side >= 0
}

// mirrored says that among others is the same comparison of a column with a literal.
func mirrored(c expr, others []expr) bool {
	k := simple(c)
	if k == "" {
		return false
	}
	for _, o := range others {
		if simple(o) == k {
			return true
		}
	}
	return false
}

func simple(e expr) string {
	switch e := e.(type) {
	case *column:
		return fmt.Sprintf("%d", e.idx)
	case *unary:
		if s := simple(e.x); s != "" {
			return e.op + " " + s
		}
	case *binary:
		if c, ok := e.l.(*column); ok {
			if n, ok := e.r.(*literal); ok {
				return fmt.Sprintf("%d%s%d", c.idx, e.op, n.num)
			}
		}
	}
	return ""
}

// determined says that the condition reads only columns that are the same in all rows of a group.
func determined(e expr, byRequest bool) bool {
	ok := byRequest
	walk(e, func(e expr) bool {
		if c, is := e.(*column); is {
			switch c.idx {
			case pendRequest, pendProcess, pendShape, pendPinned, pendHome, pendMoving:
			default:
				ok = false
			}
		}
		return ok
	})
	return ok
}

// reachOf says how a Row atom depends on the node.
func reachOf(s *statement, slot int) Reach {
	onlyNode := true
	f := func(e expr) bool {
		if c, ok := e.(*column); ok && c.slot == slot && c.idx != pendDkernel {
			onlyNode = false
		}
		return onlyNode
	}
	walkSelect(s.sel, f)
	walk(s.expr, f)
	if onlyNode {
		return ByNode
	}
	for i := range s.sel.from {
		if s.sel.slots[i] == slot {
			continue
		}
		if touchesSlot(s, s.sel.slots[i], slot) && !sparseTable(s.sel, i) {
			return Dense
		}
	}
	for _, c := range conjuncts(nil, s.sel.where) {
		if !sparse(c) && !joinsNode(c) {
			return Dense
		}
	}
	for i := range s.sel.from {
		for _, c := range conjuncts(nil, s.sel.from[i].on) {
			if !sparse(c) && !joinsNode(c) {
				return Dense
			}
		}
	}
	if !sparse(s.expr) {
		return Dense
	}
	return Sparse
}

// touchesSlot says that some condition ties the table of slot to the decision.
func touchesSlot(s *statement, slot, pending int) bool {
	conds := conjuncts(nil, s.sel.where)
	for i := range s.sel.from {
		conds = conjuncts(conds, s.sel.from[i].on)
	}
	for _, c := range conds {
		reads := false
		walk(c, func(e expr) bool {
			if k, ok := e.(*column); ok && k.slot == slot {
				reads = true
			}
			return true
		})
		if reads && touchesDecision(c) {
			return true
		}
	}
	return false
}

// joinsNode is sparseRelation.dkernel = controllable__dkernel.
func joinsNode(e expr) bool {
	b, ok := e.(*binary)
	if !ok || b.op != "=" {
		return false
	}
	for _, s := range [...][2]expr{{b.l, b.r}, {b.r, b.l}} {
		if c, ok := s[0].(*column); ok && isDecision(s[1]) && sparseColumn(c) {
			return true
		}
	}
	return false
}

// sparseColumn is the dkernel column of a relation that has few rows for a request or process.
func sparseColumn(c *column) bool {
	switch c.rel.id {
	case relPins, relNear, relPlacements:
		return c.name == "dkernel"
	}
	return false
}

// sparseTable says that table i of sel is keyed by the request or process itself.
func sparseTable(sel *selectExpr, i int) bool {
	switch sel.from[i].rel.id {
	case relPins, relNear, relPlacements:
	default:
		return false
	}
	conds := conjuncts(nil, sel.where)
	for j := range sel.from {
		conds = conjuncts(conds, sel.from[j].on)
	}
	for _, c := range conds {
		b, ok := c.(*binary)
		if !ok || b.op != "=" {
			continue
		}
		for _, s := range [...][2]expr{{b.l, b.r}, {b.r, b.l}} {
			k, ok1 := s[0].(*column)
			v, ok2 := s[1].(*column)
			if ok1 && ok2 && k.slot == sel.slots[i] && k.idx == 0 && v.rel.id == relPending &&
				(k.rel.id == relPlacements && v.idx == pendProcess || k.rel.id != relPlacements && v.idx == pendRequest) {
				return true
			}
		}
	}
	return false
}

// sparse says that e has one value at all nodes but those in pins, near and placements of the row, and its home.
func sparse(e expr) bool {
	if !touchesDecision(e) {
		return true
	}
	switch e := e.(type) {
	case *unary:
		return sparse(e.x)
	case *binary:
		if e.op == "=" || e.op == "<>" {
			for _, s := range [...][2]expr{{e.l, e.r}, {e.r, e.l}} {
				if c, ok := s[1].(*column); ok && isDecision(s[0]) && c.rel.id == relPending && c.idx == pendHome {
					return true
				}
			}
		}
		return sparse(e.l) && sparse(e.r)
	case *in:
		if e.sub == nil || !isDecision(e.x) || len(e.sub.from) != 1 || !sparseTable(e.sub, 0) {
			return false
		}
		c, ok := e.sub.items[0].e.(*column)
		return ok && sparseColumn(c) && c.slot == e.sub.slots[0] && (e.sub.where == nil || !touchesDecision(e.sub.where))
	case *exists:
		return sparseSub(e.sub)
	case *scalar:
		return sparseSub(e.sub) && !touchesDecision(e.sub.items[0].e)
	}
	return false
}

// sparseSub wants a subquery over one sparse table in which the decision only meets its dkernel column.
func sparseSub(s *selectExpr) bool {
	if len(s.from) != 1 || !sparseTable(s, 0) {
		return false
	}
	for _, c := range conjuncts(nil, s.where) {
		if touchesDecision(c) && !joinsNode(c) {
			return false
		}
	}
	return true
}
