package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/shmem/layout"
	"dinos/shmem/proto"
	"dinos/shmem/region"
)

var bg = context.Background()

// rack is shared memory on the heap, with kernels that are goroutines.
type rack struct {
	t     testing.TB
	k     *layout.Rack
	mu    sync.Mutex
	bells [4]func() // by peer: what its doorbell does
	rung  [4]atomic.Int64
	gens  [4]uint32
}

func newRack(t testing.TB, ringBytes uint64) *rack {
	c := layout.Config{Size: 8 << 20, Machines: 2, RingBytes: ringBytes, HostRingBytes: ringBytes, InboxSlots: 16, Logs: layout.NoLogs}
	r, err := region.New(region.Slab(int(c.Size)))
	require.NoError(t, err)
	k, err := layout.Format(r, c, 1)
	require.NoError(t, err)
	return &rack{t: t, k: k}
}

// ring rings the doorbell of a peer.
func (r *rack) ring(peer int) {
	r.rung[peer].Add(1)
	r.mu.Lock()
	f := r.bells[peer]
	r.mu.Unlock()
	if f != nil {
		f()
	}
}

// kernel is one life of a peer.
type kernel struct {
	loop *Loop
	conn *Conn
}

// boot starts a life of self, connected to peer.
func (r *rack) boot(self, peer int, m *Mux, change ...func(*Config)) *kernel {
	clock := NewSystemClock()
	k := &kernel{loop: NewLoop(clock, NewChanSleeper(clock), 20*time.Microsecond)}
	r.mu.Lock()
	r.bells[self] = k.loop.Wake
	r.gens[self]++
	gen := r.gens[self]
	r.mu.Unlock()
	cfg, err := PeerConfig(r.k, self, peer)
	require.NoError(r.t, err)
	cfg.Generation, cfg.Handlers = gen, m
	cfg.Notify = func() { r.ring(peer) }
	cfg.Timeout = 20 * time.Second
	for _, f := range change {
		f(&cfg)
	}
	k.conn, err = k.loop.Connect(cfg)
	require.NoError(r.t, err)
	go k.loop.Run()
	r.t.Cleanup(k.loop.Stop)
	return k
}

// echo answers what the tests send: quick calls inline, slow ones by workers.
func echo() *Mux {
	m := &Mux{}
	Handle(m, Inline, func(_ *Request, q *proto.Null, a *proto.NullReply) error {
		a.Payload = q.Payload
		return nil
	})
	Handle(m, Worker, func(r *Request, q *proto.Heartbeat, a *proto.HeartbeatReply) error {
		*a = proto.HeartbeatReply{Sequence: q.Sequence + 1, TSC: uint64(r.Peer()), Epoch: q.Epoch}
		return nil
	})
	Handle(m, Worker, func(r *Request, q *proto.KillProcess, _ *proto.Done) error {
		switch q.Reason {
		case "errno":
			return &RemoteError{Code: proto.CodeErrno, Errno: 3, Text: "no such process"}
		case "plain":
			return errors.New("it did not work")
		case "panic":
			panic("oh no")
		}
		<-r.Done() // until the caller gives up
		return r.Err()
	})
	HandleStream(m, func(s *Stream, q *proto.Stdio) error {
		if q.FD < 0 {
			return Errorf(proto.CodeNotFound, "no descriptor %d", q.FD)
		}
		if err := s.Accept(&proto.StdioReply{Terminal: q.Rows > 0}); err != nil {
			return err
		}
		buf := make([]byte, 5000)
		for {
			n, err := s.Read(buf)
			if err != nil {
				if q.FD == 7 {
					return Errorf(proto.CodeConflict, "after %v", err)
				}
				return nil
			}
			if _, err := s.Write(buf[:n]); err != nil {
				return err
			}
		}
	})
	return m
}

