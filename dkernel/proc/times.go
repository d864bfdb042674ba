package proc

import (
	"dinos/kernel/linux"
)

// Ran accounts CPU time to the thread: ns in ring 3 and ns in the kernel since the last call. The run loop calls it when ring 3
// was left after a while, and when a system call took a while; timers on CPU time are as exact as these calls are frequent.
func (t *Thread) Ran(user, system int64) {
	t.asleep.Store(false)
	if user != 0 {
		t.utime.Add(user)
	}
	if system != 0 {
		t.stime.Add(system)
	}
	if t.proc.cpuArmed.Load() {
		t.work.Or(workTimer)
	}
}

// Faulted counts a page fault: major if it had to wait for data.
func (t *Thread) Faulted(major bool) {
	if major {
		t.majflt.Add(1)
	} else {
		t.minflt.Add(1)
	}
}

// Switched counts a switch to another thread: voluntary if it slept.
func (t *Thread) Switched(voluntary bool) {
	if voluntary {
		t.nvcsw.Add(1)
	} else {
		t.nivcsw.Add(1)
	}
}

// used is what the thread has used so far.
func (t *Thread) used() usage {
	return usage{utime: t.utime.Load(), stime: t.stime.Load(), minflt: t.minflt.Load(), majflt: t.majflt.Load(),
		nvcsw: t.nvcsw.Load(), nivcsw: t.nivcsw.Load()}
}

// used is what all threads of the process have used, those that ended included; maxrss is that of programs that it ran before, or of a
// zombie's last one.
func (p *Process) used() usage {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.usedLocked()
}

// usedLocked is used with mu locked.
func (p *Process) usedLocked() usage {
	u := p.dead
	p.each(func(t *Thread) {
		x := t.used()
		u.add(&x)
	})
	return u
}

// usedMemory is used with the present address space's maxrss. That is asked for first: a process that ends notes it before it lets go of
// the space.
func (p *Process) usedMemory() usage {
	peak := memory{p}.Stat().Peak * 4096
	u := p.used()
	u.maxrss = max(u.maxrss, peak)
	return u
}

// usedAll is usedMemory of the process and of the children that it waited for.
func (p *Process) usedAll() usage {
	u := p.usedMemory()
	p.mu.Lock()
	defer p.mu.Unlock()
	u.add(&p.waited)
	return u
}

func (u *usage) rusage() linux.Rusage {
	return linux.Rusage{Utime: linux.NsTimeval(u.utime), Stime: linux.NsTimeval(u.stime), Maxrss: int64(u.maxrss >> 10),
		Minflt: u.minflt, Majflt: u.majflt, Nvcsw: u.nvcsw, Nivcsw: u.nivcsw}
}

// Getrusage is getrusage(2). linux.EINVAL.
func (t *Thread) Getrusage(who int) (linux.Rusage, error) {
	p := t.proc
	var u usage
	switch who {
	case linux.RUSAGE_SELF:
		u = p.usedMemory()
	case linux.RUSAGE_CHILDREN:
		p.mu.Lock()
		u = p.waited
		p.mu.Unlock()
	case linux.RUSAGE_THREAD:
		u = t.used()
		u.maxrss = t.mem.peak()
	default:
		return linux.Rusage{}, linux.EINVAL
	}
	return u.rusage(), nil
}

// Times is times(2); ticks is the time since the start of the system in ticks of 10 ms.
func (t *Thread) Times() (tms linux.Tms, ticks int64) {
	p := t.proc
	p.mu.Lock()
	u, w := p.usedLocked(), p.waited
	p.mu.Unlock()
	return linux.Tms{Utime: u.utime / nsPerTick, Stime: u.stime / nsPerTick, Cutime: w.utime / nsPerTick, Cstime: w.stime / nsPerTick},
		t.sys.clock.Monotonic() / nsPerTick
}
