package rpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/shmem/proto"
	"dinos/shmem/region"
	"dinos/shmem/ring"
)

// peer is a peer by hand: it sends whatever the test wants.
type peer struct {
	tx *ring.Tx
	rx *ring.Rx
}

func (r *rack) raw(self, to int) *peer {
	cfg, err := PeerConfig(r.k, self, to)
	require.NoError(r.t, err)
	tx, err := ring.AttachTx(cfg.Out, cfg.OutBytes, func() { r.ring(to) })
	require.NoError(r.t, err)
	rx, err := ring.AttachRx(cfg.In, cfg.InBytes, ring.Resume, func() { r.ring(to) })
	require.NoError(r.t, err)
	return &peer{tx, rx}
}

func (p *peer) send(f proto.Frame, body []byte) error {
	var head [proto.FrameBytes]byte
	f.Put(&head)
	return p.sendBytes(append(head[:], body...))
}

func (p *peer) sendBytes(b []byte) error {
	if err := p.tx.Push(nil, b); err != nil {
		return err
	}
	return p.tx.Flush()
}

// next is the next frame that comes, hellos left out.
func (p *peer) next(t *testing.T) (proto.Frame, []byte) {
	buf := make([]byte, 1<<16)
	for {
		n, err := p.rx.Recv(buf)
		if err == ring.ErrEmpty {
			runtime.Gosched()
			continue
		}
		require.NoError(t, err)
		f, body, err := proto.ParseFrame(buf[:n])
		require.NoError(t, err)
		if f.Kind != proto.KindHello {
			return f, body
		}
	}
}

// requireTyped accepts the errors that the package documents.
func requireTyped(t *testing.T, err error) {
	t.Helper()
	var re *RemoteError
	if err == nil || errors.As(err, &re) {
		return
	}
	for _, e := range []error{ErrTimeout, ErrPeerDead, ErrPeerRestarted, ErrCorrupt, ErrReset, ErrClosed, ErrBusy, proto.ErrDecode,
		proto.ErrEncode, io.EOF, context.Canceled} {
		if errors.Is(err, e) {
			return
		}
	}
	t.Fatalf("untyped error: %v", err)
}

