package frame

import (
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"dinos/kernel/linux"
)

// slices is a Source with the slices of a small shared memory.
type slices struct {
	mu    sync.Mutex
	avail []uint64
	total int
	given func() // called by Give
}

func (s *slices) Take() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.avail) == 0 {
		return 0, errors.New("none")
	}
	n := s.avail[0]
	s.avail = s.avail[1:]
	return n, nil
}

func (s *slices) Give(n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.given != nil {
		s.given()
	}
	s.avail = append(s.avail, n)
	if len(s.avail) > s.total {
		panic("more slices came back than there are")
	}
}

const base = 0xc0_0000_0000

func newPool(t testing.TB, n int, keep int) (*Pool, *slices) {
	src := &slices{total: n}
	for i := range n {
		src.avail = append(src.avail, uint64(i))
	}
	mem := aligned(n * SliceSize)
	p, err := New(Config{Memory: mem, Base: base, Source: src, Keep: keep})
	require.NoError(t, err)
	return p, src
}

// aligned is n bytes that start on a page border.
func aligned(n int) []byte {
	b := make([]byte, n+Size)
	for misaligned(b) {
		b = b[1:]
	}
	return b[:n:n]
}

func TestNewRefuses(t *testing.T) {
	src := &slices{}
	mem := aligned(2 * SliceSize)
	for _, c := range []Config{
		{Memory: nil, Source: src},
		{Memory: mem[:SliceSize+Size], Source: src},
		{Memory: mem[8 : SliceSize+8], Source: src},
		{Memory: mem, Base: 12, Source: src},
		{Memory: mem},
	} {
		_, err := New(c)
		require.Error(t, err)
	}
}

func TestExhaustion(t *testing.T) {
	p, src := newPool(t, 2, 1)
	seen := map[Frame]bool{}
	for {
		f, err := p.AllocZero()
		if err != nil {
			require.Equal(t, linux.ENOMEM, err)
			break
		}
		require.False(t, seen[f])
		require.NotEqual(t, None, f)
		seen[f] = true
		require.Equal(t, 1, p.Refs(f))
		require.Equal(t, f, p.FromPhys(p.Phys(f)))
		require.Equal(t, make([]byte, Size), p.Bytes(f))
		p.Bytes(f)[17] = 1
	}
	require.Len(t, seen, 2*PerSlice-1)
	require.Equal(t, Stats{Slices: 2, Used: 2*PerSlice - 1, Taken: 2}, p.Stats())
	for f := range seen {
		p.Ref(f)
		p.Unref(f)
		require.Equal(t, 1, p.Refs(f))
		p.Unref(f)
	}
	require.Equal(t, 0, p.Stats().Used)
	require.Equal(t, 0, p.Shrink(0))
	require.Len(t, src.avail, 2)
	require.Equal(t, None, p.FromPhys(base-1))
	require.Equal(t, None, p.FromPhys(base+2*SliceSize))
}

func TestMisuse(t *testing.T) {
	p, src := newPool(t, 3, 1)
	f, err := p.Alloc()
	require.NoError(t, err)
	p.Unref(f)
	require.Panics(t, func() { p.Unref(f) })
	require.Panics(t, func() { p.count(f).Store(0); p.Ref(f) })
	require.Panics(t, func() { p.Ref(None) })
	require.Panics(t, func() { p.Unref(2 * PerSlice) }, "not granted")
	require.Panics(t, func() { p.Refs(1 << 60) })
	require.True(t, p.Has(f))
	for _, g := range []Frame{None, 2 * PerSlice, 3 * PerSlice, 1 << 60} {
		require.False(t, p.Has(g))
	}
	// A source that gives nonsense.
	for _, n := range []uint64{0, 3, 1 << 62} {
		src.avail = []uint64{n}
		_, err := p.Alloc()
		for err == nil {
			_, err = p.Alloc()
		}
		require.Equal(t, linux.ENOMEM, err)
	}
}

