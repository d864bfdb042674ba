package linux

// Timespec is struct timespec.
type Timespec struct{ Sec, Nsec int64 }

// Ns returns the time in ns, and whether it is one: not negative, a fraction below a second, and no overflow.
func (t Timespec) Ns() (int64, bool) {
	if t.Sec < 0 || uint64(t.Nsec) >= 1e9 {
		return 0, false
	}
	if t.Sec > (1<<63-1)/1_000_000_000-1 {
		return 1<<63 - 1, true
	}
	return t.Sec*1e9 + t.Nsec, true
}

// Sigaction is struct kernel_sigaction.
type Sigaction struct {
	Handler  uint64
	Flags    uint64
	Restorer uint64
	Mask     uint64
}

// Stack is stack_t of sigaltstack(2).
type Stack struct {
	SP    uint64
	Flags int32
	_     int32
	Size  uint64
}

// Siginfo is siginfo_t, with the fields of a fault (Addr) and of kill (PID, UID in Addr) in one.
type Siginfo struct {
	Signo, Errno, Code, _ int32
	Addr                  uint64
	_                     [104]byte
}

// FPState is the legacy area of XSAVE (struct _fpstate; SDM vol. 1, 10.5.1).
type FPState struct {
	CWD, SWD, TWD, FOP uint16
	RIP, RDP           uint64
	MXCSR, MXCSRMask   uint32
	ST                 [16]uint64
	XMM                [16][2]uint64
	_                  [96]byte
}

// Sigcontext is struct sigcontext_64.
type Sigcontext struct {
	R8, R9, R10, R11, R12, R13, R14, R15 uint64
	RDI, RSI, RBP, RBX, RDX, RAX, RCX    uint64
	RSP, RIP, EFlags                     uint64
	CS, GS, FS, SS                       uint16
	Err, TrapNo, OldMask, CR2            uint64
	FPState                              uint64
	_                                    [8]uint64
}

// Ucontext is struct ucontext: what a signal handler is given and rt_sigreturn restores.
type Ucontext struct {
	Flags   uint64
	Link    uint64
	Stack   Stack
	Context Sigcontext
	Sigmask uint64
	_       [15]uint64 // glibc and the Go runtime believe sigset_t to have 1,024 bits
}

// EpollEvent is struct epoll_event, which is packed on x86-64: 12 bytes.
type EpollEvent struct {
	Events uint32
	Data   [2]uint32
}
