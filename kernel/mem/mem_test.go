package mem

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

const mib = 1 << 20

// newAllocator returns an allocator with descriptors full of garbage, as
// memory is at boot.
func newAllocator(t testing.TB, regions ...Range) *Allocator {
	t.Helper()
	n, err := Needed(regions)
	require.NoError(t, err)
	blocks := make([]Block, n)
	for i := range blocks {
		blocks[i] = Block{next: 7, prev: 9, nfree: 77, sum: 0x55, list: 3, free: [words]uint64{1, 2, 3}}
	}
	a := new(Allocator)
	require.NoError(t, a.Init(blocks, regions))
	return a
}

func TestInitRoundsAndMerges(t *testing.T) {
	for _, c := range []struct {
		name    string
		regions []Range
		blocks  int
		frames  uint64
	}{
		{"none", nil, 0, 0},
		{"empty", []Range{{4096, 0}}, 0, 0},
		{"less than a frame", []Range{{100, 4095}}, 0, 0},
		{"a frame inside", []Range{{4000, 4096 + 96}}, 1, 1},
		{"PC", []Range{{0, 0x9fc00}, {0x100000, 255 * mib}}, 128, 0x9f + 255*256},
		{"unsorted", []Range{{4 * mib, 2 * mib}, {0, 2 * mib}}, 2, 1024},
		{"overlapping", []Range{{0, 4 * mib}, {2 * mib, 4 * mib}, {mib, mib}}, 3, 1536},
		{"meet inside a frame", []Range{{0, 5000}, {5000, 3192}}, 1, 2},
		{"meet inside a frame, unsorted", []Range{{5000, 3192}, {0, 5000}}, 1, 2},
		{"share a block", []Range{{0, mib / 2}, {mib, mib / 2}}, 1, 256},
		{"sparse", []Range{{0, 2 * mib}, {1 << 45, 2 * mib}, {1 << 51, 4096}}, 3, 1025},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, err := Needed(c.regions)
			require.NoError(t, err)
			require.Equal(t, c.blocks, n)
			a := newAllocator(t, c.regions...)
			require.Equal(t, Stats{Total: c.frames, Free: c.frames, FreeBlocks: a.Stats().FreeBlocks}, a.Stats())
			check(t, a)
		})
	}
}

func TestInitErrors(t *testing.T) {
	var a Allocator
	require.Equal(t, ErrBadRange, a.Init(nil, []Range{{MaxPhys, 4096}}))
	require.Equal(t, ErrBadRange, a.Init(nil, []Range{{4096, ^uint64(0)}}))
	require.Equal(t, ErrTooFewBlocks, a.Init(make([]Block, 1), []Range{{0, 4 * mib}}))
	var many []Range
	for i := range uint64(MaxRegions + 1) {
		many = append(many, Range{i * 2 * FrameSize, FrameSize})
	}
	_, err := Needed(many)
	require.Equal(t, ErrTooManyRegions, err)
	_, err = Needed(many[:MaxRegions])
	require.NoError(t, err)
	for e := Error(0); e < 20; e++ {
		require.NotEmpty(t, e.Error())
	}
}

func TestFreeErrors(t *testing.T) {
	a := newAllocator(t, Range{0, 4 * mib}, Range{64 * mib, 2 * mib})
	require.NoError(t, a.Reserve(Range{5000, 1})) // frame 1
	f, err := a.Alloc4K()
	require.NoError(t, err)
	require.Equal(t, ErrMisaligned, a.Free4K(f+8))
	require.Equal(t, ErrForeign, a.Free4K(8*mib))
	require.Equal(t, ErrForeign, a.Free4K(MaxPhys<<4))
	require.Equal(t, ErrForeign, a.Free4K(4096), "reserved")
	require.Equal(t, ErrDoubleFree, a.Free4K(2*mib))
	require.NoError(t, a.Free4K(f))
	require.Equal(t, ErrDoubleFree, a.Free4K(f))

	b, err := a.Alloc2M()
	require.NoError(t, err)
	require.Equal(t, uint64(64*mib), b, "high memory first")
	require.Equal(t, ErrMisaligned, a.Free2M(b+4096))
	require.Equal(t, ErrForeign, a.Free2M(0), "holds a reserved frame")
	require.NoError(t, a.Free4K(b+9*4096))
	require.Equal(t, ErrDoubleFree, a.Free2M(b))
	require.NoError(t, a.FreeContig(b, 9))
	require.NoError(t, a.FreeContig(b+10*4096, 502))
	require.Equal(t, ErrBadRange, a.FreeContig(b, 0))
	require.Equal(t, ErrBadRange, a.FreeContig(b, 1<<50))
	require.Equal(t, ErrForeign, a.FreeContig(b, 513))
	check(t, a)
}

