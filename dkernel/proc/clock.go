package proc

import (
	"sync"
	"time"

	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

// clockID is a clockid_t: a number, or the CPU clock of a thread or a process (include/linux/posix-timers.h).
type clockID int32

func (c clockID) cpu() bool {
	return c < 0 || c == linux.CLOCK_PROCESS_CPUTIME_ID || c == linux.CLOCK_THREAD_CPUTIME_ID
}
func (c clockID) wall() bool {
	return c == linux.CLOCK_REALTIME || c == linux.CLOCK_TAI
}
func (c clockID) pid() int32   { return int32(^(c >> 3)) }
func (c clockID) thread() bool { return c&4 != 0 }

// cpuClock is the CPU clock of a thread, or of a process if t is nil.
type cpuClock struct {
	t    *Thread
	p    *Process
	user bool // CPUCLOCK_VIRT: ring 3 only
}

// resolve finds what a CPU clock measures. linux.EINVAL: there is no such clock, or nobody whose it is.
func (t *Thread) resolve(c clockID) (cpuClock, error) {
	switch {
	case c == linux.CLOCK_PROCESS_CPUTIME_ID:
		return cpuClock{p: t.proc}, nil
	case c == linux.CLOCK_THREAD_CPUTIME_ID:
		return cpuClock{t: t, p: t.proc}, nil
	case c&3 == 3: // a clock of a device, by descriptor
		return cpuClock{}, linux.EINVAL
	}
	k := cpuClock{user: c&3 == 1}
	id := c.pid()
	if c.thread() {
		if k.t = t; id != 0 {
			k.t = t.sys.Thread(id)
		}
		if k.t == nil || k.t.proc != t.proc {
			return k, linux.EINVAL
		}
		k.p = k.t.proc
		return k, nil
	}
	if k.p = t.proc; id != 0 {
		if k.p = t.sys.Process(id); k.p == nil {
			return k, linux.EINVAL
		}
	}
	return k, nil
}

// now is the time of the clock. It does not lock if it is of a thread.
func (k *cpuClock) now() int64 {
	account := k.p.sys.cfg.Account
	if k.t != nil {
		if account != nil {
			account(k.t)
		}
		u := k.t.used()
		return k.of(&u)
	}
	if account != nil {
		for _, t := range k.p.Threads() {
			account(t)
		}
	}
	u := k.p.used()
	return k.of(&u)
}

func (k *cpuClock) of(u *usage) int64 {
	if k.user {
		return u.utime
	}
	return u.utime + u.stime
}

// ClockGettime is clock_gettime(2), in ns. linux.EINVAL; so are the alarm clocks, as on a Linux without a clock that could wake it.
func (t *Thread) ClockGettime(id int32) (int64, error) {
	c := clockID(id)
	if c.cpu() {
		k, err := t.resolve(c)
		if err != nil {
			return 0, err
		}
		return k.now(), nil
	}
	switch c {
	case linux.CLOCK_REALTIME, linux.CLOCK_REALTIME_COARSE, linux.CLOCK_TAI:
		return t.sys.clock.Realtime(), nil
	case linux.CLOCK_MONOTONIC, linux.CLOCK_MONOTONIC_RAW, linux.CLOCK_MONOTONIC_COARSE, linux.CLOCK_BOOTTIME:
		return t.sys.clock.Monotonic(), nil
	}
	return 0, linux.EINVAL
}

// ClockGetres is clock_getres(2), in ns. linux.EINVAL.
func (t *Thread) ClockGetres(id int32) (int64, error) {
	c := clockID(id)
	switch {
	case c.cpu():
		_, err := t.resolve(c)
		return 1, err
	case c == linux.CLOCK_REALTIME_COARSE || c == linux.CLOCK_MONOTONIC_COARSE:
		return max(t.sys.cfg.CoarseResolution, 1), nil
	}
	_, err := t.ClockGettime(id)
	return 1, err
}

// Nanosleep is nanosleep(2), which measures CLOCK_MONOTONIC; see ClockNanosleep.
func (t *Thread) Nanosleep(req linux.Timespec, rem uint64) error {
	return t.ClockNanosleep(linux.CLOCK_MONOTONIC, 0, req, rem)
}

// ClockNanosleep is clock_nanosleep(2); rem is the address of a struct timespec for the time that is left when a signal comes, or 0.
// linux.EINVAL, linux.EOPNOTSUPP, linux.EFAULT, linux.ERESTART_RESTARTBLOCK, linux.ERESTARTNOHAND.
func (t *Thread) ClockNanosleep(id int32, flags uint32, req linux.Timespec, rem uint64) error {
	c := clockID(id)
	switch c {
	case linux.CLOCK_MONOTONIC_RAW, linux.CLOCK_REALTIME_COARSE, linux.CLOCK_MONOTONIC_COARSE, linux.CLOCK_THREAD_CPUTIME_ID,
		linux.CLOCK_REALTIME_ALARM, linux.CLOCK_BOOTTIME_ALARM:
		return linux.EOPNOTSUPP
	}
	ns, ok := req.Ns()
	if !ok {
		return linux.EINVAL
	}
	abs := flags&linux.TIMER_ABSTIME != 0
	if c.cpu() {
		return t.cpuSleep(c, abs, ns, rem)
	}
	if _, err := t.ClockGettime(id); err != nil {
		return err
	}
	now := t.sys.clock.Monotonic()
	if !abs {
		return t.sleepUntil(after(now, ns), rem)
	}
	if !c.wall() {
		return t.sleepAbs(func() int64 { return ns })
	}
	// The clock may be set meanwhile: then look again.
	e := wait.Entry{W: t.sleeper, Mask: wait.In}
	t.sys.clockSet.Add(&e)
	defer t.sys.clockSet.Remove(&e)
	return t.sleepAbs(func() int64 { return after(t.sys.clock.Monotonic(), max(ns-t.sys.clock.Realtime(), 0)) })
}

// ClockWasSet must be called when CLOCK_REALTIME has jumped: who waits for a time of it looks again.
func (s *System) ClockWasSet() {
	s.clockSet.Wake(wait.In)
	s.Processes(1, func(p *Process) bool {
		p.mu.Lock()
		p.timers.rearmWall()
		p.mu.Unlock()
		return true
	})
}

func (t *Thread) sleepAbs(deadline func() int64) error {
	for {
		switch err := t.sleeper.Sleep(deadline()); err {
		case nil:
		case linux.ETIMEDOUT:
			return nil
		default:
			return linux.ERESTARTNOHAND
		}
	}
}

// sleepUntil sleeps a relative time that ends at deadline.
func (t *Thread) sleepUntil(deadline int64, rem uint64) error {
	for {
		switch err := t.sleeper.Sleep(deadline); err {
		case nil:
		case linux.ETIMEDOUT:
			return nil
		default:
			left := deadline - t.sys.clock.Monotonic()
			if left <= 0 {
				return nil
			}
			if err := t.putRest(rem, left); err != nil {
				return err
			}
			return t.SetRestart(func() (uint64, error) { return 0, t.sleepUntil(deadline, rem) })
		}
	}
}

func (t *Thread) putRest(addr uint64, ns int64) error {
	if addr == 0 {
		return nil
	}
	ts := linux.NsTimespec(ns)
	if err := t.putLong(addr, uint64(ts.Sec)); err != nil {
		return err
	}
	return t.putLong(addr+8, uint64(ts.Nsec))
}

// cpuSleep sleeps until a process has used that much CPU time. It looks at intervals: nobody is told of every nanosecond.
func (t *Thread) cpuSleep(c clockID, abs bool, ns int64, rem uint64) error {
	k, err := t.resolve(c)
	if err != nil {
		return err
	}
	if k.t == t {
		return linux.EINVAL // it would never end
	}
	end := ns
	if !abs {
		end = after(k.now(), ns)
	}
	return t.cpuSleepUntil(k, abs, end, rem)
}

func (t *Thread) cpuSleepUntil(k cpuClock, abs bool, end int64, rem uint64) error {
	for {
		left := end - k.now()
		if left <= 0 {
			return nil
		}
		step := max(left/int64(max(k.p.alive(), 1)), minCPUStep)
		err := t.sleeper.Sleep(after(t.sys.clock.Monotonic(), step))
		if err == linux.ERESTARTSYS {
			if abs {
				return linux.ERESTARTNOHAND
			}
			if err := t.putRest(rem, max(end-k.now(), 1)); err != nil {
				return err
			}
			return t.SetRestart(func() (uint64, error) { return 0, t.cpuSleepUntil(k, abs, end, rem) })
		}
	}
}

// goClock is the Clock that NewClock makes.
type goClock struct{ mono, real func() int64 }

// NewClock makes a Clock of two functions and the Go runtime's timers.
func NewClock(mono, real func() int64) Clock { return &goClock{mono, real} }

func (c *goClock) Monotonic() int64 { return c.mono() }
func (c *goClock) Realtime() int64  { return c.real() }

func (c *goClock) NewTimer(f func()) Timer { return &goTimer{c: c, f: f} }

type goTimer struct {
	c        *goClock
	f        func()
	mu       sync.Mutex
	t        *time.Timer // guarded by mu, as deadline
	deadline int64       // -1: stopped
}

func (g *goTimer) Set(deadline int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.deadline = deadline
	d := time.Duration(max(deadline-g.c.mono(), 0))
	if g.t == nil {
		g.t = time.AfterFunc(d, g.fire)
	} else {
		g.t.Reset(d)
	}
}

func (g *goTimer) Stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.deadline = -1
	if g.t != nil {
		g.t.Stop()
	}
}

func (g *goTimer) fire() {
	g.mu.Lock()
	if g.deadline < 0 {
		g.mu.Unlock()
		return
	}
	// Go's clock may be a moment ahead, or the timer may have been set anew while this waited.
	if d := g.deadline - g.c.mono(); d > 0 {
		g.t.Reset(time.Duration(d))
		g.mu.Unlock()
		return
	}
	g.deadline = -1
	g.mu.Unlock()
	g.f()
}
