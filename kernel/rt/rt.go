// Package rt serves the Go runtime of the kernel it is part of: the Linux system calls, signals and page faults by which the
// stock runtime reaches what it takes for an operating system. The kernel's own runtime is the first client of its
// Linux ABI.
//
// Everything here is kernel code (see package trap): interrupts off, no Go heap.
//
// # Locks
//
// Kernel.sched guards threads, queues, futexes, events; Kernel.vm guards the kernel's address space and the frame allocator;
// Kernel.console guards the console. Order: sched or console before vm, because what is done under them may touch memory of the runtime that has
// no frame yet, and that page fault takes vm. Nothing is taken under vm,
// nor under Kernel.entropy, which guards the state of Random. Whoever waits for a lock serves translation
// flushes meanwhile, so that the holder of vm may wait for all other CPUs to flush.
package rt

import (
	"sync/atomic"

	"dinos/kernel/apic"
	"dinos/kernel/clock"
	"dinos/kernel/kspace"
	"dinos/kernel/linux"
	"dinos/kernel/mem"
	"dinos/kernel/paging"
	"dinos/kernel/spin"
	"dinos/kernel/thread"
	"dinos/kernel/trace"
	"dinos/kernel/trap"
	"dinos/kernel/ureg"
	"dinos/kernel/x86"
)

// SpinIdle is how long an idle CPU looks for work before it halts, ns: a kick to a halted CPU costs several µs
// under emulation, one to a spinning CPU nothing.
const SpinIdle = 5_000

// PerCPU is what the kernel keeps for one CPU. Written by that CPU with interrupts off unless noted.
type PerCPU struct {
	trap    *trap.CPU
	armed   int64         // deadline the timer is armed for, thread.Never if stopped
	kicks   uint64        // CPUs to kick once sched is free
	polling atomic.Uint32 // 1 while the CPU idles without halting: it sees that it has work without a kick
	halted  atomic.Uint32 // 1 while translations need not be flushed: nothing runs, and leaving serves the flush
	flushed atomic.Uint64 // the last flush generation this CPU has served
	online  atomic.Uint32
	Trace   trace.Ring
	idle    atomic.Int64 // ns without a thread to run
	fault   Fault        // the last CPU exception that was handed to the runtime as a signal, for the crash report
	_       [64]byte
}

// Fault is a CPU exception.
type Fault struct {
	Context trap.Context
	Time    int64 // ns since boot
	Thread  thread.ID
	Valid   bool
}

// tcb is the signal and wait state of one thread. Guarded by sched, except that a running thread's own calls may use it.
type tcb struct {
	pending  uint64 // signals, bit n-1
	mask     uint64
	altSP    uint64
	altSize  uint64
	wait     waitKind
	epollBuf uint64
	epollMax uint64
}

type waitKind uint8

const (
	waitNone waitKind = iota
	waitFutex
	waitSleep
	waitEpoll
)

// Console takes whole lines or parts of them; it is called with interrupts off and must not block for long.
type Console interface {
	Write(p []byte)
}

// Kernel is the state. One per machine, in static memory.
type Kernel struct {
	Clock   clock.Clock
	APIC    apic.APIC
	Console Console
	Space   kspace.Space
	Frames  mem.Allocator
	Tables  paging.Space
	// Crash ends the machine with a report; it does not return. reason is a literal.
	Crash func(cpu *trap.CPU, c *trap.Context, reason string)
	// PowerOff ends the machine with an exit status.
	PowerOff func(status uint64)
	// TimerTicks is the APIC timer's frequency in ticks per µs.
	TimerTicks uint64
	HasRDRAND  bool // the CPU has RDRAND
	// XCR0 has the components of the state that ring 3 may use; 0 if the CPU has no XSAVE. Set before ring 3 is first entered.
	XCR0 uint64
	// Dying is not 0 once a crash report is being written. A CPU that sees it and is not writing the report calls Dead, which does
	// not return, as soon as it holds no lock.
	Dying atomic.Uint32
	Dead  func(cpu *trap.CPU)

	vectors [256]uint32 // event descriptor+1 to signal when a device raises the vector; guarded by sched

	sched   spin.Lock
	vm      spin.Lock
	console spin.Lock
	entropy spin.Lock // guards random; a leaf

	threads  thread.Table
	contexts [thread.MaxThreads]trap.Context
	tcbs     [thread.MaxThreads]tcb
	actions  [linux.NumSignals + 1]linux.Sigaction
	events   events
	flushGen atomic.Uint64
	ncpu     int // CPUs the runtime is told of
	cpus     [thread.MaxCPUs]PerCPU
	counts   [512]uint64 // system calls by number; not exact under SMP, for statistics only
	random   uint64      // guarded by entropy
	reserve  [256]uint64 // frames for the crash report; guarded by vm
}

