package sys

import (
	"dinos/dkernel/proc"
	"dinos/kernel/linux"
)

// Processes, threads, credentials, limits, scheduling.

func processCalls() []Call {
	return []Call{
		{"getpid", func(t *Task, a *Args) (uint64, error) { return uint64(t.T.PID()), nil }, Full, ""},
		{"gettid", func(t *Task, a *Args) (uint64, error) { return uint64(t.T.TID()), nil }, Full, ""},
		{"getppid", func(t *Task, a *Args) (uint64, error) { return uint64(t.T.Getppid()), nil }, Full, ""},
		{"fork", func(t *Task, a *Args) (uint64, error) { return t.clone(linux.CloneArgs{ExitSignal: linux.SIGCHLD}) }, Full, ""},
		{"vfork", func(t *Task, a *Args) (uint64, error) {
			return t.clone(linux.CloneArgs{Flags: linux.CLONE_VFORK | linux.CLONE_VM, ExitSignal: linux.SIGCHLD})
		}, Full, ""},
		{"clone", func(t *Task, a *Args) (uint64, error) {
			return t.clone(proc.LegacyClone(a[0], a[1], a[2], a[3], a[4]))
		}, Full, ""},
		{"clone3", func(t *Task, a *Args) (uint64, error) {
			return t.clone3(a[0], a[1])
		}, Full, ""},
		{"unshare", func(t *Task, a *Args) (uint64, error) { return 0, t.T.Unshare(a[0]) }, Partial, "no namespaces"},
		{"execve", func(t *Task, a *Args) (uint64, error) { return t.execve(cwd, a[0], a[1], a[2], 0) }, Full, ""},
		{"execveat", func(t *Task, a *Args) (uint64, error) { return t.execve(fd(a[0]), a[1], a[2], a[3], fd(a[4])) }, Full, ""},
		{"exit", func(t *Task, a *Args) (uint64, error) { t.T.Exit(int(int32(a[0]))); return 0, nil }, Full, ""},
		{"exit_group", func(t *Task, a *Args) (uint64, error) { t.T.ExitGroup(int(int32(a[0]))); return 0, nil }, Full, ""},
		{"wait4", sysWait4, Full, ""},
		{"waitid", sysWaitid, Full, ""},
		{"set_tid_address", func(t *Task, a *Args) (uint64, error) { return uint64(t.T.SetTidAddress(a[0])), nil }, Full, ""},
		{"pidfd_open", func(t *Task, a *Args) (uint64, error) {
			n, err := t.T.PidfdOpen(int32(a[0]), uint32(a[1]))
			return uint64(n), err
		}, Full, ""},
		{"pidfd_getfd", func(t *Task, a *Args) (uint64, error) {
			n, err := t.T.PidfdGetfd(fd(a[0]), fd(a[1]), uint32(a[2]))
			return uint64(n), err
		}, Full, ""},
		{"futex", func(t *Task, a *Args) (uint64, error) {
			return t.T.Futex(a[0], int32(a[1]), uint32(a[2]), a[3], a[4], uint32(a[5]))
		}, Full, ""},
		{"futex_waitv", func(t *Task, a *Args) (uint64, error) {
			return t.T.FutexWaitv(a[0], uint32(a[1]), uint32(a[2]), a[3], int32(a[4]))
		}, Full, ""},
		{"set_robust_list", func(t *Task, a *Args) (uint64, error) { return 0, t.T.SetRobustList(a[0], a[1]) }, Full, ""},
		{"get_robust_list", func(t *Task, a *Args) (uint64, error) {
			head, size, err := t.T.GetRobustList(int32(a[0]))
			if err != nil {
				return 0, err
			}
			if err := store(t, a[1], &head); err != nil {
				return 0, err
			}
			return 0, store(t, a[2], &size)
		}, Full, ""},
		{"rseq", func(t *Task, a *Args) (uint64, error) {
			return 0, t.T.Rseq(a[0], uint32(a[1]), uint32(a[2]), uint32(a[3]))
		}, Full, ""},
		{"membarrier", func(t *Task, a *Args) (uint64, error) {
			return t.T.Membarrier(int32(a[0]), int32(a[1]), int32(a[2]))
		}, Full, ""},

		{"setpgid", func(t *Task, a *Args) (uint64, error) { return 0, t.T.Setpgid(int32(a[0]), int32(a[1])) }, Full, ""},
		{"getpgid", i32(func(t *Task, a *Args) (int32, error) { return t.T.Getpgid(int32(a[0])) }), Full, ""},
		{"getpgrp", i32(func(t *Task, a *Args) (int32, error) { return t.T.Getpgid(0) }), Full, ""},
		{"setsid", i32(func(t *Task, a *Args) (int32, error) { return t.T.Setsid() }), Full, ""},
		{"getsid", i32(func(t *Task, a *Args) (int32, error) { return t.T.Getsid(int32(a[0])) }), Full, ""},

		{"getuid", func(t *Task, a *Args) (uint64, error) { return uint64(t.T.Cred().UID), nil }, Full, ""},
		{"geteuid", func(t *Task, a *Args) (uint64, error) { return uint64(t.T.Cred().EUID), nil }, Full, ""},
		{"getgid", func(t *Task, a *Args) (uint64, error) { return uint64(t.T.Cred().GID), nil }, Full, ""},
		{"getegid", func(t *Task, a *Args) (uint64, error) { return uint64(t.T.Cred().EGID), nil }, Full, ""},
		{"getresuid", func(t *Task, a *Args) (uint64, error) {
			c := t.T.Cred()
			return t.three(a, c.UID, c.EUID, c.SUID)
		}, Full, ""},
		{"getresgid", func(t *Task, a *Args) (uint64, error) {
			c := t.T.Cred()
			return t.three(a, c.GID, c.EGID, c.SGID)
		}, Full, ""},
		{"setuid", func(t *Task, a *Args) (uint64, error) { return 0, t.T.Setuid(uint32(a[0])) }, Full, ""},
		{"setgid", func(t *Task, a *Args) (uint64, error) { return 0, t.T.Setgid(uint32(a[0])) }, Full, ""},
		{"setreuid", func(t *Task, a *Args) (uint64, error) { return 0, t.T.Setreuid(uint32(a[0]), uint32(a[1])) }, Full, ""},
		{"setregid", func(t *Task, a *Args) (uint64, error) { return 0, t.T.Setregid(uint32(a[0]), uint32(a[1])) }, Full, ""},
		{"setresuid", func(t *Task, a *Args) (uint64, error) {
			return 0, t.T.Setresuid(uint32(a[0]), uint32(a[1]), uint32(a[2]))
		}, Full, ""},
		{"setresgid", func(t *Task, a *Args) (uint64, error) {
			return 0, t.T.Setresgid(uint32(a[0]), uint32(a[1]), uint32(a[2]))
		}, Full, ""},
		{"setfsuid", func(t *Task, a *Args) (uint64, error) { return uint64(t.T.Setfsuid(uint32(a[0]))), nil }, Full, ""},
		{"setfsgid", func(t *Task, a *Args) (uint64, error) { return uint64(t.T.Setfsgid(uint32(a[0]))), nil }, Full, ""},
		{"getgroups", sysGetgroups, Full, ""},
		{"setgroups", func(t *Task, a *Args) (uint64, error) {
			if int32(a[0]) < 0 || a[0] > 65536 {
				return 0, linux.EINVAL
			}
			g := make([]uint32, uint32(a[0]))
			if err := loadSlice(t, a[1], g); err != nil {
				return 0, err
			}
			return 0, t.T.Setgroups(g)
		}, Full, ""},
		{"capget", sysCapget, Full, ""},
		{"capset", sysCapset, Full, ""},
		{"prctl", func(t *Task, a *Args) (uint64, error) { return t.T.Prctl(int(int32(a[0])), a[1], a[2], a[3], a[4]) }, Partial, "unknown options are EINVAL"},
		{"arch_prctl", sysArchPrctl, Full, ""},
		{"personality", func(t *Task, a *Args) (uint64, error) { return uint64(t.T.Personality(uint32(a[0]))), nil }, Full, ""},

		{"getrlimit", func(t *Task, a *Args) (uint64, error) {
			old, err := t.T.Prlimit(0, int(int32(a[0])), nil)
			if err != nil {
				return 0, err
			}
			return 0, store(t, a[1], &old)
		}, Full, ""},
		{"setrlimit", func(t *Task, a *Args) (uint64, error) {
			n, err := load[linux.Rlimit](t, a[1])
			if err != nil {
				return 0, err
			}
			_, err = t.T.Prlimit(0, int(int32(a[0])), &n)
			return 0, err
		}, Full, ""},
		{"prlimit64", func(t *Task, a *Args) (uint64, error) {
			var n *linux.Rlimit
			if a[2] != 0 {
				v, err := load[linux.Rlimit](t, a[2])
				if err != nil {
					return 0, err
				}
				n = &v
			}
			old, err := t.T.Prlimit(int32(a[0]), int(int32(a[1])), n)
			if err != nil || a[3] == 0 {
				return 0, err
			}
			return 0, store(t, a[3], &old)
		}, Full, ""},
		{"getrusage", func(t *Task, a *Args) (uint64, error) {
			r, err := t.T.Getrusage(int(int32(a[0])))
			if err != nil {
				return 0, err
			}
			return 0, store(t, a[1], &r)
		}, Full, ""},
		{"times", func(t *Task, a *Args) (uint64, error) {
			v, now := t.T.Times()
			if a[0] != 0 {
				if err := store(t, a[0], &v); err != nil {
					return 0, err
				}
			}
			return uint64(now), nil
		}, Full, ""},

		{"sched_yield", func(t *Task, a *Args) (uint64, error) { t.yield(); return 0, nil }, Full, ""},
		{"getpriority", func(t *Task, a *Args) (uint64, error) {
			n, err := t.T.Getpriority(int(int32(a[0])), int32(a[1]))
			return uint64(n), err
		}, Full, ""},
		{"setpriority", func(t *Task, a *Args) (uint64, error) {
			return 0, t.T.Setpriority(int(int32(a[0])), int32(a[1]), int(int32(a[2])))
		}, Partial, "kept and told, without effect on scheduling"},
		{"sched_setparam", func(t *Task, a *Args) (uint64, error) {
			p, err := load[int32](t, a[1])
			if err != nil {
				return 0, err
			}
			return 0, t.T.SchedSetparam(int32(a[0]), int(p))
		}, Partial, "kept and told, without effect on scheduling"},
		{"sched_getparam", func(t *Task, a *Args) (uint64, error) {
			_, prio, err := t.T.SchedGetscheduler(int32(a[0]))
			if err != nil {
				return 0, err
			}
			p := int32(prio)
			return 0, store(t, a[1], &p)
		}, Full, ""},
		{"sched_setscheduler", func(t *Task, a *Args) (uint64, error) {
			p, err := load[int32](t, a[2])
			if err != nil {
				return 0, err
			}
			return 0, t.T.SchedSetscheduler(int32(a[0]), int(int32(a[1])), int(p))
		}, Partial, "kept and told, without effect on scheduling"},
		{"sched_getscheduler", func(t *Task, a *Args) (uint64, error) {
			p, _, err := t.T.SchedGetscheduler(int32(a[0]))
			return uint64(p), err
		}, Full, ""},
		{"sched_get_priority_max", priorityLimit(99), Full, ""},
		{"sched_get_priority_min", priorityLimit(1), Full, ""},
		{"sched_rr_get_interval", func(t *Task, a *Args) (uint64, error) {
			ns, err := t.T.SchedRRGetInterval(int32(a[0]))
			if err != nil {
				return 0, err
			}
			ts := linux.NsTimespec(ns)
			return 0, store(t, a[1], &ts)
		}, Full, ""},
		{"sched_setattr", sysSchedSetattr, Partial, "kept and told, without effect on scheduling"},
		{"sched_getattr", sysSchedGetattr, Full, ""},
		{"sched_setaffinity", sysSetaffinity, Full, ""},
		{"sched_getaffinity", sysGetaffinity, Full, ""},
		{"ioprio_set", func(t *Task, a *Args) (uint64, error) {
			return 0, t.T.IoprioSet(int(int32(a[0])), int32(a[1]), int(int32(a[2])))
		}, Partial, "kept and told, without effect"},
		{"ioprio_get", func(t *Task, a *Args) (uint64, error) { return number(t.T.IoprioGet(int(int32(a[0])), int32(a[1]))) }, Full, ""},
	}
}

