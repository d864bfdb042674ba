package grant

import (
	"errors"
	"fmt"
	"iter"
	"math/bits"

	"dinos/shmem/layout"
	"dinos/shmem/region"
)

// Table is the ckernel's end: it changes the table, and keeps its own view of it, which counts if the two differ.
type Table struct {
	Reader
	writer uint64
	view   []entry  // per unit
	free   set      // slices
	dirty  set      // slices
	cores  []uint64 // free cores per machine, a bit each
	held   int      // units of both kinds
	lost   int
}

// Counts are levels of the table.
type Counts struct {
	Slices, FreeSlices, DirtySlices uint64
	Cores, FreeCores                uint64 // of machines that run
	Held, Lost                      uint64 // units
}

// Format makes an empty table in a rack and takes it: all cores absent, all slices free if their memory is known to be zero,
// else dirty. Who had the table before must be gone.
func Format(k *layout.Rack, zeroed bool) (*Table, error) {
	r, err := attach(k)
	if err != nil {
		return nil, err
	}
	if err := r.r.InvalidateHeader(0); err != nil {
		return nil, err
	}
	if err := r.r.Zero(8, r.r.Len()-8); err != nil {
		return nil, err
	}
	t := newTable(r, 1)
	slice := Dirty
	if zeroed {
		slice = Free
	}
	for i := range t.units() {
		s := slice
		if i >= t.slices {
			s = Absent
		}
		if err := t.publish(i, pack(s, Owner{}, 1<<writerShift)); err != nil {
			return nil, err
		}
		t.note(i, 1)
	}
	for off, v := range map[region.Off]uint64{offSlices: t.slices, offMachines: uint64(t.machines), offWriter: writerWord(t.rack, 1)} {
		if err := r.r.StoreU64(off, v); err != nil {
			return nil, err
		}
	}
	return t, r.r.WriteHeader(0, region.Header{Magic: Magic, Version: Version, Generation: t.rack})
}

func newTable(r *Reader, writer uint64) *Table {
	return &Table{Reader: *r, writer: writer, view: make([]entry, r.units()),
		free: newSet(r.slices), dirty: newSet(r.slices), cores: make([]uint64, r.machines)}
}

// Recover takes over the table of a former life of the ckernel and rebuilds the view from it. The former life is fenced out
// from then on. Damaged entries are reported, and their units are Lost until [Table.Settle]; slices that the former ckernel was
// zeroing itself are dirty again. Errors: those of [Open], [ErrExhausted], [ErrTampered] if somebody takes it at the same time.
func Recover(k *layout.Rack) (*Table, []Violation, error) {
	r, err := Open(k)
	if err != nil {
		return nil, nil, err
	}
	word, err := r.r.LoadU64(offWriter)
	if err != nil {
		return nil, nil, err
	}
	var found []Violation
	writer, sound := writerOf(r.rack, word)
	if !sound {
		// The successor must have a number that no writer had. The versions say who wrote.
		found = append(found, Violation{Kind: BadHeader, Text: fmt.Sprintf("writer word %#x is damaged", word)})
		writer = r.lastWriter()
	}
	if writer++; writer > maxWriter {
		return nil, found, fmt.Errorf("%w: %d ckernels wrote this table, at most %d can", ErrExhausted, writer-1, maxWriter)
	}
	ok, err := r.r.CompareAndSwapU64(offWriter, word, writerWord(r.rack, writer))
	if err != nil {
		return nil, found, err
	}
	if !ok {
		return nil, found, fmt.Errorf("%w: the writer changed while this ckernel took it over", ErrTampered)
	}
	t := newTable(r, writer)
	for i := range t.units() {
		v, err := t.adopt(i)
		found = append(found, v...)
		if err != nil {
			return nil, found, err
		}
	}
	return t, found, nil
}

// lastWriter is the greatest writer that any sound entry names.
func (r *Reader) lastWriter() uint64 {
	last := uint64(1)
	for i := range r.units() {
		if e, err := r.load(i); err == nil {
			last = max(last, e.version()>>writerShift)
		}
	}
	return last
}

// adopt takes entry i into the view.
func (t *Table) adopt(i uint64) ([]Violation, error) {
	e, err := t.load(i)
	switch {
	case err != nil:
		// What it says is worthless, its version too: this writer's first is above all names ever given.
		if perr := t.publish(i, pack(Lost, Owner{}, t.writer<<writerShift)); perr != nil {
			return nil, perr
		}
		t.note(i, 1)
		return []Violation{{Unit: t.unit(i), Kind: BadEntry, Text: err.Error()}}, nil
	case e.state() == Zeroing && e.peer() == layout.Ckernel:
		t.view[i] = e
		t.note(i, 1)
		_, err = t.set(i, Dirty, Owner{})
		return nil, err
	}
	t.view[i] = e
	t.note(i, 1)
	return nil, nil
}

// publish writes entry i without regard to what is there, and takes it into the view. The counts are the caller's.
func (t *Table) publish(i uint64, e entry) error {
	l, err := words(t.r, i)
	if err != nil {
		return err
	}
	l.store(e, t.rack, i)
	l[wordSpare].Store(0)
	l[wordState].Store(e.word)
	t.view[i] = e
	return nil
}

// next is entry i as its next change makes it.
func (t *Table) next(i uint64, s State, o Owner) (entry, error) {
	version := t.view[i].version() + 1
	if first := t.writer << writerShift; version < first {
		version = first | version&1 // the other record, whatever the step
	}
	if version > maxVersion {
		return entry{}, fmt.Errorf("%w: version of %v is at its end, 2^%d", ErrExhausted, t.unit(i), versionBits)
	}
	return pack(s, o, version), nil
}

