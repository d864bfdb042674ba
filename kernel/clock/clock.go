// Package clock tells the time: monotonic from the time stamp counter, whose frequency is measured at boot, and wall time
// from the real-time clock read once. It is pure arithmetic; the counters are read by the caller.
package clock

import "math/bits"

// Clock converts time stamps. Set up by the first CPU before others run, then constant.
type Clock struct {
	base uint64 // TSC at time 0
	mult uint64 // ns per TSC tick, 32.32 fixed point
	hz   uint64
	wall int64 // Unix time in ns at time 0
}

// New returns a clock whose time 0 is at TSC base, for a counter of hz ticks per second (at least 1 MHz).
func New(base, hz uint64) Clock {
	return Clock{base: base, mult: (1e9 << 32) / max(hz, 1_000_000), hz: hz}
}

// Hz returns the frequency of the counter.
func (c *Clock) Hz() uint64 { return c.hz }

// Scale returns the time stamp of time 0, and the ns per tick as a 32.32 fixed-point number: what At computes with.
func (c *Clock) Scale() (base, mult uint64) { return c.base, c.mult }

// At returns the ns from time 0 to time stamp tsc; 0 for earlier ones, which another CPU's counter may give.
func (c *Clock) At(tsc uint64) int64 {
	if tsc < c.base {
		return 0
	}
	hi, lo := bits.Mul64(tsc-c.base, c.mult)
	return int64(hi<<32 | lo>>32)
}

// SetWall declares that at monotonic time now the wall clock shows unix ns.
func (c *Clock) SetWall(now, unix int64) { c.wall = unix - now }

// Wall returns Unix time in ns at monotonic time now.
func (c *Clock) Wall(now int64) int64 { return c.wall + now }

// Hz computes a frequency from the readings of an unknown and a known counter over the same stretch of time.
func Hz(ticks, refTicks, refHz uint64) uint64 {
	if refTicks == 0 {
		return 0
	}
	hi, lo := bits.Mul64(ticks, refHz)
	if hi >= refTicks {
		return 0
	}
	q, _ := bits.Div64(hi, lo, refTicks)
	return q
}
