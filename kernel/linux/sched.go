package linux

// Flags of clone(2), clone3(2) and unshare(2) (include/uapi/linux/sched.h). CLONE_VM, CLONE_THREAD and CLONE_SETTLS are elsewhere
// in this package.
const (
	CSIGNAL              = 0xff
	CLONE_NEWTIME        = 0x80
	CLONE_FS             = 0x200
	CLONE_FILES          = 0x400
	CLONE_SIGHAND        = 0x800
	CLONE_PIDFD          = 0x1000
	CLONE_PTRACE         = 0x2000
	CLONE_VFORK          = 0x4000
	CLONE_PARENT         = 0x8000
	CLONE_NEWNS          = 0x20000
	CLONE_SYSVSEM        = 0x40000
	CLONE_PARENT_SETTID  = 0x100000
	CLONE_CHILD_CLEARTID = 0x200000
	CLONE_DETACHED       = 0x400000
	CLONE_UNTRACED       = 0x800000
	CLONE_CHILD_SETTID   = 0x1000000
	CLONE_NEWCGROUP      = 0x2000000
	CLONE_NEWUTS         = 0x4000000
	CLONE_NEWIPC         = 0x8000000
	CLONE_NEWUSER        = 0x10000000
	CLONE_NEWPID         = 0x20000000
	CLONE_NEWNET         = 0x40000000
	CLONE_IO             = 0x80000000
	CLONE_CLEAR_SIGHAND  = 0x100000000
	CLONE_INTO_CGROUP    = 0x200000000

	CLONE_ARGS_SIZE_VER0 = 64
	CLONE_ARGS_SIZE_VER2 = 88
)

// wait4(2), waitid(2).
const (
	WNOHANG        = 1
	WUNTRACED      = 2
	WSTOPPED       = 2
	WEXITED        = 4
	WCONTINUED     = 8
	WNOWAIT        = 0x1000000
	WNOTHREAD      = 0x20000000
	WALL           = 0x40000000
	WCLONE         = 0x80000000
	P_ALL          = 0
	P_PID          = 1
	P_PGID         = 2
	P_PIDFD        = 3
	PIDFD_NONBLOCK = 0x800
	PIDFD_THREAD   = 0x80
)

// Scheduling (sched(7)).
const (
	SCHED_OTHER         = 0
	SCHED_FIFO          = 1
	SCHED_RR            = 2
	SCHED_BATCH         = 3
	SCHED_IDLE          = 5
	SCHED_DEADLINE      = 6
	SCHED_RESET_ON_FORK = 0x40000000

	SCHED_FLAG_RESET_ON_FORK  = 1
	SCHED_FLAG_RECLAIM        = 2
	SCHED_FLAG_DL_OVERRUN     = 4
	SCHED_FLAG_KEEP_POLICY    = 8
	SCHED_FLAG_KEEP_PARAMS    = 0x10
	SCHED_FLAG_UTIL_CLAMP_MIN = 0x20
	SCHED_FLAG_UTIL_CLAMP_MAX = 0x40
	SCHED_ATTR_SIZE_VER0      = 48
	SCHED_ATTR_SIZE_VER1      = 56

	PRIO_PROCESS = 0
	PRIO_PGRP    = 1
	PRIO_USER    = 2

	IOPRIO_WHO_PROCESS = 1
	IOPRIO_WHO_PGRP    = 2
	IOPRIO_WHO_USER    = 3
	IOPRIO_CLASS_NONE  = 0
	IOPRIO_CLASS_RT    = 1
	IOPRIO_CLASS_BE    = 2
	IOPRIO_CLASS_IDLE  = 3
)

