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
	child.Run = &thread{cpu}
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
	task := r.Kernel.NewTask(t)
	f := &t.Regs
	c := newClock(t)
	for {
		if t.Interrupted() {
			c.flush()
			if !t.Deliver(f) {
				cpu.Close()
				return
			}
		}
		if t.RseqStale(machine.CPUHint()) {
			t.Preempted()
			continue
		}
		c.enter()
		cpu.Enter(task.Mem.Root())
		c.leave()
		switch f.Trap {
		case ureg.Syscall:
			task.Do()
		case ureg.Interrupt:
			f.OrigRAX = ureg.NoSyscall
			cpu.ClearKick()
			t.Preempted()
			c.skip()
		case ureg.Page:
			f.OrigRAX = ureg.NoSyscall
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

// clock accounts a thread's CPU time. What it has is handed over now and then, since that takes atomic operations.
type clock struct {
	t         *proc.Thread
	hz        uint64
	last      uint64 // time stamp counter when ring 3 was last entered or left
	slept     int64  // of the Sleeper
	user, sys uint64 // cycles not yet handed over
}

func newClock(t *proc.Thread) *clock {
	tsc, hz := machine.Stamp()
	return &clock{t: t, hz: hz, last: tsc, slept: t.Sleeper().Slept}
}

// batch is how much CPU time is handed over at a time, in parts of a second.
const batch = 1000

func (c *clock) enter() {
	now, _ := machine.Stamp()
	d := now - c.last
	if s := c.t.Sleeper().Slept; s != c.slept {
		d -= min(d, uint64(s-c.slept)*(c.hz/1e6)/1000)
		c.slept = s
	}
	c.sys += d
	c.last = now
}

func (c *clock) leave() {
	now, _ := machine.Stamp()
	c.user += now - c.last
	c.last = now
	if c.user+c.sys > c.hz/batch {
		c.flush()
	}
}

// skip forgets the time since ring 3 was left: others had the CPU.
func (c *clock) skip() { c.last, _ = machine.Stamp() }

func (c *clock) flush() {
	ns := func(cycles uint64) int64 { return int64(cycles * 1000 / (c.hz / 1e6)) }
	c.t.Ran(ns(c.user), ns(c.sys))
	c.user, c.sys = 0, 0
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
