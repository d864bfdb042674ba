// Command sysfuzz makes random system calls with random arguments, in children that it starts again when they die of it. It is for kernels: the
// calls of a whole run are to leave the kernel as it was. Arguments: the seed, the number of calls.
package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// perChild is how many calls a child makes, if it lives so long.
const perChild = 2000

func main() {
	if len(os.Args) == 4 && os.Args[1] == "child" {
		child(os.Args[2], os.Args[3])
		return
	}
	if len(os.Args) != 3 {
		fmt.Println("usage: sysfuzz SEED CALLS")
		os.Exit(2)
	}
	seed, _ := strconv.ParseUint(os.Args[1], 10, 64)
	calls, _ := strconv.Atoi(os.Args[2])
	_ = exec.Command("/none").Run()
	_ = exec.Command(os.Args[0], "child", "0", "1").Run() // what the Go runtime opens for children is open now
	before := numbers()
	var died atomic.Int64
	var wg sync.WaitGroup
	slots := make(chan bool, 4) // children at a time
	for i := 0; i*perChild < calls; i++ {
		slots <- true
		wg.Go(func() {
			defer func() { <-slots }()
			c := exec.Command(os.Args[0], "child", strconv.FormatUint(seed+uint64(i), 10), strconv.Itoa(perChild))
			// Signals to its group are for itself. Nobody in particular, since root could unmount /dev.
			c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
			if err := c.Start(); err != nil {
				fmt.Println("fatal:", err)
				os.Exit(1)
			}
			timer := time.AfterFunc(4*time.Second, func() { c.Process.Kill() }) // a call that waits for ever is right to do so
			if c.Wait() != nil {
				died.Add(1)
			}
			timer.Stop()
		})
	}
	wg.Wait()
	time.Sleep(200 * time.Millisecond) // children of children end
	fmt.Printf("made about %d calls, %d children died\n", calls, died.Load())
	if n := numbers(); n != before {
		fmt.Printf("descriptors %d, and %d before\n", n, before)
	}
}

// numbers are how many descriptors are open here.
func numbers() int {
	n := 0
	for fd := range 256 {
		if _, _, e := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0); e == 0 {
			n++
		}
	}
	return n
}

// never are calls that would end the run or stop the machine's other programs, which are not what is tested.
var never = map[uintptr]bool{
	syscall.SYS_EXIT: true, syscall.SYS_EXIT_GROUP: true, syscall.SYS_FORK: true, syscall.SYS_VFORK: true, syscall.SYS_CLONE: true, 435: true,
	syscall.SYS_KILL: true, syscall.SYS_TKILL: true, syscall.SYS_TGKILL: true, syscall.SYS_RT_SIGQUEUEINFO: true, 297: true, 424: true,
	syscall.SYS_PAUSE: true, syscall.SYS_RT_SIGSUSPEND: true, syscall.SYS_RT_SIGRETURN: true, syscall.SYS_REBOOT: true,
	syscall.SYS_MUNMAP: true, syscall.SYS_MPROTECT: true, syscall.SYS_MREMAP: true, syscall.SYS_BRK: true, // of the program itself, which dies of them at once
}

func child(seedText, callsText string) {
	seed, _ := strconv.ParseUint(seedText, 10, 64)
	calls, _ := strconv.Atoi(callsText)
	r := rand.New(rand.NewPCG(seed, 1))
	dir, err := os.MkdirTemp("", "fuzz")
	if err != nil {
		return
	}
	_ = os.Chdir(dir)
	buf := make([]byte, 1<<16)
	for i := range buf {
		buf[i] = byte(r.Uint32())
	}
	names := []string{"a", "b/c", ".", "..", "/", "/dev/null", "/dev/zero", "/dev/tty", "/proc/self/maps", dir, strings.Repeat("x", 300)}
	for i, n := range names {
		copy(buf[4096+512*i:], n+"\x00")
	}
	base := uintptr(unsafe.Pointer(&buf[0]))
	arg := func() uintptr {
		switch r.IntN(12) {
		case 0, 1:
			return uintptr(r.IntN(8))
		case 2:
			return uintptr(r.IntN(300))
		case 3:
			return base + uintptr(r.IntN(len(buf)))
		case 4:
			return base + 4096 + 512*uintptr(r.IntN(len(names)))
		case 5:
			return base + uintptr(r.IntN(16))*8
		case 6:
			return 1 << r.IntN(64)
		case 7:
			return ^uintptr(0) - uintptr(r.IntN(4096))
		case 8:
			return uintptr(r.Uint64())
		case 9:
			return 0xffff_8000_0000_0000 + uintptr(r.IntN(1<<20))
		case 10:
			return 0x7fff_ffff_f000 - uintptr(r.IntN(8192))
		}
		return 0
	}
	for range calls {
		nr := uintptr(r.IntN(472))
		if never[nr] {
			continue
		}
		a := [6]uintptr{arg(), arg(), arg(), arg(), arg(), arg()}
		if (nr == syscall.SYS_NANOSLEEP || nr == syscall.SYS_CLOCK_NANOSLEEP) && r.IntN(50) > 0 {
			continue
		}
		_, _, _ = syscall.RawSyscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
	}
}