func i32(f func(*Task, *Args) (int32, error)) func(*Task, *Args) (uint64, error) {
	return func(t *Task, a *Args) (uint64, error) {
		v, err := f(t, a)
		return uint64(v), err
	}
}

// extensible reads a structure that may be shorter or longer in other versions of the ABI (copy_struct_from_user): what is missing is
// zero, what is unknown must be.
func extensible[T any](t *Task, addr, size uint64) (v T, err error) {
	b := asBytes(&v)
	if size < minExtensible {
		return v, linux.EINVAL
	}
	if size > 4096 {
		return v, linux.E2BIG
	}
	if _, err := t.Mem.CopyIn(b[:min(size, uint64(len(b)))], addr); err != nil {
		return v, linux.EFAULT
	}
	if size > uint64(len(b)) {
		rest := t.buf[:size-uint64(len(b))]
		if _, err := t.Mem.CopyIn(rest, addr+uint64(len(b))); err != nil {
			return v, linux.EFAULT
		}
		for _, c := range rest {
			if c != 0 {
				return v, linux.E2BIG
			}
		}
	}
	return v, nil
}

// minExtensible is the smallest first version of a structure of this kind: that of open_how.
const minExtensible = 24

// affinity masks are of any size that the program likes.
func sysSetaffinity(t *Task, a *Args) (uint64, error) {
	var set proc.CPUSet
	b := asBytes(&set)
	if _, err := t.Mem.CopyIn(b[:min(a[1], uint64(len(b)))], a[2]); err != nil {
		return 0, linux.EFAULT
	}
	return 0, t.T.SchedSetaffinity(int32(a[0]), set)
}

