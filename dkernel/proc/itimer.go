package proc

import (
	"dinos/dkernel/signal"
	"dinos/kernel/linux"
)

// itimers are the interval timers of setitimer(2) and the limit on CPU time. Guarded by Process.mu.
type itimers struct {
	p        *Process
	real     Timer
	deadline int64 // of real, on CLOCK_MONOTONIC; 0: not set; below: it expired at minus that, and its signal is pending
	interval int64
	cpu      [2]cpuTimer // ITIMER_VIRTUAL, ITIMER_PROF
	warned   int64       // CPU time, ns, at which SIGXCPU comes next
	tick     Timer       // goes off when a timer on CPU time may have expired
}

// cpuTimer is a timer on the CPU time of a process; at 0 it is not set.
type cpuTimer struct{ at, interval int64 }

// minCPUStep is how often CPU clocks are looked at, at most.
const minCPUStep = 1_000_000

// Getitimer is getitimer(2). linux.EINVAL.
func (t *Thread) Getitimer(which int) (v linux.Itimerval, err error) {
	value, interval, err := t.itimer(which, nil)
	return linux.Itimerval{Interval: linux.NsTimeval(interval), Value: roundUp(value)}, err
}

// roundUp is the Timeval of ns that is not 0 unless ns is.
func roundUp(ns int64) linux.Timeval {
	if ns > 0 && ns < 1000 {
		ns = 1000
	}
	return linux.NsTimeval(ns)
}

// Setitimer is setitimer(2): it returns what Getitimer would have. linux.EINVAL.
func (t *Thread) Setitimer(which int, n linux.Itimerval) (old linux.Itimerval, err error) {
	v, ok := n.Value.Ns()
	i, ok2 := n.Interval.Ns()
	if !ok || !ok2 {
		return old, linux.EINVAL
	}
	value, interval, err := t.itimer(which, &cpuTimer{v, i})
	return linux.Itimerval{Interval: linux.NsTimeval(interval), Value: roundUp(value)}, err
}

// Alarm is alarm(2): it returns the seconds that were left, rounded to the nearest but not to 0.
func (t *Thread) Alarm(seconds uint32) uint32 {
	value, _, _ := t.itimer(linux.ITIMER_REAL, &cpuTimer{int64(seconds) * 1e9, 0})
	s := value / 1e9
	if value%1e9 >= 5e8 || s == 0 && value > 0 {
		s++
	}
	return uint32(s)
}

