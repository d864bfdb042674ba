package rpc

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"dinos/shmem/proto"
)

// The phases of a call slot, in the low bits of its state; the id is above.
const (
	callIdle      uint64 = iota // nobody's, or its owner prepares or reads it
	callWaiting                 // sent; whoever moves it on from here owns the outcome
	callFinishing               // the outcome is being stored
	callPhase     = 3
)

// call is a slot for calls, one after the other. Between Start and Wait it belongs to the caller, but for the outcome, which
// belongs to who moves state from waiting to finishing.
type call struct {
	state    atomic.Uint64 // id<<2 | phase
	deadline atomic.Int64
	life     atomic.Uint32 // of the peer that was asked, 0 unknown
	seq      uint64        // id of the next call; ≡ the slot's index modulo the number of slots
	typ      proto.Type
	reply    proto.Message
	err      error
	window   uint32        // of an accepted stream
	done     chan struct{} // has a value once the outcome is stored
	coder    proto.Coder
	buf      []byte
}

// finish ends whatever call is under way in the slot with err, unless it is with the life spare of the peer.
func (k *call) finish(err error, spare uint32) {
	s := k.state.Load()
	if s&callPhase == callWaiting && (spare == 0 || k.life.Load() != spare) && k.state.CompareAndSwap(s, s+callFinishing-callWaiting) {
		k.err = err
		k.done <- struct{}{}
	}
}

// Pending is a call under way. Wait must be called once.
type Pending struct {
	c  *Conn
	k  *call
	id uint64
}

// Call sends req, waits for the answer and decodes it to reply. The timeout is from now; 0 is the connection's. ctx cancels.
// Errors: *RemoteError, ErrTimeout, ErrPeerDead, ErrPeerRestarted, ErrReset, ErrCorrupt, ErrClosed, those of proto for messages
// that do not encode or decode, and ctx's. reply is undefined on error.
func (c *Conn) Call(ctx context.Context, req proto.Request, reply proto.Message, timeout time.Duration) error {
	p, err := c.Start(ctx, req, reply, timeout)
	if err != nil {
		return err
	}
	return p.Wait(ctx)
}

// Start sends req and returns without waiting for the answer, unless as many calls as the connection may have are under
// way. Call tells of the rest.
func (c *Conn) Start(ctx context.Context, req proto.Request, reply proto.Message, timeout time.Duration) (Pending, error) {
	return c.start(ctx, proto.KindCall, req, reply, timeout, nil)
}

func (c *Conn) start(ctx context.Context, kind proto.Kind, req proto.Request, reply proto.Message, timeout time.Duration, s *Stream) (Pending, error) {
	if err := c.alive(); err != nil {
		return Pending{}, err
	}
	if timeout <= 0 {
		timeout = c.cfg.Timeout
	}
	deadline := c.loop.clock.Now() + int64(timeout)
	k, err := c.slot(ctx, timeout)
	if err != nil {
		return Pending{}, err
	}
	if k.buf, err = k.coder.Encode(k.buf[:0], req); err != nil {
		c.free <- k
		return Pending{}, err
	}
	id := k.seq
	k.seq += uint64(len(c.calls))
	k.typ, k.reply, k.err = req.Type(), reply, nil
	k.deadline.Store(deadline)
	life := c.peer.Load()
	k.life.Store(life)
	f := proto.Frame{Kind: kind, Type: k.typ, ID: id, To: life, Arg: uint32(min(timeout/time.Microsecond+1, 1<<32-1))}
	if s != nil {
		f.Arg, s.life = Window, life
		c.addStream(s, id|fromUs)
	}
	c.running.Add(1)
	k.state.Store(id<<2 | callWaiting)
	c.Stats.Calls.Add(1)
	if err := c.post(f, k.buf); err != nil {
		c.dropStream(id | fromUs)
		k.finish(err, 0)
	}
	c.flush()
	// The connection may have gone down before it saw this call.
	if err := c.alive(); err != nil {
		k.finish(err, 0)
	}
	return Pending{c, k, id}, nil
}

// slot takes a free slot, waiting for one if need be.
func (c *Conn) slot(ctx context.Context, timeout time.Duration) (*call, error) {
	select {
	case k := <-c.free:
		return k, nil
	default:
	}
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case k := <-c.free:
		return k, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-c.closed:
		return nil, c.Err()
	case <-t.C:
		return nil, fmt.Errorf("%w: %d calls to %s are under way, all that may be", ErrTimeout, len(c.calls), c.cfg.Name)
	}
}

// Wait waits for the answer. See [Conn.Call].
func (p Pending) Wait(ctx context.Context) error {
	c, k := p.c, p.k
	if !c.spin(k) {
		c.loop.before(k.deadline.Load())
		select {
		case <-k.done:
		case <-ctx.Done():
			c.giveUp(p, ctx.Err())
			<-k.done
		}
	}
	err := k.err
	if err != nil {
		c.Stats.Errors.Add(1)
	}
	k.reply, k.err = nil, nil
	k.state.Store(callIdle)
	c.running.Add(-1)
	c.free <- k
	return err
}

// giveUp ends a call without its answer, and tells the peer.
func (c *Conn) giveUp(p Pending, err error) {
	s := p.id<<2 | callWaiting
	if !p.k.state.CompareAndSwap(s, p.id<<2|callFinishing) {
		return // the outcome is on its way
	}
	p.k.err = err
	c.dropStream(p.id | fromUs)
	_ = c.post(proto.Frame{Kind: proto.KindCancel, Type: p.k.typ, ID: p.id}, nil)
	c.flush()
	p.k.done <- struct{}{}
}

// expire gives up calls whose time is over, and returns when the next one's is.
func (c *Conn) expire(now int64) int64 {
	if c.running.Load() == 0 {
		return Forever
	}
	next := Forever
	for i := range c.calls {
		k := &c.calls[i]
		s := k.state.Load()
		if s&callPhase != callWaiting {
			continue
		}
		d := k.deadline.Load()
		if d > now {
			next = min(next, d)
			continue
		}
		c.Stats.Timeouts.Add(1)
		c.giveUp(Pending{c, k, s >> 2}, fmt.Errorf("%w: %s", ErrTimeout, c.cfg.Name))
	}
	return next
}

// spin polls for a while; it reports whether the call is done.
func (c *Conn) spin(k *call) bool {
	select {
	case <-k.done:
		return true
	default:
	}
	if c.cfg.Spin < 0 {
		return false
	}
	var end int64
	polling, done := false, false
	for i, over := 0, false; !done && !over; i++ {
		if c.rxMu.TryLock() {
			if !polling {
				polling = true
				c.pollers++
				c.disarm()
			}
			c.poll(pollBatch)
			c.rxMu.Unlock()
		}
		select {
		case <-k.done:
			done = true
			continue
		default:
		}
		if i%8 == 7 {
			now := c.loop.clock.Now()
			if end == 0 {
				end = now + int64(c.cfg.Spin)
			}
			over = now > end
		}
		if i%4 == 3 {
			runtime.Gosched() // on a machine with one core, the peer of a test or a worker wants it
		}
	}
	if polling {
		c.rxMu.Lock()
		c.pollers--
		// Whoever polls last arms. Arming fails while there is something to receive.
		for c.pollers == 0 && !c.looping && !c.arm() {
			if !c.poll(pollBatch) && c.Err() != nil {
				break
			}
		}
		c.rxMu.Unlock()
	}
	return done
}