func sysGetaffinity(t *Task, a *Args) (uint64, error) {
	// Linux' mask has as many bits as it has possible CPUs, in whole words.
	const size = 8
	if a[1] < size || a[1]%8 != 0 {
		return 0, linux.EINVAL
	}
	set, err := t.T.SchedGetaffinity(int32(a[0]))
	if err != nil {
		return 0, err
	}
	n := min(a[1], uint64(len(asBytes(&set))))
	return n, t.out(a[2], asBytes(&set)[:n])
}

// clone3 is clone3(2).
func (t *Task) clone3(addr, size uint64) (uint64, error) {
	const first, maxSet = 64, 32 // the first version's size; levels of pid namespaces
	if size < first {
		return 0, linux.EINVAL
	}
	c, err := extensible[linux.CloneArgs](t, addr, size)
	if err != nil {
		return 0, err
	}
	var set []int32
	if c.SetTIDSize > maxSet {
		return 0, linux.EINVAL
	}
	if c.SetTIDSize > 0 && c.SetTID != 0 {
		set = make([]int32, c.SetTIDSize)
		if err := loadSlice(t, c.SetTID, set); err != nil {
			return 0, err
		}
	}
	tid, err := t.T.Clone3(c, set)
	return uint64(tid), err
}

func (t *Task) clone(c linux.CloneArgs) (uint64, error) {
	tid, err := t.T.Clone(c)
	return uint64(tid), err
}