// Init prepares k for ncpu CPUs; the rest of its exported fields must be set by then.
func (k *Kernel) Init(ncpu int) {
	k.threads.Init()
	k.ncpu = ncpu
	k.events.init()
	k.sched.While, k.vm.While, k.console.While, k.entropy.While = k, k, k, k
	for i := range k.cpus {
		k.cpus[i].armed = thread.Never
	}
}

// AddCPU makes a CPU that runs kernel code on its own Area known.
func (k *Kernel) AddCPU(cpu *trap.CPU) {
	pc := &k.cpus[cpu.ID]
	pc.trap = cpu
	pc.flushed.Store(k.flushGen.Load())
	k.sched.Lock()
	k.threads.AddCPU(int(cpu.ID))
	k.sched.Unlock()
	pc.online.Store(1)
}

// Online reports whether CPU i has come up.
func (k *Kernel) Online(i int) bool { return k.cpus[i].online.Load() != 0 }

// CPU returns the record of CPU i.
func (k *Kernel) CPU(i int) *PerCPU { return &k.cpus[i] }

// NumCPU returns the number of CPUs the runtime was told of.
func (k *Kernel) NumCPU() int { return k.ncpu }

// Now returns ns since boot.
func (k *Kernel) Now() int64 { return k.Clock.At(x86.TSC()) }

// First makes the machine's first thread, starting at rip on stack sp, and returns its Context.
func (k *Kernel) First(cpu *trap.CPU, rip, sp uint64) *trap.Context {
	id := k.threads.Create(int(cpu.ID))
	k.threads.Adopt(int(cpu.ID), id, k.Now())
	c := &k.contexts[id]
	*c = trap.Context{RIP: rip, RSP: sp, Vector: trap.VecSyscall, CS: trap.SelKernelCode, SS: trap.SelKernelData}
	cpu.Current = c.Address()
	return c
}

// current returns the running thread of cpu.
func (k *Kernel) current(cpu *trap.CPU) thread.ID { return k.threads.Current(int(cpu.ID)) }

// next picks the thread that cpu runs now and returns its Context; it idles until there is one. sched is held on
// entry and free on return.
func (k *Kernel) next(cpu *trap.CPU) *trap.Context {
	id := int(cpu.ID)
	pc := &k.cpus[id]
	cpu.Current = 0
	var spinUntil int64
	for {
		now := k.Now()
		pc.kicks |= k.threads.Expire(id, now)
		if th := k.threads.Next(id, now); th != thread.None {
			if spinUntil != 0 {
				pc.idle.Store(pc.idle.Load() + now - (spinUntil - SpinIdle))
			}
			c := k.resume(cpu, th)
			k.release(cpu)
			k.dieToo(cpu)
			return c
		}
		if spinUntil == 0 {
			spinUntil = now + SpinIdle
			pc.Trace.Record(now, trace.Idle, 0, 0, 0)
		}
		// Cheap to wake first: whoever has work for a polling CPU need not kick it.
		pc.polling.Store(1)
		k.release(cpu)
		for until := min(spinUntil, pc.armed); k.threads.Idle()&(1<<id) != 0 && k.Now() < until; {
			x86.Pause()
			k.serveFlush(pc)
		}
		pc.polling.Store(0)
		// A kick after this check is an interrupt, which ends the halt; see HaltUntilInterrupt.
		if k.threads.Idle()&(1<<id) != 0 && k.Now() < pc.armed {
			k.saveOwner(cpu) // so that the CPU need not be woken for that
			pc.halted.Store(1)
			trap.Idle()
			pc.halted.Store(0)
		}
		k.serveFlush(pc)
		k.sched.Lock()
	}
}

// resume finishes the wait of thread th, which cpu is about to run, and returns its Context. sched is held.
func (k *Kernel) resume(cpu *trap.CPU, th thread.ID) *trap.Context {
	c := &k.contexts[th]
	t := &k.tcbs[th]
	switch t.wait {
	case waitFutex:
		c.RAX = 0
		if k.threads.TimedOut(th) {
			c.RAX = linux.ETIMEDOUT.Ret()
		}
	case waitSleep:
		c.RAX = 0
	case waitEpoll:
		c.RAX = k.events.collect(t.epollBuf, t.epollMax)
	}
	t.wait = waitNone
	cpu.Current = c.Address()
	k.deliver(cpu, th, c)
	return c
}

