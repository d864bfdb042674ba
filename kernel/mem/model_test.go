package mem

import (
	"math/bits"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// check verifies the invariants between bitmaps, counts and lists.
func check(t require.TestingT, a *Allocator) {
	if h, ok := t.(interface{ Helper() }); ok {
		h.Helper()
	}
	var free, usable, whole uint64
	where := make(map[uint32]uint8)
	for list, i := range a.heads {
		prev := none
		for i != none {
			b := &a.blocks[i]
			require.Equal(t, prev, b.prev)
			require.EqualValues(t, list, b.list)
			_, dup := where[i]
			require.False(t, dup)
			where[i] = uint8(list)
			prev, i = i, b.next
		}
	}
	for i := range a.blocks {
		b := &a.blocks[i]
		n := 0
		for w := range words {
			// Only when it fails: require is slow.
			if b.free[w]&^b.usable[w] != 0 || (b.free[w] != 0) != (b.sum>>w&1 == 1) {
				require.Failf(t, "bitmaps disagree", "block %d: %+v", i, *b)
			}
			n += bits.OnesCount64(b.free[w])
			usable += uint64(bits.OnesCount64(b.usable[w]))
		}
		require.EqualValues(t, n, b.nfree)
		free += uint64(n)
		want := uint8(listPartial)
		switch n {
		case 0:
			want = listNone
		case framesPerBlock:
			want = listWhole
			whole++
		}
		require.Equal(t, want, b.list)
		_, listed := where[uint32(i)]
		require.Equal(t, want != listNone, listed)
		j, ok := a.index(uint64(b.number))
		require.True(t, ok)
		require.EqualValues(t, i, j)
	}
	require.Equal(t, free, a.nfree)
	require.Equal(t, usable, a.usable)
	require.Equal(t, whole, a.nwhole)
}

// state of a frame in the model.
const (
	absent = iota
	reserved
	isFree
	taken
)

// model is the allocator as an array with one state a frame.
type model struct {
	ram    []bool
	frames []uint8
}

// sector is the unit of the ends of regions in the model test.
const sector = 512

func newModel(size uint64, regions []Range) *model {
	ram := make([]bool, size/sector)
	for _, r := range regions {
		for i := range r.Size / sector {
			ram[r.Start/sector+i] = true
		}
	}
	m := &model{frames: make([]uint8, size/FrameSize), ram: make([]bool, size/FrameSize)}
	for f := range m.frames {
		const n = FrameSize / sector
		m.ram[f] = !slices.Contains(ram[f*n:(f+1)*n], false)
		if m.ram[f] {
			m.frames[f] = isFree
		}
	}
	return m
}

func (m *model) count(state uint8) (n uint64) {
	for _, s := range m.frames {
		if s == state {
			n++
		}
	}
	return n
}

// at returns the state of a frame, absent beyond the end.
func (m *model) at(f uint64) uint8 {
	if f >= uint64(len(m.frames)) {
		return absent
	}
	return m.frames[f]
}

func (m *model) wholeBlocks() (n uint64) {
	for b := 0; b+framesPerBlock <= len(m.frames); b += framesPerBlock {
		if m.all(uint64(b), framesPerBlock, isFree) {
			n++
		}
	}
	return n
}

func (m *model) all(f, n uint64, state uint8) bool {
	for i := range n {
		if m.at(f+i) != state {
			return false
		}
	}
	return true
}

func (m *model) set(f, n uint64, from, to uint8) {
	for i := f; i < min(f+n, uint64(len(m.frames))); i++ {
		if m.frames[i] == from {
			m.frames[i] = to
		}
	}
}

// free returns what freeing n frames must say, and does it if that is nil.
func (m *model) free(f, n uint64) error {
	double := false
	for i := range n {
		switch m.at(f + i) {
		case absent, reserved:
			return ErrForeign
		case isFree:
			double = true
		}
	}
	if double {
		return ErrDoubleFree
	}
	m.set(f, n, taken, isFree)
	return nil
}

// contig returns the lowest fit.
func (m *model) contig(n, step, limit uint64) (uint64, bool) {
	for f := uint64(0); f+n <= min(limit, uint64(len(m.frames))); f += step {
		if m.all(f, n, isFree) {
			return f, true
		}
	}
	return 0, false
}

// runModel draws regions and a series of calls and compares every answer.
func runModel(t *rapid.T) {
	const size = 10 * mib
	drawRange := func(label string) Range {
		start := rapid.Uint64Range(0, size/sector-1).Draw(t, label)
		n := rapid.Uint64Range(1, size/sector-start).Draw(t, label+" size")
		return Range{start * sector, n * sector}
	}
	var regions []Range
	for range rapid.IntRange(1, 4).Draw(t, "regions") {
		regions = append(regions, drawRange("region"))
	}
	m := newModel(size, regions)
	need, err := Needed(regions)
	require.NoError(t, err)
	a := new(Allocator)
	require.NoError(t, a.Init(make([]Block, need), regions))
	anyFrame := rapid.Uint64Range(0, size/FrameSize+600)
	count := rapid.OneOf(rapid.Uint64Range(1, 8), rapid.Uint64Range(1, 1200))

	t.Repeat(map[string]func(*rapid.T){
		"": func(t *rapid.T) {
			check(t, a)
			require.Equal(t, Stats{
				Total:      m.count(reserved) + m.count(isFree) + m.count(taken),
				Reserved:   m.count(reserved),
				Allocated:  m.count(taken),
				Free:       m.count(isFree),
				FreeBlocks: m.wholeBlocks(),
			}, a.Stats())
		},
		"Alloc4K": func(t *rapid.T) {
			whole := m.wholeBlocks()
			f, err := a.Alloc4K()
			if m.count(isFree) == 0 {
				require.Equal(t, ErrNoMemory, err)
				return
			}
			require.NoError(t, err)
			require.EqualValues(t, isFree, m.at(f/FrameSize))
			partial := m.count(isFree) > whole*framesPerBlock
			m.set(f/FrameSize, 1, isFree, taken)
			if partial {
				require.Equal(t, whole, m.wholeBlocks(), "broke a whole block")
			}
		},
		"AllocBatch": func(t *rapid.T) {
			out := make([]uint64, rapid.IntRange(0, 1500).Draw(t, "n"))
			n := a.AllocBatch(out)
			require.EqualValues(t, min(uint64(len(out)), m.count(isFree)), n)
			for _, f := range out[:n] {
				require.EqualValues(t, isFree, m.at(f/FrameSize))
				m.set(f/FrameSize, 1, isFree, taken)
			}
		},
		"Alloc2M": func(t *rapid.T) {
			f, err := a.Alloc2M()
			if m.wholeBlocks() == 0 {
				require.Equal(t, ErrNoMemory, err)
				return
			}
			require.NoError(t, err)
			require.Zero(t, f%BlockSize)
			require.True(t, m.all(f/FrameSize, framesPerBlock, isFree))
			m.set(f/FrameSize, framesPerBlock, isFree, taken)
		},
		"AllocContig": func(t *rapid.T) {
			n := count.Draw(t, "n")
			step := uint64(1) << rapid.IntRange(0, 10).Draw(t, "align")
			below := rapid.OneOf(rapid.Just(uint64(0)), rapid.Uint64Range(0, size+mib)).Draw(t, "below")
			limit := below / FrameSize
			if below == 0 {
				limit = size
			}
			f, err := a.AllocContig(n, step*FrameSize, below)
			want, ok := m.contig(n, step, limit)
			if !ok {
				require.Equal(t, ErrNoMemory, err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, want*FrameSize, f)
			m.set(want, n, isFree, taken)
		},
		"Free4K": func(t *rapid.T) {
			f := anyFrame.Draw(t, "f")
			require.Equal(t, m.free(f, 1), a.Free4K(f*FrameSize))
		},
		"Free2M": func(t *rapid.T) {
			b := rapid.Uint64Range(0, size/BlockSize).Draw(t, "b")
			require.Equal(t, m.free(b*framesPerBlock, framesPerBlock), a.Free2M(b*BlockSize))
		},
		"FreeContig": func(t *rapid.T) {
			f, n := anyFrame.Draw(t, "f"), count.Draw(t, "n")
			require.Equal(t, m.free(f, n), a.FreeContig(f*FrameSize, n))
		},
		"FreeTaken": func(t *rapid.T) { // a run that is allocated, so that frees succeed often
			f := anyFrame.Draw(t, "f")
			for m.at(f) != taken {
				if f++; f >= uint64(len(m.frames)) {
					return
				}
			}
			n, most := uint64(1), count.Draw(t, "n")
			for n < most && m.at(f+n) == taken {
				n++
			}
			require.NoError(t, m.free(f, n))
			require.NoError(t, a.FreeContig(f*FrameSize, n))
		},
		"Reserve": func(t *rapid.T) {
			r := drawRange("reserve")
			start, end := r.Start/FrameSize, (r.Start+r.Size+FrameSize-1)/FrameSize
			for f := start; f < end; f++ {
				if m.at(f) == taken {
					require.Equal(t, ErrInUse, a.Reserve(r))
					return
				}
			}
			require.NoError(t, a.Reserve(r))
			m.set(start, end-start, isFree, reserved)
		},
		"Release": func(t *rapid.T) {
			r := drawRange("release")
			start, end := (r.Start+FrameSize-1)/FrameSize, (r.Start+r.Size)/FrameSize
			if start >= end {
				require.Equal(t, ErrBadRange, a.Release(r))
				return
			}
			for f := start; f < end; f++ {
				if !m.ram[f] {
					require.Equal(t, ErrForeign, a.Release(r))
					return
				}
			}
			require.NoError(t, a.Release(r))
			m.set(start, end-start, reserved, isFree)
		},
	})
}

func TestModel(t *testing.T) { rapid.Check(t, runModel) }

func FuzzModel(f *testing.F) { f.Fuzz(rapid.MakeFuzz(runModel)) }
