// Package mem allocates physical page frames.
//
// The unit is a 4 KiB frame; memory is kept in 2 MiB blocks of 512 frames, each
// with one Block descriptor that holds a bitmap of its free frames. Blocks that
// are entirely free and blocks that are partly free are on two lists, linked by
// index, so a frame or a whole block is found, taken and given back in constant
// time whatever the amount of memory. (Finding the descriptor of an address is a
// binary search over at most MaxRegions spans, in practice two or three.)
//
// Frames are taken from partly free blocks first, which keeps 2 MiB blocks whole
// (the aim of Linux' page grouping by mobility, reached here by bitmaps instead
// of a buddy system, since only two sizes are needed). Whole blocks are taken
// from high addresses first, so that memory below 4 GiB stays for devices.
//
// # Context
//
// The allocator runs inside the Go runtime's own mmap calls, where nothing may be
// allocated and no pointer may be stored. So descriptors live in a slice handed
// in by the caller (Needed says how many), everything at run time is indices and
// integers, and errors are constants. Nothing here panics on bad arguments.
//
// # Concurrency
//
// An Allocator is not locked: the caller holds one lock around every method. A
// Cache belongs to one CPU and keeps that lock cold; see its comment.
//
// Addresses are physical, in bytes.
package mem

import "math/bits"

// Sizes of the two units of allocation and limits.
const (
	FrameShift = 12
	FrameSize  = 1 << FrameShift // bytes in a frame
	BlockShift = 21
	BlockSize  = 1 << BlockShift // bytes in a block
	MaxRegions = 128             // regions of RAM after merging
	MaxPhys    = 1 << 52         // limit of physical addresses (Intel SDM vol. 3A §4.1.4)

	framesPerBlock = BlockSize / FrameSize
	words          = framesPerBlock / 64
)

// Error is the type of this package's errors, which are constants: returning one
// allocates nothing.
type Error uint8

// Errors. No method that returns one has changed anything.
const (
	ErrNoMemory       Error = iota + 1 // nothing free that fits
	ErrMisaligned                      // address or alignment is not what the size requires
	ErrForeign                         // not memory of this allocator, or reserved
	ErrDoubleFree                      // already free
	ErrInUse                           // the range to reserve holds allocated frames
	ErrTooManyRegions                  // more than MaxRegions separate regions
	ErrTooFewBlocks                    // the descriptor slice is shorter than Needed
	ErrBadRange                        // empty, wraps around, or beyond MaxPhys
)

var errorText = [...]string{
	ErrNoMemory:       "mem: out of physical memory",
	ErrMisaligned:     "mem: misaligned physical address or alignment not a power of two",
	ErrForeign:        "mem: address is not managed by this allocator or is reserved",
	ErrDoubleFree:     "mem: frame is already free",
	ErrInUse:          "mem: range holds allocated frames",
	ErrTooManyRegions: "mem: more than 128 separate regions of memory",
	ErrTooFewBlocks:   "mem: descriptor slice is shorter than Needed",
	ErrBadRange:       "mem: range is empty, wraps around or exceeds 52 bits",
}

func (e Error) Error() string {
	if int(e) < len(errorText) && errorText[e] != "" {
		return errorText[e]
	}
	return "mem: unknown error"
}

// Range is Size bytes of physical memory from Start, of any alignment.
type Range struct {
	Start, Size uint64
}

// Block describes one 2 MiB block. It is exported only so that the caller can
// provide the memory; Init sets it up.
type Block struct {
	free   [words]uint64 // bit set: frame is free
	usable [words]uint64 // bit set: frame is RAM and not reserved
	next   uint32        // list links: index of a Block, or none
	prev   uint32
	number uint32 // address >> BlockShift; 52 address bits leave 31
	nfree  uint16 // bits set in free
	sum    uint8  // bit i set: free[i] != 0
	list   uint8  // listNone, listPartial or listWhole
}

// list a block is on; listNone has no head, its blocks have no free frame.
const (
	listPartial = iota
	listWhole
	listNone
)

const none = ^uint32(0)

