package rt

import (
	"math/bits"

	"dinos/kernel/linux"
	"dinos/kernel/thread"
	"dinos/kernel/trace"
	"dinos/kernel/trap"
	"dinos/kernel/ureg"
	"dinos/kernel/x86"
)

// Signals to the runtime's threads: SIGURG for preemption, and CPU exceptions in thread code, which the runtime turns
// into Go panics. There is one process, and no signal has a default action but the end of the machine.

// deliverable returns the signals that th would take now. sched is held.
func (k *Kernel) deliverable(th thread.ID) uint64 {
	t := &k.tcbs[th]
	return t.pending &^ t.mask
}

// deliver starts the handler of one pending signal, if there is any, in c, the Context of th, which cpu runs. sched is held.
func (k *Kernel) deliver(cpu *trap.CPU, th thread.ID, c *trap.Context) {
	set := k.deliverable(th)
	if set == 0 {
		return
	}
	sig := bits.TrailingZeros64(set) + 1
	k.tcbs[th].pending &^= 1 << (sig - 1)
	if k.actions[sig].Handler <= 1 { // SIG_DFL, SIG_IGN: tgkill has refused what has no handler
		return
	}
	k.cpus[cpu.ID].Trace.Record(k.Now(), trace.Signal, uint64(th), uint64(sig), c.RIP)
	k.handler(th, c, sig, linux.Siginfo{Signo: int32(sig), Code: linux.SI_TKILL, Addr: 1}, 0)
}

// raise makes thread code that caused exception c take the signal for it, and returns the Context to restore; nil if it
// cannot: no handler, or the handler itself is at fault.
func (k *Kernel) raise(cpu *trap.CPU, c *trap.Context) *trap.Context {
	sig, code := signalOf(c)
	th := k.current(cpu)
	if sig == 0 || th == thread.None || c.User() {
		return nil
	}
	t := &k.tcbs[th]
	if k.actions[sig].Handler <= 1 || t.mask&(1<<(sig-1)) != 0 {
		return nil
	}
	address := c.CR2
	if sig != linux.SIGSEGV && sig != linux.SIGBUS {
		address = c.RIP
	}
	k.cpus[cpu.ID].fault = Fault{Context: *c, Time: k.Now(), Thread: th, Valid: true}
	own := k.save(th, c)
	k.handler(th, own, sig, linux.Siginfo{Signo: int32(sig), Code: code, Addr: address}, c.Vector)
	return own
}

// recent is how long ago an exception may be to be taken for the reason of the runtime's end, ns.
const recent = 5_000_000_000

// lastFault returns the last exception of a thread, or with thread.None of any, on whichever CPU it was, nil if that was long
// ago.
func (k *Kernel) lastFault(th thread.ID) *Fault {
	var last *Fault
	for i := range k.ncpu {
		f := &k.cpus[i].fault
		if f.Valid && (th == thread.None || f.Thread == th) && k.Now()-f.Time < recent && (last == nil || f.Time > last.Time) {
			last = f
		}
	}
	return last
}

// signalOf maps an exception to a signal and si_code as Linux does (arch/x86/kernel/traps.c, mm/fault.c).
func signalOf(c *trap.Context) (sig int, code int32) {
	switch c.Vector {
	case trap.VecDivide:
		return linux.SIGFPE, linux.FPE_INTDIV
	case trap.VecDebug, trap.VecBreak:
		return linux.SIGTRAP, linux.TRAP_BRKPT
	case trap.VecUndefined:
		return linux.SIGILL, linux.ILL_ILLOPN
	case trap.VecMath, trap.VecSIMD:
		return linux.SIGFPE, linux.FPE_INTDIV
	case trap.VecPage:
		if c.ErrorCode&1 != 0 {
			return linux.SIGSEGV, linux.SEGV_ACCERR
		}
		return linux.SIGSEGV, linux.SEGV_MAPERR
	case trap.VecProtect:
		return linux.SIGSEGV, linux.SI_KERNEL
	}
	return 0, 0
}

