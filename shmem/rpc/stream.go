package rpc

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"dinos/shmem/proto"
)

// Stream carries bytes both ways. Each side sends at most as much as the other has granted, [Window] bytes that were not
// read yet. One goroutine may read while another writes. It implements io.ReadWriteCloser.
type Stream struct {
	c    *Conn
	key  uint64 // id as the peer's frames have it
	req  *Request
	life uint32 // of the peer

	mu       sync.Mutex
	in       []byte // received, not read: in[read:]
	read     int
	owed     int   // bytes read and not granted again
	granted  int   // bytes that the peer may still send
	credit   int   // bytes that may be sent
	accepted bool  // by this side, if the peer opened it; else by the peer
	endIn    bool  // the peer sends no more
	endOut   bool  // this side sends no more
	err      error // why it failed
	readable chan struct{}
	writable chan struct{}
}

func newStream(c *Conn, key uint64) *Stream {
	return &Stream{c: c, key: key, granted: Window, readable: make(chan struct{}, 1), writable: make(chan struct{}, 1)}
}

func (c *Conn) addStream(s *Stream, key uint64) {
	s.key = key
	c.mu.Lock()
	c.streams[key] = s
	c.mu.Unlock()
}

func (c *Conn) dropStream(key uint64) {
	c.mu.Lock()
	delete(c.streams, key)
	c.mu.Unlock()
}

// Open sends req, which opens a stream, and waits until the peer accepts it. For errors see Call. ctx is for the opening.
func (c *Conn) Open(ctx context.Context, req proto.Request, reply proto.Message, timeout time.Duration) (*Stream, error) {
	if info, ok := proto.Lookup(req.Type()); !ok || !info.Stream {
		return nil, fmt.Errorf("%w: %v does not open a stream", ErrConfig, req.Type())
	}
	s := newStream(c, 0)
	p, err := c.start(ctx, proto.KindOpen, req, reply, timeout, s)
	if err != nil {
		return nil, err
	}
	if err := p.Wait(ctx); err != nil {
		c.dropStream(p.id | fromUs)
		return nil, err
	}
	return s, nil
}

// accepted gives a stream of ours its first credit. rxMu is held.
func (c *Conn) accepted(key uint64, window uint32) {
	c.mu.Lock()
	s := c.streams[key]
	c.mu.Unlock()
	if s != nil {
		s.mu.Lock()
		s.accepted = true
		s.credit = int(min(window, 1<<30))
		s.mu.Unlock()
	}
}

// serveStream starts the handler of a stream that the peer opens. rxMu is held.
func (c *Conn) serveStream(f proto.Frame, body []byte) {
	h := c.cfg.Handlers.get(f.Type, true)
	if h == nil {
		c.replyError(f, &proto.ErrorReply{Code: proto.CodeUnsupported, Text: f.Type.String() + " has no handler here"})
		return
	}
	x := h.pool.Get().(*exchange)
	if err := x.coder.Decode(body, x.req); err != nil {
		c.replyError(f, &proto.ErrorReply{Code: proto.CodeMalformed, Text: err.Error()})
		return
	}
	s := newStream(c, f.ID)
	s.credit, s.life = int(min(f.Arg, 1<<30)), f.From
	s.req = &Request{Conn: c, Type: f.Type, frame: f, h: h, x: x}
	c.mu.Lock()
	n := len(c.streams)
	_, twice := c.streams[f.ID]
	if n < MaxStreams && !twice {
		c.streams[f.ID] = s
	}
	c.mu.Unlock()
	if n >= MaxStreams || twice {
		c.replyError(f, &proto.ErrorReply{Code: proto.CodeBusy, Text: fmt.Sprintf("%d streams are open", n)})
		return
	}
	go func() {
		err := c.guard(func() error { return h.stream(s, x.req) })
		if !s.wasAccepted() {
			c.dropStream(s.key)
			if err == nil {
				err = Errorf(proto.CodeUnknown, "not accepted")
			}
			c.replyError(f, toReply(err))
			c.flush()
			return
		}
		s.end(err)
	}()
}

func (s *Stream) wasAccepted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted
}

// Conn is the connection of the stream.
func (s *Stream) Conn() *Conn { return s.c }

// ID is what a Resize calls this stream; it is the same on both sides.
func (s *Stream) ID() uint64 { return s.key &^ fromUs }