// span is a run of consecutive blocks with consecutive descriptors.
type span struct {
	first uint64 // number of the first block (address >> BlockShift)
	n     uint64 // blocks
	base  uint32 // index of the first one's descriptor
}

// Allocator hands out the frames of the regions it was initialised with.
type Allocator struct {
	blocks  []Block // set once by Init
	spans   [MaxRegions]span
	nspans  int
	regions regionSet
	heads   [2]uint32 // by list
	nwhole  uint64    // blocks on listWhole
	total   uint64    // frames of RAM
	usable  uint64    // of which not reserved
	nfree   uint64    // of which not allocated
}

// Stats counts memory. Total = Reserved + Allocated + Free.
type Stats struct {
	Total      uint64 // frames of RAM in the regions
	Reserved   uint64 // frames
	Allocated  uint64 // frames
	Free       uint64 // frames
	FreeBlocks uint64 // 2 MiB blocks that are entirely free
}

// Needed returns how many Block descriptors the regions need. Regions may be unsorted and may overlap.
func Needed(regions []Range) (int, error) {
	var set regionSet
	if err := set.init(regions); err != nil {
		return 0, err
	}
	var n, next uint64
	for _, r := range set.r[:set.n] {
		first, last := r.start>>9, (r.end-1)>>9
		first = max(first, next)
		if last >= first {
			n += last - first + 1
		}
		next = last + 1
	}
	return int(n), nil
}

// Init makes a an allocator of all frames that lie wholly inside regions, all of
// them free. It keeps blocks, whose contents need not be clear, until a is no
// longer used.
func (a *Allocator) Init(blocks []Block, regions []Range) error {
	need, err := Needed(regions)
	if err != nil {
		return err
	}
	if len(blocks) < need {
		return ErrTooFewBlocks
	}
	if err := a.regions.init(regions); err != nil {
		return err
	}
	a.blocks = blocks[:need]
	clear(a.blocks)
	a.heads = [2]uint32{none, none}
	a.nspans, a.nwhole, a.total, a.usable, a.nfree = 0, 0, 0, 0, 0
	a.layOut()
	for s := range a.spans[:a.nspans] {
		s := &a.spans[s]
		for k := range s.n {
			b := &a.blocks[uint64(s.base)+k]
			b.list, b.number = listNone, uint32(s.first+k)
		}
	}
	for i := range a.regions.r[:a.regions.n] {
		r := a.regions.r[i]
		a.total += r.end - r.start
		a.setUsable(r.start, r.end, true)
	}
	return nil
}

// layOut gives every block that holds RAM its descriptor.
func (a *Allocator) layOut() {
	var base uint64
	for _, r := range a.regions.r[:a.regions.n] {
		first, last := r.start>>9, (r.end-1)>>9
		if a.nspans > 0 {
			s := &a.spans[a.nspans-1]
			if first <= s.first+s.n { // shares or continues the last span
				add := last + 1 - (s.first + s.n)
				s.n += add
				base += add
				continue
			}
		}
		a.spans[a.nspans] = span{first: first, n: last - first + 1, base: uint32(base)}
		a.nspans++
		base += last - first + 1
	}
}

// Stats returns the current counts.
func (a *Allocator) Stats() Stats {
	return Stats{
		Total:      a.total,
		Reserved:   a.total - a.usable,
		Allocated:  a.usable - a.nfree,
		Free:       a.nfree,
		FreeBlocks: a.nwhole,
	}
}

// index returns the descriptor index of block number bn.
func (a *Allocator) index(bn uint64) (uint32, bool) {
	lo, hi := 0, a.nspans
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		if s := &a.spans[m]; bn < s.first {
			hi = m
		} else if bn-s.first >= s.n {
			lo = m + 1
		} else {
			return s.base + uint32(bn-s.first), true
		}
	}
	return none, false
}

// addr returns the address of the block that descriptor i describes.
func (a *Allocator) addr(i uint32) uint64 {
	return uint64(a.blocks[i].number) << BlockShift
}

