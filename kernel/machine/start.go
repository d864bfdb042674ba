package machine

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"dinos/boot/info"
	"dinos/kernel/mem"
	"dinos/kernel/testproto"
	"dinos/kernel/trap"
	"dinos/kernel/x86"
)

// Machine is what a kernel's main learns about the machine it runs on.
type Machine struct {
	Name string // of the kernel's image
	Boot *info.Info
	Args *info.Args
	MADT *info.MADT

	vectors atomic.Int64 // interrupt vectors given to devices
	pci     *PCI         // nil if there is none
}

// Main is the main function of a kernel: it finishes what needs the Go runtime and calls run. An error of either ends
// the machine with one line on the console and the status for a refused boot.
func Main(name string, run func(*Machine) error) {
	fmt.Printf("dinos %s: main after %.1f ms\n", name, float64(kernel.Now())/1e6)
	m, err := start(name)
	if err == nil {
		err = run(m)
	}
	if err == nil {
		err = errors.New(name + " has nothing left to do")
	}
	refuseText(err.Error())
}

// start parses what the boot loader said, sets the runtime's limits and the wall clock and brings up the other CPUs.
func start(name string) (*Machine, error) {
	os.Args = []string{name}
	// A runaway recursion must end as one, not as an exhausted machine (the runtime's own limit is 1 GB).
	debug.SetMaxStack(int(min(found.ram/8, 256<<20)))
	// Collect harder before memory runs out; what is not the heap needs room too.
	debug.SetMemoryLimit(int64(found.ram / 10 * 8))
	m := &Machine{Name: name}
	var err error
	if m.Boot, err = info.Parse(physical, found.startInfo); err != nil {
		return nil, err
	}
	if m.Args, err = info.ParseArgs(m.Boot.CommandLine); err != nil {
		return nil, err
	}
	rsdp := m.Boot.RSDP
	if rsdp == 0 {
		if rsdp, err = info.FindRSDP(physical); err != nil {
			return nil, err
		}
	}
	if m.MADT, err = info.ReadMADT(physical, rsdp); err != nil {
		return nil, err
	}
	if ram, n := m.Boot.RAM(), m.MADT.Enabled(); ram != found.ram || n != found.ncpu {
		return nil, fmt.Errorf("boot record changed while the kernel came up: %d bytes of RAM and %d CPUs, then %d and %d", found.ram, found.ncpu, ram, n)
	}
	if err := setWallClock(); err != nil {
		return nil, err
	}
	m.pci = m.findPCI(rsdp)
	kernel.Run(func(cpu *trap.CPU) { // there is no other CPU yet
		found.features.enableVectors()
		found.features.name(cpu.ID)
	})
	kernel.XCR0 = found.features.xcr0
	return m, startCPUs()
}

// physical gives package info access to memory.
func physical(pa, n uint64) ([]byte, error) {
	if end := pa + n; end < pa || end > max(found.topRAM, 4<<30) {
		return nil, fmt.Errorf("no memory at [%#x, +%#x)", pa, n)
	}
	return physBytes(pa, n), nil
}

// Describe prints what was found.
func (m *Machine) Describe() {
	f := &found.features
	fmt.Printf("dinos %s: all CPUs up after %d ms, %s, on %s\n", m.Name, kernel.Now()/1e6, runtime.Version(), f.hypervisorName())
	fmt.Printf("  cpus     %d, time stamp counter %d MHz, with %s\n", found.ncpu, kernel.Clock.Hz()/1e6, f)
	st := kernel.Frames.Stats()
	fmt.Printf("  memory   %d MiB usable, %d MiB free, top at %#x\n", found.ram>>20, st.Free*mem.FrameSize>>20, found.topRAM)
	for _, r := range m.Boot.Memory {
		fmt.Printf("           %#012x-%#012x %v\n", r.Start, r.End, r.Kind)
	}
	for _, d := range m.Boot.Modules {
		fmt.Printf("  module   %#x-%#x (%d KiB)\n", d.Start, d.End, (d.End-d.Start)>>10)
	}
	for _, a := range m.MADT.IOAPICs {
		fmt.Printf("  ioapic   %d at %#x\n", a.ID, a.Addr)
	}
	fmt.Printf("  devices  %s\n", strings.Join(deviceNames(), ", "))
	m.pci.describe()
	fmt.Printf("  command  %q\n", m.Boot.CommandLine)
	fmt.Printf("  time     %s\n", time.Now().UTC().Format(time.RFC3339))
}

// Module returns the contents of module i, in place.
func (m *Machine) Module(i int) []byte {
	d := m.Boot.Modules[i]
	return physBytes(d.Start, d.End-d.Start)
}

// Print writes a line to the console in one piece.
func Print(line string) { fmt.Println(line) }

// Now returns the monotonic time since boot.
func Now() time.Duration { return time.Duration(kernel.Now()) }

// Stamp returns the time stamp counter, and how many times a second it counts.
func Stamp() (tsc, hz uint64) { return x86.TSC(), kernel.Clock.Hz() }

// CPU returns the number of the CPU the caller runs on, which may be another one by the time it looks.
func CPU() int {
	var id int
	kernel.Run(func(cpu *trap.CPU) { id = int(cpu.ID) })
	return id
}

// Threads returns the number of runtime threads that exist and the most there ever were.
func Threads() (now, peak int) { return kernel.Threads() }

// Exit ends the machine with a status; without QEMU's debug device it halts.
func Exit(e testproto.Exit) {
	kernel.Run(func(*trap.CPU) { debugExit(e) })
}

// refuseText ends the machine with one line and the status for a refused boot.
func refuseText(why string) {
	fmt.Printf("dinos: boot: %s\n", why)
	Exit(testproto.ExitRefused)
}

// PowerOff ends the machine as a shutdown does.
func PowerOff() { kernel.Run(func(*trap.CPU) { powerOff(0) }) }

// Memory returns the bytes of memory in all and free ones, outside the Go runtime.
func Memory() (total, free uint64) {
	st := kernel.Frames.Stats()
	return st.Total * mem.FrameSize, st.Free * mem.FrameSize
}

// SystemCalls returns how often the runtime made each system call.
func SystemCalls() [512]uint64 { return kernel.Counts() }

// FreeMemory collects garbage and makes the runtime give unused memory back.
func FreeMemory() { debug.FreeOSMemory() }