func TestHysteresis(t *testing.T) {
	p, src := newPool(t, 12, 2)
	src.given = func() { // which may take a while: it must keep nobody waiting
		for i := range p.shards {
			require.True(t, p.shards[i].mu.TryLock())
			p.shards[i].mu.Unlock()
		}
		require.True(t, p.mu.TryLock())
		p.mu.Unlock()
	}
	var got []Frame
	for range 10 * PerSlice {
		f, err := p.Alloc()
		require.NoError(t, err)
		got = append(got, f)
	}
	require.Len(t, src.avail, 1)
	for _, f := range got {
		p.Unref(f)
	}
	// All that is cached is in one shard; more than 2*2 empty slices are never kept.
	require.LessOrEqual(t, p.Stats().Slices, 5)
	require.GreaterOrEqual(t, p.Stats().Slices, 2)
	taken := p.Stats().Taken
	for range 100 { // back and forth over the border of a slice asks nobody
		got = got[:0]
		for range PerSlice {
			f, err := p.Alloc()
			require.NoError(t, err)
			got = append(got, f)
		}
		for _, f := range got {
			p.Unref(f)
		}
	}
	require.Equal(t, taken, p.Stats().Taken)
	require.Equal(t, 1, p.Shrink(1))
	require.Len(t, src.avail, 11)
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, src := newPool(&testing.T{}, 3, 1)
		refs := map[Frame]int{}
		var order []Frame
		for range rapid.IntRange(1, 3000).Draw(t, "steps") {
			switch k := rapid.IntRange(0, 9).Draw(t, "op"); {
			case k < 5:
				n := rapid.IntRange(1, 60).Draw(t, "n")
				for range n {
					f, err := p.Alloc()
					if err != nil {
						if len(refs) != 3*PerSlice-1 {
							t.Fatalf("refused with %d used", len(refs))
						}
						break
					}
					if refs[f] != 0 {
						t.Fatalf("frame %d handed out twice", f)
					}
					refs[f] = 1
					order = append(order, f)
				}
			case k == 5 && len(order) > 0:
				f := order[rapid.IntRange(0, len(order)-1).Draw(t, "i")]
				p.Ref(f)
				refs[f]++
			case k == 6:
				p.Shrink(rapid.IntRange(0, 2).Draw(t, "keep"))
			case len(order) > 0:
				for range min(len(order), rapid.IntRange(1, 60).Draw(t, "n")) {
					i := rapid.IntRange(0, len(order)-1).Draw(t, "i")
					f := order[i]
					p.Unref(f)
					if refs[f]--; refs[f] == 0 {
						delete(refs, f)
						order[i] = order[len(order)-1]
						order = order[:len(order)-1]
					}
				}
			}
		}
		for f, n := range refs {
			if p.Refs(f) != n {
				t.Fatalf("frame %d has %d references, want %d", f, p.Refs(f), n)
			}
		}
		st := p.Stats()
		if st.Used != len(refs) || st.Slices+len(src.avail) != 3 {
			t.Fatalf("%+v with %d used and %d slices left", st, len(refs), len(src.avail))
		}
	})
}

func TestConcurrent(t *testing.T) {
	p, src := newPool(t, 8, 1)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var mine []Frame
			for i := range 20000 {
				if i%200 < 102 {
					f, err := p.Alloc()
					if err != nil {
						t.Error(err)
						return
					}
					p.Words(f)[3] = uint64(g)
					mine = append(mine, f)
				} else if len(mine) > 0 {
					f := mine[len(mine)-1]
					if p.Words(f)[3] != uint64(g) {
						t.Errorf("frame %d is used by two", f)
					}
					mine = mine[:len(mine)-1]
					p.Unref(f)
				}
				if i%5000 == 0 {
					p.Shrink(0)
				}
			}
			for _, f := range mine {
				p.Unref(f)
			}
		}()
	}
	wg.Wait()
	require.Equal(t, 0, p.Stats().Used)
	p.Shrink(0)
	require.Len(t, src.avail, 8)
}

func TestCopy(t *testing.T) {
	p, _ := newPool(t, 1, 1)
	a, _ := p.Alloc()
	b, _ := p.AllocZero()
	for i := range p.Words(a) {
		p.Words(a)[i] = uint64(i) * 0x0101010101010101
	}
	p.Copy(b, a)
	require.Equal(t, p.Bytes(a), p.Bytes(b))
	p.Zero(a)
	require.Equal(t, [Size / 8]uint64{}, *p.Words(a))
	require.Equal(t, uint32(5*0x01010101), p.Words32(b)[10])
}

func TestNothingAllocates(t *testing.T) {
	p, _ := newPool(t, 2, 1)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		f, err := p.AllocZero()
		if err != nil {
			panic(err)
		}
		p.Ref(f)
		p.Unref(f)
		p.Unref(f)
	}))
}

func BenchmarkAllocUnref(b *testing.B) {
	p, _ := newPool(b, 2, 1)
	for b.Loop() {
		f, _ := p.Alloc()
		p.Unref(f)
	}
}

func BenchmarkAllocUnrefParallel(b *testing.B) {
	p, _ := newPool(b, 4, 1)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			f, _ := p.Alloc()
			p.Unref(f)
		}
	})
}

func BenchmarkZero(b *testing.B) {
	p, _ := newPool(b, 1, 1)
	f, _ := p.Alloc()
	for b.Loop() {
		p.Zero(f)
	}
}

func BenchmarkZeroAtOnce(b *testing.B) {
	p, _ := newPool(b, 1, 1)
	f, _ := p.Alloc()
	for b.Loop() {
		clear(p.Bytes(f))
	}
}

func BenchmarkCopy(b *testing.B) {
	p, _ := newPool(b, 1, 1)
	f, _ := p.Alloc()
	g, _ := p.Alloc()
	for b.Loop() {
		p.Copy(g, f)
	}
}
