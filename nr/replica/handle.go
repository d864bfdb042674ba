package replica

import (
	"fmt"
	"sync/atomic"

	"dinos/nr/oplog"
)

// The states of a context.
const (
	ctxIdle    uint32 = iota
	ctxPending        // op is to be collected by a combiner of part log
	ctxSent           // op is in the log
	ctxDone           // resp is there
)

// context is a thread's place in a replica, on lines of its own.
type context[O, R any] struct {
	reading atomic.Uint32 // 1 + index of the part that is being read; 0 none
	used    atomic.Bool
	_       [120]byte

	state atomic.Uint32
	// Written by the owner while idle, read by a combiner after it has seen ctxPending.
	log  int
	read bool // a read across all logs, by barrier
	op   O
	data []byte
	// Written by a combiner before ctxDone.
	resp R
	_    [64]byte
}

// Handle is a thread's access to a replica. It may be used by one goroutine at a time.
type Handle[O, R any] struct {
	r       *Replica[O, R]
	ctx     *context[O, R]
	index   int32
	pending *part[O, R] // where an update that was given up is under way
}

// Register takes a context. Close gives it back.
func (r *Replica[O, R]) Register() (*Handle[O, R], error) {
	for i := range r.ctxs {
		c := &r.ctxs[i]
		if c.used.Load() || !c.used.CompareAndSwap(false, true) {
			continue
		}
		for {
			h := r.high.Load()
			if int(h) > i || r.high.CompareAndSwap(h, int32(i)+1) {
				break
			}
		}
		return &Handle[O, R]{r: r, ctx: c, index: int32(i)}, nil
	}
	return nil, fmt.Errorf("%w: all %d are taken", ErrThreads, len(r.ctxs))
}

// Close gives the context back. It fails with ErrPending while an update is undecided.
func (h *Handle[O, R]) Close() error {
	if h.ctx == nil {
		return nil
	}
	if h.pending != nil && h.ctx.state.Load() != ctxDone && h.r.Err() == nil {
		return ErrPending
	}
	h.ctx.state.Store(ctxIdle)
	h.ctx.used.Store(false)
	h.ctx = nil
	return nil
}

// Replica is the replica that the handle belongs to.
func (h *Handle[O, R]) Replica() *Replica[O, R] { return h.r }

// Apply applies op and returns its response. It is linearizable across all replicas.
//
// Errors: ErrRoute and ErrPending leave no trace. ErrEvicted, ErrCorrupt and ErrPanic end the replica; the op may or may not take
// effect on the others. ErrStalled comes only if the Waiter gives up; unless its text says that the op was withdrawn,
// the op is in the log, and Resume returns its response in the end.
func (h *Handle[O, R]) Apply(op O) (R, error) { return h.apply(op, nil, false) }

// ApplyOperand is Apply for an op with bytes, which are copied. The structure must be an [OperandStructure].
func (h *Handle[O, R]) ApplyOperand(op O, data []byte) (R, error) { return h.apply(op, data, false) }

func (h *Handle[O, R]) apply(op O, data []byte, read bool) (resp R, err error) {
	r, c := h.r, h.ctx
	if h.pending != nil || c == nil {
		return resp, h.refuse()
	}
	p, err := r.route(op)
	if err != nil {
		return resp, err
	}
	if err := p.acceptable(r, data, read); err != nil {
		return resp, err
	}
	c.op, c.data, c.log, c.read = op, data, p.index, read
	r.at(PtLock)
	if !p.lock.CompareAndSwap(0, 1) {
		p.pending.Add(1)
		c.state.Store(ctxPending)
		return h.finish(p)
	}
	// Our own op needs no hand-over as long as this one step serves it.
	p.self, p.selfSent, p.selfDone = h.index, false, false
	out := r.combine(p)
	done := p.selfDone
	if !done {
		if p.selfSent {
			c.state.Store(ctxSent)
		} else {
			p.pending.Add(1)
			c.state.Store(ctxPending)
		}
	}
	p.self = -1
	by, x := p.by, p.crossing
	r.at(PtUnlock)
	p.lock.Store(0)
	if done {
		return c.resp, nil
	}
	return h.resume(p, out, by, x)
}

func (h *Handle[O, R]) refuse() error {
	if h.ctx == nil {
		return fmt.Errorf("%w: the handle is closed", ErrThreads)
	}
	return ErrPending
}

// acceptable refuses what the structure or the log could not serve.
func (p *part[O, R]) acceptable(r *Replica[O, R], data []byte, read bool) error {
	if p.index == CrossLog {
		if f := r.group.ApplyAll; f == nil && !read {
			return fmt.Errorf("%w: op across all logs, but there is no ApplyAll", ErrRoute)
		}
		if len(data) > 0 {
			return fmt.Errorf("%w: an op across all logs takes no operand", ErrRoute)
		}
	} else if len(data) > 0 {
		if p.operand == nil {
			return fmt.Errorf("%w: %T is no OperandStructure", ErrRoute, p.s)
		}
		if n := p.member.MaxOperand(); len(data) > n {
			return fmt.Errorf("%w: %d bytes, want up to %d", oplog.ErrOperand, len(data), n)
		}
	}
	return nil
}

