package paging

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// slabBase is where the test's physical memory begins.
const slabBase = 0x40000

// slab is physical memory for tables. It fills frames with garbage, as frames in
// use before are, and reports foreign and double frees.
type slab struct {
	t      require.TestingT
	tables []Table
	free   []uint64
	live   map[uint64]bool
}

func newSlab(t require.TestingT, frames int) *slab {
	s := &slab{t: t, tables: make([]Table, frames), live: map[uint64]bool{}}
	for i := range frames {
		s.free = append(s.free, slabBase+uint64(i)*Size4K)
	}
	return s
}

func (s *slab) window() Window { return Window{slabBase, s.tables} }

func (s *slab) scribble(phys uint64) {
	t := &s.tables[(phys-slabBase)/Size4K]
	for i := range t {
		t[i] = 0xdead_beef_dead_b001 // present, points nowhere
	}
}

func (s *slab) AllocTable() (uint64, bool) {
	if len(s.free) == 0 {
		return 0, false
	}
	phys := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	s.live[phys] = true
	s.scribble(phys)
	return phys, true
}

func (s *slab) FreeTable(phys uint64) {
	require.True(s.t, s.live[phys], "free of %#x, not allocated", phys)
	delete(s.live, phys)
	s.free = append(s.free, phys)
	s.scribble(phys)
}

func newSpace(t testing.TB, frames int) (*Space, *slab) {
	m := newSlab(t, frames)
	s := new(Space)
	require.NoError(t, s.Init(m.window(), m))
	return s, m
}

// leaves returns all leaves of s.
func leaves(t require.TestingT, s *Space) (all []Leaf) {
	add := func(l Leaf) bool { all = append(all, l); return true }
	require.NoError(t, s.Walk(0, 1<<47, add))
	require.NoError(t, s.Walk(0xffff8000_00000000, 1<<47, add))
	return all
}

const rw = Present | Writable

func TestErrors(t *testing.T) {
	s, m := newSpace(t, 8)
	require.NoError(t, s.Map(0x1000, 0x5000, 0x1000, rw, Size4K))
	const top = uint64(1) << 47
	for _, c := range []struct {
		name          string
		va, pa, n     uint64
		attr          Attr
		largest       uint64
		want          error
		mapOnly, fine bool
	}{
		{name: "va", va: 0x2001, n: 0x1000, want: ErrMisaligned},
		{name: "length", va: 0x2000, n: 0x1001, want: ErrMisaligned},
		{name: "empty", va: 0x2000, n: 0, want: ErrMisaligned},
		{name: "hole", va: top, n: 0x1000, want: ErrNonCanonical},
		{name: "into the hole", va: top - 0x1000, n: 0x2000, want: ErrNonCanonical},
		{name: "across the hole", va: 0, n: 0xffff8000_00001000, want: ErrNonCanonical},
		{name: "below the kernel half", va: 0xffff7fff_fffff000, n: 0x1000, want: ErrNonCanonical},
		{name: "wraps", va: 0xffffffff_fffff000, n: 0x2000, want: ErrNonCanonical},
		{name: "pa", va: 0x2000, pa: 0x1800, n: 0x1000, want: ErrMisaligned, mapOnly: true},
		{name: "pa too high", va: 0x2000, pa: 1 << 52, n: 0x1000, want: ErrPhysRange, mapOnly: true},
		{name: "pa end too high", va: 0x2000, pa: 1<<52 - 0x1000, n: 0x2000, want: ErrPhysRange, mapOnly: true},
		{name: "attribute", va: 0x2000, n: 0x1000, attr: 1 << 11, want: ErrBadAttr},
		{name: "leaf size", va: 0x2000, n: 0x1000, largest: 0x2000, want: ErrBadAttr, mapOnly: true},
		{name: "mapped", va: 0x1000, n: 0x1000, want: ErrMapped, mapOnly: true},
		{name: "mapped inside", va: 0, n: 0x400000, largest: Size2M, want: ErrMapped, mapOnly: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			before, live := leaves(t, s), len(m.live)
			largest := max(c.largest, Size4K)
			require.Equal(t, c.want, s.Map(c.va, c.pa, c.n, rw|c.attr, largest))
			if !c.mapOnly {
				_, err := s.Protect(c.va, c.n, c.attr, 0)
				require.Equal(t, c.want, err)
				if c.attr == 0 {
					_, err = s.Unmap(c.va, c.n, nil)
					require.Equal(t, c.want, err)
					require.Equal(t, c.want, s.Walk(c.va, c.n, nil))
				}
			}
			require.Equal(t, before, leaves(t, s))
			require.Len(t, m.live, live)
		})
	}
	_, err := s.Lookup(1 << 47)
	require.Equal(t, ErrNonCanonical, err)
	_, err = s.Lookup(0x2000)
	require.Equal(t, ErrNotMapped, err)
	_, err = s.Split(0x2000, Size4K)
	require.Equal(t, ErrNotMapped, err)
	_, err = s.Split(0x1000, Size1G)
	require.Equal(t, ErrBadAttr, err)
	_, err = s.Split(1<<47, Size4K)
	require.Equal(t, ErrNonCanonical, err)
	_, err = s.Merge(1<<47, Size2M)
	require.Equal(t, ErrNonCanonical, err)
	_, err = s.Merge(0, Size4K)
	require.Equal(t, ErrBadAttr, err)
	_, err = s.Merge(0, Size2M)
	require.Equal(t, ErrNotUniform, err)
	_, err = s.Merge(Size1G, Size2M)
	require.Equal(t, ErrNotMapped, err)
	for e := Error(0); e < 20; e++ {
		require.NotEmpty(t, e.Error())
	}
}