// TestHostileFrames sends frames that no correct peer sends: the connection answers, ignores or ends, as fits; it never
// panics, and a new connection over rings made anew works.
func TestHostileFrames(t *testing.T) {
	null, err := proto.Encode(nil, &proto.Null{})
	require.NoError(t, err)
	frame := func(f proto.Frame, body ...byte) []byte {
		var head [proto.FrameBytes]byte
		f.Put(&head)
		return append(head[:], body...)
	}
	for _, c := range []struct {
		name  string
		bytes []byte
		down  bool
		code  proto.Code // of an error that comes back, if not 0
	}{
		{"nothing", nil, true, 0},
		{"short", []byte{1, 2, 3}, true, 0},
		{"version", append([]byte{9}, frame(proto.Frame{Kind: proto.KindCall, From: 1})[1:]...), true, 0},
		{"kind", frame(proto.Frame{Kind: 77, From: 1}), true, 0},
		{"generation 0", frame(proto.Frame{Kind: proto.KindHello}), true, 0},
		{"a call with our bit", frame(proto.Frame{Kind: proto.KindCall, Type: proto.TypeNull, ID: fromUs, From: 1}, null...), true, 0},
		{"a reply without it", frame(proto.Frame{Kind: proto.KindReply, Type: proto.TypeNull, ID: 1, From: 1}, null...), true, 0},
		{"a reply to nothing", frame(proto.Frame{Kind: proto.KindReply, Type: proto.TypeNull, ID: fromUs | 12345, From: 1}, null...), false, 0},
		{"an unknown type", frame(proto.Frame{Kind: proto.KindCall, Type: 9999, ID: 5, From: 1}), false, proto.CodeUnsupported},
		{"an unknown stream type", frame(proto.Frame{Kind: proto.KindOpen, Type: 9999, ID: 5, From: 1}), false, proto.CodeUnsupported},
		{"a stream type as a call", frame(proto.Frame{Kind: proto.KindCall, Type: proto.TypeStdio, ID: 5, From: 1}), false, proto.CodeUnsupported},
		{"a malformed call", frame(proto.Frame{Kind: proto.KindCall, Type: proto.TypeNull, ID: 5, From: 1}, 1), false, proto.CodeMalformed},
		{"a malformed open", frame(proto.Frame{Kind: proto.KindOpen, Type: proto.TypeStdio, ID: 5, From: 1}, 1), false, proto.CodeMalformed},
		{"an unknown event", frame(proto.Frame{Kind: proto.KindEvent, Type: 9999, From: 1}), false, 0},
		{"data of no stream", frame(proto.Frame{Kind: proto.KindData, ID: 5, From: 1}, 1), false, 0},
		{"cancel of nothing", frame(proto.Frame{Kind: proto.KindCancel, ID: 5, From: 1}), false, 0},
		{"for a former life", frame(proto.Frame{Kind: proto.KindCall, Type: proto.TypeNull, ID: 5, From: 1, To: 77}, null...), false, proto.CodeStale},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRack(t, 4096)
			k := r.boot(0, 1, echo())
			p := r.raw(1, 0)
			require.NoError(t, p.sendBytes(c.bytes))
			if c.down {
				for k.conn.Err() == nil {
					runtime.Gosched()
				}
				require.ErrorIs(t, k.conn.Err(), ErrCorrupt)
				require.ErrorIs(t, k.conn.Call(bg, &proto.Null{}, &proto.NullReply{}, 0), ErrCorrupt)
				return
			}
			if c.code != 0 {
				f, body := p.next(t)
				var e proto.ErrorReply
				require.NoError(t, proto.Decode(body, &e))
				require.Equal(t, c.code, e.Code)
				require.Equal(t, proto.KindError, f.Kind)
				require.Equal(t, fromUs|5, f.ID)
			}
			require.NoError(t, p.send(proto.Frame{Kind: proto.KindCall, Type: proto.TypeNull, ID: 6, From: 1}, null))
			f, _ := p.next(t)
			require.Equal(t, proto.KindReply, f.Kind)
			require.NoError(t, k.conn.Err())
		})
	}
}

// TestRandomFrames sends mutated frames of every kind and type.
func TestRandomFrames(t *testing.T) {
	const seed = 31
	rnd := rand.New(rand.NewPCG(seed, seed))
	for range 30 {
		r := newRack(t, 64<<10)
		k := r.boot(0, 1, echo())
		p := r.raw(1, 0)
		for n := 0; n < 100 && k.conn.Err() == nil; n++ {
			f := proto.Frame{Kind: proto.Kind(1 + rnd.IntN(11)), Type: proto.Type(rnd.IntN(int(proto.Types) + 2)), Arg: uint32(rnd.IntN(100000)),
				ID: uint64(rnd.IntN(8)), From: 1, To: uint32(rnd.IntN(2))}
			if rnd.IntN(2) == 0 && (f.Kind >= proto.KindData || f.Kind == proto.KindReply || f.Kind == proto.KindError || f.Kind == proto.KindAccept) {
				f.ID |= fromUs
			}
			var body []byte
			if info, ok := proto.Lookup(f.Type); ok && rnd.IntN(4) > 0 {
				body, _ = proto.Encode(nil, info.Request())
			}
			if rnd.IntN(4) == 0 {
				body = append(body, byte(rnd.Uint32()))
			}
			if p.send(f, body) != nil {
				runtime.Gosched()
			}
			_, _ = p.rx.Recv(make([]byte, 1<<16))
		}
		k.loop.Stop()
	}
}