// Pending reports whether an update that was given up is still undecided, or its response not taken.
func (h *Handle[O, R]) Pending() bool { return h.pending != nil }

// Resume goes on waiting for the update that was given up with ErrStalled.
func (h *Handle[O, R]) Resume() (resp R, err error) {
	p := h.pending
	if p == nil {
		return resp, fmt.Errorf("%w: nothing to resume", oplog.ErrStale)
	}
	h.pending = nil
	return h.finish(p)
}

// finish waits until the handle's op is done, combining whenever nobody else does.
func (h *Handle[O, R]) finish(p *part[O, R]) (R, error) {
	return h.resume(p, progressed, oplog.Blocker{}, 0)
}

func (h *Handle[O, R]) resume(p *part[O, R], out outcome, by oplog.Blocker, x uint64) (resp R, err error) {
	r, c := h.r, h.ctx
	for attempt := 0; ; attempt++ {
		if c.state.Load() == ctxDone {
			c.state.Store(ctxIdle)
			return c.resp, nil
		}
		if err := r.Err(); err != nil {
			return resp, err
		}
		reason := ForCombiner
		switch out {
		case atBarrier:
			out, by = r.crossTo(x)
			if out == progressed {
				attempt = -1
				continue
			}
			if out != failed && !r.wait(waitFor(out), CrossLog, by, attempt) {
				return resp, h.giveUp(p, waitFor(out), by)
			}
			out = progressed
			continue
		case atHole, atRoom:
			reason = waitFor(out)
		}
		if out != progressed || attempt > 0 {
			if !r.wait(reason, p.index, by, attempt) {
				return resp, h.giveUp(p, reason, by)
			}
		}
		out = progressed
		r.at(PtLock)
		if p.lock.CompareAndSwap(0, 1) {
			was := p.member.Pos()
			out = r.combine(p)
			by, x = p.by, p.crossing
			if p.member.Pos() != was {
				attempt = 0
			}
			r.at(PtUnlock)
			p.lock.Store(0)
		}
	}
}

func waitFor(o outcome) Reason {
	switch o {
	case atHole:
		return ForPublish
	case atRoom:
		return ForRoom
	}
	return ForCombiner
}

// wait passes a turn of a wait. The caller holds no lock, except for ForReaders and lockAll's ForCombiner.
func (r *Replica[O, R]) wait(reason Reason, log int, by oplog.Blocker, attempt int) bool {
	if reason == ForRoom && by.Slot >= 0 && by.Slot < oplog.MaxSlots {
		// An idle replica of our own kernel need not be woken: it is brought up to date right here.
		if o := r.group.local[by.Slot].Load(); o != nil && o != r && o.id.Gen == by.Gen {
			o.assist()
		}
	}
	r.at(PtWait)
	return r.group.Waiter.Wait(Wait{reason, log, by, attempt})
}

// assist applies what the logs have, as far as that takes no waiting, on behalf of another replica's thread.
func (r *Replica[O, R]) assist() {
	for i := range r.parts {
		p := &r.parts[i]
		if p.member == nil || r.failure.Load() != nil || !p.lock.CompareAndSwap(0, 1) {
			continue
		}
		out, x := r.catchUp(p, p.log.Tail()), p.crossing
		p.lock.Store(0)
		if out == atBarrier {
			r.crossTo(x)
		}
	}
	if end := r.cross.applied.Load(); r.cross.member != nil && r.cross.log.Tail() > end {
		r.crossTo(end)
	}
}

// giveUp withdraws the op if no combiner has collected it yet.
func (h *Handle[O, R]) giveUp(p *part[O, R], why Reason, by oplog.Blocker) error {
	if h.ctx.state.CompareAndSwap(ctxPending, ctxIdle) {
		p.pending.Add(-1)
		return fmt.Errorf("%w; the op was withdrawn", stalled(why, by))
	}
	h.pending = p
	return fmt.Errorf("%w; the op is in the log", stalled(why, by))
}

// stalled is an ErrStalled that says who was waited for.
func stalled(why Reason, by oplog.Blocker) error {
	switch why {
	case ForPublish:
		return fmt.Errorf("%w: %v", ErrStalled, by)
	case ForRoom:
		return fmt.Errorf("%w: log full, slot %d incarnation %d has consumed up to %d", ErrStalled, by.Slot, by.Gen, by.Pos)
	}
	return fmt.Errorf("%w: waiting for %v", ErrStalled, why)
}