// three stores three ids at the addresses that are the arguments.
func (t *Task) three(a *Args, v ...uint32) (uint64, error) {
	for i := range v {
		if err := store(t, a[i], &v[i]); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

func sysGetgroups(t *Task, a *Args) (uint64, error) {
	g := t.T.Cred().Groups
	n := int32(a[0])
	if n < 0 || n > 0 && int(n) < len(g) {
		return 0, linux.EINVAL
	}
	if n == 0 {
		return uint64(len(g)), nil
	}
	return uint64(len(g)), storeSlice(t, a[1], g)
}

func sysArchPrctl(t *Task, a *Args) (uint64, error) {
	f := &t.T.Regs
	switch a[0] {
	case linux.ARCH_SET_FS, linux.ARCH_SET_GS:
		if a[1] >= 1<<47 {
			return 0, linux.EPERM
		}
		if a[0] == linux.ARCH_SET_FS {
			f.FSBase = a[1]
		} else {
			f.GSBase = a[1]
		}
		return 0, nil
	case linux.ARCH_GET_FS:
		return 0, store(t, a[1], &f.FSBase)
	case linux.ARCH_GET_GS:
		return 0, store(t, a[1], &f.GSBase)
	}
	return 0, linux.EINVAL
}

func sysWait4(t *Task, a *Args) (uint64, error) {
	r, err := t.T.Wait4(int32(a[0]), uint32(a[2]))
	if err != nil || r.PID == 0 {
		return 0, err
	}
	if a[1] != 0 {
		if err := store(t, a[1], &r.Status); err != nil {
			return 0, err
		}
	}
	if a[3] != 0 {
		if err := store(t, a[3], &r.Usage); err != nil {
			return 0, err
		}
	}
	return uint64(r.PID), nil
}

func sysWaitid(t *Task, a *Args) (uint64, error) {
	r, err := t.T.Waitid(int(int32(a[0])), int32(a[1]), uint32(a[3]))
	if err != nil {
		return 0, err
	}
	if a[2] != 0 {
		if err := store(t, a[2], &siginfo{Info: r.Info}); err != nil {
			return 0, err
		}
	}
	if a[4] != 0 && r.PID != 0 {
		return 0, store(t, a[4], &r.Usage)
	}
	return 0, nil
}
