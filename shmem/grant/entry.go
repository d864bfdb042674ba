package grant

import (
	"fmt"
	"math/bits"
	"sync/atomic"

	"dinos/shmem/layout"
	"dinos/shmem/region"
)

// Layout of the header and of an entry; see the package documentation.
const (
	Magic   = 0x6b63617273f1d0a7
	Version = 1

	offSlices   = 0x18
	offMachines = 0x20
	offWriter   = 0x40

	entryWords  = layout.GrantEntryBytes / 8
	wordState   = 0
	wordRecord  = 1 // and 4, of three words each
	recordWords = 3
	wordSpare   = wordRecord + 2*recordWords

	versionBits = 48
	maxVersion  = 1<<versionBits - 1
	writerShift = 32 // of the first version of a writer's life
	maxWriter   = 1<<(versionBits-writerShift) - 1

	// readTries is how often a Reader tries to see an entry at rest. The ckernel changes an entry a few times in a
	// millisecond at most, so a second try is rare.
	readTries = 16
)

// The entry is full but for the spare word. A negative length does not compile.
var (
	_ [entryWords - wordSpare - 1]byte
	_ [wordSpare + 1 - entryWords]byte
	_ [layout.GrantHeaderBytes - offWriter - 8]byte
	_ [offMachines - region.HeaderSize - 8]byte
)

// entry is an entry as it is stored, without its check. The ckernel's view has one per unit.
type entry struct{ word, generation, process uint64 }

func pack(s State, o Owner, version uint64) entry {
	return entry{uint64(s) | uint64(uint8(o.Peer))<<8 | version<<16, o.Generation, o.Process}
}

func (e entry) state() State    { return State(e.word) }
func (e entry) peer() int       { return int(uint8(e.word >> 8)) }
func (e entry) version() uint64 { return e.word >> 16 }
func (e entry) owner() Owner    { return Owner{e.peer(), e.generation, e.process} }
func (e entry) public() Entry   { return Entry{e.state(), e.owner(), e.version()} }

func (e entry) String() string {
	return fmt.Sprintf("%v by %v, grant %#x", e.state(), e.owner(), e.version())
}

// mix is a step of a hash: multiply to 128 bits and fold, as in wyhash (Wang Yi, 2019).
func mix(h, v uint64) uint64 {
	hi, lo := bits.Mul64(h^0x9e3779b97f4a7c15, v^0xd6e8feb86659fd93)
	return hi ^ lo
}

// check covers the entry, its place and the rack, so that an entry copied elsewhere or left from another rack does not pass.
func (e entry) check(rack, index uint64) uint64 {
	h := mix(rack, index+1)
	h = mix(h^e.word, e.generation+1)
	h = mix(h+e.word, e.process+1)
	return mix(h, e.word)
}

// writerWord is the header's word for a writer; the check tells damage from a successor.
func writerWord(rack, writer uint64) uint64 {
	return writer | mix(mix(rack, offWriter), writer)<<16
}

// writerOf is the writer that a word names; not if the word is damaged.
func writerOf(rack, word uint64) (uint64, bool) {
	w := word & maxWriter
	return w, w != 0 && writerWord(rack, w) == word
}

// line is the words of an entry in shared memory.
type line [entryWords]*atomic.Uint64

// words takes entry i, which the caller has checked against the shape, as attach has checked the shape against the region.
func words(r region.Region, i uint64) (l line, err error) {
	off := region.Off(layout.GrantHeaderBytes + i*layout.GrantEntryBytes)
	for w := range l {
		if l[w], err = r.U64(off + region.Off(8*w)); err != nil {
			return l, err
		}
	}
	return l, nil
}

// store writes e's record, not its state word.
func (l *line) store(e entry, rack, index uint64) {
	rec := wordRecord + recordWords*int(e.version()&1)
	l[rec].Store(e.generation)
	l[rec+1].Store(e.process)
	l[rec+2].Store(e.check(rack, index))
}

// load reads the entry as of one moment. The second result is the check that was stored, the third whether there was such a moment.
func (l *line) load() (e entry, check uint64, ok bool) {
	for range readTries {
		e.word = l[wordState].Load()
		rec := wordRecord + recordWords*int(e.version()&1)
		e.generation, e.process, check = l[rec].Load(), l[rec+1].Load(), l[rec+2].Load()
		// The record of a state word is not written while that word stands, and no word comes twice.
		if l[wordState].Load() == e.word {
			return e, check, true
		}
	}
	return e, check, false
}

// problem says what is wrong with e as the entry of a unit, whatever its check; "" is nothing.
func (s shape) problem(u Unit, e entry) string {
	o := e.owner()
	switch {
	case e.version() == 0:
		return "version 0, want more"
	case e.state() == 0 || e.state() >= states:
		return fmt.Sprintf("%v, want %d to %d", e.state(), Absent, states-1)
	case u.Core:
		return s.coreProblem(u, e.state(), o)
	}
	switch e.state() {
	case Absent:
		return "absent, which only cores can be"
	case Held:
		if err := s.dkernel(o); err != nil {
			return fmt.Sprintf("held by %v, want a dkernel (1 to %d) and a generation above 0", o, s.machines-1)
		}
	case Zeroing:
		if o.Peer >= s.machines || o.Generation == 0 || o.Process != 0 {
			return fmt.Sprintf("zeroed by %v, want a kernel (0 to %d), a generation above 0 and no process", o, s.machines-1)
		}
	default:
		if o != (Owner{}) {
			return fmt.Sprintf("%v, but owned by %v", e.state(), o)
		}
	}
	return ""
}

func (s shape) coreProblem(u Unit, st State, o Owner) string {
	switch st {
	case Absent, Lost:
		if o != (Owner{}) {
			return fmt.Sprintf("%v, but owned by %v", st, o)
		}
	case Free, Held:
		switch {
		case u.Machine == layout.Ckernel:
			return fmt.Sprintf("%v, but cores of the ckernel are not granted", st)
		case o.Peer != u.Machine || o.Generation == 0:
			return fmt.Sprintf("%v by %v, want its own machine and a generation above 0", st, o)
		case st == Free && o.Process != 0:
			return fmt.Sprintf("free, but owned by %v", o)
		}
	default:
		return fmt.Sprintf("%v, which only slices can be", st)
	}
	return ""
}
