package model

func isAggregate(name string) bool {
	switch name {
	case "count", "sum", "min", "max", "all_equal", "all_different", "increasing", "capacity_constraint":
		return true
	}
	return false
}

func (c *checker) call(e *call) (Type, error) {
	if e.name == "random" {
		if len(e.args) == 0 || e.star || e.distinct {
			return 0, c.fail(e.pos, "", "random wants the numbers it is drawn from, such as random(request, controllable__dkernel)")
		}
		for _, a := range e.args {
			if t, err := c.typeOf(a); err != nil || t == Text {
				return 0, orFail(err, c.fail(a.at(), "", "random wants INTEGER, this is TEXT"))
			}
		}
		return Int, nil
	}
	if !isAggregate(e.name) {
		return 0, c.fail(e.pos, "functions are count, sum, min, max, all_equal, all_different, increasing, capacity_constraint, random",
			"unknown function %q", e.name)
	}
	sc := c.scopes[len(c.scopes)-1]
	if !sc.aggOK || sc.inAgg {
		return 0, c.fail(e.pos, "aggregates stand in CHECK, MAXIMIZE, MINIMIZE, HAVING or a select list", "aggregate %q is not allowed here", e.name)
	}
	want := 1
	if e.name == "capacity_constraint" {
		want = 4
	}
	if e.star && e.name == "count" && !e.distinct {
		return Int, nil
	}
	if e.star || len(e.args) != want {
		return 0, c.fail(e.pos, "", "%s wants %d argument(s), got %d", e.name, want, len(e.args))
	}
	if e.distinct && e.name != "count" {
		return 0, c.fail(e.pos, "only count takes DISTINCT", "%s(DISTINCT …)", e.name)
	}
	sc.inAgg = true
	defer func() { sc.inAgg = false }()
	for _, a := range e.args {
		t, err := c.typeOf(a)
		if err != nil {
			return 0, err
		}
		if t == Text && e.name != "count" && e.name != "all_equal" && e.name != "all_different" {
			return 0, c.fail(a.at(), "", "%s wants INTEGER, this is TEXT", e.name)
		}
	}
	switch e.name {
	case "all_equal", "all_different", "increasing", "capacity_constraint":
		return Bool, nil
	}
	return Int, nil
}

func orFail(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

func (c *checker) in(e *in) (Type, error) {
	var l Type
	if lit, ok := e.x.(*literal); !ok || lit.typ != Text {
		var err error
		if l, err = c.typeOf(e.x); err != nil {
			return 0, err
		}
	} else {
		return 0, c.fail(lit.pos, "put a column before IN", "text before IN")
	}
	for _, x := range e.list {
		if lit, ok := x.(*literal); ok && lit.typ == Text {
			if err := c.bindText(e.x, lit); err != nil {
				return 0, err
			}
			continue
		}
		t, err := c.typeOf(x)
		if err != nil {
			return 0, err
		}
		if t != l {
			return 0, c.fail(x.at(), "compare values of one type", "%v IN a list with %v", l, t)
		}
	}
	if e.sub == nil {
		return Bool, nil
	}
	if err := c.enter(e.sub); err != nil {
		return 0, err
	}
	defer c.leave()
	if err := c.noAggregates(e.sub, "IN"); err != nil {
		return 0, err
	}
	if e.sub.star || len(e.sub.items) != 1 {
		return 0, c.fail(e.sub.pos, "select one column", "IN wants a subquery with one column")
	}
	t, err := c.typeOf(e.sub.items[0].e)
	if err == nil && t != l {
		err = c.fail(e.sub.items[0].e.at(), "compare values of one type", "%v IN a subquery of %v", l, t)
	}
	return Bool, err
}

func (c *checker) noAggregates(s *selectExpr, where string) error {
	if len(s.groupBy) > 0 {
		return c.fail(s.pos, "make it a view", "GROUP BY inside of %s", where)
	}
	for _, it := range s.items {
		if hasAggregate(it.e) {
			return c.fail(it.e.at(), "make it a view", "an aggregate inside of %s", where)
		}
	}
	return nil
}

func (c *checker) scalar(e *scalar) (Type, error) {
	if err := c.enter(e.sub); err != nil {
		return 0, err
	}
	defer c.leave()
	s := e.sub
	if s.star || len(s.items) != 1 || len(s.groupBy) > 0 {
		return 0, c.fail(s.pos, "select one aggregate, without GROUP BY", "a subquery used as a value has one value")
	}
	a, ok := s.items[0].e.(*call)
	if !ok || !isAggregate(a.name) {
		return 0, c.fail(s.items[0].e.at(), "select count, sum, min or max", "a subquery used as a value has one value")
	}
	switch a.name {
	case "count", "sum", "min", "max":
		return Int, nil
	}
	return 0, c.fail(a.pos, "select count, sum, min or max", "%s in a subquery", a.name)
}

func hasAggregate(e expr) bool {
	found := false
	walk(e, func(e expr) bool {
		switch e := e.(type) {
		case *call:
			found = found || isAggregate(e.name)
		case *in:
			return e.sub == nil // a subquery has its own aggregates
		case *exists, *scalar:
			return false
		}
		return !found
	})
	return found
}

// isDecided says whether the rows or columns of s depend on the decision variables.
func isDecided(s *selectExpr) bool {
	found := false
	var visit func(s *selectExpr)
	visit = func(s *selectExpr) {
		for i := range s.from {
			found = found || s.from[i].rel.Decided
		}
	}
	visit(s)
	walkSelect(s, func(e expr) bool {
		switch e := e.(type) {
		case *in:
			if e.sub != nil {
				visit(e.sub)
			}
		case *exists:
			visit(e.sub)
		case *scalar:
			visit(e.sub)
		}
		return true
	})
	return found
}
