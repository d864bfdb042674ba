package mem

import "math/bits"

// frames is the half-open range of frame numbers [start, end).
type frames struct {
	start, end uint64
}

// regionSet is a sorted set of disjoint ranges that do not touch.
type regionSet struct {
	r [MaxRegions]frames
	n int
}

// init sets s to the frames that lie wholly inside the union of regions.
// Firmware maps come unsorted and overlapping, and two regions may meet in the
// middle of a frame, so bytes are merged before they are rounded to frames.
func (s *regionSet) init(regions []Range) error {
	s.n = 0
	for _, r := range regions {
		if r.Size == 0 {
			continue
		}
		if r.Start >= MaxPhys || r.Size > MaxPhys-r.Start {
			return ErrBadRange
		}
		if err := s.add(r.Start, r.Start+r.Size); err != nil {
			return err
		}
	}
	n := 0
	for _, r := range s.r[:s.n] {
		r.start = (r.start + FrameSize - 1) >> FrameShift
		r.end >>= FrameShift
		if r.start < r.end {
			s.r[n] = r
			n++
		}
	}
	s.n = n
	return nil
}

// add inserts the bytes [start, end), merging what it touches.
func (s *regionSet) add(start, end uint64) error {
	i := 0
	for i < s.n && s.r[i].end < start {
		i++
	}
	j := i
	for j < s.n && s.r[j].start <= end {
		start = min(start, s.r[j].start)
		end = max(end, s.r[j].end)
		j++
	}
	if i == j && s.n == MaxRegions {
		return ErrTooManyRegions
	}
	copy(s.r[i+1:], s.r[j:s.n])
	s.n += i + 1 - j
	s.r[i] = frames{start, end}
	return nil
}

// contains tells whether all of [start, end) is in one range of s.
func (s *regionSet) contains(start, end uint64) bool {
	for _, r := range s.r[:s.n] {
		if r.start <= start && end <= r.end {
			return true
		}
	}
	return false
}

// mask has the bits of word w that frames [lo, hi) of a block occupy.
func mask(w, lo, hi int) uint64 {
	lo, hi = max(lo-w*64, 0), min(hi-w*64, 64)
	if lo >= hi {
		return 0
	}
	return ^uint64(0) >> (64 - uint(hi-lo)) << uint(lo)
}

// window is the part of a range of frames that lies in one block.
type window struct {
	i      uint32 // descriptor, or none for a block without RAM
	lo, hi int    // frames of the block
}

// cut returns the part of [f, end) that is in f's block.
func (a *Allocator) cut(f, end uint64) window {
	lo := int(f % framesPerBlock)
	hi := int(min(uint64(framesPerBlock), uint64(lo)+end-f))
	i, ok := a.index(f / framesPerBlock)
	if !ok {
		i = none
	}
	return window{i, lo, hi}
}

// setUsable marks [start, end) usable and free, or reserved. Frames that are
// already so are left alone; allocated ones must not be in the range.
func (a *Allocator) setUsable(start, end uint64, usable bool) {
	for f := start; f < end; {
		c := a.cut(f, end)
		f += uint64(c.hi - c.lo)
		if c.i == none {
			continue
		}
		b := &a.blocks[c.i]
		for w := range words {
			m := mask(w, c.lo, c.hi)
			if usable {
				m &^= b.usable[w]
				b.usable[w] |= m
				a.usable += uint64(bits.OnesCount64(m))
				a.put(b, w, m)
			} else {
				m &= b.usable[w]
				b.usable[w] &^= m
				a.usable -= uint64(bits.OnesCount64(m))
				a.take(b, w, m)
			}
		}
		a.relist(c.i)
	}
}

// put marks the frames m of word w free; they must not be. relist must follow.
func (a *Allocator) put(b *Block, w int, m uint64) {
	n := bits.OnesCount64(m)
	b.free[w] |= m
	b.nfree += uint16(n)
	a.nfree += uint64(n)
	if b.free[w] != 0 {
		b.sum |= 1 << w
	}
}

// take marks the frames m of word w not free; they must be. relist must follow.
func (a *Allocator) take(b *Block, w int, m uint64) {
	n := bits.OnesCount64(m)
	b.free[w] &^= m
	b.nfree -= uint16(n)
	a.nfree -= uint64(n)
	if b.free[w] == 0 {
		b.sum &^= 1 << w
	}
}

// outward returns the frames that r touches.
func outward(r Range) (start, end uint64, err error) {
	if r.Size == 0 || r.Start >= MaxPhys || r.Size > MaxPhys-r.Start {
		return 0, 0, ErrBadRange
	}
	return r.Start >> FrameShift, (r.Start + r.Size + FrameSize - 1) >> FrameShift, nil
}

