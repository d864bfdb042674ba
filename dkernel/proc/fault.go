package proc

import (
	"encoding/binary"

	"dinos/dkernel/signal"
	"dinos/kernel/linux"
	"dinos/kernel/ureg"
)

// Exception sends the thread the signal for the CPU exception that f reports, as arch/x86/kernel/traps.c does. Page faults are
// PageFault's. An exception that no program can cause is SIGSEGV.
func (t *Thread) Exception(f *ureg.Frame) {
	sig, code, addr := linux.SIGSEGV, int32(linux.SI_KERNEL), uint64(0)
	switch f.Trap {
	case ureg.Divide:
		sig, code, addr = linux.SIGFPE, linux.FPE_INTDIV, f.RIP
	case ureg.Debug:
		sig, code, addr = linux.SIGTRAP, linux.TRAP_BRKPT, f.RIP
		if f.RFLAGS&ureg.FlagTF != 0 {
			code = linux.TRAP_TRACE
		}
	case ureg.Break:
		sig = linux.SIGTRAP
	case ureg.Undefined:
		sig, code, addr = linux.SIGILL, linux.ILL_ILLOPN, f.RIP
	case ureg.Segment, ureg.StackSeg:
		sig = linux.SIGBUS
	case ureg.Align:
		sig, code = linux.SIGBUS, linux.BUS_ADRALN
	case ureg.Math, ureg.SIMD:
		sig, code, addr = linux.SIGFPE, t.mathCode(f), f.RIP
		if code == 0 {
			return // spurious
		}
	}
	t.setFault(f.Trap, f.Error, t.fault.CR2)
	if code == linux.SI_KERNEL {
		t.force(signal.Kernel(sig))
	} else {
		t.force(signal.Fault(sig, code, addr))
	}
}

// PageFault sends the signal for a page fault that the address space could not resolve: sig and code are linux.SIGSEGV with
// SEGV_MAPERR or SEGV_ACCERR, or linux.SIGBUS with BUS_ADRERR. The address is f.CR2.
func (t *Thread) PageFault(f *ureg.Frame, sig int, code int32) {
	e := f.Error | ureg.PageUser
	if f.CR2 >= ureg.UserTop {
		e |= ureg.PagePresent // what is mapped for the kernel is nobody's business
	}
	t.setFault(ureg.Page, e, f.CR2)
	t.force(signal.Fault(sig, code, f.CR2))
}

// OutOfMemory kills the process, because a page that it touched cannot be had.
func (t *Thread) OutOfMemory() {
	_ = t.proc.post(t, nil, signal.Kernel(linux.SIGKILL), true)
}

func (t *Thread) setFault(trap ureg.Trap, code, addr uint64) {
	t.fault = signal.LastFault{TrapNo: uint64(trap), Err: code, CR2: addr}
}

// mathCode is the si_code of a floating point exception (fpu__exception_code).
func (t *Thread) mathCode(f *ureg.Frame) int32 {
	var e uint64
	if f.Trap == ureg.SIMD {
		e = ^(f.MXCSR >> 7) & f.MXCSR
	} else {
		image := make([]byte, t.CPU.Size())
		t.CPU.Save(f, image)
		cwd, swd := binary.LittleEndian.Uint16(image), binary.LittleEndian.Uint16(image[2:])
		e = uint64(swd &^ cwd)
	}
	switch {
	case e&0x01 != 0:
		return linux.FPE_FLTINV
	case e&0x04 != 0:
		return linux.FPE_FLTDIV
	case e&0x08 != 0:
		return linux.FPE_FLTOVF
	case e&0x12 != 0:
		return linux.FPE_FLTUND
	case e&0x20 != 0:
		return linux.FPE_FLTRES
	}
	return 0
}

// ForceKill ends the process by a signal, whatever its disposition (force_fatal_sig): execve that fails too late.
func (t *Thread) ForceKill(sig int) {
	p := t.proc
	p.mu.Lock()
	p.actions().Set(sig, signal.Action{})
	p.mu.Unlock()
	t.force(signal.Kernel(sig))
}

// force sends the thread a signal that it can neither block nor ignore: it is delivered, or ends the process.
func (t *Thread) force(i signal.Info) {
	p, sig := t.proc, int(i.Signo)
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.actions().Get(sig)
	if t.blocked.Has(sig) || a.Handler == linux.SIG_IGN {
		a.Handler = linux.SIG_DFL
		p.actions().Set(sig, a)
		t.blocked &^= signal.Of(sig)
	}
	if a.Handler == linux.SIG_DFL {
		p.unkill = false
	}
	_ = p.postLocked(t, t, i, true)
	t.recalc()
}

// forceSegv is what follows when the frame of sig cannot be made, or undone: SIGSEGV, which ends the process if it was that
// frame's signal (force_sigsegv).
func (t *Thread) forceSegv(sig int) {
	if sig == linux.SIGSEGV {
		t.ForceKill(sig)
		return
	}
	t.force(signal.Kernel(linux.SIGSEGV))
}
