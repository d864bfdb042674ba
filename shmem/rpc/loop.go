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
	conns atomic.Pointer[[]*Conn] // replaced under mu, what it points to never changes
	todo  []func()
	some  atomic.Bool // todo is not empty
	ended bool

	until atomic.Int64 // it sleeps until then; 0 while it does not
	yield atomic.Bool  // a goroutine wants its turn now
	stop  atomic.Bool
	naps  atomic.Uint64
}

// Rounds of the loop between looks at the clock while it has something to do, and while it has not; and between chances for other
// goroutines. A round is a few loads for each connection.
const (
	seldom    = 64
	idleClock = 64
	idleYield = 256
)

// NewLoop is a loop that polls for spin after it had something to do, before it sleeps.
func NewLoop(clock Clock, sleeper Sleeper, spin time.Duration) *Loop {
	l := &Loop{clock: clock, sleeper: sleeper, spin: int64(spin)}
	l.conns.Store(&[]*Conn{})
	return l
}

// Wake makes the loop look at all connections: a doorbell rang. It does not block.
func (l *Loop) Wake() { l.sleeper.Wake() }

// Check does Wake if there is something that the loop has not noticed, because somebody broke a flag or an index in shared
// memory. It costs little, for those who do it often; the loop by itself looks once in MaxNap.
func (l *Loop) Check() {
	if l.until.Load() == 0 {
		return // it is awake
	}
	for _, c := range *l.conns.Load() {
		if c.ready() || !c.repair() {
			l.Wake()
			return
		}
	}
}

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
	list := append(slices.Clone(*l.conns.Load()), c)
	l.conns.Store(&list)
	l.Wake()
	return nil
}

func (l *Loop) remove(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := slices.DeleteFunc(slices.Clone(*l.conns.Load()), func(o *Conn) bool { return o == c })
	l.conns.Store(&list)
}

// later has the loop's goroutine call f, with no lock held.
func (l *Loop) later(f func()) {
	l.mu.Lock()
	l.todo = append(l.todo, f)
	l.some.Store(true)
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

// chores does what later was given, and reports whether there was something.
func (l *Loop) chores() bool {
	l.mu.Lock()
	todo := l.todo
	l.todo = nil
	l.some.Store(false)
	l.mu.Unlock()
	for _, f := range todo {
		f()
	}
	return len(todo) > 0
}

// Run serves until Stop.
func (l *Loop) Run() {
	idleSince := int64(-1) // -1 while there is something to do
	for n := 1; !l.stop.Load(); n++ {
		busy := l.some.Load() && l.chores()
		conns := *l.conns.Load()
		for _, c := range conns {
			if c.ready() || !c.adopted {
				busy = l.visit(c) || busy
			}
		}
		if busy {
			idleSince = -1
			// The clock costs as much as a message, so it is not read each time.
			if n%seldom == 0 {
				l.expire(conns, l.clock.Now())
			}
			continue
		}
		if l.yield.Load() || n%idleYield == 0 {
			l.yield.Store(false)
			runtime.Gosched()
		}
		if idleSince >= 0 && n%idleClock != 0 {
			continue
		}
		now := l.clock.Now()
		if idleSince < 0 || l.active(conns) {
			idleSince = now
		}
		if n%seldom == 0 {
			l.expire(conns, now)
		}
		if now-idleSince < l.spin {
			continue
		}
		if l.armAll(conns) {
			l.sleep(conns)
		}
		idleSince = -1
	}
	l.mu.Lock()
	l.ended = true
	conns := *l.conns.Load()
	l.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}

// visit polls a connection, and reports whether there was something.
func (l *Loop) visit(c *Conn) bool {
	if !c.rxMu.TryLock() {
		return false // somebody polls it
	}
	if !c.adopted {
		c.adopted = true
		c.looping.Store(true)
		c.at()
		c.disarm()
	}
	busy := c.poll(pollBatch)
	c.rxMu.Unlock()
	return busy
}

// active reports whether callers have received something for themselves since the last time.
func (l *Loop) active(conns []*Conn) bool {
	active := false
	for _, c := range conns {
		if in := c.Stats.BytesIn.Load(); in != c.received {
			c.received = in
			active = true
		}
	}
	return active
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
		c.adopted, c.eager = false, 0
		c.looping.Store(false)
		c.at()
		// A caller that polls arms when it is the last one; see Conn.leave.
		if c.pollers.Load() == 0 && !c.arm() {
			quiet = false
		}
		c.rxMu.Unlock()
		if !c.repair() || !c.drain() || c.reset.Load() {
			quiet = false
		}
	}
	return quiet
}

func (l *Loop) sleep(conns []*Conn) {
	now := l.clock.Now()
	// A sleep has an end: a flag in shared memory that somebody broke must not make it the last one.
	next := min(l.expire(conns, now), now+int64(MaxNap))
	for _, c := range conns {
		c.at()
	}
	l.until.Store(next)
	// A caller that came before the store has not seen it.
	if l.expire(conns, now) >= next {
		l.naps.Add(1)
		l.sleeper.Sleep(next)
	}
	l.until.Store(0)
}
