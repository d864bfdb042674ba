package tmpfs

import (
	"sync/atomic"

	"dinos/dkernel/frame"
)

// leafPages is how many pages a leaf has, nearLeaves how many leaves are found through a slice. Those beyond, of files that are
// larger than 16 GiB or have data far out, are in a map, so that a byte at the end of 8 EiB costs no memory to speak of.
const (
	leafBits   = 6
	leafPages  = 1 << leafBits
	nearLeaves = 1 << 16
)

// leaf has pages next to each other. A frame in it is referenced by the file.
type leaf struct {
	pages [leafPages]atomic.Uint64 // frame.Frame
	used  int                      // guarded by pageTree's owner's lock
}

// pageTree is the pages of a file. Changes need the owner's lock; get may run beside additions, not beside removals.
type pageTree struct {
	near atomic.Pointer[[]atomic.Pointer[leaf]]
	far  atomic.Pointer[map[int64]*leaf] // copied on write
	n    atomic.Int64                    // pages
}

func (t *pageTree) leaf(l int64) *leaf {
	if l < nearLeaves {
		if s := t.near.Load(); s != nil && l < int64(len(*s)) {
			return (*s)[l].Load()
		}
		return nil
	}
	if m := t.far.Load(); m != nil {
		return (*m)[l]
	}
	return nil
}

// get is the frame of page i, or frame.None.
func (t *pageTree) get(i int64) frame.Frame {
	if p := t.leaf(i >> leafBits); p != nil {
		return frame.Frame(p.pages[i&(leafPages-1)].Load())
	}
	return frame.None
}

// put sets page i, which is not there.
func (t *pageTree) put(i int64, f frame.Frame) {
	l := i >> leafBits
	p := t.leaf(l)
	if p == nil {
		p = &leaf{}
		t.setLeaf(l, p)
	}
	p.pages[i&(leafPages-1)].Store(uint64(f))
	p.used++
	t.n.Add(1)
}

func (t *pageTree) setLeaf(l int64, p *leaf) {
	if l >= nearLeaves {
		n := map[int64]*leaf{}
		if m := t.far.Load(); m != nil {
			for k, v := range *m {
				n[k] = v
			}
		}
		n[l] = p
		if p == nil {
			delete(n, l)
		}
		t.far.Store(&n)
		return
	}
	s := t.near.Load()
	if s == nil || l >= int64(len(*s)) {
		size := int64(1)
		if s != nil {
			size = int64(len(*s))
		}
		for size <= l {
			size *= 2
		}
		n := make([]atomic.Pointer[leaf], size)
		if s != nil {
			for i := range *s {
				n[i].Store((*s)[i].Load())
			}
		}
		t.near.Store(&n)
		s = &n
	}
	(*s)[l].Store(p)
}

// remove takes out the pages [first, last] and gives each to drop.
func (t *pageTree) remove(first, last int64, drop func(frame.Frame)) {
	cut := func(l int64, p *leaf) {
		from, to := max(first-l<<leafBits, 0), min(last-l<<leafBits, leafPages-1)
		for i := from; i <= to; i++ {
			if f := frame.Frame(p.pages[i].Load()); f != frame.None {
				p.pages[i].Store(0)
				p.used--
				t.n.Add(-1)
				drop(f)
			}
		}
		if p.used == 0 {
			t.setLeaf(l, nil)
		}
	}
	t.leaves(first, last, func(l int64, p *leaf) bool { cut(l, p); return true })
}

// leaves calls do for each leaf with pages in [first, last], in no order for far ones, until it returns false.
func (t *pageTree) leaves(first, last int64, do func(l int64, p *leaf) bool) {
	if s := t.near.Load(); s != nil {
		for l := first >> leafBits; l <= last>>leafBits && l < int64(len(*s)); l++ {
			if p := (*s)[l].Load(); p != nil && !do(l, p) {
				return
			}
		}
	}
	if m := t.far.Load(); m != nil {
		for l, p := range *m {
			if l >= first>>leafBits && l <= last>>leafBits && !do(l, p) {
				return
			}
		}
	}
}

// next is the first page from i on that is there, or -1.
func (t *pageTree) next(i int64) int64 {
	best := int64(-1)
	t.leaves(i, 1<<62, func(l int64, p *leaf) bool {
		if best >= 0 && l<<leafBits > best {
			return true
		}
		for k := max(i-l<<leafBits, 0); k < leafPages; k++ {
			if p.pages[k].Load() != 0 {
				if at := l<<leafBits + k; best < 0 || at < best {
					best = at
				}
				break
			}
		}
		// Near leaves come in order, so the first hit is it.
		return best < 0 || l >= nearLeaves
	})
	return best
}
