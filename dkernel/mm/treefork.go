package mm

import (
	"dinos/kernel/linux"
	"dinos/kernel/paging"
)

// fork makes all private pages copy-on-write, and t.child, if set, a copy of t. Until opForked nobody may copy such a page: processors
// can still write to it by old translations. If there is no memory for the copy's tables the error is linux.ENOMEM; the copy is then
// incomplete, and to be destroyed.
func (t *tree) fork() linux.Errno {
	t.forking++
	t.epoch.Add(1)
	var c *tree
	if t.mine {
		c, t.child = t.child, nil
	}
	if c != nil {
		c.mine = true
		c.layout, c.brkStart, c.brk = t.layout, t.brkStart, t.brk
	}
	var e linux.Errno
	for v := t.first; v != nil; v = v.next {
		if v.flags&vmDontFork != 0 {
			continue
		}
		var w *vma
		if c != nil {
			w = c.take()
			w.span = span{v.start, v.end, v.off, nil, v.flags &^ (vmLocked | vmOnFault | vmAnon | vmMixed)}
			if v.bind != nil {
				if w.bind = c.lookup(v.bind.handle); w.bind == nil {
					e = linux.ENOMEM
					continue
				}
				hold(w.bind)
			}
			c.tally(w.flags, w.pages(), 1)
			c.insert(w, nil)
		}
		// Pages of objects come back by faults, which costs less than to copy entries that are seldom used.
		if v.flags&(vmAnon|vmShared|vmWipeOnFork) != vmAnon {
			continue
		}
		f, _ := t.pt.Protect(v.start, v.end-v.start, 0, paging.Writable|leafOwned)
		t.flushed(f)
		v.flags |= vmMixed
		if w != nil && e == 0 {
			w.flags |= vmAnon | vmMixed
			e = t.copyPages(c, v)
		}
	}
	return e
}

// copyPages gives c references to the pages that v has of its own.
func (t *tree) copyPages(c *tree, v *vma) (e linux.Errno) {
	frames := t.sys.frames
	_ = t.pt.Walk(v.start, v.end-v.start, func(l paging.Leaf) bool {
		if l.Attr&leafOwn == 0 {
			return true
		}
		if c.pt.Map(l.VA, l.PA, pageSize, l.Attr&^(paging.Writable|leafOwned), pageSize) != nil {
			e = linux.ENOMEM
			return false
		}
		frames.Ref(frames.FromPhys(l.PA))
		c.count.own++
		c.peak++
		return true
	})
	return e
}

// remap is mremap(2), whose arguments the issuer has checked as far as they do not depend on what is mapped.
func (t *tree) remap(o *op) (uint64, linux.Errno) {
	old, oldLen, newLen := o.Addr, o.Len, o.ToLen
	fixed, keep := o.Flags&linux.MREMAP_FIXED != 0, o.Flags&linux.MREMAP_DONTUNMAP != 0
	if old&(pageSize-1) != 0 || oldLen != 0 && !inUser(old, oldLen) || !inUser(0, newLen) || !inUser(old, pageSize) {
		return 0, linux.EINVAL
	}
	if uint64(t.n)+4 > o.MaxMaps {
		return 0, linux.ENOMEM
	}
	to := o.To
	if fixed && (!inUser(to, newLen) || to < old+oldLen && old < to+newLen) {
		return 0, linux.EINVAL
	}
	v := t.at(old)
	if v == nil || v.start > old {
		return 0, linux.EFAULT
	}
	if !fixed && oldLen >= newLen && !keep {
		if oldLen > newLen {
			t.unmap(old+newLen, old+oldLen)
		}
		return old, 0
	}
	if oldLen == 0 && v.flags&vmShared == 0 {
		return 0, linux.EINVAL
	}
	kept, there := min(oldLen, newLen), v.end-old // of what is there, kept goes over
	if v.flags&vmRepeat != 0 {
		there = pageSize // the others are mappings of their own
	}
	if kept > there {
		return 0, linux.EFAULT
	}
	index := v.index(old)
	if v.bind != nil && index+newLen>>pageShift < index {
		return 0, linux.EINVAL
	}
	more := (newLen - kept) >> pageShift
	if keep || oldLen == 0 {
		more = newLen >> pageShift
	}
	if v.flags&vmLocked != 0 && more != 0 && t.count.locked+more > o.LimitLock {
		return 0, linux.EAGAIN
	}
	if !t.fits(o, v.flags, more, 0) {
		return 0, linux.ENOMEM
	}
	if !fixed && !keep && oldLen == v.end-old && oldLen == there && inUser(old, newLen) && t.vacant(v.end, old+newLen) {
		t.add(v.end, old+newLen, index+oldLen>>pageShift, v.bind, v.flags&^vmRepeat, v.next)
		return old, 0
	}
	if o.Flags&linux.MREMAP_MAYMOVE == 0 {
		return 0, linux.ENOMEM
	}
	return t.move(o, v, kept, fixed, keep)
}

// move is the part of remap that finds another place.
func (t *tree) move(o *op, v *vma, kept uint64, fixed, keep bool) (uint64, linux.Errno) {
	old, oldLen, newLen, to := o.Addr, o.Len, o.ToLen, o.To
	f, b, index := v.flags, v.bind, v.index(old)
	if !fixed {
		if to = t.choose(to, newLen, 0); to == 0 {
			return 0, linux.ENOMEM
		}
	}
	if fixed {
		t.unmap(to, to+newLen)
	}
	if kept != 0 {
		// The new leaves first: this is what can fail.
		if done, e := t.copyLeaves(old, to, kept); e != 0 {
			if done != 0 {
				g, _ := t.pt.Unmap(to, done, nil)
				t.flushed(g)
			}
			return 0, e
		}
		g, _ := t.pt.Unmap(old, kept, nil)
		t.flushed(g)
	}
	hold(b) // so that it lives while the old range goes
	switch {
	case !keep && oldLen != 0:
		t.unmap(old, old+oldLen)
	case keep && f&vmLocked != 0:
		t.setFlags(t.cut(old, old+oldLen), f&^(vmLocked|vmOnFault))
		t.mend(old, old+oldLen)
	}
	t.add(to, to+newLen, index, b, f&^vmRepeat, t.at(to))
	t.release(b)
	return to, 0
}

// copyLeaves makes the leaves of [old, old+n) also be at to. After linux.ENOMEM those of the first done bytes may be.
func (t *tree) copyLeaves(old, to, n uint64) (done uint64, e linux.Errno) {
	_ = t.pt.Walk(old, n, func(l paging.Leaf) bool {
		done = l.VA - old + pageSize
		if t.pt.Map(l.VA-old+to, l.PA, pageSize, l.Attr, pageSize) != nil {
			e = linux.ENOMEM
			return false
		}
		return true
	})
	return done, e
}
