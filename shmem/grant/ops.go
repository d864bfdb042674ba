package grant

import (
	"errors"
	"fmt"
	"math/bits"

	"dinos/shmem/layout"
)

// Online makes the first n cores of a life of a dkernel's machine free. All of the machine's cores must be absent. Once more
// for the same life and number (a dkernel that registers with a restarted ckernel) is fine and changes nothing.
func (t *Table) Online(peer int, generation uint64, n int) error {
	o := Owner{Peer: peer, Generation: generation}
	if err := t.dkernel(o); err != nil {
		return err
	}
	if n < 0 || n > layout.MaxCores {
		return fmt.Errorf("%w: machine %d with %d cores, want 0 to %d", ErrNoSuch, peer, n, layout.MaxCores)
	}
	base, _ := t.index(Core(peer, 0))
	absent, same := true, true
	for c := range uint64(layout.MaxCores) {
		e := t.view[base+c]
		gone := e.state() == Absent
		absent = absent && gone
		same = same && gone == (c >= uint64(n)) && (gone || e.state() == Lost || e.generation == generation)
	}
	switch {
	case same:
		return nil
	case !absent:
		return fmt.Errorf("%w: machine %d has cores already and they are not the %d of life %d, want the former life reclaimed", ErrState, peer, n, generation)
	}
	for c := range uint64(n) {
		if err := t.intact(base + c); err != nil {
			return err
		}
	}
	for c := range uint64(n) {
		if _, err := t.set(base+c, Free, o); err != nil {
			return t.undo(err, base, c, Absent, Owner{})
		}
	}
	return nil
}

// undo sets n entries from base back after err, unless this ckernel may no longer write.
func (t *Table) undo(err error, base, n uint64, s State, o Owner) error {
	if errors.Is(err, ErrFenced) {
		return err
	}
	for i := range n {
		err = errors.Join(err, t.force(base+i, s, o))
	}
	return err
}

// Grant gives one free unit to o. Errors: [ErrNoSuch], [ErrState] if it is not free, [ErrStale] if a core's machine lives another life.
func (t *Table) Grant(u Unit, o Owner) (Name, error) {
	i, err := t.index(u)
	if err != nil {
		return Name{}, err
	}
	if err := t.dkernel(o); err != nil {
		return Name{}, err
	}
	e := t.view[i]
	switch {
	case e.state() != Free:
		return Name{}, fmt.Errorf("%w: %v is %v, want free", ErrState, u, e)
	case u.Core && o.Peer != u.Machine:
		return Name{}, fmt.Errorf("%w: %v for %v, want an owner on its own machine", ErrNoSuch, u, o)
	case u.Core && o.Generation != e.generation:
		return Name{}, fmt.Errorf("%w: %v for %v, its machine lives life %d", ErrStale, u, o, e.generation)
	}
	g, err := t.set(i, Held, o)
	return Name{u, g}, err
}

// GrantSlices gives the n free slices with the least numbers to o and appends their names to dst, all or none. Errors: [ErrNone],
// [ErrNoSuch], [ErrTampered].
func (t *Table) GrantSlices(o Owner, n int, dst []Name) ([]Name, error) {
	if n < 0 || uint64(n) > t.free.n {
		return dst, fmt.Errorf("%w: %d slices for %v, %d are free and %d wait to be zeroed", ErrNone, n, o, t.free.n, t.dirty.n)
	}
	return t.batch(o, n, dst, func() Unit { return Slice(t.free.first()) })
}

// GrantCores gives the n free cores of o's machine with the least numbers to o and appends their names to dst, all or none.
// Errors: those of GrantSlices and [Table.Grant].
func (t *Table) GrantCores(o Owner, n int, dst []Name) ([]Name, error) {
	if err := t.dkernel(o); err != nil {
		return dst, err
	}
	if free := bits.OnesCount64(t.cores[o.Peer]); n < 0 || n > free {
		return dst, fmt.Errorf("%w: %d cores for %v, its machine has %d free", ErrNone, n, o, free)
	}
	return t.batch(o, n, dst, func() Unit { return Core(o.Peer, bits.TrailingZeros64(t.cores[o.Peer])) })
}