// Resource limits (getrlimit(2), include/uapi/asm-generic/resource.h).
const (
	RLIMIT_CPU        = 0
	RLIMIT_FSIZE      = 1
	RLIMIT_DATA       = 2
	RLIMIT_STACK      = 3
	RLIMIT_CORE       = 4
	RLIMIT_RSS        = 5
	RLIMIT_NPROC      = 6
	RLIMIT_NOFILE     = 7
	RLIMIT_MEMLOCK    = 8
	RLIMIT_AS         = 9
	RLIMIT_LOCKS      = 10
	RLIMIT_SIGPENDING = 11
	RLIMIT_MSGQUEUE   = 12
	RLIMIT_NICE       = 13
	RLIMIT_RTPRIO     = 14
	RLIMIT_RTTIME     = 15
	RLIM_NLIMITS      = 16
	RLIM_INFINITY     = ^uint64(0)

	RUSAGE_SELF     = 0
	RUSAGE_CHILDREN = -1
	RUSAGE_THREAD   = 1
)

// prctl(2) (include/uapi/linux/prctl.h).
const (
	PR_SET_PDEATHSIG        = 1
	PR_GET_PDEATHSIG        = 2
	PR_GET_DUMPABLE         = 3
	PR_SET_DUMPABLE         = 4
	PR_GET_UNALIGN          = 5
	PR_SET_UNALIGN          = 6
	PR_GET_KEEPCAPS         = 7
	PR_SET_KEEPCAPS         = 8
	PR_GET_FPEMU            = 9
	PR_GET_TIMING           = 13
	PR_SET_TIMING           = 14
	PR_SET_NAME             = 15
	PR_GET_NAME             = 16
	PR_GET_ENDIAN           = 19
	PR_GET_SECCOMP          = 21
	PR_SET_SECCOMP          = 22
	PR_CAPBSET_READ         = 23
	PR_CAPBSET_DROP         = 24
	PR_GET_TSC              = 25
	PR_SET_TSC              = 26
	PR_GET_SECUREBITS       = 27
	PR_SET_SECUREBITS       = 28
	PR_SET_TIMERSLACK       = 29
	PR_GET_TIMERSLACK       = 30
	PR_MCE_KILL             = 33
	PR_MCE_KILL_GET         = 34
	PR_SET_MM               = 35
	PR_SET_CHILD_SUBREAPER  = 36
	PR_GET_CHILD_SUBREAPER  = 37
	PR_SET_NO_NEW_PRIVS     = 38
	PR_GET_NO_NEW_PRIVS     = 39
	PR_GET_TID_ADDRESS      = 40
	PR_SET_THP_DISABLE      = 41
	PR_GET_THP_DISABLE      = 42
	PR_CAP_AMBIENT          = 47
	PR_GET_SPECULATION_CTRL = 52
	PR_SET_SPECULATION_CTRL = 53
	PR_SET_IO_FLUSHER       = 57
	PR_GET_IO_FLUSHER       = 58
	PR_SET_VMA              = 0x53564d41
	PR_SET_PTRACER          = 0x59616d61

	PR_CAP_AMBIENT_IS_SET    = 1
	PR_CAP_AMBIENT_RAISE     = 2
	PR_CAP_AMBIENT_LOWER     = 3
	PR_CAP_AMBIENT_CLEAR_ALL = 4
	PR_TSC_ENABLE            = 1
	PR_TSC_SIGSEGV           = 2

	SECBIT_NOROOT          = 1 << 0
	SECBIT_NO_SETUID_FIXUP = 1 << 2
	SECBIT_KEEP_CAPS       = 1 << 4
	SECBIT_NO_CAP_AMBIENT  = 1 << 6
	SECBITS_ALL            = 0xff
)

