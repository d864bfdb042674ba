package peer

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/shmem/layout"
	"dinos/shmem/proto"
	"dinos/shmem/region"
	"dinos/shmem/ring"
	"dinos/shmem/rpc"
)

var bg = context.Background()

// world is memory with peers over it.
type world struct {
	t     *testing.T
	mem   region.Region
	k     *layout.Rack
	mu    sync.Mutex
	bells map[int]func()
}

func newWorld(t *testing.T) *world {
	mem, err := region.New(region.Slab(8 << 20))
	require.NoError(t, err)
	k, err := layout.Format(mem, layout.Config{Machines: 3, RingBytes: 4096, HostRingBytes: 4096, InboxSlots: 16, Logs: layout.NoLogs}, 77)
	require.NoError(t, err)
	return &world{t: t, mem: mem, k: k, bells: map[int]func(){}}
}

func (w *world) config(self int) Config {
	rnd := rand.New(rand.NewPCG(uint64(self), 3))
	return Config{Memory: w.mem, Self: self, Kind: 'd', Doorbell: 100 + self, Cores: 2, Beat: 10 * time.Millisecond, Spin: -1, Random: rnd.Uint64,
		Ring: func(id, vector int) {
			w.mu.Lock()
			f := w.bells[id]
			w.mu.Unlock()
			if f != nil && vector == Vector {
				f()
			}
		}}
}

// start opens and runs a peer until the test ends; the channel gets Run's error.
func (w *world) start(cfg Config) (*Peer, <-chan error) {
	p, err := Open(cfg)
	require.NoError(w.t, err)
	rpc.Handle(p.Mux(), rpc.Inline, func(_ *rpc.Request, q *proto.Null, a *proto.NullReply) error {
		a.Payload = q.Payload
		return nil
	})
	w.mu.Lock()
	w.bells[cfg.Doorbell] = p.Doorbell
	w.mu.Unlock()
	ctx, cancel := context.WithCancel(bg)
	done, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		done <- p.Run(ctx)
	}()
	w.t.Cleanup(func() { cancel(); <-ended })
	return p, done
}

// talks waits until p can call another peer.
func (w *world) talks(p *Peer, to int) {
	w.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		c, err := p.Conn(to)
		if err == nil {
			err = c.Call(bg, &proto.Null{}, &proto.NullReply{}, 200*time.Millisecond)
		}
		if err == nil {
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("peer %d never talks to %d: %v", p.Self(), to, err)
		}
	}
}

func TestConfig(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		change func(*Config)
		text   string
	}{
		{func(c *Config) { c.Self = 4 }, "peer 4, this rack has 0 to 3"},
		{func(c *Config) { c.Self = -2 }, "peer -2"},
		{func(c *Config) { c.Ring = nil }, "Ring and Random must be given"},
		{func(c *Config) { c.Beat = -1 }, "want more than 0"},
		{func(c *Config) { c.Cores = 65 }, "65 cores, want 0 to 64"},
		{func(c *Config) { c.TSC = func() uint64 { return 1 } }, "TSC without TSCHz"},
	} {
		cfg := w.config(1)
		c.change(&cfg)
		_, err := Open(cfg)
		require.ErrorIs(t, err, ErrConfig)
		require.ErrorContains(t, err, c.text)
	}
	cfg := w.config(1)
	cfg.Memory, _ = region.New(region.Slab(1 << 20))
	_, err := Open(cfg)
	require.ErrorIs(t, err, layout.ErrUnformatted)
	h, err := Open(func() Config { c := w.config(Host); c.Doorbell = 1; return c }())
	require.NoError(t, err)
	require.Equal(t, w.k.Host(), h.Self())
	_, err = h.Conn(h.Self())
	require.ErrorIs(t, err, ErrNoConn)
	_, err = h.Conn(1)
	require.ErrorIs(t, err, ErrNoConn)
}

func TestTalk(t *testing.T) {
	w := newWorld(t)
	var lives atomic.Int32
	cfg := w.config(1)
	cfg.OnPeer = func(peer int, gen uint32) {
		if peer == 2 {
			lives.Store(int32(gen))
		}
	}
	a, _ := w.start(cfg)
	b, _ := w.start(w.config(2))
	w.talks(a, 2)
	w.talks(b, 1)
	require.EqualValues(t, b.Generation(), lives.Load())
	c, err := b.Conn(1)
	require.NoError(t, err)
	require.Equal(t, 1, b.PeerOf(c))
	require.Equal(t, -1, a.PeerOf(c))
	require.ErrorIs(t, a.Run(bg), ErrConfig)

	m, err := w.k.Machine(w.mem, 1)
	require.NoError(t, err)
	for beat := m.Heartbeat.Load(); m.Heartbeat.Load() < beat+3; {
		time.Sleep(time.Millisecond)
	}
	for m.Stat[layout.StatServed].Load() == 0 { // once a second
		time.Sleep(10 * time.Millisecond)
	}
}

