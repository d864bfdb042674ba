package proc

import (
	"math"

	"dinos/dkernel/signal"
	"dinos/kernel/linux"
)

// timers are the POSIX timers of a process. Guarded by Process.mu.
type timers struct {
	m    map[int32]*ptimer
	next int32
}

// ptimer is a POSIX timer (timer_create(2)). All of it is guarded by Process.mu; id to thread do not change.
type ptimer struct {
	p       *Process
	id      int32
	clock   clockID
	cpu     bool
	of      cpuClock
	notify  int
	sig     int
	value   uint64
	thread  *Thread // SIGEV_THREAD_ID
	charged *user

	timer    Timer // nil of timers on CPU time
	armed    bool
	wall     int64 // an absolute time of CLOCK_REALTIME; 0: deadline is all there is
	deadline int64 // on CLOCK_MONOTONIC, or the CPU clock
	interval int64
	waiting  bool // expired, and to be started anew when the signal is delivered
	overrun  int64
	last     int64 // overruns of the last signal that was delivered
	queued   signal.Queued
	isQueued bool
}

// Sigevent is struct sigevent.
type Sigevent struct {
	Value         uint64
	Signo, Notify int32
	TID           int32 // of SIGEV_THREAD_ID
}

// TimerCreate is timer_create(2); e nil: SIGALRM with the id as the value. linux.EINVAL, linux.EOPNOTSUPP, linux.EAGAIN.
func (t *Thread) TimerCreate(id int32, e *Sigevent) (int32, error) {
	k := &ptimer{p: t.proc, clock: clockID(id)}
	switch k.clock {
	case linux.CLOCK_MONOTONIC_RAW, linux.CLOCK_REALTIME_COARSE, linux.CLOCK_MONOTONIC_COARSE:
		return 0, linux.EOPNOTSUPP
	case linux.CLOCK_REALTIME_ALARM, linux.CLOCK_BOOTTIME_ALARM:
		return 0, linux.EOPNOTSUPP // no clock that could wake a machine
	}
	if k.cpu = k.clock.cpu(); k.cpu {
		of, err := t.resolve(k.clock)
		if err != nil {
			return 0, err
		}
		if of.p != t.proc {
			return 0, linux.EINVAL // whose time is looked at when its threads run: ours are not there
		}
		k.of = of
	} else if _, err := t.ClockGettime(id); err != nil {
		return 0, err
	}
	if e == nil {
		k.notify, k.sig = linux.SIGEV_SIGNAL, linux.SIGALRM
	} else if err := t.sigevent(k, e); err != nil {
		return 0, err
	}
	p := t.proc
	p.mu.Lock()
	defer p.mu.Unlock()
	u := p.user.Load() // with mu locked, so that setuid(2) of another thread does not let go of it meanwhile
	if !u.charge(p.limits[linux.RLIMIT_SIGPENDING].Cur, false) {
		return 0, linux.EAGAIN
	}
	k.charged = u
	if p.timers.m == nil {
		p.timers.m = map[int32]*ptimer{}
	}
	for {
		k.id = p.timers.next
		p.timers.next = (p.timers.next + 1) & math.MaxInt32
		if p.timers.m[k.id] == nil {
			break
		}
	}
	if e == nil {
		k.value = uint64(k.id)
	}
	k.queued.Owner = k
	if !k.cpu {
		k.timer = p.sys.clock.NewTimer(k.expire)
	}
	p.timers.m[k.id] = k
	return k.id, nil
}

func (t *Thread) sigevent(k *ptimer, e *Sigevent) error {
	k.notify, k.sig, k.value = int(e.Notify), int(e.Signo), e.Value
	switch e.Notify {
	case linux.SIGEV_SIGNAL | linux.SIGEV_THREAD_ID:
		if k.thread = t.sys.Thread(e.TID); k.thread == nil || k.thread.proc != t.proc {
			return linux.EINVAL
		}
	case linux.SIGEV_SIGNAL, linux.SIGEV_THREAD:
	case linux.SIGEV_NONE:
		return nil
	default:
		return linux.EINVAL
	}
	if !signal.Valid(k.sig) {
		return linux.EINVAL
	}
	return nil
}

// timerByID returns a timer; mu is locked. linux.EINVAL.
func (p *Process) timerByID(id int32) (*ptimer, error) {
	if k := p.timers.m[id]; k != nil {
		return k, nil
	}
	return nil, linux.EINVAL
}

// clockNow is the time of the timer's clock; u is the use of the process.
func (k *ptimer) clockNow(u *usage) int64 {
	switch {
	case !k.cpu:
		return k.p.sys.clock.Monotonic()
	case k.of.t != nil:
		x := k.of.t.used()
		return k.of.of(&x)
	}
	return k.of.of(u)
}

func (k *ptimer) now() int64 {
	var u usage
	if k.cpu && k.of.t == nil {
		u = k.p.usedLocked()
	}
	return k.clockNow(&u)
}

// TimerSettime is timer_settime(2): it returns what TimerGettime would have. linux.EINVAL.
func (t *Thread) TimerSettime(id int32, flags uint32, n linux.Itimerspec) (old linux.Itimerspec, err error) {
	value, ok := n.Value.Ns()
	interval, ok2 := n.Interval.Ns()
	if !ok || !ok2 {
		return old, linux.EINVAL
	}
	if a := t.sys.cfg.Account; a != nil {
		a(t)
	}
	p := t.proc
	p.mu.Lock()
	defer p.mu.Unlock()
	k, err := p.timerByID(id)
	if err != nil {
		return old, err
	}
	old = k.get()
	k.disarm()
	k.interval, k.overrun, k.last = interval, 0, 0
	if value == 0 {
		k.interval = 0
		p.armCPU()
		return old, nil
	}
	k.armed, k.wall = true, 0
	switch {
	case flags&linux.TIMER_ABSTIME == 0:
		k.deadline = after(k.now(), value)
	case k.clock.wall():
		k.wall = value
		k.deadline = k.fromWall()
	default:
		k.deadline = value
	}
	k.start()
	return old, nil
}

