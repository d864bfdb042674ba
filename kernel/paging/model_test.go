package paging

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// translation is what a processor makes of an address: the page's frame, and
// the rights combined over all levels. It is what a TLB holds.
type translation struct {
	pa      uint64
	w, u, x bool
	memory  Attr
}

// translate walks the tables as SDM §4.5 and §4.6 describe, without any code of the
// package, and sets Accessed and Dirty as a processor does.
func (m *slab) translate(cr3, va uint64, store bool) (tr translation, ok bool) {
	tr = translation{w: true, u: true, x: true}
	phys := cr3
	for shift := 39; ; shift -= 9 {
		require.True(m.t, m.live[phys], "walk through %#x, not allocated", phys)
		e := &m.tables[(phys-slabBase)/0x1000][va>>shift&511]
		if *e&1 == 0 {
			return translation{}, false
		}
		tr.w = tr.w && *e>>1&1 == 1
		tr.u = tr.u && *e>>2&1 == 1
		tr.x = tr.x && *e>>63 == 0
		*e |= 1 << 5
		phys = *e & 0x000ffffffffff000
		large := *e>>7&1 == 1 && shift > 12
		if !large && shift > 12 {
			require.Less(m.t, shift, 40)
			continue
		}
		if store && tr.w {
			*e |= 1 << 6
		}
		pat := *e >> 7 & 1
		if large {
			require.LessOrEqual(m.t, shift, 30, "no leaf in a PML4")
			pat = *e >> 12 & 1
			phys &^= 1 << 12
		}
		size := uint64(1) << shift
		require.Zero(m.t, phys%size, "misaligned leaf")
		tr.memory = Attr(*e)&(WriteThrough|CacheDisable|Global) | Attr(pat)<<7
		tr.pa = phys + va%size&^0xfff
		return tr, true
	}
}

// want is the translation that a leaf with attributes a at pa must give.
func want(va, pa uint64, a Attr) (translation, bool) {
	if a&Present == 0 {
		return translation{}, false
	}
	return translation{
		pa: pa, w: a&Writable != 0, u: a&User != 0 && va>>63 == 0, x: a&NoExecute == 0,
		memory: a & (Uncached | PAT | Global),
	}, true
}

// harmless tells whether c, when cached, does only what the present translation does.
func (c translation) harmless(t translation, ok bool) bool {
	return ok && c.pa == t.pa && c.memory == t.memory && (t.w || !c.w) && (t.u || !c.u) && (t.x || !c.x)
}

// segment of the model: [va, va+n) maps to pa.
type segment struct {
	va, n, pa uint64
	attr      Attr
}

// model is a list of disjoint segments. It works on last addresses, since the
// last page of all ends at 2^64.
type model []segment

func (s segment) overlaps(va, n uint64) bool { return s.va <= va+n-1 && va <= s.va+s.n-1 }

// cut removes [va, va+n) and returns the pieces removed.
func (m *model) cut(va, n uint64) (removed []segment) {
	var kept model
	for _, s := range *m {
		if !s.overlaps(va, n) {
			kept = append(kept, s)
			continue
		}
		first, last := max(s.va, va), min(s.va+s.n-1, va+n-1)
		if s.va < first {
			kept = append(kept, segment{s.va, first - s.va, s.pa, s.attr})
		}
		removed = append(removed, segment{first, last - first + 1, s.pa + first - s.va, s.attr})
		if end := s.va + s.n - 1; last < end {
			kept = append(kept, segment{last + 1, end - last, s.pa + last + 1 - s.va, s.attr})
		}
	}
	*m = kept
	return removed
}

func (m model) find(va uint64) (segment, bool) {
	for _, s := range m {
		if s.overlaps(va, 1) {
			return s, true
		}
	}
	return segment{}, false
}

// joined returns the segments sorted, adjacent ones that continue each other as
// one, without the bits that the processor or Merge may set.
func joined(segs []segment) (out []segment) {
	segs = slices.Clone(segs)
	slices.SortFunc(segs, func(a, b segment) int {
		if a.va < b.va {
			return -1
		}
		return 1
	})
	for _, s := range segs {
		s.attr &^= Accessed | Dirty
		if k := len(out) - 1; k >= 0 {
			if p := &out[k]; p.va+p.n == s.va && p.va>>63 == s.va>>63 && p.pa+p.n == s.pa && p.attr == s.attr {
				p.n += s.n
				continue
			}
		}
		out = append(out, s)
	}
	return out
}

// asSegment drops what the model does not know, the sizes of leaves.
func asSegment(l Leaf) segment { return segment{l.VA, l.Size, l.PA, l.Attr} }

