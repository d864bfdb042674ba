package proc

import (
	"math"

	"dinos/dkernel/cred"
	"dinos/dkernel/signal"
	"dinos/dkernel/vfs"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
	"dinos/kernel/ureg"
)

const (
	namespaces = linux.CLONE_NEWTIME | linux.CLONE_NEWNS | linux.CLONE_NEWCGROUP | linux.CLONE_NEWUTS | linux.CLONE_NEWIPC |
		linux.CLONE_NEWUSER | linux.CLONE_NEWPID | linux.CLONE_NEWNET
	// capSysAdmin is here once, since so much asks for it.
	capSysAdmin = cred.SYS_ADMIN
)

// LegacyClone returns what clone(2) means in terms of clone3(2); ForkArgs and VforkArgs what fork(2) and vfork(2) mean.
func LegacyClone(flags, stack, parentTID, childTID, tls uint64) linux.CloneArgs {
	flags &= math.MaxUint32
	a := linux.CloneArgs{Flags: flags &^ linux.CSIGNAL, ChildTID: childTID, ParentTID: parentTID, ExitSignal: flags & linux.CSIGNAL,
		Stack: stack, TLS: tls}
	if flags&linux.CLONE_PIDFD != 0 {
		a.Pidfd = parentTID
	}
	return a
}

// ForkArgs is fork(2).
func ForkArgs() linux.CloneArgs { return linux.CloneArgs{ExitSignal: linux.SIGCHLD} }

// VforkArgs is vfork(2).
func VforkArgs() linux.CloneArgs {
	return linux.CloneArgs{Flags: linux.CLONE_VFORK | linux.CLONE_VM, ExitSignal: linux.SIGCHLD}
}

// Clone3 is clone3(2): it checks what only that call refuses, and then does what Clone does. setTID are the ids that set_tid points at, already read.
func (t *Thread) Clone3(a linux.CloneArgs, setTID []int32) (int32, error) {
	const legacy = math.MaxUint32
	switch {
	case a.Flags&^(legacy|linux.CLONE_CLEAR_SIGHAND|linux.CLONE_INTO_CGROUP) != 0,
		a.Flags&(linux.CLONE_DETACHED|linux.CSIGNAL&^linux.CLONE_NEWTIME) != 0,
		a.Flags&linux.CLONE_SIGHAND != 0 && a.Flags&linux.CLONE_CLEAR_SIGHAND != 0,
		a.Flags&(linux.CLONE_THREAD|linux.CLONE_PARENT) != 0 && a.ExitSignal != 0,
		a.ExitSignal > linux.NumSignals,
		a.SetTIDSize > 32, (a.SetTID == 0) != (a.SetTIDSize == 0),
		(a.Stack == 0) != (a.StackSize == 0), a.Stack+a.StackSize < a.Stack, a.Stack+a.StackSize > ureg.UserTop:
		return 0, linux.EINVAL
	case len(setTID) > 1: // as many as there are pid namespaces around the caller: one
		return 0, linux.EINVAL
	case a.Flags&linux.CLONE_INTO_CGROUP != 0: // no descriptor is a control group here
		return 0, linux.EBADF
	}
	if a.Stack != 0 {
		a.Stack += a.StackSize
	}
	want := int32(0)
	if len(setTID) == 1 {
		want = setTID[0]
		if want < 1 || int(want) >= int(t.sys.pids.max) {
			return 0, linux.EINVAL
		}
		if !t.Can(capSysAdmin) && !t.Can(capCheckpoint) {
			return 0, linux.EPERM
		}
	}
	return t.clone(&a, want)
}

const capCheckpoint cred.Cap = 40

// Clone is clone(2), fork(2) and vfork(2), with what LegacyClone and its kin return: it makes a thread or a process, starts it, and
// returns its id. The child goes on with a copy of t.Regs, RAX 0. linux.EINVAL: flags that do not go together, or namespaces;
// linux.EPERM; linux.EAGAIN: a limit; linux.ENOMEM; linux.ERESTARTNOINTR: a signal came first.
func (t *Thread) Clone(a linux.CloneArgs) (int32, error) {
	if a.Flags&(linux.CLONE_PIDFD|linux.CLONE_PARENT_SETTID) == linux.CLONE_PIDFD|linux.CLONE_PARENT_SETTID {
		return 0, linux.EINVAL // both want the same pointer
	}
	if a.Flags&(linux.CLONE_PIDFD|linux.CLONE_DETACHED) == linux.CLONE_PIDFD|linux.CLONE_DETACHED {
		return 0, linux.EINVAL
	}
	return t.clone(&a, 0)
}

