package rtbench

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// echo answers each token on in with one on out, until in is closed.
func echo(in <-chan int, out chan<- int) {
	for v := range in {
		out <- v
	}
	close(out)
}

// volley sends ops tokens through a pair of channels, one at a time.
func volley(ops int, to chan<- int, from <-chan int) func() {
	return func() {
		for i := range ops {
			to <- i
			<-from
		}
	}
}

func pingpong(env *Env) (samples, error) {
	defer procs(1)()
	to, from := make(chan int), make(chan int)
	go echo(to, from)
	s := batches(env.scale(500), 200, volley(200, to, from))
	close(to)
	<-from
	return s, nil
}

func handover(env *Env) (samples, error) { return locked(env, nil) }

func handoverPinned(env *Env) (samples, error) {
	switch {
	case runtime.NumCPU() < 2:
		return nil, errSkip("needs 2 CPUs")
	case env.Pin == nil:
		return nil, errSkip("threads cannot be bound to CPUs here")
	}
	return locked(env, env.Pin)
}

// locked passes a token between two goroutines that are locked to threads. A
// goroutine that is locked runs on its own thread only, which sleeps in a futex
// while it blocks; so every hand-over is a futex wake-up.
func locked(env *Env, pin func(cpu int) error) (samples, error) {
	const ops = 50
	to, from := make(chan int), make(chan int)
	done := make(chan error, 2)
	bind := func(cpu int) error {
		// Never unlocked: the thread ends with its goroutine, bound as it is.
		runtime.LockOSThread()
		if pin != nil {
			return pin(cpu)
		}
		return nil
	}
	var s samples
	go func() {
		err := bind(1)
		done <- err
		echo(to, from)
	}()
	if err := <-done; err != nil {
		close(to)
		return nil, err
	}
	go func() {
		err := bind(0)
		if err == nil {
			s = batches(env.scale(400), 2*ops, volley(ops, to, from))
		}
		done <- err
	}()
	err := <-done
	close(to)
	<-from
	return s, err
}

func sleepLateness(env *Env) (samples, error) {
	const d = time.Millisecond
	s := make(samples, env.scale(1000))
	for i := range s {
		start := time.Now()
		time.Sleep(d)
		s[i] = micros(time.Since(start) - d)
	}
	return s, nil
}

func timerLateness(env *Env) (samples, error) {
	const d = time.Millisecond
	for range 1000 { // a heap of timers that do not fire
		defer time.AfterFunc(time.Hour, func() {}).Stop()
	}
	t := time.NewTimer(time.Hour)
	defer t.Stop()
	s := make(samples, env.scale(1000))
	for i := range s {
		start := time.Now()
		t.Reset(d)
		<-t.C // the time it carries is when it was due, not now
		s[i] = micros(time.Since(start) - d)
	}
	return s, nil
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func spawn(env *Env) (samples, error) {
	const ops = 500
	var wg sync.WaitGroup
	return batches(env.scale(400), ops, func() {
		wg.Add(ops)
		for range ops {
			go wg.Done()
		}
		wg.Wait()
	}), nil
}

func yield(env *Env) (samples, error) {
	defer procs(1)()
	const ops = 500
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		for !stop.Load() {
			runtime.Gosched()
		}
		close(done)
	}()
	s := batches(env.scale(400), ops, func() {
		for range ops {
			runtime.Gosched()
		}
	})
	stop.Store(true)
	<-done
	return s, nil
}

func mutex(env *Env) (samples, error) {
	const ops = 2000
	var mu sync.Mutex
	total := 0
	n := max(runtime.GOMAXPROCS(0), 2)
	s := batches(env.scale(200), n*ops, func() {
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() {
				for range ops {
					mu.Lock()
					total++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
	})
	if want := (len(s) + 1) * n * ops; total != want {
		return nil, wrong{"mutex did not exclude: counted", total, want}
	}
	return s, nil
}

func now(env *Env) (samples, error) {
	const ops = 1000
	var t time.Time
	s := batches(env.scale(400), ops, func() {
		for range ops {
			t = time.Now()
		}
	})
	runtime.KeepAlive(t)
	return s, nil
}
