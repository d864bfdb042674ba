package proc

import (
	"dinos/dkernel/ipc/tty"
	"dinos/dkernel/signal"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

// usage is what was used of the machine, in ns and counts. Guarded by Process.mu.
type usage struct {
	utime, stime   int64
	minflt, majflt int64
	nvcsw, nivcsw  int64
	maxrss         uint64 // bytes; the maximum, not a sum
}

func (u *usage) add(o *usage) {
	u.utime += o.utime
	u.stime += o.stime
	u.minflt += o.minflt
	u.majflt += o.majflt
	u.nvcsw += o.nvcsw
	u.nivcsw += o.nivcsw
	u.maxrss = max(u.maxrss, o.maxrss)
}

// vfork is a parent that waits until its child has no more use for its memory.
type vfork struct {
	q    wait.Queue
	done chan struct{}
}

func (v *vfork) release() {
	close(v.done)
	v.q.Wake(wait.In)
}

func (v *vfork) try() error {
	select {
	case <-v.done:
		return nil
	default:
		return linux.EAGAIN
	}
}

// Exit is exit(2): the thread ends when Deliver is called, with an exit code for the process if it is the last.
func (t *Thread) Exit(code int) {
	t.exitCode = uint32(code&0xff) << 8
	t.work.Or(workExit)
}

// ExitGroup is exit_group(2): all threads of the process end.
func (t *Thread) ExitGroup(code int) {
	p := t.proc
	p.mu.Lock()
	p.beginExit(t, uint32(code&0xff)<<8)
	p.mu.Unlock()
	t.work.Or(workExit)
}

// end is a thread's death, in its own goroutine. What others may still know of it is only what the tables say.
func (t *Thread) end() {
	p := t.proc
	p.mu.Lock()
	t.exiting = true
	p.retarget(t, ^t.blocked)
	stopped := false
	if t.stopping { // the others must not wait for its part in a stop
		t.stopping = false
		stopped = p.stopOne()
	}
	p.mu.Unlock()
	if stopped {
		p.tellParent(linux.CLD_STOPPED)
	}
	t.leaveMemory()
	t.Caller.Files.Leave(&t.Caller)
	t.SetFiles(nil)
	t.SetFS(nil)

	p.mu.Lock()
	if !p.exiting && p.leader == t {
		p.code = t.exitCode // what wait tells is the leader's, whoever ends last
	}
	p.exiting = p.exiting || p.nthreads == 1
	t.pending.Drop(&p.pool, ^signal.Set(0))
	p.unlinkThread(t)
	last := p.nthreads == 0
	p.execq.Wake(wait.In)
	p.mu.Unlock()
	if last {
		p.stopTimers()
	}
	p.sys.bury(t, last)
}

// unlinkThread takes t out of its process and keeps what it used. mu is locked.
func (p *Process) unlinkThread(t *Thread) {
	u := t.used()
	p.dead.add(&u)
	if t.next == t {
		p.threads = nil
	} else {
		t.next.prev, t.prev.next = t.prev, t.next
		if p.threads == t {
			p.threads = t.next
		}
	}
	if p.target == t {
		p.target = nil
	}
	if p.leader == t {
		p.leader = nil
	}
	p.nthreads--
}

// linkThread adds t. mu is locked.
func (p *Process) linkThread(t *Thread) {
	if p.threads == nil {
		p.threads, t.next, t.prev = t, t, t
	} else {
		h := p.threads
		t.next, t.prev = h, h.prev
		h.prev.next, h.prev = t, t
	}
	p.nthreads++
}

// leaveMemory is what a thread owes to its memory before it ends, or loses it in execve: robust futexes, the word that pthread_join
// waits for, and a parent in vfork (mm_release).
func (t *Thread) leaveMemory() {
	t.exitRobust()
	t.sys.futex.Exit(&t.owner)
	if t.clearTID != 0 {
		if t.proc.alive() > 1 || t.mem.users.Load() > 1 {
			var zero [4]byte
			if _, err := t.mem.CopyOut(t.clearTID, zero[:]); err == nil {
				_, _ = t.sys.futex.Wake(t.mem, t.clearTID, true, 1, ^uint32(0))
			}
		}
		t.clearTID = 0
	}
	if t.vfork != nil {
		t.vfork.release()
		t.vfork = nil
	}
}

func (p *Process) alive() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.nthreads
}

// bury takes a dead thread out of the tables; with the last one, its process becomes a zombie.
func (s *System) bury(t *Thread, last bool) {
	p := t.proc
	if last {
		tty.Disown(t, true)
		m := p.space.Load()
		rss := m.peak()
		p.mu.Lock()
		p.dead.maxrss = max(p.dead.maxrss, rss)
		p.mu.Unlock()
		p.space.Store(nil)
		m.release()
	}
	s.tree.Lock()
	if !last { // a zombie counts as a thread
		s.threads.Add(-1)
		p.user.Load().threads.Add(-1)
	}
	if t.madeChildren > 0 {
		s.orphan(t)
	}
	id := t.id.Load()
	if id != p.id {
		id.thread.Store(nil)
		s.pids.unref(id)
	}
	if last {
		s.zombie(t)
	}
	status := p.status
	s.tree.Unlock()
	if last {
		p.exitq.Wake(wait.In)
		if s.cfg.Exited != nil {
			s.cfg.Exited(p, status)
		}
	}
}

// orphan tells the children that t made of its death (PR_SET_PDEATHSIG) and gives them to another thread, if there is one.
func (s *System) orphan(t *Thread) {
	p := t.proc
	p.mu.Lock()
	heir := p.threads
	p.mu.Unlock()
	for c := p.children; c != nil; c = c.nextChild {
		if c.parentThread == t {
			c.deathSignal(t)
			c.parentThread = heir
			if heir != nil {
				heir.madeChildren++
			}
		}
	}
	t.madeChildren = 0
}