func (t *Thread) checkClone(a *linux.CloneArgs) error {
	f := a.Flags
	switch {
	case f&linux.CLONE_FS != 0 && f&(linux.CLONE_NEWNS|linux.CLONE_NEWUSER) != 0,
		f&linux.CLONE_THREAD != 0 && f&linux.CLONE_SIGHAND == 0,
		f&linux.CLONE_SIGHAND != 0 && f&linux.CLONE_VM == 0,
		f&linux.CLONE_THREAD != 0 && f&(linux.CLONE_NEWUSER|linux.CLONE_NEWPID) != 0:
		return linux.EINVAL
	case f&namespaces != 0:
		return t.noNamespaces(f)
	case f&linux.CLONE_SETTLS != 0 && a.TLS >= ureg.UserTop:
		return linux.EPERM
	}
	return nil
}

// noNamespaces is the answer of a Linux without namespaces.
func (t *Thread) noNamespaces(f uint64) error {
	if f&namespaces&^linux.CLONE_NEWUSER != 0 && !t.Can(capSysAdmin) {
		return linux.EPERM
	}
	return linux.EINVAL
}

func (t *Thread) clone(a *linux.CloneArgs, want int32) (int32, error) {
	if err := t.checkClone(a); err != nil {
		return 0, err
	}
	s, p := t.sys, t.proc
	u := p.user.Load()
	if n := u.threads.Add(1); uint64(n) > p.Limit(linux.RLIMIT_NPROC).Cur && u.uid != 0 && !t.Can(cred.SYS_RESOURCE) && !t.Can(capSysAdmin) {
		u.threads.Add(-1)
		return 0, linux.EAGAIN
	}
	if int(s.threads.Add(1)) > s.maxThreads() {
		return 0, s.uncount(u, linux.EAGAIN)
	}
	id, err := s.pids.alloc(want)
	if err != nil {
		return 0, s.uncount(u, err)
	}
	c, err := t.newChild(a, id)
	if err == nil {
		if a.Flags&linux.CLONE_PIDFD != 0 {
			err = t.clonePidfd(a, c)
		}
		if err == nil {
			if err = t.publish(a, c, u); err == nil {
				return t.launch(a, c), nil
			}
			if a.Flags&linux.CLONE_PIDFD != 0 {
				_ = t.Caller.Files.Close(&t.Caller, c.pidfd)
			}
		}
		c.discard(a)
	}
	s.pids.unref(id)
	return 0, s.uncount(u, err)
}

// uncount undoes what clone counted before it failed.
func (s *System) uncount(u *user, err error) error {
	u.threads.Add(-1)
	s.threads.Add(-1)
	return err
}

func (s *System) maxThreads() int {
	if s.cfg.MaxThreads != 0 {
		return s.cfg.MaxThreads
	}
	return defaultMaxThreads
}