// TestManyCalls has many goroutines on both sides call at the same time through small rings.
func TestManyCalls(t *testing.T) {
	for _, c := range []struct {
		ring  uint64
		calls int
	}{{4096, 4}, {4096, 64}, {64 << 10, 256}} {
		t.Run(fmt.Sprintf("ring %d calls %d", c.ring, c.calls), func(t *testing.T) {
			r := newRack(t, c.ring)
			set := func(cfg *Config) { cfg.Calls = c.calls }
			kernels := []*kernel{r.boot(0, 1, echo(), set), r.boot(1, 0, echo(), set)}
			var wg sync.WaitGroup
			for i, k := range kernels {
				for g := range 8 {
					wg.Go(func() {
						var null proto.NullReply
						var beat proto.HeartbeatReply
						for n := range 60 {
							p := bytes.Repeat([]byte{byte(g)}, (n*37)%1500)
							if err := k.conn.Call(bg, &proto.Null{Payload: p}, &null, 0); err != nil || !bytes.Equal(p, null.Payload) {
								t.Errorf("kernel %d: %v, %d bytes back", i, err, len(null.Payload))
								return
							}
							seq := uint64(g)<<32 | uint64(n)
							if err := k.conn.Call(bg, &proto.Heartbeat{Sequence: seq}, &beat, 0); err != nil || beat.Sequence != seq+1 || beat.TSC != 1 {
								t.Errorf("kernel %d: %v, %+v", i, err, beat)
								return
							}
						}
					})
				}
			}
			wg.Wait()
			for i, k := range kernels {
				s := &k.conn.Stats
				require.EqualValues(t, 8*60*2, s.Calls.Load())
				require.EqualValues(t, 8*60*2, kernels[1-i].conn.Stats.Served.Load())
				require.Zero(t, s.Late.Load()+s.Stale.Load()+s.Timeouts.Load()+s.Dropped.Load())
				require.Equal(t, c.calls, k.conn.free.count(), "a call slot was lost")
			}
			t.Logf("doorbells %d and %d, queued %d", r.rung[0].Load(), r.rung[1].Load(), kernels[0].conn.Stats.Queued.Load())
		})
	}
}

func TestPipelining(t *testing.T) {
	r := newRack(t, 4096)
	r.boot(0, 1, echo())
	c := r.boot(1, 0, nil).conn
	var pending [200]Pending
	var replies [200]proto.HeartbeatReply
	for i := range pending {
		var err error
		pending[i], err = c.Start(bg, &proto.Heartbeat{Sequence: uint64(i)}, &replies[i], 0)
		require.NoError(t, err)
	}
	for i := range pending {
		require.NoError(t, pending[i].Wait(bg))
		require.EqualValues(t, i+1, replies[i].Sequence)
	}
}

func TestErrors(t *testing.T) {
	r := newRack(t, 4096)
	var panicked atomic.Value
	r.boot(0, 1, echo(), func(c *Config) { c.OnPanic = func(v any, _ []byte) { panicked.Store(v) } })
	c := r.boot(1, 0, nil).conn
	call := func(q proto.Request, a proto.Message) *RemoteError {
		err := c.Call(bg, q, a, 0)
		var re *RemoteError
		require.ErrorAs(t, err, &re, "%v", err)
		return re
	}
	var done proto.Done
	require.Equal(t, &RemoteError{proto.CodeErrno, 3, "no such process"}, call(&proto.KillProcess{Reason: "errno"}, &done))
	require.Equal(t, &RemoteError{proto.CodeUnknown, 0, "it did not work"}, call(&proto.KillProcess{Reason: "plain"}, &done))
	require.Equal(t, &RemoteError{proto.CodeInternal, 0, "handler panicked: oh no"}, call(&proto.KillProcess{Reason: "panic"}, &done))
	require.Equal(t, "oh no", panicked.Load())
	require.Equal(t, &RemoteError{proto.CodeUnsupported, 0, "Mkdir has no handler here"}, call(&proto.Mkdir{}, &done))
	// What does not fit is refused before anything is sent, and the connection goes on.
	err := c.Call(bg, &proto.Null{Payload: make([]byte, 5000)}, &done, 0)
	require.ErrorIs(t, err, proto.ErrEncode)
	require.ErrorContains(t, err, "Null to ckernel")
	require.ErrorIs(t, c.Call(bg, &proto.Mkdir{Path: string(make([]byte, 5000))}, &done, 0), proto.ErrEncode)
	// A reply that is not what the caller thinks.
	require.ErrorIs(t, c.Call(bg, &proto.Heartbeat{}, &proto.TopologyReply{}, 0), proto.ErrDecode)
	require.NoError(t, c.Call(bg, &proto.Null{}, &proto.NullReply{}, 0))
	require.Equal(t, DefaultCalls, c.free.count())
	for _, change := range []func(*Config){func(c *Config) { c.Calls = 3 }, func(c *Config) { c.Generation = 0 },
		func(c *Config) { c.Workers = -1 }, func(c *Config) { c.Timeout = -1 }} {
		cfg, err := PeerConfig(r.k, 1, 2)
		require.NoError(t, err)
		cfg.Generation = 1
		change(&cfg)
		_, err = NewLoop(NewSystemClock(), nil, 0).Connect(cfg)
		require.ErrorIs(t, err, ErrConfig)
	}
	m := echo()
	require.PanicsWithValue(t, "rpc: Null has a handler already", func() {
		Handle(m, Inline, func(*Request, *proto.Null, *proto.NullReply) error { return nil })
	})
	require.PanicsWithValue(t, "rpc: Mkdir is answered by *proto.Done, not by *proto.NullReply", func() {
		Handle(m, Inline, func(*Request, *proto.Mkdir, *proto.NullReply) error { return nil })
	})
}

