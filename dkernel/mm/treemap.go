package mm

import (
	"dinos/dkernel/frame"
	"dinos/kernel/linux"
	"dinos/kernel/paging"
)

// choose finds a place for n bytes: at hint if that is free, else from the top down as Linux does (arch_get_unmapped_area_topdown).
func (t *tree) choose(hint, n, mode uint64) uint64 {
	if n > userTop-minAddr {
		return 0
	}
	if mode&mode32Bit != 0 {
		return t.lowest(n, low32, high32)
	}
	if hint != 0 {
		hint = max(hint, minAddr)
		if hint <= userTop-n && t.vacant(hint, hint+n) {
			return hint
		}
	}
	base := t.layout.MmapBase
	if !t.layout.Legacy {
		if a := t.highest(n, minAddr, base); a != 0 {
			return a
		}
		base = unmappedBase
	}
	return t.lowest(n, base, userTop)
}

// vacant reports whether [start, end) is free and keeps its distance from a stack above.
func (t *tree) vacant(start, end uint64) bool {
	v := t.at(start)
	if v == nil {
		return true
	}
	_, high := v.gap()
	return end <= high && start < v.start
}

func (t *tree) mapRange(o *op) (uint64, linux.Errno) {
	f := flags(o.Flags) | t.future
	addr, pages := o.Addr, o.Len>>pageShift
	if !inUser(0, o.Len) || addr&(pageSize-1) != 0 || o.Off+pages < o.Off {
		return 0, linux.ENOMEM
	}
	if o.Mode&modeFixed == 0 {
		if addr = t.choose(addr, o.Len, o.Mode); addr == 0 {
			return 0, linux.ENOMEM
		}
	} else if !inUser(addr, o.Len) {
		return 0, linux.ENOMEM
	}
	end := addr + o.Len
	next := t.at(addr)
	over := next != nil && next.start < end
	var gone uint64
	if over {
		if o.Mode&modeNoReplace != 0 {
			return 0, linux.EEXIST
		}
		gone, _ = t.mapped(addr, end)
	}
	if uint64(t.n) >= o.MaxMaps || !t.fits(o, f, pages, gone) {
		return 0, linux.ENOMEM
	}
	if f&vmLocked != 0 && t.count.locked+pages > o.LimitLock {
		return 0, linux.EAGAIN
	}
	var b *binding
	if o.Object != 0 {
		if b = t.lookup(o.Object); b == nil {
			return 0, linux.ENODEV
		}
	}
	if over {
		t.unmap(addr, end)
		next = t.at(addr)
	}
	v := t.add(addr, end, o.Off, b, f, next)
	if o.Frame != 0 && b != nil && o.Epoch == t.epoch.Load() {
		if t.put(v, addr, frame.Frame(o.Frame), o.Old) == nil {
			return addr | took, 0
		}
	}
	return addr, 0
}

// took is added to the address that opMap returns if its frame was used.
const took = 1

// attr are the attributes of a leaf in v; own are leafOwn and leafOwned, as they apply.
func (v *vma) attr(own paging.Attr) paging.Attr {
	a := leafBits | own
	if v.flags&vmProt != 0 {
		a |= paging.Present
	}
	if v.flags&vmExec == 0 {
		a |= paging.NoExecute
	}
	if v.flags&vmWrite != 0 && own&leafOwned != 0 {
		a |= paging.Writable
	}
	return a
}

// put maps f, which may be what the bits of what say, at addr in v, where nothing is.
func (t *tree) put(v *vma, addr uint64, f frame.Frame, what uint64) error {
	if !t.sys.frames.Has(f) {
		return paging.ErrPhysRange
	}
	var own paging.Attr
	switch {
	case what&putOwn != 0:
		own = leafOwn | leafOwned
		v.flags |= vmAnon
	case what&putWrite != 0 && v.flags&vmShared != 0:
		own = leafOwned
	default:
		v.flags |= vmMixed
	}
	err := t.pt.Map(addr, t.sys.frames.Phys(f), pageSize, v.attr(own), pageSize)
	if err == nil {
		t.present(f, own, 1)
	}
	return err
}

