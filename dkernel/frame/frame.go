// Package frame hands out the 4 KiB frames that programs' memory and the page cache are made of. A [Pool] splits the 2 MiB slices of
// the shared memory that this dkernel was granted; it asks for more when it runs out and gives empty ones back.
//
// A [Frame] is counted: Alloc gives one reference, Ref adds one, Unref takes one away and frees the frame with the last. Every
// page table entry of a program, and every page of a page cache, holds one.
//
// All methods of Pool may be called by any number of goroutines.
//
// Lock order: Pool.growing, then Pool.mu; a shard's lock, then Pool.mu. Source is called with at most Pool.growing held.
package frame

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// Frame is the number of a 4 KiB page of the shared memory. 0 is none: that page has the layout's header and is never handed out.
type Frame uint64

// None is no frame.
const None Frame = 0

// Sizes.
const (
	Size      = 4096    // bytes of a frame
	SliceSize = 2 << 20 // bytes of a slice
	PerSlice  = SliceSize / Size
)

// Source is where slices come from and go to: the ckernel, by messages. Slice i is the bytes [i*SliceSize, (i+1)*SliceSize) of the
// shared memory.
type Source interface {
	// Take obtains a slice, and may block. An error means that there is none now; the pool's caller gets linux.ENOMEM.
	Take() (slice uint64, err error)
	// Give returns a slice in which no frame is used. It must not block for long, nor call the pool.
	Give(slice uint64)
}

// DefaultKeep is the default of Config.Keep.
const DefaultKeep = 2

// Config says what a pool works with.
type Config struct {
	Memory []byte // the shared memory, all of it; starts on a page border
	Base   uint64 // physical address of Memory[0]
	Source Source
	// Keep is how many empty slices are kept for the next need; when there are twice as many and one more, all above Keep are
	// given back. 0 means DefaultKeep.
	Keep int
}

// Pool has the frames of a dkernel.
type Pool struct {
	mem    []byte
	base   uint64
	source Source
	keep   int

	slices []atomic.Pointer[slice] // by number; nil: not ours
	shards [shards]shard

	growing sync.Mutex // one goroutine asks for a slice, the others wait for what it gets
	mu      sync.Mutex
	partial list // slices with some frames free; guarded by mu, as is all below
	empty   list // slices with all frames free
	held    int
	free    int // frames in partial and empty
	taken   uint64
	given   uint64
}

// New makes a pool without slices. Errors say what is wrong with c.
func New(c Config) (*Pool, error) {
	if len(c.Memory) == 0 || len(c.Memory)%SliceSize != 0 {
		return nil, fmt.Errorf("frame: shared memory of %d bytes, want a multiple of %d", len(c.Memory), SliceSize)
	}
	if misaligned(c.Memory) || c.Base%Size != 0 {
		return nil, fmt.Errorf("frame: shared memory at physical address %#x does not start on a page border", c.Base)
	}
	if c.Source == nil {
		return nil, fmt.Errorf("frame: no source of slices")
	}
	if c.Keep <= 0 {
		c.Keep = DefaultKeep
	}
	return &Pool{mem: c.Memory, base: c.Base, source: c.Source, keep: c.Keep,
		slices: make([]atomic.Pointer[slice], len(c.Memory)/SliceSize)}, nil
}

// Alloc returns a frame with one reference and undefined contents. The error is linux.ENOMEM. It may block while more memory is
// asked for.
func (p *Pool) Alloc() (Frame, error) {
	s := &p.shards[StackHash()>>(64-shardBits)]
	for {
		s.mu.Lock()
		if s.n == 0 {
			s.n = p.refill(s.frames[:batch])
		}
		f := s.pop()
		s.mu.Unlock()
		if f == None {
			f = p.steal()
		}
		if f != None {
			p.count(f).Store(1)
			return f, nil
		}
		if err := p.grow(); err != nil {
			return None, err
		}
	}
}

// AllocZero is Alloc of a frame that is zero.
func (p *Pool) AllocZero() (Frame, error) {
	f, err := p.Alloc()
	if err == nil {
		p.Zero(f)
	}
	return f, err
}

