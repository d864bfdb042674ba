package mm

import (
	"dinos/dkernel/frame"
	"dinos/kernel/linux"
)

// MapArgs are the arguments of mmap(2). Offset is in bytes.
type MapArgs struct {
	Addr, Len   uint64
	Prot, Flags int
	Object      Object // nil for MAP_ANONYMOUS
	Offset      uint64
}

// what MAP_SHARED_VALIDATE knows (LEGACY_MAP_MASK).
const knownMap = linux.MAP_SHARED | linux.MAP_PRIVATE | linux.MAP_FIXED | linux.MAP_ANONYMOUS | linux.MAP_DENYWRITE | linux.MAP_EXECUTABLE |
	linux.MAP_UNINITIALIZED | linux.MAP_GROWSDOWN | linux.MAP_LOCKED | linux.MAP_NORESERVE | linux.MAP_POPULATE | linux.MAP_NONBLOCK |
	linux.MAP_STACK | linux.MAP_HUGETLB | linux.MAP_32BIT | linux.MAP_ABOVE4G

// Map is mmap(2) and returns the address. Errors are Linux': EINVAL, ENOMEM, EEXIST, EACCES, EPERM, EAGAIN, EOVERFLOW, EOPNOTSUPP, EBADF.
// A failed call changes nothing, but what was at a fixed place may be gone. With MAP_POPULATE and MAP_LOCKED pages are brought in;
// that some could not be is no error.
func (s *Space) Map(a MapArgs) (uint64, error) {
	o := op{Kind: opMap, Addr: a.Addr, Len: pageUp(a.Len), Off: a.Offset >> pageShift}
	f, e := s.checkMap(&a, &o)
	if e != 0 {
		return 0, e
	}
	f = s.sys.accountable(f)
	if f&vmAccount != 0 && !s.sys.promise(o.Len>>pageShift) {
		return 0, linux.ENOMEM
	}
	var b *binding
	if a.Flags&linux.MAP_ANONYMOUS == 0 {
		b = s.pin(a.Object)
	} else if f&vmShared != 0 {
		obj, err := s.sys.NewAnon(o.Len>>pageShift, f&vmNoReserve != 0)
		if err != nil {
			return 0, err
		}
		b = s.pin(obj)
		obj.Release() // the binding has it
	}
	if b != nil {
		defer s.unpin(b, 1)
		o.Object = b.handle
		if b.notify {
			f |= vmNotify
		}
		s.bringWith(&o, f, b, a.Flags)
	}
	o.Flags = uint64(f)
	r := s.do(s.limited(&o))
	if r.err == 0 && r.addr&took != 0 {
		return r.addr &^ took, nil
	}
	s.sys.unref(frame.Frame(o.Frame))
	if r.err != 0 {
		return 0, r.err
	}
	s.populate(r.addr, o.Len, f, a.Flags)
	return r.addr, nil
}

// bringWith makes the only page of a mapping that is to be there at once travel with it, in one operation: that is the path of map().
func (s *Space) bringWith(o *op, f flags, b *binding, how int) {
	if o.Len != pageSize || f&vmShared == 0 || f&vmProt == 0 || how&(linux.MAP_POPULATE|linux.MAP_NONBLOCK) != linux.MAP_POPULATE {
		return
	}
	o.Epoch = s.tree.epoch.Load()
	write := f&vmWrite != 0 && !b.notify
	if fr, err := b.obj.Page(o.Off, write); err == nil {
		o.Frame = uint64(fr)
		if write {
			o.Old = putWrite
		}
	}
}

