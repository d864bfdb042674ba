// Package run runs user threads: a goroutine each, which enters ring 3, serves what made it leave, delivers signals, and enters it
// again. It is the one place where package proc's threads meet the CPU.
package run

import (
	"dinos/dkernel/mm"
	"dinos/dkernel/proc"
	"dinos/dkernel/sys"
	"dinos/kernel/linux"
	"dinos/kernel/machine"
	"dinos/kernel/ureg"
)

// Runner implements proc.Starter.
type Runner struct {
	// Kernel serves system calls. Set it before the first thread starts.
	Kernel *sys.Kernel
	// OutOfMemory is told of a thread that is killed since no memory is left. It may be nil.
	OutOfMemory func(t *proc.Thread)
}

// thread is what Runner keeps of a thread, in proc.Thread.Run.
type thread struct {
	cpu *machine.UserThread
}

// NewCPU implements proc.Starter.
func (r *Runner) NewCPU(parent, child *proc.Thread) ureg.CPU {
	cpu := machine.NewUserThread(&child.Regs)
	if parent != nil {
		image := make([]byte, cpu.Size())
		parent.CPU.Save(&parent.Regs, image)
		cpu.Load(&child.Regs, image)
	}
	child.Run = &thread{cpu: cpu}
	return cpu
}

// Start implements proc.Starter.
func (r *Runner) Start(t *proc.Thread) { go r.loop(t) }

// Kick makes t leave ring 3; for proc.Config.
func (r *Runner) Kick(t *proc.Thread) {
	if th, ok := t.Run.(*thread); ok {
		th.cpu.Kick()
	}
}

// loop runs t to its end.
func (r *Runner) loop(t *proc.Thread) {
	cpu := t.Run.(*thread).cpu
	task := r.Kernel.NewTask(t, cpu)
	active := r.Kernel.Active
	t.Sleeper().Active = active
	active.Add(1)
	defer active.Add(-1)
	f := &t.Regs
	c := newClock(t)
	for {
		if t.Interrupted() {
			c.settle()
			if !t.Deliver(f) {
				task.Close()
				cpu.Close()
				return
			}
		}
		if t.RseqStale(machine.CPUHint()) {
			t.Preempted()
			continue
		}
		c.entering()
		cpu.Enter(task.Mem.Root())
		c.wasLeft()
		switch f.Trap {
		case ureg.Syscall:
			task.Do()
		case ureg.Interrupt:
			f.OrigRAX = ureg.NoSyscall
			c.interrupted()
			cpu.ClearKick()
			t.Preempted()
			t.Switched(false)
			c.resumed()
		case ureg.Page:
			f.OrigRAX = ureg.NoSyscall
			t.Faulted(false)
			r.fault(t, task)
		default:
			f.OrigRAX = ureg.NoSyscall
			t.Exception(f)
		}
	}
}

// fault resolves a page fault, or makes it the signal that it is.
func (r *Runner) fault(t *proc.Thread, task *sys.Task) {
	f := &t.Regs
	prot := linux.PROT_READ
	switch {
	case f.Error&ureg.PageFetch != 0:
		prot = linux.PROT_EXEC
	case f.Error&ureg.PageWrite != 0:
		prot = linux.PROT_WRITE
	}
	switch task.Mem.Fault(f.CR2, prot) {
	case mm.MapError:
		t.PageFault(f, linux.SIGSEGV, linux.SEGV_MAPERR)
	case mm.AccError:
		t.PageFault(f, linux.SIGSEGV, linux.SEGV_ACCERR)
	case mm.BusError:
		t.PageFault(f, linux.SIGBUS, linux.BUS_ADRERR)
	case mm.NoMemory:
		if r.OutOfMemory != nil {
			r.OutOfMemory(t)
		}
		t.ForceKill(linux.SIGKILL)
	}
}

// Barrier makes every CPU that is in ring 3 pass through the kernel, which also serializes it, and with rseq ends the restartable
// sequences of p's threads; for proc.Config.
func (r *Runner) Barrier(p *proc.Process, _, rseq bool, _ int) {
	if rseq && p != nil {
		for _, t := range p.Threads() {
			r.Kick(t)
		}
	}
	machine.UserBarrier()
}
