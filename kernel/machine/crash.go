package machine

import (
	"sync/atomic"

	"dinos/kernel/klog"
	"dinos/kernel/mem"
	"dinos/kernel/paging"
	"dinos/kernel/testproto"
	"dinos/kernel/trace"
	"dinos/kernel/trap"
	"dinos/kernel/x86"
)

// The crash report. It is written by the CPU that crashed, after it has stopped the others, in parts from the certain
// to the ambitious: registers need nothing, the disassembly needs a heap. A part that fails (another exception, a lock that
// nobody will release) ends up in crash again, which goes on with the next part.

// report is the state of the machine's only crash.
var report struct {
	owner  atomic.Int64 // CPU number + 1
	cpu    *trap.CPU
	reason string
	c      trap.Context // where it crashed
	valid  bool         // c holds something
	next   int          // part to write next
	line   klog.Line

	stopped [MaxCPUs]struct {
		c    trap.Context
		done atomic.Uint32
	}
}

// parts of the report, in order.
var parts = [...]struct {
	name string
	do   func()
}{
	{"registers", reportRegisters},
	{"code", reportCode},
	{"heap", dinosCrashHeap}, // what follows allocates
	{"instruction", reportInstruction},
	{"stack", reportStack},
	{"thread", reportThread},
	{"events", reportEvents},
	{"other CPUs", reportOthers},
	{"memory", reportMemory},
}

// crash writes the report and ends the machine. c is the Context in question, nil if the runtime gave up in kernel code.
func crash(cpu *trap.CPU, c *trap.Context, reason string) {
	r := &report
	me := int64(cpu.ID) + 1
	switch {
	case r.owner.CompareAndSwap(0, me):
		dinosCrashBegin() // first: the next lines store pointers
		kernel.Dying.Store(1)
		r.cpu, r.reason = cpu, reason
		if c != nil {
			r.c, r.valid = *c, true
		}
		stopOthers(cpu)
		kernel.ReleaseReserve()
		cpu.RepairStacks()
	case r.owner.Load() != me:
		x86.Halt() // another CPU is at it and will stop this one's report
	default:
		l := r.line.Reset().Str("  (").Str(parts[max(r.next, 1)-1].name).Str(": this part failed: ").Str(reason)
		if c != nil {
			l.Str(", address ").Hex(c.CR2).Str(", at ").Hex(c.RIP)
			callers(c, 6, func(pc uint64) { l.Byte(' ').Hex(pc) }) // numbers: looking up names may be what failed
		}
		console.Write(l.Str(")\n").Bytes())
	}
	cpu.OnReportStack(writeReport)
}

// writeReport writes the parts that are left and ends the machine.
func writeReport() {
	r := &report
	for r.next < len(parts) {
		p := &parts[r.next]
		r.next++
		p.do()
	}
	say("end of crash report")
	debugExit(testproto.ExitCrash)
}

// say writes one line.
func say(s string) { console.Write(report.line.Reset().Str("dinos: ").Str(s).Str("\n").Bytes()) }

// out starts an indented line.
func out() *klog.Line { return report.line.Reset().Str("  ") }

func flush(l *klog.Line) { console.Write(l.Byte('\n').Bytes()) }

// stopOthers raises an NMI on all other CPUs and waits a moment for them: they record where they were.
func stopOthers(cpu *trap.CPU) {
	for i := range kernel.NumCPU() {
		if i != int(cpu.ID) && kernel.Online(i) {
			kernel.APIC.SendNMI(found.cpus[i])
		}
	}
	end := x86.TSC() + kernel.Clock.Hz()/5
	for i := range kernel.NumCPU() {
		for i != int(cpu.ID) && kernel.Online(i) && report.stopped[i].done.Load() == 0 && x86.TSC() < end {
			x86.Pause()
			kernel.ServeFlush(cpu)
		}
	}
}

// dead stops a CPU that finds the machine dying at the end of its kernel code.
func dead(cpu *trap.CPU) {
	if o := report.owner.Load(); o != 0 && o != int64(cpu.ID)+1 {
		stop(cpu)
	}
}

// stop ends this CPU's part in a dying machine.
func stop(cpu *trap.CPU) {
	kernel.Stopped(cpu)
	report.stopped[cpu.ID].done.Store(1)
	x86.Halt()
}

// onFault serves the CPU's exceptions.
func onFault(cpu *trap.CPU, c *trap.Context) *trap.Context {
	switch c.Vector {
	case trap.VecNMI:
		if o := report.owner.Load(); o != 0 && o != int64(cpu.ID)+1 {
			report.stopped[cpu.ID].c = *c
			if c.InKernel != 0 && !kernel.Idle(int(cpu.ID)) {
				return c // it may hold a lock that the report needs; it stops when it is through, in dead
			}
			stop(cpu)
		}
		crash(cpu, c, "non-maskable interrupt: somebody asks for a report")
	case trap.VecDouble:
		crash(cpu, c, "double fault")
	case trap.VecMachine:
		crash(cpu, c, "machine check")
	}
	c.CR2 = 0
	if c.Vector == trap.VecPage {
		c.CR2 = x86.ReadCR2()
	}
	return kernel.Fault(cpu, c)
}

