package proc

import (
	"sync"
	"sync/atomic"

	"dinos/kernel/linux"
)

// pid is a number that names a thread, a process, a group or a session, and is taken as long as one of them has it.
type pid struct {
	n       int32
	refs    int // guarded by pidTable.mu
	thread  atomic.Pointer[Thread]
	proc    atomic.Pointer[Process] // until it was waited for
	group   atomic.Pointer[group]
	session atomic.Pointer[Session]
}

const (
	defaultMaxPID     = 1 << 22
	defaultMaxThreads = 32768
	reservedPIDs      = 300 // numbers below are given once only, as on Linux
	pidChunk          = 1024
)

// pidTable finds what a number names without a lock; mu serialises changes.
type pidTable struct {
	chunks []atomic.Pointer[[pidChunk]atomic.Pointer[pid]]
	max    int32 // above all numbers; it does not change
	mu     sync.Mutex
	last   int32 // guarded by mu, as used
	used   int
}

func (t *pidTable) init(max int) {
	if max == 0 {
		max = defaultMaxPID
	}
	t.max = int32(max)
	t.chunks = make([]atomic.Pointer[[pidChunk]atomic.Pointer[pid]], (max+pidChunk-1)/pidChunk)
}

// get returns what n names, or nil.
func (t *pidTable) get(n int32) *pid {
	if n <= 0 || int(n) >= len(t.chunks)*pidChunk {
		return nil
	}
	c := t.chunks[n/pidChunk].Load()
	if c == nil {
		return nil
	}
	return c[n%pidChunk].Load()
}

// alloc takes a free number, with one reference; want is 0 or the number to take. linux.EAGAIN: none is free; linux.EEXIST,
// linux.EINVAL: want cannot be had.
func (t *pidTable) alloc(want int32) (*pid, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if want != 0 {
		if want < 1 || want >= t.max {
			return nil, linux.EINVAL
		}
		if t.get(want) != nil {
			return nil, linux.EEXIST
		}
		return t.put(want), nil
	}
	n := t.last
	for range t.max {
		if n++; n >= t.max {
			n = reservedPIDs
		}
		if t.get(n) == nil {
			t.last = n
			return t.put(n), nil
		}
	}
	return nil, linux.EAGAIN
}

func (t *pidTable) put(n int32) *pid {
	c := t.chunks[n/pidChunk].Load()
	if c == nil {
		c = new([pidChunk]atomic.Pointer[pid])
		t.chunks[n/pidChunk].Store(c)
	}
	p := &pid{n: n, refs: 1}
	c[n%pidChunk].Store(p)
	t.used++
	return p
}

// ref adds a reference; the caller has one, or knows that somebody does.
func (t *pidTable) ref(p *pid) *pid {
	t.mu.Lock()
	p.refs++
	t.mu.Unlock()
	return p
}

func (t *pidTable) unref(p *pid) {
	t.mu.Lock()
	if p.refs--; p.refs == 0 {
		t.chunks[p.n/pidChunk].Load()[p.n%pidChunk].Store(nil)
		t.used--
	}
	t.mu.Unlock()
}

// each calls f for all numbers from n on that are taken, in order, until it returns false.
func (t *pidTable) each(n int32, f func(*pid) bool) {
	for ; int(n) < len(t.chunks)*pidChunk; n++ {
		c := t.chunks[n/pidChunk].Load()
		if c == nil {
			n |= pidChunk - 1
			continue
		}
		if p := c[n%pidChunk].Load(); p != nil && !f(p) {
			return
		}
	}
}

// Process returns the process with an id, possibly a zombie; nil if there is none.
func (s *System) Process(n int32) *Process {
	if p := s.pids.get(n); p != nil {
		return p.proc.Load()
	}
	return nil
}

// Thread returns the thread with an id; nil if there is none.
func (s *System) Thread(n int32) *Thread {
	if p := s.pids.get(n); p != nil {
		return p.thread.Load()
	}
	return nil
}

// Processes calls f for all processes from id n on, zombies included, in the order of their ids, until it returns false. Those
// that begin or end meanwhile may be missed.
func (s *System) Processes(n int32, f func(*Process) bool) {
	s.pids.each(max(n, 1), func(i *pid) bool {
		if p := i.proc.Load(); p != nil {
			return f(p)
		}
		return true
	})
}
