package ring

import (
	"encoding/binary"
	"fmt"

	"dinos/shmem/region"
)

// Start says where a receiver begins to read.
type Start uint8

const (
	// Discard skips what is in the ring: it was meant for the receiver's past life.
	Discard Start = iota
	// Resume reads on where a former receiver stopped, or from the start of a ring that was made anew.
	Resume
)

// Rx is the receiving end of a ring with one sender.
type Rx struct {
	control
	words    region.Words
	capacity uint64 // in words
	head     uint64 // of the next message
	pub      uint64 // published head
	seen     uint64 // tail as last read
	done     word   // the last tail word up to which there was nothing to receive; for Changed
}

// AttachRx makes the receiving end of the ring of data bytes at the start of r. notify wakes the sender; it is called
// at most once per sleep of the sender, from Recv, Arm and Release.
func AttachRx(r region.Region, data uint64, start Start, notify func()) (*Rx, error) {
	if err := checkData(data); err != nil {
		return nil, err
	}
	x := &Rx{capacity: data / 8}
	if err := x.attach(r, Magic, data, 0, notify); err != nil {
		return nil, err
	}
	var err error
	if x.words, err = x.data.Words(0, 8, x.capacity); err != nil {
		return nil, err
	}
	tag := x.gen << posBits
	tail, head := x.tailWord.Load(), x.headWord.Load()
	switch {
	case tail&^posMask != tag && head&^posMask != tag:
		head = tag // neither end has attached since Format
	case tail&^posMask != tag:
	case head&^posMask != tag || start == Discard:
		head = tail
	}
	if d := (tail - head) & posMask; tail&^posMask == tag && d > x.capacity {
		return nil, fmt.Errorf("%w: tail %#x is %d words behind head %#x, at most %d are possible", ErrCorrupt, tail, d, head, x.capacity)
	}
	x.head, x.pub, x.seen = head&posMask, head&posMask, head&posMask
	x.done.Store(^tail) // nothing was looked at yet
	x.rxSleep.Store(0)
	x.publish()
	return x, nil
}

// MaxMessage is the size in bytes of the largest message that fits into the ring.
func (x *Rx) MaxMessage() int { return int(x.capacity-1) * 8 }

// look refreshes what is known of the tail. nil means that there is a message.
func (x *Rx) look() error {
	if x.err != nil {
		return x.err
	}
	x.at(ptLoadTail)
	t := x.tailWord.Load()
	if t>>posBits != x.gen&0xffff {
		if err := x.current(t); err != nil {
			return err
		}
		region.StoreRelaxed(&x.done, t)
		return ErrStale
	}
	t &= posMask
	if d := (t - x.head) & posMask; d > x.capacity || d < (x.seen-x.head)&posMask {
		return x.broken("tail %#x, want %#x to %#x", t, x.seen, (x.head+x.capacity)&posMask)
	}
	x.seen = t
	if t == x.head {
		region.StoreRelaxed(&x.done, t|x.gen<<posBits)
		return ErrEmpty
	}
	return nil
}

// Recv copies the next message to buf and returns its size; what is in buf behind the message is undefined. Errors: ErrEmpty, ErrStale; ErrTooBig if buf is too small (the
// size is returned and the message stays); ErrCorrupt and ErrReset stick.
func (x *Rx) Recv(buf []byte) (int, error) {
	if x.seen == x.head || x.err != nil {
		if err := x.look(); err != nil {
			if x.pub != x.head {
				x.publish() // so that a sender that waits for room gets all of it
			}
			return 0, err
		}
	}
	w := region.LoadRelaxed(x.words.At(x.head).Word(0)) // once: the peer may change it
	n := int(uint32(w))
	need := words(n)
	if w&^0xffffffff != mark(x.gen, x.head) || need > (x.seen-x.head)&posMask {
		return 0, x.broken("message header %#x at position %#x with tail %#x", w, x.head, x.seen)
	}
	if n > len(buf) {
		return n, ErrTooBig
	}
	if n <= smallMessage && x.head%x.capacity+need <= x.capacity && len(buf) >= int(need-1)*8 {
		rec := x.words.At(x.head)
		for i := 1; i < int(need); i++ {
			binary.LittleEndian.PutUint64(buf[(i-1)*8:], region.LoadRelaxed(rec.Word(i)))
		}
	} else if err := x.copyOut(buf[:n], x.head+1); err != nil {
		return 0, err
	}
	x.head = (x.head + need) & posMask
	// Publishing costs a locked instruction, so do it for a quarter of the ring at a time, and when it is empty.
	if (x.head-x.pub)&posMask >= x.capacity/4 {
		x.publish()
	}
	return n, nil
}

func (x *Rx) copyOut(b []byte, pos uint64) error {
	off := pos % x.capacity * 8
	if k := x.size - off; uint64(len(b)) > k {
		if err := x.data.LoadBytes(b[k:], 0); err != nil {
			return err
		}
		b = b[:k]
	}
	return x.data.LoadBytes(b, region.Off(off))
}

func (x *Rx) publish() {
	x.at(ptStoreHead)
	x.headWord.Store(x.gen<<posBits | x.head) // locked, so before the load of tx sleep
	x.pub = x.head
	x.wake(x.txSleep)
}

// Release gives the room of all received messages back at once. Recv does it by itself often enough; a receiver that
// pauses without having seen ErrEmpty calls it.
func (x *Rx) Release() {
	if x.err == nil && x.pub != x.head {
		x.publish()
	}
}

// Repair stores the published head again if somebody else has written over it; see [Tx.Repair]. Errors stick.
func (x *Rx) Repair() error {
	if x.err != nil {
		return x.err
	}
	w := x.headWord.Load()
	if w == x.gen<<posBits|x.pub {
		return nil
	}
	if err := x.current(w); err != nil {
		return err
	}
	x.publish()
	return nil
}

// Changed reports whether the sender has stored something since Recv last found nothing to receive. Unlike all else it may be
// called by any goroutine, and costs two loads. It is only a hint while somebody else receives.
func (x *Rx) Changed() bool { return x.tailWord.Load() != x.done.Load() }

// Pending reports whether Recv has a message without looking at what the sender has stored since.
func (x *Rx) Pending() bool { return x.seen != x.head }

// Ready reports whether Recv would return something other than ErrEmpty or ErrStale.
func (x *Rx) Ready() bool {
	if x.seen != x.head {
		return true
	}
	err := x.look()
	return err != ErrEmpty && err != ErrStale
}

// Arm announces that the receiver is going to sleep until its doorbell rings. It returns false if there is something
// to receive (or an error): do not sleep then. Disarm after the sleep, whatever ended it.
func (x *Rx) Arm() bool {
	if x.err != nil {
		return false
	}
	x.Release()
	x.at(ptStoreSleep)
	x.rxSleep.Store(1) // locked, so before the load of tail in Ready
	if x.Ready() {
		x.Disarm()
		return false
	}
	return true
}

// Disarm says that the receiver does not sleep (any more): no doorbell is wanted.
func (x *Rx) Disarm() {
	x.at(ptStoreSleep)
	x.rxSleep.Store(0)
}
