package model

// Kind is the shape of an atom.
type Kind uint8

const (
	// Row: each unit of a class costs something at each node, or may not be there.
	Row Kind = iota
	// Cell: a function of what one process holds at one node. Load: of what is used at one node.
	Cell
	Load
	// Extreme: the largest value of a function of the load over all nodes.
	Extreme
	// Pair: ordered pairs of rows of one group at the same node.
	Pair
	// Different, Equal: the rows of a group are at different nodes, at one node. Span: number of their nodes.
	Different
	Equal
	Span
	// Symmetry says only that equal rows may be exchanged, which classes already use.
	Symmetry
	// Loose is anything else: the whole constraint is evaluated again for each candidate.
	Loose
)

func (k Kind) String() string {
	return [...]string{"row", "cell", "load", "extreme", "pair", "all_different", "all_equal", "span", "symmetry", "loose"}[k]
}

// Vars of a Form.
const (
	VarCores = iota
	VarSlices
	VarNew
	VarTotalCores
	VarTotalSlices
	NumVars
)

// Vars is a row of held (cores, slices, new) or of load (cores, slices, total_cores, total_slices).
type Vars [NumVars]int64

// Linear is Const + Σ Coef·var.
type Linear struct {
	Const int64
	Coef  [NumVars]int64
}

func (l *Linear) Eval(v *Vars) int64 {
	return l.Const + l.Coef[0]*v[0] + l.Coef[1]*v[1] + l.Coef[2]*v[2] + l.Coef[3]*v[3] + l.Coef[4]*v[4]
}

// Linear has one term a variable.
var _ = [1]struct{}{}[NumVars-5]

func (l *Linear) constant() bool { return l.Coef == [NumVars]int64{} }

// Test is a condition on a linear form.
type Test uint8

const (
	NotNegative Test = iota // ≥ 0
	Zero
	NotZero
)

// Guard is a condition of a Form.
type Guard struct {
	Lin  Linear
	Test Test
}

func (g *Guard) holds(v *Vars) bool {
	x := g.Lin.Eval(v)
	switch g.Test {
	case NotNegative:
		return x >= 0
	case Zero:
		return x == 0
	}
	return x != 0
}

// Form is a quadratic function with conditions, of the variables of one held or load row:
// 0 where a guard does not hold, else Lin + Σ Square[r]·r², divided by the variable Div if that is not −1.
type Form struct {
	Guards []Guard
	Lin    Linear
	Square [2]int64 // of cores and of slices
	Div    int8

	slow func(v Vars) int64 // for an expression that is not of this form
}

// Eval is the value of the form.
func (f *Form) Eval(v *Vars) int64 {
	if f.slow != nil {
		return f.slow(*v)
	}
	for i := range f.Guards {
		if !f.Guards[i].holds(v) {
			return 0
		}
	}
	x := f.Lin.Eval(v) + f.Square[0]*v[VarCores]*v[VarCores] + f.Square[1]*v[VarSlices]*v[VarSlices]
	if f.Div >= 0 {
		return floorDiv(x, v[f.Div])
	}
	return x
}

// Exact says that the form is the expression, not a call into the evaluator: it has bounds.
func (f *Form) Exact() bool { return f.slow == nil }

// Reach says how the value of a row atom depends on the node.
type Reach uint8

const (
	// Dense: anyhow. ByNode: on the node alone. Sparse: it is the same at all nodes but those the request
	// names and those the process is at.
	Dense Reach = iota
	ByNode
	Sparse
)

// Atom is a constraint in the form the solver works on. Goals are costs: a MAXIMIZE has its sign changed.
type Atom struct {
	Name     string
	Pos      Pos
	Kind     Kind
	Hard     bool
	Physical bool   // part of every policy
	Tier     int    // of a goal
	Sign     int64  // of a goal: −1 for MAXIMIZE
	Why      string // why it is loose, or has no bound; empty for a certified atom

	Form      Form  // Cell, Load, Extreme
	Reach     Reach // Row
	Stable    bool  // Row: it reads nothing that changes but by joining, leaving, dying and draining
	ByRequest bool  // Pair, Different, Equal, Span: the group is the request, else the process
	Weight    int64 // Pair and Span, Sign included

	stmt   *statement
	filter []fn // Pair and the like: conditions on the class
	slot   int
}

// Certified says that the atom has a propagator and a bound of its own.
func (a *Atom) Certified() bool { return a.Why == "" }

// scratch is where row atoms are evaluated; a policy has one.
type scratch struct {
	env env
	row [pendWidth]int64
}

// RowValue evaluates a Row atom for a unit of resource (0 core, 1 slice) of an item at a node: for a hard atom 1
// where it holds and 0 where not, for a goal the cost of the unit.
func (p *Policy) RowValue(a *Atom, in *Instance, item, resource, node int) int64 {
	s := &p.scratch
	in.pendingRow(s.row[:], item, int64(resource), in.Nodes[node].ID)
	s.env.in = in
	s.env.fixed = a.slot + 1
	s.env.frames[a.slot] = s.row[:]
	w := walker{x: a.stmt.f, agg: "sum"}
	if a.Hard {
		w.agg = "min"
	}
	a.stmt.q.run(&s.env, &w)
	s.env.fixed = 0
	if a.Hard {
		return b2i(w.n == 0 || w.acc != 0)
	}
	return a.Sign * w.acc
}

// AddRowValues adds to dst, by node, what RowValue says of a goal.
func (p *Policy) AddRowValues(a *Atom, in *Instance, item, resource int, dst []int64) {
	s := &p.scratch
	in.pendingRow(s.row[:], item, int64(resource), 0)
	s.env.in = in
	s.env.fixed = a.slot + 1
	for d := range dst {
		s.row[pendDkernel] = in.Nodes[d].ID
		s.env.frames[a.slot] = s.row[:]
		w := walker{x: a.stmt.f, agg: "sum"}
		a.stmt.q.run(&s.env, &w)
		dst[d] += a.Sign * w.acc
	}
	s.env.fixed = 0
}

// Covers says whether a grouping atom counts the units of resource of an item.
func (p *Policy) Covers(a *Atom, in *Instance, item, resource int) bool {
	s := &p.scratch
	in.pendingRow(s.row[:], item, int64(resource), 0)
	s.env.in = in
	s.env.frames[a.slot] = s.row[:]
	for _, f := range a.filter {
		if f(&s.env) == 0 {
			return false
		}
	}
	return true
}

// ByResource says that a Row atom may tell cores from slices.
func (a *Atom) ByResource() bool {
	return usesColumn(a.stmt, a.slot, pendResource) || usesColumn(a.stmt, a.slot, pendCores) || usesColumn(a.stmt, a.slot, pendSlices)
}
