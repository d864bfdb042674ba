// Package signal has what signals are made of: sets, siginfo, dispositions, queues of pending signals, and the frames on user
// stacks (signal(7), sigaction(2), arch/x86/kernel/signal_64.c). Who sends to whom is package proc's.
//
// Nothing here locks, except Actions; who owns a value says under which lock it is used.
package signal

import (
	"encoding/binary"
	"math/bits"

	"dinos/kernel/linux"
)

// Set is a sigset_t: bit n-1 for signal n.
type Set uint64

// Of returns the set of some signals.
func Of(sigs ...int) (s Set) {
	for _, n := range sigs {
		s |= 1 << (n - 1)
	}
	return s
}

// Sets that behave alike (signal(7)).
const (
	// Unblockable can be neither blocked, caught nor ignored.
	Unblockable = Set(1<<(linux.SIGKILL-1) | 1<<(linux.SIGSTOP-1))
	// Synchronous signals are delivered before others: their siginfo belongs to the instruction that RIP points at.
	Synchronous = Set(1<<(linux.SIGSEGV-1) | 1<<(linux.SIGBUS-1) | 1<<(linux.SIGILL-1) | 1<<(linux.SIGTRAP-1) |
		1<<(linux.SIGFPE-1) | 1<<(linux.SIGSYS-1))
	// Stops stop a process if they have no handler.
	Stops = Set(1<<(linux.SIGSTOP-1) | 1<<(linux.SIGTSTP-1) | 1<<(linux.SIGTTIN-1) | 1<<(linux.SIGTTOU-1))
	// Cores end a process with the core dump bit in its status.
	Cores = Set(1<<(linux.SIGQUIT-1)|1<<(linux.SIGABRT-1)|1<<(linux.SIGXCPU-1)|1<<(linux.SIGXFSZ-1)) | Synchronous
	// Ignored have no effect by default.
	Ignored = Set(1<<(linux.SIGCONT-1) | 1<<(linux.SIGCHLD-1) | 1<<(linux.SIGWINCH-1) | 1<<(linux.SIGURG-1))
)

// Has reports whether sig is in s.
func (s Set) Has(sig int) bool { return s>>(sig-1)&1 != 0 }

// First returns the signal of s that is delivered first: a synchronous one, else the one with the lowest number. 0 if s is empty.
func (s Set) First() int {
	if y := s & Synchronous; y != 0 {
		s = y
	}
	if s == 0 {
		return 0
	}
	return bits.TrailingZeros64(uint64(s)) + 1
}

// Valid reports whether sig is the number of a signal.
func Valid(sig int) bool { return sig >= 1 && sig <= linux.NumSignals }

// InfoSize is the size of siginfo_t in a program's memory, in bytes; what Info does not have is zero there.
const InfoSize = 128

// Info is a siginfo_t without its padding (struct kernel_siginfo).
type Info struct {
	Signo, Errno, Code int32
	_                  int32
	U                  [4]uint64 // the union; the methods below know what is where
}

func pair(lo, hi uint32) uint64 { return uint64(lo) | uint64(hi)<<32 }

// From is the Info of kill(2), tgkill(2) and the like: who sent it.
func From(sig int, code, pid int32, uid uint32) Info {
	return Info{Signo: int32(sig), Code: code, U: [4]uint64{pair(uint32(pid), uid)}}
}

// Kernel is the Info of a signal that the kernel sends for no more reason than its number.
func Kernel(sig int) Info { return Info{Signo: int32(sig), Code: linux.SI_KERNEL} }

// Fault is the Info of a fault at an address.
func Fault(sig int, code int32, addr uint64) Info {
	return Info{Signo: int32(sig), Code: code, U: [4]uint64{addr}}
}

// Child is the Info of a child's change of state; the times are in ticks of 10 ms.
func Child(sig int, code, pid int32, uid uint32, status int32, utime, stime int64) Info {
	return Info{Signo: int32(sig), Code: code, U: [4]uint64{pair(uint32(pid), uid), uint64(uint32(status)), uint64(utime), uint64(stime)}}
}

