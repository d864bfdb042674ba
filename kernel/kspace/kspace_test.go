package kspace

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"dinos/kernel/mem"
	"dinos/kernel/paging"
)

const (
	base = uint64(0xffff_a000_0000_0000)
	size = uint64(64 << 20)
	ram  = 16 << 20
)

// hardware is a machine whose memory is a slice: frames have contents, and a translation cache remembers what was read until
// it is flushed.
type hardware struct {
	tables []paging.Table
	frames mem.Allocator
	pt     paging.Space
	tlb    map[uint64]uint64 // page → frame
	clears int
}

func (h *hardware) Clear(pa uint64) {
	h.tables[pa/mem.FrameSize] = paging.Table{}
	h.clears++
}

func (h *hardware) Flush(f paging.Flush) {
	for p := range f.Pages {
		delete(h.tlb, f.Start+p*mem.FrameSize)
	}
}

func (h *hardware) AllocTable() (uint64, bool) {
	f, err := h.frames.Alloc4K()
	return f, err == nil
}

func (h *hardware) FreeTable(pa uint64) { h.frames.Free4K(pa) }

func setUp(t require.TestingT, bytes uint64) (*Space, *hardware) {
	h := &hardware{tables: make([]paging.Table, bytes/mem.FrameSize), tlb: map[uint64]uint64{}}
	n, err := mem.Needed([]mem.Range{{Start: 0, Size: bytes}})
	require.NoError(t, err)
	require.NoError(t, h.frames.Init(make([]mem.Block, n), []mem.Range{{Start: 0, Size: bytes}}))
	require.NoError(t, h.frames.Reserve(mem.Range{Start: 0, Size: mem.FrameSize}))
	require.NoError(t, h.pt.Init(paging.Window{Tables: h.tables}, h))
	h.pt.Reclaim = paging.ReclaimNone
	s := new(Space)
	s.Init(base, base+size, &h.pt, &h.frames, h)
	return s, h
}

// word returns the first word of the page at va as a CPU sees it, through its translation cache; nil if there is no access.
func (h *hardware) word(va uint64, write bool) *uint64 {
	pa, ok := h.tlb[va]
	if !ok || write {
		l, err := h.pt.Lookup(va)
		if err != nil || l.Attr&paging.Present == 0 || write && l.Attr&paging.Writable == 0 {
			return nil
		}
		if !ok {
			pa = l.PA + (va - l.VA)
			h.tlb[va] = pa
		}
	}
	return &h.tables[pa/mem.FrameSize][0]
}

// access touches va like the runtime does: on a fault the Space is asked, once.
func access(s *Space, h *hardware, va uint64, write bool) (*uint64, error) {
	if w := h.word(va, write); w != nil {
		return w, nil
	}
	if err := s.Fault(va+17, write); err != nil {
		return nil, err
	}
	return h.word(va, write), nil
}

// TestModel runs random calls beside a map from page to state and value.
func TestModel(t *testing.T) {
	type page struct {
		st    State
		value uint64
	}
	rapid.Check(t, func(t *rapid.T) {
		s, h := setUp(t, ram)
		pages := map[uint64]page{}
		pick := func() (va, n uint64) {
			va = base + rapid.Uint64Range(0, 300).Draw(t, "page")*mem.FrameSize
			return va, rapid.Uint64Range(1, 40).Draw(t, "pages") * mem.FrameSize
		}
		state := rapid.SampledFrom([]State{Unused, Reserved, ReadOnly, ReadWrite})
		t.Repeat(map[string]func(*rapid.T){
			"change": func(t *rapid.T) {
				va, n := pick()
				st := state.Draw(t, "state")
				require.NoError(t, s.Change(va, n, st))
				for p := va; p < va+n; p += mem.FrameSize {
					pages[p] = page{st: st}
				}
			},
			"reserve": func(t *rapid.T) {
				n := rapid.Uint64Range(1, 100_000).Draw(t, "bytes")
				va, err := s.Reserve(n, ReadWrite)
				if err != nil {
					require.Equal(t, ErrExhausted, err)
					return
				}
				for p := va; p < va+n; p += mem.FrameSize {
					require.Equal(t, Unused, pages[p].st, "%#x is in use", p)
					pages[p] = page{st: ReadWrite}
				}
			},
			"discard": func(t *rapid.T) {
				va, n := pick()
				require.NoError(t, s.Discard(va, n))
				for p := va; p < va+n; p += mem.FrameSize {
					pages[p] = page{st: pages[p].st}
				}
			},
			"protect": func(t *rapid.T) {
				va, n := pick()
				st := rapid.SampledFrom([]State{Reserved, ReadOnly, ReadWrite}).Draw(t, "state")
				whole := true
				for p := va; p < va+n; p += mem.FrameSize {
					whole = whole && pages[p].st != Unused
				}
				err := s.Protect(va, n, st)
				if !whole {
					require.Equal(t, ErrUnmapped, err)
					return
				}
				require.NoError(t, err)
				for p := va; p < va+n; p += mem.FrameSize {
					pages[p] = page{st, pages[p].value}
				}
			},
			"access": func(t *rapid.T) {
				va, _ := pick()
				write := rapid.Bool().Draw(t, "write")
				want := pages[va]
				w, err := access(s, h, va, write)
				switch {
				case want.st == Unused || want.st == Reserved:
					require.Equal(t, ErrUnmapped, err)
				case want.st == ReadOnly && write:
					require.Equal(t, ErrReadOnly, err)
				default:
					require.NoError(t, err)
					require.NotNil(t, w)
					require.Equal(t, want.value, *w, "contents of %#x", va)
					if write {
						*w = rapid.Uint64().Draw(t, "value")
						pages[va] = page{want.st, *w}
					}
				}
			},
			"": func(t *rapid.T) {
				var reserved, committed uint64
				for _, p := range pages {
					switch p.st {
					case Reserved:
						reserved += mem.FrameSize
					case ReadOnly, ReadWrite:
						committed += mem.FrameSize
					}
				}
				st := s.Stats()
				require.Equal(t, reserved, st.Reserved)
				require.Equal(t, committed, st.Committed)
				for i := range s.n {
					a := s.areas[i]
					require.Less(t, a.start, a.end)
					if i > 0 {
						b := s.areas[i-1]
						require.LessOrEqual(t, b.end, a.start)
						require.False(t, b.end == a.start && b.state == a.state, "areas %d and %d should be one", i-1, i)
					}
				}
			},
		})
		// Everything comes back.
		require.NoError(t, s.Change(base, size, Unused))
		require.Zero(t, s.Stats().Resident)
	})
}

