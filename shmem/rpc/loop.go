package rpc

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Loop serves the connections of a kernel: it receives what nobody else does, ends calls whose time is over, and sleeps when
// there is nothing to do. Run it in a goroutine of its own; have the doorbell's interrupt call Wake.
type Loop struct {
	clock   Clock
	sleeper Sleeper
	spin    int64

	mu    sync.Mutex
	conns []*Conn // replaced, never changed
	todo  []func()
	ended bool

	until atomic.Int64 // it sleeps until then; 0 while it does not
	stop  atomic.Bool
	naps  atomic.Uint64
}

// seldom is how many rounds of a busy loop may pass before it looks at the clock.
const seldom = 64

// NewLoop is a loop that polls for spin after it had something to do, before it sleeps.
func NewLoop(clock Clock, sleeper Sleeper, spin time.Duration) *Loop {
	return &Loop{clock: clock, sleeper: sleeper, spin: int64(spin)}
}

// Wake makes the loop look at all connections: a doorbell rang. It does not block.
func (l *Loop) Wake() { l.sleeper.Wake() }

// Sleeps is how often the loop went to sleep.
func (l *Loop) Sleeps() uint64 { return l.naps.Load() }

// Stop ends Run and closes all connections.
func (l *Loop) Stop() {
	l.stop.Store(true)
	l.Wake()
}

func (l *Loop) add(c *Conn) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return ErrClosed
	}
	l.conns = append(slices.Clone(l.conns), c)
	l.Wake()
	return nil
}

func (l *Loop) remove(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = slices.DeleteFunc(slices.Clone(l.conns), func(o *Conn) bool { return o == c })
}

// later has the loop's goroutine call f, with no lock held.
func (l *Loop) later(f func()) {
	l.mu.Lock()
	l.todo = append(l.todo, f)
	l.mu.Unlock()
	l.Wake()
}

// before makes sure that the loop is awake at a deadline.
func (l *Loop) before(deadline int64) {
	// The deadline was stored before this load; the loop stores until before it looks at the deadlines.
	if deadline < l.until.Load() {
		l.Wake()
	}
}

func (l *Loop) take() ([]*Conn, []func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	todo := l.todo
	l.todo = nil
	return l.conns, todo
}

// Run serves until Stop.
func (l *Loop) Run() {
	idleSince := int64(-1) // -1 while there is something to do
	for n := 1; !l.stop.Load(); n++ {
		conns, todo := l.take()
		for _, f := range todo {
			f()
		}
		busy := len(todo) > 0
		for _, c := range conns {
			if c.rxMu.TryLock() { // else somebody polls it
				c.looping = true
				c.disarm()
				busy = c.poll(pollBatch) || busy
				c.rxMu.Unlock()
			}
		}
		if busy {
			idleSince = -1
		}
		// The clock costs as much as a message, so it is not read each time.
		if busy && n%seldom != 0 {
			continue
		}
		now := l.clock.Now()
		if !busy && idleSince < 0 {
			idleSince = now
		}
		if n%seldom == 0 {
			l.expire(conns, now)
		}
		if busy {
			continue
		}
		if now-idleSince < l.spin {
			if n%4 == 0 {
				runtime.Gosched()
			}
			continue
		}
		if l.armAll(conns) {
			l.sleep(conns)
		}
		idleSince = -1
	}
	l.mu.Lock()
	l.ended = true
	conns := l.conns
	l.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}

func (l *Loop) expire(conns []*Conn, now int64) int64 {
	next := Forever
	for _, c := range conns {
		next = min(next, c.expire(now))
	}
	return next
}

// armAll gives up polling; false means that there is something to do after all.
func (l *Loop) armAll(conns []*Conn) bool {
	quiet := true
	for _, c := range conns {
		c.rxMu.Lock()
		c.looping = false
		// A caller that polls arms when it is the last one.
		if c.pollers == 0 && !c.arm() {
			quiet = false
		}
		c.rxMu.Unlock()
		if !c.repair() || !c.drain(true) || c.reset.Load() {
			quiet = false
		}
	}
	return quiet
}

func (l *Loop) sleep(conns []*Conn) {
	now := l.clock.Now()
	// A sleep has an end: a flag in shared memory that somebody broke must not make it the last one.
	next := min(l.expire(conns, now), now+int64(MaxNap))
	l.until.Store(next)
	// A caller that came before the store has not seen it.
	if l.expire(conns, now) >= next {
		l.naps.Add(1)
		l.sleeper.Sleep(next)
	}
	l.until.Store(0)
}
