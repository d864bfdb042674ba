package ktest

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"dinos/kernel/machine"
	"dinos/kernel/paging"
	"dinos/kernel/testproto"
	"dinos/kernel/ureg"
)

// Tests of ring 3, with programs of a few bytes.

const (
	userCode = 0x40_0000
	userData = 0x60_0000 // two pages
)

// user makes a test of f, on machines that can run programs.
func (s *suite) user(f func(*suite) error) func(*testproto.T) {
	return func(t *testproto.T) {
		err := machine.CanRunUser()
		before := machine.UserTablesInUse()
		if err == nil {
			err = f(s)
		}
		if err != nil {
			t.Fatalf("%v", err)
		}
		if n := machine.UserTablesInUse(); n != before {
			t.Fatalf("%d frames of page tables in use, %d before", n, before)
		}
	}
}

// program is an address space with a page of code and two of data.
type program struct {
	tables paging.Space
	frames []uint64
	data   [2][]byte
}

func newProgram(code ...byte) (*program, error) {
	p := &program{}
	if err := machine.InitUser(&p.tables); err != nil {
		return nil, err
	}
	const data = paging.Present | paging.User | paging.Writable | paging.NoExecute
	b, err := p.add(userCode, paging.Present|paging.User)
	copy(b, code)
	for i := range p.data {
		if err == nil {
			p.data[i], err = p.add(userData+uint64(i)<<12, data)
		}
	}
	if err != nil {
		p.close()
	}
	return p, err
}

func (p *program) add(va uint64, attr paging.Attr) ([]byte, error) {
	pa, b, err := machine.UserFrame()
	if err != nil {
		return nil, err
	}
	p.frames = append(p.frames, pa)
	return b, p.tables.Map(va, pa, paging.Size4K, attr, paging.Size4K)
}

func (p *program) close() {
	machine.RetireUser(p.tables.Root())
	p.tables.Destroy(nil)
	for _, f := range p.frames {
		machine.FreeUserFrame(f)
	}
}

// thread makes a thread of p that starts at the beginning of the code.
func (p *program) thread() *machine.UserThread {
	t := machine.NewUserThread(&ureg.Frame{OrigRAX: ureg.NoSyscall})
	t.Frame().RIP = userCode
	t.Frame().RSP = userData + 0x1000
	return t
}

// until runs t until it leaves ring 3 for something else than an interruption.
func (p *program) until(t *machine.UserThread) ureg.Trap {
	for {
		t.Enter(p.tables.Root())
		if tr := t.Frame().Trap; tr != ureg.Interrupt {
			return tr
		}
		t.ClearKick()
	}
}

// userSyscall: all registers arrive and come back, over SYSRET and over IRET.
func userSyscall(s *suite) error {
	p, err := newProgram(0x0f, 0x05, 0x0f, 0x05, 0xeb, 0xfe) // syscall; syscall; jmp .
	if err != nil {
		return err
	}
	defer p.close()
	t := p.thread()
	defer t.Close()
	f := t.Frame()
	fill(f)
	want := *f
	for round := range 4 {
		if tr := p.until(t); tr != ureg.Syscall {
			return fmt.Errorf("round %d: trap %#x at %#x", round, uint64(tr), f.RIP)
		}
		want.RIP += 2
		want.RCX, want.R11 = want.RIP, f.R11
		want.Trap, want.Error, want.CR2, want.RFLAGS, want.OrigRAX = f.Trap, f.Error, f.CR2, f.RFLAGS, f.OrigRAX
		if *f != want {
			return fmt.Errorf("round %d: registers %+v, want %+v", round, *f, want)
		}
		if round%2 == 1 { // by IRET, which restores RCX and R11 too
			f.RIP = userCode
			fill(f)
			want = *f
		}
	}
	return nil
}