// TestTimeoutAndCancel: the caller gets its error, the handler learns that nobody waits, and the slot is free again.
func TestTimeoutAndCancel(t *testing.T) {
	r := newRack(t, 4096)
	m := echo()
	started, ended := make(chan struct{}, 10), make(chan error, 10)
	Handle(m, Worker, func(r *Request, _ *proto.Shutdown, _ *proto.Done) error {
		started <- struct{}{}
		<-r.Done()
		ended <- r.Err()
		return nil
	})
	r.boot(0, 1, m)
	c := r.boot(1, 0, nil, func(c *Config) { c.Calls = 1 }).conn
	start := time.Now()
	require.ErrorIs(t, c.Call(bg, &proto.Shutdown{}, &proto.Done{}, 30*time.Millisecond), ErrTimeout)
	require.GreaterOrEqual(t, time.Since(start), 30*time.Millisecond)
	if len(started) > 0 { // on a slow machine its time was over before the handler ran, which then does not
		<-started
		require.ErrorIs(t, <-ended, context.Canceled)
	}
	ctx, cancel := context.WithCancel(bg)
	go func() {
		<-started
		cancel()
	}()
	require.ErrorIs(t, c.Call(ctx, &proto.Shutdown{}, &proto.Done{}, 0), context.Canceled)
	require.ErrorIs(t, <-ended, context.Canceled)
	require.EqualValues(t, 1, c.Stats.Timeouts.Load())
	// With the only slot taken, the next one waits for it no longer than its time.
	p, err := c.Start(bg, &proto.Shutdown{}, &proto.Done{}, 0)
	require.NoError(t, err)
	_, err = c.Start(bg, &proto.Null{}, &proto.NullReply{}, 10*time.Millisecond)
	require.ErrorIs(t, err, ErrTimeout)
	require.ErrorContains(t, err, "1 calls to ckernel are under way")
	ctx, cancel = context.WithCancel(bg)
	cancel()
	require.ErrorIs(t, p.Wait(ctx), context.Canceled)
	require.NoError(t, c.Call(bg, &proto.Null{}, &proto.NullReply{}, 0))
}

// TestBoundedWorkers: no more handlers run than there are workers, and what cannot wait either is refused.
func TestBoundedWorkers(t *testing.T) {
	r := newRack(t, 64<<10)
	m := &Mux{}
	var running, most atomic.Int32
	release := make(chan struct{})
	Handle(m, Worker, func(*Request, *proto.Null, *proto.NullReply) error {
		n := running.Add(1)
		defer running.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		<-release
		return nil
	})
	r.boot(0, 1, m, func(c *Config) { c.Workers, c.Calls = 3, 8 })
	c := r.boot(1, 0, nil, func(c *Config) { c.Calls = 32 }).conn
	var pending []Pending
	for range 32 {
		p, err := c.Start(bg, &proto.Null{}, &proto.NullReply{}, 0)
		require.NoError(t, err)
		pending = append(pending, p)
	}
	for running.Load() < 3 { // they all wait in the handler
		runtime.Gosched()
	}
	close(release)
	refused := 0
	for _, p := range pending {
		if err := p.Wait(bg); err != nil {
			var re *RemoteError
			require.ErrorAs(t, err, &re)
			require.Equal(t, proto.CodeBusy, re.Code)
			refused++
		}
	}
	require.LessOrEqual(t, refused, 32-8)
	require.EqualValues(t, 3, most.Load())
}

