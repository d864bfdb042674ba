package ring

import (
	"fmt"
	"math/bits"

	"dinos/shmem/region"
)

// The states of a slot of a ring with many senders.
const (
	slotFree uint8 = iota
	slotClaimed
	slotReady
)

const (
	slotHeader = 16 // the slot's word and the length
	// multiTries bounds the attempts at a tail that others keep moving, or that somebody broke.
	multiTries = 1 << 16
)

func slotWord(lap uint32, s Sender, state uint8) uint64 {
	return uint64(lap)<<32 | uint64(s.Generation)<<16 | uint64(s.Slot)<<8 | uint64(state)
}

func slotLap(w uint64) uint32    { return uint32(w >> 32) }
func slotState(w uint64) uint8   { return uint8(w) }
func slotSender(w uint64) Sender { return Sender{uint8(w >> 8), uint16(w >> 16)} }

// Sender is who sends: a machine's slot and its generation modulo 2^16.
type Sender struct {
	Slot       uint8
	Generation uint16
}

func (s Sender) String() string { return fmt.Sprintf("machine %d generation %d", s.Slot, s.Generation) }

// MultiTx is a sending end of a ring with many senders. Any number of goroutines may use one.
type MultiTx struct {
	control
	words region.Words
	me    Sender
	shift int
}

// AttachMultiTx makes a sending end of the ring at the start of r. notify wakes the receiver.
func AttachMultiTx(r region.Region, slots, slotSize uint64, me Sender, notify func()) (*MultiTx, error) {
	if err := checkSlots(slots, slotSize); err != nil {
		return nil, err
	}
	t := &MultiTx{me: me, shift: bits.TrailingZeros64(slots)}
	if err := t.attach(r, MultiMagic, slots, slotSize, notify); err != nil {
		return nil, err
	}
	var err error
	t.words, err = t.data.Words(0, slotSize, slots)
	return t, err
}

// MaxMessage is the size in bytes of the largest message.
func (t *MultiTx) MaxMessage() int { return int(t.slotSize) - slotHeader }

// MaxMessage is the size in bytes of the largest message.
func (x *MultiRx) MaxMessage() int { return int(x.slotSize) - slotHeader }

// Send adds a message and rings the receiver's doorbell if it sleeps. Errors: ErrFull, ErrTooBig, ErrReset if the
// message was lost because the ring was made anew (or the receiver skipped this sender as dead), ErrCorrupt. None sticks.
func (t *MultiTx) Send(msg []byte) error {
	if len(msg) > t.MaxMessage() {
		return fmt.Errorf("%w: %d bytes, a slot holds at most %d", ErrTooBig, len(msg), t.MaxMessage())
	}
	pos, err := t.claim()
	if err != nil {
		return err
	}
	i := pos & (t.size - 1)
	rec := t.words.At(i)
	region.StoreRelaxed(rec.Word(1), uint64(len(msg)))
	if err := t.data.StoreBytes(region.Off(i*t.slotSize+slotHeader), msg); err != nil {
		return err
	}
	lap := uint32(pos >> t.shift)
	t.at(ptSlot)
	// A locked instruction: the load of the sleep flag comes after it.
	if !rec.Word(0).CompareAndSwap(slotWord(lap, t.me, slotClaimed), slotWord(lap, t.me, slotReady)) {
		return ErrReset
	}
	t.wake(t.rxSleep)
	return nil
}

// claim takes the slot at tail and returns its position.
func (t *MultiTx) claim() (uint64, error) {
	for range multiTries {
		t.at(ptLoadTail)
		pos := t.tailWord.Load()
		p := t.words.At(pos).Word(0)
		lap := uint32(pos >> t.shift)
		w := p.Load()
		switch d := int32(slotLap(w) - lap); {
		case d == 0 && slotState(w) == slotFree:
			t.at(ptSlot)
			if !p.CompareAndSwap(w, slotWord(lap, t.me, slotClaimed)) {
				continue
			}
			t.at(ptStoreTail)
			t.tailWord.CompareAndSwap(pos, pos+1) // or somebody has helped
			return pos, nil
		case d == 0, d == 1:
			// Taken, perhaps consumed already, and tail lags behind: help.
			t.at(ptStoreTail)
			t.tailWord.CompareAndSwap(pos, pos+1)
		case t.tailWord.Load() != pos:
		case d == -1 && slotState(w) != slotFree:
			return 0, ErrFull
		default:
			return 0, fmt.Errorf("%w: tail %d has lap %d, its slot %#x", ErrCorrupt, pos, lap, w)
		}
	}
	return 0, fmt.Errorf("%w: tail %d never at a free slot", ErrCorrupt, t.tailWord.Load())
}

