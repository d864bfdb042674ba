package control

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// kind of a frame.
type kind uint8

const (
	kindData kind = iota + 1
	kindEnd
	kindCredit
	kindEvent
	kindResult
	kinds
)

const headBytes = 8

// maxEvents bounds the events that wait for somebody to take them. More are a mistake of the sender.
const maxEvents = 1024

// link is one end of a connection after the first line. Lock order: wmu is never taken with mu held.
type link struct {
	conn net.Conn
	wmu  sync.Mutex // one frame at a time

	mu       sync.Mutex
	channels map[uint8]*Channel // guarded by mu
	events   []Event            // guarded by mu
	result   []byte             // what has come of it; guarded by mu
	whole    bool               // guarded by mu
	err      error              // why the connection is over; guarded by mu
	arrived  chan struct{}      // has a value when an event has come
	done     chan struct{}      // closed when err is set
}

func newLink(conn net.Conn) *link {
	return &link{conn: conn, channels: map[uint8]*Channel{}, arrived: make(chan struct{}, 1), done: make(chan struct{})}
}

// fail ends the connection for the reason err; the first reason counts.
func (l *link) fail(err error) {
	l.mu.Lock()
	if l.err == nil {
		l.err = err
		close(l.done)
		for _, c := range l.channels {
			c.cond.Broadcast()
		}
	}
	l.mu.Unlock()
	l.conn.Close()
}

func (l *link) reason() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// send writes one frame.
func (l *link) send(k kind, channel uint8, body []byte) error {
	b := make([]byte, headBytes, headBytes+len(body))
	b[0], b[1] = byte(k), channel
	binary.LittleEndian.PutUint32(b[4:], uint32(len(body)))
	l.wmu.Lock()
	_, err := l.conn.Write(append(b, body...))
	l.wmu.Unlock()
	if err == nil {
		return nil
	}
	l.fail(fmt.Errorf("%w: %v", ErrClosed, err))
	return l.reason()
}

// sendJSON sends v in as many frames as it takes: all but the last one are full.
func (l *link) sendJSON(k kind, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) > MaxJSON || k == kindEvent && len(b) > MaxFrame {
		return fmt.Errorf("%w: %d bytes of JSON", ErrProtocol, len(b))
	}
	for ; k == kindResult && len(b) >= MaxFrame; b = b[MaxFrame:] {
		if err := l.send(k, 0, b[:MaxFrame]); err != nil {
			return err
		}
	}
	return l.send(k, 0, b)
}

// read takes frames until the connection ends.
func (l *link) read(r *bufio.Reader) {
	body := make([]byte, MaxFrame)
	for {
		var head [headBytes]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			l.fail(fmt.Errorf("%w: %v", ErrClosed, err))
			return
		}
		n := binary.LittleEndian.Uint32(head[4:])
		if n > MaxFrame || head[2] != 0 || head[3] != 0 {
			l.fail(fmt.Errorf("%w: frame head % x", ErrProtocol, head))
			return
		}
		if _, err := io.ReadFull(r, body[:n]); err != nil {
			l.fail(fmt.Errorf("%w: %v", ErrClosed, err))
			return
		}
		if err := l.take(kind(head[0]), head[1], body[:n]); err != nil {
			l.fail(err)
			return
		}
	}
}

// take handles a frame.
func (l *link) take(k kind, channel uint8, body []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.channel(channel)
	switch k {
	case kindData:
		if c.ended || len(body) == 0 || len(body) > c.granted {
			return fmt.Errorf("%w: %d bytes on channel %d, granted are %d (ended: %v)", ErrProtocol, len(body), channel, c.granted, c.ended)
		}
		c.granted -= len(body)
		c.in = append(c.in, body...)
	case kindEnd:
		c.ended = true
	case kindCredit:
		if len(body) != 4 {
			return fmt.Errorf("%w: credit of %d bytes, want 4", ErrProtocol, len(body))
		}
		n := binary.LittleEndian.Uint32(body)
		if uint64(c.credit)+uint64(n) > Window {
			return fmt.Errorf("%w: credit of %d on channel %d, which has %d of %d", ErrProtocol, n, channel, c.credit, Window)
		}
		c.credit += int(n)
	case kindEvent:
		var e Event
		if err := json.Unmarshal(body, &e); err != nil {
			return fmt.Errorf("%w: event: %v", ErrProtocol, err)
		}
		if len(l.events) == maxEvents {
			return fmt.Errorf("%w: %d events that nobody takes", ErrProtocol, maxEvents)
		}
		l.events = append(l.events, e)
		select {
		case l.arrived <- struct{}{}:
		default:
		}
	case kindResult:
		if l.whole || len(l.result)+len(body) > MaxJSON {
			return fmt.Errorf("%w: result of more than %d bytes, or a second one", ErrProtocol, MaxJSON)
		}
		l.result = append(l.result, body...)
		l.whole = len(body) < MaxFrame
		if l.whole {
			return ErrClosed // the last frame
		}
	default:
		return fmt.Errorf("%w: frame of kind %d", ErrProtocol, k)
	}
	c.cond.Broadcast()
	return nil
}

