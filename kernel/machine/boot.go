// Package machine is the composition root of a kernel's hardware: it takes the CPU from the boot trampoline to the Go
// runtime, brings up the other CPUs, and is what the rest of a kernel asks for devices and facts about the machine.
//
// Read boot for the order in which things come up. Until it returns there is no Go runtime: no heap, no maps, no
// goroutines; see package trap for what code may do.
package machine

import (
	"dinos/boot/record"
	"dinos/boot/stub"
	"dinos/kernel/apic"
	"dinos/kernel/klog"
	"dinos/kernel/mem"
	"dinos/kernel/paging"
	"dinos/kernel/rt"
	"dinos/kernel/testproto"
	"dinos/kernel/trap"
	"dinos/kernel/x86"
)

// Virtual memory of the kernel half; the direct map and the image are where package record says.
const (
	// SpaceBase to SpaceEnd is the window of the Go runtime.
	SpaceBase = 0xffff_a000_0000_0000
	SpaceEnd  = 0xffff_e000_0000_0000
	// AreaBase is where the Areas of CPUs 1 and up are; CPU 0's is in the image.
	AreaBase = 0xffff_f000_0000_0000

	// MinRAM is what a kernel needs to come up at all.
	MinRAM = 30 << 20
	// MaxCPUs is how many CPUs one kernel runs on.
	MaxCPUs = 64
)

// kernel is the one instance of everything. In static memory: it exists before the heap.
var kernel rt.Kernel

// found is what boot learned about the machine.
var found struct {
	startInfo, pml4 uint64
	ram             uint64          // bytes of usable memory
	topRAM          uint64          // end of the highest range
	cpus            [MaxCPUs]uint64 // APIC IDs
	ncpu            int
	features        features
	early           early
}

// boot takes the first CPU from the trampoline to the Context of the Go runtime's first thread.
func boot(cpu *trap.CPU, startInfo, pml4 uint64) *trap.Context {
	entry := x86.TSC()
	found.startInfo, found.pml4 = startInfo, pml4
	console.init()
	if !stub.Record.Filled() {
		refuse("this image was not made by boot/image", 0)
	}
	found.features.read()
	found.features.require()
	// The tables of the boot Area and the fault entries, so that from here on a mistake is reported.
	trap.PrepareArea(cpuAddress(cpu), 0, 0)
	trap.Init(trap.Handlers{Syscall: onSyscall, Interrupt: onInterrupt, Fault: onFault, Nested: onNested, Start: onCPU})
	kernel.Console = &console
	kernel.Crash = crash
	kernel.Dead = dead
	kernel.PowerOff = powerOff
	found.features.enable()
	cpu.Load()

	maskPIC()
	found.early.read(startInfo)
	initMemory()
	initClock(entry)
	kernel.HasRDRAND = found.features.rdrand
	kernel.Init(found.ncpu)
	kernel.APIC.Enable(trap.VecTimer, trap.VecSpurious)
	cpu.APICID = kernel.APIC.ID()
	kernel.AddCPU(cpu)
	initRandom()
	return kernel.First(cpu, runtimeEntry(), runtimeStack())
}

// maskPIC silences the two 8259 interrupt controllers: firmware leaves the timer's interrupt on, at vector 8. Machines without
// them ignore it. The vectors are moved out of the exceptions' range all the same, since a masked 8259 can still raise a spurious interrupt.
func maskPIC() {
	for i, base := range [...]uint16{0x20, 0xa0} {
		x86.Out8(base, 0x11)                       // ICW1: initialise, expect ICW4
		x86.Out8(base+1, trap.VecIRQ+uint8(8*i))   // ICW2: vectors
		x86.Out8(base+1, [...]uint8{1 << 2, 2}[i]) // ICW3: the second one is on line 2
		x86.Out8(base+1, 1)                        // ICW4: 8086 mode
		x86.Out8(base+1, 0xff)                     // mask all
	}
}

// runtimeEntry returns the address of the Go runtime's entry point, _rt0_amd64_linux.
func runtimeEntry() uint64

