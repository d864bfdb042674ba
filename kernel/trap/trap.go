// Package trap owns the ways into the kernel: the SYSCALL entry, the 256 interrupt and exception entries, and the
// per-CPU memory they need (GDT, TSS, stacks). It turns each into a call of one Go function on a stack of its own, and
// a returned *Context into the state of the CPU.
//
// # Contexts
//
// Two kinds of code run in ring 0. Thread code is everything under the Go runtime: goroutines, the scheduler, the
// garbage collector; it runs on runtime stacks with interrupts on. Kernel code is what serves a trap; it runs on one of
// the stacks of an Area with interrupts off, from entry until a Context is restored, so it is never preempted and one
// stack per CPU and kind suffices: a thread that blocks leaves nothing on it.
//
// Kernel code is ordinary Go with ordinary stack checks: each Area stack has a g and an m of its own (see runtimeG) that
// hold just what function prologues and print look at. It must not allocate on the Go heap, nor store Go heap
// pointers anywhere but in locals: there is no P, so no allocator cache and no write barrier buffer. State that
// kernel code changes holds offsets, indices and addresses (uint64), never pointers.
//
// # How an entry finds its CPU
//
// All gates switch stacks through the TSS's interrupt stack table, and every Area is aligned to its size: the stack
// pointer with its low bits cleared is the CPU's Area, whatever the GS base was. So NMI, #DB, #MC and faults in the middle of an
// entry or exit need no special case: save FS and GS base, set the kernel's, put them back at the end.
package trap

import "sync/atomic"

// Vectors 0–31 are the CPU's (SDM vol. 3A, table 6-1). The rest are assigned here.
const (
	VecDivide    = 0
	VecDebug     = 1
	VecNMI       = 2
	VecBreak     = 3
	VecUndefined = 6
	VecDouble    = 8
	VecProtect   = 13
	VecPage      = 14
	VecMath      = 16
	VecAlign     = 17
	VecMachine   = 18
	VecSIMD      = 19

	VecIRQ      = 0x20 // first of the external interrupts
	VecTimer    = 0xf0 // LAPIC timer
	VecKick     = 0xf1 // inter-processor: look at your run queue and your current thread
	VecFlush    = 0xf2 // inter-processor: drop translations and acknowledge
	VecSpurious = 0xff

	// VecSyscall marks a Context that was saved by SYSCALL from ring 0: vector registers and flags are dead there
	// by the calling convention and are neither saved nor restored.
	VecSyscall = 0x100
)

// Selectors of the GDT. The order of the user ones is what SYSRET wants (SDM vol. 2B, SYSRET).
const (
	SelKernelCode = 0x08
	SelKernelData = 0x10
	SelUserBase   = 0x18 // STAR[63:48]; SS is base+8, CS is base+16
	SelUserData   = 0x20 | 3
	SelUserCode   = 0x28 | 3
	SelTSS        = 0x30
)

// Context is the state of an interrupted flow, laid out as the entry code pushes it: lowest address first.
type Context struct {
	X         [16][2]uint64 // XMM0–15
	MXCSR     uint64
	CR2       uint64 // of a page fault; set by its handler, not by the entry code
	InKernel  uint64 // CPU.InKernel at entry: not 0 when kernel code was interrupted
	ThreadFS  uint64 // FS base of the thread in ring 0: where the Go runtime keeps its g. Kept across traps by its thread, not by the entry code.
	GSBase    uint64
	FSBase    uint64
	R15       uint64
	R14       uint64
	R13       uint64
	R12       uint64
	R11       uint64
	R10       uint64
	R9        uint64
	R8        uint64
	RBP       uint64
	RDI       uint64
	RSI       uint64
	RDX       uint64
	RCX       uint64
	RBX       uint64
	RAX       uint64
	Vector    uint64
	ErrorCode uint64
	RIP       uint64
	CS        uint64
	RFLAGS    uint64
	RSP       uint64
	SS        uint64
}

// User reports whether the context was interrupted in ring 3.
func (c *Context) User() bool { return c.CS&3 == 3 }

// Area geometry: granules of 16 KiB; the first two are the CPU record, the others are stacks. Each stack's lowest page is
// a guard page once GuardPages has been applied.
const (
	AreaSize  = 256 << 10
	granule   = 16 << 10
	guardSize = 4096
	granules  = AreaSize / granule
)