// deathSignal sends the threads of c what they asked for on the death of their parent.
func (c *Process) deathSignal(parent *Thread) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.each(func(u *Thread) {
		if sig := u.deathSig.Load(); sig != 0 {
			_ = c.postLocked(nil, nil, signal.From(int(sig), linux.SI_USER, parent.proc.id.n, parent.Cred().UID), false)
		}
	})
}

// zombie ends a process whose last thread is t: its children go to who reaps them, its parent is told. tree is locked.
func (s *System) zombie(t *Thread) {
	p := t.proc
	p.mu.Lock()
	p.status = p.code
	p.shared.Drop(&p.pool, ^signal.Set(0))
	p.mu.Unlock()
	p.actions().Unref()
	if ss := p.session; ss.leader == p {
		ss.leader = nil
		if ss.oldGroup != 0 { // the terminal was hung up before
			if g := s.findGroup(ss.oldGroup); g != nil {
				s.signalMembers(g, signal.Kernel(linux.SIGHUP))
				s.signalMembers(g, signal.Kernel(linux.SIGCONT))
			}
		}
	}
	reaper := s.reaper(p)
	for c := p.children; c != nil; c = p.children {
		s.unlinkChild(c)
		s.linkChild(reaper, c)
		c.exitSignal = linux.SIGCHLD
		if c.zombie {
			s.tellExit(c)
		}
		s.abandon(c, p, nil)
	}
	p.zombie = true
	s.abandon(p, p.parent, p)
	s.tellExit(p)
}

// reaper is who gets the children of p: its nearest ancestor that asked for it, or init.
func (s *System) reaper(p *Process) *Process {
	if p.underSubreaper {
		for a := p.parent; a != nil && a != s.init; a = a.parent {
			if a.subreaper && !a.zombie {
				return a
			}
		}
	}
	return s.init
}

func (s *System) linkChild(parent, c *Process) {
	c.parent, c.parentThread = parent, nil
	c.nextChild, c.prevChild = parent.children, nil
	if parent.children != nil {
		parent.children.prevChild = c
	}
	parent.children = c
}

func (s *System) unlinkChild(c *Process) {
	if c.prevChild != nil {
		c.prevChild.nextChild = c.nextChild
	} else {
		c.parent.children = c.nextChild
	}
	if c.nextChild != nil {
		c.nextChild.prevChild = c.prevChild
	}
	c.nextChild, c.prevChild = nil, nil
}

// tellExit tells the parent of a zombie, which is reaped at once if the parent does not want to know (do_notify_parent). tree is
// locked.
func (s *System) tellExit(p *Process) {
	parent := p.parent
	sig := p.exitSignal
	reap := parent == s.init
	if sig == linux.SIGCHLD && !reap {
		a := parent.actions().Get(sig)
		reap = a.Handler == linux.SIG_IGN || a.Flags&linux.SA_NOCLDWAIT != 0
		if a.Handler == linux.SIG_IGN {
			sig = 0
		}
	}
	if parent != s.init {
		if sig != 0 {
			code, status := exitCode(p.status)
			i := p.childInfo(code, status)
			i.Signo = int32(sig)
			_ = parent.post(nil, nil, i, true)
		}
		parent.childq.Wake(wait.In)
	}
	if reap {
		s.reap(p)
	}
}

// exitCode returns si_code and si_status for a status of wait(2).
func exitCode(status uint32) (code, value int32) {
	switch {
	case status&0x7f == 0:
		return linux.CLD_EXITED, int32(status >> 8 & 0xff)
	case status&0x80 != 0:
		return linux.CLD_DUMPED, int32(status & 0x7f)
	}
	return linux.CLD_KILLED, int32(status & 0x7f)
}

// childInfo is the siginfo of SIGCHLD for a change of state of p.
func (p *Process) childInfo(code, status int32) signal.Info {
	u := p.used()
	uid := p.Cred().UID
	return signal.Child(linux.SIGCHLD, code, p.id.n, uid, status, u.utime/nsPerTick, u.stime/nsPerTick)
}

// nsPerTick is a clock tick of USER_HZ.
const nsPerTick = 10_000_000

// reap takes a zombie out of all tables. tree is locked.
func (s *System) reap(p *Process) {
	s.unlinkChild(p)
	if p.parentThread != nil {
		p.parentThread.madeChildren--
	}
	p.parent, p.parentThread = nil, nil
	s.leaveGroup(p)
	p.session, p.tty = nil, nil
	p.id.proc.Store(nil)
	p.id.thread.Store(nil)
	u := p.user.Load()
	u.threads.Add(-1)
	s.threads.Add(-1)
	s.users.put(u)
	s.pids.unref(p.id)
}

// tellParent tells the parent that p stopped or continued: SIGCHLD, unless it has SA_NOCLDSTOP, and an end to wait(2).
func (p *Process) tellParent(code int) {
	s := p.sys
	s.tree.RLock()
	defer s.tree.RUnlock()
	parent := p.parent
	if parent == nil || parent == s.init {
		return
	}
	p.mu.Lock()
	status := int32(p.stop.code)
	p.mu.Unlock()
	if code == linux.CLD_CONTINUED {
		status = linux.SIGCONT
	}
	if a := parent.actions().Get(linux.SIGCHLD); a.Handler != linux.SIG_IGN && a.Flags&linux.SA_NOCLDSTOP == 0 {
		_ = parent.post(nil, nil, p.childInfo(int32(code), status), true)
	}
	parent.childq.Wake(wait.In)
}
