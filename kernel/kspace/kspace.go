// Package kspace is the virtual memory that a kernel's own Go runtime lives in: what its mmap, munmap, mprotect and madvise
// calls and its page faults do. Memory is reserved as address space only, committed on request, and given frames
// when it is first touched.
//
// The package is pure: page tables are paging's, frames come from mem, and what only a CPU can do (clearing a frame,
// dropping translations everywhere) is behind the Machine interface. It allocates nothing and keeps no pointers to Go memory but
// those set by Init, so that it can be used by kernel code (see package trap). The caller holds one lock around every call;
// that lock also guards the frame allocator.
package kspace

import (
	"dinos/kernel/mem"
	"dinos/kernel/paging"
)

// Limits and sizes.
const (
	// MaxAreas bounds the number of ranges with different states. The runtime reserves and commits in large runs and
	// neighbours with equal state merge, so a handful are in use; a heap of 64 GiB needs no more.
	MaxAreas = 2048
	// Around is how much is given frames on one fault: 16 frames cost little more than one, and a heap grows forward.
	Around = 64 << 10
)

// Error is the type of this package's errors, which are constants.
type Error uint8

// Errors. A method that returns one has changed nothing.
const (
	ErrBadRange  Error = iota + 1 // misaligned, empty, or outside the window
	ErrExhausted                  // no address space left, or too many areas
	ErrNoMemory                   // no frame left
	ErrUnmapped                   // the address is not committed
	ErrReadOnly                   // write to memory committed without PROT_WRITE
)

func (e Error) Error() string {
	switch e {
	case ErrBadRange:
		return "kspace: range is misaligned, empty, or outside the kernel's window"
	case ErrExhausted:
		return "kspace: address space or area table exhausted"
	case ErrNoMemory:
		return "kspace: out of memory"
	case ErrUnmapped:
		return "kspace: address is not committed"
	case ErrReadOnly:
		return "kspace: memory is read-only"
	}
	return "kspace: unknown error"
}

// State of an area.
type State uint8

// The states. Nothing is accessible in a Reserved area.
const (
	Unused State = iota
	Reserved
	ReadOnly
	ReadWrite
)

type area struct {
	start, end uint64
	state      State
}

// Machine does what only a CPU can.
type Machine interface {
	// Clear zeroes the frame at physical address pa.
	Clear(pa uint64)
	// Flush returns when no CPU holds a translation that f describes.
	Flush(f paging.Flush)
}

// Space is the window and what is in it.
type Space struct {
	lo, hi   uint64
	next     uint64 // where the next reservation is looked for; addresses are not reused, there are plenty
	pt       *paging.Space
	frames   *mem.Allocator
	machine  Machine
	n        int
	areas    [MaxAreas]area // [:n] sorted, disjoint; neighbours that touch differ in state
	resident uint64         // frames in use
	batch    [Around / mem.FrameSize]uint64
	gone     [paging.Size2M / mem.FrameSize]uint64 // frames of an Unmap in progress
	ngone    int
}

// Stats counts bytes.
type Stats struct{ Reserved, Committed, Resident uint64 }

// Init makes s the empty window [lo, hi), page-aligned, whose page-table entries must be absent.
func (s *Space) Init(lo, hi uint64, pt *paging.Space, frames *mem.Allocator, m Machine) {
	s.lo, s.hi, s.next, s.n, s.resident = lo, hi, lo, 0, 0
	s.pt, s.frames, s.machine = pt, frames, m
}

// Stats returns the current counts.
func (s *Space) Stats() Stats {
	st := Stats{Resident: s.resident * mem.FrameSize}
	for i := range s.n {
		a := &s.areas[i]
		if a.state == Reserved {
			st.Reserved += a.end - a.start
		} else {
			st.Committed += a.end - a.start
		}
	}
	return st
}

// Reserve takes n bytes of unused address space, in the given state, and returns where.
func (s *Space) Reserve(n uint64, st State) (uint64, error) {
	n, ok := roundUp(n)
	if !ok || n == 0 {
		return 0, ErrBadRange
	}
	// 2 MiB alignment, so that large pages stay possible.
	va := (s.next + paging.Size2M - 1) &^ (paging.Size2M - 1)
	if n > s.hi-va {
		return 0, ErrExhausted
	}
	if !s.set(va, va+n, st) {
		return 0, ErrExhausted
	}
	s.next = va + n
	return va, nil
}

// Change puts [va, va+n), whatever it was, into state st, dropping the contents. It is mmap(MAP_FIXED), and with Unused munmap.
func (s *Space) Change(va, n uint64, st State) error {
	end, err := s.check(va, n)
	if err != nil {
		return err
	}
	if s.n+2 > MaxAreas {
		return ErrExhausted
	}
	s.drop(va, end)
	s.set(va, end, st)
	s.next = max(s.next, end)
	return nil
}

// Protect changes the access to [va, va+n) and keeps the contents; all of it must be in use.
func (s *Space) Protect(va, n uint64, st State) error {
	end, err := s.check(va, n)
	if err != nil {
		return err
	}
	at := va
	for i := s.find(va); i < s.n && s.areas[i].start <= at && at < end; i++ {
		at = s.areas[i].end
	}
	if at < end {
		return ErrUnmapped
	}
	if !s.set(va, end, st) {
		return ErrExhausted
	}
	set, clear := paging.Present|paging.Writable, paging.Attr(0)
	switch st {
	case ReadOnly:
		set, clear = paging.Present, paging.Writable
	case Reserved:
		set, clear = 0, paging.Present
	}
	f, err := s.pt.Protect(va, end-va, set, clear)
	if err != nil {
		return ErrNoMemory
	}
	s.machine.Flush(f)
	s.pt.Release(&f)
	return nil
}

