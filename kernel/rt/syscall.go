package rt

import (
	"dinos/kernel/kspace"
	"dinos/kernel/linux"
	"dinos/kernel/mem"
	"dinos/kernel/thread"
	"dinos/kernel/trace"
	"dinos/kernel/trap"
	"dinos/kernel/x86"
)

// Thread IDs that the runtime sees are thread.ID + firstTID; the process ID is that of the first thread.
const (
	firstTID = 1
	pid      = 1
)

// timerSlack is how much later than asked for nanosleep may return, ns: Linux' default (prctl(2), PR_SET_TIMERSLACK). The
// runtime's monitor thread sleeps 20 µs at a time while it sees work, which would cost an idle machine most of what it uses.
const timerSlack = 50_000

// Syscall serves a SYSCALL from thread code; c is the thread's Context. Calls that only compute a value are in value, those
// that may switch threads are here.
func (k *Kernel) Syscall(cpu *trap.CPU, c *trap.Context) *trap.Context {
	nr := c.RAX
	if nr < uint64(len(k.counts)) {
		k.counts[nr]++
	}
	pc := &k.cpus[cpu.ID]
	k.serveFlush(pc)
	if nr != linux.SYS_CLOCK_GETTIME {
		pc.Trace.Record(k.Now(), trace.Syscall, nr, c.RDI, c.RSI)
	}
	switch nr {
	case linux.SYS_FUTEX:
		return k.futex(cpu, c)
	case linux.SYS_NANOSLEEP:
		ns, ok := timespecAt(c.RDI).Ns()
		if !ok {
			c.RAX = linux.EINVAL.Ret()
			return c
		}
		k.sched.Lock()
		return k.block(cpu, waitSleep, 0, deadline(k.Now(), ns+timerSlack))
	case linux.SYS_EPOLL_PWAIT:
		return k.epollWait(cpu, c)
	case linux.SYS_SCHED_YIELD:
		c.RAX = 0
		k.sched.Lock()
		k.cpus[cpu.ID].kicks |= k.threads.Yield(int(cpu.ID))
		return k.next(cpu)
	case linux.SYS_SCHED_SETAFFINITY:
		return k.setAffinity(cpu, c)
	case linux.SYS_EXIT:
		k.sched.Lock()
		pc.Trace.Record(k.Now(), trace.Exit, uint64(k.current(cpu)), 0, 0)
		k.threads.Exit(int(cpu.ID))
		return k.next(cpu)
	case linux.SYS_EXIT_GROUP:
		k.exit(cpu, c, c.RDI)
	}
	c.RAX = k.value(cpu, c)
	// Looking without the lock is enough: who makes a signal pending for a running thread kicks its CPU afterwards.
	if th := k.threads.Current(int(cpu.ID)); k.deliverable(th) != 0 {
		k.sched.Lock()
		k.deliver(cpu, th, c)
		k.release(cpu)
	}
	k.dieToo(cpu)
	return c
}

// value serves the calls that return to their caller at once.
func (k *Kernel) value(cpu *trap.CPU, c *trap.Context) uint64 {
	switch c.RAX {
	case linux.SYS_CLOCK_GETTIME:
		return k.clockGettime(c.RDI, c.RSI)
	case linux.SYS_WRITE:
		return k.write(cpu, c.RDI, c.RSI, c.RDX)
	case linux.SYS_READ:
		return k.read(c.RDI, c.RSI, c.RDX)
	case linux.SYS_MMAP:
		return k.mmap(c.RDI, c.RSI, c.RDX, c.R10, c.R8)
	case linux.SYS_MUNMAP:
		return k.change(c.RDI, c.RSI, kspace.Unused)
	case linux.SYS_MPROTECT:
		return k.mprotect(c.RDI, c.RSI, c.RDX)
	case linux.SYS_MADVISE:
		return k.madvise(c.RDI, c.RSI, c.RDX)
	case linux.SYS_CLONE:
		return k.clone(cpu, c)
	case linux.SYS_GETTID:
		return uint64(k.current(cpu)) + firstTID
	case linux.SYS_GETPID:
		return pid
	case linux.SYS_SCHED_GETAFFINITY:
		return k.affinity(cpu, c.RSI, c.RDX)
	case linux.SYS_GETRANDOM:
		k.Random(bytesAt(c.RDI, c.RSI))
		return c.RSI
	}
	return k.control(cpu, c)
}