func (t *tree) protect(o *op) linux.Errno {
	if !inUser(o.Addr, o.Len) {
		return linux.ENOMEM
	}
	start, end, prot := o.Addr, o.Addr+o.Len, flags(o.Flags)&vmProt
	first := t.at(start)
	if o.Mode&linux.PROT_GROWSDOWN != 0 && first != nil && first.start < end {
		if first.flags&vmGrowsDown == 0 {
			return linux.EINVAL
		}
		start = first.start
	}
	at, data := start, uint64(0)
	for v := first; at < end; v = v.next {
		if v == nil || v.start > at {
			return linux.ENOMEM
		}
		if may(prot)&^v.flags != 0 {
			return linux.EACCES
		}
		if !v.flags.isData() && (v.flags&^vmProt | prot).isData() {
			data += (min(v.end, end) - at) >> pageShift
		}
		at = v.end
	}
	if data != 0 && t.count.data+data > o.LimitData || !t.room(o) {
		return linux.ENOMEM
	}
	for v := t.cut(start, end); v != nil && v.start < end; v = v.next {
		t.setFlags(v, (v.flags&^vmProt | prot).account())
	}
	t.mend(start, end)
	return 0
}

// setFlags gives v other flags, and its pages the rights that follow from them.
func (t *tree) setFlags(v *vma, f flags) {
	old := v.flags
	if f == old {
		return
	}
	t.tally(old, v.pages(), -1)
	t.tally(f, v.pages(), 1)
	v.flags = f
	if (f^old)&vmProt == 0 {
		return
	}
	if f&^old&vmExec != 0 && f&vmShared == 0 && v.bind != nil && t.sys.exec != nil {
		t.zapObject(v.start, v.end) // they come back as copies that may be executed
	}
	var set, clear paging.Attr
	if f&vmProt != 0 {
		set |= paging.Present
	} else {
		clear |= paging.Present
	}
	if f&vmExec != 0 {
		clear |= paging.NoExecute
	} else {
		set |= paging.NoExecute
	}
	switch {
	case f&vmWrite == 0:
		clear |= paging.Writable
	case f&vmMixed == 0:
		set |= paging.Writable
	}
	flush, _ := t.pt.Protect(v.start, v.end-v.start, set, clear)
	t.flushed(flush)
	if f&(vmWrite|vmMixed) == vmWrite|vmMixed {
		t.runs(v.start, v.end, func(a paging.Attr) bool { return a&leafOwned != 0 }, t.allowWrite)
	}
}

func (t *tree) allowWrite(start, end uint64) {
	_, _ = t.pt.Protect(start, end-start, paging.Writable, 0)
}

// mend joins what became alike in and around [start, end).
func (t *tree) mend(start, end uint64) {
	v := t.at(start)
	if v != nil && v.prev != nil {
		v = v.prev
	}
	for v != nil && v.start <= end {
		n := v.next
		t.joinNext(v)
		if v.next == n { // nothing was joined: go on
			v = n
		}
	}
}

// setBreak is brk(2): it returns the break, which is unchanged if it could not be set.
func (t *tree) setBreak(o *op) (uint64, linux.Errno) {
	want := o.Addr
	old, end := pageUp(t.brk), pageUp(want)
	if want < t.brkStart || t.brkStart == 0 || want > userTop || end < want {
		return t.brk, 0
	}
	switch {
	case end < old:
		t.unmap(end, old)
	case end > old:
		f := vmRead | vmWrite | vmMay | vmAccount | t.future
		pages := (end - old) >> pageShift
		next := t.at(old)
		if next != nil {
			if low := next.start; low < end || low-end < stackGuard && next.flags&vmGrowsDown != 0 {
				return t.brk, 0
			}
		}
		if (end-t.brkStart)>>pageShift > o.LimitData || !t.fits(o, f, pages, 0) || uint64(t.n) >= o.MaxMaps {
			return t.brk, 0
		}
		if f&vmLocked != 0 && t.count.locked+pages > o.LimitLock {
			return t.brk, 0
		}
		t.add(old, end, 0, nil, f, next)
	}
	t.brk = want
	return want, 0
}

// grow extends the stack down to the page at o.Addr.
func (t *tree) grow(o *op) linux.Errno {
	if !inUser(o.Addr, pageSize) || o.Addr < minAddr {
		return linux.ENOMEM
	}
	v := t.at(o.Addr)
	if v == nil || v.flags&vmGrowsDown == 0 {
		return linux.ENOMEM
	}
	if v.start <= o.Addr {
		return 0
	}
	more := (v.start - o.Addr) >> pageShift
	if v.pages()+more > o.ToLen || !t.fits(o, v.flags, more, 0) {
		return linux.ENOMEM
	}
	if v.flags&vmLocked != 0 && t.count.locked+more > o.LimitLock {
		return linux.ENOMEM
	}
	if p := v.prev; p != nil && p.flags&vmGrowsDown == 0 && p.flags&vmProt != 0 && o.Addr-p.end < stackGuard {
		return linux.ENOMEM
	}
	t.tally(v.flags, more, 1)
	v.start = o.Addr
	t.changed(v)
	return 0
}