// Robust futexes, restartable sequences, barriers (include/uapi/linux/{futex,rseq,membarrier}.h).
const (
	FUTEX_REQUEUE         = 3
	FUTEX_CMP_REQUEUE     = 4
	FUTEX_WAKE_OP         = 5
	FUTEX_LOCK_PI         = 6
	FUTEX_UNLOCK_PI       = 7
	FUTEX_TRYLOCK_PI      = 8
	FUTEX_WAIT_BITSET     = 9
	FUTEX_WAKE_BITSET     = 10
	FUTEX_WAIT_REQUEUE_PI = 11
	FUTEX_CMP_REQUEUE_PI  = 12
	FUTEX_LOCK_PI2        = 13
	FUTEX_CLOCK_REALTIME  = 256
	FUTEX_CMD_MASK        = ^(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME)

	FUTEX_WAITERS    = 0x80000000
	FUTEX_OWNER_DIED = 0x40000000
	FUTEX_TID_MASK   = 0x3fffffff

	FUTEX_BITSET_MATCH_ANY = 0xffffffff
	FUTEX_WAITV_MAX        = 128
	FUTEX2_SIZE_U32        = 2
	FUTEX2_PRIVATE         = FUTEX_PRIVATE_FLAG
	ROBUST_LIST_LIMIT      = 2048

	RSEQ_FLAG_UNREGISTER = 1

	MEMBARRIER_CMD_QUERY                                = 0
	MEMBARRIER_CMD_GLOBAL                               = 1
	MEMBARRIER_CMD_GLOBAL_EXPEDITED                     = 2
	MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED            = 4
	MEMBARRIER_CMD_PRIVATE_EXPEDITED                    = 8
	MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED           = 16
	MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE          = 32
	MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE = 64
	MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ               = 128
	MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ      = 256
	MEMBARRIER_CMD_GET_REGISTRATIONS                    = 512
	MEMBARRIER_CMD_FLAG_CPU                             = 1
)

// Clocks and timers (clock_gettime(2), setitimer(2), timer_create(2)).
const (
	CLOCK_PROCESS_CPUTIME_ID = 2
	CLOCK_THREAD_CPUTIME_ID  = 3
	CLOCK_MONOTONIC_RAW      = 4
	CLOCK_REALTIME_COARSE    = 5
	CLOCK_MONOTONIC_COARSE   = 6
	CLOCK_BOOTTIME           = 7
	CLOCK_REALTIME_ALARM     = 8
	CLOCK_BOOTTIME_ALARM     = 9
	CLOCK_TAI                = 11

	TIMER_ABSTIME = 1

	ITIMER_REAL    = 0
	ITIMER_VIRTUAL = 1
	ITIMER_PROF    = 2
)

// CloneArgs is struct clone_args of clone3(2); all fields are of the latest version, older programs pass a shorter one.
type CloneArgs struct {
	Flags, Pidfd, ChildTID, ParentTID, ExitSignal, Stack, StackSize, TLS, SetTID, SetTIDSize, Cgroup uint64
}

// Timeval is struct timeval.
type Timeval struct{ Sec, Usec int64 }

// Itimerval is struct itimerval.
type Itimerval struct{ Interval, Value Timeval }

// Itimerspec is struct itimerspec.
type Itimerspec struct{ Interval, Value Timespec }

// Rusage is struct rusage.
type Rusage struct {
	Utime, Stime                                              Timeval
	Maxrss, Ixrss, Idrss, Isrss, Minflt, Majflt, Nswap        int64
	Inblock, Oublock, Msgsnd, Msgrcv, Nsignals, Nvcsw, Nivcsw int64
}

// Rlimit is struct rlimit64.
type Rlimit struct{ Cur, Max uint64 }

// Tms is struct tms of times(2), in clock ticks of 10 ms.
type Tms struct{ Utime, Stime, Cutime, Cstime int64 }

// SchedAttr is struct sched_attr of sched_setattr(2).
type SchedAttr struct {
	Size, Policy              uint32
	Flags                     uint64
	Nice                      int32
	Priority                  uint32
	Runtime, Deadline, Period uint64
	UtilMin, UtilMax          uint32
}

// NsTimespec returns the Timespec of ns.
func NsTimespec(ns int64) Timespec { return Timespec{ns / 1e9, ns % 1e9} }

// NsTimeval returns the Timeval of ns, rounded down.
func NsTimeval(ns int64) Timeval { return Timeval{ns / 1e9, ns % 1e9 / 1000} }

// Ns returns the time in ns, and whether it is one, as Timespec.Ns does.
func (t Timeval) Ns() (int64, bool) {
	if uint64(t.Usec) >= 1e6 {
		return 0, false
	}
	return Timespec{t.Sec, t.Usec * 1000}.Ns()
}
