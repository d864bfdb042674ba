package sys

import (
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"

	"dinos/dkernel/ipc/event"
	"dinos/dkernel/ipc/socket"
	"dinos/kernel/linux"
)

// Kernel is what system calls need of the kernel around them.
type Kernel struct {
	Table *Table
	// Log writes a line about the kernel itself.
	Log func(line string)
	// Random fills p.
	Random func(p []byte)
	// CPU is where the caller runs: number and NUMA node.
	CPU func() (cpu, node uint32)
	// Memory has the totals that sysinfo(2) tells, in bytes.
	Memory func() (total, free uint64)
	// Load are the load averages times 65536, Uptime is in ns.
	Load   func() [3]uint64
	Uptime func() int64
	// Active counts the threads that do not sleep, CPUs are those that can run them.
	Active *atomic.Int32
	CPUs   int
	// Threads is how many there are.
	Threads func() int
	// Clocks are the clocks of timerfds.
	Clocks *event.Clocks
	// Sockets has the families of sockets.
	Sockets *socket.System
	// Exec runs a program in place of the caller's.
	Exec Exec
}

func (k *Kernel) log(format string, args ...any) {
	if k.Log != nil {
		k.Log(fmt.Sprintf(format, args...))
	}
}

// yieldEvery is how many calls of sched_yield a thread may make before it really gives way though nobody seems to want its CPU:
// goroutines of the kernel may.
const yieldEvery = 16

// yield lets other threads run. The Go runtime's way takes 1 µs and more, so it is spared if there are not more threads than CPUs.
func (t *Task) yield() {
	t.yields++
	if k := t.K; k.Active == nil || int(k.Active.Load()) > k.CPUs || t.yields%yieldEvery == 0 {
		runtime.Gosched()
	}
}

func systemCalls() []Call {
	return []Call{
		{"uname", func(t *Task, a *Args) (uint64, error) {
			u := t.T.Uname()
			var b [6][65]byte
			for i, s := range [...]string{u.Sysname, u.Nodename, u.Release, u.Version, u.Machine, u.Domainname} {
				copy(b[i][:64], s)
			}
			return 0, store(t, a[0], &b)
		}, Full, ""},
		{"sethostname", func(t *Task, a *Args) (uint64, error) { return t.setName(a, t.T.SetHostname) }, Full, ""},
		{"setdomainname", func(t *Task, a *Args) (uint64, error) { return t.setName(a, t.T.SetDomainname) }, Full, ""},
		{"sysinfo", sysSysinfo, Full, ""},
		{"getrandom", sysGetrandom, Full, ""},
		{"getcpu", func(t *Task, a *Args) (uint64, error) {
			cpu, node := t.K.CPU()
			if a[0] != 0 {
				if err := store(t, a[0], &cpu); err != nil {
					return 0, err
				}
			}
			if a[1] != 0 {
				return 0, store(t, a[1], &node)
			}
			return 0, nil
		}, Full, ""},
		{"mount", sysMount, Partial, "tmpfs, proc, sysfs, devpts, bind mounts, remount; no block devices"},
		{"umount2", path1(func(t *Task, p string, a *Args) error { return t.C.UmountAt(p, int(int32(a[1]))) }), Full, ""},
		{"seccomp", func(t *Task, a *Args) (uint64, error) { return 0, linux.EINVAL }, Refused, "as a kernel without CONFIG_SECCOMP_FILTER"},
		{"modify_ldt", func(t *Task, a *Args) (uint64, error) { return 0, linux.ENOSYS }, Refused, "as a kernel without CONFIG_MODIFY_LDT_SYSCALL"},
	}
}

func (t *Task) setName(a *Args, set func(string) error) (uint64, error) {
	if int32(a[1]) < 0 || a[1] > 64 {
		return 0, linux.EINVAL
	}
	b := t.buf[:a[1]]
	if _, err := t.Mem.CopyIn(b, a[0]); err != nil {
		return 0, linux.EFAULT
	}
	return 0, set(string(b))
}

// sysinfo is struct sysinfo.
type sysinfo struct {
	Uptime                      int64
	Loads                       [3]uint64
	Total, Free, Shared, Buffer uint64
	TotalSwap, FreeSwap         uint64
	Procs, _                    uint16
	_                           uint32
	TotalHigh, FreeHigh         uint64
	Unit, _                     uint32
}

func sysSysinfo(t *Task, a *Args) (uint64, error) {
	total, free := t.K.Memory()
	// Uptime is rounded up.
	s := sysinfo{Uptime: (t.K.Uptime() + 1e9 - 1) / 1e9, Total: total, Free: free, Procs: uint16(min(t.K.Threads(), 65535)), Unit: 1}
	s.Loads = t.K.Load()
	return 0, store(t, a[0], &s)
}

func sysGetrandom(t *Task, a *Args) (uint64, error) {
	const nonblock, random, insecure = 1, 2, 4
	if a[2]&^(nonblock|random|insecure) != 0 || a[2]&(random|insecure) == random|insecure {
		return 0, linux.EINVAL
	}
	n := min(a[1], 0x7fffffff)
	for done := uint64(0); done < n; {
		b := t.buf[:min(n-done, uint64(len(t.buf)))]
		t.K.Random(b)
		m, err := t.Mem.CopyOut(a[0]+done, b)
		done += uint64(m)
		if err != nil {
			if done == 0 {
				return 0, linux.EFAULT
			}
			return done, nil
		}
		if done < n && t.T.Interrupted() {
			return done, nil
		}
	}
	return n, nil
}

func (t *Task) optional(addr uint64) (string, error) {
	if addr == 0 {
		return "", nil
	}
	return t.str(addr)
}

func sysMount(t *Task, a *Args) (uint64, error) {
	var s [4]string
	for i, addr := range [...]uint64{a[0], a[1], a[2], a[4]} {
		v, err := t.optional(addr)
		if err != nil {
			return 0, err
		}
		s[i] = strings.Clone(v)
	}
	return 0, t.C.MountAt(s[0], s[1], s[2], uint32(a[3]), s[3], t.K.Exec.FileSystems())
}
