package proc

import (
	"encoding/binary"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/dkernel/futex"
	"dinos/dkernel/mm"
	"dinos/dkernel/signal"
	"dinos/dkernel/vfs"
	"dinos/dkernel/vfs/vfstest"
	"dinos/kernel/linux"
	"dinos/kernel/ureg"
)

// A machine runs programs that are Go functions, one goroutine a thread. What they do between system calls is ring 3: a handler is a
// function at an address, and a system call that is to begin again does.

const (
	memBase = 0x10000
	memSize = 0x80000
	stack   = memBase + memSize - 0x1000
	code    = 0x4000 // where programs "are"
)

// space is the memory of a program.
type testSpace struct {
	m        *machine
	id       uint64
	mu       sync.Mutex
	b        []byte
	released bool
	stacks   atomic.Uint64
	limits   mm.Limits
}

func (m *machine) newSpace() *testSpace {
	m.spaces.Add(1)
	return &testSpace{m: m, id: m.lastSpace.Add(1), b: make([]byte, memSize)}
}

func (s *testSpace) at(addr, n uint64) []byte {
	if addr < memBase || addr-memBase > memSize {
		return nil
	}
	p := s.b[addr-memBase:]
	return p[:min(n, uint64(len(p)))]
}

func fault(n int, want int) (int, error) {
	if n < want {
		return n, linux.EFAULT
	}
	return n, nil
}

func (s *testSpace) CopyIn(dst []byte, addr uint64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fault(copy(dst, s.at(addr, uint64(len(dst)))), len(dst))
}

func (s *testSpace) CopyOut(addr uint64, src []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.released {
		s.m.t.Error("a released address space is used")
	}
	return fault(copy(s.at(addr, uint64(len(src))), src), len(src))
}

func (s *testSpace) Zero(addr, n uint64) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.at(addr, n)
	clear(p)
	_, err := fault(len(p), int(n))
	return uint64(len(p)), err
}

func (s *testSpace) FutexKey(addr uint64, shared, write bool) (futex.Key, error) {
	if len(s.at(addr, 4)) < 4 {
		return futex.Key{}, linux.EFAULT
	}
	return futex.Key{Object: s.id, Offset: addr}, nil
}

func (s *testSpace) Load32(addr uint64) (uint32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.at(addr, 4)
	if len(p) < 4 {
		return 0, linux.EFAULT
	}
	return binary.LittleEndian.Uint32(p), nil
}

func (s *testSpace) CompareAndSwap32(addr uint64, old, n uint32) (uint32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.at(addr, 4)
	if len(p) < 4 {
		return 0, linux.EFAULT
	}
	was := binary.LittleEndian.Uint32(p)
	if was == old {
		binary.LittleEndian.PutUint32(p, n)
	}
	return was, nil
}

func (s *testSpace) Fork() (Space, error) {
	c := s.m.newSpace()
	s.mu.Lock()
	copy(c.b, s.b)
	s.mu.Unlock()
	return c, nil
}

func (s *testSpace) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.released {
		s.m.t.Error("released twice")
	}
	s.released = true
	s.m.spaces.Add(-1)
}

func (s *testSpace) Stat() mm.Stat                   { return mm.Stat{Own: 3, Peak: 3} }
func (s *testSpace) Regions(uint64, int) []mm.Region { return nil }

func (s *testSpace) SetLimits(l mm.Limits) { s.limits = l }
func (s *testSpace) put64(addr, v uint64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	_, _ = s.CopyOut(addr, b[:])
}
func (s *testSpace) put32(addr uint64, v uint32) {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], v)
	_, _ = s.CopyOut(addr, b[:])
}
func (s *testSpace) get64(addr uint64) uint64 {
	var b [8]byte
	_, _ = s.CopyIn(b[:], addr)
	return binary.LittleEndian.Uint64(b[:])
}
func (s *testSpace) get32(addr uint64) uint32 { v, _ := s.Load32(addr); return v }

// testCPU has nothing but what the frame has.
type testCPU struct{}

