package sched

import (
	"fmt"
	"strings"
)

// Kind classifies a Refusal.
type Kind uint8

const (
	Invalid        Kind = iota // malformed: negative, zero, too large, repeated
	UnknownProcess             // never started
	DeadProcess                // has exited
	UnknownDkernel
	Stale      // another generation of the dkernel
	Infeasible // constraints of the policy or the rack leave no place
	Contended  // it fits alone, but not with the requests it came with
	NotHeld    // released more than is held
	Moving     // the units are under way to another dkernel
	UnknownMove
	BadPolicy // does not parse, does not type-check, or can never be satisfied
	Budget    // the solver has nothing to work with
	Internal  // a fault of the scheduler; nothing was done
)

func (k Kind) String() string {
	return [...]string{"invalid", "unknown process", "dead process", "unknown dkernel", "stale generation", "infeasible",
		"contended", "not held", "moving", "unknown move", "bad policy", "budget", "internal"}[k]
}

// Refusal is the error of every call: what was refused, by which constraint, and why. The state is as before.
type Refusal struct {
	Op         string
	Kind       Kind
	Constraint string   // the constraint, or the relation whose rule it breaks
	Conflict   []string // for Infeasible: a minimal set of constraints that refuse it together
	Detail     string
	Err        error // for BadPolicy: the *model.Error
}

func (r *Refusal) Error() string {
	if len(r.Conflict) > 1 {
		return fmt.Sprintf("%s: %s (%s): %s", r.Op, r.Kind, strings.Join(r.Conflict, " with "), r.Detail)
	}
	return fmt.Sprintf("%s: %s (%s): %s", r.Op, r.Kind, r.Constraint, r.Detail)
}

func (r *Refusal) Unwrap() error { return r.Err }

func refuse(op string, k Kind, constraint, format string, args ...any) *Refusal {
	return &Refusal{Op: op, Kind: k, Constraint: constraint, Detail: fmt.Sprintf(format, args...)}
}
