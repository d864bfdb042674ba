package model

import "math/bits"

// fn is a compiled expression. Booleans are 0 and 1; arithmetic saturates, so that no policy can overflow.
type fn func(*env) int64

// env is what an expression is evaluated against.
type env struct {
	in      *Instance
	frames  [MaxTables][]int64 // the current row of each table of the statement
	fixed   int                // slot+1 of a table that is bound to one row, 0 for none
	changed bool               // held and load show only the rows that the round changes

	// The tuples of the group being aggregated: width frames each.
	group []([]int64)
	slots []int
}

// query is a compiled SELECT: nested loops over its tables, with a look-up by the first column where an
// equality allows it.
type query struct {
	sel    *selectExpr
	tables []queryTable
	groupF []fn
	having fn
	items  []fn
}

type queryTable struct {
	rel   *Relation
	slot  int
	key   fn   // value of the first column, nil for a scan
	conds []fn // conditions that can be tested once this table has a row
}

// walker receives the tuples of a query; each sees them through the frames of env. A false result stops.
type walker struct {
	what  func(*env) bool // nil: use the fields below
	x     fn
	stop  bool // EXISTS and IN: stop at the first
	match int64
	cmp   bool
	agg   string
	n     int64
	acc   int64
}

func (q *query) run(e *env, w *walker) bool { return q.table(e, w, 0) }

// table binds table i to each of its rows in turn; false stops the walk.
func (q *query) table(e *env, w *walker, i int) bool {
	if i == len(q.tables) {
		return w.tuple(e)
	}
	t := &q.tables[i]
	if e.fixed == t.slot+1 {
		// The row under consideration is already in its frame.
		return q.row(e, w, i, e.frames[t.slot])
	}
	width := len(t.rel.Cols)
	if t.key != nil {
		if rows, ok := e.in.lookup(t.rel, t.key(e)); ok {
			return q.rows(e, w, i, rows, width)
		}
	}
	if h := e.in.Held; h != nil && (t.rel.id == relPlacements || t.rel.id == relProcesses) {
		for n := range h.Len() {
			rows := h.CellsAt(n)
			if t.rel.id == relProcesses {
				rows = h.ProcessAt(n)
			}
			if !q.rows(e, w, i, rows, width) {
				return false
			}
		}
		return true
	}
	return q.rows(e, w, i, e.in.table(t.rel, e.changed), width)
}

func (q *query) rows(e *env, w *walker, i int, rows []int64, width int) bool {
	for ; len(rows) >= width; rows = rows[width:] {
		if !q.row(e, w, i, rows[:width]) {
			return false
		}
	}
	return true
}

func (q *query) row(e *env, w *walker, i int, row []int64) bool {
	t := &q.tables[i]
	e.frames[t.slot] = row
	for _, c := range t.conds {
		if c(e) == 0 {
			return true
		}
	}
	return q.table(e, w, i+1)
}

func (w *walker) tuple(e *env) bool {
	if w.what != nil {
		return w.what(e)
	}
	if w.x == nil {
		w.n++
		return !w.stop
	}
	v := w.x(e)
	if w.cmp {
		if v == w.match {
			w.n++
			return false
		}
		return true
	}
	w.n++
	switch w.agg {
	case "sum":
		w.acc = satAdd(w.acc, v)
	case "min":
		if w.n == 1 || v < w.acc {
			w.acc = v
		}
	case "max":
		if w.n == 1 || v > w.acc {
			w.acc = v
		}
	}
	return true
}

// compileSelect makes the query of s, after the checker has resolved it.
func compileSelect(s *selectExpr) *query {
	q := &query{sel: s}
	conds := conjuncts(nil, s.where)
	for i := range s.from {
		conds = conjuncts(conds, s.from[i].on)
	}
	slotAt := map[int]int{}
	for i, sl := range s.slots {
		slotAt[sl] = i
	}
	done := make([]bool, len(conds))
	for i := range s.from {
		t := queryTable{rel: s.from[i].rel, slot: s.slots[i]}
		for j, c := range conds {
			if done[j] || lastTable(c, slotAt) > i {
				continue
			}
			done[j] = true
			if k := keyOf(c, t.slot, slotAt, i); k != nil && t.key == nil && indexed(t.rel) {
				t.key = compileExpr(k)
			}
			t.conds = append(t.conds, compileExpr(c))
		}
		q.tables = append(q.tables, t)
	}
	for _, g := range s.groupBy {
		q.groupF = append(q.groupF, compileExpr(g))
	}
	if s.having != nil {
		q.having = compileExpr(s.having)
	}
	for _, it := range s.items {
		q.items = append(q.items, compileExpr(it.e))
	}
	return q
}

