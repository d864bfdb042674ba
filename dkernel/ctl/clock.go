package ctl

import "sync"

// clock is the rack's clock as this machine knows it: its own time stamp counter and what to add. Of the last answers the one with the shortest
// round trip counts, as in the clock filter of NTP (RFC 5905, section 10).
type clock struct {
	tsc func() uint64

	mu      sync.Mutex
	samples [8]sample
	n       int // samples taken
	best    sample
}

type sample struct {
	delta int64
	half  uint64 // the answer is known to within so many cycles
}

// sample takes a measurement.
func (c *clock) sample(delta int64, half uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := sample{delta, half}
	if d := delta - c.best.delta; c.n > 0 && abs(d) > half+c.best.half+1000 {
		c.n = 0 // the rack's clock has moved: it has another keeper
	}
	c.samples[c.n%len(c.samples)] = s
	c.n++
	c.best = s
	for _, old := range c.samples[:min(c.n, len(c.samples))] {
		if old.half < c.best.half {
			c.best = old
		}
	}
}

func abs(v int64) uint64 {
	if v < 0 {
		return uint64(-v)
	}
	return uint64(v)
}

// read is the rack's counter and how far it may be off; not ok before the first measurement.
func (c *clock) read() (tsc, uncertain uint64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == 0 {
		return 0, 0, false
	}
	return c.tsc() + uint64(c.best.delta), c.best.half, true
}

// RackTSC is the rack's time stamp counter and how far it may be off, in cycles; not ok before it was measured.
func (n *Node) RackTSC() (tsc, uncertain uint64, ok bool) { return n.clock.read() }

// RackTime is the rack's clock in nanoseconds, the same on all machines but for the uncertainty of RackTSC; not ok before it was measured.
func (n *Node) RackTime() (ns uint64, ok bool) {
	tsc, _, ok := n.clock.read()
	if !ok {
		return 0, false
	}
	return n.peer.Nanoseconds(tsc)
}
