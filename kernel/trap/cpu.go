package trap

import "dinos/kernel/x86"

// PrepareArea fills in the Area at address a for CPU number id; the memory must be zero, mapped, and aligned to AreaSize.
// Any CPU may do this for another one that does not run yet.
func PrepareArea(a uint64, id, apicID uint64) *CPU {
	c := CPUAt(a)
	c.Self = a
	c.ID, c.APICID = id, apicID
	for i := range c.g {
		g := &c.g[i]
		g.lo = a + uint64(stacks[i].first)*granule + guardSize
		g.hi = a + uint64(stacks[i].end)*granule
		// The runtime keeps 928 bytes below the guard for chains of nosplit functions (internal/abi/stack.go); ours
		// is above that.
		g.guard0 = g.lo + 1024
		g.guard1 = g.guard0
		g.m = addressOf(&c.m[i])
		c.m[i].g0 = addressOf(g)
		g.tls = addressOf(g)
		for n := stacks[i].first; n < stacks[i].end; n++ {
			c.gOf[n] = addressOf(g)
		}
	}
	c.KernelSP = c.g[stackKernel].hi - 64
	c.KernelG = addressOf(&c.g[stackKernel])
	c.InKernel = 1
	c.fillTables()
	return c
}

// fillTables writes GDT and TSS (SDM vol. 3A, 3.5 and 7.7).
func (c *CPU) fillTables() {
	tss := addressOf(&c.tss)
	c.gdt = [8]uint64{
		0,
		0x00af9a000000ffff, // kernel code, 64 bit
		0x00cf92000000ffff, // kernel data
		0x00cffa000000ffff, // user code, 32 bit: only a place holder in the order SYSRET wants
		0x00cff2000000ffff, // user data
		0x00affa000000ffff, // user code, 64 bit
		0x0000890000000000 | uint64(len(c.tss)*4-1) | (tss&0xffffff)<<16 | (tss>>24&0xff)<<56,
		tss >> 32,
	}
	set := func(i int, v uint64) { c.tss[i], c.tss[i+1] = uint32(v), uint32(v>>32) }
	set(1, c.g[stackKernel].hi) // RSP0: no gate uses it, all have an IST
	set(9+2*(istIRQ-1), c.g[stackIRQ].hi)
	set(9+2*(istFault-1), c.g[stackFault].hi)
	set(9+2*(istNMI-1), c.g[stackNMI].hi)
	set(9+2*(istDouble-1), c.g[stackDouble].hi)
	set(9+2*(istMachine-1), c.g[stackMachine].hi)
	c.tss[25] = uint32(len(c.tss)*4) << 16 // no I/O permission map: ring 3 has no ports
}

// Load makes this CPU use the Area's tables and the SYSCALL entry. It runs on that CPU, in ring 0, interrupts off,
// after CR4.FSGSBASE is set.
func (c *CPU) Load() {
	d := &c.desc
	gdt, ivt := addressOf(&c.gdt), addressOf(&idt)
	// A pseudo-descriptor is a 16-bit limit followed by a 64-bit base.
	d[0], d[1] = uint64(len(c.gdt)*8-1)|gdt<<16, gdt>>48
	d[2], d[3] = uint64(len(idt)*8-1)|ivt<<16, ivt>>48
	x86.LoadGDT(addressOf(&d[0]), SelKernelCode, SelKernelData)
	x86.LoadIDT(addressOf(&d[2]))
	x86.LoadTR(SelTSS)
	x86.WriteGSBase(c.Self)
	x86.WriteMSR(x86.MSRKGSBase, c.Self) // what SWAPGS gives a SYSCALL from ring 3
	x86.WriteMSR(x86.MSRSTAR, SelUserBase<<48|SelKernelCode<<32)
	x86.WriteMSR(x86.MSRLSTAR, addressOfEntry())
	x86.WriteMSR(x86.MSRSFMASK, x86.FlagIF|x86.FlagDF|x86.FlagTF|x86.FlagAC|x86.FlagNT)
}