func TestReserveRelease(t *testing.T) {
	a := newAllocator(t, Range{mib, 7 * mib})
	require.Equal(t, ErrBadRange, a.Reserve(Range{4096, 0}))
	require.NoError(t, a.Reserve(Range{0, 3*mib + 1}), "covers a hole too")
	require.NoError(t, a.Reserve(Range{2 * mib, mib}), "again")
	require.EqualValues(t, 513, a.Stats().Reserved)
	f, err := a.Alloc4K()
	require.NoError(t, err)
	require.Equal(t, uint64(3*mib+4096), f, "partial block first")
	require.Equal(t, ErrInUse, a.Reserve(Range{2 * mib, 2 * mib}))
	require.EqualValues(t, 513, a.Stats().Reserved, "nothing changed")
	require.Equal(t, ErrForeign, a.Release(Range{0, 2 * mib}), "not all RAM")
	require.Equal(t, ErrBadRange, a.Release(Range{2*mib + 1, 4096}), "no whole frame")
	require.NoError(t, a.Release(Range{2 * mib, 4 * mib}))
	require.EqualValues(t, 256, a.Stats().Reserved)
	require.EqualValues(t, 1, a.Stats().Allocated, "allocated frame stays so")
	require.Equal(t, ErrDoubleFree, a.Free4K(2*mib))
	check(t, a)
}

func TestAllocContig(t *testing.T) {
	a := newAllocator(t, Range{mib, 15 * mib}, Range{32 * mib, 2 * mib})
	_, err := a.AllocContig(0, 4096, 0)
	require.Equal(t, ErrBadRange, err)
	_, err = a.AllocContig(1, 2048, 0)
	require.Equal(t, ErrMisaligned, err)
	_, err = a.AllocContig(1, 3*4096, 0)
	require.Equal(t, ErrMisaligned, err)

	f, err := a.AllocContig(1000, 4096, 0) // longer than a block
	require.NoError(t, err)
	require.Equal(t, uint64(mib), f)
	g, err := a.AllocContig(3, 1<<16, 0)
	require.NoError(t, err)
	require.Equal(t, uint64(mib+1000*4096+0x8000), g)
	_, err = a.AllocContig(257, 4*mib, 9*mib)
	require.Equal(t, ErrNoMemory, err, "limit")
	h, err := a.AllocContig(257, 4*mib, 10*mib)
	require.NoError(t, err)
	require.Equal(t, uint64(8*mib), h)
	_, err = a.AllocContig(513, 32*mib, 0)
	require.Equal(t, ErrNoMemory, err, "runs past the end of memory")
	require.NoError(t, a.FreeContig(f, 1000))
	require.NoError(t, a.FreeContig(h, 257))
	check(t, a)
}

func TestKeepsBlocksWhole(t *testing.T) {
	a := newAllocator(t, Range{0, 64 * mib})
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	var held []uint64
	for range 20_000 {
		if len(held) < 1000 || len(held) < 2000 && r.IntN(2) == 0 {
			f, err := a.Alloc4K()
			require.NoError(t, err)
			held = append(held, f)
			continue
		}
		i := r.IntN(len(held))
		require.NoError(t, a.Free4K(held[i]))
		held[i] = held[len(held)-1]
		held = held[:len(held)-1]
	}
	// 2000 frames at the peak fit 4 blocks; none of the other 28 may be touched.
	require.GreaterOrEqual(t, a.Stats().FreeBlocks, uint64(28))
}