func fill(f *ureg.Frame) {
	for i := range f.X {
		f.X[i] = [2]uint64{uint64(i) * 0x0123456789abcdef, ^uint64(i)}
	}
	for i, r := range []*uint64{&f.RAX, &f.RBX, &f.RCX, &f.RDX, &f.RSI, &f.RDI, &f.RBP, &f.R8, &f.R9, &f.R10, &f.R11, &f.R12, &f.R13, &f.R14, &f.R15} {
		*r = 0xa5a5_0000_0000_0000 + uint64(i)
	}
	f.FSBase, f.GSBase = 0x7fff_1234_5678, 0xffff_8000_1234_0000
	f.MXCSR = 0x3f80
	f.RIP, f.RSP = userCode, 0xdead_beef_0000
}

// userFaults: what a program may not do ends in the right trap, and nothing else happens.
func userFaults(s *suite) error {
	const anyError = ^uint64(0) // QEMU and hardware differ
	for _, c := range []struct {
		name string
		code []byte
		rsi  uint64
		trap ureg.Trap
		err  uint64
	}{
		{"ud2", []byte{0x0f, 0x0b}, 0, ureg.Undefined, 0},
		{"int3", []byte{0xcc}, 0, ureg.Break, 0},
		{"int 0x80", []byte{0xcd, 0x80}, 0, ureg.Protect, anyError},
		{"int 0xf1", []byte{0xcd, 0xf1}, 0, ureg.Protect, anyError},
		{"hlt", []byte{0xf4}, 0, ureg.Protect, 0},
		{"cli", []byte{0xfa}, 0, ureg.Protect, 0},
		{"out", []byte{0xe6, 0xf4}, 0, ureg.Protect, 0},
		{"mov rax, cr3", []byte{0x0f, 0x20, 0xd8}, 0, ureg.Protect, 0},
		{"rdmsr", []byte{0x0f, 0x32}, 0, ureg.Protect, 0},
		{"swapgs", []byte{0x0f, 0x01, 0xf8}, 0, ureg.Protect, 0},
		{"sysretq", []byte{0x48, 0x0f, 0x07}, 0, ureg.Protect, 0},
		{"div by zero", []byte{0x31, 0xd2, 0xf7, 0xf2}, 0, ureg.Divide, 0},
		{"read of nothing", []byte{0x48, 0x8b, 0x06}, 0x1000, ureg.Page, ureg.PageUser},
		{"read of the kernel", []byte{0x48, 0x8b, 0x06}, 0xffffffff80200000, ureg.Page, ureg.PageUser | ureg.PagePresent},
		{"write of code", []byte{0x48, 0x89, 0x06}, userCode, ureg.Page, ureg.PageUser | ureg.PagePresent | ureg.PageWrite},
		{"read of a device", []byte{0x48, 0x8b, 0x06}, 0xfee00000, ureg.Page, ureg.PageUser},
		{"jump to data", []byte{0xff, 0xe6}, userData, ureg.Page, ureg.PageUser | ureg.PagePresent | ureg.PageFetch},
		{"jump to the kernel", []byte{0xff, 0xe6}, 0xffffffff80200000, ureg.Page, ureg.PageUser | ureg.PagePresent | ureg.PageFetch},
		{"jump to a non-canonical address", []byte{0xff, 0xe6}, 1 << 47, ureg.Protect, 0},
		{"read of a non-canonical address", []byte{0x48, 0x8b, 0x06}, 1 << 62, ureg.Protect, 0},
	} {
		p, err := newProgram(c.code...)
		if err != nil {
			return err
		}
		t := p.thread()
		f := t.Frame()
		f.RSI = c.rsi
		tr := p.until(t)
		got := *f
		t.Close()
		p.close()
		if tr != c.trap || got.Error != c.err && c.err != anyError {
			return fmt.Errorf("%s: trap %d error %#x at %#x, want trap %d error %#x", c.name, tr, got.Error, got.RIP, c.trap, c.err)
		}
		if tr == ureg.Page && got.CR2 != c.rsi {
			return fmt.Errorf("%s: address %#x, want %#x", c.name, got.CR2, c.rsi)
		}
	}
	// What the kernel itself is told to continue at.
	p, err := newProgram(0xeb, 0xfe)
	if err != nil {
		return err
	}
	defer p.close()
	t := p.thread()
	defer t.Close()
	t.Frame().RIP = 1 << 47
	if tr := p.until(t); tr != ureg.Protect {
		return fmt.Errorf("entry at a non-canonical address: trap %d", tr)
	}
	return nil
}