// Ref adds a reference to f, which the caller knows to have one.
func (p *Pool) Ref(f Frame) {
	if p.count(f).Add(1) <= 1 {
		panic(fmt.Sprintf("frame: reference to free frame %#x", uint64(f)))
	}
}

// Unref takes a reference away, and frees f if it was the last. No translation may lead to f any more then.
func (p *Pool) Unref(f Frame) {
	c := p.count(f)
	if c.Load() == 1 { // nobody else has one, so nobody can add one
		c.Store(0)
	} else if n := c.Add(-1); n > 0 {
		return
	} else if n < 0 {
		panic(fmt.Sprintf("frame: frame %#x freed twice", uint64(f)))
	}
	s := &p.shards[StackHash()>>(64-shardBits)]
	var back *slice
	s.mu.Lock()
	if s.n == len(s.frames) {
		back = p.spill(s.frames[len(s.frames)-batch:])
		s.n -= batch
	}
	s.frames[s.n] = f
	s.n++
	s.mu.Unlock()
	p.give(back)
}

// Refs is how many references f has, at this moment.
func (p *Pool) Refs(f Frame) int { return int(p.count(f).Load()) }

// Has reports whether f is in a slice that the pool holds.
func (p *Pool) Has(f Frame) bool {
	i := uint64(f) / PerSlice
	return f != None && i < uint64(len(p.slices)) && p.slices[i].Load() != nil
}

// Phys is the physical address of f.
func (p *Pool) Phys(f Frame) uint64 { return p.base + uint64(f)*Size }

// FromPhys is the frame at a physical address, None if it is not in the shared memory.
func (p *Pool) FromPhys(pa uint64) Frame {
	if pa-p.base >= uint64(len(p.mem)) {
		return None
	}
	return Frame((pa - p.base) / Size)
}

// Bytes is the memory of f.
func (p *Pool) Bytes(f Frame) []byte {
	off := uint64(f) * Size
	return p.mem[off : off+Size : off+Size]
}

// At is n bytes at a physical address, which are in one frame.
func (p *Pool) At(pa, n uint64) []byte {
	off := pa - p.base
	return p.mem[off : off+n : off+n]
}

// chunk is the most that Zero clears at once. With more, the runtime uses string instructions on processors that claim to be
// fast at them, and an emulated one is not: 4 KiB take ten times as long.
const chunk = 1024

// Zero clears f.
func (p *Pool) Zero(f Frame) {
	b := p.Bytes(f)
	clear(b[0*chunk : 1*chunk])
	clear(b[1*chunk : 2*chunk])
	clear(b[2*chunk : 3*chunk])
	clear(b[3*chunk : 4*chunk])
}

// Copy copies src to dst.
func (p *Pool) Copy(dst, src Frame) {
	copy(p.Bytes(dst), p.Bytes(src))
}

// count is the reference count of f. A frame of a slice that is not ours panics: it was never handed out, or is used after its slice
// was given back.
func (p *Pool) count(f Frame) *atomic.Int32 {
	if i := uint64(f) / PerSlice; i < uint64(len(p.slices)) {
		if s := p.slices[i].Load(); s != nil && f != None {
			return &s.refs[f%PerSlice]
		}
	}
	panic(fmt.Sprintf("frame: frame %#x is not in a slice of this pool", uint64(f)))
}

// Stats are the levels of a pool. Frames are used, or free.
type Stats struct {
	Slices      int    // held
	Used, Free  int    // frames; Free includes those cached by shards
	Taken, Back uint64 // slices taken and given back since New
}

// Stats counts. It is exact while nobody allocates or frees.
func (p *Pool) Stats() Stats {
	cached := 0
	for i := range p.shards {
		s := &p.shards[i]
		s.mu.Lock()
		cached += s.n
		s.mu.Unlock()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	st := Stats{Slices: p.held, Free: p.free + cached, Taken: p.taken, Back: p.given}
	total := p.held * PerSlice
	if p.slices[0].Load() != nil {
		total-- // frame 0
	}
	st.Used = total - st.Free
	return st
}