// TestPeerThatNeverReads: calls time out, events are refused, memory stays bounded.
func TestPeerThatNeverReads(t *testing.T) {
	r := newRack(t, 4096)
	c := r.boot(1, 0, nil, func(c *Config) { c.Calls = 16 }).conn
	for range 40 {
		require.ErrorIs(t, c.Call(bg, &proto.Null{Payload: make([]byte, 1000)}, &proto.NullReply{}, time.Millisecond), ErrTimeout)
	}
	var err error
	n := 0
	for ; err == nil; n++ {
		err = c.Event(&proto.LogLine{Text: "hello"})
	}
	require.ErrorIs(t, err, ErrBusy)
	require.LessOrEqual(t, n, maxEvents+200)
	require.NoError(t, c.Err())
	// It begins to read: everything goes on.
	lines := atomic.Int32{}
	m := echo()
	Handle(m, Inline, func(*Request, *proto.LogLine, *proto.Done) error { lines.Add(1); return nil })
	r.boot(0, 1, m)
	require.NoError(t, c.Call(bg, &proto.Null{}, &proto.NullReply{}, 0))
}

// TestPeerThatNeverTakesReplies is cut off when too much waits for it.
func TestPeerThatNeverTakesReplies(t *testing.T) {
	r := newRack(t, 64<<10)
	k := r.boot(0, 1, echo())
	bad := r.raw(1, 0)
	payload, err := proto.Encode(nil, &proto.Null{Payload: make([]byte, proto.MaxData)})
	require.NoError(t, err)
	for i := 0; k.conn.Err() == nil; i++ {
		require.Less(t, i, 1<<20)
		if bad.send(proto.Frame{Kind: proto.KindCall, Type: proto.TypeNull, ID: uint64(i), From: 1}, payload) != nil {
			runtime.Gosched()
		}
	}
	require.ErrorIs(t, k.conn.Err(), ErrCorrupt)
	require.ErrorContains(t, k.conn.Err(), "wait for a peer that does not read")
}

// TestRestart: what was under way with a former life fails at once, the new life serves.
func TestRestart(t *testing.T) {
	r := newRack(t, 4096)
	m := echo()
	waiting := make(chan struct{}, 1)
	Handle(m, Worker, func(r *Request, _ *proto.Shutdown, _ *proto.Done) error {
		waiting <- struct{}{}
		<-r.Done()
		return nil
	})
	seen := make(chan uint32, 10)
	server := r.boot(0, 1, m)
	c := r.boot(1, 0, nil, func(c *Config) { c.OnPeer = func(g uint32) { seen <- g } }).conn
	for life := uint32(1); life < 5; life++ {
		require.NoError(t, c.Call(bg, &proto.Null{}, &proto.NullReply{}, 0))
		require.Equal(t, life, <-seen)
		p, err := c.Start(bg, &proto.Shutdown{}, &proto.Done{}, time.Minute)
		require.NoError(t, err)
		s, err := c.Open(bg, &proto.Stdio{}, &proto.StdioReply{}, 0)
		require.NoError(t, err)
		<-waiting
		server.loop.Stop()
		for server.conn.Err() == nil {
			runtime.Gosched()
		}
		server = r.boot(0, 1, m)
		err = p.Wait(bg)
		require.ErrorIs(t, err, ErrPeerRestarted)
		require.ErrorContains(t, err, fmt.Sprintf("ckernel is generation %d now, was %d", life+1, life))
		_, err = s.Read(make([]byte, 1))
		require.ErrorIs(t, err, ErrPeerRestarted)
	}
	// A client that restarts does not get the answers of its past life.
	c.Close()
	require.ErrorIs(t, c.Call(bg, &proto.Null{}, &proto.NullReply{}, 0), ErrClosed)
	c2 := r.boot(1, 0, nil).conn
	var beat proto.HeartbeatReply
	require.NoError(t, c2.Call(bg, &proto.Heartbeat{}, &beat, 0))
	require.EqualValues(t, 2, beat.TSC)
}