// TestBits compares entries with the manual, bit by bit.
func TestBits(t *testing.T) {
	s, m := newSpace(t, 16)
	const a = rw | User | Uncached | PAT | Global | NoExecute
	require.NoError(t, s.Map(0, 0x123456000, 0x1000, a, Size4K))
	require.NoError(t, s.Map(Size2M, 0x40000000, Size2M, a|Soft0|Soft3, Size1G))
	require.NoError(t, s.Map(Size1G, 0x80000000, Size1G, Present, Size1G))
	require.NoError(t, s.Map(0xffffffff_80000000, 0, 0x1000, 0, Size4K))
	entry := func(phys, i uint64) uint64 { return m.tables[(phys-slabBase)/Size4K][i] }
	const addr = uint64(0x000ffffffffff000)
	e4 := entry(s.Root(), 0)
	require.EqualValues(t, 0x27, e4&^addr)
	e3 := entry(e4&addr, 0)
	require.EqualValues(t, 0x27, e3&^addr)
	e2 := entry(e3&addr, 0)
	require.EqualValues(t, 0x27, e2&^addr)
	require.EqualValues(t, uint64(0x80000001_2345699f)|1<<11, entry(e2&addr, 0))
	require.EqualValues(t, uint64(0x80200000_4000139f)|1<<11, entry(e3&addr, 1))
	require.EqualValues(t, 0x80000081|1<<11, entry(e4&addr, 1))
	k := entry(s.Root(), 511)
	require.EqualValues(t, 0x23, k&^addr, "no user access through the kernel half")
	l, err := s.Lookup(0xffffffff_80000fff)
	require.NoError(t, err)
	require.Equal(t, Leaf{0xffffffff_80000000, 0, Size4K, 0}, l, "mapped, but not present")
	require.Equal(t, WriteThrough|PAT, Memory(5))
	require.Equal(t, Uncached, Memory(3))
}

