package sys

import (
	"dinos/dkernel/futex"
	"dinos/dkernel/mm"
	"dinos/dkernel/proc"
	"dinos/dkernel/uio"
	"dinos/kernel/linux"
)

// Memory is the address space of a task.
type Memory = *Space

// Space is an address space as package proc wants it.
type Space struct{ *mm.Space }

var (
	_ proc.Space   = (*Space)(nil)
	_ uio.Memory   = (*Space)(nil)
	_ futex.Memory = (*Space)(nil)
)

// Fork implements proc.Space.
func (s *Space) Fork() (proc.Space, error) {
	c, err := s.Space.Fork()
	if err != nil {
		return nil, err
	}
	return &Space{c}, nil
}

// Release implements proc.Space.
func (s *Space) Release() { s.Put() }

// Resident implements proc.Space. The peak is not kept: it is what is resident now.
func (s *Space) Resident() (now, peak uint64) {
	st := s.Stat()
	n := (st.Own + st.File) << 12
	return n, n
}

// FutexKey implements futex.Memory.
func (s *Space) FutexKey(addr uint64, shared, write bool) (futex.Key, error) {
	if write {
		// A word that is going to be written must not change its key by the copy that the write makes.
		if _, err := s.Load32(addr); err != nil {
			return futex.Key{}, err
		}
		if s.Fault(addr, linux.PROT_WRITE) != mm.Resolved {
			return futex.Key{}, linux.EFAULT
		}
	}
	k, err := s.Space.FutexKey(addr, shared)
	return futex.Key{Object: k.Owner, Offset: k.Offset}, err
}

// CompareAndSwap32 implements futex.Memory.
func (s *Space) CompareAndSwap32(addr uint64, old, new uint32) (was uint32, err error) {
	for {
		ok, err := s.Space.CompareAndSwap32(addr, old, new)
		if err != nil || ok {
			return old, err
		}
		if was, err := s.Load32(addr); err != nil || was != old {
			return was, err
		}
	}
}