// block puts cpu's thread to sleep and returns the Context of the next. sched is held.
func (k *Kernel) block(cpu *trap.CPU, kind waitKind, key uint64, deadline int64) *trap.Context {
	k.tcbs[k.current(cpu)].wait = kind
	k.threads.Block(int(cpu.ID), key, deadline)
	return k.next(cpu)
}

// dieToo stops this CPU if another one is writing a crash report. No lock is held.
func (k *Kernel) dieToo(cpu *trap.CPU) {
	if k.Dying.Load() != 0 {
		k.Dead(cpu)
	}
}

// release frees sched and then does what the critical section has left for this CPU: arming the timer for its next deadline
// and kicking others. Not inside it, because device registers are slow under emulation and take a lock of the emulator's.
func (k *Kernel) release(cpu *trap.CPU) {
	pc := &k.cpus[cpu.ID]
	d := k.threads.Deadline(int(cpu.ID))
	kicks := pc.kicks &^ (1 << cpu.ID)
	pc.kicks = 0
	k.sched.Unlock()
	if d != pc.armed {
		k.arm(pc, d)
	}
	if kicks != 0 {
		k.kick(pc, kicks)
	}
}

// arm sets the timer of this CPU, whose record is pc, for deadline d.
func (k *Kernel) arm(pc *PerCPU, d int64) {
	pc.armed = d
	if d == thread.Never {
		k.APIC.Arm(0)
		return
	}
	// A deadline too far for the counter fires early, finds nothing due and is armed again.
	left := min(max(d-k.Now(), 1), 4_000_000_000)
	k.APIC.Arm(uint32(min(uint64(left)*k.TimerTicks/1000+1, 1<<32-1)))
}

// kick makes the CPUs of the set look at their queues.
func (k *Kernel) kick(pc *PerCPU, set uint64) {
	pc.Trace.Record(k.Now(), trace.Kick, set, 0, 0)
	for i := range k.ncpu {
		to := &k.cpus[i]
		// Whoever made the CPU not idle did so before this reads "polling", and the CPU looks whether it is idle after it has
		// cleared "polling"; the locked add keeps the former in order. So one of them sees the other.
		if set&(1<<i) != 0 && to.online.Load() != 0 && to.polling.Add(0) == 0 {
			k.APIC.Send(to.trap.APICID, trap.VecKick)
		}
	}
}

// Interrupt serves the vectors from trap.VecIRQ up.
func (k *Kernel) Interrupt(cpu *trap.CPU, c *trap.Context) *trap.Context {
	pc := &k.cpus[cpu.ID]
	if c.Vector != trap.VecSpurious {
		k.APIC.EOI()
	}
	k.serveFlush(pc)
	if c.Vector == trap.VecTimer {
		pc.armed = thread.Never // it has fired
	}
	e := k.vectors[c.Vector&255]
	if c.InKernel != 0 && e == 0 {
		// Kernel code takes interrupts only where it idles; it looks at its queue and its timers when it goes on.
		return c
	}
	k.sched.Lock()
	if e != 0 {
		pc.kicks |= k.events.signal(&k.threads, int(e-1), 1)
	}
	if c.InKernel != 0 {
		kicks := pc.kicks &^ (1 << cpu.ID)
		pc.kicks = 0
		k.sched.Unlock()
		if kicks != 0 {
			k.kick(pc, kicks)
		}
		return c
	}
	now := k.Now()
	id := int(cpu.ID)
	pc.kicks |= k.threads.Expire(id, now)
	th := k.current(cpu)
	due := k.threads.Due(id, now)
	if !due && k.deliverable(th) == 0 && !(c.User() && cpu.User().Kicked.Load() != 0) {
		if c.User() {
			k.reloadUser(cpu)
		}
		k.release(cpu)
		return c
	}
	pc.Trace.Record(now, trace.Interrupt, c.Vector, c.RIP, 0)
	if c.User() {
		own := &k.contexts[th]
		cpu.Leave(c, own, ureg.Interrupt)
		c = own
	} else {
		c = k.save(th, c)
	}
	if due {
		pc.kicks |= k.threads.Yield(id)
		return k.next(cpu)
	}
	k.deliver(cpu, th, c)
	k.release(cpu)
	k.dieToo(cpu)
	return c
}

// save copies an interrupted thread's Context from the interrupt stack to its own.
func (k *Kernel) save(th thread.ID, c *trap.Context) *trap.Context {
	t := &k.contexts[th]
	fs := t.ThreadFS
	*t = *c
	t.ThreadFS = fs
	return t
}

// Print writes to the console from kernel code.
func (k *Kernel) Print(p []byte) {
	k.console.Lock()
	k.Console.Write(p)
	k.console.Unlock()
}
