package ktest

import (
	"bytes"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"dinos/kernel/machine"
	"dinos/kernel/testproto"
)

// tests returns the table.
func (s *suite) tests() []testproto.Test {
	return []testproto.Test{
		{Name: "cpus", Func: s.cpus},
		{Name: "parallel", Func: s.parallel},
		{Name: "clock", Func: s.clock},
		{Name: "timers", Func: s.timers},
		{Name: "preempt", Func: s.preempt},
		{Name: "faults", Func: s.faults},
		{Name: "vectors", Func: s.vectors},
		{Name: "memory", Func: s.memory},
		{Name: "threads", Func: s.threads},
		{Name: "garbage", Func: s.garbage},
		{Name: "module", Func: s.module},
		{Name: "pci", Func: s.pci},
		{Name: "device-memory", Func: s.deviceMemory},
		{Name: "shared", Func: s.shared},
		{Name: "call", Func: s.call},
		{Name: "answer", Func: s.answer},
		{Name: "answer-host", Func: s.answerHost},
		{Name: "user-syscall", Func: s.user(userSyscall)},
		{Name: "user-fast", Func: s.user(userFast)},
		{Name: "user-faults", Func: s.user(userFaults)},
		{Name: "user-flags", Func: s.user(userFlags)},
		{Name: "user-preempt", Func: s.user(userPreempt)},
		{Name: "user-vectors", Func: s.user(userVectors)},
		{Name: "user-flush", Func: s.user(userFlush)},
		{Name: "user-cost", Func: s.user(userCost)},
		{Name: "soak", Func: s.soakAll},
	}
}

// cpus: the runtime knows all CPUs, and every one of them runs threads.
func (s *suite) cpus(t *testproto.T) {
	n := s.m.MADT.Enabled()
	if runtime.NumCPU() != n || runtime.GOMAXPROCS(0) != n {
		t.Fatalf("MADT has %d CPUs, NumCPU is %d, GOMAXPROCS %d", n, runtime.NumCPU(), runtime.GOMAXPROCS(0))
	}
	seen := make([]atomic.Int64, n)
	var wg sync.WaitGroup
	stop := time.Now().Add(10 * time.Second)
	for range n {
		wg.Go(func() {
			for time.Now().Before(stop) {
				seen[machine.CPU()].Add(1)
				all := true
				for i := range seen {
					all = all && seen[i].Load() > 0
				}
				if all {
					return
				}
				runtime.Gosched()
			}
		})
	}
	wg.Wait()
	for i := range seen {
		if seen[i].Load() == 0 {
			t.Errorf("CPU %d ran nothing in 10 s", i)
		}
	}
}

// parallel: contended counters and channels over all CPUs lose nothing.
func (s *suite) parallel(t *testproto.T) {
	var mu sync.Mutex
	var plain, want int
	var atom atomic.Int64
	ch := make(chan int, 16)
	var wg sync.WaitGroup
	const each = 20000
	for g := range 16 {
		want += each
		wg.Go(func() {
			for i := range each {
				mu.Lock()
				plain++
				mu.Unlock()
				atom.Add(1)
				if i%100 == 0 {
					ch <- g
				}
			}
		})
	}
	go func() { wg.Wait(); close(ch) }()
	got := 0
	for range ch {
		got++
	}
	if plain != want || atom.Load() != int64(want) || got != want/100 {
		t.Errorf("mutex %d, atomic %d, channel %d; want %d, %d, %d", plain, atom.Load(), got, want, want, want/100)
	}
}

// clock: monotonic on and across CPUs, and the two clocks agree.
func (s *suite) clock(t *testproto.T) {
	var last atomic.Int64
	var wg sync.WaitGroup
	for range runtime.NumCPU() {
		wg.Go(func() {
			for range 20000 {
				before := last.Load()
				now := int64(machine.Now())
				if now < before {
					t.Errorf("the clock went back by %d ns", before-now)
					return
				}
				last.CompareAndSwap(before, now)
			}
		})
	}
	wg.Wait()
	if y := time.Now().Year(); y < 2024 || y > 2200 {
		t.Errorf("wall clock says year %d", y)
	}
	w0, m0 := time.Now().UnixNano(), machine.Now()
	time.Sleep(50 * time.Millisecond)
	w1, m1 := time.Now().UnixNano(), machine.Now()
	if d := time.Duration(w1-w0) - (m1 - m0); d.Abs() > 20*time.Millisecond {
		t.Errorf("wall and monotonic clock differ by %v over 50 ms", d)
	}
}

// timers: never early, all of them, and in order of their deadlines if far enough apart.
func (s *suite) timers(t *testproto.T) {
	var wg sync.WaitGroup
	var fired atomic.Int64
	const n = 300
	for i := range n {
		wg.Go(func() {
			d := time.Duration(i%30) * time.Millisecond
			start := time.Now()
			time.Sleep(d)
			if got := time.Since(start); got < d {
				t.Errorf("Sleep(%v) took %v", d, got)
			}
			fired.Add(1)
		})
	}
	wg.Wait()
	if fired.Load() != n {
		t.Errorf("%d of %d timers fired", fired.Load(), n)
	}
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for range 20 {
		<-tick.C
	}
}

