package rt

import (
	"dinos/kernel/kspace"
	"dinos/kernel/linux"
	"dinos/kernel/mem"
	"dinos/kernel/trace"
	"dinos/kernel/trap"
)

// mmap serves anonymous private mappings, the only kind that makes sense without files.
func (k *Kernel) mmap(addr, n, prot, flags, fd uint64) uint64 {
	if flags&linux.MAP_ANONYMOUS == 0 || flags&linux.MAP_PRIVATE == 0 {
		return linux.ENOSYS.Ret()
	}
	st, ok := stateOf(prot)
	if !ok {
		return linux.EINVAL.Ret()
	}
	fixed := flags&linux.MAP_FIXED != 0
	if !fixed && addr != 0 && addr>>63 == 0 {
		// The runtime proposes places for its arenas in the lower half, which is ring 3's. Refusing at once spares it
		// the attempt to give the memory back.
		return linux.ENOMEM.Ret()
	}
	k.vm.Lock()
	va := k.place(addr, n, st, fixed)
	k.vm.Unlock()
	return va
}

// place makes a mapping. vm is held.
func (k *Kernel) place(addr, n uint64, st kspace.State, fixed bool) uint64 {
	var err error
	if fixed {
		err = k.Space.Change(addr, n, st)
	} else {
		addr, err = k.Space.Reserve(n, st)
	}
	if err != nil {
		return linux.ENOMEM.Ret()
	}
	return addr
}

// nestedMmap serves the allocations of a crash report, when vm may be held by a CPU that was stopped.
func (k *Kernel) nestedMmap(cpu *trap.CPU, a *[5]uint64) uint64 {
	st, ok := stateOf(a[2])
	if !ok || a[0] != 0 && a[0]>>63 == 0 {
		return linux.ENOMEM.Ret()
	}
	if !k.vm.TryLock() {
		k.Crash(cpu, nil, "memory was needed while the address space was being changed")
	}
	va := k.place(a[0], a[1], st, a[3]&linux.MAP_FIXED != 0)
	k.vm.Unlock()
	return va
}

func (k *Kernel) change(addr, n uint64, st kspace.State) uint64 {
	k.vm.Lock()
	err := k.Space.Change(addr, n, st)
	k.vm.Unlock()
	return errnoOf(err)
}

func (k *Kernel) mprotect(addr, n, prot uint64) uint64 {
	st, ok := stateOf(prot)
	if !ok {
		return linux.EINVAL.Ret()
	}
	k.vm.Lock()
	err := k.Space.Protect(addr, n, st)
	k.vm.Unlock()
	return errnoOf(err)
}

func (k *Kernel) madvise(addr, n, advice uint64) uint64 {
	if advice != linux.MADV_DONTNEED && advice != linux.MADV_FREE {
		return linux.EINVAL.Ret() // huge page hints: the runtime takes no for an answer
	}
	k.vm.Lock()
	err := k.Space.Discard(addr, n)
	k.vm.Unlock()
	return errnoOf(err)
}

func stateOf(prot uint64) (kspace.State, bool) {
	switch prot {
	case 0:
		return kspace.Reserved, true
	case linux.PROT_READ:
		return kspace.ReadOnly, true
	case linux.PROT_READ | linux.PROT_WRITE:
		return kspace.ReadWrite, true
	}
	return 0, false
}

func errnoOf(err error) uint64 {
	switch err {
	case nil:
		return 0
	case kspace.ErrBadRange:
		return linux.EINVAL.Ret()
	}
	return linux.ENOMEM.Ret()
}

// Fault serves the CPU's exceptions; c.CR2 is set for page faults.
func (k *Kernel) Fault(cpu *trap.CPU, c *trap.Context) *trap.Context {
	pc := &k.cpus[cpu.ID]
	if c.User() {
		k.serveFlush(pc)
		return k.userFault(cpu, c)
	}
	address := c.CR2
	if c.Vector == trap.VecPage && k.inDeviceHole(cpu, address) {
		return c
	}
	const present, write = 1, 2
	if c.Vector == trap.VecPage && address>>63 != 0 && c.ErrorCode&^(present|write) == 0 {
		// Ring 0, not a fetch: memory of the runtime that has no frame yet, whoever touches it; or one that this CPU still
		// remembers with fewer rights than it has been given.
		if cpu.OnFaultStack(c.RSP) {
			k.Crash(cpu, c, "page fault in the page fault handler")
		}
		if k.Dying.Load() == 0 {
			k.vm.Lock()
		} else if !k.vm.TryLock() {
			k.Crash(cpu, c, "page fault while the address space was being changed")
		}
		err := k.Space.Fault(address, c.ErrorCode&write != 0)
		k.vm.Unlock()
		switch err {
		case nil:
			return c
		case kspace.ErrNoMemory:
			pc.Trace.Record(k.Now(), trace.OutOfMemory, address, c.RIP, 0)
			k.Crash(cpu, c, "out of memory: the Go runtime touched memory for which no frame is left")
		}
	}
	pc.Trace.Record(k.Now(), trace.Fault, c.Vector, c.RIP, address)
	if c.InKernel == 0 {
		k.sched.Lock()
		t := k.raise(cpu, c)
		k.sched.Unlock()
		if t != nil {
			return t
		}
	}
	k.Crash(cpu, c, "CPU exception that nobody can handle")
	return c
}

// SetReserve takes frames aside for the crash report, which must not fail because memory is what ran out.
func (k *Kernel) SetReserve() error {
	if n := k.Frames.AllocBatch(k.reserve[:]); n < len(k.reserve) {
		return mem.ErrNoMemory
	}
	return nil
}

// ReleaseReserve makes those frames available. Only for the CPU that writes the crash report, after the others have stopped.
func (k *Kernel) ReleaseReserve() {
	if !k.vm.TryLock() {
		return
	}
	for i, f := range k.reserve {
		if f != 0 {
			k.Frames.Free4K(f)
		}
		k.reserve[i] = 0
	}
	k.vm.Unlock()
}