// Discard drops the contents of [va, va+n): the next touch finds zeros. It is madvise(MADV_DONTNEED).
func (s *Space) Discard(va, n uint64) error {
	end, err := s.check(va, n)
	if err != nil {
		return err
	}
	s.drop(va, end)
	return nil
}

// Fault gives frames to the memory around va, which was touched (written if write) and had none. A nil error means: try again.
func (s *Space) Fault(va uint64, write bool) error {
	i := s.find(va)
	if i == s.n || va < s.areas[i].start || s.areas[i].state == Reserved {
		return ErrUnmapped
	}
	a := &s.areas[i]
	if write && a.state != ReadWrite {
		return ErrReadOnly
	}
	attr := paging.Present | paging.Global | paging.NoExecute
	if a.state == ReadWrite {
		attr |= paging.Writable
	}
	page := va &^ (mem.FrameSize - 1)
	if l, err := s.pt.Lookup(page); err == nil && l.Attr&paging.Present != 0 {
		return nil // another CPU was faster
	}
	lo := max(va&^(Around-1), a.start)
	hi := min(va&^(Around-1)+Around, a.end)
	got := s.frames.AllocBatch(s.batch[:(hi-lo)/mem.FrameSize])
	if got == 0 {
		return ErrNoMemory
	}
	// The page that was touched comes first: with few frames left it must be among those served.
	next := 0
	done := s.give(page, attr, &next)
	for p := lo; p < hi && next < got && done; p += mem.FrameSize {
		if p != page {
			s.give(p, attr, &next)
		}
	}
	for ; next < got; next++ {
		s.frames.Free4K(s.batch[next])
	}
	if !done {
		return ErrNoMemory
	}
	return nil
}

// give maps the next frame of the batch at va if nothing is there.
func (s *Space) give(va uint64, attr paging.Attr, next *int) bool {
	pa := s.batch[*next]
	// Cleared first: from the moment it is mapped other CPUs may write to it.
	s.machine.Clear(pa)
	if s.pt.Map(va, pa, mem.FrameSize, attr, paging.Size4K) != nil {
		return false
	}
	*next++
	s.resident++
	return true
}

// drop takes the frames of [va, end) away, in steps of what fits the list of frames that must wait for the flush.
func (s *Space) drop(va, end uint64) {
	for va < end && s.resident > 0 {
		next := min(end, va&^(paging.Size2M-1)+paging.Size2M)
		s.ngone = 0
		// Pages are 4 KiB, so nothing has to be split and there is no error.
		f, _ := s.pt.Unmap(va, next-va, func(l paging.Leaf) {
			s.gone[s.ngone] = l.PA
			s.ngone++
		})
		if f.Leaves > 0 {
			s.machine.Flush(f)
			s.pt.Release(&f)
			for _, pa := range s.gone[:s.ngone] {
				s.frames.Free4K(pa)
			}
			s.resident -= uint64(s.ngone)
		}
		va = next
	}
}

func (s *Space) check(va, n uint64) (end uint64, err error) {
	n, ok := roundUp(n)
	if !ok || n == 0 || va%mem.FrameSize != 0 || va < s.lo || va >= s.hi || n > s.hi-va {
		return 0, ErrBadRange
	}
	return va + n, nil
}

func roundUp(n uint64) (uint64, bool) {
	r := (n + mem.FrameSize - 1) &^ (mem.FrameSize - 1)
	return r, r >= n
}

// find returns the index of the first area that ends after va, n if none.
func (s *Space) find(va uint64) int {
	lo, hi := 0, s.n
	for lo < hi {
		m := (lo + hi) / 2
		if s.areas[m].end > va {
			hi = m
		} else {
			lo = m + 1
		}
	}
	return lo
}

// set gives [start, end) the state st, splitting and merging areas. False if the table is full; nothing is changed then.
func (s *Space) set(start, end uint64, st State) bool {
	if s.n+2 > MaxAreas {
		return false
	}
	i := s.find(start)
	if i < s.n && s.areas[i].start < start {
		s.split(i, start)
		i++
	}
	j := i
	for j < s.n && s.areas[j].end <= end {
		j++
	}
	if j < s.n && s.areas[j].start < end {
		s.split(j, end)
		j++
	}
	// Areas i..j-1 lie inside [start, end).
	if st == Unused {
		s.cut(i, j)
		return true
	}
	if i > 0 && s.areas[i-1].end == start && s.areas[i-1].state == st {
		i--
		start = s.areas[i].start
	}
	if j < s.n && s.areas[j].start == end && s.areas[j].state == st {
		end = s.areas[j].end
		j++
	}
	if i == j {
		copy(s.areas[i+1:s.n+1], s.areas[i:s.n])
		s.n++
		j++
	}
	s.areas[i] = area{start, end, st}
	s.cut(i+1, j)
	return true
}

// split cuts area i in two at va.
func (s *Space) split(i int, va uint64) {
	copy(s.areas[i+1:s.n+1], s.areas[i:s.n])
	s.n++
	s.areas[i].end = va
	s.areas[i+1].start = va
}

// cut removes areas i..j-1.
func (s *Space) cut(i, j int) {
	copy(s.areas[i:], s.areas[j:s.n])
	s.n -= j - i
}
