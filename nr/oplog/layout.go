package oplog

import (
	"errors"
	"fmt"
	"math/bits"

	"dinos/shmem/region"
)

// Errors. Each returned error wraps one of these and says what was found and what would be right.
var (
	// ErrConfig: the configuration cannot be served.
	ErrConfig = errors.New("nr: bad configuration")
	// ErrCorrupt: shared memory holds something that no correct peer writes. The log cannot be used further.
	ErrCorrupt = errors.New("nr: corrupt log")
	// ErrEvicted: the caller's replica was evicted. What it had under way may or may not have taken effect.
	ErrEvicted = errors.New("nr: replica evicted")
	// ErrNoSlot: every replica slot is taken, or quarantined until an evicted replica is released.
	ErrNoSlot = errors.New("nr: no free replica slot")
	// ErrBehind: the position to join at is no longer in the log.
	ErrBehind = errors.New("nr: position already reused")
	// ErrStale: the named incarnation does not hold the slot, or not in the state that the call needs.
	ErrStale = errors.New("nr: stale replica identity")
	// ErrFull: the log or an operand arena is full and stays so until the named replica consumes.
	ErrFull = errors.New("nr: log full")
	// ErrExhausted: the log has handed out its last position and must be made anew.
	ErrExhausted = errors.New("nr: log positions exhausted")
	// ErrOperand: the operand is too large for the arena, or there is no arena.
	ErrOperand = errors.New("nr: operand too large")
)

// Limits of the layout.
const (
	MaxSlots      = 64
	MinEntries    = 4
	MaxEntries    = 1 << 30
	MaxOpSize     = 4096
	MaxArena      = 1 << 30
	MaxBatch      = 64                 // entries one Append reserves at a time, at most half the ring
	Magic         = 0x31676f6c706f726e // "nroplog1"
	LayoutVersion = 1
)

const (
	offEntries = region.HeaderSize + 8*iota
	offOpSize
	offSlots
	offArena
	offFingerprint
	headerEnd

	offTail  = 0x080
	offCtail = 0x100
	offHead  = 0x180
	offCross = 0x200
	offSlot0 = 0x280

	entryHeader = 16 // state and meta
)

// The header ends before the first hot word; a negative length does not compile.
var _ [offTail - headerEnd]byte

// Position words.
const (
	posBits = 48
	posMask = 1<<posBits - 1
	// maxPos is the last position to be reserved at. It leaves room for a batch and a ring, so that sums of positions do not
	// carry into the upper bits.
	maxPos = posMask - MaxBatch - MaxEntries
)

func position(w uint64) uint64 { return w & posMask }
func upper(w uint64) uint16    { return uint16(w >> posBits) }

// withUpper packs a position and 16 bits above it; the position is below 2^48.
func withUpper(u uint16, pos uint64) uint64 { return uint64(u)<<posBits | pos }

// State is what a slot is.
type State uint8

// The states of a slot.
const (
	Free    State = iota
	Joining       // has a place in the log, loads its snapshot
	Live
	Evicted // fenced, quarantined until released
)

func (s State) String() string { return [...]string{"free", "joining", "live", "evicted"}[s&3] }

// Gen is an incarnation of a slot, 1..MaxGen; 0 is none.
type Gen uint16

// MaxGen is the last incarnation of a slot.
const MaxGen Gen = 1<<14 - 1

func slotWord(g Gen, s State, pos uint64) uint64 { return withUpper(uint16(g)<<2|uint16(s), pos) }
func slotGen(w uint64) Gen                       { return Gen(upper(w) >> 2) }
func slotState(w uint64) State                   { return State(upper(w) & 3) }

// Kind is what an entry's state word says about it.
type Kind uint8

// The kinds of an entry.
const (
	KindVirgin   Kind = iota // never used
	KindReserved             // stamped, not published
	KindOp                   // published
	KindNoop                 // a hole that was filled
	KindRetired              // a hole whose stamped writer may still store into it
	KindFence                // entries of (slot, incarnation) behind it are ignored
	KindMarker               // the place of an op of the cross log
	kinds
)

