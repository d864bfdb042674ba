package mm

import (
	"sync/atomic"

	"dinos/dkernel/frame"
	"dinos/kernel/linux"
	"dinos/kernel/paging"
)

// counts are levels of an address space, in pages.
type counts struct {
	total, data, stack, exec, shared, locked uint64
	account                                  uint64 // promised
	own, file                                uint64 // present
}

// tree is a replica of an address space: its vmas and its page tables. It is sequential: operations come one at a time, by do or look.
type tree struct {
	vmas
	sys    *System
	pt     paging.Space
	id     uint32
	lookup func(handle uint64) *binding

	layout   Layout
	brkStart uint64
	brk      uint64
	future   flags         // what mlockall adds to every mapping
	epoch    atomic.Uint64 // grows when pages that issuers have in hand may be the wrong ones; read without a lock
	forking  int
	count    counts
	peak     uint64 // the most pages that were present

	// The rest belongs to the operation in progress.
	mine  bool    // its issuer is here
	out   *gather // what it removed; of operations from elsewhere only what this replica's processors have to forget
	child *tree   // of a fork: set by the issuer
	onZap func(paging.Leaf)

	spareOut atomic.Pointer[gather]  // for the next operation that needs one
	views    [maxHandles]func(*tree) // of goroutines that look at everything; each belongs to the owner of a handle
}

func newTree(sys *System, l Layout, lookup func(uint64) *binding) *tree {
	t := &tree{sys: sys, layout: l, lookup: lookup}
	t.onZap = t.zapLeaf
	return t
}

// inUser reports whether [addr, addr+n) are whole pages, at least one, that programs may use.
func inUser(addr, n uint64) bool {
	return (addr|n)&(pageSize-1) == 0 && n != 0 && n <= userTop && addr <= userTop-n
}

func (t *tree) gather() *gather {
	if t.out == nil {
		if t.out = t.spareOut.Swap(nil); t.out == nil {
			t.out = new(gather)
		}
	}
	return t.out
}

// flushed notes what processors have to forget.
func (t *tree) flushed(f paging.Flush) {
	if f.Pages != 0 {
		t.pt.Add(&t.gather().flush, f)
	}
}

// drop notes that an entry does not use f any more.
func (t *tree) drop(f frame.Frame) {
	if t.mine && f != t.sys.zero {
		g := t.gather()
		g.frames = append(g.frames, f)
	}
}

// present counts a page that comes (d is 1) or goes (-1).
func (t *tree) present(f frame.Frame, a paging.Attr, d int) {
	switch {
	case a&leafOwn != 0:
		t.count.own += uint64(d)
	case f != t.sys.zero:
		t.count.file += uint64(d)
	}
	t.peak = max(t.peak, t.count.own+t.count.file)
}

func (t *tree) zapLeaf(l paging.Leaf) {
	f := t.sys.frames.FromPhys(l.PA)
	t.present(f, l.Attr, -1)
	t.drop(f)
}

// zap removes all pages of [start, end).
func (t *tree) zap(start, end uint64) {
	f, _ := t.pt.Unmap(start, end-start, t.onZap) // only small leaves: cannot fail
	t.flushed(f)
}

// zapObject removes the pages of [start, end) that belong to an object.
func (t *tree) zapObject(start, end uint64) {
	t.runs(start, end, func(a paging.Attr) bool { return a&leafOwn == 0 }, t.zap)
}

// runs calls do for each longest run of leaves in [start, end) that pick picks. do may change them.
func (t *tree) runs(start, end uint64, pick func(paging.Attr) bool, do func(start, end uint64)) {
	var from, to uint64
	_ = t.pt.Walk(start, end-start, func(l paging.Leaf) bool {
		ok := pick(l.Attr)
		if to != from && (!ok || l.VA != to) {
			do(from, to)
			from, to = 0, 0
		}
		if ok {
			if from == to {
				from = l.VA
			}
			to = l.VA + l.Size
		}
		return true
	})
	if to != from {
		do(from, to)
	}
}

// tally adds a range of pages with flags f (d is 1) or takes it away (-1).
func (t *tree) tally(f flags, pages uint64, d int) {
	n := pages * uint64(d)
	c := &t.count
	c.total += n
	switch {
	case f&vmGrowsDown != 0:
		c.stack += n
	case f&(vmExec|vmWrite) == vmExec:
		c.exec += n
	case f&(vmWrite|vmShared) == vmWrite:
		c.data += n
	}
	if f&vmShared != 0 {
		c.shared += n
	}
	if f&vmLocked != 0 {
		c.locked += n
	}
	if f&vmAccount != 0 {
		c.account += n
	}
}

// isData reports whether f counts towards RLIMIT_DATA.
func (f flags) isData() bool { return f&(vmWrite|vmShared|vmGrowsDown) == vmWrite }

// fits reports whether limits allow pages more with flags f.
func (t *tree) fits(o *op, f flags, pages, gone uint64) bool {
	if t.count.total+pages-min(gone, pages) > o.LimitAS {
		return false
	}
	return !f.isData() || t.count.data+pages <= o.LimitData
}