func TestPeerDied(t *testing.T) {
	r := newRack(t, 4096)
	server := r.boot(0, 1, echo())
	c := r.boot(1, 0, nil).conn
	require.NoError(t, c.Call(bg, &proto.Null{}, &proto.NullReply{}, 0))
	p, err := c.Start(bg, &proto.KillProcess{}, &proto.Done{}, time.Minute)
	require.NoError(t, err)
	c.PeerDied(1)
	require.ErrorIs(t, p.Wait(bg), ErrPeerDead)
	require.ErrorIs(t, c.Call(bg, &proto.Null{}, &proto.NullReply{}, 0), ErrPeerDead)
	server.loop.Stop()
	for server.conn.Err() == nil {
		runtime.Gosched()
	}
	r.boot(0, 1, echo())
	for c.Peer() != 2 {
		runtime.Gosched()
	}
	require.NoError(t, c.Call(bg, &proto.Null{}, &proto.NullReply{}, 0))
	c.PeerDied(1) // an old message: that life is over
	require.NoError(t, c.Call(bg, &proto.Null{}, &proto.NullReply{}, 0))
}

// TestDoorbellStorm rings both doorbells all the time, and lets everybody sleep at once otherwise.
func TestDoorbellStorm(t *testing.T) {
	r := newRack(t, 4096)
	none := func(c *Config) { c.Spin = -1 }
	a, b := r.boot(0, 1, echo(), none), r.boot(1, 0, nil, none)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				a.loop.Wake()
				b.loop.Wake()
				runtime.Gosched()
			}
		}
	})
	for range 200 {
		require.NoError(t, b.conn.Call(bg, &proto.Null{}, &proto.NullReply{}, 0))
	}
	close(stop)
	wg.Wait()
}

// TestIdleSleeps: when nothing is to be done nobody does anything, and a call wakes both sides with one doorbell each at most.
func TestIdleSleeps(t *testing.T) {
	r := newRack(t, 4096)
	none := func(c *Config) { c.Spin = -1 }
	a, b := r.boot(0, 1, echo(), none), r.boot(1, 0, nil, none)
	require.NoError(t, b.conn.Call(bg, &proto.Null{}, &proto.NullReply{}, 0))
	asleep := func() {
		for a.loop.until.Load() == 0 || b.loop.until.Load() == 0 {
			runtime.Gosched()
		}
	}
	for range 50 {
		asleep()
		r.rung[0].Store(0)
		r.rung[1].Store(0)
		require.NoError(t, b.conn.Call(bg, &proto.Null{}, &proto.NullReply{}, 0))
		require.LessOrEqual(t, r.rung[0].Load(), int64(1))
		require.LessOrEqual(t, r.rung[1].Load(), int64(1))
	}
	asleep()
	before := a.loop.Sleeps() + b.loop.Sleeps()
	time.Sleep(30 * time.Millisecond)
	require.LessOrEqual(t, a.loop.Sleeps()+b.loop.Sleeps(), before+2, "somebody wakes up for nothing") // 2: MaxNap
}

// TestThreePeers has one loop serve several connections on each machine, the host tool among them.
func TestThreePeers(t *testing.T) {
	r := newRack(t, 4096)
	host := r.k.Host()
	conns := map[[2]int]*Conn{}
	for self := range host + 1 {
		clock := NewSystemClock()
		loop := NewLoop(clock, NewChanSleeper(clock), 0)
		r.mu.Lock()
		r.bells[self] = loop.Wake
		r.mu.Unlock()
		for peer := range host + 1 {
			if peer == self {
				continue
			}
			cfg, err := PeerConfig(r.k, self, peer)
			require.NoError(t, err)
			require.Equal(t, r.k.PeerName(peer), cfg.Name)
			cfg.Generation, cfg.Handlers, cfg.Notify = uint32(self+10), echo(), func() { r.ring(peer) }
			conns[[2]int{self, peer}], err = loop.Connect(cfg)
			require.NoError(t, err)
		}
		go loop.Run()
		t.Cleanup(loop.Stop)
	}
	var wg sync.WaitGroup
	for pair, c := range conns {
		wg.Go(func() {
			for i := range 50 {
				var beat proto.HeartbeatReply
				if err := c.Call(bg, &proto.Heartbeat{Sequence: uint64(i)}, &beat, 0); err != nil || beat.TSC != uint64(pair[0]+10) {
					t.Errorf("%v: %v, %+v", pair, err, beat)
					return
				}
			}
		})
	}
	wg.Wait()
	_, err := PeerConfig(r.k, 1, 1)
	require.ErrorIs(t, err, layout.ErrNoSuch)
}
