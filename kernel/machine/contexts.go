package machine

import (
	"sync/atomic"
	"time"

	"dinos/kernel/trap"
)

// Ways to run a function in each of the contexts that exist in ring 0. For tests.

// InKernel runs f as kernel code.
func InKernel(f func()) { kernel.Run(func(*trap.CPU) { f() }) }

// inInterrupt is what the next timer interrupt runs, once. f is written by thread code while not armed.
var inInterrupt struct {
	f     func()
	armed atomic.Uint32
}

// InInterrupt runs f once in the interrupt handler of the CPU that takes the next timer interrupt.
func InInterrupt(f func()) {
	inInterrupt.f = f
	inInterrupt.armed.Store(1)
	for inInterrupt.armed.Load() != 0 {
		time.Sleep(time.Millisecond)
	}
}

// OnSystemStack runs f on the stack of the runtime's scheduler.
func OnSystemStack(f func()) { systemstack(f) }

// LoseFaultStack makes the next exception of this CPU a double fault. The caller runs in kernel code.
func LoseFaultStack() { trap.Self().LoseFaultStack() }

// GuardPage returns an address in the guard page of this CPU's interrupt stack.
func GuardPage() uint64 {
	var a uint64
	n := 0
	trap.Self().GuardPages(func(va uint64) {
		if n++; n == 2 {
			a = va + 128
		}
	})
	return a
}

// RaiseNMI sends this CPU a non-maskable interrupt.
func RaiseNMI() { kernel.Run(func(cpu *trap.CPU) { kernel.APIC.SendNMI(cpu.APICID) }) }
