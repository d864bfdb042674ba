package ring

import (
	"errors"
	"fmt"
	"sync/atomic"

	"dinos/shmem/region"
)

// Errors. Those that come often (ErrEmpty, ErrFull, ErrStale) are returned as they are, without allocation.
var (
	// ErrEmpty: there is no message.
	ErrEmpty = errors.New("ring: empty")
	// ErrFull: there is no room for the message now.
	ErrFull = errors.New("ring: full")
	// ErrStale: the peer has not attached to this generation of the ring yet. It is as good as empty or full.
	ErrStale = errors.New("ring: peer has not attached to this generation")
	// ErrTooBig: the message can never fit into the ring, or not into the caller's buffer.
	ErrTooBig = errors.New("ring: message too big")
	// ErrCorrupt: shared memory holds what no correct peer writes. This end is of no more use until Format.
	ErrCorrupt = errors.New("ring: corrupt")
	// ErrReset: the ring was made anew. Attach again.
	ErrReset = errors.New("ring: made anew, attach again")
	// ErrConfig: the memory given cannot hold the ring asked for, or does not hold a ring.
	ErrConfig = errors.New("ring: bad configuration")
)

// Limits and identification of the layout.
const (
	Version    = 1
	Magic      = 0x31676e6972636e64 // "dncring1", one sender
	MultiMagic = 0x31786f626e696e64 // "dninbox1", many senders

	MinBytes    = 64      // of data
	MaxBytes    = 1 << 30 // of data
	MinSlots    = 2
	MaxSlots    = 1 << 16
	MinSlotSize = 64
	MaxSlotSize = 4096

	// ControlBytes is what a ring takes besides its data.
	ControlBytes = offData
)

const (
	offSize     = 0x018
	offSlotSize = 0x020
	offTail     = 0x080
	offTxSleep  = 0x088
	offHead     = 0x100
	offRxSleep  = 0x108
	offData     = 0x180
)

// The header fits before the first hot word, tail and head are a pad apart, and data starts on a cache line. A negative
// array length does not compile.
var (
	_ [offTail - offSlotSize - 8]byte
	_ [offSize - region.HeaderSize]byte
	_ [offHead - offTail - region.PadSize]byte
	_ [-(offData % region.LineSize)]byte
)

const (
	posBits = 48
	posMask = 1<<posBits - 1
)

// mark is what the upper half of a message's first word must be.
func mark(gen, pos uint64) uint64 {
	x := (pos&posMask ^ gen<<posBits) * 0x9e3779b97f4a7c15 // Fibonacci hashing (Knuth, TAOCP 3, 6.4)
	return x &^ 0xffffffff
}

// Bytes is the size in shared memory of a ring with one sender and data bytes of data.
func Bytes(data uint64) uint64 { return offData + data }

// MultiBytes is the size in shared memory of a ring with many senders.
func MultiBytes(slots, slotSize uint64) uint64 { return offData + slots*slotSize }

func checkData(data uint64) error {
	if data < MinBytes || data > MaxBytes || data&(data-1) != 0 {
		return fmt.Errorf("%w: %d bytes of data, want a power of two from %d to %d", ErrConfig, data, MinBytes, MaxBytes)
	}
	return nil
}

func checkSlots(slots, size uint64) error {
	if slots < MinSlots || slots > MaxSlots || slots&(slots-1) != 0 {
		return fmt.Errorf("%w: %d slots, want a power of two from %d to %d", ErrConfig, slots, MinSlots, MaxSlots)
	}
	if size < MinSlotSize || size > MaxSlotSize || size&(size-1) != 0 {
		return fmt.Errorf("%w: slots of %d bytes, want a power of two from %d to %d", ErrConfig, size, MinSlotSize, MaxSlotSize)
	}
	return nil
}

// Format makes an empty ring with one sender and data bytes of data (a power of two) at the start of r. gen must differ from
// the generation of the ring that was there. Ends that are attached to that one get ErrReset.
func Format(r region.Region, data, gen uint64) error {
	if err := checkData(data); err != nil {
		return err
	}
	return format(r, region.Header{Magic: Magic, Version: Version, Generation: gen}, data, 0, gen<<posBits)
}

// FormatMulti makes an empty ring with many senders at the start of r. Only its receiver may do so while senders use it:
// a message that is being sent meanwhile is lost, and its sender is told.
func FormatMulti(r region.Region, slots, slotSize, gen uint64) error {
	if err := checkSlots(slots, slotSize); err != nil {
		return err
	}
	return format(r, region.Header{Magic: MultiMagic, Version: Version, Generation: gen}, slots, slotSize, 0)
}