var exceptions = [32]string{
	0: "#DE divide error", 1: "#DB debug", 2: "NMI", 3: "#BP breakpoint", 4: "#OF overflow", 5: "#BR bound range",
	6: "#UD invalid opcode", 7: "#NM no math coprocessor", 8: "#DF double fault", 10: "#TS invalid TSS",
	11: "#NP segment not present", 12: "#SS stack fault", 13: "#GP general protection", 14: "#PF page fault",
	16: "#MF math fault", 17: "#AC alignment check", 18: "#MC machine check", 19: "#XM SIMD exception",
	20: "#VE virtualization", 21: "#CP control protection",
}

func reportRegisters() {
	r := &report
	console.Write(r.line.Reset().Str("\ndinos: CRASH on CPU ").Dec(r.cpu.ID).Str(" of ").Dec(uint64(kernel.NumCPU())).
		Str(", ").Dec(uint64(kernel.Now() / 1e6)).Str(" ms after boot: ").Str(r.reason).Str("\n").Bytes())
	if !r.valid {
		return
	}
	c := &r.c
	switch {
	case c.Vector == trap.VecSyscall:
		flush(out().Str("in system call ").Dec(c.RAX))
	case c.Vector < 32 && exceptions[c.Vector] != "":
		l := out().Str(exceptions[c.Vector]).Str(", error code ").Hex(c.ErrorCode)
		if c.Vector == trap.VecPage {
			describePageFault(l, c.ErrorCode, c.CR2)
		}
		flush(l)
	default:
		flush(out().Str("vector ").Dec(c.Vector))
	}
	pairs := [...]struct {
		name string
		v    uint64
	}{
		{"rax", c.RAX}, {"rbx", c.RBX}, {"rcx", c.RCX}, {"rdx", c.RDX}, {"rsi", c.RSI}, {"rdi", c.RDI},
		{"rbp", c.RBP}, {"rsp", c.RSP}, {"r8 ", c.R8}, {"r9 ", c.R9}, {"r10", c.R10}, {"r11", c.R11},
		{"r12", c.R12}, {"r13", c.R13}, {"r14", c.R14}, {"r15", c.R15}, {"rip", c.RIP}, {"flg", c.RFLAGS},
		{"cs ", c.CS}, {"ss ", c.SS}, {"fsb", c.FSBase}, {"gsb", c.GSBase}, {"cr2", c.CR2}, {"cr3", x86.ReadCR3()},
	}
	for i := 0; i < len(pairs); i += 4 {
		l := out()
		for _, p := range pairs[i : i+4] {
			l.Str(p.name).Byte(' ').Hex64(p.v).Byte(' ')
		}
		flush(l)
	}
	l := out().Str("in ")
	if n := r.cpu.StackName(c.RSP); n != "" {
		l.Str("kernel code, ").Str(n).Str(" stack")
	} else {
		l.Str("thread ").Int(int64(kernel.Thread(r.cpu))).Str("'s code")
	}
	flush(l)
}

func describePageFault(l *klog.Line, code, addr uint64) {
	l.Str(": ")
	switch {
	case code&16 != 0:
		l.Str("execution of ")
	case code&2 != 0:
		l.Str("write to ")
	default:
		l.Str("read of ")
	}
	l.Hex(addr)
	if code&1 != 0 {
		l.Str(", which is protected")
	} else {
		l.Str(", which is not mapped")
	}
	if r, ok := guardOwner(addr); ok {
		l.Str(" (guard page: the ").Str(r).Str(" stack overflowed)")
	}
}

// guardOwner says whose guard page addr is in.
func guardOwner(addr uint64) (string, bool) {
	found, name := false, ""
	report.cpu.GuardPages(func(va uint64) {
		if addr-va < mem.FrameSize {
			found, name = true, report.cpu.StackName(va)
		}
	})
	return name, found
}

func reportCode() {
	if !report.valid {
		return
	}
	l := out().Str("code")
	for va := report.c.RIP; va < report.c.RIP+16 && readable(va); va++ {
		l.Byte(' ').Hex8(bytesAt(va, 1)[0])
	}
	flush(l)
}

// readable reports whether va can be read without a fault.
func readable(va uint64) bool {
	l, err := kernel.Tables.Lookup(va)
	return err == nil && l.Attr&paging.Present != 0
}

func reportEvents() {
	const n = 24
	say("last events of this CPU, oldest first:")
	kernel.CPU(int(report.cpu.ID)).Trace.Last(n, func(e *trace.Event) {
		l := out()
		e.Format(l)
		flush(l)
	})
}

func reportMemory() {
	s, f := kernel.Space.Stats(), kernel.Frames.Stats()
	flush(report.line.Reset().Str("dinos: memory: ").Size(f.Total * mem.FrameSize).Str(" in all, ").Size(f.Free * mem.FrameSize).
		Str(" free; the Go runtime has ").Size(s.Committed).Str(" committed, ").Size(s.Resident).Str(" resident"))
	now, peak := kernel.Threads()
	flush(report.line.Reset().Str("dinos: threads: ").Dec(uint64(now)).Str(", at most ").Dec(uint64(peak)))
}
