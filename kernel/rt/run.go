package rt

import (
	"dinos/kernel/trap"
)

// sysRun is a system call number that Linux does not have: see Run.
const sysRun = 0x6469

// Run calls f as kernel code (see package trap) on the CPU the caller happens to be on: with interrupts off, not
// preempted, under the rules for kernel code. It is how thread code changes what kernel code guards. f must not block
// for longer than an interrupt may be late.
func (k *Kernel) Run(f func(cpu *trap.CPU)) { run(f) }

// LockVM takes the lock of the address space and the frame allocator. Kernel code only.
func (k *Kernel) LockVM() { k.vm.Lock() }

// UnlockVM releases it.
func (k *Kernel) UnlockVM() { k.vm.Unlock() }

// Enter makes the calling CPU, which has just come up and has loaded its Area, take part, and returns the Context of its
// first thread. Kernel code only.
func (k *Kernel) Enter(cpu *trap.CPU) *trap.Context {
	k.AddCPU(cpu)
	k.sched.Lock()
	return k.next(cpu)
}

// Bind makes vector, raised by a device, add 1 to the event descriptor fd; fd 0 undoes it. Kernel code only.
func (k *Kernel) Bind(vector int, fd uint64) bool {
	k.sched.Lock()
	ok := fd == 0 || k.events.get(fd) != nil
	if ok {
		k.vectors[vector&255] = 0
		if fd != 0 {
			k.vectors[vector&255] = uint32(fd-firstEventFD) + 1
		}
	}
	k.sched.Unlock()
	return ok
}

// Counts returns how often each system call was made; approximate while CPUs run.
func (k *Kernel) Counts() [512]uint64 { return k.counts }

// Threads returns the number of threads that exist and the most there ever were.
func (k *Kernel) Threads() (now, peak int) { return k.threads.Live() }

// Thread returns the thread that cpu runs, -1 if none.
func (k *Kernel) Thread(cpu *trap.CPU) int { return int(k.threads.Current(int(cpu.ID))) }

// Idle reports whether CPU i runs nothing.
func (k *Kernel) Idle(i int) bool { return k.threads.Idle()&(1<<i) != 0 }

// IdleTime returns how long CPU i has had nothing to run, ns; the idle time that it is in the midst of is not counted yet.
func (k *Kernel) IdleTime(i int) int64 { return k.cpus[i].idle.Load() }
