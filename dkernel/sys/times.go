package sys

import (
	"dinos/dkernel/proc"
	"dinos/kernel/linux"
)

// Clocks, sleeping, timers.

// timespec reads an optional struct timespec; nil for the null pointer.
func (t *Task) timespec(addr uint64) (*linux.Timespec, error) {
	if addr == 0 {
		return nil, nil
	}
	ts, err := load[linux.Timespec](t, addr)
	return &ts, err
}

func timeCalls() []Call {
	return []Call{
		{"clock_gettime", func(t *Task, a *Args) (uint64, error) {
			ns, err := t.T.ClockGettime(int32(a[0]))
			if err != nil {
				return 0, err
			}
			ts := linux.NsTimespec(ns)
			return 0, store(t, a[1], &ts)
		}, Full, ""},
		{"clock_getres", func(t *Task, a *Args) (uint64, error) {
			ns, err := t.T.ClockGetres(int32(a[0]))
			if err != nil || a[1] == 0 {
				return 0, err
			}
			ts := linux.NsTimespec(ns)
			return 0, store(t, a[1], &ts)
		}, Full, ""},
		{"gettimeofday", func(t *Task, a *Args) (uint64, error) {
			if a[0] != 0 {
				ns, err := t.T.ClockGettime(linux.CLOCK_REALTIME)
				if err != nil {
					return 0, err
				}
				tv := linux.NsTimeval(ns)
				if err := store(t, a[0], &tv); err != nil {
					return 0, err
				}
			}
			if a[1] != 0 { // struct timezone: UTC
				return 0, store(t, a[1], &[2]int32{})
			}
			return 0, nil
		}, Full, ""},
		{"time", func(t *Task, a *Args) (uint64, error) {
			ns, err := t.T.ClockGettime(linux.CLOCK_REALTIME)
			if err != nil {
				return 0, err
			}
			sec := ns / 1e9
			if a[0] != 0 {
				if err := store(t, a[0], &sec); err != nil {
					return 0, err
				}
			}
			return uint64(sec), nil
		}, Full, ""},
		{"nanosleep", func(t *Task, a *Args) (uint64, error) {
			ts, err := load[linux.Timespec](t, a[0])
			if err != nil {
				return 0, err
			}
			return 0, t.T.Nanosleep(ts, a[1])
		}, Full, ""},
		{"clock_nanosleep", func(t *Task, a *Args) (uint64, error) {
			ts, err := load[linux.Timespec](t, a[2])
			if err != nil {
				return 0, err
			}
			return 0, t.T.ClockNanosleep(int32(a[0]), uint32(a[1]), ts, a[3])
		}, Full, ""},
		{"restart_syscall", func(t *Task, a *Args) (uint64, error) { return t.T.RestartSyscall() }, Full, ""},
		{"getitimer", func(t *Task, a *Args) (uint64, error) {
			v, err := t.T.Getitimer(int(int32(a[0])))
			if err != nil {
				return 0, err
			}
			return 0, store(t, a[1], &v)
		}, Full, ""},
		{"setitimer", func(t *Task, a *Args) (uint64, error) {
			var n linux.Itimerval
			if a[1] != 0 {
				v, err := load[linux.Itimerval](t, a[1])
				if err != nil {
					return 0, err
				}
				n = v
			}
			old, err := t.T.Setitimer(int(int32(a[0])), n)
			if err != nil || a[2] == 0 {
				return 0, err
			}
			return 0, store(t, a[2], &old)
		}, Full, ""},
		{"alarm", func(t *Task, a *Args) (uint64, error) { return uint64(t.T.Alarm(uint32(a[0]))), nil }, Full, ""},
		{"timer_create", func(t *Task, a *Args) (uint64, error) {
			var ev *proc.Sigevent
			if a[1] != 0 {
				v, err := load[proc.Sigevent](t, a[1])
				if err != nil {
					return 0, err
				}
				ev = &v
			}
			id, err := t.T.TimerCreate(int32(a[0]), ev)
			if err != nil {
				return 0, err
			}
			if err := store(t, a[2], &id); err != nil {
				_ = t.T.TimerDelete(id)
				return 0, err
			}
			return 0, nil
		}, Full, ""},
		{"timer_settime", func(t *Task, a *Args) (uint64, error) {
			v, err := load[linux.Itimerspec](t, a[2])
			if err != nil {
				return 0, err
			}
			old, err := t.T.TimerSettime(int32(a[0]), uint32(a[1]), v)
			if err != nil || a[3] == 0 {
				return 0, err
			}
			return 0, store(t, a[3], &old)
		}, Full, ""},
		{"timer_gettime", func(t *Task, a *Args) (uint64, error) {
			v, err := t.T.TimerGettime(int32(a[0]))
			if err != nil {
				return 0, err
			}
			return 0, store(t, a[1], &v)
		}, Full, ""},
		{"timer_getoverrun", func(t *Task, a *Args) (uint64, error) {
			n, err := t.T.TimerGetoverrun(int32(a[0]))
			return uint64(n), err
		}, Full, ""},
		{"timer_delete", func(t *Task, a *Args) (uint64, error) { return 0, t.T.TimerDelete(int32(a[0])) }, Full, ""},
	}
}