// hold and release count the vmas of a binding.
func hold(b *binding) {
	if b != nil {
		b.vmas.Add(1)
	}
}

func (t *tree) release(b *binding) {
	if b != nil && b.vmas.Add(-1) == 0 && t.mine {
		g := t.gather()
		g.dead = append(g.dead, b)
	}
}

// add makes [start, end) a mapping, joined with its neighbours where they are alike. Nothing is mapped there; next is at(start).
func (t *tree) add(start, end, off uint64, b *binding, f flags, next *vma) *vma {
	t.tally(f, (end-start)>>pageShift, 1)
	v := t.place(start, end, off, b, f, next)
	t.hit = v
	return v
}

func (t *tree) place(start, end, off uint64, b *binding, f flags, next *vma) *vma {
	c := span{start, end, off, b, f}
	if prev := t.before(next); prev != nil {
		if ok, repeat := prev.joins(&c); ok {
			prev.end = end
			prev.flags |= f & (vmAnon | vmMixed | vmRepeat)
			if repeat {
				prev.flags |= vmRepeat
			}
			t.changed(next)
			t.joinNext(prev)
			return prev
		}
	}
	if next != nil {
		if ok, repeat := c.joins(&next.span); ok {
			next.start, next.off = start, off
			next.flags |= f & (vmAnon | vmMixed | vmRepeat)
			if repeat {
				next.flags |= vmRepeat
			}
			t.changed(next)
			return next
		}
	}
	v := t.take()
	v.span = c
	hold(b)
	t.insert(v, next)
	return v
}

// joinNext joins v with what follows if they are alike.
func (t *tree) joinNext(v *vma) {
	n := v.next
	if n == nil {
		return
	}
	ok, repeat := v.joins(&n.span)
	if !ok {
		return
	}
	end, b := n.end, n.bind
	v.flags |= n.flags & (vmAnon | vmMixed | vmRepeat)
	if repeat {
		v.flags |= vmRepeat
	}
	t.remove(n)
	v.end = end
	t.changed(v.next)
	t.release(b)
}

// split cuts v in two at addr, inside of it, and returns the upper part.
func (t *tree) split(v *vma, addr uint64) *vma {
	w := t.take()
	w.span = span{addr, v.end, v.index(addr), v.bind, v.flags}
	v.end = addr
	if v.pages() == 1 {
		v.flags &^= vmRepeat
	}
	if w.pages() == 1 {
		w.flags &^= vmRepeat
	}
	hold(w.bind)
	t.insert(w, v.next)
	return w
}

// cut makes [start, end)'s borders borders of vmas and returns the first vma that ends above start.
func (t *tree) cut(start, end uint64) *vma {
	v := t.at(start)
	if v != nil && v.start < start {
		v = t.split(v, start)
	}
	if w := t.at(end); w != nil && w.start < end {
		t.split(w, end)
	}
	return v
}

// room reports whether cutting at two places keeps to the number of vmas allowed.
func (t *tree) room(o *op) bool { return uint64(t.n)+2 <= o.MaxMaps }

// unmap takes everything out of [start, end).
func (t *tree) unmap(start, end uint64) {
	v := t.at(start)
	if v == nil || v.start >= end {
		return
	}
	switch {
	case v.start < start && v.end > end:
		v = t.split(v, start)
		t.shrink(v, end, v.end)
	default:
		if v.start < start {
			t.shrink(v, v.start, start)
			v = v.next
		}
		for v != nil && v.end <= end {
			next := v.next
			t.tally(v.flags, v.pages(), -1)
			b := v.bind
			t.remove(v)
			t.release(b)
			v = next
		}
		if v != nil && v.start < end {
			t.shrink(v, end, v.end)
		}
	}
	t.zap(start, end)
}

// shrink makes v a part of itself, at one of its ends.
func (t *tree) shrink(v *vma, start, end uint64) {
	t.tally(v.flags, v.pages()-(end-start)>>pageShift, -1)
	if start != v.start {
		v.off = v.index(start)
		v.start = start
		t.changed(v)
	} else {
		v.end = end
		t.changed(v.next)
	}
	if v.pages() == 1 {
		v.flags &^= vmRepeat
	}
}

// mapped is how many pages of [start, end) are in a vma; whether that is all of them, says full.
func (t *tree) mapped(start, end uint64) (pages uint64, full bool) {
	for v := t.at(start); v != nil && v.start < end; v = v.next {
		pages += (min(v.end, end) - max(v.start, start)) >> pageShift
	}
	return pages, pages == (end-start)>>pageShift
}

func (t *tree) unmapOp(o *op) linux.Errno {
	if !inUser(o.Addr, o.Len) {
		return linux.EINVAL
	}
	end := o.Addr + o.Len
	if v := t.at(o.Addr); v != nil && v.start < o.Addr && v.end > end && uint64(t.n) >= o.MaxMaps {
		return linux.ENOMEM
	}
	t.unmap(o.Addr, end)
	return 0
}