// TestMend damages rings under live peers, seen from either side: the lower peer makes them anew and both go on.
func TestMend(t *testing.T) {
	w := newWorld(t)
	a, _ := w.start(w.config(1))
	b, _ := w.start(w.config(2))
	w.talks(a, 2)
	rnd := rand.New(rand.NewPCG(5, 5))
	for round := range 24 {
		from, to := 1, 2
		if round&1 == 1 {
			from, to = 2, 1
		}
		r, _, err := w.k.RingRegion(w.mem, from, to)
		require.NoError(t, err)
		off := []region.Off{0, 8, 16, 24, 0x80, 0x100, 0x180}[rnd.IntN(7)] // header, size, tail, head, data
		v, err := r.LoadU64(off)
		require.NoError(t, err)
		require.NoError(t, r.StoreU64(off, v^rnd.Uint64()))
		w.talks(a, 2)
		w.talks(b, 1)
	}
	// Not even the headers are sound when a peer starts.
	for _, pair := range [][2]int{{0, 1}, {1, 0}} {
		r, _, err := w.k.RingRegion(w.mem, pair[0], pair[1])
		require.NoError(t, err)
		require.NoError(t, r.Zero(0, ring.ControlBytes))
	}
	c, _ := w.start(w.config(0))
	w.talks(c, 1)
	w.talks(a, 0)
}

func TestFence(t *testing.T) {
	w := newWorld(t)
	boss, _ := w.start(w.config(0))
	a, ended := w.start(w.config(1))
	w.talks(a, 0)
	boss.Fence(1, a.Generation()-1)
	w.talks(a, 0)
	// A fence that nobody has stored in order does not stop anybody.
	m, err := w.k.Machine(w.mem, 1)
	require.NoError(t, err)
	m.Fence.Store(1 << 20)
	time.Sleep(50 * time.Millisecond)
	w.talks(a, 0)
	boss.Fence(1, a.Generation())
	require.ErrorIs(t, <-ended, ErrFenced)
	_, err = a.Conn(0)
	require.ErrorIs(t, err, ErrNoConn)
	require.EqualValues(t, a.Generation(), boss.FenceOf(1))
	next, _ := w.start(w.config(1))
	require.Greater(t, next.Generation(), a.Generation())
	w.talks(next, 0)
}

// TestOwnWords: what only this machine writes is put right; a successor is not taken for damage.
func TestOwnWords(t *testing.T) {
	w := newWorld(t)
	a, ended := w.start(w.config(1))
	m, err := w.k.Machine(w.mem, 1)
	require.NoError(t, err)
	a.SetState(layout.StateUp)
	for _, word := range []*atomic.Uint64{m.Generation, m.State, m.Doorbell, m.Kind, m.Cores, m.Mailbox[mailCheck], m.TSCHz} {
		want := word.Load()
		word.Store(want + 1000)
		for end := time.Now().Add(20 * time.Second); word.Load() != want; time.Sleep(time.Millisecond) {
			require.True(t, time.Now().Before(end), "word is %d, want %d", word.Load(), want)
		}
	}
	require.Empty(t, ended)
	next, err := Open(w.config(1))
	require.NoError(t, err)
	require.Equal(t, a.Generation()+1, next.Generation())
	require.ErrorIs(t, <-ended, ErrReplaced)
}

// TestDamagedBlock: a life that finds its block damaged takes a generation that no former life had.
func TestDamagedBlock(t *testing.T) {
	for _, damage := range []func(m *layout.Machine){
		func(m *layout.Machine) { m.Generation.Store(0) },
		func(m *layout.Machine) { m.Generation.Store(1) },
		func(m *layout.Machine) { m.Generation.Store(1 << 60) },
		func(m *layout.Machine) { m.Mailbox[mailCheck].Store(4) },
		func(m *layout.Machine) { m.Fence.Store(1 << 40) },
	} {
		w := newWorld(t)
		var last uint64
		for range 5 {
			p, err := Open(w.config(2))
			require.NoError(t, err)
			last = p.Generation()
		}
		require.EqualValues(t, 5, last)
		m, err := w.k.Machine(w.mem, 2)
		require.NoError(t, err)
		damage(m)
		p, err := Open(w.config(2))
		require.NoError(t, err)
		require.Greater(t, p.Generation(), last)
		require.Less(t, p.Generation(), uint64(maxGeneration))
		p2, err := Open(w.config(2))
		require.NoError(t, err)
		require.Equal(t, p.Generation()+1, p2.Generation())
	}
}

func TestZero(t *testing.T) {
	w := newWorld(t)
	p, err := Open(w.config(0))
	require.NoError(t, err)
	require.False(t, p.TakeZero())
	require.NoError(t, MarkZero(w.k))
	require.True(t, p.TakeZero())
	require.False(t, p.TakeZero(), "the second ckernel does not know")
}

// TestMisled damages the sender's generation in a frame: the receiver believes in a life that never was, but not for long.
func TestMisled(t *testing.T) {
	w := newWorld(t)
	a, _ := w.start(w.config(1))
	b, _ := w.start(w.config(2))
	w.talks(b, 1)
	cfg, err := rpc.PeerConfig(w.k, 2, 1)
	require.NoError(t, err)
	tx, err := ring.AttachTx(cfg.Out, cfg.OutBytes, func() {})
	require.NoError(t, err)
	var head [proto.FrameBytes]byte
	(&proto.Frame{Kind: proto.KindHello, From: 1 << 20}).Put(&head)
	require.NoError(t, tx.Push(head[:], nil))
	require.NoError(t, tx.Flush())
	a.Doorbell()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if c, err := a.Conn(2); err == nil && c.Peer() == 1<<20 {
			break
		}
		require.True(t, time.Now().Before(end), "it is never misled")
	}
	w.talks(a, 2)
	w.talks(b, 1)
}
