package mm

import (
	"dinos/dkernel/frame"
	"dinos/kernel/linux"
	"dinos/kernel/paging"
)

// maxAround is how many pages opAround brings at most; they lie in one page table.
const maxAround = 16

// look says what an access with rights want to the page at addr finds, and what it takes to make it possible. k is zero before.
func (t *tree) look(addr uint64, want flags, k *look) {
	v := t.at(addr)
	if addr&(pageSize-1) != 0 || v == nil || addr < v.start {
		k.seen = seenNone
		if v != nil && addr < v.start && v.flags&vmGrowsDown != 0 {
			k.seen = seenGrow
		}
		return
	}
	k.flags, k.bind, k.start, k.end, k.index, k.epoch = v.flags, v.bind, v.start, v.end, v.index(addr), t.epoch.Load()
	// What may be written or executed may be read, since x86 cannot tell.
	if v.flags&vmProt == 0 || want&(vmWrite|vmExec)&^v.flags != 0 {
		k.seen = seenDenied
		return
	}
	f, a := t.page(addr)
	if f == frame.None {
		k.seen = seenAnon
		if v.bind != nil {
			k.seen = seenFile
		}
		return
	}
	if want&vmWrite == 0 || a&paging.Writable != 0 {
		return // seenFine
	}
	k.old = f
	switch {
	case v.flags&vmShared != 0:
		k.seen = seenFile
	case t.forking > 0:
		k.seen = seenWait
	case a&leafOwned != 0 || a&leafOwn != 0 && t.sys.frames.Refs(f) == 1:
		k.seen = seenReuse
	default:
		k.seen = seenCopy
		if f != t.sys.zero {
			t.sys.frames.Ref(f)
		}
	}
}

// page is the frame at addr, frame.None if nothing is mapped, and its attributes.
func (t *tree) page(addr uint64) (frame.Frame, paging.Attr) {
	pa, a := t.pt.Page(addr)
	if pa == 0 {
		return frame.None, 0
	}
	return t.sys.frames.FromPhys(pa), a
}

// stale is what issuers see of an op that came too late: look again.
const stale = linux.EAGAIN

// install maps o.Frame at o.Addr in place of o.Old, if all is still as the issuer saw it.
func (t *tree) install(o *op) linux.Errno {
	addr, what := o.Addr, o.Flags
	if !inUser(addr, pageSize) || o.Frame == 0 {
		return stale
	}
	v := t.at(addr)
	if v == nil || v.start > addr || v.flags&vmProt == 0 {
		return stale
	}
	old, a := t.page(addr)
	if uint64(old) != o.Old {
		return stale
	}
	switch {
	case what&putCopyOf != 0: // of o.Old, which the issuer has a reference to
		if v.flags&vmShared != 0 || t.forking > 0 {
			return stale
		}
	case o.Object != 0:
		if v.bind == nil || v.bind.handle != o.Object || v.index(addr) != o.Off || o.Epoch != t.epoch.Load() ||
			what&putOwn != 0 && v.flags&vmShared != 0 {
			return stale
		}
	default:
		if v.bind != nil {
			return stale
		}
	}
	if old != frame.None {
		// The table stays while it is empty for a moment, so that Map cannot fail.
		t.pt.Reclaim = paging.ReclaimNone
		f, _ := t.pt.Unmap(addr, pageSize, nil)
		t.pt.Reclaim = paging.ReclaimUser
		t.present(old, a, -1)
		t.drop(old)
		t.flushed(f)
	}
	if t.put(v, addr, frame.Frame(o.Frame), what) != nil {
		return linux.ENOMEM
	}
	return 0
}

// reuse makes the frame o.Old at o.Addr writable, which nobody else has any more.
func (t *tree) reuse(o *op) linux.Errno {
	if !inUser(o.Addr, pageSize) {
		return stale
	}
	v := t.at(o.Addr)
	if v == nil || v.start > o.Addr || v.flags&(vmShared|vmWrite) != vmWrite || t.forking > 0 || o.Epoch != t.epoch.Load() {
		return stale
	}
	old, a := t.page(o.Addr)
	if old == frame.None || uint64(old) != o.Old || a&leafOwn == 0 {
		return stale
	}
	_, _ = t.pt.Protect(o.Addr, pageSize, paging.Writable|leafOwned, 0)
	return 0
}

// around maps frames at successive pages from o.Addr on, where nothing is, and says which ones it took.
func (t *tree) around(o *op, frames []frame.Frame) (mask uint64, e linux.Errno) {
	n := uint64(len(frames))
	if n > maxAround || !inUser(o.Addr, n*pageSize) {
		return 0, stale
	}
	v := t.at(o.Addr)
	if v == nil || v.start > o.Addr || v.flags&vmProt == 0 {
		return 0, stale
	}
	if o.Object == 0 && v.bind != nil || o.Object != 0 && (v.bind == nil || v.bind.handle != o.Object ||
		v.flags&vmRepeat != 0 || v.index(o.Addr) != o.Off || o.Epoch != t.epoch.Load() || o.Flags&putOwn != 0) {
		return 0, stale
	}
	for i, f := range frames {
		addr := o.Addr + uint64(i)*pageSize
		if f == frame.None || addr >= v.end {
			continue
		}
		switch t.put(v, addr, f, o.Flags) {
		case nil:
			mask |= 1 << i
		case paging.ErrNoMemory:
			return mask, linux.ENOMEM
		}
	}
	return mask, 0
}

