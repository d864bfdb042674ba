package mm

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/dkernel/frame"
	"dinos/kernel/linux"
	"dinos/kernel/paging"
)

// machine is a software machine: memory, tables, CPUs with translation buffers.
type machine struct {
	t      testing.TB
	tables *tables
	kernel paging.Space
	pool   *frame.Pool
	source *source
	sys    *System

	mu      sync.Mutex
	cpus    []*cpu
	flushes atomic.Int64
	retired atomic.Int64
	noFlush atomic.Bool // breaks the machine on purpose
}

// tables are frames for page tables; budget bounds them.
type tables struct {
	mu     sync.Mutex
	mem    []paging.Table
	free   []uint64
	budget int // frames that may still be taken, if not negative
}

const tableBase = 0x10_0000

func (f *tables) AllocTable() (uint64, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.free) == 0 || f.budget == 0 {
		return 0, false
	}
	if f.budget > 0 {
		f.budget--
	}
	p := f.free[len(f.free)-1]
	f.free = f.free[:len(f.free)-1]
	return p, true
}

func (f *tables) FreeTable(p uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := &f.mem[(p-tableBase)/pageSize]
	for i := range t { // whoever still walks it finds nonsense, but no race
		atomic.StoreUint64(&t[i], 0xdead_0000_0000_0000)
	}
	f.free = append(f.free, p)
}

func (f *tables) left() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.free)
}

// source has the slices of a small shared memory.
type source struct {
	mu    sync.Mutex
	avail []uint64
}

func (s *source) Take() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.avail) == 0 {
		return 0, errors.New("none")
	}
	n := s.avail[0]
	s.avail = s.avail[1:]
	return n, nil
}

func (s *source) Give(n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.avail = append(s.avail, n)
}

func newMachine(t testing.TB, slices int, change func(*Config)) *machine {
	const nTables = 2000
	m := &machine{t: t, tables: &tables{mem: make([]paging.Table, nTables), budget: -1}, source: &source{}}
	for i := range nTables {
		m.tables.free = append(m.tables.free, tableBase+uint64(i)*pageSize)
	}
	w := paging.Window{Base: tableBase, Tables: m.tables.mem}
	require.NoError(t, m.kernel.Init(w, m.tables))
	require.NoError(t, m.kernel.PrepareKernelHalf())
	mem := make([]byte, slices*frame.SliceSize+pageSize)
	for misaligned(mem) {
		mem = mem[1:]
	}
	for i := range slices {
		m.source.avail = append(m.source.avail, uint64(i))
	}
	var err error
	m.pool, err = frame.New(frame.Config{Memory: mem[: slices*frame.SliceSize : slices*frame.SliceSize], Base: 0xc0_0000_0000, Source: m.source})
	require.NoError(t, err)
	c := Config{Frames: m.pool, Hardware: m}
	if change != nil {
		change(&c)
	}
	m.sys, err = NewSystem(c)
	require.NoError(t, err)
	return m
}

func (m *machine) NewTables(pt *paging.Space) error { return pt.InitUserIn(&m.kernel, m.tables) }

// Flush waits until every CPU has dropped its translations, as a shootdown does.
func (m *machine) Flush(s *Space, ranges []Range) {
	m.flushes.Add(1)
	if m.noFlush.Load() {
		return
	}
	m.mu.Lock()
	cpus := m.cpus
	m.mu.Unlock()
	for _, c := range cpus {
		c.shoot(s, ranges)
	}
}

func (m *machine) Retire(s *Space) {
	m.retired.Add(1)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.cpus {
		if c.space == s {
			panic("a CPU still runs the address space")
		}
	}
}

// testLayout is Linux' for 8 MiB of stack, with nothing random but the room for it.
var testLayout = Layout{StackTop: userTop, MmapBase: userTop - 8<<20 - stackGuard - 1<<34 + pageSize}

// space makes an address space with a fixed layout.
func (m *machine) space() *Space {
	s, err := m.sys.NewSpace(testLayout, DefaultLimits)
	require.NoError(m.t, err)
	return s
}

// clean checks that nothing is left of all address spaces.
func (m *machine) clean(tables int) {
	m.t.Helper()
	st := m.pool.Stats()
	require.Equal(m.t, 1, st.Used, "frames besides the zero page")
	require.Equal(m.t, tables, m.tables.left(), "tables")
	pages, _ := m.sys.Committed()
	require.Zero(m.t, pages, "promised pages")
}