// handler changes c, the Context of th, to enter the handler of sig, with a frame on its signal stack that rt_sigreturn
// undoes: return address, ucontext, siginfo, vector state (arch/x86/kernel/signal_64.c).
func (k *Kernel) handler(th thread.ID, c *trap.Context, sig int, info linux.Siginfo, vector uint64) {
	t := &k.tcbs[th]
	a := &k.actions[sig]
	fillOut(c)
	sp := c.RSP - 128 // the red zone of the C ABI
	onStack := sp-t.altSP < t.altSize
	if a.Flags&linux.SA_ONSTACK != 0 && t.altSize != 0 && !onStack {
		sp = t.altSP + t.altSize
	}
	fp := (sp - sizeFPState) &^ 63
	si := fp - sizeSiginfo
	uc := (si - sizeUcontext) &^ 15
	sp = uc - 8 // so that RSP+8 is a multiple of 16 at the handler's entry, as after a CALL

	f := fpstateAt(fp)
	*f = linux.FPState{CWD: 0x37f, MXCSR: uint32(c.MXCSR), MXCSRMask: 0xffff, XMM: c.X}
	*siginfoAt(si) = info
	flags := int32(0)
	if t.altSize == 0 {
		flags = linux.SS_DISABLE
	} else if onStack {
		flags = linux.SS_ONSTACK
	}
	*ucontextAt(uc) = linux.Ucontext{
		Stack: linux.Stack{SP: t.altSP, Flags: flags, Size: t.altSize},
		Context: linux.Sigcontext{
			R8: c.R8, R9: c.R9, R10: c.R10, R11: c.R11, R12: c.R12, R13: c.R13, R14: c.R14, R15: c.R15,
			RDI: c.RDI, RSI: c.RSI, RBP: c.RBP, RBX: c.RBX, RDX: c.RDX, RAX: c.RAX, RCX: c.RCX,
			RSP: c.RSP, RIP: c.RIP, EFlags: c.RFLAGS, CS: uint16(c.CS), SS: uint16(c.SS),
			Err: c.ErrorCode, TrapNo: vector, OldMask: t.mask, CR2: info.Addr, FPState: fp,
		},
		Sigmask: t.mask,
	}
	*wordAt(sp) = a.Restorer

	t.mask |= a.Mask
	if a.Flags&linux.SA_NODEFER == 0 {
		t.mask |= 1 << (sig - 1)
	}
	c.RSP, c.RIP = sp, a.Handler
	c.RDI, c.RSI, c.RDX, c.RAX = uint64(sig), si, uc, 0
	c.RFLAGS = x86.FlagIF
}

// fillOut makes a Context that was saved by SYSCALL complete.
func fillOut(c *trap.Context) {
	if c.Vector != trap.VecSyscall {
		return
	}
	c.Vector, c.ErrorCode = 0, 0
	c.X = [16][2]uint64{}
	c.MXCSR = ureg.DefaultMXCSR
	c.InKernel = 0
	c.FSBase = c.ThreadFS
	c.CS, c.SS = trap.SelKernelCode, trap.SelKernelData
	c.RCX, c.R11 = c.RIP, c.RFLAGS // as SYSCALL leaves them
}

// sigreturn restores what handler saved; RSP is just above the return address.
func (k *Kernel) sigreturn(th thread.ID, c *trap.Context) {
	u := ucontextAt(c.RSP)
	s := &u.Context
	fs := c.ThreadFS
	*c = trap.Context{
		MXCSR: ureg.DefaultMXCSR, ThreadFS: fs, FSBase: fs,
		R8: s.R8, R9: s.R9, R10: s.R10, R11: s.R11, R12: s.R12, R13: s.R13, R14: s.R14, R15: s.R15,
		RDI: s.RDI, RSI: s.RSI, RBP: s.RBP, RBX: s.RBX, RDX: s.RDX, RAX: s.RAX, RCX: s.RCX,
		RSP: s.RSP, RIP: s.RIP, CS: trap.SelKernelCode, SS: trap.SelKernelData,
		RFLAGS: s.EFlags&^(x86.FlagTF|x86.FlagNT|x86.FlagAC) | x86.FlagIF,
	}
	if s.FPState != 0 {
		f := fpstateAt(s.FPState)
		c.X, c.MXCSR = f.XMM, uint64(f.MXCSR&0xffff)
	}
	k.tcbs[th].mask = u.Sigmask
}

// tgkill marks sig pending for thread tid and makes sure that it notices.
func (k *Kernel) tgkill(cpu *trap.CPU, tid uint64, sig uint64) uint64 {
	th := thread.ID(tid) - firstTID
	if th < 0 || th >= thread.MaxThreads || k.threads.State(th) == thread.Free {
		return linux.ESRCH.Ret()
	}
	if sig > linux.NumSignals {
		return linux.EINVAL.Ret()
	}
	if sig == 0 {
		return 0
	}
	if k.actions[sig].Handler <= 1 {
		return linux.ENOSYS.Ret() // no default actions: nothing may be ignored or killed in a kernel
	}
	k.tcbs[th].pending |= 1 << (sig - 1)
	if k.threads.State(th) == thread.Running {
		k.cpus[cpu.ID].kicks |= 1 << k.threads.CPU(th)
	}
	return 0
}