// Accept answers the request that opened the stream. A handler calls it once, before Read and Write.
func (s *Stream) Accept(reply proto.Message) error {
	if s.req == nil || s.wasAccepted() {
		return fmt.Errorf("%w: not a stream that waits to be accepted", ErrConfig)
	}
	b, err := proto.Encode(nil, reply)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.accepted = true
	err = s.err
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return s.c.answer(s.req.frame, proto.KindAccept, Window, b, true)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Read implements io.Reader. It blocks until there is data, the end (io.EOF) or a failure.
func (s *Stream) Read(p []byte) (int, error) {
	for {
		s.mu.Lock()
		if n := copy(p, s.in[s.read:]); n > 0 || len(p) == 0 {
			s.read += n
			if s.read == len(s.in) {
				s.in, s.read = s.in[:0], 0
			}
			s.owed += n
			grant := 0
			if s.owed >= Window/2 && !s.endIn && s.err == nil {
				grant, s.owed = s.owed, 0
				s.granted += grant
			}
			s.mu.Unlock()
			if grant > 0 {
				s.send(proto.KindCredit, uint32(grant), nil)
			}
			return n, nil
		}
		err := s.err
		if err == nil && s.endIn {
			err = io.EOF
		}
		s.mu.Unlock()
		if err != nil {
			signal(s.readable) // for another reader
			return 0, err
		}
		<-s.readable
	}
}

// Write implements io.Writer. It blocks while the peer has not granted enough.
func (s *Stream) Write(p []byte) (int, error) {
	most := min(proto.MaxData, s.c.maxData())
	total := 0
	for len(p) > 0 {
		s.mu.Lock()
		err := s.err
		if err == nil && s.endOut {
			err = ErrClosed
		}
		n := min(len(p), s.credit, most)
		s.credit -= n
		s.mu.Unlock()
		if err != nil {
			signal(s.writable)
			return total, err
		}
		if n == 0 {
			<-s.writable
			continue
		}
		s.send(proto.KindData, 0, p[:n])
		p, total = p[n:], total+n
	}
	return total, nil
}

// maxData is what fits into a quarter of the ring, so that others get their turn.
func (c *Conn) maxData() int { return max(int(c.cfg.OutBytes)/4-proto.FrameBytes-8, 8) }

func (s *Stream) send(kind proto.Kind, arg uint32, body []byte) {
	// It cannot be too big; what else goes wrong fails the whole connection, and so this stream.
	_ = s.c.send(proto.Frame{Kind: kind, Arg: arg, ID: s.key ^ fromUs, To: s.life}, body, true)
}

// CloseWrite tells the peer that no more data follows; reading goes on.
func (s *Stream) CloseWrite() error {
	s.mu.Lock()
	err, ended := s.err, s.endOut
	s.endOut = true
	over := s.endIn
	s.mu.Unlock()
	if err != nil || ended {
		return err
	}
	s.send(proto.KindEnd, 0, nil)
	if over {
		s.c.dropStream(s.key)
	}
	signal(s.writable)
	return nil
}

// Close ends the stream. If the peer has not ended its side, that one fails with CodeCanceled.
func (s *Stream) Close() error {
	s.mu.Lock()
	open := !s.endIn
	s.mu.Unlock()
	if open {
		s.end(context.Canceled)
	} else {
		_ = s.CloseWrite()
	}
	s.c.dropStream(s.key)
	return nil
}

// end ends the stream: with an error for the peer, or as CloseWrite does.
func (s *Stream) end(err error) {
	if err == nil {
		_ = s.CloseWrite()
		return
	}
	s.mu.Lock()
	failed, ended := s.err != nil, s.endOut && s.endIn
	s.endOut = true
	if !failed {
		s.err = ErrClosed
	}
	s.mu.Unlock()
	s.c.dropStream(s.key)
	if !failed && !ended {
		b, encErr := proto.Encode(nil, toReply(err))
		if encErr == nil {
			s.send(proto.KindEnd, 0, b)
		}
	}
	signal(s.readable)
	signal(s.writable)
}

// failed ends the stream because of the connection or the peer.
func (s *Stream) failed(err error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	s.mu.Unlock()
	if s.req != nil {
		s.req.cancel()
	}
	signal(s.readable)
	signal(s.writable)
}

// streamFrame takes a frame of a stream. The error is what no correct peer does. rxMu is held.
func (c *Conn) streamFrame(f proto.Frame, body []byte) error {
	c.mu.Lock()
	s := c.streams[f.ID]
	c.mu.Unlock()
	if s == nil {
		c.Stats.Dropped.Add(1) // it was closed here, and the peer does not know yet
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.endIn && f.Kind != proto.KindCredit:
		return fmt.Errorf("%v on stream %#x behind its end", f.Kind, f.ID)
	case f.Kind == proto.KindCredit:
		if int64(s.credit)+int64(f.Arg) > 1<<30 {
			return fmt.Errorf("credit %d on stream %#x that has %d", f.Arg, f.ID, s.credit)
		}
		s.credit += int(f.Arg)
		signal(s.writable)
	case f.Kind == proto.KindData:
		if len(body) == 0 || len(body) > s.granted {
			return fmt.Errorf("%d bytes on stream %#x, which has granted %d", len(body), f.ID, s.granted)
		}
		s.granted -= len(body)
		if s.read > 0 && s.read >= len(s.in)/2 {
			s.in = append(s.in[:0], s.in[s.read:]...)
			s.read = 0
		}
		s.in = append(s.in, body...)
		signal(s.readable)
	default:
		s.endIn = true
		if len(body) > 0 {
			var e proto.ErrorReply
			if err := c.coder.Decode(body, &e); err != nil {
				return err
			}
			s.err = &RemoteError{e.Code, e.Errno, e.Text}
		}
		if s.err != nil || s.endOut {
			c.mu.Lock()
			delete(c.streams, s.key)
			c.mu.Unlock()
		}
		if s.err != nil && s.req != nil {
			s.req.cancel()
		}
		signal(s.readable)
		signal(s.writable)
	}
	return nil
}
