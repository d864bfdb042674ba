package model

import (
	"fmt"
	"strings"
)

// checker resolves names, checks types and numbers the frame slots of one statement.
type checker struct {
	policy string
	views  []*Relation
	scopes []*scope
	slots  int
}

// scope is the tables of one SELECT.
type scope struct {
	sel   *selectExpr
	aggOK bool // aggregates are allowed where the checker is now
	inAgg bool
}

func (c *checker) fail(p Pos, hint, format string, args ...any) error {
	return &Error{Policy: c.policy, Pos: p, Msg: fmt.Sprintf(format, args...), Hint: hint}
}

// check verifies the statements in order; a view is known to those after it.
func check(policy string, stmts []*statement) error {
	c := &checker{policy: policy}
	seen := map[string]Pos{}
	for _, s := range stmts {
		if p, ok := seen[s.name]; ok {
			return c.fail(s.pos, fmt.Sprintf("the first is at %d:%d", p.Line, p.Col), "a second %q", s.name)
		}
		seen[s.name] = s.pos
		c.slots, c.scopes = 0, c.scopes[:0]
		if err := c.statement(s); err != nil {
			return err
		}
		if s.view {
			c.views = append(c.views, &Relation{Name: s.name, Cols: s.viewCols, Decided: s.decided, id: relView, view: s})
		}
	}
	return nil
}

func (c *checker) statement(s *statement) error {
	if s.view {
		if c.relation(s.name) != nil {
			return c.fail(s.pos, "choose another name", "%q is already a relation", s.name)
		}
		if err := c.enter(s.sel); err != nil {
			return err
		}
		defer c.leave()
		return c.viewColumns(s)
	}
	if err := c.enter(s.sel); err != nil {
		return err
	}
	defer c.leave()
	sc := c.scopes[0]
	sc.aggOK = true
	t, err := c.typeOf(s.expr)
	if err != nil {
		return err
	}
	switch {
	case s.goal == Check && t != Bool:
		return c.fail(s.expr.at(), "write a condition, such as a comparison", "CHECK wants BOOLEAN, this is %v", t)
	case s.goal != Check && t == Text:
		return c.fail(s.expr.at(), "write a number or a condition, which counts 1 when true", "%v wants INTEGER, this is TEXT", s.goal)
	}
	if len(s.sel.groupBy) > 0 || hasAggregate(s.expr) {
		return c.grouped(s.sel, s.expr)
	}
	return nil
}

// viewColumns derives the columns of a view from its select list.
func (c *checker) viewColumns(s *statement) error {
	s.decided = isDecided(s.sel)
	if s.sel.star {
		for i := range s.sel.from {
			for _, col := range s.sel.from[i].rel.Cols {
				s.viewCols = append(s.viewCols, Column{Name: col.Name, Type: col.Type, Enum: col.Enum})
			}
		}
	}
	for i, it := range s.sel.items {
		c.scopes[0].aggOK = true
		t, err := c.typeOf(it.e)
		if err != nil {
			return err
		}
		if len(s.sel.groupBy) > 0 || hasAggregate(it.e) {
			if err := c.grouped(s.sel, it.e); err != nil {
				return err
			}
		}
		col := Column{Name: it.alias, Type: t}
		if ref, ok := it.e.(*column); ok {
			col.Enum = ref.col.Enum
			if col.Name == "" {
				col.Name = ref.name
			}
		}
		if col.Name == "" {
			return c.fail(it.e.at(), "write AS name after it", "column %d of the view has no name", i+1)
		}
		s.viewCols = append(s.viewCols, col)
	}
	for i := range s.viewCols {
		for j := range i {
			if s.viewCols[i].Name == s.viewCols[j].Name {
				return c.fail(s.pos, "rename one by AS", "the view has two columns %q", s.viewCols[i].Name)
			}
		}
	}
	return nil
}

func (c *checker) relation(name string) *Relation {
	for i := range schema {
		if schema[i].Name == name {
			r := &schema[i]
			return r
		}
	}
	for _, v := range c.views {
		if v.Name == name {
			return v
		}
	}
	return nil
}

func (c *checker) relationNames() []string {
	var out []string
	for i := range schema {
		out = append(out, schema[i].Name)
	}
	for _, v := range c.views {
		out = append(out, v.Name)
	}
	return out
}

