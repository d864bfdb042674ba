package signal

import (
	"encoding/binary"

	"dinos/dkernel/uio"
	"dinos/kernel/linux"
	"dinos/kernel/ureg"
)

// The frame that a handler is entered on, from low addresses to high ones (struct rt_sigframe; arch/x86/kernel/signal_64.c,
// arch/x86/kernel/fpu/signal.c):
//
//	0    return address: the restorer
//	8    ucontext: flags, link, stack, 256 bytes of sigcontext, mask
//	312  siginfo
//	440  padding
//	456  XSAVE image, at a multiple of 64, with the words for software filled in; after it MAGIC2
const (
	offUcontext = 8
	offStack    = offUcontext + 16
	offContext  = offUcontext + 40
	offMask     = offContext + 256
	offInfo     = offMask + 8
	offFP       = 456
	ucontextLen = offInfo - offUcontext

	fxsaveLen  = 512
	fxReserved = 464 // of the FXSAVE area: struct _fpx_sw_bytes
	xheaderLen = 64
	magic2Len  = 4

	redZone = 128
)

// fixFlags are the bits of RFLAGS that rt_sigreturn restores (FIX_EFLAGS).
const fixFlags = ureg.FlagAC | 1<<11 | ureg.FlagDF | ureg.FlagTF | 1<<7 | 1<<6 | 1<<4 | 1<<2 | ureg.FlagCF | ureg.FlagRF

// AltStack is the alternate signal stack of a thread (sigaltstack(2)).
type AltStack struct {
	SP    uint64
	Flags uint32 // SS_DISABLE, SS_AUTODISARM; SS_ONSTACK is computed
	Size  uint64
}

// Disabled is the alternate stack of a new thread: none. After execve(2) there is none either, but Flags stay.
var Disabled = AltStack{Flags: linux.SS_DISABLE}

// Has reports whether sp is on the stack, in the way Linux looks at it: on a stack that disarms itself nobody is.
func (a *AltStack) Has(sp uint64) bool { return a.Flags&linux.SS_AUTODISARM == 0 && a.within(sp) }

func (a *AltStack) within(sp uint64) bool { return sp > a.SP && sp-a.SP <= a.Size }

// State is the value of ss_flags that a program is told.
func (a *AltStack) State(sp uint64) uint32 {
	switch {
	case a.Size == 0:
		return linux.SS_DISABLE
	case a.Has(sp):
		return linux.SS_ONSTACK
	}
	return 0
}

// Set does what sigaltstack(2) does with a new stack; sp is the thread's stack pointer. linux.EPERM: it is on the present one;
// linux.EINVAL: flags; linux.ENOMEM: too small.
func (a *AltStack) Set(n AltStack, sp, minimum uint64) error {
	if a.Has(sp) {
		return linux.EPERM
	}
	mode := n.Flags &^ linux.SS_AUTODISARM
	if mode != linux.SS_DISABLE && mode != linux.SS_ONSTACK && mode != 0 {
		return linux.EINVAL
	}
	if mode == linux.SS_DISABLE {
		n.SP, n.Size = 0, 0
	} else if n.Size < minimum {
		return linux.ENOMEM
	}
	*a = n
	return nil
}

// LastFault is the last fault of a thread, which stays in its signal frames until the next one.
type LastFault struct{ TrapNo, Err, CR2 uint64 }

// Context is what goes in a frame besides the registers.
type Context struct {
	Info   Info
	Action Action
	Mask   Set // the mask that rt_sigreturn restores
	Alt    AltStack
	Fault  LastFault
}

// Stack builds and undoes frames for one thread; it keeps the buffer they are built in. Its thread's goroutine uses it.
type Stack struct{ buf []byte }

// bufPad puts the XSAVE image at a multiple of 64 in the buffer.
const bufPad = 512 - offFP

func (s *Stack) buffer(cpu ureg.CPU) []byte {
	if s.buf == nil {
		s.buf = make([]byte, bufPad+offFP+cpu.Size()+magic2Len)
	}
	return s.buf[bufPad:]
}

