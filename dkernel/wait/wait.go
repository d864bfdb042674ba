// Package wait is how threads wait for things: an object has a Queue and wakes it when its state changes, a thread has a Sleeper.
//
// The order is always the same, and no wake-up is lost: enter the queue, look at the object, sleep; the object changes its
// state first and wakes after. So a queue needs no lock of the object, and Wake may be called with the object's lock held or not.
//
// Lock order: a lock of an object, then Queue.mu. An Entry's Waker is called with Queue.mu held: it must not block nor take
// a lock of an object, nor touch a Queue.
package wait

import (
	"sync"
	"sync/atomic"
	"time"

	"dinos/kernel/linux"
)

// Events are those of poll(2).
type Events uint32

// The events (include/uapi/asm-generic/poll.h).
const (
	In     Events = 0x001
	Pri    Events = 0x002
	Out    Events = 0x004
	Err    Events = 0x008
	Hup    Events = 0x010
	Nval   Events = 0x020
	RdNorm Events = 0x040
	RdBand Events = 0x080
	WrNorm Events = 0x100
	WrBand Events = 0x200
	RdHup  Events = 0x2000

	// Readable and Writable are what an object reports that can be read or written.
	Readable = In | RdNorm
	Writable = Out | WrNorm
	// Always are reported whether asked for or not.
	Always = Err | Hup | Nval
	All    = Events(0xffff)
)

// Waker is told of events.
type Waker interface {
	// Wake is called with the events that happened, under the queue's lock. It reports whether somebody took notice, which
	// matters for exclusive entries only.
	Wake(e *Entry, ev Events) bool
}

// Entry is a place in a Queue. The zero value with W set is ready for use; it is in one queue at a time.
type Entry struct {
	W         Waker
	Mask      Events // what it waits for; set it before Add
	Exclusive bool   // one wake-up is enough for all exclusive entries (EPOLLEXCLUSIVE, accept)
	next      *Entry
	prev      *Entry
	queue     *Queue
}

// Queue has the waiters of an object. The zero value is ready for use.
type Queue struct {
	waiting    atomic.Int32 // len, so that a wake-up of nobody takes no lock
	mu         sync.Mutex
	head, tail *Entry
}

// Add enters e at the end.
func (q *Queue) Add(e *Entry) {
	q.mu.Lock()
	e.queue, e.prev, e.next = q, q.tail, nil
	if q.tail != nil {
		q.tail.next = e
	} else {
		q.head = e
	}
	q.tail = e
	q.waiting.Add(1)
	q.mu.Unlock()
}

// Remove takes e out; after that its Waker is not called any more. e need not be in.
func (q *Queue) Remove(e *Entry) {
	q.mu.Lock()
	if e.queue == q {
		if e.prev != nil {
			e.prev.next = e.next
		} else {
			q.head = e.next
		}
		if e.next != nil {
			e.next.prev = e.prev
		} else {
			q.tail = e.prev
		}
		e.queue, e.next, e.prev = nil, nil, nil
		q.waiting.Add(-1)
	}
	q.mu.Unlock()
}

// Empty reports whether nobody waits.
func (q *Queue) Empty() bool { return q.waiting.Load() == 0 }

// Wake tells everybody who waits for one of ev, of the exclusive ones only the first that takes notice.
func (q *Queue) Wake(ev Events) {
	if q.waiting.Load() == 0 {
		return
	}
	q.mu.Lock()
	exclusive := false
	for e := q.head; e != nil; e = e.next {
		if (e.Mask|Always)&ev == 0 || e.Exclusive && exclusive {
			continue
		}
		if e.W.Wake(e, ev) && e.Exclusive {
			exclusive = true
		}
	}
	q.mu.Unlock()
}

// Sleeper is a thread's ability to sleep. Its own goroutine calls Sleep, Until and Drain, anybody the rest. Make it with NewSleeper.
type Sleeper struct {
	// Slept is how long the thread has slept in all, in ns: so that CPU time can be told from waiting.
	Slept int64
	// Active, if set, counts the threads that do not sleep.
	Active *atomic.Int32

	ch      chan struct{}
	pending func() bool
	now     func() int64
	timer   *time.Timer
	entry   Entry // of Until: on the stack it would escape
}

// Forever is a deadline that never comes.
const Forever = int64(1<<63 - 1)

// NewSleeper makes a Sleeper. pending reports whether a signal waits to be delivered, which ends every sleep; it may be nil. now
// is the clock of deadlines, in nanoseconds (CLOCK_MONOTONIC).
func NewSleeper(now func() int64, pending func() bool) *Sleeper {
	return &Sleeper{ch: make(chan struct{}, 1), pending: pending, now: now}
}

// Rouse ends the current sleep, or the next one. It never blocks.
func (s *Sleeper) Rouse() {
	select {
	case s.ch <- struct{}{}:
	default:
	}
}

// Wake implements Waker.
func (s *Sleeper) Wake(*Entry, Events) bool { s.Rouse(); return true }

// Sleep blocks until Rouse (nil, possibly for an old reason: look again), a signal (linux.ERESTARTSYS), or the deadline
// (linux.ETIMEDOUT). Whoever posts a signal calls Rouse after that.
func (s *Sleeper) Sleep(deadline int64) error {
	if s.pending != nil && s.pending() {
		return linux.ERESTARTSYS
	}
	start := s.now()
	if s.Active != nil {
		s.Active.Add(-1)
		defer s.Active.Add(1)
	}
	if deadline == Forever {
		<-s.ch
		s.Slept += s.now() - start
	} else {
		d := deadline - start
		if d <= 0 {
			return linux.ETIMEDOUT
		}
		if s.timer == nil {
			s.timer = time.NewTimer(time.Duration(d))
		} else {
			s.timer.Reset(time.Duration(d))
		}
		late := false
		select {
		case <-s.ch:
			s.timer.Stop()
		case <-s.timer.C:
			late = true
		}
		now := s.now()
		s.Slept += now - start
		if late && now >= deadline { // Go's clock may be a moment ahead of ours
			return linux.ETIMEDOUT
		}
	}
	if s.pending != nil && s.pending() {
		return linux.ERESTARTSYS
	}
	return nil
}

// Until waits until try succeeds: it calls try, and again after each event of mask at q. Errors: those of Sleep, and what try
// returns other than linux.EAGAIN, which means not yet. It is what a blocking operation is made of. try does not call Until. A nil
// Sleeper cannot wait: it tries once.
func (s *Sleeper) Until(q *Queue, mask Events, deadline int64, try func() error) error {
	if err := try(); err != linux.EAGAIN || s == nil {
		return err
	}
	e := &s.entry
	e.W, e.Mask = s, mask
	q.Add(e)
	defer q.Remove(e)
	for {
		if err := try(); err != linux.EAGAIN {
			return err
		}
		if err := s.Sleep(deadline); err != nil {
			// It may have come true in the same moment; what was taken must not be lost.
			if last := try(); last != linux.EAGAIN {
				return last
			}
			return err
		}
	}
}
