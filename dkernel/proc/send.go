package proc

import (
	"dinos/dkernel/cred"
	"dinos/dkernel/signal"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

// Bits of Thread.work: what Deliver has to do.
const (
	workSignal = 1 << iota // a signal, a stop, or news for the parent; set and cleared with Process.mu locked
	workExit               // the thread must end; never cleared
	workTimer              // look at timers that run on CPU time
	workRseq               // a restartable sequence may have been interrupted
	workCaller             // limits have changed: bring Caller up to date
)

// wake makes t notice its work: it leaves ring 3, or its sleep. from is the running thread, which needs no waking, or nil.
// Anybody may call it.
func (t *Thread) wake(from *Thread, work uint32) {
	t.work.Or(work)
	if t != from {
		t.sleeper.Rouse()
		if k := t.sys.cfg.Kick; k != nil {
			k(t)
		}
	}
}

// post sends a signal to p, or to its thread to if that is not nil. from is the running thread, or nil. force: from the
// kernel, so that init gets it too. linux.EAGAIN: a queued signal has no room.
func (p *Process) post(from, to *Thread, i signal.Info, force bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.postLocked(from, to, i, force)
}

// postLocked is post with mu locked (send_signal_locked in kernel/signal.c).
func (p *Process) postLocked(from, to *Thread, i signal.Info, force bool) error {
	sig := int(i.Signo)
	if !p.accepts(from, to, sig, force) {
		return nil
	}
	q := &p.shared
	if to != nil {
		q = &to.pending
	}
	if q.Legacy(sig) {
		return nil
	}
	if sig == linux.SIGKILL {
		q.Mark(sig)
	} else {
		u := p.user.Load()
		if u.charge(p.limits[linux.RLIMIT_SIGPENDING].Cur, sig < linux.SIGRTMIN && i.Code >= 0) {
			q.Add(&p.pool, i, u)
		} else if sig >= linux.SIGRTMIN && i.Code != linux.SI_USER && i.Code != linux.SI_KERNEL {
			return linux.EAGAIN
		} else {
			q.Mark(sig) // better a signal without its siginfo than none
		}
	}
	p.complete(from, to, sig)
	return nil
}

// accepts does what a signal does by being sent (SIGCONT continues, whatever its disposition), and reports whether it is to
// be queued (prepare_signal).
func (p *Process) accepts(from, to *Thread, sig int, force bool) bool {
	if p.nthreads == 0 || p.exiting {
		return false
	}
	switch {
	case signal.Stops.Has(sig):
		p.dropAll(signal.Of(linux.SIGCONT))
	case sig == linux.SIGCONT:
		p.dropAll(signal.Stops)
		p.resume(from)
	}
	t := to
	switch {
	case t == nil:
		if t = p.leader; t == nil {
			t = p.threads
		}
	case t.exiting:
		// It has a number until it is buried, and a leader as long as the process lives, but no longer looks at its signals: what
		// came after it dropped them would be charged for ever.
		return false
	}
	if t.blocked.Has(sig) {
		return true
	}
	if p.unkill && !force && p.actions().Get(sig).Handler == linux.SIG_DFL {
		return false
	}
	return !p.actions().Ignored().Has(sig)
}

// dropAll forgets pending signals of all threads.
func (p *Process) dropAll(s signal.Set) {
	p.shared.Drop(&p.pool, s)
	p.each(func(t *Thread) { t.pending.Drop(&p.pool, s) })
}

// each calls f for all threads; mu is locked, or nobody else knows p.
func (p *Process) each(f func(*Thread)) {
	t := p.threads
	for range p.nthreads {
		next := t.next
		f(t)
		t = next
	}
}

// wants reports whether t should be the one that handles sig.
func (t *Thread) wants(sig int) bool {
	switch {
	case (t.blocked &^ t.waiting).Has(sig), t.exiting:
		return false
	case sig == linux.SIGKILL:
		return true
	case t.stopped:
		return false
	}
	return t.work.Load()&workSignal == 0
}

// complete finds a thread for a signal that has just become pending and wakes it; a signal that kills begins to do so at once.
func (p *Process) complete(from, to *Thread, sig int) {
	p.sigq.Wake(wait.In)
	t := to
	if t == nil {
		if t = p.leader; t == nil || !t.wants(sig) {
			t = p.pick(sig)
		}
	} else if !t.wants(sig) {
		t = nil
	}
	if t == nil {
		return // whoever unblocks it, or is about to deliver another one, will see it
	}
	if p.kills(sig) && !signal.Cores.Has(sig) && (sig == linux.SIGKILL || !t.blocked.Has(sig)) {
		p.beginExit(from, uint32(sig))
		return
	}
	t.wake(from, workSignal)
}

// pick chooses a thread for sig, beginning behind the last that was chosen.
func (p *Process) pick(sig int) *Thread {
	t := p.target
	if t == nil {
		t = p.threads
	}
	for range p.nthreads {
		t = t.next
		if t.wants(sig) {
			p.target = t
			return t
		}
	}
	return nil
}

// kills reports whether the default action of sig applies and ends the process.
func (p *Process) kills(sig int) bool {
	return !(signal.Ignored | signal.Stops).Has(sig) && p.actions().Get(sig).Handler == linux.SIG_DFL && !(p.unkill && sig != linux.SIGKILL)
}

// beginExit makes all threads end, with a status in wait(2)'s form, unless that has begun already. mu is locked.
func (p *Process) beginExit(from *Thread, status uint32) {
	if p.exiting {
		return
	}
	p.exiting, p.code = true, status
	p.stop = stop{}
	p.each(func(t *Thread) {
		t.stopping, t.stopped = false, false
		if !t.exiting {
			t.wake(from, workExit)
		}
	})
}

// retarget finds other threads for the process' pending signals in s, which t will not handle.
func (p *Process) retarget(t *Thread, s signal.Set) {
	s &= p.shared.Set()
	p.each(func(u *Thread) {
		if u == t || u.exiting || s&^u.blocked == 0 {
			return
		}
		s &= u.blocked
		if u.work.Load()&workSignal == 0 {
			u.wake(t, workSignal)
		}
	})
}

// recalc sets or clears workSignal of the calling thread. mu is locked.
func (t *Thread) recalc() {
	p := t.proc
	if (t.pending.Set()|p.shared.Set())&^t.blocked != 0 || t.stopping || p.stop.news != 0 {
		t.work.Or(workSignal)
	} else {
		t.work.And(^uint32(workSignal))
	}
}

// may reports whether t may send sig to p (kill(2)).
func (t *Thread) may(p *Process, sig int) bool {
	if p == t.proc {
		return true
	}
	c, to := t.Cred(), p.Cred()
	if c.EUID == to.SUID || c.EUID == to.UID || c.UID == to.SUID || c.UID == to.UID || c.Can(cred.KILL) {
		return true
	}
	return sig == linux.SIGCONT && p.session == t.proc.session
}

// sent is the siginfo of kill(2) and tgkill(2).
func (t *Thread) sent(sig int, code int32) signal.Info {
	return signal.From(sig, code, t.proc.id.n, t.Cred().UID)
}

// send checks the permission and sends; tree is locked for reading. Signal 0 checks only.
func (t *Thread) send(p *Process, to *Thread, i signal.Info) error {
	if !t.may(p, int(i.Signo)) {
		return linux.EPERM
	}
	if i.Signo == 0 {
		return nil
	}
	return p.post(t, to, i, false)
}

// Kill is kill(2): a process, 0 the own group, -1 all but init and the caller, below that a group. linux.EINVAL, linux.EPERM,
// linux.ESRCH.
func (t *Thread) Kill(id int32, sig int) error {
	if sig < 0 || sig > linux.NumSignals {
		return linux.EINVAL
	}
	if id == t.proc.id.n { // to oneself: nobody else is involved
		if sig == 0 {
			return nil
		}
		return t.proc.post(t, nil, t.sent(sig, linux.SI_USER), false)
	}
	i := t.sent(sig, linux.SI_USER)
	s := t.sys
	s.tree.RLock()
	defer s.tree.RUnlock()
	switch {
	case id > 0:
		p, _ := t.lookup(id)
		if p == nil {
			return linux.ESRCH
		}
		return t.send(p, nil, i)
	case id == 0:
		return t.killGroup(t.proc.group, i)
	case id == -1:
		return t.killAll(i)
	case id == -1<<31:
		return linux.ESRCH
	}
	if g := s.findGroup(-id); g != nil {
		return t.killGroup(g, i)
	}
	return linux.ESRCH
}

// killGroup succeeds if one of the group got it.
func (t *Thread) killGroup(g *group, i signal.Info) error {
	var first error = linux.ESRCH
	ok := false
	for p := g.members; p != nil; p = p.nextInGroup {
		err := t.send(p, nil, i)
		if err == nil {
			ok = true
		} else if first == linux.ESRCH {
			first = err
		}
	}
	if ok {
		return nil
	}
	return first
}

func (t *Thread) killAll(i signal.Info) error {
	var err error = linux.ESRCH
	t.sys.Processes(2, func(p *Process) bool {
		if p != t.proc {
			if e := t.send(p, nil, i); e != linux.EPERM || err == linux.ESRCH {
				err = e
			}
		}
		return true
	})
	return err
}

// Tgkill is tgkill(2). linux.EINVAL, linux.EPERM, linux.ESRCH.
func (t *Thread) Tgkill(tgid, tid int32, sig int) error {
	if tgid <= 0 || tid <= 0 {
		return linux.EINVAL
	}
	return t.tkill(tgid, tid, sig, t.sent(sig, linux.SI_TKILL))
}

// Tkill is tkill(2).
func (t *Thread) Tkill(tid int32, sig int) error {
	if tid <= 0 {
		return linux.EINVAL
	}
	return t.tkill(0, tid, sig, t.sent(sig, linux.SI_TKILL))
}

// tkill sends to a thread, of the process tgid if that is not 0.
func (t *Thread) tkill(tgid, tid int32, sig int, i signal.Info) error {
	if sig < 0 || sig > linux.NumSignals {
		return linux.EINVAL
	}
	u := t.sys.Thread(tid)
	if u == nil || tgid != 0 && u.proc.id.n != tgid {
		return linux.ESRCH
	}
	if u.proc == t.proc { // permission is no question
		if sig == 0 {
			return nil
		}
		return t.proc.post(t, u, i, false)
	}
	t.sys.tree.RLock()
	defer t.sys.tree.RUnlock()
	return t.send(u.proc, u, i)
}

// forge refuses siginfo that pretends to come from the kernel or from kill(2), unless it goes to the sender itself.
func (t *Thread) forge(id int32, i *signal.Info) bool {
	return (i.Code >= 0 || i.Code == linux.SI_TKILL) && id != t.TID()
}

// Sigqueue is rt_sigqueueinfo(2): sig goes with the siginfo i. linux.EAGAIN: too many are pending; linux.EPERM: i pretends
// to be the kernel's.
func (t *Thread) Sigqueue(id int32, sig int, i signal.Info) error {
	i.Signo = int32(sig)
	if t.forge(id, &i) {
		return linux.EPERM
	}
	if sig < 0 || sig > linux.NumSignals {
		return linux.EINVAL
	}
	t.sys.tree.RLock()
	defer t.sys.tree.RUnlock()
	p, _ := t.lookup(id)
	if p == nil || id <= 0 {
		return linux.ESRCH
	}
	return t.send(p, nil, i)
}

// TgSigqueue is rt_tgsigqueueinfo(2).
func (t *Thread) TgSigqueue(tgid, tid int32, sig int, i signal.Info) error {
	i.Signo = int32(sig)
	if tgid <= 0 || tid <= 0 {
		return linux.EINVAL
	}
	if t.forge(tid, &i) {
		return linux.EPERM
	}
	return t.tkill(tgid, tid, sig, i)
}