func TestLargestLeaves(t *testing.T) {
	s, _ := newSpace(t, 32)
	sizes := func() map[uint64]int {
		n := map[uint64]int{}
		for _, l := range leaves(t, s) {
			n[l.Size]++
		}
		return n
	}
	// From 4 KiB below 1 GiB to 2 MiB + 4 KiB above 2 GiB.
	require.NoError(t, s.Map(Size1G-0x1000, 3*Size1G-0x1000, Size1G+Size2M+0x2000, rw, Size1G))
	require.Equal(t, map[uint64]int{Size1G: 1, Size2M: 1, Size4K: 2}, sizes())
	f, err := s.Unmap(0, 1<<47, nil)
	require.NoError(t, err)
	require.Equal(t, 4, f.Leaves)
	s.Release(&f)
	// Physical memory not aligned the same way.
	require.NoError(t, s.Map(Size1G, Size1G+Size2M, Size2M*2, rw, Size1G))
	require.NoError(t, s.Map(0, 0x1000, Size2M, rw, Size1G))
	require.Equal(t, map[uint64]int{Size2M: 2, Size4K: 512}, sizes())
}

func TestSplitMerge(t *testing.T) {
	s, m := newSpace(t, 16)
	const va, pa = uint64(0xffff9000_00000000), uint64(4 * Size1G)
	const a = rw | PAT | Global | Soft1
	require.NoError(t, s.Map(va, pa, Size1G, a, Size1G))
	one := leaves(t, s)

	f, err := s.Split(va+5*Size2M+0x3456, Size4K)
	require.NoError(t, err)
	require.Equal(t, Flush{Start: va, Pages: Size1G / Size4K, Leaves: 1, Global: true}, f)
	all := leaves(t, s)
	require.Len(t, all, 511+512)
	next := va
	for _, l := range all {
		require.Equal(t, Leaf{next, pa + next - va, l.Size, a}, l)
		next += l.Size
	}
	f, err = s.Split(va, Size2M)
	require.NoError(t, err)
	require.Zero(t, f)

	_, err = s.Merge(va, Size1G)
	require.Equal(t, ErrNotUniform, err, "small leaves inside")
	live := len(m.live)
	for _, c := range []struct{ va, size uint64 }{{va + 5*Size2M, Size2M}, {va, Size1G}} {
		f, err = s.Merge(c.va+123, c.size)
		require.NoError(t, err)
		require.Equal(t, c.va, f.Start)
		require.Equal(t, c.size/Size4K, f.Pages)
		s.Release(&f)
	}
	require.Len(t, m.live, live-2)
	one[0].Attr |= Accessed | Dirty
	require.Equal(t, one, leaves(t, s))

	// One page that differs in attributes or place prevents it.
	_, err = s.Split(va, Size4K)
	require.NoError(t, err)
	_, err = s.Protect(va+0x7000, 0x1000, NoExecute, 0)
	require.NoError(t, err)
	_, err = s.Merge(va, Size2M)
	require.Equal(t, ErrNotUniform, err)
}

func TestKernelHalf(t *testing.T) {
	k, m := newSpace(t, 300)
	var u Space
	require.Equal(t, ErrNotMapped, u.InitUser(k))
	require.NoError(t, k.Map(0xffffffff_80000000, 0, 0x1000, rw, Size4K))
	require.NoError(t, k.PrepareKernelHalf())
	require.NoError(t, k.PrepareKernelHalf(), "again")
	require.Len(t, m.live, 1+256+2)
	require.NoError(t, k.Map(0xffffc000_00000000, 0x9000, 0x1000, rw, Size4K))
	live := len(m.live)
	require.NoError(t, u.InitUser(k))
	require.NoError(t, u.Map(0x1000, 0, 0x1000, rw, Size4K))

	l, err := u.Lookup(0xffffc000_00000000)
	require.NoError(t, err)
	require.EqualValues(t, 0x9000, l.PA)

	for _, c := range []struct {
		reclaim Reclaim
		freed   int
	}{{ReclaimUser, 0}, {ReclaimNone, 0}, {ReclaimAll, 2}} {
		k.Reclaim = c.reclaim
		live := len(m.live)
		f, err := k.Unmap(0xffffc000_00000000, 1<<39, nil)
		require.NoError(t, err)
		k.Release(&f)
		require.Len(t, m.live, live-c.freed)
		require.NoError(t, k.Map(0xffffc000_00000000, 0x9000, 0x1000, rw, Size4K))
		_, err = u.Lookup(0xffffc000_00000000)
		require.NoError(t, err, "the halves are still one")
	}
	var seen []Leaf
	u.Destroy(func(l Leaf) { seen = append(seen, l) })
	require.Equal(t, []Leaf{{0x1000, 0, Size4K, rw}}, seen)
	require.Equal(t, live, len(m.live))
	k.Destroy(nil)
}