// newChild makes the thread, and its process if it is to have one, that nobody knows yet.
func (t *Thread) newChild(a *linux.CloneArgs, id *pid) (*Thread, error) {
	s, np := t.sys, t.proc
	f := a.Flags
	if f&linux.CLONE_THREAD == 0 {
		np = s.newProcess(id)
		m := t.mem
		if f&linux.CLONE_VM != 0 {
			m.users.Add(1)
		} else {
			n, err := m.Fork()
			if err != nil {
				return nil, err
			}
			m = newSpace(n)
		}
		np.space.Store(m)
		t.inherit(np, a)
	}
	c := s.newThread(np, id)
	c.Regs = t.Regs
	c.Regs.RAX, c.Regs.OrigRAX = 0, ureg.NoSyscall
	if a.Stack != 0 {
		c.Regs.RSP = a.Stack
	}
	if f&linux.CLONE_SETTLS != 0 {
		c.Regs.FSBase = a.TLS
	}
	c.setCred(t.Cred())
	c.name.Store(t.name.Load())
	c.personality.Store(t.personality.Load())
	c.blocked = t.blocked
	if t.restore {
		c.blocked = t.saved
	}
	c.sched = t.scheduling().fork()
	c.prctl = t.prctl.fork()
	if f&linux.CLONE_VM == 0 || f&linux.CLONE_VFORK != 0 {
		c.alt = t.alt
	}
	if f&linux.CLONE_VM == 0 {
		c.rseq = t.rseq.fork()
	}
	if f&linux.CLONE_CHILD_CLEARTID != 0 {
		c.clearTID = a.ChildTID
	}
	files := t.Caller.Files
	if f&linux.CLONE_FILES != 0 {
		files.Share()
	} else {
		files = files.Fork()
	}
	c.SetFiles(files)
	fs := t.Caller.FS
	if f&linux.CLONE_FS == 0 {
		fs = fs.Fork()
	}
	c.SetFS(fs)
	if f&linux.CLONE_VFORK != 0 {
		c.vfork = &vfork{done: make(chan struct{})}
	}
	c.CPU = s.cfg.Starter.NewCPU(t, c)
	return c, nil
}

// inherit fills in what a new process has from t's.
func (t *Thread) inherit(np *Process, a *linux.CloneArgs) {
	p := t.proc
	p.mu.Lock()
	defer p.mu.Unlock()
	np.limits = p.limits
	np.prctl = p.prctl.fork()
	np.exec = p.exec
	np.barriers = p.barriers
	np.oomAdj.Store(p.oomAdj.Load())
	np.trace = p.trace
	np.user.Store(p.user.Load())
	switch {
	case a.Flags&linux.CLONE_SIGHAND != 0:
		np.acts.Store(p.actions().Ref())
	default:
		np.acts.Store(p.actions().Copy())
	}
	if a.Flags&linux.CLONE_CLEAR_SIGHAND != 0 {
		np.actions().Exec()
	}
}

// discard takes back what newChild took, before anybody saw c.
func (c *Thread) discard(a *linux.CloneArgs) {
	c.Caller.Files.Leave(&c.Caller)
	if a.Flags&linux.CLONE_THREAD == 0 {
		c.proc.space.Load().release()
		c.proc.actions().Unref()
	}
}

// publish enters c in the tables. linux.ERESTARTNOINTR: t has to look at its signals first, so that none that is sent to
// a group or a process spares c.
func (t *Thread) publish(a *linux.CloneArgs, c *Thread, u *user) error {
	s, p := t.sys, t.proc
	np := c.proc
	s.tree.Lock()
	defer s.tree.Unlock()
	p.mu.Lock()
	if t.work.Load()&(workSignal|workExit) != 0 {
		p.mu.Unlock()
		return linux.ERESTARTNOINTR
	}
	if now := p.user.Load(); now != u { // another thread has changed it since u was charged
		u.threads.Add(-1)
		now.threads.Add(1)
		np.user.Store(now)
	}
	if np == p {
		p.linkThread(c)
	}
	p.mu.Unlock()
	s.forks.Add(1)
	id := c.id.Load()
	if np != p {
		parent, maker := p, t
		np.exitSignal = int(a.ExitSignal)
		if a.Flags&linux.CLONE_PARENT != 0 && p.parent != nil {
			parent, maker = p.parent, p.parentThread
			np.exitSignal = p.exitSignal
		}
		np.underSubreaper = parent.subreaper || parent.underSubreaper
		s.linkChild(parent, np)
		if np.parentThread = maker; maker != nil {
			maker.madeChildren++
		}
		np.session, np.tty = p.session, p.tty
		p.group.enter(np)
		np.linkThread(c)
		np.leader = c
		s.users.ref(np.user.Load())
		if np.limits[linux.RLIMIT_CPU].Cur < noCPULimit {
			np.cpuArmed.Store(true)
			c.work.Or(workTimer)
		}
		id.proc.Store(np)
	}
	id.thread.Store(c)
	return nil
}