func TestCache(t *testing.T) {
	a := newAllocator(t, Range{0, mib})
	var c Cache
	_, ok := c.Get()
	require.False(t, ok)
	require.Equal(t, CacheSize/2, c.Refill(a))
	require.Equal(t, 0, c.Refill(a))
	seen := map[uint64]bool{}
	for range 256 {
		f, ok := c.Get()
		if !ok {
			require.NotZero(t, c.Refill(a))
			f, ok = c.Get()
		}
		require.True(t, ok)
		require.False(t, seen[f])
		seen[f] = true
	}
	require.Zero(t, c.Refill(a), "exhausted")
	for f := range seen {
		if !c.Put(f) {
			require.NoError(t, c.Drain(a, CacheSize/2))
			require.True(t, c.Put(f))
		}
	}
	require.NoError(t, c.Drain(a, -1))
	require.Zero(t, c.Len())
	require.EqualValues(t, 256, a.Stats().Free)

	f, err := a.Alloc4K()
	require.NoError(t, err)
	for _, x := range []uint64{4 * mib, f, f} {
		require.True(t, c.Put(x))
	}
	require.Equal(t, ErrForeign, c.Drain(a, 2))
	require.Equal(t, ErrDoubleFree, c.Drain(a, 0))
	check(t, a)
}

// TestHuge has the amounts of memory that the package promises.
func TestHuge(t *testing.T) {
	a := newAllocator(t, Range{0, 3 << 30}, Range{4 << 30, 253 << 30}, Range{1<<46 - 4*mib, 4 * mib})
	require.EqualValues(t, 256<<18+1024, a.Stats().Free)
	var n uint64
	for {
		if _, err := a.Alloc2M(); err != nil {
			break
		}
		n++
	}
	require.EqualValues(t, 256<<9+2, n)
}

func TestNothingAllocates(t *testing.T) {
	blocks := make([]Block, 1024)
	regions := []Range{{0, 0x9fc00}, {mib, 31 * mib}}
	var a Allocator
	var c Cache
	n := testing.AllocsPerRun(10, func() {
		need, _ := Needed(regions)
		a.Init(blocks[:need], regions)
		a.Reserve(Range{mib, mib})
		f, err := a.Alloc4K()
		if err == nil {
			err = a.Free4K(f)
		}
		b, _ := a.Alloc2M()
		a.Free2M(b)
		err = a.Free2M(b)
		g, _ := a.AllocContig(600, 1<<16, 0)
		a.FreeContig(g, 600)
		a.Release(Range{mib, mib})
		for range 1000 {
			f, ok := c.Get()
			if !ok {
				c.Refill(&a)
				continue
			}
			if !c.Put(f) {
				c.Drain(&a, 3)
			}
		}
		c.Drain(&a, 0)
		a.Stats()
		if err == nil {
			panic("double free unnoticed")
		}
	})
	require.Zero(t, n)
}

func BenchmarkAllocFree4K(b *testing.B) {
	a := newAllocator(b, Range{0, 1 << 30})
	for b.Loop() {
		f, _ := a.Alloc4K()
		a.Free4K(f)
	}
}

func BenchmarkAllocFree2M(b *testing.B) {
	a := newAllocator(b, Range{0, 1 << 30})
	for b.Loop() {
		f, _ := a.Alloc2M()
		a.Free2M(f)
	}
}

func BenchmarkCacheGetPut(b *testing.B) {
	a := newAllocator(b, Range{0, 1 << 30})
	var c Cache
	c.Refill(a)
	for b.Loop() {
		f, _ := c.Get()
		c.Put(f)
	}
}

// BenchmarkCacheBursts allocates and frees 1000 frames in turn, so that most
// batches go through the allocator; ns/op is for one allocation and one free.
func BenchmarkCacheBursts(b *testing.B) {
	a := newAllocator(b, Range{0, 1 << 30})
	var c Cache
	var held [1000]uint64
	for n := 0; n < b.N; n += len(held) {
		for i := range held {
			f, ok := c.Get()
			if !ok {
				c.Refill(a)
				f, _ = c.Get()
			}
			held[i] = f
		}
		for _, f := range held {
			if !c.Put(f) {
				c.Drain(a, CacheSize/2)
				c.Put(f)
			}
		}
	}
}

func BenchmarkInit256GiB(b *testing.B) {
	regions := []Range{{0, 3 << 30}, {4 << 30, 253 << 30}}
	n, _ := Needed(regions)
	blocks := make([]Block, n)
	var a Allocator
	for b.Loop() {
		a.Init(blocks, regions)
	}
}
