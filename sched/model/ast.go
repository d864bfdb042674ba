package model

// Pos is a place in a policy's text, counted from one.
type Pos struct{ Line, Col int }

// Goal says what a constraint statement asks for.
type Goal uint8

const (
	// Check is a hard constraint: its expression must be true.
	Check Goal = iota
	// Maximize and Minimize are soft goals of one tier.
	Maximize
	Minimize
)

func (g Goal) String() string { return [...]string{"CHECK", "MAXIMIZE", "MINIMIZE"}[g] }

// statement is one CREATE VIEW or CREATE CONSTRAINT.
type statement struct {
	pos      Pos
	end      int // byte offset after the statement, with begin for showing its text
	begin    int
	view     bool
	name     string
	sel      *selectExpr
	goal     Goal
	expr     expr
	tier     int
	decided  bool     // a view whose rows depend on the decision variables
	viewCols []Column // columns of a view, filled by the checker
	q        *query   // the compiled SELECT
	f        fn       // the compiled goal expression
}

type selectExpr struct {
	pos     Pos
	star    bool
	items   []selectItem
	from    []tableRef
	where   expr
	groupBy []expr
	having  expr

	slots []int // frame slot of each table of from, filled by the checker
}

type selectItem struct {
	e     expr
	alias string
}

type tableRef struct {
	pos   Pos
	name  string
	alias string
	on    expr

	rel *Relation
}

// expr is a node of an expression tree.
type expr interface{ at() Pos }

type literal struct {
	pos  Pos
	typ  Type
	num  int64
	text string
}

type column struct {
	pos         Pos
	table, name string

	slot, idx int     // filled by the checker
	col       *Column // filled by the checker
	rel       *Relation
}

type unary struct {
	pos Pos
	op  string
	x   expr
}

type binary struct {
	pos  Pos
	op   string
	l, r expr
}

// call is an aggregate or a function.
type call struct {
	pos      Pos
	name     string
	distinct bool
	star     bool
	args     []expr
}

// in is X [NOT] IN (SELECT …) or X [NOT] IN (a, b, …).
type in struct {
	pos  Pos
	x    expr
	not  bool
	sub  *selectExpr
	list []expr
}

type exists struct {
	pos Pos
	sub *selectExpr
}

// scalar is (SELECT aggregate …) used as a value.
type scalar struct {
	pos Pos
	sub *selectExpr
}

func (x *literal) at() Pos { return x.pos }
func (x *column) at() Pos  { return x.pos }
func (x *unary) at() Pos   { return x.pos }
func (x *binary) at() Pos  { return x.pos }
func (x *call) at() Pos    { return x.pos }
func (x *in) at() Pos      { return x.pos }
func (x *exists) at() Pos  { return x.pos }
func (x *scalar) at() Pos  { return x.pos }

// walk visits e and what it contains, also inside of subqueries, until f answers false for a node.
func walk(e expr, f func(expr) bool) {
	if e == nil || !f(e) {
		return
	}
	switch e := e.(type) {
	case *unary:
		walk(e.x, f)
	case *binary:
		walk(e.l, f)
		walk(e.r, f)
	case *call:
		for _, a := range e.args {
			walk(a, f)
		}
	case *in:
		walk(e.x, f)
		for _, a := range e.list {
			walk(a, f)
		}
		walkSelect(e.sub, f)
	case *exists:
		walkSelect(e.sub, f)
	case *scalar:
		walkSelect(e.sub, f)
	}
}

func walkSelect(s *selectExpr, f func(expr) bool) {
	if s == nil {
		return
	}
	for _, it := range s.items {
		walk(it.e, f)
	}
	for _, t := range s.from {
		walk(t.on, f)
	}
	walk(s.where, f)
	for _, g := range s.groupBy {
		walk(g, f)
	}
	walk(s.having, f)
}

// conjuncts appends the operands of the AND chain e to dst.
func conjuncts(dst []expr, e expr) []expr {
	if e == nil {
		return dst
	}
	if b, ok := e.(*binary); ok && b.op == "and" {
		return conjuncts(conjuncts(dst, b.l), b.r)
	}
	return append(dst, e)
}
