// Package grant is the ownership table of the rack: who may use which 2 MiB slice of shared memory and which core.
//
// Every unit (a slice or a core) is in exactly one state, and so has at most one owner: the state is one word of the unit's
// only entry.
//
//	slice   free ──Grant──▶ held ──Release, Reclaim──▶ dirty ──StartZero──▶ zeroing ──Zeroed──▶ free
//	                        │  ▲                         ▲                     │
//	                        └──┘ Assign                  └──Reclaim, Recover───┘
//	core    absent ──Online──▶ free ──Grant──▶ held ──Release──▶ free,   any ──Reclaim──▶ absent
//	both    damaged entry ──Recover──▶ lost ──Settle──▶ held; or dirty (slice), absent (core)
//
// The owner of a held unit is a life of a dkernel, or a process on it: peer@generation or process@peer@generation. A core is only ever
// owned by its own machine. Cores of the ckernel are never granted.
//
// # Layout
//
// Version 1, in the area that layout.GrantRegion gives. Words are 64 bits, offsets in bytes.
//
//	0x000  magic · version · rack generation (region.Header)
//	0x018  slices
//	0x020  machines
//	0x040  writer:16 | check:48   the number of ckernel lives that wrote this table
//	0x1000 an entry of 64 bytes per slice, then one per core of each machine (layout.MaxCores each)
//
// An entry is a state word, two records and a spare word that is zero:
//
//	0x00  state:8 | peer:8 | version:48
//	0x08  record of even versions: generation, process, check
//	0x20  record of odd versions: generation, process, check
//	0x38  zero
//
// # One writer
//
// Only the ckernel writes. It writes the record that is not in use, then replaces the state word by a compare-and-swap:
// that is the one moment at which the unit changes hands. A ckernel that dies in between has changed nothing, so a table never
// needs undoing. A swap that fails means that somebody else wrote, and is [ErrTampered]; the ckernel's own view is what
// counts, and [Table.Repair] writes it again.
//
// The version names the grant: it grows with each change of the entry and starts at writer·2^32 in each life of the ckernel,
// so that even an entry whose version was lost never gives a name twice. Releases and acknowledgements carry the name and
// are refused if it is old.
//
// # Readers
//
// Dkernels and the host tool read through a [Reader], which trusts nothing: an entry is returned only if its check fits its
// bytes, its place and this rack, and if its state and owner make sense; else it is [ErrDamaged]. The check (a hash) finds damage,
// not malice: against a peer that computes checks stands the comparison with the ckernel's view in [Audit].
//
// # Concurrency
//
// A Table belongs to one goroutine at a time. Any number of goroutines of any kernel may use a Reader meanwhile; it takes no
// lock and gives up with [ErrBusy] instead of waiting for a quiet moment without end.
package grant

import (
	"errors"
	"fmt"

	"dinos/shmem/layout"
)

// Errors; each returned error wraps one and names the unit.
var (
	// ErrUnformatted: the area holds no grant table of this rack, or one of another version or size.
	ErrUnformatted = errors.New("grant: no grant table of this rack")
	// ErrNoSuch: a slice, core, peer or owner that cannot exist here.
	ErrNoSuch = errors.New("grant: no such unit or owner")
	// ErrState: the unit is not in the state that the call needs.
	ErrState = errors.New("grant: unit is in another state")
	// ErrStale: the grant named has ended, or was never this caller's.
	ErrStale = errors.New("grant: stale grant")
	// ErrNone: fewer units are free than were asked for.
	ErrNone = errors.New("grant: not enough free units")
	// ErrFenced: another life of the ckernel took the table over.
	ErrFenced = errors.New("grant: another ckernel writes this table")
	// ErrTampered: somebody who may not has written to the table. The call changed nothing, unless its
	// documentation says what; Repair helps.
	ErrTampered = errors.New("grant: table was written by somebody else")
	// ErrDamaged: the bytes of an entry make no sense.
	ErrDamaged = errors.New("grant: damaged entry")
	// ErrBusy: the entry changed under each attempt to read it.
	ErrBusy = errors.New("grant: entry keeps changing")
	// ErrExhausted: versions or writers are used up; the rack must be formatted anew.
	ErrExhausted = errors.New("grant: out of versions")
)

