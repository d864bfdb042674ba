package sys

import (
	"dinos/dkernel/signal"
	"dinos/kernel/linux"
)

// Signals.

// sigsetSize is what every call that takes a signal set is told as its size.
const sigsetSize = 8

func signalCalls() []Call {
	return []Call{
		{"kill", func(t *Task, a *Args) (uint64, error) { return 0, t.T.Kill(int32(a[0]), int(int32(a[1]))) }, Full, ""},
		{"tkill", func(t *Task, a *Args) (uint64, error) { return 0, t.T.Tkill(int32(a[0]), int(int32(a[1]))) }, Full, ""},
		{"tgkill", func(t *Task, a *Args) (uint64, error) {
			return 0, t.T.Tgkill(int32(a[0]), int32(a[1]), int(int32(a[2])))
		}, Full, ""},
		{"rt_sigqueueinfo", func(t *Task, a *Args) (uint64, error) {
			i, err := load[siginfo](t, a[2])
			if err != nil {
				return 0, err
			}
			return 0, t.T.Sigqueue(int32(a[0]), int(int32(a[1])), i.Info)
		}, Full, ""},
		{"rt_tgsigqueueinfo", func(t *Task, a *Args) (uint64, error) {
			i, err := load[siginfo](t, a[3])
			if err != nil {
				return 0, err
			}
			return 0, t.T.TgSigqueue(int32(a[0]), int32(a[1]), int(int32(a[2])), i.Info)
		}, Full, ""},
		{"pidfd_send_signal", func(t *Task, a *Args) (uint64, error) {
			var info *signal.Info
			if a[2] != 0 {
				i, err := load[siginfo](t, a[2])
				if err != nil {
					return 0, err
				}
				info = &i.Info
			}
			return 0, t.T.PidfdSendSignal(fd(a[0]), int(int32(a[1])), info, uint32(a[3]))
		}, Full, ""},
		{"rt_sigaction", sysSigaction, Full, ""},
		{"rt_sigprocmask", sysSigprocmask, Full, ""},
		{"rt_sigpending", func(t *Task, a *Args) (uint64, error) {
			if a[1] > sigsetSize {
				return 0, linux.EINVAL
			}
			s := t.T.Sigpending()
			return 0, t.out(a[0], asBytes(&s)[:a[1]])
		}, Full, ""},
		{"rt_sigsuspend", func(t *Task, a *Args) (uint64, error) {
			s, err := t.sigset(a[0], a[1])
			if err != nil {
				return 0, err
			}
			return 0, t.T.Sigsuspend(s)
		}, Full, ""},
		{"pause", func(t *Task, a *Args) (uint64, error) { return 0, t.T.Pause() }, Full, ""},
		{"rt_sigtimedwait", sysSigtimedwait, Full, ""},
		{"sigaltstack", sysSigaltstack, Full, ""},
		{"rt_sigreturn", func(t *Task, a *Args) (uint64, error) {
			t.T.Sigreturn(&t.T.Regs)
			return 0, noResult
		}, Full, ""},
	}
}

// siginfo is siginfo_t in full.
type siginfo struct {
	signal.Info
	_ [signal.InfoSize - 48]byte
}

// sigset reads a signal set whose size must be right.
func (t *Task) sigset(addr, size uint64) (signal.Set, error) {
	if size != sigsetSize {
		return 0, linux.EINVAL
	}
	return load[signal.Set](t, addr)
}

func sysSigaction(t *Task, a *Args) (uint64, error) {
	if a[3] != sigsetSize {
		return 0, linux.EINVAL
	}
	var n *signal.Action
	if a[1] != 0 {
		v, err := load[signal.Action](t, a[1])
		if err != nil {
			return 0, err
		}
		n = &v
	}
	old, err := t.T.Sigaction(int(int32(a[0])), n)
	if err != nil || a[2] == 0 {
		return 0, err
	}
	return 0, store(t, a[2], &old)
}

func sysSigprocmask(t *Task, a *Args) (uint64, error) {
	if a[3] != sigsetSize {
		return 0, linux.EINVAL
	}
	var n *signal.Set
	if a[1] != 0 {
		v, err := load[signal.Set](t, a[1])
		if err != nil {
			return 0, err
		}
		n = &v
	}
	old, err := t.T.Sigprocmask(int(int32(a[0])), n)
	if err != nil || a[2] == 0 {
		return 0, err
	}
	return 0, store(t, a[2], &old)
}

func sysSigtimedwait(t *Task, a *Args) (uint64, error) {
	s, err := t.sigset(a[0], a[3])
	if err != nil {
		return 0, err
	}
	ts, err := t.timespec(a[2])
	if err != nil {
		return 0, err
	}
	i, err := t.T.Sigtimedwait(s, ts)
	if err != nil {
		return 0, err
	}
	if a[1] != 0 {
		if err := store(t, a[1], &siginfo{Info: i}); err != nil {
			return 0, err
		}
	}
	return uint64(i.Signo), nil
}

func sysSigaltstack(t *Task, a *Args) (uint64, error) {
	var n *signal.AltStack
	if a[0] != 0 {
		s, err := load[linux.Stack](t, a[0])
		if err != nil {
			return 0, err
		}
		n = &signal.AltStack{SP: s.SP, Flags: uint32(s.Flags), Size: s.Size}
	}
	old, err := t.T.Sigaltstack(n)
	if err != nil || a[1] == 0 {
		return 0, err
	}
	return 0, store(t, a[1], &linux.Stack{SP: old.SP, Flags: int32(old.Flags), Size: old.Size})
}
