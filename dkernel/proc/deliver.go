package proc

import (
	"dinos/dkernel/signal"
	"dinos/kernel/linux"
	"dinos/kernel/ureg"
)

// stop is the state of job control of a process, guarded by Process.mu (signal_struct's group_stop_count and flags).
type stop struct {
	sig      int  // a stop by this signal is under way or complete; 0: none
	left     int  // threads that have still to take part
	stopped  bool // all have
	news     int  // linux.CLD_STOPPED or CLD_CONTINUED that some thread has to tell the parent
	waitStop bool // wait(WUNTRACED) has not seen the stop
	waitCont bool // wait(WCONTINUED) has not seen the continuation
	code     int  // of waitStop: the signal
	// continued counts SIGCONTs.
	continued uint64
}

// Deliver does what has to be done before the thread enters ring 3 with f, its registers: it ends the thread, stops it, enters
// signal handlers, begins interrupted system calls again. false: the thread is gone, and its goroutine must end.
//
// f.OrigRAX has to be the number of the system call that has just been served, with the result in RAX (linux.ERESTARTSYS and its
// kin included), or ureg.NoSyscall.
func (t *Thread) Deliver(f *ureg.Frame) bool {
	for {
		w := t.work.Load()
		if w&workExit != 0 {
			t.end()
			return false
		}
		if w&workCaller != 0 {
			t.work.And(^uint32(workCaller))
			t.refresh()
		}
		if w&workTimer != 0 {
			t.work.And(^uint32(workTimer))
			t.proc.cpuTimers(t)
		}
		if w&workRseq != 0 {
			t.work.And(^uint32(workRseq))
			t.rseqFix(f)
		}
		if w&workSignal != 0 {
			var d signal.Context
			if t.next1(&d) {
				if d.Info.Signo != 0 {
					t.handle(f, &d)
				}
				continue
			}
		}
		t.settle(f)
		if t.work.Load() == 0 {
			return true
		}
	}
}

// settle arranges for an interrupted system call that no handler was called for, and puts the signal mask back that the call had
// replaced.
func (t *Thread) settle(f *ureg.Frame) {
	if f.OrigRAX != ureg.NoSyscall {
		switch linux.Errno(-f.RAX) {
		case linux.ERESTARTSYS, linux.ERESTARTNOINTR, linux.ERESTARTNOHAND:
			f.RAX = f.OrigRAX
			f.RIP -= 2 // the length of SYSCALL
		case linux.ERESTART_RESTARTBLOCK:
			f.RAX = sysRestart
			f.RIP -= 2
		}
		f.OrigRAX = ureg.NoSyscall
	}
	if t.restore {
		t.restore = false
		t.setMask(t.saved)
	}
}

// sysRestart is the number of restart_syscall(2).
const sysRestart = 219

// next1 takes the next signal that something has to be done for in ring 3: d says what. false: there is none, and workSignal is
// cleared. A true with no signal means: begin again, the thread may have to end. (get_signal in kernel/signal.c.)
func (t *Thread) next1(d *signal.Context) bool {
	p := t.proc
	p.mu.Lock()
	for {
		if n := p.stop.news; n != 0 {
			p.stop.news = 0
			p.mu.Unlock()
			p.tellParent(n)
			p.mu.Lock()
			continue
		}
		if t.work.Load()&workExit != 0 {
			break
		}
		if t.stopping {
			t.takeStop()
			continue
		}
		i, ok := t.dequeue(^t.blocked)
		if !ok {
			t.recalc()
			done := t.work.Load()&workSignal == 0
			p.mu.Unlock()
			return !done
		}
		sig := int(i.Signo)
		a := p.actions().Take(sig)
		switch {
		case a.Handler == linux.SIG_IGN:
		case a.Handler != linux.SIG_DFL:
			d.Info, d.Action = i, a
			p.mu.Unlock()
			return true
		case signal.Ignored.Has(sig), p.unkill && i.FromUser():
		case signal.Stops.Has(sig):
			t.startStop(sig)
		default:
			status := uint32(sig)
			if signal.Cores.Has(sig) {
				status |= 0x80
			}
			p.beginExit(t, status)
			t.work.Or(workExit)
		}
	}
	p.mu.Unlock()
	return true
}

// dequeue takes a pending signal in want. mu is locked.
func (t *Thread) dequeue(want signal.Set) (signal.Info, bool) {
	p := t.proc
	if i, ok := t.pending.TakeFault(&p.pool, want); ok {
		return i, true
	}
	if i, ok := t.pending.Take(&p.pool, want); ok {
		return i, true
	}
	i, ok := p.shared.Take(&p.pool, want)
	if i.Signo == linux.SIGALRM {
		p.itimers.again()
	}
	return i, ok
}

// startStop begins to stop the process (do_signal_stop). mu is locked; it may be unlocked in between.
func (t *Thread) startStop(sig int) {
	p := t.proc
	if sig != linux.SIGSTOP {
		// Nobody would continue a process of an orphaned group. SIGCONT may come while that is found out: it undoes the signal.
		seen := p.stop.continued
		p.mu.Unlock()
		p.sys.tree.RLock()
		orphaned := p.group == nil || p.sys.orphaned(p.group, nil)
		p.sys.tree.RUnlock()
		p.mu.Lock()
		if orphaned || p.stop.continued != seen {
			return
		}
	}
	if p.exiting {
		return
	}
	p.stop.sig = sig
	p.each(func(u *Thread) {
		if !u.stopping && !u.stopped && !u.exiting {
			u.stopping = true
			p.stop.left++
			if u != t {
				u.wake(t, workSignal)
			}
		}
	})
	if t.stopping {
		t.takeStop()
	}
}

