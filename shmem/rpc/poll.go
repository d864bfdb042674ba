package rpc

import (
	"errors"
	"fmt"

	"dinos/shmem/proto"
	"dinos/shmem/ring"
)

// fromUs in the id of a frame that arrives tells that this side chose the id.
const fromUs = uint64(1) << 63

// poll receives up to n frames. It reports whether there was one. rxMu is held.
func (c *Conn) poll(n int) bool {
	if c.down.Load() != nil {
		return false
	}
	got, bytes := 0, 0
	for ; got < n; got++ {
		k, err := c.rx.Recv(c.buf)
		if err == ring.ErrEmpty || err == ring.ErrStale {
			break
		}
		if err == nil {
			bytes += k
			err = c.dispatch(c.buf[:k])
		}
		if err != nil {
			if !errors.Is(err, ring.ErrReset) {
				c.corrupt(err)
				return false
			}
			c.reset.Store(true)
			c.todo.Store(true)
			break
		}
	}
	if bytes > 0 {
		count(&c.Stats.BytesIn, uint64(bytes))
	}
	if c.todo.Load() {
		c.tidy()
	}
	return got > 0
}

// tidy does what is left. rxMu is held.
func (c *Conn) tidy() {
	if c.reset.Load() {
		c.reattach()
	}
	c.txMu.Lock()
	defer c.txMu.Unlock()
	// Stored first: what is left from here on sets it again.
	c.todo.Store(false)
	c.drainLocked()
	c.flushLocked()
	if len(c.queue) > 0 || c.reset.Load() {
		c.todo.Store(true)
	}
}

// reattach takes up rings that were made anew. rxMu is held.
func (c *Conn) reattach() {
	c.txMu.Lock()
	err := c.attach(ring.Resume)
	c.queue, c.queued, c.events = nil, 0, 0
	c.reset.Store(false)
	c.txMu.Unlock()
	if err != nil {
		c.corrupt(err)
		return
	}
	c.failAll(fmt.Errorf("%w: to %s", ErrReset, c.cfg.Name), 0)
	_ = c.send(proto.Frame{Kind: proto.KindHello}, nil, false)
}

// repair looks after the words in shared memory that only this side writes. False means that there is something to do.
func (c *Conn) repair() bool {
	c.rxMu.Lock()
	defer c.rxMu.Unlock()
	err := c.rx.Repair()
	if err == nil {
		c.txMu.Lock()
		if err = c.tx.Repair(); err != nil {
			c.broken(err)
		}
		c.txMu.Unlock()
		return err == nil
	}
	if errors.Is(err, ring.ErrReset) {
		c.reset.Store(true)
		c.todo.Store(true)
	} else {
		c.corrupt(err)
	}
	return false
}

// arm says that nobody polls. False means that there is something to receive. rxMu is held.
func (c *Conn) arm() bool {
	// Even if it is armed: a caller that came just then has polled nevertheless, and the sender may have taken the flag down.
	ok := c.rx.Arm()
	c.armed.Store(ok)
	return ok || c.Err() != nil
}

// disarm says that somebody polls. rxMu is held.
func (c *Conn) disarm() {
	if c.armed.Load() {
		c.armed.Store(false)
		c.rx.Disarm()
	}
}

// dispatch handles a frame. The error is what no correct peer does. rxMu is held.
func (c *Conn) dispatch(b []byte) error {
	f, body, err := proto.ParseFrame(b)
	if err != nil {
		return err
	}
	// The usual case of lives.
	if f.From == 0 || f.From != c.peer.Load() || f.To != c.cfg.Generation || c.dead.Load() != 0 {
		if ok, err := c.lives(f); !ok || err != nil {
			return err
		}
	}
	if f.Kind == proto.KindCall || f.Kind == proto.KindCancel || f.Kind == proto.KindOpen || f.Kind == proto.KindEvent {
		if f.ID&fromUs != 0 {
			return fmt.Errorf("%v with an id of ours, %#x", f.Kind, f.ID)
		}
	} else if f.Kind <= proto.KindAccept && f.Kind != proto.KindHello && f.ID&fromUs == 0 {
		return fmt.Errorf("%v to an id of the peer, %#x", f.Kind, f.ID)
	}
	switch f.Kind {
	case proto.KindHello:
	case proto.KindCall, proto.KindEvent:
		c.serve(f, body)
	case proto.KindOpen:
		c.serveStream(f, body)
	case proto.KindReply, proto.KindAccept, proto.KindError:
		return c.complete(f, body)
	case proto.KindCancel:
		c.mu.Lock()
		r := c.served[f.ID]
		c.mu.Unlock()
		if r != nil {
			r.cancel()
		}
	default:
		return c.streamFrame(f, body)
	}
	return nil
}

// lives checks the generations of a frame. False means to ignore it.
func (c *Conn) lives(f proto.Frame) (bool, error) {
	if f.From == 0 {
		return false, errors.New("a frame of generation 0")
	}
	switch d := int32(f.From - c.peer.Load()); {
	case c.peer.Load() == 0, d > 0:
		c.newLife(f.From)
	case d < 0:
		c.Stats.Stale.Add(1)
		return false, nil
	}
	if c.dead.Load() == f.From {
		c.Stats.Stale.Add(1)
		return false, nil
	}
	if f.To != 0 && f.To != c.cfg.Generation {
		c.Stats.Stale.Add(1)
		if f.Kind == proto.KindCall || f.Kind == proto.KindOpen {
			c.replyError(f, &proto.ErrorReply{Code: proto.CodeStale,
				Text: fmt.Sprintf("for generation %d, this is %d", f.To, c.cfg.Generation)})
		}
		return false, nil
	}
	return true, nil
}

// complete stores the outcome of a call of ours.
func (c *Conn) complete(f proto.Frame, body []byte) error {
	id := f.ID &^ fromUs
	k := &c.calls[id&uint64(len(c.calls)-1)]
	if !k.state.CompareAndSwap(id<<2|callWaiting, id<<2|callFinishing) {
		// Its call has timed out or was canceled, or never was: a peer can only confuse itself with that.
		c.Stats.Late.Add(1)
		return nil
	}
	if k.typ != f.Type {
		k.err = fmt.Errorf("%w: %s answered %v with %v", ErrCorrupt, c.cfg.Name, k.typ, f.Type)
	} else if f.Kind == proto.KindError {
		var e proto.ErrorReply
		if k.err = c.coder.Decode(body, &e); k.err == nil {
			k.err = &RemoteError{e.Code, e.Errno, e.Text}
		}
		c.dropStream(f.ID)
	} else {
		k.err = c.coder.Decode(body, k.reply)
	}
	if f.Kind == proto.KindAccept && k.err == nil {
		c.accepted(f.ID, f.Arg)
	}
	k.settle(id)
	return nil
}