func (t *Table) batch(o Owner, n int, dst []Name, pick func() Unit) ([]Name, error) {
	start := len(dst)
	for range n {
		name, err := t.Grant(pick(), o)
		if err == nil {
			dst = append(dst, name)
			continue
		}
		for _, g := range dst[start:] {
			// Nobody was told of it, so nobody used it: it is still zero.
			i, _ := t.index(g.Unit)
			back := Owner{}
			if g.Unit.Core {
				back = Owner{Peer: o.Peer, Generation: o.Generation}
			}
			err = t.undo(err, i, 1, Free, back)
		}
		return dst[:start], err
	}
	return dst, nil
}

// named is the entry of a grant that must be in force, in state s.
func (t *Table) named(n Name, s State) (uint64, entry, error) {
	i, err := t.index(n.Unit)
	if err != nil {
		return 0, entry{}, err
	}
	e := t.view[i]
	if e.state() != s || e.version() != n.Grant {
		return 0, entry{}, fmt.Errorf("%w: %v as %v, the table says %v", ErrStale, n, s, e)
	}
	return i, e, nil
}

// owned is named for a caller: a life of a dkernel for all it holds, a process for its own.
func (t *Table) owned(by Owner, n Name) (uint64, entry, error) {
	i, e, err := t.named(n, Held)
	if err == nil && (e.peer() != by.Peer || e.generation != by.Generation || by.Process != 0 && e.process != by.Process) {
		err = fmt.Errorf("%w: %v is not %v's, the table says %v", ErrStale, n, by, e)
	}
	return i, e, err
}

// Assign gives what a dkernel holds for itself to a process on it. The grant gets a new name. What a process has cannot go to
// another: it must be released, so that it is zeroed between.
func (t *Table) Assign(by Owner, n Name, process uint64) (Name, error) {
	i, e, err := t.owned(by, n)
	if err != nil {
		return Name{}, err
	}
	if process == 0 || e.process != 0 {
		return Name{}, fmt.Errorf("%w: %v from process %d to process %d, want from the kernel (0) to a process", ErrState, n, e.process, process)
	}
	g, err := t.set(i, Held, Owner{e.peer(), e.generation, process})
	return Name{n.Unit, g}, err
}

// Release gives grants back: slices become dirty, cores free. by is the dkernel that holds them, or a process on it that does.
// It checks all names first; a call with one bad or doubled name changes nothing. The number is of those released: less
// than all only if the error is [ErrTampered] or [ErrFenced].
func (t *Table) Release(by Owner, names ...Name) (int, error) {
	seen := make(map[Unit]bool, len(names))
	for _, n := range names {
		i, _, err := t.owned(by, n)
		if err != nil {
			return 0, err
		}
		if seen[n.Unit] {
			return 0, fmt.Errorf("%w: %v twice in one release", ErrStale, n)
		}
		seen[n.Unit] = true
		if err := t.intact(i); err != nil {
			return 0, err
		}
	}
	for done, n := range names {
		i, e, err := t.named(n, Held)
		if err == nil {
			s, o := after(n.Unit, e)
			_, err = t.set(i, s, o)
		}
		if err != nil {
			return done, err
		}
	}
	return len(names), nil
}

// after is what a held unit becomes when its owner no longer has it, while its machine lives.
func after(u Unit, e entry) (State, Owner) {
	if u.Core {
		return Free, Owner{Peer: e.peer(), Generation: e.generation}
	}
	return Dirty, Owner{}
}