// initMemory makes the frame allocator, the final page tables and the runtime's window.
func initMemory() {
	e := &found.early
	n, err := mem.Needed(e.ram[:e.nram])
	if err != nil {
		refuse2("memory map cannot be used: ", err.Error(), "; ranges of RAM: ", uint64(e.nram))
	}
	blocks, where, size := placeBlocks(n)
	if err := kernel.Frames.Init(blocks, e.ram[:e.nram]); err != nil {
		refuse2("memory map cannot be used: ", err.Error(), "; ranges of RAM: ", uint64(e.nram))
	}
	// What is in use: the first MiB (firmware, start info, the page for starting CPUs), the image, modules, the descriptors.
	reserve(0, record.PhysBase)
	reserve(stub.Record.PhysStart, stub.Record.PhysEnd)
	reserve(where, where+size)
	for i := range e.nkeep {
		reserve(e.keep[i].Start, e.keep[i].Start+e.keep[i].Size)
	}
	kernel.Tables.Attach(window(found.topRAM), &tableFrames, found.pml4)
	kernel.Tables.Reclaim = paging.ReclaimNone
	must(kernel.Tables.PrepareKernelHalf())
	if found.topRAM > record.BootMapSize {
		must(kernel.Tables.Map(record.DirectMap+record.BootMapSize, record.BootMapSize,
			(found.topRAM-record.BootMapSize+paging.Size2M-1)&^(paging.Size2M-1),
			paging.Present|paging.Writable|paging.Global|paging.NoExecute, found.features.largestPage()))
	}
	// No identity map below the devices: address 0 must fault. TamaGo's drivers use 32-bit physical addresses
	// of devices, so that part stays.
	_, err = kernel.Tables.Unmap(0, record.DeviceHole, nil)
	must(err)
	flushTables(found.pml4)
	guard(trap.Self())
	kernel.Space.Init(SpaceBase, SpaceEnd, &kernel.Tables, &kernel.Frames, kernel.Machine())
	must(kernel.SetReserve())
	kernel.APIC = apic.New(record.DirectMap + apic.PhysBase)
}

func reserve(start, end uint64) {
	if err := kernel.Frames.Reserve(mem.Range{Start: start, Size: end - start}); err != nil {
		refuse("memory in use at boot is not in the memory map: ", start)
	}
}

// guard takes the guard pages of cpu's Area out of the page tables.
func guard(cpu *trap.CPU) {
	cpu.GuardPages(func(va uint64) {
		_, err := kernel.Tables.Unmap(va, mem.FrameSize, nil)
		must(err)
	})
}

// must is for steps of boot that only fail for want of memory.
func must(err error) {
	if err != nil {
		refuse("out of memory while setting up page tables; bytes of memory: ", found.ram)
	}
}

// refuse ends the boot with one line; n is printed unless it is 0.
func refuse(why string, n uint64) { refuse2(why, "", "", n) }

// refuse2 is refuse with a line in parts: there is no heap to put strings together.
func refuse2(a, b, c string, n uint64) {
	var l klog.Line
	l.Str("dinos: boot: ").Str(a).Str(b).Str(c)
	if n != 0 {
		l.Dec(n)
		if n >= 4096 {
			l.Str(" (").Hex(n).Str(")")
		}
	}
	console.Write(l.Str("\n").Bytes())
	debugExit(testproto.ExitRefused)
}

func onSyscall(cpu *trap.CPU, c *trap.Context) *trap.Context { return kernel.Syscall(cpu, c) }

func onInterrupt(cpu *trap.CPU, c *trap.Context) *trap.Context {
	if c.Vector == trap.VecTimer && inInterrupt.armed.CompareAndSwap(1, 0) {
		inInterrupt.f()
	}
	return kernel.Interrupt(cpu, c)
}
func onNested(cpu *trap.CPU, nr uint64, args *[5]uint64) uint64 { return kernel.Nested(cpu, nr, args) }

// tables gives page tables their frames.
type tables struct{}

var tableFrames tables

// AllocTable implements paging.Frames.
func (*tables) AllocTable() (uint64, bool) {
	f, err := kernel.Frames.Alloc4K()
	return f, err == nil
}

// FreeTable implements paging.Frames.
func (*tables) FreeTable(phys uint64) { kernel.Frames.Free4K(phys) }
