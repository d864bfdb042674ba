package main

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

// Addresses for system calls. What they point to is kept alive by its owner, and never on a stack that moves: the callers'
// variables escape to the heap.

func address(b []byte) uintptr                      { return uintptr(unsafe.Pointer(&b[0])) }
func address32(p *int32) uintptr                    { return uintptr(unsafe.Pointer(p)) }
func wordAddress(p *uint32) uintptr                 { return uintptr(unsafe.Pointer(p)) }
func statAddress(p *syscall.Stat_t) uintptr         { return uintptr(unsafe.Pointer(p)) }
func eventAddress(p *[4]syscall.EpollEvent) uintptr { return uintptr(unsafe.Pointer(p)) }
func load(p *uint32) uint32                         { return atomic.LoadUint32(p) }
func store(p *uint32, v uint32)                     { atomic.StoreUint32(p, v) }
func poke(a uintptr)                                { *(*byte)(unsafe.Add(nil, a)) = 1 }

// sigaction is struct kernel_sigaction.
type sigaction struct {
	handler, flags, restorer, mask uintptr
}

var count uint64

// handled is how often the handler ran.
func handled() uint64 { return atomic.LoadUint64(&count) }

// installHandler installs the handler for SIGUSR2, past the runtime.
func installHandler() {
	const restorer, onstack = 0x04000000, 0x08000000
	a := &sigaction{handler: handlerAddress(), flags: restorer | onstack, restorer: restorerAddress()}
	_, _, e := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(syscall.SIGUSR2), uintptr(unsafe.Pointer(a)), 0, 8, 0, 0)
	check("rt_sigaction", e)
}

// In assembly.
func handlerAddress() uintptr
func restorerAddress() uintptr

// forkExit forks a child that ends at once, and returns its pid.
func forkExit() uintptr {
	pid := rawFork(nil)
	if int(pid) < 0 {
		check("fork", syscall.Errno(-pid))
	}
	return pid
}

// forkExec forks a child that runs the program at path, which ends with a zero byte.
func forkExec(path []byte) uintptr {
	pid := rawFork(&path[0])
	if int(pid) < 0 {
		check("fork", syscall.Errno(-pid))
	}
	return pid
}

// rawFork forks; the child runs path, or ends with status 0 if that is nil. In assembly: the child must not enter the runtime.
func rawFork(path *byte) uintptr

var stack []byte

func threadStack() { stack = make([]byte, 64<<10) }

var alive int32

// threadJoin makes a thread that ends at once, and waits for its end as pthread_join does.
func threadJoin() {
	top := (uintptr(unsafe.Pointer(&stack[0])) + uintptr(len(stack))) &^ 15
	atomic.StoreInt32(&alive, 1)
	r := rawThread(top, &alive)
	if int(r) < 0 {
		check("clone", syscall.Errno(-r))
	}
	for atomic.LoadInt32(&alive) != 0 {
		// The kernel's wake-up at the end of a thread is of a shared futex.
		_, _, e := syscall.RawSyscall6(syscall.SYS_FUTEX, uintptr(unsafe.Pointer(&alive)), 0, uintptr(r), 0, 0, 0)
		if e != 0 && e != syscall.EAGAIN && e != syscall.EINTR {
			check("futex", e)
		}
	}
}

// rawThread makes a thread on the stack that ends at top; at its end *alive becomes 0. It stores the thread's id there at first.
func rawThread(top uintptr, alive *int32) uintptr
