package machine

import (
	"dinos/kernel/mem"
	"dinos/kernel/paging"
	"dinos/kernel/trap"
)

// lockedVM runs f as kernel code, under the lock of the address space and the frame allocator, and returns its error, a
// mem.Error or a paging.Error. Kernel code stores no pointers, since the collector would not hear of it, and an error is
// one: so it is a number that crosses over. For the same reason f assigns no error, slice or pointer that the caller has.
func lockedVM(f func(*trap.CPU) error) error {
	var me mem.Error
	var pe paging.Error
	kernel.Run(func(cpu *trap.CPU) {
		kernel.LockVM()
		err := f(cpu)
		kernel.UnlockVM()
		switch e := err.(type) {
		case nil:
		case mem.Error:
			me = e
		case paging.Error:
			pe = e
		default:
			kernel.Crash(cpu, nil, "kernel code returned an error that is neither memory's nor paging's")
		}
	})
	switch {
	case me != 0:
		return me
	case pe != 0:
		return pe
	}
	return nil
}

// given is for frames given back: an error means that the caller did not have them, and it might as well have given back
// somebody else's.
func given(err error) {
	if err != nil {
		panic("frames given back: " + err.Error())
	}
}