// MinSize is the least that sigaltstack(2) accepts with SS_ONSTACK, and AT_MINSIGSTKSZ the size of a frame: the size of the XSAVE image, plus
// all that surrounds it and the worst alignment (sigframe_size in arch/x86/kernel/signal.c).
func MinSize(cpu ureg.CPU) uint64 {
	n := uint64(offFP+63+cpu.Size()+magic2Len) + redZone
	return (n + 15) &^ 15
}

// Push makes the thread enter the handler of a signal: it stores a frame to the program's stack and changes f. linux.EFAULT: the
// stack cannot hold it, or the action has no restorer; the thread must get SIGSEGV. f is unchanged then.
func (s *Stack) Push(mem uio.Memory, cpu ureg.CPU, f *ureg.Frame, c *Context) error {
	if c.Action.Flags&linux.SA_RESTORER == 0 {
		return linux.EFAULT
	}
	sp, onAlt := f.RSP-redZone, c.Alt.Has(f.RSP)
	if c.Action.Flags&linux.SA_ONSTACK != 0 && c.Alt.State(sp) == 0 {
		sp, onAlt = c.Alt.SP+c.Alt.Size, true
	}
	size := cpu.Size()
	fp := (sp - uint64(size+magic2Len)) &^ 63
	sp = fp - offFP
	// A frame that left the alternate stack at its lower end would overwrite what is there.
	if onAlt && !c.Alt.within(sp) {
		return linux.EFAULT
	}
	if sp >= ureg.UserTop || fp+uint64(size+magic2Len) > ureg.UserTop {
		return linux.EFAULT
	}
	b := s.buffer(cpu)
	s.fill(b, cpu, f, c, fp)
	if _, err := mem.CopyOut(sp, b); err != nil {
		return linux.EFAULT
	}
	f.RIP, f.RSP = c.Action.Handler, sp
	f.RDI, f.RSI, f.RDX, f.RAX = uint64(c.Info.Signo), sp+offInfo, sp+offUcontext, 0
	f.RFLAGS &^= ureg.FlagDF | ureg.FlagRF | ureg.FlagTF
	return nil
}

func (s *Stack) fill(b []byte, cpu ureg.CPU, f *ureg.Frame, c *Context, fp uint64) {
	le := binary.LittleEndian
	le.PutUint64(b, c.Action.Restorer)
	le.PutUint64(b[offUcontext:], linux.UC_FP_XSTATE|linux.UC_SIGCONTEXT_SS|linux.UC_STRICT_RESTORE_SS)
	le.PutUint64(b[offUcontext+8:], 0)
	le.PutUint64(b[offStack:], c.Alt.SP)
	le.PutUint64(b[offStack+8:], uint64(c.Alt.Flags))
	le.PutUint64(b[offStack+16:], c.Alt.Size)
	for i, v := range [...]uint64{f.R8, f.R9, f.R10, f.R11, f.R12, f.R13, f.R14, f.R15, f.RDI, f.RSI, f.RBP, f.RBX, f.RDX,
		f.RAX, f.RCX, f.RSP, f.RIP, f.RFLAGS, linux.USER_CS | linux.USER_DS<<48, c.Fault.Err, c.Fault.TrapNo, uint64(c.Mask),
		c.Fault.CR2, fp} {
		le.PutUint64(b[offContext+8*i:], v)
	}
	le.PutUint64(b[offMask:], uint64(c.Mask))
	c.Info.Put(b[offInfo:])

	size := cpu.Size()
	image := b[offFP : offFP+size]
	cpu.Save(f, image)
	features := cpu.Features()
	sw := image[fxReserved:fxsaveLen]
	clear(sw)
	le.PutUint32(sw, linux.FP_XSTATE_MAGIC1)
	le.PutUint32(sw[4:], uint32(size+magic2Len))
	le.PutUint64(sw[8:], features)
	le.PutUint32(sw[16:], uint32(size))
	// A program that knows FXSAVE only changes the legacy area without a look at XSTATE_BV, so x87 and SSE are always there.
	image[fxsaveLen] |= 3
	le.PutUint32(b[offFP+size:], linux.FP_XSTATE_MAGIC2)
}

// Restored is what rt_sigreturn restores besides the registers.
type Restored struct {
	Mask Set
	Alt  AltStack
}