// enter resolves the FROM list of s, opens its scope and checks all but the goal expression.
func (c *checker) enter(s *selectExpr) error {
	sc := &scope{sel: s}
	c.scopes = append(c.scopes, sc)
	s.slots = s.slots[:0]
	for i := range s.from {
		t := &s.from[i]
		if t.rel = c.relation(t.name); t.rel == nil {
			names := c.relationNames()
			hint := "relations are " + strings.Join(names, ", ")
			if n := nearest(t.name, names); n != "" {
				hint = fmt.Sprintf("did you mean %q?", n)
			}
			return c.fail(t.pos, hint, "unknown relation %q", t.name)
		}
		for j := range i {
			if s.from[j].alias == t.alias {
				return c.fail(t.pos, "write an alias after the name", "two relations are called %q", t.alias)
			}
		}
		if c.slots >= MaxTables {
			return c.fail(t.pos, "", "a statement uses at most %d relations", MaxTables)
		}
		s.slots = append(s.slots, c.slots)
		c.slots++
		if t.on != nil {
			// ON sees the tables up to its own.
			rest := s.from
			s.from = s.from[:i+1]
			err := c.condition(t.on, "ON")
			s.from = rest
			if err != nil {
				return err
			}
		}
	}
	if s.where != nil {
		if err := c.condition(s.where, "WHERE"); err != nil {
			return err
		}
	}
	for _, g := range s.groupBy {
		if _, err := c.typeOf(g); err != nil {
			return err
		}
	}
	for _, it := range s.items {
		sc.aggOK = true
		if _, err := c.typeOf(it.e); err != nil {
			return err
		}
		sc.aggOK = false
	}
	if s.having == nil {
		return nil
	}
	sc.aggOK = true
	defer func() { sc.aggOK = false }()
	if err := c.condition(s.having, "HAVING"); err != nil {
		return err
	}
	return c.grouped(s, s.having)
}

func (c *checker) leave() { c.scopes = c.scopes[:len(c.scopes)-1] }

func (c *checker) condition(e expr, where string) error {
	t, err := c.typeOf(e)
	if err != nil {
		return err
	}
	if t != Bool {
		return c.fail(e.at(), "write a condition, such as a comparison", "%s wants BOOLEAN, this is %v", where, t)
	}
	return nil
}

// grouped reports a column that is neither grouped by nor inside of an aggregate.
func (c *checker) grouped(s *selectExpr, e expr) error {
	var bad *column
	var visit func(e expr) bool
	visit = func(e expr) bool {
		if bad != nil {
			return false
		}
		switch e := e.(type) {
		case *call:
			return !isAggregate(e.name)
		case *column:
			mine := false
			for _, sl := range s.slots {
				mine = mine || sl == e.slot
			}
			for _, g := range s.groupBy {
				if k, ok := g.(*column); ok && k.slot == e.slot && k.idx == e.idx {
					mine = false
				}
			}
			if mine {
				bad = e
			}
		}
		return true
	}
	walk(e, visit)
	if bad != nil {
		return c.fail(bad.pos, "add it to GROUP BY or put it into an aggregate", "column %q is not grouped by", bad.name)
	}
	return nil
}

func (c *checker) typeOf(e expr) (Type, error) {
	switch e := e.(type) {
	case *literal:
		if e.typ == Text {
			return 0, c.fail(e.pos, "compare it to a TEXT column such as resource or shape", "text '%s' has no use here", e.text)
		}
		return e.typ, nil
	case *column:
		return c.column(e)
	case *unary:
		return c.unary(e)
	case *binary:
		return c.binary(e)
	case *call:
		return c.call(e)
	case *in:
		return c.in(e)
	case *exists:
		if err := c.enter(e.sub); err != nil {
			return 0, err
		}
		defer c.leave()
		return Bool, c.noAggregates(e.sub, "EXISTS")
	case *scalar:
		return c.scalar(e)
	}
	panic(fmt.Sprintf("model: unhandled expression %T", e)) // a programming error: the parser made it
}