// TestCorruptRings flips bits in the words of live rings, under load: calls end with typed errors in time, and after the
// rings were made anew new connections work.
func TestCorruptRings(t *testing.T) {
	const data, seed = 4096, 5
	rnd := rand.New(rand.NewPCG(seed, seed))
	offsets := []region.Off{0, 8, 16, 24, 32, 0x80, 0x88, 0x100, 0x108, 0x180, 0x188, 0x190, 0x198, 0x1a0, 0x200, 0x300, 0x400}
	for i, off := range offsets {
		for range 3 {
			r := newRack(t, data)
			a, b := r.boot(0, 1, echo()), r.boot(1, 0, echo())
			var wg sync.WaitGroup
			for _, k := range []*kernel{a, b} {
				wg.Go(func() {
					for range 12 {
						requireTyped(t, k.conn.Call(bg, &proto.Null{Payload: make([]byte, 100)}, &proto.NullReply{}, 20*time.Millisecond))
					}
				})
			}
			sub, _, err := r.k.RingRegion(r.k.Region, i&1, 1-i&1)
			require.NoError(t, err)
			for range 3 {
				w, err := sub.LoadU64(off)
				require.NoError(t, err)
				require.NoError(t, sub.StoreU64(off, w^1<<rnd.IntN(64)))
				runtime.Gosched()
			}
			wg.Wait()
			a.loop.Stop()
			b.loop.Stop()
			for a.conn.Err() == nil || b.conn.Err() == nil {
				runtime.Gosched()
			}
			for from := range 2 {
				sub, bytes, err := r.k.RingRegion(r.k.Region, from, 1-from)
				require.NoError(t, err)
				require.NoError(t, ring.Format(sub, bytes, 100))
			}
			a, b = r.boot(0, 1, echo()), r.boot(1, 0, echo())
			require.NoError(t, b.conn.Call(bg, &proto.Null{}, &proto.NullReply{}, 0))
			a.loop.Stop()
			b.loop.Stop()
		}
	}
}

// TestRingsMadeAnew: a connection goes on over rings that somebody formatted under it.
func TestRingsMadeAnew(t *testing.T) {
	r := newRack(t, 4096)
	r.boot(0, 1, echo())
	c := r.boot(1, 0, echo()).conn
	for gen := uint64(2); gen < 6; gen++ {
		require.NoError(t, c.Call(bg, &proto.Null{}, &proto.NullReply{}, 0))
		p, err := c.Start(bg, &proto.KillProcess{}, &proto.Done{}, 0)
		require.NoError(t, err)
		for from := range 2 {
			sub, bytes, err := r.k.RingRegion(r.k.Region, from, 1-from)
			require.NoError(t, err)
			require.NoError(t, ring.Format(sub, bytes, gen))
		}
		r.ring(0) // as who formats does
		r.ring(1)
		require.ErrorIs(t, p.Wait(bg), ErrReset)
		for err := ErrReset; err != nil; { // until both sides have noticed
			err = c.Call(bg, &proto.Null{}, &proto.NullReply{}, 50*time.Millisecond)
			requireTyped(t, err)
		}
	}
}

// TestWindow: a peer that sends more than it was granted is cut off; one that keeps to it is not.
func TestWindow(t *testing.T) {
	open, err := proto.Encode(nil, &proto.Stdio{})
	require.NoError(t, err)
	for _, over := range []bool{false, true} {
		r := newRack(t, 256<<10)
		m := &Mux{}
		stop := make(chan struct{})
		HandleStream(m, func(s *Stream, _ *proto.Stdio) error {
			if err := s.Accept(&proto.StdioReply{}); err != nil {
				return err
			}
			<-stop // never reads
			return nil
		})
		k := r.boot(0, 1, m)
		p := r.raw(1, 0)
		require.NoError(t, p.send(proto.Frame{Kind: proto.KindOpen, Type: proto.TypeStdio, ID: 4, Arg: 100, From: 1}, open))
		f, _ := p.next(t)
		require.Equal(t, proto.KindAccept, f.Kind)
		require.EqualValues(t, Window, f.Arg)
		for range Window / 4096 {
			require.NoError(t, p.send(proto.Frame{Kind: proto.KindData, ID: 4, From: 1}, make([]byte, 4096)))
		}
		if over {
			require.NoError(t, p.send(proto.Frame{Kind: proto.KindData, ID: 4, From: 1}, []byte{1}))
			for k.conn.Err() == nil {
				runtime.Gosched()
			}
			require.ErrorContains(t, k.conn.Err(), "1 bytes on stream 0x4, which has granted 0")
		} else {
			require.NoError(t, p.send(proto.Frame{Kind: proto.KindEnd, ID: 4, From: 1}, nil))
		}
		close(stop)
		if !over {
			f, _ := p.next(t)
			require.Equal(t, proto.KindEnd, f.Kind)
			require.Equal(t, fromUs|4, f.ID)
		}
	}
}

