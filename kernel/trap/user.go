package trap

import (
	"sync/atomic"

	"dinos/kernel/ureg"
)

// # Ring 3
//
// Thread code goes to ring 3 by calling User.Enter, which returns when ring 3 is left. So a user thread is a goroutine, its stack stays where it
// is meanwhile (the goroutine is running, to the runtime), and no thread's Context is ever one of ring 3: an
// interrupt either goes back to ring 3 at once, or first makes the thread return from Enter and then does to it what it would
// to other thread code.
//
// General and XMM registers are saved each time. The rest of the CPU's state, x87 and the upper parts of vector registers, stays in the
// CPU, as nothing in ring 0 touches it, until another User wants this CPU, or this User another CPU: CPU.Owner and User.Live
// say whose state is where. The page tables too stay until others are wanted. What is not as it must be is put in order by
// kernel code (package rt) when Enter finds that the User is not ready.

// User is the CPU state of a user thread. It must not move while it exists: a heap object of its own or static. The
// thread's goroutine owns all but the atomics.
type User struct {
	Regs     *ureg.Frame   // in memory that stays where it is, as the heap does
	SP, BP   uint64        // of thread code while ring 3 runs
	Root     uint64        // physical address of the page tables to run on
	Image    uint64        // address of the memory for the extended state: an XSAVE image, 64-byte aligned
	Live     atomic.Uint64 // number of the CPU that has the extended state in its registers, plus 1; 0: it is in Image
	Kicked   atomic.Uint32 // not 0: do not stay in ring 3
	notReady uint32        // set by enterUser
	// fast has the answers of system calls that are constants of the thread, plus 1, by number; 0: the call is served by thread code. The
	// entry code answers them without saving anything.
	fast [FastCalls]uint64
}

// FastCalls is above the highest number of a call with a constant answer (gettid).
const FastCalls = 192

// SetFast has the entry code answer system call nr, which is below FastCalls, with v. The thread's own goroutine calls it.
func (u *User) SetFast(nr int, v uint64) { u.fast[nr] = v + 1 }

// ClearFast undoes all SetFast.
func (u *User) ClearFast() { clear(u.fast[:]) }

// userRegs gives assembly the offsets of a Frame.
type userRegs ureg.Frame

const (
	trapSyscall = ureg.Syscall
	userFlags   = ureg.UserFlags

	initialMXCSR = ureg.DefaultMXCSR
)

// defaultMXCSR is what Go code runs with.
var defaultMXCSR uint32 = initialMXCSR

// Enter runs ring 3 until it is left; Regs.Trap says why. It reports false if the CPU was not ready for this User, and nothing has
// happened. Thread code only.
func (u *User) Enter() bool {
	u.notReady = 0
	enterUser(u)
	return u.notReady == 0
}

// enterUser is Enter's way down. In assembly.
func enterUser(u *User)

// Leave makes the thread of the User that c interrupted in ring 3 on this CPU return from Enter: it saves the registers, and
// makes t the Context that continues the thread. ThreadFS of t stays.
func (c *CPU) Leave(from, t *Context, why ureg.Trap) {
	u := c.User()
	r := u.Regs
	r.X, r.MXCSR, r.FSBase, r.GSBase = from.X, from.MXCSR, from.FSBase, from.GSBase
	r.R15, r.R14, r.R13, r.R12, r.R11, r.R10, r.R9, r.R8 = from.R15, from.R14, from.R13, from.R12, from.R11, from.R10, from.R9, from.R8
	r.RBP, r.RDI, r.RSI, r.RDX, r.RCX, r.RBX, r.RAX = from.RBP, from.RDI, from.RSI, from.RDX, from.RCX, from.RBX, from.RAX
	r.RIP, r.RFLAGS, r.RSP = from.RIP, from.RFLAGS, from.RSP
	r.Trap, r.Error, r.CR2 = why, from.ErrorCode, from.CR2
	c.InUser.Store(0)
	*t = Context{ThreadFS: t.ThreadFS, Vector: VecSyscall, RIP: addressOfFromUser(), RFLAGS: 1 << 9, RSP: u.SP, RBP: u.BP}
}

// addressOfFromUser returns the address of fromUser.
func addressOfFromUser() uint64
