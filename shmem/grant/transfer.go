package grant

import "fmt"

// Transfer gives a slice that a process has on one machine to the same process on another: the first is gone, the memory is not, and the
// process may use it still from the second. It is not zeroed and gets a new name. Cores stay where they are. Errors: those of
// Table.Release, ErrState for what is no process's, ErrNoSuch.
func (t *Table) Transfer(n Name, to Owner) (Name, error) {
	i, e, err := t.named(n, Held)
	if err != nil {
		return Name{}, err
	}
	if err := t.dkernel(to); err != nil {
		return Name{}, err
	}
	if n.Unit.Core || e.process == 0 || e.process != to.Process {
		return Name{}, fmt.Errorf("%w: %v is %v, to give it to %v it must be a slice of that process", ErrState, n, e, to)
	}
	g, err := t.set(i, Held, to)
	return Name{n.Unit, g}, err
}

// Inherited reports whether a unit that a process has came to its machine by Transfer: what it was before, which the record that is
// not in use still says, was the same process's. The answer is from shared memory; damage there makes it false.
func (t *Table) Inherited(u Unit) bool {
	i, err := t.index(u)
	if err != nil {
		return false
	}
	e := t.view[i]
	l, err := words(t.r, i)
	if err != nil || e.state() != Held || e.process == 0 {
		return false
	}
	rec := wordRecord + recordWords*int(e.version()&1^1)
	old := entry{generation: l[rec].Load(), process: l[rec+1].Load()}
	check := l[rec+2].Load()
	if old.process != e.process {
		return false
	}
	// Its state word is gone, but there are few that it can have been: held, by some machine, a version before.
	version := e.version() - 1
	for peer := 1; peer < t.machines; peer++ {
		for _, v := range []uint64{version, e.version() - 2} {
			old.word = pack(Held, Owner{Peer: peer}, v).word
			if old.check(t.rack, i) == check {
				return true
			}
		}
	}
	// The version has jumped, to that of another writer.
	return e.version()>>writerShift != 1 && e.version()&(1<<writerShift-1) <= 1
}

// Same reports whether the entry of a slice that is held is the grant n, maybe transferred since: to be granted anew takes a slice four
// versions (dirty, zeroing, free, held), so what is nearer can only be a transfer. Not so if another ckernel has written meanwhile.
func (e Entry) Same(n Name) bool {
	return e.State == Held && (e.Grant == n.Grant || !n.Unit.Core && e.Grant > n.Grant && e.Grant-n.Grant <= 3)
}