func (testCPU) Size() int        { return 576 }
func (testCPU) Features() uint64 { return 3 }
func (testCPU) Save(f *ureg.Frame, b []byte) {
	clear(b)
	binary.LittleEndian.PutUint32(b[24:], uint32(f.MXCSR))
	b[512] = 3
}
func (testCPU) Load(f *ureg.Frame, b []byte) bool {
	f.MXCSR = uint64(binary.LittleEndian.Uint32(b[24:]))
	return f.MXCSR>>16 == 0
}
func (testCPU) Reset(f *ureg.Frame) { f.MXCSR = ureg.DefaultMXCSR }

// handClock only moves when it is told to.
type handClock struct {
	mu     sync.Mutex
	now    int64
	offset int64 // of CLOCK_REALTIME
	timers []*handTimer
}

type handTimer struct {
	c  *handClock
	f  func()
	at int64 // 0: not set
}

func (c *handClock) Monotonic() int64 { c.mu.Lock(); defer c.mu.Unlock(); return c.now }
func (c *handClock) Realtime() int64  { c.mu.Lock(); defer c.mu.Unlock(); return c.now + c.offset }
func (c *handClock) NewTimer(f func()) Timer {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &handTimer{c: c, f: f}
	c.timers = append(c.timers, t)
	return t
}
func (t *handTimer) Set(at int64) { t.c.mu.Lock(); t.at = max(at, 1); t.c.mu.Unlock() }
func (t *handTimer) Stop()        { t.c.mu.Lock(); t.at = 0; t.c.mu.Unlock() }

// pass lets time pass.
func (c *handClock) pass(d time.Duration) {
	c.mu.Lock()
	end := c.now + int64(d)
	for {
		var next *handTimer
		for _, t := range c.timers {
			if t.at != 0 && t.at <= end && (next == nil || t.at < next.at) {
				next = t
			}
		}
		if next == nil {
			break
		}
		c.now, next.at = max(c.now, next.at), 0
		c.mu.Unlock()
		next.f()
		c.mu.Lock()
	}
	c.now = end
	c.mu.Unlock()
}

type machine struct {
	t         testing.TB
	sys       *System
	rig       *vfstest.Rig
	hand      *handClock // nil: real time
	lastSpace atomic.Uint64
	spaces    atomic.Int64
	running   sync.WaitGroup
	kicks     atomic.Int64

	mu       sync.Mutex
	handlers map[uint64]func(*prog, signal.Info) // guarded by mu
	status   map[int32]uint32                    // of processes that ended
}

// prog is a thread's program.
type prog struct {
	*Thread
	m    *machine
	main func(*prog)
	// next is the program of the child that is made next.
	next func(*prog)
	// handled counts handlers that ran.
	handled atomic.Int32
}

var began = time.Now()

func newMachine(t testing.TB, byHand bool, change ...func(*Config)) *machine {
	m := &machine{t: t, rig: vfstest.New(t, 2), handlers: map[uint64]func(*prog, signal.Info){}, status: map[int32]uint32{}}
	c := Config{Starter: m, Kick: func(*Thread) { m.kicks.Add(1) }, Release: "6.12.0", Version: "#1", Hostname: "rack",
		Exited: func(p *Process, s uint32) { m.mu.Lock(); m.status[p.PID()] = s; m.mu.Unlock() }}
	c.CPUs.Add(0)
	c.CPUs.Add(1)
	mono := func() int64 { return int64(time.Since(began)) + 1e9 }
	c.Clock = NewClock(mono, func() int64 { return mono() + 1e18 })
	if byHand {
		m.hand = &handClock{now: 1e9, offset: 1e18}
		c.Clock = m.hand
	}
	for _, f := range change {
		f(&c)
	}
	s, err := New(c)
	require.NoError(t, err)
	m.sys = s
	t.Cleanup(m.check)
	return m
}

// check finds what is left when all programs have ended.
func (m *machine) check() {
	m.running.Wait()
	st := m.sys.Stats()
	require.Equal(m.t, 1, st.PIDs, "pids are left")
	require.Zero(m.t, st.Threads)
	require.Zero(m.t, st.Waiting)
	require.Zero(m.t, m.spaces.Load(), "address spaces are left")
	for uid, u := range m.sys.users.m {
		require.Zero(m.t, u.threads.Load(), "threads of %d", uid)
		require.Zero(m.t, u.signals.Load(), "signals of %d", uid)
	}
	require.Nil(m.t, m.sys.init.children)
}

