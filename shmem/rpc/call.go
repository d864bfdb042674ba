package rpc

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"dinos/shmem/proto"
	"dinos/shmem/region"
)

// The phases of a call slot, in the low bits of its state; the id is above.
const (
	callDone      uint64 = iota // nobody's, or its owner prepares or reads it
	callWaiting                 // sent; whoever moves it on from here owns the outcome
	callFinishing               // the outcome is being stored
	callPhase     = 3
)

// call is a slot for calls, one after the other. Between Start and Wait it belongs to the caller, but for the outcome, which
// belongs to who moves state from waiting to finishing.
type call struct {
	state    atomic.Uint64 // id<<2 | phase
	deadline atomic.Uint64 // stored before state
	life     atomic.Uint32 // of the peer that was asked, 0 unknown
	seq      uint64        // id of the next call; ≡ the slot's index modulo the number of slots
	typ      proto.Type
	reply    proto.Message
	err      error
	parked   atomic.Uint32 // 1 while the caller sleeps until there is a value in wake
	wake     chan struct{}
	index    uint32
	coder    proto.Coder
	buf      []byte
}

// settle tells the caller that the outcome of call id is stored.
func (k *call) settle(id uint64) {
	k.state.Store(id<<2 | callDone)
	// The caller sets parked before it looks at state for the last time. Whoever takes parked down decides who waits for whom.
	if k.parked.Load() != 0 && k.parked.CompareAndSwap(1, 0) {
		k.wake <- struct{}{}
	}
}

// over reports whether the outcome of call id is stored.
func (k *call) over(id uint64) bool { return k.state.Load() == id<<2|callDone }

// park prepares the caller of call id for sleeping until wake has a value. False means that the call is over.
func (k *call) park(id uint64) bool {
	k.parked.Store(1)
	if !k.over(id) {
		return true
	}
	if !k.parked.CompareAndSwap(1, 0) {
		<-k.wake // it is just being told
	}
	return false
}

