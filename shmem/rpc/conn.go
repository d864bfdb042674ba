package rpc

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"dinos/shmem/proto"
	"dinos/shmem/region"
	"dinos/shmem/ring"
)

// Limits and defaults of a connection.
const (
	DefaultCalls   = 256
	MaxCalls       = 1 << 14
	DefaultWorkers = 16
	DefaultTimeout = 5 * time.Second
	DefaultSpin    = 20 * time.Microsecond
	MaxNap         = time.Second // that a Loop sleeps without a look at the rings
	MaxStreams     = 64          // of either side
	Window         = 64 << 10    // bytes that a stream takes before they are read

	eagerCalls = 8       // that poll for themselves before the loop takes over
	maxEvents  = 256     // events waiting for room
	maxReplies = 8 << 20 // bytes that wait for room before a peer that does not read is given up
	pollBatch  = 64      // frames before who polls looks at something else
)

// Config is a connection.
type Config struct {
	Name              string        // of the peer, for errors
	Out, In           region.Region // the rings to the peer and from it
	OutBytes, InBytes uint64        // their data
	Notify            func()        // rings the peer's doorbell
	Generation        uint32        // of this kernel's life, not 0
	Peer              uint32        // the peer's generation if it is known, else 0
	Handlers          *Mux          // nil for none
	Calls             int           // that may be under way, a power of two; 0 is DefaultCalls
	Workers           int           // handlers that may run at a time; 0 is DefaultWorkers
	Timeout           time.Duration // of calls that name none; 0 is DefaultTimeout
	Spin              time.Duration // that a caller polls before it sleeps; 0 is DefaultSpin, negative is none
	OnPeer            func(generation uint32)
	OnConn            func(c *Conn)             // the connection is made; called by Connect before anything on it is served
	OnPanic           func(v any, stack []byte) // a handler panicked; nil lets the panic go on
}

// Stats are the counters of a connection.
type Stats struct {
	Calls, Served, Events, Errors, Timeouts atomic.Uint64
	Late                                    atomic.Uint64 // replies to calls that were over
	Stale                                   atomic.Uint64 // frames from or for a former life
	Dropped                                 atomic.Uint64 // events and stream frames that nobody wanted
	BytesIn, BytesOut                       atomic.Uint64
	Queued                                  atomic.Uint64 // frames that found the ring full
}

// Conn is the connection to a peer. All methods may be called by any number of goroutines.
type Conn struct {
	cfg   Config
	loop  *Loop
	Stats Stats

	down  atomic.Pointer[error] // why the connection is of no more use
	peer  atomic.Uint32         // generation, 0 unknown
	dead  atomic.Uint32         // generation declared dead, 0 none
	calls []call
	free  slots
	used  atomic.Uint32 // no slot from this one on was ever used

	hint    atomic.Pointer[ring.Rx] // rx, for Changed
	probe   func()                  // of the tests: between two steps of those that poll, arm and sleep
	pollers atomic.Int32            // callers that poll
	looping atomic.Bool             // the Loop polls

	rxMu      sync.Mutex // see doc.go
	rx        *ring.Rx
	buf       []byte
	armed     atomic.Bool // changes under rxMu
	eager     int         // callers that have armed since the Loop slept
	coder     proto.Coder
	inline    Request                // of the inline handler that runs
	exchanges [proto.Types]*exchange // of inline handlers

	// Of the Loop's goroutine.
	adopted  bool   // looping was set since the Loop slept
	received uint64 // Stats.BytesIn as it was

	txMu   sync.Mutex
	tx     *ring.Tx
	queue  [][]byte // frames that wait for room
	queued int      // their bytes
	events int      // how many of them are events
	dirty  bool     // pushed, not flushed
	reset  atomic.Bool
	todo   atomic.Bool // may be left: a queue, something to flush, or a reset; set under txMu

	mu      sync.Mutex
	served  map[uint64]*Request
	streams map[uint64]*Stream // by the id as the peer's frames have it
	work    chan *Request
	workers int
	closed  chan struct{}
}

