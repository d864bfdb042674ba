package model

import "fmt"

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
