package rt

import (
	"math/bits"

	"dinos/boot/record"
	"dinos/kernel/trap"
	"dinos/kernel/ureg"
	"dinos/kernel/x86"
)

// Ring 3: what thread code may not do itself. See package trap, user.go, for the state of a CPU with regard to ring 3.
//
// Extended state moves between CPUs by way of memory: a CPU saves what it has of a User when another User wants to run there, when
// it is about to halt, and when another CPU asks, by setting SaveOwner and sending an interrupt. Whoever waits for that serves such
// requests itself (serveFlush does, as everywhere in kernel code), so two CPUs may wait for each other.

// invalidateSingly is the number of pages up to which translations of ring 3 are dropped page by page: INVLPG takes 0.1 µs, loading CR3 1.5 µs and what it
// takes to fill the translation cache again.
const invalidateSingly = 32

// EnterUser runs u in ring 3 until that is left; u.Regs.Trap says why. Thread code only.
func (k *Kernel) EnterUser(u *trap.User) {
	for !u.Enter() {
		if u.Kicked.Load() != 0 {
			u.Regs.Trap = ureg.Interrupt
			return
		}
		if u.Regs.RIP>>47 != 0 {
			// As the CPU does when it fetches from such an address.
			u.Regs.Trap, u.Regs.Error = ureg.Protect, 0
			return
		}
		k.Run(func(cpu *trap.CPU) { k.prepareUser(cpu, u) })
	}
}

// prepareUser gives this CPU the page tables and the extended state of u. Kernel code.
func (k *Kernel) prepareUser(cpu *trap.CPU, u *trap.User) {
	if cpu.FlushUser.Load() != 0 || cpu.Root.Load() != u.Root {
		// The flag is cleared and the root announced before the translations are dropped: who changes the tables later asks again.
		cpu.Root.Store(u.Root)
		cpu.FlushUser.Store(0)
		x86.WriteCR3(u.Root)
	}
	if cpu.Owner == u.Address() {
		return
	}
	k.saveOwner(cpu)
	k.fetch(cpu, u)
	k.restoreImage(u.Image)
	cpu.Owner = u.Address()
	u.Live.Store(cpu.ID + 1)
}

// fetch makes sure that the extended state of u is in memory. Kernel code on cpu; u does not run.
func (k *Kernel) fetch(cpu *trap.CPU, u *trap.User) {
	n := u.Live.Load()
	if n == 0 {
		return
	}
	if n == cpu.ID+1 {
		k.saveOwner(cpu)
		return
	}
	pc := &k.cpus[n-1]
	pc.trap.SaveOwner.Store(1)
	k.APIC.Send(pc.trap.APICID, trap.VecFlush)
	for u.Live.Load() != 0 {
		x86.Pause()
		k.serveFlush(&k.cpus[cpu.ID])
		k.dieToo(cpu)
	}
}

// saveOwner puts the extended state in this CPU's registers into memory.
func (k *Kernel) saveOwner(cpu *trap.CPU) {
	cpu.SaveOwner.Store(0)
	if cpu.Owner == 0 {
		return
	}
	o := cpu.OwnerUser()
	if k.XCR0 != 0 {
		x86.XSave(o.Image, k.XCR0)
	} else {
		x86.FXSave(o.Image)
	}
	cpu.Owner = 0
	o.Live.Store(0) // last: now another CPU may take it
}

func (k *Kernel) restoreImage(image uint64) {
	if k.XCR0 != 0 {
		x86.XRestore(image, k.XCR0)
	} else {
		x86.FXRestore(image)
	}
}

// SyncUser puts the extended state of u into its image, for its thread to read or to change it there. Thread code; the caller is u's thread.
func (k *Kernel) SyncUser(u *trap.User) {
	if u.Live.Load() != 0 {
		k.Run(func(cpu *trap.CPU) { k.fetch(cpu, u) })
	}
}

// KickUser makes u leave ring 3, or not go there, until its thread clears Kicked. Any thread code.
func (k *Kernel) KickUser(u *trap.User) {
	if u.Kicked.Swap(1) != 0 {
		return
	}
	for i := range k.ncpu {
		pc := &k.cpus[i]
		if pc.online.Load() != 0 && pc.trap.InUser.Load() == u.Address() {
			k.Run(func(*trap.CPU) { k.APIC.Send(pc.trap.APICID, trap.VecKick) })
		}
	}
}

