package racktest

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/ckernel/cluster"
	"dinos/shmem/layout"
	"dinos/shmem/proto"
)

// chaos ends and starts machines of a rack under load.
type chaos struct {
	*Rack
	t     *testing.T
	ctx   context.Context
	rnd   *rand.Rand
	loads sync.WaitGroup
	did   map[string]int
}

func newChaos(t *testing.T, seed uint64) (*chaos, context.CancelFunc) {
	// Short beats, so that much happens; who is late and is fenced for that is one more death.
	r := New(t, Options{Dkernels: 4, Cores: 3, Slices: 14, Seed: seed, Timing: cluster.Timing{Beat: 25 * time.Millisecond, Dead: 400 * time.Millisecond, Rings: 600 * time.Millisecond}})
	ctx, cancel := context.WithCancel(ctxFor(t, 20*time.Minute))
	c := &chaos{Rack: r, t: t, ctx: ctx, rnd: rand.New(rand.NewPCG(seed, 11)), did: map[string]int{}}
	r.StartCkernel()
	for i := 1; i <= 4; i++ {
		c.start(i)
	}
	return c, cancel
}

// start starts a dkernel with load.
func (c *chaos) start(i int) {
	m := c.StartDkernel(i)
	seed := c.rnd.Uint64N(1 << 20)
	c.loads.Go(func() {
		select {
		case <-m.Node.Ready():
		case <-m.Done:
			return
		}
		if err := c.Load(c.ctx, m, seed); err != nil {
			c.t.Error(err)
		}
	})
}

// event is one random event.
func (c *chaos) event() {
	i := 1 + c.rnd.IntN(4)
	m := c.Machine(i)
	if !m.Alive() {
		c.did["start"]++
		c.start(i)
		return
	}
	switch n := c.rnd.IntN(100); {
	case n < 30:
		c.did["kill"]++
		m.Kill()
		require.NoError(c.t, c.Report(c.ctx, m))
	case n < 45:
		c.did["kill and start at once"]++ // the new life is the first that the ckernel hears of it
		m.Kill()
		c.start(i)
	case n < 55:
		c.did["kill without a word"]++
		m.Kill()
	case n < 65:
		c.did["hang"]++
		m.Hang()
	case n < 70:
		c.did["hang for a moment"]++
		m.Hang()
		time.Sleep(time.Duration(c.rnd.IntN(300)) * time.Millisecond)
		m.Resume()
	case n < 90:
		c.did["leave"]++
		if err := m.Stop(); err != nil {
			c.did["leave: "+strings.SplitN(err.Error(), ":", 3)[1]]++
		}
	default:
		c.did["restart of the ckernel"]++
		k := c.Machine(layout.Ckernel)
		k.Kill()
		c.StartCkernel()
	}
}

// TestChaos kills, hangs, stops and starts machines at random under load. After each event the audit is clean; in the end all that the
// dead had is free again.
func TestChaos(t *testing.T) {
	const seed = 21
	events := 16
	if long() {
		events = 500
	}
	c, cancel := newChaos(t, seed)
	defer cancel()
	for n := range events {
		time.Sleep(time.Duration(c.rnd.IntN(60)) * time.Millisecond)
		c.event()
		if p := c.Audit(c.ctx); len(p) > 0 {
			t.Fatalf("seed %d, event %d: %v\n%s", seed, n, p, strings.Join(c.Lines(), "\n"))
		}
		if t.Failed() {
			t.Fatalf("seed %d, event %d\n%s", seed, n, strings.Join(c.Lines(), "\n"))
		}
	}
	cancel()
	for i := 1; i <= 4; i++ {
		m := c.Machine(i)
		if m.Alive() {
			m.Kill()
		}
		require.NoError(t, c.Report(ctxFor(t, time.Minute), m))
	}
	c.loads.Wait()
	until(t, "all is free", func() bool {
		var a proto.StatusReply
		require.NoError(t, c.Call(ctxFor(t, time.Minute), &proto.Status{Check: true}, &a))
		require.Empty(t, a.Problems)
		return int(a.FreeSlices) == c.O.Slices && a.FreeCores == 0
	})
	t.Logf("seed %d: %v", seed, c.did)
}