func (c *checker) column(e *column) (Type, error) {
	known := ""
	for i := len(c.scopes) - 1; i >= 0; i-- {
		s := c.scopes[i].sel
		var found *tableRef
		for j := range s.from {
			t := &s.from[j]
			if t.rel == nil || j >= len(s.slots) || e.table != "" && e.table != t.alias {
				continue
			}
			k := t.rel.column(e.name)
			if k < 0 {
				var names []string
				for _, col := range t.rel.Cols {
					names = append(names, col.Name)
				}
				if n := nearest(e.name, names); n != "" {
					known = fmt.Sprintf("did you mean %q?", n)
				} else if known == "" {
					known = fmt.Sprintf("columns of %q are %s", t.name, strings.Join(names, ", "))
				}
				continue
			}
			if found != nil {
				return 0, c.fail(e.pos, fmt.Sprintf("write %s.%s or %s.%s", found.alias, e.name, t.alias, e.name),
					"column %q is ambiguous", e.name)
			}
			found = t
			e.slot, e.idx, e.rel, e.col = s.slots[j], k, t.rel, &t.rel.Cols[k]
		}
		if found != nil {
			return e.col.Type, nil
		}
	}
	if e.table != "" && known == "" {
		return 0, c.fail(e.pos, "name it in FROM or JOIN", "relation %q is not in FROM", e.table)
	}
	return 0, c.fail(e.pos, known, "unknown column %q", e.name)
}

func (c *checker) unary(e *unary) (Type, error) {
	t, err := c.typeOf(e.x)
	if err != nil {
		return 0, err
	}
	if e.op == "not" {
		if t != Bool {
			return 0, c.fail(e.x.at(), "write a condition", "NOT wants BOOLEAN, this is %v", t)
		}
		return Bool, nil
	}
	if t == Text {
		return 0, c.fail(e.x.at(), "", "- wants INTEGER, this is TEXT")
	}
	return Int, nil
}

func (c *checker) binary(e *binary) (Type, error) {
	if e.op == "=" || e.op == "<>" {
		if done, err := c.textComparison(e); done || err != nil {
			return Bool, err
		}
	}
	l, err := c.typeOf(e.l)
	if err != nil {
		return 0, err
	}
	r, err := c.typeOf(e.r)
	if err != nil {
		return 0, err
	}
	switch e.op {
	case "and", "or":
		for _, s := range [...]struct {
			t Type
			e expr
		}{{l, e.l}, {r, e.r}} {
			if s.t != Bool {
				return 0, c.fail(s.e.at(), "write a condition, such as a comparison", "%s wants BOOLEAN, this is %v", strings.ToUpper(e.op), s.t)
			}
		}
		return Bool, nil
	case "=", "<>":
		if l != r {
			return 0, c.fail(e.pos, "compare values of one type", "%v compared to %v", l, r)
		}
		return Bool, nil
	case "<", "<=", ">", ">=":
		if l != Int || r != Int {
			return 0, c.fail(e.pos, "only INTEGER has an order", "%v %s %v", l, e.op, r)
		}
		return Bool, nil
	}
	// A condition in arithmetic counts 1 when true, as in DCM's 4096*(node IN (…)).
	if l == Text || r == Text {
		return 0, c.fail(e.pos, "arithmetic is for INTEGER", "%v %s %v", l, e.op, r)
	}
	if z, ok := e.r.(*literal); ok && z.num == 0 && (e.op == "/" || e.op == "%") {
		return 0, c.fail(z.pos, "divide by a number that is not zero", "division by zero")
	}
	return Int, nil
}

// textComparison turns a text literal next to a TEXT column into the column's code for it.
func (c *checker) textComparison(e *binary) (bool, error) {
	l, r := e.l, e.r
	lit, ok := r.(*literal)
	if !ok || lit.typ != Text {
		if lit, ok = l.(*literal); !ok || lit.typ != Text {
			return false, nil
		}
		l = r
	}
	return true, c.bindText(l, lit)
}

func (c *checker) bindText(l expr, lit *literal) error {
	t, err := c.typeOf(l)
	if err != nil {
		return err
	}
	col, ok := l.(*column)
	if t != Text || !ok {
		return c.fail(lit.pos, "compare values of one type", "%v compared to TEXT", t)
	}
	for i, v := range col.col.Enum {
		if v == lit.text {
			lit.typ, lit.num = Text, int64(i)
			return nil
		}
	}
	return c.fail(lit.pos, fmt.Sprintf("its values are '%s'", strings.Join(col.col.Enum, "', '")),
		"column %q is never '%s'", col.name, lit.text)
}