// launch tells who wants to know the child's id and starts it; for vfork, it waits until the child is done with the memory.
func (t *Thread) launch(a *linux.CloneArgs, c *Thread) int32 {
	n := c.TID()
	// Linux reports no error of these either.
	if a.Flags&linux.CLONE_PARENT_SETTID != 0 {
		_ = t.putInt(a.ParentTID, n)
	}
	if a.Flags&linux.CLONE_CHILD_SETTID != 0 {
		_ = c.putInt(a.ChildTID, n)
	}
	v := c.vfork
	t.sys.cfg.Starter.Start(c)
	if v != nil {
		t.onlyFatal = true
		_ = t.sleeper.Until(&v.q, wait.In, sleepForever, v.try)
		t.onlyFatal = false
	}
	return n
}

// newProcess makes a process without a place in any table.
func (s *System) newProcess(id *pid) *Process {
	p := &Process{sys: s, id: id, born: s.clock.Monotonic()}
	p.itimers.p = p
	return p
}

// newThread makes a thread of p that is in no table yet.
func (s *System) newThread(p *Process, id *pid) *Thread {
	t := &Thread{sys: s, proc: p, mem: p.space.Load(), alt: signal.Disabled, born: s.clock.Monotonic()}
	t.id.Store(id)
	t.sleeper = wait.NewSleeper(s.clock.Monotonic, t.sleepEnds)
	t.owner.ID.Store(uint32(id.n))
	t.Caller = vfs.Caller{Sleeper: t.sleeper, Task: t, Signal: t.signalSelf}
	t.refresh()
	return t
}

// refresh brings what Caller has of the process up to date.
func (t *Thread) refresh() {
	p := t.proc
	p.mu.Lock()
	fsize, nofile := p.limits[linux.RLIMIT_FSIZE].Cur, p.limits[linux.RLIMIT_NOFILE].Cur
	p.mu.Unlock()
	c := &t.Caller
	c.PID, c.TID, c.Mem = p.id.n, t.TID(), t.mem.Space
	c.FileSizeLimit = vfs.Unlimited
	if fsize < math.MaxInt64 {
		c.FileSizeLimit = int64(fsize)
	}
	c.OpenLimit = int(min(nofile, math.MaxInt32))
}

// signalSelf is how files send SIGPIPE and SIGXFSZ.
func (t *Thread) signalSelf(sig int) { _ = t.proc.post(t, t, t.sent(sig, linux.SI_USER), true) }

// sleepEnds reports whether the thread must not sleep.
func (t *Thread) sleepEnds() bool {
	w := t.work.Load()
	ends := w&workExit != 0 || w&workSignal != 0 && !t.onlyFatal
	if !ends {
		t.asleep.Store(true)
	}
	return ends
}

// Unshare is unshare(2). linux.EINVAL, linux.EPERM.
func (t *Thread) Unshare(flags uint64) error {
	const known = linux.CLONE_THREAD | linux.CLONE_FS | linux.CLONE_SIGHAND | linux.CLONE_VM | linux.CLONE_FILES | linux.CLONE_SYSVSEM | namespaces
	if flags&^known != 0 {
		return linux.EINVAL
	}
	if flags&namespaces != 0 {
		return t.noNamespaces(flags)
	}
	if flags&(linux.CLONE_THREAD|linux.CLONE_SIGHAND|linux.CLONE_VM) != 0 && t.proc.alive() > 1 ||
		flags&(linux.CLONE_SIGHAND|linux.CLONE_VM) != 0 && t.proc.actions().Shared() ||
		flags&linux.CLONE_VM != 0 && t.mem.users.Load() > 1 {
		return linux.EINVAL
	}
	if flags&linux.CLONE_FS != 0 {
		t.SetFS(t.Caller.FS.Fork())
	}
	if flags&linux.CLONE_FILES != 0 {
		t.UnshareFiles()
	}
	return nil
}

// UnshareFiles gives the thread a descriptor table of its own (close_range(2) with CLOSE_RANGE_UNSHARE).
func (t *Thread) UnshareFiles() {
	old := t.Caller.Files
	if old.Users() > 1 {
		t.SetFiles(old.Fork())
		old.Leave(&t.Caller)
	}
}
