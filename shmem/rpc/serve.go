package rpc

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"dinos/shmem/proto"
)

// Mode says where a handler runs.
type Mode uint8

const (
	// Inline handlers run where the request arrives. They must be quick, must not block and must not call the same peer.
	Inline Mode = iota
	// Worker handlers run in a goroutine, as many at a time as the connection's Workers. They may block.
	Worker
)

// Mux has the handlers of requests by type. Fill it before it is used; then any number of connections may share it.
type Mux struct{ handlers [proto.Types]*handler }

type handler struct {
	mode   Mode
	pool   sync.Pool // of *exchange
	stream func(*Stream, proto.Request) error
}

// exchange is a request and its reply.
type exchange struct {
	req   proto.Request
	reply proto.Message
	call  func(*Request) error // has the handler fill reply, which is zero then
	coder proto.Coder
	buf   []byte
}

// Handle has f serve requests of Q's type with replies R. f gets a zero reply, and must not keep either of the two. For an
// event, R is proto.Done. It panics if the type has a handler or the types do not belong together: that is a mistake of
// the program, at its start.
func Handle[Q, R any, PQ interface {
	*Q
	proto.Request
}, PR interface {
	*R
	proto.Message
}](m *Mux, mode Mode, f func(r *Request, req PQ, reply PR) error) {
	h := &handler{mode: mode}
	h.pool.New = func() any {
		req, reply := PQ(new(Q)), PR(new(R))
		return &exchange{req: req, reply: reply, call: func(r *Request) error {
			*reply = *new(R)
			return f(r, req, reply)
		}}
	}
	m.put(PQ(new(Q)).Type(), h, PR(new(R)), false)
}

// HandleNull has m answer null calls, at once.
func HandleNull(m *Mux) {
	Handle(m, Inline, func(_ *Request, q *proto.Null, a *proto.NullReply) error {
		a.Payload = q.Payload
		return nil
	})
}

// HandleStream has f serve streams that are opened by requests of Q's type, each in a goroutine of its own. f accepts the stream
// and moves data; when it returns, the stream ends, with its error if that is not nil.
func HandleStream[Q any, PQ interface {
	*Q
	proto.Request
}](m *Mux, f func(s *Stream, req PQ) error) {
	h := &handler{mode: Worker, stream: func(s *Stream, q proto.Request) error { return f(s, q.(PQ)) }}
	h.pool.New = func() any { return &exchange{req: PQ(new(Q))} }
	m.put(PQ(new(Q)).Type(), h, nil, true)
}

func (m *Mux) put(t proto.Type, h *handler, reply proto.Message, stream bool) {
	info, ok := proto.Lookup(t)
	want := fmt.Sprintf("%T", &proto.Done{})
	if info.Reply != nil {
		want = fmt.Sprintf("%T", info.Reply())
	}
	switch {
	case !ok || info.Stream != stream:
		panic(fmt.Sprintf("rpc: %v: handler of the wrong kind", t))
	case !stream && fmt.Sprintf("%T", reply) != want:
		panic(fmt.Sprintf("rpc: %v is answered by %s, not by %T", t, want, reply))
	case m.handlers[t] != nil:
		panic(fmt.Sprintf("rpc: %v has a handler already", t))
	}
	m.handlers[t] = h
}

func (m *Mux) get(t proto.Type, stream bool) *handler {
	if t >= proto.Types || m.handlers[t] == nil || (m.handlers[t].stream != nil) != stream {
		return nil
	}
	return m.handlers[t]
}

// Request is what a handler knows of a request besides its message. It is valid until the handler returns.
type Request struct {
	Conn    *Conn
	Type    proto.Type
	arrived int64 // by the loop's clock; 0 for inline handlers, which run at once
	frame   proto.Frame
	x       *exchange
	h       *handler

	canceled atomic.Bool
	mu       sync.Mutex
	done     chan struct{} // made when asked for
	closed   bool
}

// Peer is the generation of the caller.
func (r *Request) Peer() uint32 { return r.frame.From }

// Deadline is when, by the loop's clock, the caller gives up; Forever if it does not.
func (r *Request) Deadline() int64 {
	if r.frame.Kind != proto.KindCall || r.frame.Arg == 0 {
		return Forever
	}
	from := r.arrived
	if from == 0 {
		from = r.Conn.loop.clock.Now()
	}
	return from + int64(r.frame.Arg)*1000
}

// Err is why the caller does not want the answer any more, or nil.
func (r *Request) Err() error {
	switch {
	case r.canceled.Load():
		return context.Canceled
	case r.Deadline() <= r.Conn.loop.clock.Now():
		return ErrTimeout
	}
	return nil
}

// Done is closed when the caller cancels or its kernel is gone. Inline handlers have no use for it.
func (r *Request) Done() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done == nil {
		r.done = make(chan struct{})
		if r.canceled.Load() && !r.closed {
			r.closed = true
			close(r.done)
		}
	}
	return r.done
}

func (r *Request) cancel() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.canceled.Store(true)
	if r.done != nil && !r.closed {
		r.closed = true
		close(r.done)
	}
}