// takeStop is the thread's part in a stop; it returns when the process is continued or has to end. mu is locked, and unlocked
// in between.
func (t *Thread) takeStop() {
	p := t.proc
	t.stopping, t.stopped = false, true
	told := p.stopOne()
	t.onlyFatal = true
	for t.stopped {
		p.mu.Unlock()
		if told {
			told = false
			p.tellParent(linux.CLD_STOPPED)
		}
		_ = t.sleeper.Sleep(sleepForever)
		p.mu.Lock()
		if t.work.Load()&workExit != 0 {
			t.stopped = false
		}
	}
	t.onlyFatal = false
	if told { // continued before anybody was told
		p.mu.Unlock()
		p.tellParent(linux.CLD_STOPPED)
		p.mu.Lock()
	}
}

// stopOne counts a thread that took part in a stop, or cannot; it reports whether the process has stopped by that. mu is locked.
func (p *Process) stopOne() bool {
	if p.stop.left > 0 {
		p.stop.left--
	}
	if p.stop.left > 0 || p.stop.stopped || p.stop.sig == 0 {
		return false
	}
	p.stop.stopped, p.stop.waitStop, p.stop.waitCont, p.stop.code = true, true, false, p.stop.sig
	return true
}

// resume is the effect of SIGCONT: whatever is stopped goes on. mu is locked.
func (p *Process) resume(from *Thread) {
	news := 0
	p.stop.continued++
	switch {
	case p.stop.stopped:
		news = linux.CLD_CONTINUED
	case p.stop.left > 0:
		news = linux.CLD_STOPPED // it was about to, which counts
	}
	code := p.stop.sig
	p.stop.sig, p.stop.left, p.stop.stopped, p.stop.waitStop = 0, 0, false, false
	if news != 0 {
		p.stop.news, p.stop.waitCont = news, true
		p.stop.code = code
	}
	p.each(func(t *Thread) {
		was := t.stopping || t.stopped
		t.stopping, t.stopped = false, false
		if was || news != 0 {
			t.wake(from, workSignal)
		}
	})
}

// handle enters the handler of a signal (handle_signal in arch/x86/kernel/signal.c).
func (t *Thread) handle(f *ureg.Frame, d *signal.Context) {
	if f.OrigRAX != ureg.NoSyscall {
		switch linux.Errno(-f.RAX) {
		case linux.ERESTARTNOHAND, linux.ERESTART_RESTARTBLOCK:
			f.RAX = linux.EINTR.Ret()
		case linux.ERESTARTSYS:
			if d.Action.Flags&linux.SA_RESTART == 0 {
				f.RAX = linux.EINTR.Ret()
				break
			}
			fallthrough
		case linux.ERESTARTNOINTR:
			f.RAX = f.OrigRAX
			f.RIP -= 2
		}
		f.OrigRAX = ureg.NoSyscall
	}
	t.rseqFix(f)
	d.Mask = t.blocked
	if t.restore {
		d.Mask = t.saved
		t.restore = false
	}
	d.Alt, d.Fault = t.alt, t.fault
	if err := t.frames.Push(t.mem, t.CPU, f, d); err != nil {
		t.forceSegv(int(d.Info.Signo))
		return
	}
	if t.alt.Flags&linux.SS_AUTODISARM != 0 {
		t.alt = signal.Disabled
	}
	m := t.blocked | d.Action.Mask
	if d.Action.Flags&linux.SA_NODEFER == 0 {
		m |= signal.Of(int(d.Info.Signo))
	}
	t.setMask(m)
	t.checkRIP(f)
}

// setMask changes the blocked signals.
func (t *Thread) setMask(m signal.Set) {
	m &^= signal.Unblockable
	p := t.proc
	p.mu.Lock()
	if p.shared.Set() != 0 {
		if n := m &^ t.blocked; n != 0 && p.nthreads > 1 {
			p.retarget(t, n)
		}
	}
	t.blocked = m
	t.recalc()
	p.mu.Unlock()
}

// Sigreturn is rt_sigreturn(2): it restores what Deliver saved at the top of the stack. f.RAX is final after it. A frame that cannot be
// true ends in SIGSEGV.
func (t *Thread) Sigreturn(f *ureg.Frame) {
	r, err := t.frames.Pop(t.mem, t.CPU, f)
	f.OrigRAX = ureg.NoSyscall
	t.restart = nil // what the handler interrupted is over
	if err != nil {
		t.forceSegv(0)
		return
	}
	t.setMask(r.Mask)
	_ = t.alt.Set(r.Alt, f.RSP, linux.MINSIGSTKSZ) // Linux ignores what is wrong with it too
	t.checkRIP(f)
}

// checkRIP raises the fault that a return to an address beyond the user's would cause in ring 3: entering there is not for a
// kernel to try (SDM vol. 3A, 5.8.8).
func (t *Thread) checkRIP(f *ureg.Frame) {
	if f.RIP < 1<<47 {
		return
	}
	if f.RIP>>47 == 0x1ffff {
		t.setFault(ureg.Page, ureg.PagePresent|ureg.PageUser|ureg.PageFetch, f.RIP)
		t.force(signal.Fault(linux.SIGSEGV, linux.SEGV_MAPERR, f.RIP))
		return
	}
	t.setFault(ureg.Protect, 0, t.fault.CR2)
	t.force(signal.Kernel(linux.SIGSEGV))
}