// Timer is the Info of a POSIX timer.
func Timer(sig int, id, overrun int32, value uint64) Info {
	return Info{Signo: int32(sig), Code: linux.SI_TIMER, U: [4]uint64{pair(uint32(id), uint32(overrun)), value}}
}

// Poll is the Info of SIGIO: band are the events of poll(2).
func Poll(sig int, code int32, band int64, fd int32) Info {
	return Info{Signo: int32(sig), Code: code, U: [4]uint64{uint64(band), uint64(uint32(fd))}}
}

// Syscall is the Info of SIGSYS.
func Syscall(addr uint64, nr int32) Info {
	const auditArchX8664 = 0xc000003e
	return Info{Signo: linux.SIGSYS, Code: 1, U: [4]uint64{addr, pair(uint32(nr), auditArchX8664)}}
}

// PID is si_pid of a signal that a process sent, and of SIGCHLD.
func (i *Info) PID() int32 { return int32(i.U[0]) }

// UID is si_uid, where PID is something.
func (i *Info) UID() uint32 { return uint32(i.U[0] >> 32) }

// Status is si_status of SIGCHLD.
func (i *Info) Status() int32 { return int32(i.U[1]) }

// Addr is si_addr of a fault.
func (i *Info) Addr() uint64 { return i.U[0] }

// Value is si_value of a queued signal or a timer.
func (i *Info) Value() uint64 { return i.U[1] }

// TimerID is si_timerid.
func (i *Info) TimerID() int32 { return int32(i.U[0]) }

// Overrun is si_overrun.
func (i *Info) Overrun() int32 { return int32(i.U[0] >> 32) }

// SetOverrun changes si_overrun.
func (i *Info) SetOverrun(n int32) { i.U[0] = pair(uint32(i.U[0]), uint32(n)) }

// Times are si_utime and si_stime of SIGCHLD, in ticks of 10 ms.
func (i *Info) Times() (utime, stime int64) { return int64(i.U[2]), int64(i.U[3]) }

// Band and FD are those of SIGIO.
func (i *Info) Band() (band int64, fd int32) { return int64(i.U[0]), int32(i.U[1]) }

// Put stores i as a siginfo_t in b, which has InfoSize bytes.
func (i *Info) Put(b []byte) {
	b = b[:InfoSize]
	le := binary.LittleEndian
	le.PutUint32(b, uint32(i.Signo))
	le.PutUint32(b[4:], uint32(i.Errno))
	le.PutUint32(b[8:], uint32(i.Code))
	le.PutUint32(b[12:], 0)
	for n, u := range i.U {
		le.PutUint64(b[16+8*n:], u)
	}
	clear(b[48:])
}

// Get takes i from a siginfo_t of InfoSize bytes, as rt_sigqueueinfo(2) does. linux.E2BIG: it has more than an Info can keep.
func (i *Info) Get(b []byte) error {
	b = b[:InfoSize]
	le := binary.LittleEndian
	*i = Info{Signo: int32(le.Uint32(b)), Errno: int32(le.Uint32(b[4:])), Code: int32(le.Uint32(b[8:]))}
	for n := range i.U {
		i.U[n] = le.Uint64(b[16+8*n:])
	}
	if i.known() {
		return nil
	}
	for _, x := range b[48:] {
		if x != 0 {
			return linux.E2BIG
		}
	}
	return nil
}

// known reports whether Linux knows the layout of i (known_siginfo_layout in kernel/signal.c), so that what is beyond an Info
// cannot matter.
func (i *Info) known() bool {
	switch {
	case i.Code == linux.SI_KERNEL:
		return true
	case i.Code > linux.SI_USER:
		limit, ok := map[int32]int32{linux.SIGILL: 11, linux.SIGFPE: 15, linux.SIGSEGV: 10, linux.SIGBUS: 5,
			linux.SIGTRAP: 6, linux.SIGCHLD: 6, linux.SIGIO: 6, linux.SIGSYS: 2}[i.Signo]
		return ok && i.Code <= limit || i.Code <= linux.POLL_HUP
	}
	return i.Code >= linux.SI_SIGIO || i.Code == linux.SI_TKILL
}

// FromUser reports whether a process sent i, not the kernel (SI_FROMUSER).
func (i *Info) FromUser() bool { return i.Code <= 0 }