// checkMap makes flags of a's, and checks what does not depend on what is mapped.
func (s *Space) checkMap(a *MapArgs, o *op) (flags, linux.Errno) {
	switch {
	case a.Len == 0 || a.Offset&(pageSize-1) != 0:
		return 0, linux.EINVAL
	case o.Len == 0 || o.Len > userTop:
		return 0, linux.ENOMEM
	case o.Off+o.Len>>pageShift > 1<<(64-pageShift):
		return 0, linux.EOVERFLOW
	}
	f := protFlags(a.Prot) | vmMay
	anon := a.Flags&linux.MAP_ANONYMOUS != 0
	switch t := a.Flags & linux.MAP_TYPE; {
	case t == linux.MAP_PRIVATE:
	case t == linux.MAP_SHARED:
		f |= vmShared
	case t == linux.MAP_SHARED_VALIDATE && !anon:
		if a.Flags&^knownMap != 0 {
			return 0, linux.EOPNOTSUPP
		}
		f |= vmShared
	default:
		return 0, linux.EINVAL
	}
	if a.Flags&(linux.MAP_FIXED|linux.MAP_FIXED_NOREPLACE) != 0 {
		o.Mode = modeFixed
		if a.Flags&linux.MAP_FIXED_NOREPLACE != 0 {
			o.Mode |= modeNoReplace
		}
		if a.Addr > userTop-o.Len {
			return 0, linux.ENOMEM
		}
		if a.Addr&(pageSize-1) != 0 {
			return 0, linux.EINVAL
		}
		if a.Addr < minAddr {
			return 0, linux.EPERM
		}
	} else {
		o.Addr &^= pageSize - 1
		if a.Flags&linux.MAP_32BIT != 0 {
			o.Mode = mode32Bit
		}
	}
	if a.Flags&linux.MAP_HUGETLB != 0 {
		return 0, linux.ENOMEM // no huge pages are set aside
	}
	if a.Flags&linux.MAP_GROWSDOWN != 0 {
		if f&vmShared != 0 || !anon {
			return 0, linux.EINVAL
		}
		f |= vmGrowsDown
	}
	if a.Flags&linux.MAP_NORESERVE != 0 {
		f |= vmNoReserve
	}
	if a.Flags&linux.MAP_LOCKED != 0 {
		if s.lockLimit() == 0 {
			return 0, linux.EPERM
		}
		f |= vmLocked
	}
	if anon {
		o.Off = 0
		return f, 0
	}
	return s.checkObject(a, f)
}

// checkObject takes away what the object does not allow.
func (s *Space) checkObject(a *MapArgs, f flags) (flags, linux.Errno) {
	if a.Object == nil {
		return 0, linux.EBADF
	}
	may := a.Object.Access()
	switch {
	case may&MayRead == 0, f&(vmShared|vmWrite) == vmShared|vmWrite && may&MayWrite == 0:
		return 0, linux.EACCES
	case may&NoExec != 0 && f&vmExec != 0:
		return 0, linux.EPERM
	}
	if f&vmShared != 0 && may&MayWrite == 0 {
		f &^= vmMayWrite
	}
	if may&NoExec != 0 {
		f &^= vmMayExec
	}
	return f, 0
}

// populate brings the pages of a new mapping in, if it is to.
func (s *Space) populate(addr, n uint64, f flags, how int) {
	f |= flags(s.future.Load())
	wanted := how&(linux.MAP_POPULATE|linux.MAP_NONBLOCK) == linux.MAP_POPULATE || f&(vmLocked|vmOnFault) == vmLocked
	if !wanted || f&vmProt == 0 {
		return
	}
	prot := linux.PROT_READ
	if f&(vmWrite|vmShared) == vmWrite {
		prot = linux.PROT_WRITE
	}
	s.fill(addr, addr+n, prot)
}

// fill brings in the pages of [start, end) as far as it can, and says how far.
func (s *Space) fill(start, end uint64, prot int) (at uint64, out Outcome) {
	for at = start; at < end; {
		var l look
		s.engine.read(at, prot, &l)
		if l.seen == seenCopy {
			s.sys.unref(l.old)
		}
		if l.seen == seenFine {
			at += pageSize
			continue
		}
		if l.seen == seenAnon && prot&linux.PROT_WRITE != 0 {
			stop := min(end, l.end, at&^(maxAround*pageSize-1)+maxAround*pageSize)
			if n := int((stop - at) >> pageShift); n > 1 {
				if out, again := s.bringAnon(at, n); !again && out != Resolved {
					return at, out
				}
				continue
			}
		}
		if out = s.Fault(at, prot); out != Resolved {
			return at, out
		}
		at += pageSize
	}
	return at, Resolved
}

// Unmap is munmap(2). When it returns, no CPU can use the memory any more. Errors: EINVAL, ENOMEM.
func (s *Space) Unmap(addr, n uint64) error {
	if addr&(pageSize-1) != 0 || n == 0 || n > userTop || addr > userTop-n {
		return linux.EINVAL
	}
	return result(s.do(&op{Kind: opUnmap, Addr: addr, Len: pageUp(n), MaxMaps: s.sys.maxMaps}).err)
}