type stackRange struct{ first, end int } // granules

// The stacks of an Area, by granule. Reports of crashes are written on the fault, NMI and double-fault stacks.
var stacks = [...]stackRange{
	stackKernel:  {2, 5},
	stackIRQ:     {5, 7},
	stackFault:   {7, 10},
	stackNMI:     {10, 12},
	stackDouble:  {12, 14},
	stackMachine: {14, 16},
}

const (
	stackKernel = iota
	stackIRQ
	stackFault
	stackNMI
	stackDouble
	stackMachine
	numStacks
)

// Interrupt stack table slots (1-based in gates).
const (
	istIRQ     = 1
	istFault   = 2
	istNMI     = 3
	istDouble  = 4
	istMachine = 5
)

// runtimeG mirrors the part of the runtime's g that function prologues, morestack and print use, so that Go code runs on a
// stack the runtime does not know. The offsets of the first seven fields are fixed by the toolchain (runtime2.go: "known to
// liblink", "known to runtime/cgo"); the rest is zero and large enough for a whole g.
type runtimeG struct {
	lo, hi         uint64
	guard0, guard1 uint64
	panic_, defer_ uint64
	m              uint64
	rest           [968]byte // 400 in Go 1.26
	tls            uint64    // what FS:-8 must hold: this g
	pad            uint64    // FS points here
}

// runtimeM mirrors the runtime's m in the same way: only g0 is set, to the g of the stack, so that a stack overflow or a panic in
// kernel code is reported by the runtime as on any system stack, through the nested system call path.
type runtimeM struct {
	g0   uint64
	rest [2552]byte // 1,816 in Go 1.26
}

// CPU is the record of one CPU, at the start of its Area. The GS base holds its address whenever ring 0 code runs.
// Only its own CPU writes it, with interrupts off; others may read ID and Idle state kept elsewhere.
type CPU struct {
	Self     uint64 // address of this record
	Current  uint64 // address of the running thread's Context, 0 if none (idle)
	KernelSP uint64 // top of the kernel stack
	KernelG  uint64 // address of the g of the kernel stack
	InKernel uint64 // 1 while kernel code runs on this CPU
	scratch  uint64
	ID       uint64 // 0..n-1, dense; the index of everything per CPU
	APICID   uint64

	// What ring 3 needs; see user.go.
	InUser    atomic.Uint64 // address of the User that runs in ring 3 here, or is on its way there or back
	Root      atomic.Uint64 // of the page tables in CR3, if not the kernel's own; else 0
	Owner     uint64        // address of the User whose extended state is in the CPU's registers, 0 if nobody's
	FlushUser atomic.Uint64 // 1: CR3 must be loaded again before ring 3 runs here
	SaveOwner atomic.Uint64 // 1: somebody waits for Owner's state
	DropRoot  atomic.Uint64 // these page tables go away

	gOf  [granules]uint64
	gdt  [8]uint64
	tss  [26]uint32
	desc [4]uint64 // pseudo-descriptors for LGDT and LIDT
	g    [numStacks]runtimeG
	m    [numStacks]runtimeM
}

// Handlers are the kernel's side of the entries. Each runs as kernel code and returns the Context to restore: the one
// it was given, or that of the thread to run next, after it has set CPU.Current.
type Handlers struct {
	// Syscall serves a SYSCALL from ring 0; c is the thread's own Context.
	Syscall func(cpu *CPU, c *Context) *Context
	// Interrupt serves vectors from VecIRQ up; c is on the interrupt stack and must be copied if the thread is to be switched.
	Interrupt func(cpu *CPU, c *Context) *Context
	// Fault serves the CPU's exceptions; c is on the fault, NMI, double-fault or machine-check stack.
	Fault func(cpu *CPU, c *Context) *Context
	// Nested serves a SYSCALL issued by kernel code itself, which only the Go runtime does and only when it is about to
	// give up (print, throw) or to allocate for a crash report. args are in the order of the system call; it returns the value for RAX.
	Nested func(cpu *CPU, nr uint64, args *[5]uint64) uint64
	// Start continues a CPU that has just entered through EnterCPU.
	Start func(cpu *CPU) *Context
}

// handlers is set once by Init, before the first gate is live, and never changed.
var handlers Handlers