// State of a unit. Numbers are part of the layout; 0 is none, so that zeroed memory is no entry.
type State uint8

// The states.
const (
	Absent  State = iota + 1 // core only: its machine does not run, or has fewer
	Free                     // may be granted; a slice is zero
	Held                     // owned by a dkernel, or a process on one
	Dirty                    // slice only: was held; to be zeroed by whoever is asked to
	Zeroing                  // slice only: its owner writes zeros and nothing else
	Lost                     // its entry was damaged while no ckernel lived; nobody gets it until it is settled
	states
)

func (s State) String() string {
	if s > 0 && s < states {
		return [...]string{"absent", "free", "held", "dirty", "zeroing", "lost"}[s-1]
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// Owner is a life of a peer, or a process on it. The zero Owner is nobody.
type Owner struct {
	Peer       int
	Generation uint64 // of the machine; never 0
	Process    uint64 // 0 for the kernel itself
}

func (o Owner) String() string {
	switch {
	case o == Owner{}:
		return "nobody"
	case o.Process == 0:
		return fmt.Sprintf("peer %d@%d", o.Peer, o.Generation)
	}
	return fmt.Sprintf("process %d@peer %d@%d", o.Process, o.Peer, o.Generation)
}

// Unit is a slice or a core of a machine.
type Unit struct {
	Core    bool
	Machine int    // of a core; 0 for slices
	Index   uint64 // number of the slice, or of the core in its machine
}

// Slice is the unit of slice i.
func Slice(i uint64) Unit { return Unit{Index: i} }

// Core is the unit of core c of a machine.
func Core(machine, c int) Unit { return Unit{Core: true, Machine: machine, Index: uint64(c)} }

func (u Unit) String() string {
	if u.Core {
		return fmt.Sprintf("core %d of machine %d", int64(u.Index), u.Machine)
	}
	return fmt.Sprintf("slice %d", u.Index)
}

// Name names one grant of a unit, and no other that ever was or will be.
type Name struct {
	Unit  Unit
	Grant uint64
}

func (n Name) String() string { return fmt.Sprintf("%v (grant %#x)", n.Unit, n.Grant) }

// Entry is what the table says of a unit.
type Entry struct {
	State State
	Owner Owner  // of Held and Zeroing; of a free core the life of its machine
	Grant uint64 // the version: names the grant while the unit is held or zeroing
}

// shape is how many units there are.
type shape struct {
	slices   uint64
	machines int
}

func (s shape) units() uint64 { return s.slices + uint64(s.machines)*layout.MaxCores }

// index is the number of u's entry.
func (s shape) index(u Unit) (uint64, error) {
	switch {
	case !u.Core && u.Machine == 0 && u.Index < s.slices:
		return u.Index, nil
	case u.Core && u.Machine >= 0 && u.Machine < s.machines && u.Index < layout.MaxCores:
		return s.slices + uint64(u.Machine)*layout.MaxCores + u.Index, nil
	case u.Core:
		return 0, fmt.Errorf("%w: %v, want cores 0 to %d of machines 0 to %d", ErrNoSuch, u, layout.MaxCores-1, s.machines-1)
	}
	return 0, fmt.Errorf("%w: %v, this rack has %d slices", ErrNoSuch, u, s.slices)
}

// unit is the inverse of index.
func (s shape) unit(i uint64) Unit {
	if i < s.slices {
		return Slice(i)
	}
	i -= s.slices
	return Core(int(i/layout.MaxCores), int(i%layout.MaxCores))
}

// dkernel checks that o can hold units.
func (s shape) dkernel(o Owner) error {
	if o.Peer < 1 || o.Peer >= s.machines || o.Generation == 0 {
		return fmt.Errorf("%w: owner %v, want a dkernel (1 to %d) and a generation above 0", ErrNoSuch, o, s.machines-1)
	}
	return nil
}
