package ktest

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"dinos/kernel/testproto"
)

// soakAll runs everything the runtime offers at the same time for a while, and checks sums.
func (s *suite) soakAll(t *testproto.T) {
	end := time.Now().Add(s.soak)
	var wg sync.WaitGroup
	more := func() bool { return time.Now().Before(end) }
	var rounds [5]atomic.Int64
	for g := range 2 * runtime.NumCPU() {
		for i, work := range [...]func(g int) error{soakMap, soakPipeline, soakTimers, soakPanics, soakLocked} {
			wg.Go(func() {
				for more() {
					if err := work(g); err != nil {
						t.Errorf("%v", err)
						return
					}
					rounds[i].Add(1)
				}
			})
		}
	}
	wg.Go(func() {
		for more() {
			runtime.GC()
			time.Sleep(20 * time.Millisecond)
		}
	})
	wg.Wait()
	var st runtime.MemStats
	runtime.ReadMemStats(&st)
	t.Logf("rounds: maps %d, pipelines %d, timers %d, panics %d, locked threads %d; %d collections", rounds[0].Load(),
		rounds[1].Load(), rounds[2].Load(), rounds[3].Load(), rounds[4].Load(), st.NumGC)
	for i := range rounds {
		if rounds[i].Load() == 0 {
			t.Errorf("kind %d of work never finished a round", i)
		}
	}
}

var (
	errMap      = errors.New("map: wrong sum")
	errPipeline = errors.New("pipeline: wrong sum")
	errTimer    = errors.New("timer fired early")
	errPanic    = errors.New("panic was not recovered")
	errLocked   = errors.New("locked thread: wrong answer")
)

// soakMap fills maps with strings and sums what they hold.
func soakMap(g int) error {
	m := map[string]int{}
	const n = 2000
	var key [8]byte
	for i := range n {
		for j := range key {
			key[j] = byte('a' + (i>>(2*j)+g)&15)
		}
		m[string(key[:])] = i
	}
	sum := 0
	for _, v := range m {
		sum += v
	}
	if sum != n*(n-1)/2 {
		return errMap
	}
	return nil
}

// soakPipeline passes numbers through a chain of goroutines.
func soakPipeline(int) error {
	const n = 500
	in := make(chan int)
	out := in
	for range 4 {
		from, to := out, make(chan int, 2)
		go func() {
			for v := range from {
				to <- v + 1
			}
			close(to)
		}()
		out = to
	}
	go func() {
		for i := range n {
			in <- i
		}
		close(in)
	}()
	sum := 0
	for v := range out {
		sum += v
	}
	if sum != n*(n-1)/2+4*n {
		return errPipeline
	}
	return nil
}

func soakTimers(g int) error {
	d := time.Duration(g%7+1) * time.Millisecond / 2
	start := time.Now()
	select {
	case <-time.After(d):
	case <-time.After(time.Minute):
	}
	if time.Since(start) < d {
		return errTimer
	}
	return nil
}

func soakPanics(int) (err error) {
	defer func() {
		if recover() == nil {
			err = errPanic
		}
	}()
	crashes["nil"]()
	return errPanic
}

func soakLocked(g int) error {
	c := make(chan int)
	go func() {
		runtime.LockOSThread()
		defer close(c) // last: nobody is left behind, each holding a thread
		defer runtime.UnlockOSThread()
		c <- <-c * 2
	}()
	c <- g
	if <-c != 2*g {
		return errLocked
	}
	<-c
	return nil
}