// fromWall is the time of CLOCK_MONOTONIC that wall is now.
func (k *ptimer) fromWall() int64 {
	c := k.p.sys.clock
	d := k.wall - c.Realtime()
	if d > 0 {
		return after(c.Monotonic(), d)
	}
	return c.Monotonic() + d
}

// start waits for deadline.
func (k *ptimer) start() {
	if k.cpu {
		k.p.armCPU()
	} else {
		k.timer.Set(k.deadline)
	}
}

// disarm stops the timer and takes a signal back that was not delivered.
func (k *ptimer) disarm() {
	k.armed, k.waiting = false, false
	if k.timer != nil {
		k.timer.Stop()
	}
	if k.isQueued {
		k.isQueued = false
		p := k.p
		if !p.shared.Remove(&k.queued) && k.thread != nil {
			k.thread.pending.Remove(&k.queued)
		}
	}
}

// rearmWall makes timers that wait for an absolute time of CLOCK_REALTIME look at it again. mu is locked.
func (ts *timers) rearmWall() {
	for _, k := range ts.m {
		if k.armed && k.wall != 0 {
			k.deadline = k.fromWall()
			k.timer.Set(k.deadline)
		}
	}
}

// expire is called when a timer not on CPU time goes off.
func (k *ptimer) expire() {
	p := k.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if k.armed && p.sys.clock.Monotonic() >= k.deadline && p.timers.m[k.id] == k {
		k.fire(nil)
	}
}

// fire does what an expired timer does. mu is locked.
func (k *ptimer) fire(from *Thread) {
	p := k.p
	k.armed = false
	if k.notify == linux.SIGEV_NONE {
		return // timer_gettime counts the intervals
	}
	k.waiting = k.interval != 0
	to := k.thread
	if to != nil && to.exiting {
		return
	}
	if !p.accepts(from, to, k.sig, true) {
		// Ignored, perhaps not for ever: go on, but not faster than a tick (kernel/time/posix-timers.c).
		if k.waiting {
			k.again(nsPerTick / 10)
		}
		return
	}
	k.queued.Info = signal.Timer(k.sig, k.id, 0, k.value)
	q := &p.shared
	if to != nil {
		q = &to.pending
	}
	k.isQueued = true
	q.AddQueued(&k.queued)
	p.complete(from, to, k.sig)
}

// again starts a periodic timer that has expired anew, and counts the intervals that nobody saw.
func (k *ptimer) again(least int64) {
	next, n := forward(k.deadline, k.interval, k.now()+least)
	if k.wall != 0 {
		k.wall += next - k.deadline
	}
	k.overrun += max(n-1, 0)
	k.deadline, k.armed, k.waiting = next, true, false
	k.start()
}

// Dequeued implements signal.Owner.
func (k *ptimer) Dequeued(q *signal.Queued, delivered bool) {
	k.isQueued = false
	if !delivered {
		if k.waiting && k.p.nthreads > 0 && !k.p.exiting {
			k.again(nsPerTick / 10)
		}
		return
	}
	if k.waiting {
		k.again(0)
	}
	k.last, k.overrun = k.overrun, 0
	q.Info.SetOverrun(clampInt(k.last))
}

func clampInt(n int64) int32 { return int32(min(n, math.MaxInt32)) }

// get is the time left and the interval.
func (k *ptimer) get() linux.Itimerspec {
	left := int64(0)
	now := k.now()
	switch {
	case k.armed:
		left = max(k.deadline-now, 1)
	case k.interval != 0 && (k.waiting || k.notify == linux.SIGEV_NONE && k.deadline != 0):
		next, _ := forward(k.deadline, k.interval, now)
		left = max(next-now, 1)
	}
	return linux.Itimerspec{Interval: linux.NsTimespec(k.interval), Value: linux.NsTimespec(left)}
}

// TimerGettime is timer_gettime(2). linux.EINVAL.
func (t *Thread) TimerGettime(id int32) (linux.Itimerspec, error) {
	if a := t.sys.cfg.Account; a != nil {
		a(t)
	}
	p := t.proc
	p.mu.Lock()
	defer p.mu.Unlock()
	k, err := p.timerByID(id)
	if err != nil {
		return linux.Itimerspec{}, err
	}
	return k.get(), nil
}

// TimerGetoverrun is timer_getoverrun(2). linux.EINVAL.
func (t *Thread) TimerGetoverrun(id int32) (int32, error) {
	p := t.proc
	p.mu.Lock()
	defer p.mu.Unlock()
	k, err := p.timerByID(id)
	if err != nil {
		return 0, err
	}
	return clampInt(k.last), nil
}

// TimerDelete is timer_delete(2). linux.EINVAL.
func (t *Thread) TimerDelete(id int32) error {
	p := t.proc
	p.mu.Lock()
	defer p.mu.Unlock()
	k, err := p.timerByID(id)
	if err != nil {
		return err
	}
	k.remove()
	p.armCPU()
	return nil
}

func (k *ptimer) remove() {
	k.disarm()
	delete(k.p.timers.m, k.id)
	k.charged.Release()
}

// deleteTimers ends all POSIX timers: exit and execve(2).
func (p *Process) deleteTimers() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range p.timers.m {
		k.remove()
	}
	p.armCPU()
}
