package mm

import (
	"runtime"
	"sync"
	"sync/atomic"

	"dinos/dkernel/frame"
)

// readers lets goroutines walk the page tables and use the frames they find without a lock: what was taken out of the tables is freed
// only when everybody is out who may have found it there. Readers never wait, nor do they block inside.
//
// It is McKenney's sleepable read-copy update: readers enter one of two counters, the current one; who waits makes the other one current
// and waits until the old one is empty, twice, since a reader may have chosen its counter long ago.
type readers struct {
	slots [readerSlots]readerSlot
	epoch atomic.Uint32
	mu    sync.Mutex // one waits at a time
}

const (
	readerBits  = 2
	readerSlots = 1 << readerBits
)

// readerSlot has counters on a cache line of their own.
type readerSlot struct {
	in [2]atomic.Int64
	_  [48]byte
}

// token is what enter gives and leave takes.
type token struct{ c *atomic.Int64 }

func (r *readers) enter() token {
	c := &r.slots[frame.StackHash()>>(64-readerBits)].in[r.epoch.Load()&1]
	c.Add(1)
	return token{c}
}

func (r *readers) leave(k token) { k.c.Add(-1) }

// wait returns when everybody who was inside has left.
func (r *readers) wait() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for range 2 {
		old := r.epoch.Add(1) - 1
		for i := range r.slots {
			for spins := 0; r.slots[i].in[old&1].Load() != 0; spins++ {
				if spins > 20 {
					runtime.Gosched()
				}
			}
		}
	}
}
