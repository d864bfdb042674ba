package ring

import (
	"encoding/binary"
	"fmt"

	"dinos/shmem/region"
)

// Tx is the sending end of a ring with one sender. Messages are pushed, then flushed or aborted together.
type Tx struct {
	control
	words    region.Words
	capacity uint64 // in words
	tail     uint64 // behind the last message pushed
	pub      uint64 // published tail
	seen     uint64 // head as last read
}

// AttachTx makes the sending end of the ring of data bytes at the start of r. It goes on where a former sender stopped.
// notify wakes the receiver; it is called at most once per sleep of the receiver, from Flush.
func AttachTx(r region.Region, data uint64, notify func()) (*Tx, error) {
	if err := checkData(data); err != nil {
		return nil, err
	}
	t := &Tx{capacity: data / 8}
	if err := t.attach(r, Magic, data, 0, notify); err != nil {
		return nil, err
	}
	var err error
	if t.words, err = t.data.Words(0, 8, t.capacity); err != nil {
		return nil, err
	}
	tail, head := t.tailWord.Load(), t.headWord.Load()
	tag := t.gen << posBits
	if head&^posMask != tag {
		// The receiver has not attached since Format, or somebody broke the word; both end by a new attach of it.
		head = tag | tail&posMask
		if tail&^posMask != tag {
			head = tag
		}
	}
	if tail&^posMask != tag {
		tail = head // a sender of the ring before Format has overwritten the word: nothing of this life was sent
	}
	if d := (tail - head) & posMask; d > t.capacity {
		return nil, fmt.Errorf("%w: tail %#x is %d words behind head %#x, at most %d are possible", ErrCorrupt, tail, d, head, t.capacity)
	}
	t.tail, t.pub, t.seen = tail&posMask, tail&posMask, head&posMask
	t.tailWord.Store(tag | t.pub)
	return t, nil
}

// MaxMessage is the size in bytes of the largest message that fits into an empty ring.
func (t *Tx) MaxMessage() int { return int(t.capacity-1) * 8 }

// room refreshes what is known of the head and reports whether need words fit.
func (t *Tx) room(need uint64) (bool, error) {
	t.at(ptLoadHead)
	h := t.headWord.Load()
	if h>>posBits != t.gen&0xffff {
		return false, t.stale(h)
	}
	h &= posMask
	// It may only move forward, and not past the tail that was published.
	if (h-t.seen)&posMask > (t.pub-t.seen)&posMask {
		return false, t.broken("head %#x, want %#x to %#x", h, t.seen, t.pub)
	}
	t.seen = h
	return t.capacity-(t.tail-h)&posMask >= need, nil
}

// stale is the error for an index of another generation.
func (t *Tx) stale(index uint64) error {
	if err := t.current(index); err != nil {
		return err
	}
	return ErrStale
}

func words(n int) uint64 { return 1 + uint64(n+7)/8 }

// Push adds the message head|body, which the receiver does not see before Flush. len(head) must be a multiple of 8.
// Errors: ErrFull, ErrTooBig, ErrStale; ErrCorrupt and ErrReset stick. On error nothing was added.
func (t *Tx) Push(head, body []byte) error {
	if t.err != nil {
		return t.err
	}
	n := len(head) + len(body)
	need := words(n)
	if need > t.capacity || len(head)&7 != 0 {
		return t.tooBig(len(head), n)
	}
	if t.capacity-(t.tail-t.seen)&posMask < need {
		if ok, err := t.room(need); err != nil {
			return err
		} else if !ok {
			return ErrFull
		}
	}
	rec := t.words.At(t.tail)
	region.StoreRelaxed(rec.Word(0), mark(t.gen, t.tail)|uint64(n))
	if n <= smallMessage && t.tail%t.capacity+need <= t.capacity {
		// All words of the message follow each other.
		k := storeWords(rec, 1, head)
		storeWords(rec, k, body)
	} else if err := t.copyBoth(t.tail+1, head, body); err != nil {
		return err
	}
	t.tail = (t.tail + need) & posMask
	return nil
}