// control serves signals, descriptors and the rest: calls off the hot paths.
func (k *Kernel) control(cpu *trap.CPU, c *trap.Context) uint64 {
	switch c.RAX {
	case linux.SYS_RT_SIGACTION:
		return k.sigaction(c.RDI, c.RSI, c.RDX)
	case linux.SYS_RT_SIGPROCMASK:
		return k.sigprocmask(cpu, c.RDI, c.RSI, c.RDX)
	case linux.SYS_RT_SIGRETURN:
		k.sigreturn(k.current(cpu), c)
		return c.RAX
	case linux.SYS_SIGALTSTACK:
		return k.sigaltstack(cpu, c.RDI, c.RSI)
	case linux.SYS_TGKILL:
		k.sched.Lock()
		r := k.tgkill(cpu, c.RSI, c.RDX)
		k.release(cpu)
		return r
	case linux.SYS_ARCH_PRCTL:
		if c.RDI != linux.ARCH_SET_FS {
			return linux.EINVAL.Ret()
		}
		c.ThreadFS = c.RSI
		return 0
	case linux.SYS_EVENTFD2, linux.SYS_EPOLL_CREATE1, linux.SYS_EPOLL_CTL, linux.SYS_CLOSE, linux.SYS_FCNTL:
		k.sched.Lock()
		r := k.descriptor(c)
		k.sched.Unlock()
		return r
	case linux.SYS_OPEN, linux.SYS_OPENAT, linux.SYS_ACCESS, linux.SYS_FACCESSAT:
		return linux.ENOENT.Ret() // a kernel has no files of its own
	}
	if c.RAX == sysRun {
		funcAt(c.RSI)(cpu)
		return 0
	}
	return linux.ENOSYS.Ret()
}

func (k *Kernel) futex(cpu *trap.CPU, c *trap.Context) *trap.Context {
	addr, val := c.RDI, uint32(c.RDX)
	switch c.RSI &^ linux.FUTEX_PRIVATE_FLAG {
	case linux.FUTEX_WAIT:
		until := thread.Never
		if c.R10 != 0 {
			ns, ok := timespecAt(c.R10).Ns()
			if !ok {
				c.RAX = linux.EINVAL.Ret()
				return c
			}
			until = deadline(k.Now(), ns)
		}
		k.sched.Lock()
		// Compared under the lock that wakers take, so that no wake-up falls between comparison and sleep.
		if loadWord32(addr) != val {
			k.sched.Unlock()
			c.RAX = linux.EAGAIN.Ret()
			return c
		}
		return k.block(cpu, waitFutex, addr, until)
	case linux.FUTEX_WAKE:
		k.sched.Lock()
		n, kick := k.threads.Wake(addr, int(val))
		k.cpus[cpu.ID].kicks |= kick
		k.release(cpu)
		c.RAX = uint64(n)
	default:
		c.RAX = linux.ENOSYS.Ret()
	}
	return c
}

func (k *Kernel) epollWait(cpu *trap.CPU, c *trap.Context) *trap.Context {
	if c.RDI != epollFD || c.RDX == 0 || int32(c.RDX) < 0 {
		c.RAX = linux.EINVAL.Ret()
		return c
	}
	k.sched.Lock()
	ms := int32(c.R10)
	if ms == 0 || k.events.any() {
		c.RAX = k.events.collect(c.RSI, c.RDX)
		k.sched.Unlock()
		return c
	}
	t := &k.tcbs[k.current(cpu)]
	t.epollBuf, t.epollMax = c.RSI, c.RDX
	until := thread.Never
	if ms > 0 {
		until = deadline(k.Now(), int64(ms)*1_000_000)
	}
	return k.block(cpu, waitEpoll, epollKey, until)
}