func TestPrepareKernelHalfOutOfMemory(t *testing.T) {
	s, m := newSpace(t, 256)
	require.Equal(t, ErrNoMemory, s.PrepareKernelHalf())
	require.Len(t, m.live, 1)
	require.Equal(t, Table{}, m.tables[(s.Root()-slabBase)/Size4K])
	var full Space
	require.Equal(t, ErrNoMemory, full.Init(m.window(), newSlab(t, 0)))
}

func TestFlush(t *testing.T) {
	s, _ := newSpace(t, 16)
	const top = ^uint64(0xfff)
	require.NoError(t, s.Map(0x1000, 0, 0x5000, rw, Size4K))
	require.NoError(t, s.Map(top, 0, 0x1000, rw|Global, Size4K))
	for _, c := range []struct {
		name       string
		set, clear Attr
		pages      uint64
		leaves     int
	}{
		{"no change", rw, NoExecute, 0, 0},
		{"less", 0, Writable, 3, 3},
		{"more", Writable, 0, 0, 3},
		{"execute off", NoExecute, 0, 3, 3},
		{"execute on", 0, NoExecute, 0, 3},
		{"memory type", Uncached, 0, 3, 3},
		{"software", Soft0, 0, 0, 3},
		{"age", Accessed | Dirty, 0, 0, 3},
		{"clean", 0, Dirty, 3, 3},
		{"no access", 0, Present, 3, 3},
		{"no access, changed", 0, Uncached, 0, 3},
		{"access", Present, 0, 0, 3},
	} {
		f, err := s.Protect(0x2000, 0x3000, c.set, c.clear)
		require.NoError(t, err)
		want := Flush{Pages: c.pages, Leaves: c.leaves}
		if c.pages != 0 {
			want.Start = 0x2000
		}
		require.Equal(t, want, f, c.name)
	}
	f, err := s.Unmap(0, 0x2000, nil)
	require.NoError(t, err)
	g, err := s.Unmap(top, 0x1000, nil)
	require.NoError(t, err)
	require.Equal(t, Flush{Start: top, Pages: 1, Leaves: 1, Global: true}, g)
	s.Add(&f, g)
	require.Equal(t, Flush{Start: 0x1000, Pages: 1<<52 - 1, Leaves: 2, Global: true}, f)
}

func TestFlushCover(t *testing.T) {
	var f Flush
	for _, c := range []struct{ va, size, start, pages uint64 }{
		{0x5000, 0x2000, 0x5000, 2},
		{0x3000, 0x1000, 0x3000, 4},
		{0x4000, 0x1000, 0x3000, 4},
		{0x2000, 0x8000, 0x2000, 8},
		{0xa000, 0x1000, 0x2000, 9},
		{^uint64(0xfff), 0x1000, 0x2000, 1<<52 - 2},
		{0x1000, 0x1000, 0x1000, 1<<52 - 1},
	} {
		f.cover(c.va, c.size)
		require.Equal(t, Flush{Start: c.start, Pages: c.pages}, f)
	}
}

