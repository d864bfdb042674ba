package proc

import (
	"dinos/dkernel/cred"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

// Program is what execve(2) makes a process run.
type Program struct {
	Space  Space
	Comm   string // the last part of the path
	Exec   ExecInfo
	Cred   *cred.Cred // nil: as they are
	Secure bool       // AT_SECURE: it runs with more than its caller's rights
}

// BeginExec ends all other threads of the process and makes the caller its leader. After it there is no way back: what fails from there on
// must end in ForceKill. linux.EAGAIN: the process is ending, another thread is in execve, or the user has too many processes.
func (t *Thread) BeginExec() error {
	p := t.proc
	u := p.user.Load()
	p.mu.Lock()
	if p.exiting || p.execer != nil || t.prctl.nprocExceeded && uint64(u.threads.Load()) > p.limits[linux.RLIMIT_NPROC].Cur {
		p.mu.Unlock()
		return linux.EAGAIN
	}
	t.prctl.nprocExceeded = false
	p.execer = t
	p.stop = stop{continued: p.stop.continued}
	p.each(func(o *Thread) {
		o.stopping, o.stopped = false, false
		if o != t {
			o.wake(t, workExit)
		}
	})
	p.mu.Unlock()
	t.onlyFatal = true
	err := t.sleeper.Until(&p.execq, wait.In, sleepForever, func() error {
		if p.alive() > 1 {
			return linux.EAGAIN
		}
		return nil
	})
	t.onlyFatal = false
	p.mu.Lock()
	p.execer = nil
	p.mu.Unlock()
	if err != nil {
		return linux.EAGAIN
	}
	if t.id.Load() != p.id {
		t.lead()
	}
	return nil
}

// lead gives the only thread of a process the process' number.
func (t *Thread) lead() {
	s, p := t.sys, t.proc
	s.tree.Lock()
	old := t.id.Load()
	old.thread.Store(nil)
	t.id.Store(p.id)
	p.id.thread.Store(t)
	s.tree.Unlock()
	s.pids.unref(old)
	p.mu.Lock()
	p.leader = t
	p.mu.Unlock()
	p.cred.Store(t.Cred())
	t.refresh()
}

// FinishExec makes the process run a program, after BeginExec. t.Regs are the caller's to set; vector state is reset.
func (t *Thread) FinishExec(x *Program) {
	s, p := t.sys, t.proc
	old := t.mem
	t.leaveMemory()
	s.futex.Revive(&t.owner)
	t.owner.ID.Store(uint32(p.id.n))
	t.rseq, t.restart = rseq{}, nil
	t.alt.SP, t.alt.Size = 0, 0
	p.deleteTimers()

	rss := old.peak()
	p.mu.Lock()
	p.dead.maxrss = max(p.dead.maxrss, rss)
	t.mem = newSpace(x.Space)
	p.space.Store(t.mem)
	if a := p.actions(); a.Shared() {
		p.acts.Store(a.Copy())
		a.Unref()
	}
	p.actions().Exec()
	p.exec = x.Exec
	p.barriers = 0
	p.prctl.exec(x, t.Cred())
	p.mu.Unlock()
	old.release()

	if x.Secure {
		t.deathSig.Store(0)
		t.personality.And(^uint32(personalityClear))
	}
	if x.Cred != nil {
		t.setCred(x.Cred)
	}
	t.SetName(x.Comm)
	t.UnshareFiles()
	t.refresh()
	t.Caller.Files.Exec(&t.Caller)
	s.tree.Lock()
	p.execed, p.exitSignal = true, linux.SIGCHLD
	s.tree.Unlock()
	t.CPU.Reset(&t.Regs)
}

// personalityClear are the bits of personality(2) that a program with more rights does not inherit (PER_CLEAR_ON_SETID): READ_IMPLIES_EXEC,
// ADDR_NO_RANDOMIZE, ADDR_COMPAT_LAYOUT, MMAP_PAGE_ZERO.
const personalityClear = 0x0400000 | 0x0040000 | 0x0200000 | 0x0100000

// Info is what is known of the program that the process runs. Anybody may call it.
func (p *Process) Info() ExecInfo {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.exec
}

// Spec describes the first process of a program that the kernel starts.
type Spec struct {
	Program
	// Thread sets Regs, and calls SetFiles and SetFS. It is called before anybody else sees the thread.
	Thread func(*Thread)
	Limits *Limits // nil: DefaultLimits
	// SameSession makes the process lead a group in init's session, not a session.
	SameSession bool
	// Trace is told of each system call, as text, of all threads of the process and of those that descend from it, in their goroutines; or nil.
	Trace func(t *Thread, line []byte)
}
