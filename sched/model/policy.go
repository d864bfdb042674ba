package model

import (
	"embed"
	"fmt"
	"strings"
)

//go:embed policies/*.sql
var policyFiles embed.FS

// DefaultPolicy is the name of the policy a rack starts with.
const DefaultPolicy = "locality"

// physical holds the constraints that every policy has: a dkernel has only so many cores.
const physical = "physical"

// Shipped lists the names of the policies that come with the system, the default first.
func Shipped() []string {
	return []string{DefaultPolicy, "capacity-only", "random", "round-robin", "fill-current", "ours"}
}

// ShippedText is the text of a shipped policy, or of "physical".
func ShippedText(name string) (string, error) {
	b, err := policyFiles.ReadFile("policies/" + name + ".sql")
	if err != nil {
		return "", fmt.Errorf("no shipped policy %q: there are %s", name, strings.Join(Shipped(), ", "))
	}
	return string(b), nil
}

// Policy is a compiled policy: the physical constraints and those of its text.
type Policy struct {
	Name  string
	Text  string
	Atoms []Atom

	stmts   []*statement
	uses    uint32 // relations, by bit
	scratch scratch
}

// Compile parses, checks and compiles a policy. The error is an *Error with the line and column.
func Compile(name, text string) (*Policy, error) {
	base, err := ShippedText(physical)
	if err != nil {
		return nil, err
	}
	stmts, err := parse(physical, base)
	if err != nil {
		return nil, err
	}
	own, err := parse(name, text)
	if err != nil {
		return nil, err
	}
	if len(own) == 0 {
		return nil, &Error{Policy: name, Pos: Pos{1, 1}, Msg: "the policy is empty",
			Hint: "a policy without goals is CREATE CONSTRAINT any AS SELECT * FROM pending MINIMIZE 0"}
	}
	for _, s := range own {
		for _, b := range stmts {
			if s.name == b.name {
				return nil, &Error{Policy: name, Pos: s.pos, Msg: fmt.Sprintf("%q is a physical constraint, which every policy has", s.name),
					Hint: "choose another name"}
			}
		}
	}
	if err := check(physical, stmts); err != nil {
		return nil, err
	}
	if err := check(name, own); err != nil {
		return nil, err
	}
	p := &Policy{Name: name, Text: text, stmts: append(stmts, own...)}
	for i, s := range p.stmts {
		s.q = compileSelect(s.sel)
		markUses(&p.uses, s)
		if s.view {
			continue
		}
		s.f = compileExpr(s.expr)
		if !isDecided(s.sel) && !decidedExpr(s.expr) {
			return nil, &Error{Policy: name, Pos: s.pos, Msg: fmt.Sprintf("%q does not depend on the placement", s.name),
				Hint: "select from pending, held or load"}
		}
		if l, ok := s.expr.(*literal); ok && s.goal == Check && l.num == 0 && s.sel.where == nil {
			return nil, &Error{Policy: name, Pos: l.pos, Msg: fmt.Sprintf("%q can never be satisfied", s.name), Hint: "CHECK a condition that can hold"}
		}
		a, err := atomOf(p, s)
		if err != nil {
			return nil, err
		}
		a.Physical = i < len(stmts)
		p.Atoms = append(p.Atoms, a)
	}
	return p, nil
}

// MustShipped compiles a shipped policy, whose text is part of the program.
func MustShipped(name string) *Policy {
	text, err := ShippedText(name)
	if err != nil {
		panic(err)
	}
	p, err := Compile(name, text)
	if err != nil {
		panic(err)
	}
	return p
}

func markUses(uses *uint32, s *statement) {
	mark := func(sel *selectExpr) {
		for i := range sel.from {
			if id := sel.from[i].rel.id; id != relView {
				*uses |= 1 << id
			}
		}
	}
	mark(s.sel)
	f := func(e expr) bool {
		switch e := e.(type) {
		case *in:
			if e.sub != nil {
				mark(e.sub)
			}
		case *exists:
			mark(e.sub)
		case *scalar:
			mark(e.sub)
		}
		return true
	}
	walkSelect(s.sel, f)
	walk(s.expr, f)
}

func decidedExpr(e expr) bool {
	return e != nil && isDecided(&selectExpr{items: []selectItem{{e: e}}})
}

// Certified says that all atoms have bounds of their own, so that a solution can be proved optimal.
func (p *Policy) Certified() bool {
	for i := range p.Atoms {
		if !p.Atoms[i].Certified() {
			return false
		}
	}
	return true
}

// Describe lists the constraints: name, kind, tier, and whether they are certified.
func (p *Policy) Describe() string {
	var b strings.Builder
	fmt.Fprintf(&b, "policy %s\n%-20s %-13s %-10s %s\n", p.Name, "constraint", "atom", "goal", "bound")
	for i := range p.Atoms {
		a := &p.Atoms[i]
		goal := "hard"
		if !a.Hard {
			goal = fmt.Sprintf("tier %d", a.Tier)
		}
		bound := "certified"
		if !a.Certified() {
			bound = "uncertified: " + a.Why
		}
		fmt.Fprintf(&b, "%-20s %-13s %-10s %s\n", a.Name, a.Kind, goal, bound)
	}
	return b.String()
}

// Violation is a hard constraint that an assignment breaks.
type Violation struct {
	Constraint string
	Pos        Pos
	Rows       int // how many rows or groups break it
}

// Outcome is what the policy says of an assignment.
type Outcome struct {
	Violations []Violation
	Cost       [MaxTiers]int64 // by tier; tier 0 is not counted here
}

// Evaluate interprets the text of the policy over the exploded rows of an assignment, one row a unit, without
// atoms: the meaning of a policy, against which the solver is tested. It is slow and allocates.
func (p *Policy) Evaluate(in *Instance, parts []Part) Outcome {
	var out Outcome
	in.assign(parts)
	for i := range p.Atoms {
		p.evaluate(&p.Atoms[i], in, &out)
	}
	return out
}

// EvaluateOne does the same for one constraint and answers whether it is broken.
func (p *Policy) EvaluateOne(a *Atom, in *Instance, parts []Part) []Violation {
	var out Outcome
	in.assign(parts)
	p.evaluate(a, in, &out)
	return out.Violations
}

// EvaluateLoose does the same for the loose constraints alone.
func (p *Policy) EvaluateLoose(in *Instance, parts []Part) Outcome {
	var out Outcome
	in.assign(parts)
	for i := range p.Atoms {
		if p.Atoms[i].Kind == Loose {
			p.evaluate(&p.Atoms[i], in, &out)
		}
	}
	return out
}

func (p *Policy) evaluate(a *Atom, in *Instance, out *Outcome) {
	s := a.stmt
	e := &env{in: in, changed: a.Hard}
	bad, sum := 0, int64(0)
	add := func(v *env) bool {
		x := s.f(v)
		if a.Hard {
			if x == 0 {
				bad++
			}
			return true
		}
		sum = satAdd(sum, x)
		return true
	}
	if len(s.sel.groupBy) > 0 || hasAggregate(s.expr) {
		s.q.groups(e, add)
	} else {
		s.q.run(e, &walker{what: add})
	}
	if bad > 0 {
		out.Violations = append(out.Violations, Violation{a.Name, a.Pos, bad})
	}
	if !a.Hard {
		out.Cost[a.Tier] = satAdd(out.Cost[a.Tier], a.Sign*sum)
	}
}