// leanFrames is a Frames that, unlike slab, allocates nothing on the heap.
type leanFrames struct {
	free []uint64
	n    int
}

func (f *leanFrames) AllocTable() (uint64, bool) {
	if f.n == 0 {
		return 0, false
	}
	f.n--
	return f.free[f.n], true
}

func (f *leanFrames) FreeTable(phys uint64) {
	f.free[f.n] = phys
	f.n++
}

func leanSpace(t testing.TB, frames int) *Space {
	m := newSlab(t, frames)
	f := &leanFrames{free: m.free, n: frames}
	s := new(Space)
	require.NoError(t, s.Init(m.window(), f))
	return s
}

func TestNothingAllocates(t *testing.T) {
	s := leanSpace(t, 300)
	require.NoError(t, s.PrepareKernelHalf())
	var seen uint64
	n := testing.AllocsPerRun(10, func() {
		fail := func(err error) {
			if err != nil {
				panic(err)
			}
		}
		fail(s.Map(0x1000, 0, Size2M*3, rw, Size2M))
		fail(s.Map(Size1G, 0, Size1G, rw, Size1G))
		f, err := s.Protect(Size1G+0x1000, Size2M, 0, Writable)
		fail(err)
		g, err := s.Split(Size1G+100*Size2M, Size4K)
		fail(err)
		s.Add(&f, g)
		g, err = s.Merge(Size1G+100*Size2M, Size2M)
		fail(err)
		s.Add(&f, g)
		fail(s.Walk(0, 1<<47, func(l Leaf) bool { seen += l.Size; return true }))
		if s.Map(0x1000, 0, 0x1000, rw, Size4K) != ErrMapped {
			panic("mapped twice")
		}
		g, err = s.Unmap(0, 1<<47, func(l Leaf) { seen += l.Size })
		fail(err)
		s.Add(&f, g)
		s.Release(&f)
		_, err = s.Lookup(0x1000)
		if err != ErrNotMapped {
			panic("still mapped")
		}
	})
	require.Zero(t, n)
}

func BenchmarkMap4K(b *testing.B) {
	s := leanSpace(b, 8)
	require.NoError(b, s.Map(0, 0, 0x1000, rw, Size4K))
	leaf := s.window.table(s.window.table(s.window.table(s.root.load(0)).load(0)).load(0))
	i := uint64(0)
	for b.Loop() {
		if i&511 == 0 {
			clear(leaf[:])
			i = 0
		}
		if s.Map(i*Size4K, i*Size4K, Size4K, rw, Size4K) != nil {
			b.Fatal("map")
		}
		i++
	}
}

func BenchmarkMapUnmap4K(b *testing.B) {
	s := leanSpace(b, 8)
	require.NoError(b, s.Map(0x6000, 0, 0x1000, rw, Size4K))
	for b.Loop() {
		s.Map(0x7000, 0, Size4K, rw, Size4K)
		s.Unmap(0x7000, Size4K, nil)
	}
}

// BenchmarkMapUnmap2M maps and unmaps 512 small pages with their table.
func BenchmarkMapUnmap2M(b *testing.B) {
	s := leanSpace(b, 8)
	for b.Loop() {
		s.Map(0, 0, Size2M, rw, Size4K)
		f, _ := s.Unmap(0, Size2M, nil)
		s.Release(&f)
	}
}

func BenchmarkLookup(b *testing.B) {
	s := leanSpace(b, 8)
	require.NoError(b, s.Map(0, 0, 0x1000, rw, Size4K))
	for b.Loop() {
		s.Lookup(0x123)
	}
}

func BenchmarkProtect4K(b *testing.B) {
	s := leanSpace(b, 8)
	require.NoError(b, s.Map(0, 0, 0x1000, rw, Size4K))
	for b.Loop() {
		s.Protect(0, Size4K, 0, Writable)
		s.Protect(0, Size4K, Writable, 0)
	}
}
