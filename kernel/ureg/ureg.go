// Package ureg is the state of a user thread's CPU as the kernel sees it between two stays in ring 3: what entry code saves, what
// system calls read and write, what a signal frame is made from.
package ureg

// Frame has the registers that every departure from ring 3 saves. Its layout is known to assembly (kernel/trap) through
// go_asm.h. One goroutine, the thread's, owns it while the thread is not in ring 3.
type Frame struct {
	X       [16][2]uint64 // XMM0–15
	MXCSR   uint64
	FSBase  uint64
	GSBase  uint64
	R15     uint64
	R14     uint64
	R13     uint64
	R12     uint64
	R11     uint64
	R10     uint64
	R9      uint64
	R8      uint64
	RBP     uint64
	RDI     uint64
	RSI     uint64
	RDX     uint64
	RCX     uint64
	RBX     uint64
	RAX     uint64 // of a system call: its number, then its result
	RIP     uint64
	RFLAGS  uint64
	RSP     uint64
	Trap    Trap   // why ring 3 was left
	Error   uint64 // the CPU's error code, of traps that have one
	CR2     uint64 // of a page fault: the address
	OrigRAX uint64 // the number of the system call being served, as in Linux' pt_regs; NoSyscall outside of one
}

// Trap is why a thread left ring 3.
type Trap uint64

// Traps below 32 are the CPU's exceptions (SDM vol. 3A, table 6-1).
const (
	Divide    Trap = 0
	Debug     Trap = 1
	Break     Trap = 3
	Overflow  Trap = 4
	Bound     Trap = 5
	Undefined Trap = 6
	NoDevice  Trap = 7
	Segment   Trap = 11
	StackSeg  Trap = 12
	Protect   Trap = 13
	Page      Trap = 14
	Math      Trap = 16
	Align     Trap = 17
	SIMD      Trap = 19

	Syscall   Trap = 0x100 // SYSCALL: RCX and R11 are lost to the program
	Interrupt Trap = 0x101 // the kernel wants the CPU: look for signals and yield
)

// Bits of Error for Page (SDM vol. 3A, 4.7).
const (
	PagePresent = 1 << 0 // the access was not allowed; else nothing was mapped
	PageWrite   = 1 << 1
	PageUser    = 1 << 2
	PageFetch   = 1 << 4
)

// NoSyscall is OrigRAX outside of a system call.
const NoSyscall = ^uint64(0)

// Bits of RFLAGS.
const (
	FlagCF = 1 << 0
	FlagTF = 1 << 8
	FlagIF = 1 << 9
	FlagDF = 1 << 10
	FlagNT = 1 << 14
	FlagRF = 1 << 16
	FlagAC = 1 << 18
	FlagID = 1 << 21

	// UserFlags are those that a program may set: CF PF AF ZF SF TF DF OF NT RF AC ID.
	UserFlags = 0xdd5 | FlagNT | FlagRF | FlagAC | FlagID
)

// DefaultMXCSR masks all SSE exceptions and rounds to nearest, as Linux starts threads (SDM vol. 1, 10.2.3).
const DefaultMXCSR = 0x1f80

// UserTop is the end of the addresses that ring 3 may use, as on Linux: the last page of the lower half stays free, since a
// SYSCALL at its end would return to a non-canonical address.
const UserTop = 1<<47 - 4096

// CPU is a user thread's access to the state that Frame does not have: x87 and the wider vector registers. Linux calls
// the image that XSAVE stores (SDM vol. 1, 13.4), in standard form, the thread's fpstate; signal frames carry it.
type CPU interface {
	// Size is the size of the image in bytes; a multiple of 64, at least 576.
	Size() int
	// Features is the value of XCR0: the components that the image may have. 3 (x87 and SSE) if the CPU has no XSAVE; the
	// image is then FXSAVE's, and the XSAVE header of it is zero.
	Features() uint64
	// Save stores the whole state, Frame's XMM registers and MXCSR included, to image, which has Size bytes.
	Save(f *Frame, image []byte)
	// Load takes the whole state from image; what XSTATE_BV lacks is reset. It reports false, and has changed nothing, if the CPU
	// would refuse the image (reserved bits of MXCSR or of the header).
	Load(f *Frame, image []byte) bool
	// Reset gives the state that a program starts with (FNINIT, default MXCSR, zero registers).
	Reset(f *Frame)
}