// StartZero hands up to n dirty slices to by, a kernel, which writes zeros to them, and appends their names to dst;
// beside an error, too, those that were appended are by's.
func (t *Table) StartZero(by Owner, n int, dst []Name) ([]Name, error) {
	if by.Peer < 0 || by.Peer >= t.machines || by.Generation == 0 || by.Process != 0 {
		return dst, fmt.Errorf("%w: %v to zero slices, want a kernel (0 to %d), a generation above 0 and no process", ErrNoSuch, by, t.machines-1)
	}
	for ; n > 0 && t.dirty.n > 0; n-- {
		i := t.dirty.first()
		g, err := t.set(i, Zeroing, by)
		if err != nil {
			return dst, err
		}
		dst = append(dst, Name{t.unit(i), g})
	}
	return dst, nil
}

// Zeroed is by's word that the slice is zero: it is free then.
func (t *Table) Zeroed(by Owner, n Name) error {
	i, e, err := t.named(n, Zeroing)
	if err != nil {
		return err
	}
	if e.owner() != by {
		return fmt.Errorf("%w: %v is not zeroed by %v, the table says %v", ErrStale, n, by, e)
	}
	_, err = t.set(i, Free, Owner{})
	return err
}

// Reclaim takes back all that lives of a peer up to a generation have: slices become dirty, cores absent. It returns the units that
// were held. The peer must be fenced: whoever is granted a slice next relies on it. It goes through tampered entries, and
// once more after an error goes on where that stopped.
func (t *Table) Reclaim(peer int, generation uint64) ([]Unit, error) {
	if err := t.dkernel(Owner{Peer: peer, Generation: generation}); err != nil {
		return nil, err
	}
	base, _ := t.index(Core(peer, 0))
	newer := false
	for _, e := range t.view[base : base+layout.MaxCores] {
		newer = newer || e.generation > generation
	}
	return t.take(func(u Unit, e entry) (State, bool) {
		gone := e.peer() == peer && e.generation != 0 && e.generation <= generation
		switch {
		case !u.Core:
			return Dirty, gone && (e.state() == Held || e.state() == Zeroing)
		case u.Machine != peer:
			return Absent, false
		}
		// Whose a lost core is nobody knows, but if all lives of its machine are over, it is gone.
		return Absent, gone || e.state() == Lost && !newer
	})
}

// ReclaimProcess takes back all that a process has, on all machines: slices become dirty, cores free. It must run nowhere.
func (t *Table) ReclaimProcess(process uint64) ([]Unit, error) {
	if process == 0 {
		return nil, fmt.Errorf("%w: process 0, want a process", ErrNoSuch)
	}
	return t.take(func(u Unit, e entry) (State, bool) {
		s, _ := after(u, e)
		return s, e.state() == Held && e.process == process
	})
}

// take sets all units that pick says to the state it says.
func (t *Table) take(pick func(Unit, entry) (State, bool)) ([]Unit, error) {
	var held []Unit
	for i := range t.view {
		u, e := t.unit(uint64(i)), t.view[i]
		s, ok := pick(u, e)
		if !ok {
			continue
		}
		o := Owner{}
		if s == Free {
			_, o = after(u, e)
		}
		if err := t.force(uint64(i), s, o); err != nil {
			return held, err
		}
		if e.state() == Held {
			held = append(held, u)
		}
	}
	return held, nil
}

// Settle ends that a unit is lost. With an owner, it is held by it (a life that says so and can be believed) and gets a name. With
// the zero Owner a slice becomes dirty and a core absent, until its machine's next life; the caller knows that no living kernel uses it.
func (t *Table) Settle(u Unit, o Owner) (Name, error) {
	i, err := t.index(u)
	if err != nil {
		return Name{}, err
	}
	if e := t.view[i]; e.state() != Lost {
		return Name{}, fmt.Errorf("%w: %v is %v, want lost", ErrState, u, e)
	}
	s := Held
	switch {
	case o == Owner{} && u.Core:
		s = Absent
	case o == Owner{}:
		s = Dirty
	default:
		if err := t.dkernel(o); err != nil {
			return Name{}, err
		}
		if u.Core && o.Peer != u.Machine {
			return Name{}, fmt.Errorf("%w: %v for %v, want an owner on its own machine", ErrNoSuch, u, o)
		}
	}
	g, err := t.set(i, s, o)
	return Name{u, g}, err
}