// set changes the state or owner of a unit. It, force and publish (for those that found an entry damaged) are the only ones that do.
func (t *Table) set(i uint64, s State, o Owner) (grant uint64, err error) {
	if err := t.own(); err != nil {
		return 0, err
	}
	e, err := t.next(i, s, o)
	if err != nil {
		return 0, err
	}
	l, err := words(t.r, i)
	if err != nil {
		return 0, err
	}
	l.store(e, t.rack, i)
	if !l[wordState].CompareAndSwap(t.view[i].word, e.word) {
		return 0, t.tampered(i, l[wordState].Load())
	}
	t.note(i, -1)
	t.view[i] = e
	t.note(i, 1)
	return e.version(), nil
}

// force is set for what must not fail because somebody wrote to the entry. It refuses with ErrFenced and ErrExhausted.
func (t *Table) force(i uint64, s State, o Owner) error {
	if err := t.own(); errors.Is(err, ErrFenced) {
		return err
	}
	e, err := t.next(i, s, o)
	if err != nil {
		return err
	}
	t.note(i, -1)
	err = t.publish(i, e)
	t.note(i, 1)
	return err
}

// intact checks that the state word of i is what the view says, so that a batch fails before it began, not in the middle.
func (t *Table) intact(i uint64) error {
	l, err := words(t.r, i)
	if err != nil {
		return err
	}
	if w := l[wordState].Load(); w != t.view[i].word {
		return t.tampered(i, w)
	}
	return nil
}

func (t *Table) tampered(i, word uint64) error {
	return fmt.Errorf("%w: state word of %v is %#x, want %#x (%v)", ErrTampered, t.unit(i), word, t.view[i].word, t.view[i])
}

// own checks that no other ckernel took over.
func (t *Table) own() error {
	word, err := t.r.LoadU64(offWriter)
	if err != nil {
		return err
	}
	if word == writerWord(t.rack, t.writer) {
		return nil
	}
	if w, ok := writerOf(t.rack, word); ok && w > t.writer {
		return fmt.Errorf("%w: writer %d took over from %d", ErrFenced, w, t.writer)
	}
	return fmt.Errorf("%w: writer word %#x, want %#x", ErrTampered, word, writerWord(t.rack, t.writer))
}

// note adds entry i of the view to the sets and counts, or (by -1) takes it out.
func (t *Table) note(i uint64, by int) {
	u := t.unit(i)
	switch t.view[i].state() {
	case Held:
		t.held += by
	case Lost:
		t.lost += by
	case Free:
		if u.Core {
			t.cores[u.Machine] ^= 1 << u.Index
		} else {
			t.free.put(i, by > 0)
		}
	case Dirty:
		t.dirty.put(i, by > 0)
	}
}

// Counts are the levels of the view.
func (t *Table) Counts() Counts {
	c := Counts{Slices: t.slices, FreeSlices: t.free.n, DirtySlices: t.dirty.n, Held: uint64(t.held), Lost: uint64(t.lost)}
	for _, m := range t.cores {
		c.FreeCores += uint64(bits.OnesCount64(m))
	}
	for _, e := range t.view[t.slices:] {
		if e.state() != Absent {
			c.Cores++
		}
	}
	return c
}

// Entry is what the view says of a unit; [Reader.Read] is what the shared table says. The error is [ErrNoSuch].
func (t *Table) Entry(u Unit) (Entry, error) {
	i, err := t.index(u)
	if err != nil {
		return Entry{}, err
	}
	return t.view[i].public(), nil
}

// All is the view: slices, then cores, in order. The table must not be changed meanwhile.
func (t *Table) All() iter.Seq2[Unit, Entry] {
	return func(yield func(Unit, Entry) bool) {
		for i, e := range t.view {
			if !yield(t.unit(uint64(i)), e.public()) {
				return
			}
		}
	}
}

// Repair writes the view over everything in shared memory that differs from it and returns what did. Grants keep their
// names. It refuses with [ErrFenced] after another ckernel took over.
func (t *Table) Repair() ([]Violation, error) {
	if err := t.own(); errors.Is(err, ErrFenced) {
		return nil, err
	}
	found := t.compareHeader()
	for off, v := range map[region.Off]uint64{offSlices: t.slices, offMachines: uint64(t.machines), offWriter: writerWord(t.rack, t.writer)} {
		if err := t.r.StoreU64(off, v); err != nil {
			return found, err
		}
	}
	if err := t.r.WriteHeader(0, region.Header{Magic: Magic, Version: Version, Generation: t.rack}); err != nil {
		return found, err
	}
	for i := range t.units() {
		v, bad := t.compare(i)
		if !bad {
			continue
		}
		found = append(found, v)
		if err := t.publish(i, t.view[i]); err != nil {
			return found, err
		}
	}
	return found, nil
}

// set is a set of slices that finds its least member fast.
type set struct {
	words []uint64
	low   int // no word before it has a member
	n     uint64
}

func newSet(n uint64) set { return set{words: make([]uint64, (n+63)/64)} }

func (s *set) has(i uint64) bool { return s.words[i/64]>>(i%64)&1 != 0 }

func (s *set) put(i uint64, in bool) {
	w, b := int(i/64), uint64(1)<<(i%64)
	if in {
		s.words[w] |= b
		s.low = min(s.low, w)
		s.n++
	} else {
		s.words[w] &^= b
		s.n--
	}
}

// first is the least member; there must be one.
func (s *set) first() uint64 {
	for s.words[s.low] == 0 {
		s.low++
	}
	return uint64(s.low*64 + bits.TrailingZeros64(s.words[s.low]))
}