// relist puts block i on the list that its count calls for, at the head.
func (a *Allocator) relist(i uint32) {
	b := &a.blocks[i]
	want := uint8(listPartial)
	switch b.nfree {
	case 0:
		want = listNone
	case framesPerBlock:
		want = listWhole
	}
	if want == b.list {
		return
	}
	if b.list != listNone {
		if b.prev == none {
			a.heads[b.list] = b.next
		} else {
			a.blocks[b.prev].next = b.next
		}
		if b.next != none {
			a.blocks[b.next].prev = b.prev
		}
		if b.list == listWhole {
			a.nwhole--
		}
	}
	b.list = want
	if want == listNone {
		return
	}
	head := a.heads[want]
	b.prev, b.next = none, head
	if head != none {
		a.blocks[head].prev = i
	}
	a.heads[want] = i
	if want == listWhole {
		a.nwhole++
	}
}

// pick returns the block to take single frames from, or none.
func (a *Allocator) pick() uint32 {
	if i := a.heads[listPartial]; i != none {
		return i
	}
	return a.heads[listWhole]
}

// Alloc4K takes one frame and returns its address. The contents are undefined.
func (a *Allocator) Alloc4K() (uint64, error) {
	i := a.pick()
	if i == none {
		return 0, ErrNoMemory
	}
	b := &a.blocks[i]
	w := bits.TrailingZeros8(b.sum) & (words - 1) // the mask spares a bounds check
	bit := bits.TrailingZeros64(b.free[w])
	b.free[w] &^= 1 << bit
	if b.free[w] == 0 {
		b.sum &^= 1 << w
	}
	b.nfree--
	a.nfree--
	a.relist(i)
	return a.addr(i) + uint64(w*64+bit)<<FrameShift, nil
}

// AllocBatch takes up to len(out) frames, as many as there are, and returns how
// many it stored.
func (a *Allocator) AllocBatch(out []uint64) int {
	n := 0
	for n < len(out) {
		i := a.pick()
		if i == none {
			break
		}
		b := &a.blocks[i]
		base := a.addr(i)
		start := n
		for b.sum != 0 && n < len(out) {
			w := bits.TrailingZeros8(b.sum) & (words - 1)
			m := b.free[w]
			for m != 0 && n < len(out) {
				out[n] = base + uint64(w*64+bits.TrailingZeros64(m))<<FrameShift
				m &= m - 1
				n++
			}
			b.free[w] = m
			if m == 0 {
				b.sum &^= 1 << w
			}
		}
		b.nfree -= uint16(n - start)
		a.nfree -= uint64(n - start)
		a.relist(i)
	}
	return n
}

// Free4K gives one frame back, also one that came from Alloc2M or AllocContig.
func (a *Allocator) Free4K(addr uint64) error {
	if addr%FrameSize != 0 {
		return ErrMisaligned
	}
	i, ok := a.index(addr >> BlockShift)
	if !ok {
		return ErrForeign
	}
	b := &a.blocks[i]
	f := addr >> FrameShift % framesPerBlock
	w, m := f/64, uint64(1)<<(f%64)
	if b.usable[w]&m == 0 {
		return ErrForeign
	}
	if b.free[w]&m != 0 {
		return ErrDoubleFree
	}
	b.free[w] |= m
	b.sum |= 1 << w
	b.nfree++
	a.nfree++
	a.relist(i)
	return nil
}

// Alloc2M takes one whole block and returns its address, a multiple of 2 MiB.
func (a *Allocator) Alloc2M() (uint64, error) {
	i := a.heads[listWhole]
	if i == none {
		return 0, ErrNoMemory
	}
	b := &a.blocks[i]
	b.free = [words]uint64{}
	b.sum, b.nfree = 0, 0
	a.nfree -= framesPerBlock
	a.relist(i)
	return a.addr(i), nil
}

// Free2M gives back the 512 frames of the block at addr, which must all be
// allocated, no matter how.
func (a *Allocator) Free2M(addr uint64) error {
	if addr%BlockSize != 0 {
		return ErrMisaligned
	}
	return a.FreeContig(addr, framesPerBlock)
}