// TestStreams echoes data of many sizes over several streams at a time, through small rings.
func TestStreams(t *testing.T) {
	r := newRack(t, 4096)
	server := r.boot(0, 1, echo())
	c := r.boot(1, 0, nil).conn
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			var reply proto.StdioReply
			s, err := c.Open(bg, &proto.Stdio{Rows: uint16(i & 1)}, &reply, 0)
			if err != nil {
				t.Error(err)
				return
			}
			data := make([]byte, 100_000+i*7777)
			for k := range data {
				data[k] = byte(k*31 + i + k>>8)
			}
			go func() {
				if _, err := s.Write(data); err != nil {
					t.Error(err)
				}
				if err := s.CloseWrite(); err != nil {
					t.Error(err)
				}
			}()
			got, err := io.ReadAll(s)
			if err != nil || !bytes.Equal(data, got) || reply.Terminal != (i&1 == 1) {
				t.Errorf("stream %d: %v, %d of %d bytes", i, err, len(got), len(data))
			}
		})
	}
	wg.Wait()
	for _, k := range []*Conn{c, server.conn} {
		require.Eventually(t, func() bool {
			k.mu.Lock()
			defer k.mu.Unlock()
			return len(k.streams) == 0
		}, 10*time.Second, time.Millisecond, "streams are left over")
	}
}

func TestStreamEnds(t *testing.T) {
	r := newRack(t, 64<<10)
	r.boot(0, 1, echo())
	c := r.boot(1, 0, nil).conn
	var re *RemoteError
	_, err := c.Open(bg, &proto.Stdio{FD: -1}, &proto.StdioReply{}, 0)
	require.ErrorAs(t, err, &re)
	require.Equal(t, &RemoteError{proto.CodeNotFound, 0, "no descriptor -1"}, re)
	_, err = c.Open(bg, &proto.Null{}, &proto.NullReply{}, 0)
	require.ErrorIs(t, err, ErrConfig)
	_, err = c.Open(bg, &proto.Console{}, &proto.ConsoleReply{}, 0)
	require.ErrorAs(t, err, &re)
	require.Equal(t, proto.CodeUnsupported, re.Code)

	// The handler fails after the end of the data: that follows the data.
	s, err := c.Open(bg, &proto.Stdio{FD: 7}, &proto.StdioReply{}, 0)
	require.NoError(t, err)
	_, err = s.Write([]byte("last words"))
	require.NoError(t, err)
	require.NoError(t, s.CloseWrite())
	got, err := io.ReadAll(s)
	require.Equal(t, "last words", string(got))
	require.ErrorAs(t, err, &re)
	require.Equal(t, &RemoteError{proto.CodeConflict, 0, "after EOF"}, re)
	_, err = s.Write([]byte("more"))
	require.Error(t, err)

	// Closed in the middle: both sides forget it, the connection goes on.
	for range 3 {
		s, err = c.Open(bg, &proto.Stdio{}, &proto.StdioReply{}, 0)
		require.NoError(t, err)
		_, err = s.Write(make([]byte, 10000))
		require.NoError(t, err)
		require.NoError(t, s.Close())
		_, err = s.Write([]byte("x"))
		require.ErrorIs(t, err, ErrClosed)
	}
	require.NoError(t, c.Call(bg, &proto.Null{}, &proto.NullReply{}, 0))

	// No more than MaxStreams at a time.
	var open []*Stream
	for err = nil; err == nil; {
		require.LessOrEqual(t, len(open), MaxStreams)
		if s, err = c.Open(bg, &proto.Stdio{}, &proto.StdioReply{}, 0); err == nil {
			open = append(open, s)
		}
	}
	require.ErrorAs(t, err, &re)
	require.Equal(t, proto.CodeBusy, re.Code)
	go c.Close()
	for _, s := range open {
		_, err := io.ReadAll(s)
		require.ErrorIs(t, err, ErrClosed)
	}
}

// fakeClock is a clock and sleeper that a test moves on.
type fakeClock struct {
	mu    sync.Mutex
	cond  *sync.Cond
	now   int64
	woken bool
	until int64
}