// machine is a Space under test with its model and the TLB of one processor.
type machine struct {
	m     *slab
	s     *Space
	model model
	tlb   map[uint64]translation
	todo  Flush // owed to the processor
}

// run does an operation that may fail for want of memory, in which case nothing
// may have changed. Its flush is added to what is owed.
func (x *machine) run(t *rapid.T, op func() (Flush, error)) (Flush, error) {
	before, live := leaves(t, x.s), len(x.m.live)
	f, err := op()
	if err != nil {
		require.Equal(t, before, leaves(t, x.s))
		require.Len(t, x.m.live, live)
		require.Zero(t, f)
		return f, err
	}
	require.True(t, f.Pages != 0 || f.tables.head == 0, "tables to release, but nothing to flush")
	n := x.todo.Leaves
	x.s.Add(&x.todo, f)
	require.Equal(t, n+f.Leaves, x.todo.Leaves)
	if rapid.Bool().Draw(t, "flush") {
		for va := range x.tlb {
			if x.owed(va) {
				delete(x.tlb, va)
			}
		}
		x.s.Release(&x.todo)
		require.Zero(t, x.todo)
	}
	return f, nil
}

// owed tells whether va is still to be flushed.
func (x *machine) owed(va uint64) bool { return (va-x.todo.Start)/Size4K < x.todo.Pages }

// check compares everything that can be observed.
func (x *machine) check(t *rapid.T) {
	var segs []segment
	for _, l := range leaves(t, x.s) {
		segs = append(segs, asSegment(l))
	}
	require.Equal(t, joined(x.model), joined(segs))
	held := 0
	for l := x.todo.tables.head; l != 0; held++ {
		l = x.m.tables[(l&^link-slabBase)/Size4K][0]
	}
	require.Equal(t, x.reachable(x.s.Root(), 4, false)+held, len(x.m.live), "tables leaked")
	for va, c := range x.tlb {
		if x.owed(va) {
			continue
		}
		s, _ := x.model.find(va)
		now, ok := want(va, s.pa+va-s.va, s.attr)
		require.True(t, c.harmless(now, ok), "stale translation of %#x: %+v, now %+v", va, c, now)
	}
}

// reachable counts the tables of the tree, and checks that none is empty when all
// should be reclaimed, but for those that keep, the ones shared between spaces.
func (x *machine) reachable(phys uint64, level int, keep bool) int {
	n, used := 1, level == 4 || keep || x.s.Reclaim != ReclaimAll
	for i, e := range x.m.tables[(phys-slabBase)/Size4K] {
		used = used || e != 0
		if level > 1 && e&0x81 == 1 {
			n += x.reachable(e&0x000ffffffffff000, level-1, level == 4 && i >= 256)
		}
	}
	require.True(x.m.t, used, "empty table left")
	return n
}