// FlushUser returns when no CPU uses old translations of the pages from start on, of the tables at root, in ring 3. Kernel code does
// not use them at all. Root 0 means all tables: then every CPU has passed through the kernel. Thread code only.
func (k *Kernel) FlushUser(root, start, pages uint64) {
	var wait uint64
	k.Run(func(cpu *trap.CPU) {
		if cpu.Root.Load() == root {
			if pages <= invalidateSingly {
				for p := range pages {
					x86.InvalidatePage(start + p<<12)
				}
			} else {
				x86.WriteCR3(root)
			}
		}
		for i := range k.ncpu {
			pc := &k.cpus[i]
			if uint64(i) == cpu.ID || pc.online.Load() == 0 || pc.trap.Root.Load() != root && root != 0 {
				continue
			}
			pc.trap.FlushUser.Store(1)
			// Either the CPU sees that on its way to ring 3, or this sees that it is on its way.
			if pc.trap.InUser.Load() != 0 {
				k.APIC.Send(pc.trap.APICID, trap.VecFlush)
				wait |= 1 << i
			}
		}
	})
	for ; wait != 0; wait &= wait - 1 {
		c := k.cpus[bits.TrailingZeros64(wait)].trap
		for c.FlushUser.Load() != 0 && c.InUser.Load() != 0 {
			x86.Pause()
		}
	}
}

// DropRoot makes all CPUs stop using the tables at root. Nobody will enter ring 3 with them again. Thread code, one at a time.
func (k *Kernel) DropRoot(root uint64) {
	var wait uint64
	k.Run(func(cpu *trap.CPU) {
		for i := range k.ncpu {
			pc := &k.cpus[i]
			switch {
			case pc.online.Load() == 0 || pc.trap.Root.Load() != root:
			case uint64(i) == cpu.ID:
				k.kernelRoot(cpu)
			default:
				// A halted CPU must do it too: it will take its next interrupt on these tables.
				pc.trap.DropRoot.Store(root)
				k.APIC.Send(pc.trap.APICID, trap.VecFlush)
				wait |= 1 << i
			}
		}
	})
	for ; wait != 0; wait &= wait - 1 {
		c := k.cpus[bits.TrailingZeros64(wait)].trap
		for c.Root.Load() == root {
			x86.Pause()
		}
		c.DropRoot.Store(0)
	}
}

// kernelRoot puts cpu on the kernel's own page tables.
func (k *Kernel) kernelRoot(cpu *trap.CPU) {
	x86.WriteCR3(k.Tables.Root())
	cpu.Root.Store(0)
}

// serveUser does what other CPUs have asked of this one for the sake of ring 3. Kernel code.
func (k *Kernel) serveUser(cpu *trap.CPU) {
	if cpu.SaveOwner.Load() != 0 {
		k.saveOwner(cpu)
	}
	if r := cpu.DropRoot.Load(); r != 0 && r == cpu.Root.Load() {
		k.kernelRoot(cpu)
	}
}

// reloadUser drops translations of ring 3 if somebody has asked, before this CPU goes back there from an interrupt.
func (k *Kernel) reloadUser(cpu *trap.CPU) {
	if cpu.FlushUser.Load() != 0 {
		cpu.FlushUser.Store(0)
		x86.WriteCR3(cpu.Root.Load())
	}
}

// userFault makes the thread whose ring 3 code caused exception c return from EnterUser.
func (k *Kernel) userFault(cpu *trap.CPU, c *trap.Context) *trap.Context {
	th := k.current(cpu)
	own := &k.contexts[th]
	cpu.Leave(c, own, ureg.Trap(c.Vector))
	if k.deliverable(th) != 0 {
		k.sched.Lock()
		k.deliver(cpu, th, own)
		k.release(cpu)
	}
	k.dieToo(cpu)
	return own
}

// inDeviceHole reports whether ring 0 wants a device at an address below 4 GiB (see ARCHITECTURE.md, Memory) while the page tables
// are those of a program, which lack it; the CPU is then put on the kernel's.
func (k *Kernel) inDeviceHole(cpu *trap.CPU, address uint64) bool {
	if address < record.DeviceHole || address >= 4<<30 || cpu.Root.Load() == 0 {
		return false
	}
	k.kernelRoot(cpu)
	return true
}