// channel returns a channel; mu is held.
func (l *link) channel(n uint8) *Channel {
	c := l.channels[n]
	if c == nil {
		c = &Channel{link: l, n: n, granted: Window, credit: Window}
		c.cond.L = &l.mu
		l.channels[n] = c
	}
	return c
}

// open returns a channel.
func (l *link) open(n uint8) *Channel {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.channel(n)
}

// next waits for an event.
func (l *link) next(done <-chan struct{}) (Event, error) {
	for {
		l.mu.Lock()
		if len(l.events) > 0 {
			e := l.events[0]
			l.events = l.events[1:]
			l.mu.Unlock()
			return e, nil
		}
		err := l.err
		l.mu.Unlock()
		if err != nil {
			return Event{}, err
		}
		select {
		case <-l.arrived:
		case <-l.done:
		case <-done:
			return Event{}, ErrClosed
		}
	}
}

// Channel is a two-way stream of bytes. One goroutine may read it while one writes it.
type Channel struct {
	link *link
	n    uint8

	// All below is guarded by link.mu.
	cond    sync.Cond
	in      []byte
	granted int  // bytes that the peer may send still
	taken   int  // bytes that were read and not granted anew
	ended   bool // the peer sends no more
	credit  int  // bytes that we may send
	closed  bool
}

// Read implements io.Reader; the peer's CloseWrite is io.EOF.
func (c *Channel) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	l := c.link
	l.mu.Lock()
	for len(c.in) == 0 && !c.ended && !l.whole && l.err == nil {
		c.cond.Wait()
	}
	n := copy(b, c.in)
	c.in = c.in[n:]
	if len(c.in) == 0 {
		c.in = nil
	}
	grant := 0
	// Credits in large pieces: each is a frame.
	if c.taken += n; c.taken >= Window/4 && !c.ended && l.err == nil {
		grant, c.taken = c.taken, 0
		c.granted += grant
	}
	// A result is the end of all that the server has to say.
	ended, err := c.ended || l.whole, l.err
	l.mu.Unlock()
	if grant > 0 {
		var body [4]byte
		binary.LittleEndian.PutUint32(body[:], uint32(grant))
		l.send(kindCredit, c.n, body[:]) // if it fails, the next read says why
	}
	switch {
	case n > 0:
		return n, nil
	case ended:
		return 0, io.EOF
	}
	return 0, err
}

// Write implements io.Writer. It waits while the peer does not read.
func (c *Channel) Write(b []byte) (sent int, err error) {
	l := c.link
	for sent < len(b) {
		l.mu.Lock()
		for c.credit == 0 && l.err == nil && !c.closed {
			c.cond.Wait()
		}
		n := min(c.credit, len(b)-sent, MaxFrame)
		c.credit -= n
		err, closed := l.err, c.closed
		l.mu.Unlock()
		if closed {
			return sent, io.ErrClosedPipe
		}
		if err != nil {
			return sent, err
		}
		if err := l.send(kindData, c.n, b[sent:sent+n]); err != nil {
			return sent, err
		}
		sent += n
	}
	return sent, nil
}

// CloseWrite tells the peer that no more comes. It may be called more than once.
func (c *Channel) CloseWrite() error {
	c.link.mu.Lock()
	was := c.closed
	c.closed = true
	c.cond.Broadcast()
	c.link.mu.Unlock()
	if was {
		return nil
	}
	return c.link.send(kindEnd, c.n, nil)
}

// sendEvent tells the peer something.
func (l *link) sendEvent(name string, data any) error {
	if err := l.reason(); err != nil {
		return err
	}
	e := Event{Name: name}
	if data != nil {
		b, err := json.Marshal(data)
		if err != nil {
			return err
		}
		e.Data = b
	}
	return l.sendJSON(kindEvent, e)
}

// isClosed reports whether err only says that a connection has ended.
func isClosed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, ErrClosed)
}
