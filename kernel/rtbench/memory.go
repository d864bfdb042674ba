package rtbench

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// wrong is a benchmark whose checked result is not what it must be.
type wrong struct {
	what      string
	got, want int
}

func (w wrong) Error() string { return fmt.Sprintf("%s %d, want %d", w.what, w.got, w.want) }

// node is 1 KiB with pointers from end to end, so that the collector must read
// all of it.
type node struct {
	next *node
	_    [62]uint64
	sum  *node
	_    [63]uint64
	last *node
}

const nodeSize = 128 * 8

// liveHeap builds a live heap and returns its head and number of nodes. The
// collector is off meanwhile: that is not what is measured, and takes long where
// page faults are dear.
func liveHeap(env *Env) (*node, int) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	n := 256 << 20 / nodeSize
	if env.Quick {
		n /= 32
	}
	var head *node
	for range n {
		head = &node{next: head, sum: head, last: head}
	}
	return head, n
}

// check counts the nodes again: a collector that lost one is found out.
func (n *node) check(want int) error {
	got := 0
	for ; n != nil; n = n.next {
		if n.sum != n.next || n.last != n.next {
			break
		}
		got++
	}
	if got != want {
		return wrong{"live heap damaged: nodes", got, want}
	}
	return nil
}

// withLoad calls f while one goroutine per CPU allocates.
func withLoad(f func()) {
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			ring := make([]*[4]*int, 256)
			for i := 0; !stop.Load(); i++ {
				ring[i&255] = &[4]*int{new(int)}
				if i&1023 == 0 {
					time.Sleep(100 * time.Microsecond) // leave the collector some CPU on a single one
				}
			}
		})
	}
	f()
	stop.Store(true)
	wg.Wait()
}

// gcPause takes each cycle's total stop-the-world time from the runtime's record,
// which holds the last 256.
func gcPause(env *Env) (samples, error) {
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	head, n := liveHeap(env)
	runtime.GC()
	var before, after debug.GCStats
	debug.ReadGCStats(&before)
	withLoad(func() {
		for range env.scale(30) {
			runtime.GC()
		}
		debug.ReadGCStats(&after)
	})
	cycles := int(min(after.NumGC-before.NumGC, int64(len(after.Pause))))
	s := make(samples, cycles)
	for i := range s {
		s[i] = micros(after.Pause[i])
	}
	return s, head.check(n)
}

func gcCycle(env *Env) (samples, error) {
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	head, n := liveHeap(env)
	runtime.GC()
	s := make(samples, env.scale(8))
	for i := range s {
		start := time.Now()
		runtime.GC()
		s[i] = micros(time.Since(start))
	}
	return s, head.check(n)
}

func allocSmall(env *Env) (samples, error) {
	const ops = 2000
	var ring [64]*[8]*int
	s := batches(env.scale(400), ops, func() {
		for i := range ops {
			ring[i&63] = new([8]*int)
		}
	})
	runtime.KeepAlive(&ring)
	return s, nil
}

func allocLarge(env *Env) (samples, error) {
	const ops = 4
	var ring [8][]byte
	k := 0
	s := batches(env.scale(200), ops, func() {
		for range ops {
			b := make([]byte, 1<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			ring[k&7] = b
			k++
		}
	})
	runtime.KeepAlive(&ring)
	return s, nil
}