// Reserve takes every frame that r touches out of use: it is never handed out and
// freeing it is an error. Parts that are no RAM or already reserved are skipped.
// ErrInUse if the range holds an allocated frame.
func (a *Allocator) Reserve(r Range) error {
	start, end, err := outward(r)
	if err != nil {
		return err
	}
	for f := start; f < end; {
		c := a.cut(f, end)
		f += uint64(c.hi - c.lo)
		if c.i == none {
			continue
		}
		b := &a.blocks[c.i]
		for w := range words {
			if b.usable[w]&^b.free[w]&mask(w, c.lo, c.hi) != 0 {
				return ErrInUse
			}
		}
	}
	a.setUsable(start, end, false)
	return nil
}

// Release undoes Reserve for the frames that lie wholly inside r, which must be
// RAM of the allocator (such as the initial module once it has been read). Frames
// that are not reserved keep their state.
func (a *Allocator) Release(r Range) error {
	if _, _, err := outward(r); err != nil {
		return err
	}
	start, end := (r.Start+FrameSize-1)>>FrameShift, (r.Start+r.Size)>>FrameShift
	if start >= end {
		return ErrBadRange
	}
	if !a.regions.contains(start, end) {
		return ErrForeign
	}
	a.setUsable(start, end, true)
	return nil
}

// AllocContig takes n consecutive frames whose first address is a multiple of
// align bytes (a power of two, at least FrameSize) and whose last byte is below
// the address below (0 for no limit). It is for devices: first fit from low
// addresses, in time linear in the memory that it passes over.
func (a *Allocator) AllocContig(n, align, below uint64) (uint64, error) {
	if n == 0 || n > MaxPhys/FrameSize {
		return 0, ErrBadRange
	}
	if align < FrameSize || align&(align-1) != 0 {
		return 0, ErrMisaligned
	}
	if below == 0 || below > MaxPhys {
		below = MaxPhys
	}
	limit, step := below>>FrameShift, align>>FrameShift
	for s := range a.spans[:a.nspans] {
		end := min(limit, (a.spans[s].first+a.spans[s].n)*framesPerBlock)
		f := alignUp(a.spans[s].first*framesPerBlock, step)
		for f < end && n <= end-f {
			busy, found := a.firstBusy(f, f+n)
			if !found {
				a.takeRange(f, f+n)
				return f << FrameShift, nil
			}
			f = alignUp(busy+1, step)
		}
	}
	return 0, ErrNoMemory
}

// FreeContig gives back n consecutive frames from addr, which must all be
// allocated, no matter how.
func (a *Allocator) FreeContig(addr, n uint64) error {
	if addr%FrameSize != 0 {
		return ErrMisaligned
	}
	if n == 0 || addr >= MaxPhys || n > (MaxPhys-addr)>>FrameShift {
		return ErrBadRange
	}
	start := addr >> FrameShift
	end := start + n
	var double bool
	for f := start; f < end; {
		c := a.cut(f, end)
		f += uint64(c.hi - c.lo)
		if c.i == none {
			return ErrForeign
		}
		b := &a.blocks[c.i]
		for w := range words {
			m := mask(w, c.lo, c.hi)
			if m&^b.usable[w] != 0 {
				return ErrForeign
			}
			double = double || m&b.free[w] != 0
		}
	}
	if double {
		return ErrDoubleFree
	}
	for f := start; f < end; {
		c := a.cut(f, end)
		f += uint64(c.hi - c.lo)
		b := &a.blocks[c.i]
		for w := range words {
			a.put(b, w, mask(w, c.lo, c.hi))
		}
		a.relist(c.i)
	}
	return nil
}

// alignUp rounds f up to a multiple of step, a power of two. Frame numbers have
// at most 40 bits, so it cannot overflow.
func alignUp(f, step uint64) uint64 {
	return (f + step - 1) &^ (step - 1)
}

// firstBusy returns a frame of [start, end) that is not free, the last of its
// block when the whole block is taken, so that a search passes it in one step.
func (a *Allocator) firstBusy(start, end uint64) (uint64, bool) {
	for f := start; f < end; {
		c := a.cut(f, end)
		if c.i == none {
			return f | (framesPerBlock - 1), true
		}
		b := &a.blocks[c.i]
		if b.nfree == 0 {
			return f | (framesPerBlock - 1), true
		}
		base := f - uint64(c.lo)
		for w := c.lo / 64; w*64 < c.hi; w++ {
			if busy := mask(w, c.lo, c.hi) &^ b.free[w]; busy != 0 {
				return base + uint64(w*64+bits.TrailingZeros64(busy)), true
			}
		}
		f += uint64(c.hi - c.lo)
	}
	return 0, false
}

// takeRange marks [start, end), all free, allocated.
func (a *Allocator) takeRange(start, end uint64) {
	for f := start; f < end; {
		c := a.cut(f, end)
		f += uint64(c.hi - c.lo)
		b := &a.blocks[c.i]
		for w := range words {
			a.take(b, w, mask(w, c.lo, c.hi))
		}
		a.relist(c.i)
	}
}