// preempt: a loop without function calls stops neither the collector nor other goroutines.
func (s *suite) preempt(t *testproto.T) {
	var stop atomic.Bool
	var turns [64]int
	n := runtime.NumCPU() + 2
	var wg sync.WaitGroup
	for g := range n {
		wg.Go(func() {
			for !stop.Load() {
				turns[g&63]++
			}
		})
	}
	done := make(chan bool)
	go func() {
		for range 5 {
			runtime.GC()
		}
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(60 * time.Second):
		t.Errorf("five collections did not end in 60 s while %d loops ran", n)
	}
	stop.Store(true)
	wg.Wait()
	for g := range n {
		if turns[g&63] == 0 {
			t.Errorf("loop %d never ran", g)
		}
	}
}

// faults: CPU exceptions in Go code become panics that can be recovered, on every CPU at once.
func (s *suite) faults(t *testproto.T) {
	try := func(f func()) (err error) {
		defer func() {
			if r, ok := recover().(runtime.Error); ok {
				err = r
			}
		}()
		f()
		return errors.New("no panic")
	}
	var wg sync.WaitGroup
	for range 2 * runtime.NumCPU() {
		wg.Go(func() {
			for range 200 {
				if err := try(crashes["nil"]); err.Error() != "runtime error: invalid memory address or nil pointer dereference" {
					t.Errorf("nil dereference: %v", err)
				}
				if err := try(crashes["divide"]); err.Error() != "runtime error: integer divide by zero" {
					t.Errorf("division by zero: %v", err)
				}
			}
		})
	}
	wg.Wait()
}

// vectors: XMM registers survive interrupts, switches and preemption.
func (s *suite) vectors(t *testproto.T) {
	var wg sync.WaitGroup
	end := time.Now().Add(300 * time.Millisecond)
	for g := range 2*runtime.NumCPU() + 1 {
		wg.Go(func() {
			x := [8]float64{}
			for i := range x {
				x[i] = float64(g*8 + i)
			}
			for n := 0; time.Now().Before(end); n++ {
				a, b, c, d := x[0], x[1], x[2], x[3]
				for range 5000 {
					a, b, c, d = a+1, b+2, c+3, d+4
				}
				for range 5000 {
					a, b, c, d = a-1, b-2, c-3, d-4
				}
				if a != x[0] || b != x[1] || c != x[2] || d != x[3] {
					t.Errorf("goroutine %d: %v %v %v %v, want %v", g, a, b, c, d, x[:4])
					return
				}
			}
		})
	}
	wg.Wait()
}

// memory: fresh memory is zero, also where it was used and given back, and the collector gets it back.
func (s *suite) memory(t *testproto.T) {
	for round := range 4 {
		b := make([]byte, 24<<20)
		for i := 0; i < len(b); i += 512 {
			if b[i] != 0 {
				t.Fatalf("round %d: byte %d of fresh memory is %#x", round, i, b[i])
			}
			b[i] = 0xa5
		}
		b = nil
		machine.FreeMemory()
	}
}

// threads: many runtime threads, each locked to its goroutine, pass a token round; they end with their goroutines.
func (s *suite) threads(t *testproto.T) {
	const n, rounds = 40, 10
	chans := make([]chan int, n)
	for i := range chans {
		chans[i] = make(chan int, 1)
	}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
			for range rounds {
				chans[(i+1)%n] <- <-chans[i] + 1
			}
		})
	}
	chans[0] <- 0
	wg.Wait()
	if v := <-chans[0]; v != n*rounds {
		t.Errorf("the token was passed %d times, want %d", v, n*rounds)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		now, peak := machine.Threads()
		if peak < n {
			t.Errorf("at most %d threads, want at least %d", peak, n)
		}
		if now < n {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d threads are left 10 s after %d goroutines ended theirs", now, n)
		}
	}
}

// module: what the boot loader placed in memory is where it says, and intact.
func (s *suite) module(t *testproto.T) {
	if len(s.m.Boot.Modules) == 0 {
		t.Skipf("the machine was started without a module")
	}
	b := s.m.Module(0)
	const text = "dinos module "
	if len(b) == 0 || len(b)%len(text) != 0 || !bytes.Equal(b, bytes.Repeat([]byte(text), len(b)/len(text))) {
		t.Errorf("module of %d bytes is not a repetition of %q", len(b), text)
	}
}

// garbage: allocating far more than the machine has, on goroutines and on the runtime's system stack, is the collector's business.
func (s *suite) garbage(t *testproto.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	churn()
	machine.OnSystemStack(func() {
		for range 1000 {
			hoard = append(hoard[:0], make([]byte, 8<<10))
		}
	})
	hoard = nil
	runtime.ReadMemStats(&after)
	if made := after.TotalAlloc - before.TotalAlloc; made < 250<<20 {
		t.Errorf("only %d MiB were allocated", made>>20)
	}
	if after.NumGC == before.NumGC {
		t.Errorf("no collection ran")
	}
}
