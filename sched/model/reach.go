package model

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
