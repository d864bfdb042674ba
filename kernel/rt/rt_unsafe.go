package rt

import (
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"

	"dinos/boot/record"
	"dinos/kernel/linux"
	"dinos/kernel/trap"
)

// The runtime's pointers arrive as addresses. They are trusted: whoever issues system calls in ring 0 could as well
// write anywhere.

const (
	sizeFPState    = uint64(unsafe.Sizeof(linux.FPState{}))
	sizeSiginfo    = uint64(unsafe.Sizeof(linux.Siginfo{}))
	sizeUcontext   = uint64(unsafe.Sizeof(linux.Ucontext{}))
	sizeEpollEvent = uint64(unsafe.Sizeof(linux.EpollEvent{}))
)

func at[T any](a uint64) *T { return (*T)(unsafe.Add(nil, a)) }

func fpstateAt(a uint64) *linux.FPState       { return at[linux.FPState](a) }
func siginfoAt(a uint64) *linux.Siginfo       { return at[linux.Siginfo](a) }
func ucontextAt(a uint64) *linux.Ucontext     { return at[linux.Ucontext](a) }
func sigactionAt(a uint64) *linux.Sigaction   { return at[linux.Sigaction](a) }
func stackAt(a uint64) *linux.Stack           { return at[linux.Stack](a) }
func timespecAt(a uint64) *linux.Timespec     { return at[linux.Timespec](a) }
func epollEventAt(a uint64) *linux.EpollEvent { return at[linux.EpollEvent](a) }
func wordAt(a uint64) *uint64                 { return at[uint64](a) }

func loadWord32(a uint64) uint32 { return atomic.LoadUint32(at[uint32](a)) }

func bytesAt(a, n uint64) []byte { return unsafe.Slice(at[byte](a), n) }

// clearFrame zeroes a frame through the direct map. Eight-byte stores: under emulation REP STOS is fifteen times slower.
func clearFrame(pa uint64) {
	*at[[512]uint64](record.DirectMap + pa) = [512]uint64{}
}

// run passes f, a pointer to its closure, by a system call. A raw one: to the runtime the caller keeps running, so neither is its
// stack moved nor its processor given away meanwhile.
func run(f func(*trap.CPU)) {
	syscall.RawSyscall(sysRun, **(**uintptr)(unsafe.Pointer(&f)), *(*uintptr)(unsafe.Pointer(&f)), 0)
	runtime.KeepAlive(f)
}

// funcAt is the inverse.
func funcAt(closure uint64) func(*trap.CPU) { return *(*func(*trap.CPU))(unsafe.Pointer(&closure)) }
