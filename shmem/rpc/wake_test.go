package rpc

import (
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/shmem/proto"
)

// wakeOnly sleeps until it is woken, however long that takes: a wake-up that is lost stays lost.
type wakeOnly struct{ wake chan struct{} }

func (s *wakeOnly) Sleep(int64) { <-s.wake }

func (s *wakeOnly) Wake() { signal(s.wake) }

// TestNoWakeUpIsLost has callers on both sides call, poll for themselves, leave, come together and sleep at all moments, while loops
// fall asleep and wake. Nothing but doorbells wakes a loop here, so one that is not rung is a hang.
func TestNoWakeUpIsLost(t *testing.T) {
	rounds := 10_000
	if os.Getenv("DINOS_LONG") == "1" {
		rounds *= 20
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := newRack(t, 4096)
	var kernels [2]*kernel
	for i := range kernels {
		clock := NewSystemClock()
		k := &kernel{loop: NewLoop(clock, &wakeOnly{make(chan struct{}, 1)}, 0)}
		r.mu.Lock()
		r.bells[i] = k.loop.Wake
		r.mu.Unlock()
		cfg, err := PeerConfig(r.k, i, 1-i)
		require.NoError(t, err)
		cfg.Generation, cfg.Handlers, cfg.Calls = 1, echo(), 8
		cfg.Notify = func() { r.ring(1 - i) }
		cfg.Timeout = time.Hour
		cfg.Spin = 3 * time.Microsecond
		k.conn, err = k.loop.Connect(cfg)
		require.NoError(t, err)
		// At each step somebody else may come in between.
		k.conn.probe = func() {
			switch rand.IntN(6) {
			case 0:
				runtime.Gosched()
			case 1:
				for range rand.IntN(2000) {
					if k.loop.stop.Load() {
						return
					}
				}
			}
		}
		go k.loop.Run()
		t.Cleanup(k.loop.Stop)
		kernels[i] = k
	}
	// Kernel 0 is quiet now and then until kernel 1 has got some answers: a call of its own would make up for what it missed.
	var answers, ended atomic.Int64
	quiet := func(random *rand.Rand) {
		for want := answers.Load() + int64(1+random.IntN(3)); answers.Load() < want && ended.Load() < 3; {
			time.Sleep(time.Microsecond)
		}
	}
	var wg sync.WaitGroup
	for i, k := range kernels {
		for g := range 3 {
			wg.Go(func() {
				if i == 1 {
					defer ended.Add(1)
				}
				random := rand.New(rand.NewPCG(seed, uint64(i*8+g)))
				for range rounds {
					var err error
					if random.IntN(8) == 0 {
						err = k.conn.Call(bg, &proto.Heartbeat{}, &proto.HeartbeatReply{}, 0) // by a worker
					} else {
						err = k.conn.Call(bg, &proto.Null{}, &proto.NullReply{}, 0)
					}
					if err != nil {
						t.Error(err)
						return
					}
					if i == 1 {
						answers.Add(1)
					} else if random.IntN(4) == 0 {
						quiet(random)
					}
					switch random.IntN(4) {
					case 0:
						time.Sleep(time.Duration(random.IntN(30)) * time.Microsecond)
					case 1, 2, 3:
						for end := time.Now().Add(time.Duration(random.IntN(12)) * time.Microsecond); time.Now().Before(end); {
						}
					}
				}
			})
		}
	}
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		for i, k := range kernels {
			c := k.conn
			t.Logf("kernel %d: until %d, looping %v, armed %v, pollers %d, ready %v", i, k.loop.until.Load(), c.looping.Load(), c.armed.Load(),
				c.pollers.Load(), c.ready())
		}
		t.Fatal("a wake-up was lost")
	}
	t.Logf("sleeps %d and %d, doorbells %d and %d", kernels[0].loop.Sleeps(), kernels[1].loop.Sleeps(), r.rung[0].Load(), r.rung[1].Load())
}
