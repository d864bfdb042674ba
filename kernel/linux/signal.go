package linux

// The signals (signal(7)) that other files do not name.
const (
	SIGHUP    = 1
	SIGINT    = 2
	SIGQUIT   = 3
	SIGABRT   = 6
	SIGKILL   = 9
	SIGUSR1   = 10
	SIGUSR2   = 12
	SIGPIPE   = 13
	SIGALRM   = 14
	SIGTERM   = 15
	SIGSTKFLT = 16
	SIGCHLD   = 17
	SIGCONT   = 18
	SIGSTOP   = 19
	SIGTSTP   = 20
	SIGTTIN   = 21
	SIGTTOU   = 22
	SIGXCPU   = 24
	SIGXFSZ   = 25
	SIGVTALRM = 26
	SIGPROF   = 27
	SIGWINCH  = 28
	SIGIO     = 29
	SIGPWR    = 30
	SIGSYS    = 31
	SIGRTMIN  = 32 // the kernel's; libraries keep the first ones for themselves
	SIGRTMAX  = 64
)

// Handlers that are no addresses.
const (
	SIG_DFL = 0
	SIG_IGN = 1
)

// Flags of sigaction(2). SA_RESTORER, SA_ONSTACK and SA_NODEFER are elsewhere in this package.
const (
	SA_NOCLDSTOP      = 0x1
	SA_NOCLDWAIT      = 0x2
	SA_SIGINFO        = 0x4
	SA_UNSUPPORTED    = 0x400 // never supported: a program finds out by it which flags are kept
	SA_EXPOSE_TAGBITS = 0x800
	SA_RESTART        = 0x10000000
	SA_RESETHAND      = 0x80000000
)

// sigaltstack(2).
const (
	SS_AUTODISARM = 1 << 31
	MINSIGSTKSZ   = 2048
)

// si_code (include/uapi/asm-generic/siginfo.h).
const (
	SI_USER    = 0
	SI_QUEUE   = -1
	SI_TIMER   = -2
	SI_MESGQ   = -3
	SI_ASYNCIO = -4
	SI_SIGIO   = -5

	ILL_ILLOPC = 1
	ILL_PRVOPC = 5
	FPE_INTOVF = 2
	FPE_FLTDIV = 3
	FPE_FLTOVF = 4
	FPE_FLTUND = 5
	FPE_FLTRES = 6
	FPE_FLTINV = 7
	FPE_FLTSUB = 8
	BUS_ADRALN = 1
	BUS_ADRERR = 2
	BUS_OBJERR = 3
	TRAP_TRACE = 2

	CLD_EXITED    = 1
	CLD_KILLED    = 2
	CLD_DUMPED    = 3
	CLD_TRAPPED   = 4
	CLD_STOPPED   = 5
	CLD_CONTINUED = 6

	POLL_IN  = 1
	POLL_HUP = 6
)

// struct sigevent: sigev_notify (timer_create(2)).
const (
	SIGEV_SIGNAL    = 0
	SIGEV_NONE      = 1
	SIGEV_THREAD    = 2
	SIGEV_THREAD_ID = 4
)

// Flags of pidfd_send_signal(2).
const (
	PIDFD_SIGNAL_THREAD        = 1
	PIDFD_SIGNAL_THREAD_GROUP  = 2
	PIDFD_SIGNAL_PROCESS_GROUP = 4
)

// What a signal frame says of itself (arch/x86/include/uapi/asm/{ucontext,sigcontext}.h).
const (
	UC_FP_XSTATE         = 1
	UC_SIGCONTEXT_SS     = 2
	UC_STRICT_RESTORE_SS = 4
	FP_XSTATE_MAGIC1     = 0x46505853
	FP_XSTATE_MAGIC2     = 0x46505845

	// The selectors of 64-bit programs.
	USER_CS = 0x33
	USER_DS = 0x2b
)
