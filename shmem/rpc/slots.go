package rpc

import (
	"sync/atomic"

	"dinos/shmem/region"
)

// slots is the set of a connection's free call slots: a stack of indices (Treiber, 1986) whose head counts its changes, so that a
// compare-and-swap cannot take a head that has been away for the same one. Taking and putting back cost no lock and no channel, which
// would be half of a call.
type slots struct {
	head    atomic.Uint64   // changes<<32 | index+1 of the first free slot, 0 if there is none
	next    []atomic.Uint64 // index+1 of the free slot behind that one
	waiters atomic.Int32
	freed   chan struct{} // has a value if a slot came free while somebody waited
}

func (s *slots) init(n int) {
	s.next, s.freed = make([]atomic.Uint64, n), make(chan struct{}, 1)
	for i := range n {
		s.put(uint32(n - 1 - i))
	}
}

// take takes a free slot.
func (s *slots) take() (uint32, bool) {
	for {
		h := s.head.Load()
		if uint32(h) == 0 {
			return 0, false
		}
		i := uint32(h) - 1
		if s.head.CompareAndSwap(h, (h>>32+1)<<32|s.next[i].Load()) {
			return i, true
		}
	}
}

func (s *slots) put(i uint32) {
	for {
		h := s.head.Load()
		region.StoreRelaxed(&s.next[i], h&0xffffffff) // the swap publishes it
		if s.head.CompareAndSwap(h, (h>>32+1)<<32|uint64(i+1)) {
			break
		}
	}
	// Who waits has counted itself before it looked for a slot in vain, so one of the two sees the other.
	if s.waiters.Load() > 0 {
		signal(s.freed)
	}
}

// wait counts the caller as somebody who waits for freed; the result undoes that. A slot that came free for one may have come free
// for several, so who leaves passes the signal on.
func (s *slots) wait() (leave func()) {
	s.waiters.Add(1)
	return func() {
		if s.waiters.Add(-1) > 0 && uint32(s.head.Load()) != 0 {
			signal(s.freed)
		}
	}
}

// count is the number of free slots, if nobody takes or puts one.
func (s *slots) count() int {
	n := 0
	for i := uint32(s.head.Load()); i != 0; i = uint32(s.next[i-1].Load()) {
		n++
	}
	return n
}