// userFlags: a program that sets trap, alignment and nested-task flags before a system call harms nobody.
func userFlags(s *suite) error {
	// push flags; popf; nop; syscall; syscall. AC is 0x40000, NT 0x4000, DF 0x400, TF 0x100.
	for _, flags := range []uint32{0x40000, 0x4000, 0x400, 0x44400, 0x100} {
		code := binary.LittleEndian.AppendUint32([]byte{0x68}, flags)
		p, err := newProgram(append(code, 0x9d, 0x90, 0x0f, 0x05, 0x0f, 0x05)...)
		if err != nil {
			return err
		}
		t := p.thread()
		f := t.Frame()
		tr := p.until(t)
		for i := 0; tr == ureg.Debug && i < 10; i++ { // a trap after each instruction
			tr = p.until(t)
		}
		if tr != ureg.Syscall || f.RFLAGS&uint64(flags) != uint64(flags) {
			return fmt.Errorf("flags %#x: trap %d, flags %#x", flags, tr, f.RFLAGS)
		}
		tr = p.until(t)
		if flags&0x100 == 0 && (tr != ureg.Syscall || f.RFLAGS&uint64(flags) != uint64(flags)) {
			return fmt.Errorf("flags %#x after the first call: trap %d, flags %#x", flags, tr, f.RFLAGS)
		}
		t.Close()
		p.close()
	}
	return nil
}

// userPreempt: threads that never leave ring 3 share the CPUs with each other and with goroutines, the garbage collector does not wait
// for them, and a kick gets them out.
func userPreempt(s *suite) error {
	p, err := newProgram(0x48, 0xff, 0x06, 0xeb, 0xfb) // L: inc qword [rsi]; jmp L
	if err != nil {
		return err
	}
	defer p.close()
	n := 2*runtime.NumCPU() + 1
	var wg sync.WaitGroup
	var stop atomic.Bool
	ts := make([]*machine.UserThread, n)
	for i := range ts {
		t := p.thread()
		t.Frame().RSI = userData + uint64(i)*8
		ts[i] = t
		wg.Go(func() {
			for !stop.Load() {
				t.ClearKick()
				if stop.Load() {
					return
				}
				t.Enter(p.tables.Root())
			}
		})
	}
	time.Sleep(50 * time.Millisecond)
	for range 3 {
		runtime.GC() // it would never end if it had to wait for them
	}
	// All have their turn, by the runtime's slices of 10 ms.
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		idle := 0
		for i := range ts {
			if binary.LittleEndian.Uint64(p.data[0][8*i:]) == 0 {
				idle++
			}
		}
		if idle == 0 {
			break
		}
		if time.Now().After(deadline) {
			err = fmt.Errorf("%d of %d threads did not run", idle, n)
			break
		}
	}
	stop.Store(true)
	for _, t := range ts {
		t.Kick()
	}
	wg.Wait()
	for _, t := range ts {
		t.Close()
	}
	return err
}

// userVectors: each thread keeps its own x87 and AVX registers, wherever it goes.
func userVectors(s *suite) error {
	avx := machine.NewUserThread(&ureg.Frame{OrigRAX: ureg.NoSyscall}).Features()&4 != 0
	code := []byte{0xdf, 0x6e, 0x20} // fild qword [rsi+32]
	if avx {
		code = append(code, 0xc5, 0xfe, 0x6f, 0x2e) // vmovdqu ymm5, [rsi]
	}
	loop := len(code)
	code = append(code, 0x0f, 0x05, 0xd9, 0xc0, 0xdf, 0x7f, 0x20) // syscall; fld st0; fistp qword [rdi+32]
	if avx {
		code = append(code, 0xc5, 0xfe, 0x7f, 0x2f) // vmovdqu [rdi], ymm5
	}
	code = append(code, 0xeb, byte(loop-len(code)-2))
	p, err := newProgram(code...)
	if err != nil {
		return err
	}
	defer p.close()
	n := min(2*runtime.NumCPU()+3, len(p.data[0])/128)
	errs := make(chan error, n)
	end := time.Now().Add(s.soak)
	for i := range n {
		go func() { errs <- p.vectors(i, avx, end) }()
	}
	for range n {
		if e := <-errs; e != nil && err == nil {
			err = e
		}
	}
	return err
}

