package mm

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/kernel/linux"
)

// rounds scales the length of the stress tests; DINOS_LONG=1 makes them twenty times as long.
func rounds(n int) int {
	if os.Getenv("DINOS_LONG") != "" {
		return 20 * n
	}
	return n
}

// spot is a page whose mapping is known while its state does not change: 0 is unmapped, an even number is mapped with
// that content, odd is changing.
type spot struct{ state atomic.Uint64 }

// watch reads spots from a CPU, counts in seen what it could check, and reports what must not be.
func watch(load func(addr uint64) (uint64, Outcome), base uint64, spots []spot, stop *atomic.Bool, seed uint64, absent Outcome, seen *atomic.Int64) error {
	rng := rand.New(rand.NewPCG(seed, 1))
	for !stop.Load() {
		i := rng.IntN(len(spots))
		addr := base + uint64(i)*pageSize
		before := spots[i].state.Load()
		got, out := load(addr + 16)
		if after := spots[i].state.Load(); before != after || before%2 == 1 {
			continue
		}
		switch {
		case before == 0 && out != absent && out != AccError:
			return fmt.Errorf("page %d is unmapped and reads as %d, %d", i, got, out)
		case before != 0 && (out != Resolved || got != before):
			return fmt.Errorf("page %d reads as %d, %d, want %d", i, got, out, before)
		}
		seen.Add(1)
	}
	return nil
}

// spinners are CPUs that watch, and the kernel, which reads as well.
type spinners struct {
	stop   atomic.Bool
	failed atomic.Bool
	wg     sync.WaitGroup
	seen   []atomic.Int64 // by CPU
	errs   []error        // guarded by wg
}

func spin(m *machine, s *Space, n int, base uint64, spots []spot, absent Outcome) *spinners {
	w := &spinners{seen: make([]atomic.Int64, n+1), errs: make([]error, n+1)}
	run := func(i int, load func(addr uint64) (uint64, Outcome)) {
		w.errs[i] = watch(load, base, spots, &w.stop, uint64(i), absent, &w.seen[i])
		if w.errs[i] != nil {
			w.failed.Store(true)
		}
	}
	for i := range n {
		c := m.run(s)
		w.wg.Go(func() {
			defer c.stop()
			run(i, c.load)
		})
	}
	w.wg.Go(func() {
		run(n, func(addr uint64) (uint64, Outcome) {
			v, err := s.Load64(addr)
			if err != nil {
				return 0, absent
			}
			return v, Resolved
		})
	})
	return w
}

// wait reports whether the CPUs have seen too little yet, for they may have had no time to run, and none has failed.
func (w *spinners) wait() bool {
	total := int64(0)
	for i := range len(w.seen) - 1 {
		total += w.seen[i].Load()
	}
	return total <= 100 && !w.failed.Load()
}

// done stops the CPUs and tells what they found.
func (w *spinners) done() error {
	w.stop.Store(true)
	w.wg.Wait()
	return errors.Join(w.errs...)
}

// churn maps and unmaps spots, in all the ways that take a page away.
func churn(t *testing.T, s *Space, base uint64, spots []spot, steps int) {
	rng := rand.New(rand.NewPCG(7, 7))
	next := uint64(2)
	spare := base + 1<<30
	for range steps {
		i := rng.IntN(len(spots))
		p := &spots[i]
		addr := base + uint64(i)*pageSize
		if p.state.Load() == 0 {
			p.state.Store(1)
			s.must(t, MapArgs{Addr: addr, Len: pageSize, Prot: rw, Flags: private | fixed})
			next += 2
			require.NoError(t, s.Store64(addr+16, next))
			p.state.Store(next)
			continue
		}
		old := p.state.Load()
		p.state.Store(old + 1)
		switch rng.IntN(5) {
		case 0:
			require.NoError(t, s.Unmap(addr, pageSize))
			p.state.Store(0)
		case 1: // another page in its place
			s.must(t, MapArgs{Addr: addr, Len: pageSize, Prot: rw, Flags: private | fixed})
			next += 2
			require.NoError(t, s.Store64(addr+16, next))
			p.state.Store(next)
		case 2:
			require.NoError(t, s.Advise(addr, pageSize, linux.MADV_DONTNEED))
			next += 2
			require.NoError(t, s.Store64(addr+16, next))
			p.state.Store(next)
		case 3: // what is there comes back with a mapping in its place only
			require.NoError(t, s.Protect(addr, pageSize, 0))
			p.state.Store(0)
		case 4:
			_, err := s.Remap(addr, pageSize, pageSize, linux.MREMAP_MAYMOVE|linux.MREMAP_FIXED, spare)
			require.NoError(t, err)
			p.state.Store(0)
			v, err := s.Load64(spare + 16)
			require.NoError(t, err)
			require.Equal(t, old, v)
			require.NoError(t, s.Unmap(spare, pageSize))
		}
	}
}