// runModel draws a series of operations and compares their effects with the model's.
func runModel(t *rapid.T) {
	m := newSlab(t, rapid.IntRange(6, 60).Draw(t, "frames"))
	x := &machine{m: m, s: new(Space), tlb: map[uint64]translation{}}
	require.NoError(t, x.s.Init(m.window(), m))
	x.s.Reclaim = rapid.SampledFrom([]Reclaim{ReclaimAll, ReclaimUser, ReclaimNone}).Draw(t, "reclaim")

	// A few places, so that ranges meet: around 0, the ends of the halves, 2^64.
	size := rapid.SampledFrom([]uint64{Size4K, Size2M, Size1G})
	base := rapid.SampledFrom([]uint64{0, Size1G, 1<<39 - Size1G, 1<<47 - 2*Size1G,
		0xffff8000_00000000, 0xffffffff_80000000})
	blocks := rapid.OneOf(rapid.Uint64Range(0, 3), rapid.Uint64Range(510, 514))
	pages := rapid.SampledFrom([]uint64{0, 0, 1, 2, 5, 510, 511})
	offset := func(label string) uint64 {
		return blocks.Draw(t, label)*Size2M + pages.Draw(t, label+" pages")*Size4K
	}
	place := func(label string) (va, n uint64) {
		if k := rapid.IntRange(0, 11).Draw(t, label+" known"); k < len(x.model) {
			return x.model[k].va, x.model[k].n
		}
		start, end := offset(label+" start"), offset(label+" end")
		if end < start {
			start, end = end, start
		}
		n = max(end-start, Size4K)
		if rapid.IntRange(0, 3).Draw(t, label+" huge") == 0 {
			start, n = start&^(Size1G-1), Size1G
		}
		return base.Draw(t, label+" base") + start, n
	}
	attr := rapid.Custom(func(t *rapid.T) Attr {
		return Attr(rapid.Uint64().Draw(t, "attr")) & allAttr &^ (Accessed | Dirty)
	})

	t.Repeat(map[string]func(*rapid.T){
		"": x.check,
		"Map": func(t *rapid.T) {
			va, n := place("map")
			largest := size.Draw(t, "largest")
			pa := va&(8*Size1G-1) + rapid.SampledFrom([]uint64{0, Size4K, Size2M, Size1G}).Draw(t, "shift")
			if n/Size4K > 2000 && (largest < Size2M || pa%Size2M != va%Size2M) {
				return // a slab cannot hold the tables, and a test the leaves
			}
			a := attr.Draw(t, "attr")
			mapped := slices.ContainsFunc(x.model, func(s segment) bool { return s.overlaps(va, n) })
			_, err := x.run(t, func() (Flush, error) { return Flush{}, x.s.Map(va, pa, n, a, largest) })
			if mapped {
				require.Equal(t, ErrMapped, err)
			} else if err == nil {
				x.model = append(x.model, segment{va, n, pa, a})
				require.NoError(t, x.s.Walk(va, n, func(l Leaf) bool {
					require.LessOrEqual(t, l.Size, largest)
					return true
				}))
			} else {
				require.Equal(t, ErrNoMemory, err)
			}
		},
		"Unmap": func(t *rapid.T) {
			va, n := place("unmap")
			var seen []segment
			f, err := x.run(t, func() (Flush, error) {
				return x.s.Unmap(va, n, func(l Leaf) { seen = append(seen, asSegment(l)) })
			})
			if err != nil {
				require.Equal(t, ErrNoMemory, err)
				return
			}
			require.Equal(t, len(seen), f.Leaves)
			require.Equal(t, joined(x.model.cut(va, n)), joined(seen))
		},
		"Protect": func(t *rapid.T) {
			va, n := place("protect")
			set, clear := attr.Draw(t, "set"), attr.Draw(t, "clear")
			_, err := x.run(t, func() (Flush, error) { return x.s.Protect(va, n, set, clear) })
			if err != nil {
				require.Equal(t, ErrNoMemory, err)
				return
			}
			for _, s := range x.model.cut(va, n) {
				s.attr = s.attr&^clear | set
				x.model = append(x.model, s)
			}
		},
		"Split": func(t *rapid.T) {
			va, _ := place("split")
			to := rapid.SampledFrom([]uint64{Size4K, Size2M}).Draw(t, "to")
			_, err := x.run(t, func() (Flush, error) { return x.s.Split(va, to) })
			if _, ok := x.model.find(va); !ok {
				require.Equal(t, ErrNotMapped, err)
			} else if err == nil {
				l, err := x.s.Lookup(va)
				require.NoError(t, err)
				require.LessOrEqual(t, l.Size, to)
			} else {
				require.Equal(t, ErrNoMemory, err)
			}
		},
		"Merge": func(t *rapid.T) {
			va, _ := place("merge")
			to := rapid.SampledFrom([]uint64{Size2M, Size1G}).Draw(t, "to")
			_, err := x.run(t, func() (Flush, error) { return x.s.Merge(va, to) })
			if err == nil {
				l, err := x.s.Lookup(va)
				require.NoError(t, err)
				require.Equal(t, to, l.Size)
			}
		},
		"Access": func(t *rapid.T) {
			va, n := place("access")
			va += rapid.Uint64Range(0, n/Size4K-1).Draw(t, "page") * Size4K
			store := rapid.Bool().Draw(t, "store")
			got, ok := m.translate(x.s.Root(), va, store)
			s, mapped := x.model.find(va)
			exp, present := want(va, s.pa+va-s.va, s.attr)
			require.Equal(t, mapped && present, ok)
			require.Equal(t, exp, got)
			l, err := x.s.Lookup(va + 5)
			require.Equal(t, mapped, err == nil)
			if ok {
				x.tlb[va] = got
				require.NotZero(t, l.Attr&Accessed)
				require.Equal(t, store && got.w, store && got.w && l.Attr&Dirty != 0)
			}
			if mapped {
				require.Equal(t, s.pa+va-s.va, l.PA+va-l.VA)
			}
		},
	})
}

func TestModel(t *testing.T) { rapid.Check(t, runModel) }

func FuzzModel(f *testing.F) { f.Fuzz(rapid.MakeFuzz(runModel)) }
