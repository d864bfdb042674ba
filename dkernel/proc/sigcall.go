package proc

import (
	"dinos/dkernel/signal"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

const sleepForever = wait.Forever

// Sigaction is rt_sigaction(2); n nil: ask only. linux.EINVAL: no such signal, or one that cannot be caught.
func (t *Thread) Sigaction(sig int, n *signal.Action) (old signal.Action, err error) {
	if !signal.Valid(sig) || n != nil && signal.Unblockable.Has(sig) {
		return old, linux.EINVAL
	}
	p := t.proc
	if n == nil {
		return p.actions().Get(sig), nil
	}
	p.mu.Lock()
	old = p.actions().Set(sig, *n)
	if n.Ignores(sig) { // what is pending is forgotten (POSIX, sigaction)
		p.dropAll(signal.Of(sig))
	}
	p.mu.Unlock()
	return old, nil
}

// Sigprocmask is rt_sigprocmask(2); n nil: ask only. linux.EINVAL: how.
func (t *Thread) Sigprocmask(how int, n *signal.Set) (old signal.Set, err error) {
	old = t.blocked
	if n == nil {
		return old, nil
	}
	m := *n &^ signal.Unblockable
	switch how {
	case linux.SIG_BLOCK:
		m |= old
	case linux.SIG_UNBLOCK:
		m = old &^ m
	case linux.SIG_SETMASK:
	default:
		return old, linux.EINVAL
	}
	if m != old {
		t.setMask(m)
	}
	return old, nil
}

// Blocked is the signal mask.
func (t *Thread) Blocked() signal.Set { return t.blocked }

// Sigpending is rt_sigpending(2).
func (t *Thread) Sigpending() signal.Set {
	p := t.proc
	p.mu.Lock()
	defer p.mu.Unlock()
	return (t.pending.Set() | p.shared.Set()) & t.blocked
}

// SwapMask replaces the signal mask for the rest of a system call (ppoll(2), pselect6(2), epoll_pwait(2)). If the call is interrupted,
// Deliver puts the old mask back, after it has called handlers under the new one; else RestoreMask must be called.
func (t *Thread) SwapMask(m signal.Set) {
	t.saved, t.restore = t.blocked, true
	t.setMask(m)
}

// RestoreMask undoes SwapMask.
func (t *Thread) RestoreMask() {
	if t.restore {
		t.restore = false
		t.setMask(t.saved)
	}
}

// Sigsuspend is rt_sigsuspend(2): it sleeps with another mask until a signal comes, and returns linux.ERESTARTNOHAND.
func (t *Thread) Sigsuspend(m signal.Set) error {
	t.SwapMask(m)
	return t.Pause()
}

// Pause is pause(2).
func (t *Thread) Pause() error {
	for {
		if err := t.sleeper.Sleep(sleepForever); err != nil {
			return linux.ERESTARTNOHAND
		}
	}
}

// Sigtimedwait is rt_sigtimedwait(2): it takes a pending signal of want, or waits for one; timeout nil: for ever. linux.EAGAIN: none
// came in time; linux.EINTR: another signal did.
func (t *Thread) Sigtimedwait(want signal.Set, timeout *linux.Timespec) (i signal.Info, err error) {
	deadline := sleepForever
	if timeout != nil {
		ns, ok := timeout.Ns()
		if !ok {
			return i, linux.EINVAL
		}
		deadline = after(t.sys.clock.Monotonic(), ns)
	}
	want &^= signal.Unblockable
	p := t.proc
	p.mu.Lock()
	defer p.mu.Unlock()
	defer t.recalc()
	for {
		if i, ok := t.dequeue(want); ok {
			t.waiting = 0
			return i, nil
		}
		if err != nil {
			t.waiting = 0
			if err == linux.ETIMEDOUT {
				return i, linux.EAGAIN
			}
			return i, linux.EINTR
		}
		t.waiting = want
		t.recalc()
		p.mu.Unlock()
		err = t.sleeper.Sleep(deadline)
		p.mu.Lock()
	}
}

// after adds a time to a moment, so that what is too far away is never.
func after(now, ns int64) int64 {
	if d := now + ns; d >= now {
		return d
	}
	return sleepForever
}

// TakeSignal takes a pending signal of want, of the thread or its process, for signalfd(2): false if there is none.
func (t *Thread) TakeSignal(want signal.Set) (i signal.Info, ok bool) {
	p := t.proc
	p.mu.Lock()
	defer p.mu.Unlock()
	i, ok = t.dequeue(want)
	t.recalc()
	return i, ok
}

// PendingSignals are the signals that are pending for the thread or its process: what signalfd(2) polls. Anybody may call it.
func (t *Thread) PendingSignals() signal.Set {
	p := t.proc
	p.mu.Lock()
	defer p.mu.Unlock()
	return t.pending.Set() | p.shared.Set()
}

// SignalQueue is where signals that become pending for the process or a thread of it are announced, with wait.In.
func (p *Process) SignalQueue() *wait.Queue { return &p.sigq }

// Sigaltstack is sigaltstack(2); n nil: ask only. t.Regs.RSP is the stack that the thread is on. linux.EPERM, linux.EINVAL,
// linux.ENOMEM.
func (t *Thread) Sigaltstack(n *signal.AltStack) (old signal.AltStack, err error) {
	sp := t.Regs.RSP
	old = t.alt
	old.Flags = t.alt.State(sp) | t.alt.Flags&linux.SS_AUTODISARM
	if n != nil {
		err = t.alt.Set(*n, sp, linux.MINSIGSTKSZ)
	}
	return old, err
}

// SetRestart says how restart_syscall(2) continues a call that returns linux.ERESTART_RESTARTBLOCK.
func (t *Thread) SetRestart(f func() (uint64, error)) error {
	t.restart = f
	return linux.ERESTART_RESTARTBLOCK
}

// RestartSyscall is restart_syscall(2). A program that calls it by itself gets linux.EINTR.
func (t *Thread) RestartSyscall() (uint64, error) {
	f := t.restart
	t.restart = nil
	if f == nil {
		return 0, linux.EINTR
	}
	return f()
}
