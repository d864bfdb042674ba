package vdso

import "dinos/kernel/linux"

// Layout of the data page, in bytes. It is what the functions know; nobody else reads it.
const (
	offSeq     = 0x00 // uint32, odd while the rest is written
	offServed  = 0x04 // uint32, set of clocks
	offBase    = 0x08 // uint64, time stamp at which the clocks of offset 0 show 0
	offMult    = 0x10 // uint64, ns per tick, 32.32 fixed point
	offOffsets = 0x40 // [maxClock+1]int64, ns to add, by clock
	maxClock   = 15
)

// coarse is the set of clocks with a coarse resolution.
const coarse = 1<<linux.CLOCK_REALTIME_COARSE | 1<<linux.CLOCK_MONOTONIC_COARSE

// Clock is what the functions compute with: clock c shows ((TSC − Base) · Mult)>>32 + Offsets[c] ns, a TSC before Base counting
// as Base. The result must be in 0 … 2⁶³−1.
type Clock struct {
	Base, Mult uint64 // of kernel/clock.Clock.Scale
	Wall       int64  // of CLOCK_REALTIME: Unix time in ns when the monotonic clock shows 0
	TAI        int64  // seconds that CLOCK_TAI is ahead of CLOCK_REALTIME (adjtimex(2)); 0 on a Linux without NTP
}

// Writer keeps a data page up to date. One goroutine uses it; programs read the page at the same time.
type Writer struct{ page *page }

// NewWriter returns a Writer for a page of PageSize bytes, aligned to 8. It clears the page: until the first Set all functions make
// system calls.
func NewWriter(data []byte) *Writer {
	if len(data) != PageSize {
		panic("vdso: the data page must have PageSize bytes")
	}
	clear(data)
	return &Writer{pageOf(data)}
}

// Set publishes a clock. A reader sees the old one or the new one, and spins in between: the caller should not be interrupted for
// long.
func (w *Writer) Set(c *Clock) {
	var offsets [maxClock + 1]int64
	offsets[linux.CLOCK_REALTIME] = c.Wall
	offsets[linux.CLOCK_REALTIME_COARSE] = c.Wall
	offsets[linux.CLOCK_TAI] = c.Wall + c.TAI*1e9
	w.page.set(c.Base, c.Mult, Served, &offsets)
}

// Stop makes the functions pass everything on to the kernel, for one whose time stamp counter turned out useless.
func (w *Writer) Stop() { w.page.served.Store(0) }