func (cfg *Config) defaults() error {
	if cfg.Calls == 0 {
		cfg.Calls = DefaultCalls
	}
	if cfg.Workers == 0 {
		cfg.Workers = DefaultWorkers
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.Spin == 0 {
		cfg.Spin = DefaultSpin
	}
	if cfg.Handlers == nil {
		cfg.Handlers = &Mux{}
	}
	switch {
	case cfg.Generation == 0:
		return fmt.Errorf("%w: generation 0, want that of this life", ErrConfig)
	case cfg.Calls < 1 || cfg.Calls > MaxCalls || cfg.Calls&(cfg.Calls-1) != 0:
		return fmt.Errorf("%w: %d calls, want a power of two up to %d", ErrConfig, cfg.Calls, MaxCalls)
	case cfg.Workers < 1:
		return fmt.Errorf("%w: %d workers, want at least 1", ErrConfig, cfg.Workers)
	case cfg.Timeout < 0:
		return fmt.Errorf("%w: timeout %v, want more than 0", ErrConfig, cfg.Timeout)
	}
	return nil
}

// Connect attaches to the rings of a peer, greets it and has loop serve the connection. What the peer sent to a former life of
// this kernel is discarded.
func (l *Loop) Connect(cfg Config) (*Conn, error) {
	if err := cfg.defaults(); err != nil {
		return nil, err
	}
	c := &Conn{cfg: cfg, loop: l, calls: make([]call, cfg.Calls),
		served: map[uint64]*Request{}, streams: map[uint64]*Stream{}, work: make(chan *Request, cfg.Calls), closed: make(chan struct{})}
	for i := range c.calls {
		k := &c.calls[i]
		k.wake = make(chan struct{}, 1)
		k.index = uint32(i)
		// 0 is the id of no call: a slot that was never used must not look like one that is over.
		k.seq = uint64(i + len(c.calls))
	}
	c.free.init(len(c.calls))
	c.peer.Store(cfg.Peer)
	if err := c.attach(ring.Discard); err != nil {
		return nil, fmt.Errorf("rpc: to %s: %w", cfg.Name, err)
	}
	if cfg.OnConn != nil {
		cfg.OnConn(c)
	}
	_ = c.send(proto.Frame{Kind: proto.KindHello}, nil, true)
	if err := l.add(c); err != nil {
		return nil, err
	}
	return c, nil
}

// attach needs rxMu and txMu, or a Conn that nobody knows yet.
func (c *Conn) attach(start ring.Start) error {
	tx, err := ring.AttachTx(c.cfg.Out, c.cfg.OutBytes, c.cfg.Notify)
	if err != nil {
		return err
	}
	rx, err := ring.AttachRx(c.cfg.In, c.cfg.InBytes, start, c.cfg.Notify)
	if err != nil {
		return err
	}
	c.tx, c.rx, c.dirty = tx, rx, false
	c.armed.Store(false)
	c.hint.Store(rx)
	if c.buf == nil {
		c.buf = make([]byte, rx.MaxMessage())
	}
	return nil
}

// Name is the peer's name.
func (c *Conn) Name() string { return c.cfg.Name }

// Peer is the peer's generation, 0 if nothing was heard of it yet.
func (c *Conn) Peer() uint32 { return c.peer.Load() }

// Err is why the connection is of no more use, or nil.
func (c *Conn) Err() error {
	if p := c.down.Load(); p != nil {
		return *p
	}
	return nil
}

// Doorbells is how many were rung for the peer.
func (c *Conn) Doorbells() uint64 {
	c.rxMu.Lock()
	n := c.rx.Doorbells()
	c.rxMu.Unlock()
	c.txMu.Lock()
	n += c.tx.Doorbells()
	c.txMu.Unlock()
	return n
}

// Close ends the connection: all that is under way fails with ErrClosed.
func (c *Conn) Close() { c.fail(ErrClosed) }

// fail ends the connection for the reason err; the first reason counts.
func (c *Conn) fail(err error) {
	if !c.down.CompareAndSwap(nil, &err) {
		return
	}
	close(c.closed)
	c.failAll(err, 0)
	c.loop.remove(c)
}

// corrupt ends the connection because of what the peer did.
func (c *Conn) corrupt(err error) {
	c.fail(fmt.Errorf("%w: %s: %w", ErrCorrupt, c.cfg.Name, err))
}

// failAll fails what is under way, but not what is with the life spare of the peer (0: nothing is spared). The connection
// itself may go on.
func (c *Conn) failAll(err error, spare uint32) {
	for i := range c.calls {
		c.calls[i].finish(err, spare)
	}
	var streams []*Stream
	var requests []*Request
	c.mu.Lock()
	for key, s := range c.streams {
		if spare == 0 || s.life != spare {
			streams = append(streams, s)
			delete(c.streams, key)
		}
	}
	for id, r := range c.served {
		if spare == 0 || r.frame.From != spare {
			requests = append(requests, r)
			delete(c.served, id)
		}
	}
	c.mu.Unlock()
	for _, s := range streams {
		s.failed(err)
	}
	for _, r := range requests {
		r.cancel()
	}
}

// PeerDied tells that the membership has declared the life generation of the peer dead. What is under way fails with
// ErrPeerDead, and so do new calls until a newer life shows up.
func (c *Conn) PeerDied(generation uint32) {
	if p := c.peer.Load(); p != 0 && int32(p-generation) > 0 {
		return // that life is over already
	}
	c.dead.Store(generation)
	c.peer.CompareAndSwap(0, generation)
	c.dropQueue(0)
	c.failAll(fmt.Errorf("%w: %s generation %d", ErrPeerDead, c.cfg.Name, generation), 0)
}

// newLife takes over a newer generation of the peer.
func (c *Conn) newLife(generation uint32) {
	old := c.peer.Swap(generation)
	if old != 0 {
		c.dropQueue(generation)
		c.failAll(fmt.Errorf("%w: %s is generation %d now, was %d", ErrPeerRestarted, c.cfg.Name, generation, old), generation)
	}
	if c.cfg.OnPeer != nil {
		c.cfg.OnPeer(generation)
	}
}

// dropQueue forgets the queued frames that are not for the life spare of the peer.
func (c *Conn) dropQueue(spare uint32) {
	c.txMu.Lock()
	defer c.txMu.Unlock()
	var kept [][]byte
	c.queued, c.events = 0, 0
	for _, q := range c.queue {
		f, _, err := proto.ParseFrame(q)
		if err != nil || spare == 0 || f.To != spare {
			continue
		}
		kept = append(kept, q)
		c.queued += len(q)
		if f.Kind == proto.KindEvent {
			c.events++
		}
	}
	c.queue = kept
}

// at marks a step.
func (c *Conn) at() {
	if c.probe != nil {
		c.probe()
	}
}

// troubled reports whether alive needs to be asked.
func (c *Conn) troubled() bool { return c.down.Load() != nil || c.dead.Load() != 0 }

// ready reports whether poll may have something to do. It is a few loads, for those who look again and again.
func (c *Conn) ready() bool { return c.hint.Load().Changed() || c.todo.Load() }

// alive is nil if a frame to the peer makes sense.
func (c *Conn) alive() error {
	if err := c.Err(); err != nil {
		return err
	}
	if d := c.dead.Load(); d != 0 && d == c.peer.Load() {
		return fmt.Errorf("%w: %s generation %d", ErrPeerDead, c.cfg.Name, d)
	}
	return nil
}

// send puts a frame into the ring, or into the queue if it does not fit, and shows it to the peer if flush is true; else who polls
// does that when it is done. The error is for frames that can never be sent; that of a broken ring goes to whoever polls.
func (c *Conn) send(f proto.Frame, body []byte, flush bool) error {
	f.From = c.cfg.Generation
	if f.To == 0 {
		f.To = c.peer.Load()
	}
	var head [proto.FrameBytes]byte
	f.Put(&head)
	c.txMu.Lock()
	count(&c.Stats.BytesOut, uint64(len(head)+len(body)))
	if f.Kind == proto.KindCall || f.Kind == proto.KindOpen {
		count(&c.Stats.Calls, 1)
	}
	if len(c.queue) == 0 {
		if err := c.tx.Push(head[:], body); err == nil {
			switch {
			case flush:
				c.dirty = true
				c.flushLocked()
			case !c.dirty:
				c.dirty = true
				c.todo.Store(true)
			}
			c.txMu.Unlock()
			return nil
		} else if err != ring.ErrFull && err != ring.ErrStale {
			c.txMu.Unlock()
			return c.notPushed(f, err)
		}
	}
	err := c.enqueueFrame(f, head[:], body)
	if flush {
		c.flushLocked()
	}
	c.txMu.Unlock()
	return err
}

// count adds to a counter that only who holds a certain lock adds to.
func count(p *atomic.Uint64, n uint64) { region.StoreRelaxed(p, region.LoadRelaxed(p)+n) }

// notPushed deals with an error of the ring about a frame.
func (c *Conn) notPushed(f proto.Frame, err error) error {
	if errors.Is(err, ring.ErrTooBig) {
		return fmt.Errorf("%w: %v to %s: %w", proto.ErrEncode, f.Type, c.cfg.Name, err)
	}
	c.broken(err)
	return nil
}

// enqueueFrame adds a frame to the queue. txMu is held.
func (c *Conn) enqueueFrame(f proto.Frame, head, body []byte) error {
	if len(head)+len(body) > c.tx.MaxMessage() {
		return fmt.Errorf("%w: %v to %s: %d bytes, the ring holds at most %d", proto.ErrEncode, f.Type, c.cfg.Name,
			len(head)+len(body), c.tx.MaxMessage())
	}
	if f.Kind == proto.KindEvent {
		if c.events >= maxEvents {
			return fmt.Errorf("%w: %d events wait for %s", ErrBusy, c.events, c.cfg.Name)
		}
		c.events++
	}
	c.Stats.Queued.Add(1)
	c.queue = append(c.queue, append(append(make([]byte, 0, len(head)+len(body)), head...), body...))
	c.queued += len(head) + len(body)
	if c.queued > maxReplies {
		err := fmt.Errorf("%d bytes wait for a peer that does not read", c.queued)
		c.loop.later(func() { c.corrupt(err) })
	}
	c.todo.Store(true)
	c.loop.Wake() // it watches for room
	return nil
}

// broken notes that the outgoing ring failed.
func (c *Conn) broken(err error) {
	if errors.Is(err, ring.ErrReset) {
		c.reset.Store(true)
		c.todo.Store(true)
		c.loop.Wake()
		return
	}
	c.loop.later(func() { c.corrupt(err) })
}

// flush shows the peer what was posted.
func (c *Conn) flush() {
	c.txMu.Lock()
	c.flushLocked()
	c.txMu.Unlock()
}

func (c *Conn) flushLocked() {
	if c.dirty {
		c.dirty = false
		if err := c.tx.Flush(); err != nil {
			c.broken(err)
		}
	}
}

// drain moves queued frames to the ring, and makes sure that a doorbell tells of room if some are left. It reports whether it
// did: false means to drain again.
func (c *Conn) drain() bool {
	c.txMu.Lock()
	defer c.txMu.Unlock()
	c.drainLocked()
	c.flushLocked()
	return len(c.queue) == 0 || c.tx.Arm(len(c.queue[0])) || c.Err() != nil || c.reset.Load()
}

func (c *Conn) drainLocked() {
	for len(c.queue) > 0 {
		q := c.queue[0]
		err := c.tx.Push(q[:proto.FrameBytes], q[proto.FrameBytes:])
		if err == ring.ErrFull || err == ring.ErrStale {
			return
		}
		if err != nil {
			c.broken(err)
			return
		}
		if proto.Kind(q[1]) == proto.KindEvent {
			c.events--
		}
		c.queued -= len(q)
		c.queue[0] = nil
		c.queue = c.queue[1:]
		c.dirty = true
	}
	c.queue = nil
}

// Event sends a message that has no reply. Errors: ErrBusy if too many wait already, proto.ErrEncode, ErrPeerDead and the like.
// Nil does not mean that it will arrive.
func (c *Conn) Event(m proto.Request) error {
	if err := c.alive(); err != nil {
		return err
	}
	b, err := proto.Encode(nil, m)
	if err != nil {
		return err
	}
	c.Stats.Events.Add(1)
	return c.send(proto.Frame{Kind: proto.KindEvent, Type: m.Type()}, b, true)
}