// serve handles a call or an event. rxMu is held.
func (c *Conn) serve(f proto.Frame, body []byte) {
	h := c.cfg.Handlers.get(f.Type, false)
	if h == nil {
		c.replyError(f, &proto.ErrorReply{Code: proto.CodeUnsupported, Text: f.Type.String() + " has no handler here"})
		return
	}
	if h.mode == Inline {
		c.serveInline(f, h, body)
		return
	}
	x := h.pool.Get().(*exchange)
	if err := x.coder.Decode(body, x.req); err != nil {
		h.pool.Put(x)
		c.replyError(f, &proto.ErrorReply{Code: proto.CodeMalformed, Text: err.Error()})
		return
	}
	r := &Request{Conn: c, Type: f.Type, frame: f, x: x, h: h}
	r.arrived = max(c.loop.clock.Now(), 1)
	if f.Kind == proto.KindCall {
		c.mu.Lock()
		_, twice := c.served[f.ID]
		if !twice {
			c.served[f.ID] = r
		}
		c.mu.Unlock()
		if twice {
			h.pool.Put(x)
			c.replyError(f, &proto.ErrorReply{Code: proto.CodeConflict, Text: "a call with this id is under way"})
			return
		}
	}
	c.enqueue(r)
}

// serveInline handles a call or an event here and now. rxMu is held.
func (c *Conn) serveInline(f proto.Frame, h *handler, body []byte) {
	x := c.exchanges[f.Type] // of nobody else while rxMu is held
	if x == nil {
		x = h.pool.New().(*exchange)
		c.exchanges[f.Type] = x
	}
	if err := x.coder.Decode(body, x.req); err != nil {
		c.replyError(f, &proto.ErrorReply{Code: proto.CodeMalformed, Text: err.Error()})
		return
	}
	r := &c.inline
	r.Conn, r.Type, r.frame, r.x, r.h = c, f.Type, f, x, h
	var err error
	if c.cfg.OnPanic == nil {
		err = x.call(r)
	} else {
		err = c.guarded(r)
	}
	c.Stats.Served.Add(1)
	if f.Kind == proto.KindEvent {
		return
	}
	if err == nil {
		if x.buf, err = x.coder.Encode(x.buf[:0], x.reply); err == nil {
			// The peer waits for the last answer of a batch, and sees the others no later for being shown them together.
			err = c.answer(f, proto.KindReply, 0, x.buf, !c.rx.Pending())
		}
	}
	if err != nil {
		c.replyError(f, toReply(err))
	}
}

// enqueue gives a request to the workers.
func (c *Conn) enqueue(r *Request) {
	select {
	case c.work <- r:
	default:
		c.forget(r)
		r.h.pool.Put(r.x)
		c.replyError(r.frame, &proto.ErrorReply{Code: proto.CodeBusy, Text: fmt.Sprintf("%d requests wait", cap(c.work))})
		return
	}
	c.mu.Lock()
	start := c.workers < c.cfg.Workers && (c.workers == 0 || len(c.work) > 0)
	if start {
		c.workers++
	}
	c.mu.Unlock()
	if start {
		go c.worker()
	}
}

func (c *Conn) worker() {
	for {
		select {
		case r := <-c.work:
			c.run(r)
		case <-c.closed:
			return
		}
	}
}

// run calls a worker's handler and answers.
func (c *Conn) run(r *Request) {
	x, h, f := r.x, r.h, r.frame
	err := r.Err() // it may have waited long
	if err == nil {
		err = c.guarded(r)
	}
	c.forget(r)
	c.Stats.Served.Add(1)
	if f.Kind == proto.KindEvent {
		h.pool.Put(x)
		return
	}
	if err == nil {
		if x.buf, err = x.coder.Encode(x.buf[:0], x.reply); err == nil {
			err = c.answer(f, proto.KindReply, 0, x.buf, true)
		}
	}
	h.pool.Put(x)
	if err != nil {
		c.replyError(f, toReply(err))
		c.flush()
	}
}

func (c *Conn) forget(r *Request) {
	if r.frame.Kind != proto.KindCall {
		return
	}
	c.mu.Lock()
	if c.served[r.frame.ID] == r {
		delete(c.served, r.frame.ID)
	}
	c.mu.Unlock()
}

// guarded calls the handler; it turns a panic into an error, if the configuration wants to hear of it.
func (c *Conn) guarded(r *Request) (err error) {
	return c.guard(func() error { return r.x.call(r) })
}

func (c *Conn) guard(f func() error) (err error) {
	if c.cfg.OnPanic == nil {
		return f()
	}
	defer func() {
		if v := recover(); v != nil {
			c.cfg.OnPanic(v, debug.Stack())
			err = Errorf(proto.CodeInternal, "handler panicked: %v", v)
		}
	}()
	return f()
}

// answer sends the answer to frame f, unless the life that asked is over.
func (c *Conn) answer(f proto.Frame, kind proto.Kind, arg uint32, body []byte, flush bool) error {
	if c.peer.Load() != f.From || c.down.Load() != nil {
		return nil
	}
	return c.send(proto.Frame{Kind: kind, Type: f.Type, Arg: arg, ID: f.ID ^ fromUs, To: f.From}, body, flush)
}

func (c *Conn) replyError(f proto.Frame, e *proto.ErrorReply) {
	if f.Kind == proto.KindEvent {
		c.Stats.Dropped.Add(1)
		return
	}
	b, err := proto.Encode(nil, e)
	if err != nil { // cannot be: toReply keeps the limits
		b, _ = proto.Encode(nil, &proto.ErrorReply{Code: e.Code})
	}
	_ = c.answer(f, proto.KindError, 0, b, false)
}
