// Package linux holds the numbers and structures of the Linux x86-64 system call interface that the kernels serve. A
// test compares every constant with the ones the Go distribution generates from Linux' headers.
package linux

// System call numbers (arch/x86/entry/syscalls/syscall_64.tbl).
const (
	SYS_READ              = 0
	SYS_WRITE             = 1
	SYS_OPEN              = 2
	SYS_CLOSE             = 3
	SYS_MMAP              = 9
	SYS_MPROTECT          = 10
	SYS_MUNMAP            = 11
	SYS_RT_SIGACTION      = 13
	SYS_RT_SIGPROCMASK    = 14
	SYS_RT_SIGRETURN      = 15
	SYS_IOCTL             = 16
	SYS_ACCESS            = 21
	SYS_SCHED_YIELD       = 24
	SYS_MINCORE           = 27
	SYS_MADVISE           = 28
	SYS_NANOSLEEP         = 35
	SYS_GETPID            = 39
	SYS_CLONE             = 56
	SYS_EXIT              = 60
	SYS_UNAME             = 63
	SYS_FCNTL             = 72
	SYS_GETUID            = 102
	SYS_GETGID            = 104
	SYS_GETEUID           = 107
	SYS_GETEGID           = 108
	SYS_SIGALTSTACK       = 131
	SYS_PRCTL             = 157
	SYS_ARCH_PRCTL        = 158
	SYS_GETTID            = 186
	SYS_FUTEX             = 202
	SYS_SCHED_SETAFFINITY = 203
	SYS_SCHED_GETAFFINITY = 204
	SYS_TIMER_CREATE      = 222
	SYS_CLOCK_GETTIME     = 228
	SYS_EXIT_GROUP        = 231
	SYS_EPOLL_CTL         = 233
	SYS_TGKILL            = 234
	SYS_OPENAT            = 257
	SYS_FACCESSAT         = 269
	SYS_EPOLL_PWAIT       = 281
	SYS_EVENTFD2          = 290
	SYS_EPOLL_CREATE1     = 291
	SYS_PIPE2             = 293
	SYS_PRLIMIT64         = 302
	SYS_GETRANDOM         = 318
)

// Memory mapping (mmap(2), madvise(2)).
const (
	PROT_READ  = 1
	PROT_WRITE = 2
	PROT_EXEC  = 4

	MAP_SHARED          = 0x1
	MAP_PRIVATE         = 0x2
	MAP_FIXED           = 0x10
	MAP_ANONYMOUS       = 0x20
	MAP_FIXED_NOREPLACE = 0x100000

	MADV_DONTNEED = 4
	MADV_FREE     = 8
)

// Futex operations (futex(2)).
const (
	FUTEX_WAIT         = 0
	FUTEX_WAKE         = 1
	FUTEX_PRIVATE_FLAG = 128
)

// Threads, signals, clocks (clone(2), sigaction(2), clock_gettime(2), arch_prctl(2)).
const (
	CLONE_VM      = 0x100
	CLONE_THREAD  = 0x10000
	CLONE_SETTLS  = 0x80000
	ARCH_SET_GS   = 0x1001
	ARCH_SET_FS   = 0x1002
	ARCH_GET_FS   = 0x1003
	ARCH_GET_GS   = 0x1004
	SIG_BLOCK     = 0
	SIG_UNBLOCK   = 1
	SIG_SETMASK   = 2
	SA_RESTORER   = 0x4000000
	SA_ONSTACK    = 0x8000000
	SA_NODEFER    = 0x40000000
	SS_ONSTACK    = 1
	SS_DISABLE    = 2
	SIGILL        = 4
	SIGTRAP       = 5
	SIGBUS        = 7
	SIGFPE        = 8
	SIGSEGV       = 11
	SIGURG        = 23
	SI_TKILL      = -6
	SI_KERNEL     = 0x80
	SEGV_MAPERR   = 1
	SEGV_ACCERR   = 2
	FPE_INTDIV    = 1
	ILL_ILLOPN    = 2
	TRAP_BRKPT    = 1
	NumSignals    = 64
	EFD_SEMAPHORE = 1

	CLOCK_REALTIME  = 0
	CLOCK_MONOTONIC = 1
)

// Event polling (epoll_ctl(2)).
const (
	EPOLL_CTL_ADD = 1
	EPOLL_CTL_DEL = 2
	EPOLL_CTL_MOD = 3
	EPOLLIN       = 0x1
	EPOLLOUT      = 0x4
	EPOLLET       = 1 << 31
)

// Auxiliary vector tags (getauxval(3)).
const (
	AT_NULL   = 0
	AT_PAGESZ = 6
	AT_RANDOM = 25
)
