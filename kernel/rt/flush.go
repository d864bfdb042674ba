package rt

import (
	"dinos/kernel/paging"
	"dinos/kernel/trap"
	"dinos/kernel/x86"
)

// Dropping translations on all CPUs. A flush is a new generation; every CPU that runs drops its translations and
// acknowledges by taking the generation over. A halted CPU is not waited for: it does so before it runs anything. The initiator
// reads "halted" after it has made the generation, and the other CPU looks at the generation after it has cleared
// "halted" (both sequentially consistent), so one of them sees the other.

// flushSingly is the number of pages up to which the initiator drops single pages; others always drop all.
const flushSingly = 64

type flusher struct{ k *Kernel }

// Clear implements kspace.Machine.
func (f flusher) Clear(pa uint64) { clearFrame(pa) }

// Flush implements kspace.Machine: it returns when no CPU holds a translation that fl describes. vm is held.
func (f flusher) Flush(fl paging.Flush) { f.k.flush(trap.Self(), fl) }

// Machine returns what kspace needs.
func (k *Kernel) Machine() flusher { return flusher{k} }

func (k *Kernel) flush(cpu *trap.CPU, f paging.Flush) {
	if f.Pages == 0 {
		return
	}
	me := &k.cpus[cpu.ID]
	gen := k.flushGen.Add(1)
	waiting := false
	for i := range k.ncpu {
		pc := &k.cpus[i]
		if pc != me && pc.online.Load() != 0 && pc.halted.Load() == 0 {
			k.APIC.Send(pc.trap.APICID, trap.VecFlush)
			waiting = true
		}
	}
	if f.Pages <= flushSingly {
		for p := range f.Pages {
			x86.InvalidatePage(f.Start + p*paging.Size4K)
		}
	} else {
		flushAll()
	}
	if !waiting {
		return
	}
	for i := range k.ncpu {
		pc := &k.cpus[i]
		for pc != me && pc.online.Load() != 0 && pc.halted.Load() == 0 && pc.flushed.Load() < gen {
			x86.Pause()
			k.serveFlush(me)
		}
	}
}

// serveFlush drops this CPU's translations if a flush it has not served was started, and serves what concerns ring 3. Called from every interrupt, on the
// way out of idling, and by CPUs that wait for a lock.
func (k *Kernel) serveFlush(pc *PerCPU) {
	k.serveUser(pc.trap)
	gen := k.flushGen.Load()
	if pc.flushed.Load() == gen {
		return
	}
	flushAll()
	pc.flushed.Store(gen)
}

// Stopped says that cpu will not run again and need not be waited for.
func (k *Kernel) Stopped(cpu *trap.CPU) { k.cpus[cpu.ID].halted.Store(1) }

// ServeFlush is for the CPU that writes a crash report and waits for the others to finish what they are in.
func (k *Kernel) ServeFlush(cpu *trap.CPU) { k.serveFlush(&k.cpus[cpu.ID]) }

// Relax implements spin.Relaxer. Who waits for a lock holds none, so this is also where a CPU stops whose lock's owner has.
func (k *Kernel) Relax() {
	cpu := trap.Self()
	k.serveFlush(&k.cpus[cpu.ID])
	k.dieToo(cpu)
}

// flushAll drops all translations of this CPU, global ones too (SDM vol. 3A, 4.10.4.1: toggling CR4.PGE does).
func flushAll() {
	cr4 := x86.ReadCR4()
	x86.WriteCR4(cr4 &^ x86.CR4PGE)
	x86.WriteCR4(cr4)
}
