package main

import (
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func sc0(nr uintptr) uintptr {
	v, _, e := syscall.RawSyscall(nr, 0, 0, 0)
	check("system call", e)
	return v
}

func open(path string, flags int) int {
	fd, err := syscall.Open(path, flags, 0o600)
	if err != nil {
		fail(path, err)
	}
	return fd
}

func rows(dir string) []row {
	var list []row
	list = append(list, plainRows()...)
	list = append(list, memoryRows()...)
	list = append(list, processRows(dir)...)
	list = append(list, wakeRows()...)
	return append(list, fileRows(dir)...)
}

func plainRows() []row {
	var null, zero int
	b := make([]byte, 1)
	return []row{
		{name: "getpid", n: 20000, run: func(n int) {
			for range n {
				sc0(syscall.SYS_GETPID)
			}
		}},
		{name: "write 1 B", n: 10000, prep: func() { null = open("/dev/null", syscall.O_WRONLY) }, run: func(n int) {
			for range n {
				_, _, e := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(null), address(b), 1)
				check("write", e)
			}
		}, done: func() { syscall.Close(null) }},
		{name: "read 1 B", n: 10000, prep: func() { zero = open("/dev/zero", syscall.O_RDONLY) }, run: func(n int) {
			for range n {
				_, _, e := syscall.RawSyscall(syscall.SYS_READ, uintptr(zero), address(b), 1)
				check("read", e)
			}
		}, done: func() { syscall.Close(zero) }},
		{name: "sched_yield", n: 10000, run: func(n int) {
			for range n {
				sc0(syscall.SYS_SCHED_YIELD)
			}
		}},
		{name: "clock_gettime", n: 20000, run: func(n int) {
			for range n {
				_ = time.Now() // by the vDSO
			}
		}},
		{name: "signal to self", n: 1000, prep: installHandler, run: func(n int) {
			pid, tid := sc0(syscall.SYS_GETPID), sc0(syscall.SYS_GETTID)
			before := handled()
			for range n {
				_, _, e := syscall.RawSyscall(syscall.SYS_TGKILL, pid, tid, uintptr(syscall.SIGUSR2))
				check("tgkill", e)
			}
			if handled() != before+uint64(n) {
				fail("signal to self", unix.EINTR)
			}
		}},
	}
}

const page = 4096

func mmap(n uintptr, flags uintptr) uintptr {
	a, _, e := syscall.RawSyscall6(syscall.SYS_MMAP, 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANONYMOUS|flags, ^uintptr(0), 0)
	check("mmap", e)
	return a
}

func munmap(a, n uintptr) {
	_, _, e := syscall.RawSyscall(syscall.SYS_MUNMAP, a, n, 0)
	check("munmap", e)
}

func memoryRows() []row {
	var area uintptr
	return []row{
		{name: "page fault", n: 512, run: func(n int) {
			a := mmap(uintptr(n)*page, 0)
			for i := range uintptr(n) {
				poke(a + i*page)
			}
			munmap(a, uintptr(n)*page)
		}},
		{name: "mmap+munmap", n: 500, run: func(n int) {
			for range n {
				munmap(mmap(16*page, 0), 16*page)
			}
		}},
		{name: "mmap+touch+munmap", n: 200, run: func(n int) {
			for range n {
				a := mmap(4*page, 0)
				for i := range uintptr(4) {
					poke(a + i*page)
				}
				munmap(a, 4*page)
			}
		}},
		{name: "mprotect", n: 500, prep: func() { area = mmap(16*page, 0); poke(area) }, run: func(n int) {
			for range n {
				_, _, e := syscall.RawSyscall(syscall.SYS_MPROTECT, area, page, syscall.PROT_READ)
				check("mprotect", e)
				_, _, e = syscall.RawSyscall(syscall.SYS_MPROTECT, area, page, syscall.PROT_READ|syscall.PROT_WRITE)
				check("mprotect", e)
				poke(area)
			}
		}, done: func() { munmap(area, 16*page) }},
	}
}

// tinyELF is a program that ends at once, with status 0: an ELF header, a program header, XOR EDI,EDI; MOV EAX,60; SYSCALL.
var tinyELF = []byte("\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x3e\x00\x01\x00\x00\x00\x78\x00\x40\x00\x00\x00\x00\x00\x40\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x40\x00\x38\x00\x01\x00\x00\x00\x00\x00\x00\x00" +
	"\x01\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x40\x00\x00\x00\x00\x00\x00\x00\x40\x00\x00\x00\x00\x00" +
	"\x81\x00\x00\x00\x00\x00\x00\x00\x81\x00\x00\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00" +
	"\x31\xff\xb8\x3c\x00\x00\x00\x0f\x05")

func processRows(dir string) []row {
	path := filepath.Join(dir, "tiny")
	return []row{
		{name: "fork+exit+wait", n: 20, run: func(n int) {
			for range n {
				reap(forkExit())
			}
		}},
		{name: "fork+exec", n: 10, prep: func() {
			if err := os.WriteFile(path, tinyELF, 0o755); err != nil {
				fail(path, err)
			}
		}, run: func(n int) {
			z := append([]byte(path), 0)
			for range n {
				reap(forkExec(z))
			}
		}},
		{name: "thread create+join", n: 100, prep: threadStack, run: func(n int) {
			for range n {
				threadJoin()
			}
		}},
	}
}

func reap(pid uintptr) {
	var status int32
	got, _, e := syscall.Syscall6(syscall.SYS_WAIT4, pid, address32(&status), 0, 0, 0, 0)
	check("wait4", e)
	if got != pid || status != 0 {
		fail("child", syscall.Errno(status>>8&0xff|status&0x7f))
	}
}

func fileRows(dir string) []row {
	small, large := make([]byte, 4096), make([]byte, 1<<20)
	name := filepath.Join(dir, "file")
	z := append([]byte(name), 0)
	var fd int
	var st syscall.Stat_t
	prep := func() {
		fd = open(name, syscall.O_RDWR|syscall.O_CREAT)
		if _, err := syscall.Pwrite(fd, large, 0); err != nil {
			fail(name, err)
		}
	}
	io := func(nr uintptr, b []byte) func(n int) {
		return func(n int) {
			for range n {
				got, _, e := syscall.RawSyscall6(nr, uintptr(fd), address(b), uintptr(len(b)), 0, 0, 0)
				check(name, e)
				if got != uintptr(len(b)) {
					fail(name, unix.EIO)
				}
			}
		}
	}
	done := func() { syscall.Close(fd) }
	return []row{
		{name: "read 4 KiB", n: 2000, prep: prep, run: io(syscall.SYS_PREAD64, small), done: done},
		{name: "write 4 KiB", n: 2000, prep: prep, run: io(syscall.SYS_PWRITE64, small), done: done},
		{name: "read 1 MiB", n: 20, prep: prep, run: io(syscall.SYS_PREAD64, large), done: done},
		{name: "write 1 MiB", n: 20, prep: prep, run: io(syscall.SYS_PWRITE64, large), done: done},
		{name: "open+close", n: 1000, prep: prep, run: func(n int) {
			for range n {
				f, _, e := syscall.RawSyscall(syscall.SYS_OPEN, address(z), syscall.O_RDONLY, 0)
				check(name, e)
				_, _, e = syscall.RawSyscall(syscall.SYS_CLOSE, f, 0, 0)
				check(name, e)
			}
		}, done: done},
		{name: "stat", n: 2000, prep: prep, run: func(n int) {
			for range n {
				_, _, e := syscall.RawSyscall(syscall.SYS_STAT, address(z), statAddress(&st), 0)
				check(name, e)
			}
		}, done: done},
	}
}