// invalidate removes pages of contents o.Object (opZap), or makes them tell of the next write (opClean): pages o.Off to
// o.Off+o.Len-1. With o.Flags, copies that private mappings have made go as well.
func (t *tree) invalidate(o *op) {
	t.epoch.Add(1)
	last := o.Off + o.Len - 1
	if o.Len == 0 || last < o.Off {
		return
	}
	for v := t.first; v != nil; v = v.next {
		if v.bind == nil || v.bind.id != o.Object {
			continue
		}
		start, end := v.start, v.end
		if v.flags&vmRepeat != 0 {
			if v.off < o.Off || v.off > last {
				continue
			}
		} else {
			high := v.off + v.pages() - 1
			if high < o.Off || v.off > last {
				continue
			}
			start += (max(o.Off, v.off) - v.off) << pageShift
			end -= (high - min(last, high)) << pageShift
		}
		switch {
		case o.Kind == opClean:
			if v.flags&vmShared != 0 {
				v.flags |= vmMixed
				f, _ := t.pt.Protect(start, end-start, 0, paging.Writable|leafOwned)
				t.flushed(f)
			}
		case o.Flags != 0:
			t.zap(start, end)
		default:
			t.zapObject(start, end)
		}
	}
}

// advise changes flags of, or drops the pages of, all vmas in the range. Holes are passed over, and are the error.
func (t *tree) advise(o *op) linux.Errno {
	if !inUser(o.Addr, o.Len) {
		return linux.ENOMEM
	}
	start, end := o.Addr, o.Addr+o.Len
	set, clear, ok := adviceFlags(int(o.Flags))
	if ok && !t.room(o) {
		return linux.ENOMEM
	}
	var e linux.Errno
	at := start
	for v := t.at(start); at < end; {
		if v == nil || v.start >= end {
			e = linux.ENOMEM
			break
		}
		if v.start > at {
			e = linux.ENOMEM
		}
		from, to := max(v.start, at), min(v.end, end)
		if !ok {
			if e := t.discard(v, from, to, o.Flags); e != 0 {
				return e
			}
		} else {
			if o.Flags == linux.MADV_WIPEONFORK && (v.bind != nil || v.flags&vmShared != 0) {
				e = linux.EINVAL // what comes before it has been changed
				break
			}
			if f := v.flags&^clear | set; f != v.flags {
				v = t.cut(from, to)
				v.flags = f
			}
		}
		at = to
		v = v.next
	}
	if ok {
		t.mend(start, end) // also after an error: mappings may have become alike before it
	}
	return e
}

// adviceFlags is what an advice does to the flags of a vma; not ok if it is none of that kind.
func adviceFlags(advice int) (set, clear flags, ok bool) {
	switch advice {
	case linux.MADV_NORMAL:
		return 0, vmRandom | vmSequential, true
	case linux.MADV_RANDOM:
		return vmRandom, vmSequential, true
	case linux.MADV_SEQUENTIAL:
		return vmSequential, vmRandom, true
	case linux.MADV_DONTFORK:
		return vmDontFork, 0, true
	case linux.MADV_DOFORK:
		return 0, vmDontFork, true
	case linux.MADV_WIPEONFORK:
		return vmWipeOnFork, 0, true
	case linux.MADV_KEEPONFORK:
		return 0, vmWipeOnFork, true
	case linux.MADV_DONTDUMP:
		return vmDontDump, 0, true
	case linux.MADV_DODUMP:
		return 0, vmDontDump, true
	case linux.MADV_HUGEPAGE:
		return vmHuge, vmNoHuge, true
	case linux.MADV_NOHUGEPAGE:
		return vmNoHuge, vmHuge, true
	}
	return 0, 0, false
}

// discard drops the pages of a part of v. MADV_FREE may drop them at any time until they are written again; at once is such a time.
func (t *tree) discard(v *vma, start, end uint64, advice uint64) linux.Errno {
	if v.flags&vmLocked != 0 && advice != linux.MADV_DONTNEED_LOCKED {
		return linux.EINVAL
	}
	if advice == linux.MADV_FREE && (v.bind != nil || v.flags&vmShared != 0) {
		return linux.EINVAL
	}
	t.zap(start, end)
	return 0
}

// lock sets or clears vmLocked and vmOnFault: of a range, or with no length of everything.
func (t *tree) lock(o *op) linux.Errno {
	f := flags(o.Flags) & (vmLocked | vmOnFault)
	if o.Len == 0 {
		for v := t.first; v != nil; v = v.next {
			t.setFlags(v, v.flags&^(vmLocked|vmOnFault)|f)
		}
		t.mend(0, userTop)
		return 0
	}
	if !inUser(o.Addr, o.Len) {
		return linux.ENOMEM
	}
	start, end := o.Addr, o.Addr+o.Len
	if _, full := t.mapped(start, end); !full {
		return linux.ENOMEM
	}
	if f != 0 {
		more := uint64(0)
		for v := t.at(start); v != nil && v.start < end; v = v.next {
			if v.flags&vmLocked == 0 {
				more += (min(v.end, end) - max(v.start, start)) >> pageShift
			}
		}
		if more != 0 && t.count.locked+more > o.LimitLock {
			return linux.ENOMEM
		}
	}
	if !t.room(o) {
		return linux.ENOMEM
	}
	for v := t.cut(start, end); v != nil && v.start < end; v = v.next {
		t.setFlags(v, v.flags&^(vmLocked|vmOnFault)|f)
	}
	t.mend(start, end)
	return 0
}
