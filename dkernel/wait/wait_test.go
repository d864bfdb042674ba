package wait

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/kernel/linux"
)

var start = time.Now()

func now() int64 { return int64(time.Since(start)) }

// Producers and consumers of a counter: nothing is lost, nobody sleeps for ever.
func TestUntil(t *testing.T) {
	var q Queue
	var n atomic.Int64
	var wg sync.WaitGroup
	const each, workers = 2000, 4
	for range workers {
		wg.Add(2)
		go func() {
			defer wg.Done()
			for range each {
				n.Add(1)
				q.Wake(In)
			}
		}()
		go func() {
			defer wg.Done()
			s := NewSleeper(now, nil)
			for range each {
				err := s.Until(&q, In, Forever, func() error {
					for {
						v := n.Load()
						if v == 0 {
							return linux.EAGAIN
						}
						if n.CompareAndSwap(v, v-1) {
							return nil
						}
					}
				})
				if err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	require.Zero(t, n.Load())
	require.True(t, q.Empty())
}

func TestSleepEnds(t *testing.T) {
	var signal atomic.Bool
	s := NewSleeper(now, signal.Load)
	var q Queue
	never := func() error { return linux.EAGAIN }
	require.Equal(t, linux.ETIMEDOUT, s.Until(&q, In, now()+1e6, never))
	require.Equal(t, linux.ETIMEDOUT, s.Until(&q, In, now()-1, never))
	go func() { signal.Store(true); s.Rouse() }()
	require.Equal(t, linux.ERESTARTSYS, s.Until(&q, In, Forever, never))
	// What is there is taken before a signal is looked at.
	require.NoError(t, s.Until(&q, In, Forever, func() error { return nil }))
	require.Equal(t, linux.EPIPE, s.Until(&q, In, Forever, func() error { return linux.EPIPE }))
	var none *Sleeper
	tries := 0
	require.Equal(t, linux.EAGAIN, none.Until(&q, In, Forever, func() error { tries++; return linux.EAGAIN }))
	require.Equal(t, 1, tries, "who cannot wait tries once")
	require.True(t, q.Empty())
}

type count struct{ n int }

func (c *count) Wake(*Entry, Events) bool { c.n++; return true }

func TestMaskAndExclusive(t *testing.T) {
	var q Queue
	var in, out, x1, x2 count
	es := []*Entry{{W: &in, Mask: In}, {W: &x1, Mask: In, Exclusive: true}, {W: &out, Mask: Out}, {W: &x2, Mask: In, Exclusive: true}}
	for _, e := range es {
		q.Add(e)
	}
	q.Wake(In)
	require.Equal(t, []int{1, 1, 0, 0}, []int{in.n, x1.n, out.n, x2.n})
	q.Wake(Hup) // asked for or not
	require.Equal(t, []int{2, 2, 1, 0}, []int{in.n, x1.n, out.n, x2.n})
	q.Remove(es[1])
	q.Remove(es[1])
	q.Wake(In)
	require.Equal(t, []int{3, 2, 1, 1}, []int{in.n, x1.n, out.n, x2.n})
	for _, e := range es {
		q.Remove(e)
	}
	require.True(t, q.Empty())
}