func deadline(now, ns int64) int64 {
	if ns > thread.Never-now {
		return thread.Never
	}
	return now + ns
}

func (k *Kernel) clone(cpu *trap.CPU, c *trap.Context) uint64 {
	const want = linux.CLONE_VM | linux.CLONE_THREAD
	if c.RDI&want != want {
		return linux.ENOSYS.Ret() // the kernel is one process
	}
	k.sched.Lock()
	parent := k.current(cpu)
	id := k.threads.Create(int(cpu.ID))
	if id == thread.None {
		k.sched.Unlock()
		return linux.EAGAIN.Ret()
	}
	// The child continues after the same SYSCALL with the same registers but its own stack and TLS (clone(2)).
	n := &k.contexts[id]
	*n = *c
	n.RAX, n.RSP = 0, c.RSI
	if c.RDI&linux.CLONE_SETTLS != 0 {
		n.ThreadFS = c.R8
	}
	k.tcbs[id] = tcb{mask: k.tcbs[parent].mask}
	k.threads.Inherit(id, parent)
	k.cpus[cpu.ID].Trace.Record(k.Now(), trace.Clone, uint64(id), c.RSI, 0)
	k.cpus[cpu.ID].kicks |= k.threads.WakeThread(id)
	k.release(cpu)
	return uint64(id) + firstTID
}

func (k *Kernel) clockGettime(id, ts uint64) uint64 {
	now := k.Now()
	switch id {
	case linux.CLOCK_MONOTONIC:
	case linux.CLOCK_REALTIME:
		now = k.Clock.Wall(now)
	default:
		return linux.EINVAL.Ret()
	}
	*timespecAt(ts) = linux.Timespec{Sec: now / 1e9, Nsec: now % 1e9}
	return 0
}

// affinity returns the CPUs that may run the calling thread: all by default, from which the runtime takes their number.
func (k *Kernel) affinity(cpu *trap.CPU, size, buf uint64) uint64 {
	const n = thread.MaxCPUs / 8
	if size < n {
		return linux.EINVAL.Ret()
	}
	k.sched.Lock()
	set := k.threads.Allowed(k.current(cpu))
	k.sched.Unlock()
	*wordAt(buf) = set & k.allCPUs()
	return n
}

func (k *Kernel) allCPUs() uint64 { return 1<<k.ncpu - 1 }

// setAffinity restricts the calling thread (sched_setaffinity(2), pid 0) and moves it if it must leave its CPU.
func (k *Kernel) setAffinity(cpu *trap.CPU, c *trap.Context) *trap.Context {
	if c.RDI != 0 {
		c.RAX = linux.ENOSYS.Ret()
		return c
	}
	if c.RSI < 8 {
		c.RAX = linux.EINVAL.Ret()
		return c
	}
	set := *wordAt(c.RDX) & k.allCPUs()
	if set == 0 {
		c.RAX = linux.EINVAL.Ret()
		return c
	}
	c.RAX = 0
	k.sched.Lock()
	if k.threads.Allow(int(cpu.ID), set) {
		k.sched.Unlock()
		return c
	}
	k.cpus[cpu.ID].kicks |= k.threads.Yield(int(cpu.ID))
	return k.next(cpu)
}

func (k *Kernel) sigaction(sig, new, old uint64) uint64 {
	if sig == 0 || sig > linux.NumSignals {
		return linux.EINVAL.Ret()
	}
	k.sched.Lock()
	was := k.actions[sig]
	if new != 0 {
		k.actions[sig] = *sigactionAt(new)
	}
	k.sched.Unlock()
	if old != 0 {
		*sigactionAt(old) = was
	}
	return 0
}

func (k *Kernel) sigprocmask(cpu *trap.CPU, how, new, old uint64) uint64 {
	t := &k.tcbs[k.threads.Current(int(cpu.ID))]
	was := t.mask // only its own thread changes it
	if new != 0 {
		set := *wordAt(new)
		switch how {
		case linux.SIG_BLOCK:
			set = was | set
		case linux.SIG_UNBLOCK:
			set = was &^ set
		case linux.SIG_SETMASK:
		default:
			return linux.EINVAL.Ret()
		}
		k.sched.Lock()
		t.mask = set
		k.sched.Unlock()
	}
	if old != 0 {
		*wordAt(old) = was
	}
	return 0
}