func (m *machine) NewCPU(parent, child *Thread) ureg.CPU {
	if parent != nil {
		p := parent.Run.(*prog)
		child.Run = &prog{Thread: child, m: m, main: p.next}
		p.next = nil
	}
	return testCPU{}
}

func (m *machine) Start(t *Thread) {
	u := t.Run.(*prog)
	m.running.Add(1)
	go func() {
		defer m.running.Done()
		u.deliver() // as any thread before ring 3
		u.main(u)
		u.call(func() (uint64, error) { u.Exit(0); return 0, nil })
		m.t.Error("a thread lives after exit")
	}()
}

// spawn starts a program as a process of init's.
func (m *machine) spawn(main func(*prog)) *prog {
	u := &prog{m: m, main: main}
	t, err := m.sys.Spawn(&Spec{Program: Program{Space: m.newSpace(), Comm: "test"}, Thread: func(t *Thread) {
		u.Thread = t
		t.Run = u
		t.Regs.RIP, t.Regs.RSP, t.Regs.RFLAGS = code, stack, 0x202
		t.SetFiles(vfs.NewFDTable())
		t.SetFS(m.rig.V.NewFSContext())
	}})
	require.NoError(m.t, err)
	m.sys.Start(t)
	return u
}

// run runs a program to its end and returns its status.
func (m *machine) run(main func(*prog)) uint32 {
	m.t.Helper()
	id := m.spawn(main).PID()
	m.running.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.status[id]
	require.True(m.t, ok, "%d has not ended", id)
	return s
}

func (u *prog) space() *testSpace { return u.Space().(*testSpace) }

// deliver is what the run loop does before ring 3; it runs handlers until the thread is where it was.
func (u *prog) deliver() {
	for {
		if u.Interrupted() && !u.Deliver(&u.Regs) {
			runtime.Goexit()
		}
		u.m.mu.Lock()
		h := u.m.handlers[u.Regs.RIP]
		u.m.mu.Unlock()
		if h == nil {
			return
		}
		u.handler(h)
	}
}

// handler is ring 3 from the entry of a handler to its return.
func (u *prog) handler(h func(*prog, signal.Info)) {
	u.handled.Add(1)
	f := &u.Regs
	var b [signal.InfoSize]byte
	_, _ = u.Space().CopyIn(b[:], f.RSI)
	var i signal.Info
	_ = i.Get(b[:])
	if uint64(i.Signo) != f.RDI || f.RSP%16 != 8 || f.RAX != 0 {
		u.m.t.Errorf("handler entered wrongly: %+v", f)
	}
	sp := f.RSP
	f.RIP = code
	h(u, i)
	f.RSP = sp + 8
	u.Sigreturn(f)
}

// call is a system call.
func (u *prog) call(f func() (uint64, error)) (uint64, error) { return u.callNr(77, f) }

func (u *prog) callNr(nr uint64, f func() (uint64, error)) (uint64, error) {
	r := &u.Regs
	ip := r.RIP
	for {
		r.OrigRAX, r.RIP = nr, ip+2
		v, err := f()
		if err != nil {
			v = err.(linux.Errno).Ret()
		}
		r.RAX = v
		u.deliver()
		switch {
		case r.RIP == ip+2:
			r.RIP = ip
			if e := linux.Errno(-r.RAX); e < 4096 && e != 0 {
				return 0, e
			}
			return r.RAX, nil
		case r.RIP == ip && r.RAX == sysRestart:
			f = u.RestartSyscall
		case r.RIP == ip && r.RAX == nr:
		default:
			u.m.t.Errorf("RIP is %#x, it was %#x; RAX %#x", r.RIP, ip, r.RAX)
			runtime.Goexit()
		}
	}
}

func (u *prog) err(f func() error) error {
	_, err := u.call(func() (uint64, error) { return 0, f() })
	return err
}

// ok fails the test if the call does.
func (u *prog) ok(f func() error) {
	u.m.t.Helper()
	if err := u.err(f); err != nil {
		u.m.t.Errorf("unexpected %v", err)
	}
}

// clone makes a thread or process that runs main.
func (u *prog) clone(a linux.CloneArgs, main func(*prog)) (int32, error) {
	n, err := u.call(func() (uint64, error) {
		u.next = main
		n, err := u.Thread.Clone(a)
		return uint64(n), err
	})
	return int32(n), err
}

