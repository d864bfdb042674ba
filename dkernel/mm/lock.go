package mm

import "dinos/kernel/linux"

// Lock is mlock2(2); mlock(2) has no flags. Memory is never paged out here: what locking does is bring the pages in, and count.
// Errors: EINVAL, ENOMEM, EPERM.
func (s *Space) Lock(addr, n uint64, how int) error {
	if how&^linux.MLOCK_ONFAULT != 0 {
		return linux.EINVAL
	}
	if s.lockLimit() == 0 {
		return linux.EPERM
	}
	f := vmLocked
	if how&linux.MLOCK_ONFAULT != 0 {
		f |= vmOnFault
	}
	start, size, err := s.lockRange(addr, n, f)
	if err == nil && size != 0 && f&vmOnFault == 0 {
		err = s.bringLocked(start, start+size)
	}
	return err
}

// Unlock is munlock(2). Errors: EINVAL, ENOMEM.
func (s *Space) Unlock(addr, n uint64) error {
	_, _, err := s.lockRange(addr, n, 0)
	return err
}

func (s *Space) lockRange(addr, n uint64, f flags) (start, size uint64, err error) {
	start = addr &^ (pageSize - 1)
	size = pageUp(n + addr - start)
	switch {
	case n == 0:
		return start, 0, nil
	case size < n || start+size < start:
		return 0, 0, linux.EINVAL
	}
	return start, size, result(s.do(s.limited(&op{Kind: opLock, Addr: start, Len: size, Flags: uint64(f)})).err)
}

// bringLocked brings in what was locked, but for what may not be accessed at all.
func (s *Space) bringLocked(start, end uint64) error {
	list, _ := s.stretches(start, end-start)
	defer s.done(list)
	for _, st := range list {
		if st.flags&vmProt == 0 {
			continue
		}
		prot := linux.PROT_READ
		if st.flags&(vmWrite|vmShared) == vmWrite {
			prot = linux.PROT_WRITE
		}
		switch _, out := s.fill(st.start, st.end, prot); out {
		case Resolved:
		case NoMemory:
			return linux.EAGAIN
		default:
			return linux.ENOMEM
		}
	}
	return nil
}

// LockAll is mlockall(2). Errors: EINVAL, ENOMEM, EPERM.
func (s *Space) LockAll(how int) error {
	const all = linux.MCL_CURRENT | linux.MCL_FUTURE | linux.MCL_ONFAULT
	if how == 0 || how&^all != 0 || how == linux.MCL_ONFAULT {
		return linux.EINVAL
	}
	limit := s.lockLimit()
	if limit == 0 {
		return linux.EPERM
	}
	f := vmLocked
	if how&linux.MCL_ONFAULT != 0 {
		f |= vmOnFault
	}
	if how&linux.MCL_CURRENT != 0 {
		var total uint64
		s.engine.view(func(t *tree) { total = t.count.total })
		if total > limit {
			return linux.ENOMEM
		}
	}
	next := flags(0)
	if how&linux.MCL_FUTURE != 0 {
		next = f
	}
	s.setFuture(next)
	if how&linux.MCL_CURRENT != 0 {
		s.do(s.limited(&op{Kind: opLock, Flags: uint64(f)}))
		if f&vmOnFault == 0 {
			_ = s.bringLocked(0, userTop) // what cannot be brought in is no error here
		}
	}
	return nil
}

// UnlockAll is munlockall(2).
func (s *Space) UnlockAll() {
	s.setFuture(0)
	s.do(s.limited(&op{Kind: opLock}))
}

func (s *Space) setFuture(f flags) {
	s.do(&op{Kind: opFuture, Flags: uint64(f)})
	s.future.Store(uint64(f))
}