// MultiRx is the receiving end of a ring with many senders.
type MultiRx struct {
	control
	words region.Words
	pos   uint64
	shift int
}

// AttachMultiRx makes the receiving end of the ring at the start of r, going on where a former receiver stopped.
func AttachMultiRx(r region.Region, slots, slotSize uint64) (*MultiRx, error) {
	if err := checkSlots(slots, slotSize); err != nil {
		return nil, err
	}
	x := &MultiRx{shift: bits.TrailingZeros64(slots)}
	if err := x.attach(r, MultiMagic, slots, slotSize, nil); err != nil {
		return nil, err
	}
	var err error
	if x.words, err = x.data.Words(0, slotSize, slots); err != nil {
		return nil, err
	}
	head, tail := x.headWord.Load(), x.tailWord.Load()
	// The former receiver may have died between freeing a slot and storing head.
	if w := x.words.At(head).Word(0).Load(); slotLap(w) == uint32(head>>x.shift)+1 && slotState(w) == slotFree {
		head++
	}
	if tail-head > slots && tail-head != ^uint64(0) {
		return nil, fmt.Errorf("%w: tail %d, head %d, at most %d apart", ErrCorrupt, tail, head, slots)
	}
	x.pos = head
	x.rxSleep.Store(0)
	return x, nil
}

// state is nil if there is a message, ErrEmpty if not.
func (x *MultiRx) state() (uint64, error) {
	if x.err != nil {
		return 0, x.err
	}
	x.at(ptLoadTail)
	w := x.words.At(x.pos).Word(0).Load()
	switch {
	case slotLap(w) != uint32(x.pos>>x.shift) || slotState(w) > slotReady:
		return w, x.broken("slot of position %d is %#x", x.pos, w)
	case slotState(w) != slotReady:
		return w, ErrEmpty
	}
	return w, nil
}

// Recv copies the next message to buf and returns its size and sender. Errors: ErrEmpty; ErrTooBig if buf is too small
// (the message stays); ErrCorrupt and ErrReset stick.
func (x *MultiRx) Recv(buf []byte) (int, Sender, error) {
	w, err := x.state()
	if err != nil {
		return 0, Sender{}, err
	}
	s := slotSender(w)
	i := x.pos & (x.size - 1)
	n := region.LoadRelaxed(x.words.At(i).Word(1))
	if n > uint64(x.MaxMessage()) {
		return 0, s, x.broken("%v sent a message of %d bytes in a slot for %d", s, n, x.MaxMessage())
	}
	if n > uint64(len(buf)) {
		return int(n), s, ErrTooBig
	}
	if err := x.data.LoadBytes(buf[:n], region.Off(i*x.slotSize+slotHeader)); err != nil {
		return 0, s, err
	}
	x.free()
	return int(n), s, nil
}

func (x *MultiRx) free() {
	x.at(ptSlot)
	x.words.At(x.pos).Word(0).Store(slotWord(uint32(x.pos>>x.shift)+1, Sender{}, slotFree))
	x.pos++
	x.headWord.Store(x.pos)
}

// Blocked names the sender that has claimed the next slot and not filled it yet. It may be dead or only slow.
func (x *MultiRx) Blocked() (Sender, bool) {
	w, err := x.state()
	return slotSender(w), err == ErrEmpty && slotState(w) == slotClaimed
}

// Skip passes over the next slot if it is claimed by s, and reports whether it was. s must be fenced for certain (its
// machine is gone): one that only slept could still store into the slot when another sender has it.
func (x *MultiRx) Skip(s Sender) bool {
	lap := uint32(x.pos >> x.shift)
	if x.err != nil || !x.words.At(x.pos).Word(0).CompareAndSwap(slotWord(lap, s, slotClaimed), slotWord(lap+1, Sender{}, slotFree)) {
		return false
	}
	// The dead sender may not have moved tail either.
	x.tailWord.CompareAndSwap(x.pos, x.pos+1)
	x.pos++
	x.headWord.Store(x.pos)
	return true
}

// Arm announces that the receiver is going to sleep until its doorbell rings. It returns false if there is something
// to receive (or an error): do not sleep then. Disarm after the sleep, whatever ended it.
func (x *MultiRx) Arm() bool {
	if x.err != nil {
		return false
	}
	x.at(ptStoreSleep)
	x.rxSleep.Store(1) // locked, so before the load of the slot
	if _, err := x.state(); err != ErrEmpty {
		x.Disarm()
		return false
	}
	return true
}

// Disarm says that the receiver does not sleep (any more).
func (x *MultiRx) Disarm() {
	x.at(ptStoreSleep)
	x.rxSleep.Store(0)
}
