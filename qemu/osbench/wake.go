package main

import (
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Rows in which two threads take turns.

const (
	futexWait = 0 | 128
	futexWake = 1 | 128
)

// pair runs a and b in two threads, on the CPUs given, until both are through with n turns.
func pair(cpuA, cpuB, n int, a, b func(n int)) {
	var wg sync.WaitGroup
	for i, f := range []func(int){a, b} {
		cpu := [2]int{cpuA, cpuB}[i]
		wg.Add(1)
		go func() {
			defer wg.Done()
			runtime.LockOSThread() // and never unlocked: the thread ends with its affinity
			var set unix.CPUSet
			set.Set(cpu)
			if err := unix.SchedSetaffinity(0, &set); err != nil {
				fail("sched_setaffinity", err)
			}
			f(n)
		}()
	}
	wg.Wait()
}

// futexTurns passes a word to and fro. me is 0 or 1: whose turn it is.
func futexTurns(word *uint32, me uint32) func(n int) {
	return func(n int) {
		for range n {
			for load(word) != me {
				_, _, e := syscall.RawSyscall6(syscall.SYS_FUTEX, wordAddress(word), futexWait, uintptr(1-me), 0, 0, 0)
				if e != 0 && e != syscall.EAGAIN && e != syscall.EINTR {
					check("futex", e)
				}
			}
			store(word, 1-me)
			_, _, e := syscall.RawSyscall6(syscall.SYS_FUTEX, wordAddress(word), futexWake, 1, 0, 0, 0)
			check("futex", e)
		}
	}
}

func pipes() (r, w int) {
	var p [2]int
	if err := syscall.Pipe2(p[:], 0); err != nil {
		fail("pipe2", err)
	}
	return p[0], p[1]
}

func get(fd int, b []byte) {
	n, _, e := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), address(b), 1)
	for e == syscall.EINTR {
		n, _, e = syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), address(b), 1)
	}
	check("read", e)
	if n != 1 {
		fail("read", unix.EIO)
	}
}

func put(fd int, b []byte) {
	_, _, e := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), address(b), 1)
	check("write", e)
}

func pipeTurns(in, out int, first bool) func(n int) {
	return func(n int) {
		b := make([]byte, 1)
		for range n {
			if first {
				put(out, b)
				get(in, b)
			} else {
				get(in, b)
				put(out, b)
			}
		}
	}
}

func wakeRows() []row {
	var r1, w1, r2, w2, ep, ev int
	open := func() { r1, w1 = pipes(); r2, w2 = pipes() }
	shut := func() {
		for _, fd := range []int{r1, w1, r2, w2} {
			syscall.Close(fd)
		}
	}
	futex := func(a, b int) func(int) {
		return func(n int) {
			word := new(uint32)
			pair(a, b, n, futexTurns(word, 0), futexTurns(word, 1))
		}
	}
	pipe := func(a, b int) func(int) {
		return func(n int) { pair(a, b, n, pipeTurns(r2, w1, true), pipeTurns(r1, w2, false)) }
	}
	return []row{
		{name: "futex round trip, same CPU", n: 500, run: futex(0, 0)},
		{name: "futex round trip, other CPU", n: 500, run: futex(0, 1), cpus: 2},
		{name: "pipe round trip, same CPU", n: 500, prep: open, run: pipe(0, 0), done: shut},
		{name: "pipe round trip, other CPU", n: 500, prep: open, run: pipe(0, 1), done: shut, cpus: 2},
		{name: "epoll wake-up", n: 500, prep: func() {
			open()
			var err error
			if ep, err = syscall.EpollCreate1(0); err != nil {
				fail("epoll_create1", err)
			}
			ev = r1
			if err := syscall.EpollCtl(ep, syscall.EPOLL_CTL_ADD, ev, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(ev)}); err != nil {
				fail("epoll_ctl", err)
			}
		}, run: func(n int) {
			pair(0, 0, n, pipeTurns(r2, w1, true), func(n int) {
				b := make([]byte, 1)
				var evs [4]syscall.EpollEvent
				for range n {
					got, _, e := syscall.RawSyscall6(syscall.SYS_EPOLL_WAIT, uintptr(ep), eventAddress(&evs), 4, ^uintptr(0), 0, 0)
					for e == syscall.EINTR { // the Go runtime wants its thread
						got, _, e = syscall.RawSyscall6(syscall.SYS_EPOLL_WAIT, uintptr(ep), eventAddress(&evs), 4, ^uintptr(0), 0, 0)
					}
					check("epoll_wait", e)
					if got != 1 {
						fail("epoll_wait", unix.EIO)
					}
					get(r1, b)
					put(w2, b)
				}
			})
		}, done: func() { shut(); syscall.Close(ep) }},
	}
}
