package model

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
