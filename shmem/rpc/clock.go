package rpc

import "time"

// Clock tells the time.
type Clock interface {
	// Now is nanoseconds since some moment; it never goes back.
	Now() int64
}

// Sleeper is how a [Loop] waits. One goroutine sleeps, any may wake it.
type Sleeper interface {
	// Sleep returns as soon as Wake was called after the last Sleep returned, or the clock has passed until (Forever for
	// never), or earlier.
	Sleep(until int64)
	// Wake ends a Sleep, or the next one. It does not block, and may be called where a doorbell's interrupt arrives.
	Wake()
}

// Forever is a time that never comes.
const Forever = int64(1<<63 - 1)

// SystemClock is Go's monotonic clock.
type SystemClock struct{ start time.Time }

// NewSystemClock starts at 0.
func NewSystemClock() *SystemClock { return &SystemClock{time.Now()} }

// Now implements [Clock].
func (c *SystemClock) Now() int64 { return int64(time.Since(c.start)) }

// ChanSleeper is a [Sleeper] of a channel and a timer of Go's runtime, for a clock that runs as fast as Go's.
type ChanSleeper struct {
	clock Clock
	wake  chan struct{}
	timer *time.Timer
}

// NewChanSleeper is a sleeper by clock.
func NewChanSleeper(clock Clock) *ChanSleeper {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return &ChanSleeper{clock, make(chan struct{}, 1), t}
}

// Wake implements [Sleeper].
func (s *ChanSleeper) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Sleep implements [Sleeper].
func (s *ChanSleeper) Sleep(until int64) {
	if until == Forever {
		<-s.wake
		return
	}
	d := until - s.clock.Now()
	if d <= 0 {
		return
	}
	s.timer.Reset(time.Duration(d))
	select {
	case <-s.wake:
		s.timer.Stop()
	case <-s.timer.C:
	}
}