// itimer returns a timer's time left and interval, and sets it if n is not nil.
func (t *Thread) itimer(which int, n *cpuTimer) (value, interval int64, err error) {
	p := t.proc
	if a := t.sys.cfg.Account; a != nil && which != linux.ITIMER_REAL {
		a(t)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	i := &p.itimers
	switch which {
	case linux.ITIMER_REAL:
		value, interval = i.left(), i.interval
		if n != nil {
			i.setReal(n.at, n.interval)
		}
	case linux.ITIMER_VIRTUAL, linux.ITIMER_PROF:
		k := &i.cpu[which-linux.ITIMER_VIRTUAL]
		u := p.usedLocked()
		now := u.utime
		if which == linux.ITIMER_PROF {
			now += u.stime
		}
		if interval = k.interval; k.at != 0 {
			value = max(k.at-now, 1000)
		}
		if n != nil {
			*k = cpuTimer{0, n.interval}
			if n.at != 0 {
				k.at = after(now, n.at)
			}
			p.armCPU()
		}
	default:
		return 0, 0, linux.EINVAL
	}
	return value, interval, nil
}

// left is the time until ITIMER_REAL expires.
func (i *itimers) left() int64 {
	if i.deadline <= 0 {
		return 0
	}
	return max(i.deadline-i.p.sys.clock.Monotonic(), 1000)
}

func (i *itimers) setReal(value, interval int64) {
	c := i.p.sys.clock
	i.deadline, i.interval = 0, interval
	if value == 0 {
		i.interval = 0
		if i.real != nil {
			i.real.Stop()
		}
		return
	}
	if i.real == nil {
		i.real = c.NewTimer(i.expire)
	}
	i.deadline = after(c.Monotonic(), value)
	i.real.Set(i.deadline)
}

// expire is called when ITIMER_REAL goes off.
func (i *itimers) expire() {
	p := i.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if i.deadline <= 0 || p.sys.clock.Monotonic() < i.deadline {
		return // it was set anew in the same moment
	}
	d := i.deadline
	if i.deadline = 0; i.interval != 0 {
		i.deadline = -d
	}
	ignored := !p.accepts(nil, nil, linux.SIGALRM, true)
	_ = p.postLocked(nil, nil, signal.Kernel(linux.SIGALRM), true)
	if ignored {
		i.again()
	}
}

// again starts a periodic ITIMER_REAL anew. That is done when its signal is delivered, as on Linux, so that a short interval keeps
// nobody busy but the program itself.
func (i *itimers) again() {
	if i.deadline >= 0 {
		return
	}
	c := i.p.sys.clock
	i.deadline, _ = forward(-i.deadline, i.interval, c.Monotonic())
	i.real.Set(i.deadline)
}

// forward moves a deadline on by intervals until it is after now, and says how many.
func forward(deadline, interval, now int64) (next, n int64) {
	if now < deadline {
		return deadline, 0
	}
	n = (now-deadline)/interval + 1
	return after(deadline, n*interval), n
}

// armCPU sees to it that timers on CPU time are looked at when one may have expired. mu is locked.
func (p *Process) armCPU() {
	i := &p.itimers
	if p.nthreads == 0 {
		p.cpuArmed.Store(false)
		return
	}
	u := p.usedLocked()
	left := int64(sleepForever)
	note := func(at, now int64) {
		if at != 0 {
			left = min(left, max(at-now, 0))
		}
	}
	note(i.cpu[0].at, u.utime)
	note(i.cpu[1].at, u.utime+u.stime)
	if l := i.xcpu(); l != 0 {
		note(l, u.utime+u.stime)
	}
	for _, t := range p.timers.m {
		if t.cpu && t.armed {
			note(t.deadline, t.clockNow(&u))
		}
	}
	p.cpuArmed.Store(left != sleepForever)
	if left == sleepForever {
		if i.tick != nil {
			i.tick.Stop()
		}
		return
	}
	if i.tick == nil {
		i.tick = p.sys.clock.NewTimer(p.cpuTick)
	}
	i.tick.Set(after(p.sys.clock.Monotonic(), max(left/int64(p.nthreads), minCPUStep)))
}

// cpuTick makes all threads leave ring 3, so that what they used is accounted, and look at the timers before they go on. Sleeping
// ones need not: they use no time, and look when they are back.
func (p *Process) cpuTick() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.each(func(t *Thread) {
		t.work.Or(workTimer)
		if k := p.sys.cfg.Kick; k != nil {
			k(t)
		}
	})
}

// noCPULimit is so many seconds that they never pass.
const noCPULimit = 1 << 33

// xcpu is the CPU time at which SIGXCPU or SIGKILL is due; 0: never.
func (i *itimers) xcpu() int64 {
	limit := i.p.limits[linux.RLIMIT_CPU].Cur
	if limit >= noCPULimit {
		return 0
	}
	return max(int64(limit)*1e9, i.warned, 1)
}

// cpuTimers sends the signals of timers on CPU time that have expired. It is called by a thread of p.
func (p *Process) cpuTimers(t *Thread) {
	if !p.cpuArmed.Load() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	i := &p.itimers
	u := p.usedLocked()
	for n, now := range [...]int64{u.utime, u.utime + u.stime} {
		k := &i.cpu[n]
		if k.at == 0 || now < k.at {
			continue
		}
		_ = p.postLocked(t, nil, signal.Kernel([...]int{linux.SIGVTALRM, linux.SIGPROF}[n]), true)
		if k.interval == 0 {
			k.at = 0
		} else {
			k.at, _ = forward(k.at, k.interval, now)
		}
	}
	if at := i.xcpu(); at != 0 && u.utime+u.stime >= at {
		hard := p.limits[linux.RLIMIT_CPU].Max
		sig := linux.SIGXCPU
		if hard < noCPULimit && u.utime+u.stime >= int64(hard)*1e9 {
			sig = linux.SIGKILL
		}
		_ = p.postLocked(t, nil, signal.Kernel(sig), true)
		i.warned = u.utime + u.stime + 1e9 // once a second from now on
	}
	for _, k := range p.timers.m {
		if k.cpu && k.armed && k.clockNow(&u) >= k.deadline {
			k.fire(t)
		}
	}
	p.armCPU()
}

// stopTimers ends all timers of a process that ends.
func (p *Process) stopTimers() {
	p.deleteTimers()
	p.mu.Lock()
	i := &p.itimers
	i.deadline, i.interval = 0, 0
	real, tick := i.real, i.tick
	i.real, i.tick = nil, nil
	p.cpuArmed.Store(false)
	p.mu.Unlock()
	if real != nil {
		real.Stop()
	}
	if tick != nil {
		tick.Stop()
	}
}
