package replica

import (
	"fmt"

	"dinos/nr/oplog"
)

// Read reads through op. It is linearizable: it sees every update, on whatever replica, that had returned
// before Read was called. It neither appends to the log nor writes to shared memory unless the replica has to catch up.
func (h *Handle[O, R]) Read(op O) (R, error) { return h.read(op, nil) }

// ReadOperand is Read for an op with bytes, which are not copied.
func (h *Handle[O, R]) ReadOperand(op O, data []byte) (R, error) { return h.read(op, data) }

func (h *Handle[O, R]) read(op O, data []byte) (resp R, err error) {
	r, c := h.r, h.ctx
	if c == nil {
		return resp, h.refuse()
	}
	p, all := &r.parts[0], false
	if r.group.Route != nil {
		if p, err = r.route(op); err != nil {
			return resp, err
		}
		if p.index == CrossLog {
			return h.readAll(op)
		}
		all = len(r.parts) == 1 && r.group.ReadAll != nil && r.group.Route(op) == AllLogs
	}
	if len(data) > 0 && p.operand == nil {
		return resp, fmt.Errorf("%w: %T is no OperandStructure", ErrRoute, p.s)
	}
	if !p.member.Live() || r.failure.Load() != nil {
		return resp, r.gone(p)
	}
	r.at(PtCompleted)
	if done := p.log.Completed(); p.applied.Load() < done {
		if err := r.reach(p, done); err != nil {
			return resp, err
		}
	}
	me := uint32(p.index) + 1
	r.at(PtReadLock)
	c.reading.Store(me)
	r.at(PtReadCheck)
	if p.writer.Load() != 0 {
		if err := h.readSlow(p); err != nil {
			return resp, err
		}
	}
	r.at(PtRead)
	switch {
	case len(data) > 0:
		resp = p.operand.ReadOperand(op, data)
	case all:
		resp = r.group.ReadAll(r.all, op)
	default:
		resp = p.s.Read(op)
	}
	r.at(PtReadUnlock)
	c.reading.Store(0)
	return resp, nil
}

// readSlow takes the read lock of p after a writer was seen.
func (h *Handle[O, R]) readSlow(p *part[O, R]) error {
	r, c := h.r, h.ctx
	for {
		c.reading.Store(0)
		for attempt := 0; p.writer.Load() != 0; attempt++ {
			if err := r.Err(); err != nil {
				return err
			}
			r.wait(ForWriter, p.index, oplog.Blocker{}, attempt)
		}
		r.at(PtReadLock)
		c.reading.Store(uint32(p.index) + 1)
		r.at(PtReadCheck)
		if p.writer.Load() == 0 {
			return nil
		}
	}
}

// gone says why the replica is at its end.
func (r *Replica[O, R]) gone(p *part[O, R]) error {
	if r.Err() == nil {
		r.fail(fmt.Errorf("%w: %v", oplog.ErrEvicted, r.id))
	}
	return r.Err()
}

// reach waits until p has applied its log up to limit, applying it itself unless somebody else does.
func (r *Replica[O, R]) reach(p *part[O, R], limit uint64) error {
	for attempt := 0; p.applied.Load() < limit; attempt++ {
		if err := r.Err(); err != nil {
			return err
		}
		r.at(PtLock)
		if !p.lock.CompareAndSwap(0, 1) {
			if !r.wait(ForCombiner, p.index, oplog.Blocker{}, attempt) {
				return fmt.Errorf("%w: log %d at %d, want %d", ErrStalled, p.index, p.applied.Load(), limit)
			}
			continue
		}
		was := p.member.Pos()
		out := r.catchUp(p, limit)
		if p.member.Pos() != was {
			attempt = 0
		}
		by, x := p.by, p.crossing
		r.at(PtUnlock)
		p.lock.Store(0)
		if out == atBarrier {
			out, by = r.crossTo(x)
		}
		if out == atHole || out == atRoom {
			if !r.wait(waitFor(out), p.index, by, attempt) {
				return stalled(waitFor(out), by)
			}
		}
	}
	return nil
}

// Sync applies everything that is in the logs now. Kernels call it from time to time, or when a doorbell says that
// others wait for room, so that a replica without threads at work does not hold the logs.
func (r *Replica[O, R]) Sync() error {
	for i := range r.parts {
		p := &r.parts[i]
		if p.member == nil {
			continue
		}
		if !p.member.Live() {
			return r.gone(p)
		}
		if err := r.reach(p, p.log.Tail()); err != nil {
			return err
		}
	}
	if r.cross.member == nil {
		return r.Err()
	}
	end := r.cross.log.Tail()
	for attempt := 0; r.cross.applied.Load() < end; attempt++ {
		out, by := r.crossTo(end - 1)
		if err := r.Err(); err != nil {
			return err
		}
		if out != progressed && !r.wait(waitFor(out), CrossLog, by, attempt) {
			return stalled(waitFor(out), by)
		}
	}
	return r.Err()
}

// Behind is how many entries of all its logs the replica has not applied yet.
func (r *Replica[O, R]) Behind() uint64 {
	n := uint64(0)
	for i := range len(r.parts) + 1 {
		if p := r.lockable(i); p != nil {
			a := p.applied.Load() // before the tail, which then cannot be less
			n += p.log.Tail() - min(a, p.log.Tail())
		}
	}
	return n
}