// result is an errno as an error.
func result(e linux.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

// Protect is mprotect(2). When it returns, no CPU can use rights any more that were taken away. Errors: EINVAL, ENOMEM, EACCES. A
// failed call changes nothing.
func (s *Space) Protect(addr, n uint64, prot int) error {
	const grows = linux.PROT_GROWSDOWN | linux.PROT_GROWSUP
	const all = linux.PROT_READ | linux.PROT_WRITE | linux.PROT_EXEC | linux.PROT_SEM | grows
	if addr&(pageSize-1) != 0 || prot&grows == grows || prot&^all != 0 || prot&linux.PROT_GROWSUP != 0 {
		return linux.EINVAL
	}
	if n == 0 {
		return nil
	}
	n = pageUp(n)
	if n == 0 || addr+n <= addr {
		return linux.ENOMEM
	}
	if prot&linux.PROT_WRITE != 0 && s.sys.mode.Load() == linux.OVERCOMMIT_NEVER && !s.sys.promise(n>>pageShift) {
		return linux.ENOMEM
	}
	return result(s.do(s.limited(&op{Kind: opProtect, Addr: addr, Len: n, Flags: uint64(protFlags(prot)),
		Mode: uint64(prot & linux.PROT_GROWSDOWN)})).err)
}

// Remap is mremap(2) and returns the address. Errors: EINVAL, EFAULT, ENOMEM, EAGAIN.
func (s *Space) Remap(old, oldLen, newLen uint64, how int, to uint64) (uint64, error) {
	const all = linux.MREMAP_MAYMOVE | linux.MREMAP_FIXED | linux.MREMAP_DONTUNMAP
	moves := how&linux.MREMAP_MAYMOVE != 0
	oldLen, newLen = pageUp(oldLen), pageUp(newLen)
	switch {
	case how&^all != 0, how&linux.MREMAP_FIXED != 0 && !moves,
		how&linux.MREMAP_DONTUNMAP != 0 && (!moves || oldLen != newLen),
		old&(pageSize-1) != 0 || newLen == 0:
		return 0, linux.EINVAL
	case old > userTop-pageSize || oldLen > userTop || old > userTop-oldLen:
		return 0, linux.EFAULT
	case newLen > userTop:
		if how&linux.MREMAP_FIXED != 0 {
			return 0, linux.EINVAL
		}
		return 0, linux.ENOMEM
	case how&linux.MREMAP_FIXED != 0 && to < minAddr && to&(pageSize-1) == 0:
		return 0, linux.EPERM
	}
	if how&linux.MREMAP_FIXED == 0 {
		to = 0
	}
	if newLen > oldLen && !s.sys.promise((newLen-oldLen)>>pageShift) {
		return 0, linux.ENOMEM
	}
	o := op{Kind: opRemap, Addr: old, Len: oldLen, To: to, ToLen: newLen, Flags: uint64(how)}
	r := s.do(s.limited(&o))
	if r.err != 0 {
		return 0, r.err
	}
	if newLen > oldLen {
		var l look
		s.engine.read(r.addr, linux.PROT_READ, &l)
		if l.flags&(vmLocked|vmOnFault) == vmLocked {
			s.populate(r.addr+oldLen, newLen-oldLen, l.flags, 0)
		}
	}
	return r.addr, nil
}

// Break is brk(2): it sets the break, if that is possible, and returns it.
func (s *Space) Break(addr uint64) uint64 {
	if now := s.breakAt.Load(); addr > now && !s.sys.promise((addr-now)>>pageShift) {
		addr = 0
	}
	r := s.do(s.limited(&op{Kind: opBrk, Addr: addr}))
	if f := flags(s.future.Load()); f&(vmLocked|vmOnFault) == vmLocked && r.err == 0 && addr == r.addr {
		var start uint64
		s.engine.view(func(t *tree) { start = pageUp(t.brkStart) })
		if end := pageUp(addr); end > start {
			s.fill(start, end, linux.PROT_WRITE)
		}
	}
	s.breakAt.Store(r.addr)
	return r.addr
}

// SetBreakStart says where the break begins, for a program that was just loaded.
func (s *Space) SetBreakStart(addr uint64) {
	s.do(&op{Kind: opSetBrk, Addr: addr})
	s.breakAt.Store(addr)
}