// smallMessage is what is moved word by word: calls to copy memory cost more, and very much more under emulation.
const smallMessage = 64

// storeWords stores b, padded with zeros, at word i of rec, and returns the index of the word behind it.
func storeWords(rec region.Record, i int, b []byte) int {
	for ; len(b) >= 8; b = b[8:] {
		region.StoreRelaxed(rec.Word(i), binary.LittleEndian.Uint64(b))
		i++
	}
	if len(b) > 0 {
		v := uint64(0)
		for k, c := range b {
			v |= uint64(c) << (8 * k)
		}
		region.StoreRelaxed(rec.Word(i), v)
		i++
	}
	return i
}

func (t *Tx) copyBoth(pos uint64, head, body []byte) error {
	if len(head) > 0 {
		if err := t.copyIn(pos, head); err != nil {
			return err
		}
		pos += uint64(len(head)) / 8
	}
	if len(body) > 0 {
		return t.copyIn(pos, body)
	}
	return nil
}

func (t *Tx) tooBig(head, n int) error {
	if head&7 != 0 {
		return fmt.Errorf("%w: a first part of %d bytes, want a multiple of 8", ErrTooBig, head)
	}
	return fmt.Errorf("%w: %d bytes, a ring of %d holds at most %d", ErrTooBig, n, t.size, t.MaxMessage())
}

func (t *Tx) copyIn(pos uint64, b []byte) error {
	off := pos % t.capacity * 8
	if k := t.size - off; uint64(len(b)) > k {
		if err := t.data.StoreBytes(0, b[k:]); err != nil {
			return err
		}
		b = b[:k]
	}
	return t.data.StoreBytes(region.Off(off), b)
}

// Pending is the number of bytes of the ring taken by messages that were pushed and not flushed.
func (t *Tx) Pending() int { return int((t.tail-t.pub)&posMask) * 8 }

// Abort forgets the messages pushed since the last Flush.
func (t *Tx) Abort() { t.tail = t.pub }

// Flush shows the messages pushed since the last Flush to the receiver, and rings its doorbell if it sleeps. ErrReset
// and ErrCorrupt stick; the messages are lost then.
func (t *Tx) Flush() error {
	if t.err != nil {
		return t.err
	}
	if t.tail == t.pub {
		return nil
	}
	t.at(ptStoreTail)
	// Store is a locked exchange on amd64: the loads below come after it, which the protocol of doc.go needs.
	t.tailWord.Store(t.gen<<posBits | t.tail)
	t.pub = t.tail
	t.wake(t.rxSleep)
	if h := t.headWord.Load(); h>>posBits != t.gen&0xffff {
		if err := t.stale(h); err != ErrStale {
			return err
		}
	}
	return nil
}

// Repair stores the published tail again if somebody else has written over it: without new messages nothing else would, and
// a receiver that ignores an index of another generation would ignore it for ever. Call it now and then. Errors stick.
func (t *Tx) Repair() error {
	if t.err != nil {
		return t.err
	}
	w, want := t.tailWord.Load(), t.gen<<posBits|t.pub
	if w == want {
		return nil
	}
	if err := t.current(w); err != nil {
		return err
	}
	t.tailWord.Store(want)
	t.wake(t.rxSleep)
	return nil
}

// Arm announces that the sender is going to sleep until a message of n bytes fits. It returns false if there is room
// already, or if the next Push is going to fail for good: do not sleep then. Disarm after the sleep.
func (t *Tx) Arm(n int) bool {
	if t.err != nil {
		return false
	}
	t.at(ptStoreSleep)
	t.txSleep.Store(1) // locked, so before the load of head
	ok, err := t.room(words(n))
	if ok || err != nil && err != ErrStale {
		t.Disarm()
		return false
	}
	return true
}

// Disarm says that the sender does not sleep (any more).
func (t *Tx) Disarm() {
	t.at(ptStoreSleep)
	t.txSleep.Store(0)
}