// finish ends whatever call is under way in the slot with err, unless it is with the life spare of the peer.
func (k *call) finish(err error, spare uint32) {
	s := k.state.Load()
	if s&callPhase == callWaiting && (spare == 0 || k.life.Load() != spare) && k.state.CompareAndSwap(s, s+callFinishing-callWaiting) {
		k.err = err
		k.settle(s >> 2)
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
	if c.troubled() {
		if err := c.alive(); err != nil {
			return Pending{}, err
		}
	}
	if timeout <= 0 {
		timeout = c.cfg.Timeout
	}
	deadline := c.loop.clock.Now() + int64(timeout)
	i, ok := c.free.take()
	if !ok {
		var err error
		if i, err = c.slot(ctx, timeout); err != nil {
			return Pending{}, err
		}
	}
	if i >= c.used.Load() {
		c.useUpTo(i)
	}
	k := &c.calls[i]
	var err error
	if k.buf, err = k.coder.Encode(k.buf[:0], req); err != nil {
		c.free.put(i)
		return Pending{}, err
	}
	id := k.seq
	k.seq += uint64(len(c.calls))
	k.typ, k.reply, k.err = req.Type(), reply, nil
	region.StoreRelaxed(&k.deadline, uint64(deadline))
	life := c.peer.Load()
	if k.life.Load() != life {
		k.life.Store(life)
	}
	f := proto.Frame{Kind: kind, Type: k.typ, ID: id, To: life, Arg: uint32(min(timeout/time.Microsecond+1, 1<<32-1))}
	if s != nil {
		f.Arg, s.life = Window, life
		c.addStream(s, id|fromUs)
	}
	// Stores are seen in order, so before the frame. The lock that send takes keeps them before the loads of alive below, too.
	region.StoreRelaxed(&k.state, id<<2|callWaiting)
	if err := c.send(f, k.buf, true); err != nil {
		c.dropStream(id | fromUs)
		k.finish(err, 0)
	}
	// The connection may have gone down before it saw this call.
	if c.troubled() {
		if err := c.alive(); err != nil {
			k.finish(err, 0)
		}
	}
	return Pending{c, k, id}, nil
}

// useUpTo notes that slot i is in use.
func (c *Conn) useUpTo(i uint32) {
	for u := c.used.Load(); i >= u && !c.used.CompareAndSwap(u, i+1); u = c.used.Load() {
	}
}

// slot waits for a free slot.
func (c *Conn) slot(ctx context.Context, timeout time.Duration) (uint32, error) {
	t := time.NewTimer(timeout)
	defer t.Stop()
	defer c.free.wait()()
	for {
		if i, ok := c.free.take(); ok {
			return i, nil
		}
		select {
		case <-c.free.freed:
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-c.closed:
			return 0, c.Err()
		case <-t.C:
			return 0, fmt.Errorf("%w: %d calls to %s are under way, all that may be", ErrTimeout, len(c.calls), c.cfg.Name)
		}
	}
}

// Wait waits for the answer. See [Conn.Call].
func (p Pending) Wait(ctx context.Context) error {
	c, k := p.c, p.k
	if !k.over(p.id) && !c.spin(k, p.id) {
		c.loop.before(int64(k.deadline.Load()))
		// Again, since settle of the slot's previous call, whose caller did not wait for it to return, may take this one for parked there.
		for !k.over(p.id) && k.park(p.id) {
			select {
			case <-k.wake:
			case <-ctx.Done():
				c.giveUp(p, ctx.Err())
				<-k.wake
			}
		}
	}
	err := k.err
	if err != nil {
		c.Stats.Errors.Add(1)
		k.err = nil
	}
	k.reply = nil
	c.free.put(k.index)
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
	_ = c.send(proto.Frame{Kind: proto.KindCancel, Type: p.k.typ, ID: p.id}, nil, true)
	p.k.settle(p.id)
}

// expire gives up calls whose time is over, and returns when the next one's is.
func (c *Conn) expire(now int64) int64 {
	next := Forever
	for i := range c.used.Load() {
		k := &c.calls[i]
		s := k.state.Load()
		if s&callPhase != callWaiting {
			continue
		}
		d := int64(k.deadline.Load())
		if d > now {
			next = min(next, d)
			continue
		}
		c.Stats.Timeouts.Add(1)
		c.giveUp(Pending{c, k, s >> 2}, fmt.Errorf("%w: %s", ErrTimeout, c.cfg.Name))
	}
	return next
}

// How many rounds of a spinning caller pass before it looks at the clock, and before it lets other goroutines run: on a
// machine with one core, a worker or the loop may have to do something first. A round is a few loads.
const (
	spinClock = 128
	spinYield = 512
)

// spin polls for a while; it reports whether call id of slot k is over.
func (c *Conn) spin(k *call, id uint64) bool {
	if c.cfg.Spin < 0 {
		return false
	}
	// While the loop polls too, there is nothing to arm. Should it go to sleep meanwhile, it arms, and a doorbell is rung that
	// nobody needs.
	polling := !c.looping.Load()
	c.at()
	if polling {
		c.enter()
	}
	var end int64
	done := false
	for i := 1; ; i++ {
		if c.ready() && c.rxMu.TryLock() {
			c.poll(pollBatch)
			c.rxMu.Unlock()
		}
		if done = k.over(id); done {
			break
		}
		if i%spinClock == 0 {
			now := c.loop.clock.Now()
			if end == 0 {
				end = now + int64(c.cfg.Spin)
			}
			if now > end {
				break
			}
		}
		if i%spinYield == 0 {
			c.loop.yield.Store(true) // back soon, if it is the loop's turn
			runtime.Gosched()
		}
	}
	if polling {
		c.leave()
	}
	return done
}

// enter says that a caller polls from here on: no doorbell is wanted.
func (c *Conn) enter() {
	c.pollers.Add(1)
	c.at()
	if c.armed.Load() {
		c.at()
		c.rxMu.Lock()
		c.disarm()
		c.rxMu.Unlock()
	}
}

// leave ends what enter began. Whoever polls last arms; the loop stores looping before it looks at pollers, so one of the two sees
// the other. Arming and disarming for each of many calls in a row costs as much as the calls: then the loop is made to take
// over for a while.
func (c *Conn) leave() {
	c.at()
	if c.pollers.Add(-1) > 0 {
		return
	}
	c.at()
	if c.looping.Load() {
		return
	}
	c.at()
	c.rxMu.Lock()
	for c.pollers.Load() == 0 && !c.looping.Load() && !c.arm() {
		if !c.poll(pollBatch) && c.Err() != nil {
			break
		}
	}
	c.eager++
	eager := c.eager == eagerCalls
	c.rxMu.Unlock()
	if eager {
		c.loop.Wake()
	}
}