// cpu is a processor that runs a program in an address space: it caches translations and forgets only when it is told to.
type cpu struct {
	m     *machine
	space *Space
	tlb   map[uint64]entry // by page; of the CPU's goroutine

	asked  atomic.Pointer[shot]
	halted atomic.Bool // the CPU has no translations and looks at asked before it makes any
	mu     sync.Mutex  // held by the CPU while it runs; whoever shoots at a halted CPU
}

type entry struct {
	f     frame.Frame
	write bool
}

type shot struct {
	ranges []Range
	done   chan struct{}
}

// run starts a CPU in s.
func (m *machine) run(s *Space) *cpu {
	c := &cpu{m: m, space: s, tlb: map[uint64]entry{}}
	c.mu.Lock()
	m.mu.Lock()
	m.cpus = append(m.cpus[:len(m.cpus):len(m.cpus)], c)
	m.mu.Unlock()
	return c
}

// stop ends it.
func (c *cpu) stop() {
	clear(c.tlb)
	c.mu.Unlock()
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	for i, d := range c.m.cpus {
		if d == c {
			c.m.cpus = append(append([]*cpu(nil), c.m.cpus[:i]...), c.m.cpus[i+1:]...)
		}
	}
	c.space = nil
}

// kernel runs f outside of the program: the CPU serves shootdowns meanwhile, by having no translations.
func (c *cpu) kernel(f func()) {
	clear(c.tlb)
	c.mu.Unlock()
	f()
	c.mu.Lock()
	c.serve()
}

// serve answers a shootdown.
func (c *cpu) serve() {
	if s := c.asked.Swap(nil); s != nil {
		for _, r := range s.ranges {
			if r.Pages > 512 {
				clear(c.tlb)
				continue
			}
			for i := range r.Pages {
				delete(c.tlb, r.Start>>pageShift+i)
			}
		}
		close(s.done)
	}
}

func (c *cpu) shoot(s *Space, ranges []Range) {
	if c.mu.TryLock() { // not in a program: it has no translations
		c.mu.Unlock()
		return
	}
	sh := &shot{append([]Range(nil), ranges...), make(chan struct{})}
	for !c.asked.CompareAndSwap(nil, sh) {
		if c.mu.TryLock() {
			c.mu.Unlock()
			return
		}
		runtime.Gosched()
	}
	for {
		select {
		case <-sh.done:
			return
		default:
		}
		if c.mu.TryLock() { // it went into the kernel or stopped
			c.asked.CompareAndSwap(sh, nil)
			c.mu.Unlock()
			return
		}
		runtime.Gosched()
	}
}

// translate is what the MMU does.
func (c *cpu) translate(addr uint64, write bool) (frame.Frame, bool) {
	c.serve()
	page := addr >> pageShift
	if e, ok := c.tlb[page]; ok && (e.write || !write) {
		return e.f, true
	}
	l, err := c.space.tree.pt.Lookup(addr &^ (pageSize - 1))
	if err != nil || l.Attr&(paging.Present|paging.User) != paging.Present|paging.User || write && l.Attr&paging.Writable == 0 {
		return 0, false
	}
	e := entry{c.m.pool.FromPhys(l.PA), l.Attr&paging.Writable != 0}
	c.tlb[page] = e
	return e.f, true
}

// word is the word that the program's access to addr reaches, after page faults.
func (c *cpu) word(addr uint64, write bool) (*uint64, Outcome) {
	for {
		if f, ok := c.translate(addr, write); ok {
			return &c.m.pool.Words(f)[addr%pageSize/8], Resolved
		}
		prot := linux.PROT_READ
		if write {
			prot = linux.PROT_WRITE
		}
		var out Outcome
		c.kernel(func() { out = c.space.Fault(addr, prot) })
		if out != Resolved {
			return nil, out
		}
	}
}

func (c *cpu) load(addr uint64) (uint64, Outcome) {
	w, out := c.word(addr, false)
	if out != Resolved {
		return 0, out
	}
	return atomic.LoadUint64(w), out
}

func (c *cpu) store(addr, v uint64) Outcome {
	w, out := c.word(addr, true)
	if out == Resolved {
		atomic.StoreUint64(w, v)
	}
	return out
}
