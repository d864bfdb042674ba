package mm

import (
	"dinos/dkernel/frame"
	"dinos/kernel/linux"
	"dinos/kernel/paging"
)

// Advise is madvise(2). Errors: EINVAL, ENOMEM, EACCES, EFAULT, EBUSY, EOPNOTSUPP, EIO. Advice about large pages and the order of
// accesses is kept; MADV_COLD and MADV_PAGEOUT have nothing to do where there is no swap.
func (s *Space) Advise(addr, n uint64, advice int) error {
	_, _, isFlag := adviceFlags(advice)
	switch advice {
	case linux.MADV_WILLNEED, linux.MADV_DONTNEED, linux.MADV_DONTNEED_LOCKED, linux.MADV_FREE, linux.MADV_REMOVE, linux.MADV_COLD,
		linux.MADV_PAGEOUT, linux.MADV_POPULATE_READ, linux.MADV_POPULATE_WRITE:
	default:
		if !isFlag {
			return linux.EINVAL
		}
	}
	if addr&(pageSize-1) != 0 {
		return linux.EINVAL
	}
	size := pageUp(n)
	if size < n || addr+size < addr {
		return linux.EINVAL
	}
	if size == 0 {
		return nil
	}
	if !inUser(addr, size) {
		return linux.ENOMEM
	}
	switch advice {
	case linux.MADV_WILLNEED, linux.MADV_COLD, linux.MADV_PAGEOUT:
		return s.present(addr, size)
	case linux.MADV_REMOVE:
		return s.punch(addr, size)
	case linux.MADV_POPULATE_READ:
		return s.bringAll(addr, size, linux.PROT_READ)
	case linux.MADV_POPULATE_WRITE:
		return s.bringAll(addr, size, linux.PROT_WRITE)
	}
	return result(s.do(s.limited(&op{Kind: opAdvise, Addr: addr, Len: size, Flags: uint64(advice)})).err)
}

// present reports linux.ENOMEM if the range has holes.
func (s *Space) present(addr, n uint64) error {
	full := false
	s.engine.view(func(t *tree) { _, full = t.mapped(addr, addr+n) })
	if !full {
		return linux.ENOMEM
	}
	return nil
}

// bringAll is MADV_POPULATE_*.
func (s *Space) bringAll(addr, n uint64, prot int) error {
	if err := s.present(addr, n); err != nil {
		return err
	}
	switch _, out := s.fill(addr, addr+n, prot); out {
	case Resolved:
		return nil
	case MapError, NoMemory:
		return linux.ENOMEM
	case AccError:
		return linux.EINVAL
	default:
		return linux.EFAULT
	}
}

// stretch is a part of an object that is mapped somewhere.
type stretch struct {
	start, end  uint64
	b           *binding // nil: private memory
	flags       flags
	first, last uint64 // pages
}

// stretches lists what of objects is mapped in the range, and whether there are holes. The bindings are pinned.
func (s *Space) stretches(addr, n uint64) (out []stretch, full bool) {
	end := addr + n
	s.engine.view(func(t *tree) {
		_, full = t.mapped(addr, end)
		for v := t.at(addr); v != nil && v.start < end; v = v.next {
			st := stretch{start: max(v.start, addr), end: min(v.end, end), b: v.bind, flags: v.flags}
			if v.bind != nil {
				st.first, st.last = v.index(st.start), v.index(st.end-pageSize)
			}
			out = append(out, st)
		}
	})
	for i := range out {
		if b := out[i].b; b != nil && !b.keep() {
			out[i].b = nil // unmapped meanwhile
		}
	}
	return out, full
}

func (s *Space) done(list []stretch) {
	for _, st := range list {
		if st.b != nil {
			s.unpin(st.b, 1)
		}
	}
}

// punch is MADV_REMOVE.
func (s *Space) punch(addr, n uint64) error {
	list, full := s.stretches(addr, n)
	defer s.done(list)
	for _, st := range list {
		switch {
		case st.flags&vmLocked != 0 || st.b == nil:
			return linux.EINVAL
		case st.flags&(vmShared|vmMayWrite) != vmShared|vmMayWrite:
			return linux.EACCES
		}
		p, ok := st.b.obj.(Puncher)
		if !ok {
			return linux.EOPNOTSUPP
		}
		if err := p.Punch(st.first<<pageShift, (st.last-st.first+1)<<pageShift); err != nil {
			return err
		}
	}
	if !full {
		return linux.ENOMEM
	}
	return nil
}

// Sync is msync(2). Errors: EINVAL, ENOMEM, EBUSY, and those of writing back.
func (s *Space) Sync(addr, n uint64, how int) error {
	const all = linux.MS_ASYNC | linux.MS_SYNC | linux.MS_INVALIDATE
	if how&^all != 0 || addr&(pageSize-1) != 0 || how&(linux.MS_ASYNC|linux.MS_SYNC) == linux.MS_ASYNC|linux.MS_SYNC {
		return linux.EINVAL
	}
	size := pageUp(n)
	switch {
	case size < n || addr+size < addr:
		return linux.ENOMEM
	case size == 0:
		return nil
	case !inUser(addr, size):
		return linux.ENOMEM
	}
	list, full := s.stretches(addr, size)
	defer s.done(list)
	for _, st := range list {
		if how&linux.MS_INVALIDATE != 0 && st.flags&vmLocked != 0 {
			return linux.EBUSY
		}
		if how&linux.MS_SYNC != 0 && st.b != nil && st.flags&vmShared != 0 {
			if err := st.b.obj.Sync(st.first, st.last, true); err != nil {
				return err
			}
		}
	}
	if !full {
		return linux.ENOMEM
	}
	return nil
}

// Incore is mincore(2): bit 0 of vec[i] says whether page i from addr on is in memory. vec has a byte for each page of n bytes,
// rounded up. Errors: EINVAL, ENOMEM.
func (s *Space) Incore(addr, n uint64, vec []byte) error {
	size := pageUp(n)
	switch {
	case addr&(pageSize-1) != 0:
		return linux.EINVAL
	case size < n || size != 0 && !inUser(addr, size) || uint64(len(vec)) < size>>pageShift:
		return linux.ENOMEM
	case size == 0:
		return nil
	}
	list, full := s.stretches(addr, size)
	defer s.done(list)
	if !full {
		return linux.ENOMEM
	}
	clear(vec[:size>>pageShift])
	for _, st := range list {
		if st.b != nil {
			s.cached(st, vec[(st.start-addr)>>pageShift:(st.end-addr)>>pageShift])
		}
	}
	s.engine.view(func(t *tree) {
		_ = t.pt.Walk(addr, size, func(l paging.Leaf) bool {
			vec[(l.VA-addr)>>pageShift] = 1
			return true
		})
	})
	return nil
}

// cached sets what the object of st has in memory.
func (s *Space) cached(st stretch, vec []byte) {
	var frames [64]frame.Frame
	for i := 0; i < len(vec); i += len(frames) {
		n := min(len(vec)-i, len(frames))
		index := st.first + uint64(i)
		if st.flags&vmRepeat != 0 {
			index, n = st.first, 1
		}
		part := frames[:n]
		clear(part)
		st.b.obj.Cached(index, part)
		for j, f := range part {
			if f != frame.None {
				vec[i+j] = 1
				s.sys.unref(f)
			}
		}
		if st.flags&vmRepeat != 0 {
			for j := range vec {
				vec[j] = vec[0]
			}
			return
		}
	}
}