// lastTable is the place of the last table of the select that e reads, -1 for none.
func lastTable(e expr, slotAt map[int]int) int {
	last := -1
	walk(e, func(e expr) bool {
		if c, ok := e.(*column); ok {
			if i, mine := slotAt[c.slot]; mine {
				last = max(last, i)
			}
		}
		return true
	})
	return last
}

// keyOf recognises slot.column0 = value, where value is known before table i has a row.
func keyOf(e expr, slot int, slotAt map[int]int, i int) expr {
	b, ok := e.(*binary)
	if !ok || b.op != "=" {
		return nil
	}
	for _, s := range [...][2]expr{{b.l, b.r}, {b.r, b.l}} {
		if c, ok := s[0].(*column); ok && c.slot == slot && c.idx == 0 && lastTable(s[1], slotAt) < i {
			return s[1]
		}
	}
	return nil
}

// indexed says whether Instance.lookup knows the relation's first column.
func indexed(r *Relation) bool { return r.id < relRound && r.view == nil }

func b2i(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func compileExpr(e expr) fn {
	switch e := e.(type) {
	case *literal:
		v := e.num
		return func(*env) int64 { return v }
	case *column:
		slot, idx := e.slot, e.idx
		return func(v *env) int64 { return v.frames[slot][idx] }
	case *unary:
		x := compileExpr(e.x)
		if e.op == "not" {
			return func(v *env) int64 { return 1 - x(v) }
		}
		return func(v *env) int64 { return -x(v) }
	case *binary:
		return compileBinary(e.op, compileExpr(e.l), compileExpr(e.r))
	case *in:
		return compileIn(e)
	case *exists:
		q := compileSelect(e.sub)
		return func(v *env) int64 {
			w := walker{stop: true}
			q.run(v, &w)
			return w.n
		}
	case *scalar:
		q := compileSelect(&selectExpr{from: e.sub.from, where: e.sub.where, slots: e.sub.slots})
		c := e.sub.items[0].e.(*call)
		if c.distinct {
			return distinctScalar(q, compileExpr(c.args[0]))
		}
		var x fn
		if len(c.args) > 0 {
			x = compileExpr(c.args[0])
		}
		return func(v *env) int64 {
			w := walker{x: x, agg: c.name}
			q.run(v, &w)
			if c.name == "count" {
				return w.n
			}
			return w.acc
		}
	case *call:
		return compileCall(e)
	}
	panic("model: unhandled expression") // a programming error: the checker accepted it
}

func distinctScalar(q *query, x fn) fn {
	return func(v *env) int64 {
		seen := map[int64]bool{}
		q.run(v, &walker{what: func(v *env) bool { seen[x(v)] = true; return true }})
		return int64(len(seen))
	}
}

func compileBinary(op string, l, r fn) fn {
	switch op {
	case "and":
		return func(v *env) int64 {
			if l(v) == 0 {
				return 0
			}
			return r(v)
		}
	case "or":
		return func(v *env) int64 {
			if l(v) != 0 {
				return 1
			}
			return r(v)
		}
	case "=":
		return func(v *env) int64 { return b2i(l(v) == r(v)) }
	case "<>":
		return func(v *env) int64 { return b2i(l(v) != r(v)) }
	case "<":
		return func(v *env) int64 { return b2i(l(v) < r(v)) }
	case "<=":
		return func(v *env) int64 { return b2i(l(v) <= r(v)) }
	case ">":
		return func(v *env) int64 { return b2i(l(v) > r(v)) }
	case ">=":
		return func(v *env) int64 { return b2i(l(v) >= r(v)) }
	case "+":
		return func(v *env) int64 { return satAdd(l(v), r(v)) }
	case "-":
		return func(v *env) int64 { return satAdd(l(v), -r(v)) }
	case "*":
		return func(v *env) int64 { return satMul(l(v), r(v)) }
	case "/":
		return func(v *env) int64 { return floorDiv(l(v), r(v)) }
	}
	return func(v *env) int64 { return floorMod(l(v), r(v)) }
}

func compileIn(e *in) fn {
	x := compileExpr(e.x)
	var inner fn
	if e.sub != nil {
		q := compileSelect(&selectExpr{from: e.sub.from, where: e.sub.where, slots: e.sub.slots})
		item := compileExpr(e.sub.items[0].e)
		inner = func(v *env) int64 {
			w := walker{x: item, cmp: true, match: x(v)}
			q.run(v, &w)
			return w.n
		}
	} else {
		var list []fn
		for _, a := range e.list {
			list = append(list, compileExpr(a))
		}
		inner = func(v *env) int64 {
			k := x(v)
			for _, a := range list {
				if a(v) == k {
					return 1
				}
			}
			return 0
		}
	}
	if e.not {
		return func(v *env) int64 { return 1 - inner(v) }
	}
	return inner
}

// compileCall makes an aggregate over the tuples in env.group, or random.
func compileCall(e *call) fn {
	var args []fn
	for _, a := range e.args {
		args = append(args, compileExpr(a))
	}
	if e.name == "random" {
		return func(v *env) int64 {
			h := v.in.Seed
			for _, a := range args {
				h = Mix(h ^ uint64(a(v)))
			}
			return int64(h >> 54)
		}
	}
	switch e.name {
	case "capacity_constraint":
		return capacityAggregate(args)
	case "count":
		if !e.distinct {
			return func(v *env) int64 { return int64(len(v.group) / len(v.slots)) }
		}
		return func(v *env) int64 {
			seen := map[int64]bool{}
			v.each(func() bool { seen[args[0](v)] = true; return true })
			return int64(len(seen))
		}
	case "all_equal", "all_different", "increasing":
		return sequenceAggregate(e.name, args[0])
	}
	name, x := e.name, args[0]
	return func(v *env) int64 {
		w := walker{x: x, agg: name}
		v.each(func() bool { return w.tuple(v) })
		return w.acc
	}
}

// each binds the tuples of the group in turn.
func (v *env) each(f func() bool) {
	n := len(v.slots)
	for i := 0; i+n <= len(v.group); i += n {
		for j, s := range v.slots {
			v.frames[s] = v.group[i+j]
		}
		if !f() {
			return
		}
	}
}

func sequenceAggregate(name string, x fn) fn {
	return func(v *env) int64 {
		ok, first := true, true
		var last int64
		seen := map[int64]bool{}
		v.each(func() bool {
			k := x(v)
			switch {
			case name == "all_different":
				ok = !seen[k]
				seen[k] = true
			case first:
			case name == "all_equal":
				ok = k == last
			default:
				ok = k >= last
			}
			last, first = k, false
			return ok
		})
		return b2i(ok)
	}
}

// capacityAggregate is DCM's capacity_constraint(variable, domain, demand, capacity) over joined rows: the
// demands of the rows at each value of the variable add up to at most the capacity given for it.
func capacityAggregate(args []fn) fn {
	return func(v *env) int64 {
		used, capacity := map[int64]int64{}, map[int64]int64{}
		v.each(func() bool {
			if k := args[0](v); k == args[1](v) {
				used[k] = satAdd(used[k], args[2](v))
				capacity[k] = args[3](v)
			}
			return true
		})
		for k, u := range used {
			if u > capacity[k] {
				return 0
			}
		}
		return 1
	}
}

// Mix is the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA'14): a hash of 64 bits.
func Mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// saturated is far from the ends of int64, so that a sum of two never wraps.
const saturated = 1 << 61

func clamp(x int64) int64 { return max(-saturated, min(saturated, x)) }

func satAdd(a, b int64) int64 { return clamp(clamp(a) + clamp(b)) }

func satMul(a, b int64) int64 {
	neg := (a < 0) != (b < 0)
	hi, lo := bits.Mul64(abs(a), abs(b))
	if hi != 0 || lo > saturated {
		lo = saturated
	}
	if neg {
		return -int64(lo)
	}
	return int64(lo)
}

func abs(a int64) uint64 {
	if a < 0 {
		return uint64(-a)
	}
	return uint64(a)
}

// floorDiv and floorMod round towards −∞; division by zero is 0, so that evaluation has no error.
func floorDiv(a, b int64) int64 {
	if b == 0 {
		return 0
	}
	q := a / b
	if a%b != 0 && (a < 0) != (b < 0) {
		q--
	}
	return q
}

func floorMod(a, b int64) int64 {
	if b == 0 {
		return 0
	}
	return a - b*floorDiv(a, b)
}