// With memory exhausted a fault fails, the rest goes on, and memory that is given back can be used again.
func TestOutOfMemory(t *testing.T) {
	s, h := setUp(t, 2<<20)
	va, err := s.Reserve(4<<20, ReadWrite)
	require.NoError(t, err)
	n := uint64(0)
	for ; n < 4<<20; n += mem.FrameSize {
		w, err := access(s, h, va+n, true)
		if err != nil {
			require.Equal(t, ErrNoMemory, err)
			break
		}
		*w = n
	}
	require.Greater(t, n, uint64(1<<20))
	require.Less(t, n, uint64(2<<20))
	require.Equal(t, n, s.Stats().Resident, "no frame is lost around the failure")
	require.NoError(t, s.Discard(va, Around))
	w, err := access(s, h, va+n, true)
	require.NoError(t, err)
	require.Zero(t, *w, "a frame that was used before")
}

func TestBadRanges(t *testing.T) {
	s, _ := setUp(t, 4<<20)
	for _, r := range [][2]uint64{
		{base, 0}, {base + 1, 4096}, {base - 4096, 4096}, {base + size, 4096}, {base, size + 1}, {base, ^uint64(0)},
		{base + 4096, ^uint64(0) - 100}, {0, 4096}, {^uint64(4095), 8192},
	} {
		require.Equal(t, ErrBadRange, s.Change(r[0], r[1], ReadWrite), "%#x", r)
		require.Equal(t, ErrBadRange, s.Discard(r[0], r[1]), "%#x", r)
		require.Equal(t, ErrBadRange, s.Protect(r[0], r[1], ReadOnly), "%#x", r)
	}
	_, err := s.Reserve(0, Reserved)
	require.Equal(t, ErrBadRange, err)
	_, err = s.Reserve(^uint64(0), Reserved)
	require.Equal(t, ErrBadRange, err)
	_, err = s.Reserve(size+4096, Reserved)
	require.Equal(t, ErrExhausted, err)
	require.Equal(t, ErrUnmapped, s.Fault(base, false))
}

// The table of areas is bounded; what does not fit is refused and changes nothing.
func TestTooManyAreas(t *testing.T) {
	s, _ := setUp(t, 4<<20)
	var err error
	i := uint64(0)
	for ; err == nil; i++ {
		err = s.Change(base+2*i*mem.FrameSize, mem.FrameSize, ReadWrite)
	}
	require.Equal(t, ErrExhausted, err)
	require.Greater(t, i, uint64(MaxAreas-4))
	require.Equal(t, ErrUnmapped, s.Fault(base+2*(i-1)*mem.FrameSize, false))
}

// Kernel code must not allocate.
func TestNoAllocation(t *testing.T) {
	s, _ := setUp(t, 8<<20)
	va, err := s.Reserve(1<<20, ReadWrite)
	require.NoError(t, err)
	require.Zero(t, testing.AllocsPerRun(50, func() {
		s.Fault(va, true)
		s.Protect(va, Around, ReadOnly)
		s.Discard(va, Around)
		s.Change(va, Around, Reserved)
		s.Change(va, Around, ReadWrite)
	}))
}
