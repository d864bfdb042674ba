package mem

// CacheSize is the capacity of a Cache in frames; it is refilled and drained by
// half, so that alternating between the two costs at most one trip to the
// allocator in CacheSize/2 calls (the magazines of Bonwick and Adams, USENIX 2001,
// with one magazine and a batch in place of two magazines).
const CacheSize = 64

// Cache is a stack of frames that belong to one CPU. Only that CPU may use it,
// with preemption off; Refill and Drain also need the allocator's lock:
//
//	f, ok := cache.Get()
//	if !ok {
//		lock()
//		cache.Refill(&alloc)
//		unlock()
//		f, ok = cache.Get() // not ok: out of memory
//	}
//
// and, to free,
//
//	if !cache.Put(f) {
//		lock()
//		err := cache.Drain(&alloc, mem.CacheSize/2)
//		unlock()
//		cache.Put(f)
//	}
//
// To the allocator the frames in a cache are allocated. So a frame that was put
// twice is found out only when it is drained, by ErrDoubleFree.
//
// The zero Cache is empty and ready.
type Cache struct {
	n      int
	frames [CacheSize]uint64
	_      [64 - 8]byte // keeps a neighbour's n off the last line
}

// Len returns the number of frames held.
func (c *Cache) Len() int { return c.n }

// Get takes a frame, the one put last, which is likeliest to be in the processor
// cache. It reports false when there is none.
func (c *Cache) Get() (uint64, bool) {
	i := c.n - 1
	if uint(i) >= CacheSize {
		return 0, false
	}
	c.n = i
	return c.frames[i], true
}

// Put gives a frame to the cache; it reports false when the cache is full.
func (c *Cache) Put(frame uint64) bool {
	i := c.n
	if uint(i) >= CacheSize {
		return false
	}
	c.frames[i] = frame
	c.n = i + 1
	return true
}

// Refill takes frames from a until the cache is at least half full or memory is
// exhausted, and returns how many it added.
func (c *Cache) Refill(a *Allocator) int {
	if uint(c.n) >= CacheSize/2 {
		return 0
	}
	n := a.AllocBatch(c.frames[c.n : CacheSize/2])
	c.n += n
	return n
}

// Drain gives frames back to a, those held longest first, until at most keep are
// left. A frame that a refuses is dropped from the cache; the others are still
// given back, and the first refusal is returned.
func (c *Cache) Drain(a *Allocator, keep int) error {
	keep = max(keep, 0)
	n := c.n - keep
	if n <= 0 {
		return nil
	}
	var first error
	for _, f := range c.frames[:n] {
		if err := a.Free4K(f); err != nil && first == nil {
			first = err
		}
	}
	copy(c.frames[:], c.frames[n:c.n])
	c.n = keep
	return first
}