func (k *Kernel) sigaltstack(cpu *trap.CPU, new, old uint64) uint64 {
	t := &k.tcbs[k.current(cpu)]
	was := linux.Stack{SP: t.altSP, Size: t.altSize}
	if t.altSize == 0 {
		was.Flags = linux.SS_DISABLE
	}
	if new != 0 {
		s := stackAt(new)
		if s.Flags&linux.SS_DISABLE != 0 {
			t.altSP, t.altSize = 0, 0
		} else {
			t.altSP, t.altSize = s.SP, s.Size
			// Signal frames, of less than a page, are written by the page fault handler among others, which cannot
			// take a page fault: the stack must have frames by then. Nothing is on it yet.
			*wordAt(s.SP + s.Size - 8) = 0
			if s.Size >= mem.FrameSize {
				*wordAt(s.SP + s.Size - mem.FrameSize) = 0
			}
		}
	}
	if old != 0 {
		*stackAt(old) = was
	}
	return 0
}

// Nested serves calls that the runtime issues on a kernel stack, which it does only when it gives up (print, exit) or to
// allocate for a crash report; a are the first five arguments.
func (k *Kernel) Nested(cpu *trap.CPU, nr uint64, a *[5]uint64) uint64 {
	switch nr {
	case linux.SYS_WRITE:
		k.Console.Write(bytesAt(a[1], a[2]))
		return a[2]
	case linux.SYS_GETTID, linux.SYS_GETPID:
		return pid
	case linux.SYS_CLOCK_GETTIME:
		return k.clockGettime(a[0], a[1])
	case linux.SYS_MMAP:
		return k.nestedMmap(cpu, a)
	case linux.SYS_MUNMAP:
		return 0 // the machine is about to end; keeping the memory is all right, failing is fatal to the runtime
	case linux.SYS_EXIT_GROUP:
		k.Crash(cpu, nil, "the Go runtime gave up in kernel code")
	case linux.SYS_FUTEX:
		if a[1]&^linux.FUTEX_PRIVATE_FLAG == linux.FUTEX_WAIT {
			k.Crash(cpu, nil, "kernel code waited for a lock of the Go runtime")
		}
		return 0
	}
	return linux.ENOSYS.Ret()
}

// exit ends the machine: cleanly for status 0, with a crash report for what the runtime uses when it gives up.
func (k *Kernel) exit(cpu *trap.CPU, c *trap.Context, status uint64) {
	if status == 2 {
		if f := k.lastFault(k.current(cpu)); f != nil {
			k.Crash(cpu, &f.Context, "CPU exception in the Go runtime's care was not recovered")
		}
		// The goroutine may have changed threads between its exception and the end.
		if f := k.lastFault(thread.None); f != nil {
			k.Crash(cpu, &f.Context, "the Go runtime ended, see above; the last CPU exception in its care was this")
		}
		k.Crash(cpu, c, "the Go runtime ended: unrecovered panic or fatal error, see above")
	}
	k.PowerOff(status)
}

// Random fills p from RDRAND where the CPU has it, mixed with the time stamp counter; Seed has been called.
func (k *Kernel) Random(p []byte) {
	var v uint64
	for i := range p {
		if i%8 == 0 {
			v = k.randomWord()
		}
		p[i] = byte(v >> (i % 8 * 8))
	}
}

// randomWord returns the next eight bytes. Under a lock: two CPUs that took the same state could be given the same bytes.
func (k *Kernel) randomWord() uint64 {
	k.entropy.Lock()
	k.random = mix(k.random + x86.TSC())
	if k.HasRDRAND {
		if v, ok := x86.RDRAND(); ok {
			k.random ^= v
		}
	}
	v := k.random
	k.entropy.Unlock()
	return v
}

// Seed mixes v into the state of Random. Before other CPUs run.
func (k *Kernel) Seed(v uint64) { k.random = mix(k.random ^ v) }

// mix is the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
func mix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
