package run

import (
	"dinos/dkernel/proc"
	"dinos/kernel/machine"
)

// clock accounts a thread's CPU time. Reading the time stamp counter twice a system call would cost a tenth of a short one. So one stay in ring 3 of
// sampleEvery, and the service after it, are measured; all the time since the last measurement is divided between the two in that
// proportion. An interruption ends a long stay, and counts as one.
type clock struct {
	t     *proc.Thread
	hz    uint64
	n     uint8
	last  uint64 // time stamp counter up to which all is accounted
	enter uint64 // of the stay that is measured
	left  uint64 // when that ended; 0 if none is being measured
	slept int64  // of the Sleeper, when last was

	user, sys uint64 // cycles not yet handed over
}

const sampleEvery = 16

// batch is how much CPU time is handed over at a time, in parts of a second.
const batch = 1000

func newClock(t *proc.Thread) *clock {
	tsc, hz := machine.Stamp()
	return &clock{t: t, hz: hz, last: tsc, slept: t.Sleeper().Slept}
}

// entering is called before ring 3 is entered.
func (c *clock) entering() {
	if c.left != 0 {
		c.divide()
	}
	if c.n++; c.n%sampleEvery == 0 {
		c.enter = machine.TSC()
	}
}

// wasLeft is called when it was left.
func (c *clock) wasLeft() {
	if c.n%sampleEvery == 0 {
		c.left = machine.TSC()
	}
}

// divide accounts the time since last, when the service after a measured stay is over.
func (c *clock) divide() {
	now := machine.TSC()
	slept := c.takeSlept()
	total, user, sys := now-c.last, c.left-c.enter, now-c.left
	total -= min(total, slept)
	sys -= min(sys, slept) // as a rule it is this call that slept
	if sum := user + sys; sum > 0 {
		part := total * (user * 1024 / sum) / 1024
		c.user += part
		c.sys += total - part
	}
	c.last, c.left = now, 0
	if c.user+c.sys > c.hz/batch {
		c.flush()
	}
}

// interrupted accounts a stay that ended by an interruption; others may have the CPU before the next one.
func (c *clock) interrupted() {
	now := machine.TSC()
	slept := c.takeSlept()
	c.user += now - c.last - min(now-c.last, slept)
	c.last, c.left = now, 0
	c.flush()
}

// resumed forgets the time in which others had the CPU.
func (c *clock) resumed() { c.last = machine.TSC() }

// takeSlept is how long the thread has slept since the last call, in cycles.
func (c *clock) takeSlept() uint64 {
	s := c.t.Sleeper().Slept
	d := uint64(s-c.slept) * (c.hz / 1e6) / 1000
	c.slept = s
	return d
}

// settle accounts all up to now, as time in the kernel: somebody wants to know.
func (c *clock) settle() {
	now := machine.TSC()
	d := now - c.last
	c.sys += d - min(d, c.takeSlept())
	c.last, c.left = now, 0
	c.flush()
}

func (c *clock) flush() {
	ns := func(cycles uint64) int64 { return int64(cycles * 1000 / (c.hz / 1e6)) }
	c.t.Ran(ns(c.user), ns(c.sys))
	c.user, c.sys = 0, 0
}