func (k Kind) String() string {
	if k < kinds {
		return [...]string{"virgin", "reserved", "op", "noop", "retired", "fence", "marker"}[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

func entryWord(lap uint32, g Gen, slot int, k Kind) uint64 {
	return uint64(lap)<<32 | uint64(g)<<16 | uint64(slot)<<8 | uint64(k)
}
func markerWord(lap uint32, x uint64) uint64 {
	return uint64(lap)<<32 | (x&0xffffff)<<8 | uint64(KindMarker)
}
func entryLap(w uint64) uint32 { return uint32(w >> 32) }
func entryGen(w uint64) Gen    { return Gen(w >> 16) }
func entrySlot(w uint64) int   { return int(w >> 8 & 0xff) }
func entryKind(w uint64) Kind  { return Kind(w) }

// markerDelta is the marker's cross number minus x, both modulo 2^24, sign extended.
func markerDelta(w, x uint64) int32 { return int32(uint32(w>>8)<<8-uint32(x)<<8) >> 8 }

// Config is the shape of a log, fixed when it is formatted.
type Config struct {
	Entries     uint64 // ring size, a power of two, MinEntries..MaxEntries
	OpSize      uint32 // bytes of an op, 1..MaxOpSize
	Slots       int    // replicas that may attach, 1..MaxSlots
	ArenaBytes  uint64 // operand arena per slot, a multiple of 64; 0 for none. An operand takes at most half.
	Fingerprint uint64 // identifies the op type to those who attach
	Generation  uint64 // which life of the log this is
}

func (c Config) check() error {
	switch {
	case c.Entries < MinEntries || c.Entries > MaxEntries || c.Entries&(c.Entries-1) != 0:
		return fmt.Errorf("%w: %d entries, want a power of two from %d to %d", ErrConfig, c.Entries, MinEntries, MaxEntries)
	case c.OpSize == 0 || c.OpSize > MaxOpSize:
		return fmt.Errorf("%w: ops of %d bytes, want 1 to %d", ErrConfig, c.OpSize, MaxOpSize)
	case c.Slots < 1 || c.Slots > MaxSlots:
		return fmt.Errorf("%w: %d replica slots, want 1 to %d", ErrConfig, c.Slots, MaxSlots)
	case c.ArenaBytes > MaxArena || c.ArenaBytes%region.LineSize != 0:
		return fmt.Errorf("%w: operand arena of %d bytes, want a multiple of %d up to %d", ErrConfig, c.ArenaBytes,
			region.LineSize, MaxArena)
	}
	return nil
}

func (c Config) opWords() int   { return int(c.OpSize+7) / 8 }
func (c Config) stride() uint64 { return roundUp(entryHeader+uint64(c.OpSize+7)&^7, region.LineSize) }
func (c Config) ringOff() region.Off {
	return offSlot0 + region.Off(c.Slots)*region.PadSize
}
func (c Config) arenaOff() region.Off { return c.ringOff() + region.Off(c.stride()*c.Entries) }

// Size is the number of bytes that a log of this shape takes.
func (c Config) Size() (uint64, error) {
	if err := c.check(); err != nil {
		return 0, err
	}
	return uint64(c.arenaOff()) + uint64(c.Slots)*c.ArenaBytes, nil
}

func roundUp(n, to uint64) uint64 { return (n + to - 1) / to * to }

// Format makes an empty log of shape c in r. If r holds a log already, its slots keep their
// incarnations, so that no replica of the log's past life matches one of the new life. Nobody may be attached and at
// work meanwhile.
func Format(r region.Region, c Config) error {
	size, err := c.Size()
	if err != nil {
		return err
	}
	if r.Len() < size {
		return fmt.Errorf("%w: log of %d bytes in a region of %d", ErrConfig, size, r.Len())
	}
	var gens [MaxSlots]Gen
	if old, err := Open(r); err == nil {
		for i := range old.cfg.Slots {
			gens[i] = slotGen(old.slots[i].Load())
		}
	}
	if err := r.InvalidateHeader(0); err != nil {
		return err
	}
	// Only states need to be zero: op words behind a zero state are never read. The cost of a large log's formatting is
	// one store per entry.
	ring, err := r.Words(c.ringOff(), c.stride(), c.Entries)
	if err != nil {
		return err
	}
	for i := range c.Entries {
		region.StoreRelaxed(ring.At(i).Word(0), 0)
	}
	for _, w := range []struct {
		off region.Off
		v   uint64
	}{
		{offEntries, c.Entries}, {offOpSize, uint64(c.OpSize)}, {offSlots, uint64(c.Slots)}, {offArena, c.ArenaBytes},
		{offFingerprint, c.Fingerprint}, {offTail, 0}, {offCtail, 0}, {offHead, 0}, {offCross, 0},
	} {
		if err := r.StoreU64(w.off, w.v); err != nil {
			return err
		}
	}
	for i := range c.Slots {
		if err := r.StoreU64(offSlot0+region.Off(i)*region.PadSize, slotWord(gens[i], Free, 0)); err != nil {
			return err
		}
	}
	return r.WriteHeader(0, region.Header{Magic: Magic, Version: LayoutVersion, Generation: c.Generation})
}

// Open attaches to the log that Format made at the start of r. The shape is read once, checked against r and
// kept in private memory.
func Open(r region.Region) (*Log, error) {
	h, err := r.ReadHeader(0, Magic, LayoutVersion)
	if err != nil {
		return nil, fmt.Errorf("nr: not an operation log: %w", err)
	}
	var v [5]uint64
	for i := range v {
		if v[i], err = r.LoadU64(offEntries + region.Off(8*i)); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
	}
	if v[1] > MaxOpSize || v[2] > MaxSlots {
		return nil, fmt.Errorf("%w: header says ops of %d bytes and %d slots, want up to %d and %d", ErrCorrupt, v[1], v[2],
			MaxOpSize, MaxSlots)
	}
	c := Config{Entries: v[0], OpSize: uint32(v[1]), Slots: int(v[2]), ArenaBytes: v[3], Fingerprint: v[4], Generation: h.Generation}
	size, err := c.Size()
	if err != nil {
		return nil, fmt.Errorf("%w: header: %w", ErrCorrupt, err)
	}
	if size > r.Len() {
		return nil, fmt.Errorf("%w: header asks for %d bytes, the region has %d", ErrCorrupt, size, r.Len())
	}
	return newLog(r, c)
}

func newLog(r region.Region, c Config) (*Log, error) {
	l := &Log{cfg: c, shift: uint(bits.TrailingZeros64(c.Entries)), opWords: c.opWords(), patience: DefaultPatience, region: r}
	var err error
	for _, w := range []struct {
		p   **word
		off region.Off
	}{{&l.tail, offTail}, {&l.ctail, offCtail}, {&l.head, offHead}, {&l.cross, offCross}} {
		if *w.p, err = r.U64(w.off); err != nil {
			return nil, err
		}
	}
	for i := range c.Slots {
		if l.slots[i], err = r.U64(offSlot0 + region.Off(i)*region.PadSize); err != nil {
			return nil, err
		}
	}
	if l.ring, err = r.Words(c.ringOff(), c.stride(), c.Entries); err != nil {
		return nil, err
	}
	if c.ArenaBytes > 0 {
		if l.arenas, err = r.Sub(c.arenaOff(), c.ArenaBytes*uint64(c.Slots)); err != nil {
			return nil, err
		}
	}
	return l, nil
}