func (f *fakeClock) Now() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

func (f *fakeClock) Wake() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.woken = true
	f.cond.Broadcast()
}

func (f *fakeClock) Sleep(until int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.until = until; !f.woken && f.now < until; {
		f.cond.Wait()
	}
	f.woken = false
}

func (f *fakeClock) advance(d int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now += d
	f.cond.Broadcast()
}

// TestDeadlinesByClock: no call ends before its time by the clock, and each ends when that has come.
func TestDeadlinesByClock(t *testing.T) {
	r := newRack(t, 4096)
	clock := &fakeClock{}
	clock.cond = sync.NewCond(&clock.mu)
	loop := NewLoop(clock, clock, 0)
	cfg, err := PeerConfig(r.k, 1, 0)
	require.NoError(t, err)
	cfg.Generation, cfg.Spin = 1, -1
	c, err := loop.Connect(cfg)
	require.NoError(t, err)
	go loop.Run()
	t.Cleanup(loop.Stop)
	results := make(chan int, 3)
	for i := range 3 {
		go func() {
			err := c.Call(bg, &proto.Null{}, &proto.NullReply{}, time.Duration(i+1)*time.Second)
			if errors.Is(err, ErrTimeout) {
				results <- i
			} else {
				results <- 100
			}
		}()
	}
	for c.Stats.Calls.Load() < 3 || loop.until.Load() != int64(time.Second) {
		runtime.Gosched()
	}
	for i := range 3 {
		clock.advance(int64(time.Second) - 1)
		for range 100 {
			runtime.Gosched()
		}
		require.Empty(t, results, "too early")
		clock.advance(1)
		require.Equal(t, i, <-results)
	}
}

// TestLostFlag takes the sleep flag away from a sleeper: a look at the rings now and then makes up for it.
func TestLostFlag(t *testing.T) {
	r := newRack(t, 4096)
	a, b := r.boot(0, 1, echo()), r.boot(1, 0, nil)
	require.NoError(t, b.conn.Call(bg, &proto.Null{}, &proto.NullReply{}, 0))
	for a.loop.until.Load() == 0 {
		runtime.Gosched()
	}
	sub, _, err := r.k.RingRegion(r.k.Region, 1, 0)
	require.NoError(t, err)
	require.NoError(t, sub.StoreU64(0x108, 0))
	start := time.Now()
	require.NoError(t, b.conn.Call(bg, &proto.Null{}, &proto.NullReply{}, 0))
	t.Logf("answered after %v", time.Since(start))
}

// TestCheck: Check finds what a sleeping loop cannot have noticed, and wakes it for nothing else.
func TestCheck(t *testing.T) {
	r := newRack(t, 4096)
	a, b := r.boot(0, 1, echo()), r.boot(1, 0, nil)
	require.NoError(t, b.conn.Call(bg, &proto.Null{}, &proto.NullReply{}, 0))
	asleep := func() {
		for a.loop.until.Load() == 0 {
			runtime.Gosched()
		}
	}
	asleep()
	naps := a.loop.Sleeps()
	for range 1000 {
		a.loop.Check()
	}
	require.LessOrEqual(t, a.loop.Sleeps(), naps+1, "woken without a reason") // its own nap may have ended
	in, _, err := r.k.RingRegion(r.k.Region, 1, 0)
	require.NoError(t, err)
	out, _, err := r.k.RingRegion(r.k.Region, 0, 1)
	require.NoError(t, err)
	for name, spoil := range map[string]func(){
		"sleep flag": func() { require.NoError(t, in.StoreU64(0x108, 0)) },
		"head":       func() { require.NoError(t, in.StoreU64(0x100, 1<<60)) },
		"tail":       func() { require.NoError(t, out.StoreU64(0x80, 1<<60)) },
	} {
		asleep()
		spoil()
		done := make(chan error, 1)
		go func() { done <- b.conn.Call(bg, &proto.Null{}, &proto.NullReply{}, 0) }()
		for ended := false; !ended; {
			select {
			case err := <-done:
				require.NoError(t, err, name)
				ended = true
			default:
				a.loop.Check()
				runtime.Gosched()
			}
		}
	}
}