// A CPU never uses a translation that is gone.
func TestNoStaleTranslation(t *testing.T) {
	for _, logged := range []bool{false, true} {
		m := newMachine(t, 2, nil)
		tables := m.tables.left()
		s := m.space()
		if logged {
			require.NoError(t, promoteOne(s))
		}
		spots := make([]spot, 8)
		base := uint64(0x10000000)
		w := spin(m, s, 3, base, spots, MapError)
		churn(t, s, base, spots, rounds(300))
		for w.wait() {
			churn(t, s, base, spots, 50)
		}
		require.NoError(t, w.done())
		require.NoError(t, s.tree.check())
		s.Put()
		m.clean(tables)
	}
}

// The test above notices a machine that does not flush.
func TestStaleTranslationIsNoticed(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector would notice first")
	}
	m := newMachine(t, 2, nil)
	s := m.space()
	m.noFlush.Store(true)
	spots := make([]spot, 8)
	base := uint64(0x10000000)
	for try := 0; ; try++ {
		w := spin(m, s, 3, base, spots, MapError)
		churn(t, s, base, spots, 2000)
		if w.done() != nil {
			return
		}
		require.Less(t, try, 50, "stale translations are not noticed")
	}
}

// Truncation takes pages away from programs for good.
func TestTruncateUnderLoad(t *testing.T) {
	m := newMachine(t, 2, nil)
	tables := m.tables.left()
	s := m.space()
	f := m.file(8)
	base := uint64(0x10000000)
	s.must(t, MapArgs{Addr: base, Len: 8 * pageSize, Prot: rw, Flags: linux.MAP_SHARED | fixed, Object: f})
	spots := make([]spot, 8)
	write := func(i, v uint64) { require.NoError(t, s.Store64(base+i*pageSize+16, v)) }
	next := uint64(2)
	for i := range uint64(8) {
		write(i, next)
		spots[i].state.Store(next)
	}
	w := spin(m, s, 3, base, spots, BusError)
	for n := 0; n < rounds(60) || w.wait(); n++ {
		for i := range spots[3:] {
			spots[3+i].state.Store(1)
		}
		f.resize(3)
		for i := range spots[3:] {
			spots[3+i].state.Store(0)
		}
		for i := uint64(3); i < 8; i++ {
			spots[i].state.Store(1)
		}
		f.resize(8)
		for i := uint64(3); i < 8; i++ {
			next += 2
			write(i, next)
			spots[i].state.Store(next)
		}
	}
	require.NoError(t, w.done())
	s.Put()
	f.resize(0)
	m.clean(tables)
}

// writer counts up in two pages, b before a, and sees its own writes.
func writer(c *cpu, a, b uint64, stop *atomic.Bool) error {
	for v := uint64(1); !stop.Load(); v++ {
		for _, addr := range []uint64{b, a} {
			if out := c.store(addr, v); out != Resolved {
				return fmt.Errorf("store: %d", out)
			}
			if got, out := c.load(addr); out != Resolved || got != v {
				return fmt.Errorf("wrote %d and read %d, %d: the write was lost", v, got, out)
			}
		}
	}
	return nil
}

// Fork takes a picture of each CPU at one moment, nobody loses a write, and nothing leaks to or from the child.
func TestForkUnderLoad(t *testing.T) {
	m := newMachine(t, 4, nil)
	tables := m.tables.left()
	s := m.space()
	const cpus = 3
	base := s.must(t, MapArgs{Len: 2 * cpus * pageSize, Prot: rw, Flags: private})
	var stop atomic.Bool
	var wg sync.WaitGroup
	for i := range uint64(cpus) {
		c := m.run(s)
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer c.stop()
			if err := writer(c, base+2*i*pageSize, base+(2*i+1)*pageSize, &stop); err != nil {
				t.Error(err)
			}
		}()
	}
	look := func(c *Space) (out [2 * cpus]uint64) {
		for i := range out {
			v, err := c.Load64(base + uint64(i)*pageSize)
			require.NoError(t, err)
			out[i] = v
		}
		return out
	}
	for range rounds(100) {
		c, err := s.Fork()
		require.NoError(t, err)
		first := look(c)
		for i := 0; i < len(first); i += 2 {
			if a, b := first[i], first[i+1]; b < a || b > a+1 {
				t.Fatalf("the child saw %d written before %d", a, b)
			}
		}
		g, err := c.Fork()
		require.NoError(t, err)
		require.NoError(t, c.Store64(base, 1<<60))
		require.Equal(t, first, look(g), "the child's memory changed")
		g.Put()
		c.Put()
	}
	stop.Store(true)
	wg.Wait()
	require.NoError(t, s.tree.check())
	s.Put()
	m.clean(tables)
}

