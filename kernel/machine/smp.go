package machine

import (
	"fmt"
	"time"

	"dinos/boot/realmode"
	"dinos/kernel/mem"
	"dinos/kernel/paging"
	"dinos/kernel/trap"
)

// startPage is where the start-up code of the other CPUs goes: conventional memory that nothing else uses once firmware is done.
const startPage = 0x8000

// cpuTimeout is how long a CPU may take from start-up interrupt to its idle loop. On a busy host the thread that emulates it
// may have to wait for its turn.
const cpuTimeout = 5 * time.Second

// startCPUs brings up all CPUs but the first. Those that do not come up are an error: the runtime has been told of them.
func startCPUs() error {
	if found.ncpu == 1 {
		return nil
	}
	page := physBytes(startPage, mem.FrameSize)
	if err := realmode.Install(page, startPage); err != nil {
		return err
	}
	// The page runs at its physical address while paging is turned on.
	if err := lockedVM(func(*trap.CPU) error {
		return kernel.Tables.Map(startPage, startPage, mem.FrameSize, paging.Present|paging.Writable, paging.Size4K)
	}); err != nil {
		return fmt.Errorf("mapping the start-up page: %w", err)
	}
	for i := 1; i < found.ncpu; i++ {
		if err := startCPU(i, page); err != nil {
			return fmt.Errorf("CPU %d (APIC ID %d): %w", i, found.cpus[i], err)
		}
	}
	return lockedVM(func(*trap.CPU) error {
		f, err := kernel.Tables.Unmap(startPage, mem.FrameSize, nil)
		kernel.Machine().Flush(f)
		return err
	})
}

func startCPU(i int, page []byte) error {
	area := AreaBase + uint64(i)*trap.AreaSize
	if err := lockedVM(func(*trap.CPU) error {
		if err := mapArea(area); err != nil {
			return err
		}
		guard(trap.PrepareArea(area, uint64(i), found.cpus[i]))
		return nil
	}); err != nil {
		return fmt.Errorf("memory for its stacks: %w", err)
	}
	cpu := trap.CPUAt(area)
	m := realmode.Mailbox{CR3: kernel.Tables.Root(), Entry: trap.CPUEntry(), Stack: cpu.KernelSP, Arg: area}
	if err := realmode.SetMailbox(page, m); err != nil {
		return err
	}
	kernel.Run(func(*trap.CPU) {
		kernel.APIC.SendInit(cpu.APICID)
		kernel.APIC.SendStartup(cpu.APICID, realmode.Vector(startPage))
	})
	for end := time.Now().Add(cpuTimeout); !kernel.Online(i); time.Sleep(50 * time.Microsecond) {
		if time.Now().After(end) {
			return fmt.Errorf("did not come up within %v after INIT and SIPI", cpuTimeout)
		}
	}
	return nil
}

// mapArea gives the Area at va its frames, cleared. The lock of the address space is held.
func mapArea(va uint64) error {
	for off := uint64(0); off < trap.AreaSize; off += mem.FrameSize {
		f, err := kernel.Frames.Alloc4K()
		if err != nil {
			return err
		}
		kernel.Machine().Clear(f)
		attr := paging.Present | paging.Writable | paging.Global | paging.NoExecute
		if err := kernel.Tables.Map(va+off, f, mem.FrameSize, attr, paging.Size4K); err != nil {
			return err
		}
	}
	return nil
}

// onCPU continues a CPU that has come through the start-up code.
func onCPU(cpu *trap.CPU) *trap.Context {
	found.features.enable()
	found.features.enableVectors()
	found.features.name(cpu.ID)
	cpu.Load()
	kernel.APIC.Enable(trap.VecTimer, trap.VecSpurious)
	return kernel.Enter(cpu)
}