func (u *prog) fork(main func(*prog)) int32 {
	n, err := u.clone(ForkArgs(), main)
	require.NoError(u.m.t, err)
	return n
}

const threadFlags = linux.CLONE_VM | linux.CLONE_FS | linux.CLONE_FILES | linux.CLONE_SIGHAND | linux.CLONE_THREAD | linux.CLONE_SYSVSEM

// threadStacks hands out stacks, so that handlers of threads do not meet.
func (u *prog) thread(n int, main func(*prog)) int32 {
	id, err := u.clone(linux.CloneArgs{Flags: threadFlags, Stack: stack - uint64(n)*0x1800}, main)
	require.NoError(u.m.t, err)
	return id
}

func (u *prog) exit(code int) { u.call(func() (uint64, error) { u.Exit(code); return 0, nil }) }
func (u *prog) exitGroup(code int) {
	u.call(func() (uint64, error) { u.ExitGroup(code); return 0, nil })
}

func (u *prog) wait(id int32, options uint32) (WaitResult, error) {
	var r WaitResult
	err := u.err(func() (err error) { r, err = u.Wait4(id, options); return err })
	return r, err
}

// status waits for a child and returns its status.
func (u *prog) status(id int32) uint32 {
	r, err := u.wait(id, linux.WALL)
	if err != nil || r.PID != id {
		u.m.t.Errorf("wait for %d: %d, %v", id, r.PID, err)
	}
	return r.Status
}

// on installs a handler.
func (u *prog) on(sig int, flags uint64, mask signal.Set, h func(*prog, signal.Info)) {
	u.m.mu.Lock()
	addr := 0x5000 + 16*uint64(len(u.m.handlers))
	u.m.handlers[addr] = h
	u.m.mu.Unlock()
	u.ok(func() error {
		_, err := u.Sigaction(sig, &signal.Action{Handler: addr, Flags: flags | linux.SA_RESTORER, Mask: mask, Restorer: 0x4321})
		return err
	})
}

func (u *prog) disposition(sig int, h uint64) {
	u.ok(func() error {
		_, err := u.Sigaction(sig, &signal.Action{Handler: h})
		return err
	})
}

func (u *prog) block(sigs ...int) {
	s := signal.Of(sigs...)
	u.ok(func() error { _, err := u.Sigprocmask(linux.SIG_BLOCK, &s); return err })
}

func (u *prog) unblock(sigs ...int) {
	s := signal.Of(sigs...)
	u.ok(func() error { _, err := u.Sigprocmask(linux.SIG_UNBLOCK, &s); return err })
}

func (u *prog) kill(id int32, sig int) { u.ok(func() error { return u.Kill(id, sig) }) }

// spin is a loop in ring 3 that signals interrupt.
func (u *prog) spin(until func() bool) {
	for n := 0; !until(); n++ {
		u.Regs.OrigRAX = ureg.NoSyscall
		u.deliver()
		runtime.Gosched()
		if n > 1000 {
			time.Sleep(20 * time.Microsecond)
		}
		if n > 200_000 {
			u.m.t.Error("it never happened")
			return
		}
	}
}

// newStack is a stack that no other thread of the process has had for long.
func (u *prog) newStack() uint64 { return stack - 0x8000 - u.space().stacks.Add(1)%64*0x1800 }

// eventually waits for what other goroutines do.
func eventually(t testing.TB, f func() bool) {
	t.Helper()
	for range 20000 {
		if f() {
			return
		}
		time.Sleep(50 * time.Microsecond)
	}
	t.Error("it never happened")
	runtime.Goexit()
}

// log is what a test writes down in order.
type log struct {
	mu sync.Mutex
	s  []string
}

func (l *log) add(s string) { l.mu.Lock(); l.s = append(l.s, s); l.mu.Unlock() }
func (l *log) get() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.s)
}

// interrupted makes a system call that a signal from a child is to interrupt; since nobody can tell when it sleeps, more than one is sent.
func (u *prog) interrupted(sig int, f func() error) error {
	var done atomic.Bool
	id := u.fork(func(c *prog) {
		for !done.Load() {
			time.Sleep(2 * time.Millisecond)
			c.kill(u.PID(), sig)
		}
	})
	err := u.err(f)
	done.Store(true)
	for {
		if _, e := u.wait(id, 0); e != linux.EINTR {
			return err
		}
	}
}