func format(r region.Region, h region.Header, size, slotSize, index uint64) error {
	total := offData + size
	if slotSize != 0 {
		total = MultiBytes(size, slotSize)
	}
	if r.Len() < total {
		return fmt.Errorf("%w: %d bytes of memory, want %d", ErrConfig, r.Len(), total)
	}
	if err := r.InvalidateHeader(0); err != nil {
		return err
	}
	for _, w := range []struct {
		off region.Off
		v   uint64
	}{{offSize, size}, {offSlotSize, slotSize}, {offTail, index}, {offHead, index}, {offTxSleep, 0}, {offRxSleep, 0}} {
		if err := r.StoreU64(w.off, w.v); err != nil {
			return err
		}
	}
	// Slot words of a past life would be taken for messages. In a ring with one sender the marks tell.
	if slotSize != 0 {
		if err := r.Zero(offData, size*slotSize); err != nil {
			return err
		}
	}
	return r.WriteHeader(0, h)
}

type word = atomic.Uint64

// control is what both ends of both kinds need of the first lines. Everything in it was checked when it was made.
type control struct {
	region    region.Region // the whole ring
	data      region.Region
	tailWord  *word
	headWord  *word
	txSleep   *word
	rxSleep   *word
	magic     uint64
	gen       uint64
	size      uint64 // bytes of data, or slots
	slotSize  uint64
	err       error // sticky
	notify    func()
	doorbells atomic.Uint64
	probe     func(point) // of the tests
}

// attach reads and checks a ring's header. want is the size (and slot size) that the caller computed itself; the words in
// shared memory are only compared with it, so that they cannot talk anybody into anything.
func (c *control) attach(r region.Region, magic, size, slotSize uint64, notify func()) error {
	h, err := r.ReadHeader(0, magic, Version)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	total := offData + size
	if slotSize != 0 {
		total = MultiBytes(size, slotSize)
	}
	if r.Len() < total {
		return fmt.Errorf("%w: %d bytes of memory, want %d", ErrConfig, r.Len(), total)
	}
	gotSize, err := r.LoadU64(offSize)
	if err != nil {
		return err
	}
	gotSlot, err := r.LoadU64(offSlotSize)
	if err != nil {
		return err
	}
	if gotSize != size || gotSlot != slotSize {
		return fmt.Errorf("%w: ring has size %d and slot size %d, want %d and %d", ErrConfig, gotSize, gotSlot, size, slotSize)
	}
	c.region, c.gen, c.size, c.slotSize, c.notify, c.magic = r, h.Generation, size, slotSize, notify, magic
	if c.data, err = r.Sub(offData, total-offData); err != nil {
		return err
	}
	for _, w := range []struct {
		p   **word
		off region.Off
	}{{&c.tailWord, offTail}, {&c.headWord, offHead}, {&c.txSleep, offTxSleep}, {&c.rxSleep, offRxSleep}} {
		if *w.p, err = r.U64(w.off); err != nil {
			return err
		}
	}
	return nil
}

// broken decides between ErrReset and ErrCorrupt, and makes it stick.
func (c *control) broken(format string, args ...any) error {
	if h, err := c.region.ReadHeader(0, c.magic, Version); err == nil && h.Generation != c.gen {
		c.err = fmt.Errorf("%w: generation %d, was attached to %d", ErrReset, h.Generation, c.gen)
	} else {
		c.err = fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
	}
	return c.err
}

// current is nil if the ring is still the one that this end is attached to.
func (c *control) current(index uint64) error {
	if h, err := c.region.ReadHeader(0, c.magic, Version); err != nil || h.Generation != c.gen {
		return c.broken("index %#x and no header: %v", index, err)
	}
	return nil
}

// Generation is the life of the ring that this end is attached to.
func (c *control) Generation() uint64 { return c.gen }

// Doorbells is how many this end has rung.
func (c *control) Doorbells() uint64 { return c.doorbells.Load() }

// wake rings the doorbell if the peer sleeps. The caller has just published by a locked instruction.
func (c *control) wake(sleep *word) {
	c.at(ptLoadSleep)
	if sleep.Load() == 0 {
		return
	}
	c.at(ptSwapSleep)
	// Only who takes the flag down rings: one doorbell per sleep.
	if sleep.Swap(0) == 0 {
		return
	}
	c.doorbells.Add(1)
	if c.notify != nil {
		c.at(ptNotify)
		c.notify()
	}
}

// point names a step between two accesses of shared words, for the step scheduler of the tests.
type point uint8

const (
	ptStoreTail point = iota
	ptStoreHead
	ptLoadTail
	ptLoadHead
	ptLoadSleep
	ptSwapSleep
	ptStoreSleep
	ptNotify
	ptSlot
)

func (c *control) at(p point) {
	if c.probe != nil {
		c.probe(p)
	}
}