// Everything at once: nothing breaks, nothing leaks.
func TestChaos(t *testing.T) {
	for _, logged := range []bool{false, true} {
		m := newMachine(t, 3, func(c *Config) { c.AnonAround = 16 })
		tables := m.tables.left()
		s := m.space()
		if logged {
			require.NoError(t, promoteOne(s))
		}
		files := []*file{m.file(16), m.file(16)}
		files[1].notify = true
		s.SetBreakStart(0x1000000)
		var wg sync.WaitGroup
		for g := range 4 {
			c := m.run(s)
			wg.Add(1)
			go func() {
				defer wg.Done()
				defer c.stop()
				rng := rand.New(rand.NewPCG(uint64(g), 99))
				for range rounds(1000) {
					chaos(c, rng, files)
				}
			}()
		}
		wg.Wait()
		require.NoError(t, s.tree.check())
		s.Put()
		for _, f := range files {
			f.resize(0)
			require.EqualValues(t, 1, f.refs.Load())
			require.True(t, f.maps.Empty())
		}
		m.clean(tables)
	}
}

func chaos(c *cpu, rng *rand.Rand, files []*file) {
	s := c.space
	base := uint64(0x20000000)
	addr := base + uint64(rng.IntN(64))*pageSize
	n := uint64(1+rng.IntN(8)) * pageSize
	prot := []int{0, 1, 3, 3, 3, 5, 7}[rng.IntN(7)]
	what := rng.IntN(14)
	if what < 4 {
		_, _ = c.load(addr + 8)
		_ = c.store(addr+16, rng.Uint64())
		return
	}
	c.kernel(func() {
		switch what {
		case 4:
			_, _ = s.Map(MapArgs{Addr: addr, Len: n, Prot: prot, Flags: private | fixed | rng.IntN(2)*linux.MAP_POPULATE})
		case 5:
			_, _ = s.Map(MapArgs{Addr: addr, Len: n, Prot: prot, Flags: shared | fixed})
		case 6:
			_, _ = s.Map(MapArgs{Addr: addr, Len: n, Prot: prot, Object: files[rng.IntN(2)], Offset: uint64(rng.IntN(12)) * pageSize,
				Flags: linux.MAP_SHARED | fixed | rng.IntN(2)*linux.MAP_POPULATE})
		case 7:
			_ = s.Unmap(addr, n)
		case 8:
			_ = s.Protect(addr, n, prot)
		case 9:
			_, _ = s.Remap(addr, n, uint64(1+rng.IntN(8))*pageSize, linux.MREMAP_MAYMOVE|rng.IntN(2)*linux.MREMAP_FIXED,
				base+uint64(rng.IntN(64))*pageSize)
		case 10:
			_ = s.Advise(addr, n, []int{linux.MADV_DONTNEED, linux.MADV_RANDOM, linux.MADV_NORMAL, linux.MADV_REMOVE}[rng.IntN(4)])
		case 11:
			if d, err := s.Fork(); err == nil {
				_ = d.Store64(addr, 7)
				_, _ = d.Load64(addr + pageSize)
				d.Put()
			}
		case 12:
			f := files[rng.IntN(2)]
			if rng.IntN(2) == 0 {
				f.resize(uint64(8 + rng.IntN(8)))
			} else {
				_ = s.Sync(addr, n, linux.MS_SYNC)
			}
		case 13:
			s.Break(0x1000000 + uint64(rng.IntN(20))*pageSize)
			_ = s.Store64(0x1000000, 5)
			_ = s.Lock(addr, n, rng.IntN(2))
			_ = s.Unlock(addr, n)
			_ = s.Incore(addr, n, make([]byte, 8))
			s.Regions(0, 100)
		}
	})
}

// After Clean no CPU writes to a page without the object hearing of it.
func TestCleanUnderLoad(t *testing.T) {
	m := newMachine(t, 2, nil)
	tables := m.tables.left()
	s := m.space()
	f := m.file(1)
	f.notify = true
	a := s.must(t, MapArgs{Len: pageSize, Prot: rw, Flags: linux.MAP_SHARED, Object: f})
	var stop atomic.Bool
	var wg sync.WaitGroup
	c := m.run(s)
	wg.Add(1)
	go func() {
		defer wg.Done()
		defer c.stop()
		for v := uint64(1); !stop.Load(); v++ {
			if out := c.store(a, v); out != Resolved {
				t.Errorf("store: %d", out)
				return
			}
			runtime.Gosched()
		}
	}()
	isDirty := func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.dirty[0]
	}
	for range rounds(50) {
		for start := time.Now(); !isDirty(); runtime.Gosched() {
			if time.Since(start) > 20*time.Second {
				stop.Store(true)
				t.Fatal("a write went unnoticed")
			}
		}
		require.NoError(t, s.Sync(a, pageSize, linux.MS_SYNC))
	}
	stop.Store(true)
	wg.Wait()
	s.Put()
	f.resize(0)
	m.clean(tables)
}
