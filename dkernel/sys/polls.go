package sys

import (
	"dinos/dkernel/ipc/epoll"
	"dinos/dkernel/ipc/event"
	"dinos/dkernel/ipc/pipe"
	"dinos/dkernel/ipc/poll"
	"dinos/dkernel/proc"
	"dinos/dkernel/signal"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

// Pipes, and waiting for many things at once.

func pollCalls() []Call {
	return []Call{
		{"pipe", func(t *Task, a *Args) (uint64, error) { return t.pipe(a[0], 0) }, Full, ""},
		{"pipe2", func(t *Task, a *Args) (uint64, error) { return t.pipe(a[0], uint32(a[1])) }, Full, ""},
		{"poll", sysPoll, Full, ""},
		{"ppoll", sysPpoll, Full, ""},
		{"select", sysSelect, Full, ""},
		{"pselect6", sysPselect6, Full, ""},
		{"epoll_create", func(t *Task, a *Args) (uint64, error) {
			if int32(a[0]) <= 0 {
				return 0, linux.EINVAL
			}
			return number(epoll.Create(t.C, 0))
		}, Full, ""},
		{"epoll_create1", func(t *Task, a *Args) (uint64, error) { return number(epoll.Create(t.C, uint32(a[0]))) }, Full, ""},
		{"epoll_ctl", func(t *Task, a *Args) (uint64, error) {
			return 0, epoll.Ctl(t.C, fd(a[0]), int(int32(a[1])), fd(a[2]), a[3])
		}, Full, ""},
		{"epoll_wait", func(t *Task, a *Args) (uint64, error) { return t.epoll(a, t.afterMs(a[3]), 0, 0) }, Full, ""},
		{"epoll_pwait", func(t *Task, a *Args) (uint64, error) { return t.epoll(a, t.afterMs(a[3]), a[4], a[5]) }, Full, ""},
		{"epoll_pwait2", func(t *Task, a *Args) (uint64, error) {
			d, err := t.after(a[3])
			if err != nil {
				return 0, err
			}
			return t.epoll(a, d, a[4], a[5])
		}, Full, ""},
		{"eventfd", func(t *Task, a *Args) (uint64, error) { return number(event.CreateEventfd(t.C, uint32(a[0]), 0)) }, Full, ""},
		{"eventfd2", func(t *Task, a *Args) (uint64, error) {
			return number(event.CreateEventfd(t.C, uint32(a[0]), uint32(a[1])))
		}, Full, ""},
		{"signalfd", func(t *Task, a *Args) (uint64, error) { return t.signalfd(a[0], a[1], a[2], 0) }, Full, ""},
		{"signalfd4", func(t *Task, a *Args) (uint64, error) { return t.signalfd(a[0], a[1], a[2], a[3]) }, Full, ""},
		{"timerfd_create", func(t *Task, a *Args) (uint64, error) {
			return number(t.K.Clocks.CreateTimerfd(t.C, int32(a[0]), uint32(a[1])))
		}, Full, ""},
		{"timerfd_settime", func(t *Task, a *Args) (uint64, error) {
			v, err := load[linux.Itimerspec](t, a[2])
			if err != nil {
				return 0, err
			}
			old, err := event.SetTimer(t.C, fd(a[0]), uint32(a[1]), v)
			if err != nil || a[3] == 0 {
				return 0, err
			}
			return 0, store(t, a[3], &old)
		}, Full, ""},
		{"timerfd_gettime", func(t *Task, a *Args) (uint64, error) {
			v, err := event.GetTimer(t.C, fd(a[0]))
			if err != nil {
				return 0, err
			}
			return 0, store(t, a[1], &v)
		}, Full, ""},
	}
}

func (t *Task) pipe(addr uint64, flags uint32) (uint64, error) {
	r, w, err := pipe.Pipe2(t.C, flags)
	if err != nil {
		return 0, err
	}
	return t.twoFDs(addr, r, w)
}

// twoFDs stores a pair of descriptors, or closes them.
func (t *Task) twoFDs(addr uint64, a, b int) (uint64, error) {
	if err := store(t, addr, &[2]int32{int32(a), int32(b)}); err != nil {
		_ = t.C.Files.Close(t.C, a)
		_ = t.C.Files.Close(t.C, b)
		return 0, err
	}
	return 0, nil
}

// deadline is the time ns from now, on the clock of sleepers.
func (t *Task) deadline(ns int64) int64 {
	if ns == 0 {
		return 0 // do not wait
	}
	if d := t.K.Uptime() + ns; d > 0 {
		return d
	}
	return wait.Forever
}

// afterMs is the deadline of a timeout in ms as poll(2) has it: negative is none.
func (t *Task) afterMs(v uint64) int64 {
	ms := int64(int32(v))
	if ms < 0 {
		return wait.Forever
	}
	return t.deadline(ms * 1e6)
}

// after is the deadline of an optional struct timespec.
func (t *Task) after(addr uint64) (int64, error) {
	ts, err := t.timespec(addr)
	if err != nil || ts == nil {
		return wait.Forever, err
	}
	ns, ok := ts.Ns()
	if !ok {
		return 0, linux.EINVAL
	}
	return t.deadline(ns), nil
}

// left stores what is left until the deadline where the program had its timeout, as Linux does; errors do not matter then.
func (t *Task) left(addr uint64, deadline int64, tv bool) {
	if addr == 0 || deadline == wait.Forever {
		return
	}
	ns := max(deadline-t.K.Uptime(), 0)
	if tv {
		v := linux.NsTimeval(ns)
		_ = store(t, addr, &v)
		return
	}
	v := linux.NsTimespec(ns)
	_ = store(t, addr, &v)
}

// withMask runs a call under another signal mask, if the program gives one.
func (t *Task) withMask(addr, size uint64, do func() (uint64, error)) (uint64, error) {
	if addr == 0 {
		return do()
	}
	s, err := t.sigset(addr, size)
	if err != nil {
		return 0, err
	}
	t.T.SwapMask(s)
	ret, err := do()
	if err != linux.EINTR && err != linux.ERESTARTNOHAND && err != linux.ERESTARTSYS && err != linux.ERESTART_RESTARTBLOCK {
		t.T.RestoreMask()
	}
	return ret, err
}

func sysPoll(t *Task, a *Args) (uint64, error) {
	addr, n, deadline := a[0], int(uint32(a[1])), t.afterMs(a[2])
	again := func() (uint64, error) { return number(poll.Poll(t.C, addr, n, deadline)) }
	ret, err := again()
	if err == linux.ERESTARTNOHAND {
		return 0, t.T.SetRestart(func() (uint64, error) {
			ret, err := again()
			if err == linux.ERESTARTNOHAND {
				err = linux.ERESTART_RESTARTBLOCK
			}
			return ret, err
		})
	}
	return ret, err
}

func sysPpoll(t *Task, a *Args) (uint64, error) {
	d, err := t.after(a[2])
	if err != nil {
		return 0, err
	}
	ret, err := t.withMask(a[3], a[4], func() (uint64, error) { return number(poll.Poll(t.C, a[0], int(uint32(a[1])), d)) })
	t.left(a[2], d, false)
	return ret, err
}

func sysSelect(t *Task, a *Args) (uint64, error) {
	d := wait.Forever
	if a[4] != 0 {
		tv, err := load[linux.Timeval](t, a[4])
		if err != nil {
			return 0, err
		}
		// Microseconds may be more than a second's here, unlike elsewhere.
		ns, ok := linux.Timespec{Sec: tv.Sec + tv.Usec/1e6, Nsec: tv.Usec % 1e6 * 1000}.Ns()
		if !ok {
			return 0, linux.EINVAL
		}
		d = t.deadline(ns)
	}
	ret, err := number(poll.Select(t.C, int(int32(a[0])), [3]uint64{a[1], a[2], a[3]}, d))
	t.left(a[4], d, true)
	return ret, err
}

func sysPselect6(t *Task, a *Args) (uint64, error) {
	var mask [2]uint64 // the address and the size of the mask
	if a[5] != 0 {
		m, err := load[[2]uint64](t, a[5])
		if err != nil {
			return 0, err
		}
		mask = m
	}
	d, err := t.after(a[4])
	if err != nil {
		return 0, err
	}
	ret, err := t.withMask(mask[0], mask[1], func() (uint64, error) {
		return number(poll.Select(t.C, int(int32(a[0])), [3]uint64{a[1], a[2], a[3]}, d))
	})
	t.left(a[4], d, false)
	return ret, err
}

func (t *Task) epoll(a *Args, deadline int64, mask, size uint64) (uint64, error) {
	if mask == 0 {
		return number(epoll.Wait(t.C, fd(a[0]), a[1], int(int32(a[2])), deadline))
	}
	return t.withMask(mask, size, func() (uint64, error) {
		return number(epoll.Wait(t.C, fd(a[0]), a[1], int(int32(a[2])), deadline))
	})
}

func (t *Task) signalfd(n, set, size, flags uint64) (uint64, error) {
	s, err := t.sigset(set, size)
	if err != nil {
		return 0, err
	}
	return number(event.CreateSignalfd(t.C, fd(n), uint64(s), uint32(flags)))
}

// fileTask is a thread as files see it (vfs.Caller.Task): a process of a session for terminals, and what has signals for signalfds.
type fileTask struct{ *proc.Thread }

var _ event.Signals = fileTask{}

// HasSignal implements event.Signals.
func (f fileTask) HasSignal(set uint64) bool { return f.PendingSignals()&signal.Set(set) != 0 }

// SignalQueue implements event.Signals.
func (f fileTask) SignalQueue() *wait.Queue { return f.Process().SignalQueue() }

// TakeSignal implements event.Signals.
func (f fileTask) TakeSignal(set uint64) (s linux.SignalfdSiginfo, ok bool) {
	i, ok := f.Thread.TakeSignal(signal.Set(set))
	if !ok {
		return s, false
	}
	return signalfdInfo(&i), true
}

// signalfdInfo is i as signalfd(2) tells it (fs/signalfd.c, signalfd_copyinfo): which fields there are follows from signal and code.
func signalfdInfo(i *signal.Info) linux.SignalfdSiginfo {
	s := linux.SignalfdSiginfo{Signo: uint32(i.Signo), Errno: i.Errno, Code: i.Code}
	fault := signal.Synchronous &^ signal.Of(linux.SIGSYS)
	switch sig := int(i.Signo); {
	case i.Code == linux.SI_TIMER:
		s.TID, s.Overrun, s.Ptr, s.Int = uint32(i.TimerID()), uint32(i.Overrun()), i.Value(), int32(i.Value())
	case i.Code < 0 && i.Code != linux.SI_TKILL:
		s.PID, s.UID, s.Ptr, s.Int = uint32(i.PID()), i.UID(), i.Value(), int32(i.Value())
	case i.Code <= 0 || i.Code == linux.SI_KERNEL:
		s.PID, s.UID = uint32(i.PID()), i.UID()
	case sig == linux.SIGCHLD:
		utime, stime := i.Times()
		s.PID, s.UID, s.Status, s.Utime, s.Stime = uint32(i.PID()), i.UID(), i.Status(), uint64(utime), uint64(stime)
	case fault.Has(sig):
		s.Addr = i.Addr()
	case sig == linux.SIGIO:
		s.Band, s.FD = uint32(i.U[0]), int32(i.U[1])
	}
	return s
}