// Pop undoes Push (rt_sigreturn(2)): f.RSP is just above the return address of a frame, of which nothing is believed. What no
// program may have, such as kernel selectors or privileged flags, is refused or mended, as Linux does. The registers that are
// set may have an RIP that is no user address: who enters ring 3 must look. linux.EFAULT: the thread must get SIGSEGV; f is partly
// changed then, like Linux'.
func (s *Stack) Pop(mem uio.Memory, cpu ureg.CPU, f *ureg.Frame) (r Restored, err error) {
	b := s.buffer(cpu)
	base := f.RSP - offUcontext
	// All of it at once, if the stack goes that far.
	whole := true
	if _, err := mem.CopyIn(b[offUcontext:], f.RSP); err != nil {
		whole = false
		if _, err := mem.CopyIn(b[offUcontext:offInfo], f.RSP); err != nil {
			return r, linux.EFAULT
		}
	}
	le := binary.LittleEndian
	r.Mask = Set(le.Uint64(b[offMask:])) &^ Unblockable
	r.Alt = AltStack{SP: le.Uint64(b[offStack:]), Flags: le.Uint32(b[offStack+8:]), Size: le.Uint64(b[offStack+16:])}

	w := func(i int) uint64 { return le.Uint64(b[offContext+8*i:]) }
	for i, p := range [...]*uint64{&f.R8, &f.R9, &f.R10, &f.R11, &f.R12, &f.R13, &f.R14, &f.R15, &f.RDI, &f.RSI, &f.RBP, &f.RBX,
		&f.RDX, &f.RAX, &f.RCX, &f.RSP, &f.RIP} {
		*p = w(i)
	}
	f.RFLAGS = f.RFLAGS&^fixFlags | w(17)&fixFlags
	f.OrigRAX = ureg.NoSyscall
	cs, ss := uint16(w(18))|3, uint16(w(18)>>48)|3
	strict := le.Uint64(b[offUcontext:])&linux.UC_STRICT_RESTORE_SS != 0
	if cs != linux.USER_CS || strict && ss != linux.USER_DS {
		return r, linux.EFAULT
	}
	fp := w(23)
	if fp == 0 {
		cpu.Reset(f)
		return r, nil
	}
	if fp != base+offFP || !whole {
		return r, s.popVectors(mem, cpu, f, fp)
	}
	return r, s.load(cpu, f, b[offFP:])
}

// popVectors restores vector state that is not where Push puts it.
func (s *Stack) popVectors(mem uio.Memory, cpu ureg.CPU, f *ureg.Frame, fp uint64) error {
	if fp%64 != 0 {
		return linux.EFAULT // XRSTOR would refuse
	}
	b := s.buffer(cpu)[offFP:]
	if _, err := mem.CopyIn(b, fp); err != nil {
		// An FXSAVE area is enough, if it does not claim to be more.
		if _, err := mem.CopyIn(b[:fxsaveLen], fp); err != nil {
			return linux.EFAULT
		}
		binary.LittleEndian.PutUint32(b[fxReserved:], 0)
	}
	return s.load(cpu, f, b)
}

// load takes vector state from an image with MAGIC2 after it. One that does not describe itself rightly is an FXSAVE area.
func (s *Stack) load(cpu ureg.CPU, f *ureg.Frame, b []byte) error {
	le := binary.LittleEndian
	size := cpu.Size()
	sw := b[fxReserved:fxsaveLen]
	claimed := int64(le.Uint32(sw[16:]))
	image := b[:size]
	if le.Uint32(sw) != linux.FP_XSTATE_MAGIC1 || claimed < fxsaveLen+xheaderLen || claimed > int64(size) ||
		claimed > int64(le.Uint32(sw[4:])) || le.Uint32(b[claimed:]) != linux.FP_XSTATE_MAGIC2 {
		clear(image[fxsaveLen:])
		image[fxsaveLen] = 3
	} else {
		clear(image[claimed:])
		// Components that the frame does not claim to have are reset.
		bv := le.Uint64(image[fxsaveLen:]) & (le.Uint64(sw[8:]) | ^cpu.Features())
		le.PutUint64(image[fxsaveLen:], bv)
	}
	if !cpu.Load(f, image) {
		return linux.EFAULT
	}
	return nil
}
