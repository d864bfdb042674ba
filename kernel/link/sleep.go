package link

import (
	"fmt"
	"sync/atomic"
	"time"

	"dinos/kernel/pci"
	"dinos/shmem/rpc"
)

// Event is an event of interrupts that can be raised by software too; *machine.Event is one.
type Event interface {
	pci.Event
	// Raise adds 1 to the count. It does not block.
	Raise() error
}

// The states of a Sleeper.
const (
	awake uint32 = iota
	asleep
	woken // while awake: the next sleep is over at once
)

// Sleeper is a [rpc.Sleeper] whose sleep a doorbell's interrupt ends by itself: the goroutine of the loop waits for the event,
// and parks in the runtime's poller. With nothing else to run the CPU halts.
type Sleeper struct {
	event Event
	clock rpc.Clock
	state atomic.Uint32
	rings atomic.Uint64

	// The timer is set again only when it would come too late, not for each sleep: one that it ends early costs less.
	timer *time.Timer
	due   atomic.Int64 // when it fires, 0 if it has
}

// NewSleeper is a sleeper by clock, which runs as fast as Go's.
func NewSleeper(e Event, clock rpc.Clock) *Sleeper {
	s := &Sleeper{event: e, clock: clock}
	s.timer = time.AfterFunc(time.Hour, func() {
		s.due.Store(0)
		s.Wake()
	})
	s.timer.Stop()
	return s
}

// Rings is how many doorbells (and wake-ups by Wake) ended sleeps; those that came together count once.
func (s *Sleeper) Rings() uint64 { return s.rings.Load() }

// Wake implements [rpc.Sleeper].
func (s *Sleeper) Wake() {
	if s.state.Swap(woken) == asleep {
		if err := s.event.Raise(); err != nil {
			panic(fmt.Sprintf("link: raising the event of the doorbell: %v", err))
		}
	}
}

// Sleep implements [rpc.Sleeper].
func (s *Sleeper) Sleep(until int64) {
	if until != rpc.Forever {
		now := s.clock.Now()
		if until <= now {
			return
		}
		// A timer that fires between these two, late, clears due of the one that is set here. That one fires nevertheless, and
		// the next sleep sets it needlessly.
		if due := s.due.Load(); due == 0 || until < due {
			s.due.Store(until)
			s.timer.Reset(time.Duration(until - now))
		}
	}
	if s.state.CompareAndSwap(awake, asleep) {
		if _, err := s.event.Wait(); err != nil {
			panic(fmt.Sprintf("link: waiting for the doorbell: %v", err))
		}
		s.rings.Add(1)
	}
	// A wake-up that falls before this store is of this sleep: the loop looks at everything after it.
	s.state.Store(awake)
}