// Init installs the kernel's handlers and fills the IDT. Called once, by the first CPU, before its Load.
func Init(h Handlers) {
	handlers = h
	for v := range 256 {
		ist := uint64(istIRQ)
		switch {
		case v == VecNMI:
			ist = istNMI
		case v == VecDouble:
			ist = istDouble
		case v == VecMachine:
			ist = istMachine
		case v < VecIRQ:
			ist = istFault
		}
		dpl := uint64(0)
		if v == VecBreak {
			dpl = 3 // INT3 is for everyone
		}
		at := addressOfStub(v)
		// 64-bit interrupt gate (SDM vol. 3A, 6.14.1): IF is cleared on entry.
		idt[2*v] = at&0xffff | SelKernelCode<<16 | ist<<32 | (0x8e00|dpl<<13)<<32 | (at>>16&0xffff)<<48
		idt[2*v+1] = at >> 32
	}
}

// GuardPages calls f with the address of each guard page of the Area, lowest first.
func (c *CPU) GuardPages(f func(va uint64)) {
	for _, s := range stacks {
		f(c.Self + uint64(s.first)*granule)
	}
}

// RepairStacks makes the stacks for traps usable again after a double fault has shown that one was not.
func (c *CPU) RepairStacks() { c.fillTables() }

// LoseFaultStack points the stack for exceptions at its guard page, so that the next exception cannot be delivered: it
// becomes a double fault. For tests of the crash report.
func (c *CPU) LoseFaultStack() {
	c.tss[9+2*(istFault-1)] = uint32(c.g[stackFault].lo)
	c.tss[10+2*(istFault-1)] = uint32(c.g[stackFault].lo >> 32)
}

// StackName says which of the Area's stacks sp is on, "" if none.
func (c *CPU) StackName(sp uint64) string {
	off := sp - c.Self
	if off >= AreaSize {
		return ""
	}
	for i, s := range stacks {
		if n := int(off / granule); n >= s.first && n < s.end {
			return [...]string{"kernel", "interrupt", "fault", "NMI", "double fault", "machine check"}[i]
		}
	}
	return ""
}

// OnFaultStack reports whether sp is on the fault stack: a fault of the fault handler itself.
func (c *CPU) OnFaultStack(sp uint64) bool {
	g := &c.g[stackFault]
	return sp > g.lo-guardSize && sp <= g.hi
}

// addressOfEntry returns the address of the SYSCALL entry.
func addressOfEntry() uint64

// addressOfStub returns the address of the entry stub of vector v.
func addressOfStub(v int) uint64

// onSyscall is called by the SYSCALL entry.
func onSyscall(cpu *CPU, c *Context) *Context { return handlers.Syscall(cpu, c) }

// onNested is called by the SYSCALL entry when kernel code was running.
func onNested(cpu *CPU, nr uint64, args *[5]uint64) uint64 { return handlers.Nested(cpu, nr, args) }

// onCPU is called by EnterCPU.
func onCPU(cpu *CPU) *Context { return handlers.Start(cpu) }

// onTrap is called by the gates.
func onTrap(cpu *CPU, c *Context) *Context {
	if c.Vector >= VecIRQ {
		return handlers.Interrupt(cpu, c)
	}
	return handlers.Fault(cpu, c)
}

// CPUEntry returns the address of EnterCPU, where the start-up code of other CPUs jumps.
func CPUEntry() uint64 { return addressOfCPUEntry() }

// addressOfCPUEntry returns the address of EnterCPU.
func addressOfCPUEntry() uint64

// OnReportStack leaves whatever stack the CPU is on and calls f, which must not return, on the NMI stack. A crash report runs
// there, so that page faults can still be served on the fault stack.
func (c *CPU) OnReportStack(f func()) {
	g := &c.g[stackNMI]
	callOn(addressOf(g), g.hi-64, f)
}

// callOn makes rg and sp current and calls f. In assembly.
func callOn(rg, sp uint64, f func())

// Idle waits for an interrupt with the CPU halted, as kernel code that holds no lock and has no Current thread.
func Idle() { x86.HaltUntilInterrupt() }