func (p *program) vectors(i int, avx bool, end time.Time) error {
	in, out := p.data[0][128*i:][:40], p.data[1][128*i:][:40]
	for j := range 4 {
		binary.LittleEndian.PutUint64(in[8*j:], uint64(i+1)*0x0101010101010101+uint64(j))
	}
	binary.LittleEndian.PutUint64(in[32:], uint64(i+1)*1000)
	t := p.thread()
	defer t.Close()
	t.Frame().RSI, t.Frame().RDI = userData+128*uint64(i), userData+0x1000+128*uint64(i)
	image := make([]byte, t.Size())
	for round := 0; round < 2000 || time.Now().Before(end); round++ {
		if tr := p.until(t); tr != ureg.Syscall {
			return fmt.Errorf("thread %d round %d: trap %d at %#x", i, round, tr, t.Frame().RIP)
		}
		if round > 0 && (binary.LittleEndian.Uint64(out[32:]) != uint64(i+1)*1000 || avx && string(out[:32]) != string(in[:32])) {
			return fmt.Errorf("thread %d round %d: registers have %x, want %x", i, round, out, in)
		}
		clear(out)
		switch {
		case round%7 == 0:
			runtime.Gosched()
		case round%101 == 0: // through memory, as a signal frame would
			t.Save(t.Frame(), image)
			t.Reset(t.Frame())
			if !t.Load(t.Frame(), image) {
				return fmt.Errorf("thread %d: saved image was refused", i)
			}
		case round%503 == 0:
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}

// userFlush: after FlushUser no thread on any CPU uses what was unmapped.
func userFlush(s *suite) error {
	// L: mov rax, [rsi]; mov [rdi], rax; jmp L
	p, err := newProgram(0x48, 0x8b, 0x06, 0x48, 0x89, 0x07, 0xeb, 0xf8)
	if err != nil {
		return err
	}
	defer p.close()
	const at = 0x70_0000
	var pa [2]uint64
	var b [2][]byte
	for i := range pa {
		if pa[i], b[i], err = machine.UserFrame(); err != nil {
			return err
		}
		p.frames = append(p.frames, pa[i])
		binary.LittleEndian.PutUint64(b[i], uint64(i+1))
	}
	const attr = paging.Present | paging.User | paging.NoExecute
	if err := p.tables.Map(at, pa[0], paging.Size4K, attr, paging.Size4K); err != nil {
		return err
	}
	n := runtime.NumCPU()
	var wg sync.WaitGroup
	var stop atomic.Bool
	ts := make([]*machine.UserThread, n)
	bad := make([]error, n)
	const rounds = 40
	var change sync.Mutex // held while the page is nowhere
	for i := range ts {
		t := p.thread()
		t.Frame().RSI, t.Frame().RDI = at, userData+uint64(i)*64
		ts[i] = t
		wg.Go(func() {
			faults := 0
			for !stop.Load() {
				tr := p.until2(t, &stop)
				if f := t.Frame(); tr == ureg.Page && f.CR2 == at && f.Error == ureg.PageUser && faults < rounds {
					// It came between the page's two places. A kernel waits for the lock and lets the thread try again; once
					// in a round, since it finds the page then.
					faults++
					change.Lock()
					change.Unlock()
					continue
				}
				if tr != ureg.Interrupt {
					bad[i] = fmt.Errorf("trap %d at %#x, address %#x", tr, t.Frame().RIP, t.Frame().CR2)
					return
				}
			}
		})
	}
	for round := 0; round < rounds && err == nil; round++ {
		now := (round + 1) & 1
		change.Lock()
		_, _ = p.tables.Unmap(at, paging.Size4K, nil)
		err = p.tables.Map(at, pa[now], paging.Size4K, attr, paging.Size4K)
		change.Unlock()
		if err != nil {
			break
		}
		machine.FlushUser(p.tables.Root(), at, 1)
		// What was read before may be stored once more; what is read from now on is new.
		for i := range ts {
			binary.LittleEndian.PutUint64(p.data[0][64*i:], 0)
		}
		for end := time.Now().Add(2 * time.Millisecond); time.Now().Before(end); {
			runtime.Gosched()
		}
		for i := range ts {
			binary.LittleEndian.PutUint64(p.data[0][64*i:], 0)
		}
		for end := time.Now().Add(time.Millisecond); time.Now().Before(end); {
			runtime.Gosched()
		}
		for i := range ts {
			if v := binary.LittleEndian.Uint64(p.data[0][64*i:]); v != 0 && v != uint64(now+1) {
				err = fmt.Errorf("round %d: thread %d read %d after a flush, want %d", round, i, v, now+1)
			}
		}
	}
	stop.Store(true)
	for _, t := range ts {
		t.Kick()
	}
	wg.Wait()
	for i, t := range ts {
		t.Close()
		if err == nil {
			err = bad[i]
		}
	}
	return err
}

// until2 is until for threads that only interruptions end.
func (p *program) until2(t *machine.UserThread, stop *atomic.Bool) ureg.Trap {
	t.ClearKick()
	if stop.Load() {
		return ureg.Interrupt
	}
	t.Enter(p.tables.Root())
	return t.Frame().Trap
}

// userFast: a call with a constant answer comes back with it, and with all registers but those that SYSCALL takes.
func userFast(s *suite) error {
	p, err := newProgram(0x0f, 0x05, 0x0f, 0x0b) // syscall; ud2
	if err != nil {
		return err
	}
	defer p.close()
	t := p.thread()
	defer t.Close()
	f := t.Frame()
	for _, c := range []struct {
		nr, set, want uint64
		trap          ureg.Trap
	}{{39, 4711, 4711, ureg.Undefined}, {102, 0, 0, ureg.Undefined}, {40, 0, 40, ureg.Syscall}, {1 << 40, 0, 1 << 40, ureg.Syscall}} {
		t.ClearFast()
		if c.trap == ureg.Undefined {
			t.SetFast(int(c.nr), c.set)
		}
		fill(f)
		f.RAX = c.nr
		want := *f
		tr := p.until(t)
		want.RAX, want.RIP, want.RCX, want.R11 = c.want, userCode+2, userCode+2, f.R11
		want.Trap, want.Error, want.CR2, want.RFLAGS, want.OrigRAX = f.Trap, f.Error, f.CR2, f.RFLAGS, f.OrigRAX
		if tr != c.trap || *f != want {
			return fmt.Errorf("call %d: trap %d, registers %+v, want trap %d, %+v", c.nr, tr, *f, c.trap, want)
		}
	}
	return nil
}

// userCost measures a system call that does nothing, and one with a change of page tables.
func userCost(s *suite) error {
	p, err := newProgram(0x0f, 0x05, 0xeb, 0xfc) // L: syscall; jmp L
	if err != nil {
		return err
	}
	defer p.close()
	q, err := newProgram(0x0f, 0x05, 0xeb, 0xfc)
	if err != nil {
		return err
	}
	defer q.close()
	t, u := p.thread(), q.thread()
	defer t.Close()
	defer u.Close()
	const n = 20000
	best := time.Hour
	for range 5 {
		start := time.Now()
		for range n {
			p.until(t)
		}
		best = min(best, time.Since(start))
	}
	start := time.Now()
	for range n / 10 {
		p.until(t)
		q.until(u)
	}
	machine.Print(fmt.Sprintf("   system call %d ns, with another process's in turn %d ns", best.Nanoseconds()/n, time.Since(start).Nanoseconds()/(n/5)))
	return nil
}
