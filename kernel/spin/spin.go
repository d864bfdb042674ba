// Package spin is the lock of kernel code (see package trap): held with interrupts off for well under a microsecond.
package spin

import (
	"sync/atomic"

	"dinos/kernel/x86"
)

// Lock is a test-and-test-and-set lock; the zero value is unlocked. Not a ticket lock on purpose: a virtual CPU that
// waits in line may be descheduled by the host, and everybody behind it with it. Interrupts must be off while it is held,
// or an interrupt handler that wants it would wait for ever.
type Lock struct {
	held atomic.Uint32
	// While, if set, is told while this CPU waits.
	While Relaxer
}

// Relaxer does, on a CPU that waits for a lock, the work that other CPUs wait for and that would have come by interrupt.
type Relaxer interface{ Relax() }

// Lock takes l.
func (l *Lock) Lock() {
	for !l.held.CompareAndSwap(0, 1) {
		for l.held.Load() != 0 {
			x86.Pause()
			if l.While != nil {
				l.While.Relax()
			}
		}
	}
}

// TryLock takes l if it is free.
func (l *Lock) TryLock() bool { return l.held.CompareAndSwap(0, 1) }

// Unlock releases l.
func (l *Lock) Unlock() { l.held.Store(0) }
