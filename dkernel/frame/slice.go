package frame

import (
	"math/bits"
	"sync"
	"sync/atomic"

	"dinos/kernel/linux"
)

const (
	shardBits = 3
	shards    = 1 << shardBits // caches of free frames; goroutines spread over them
	batch     = 32             // frames that move between a shard and the slices at a time
)

// shard caches free frames.
type shard struct {
	mu     sync.Mutex
	n      int
	frames [2 * batch]Frame // the first n; guarded by mu
	_      [48]byte         // locks of neighbours on lines of their own
}

// pop takes a frame out, None if there is none. s.mu is held.
func (s *shard) pop() Frame {
	if s.n == 0 {
		return None
	}
	s.n--
	return s.frames[s.n]
}

// slice is a granted slice.
type slice struct {
	refs       [PerSlice]atomic.Int32
	number     uint64
	free       [PerSlice / 64]uint64 // a bit for each free frame that no shard has; guarded by Pool.mu, as is all below
	n          int                   // bits set
	all        int                   // n of an empty slice
	in         *list
	next, prev *slice
}

// list is a list of slices, guarded by Pool.mu.
type list struct {
	head *slice
	len  int
}

// move puts s into l, nil for none.
func (s *slice) move(l *list) {
	if s.in == l {
		return
	}
	if s.in != nil {
		if s.prev != nil {
			s.prev.next = s.next
		} else {
			s.in.head = s.next
		}
		if s.next != nil {
			s.next.prev = s.prev
		}
		s.in.len--
		s.next, s.prev = nil, nil
	}
	s.in = l
	if l != nil {
		s.next = l.head
		if s.next != nil {
			s.next.prev = s
		}
		l.head = s
		l.len++
	}
}

// place puts s where its number of free frames belongs.
func (p *Pool) place(s *slice) {
	switch s.n {
	case 0:
		s.move(nil)
	case s.all:
		s.move(&p.empty)
	default:
		s.move(&p.partial)
	}
}

// refill takes up to len(dst) free frames from slices, partly used ones first, so that empty ones can go back.
func (p *Pool) refill(dst []Frame) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for n < len(dst) {
		s := p.partial.head
		if s == nil {
			s = p.empty.head
		}
		if s == nil {
			break
		}
		for i := range s.free {
			for s.free[i] != 0 && n < len(dst) {
				b := bits.TrailingZeros64(s.free[i])
				s.free[i] &^= 1 << b
				s.n--
				dst[n] = Frame(s.number*PerSlice + uint64(i*64+b))
				n++
			}
		}
		p.place(s)
	}
	p.free -= n
	return n
}

// spill returns frames to their slices. What it returns goes back to the source, since many are empty: give does that, once the
// caller has let go of its shard.
func (p *Pool) spill(frames []Frame) (back *slice) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range frames {
		s := p.slices[f/PerSlice].Load()
		i := f % PerSlice
		s.free[i/64] |= 1 << (i % 64)
		s.n++
		p.place(s)
	}
	p.free += len(frames)
	if p.empty.len > 2*p.keep {
		back = p.drop(p.keep)
	}
	return back
}

// drop takes empty slices out until keep are left, and returns them linked. Pool.mu is held.
func (p *Pool) drop(keep int) *slice {
	var out *slice
	for p.empty.len > keep {
		s := p.empty.head
		s.move(nil)
		p.slices[s.number].Store(nil)
		p.held--
		p.given++
		p.free -= s.n
		s.next = out
		out = s
	}
	return out
}

// give returns dropped slices to the source. No lock is held.
func (p *Pool) give(s *slice) {
	for ; s != nil; s = s.next {
		p.source.Give(s.number)
	}
}

// grow gets one more slice, unless somebody else got one meanwhile.
func (p *Pool) grow() error {
	p.growing.Lock()
	defer p.growing.Unlock()
	p.mu.Lock()
	free := p.free
	p.mu.Unlock()
	if free > 0 {
		return nil
	}
	number, err := p.source.Take()
	if err != nil {
		return linux.ENOMEM // whatever the source says
	}
	if number >= uint64(len(p.slices)) || p.slices[number].Load() != nil {
		return linux.ENOMEM // a slice that does not exist, or that is held: the source was told nonsense
	}
	s := &slice{number: number, n: PerSlice, all: PerSlice}
	for i := range s.free {
		s.free[i] = ^uint64(0)
	}
	if number == 0 {
		s.free[0] &^= 1
		s.n, s.all = PerSlice-1, PerSlice-1
	}
	p.mu.Lock()
	p.slices[number].Store(s)
	p.held++
	p.taken++
	p.free += s.n
	p.place(s)
	p.mu.Unlock()
	return nil
}

// steal takes a frame from whatever shard has one.
func (p *Pool) steal() Frame {
	for i := range p.shards {
		s := &p.shards[i]
		s.mu.Lock()
		f := s.pop()
		s.mu.Unlock()
		if f != None {
			return f
		}
	}
	return None
}

// Shrink gives back all empty slices but keep of them, and returns how many are held then. The ckernel asks for it when memory is
// short elsewhere.
func (p *Pool) Shrink(keep int) int {
	for i := range p.shards {
		s := &p.shards[i]
		s.mu.Lock()
		back := p.spill(s.frames[:s.n])
		s.n = 0
		s.mu.Unlock()
		p.give(back)
	}
	p.mu.Lock()
	back := p.drop(max(keep, 0))
	held := p.held
	p.mu.Unlock()
	p.give(back)
	return held
}
