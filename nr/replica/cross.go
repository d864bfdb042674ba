package replica

import (
	"fmt"

	"dinos/nr/oplog"
	"dinos/shmem/region"
)

// lockAll takes all combiner locks in order; false if the replica has failed, with none taken.
func (r *Replica[O, R]) lockAll() bool {
	for i := range len(r.parts) + 1 {
		p := r.lockable(i)
		if p == nil {
			continue
		}
		for attempt := 0; ; attempt++ {
			r.at(PtLock)
			if p.lock.CompareAndSwap(0, 1) {
				break
			}
			if r.failure.Load() != nil {
				r.unlock(i)
				return false
			}
			// Its holder never waits for shared memory while it has the lock: no giving up here.
			r.wait(ForCombiner, p.index, oplog.Blocker{}, attempt)
		}
	}
	if r.failure.Load() != nil {
		// A failed replica may have stopped half way; nothing that needs all of it may build on that.
		r.unlockAll()
		return false
	}
	return true
}

// lockable is the i-th part in lock order that has a lock.
func (r *Replica[O, R]) lockable(i int) *part[O, R] {
	p := &r.cross
	if i < len(r.parts) {
		p = &r.parts[i]
	}
	if p.member == nil {
		return nil
	}
	return p
}

func (r *Replica[O, R]) unlockAll() { r.unlock(len(r.parts) + 1) }

func (r *Replica[O, R]) unlock(n int) {
	r.at(PtUnlock)
	for i := range n {
		if p := r.lockable(i); p != nil {
			p.lock.Store(0)
		}
	}
}

// crossOut is the end of a combining step of the cross log: what it has appended is applied by crossTo, which needs
// all locks.
func (r *Replica[O, R]) crossOut() outcome {
	p := &r.cross
	if n := len(p.out); n > 0 {
		p.crossing = p.out[n-1].pos
		return atBarrier
	}
	if !p.waiting() {
		return progressed
	}
	if t := p.log.Tail(); t > r.next {
		p.crossing = t - 1
		return atBarrier
	}
	return r.noRoom(p)
}

// crossTo applies the cross ops up to and including x.
func (r *Replica[O, R]) crossTo(x uint64) (outcome, oplog.Blocker) {
	if !r.lockAll() {
		return failed, oplog.Blocker{}
	}
	defer r.unlockAll()
	t := r.cross.log.Tail()
	if err := r.cross.member.Limit(t); err != nil {
		return r.fail(err), oplog.Blocker{}
	}
	if x >= t {
		return r.fail(fmt.Errorf("%w: cross op %d wanted, but the cross log ends at %d", oplog.ErrCorrupt, x, t)), oplog.Blocker{}
	}
	for r.next <= x {
		if out, by := r.crossOne(); out != progressed {
			return out, by
		}
	}
	return progressed, oplog.Blocker{}
}

// crossOne applies cross op r.next, or a part of the way to it; called again it goes on. The caller holds all locks.
func (r *Replica[O, R]) crossOne() (outcome, oplog.Blocker) {
	if r.failure.Load() != nil {
		return failed, oplog.Blocker{}
	}
	c := &r.cross
	for c.member.Pos() == r.next {
		stop, err := c.member.Fetch(c.chunk, r.next+1, 0)
		if err != nil {
			return r.fail(err), oplog.Blocker{}
		}
		if stop == oplog.AtBarrier {
			return r.fail(fmt.Errorf("%w: cross log has a marker at %d", oplog.ErrCorrupt, r.next)), oplog.Blocker{}
		}
		if stop == oplog.AtHole && c.member.Pos() == r.next {
			if out := r.hole(c); out != progressed {
				return out, c.by
			}
		}
	}
	for i := range r.parts {
		if out := r.mark(&r.parts[i]); out != progressed {
			return out, r.parts[i].by
		}
	}
	for i := range r.parts {
		if out := r.toMarker(&r.parts[i]); out != progressed {
			return out, r.parts[i].by
		}
	}
	return r.applyCross(), oplog.Blocker{}
}

// mark sees to it that marker r.next is in p's log, whether the replica subscribes to it or not.
func (r *Replica[O, R]) mark(p *part[O, R]) outcome {
	for {
		if placed, _ := p.log.Crossed(r.next); placed {
			return progressed
		}
		ok, err := p.log.Mark(r.next)
		if err != nil {
			return r.fail(err)
		}
		if ok {
			return progressed
		}
		// Full. There may be a marker all the same, if who placed it died before saying so; then catchUp stops at it.
		if p.member == nil {
			p.by = oplog.Blocker{Slot: -1}
			if slowest, err := p.log.Collect(); err != nil {
				return r.fail(err)
			} else if slowest >= 0 {
				s := p.log.Slots()[slowest]
				p.by = oplog.Blocker{Pos: s.Tail, Slot: slowest, Gen: s.Gen}
			}
			return atRoom
		}
		was := p.member.Pos()
		switch out := r.catchUp(p, p.log.Tail()); out {
		case progressed:
		case atBarrier:
			if err := p.log.Marked(r.next, p.member.Pos()); err != nil {
				return r.fail(err)
			}
			return progressed
		default:
			return out
		}
		if p.member.Pos() == was {
			return r.noRoom(p)
		}
	}
}

// toMarker brings p to marker r.next, which is in its log, and raises the completed tail above it.
func (r *Replica[O, R]) toMarker(p *part[O, R]) outcome {
	behind := uint64(0)
	if p.member == nil {
		_, behind = p.log.Crossed(r.next)
	} else {
		switch out := r.catchUp(p, p.log.Tail()); out {
		case atBarrier:
			behind = p.member.Pos() + 1
		case progressed:
			return r.fail(fmt.Errorf("%w: log %d has no marker of cross op %d", oplog.ErrCorrupt, p.index, r.next))
		default:
			return out
		}
	}
	if err := p.log.Complete(behind); err != nil {
		return r.fail(err)
	}
	return progressed
}

// applyCross applies cross op r.next, whose item is in the cross log's chunk, to all parts, which are at its marker.
func (r *Replica[O, R]) applyCross() outcome {
	c := &r.cross
	if err := c.log.Complete(r.next + 1); err != nil {
		return r.fail(err)
	}
	for i := range r.parts {
		if p := &r.parts[i]; p.member != nil {
			r.writeLock(p)
		}
	}
	c.applying = true
	defer r.appliedCross()
	mine := 0
	if len(c.chunk.Items) == 1 {
		r.at(PtApply)
		words := c.chunk.Ops[:c.width]
		op := decode[O](words[crossWords:])
		var resp R
		own := c.chunk.Items[0].Mine && len(c.out) > 0 && c.out[0].pos == r.next
		switch {
		case words[0] == crossOp && r.group.ApplyAll != nil:
			resp = r.group.ApplyAll(r.all, op)
		case words[0] == crossReader && own:
			resp = r.group.ReadAll(r.all, op)
		}
		if own {
			r.ctxs[c.out[0].ctx].resp = resp
			mine = 1
		}
	}
	c.applying = false
	r.next++
	region.StoreRelaxed(&c.applied, r.next)
	r.deliver(c, mine)
	if len(c.out) > 0 && c.out[0].pos < r.next {
		return r.fail(fmt.Errorf("%w: our op at position %d of the cross log has vanished", oplog.ErrCorrupt, c.out[0].pos))
	}
	return progressed
}

func (r *Replica[O, R]) appliedCross() {
	if r.cross.applying {
		r.fail(fmt.Errorf("%w across all logs", ErrPanic))
	}
	r.at(PtWriteUnlock)
	for i := range r.parts {
		r.parts[i].writer.Store(0)
	}
}

// cutTries is how often a read across all logs tries to find a cut before it orders itself by a barrier.
const cutTries = 8

// readAll reads across several logs.
func (h *Handle[O, R]) readAll(op O) (resp R, err error) {
	r := h.r
	if r.group.ReadAll == nil {
		return resp, fmt.Errorf("%w: read across all logs, but there is no ReadAll", ErrRoute)
	}
	for range cutTries {
		for i := range r.parts {
			p := &r.parts[i]
			if !p.member.Live() {
				return resp, r.gone(p)
			}
			r.at(PtCompleted)
			if err := r.reach(p, p.log.Completed()); err != nil {
				return resp, err
			}
		}
		if !r.lockAll() {
			return resp, r.Err()
		}
		ok := r.cut()
		if ok {
			r.at(PtRead)
			resp = r.group.ReadAll(r.all, op)
		}
		r.unlockAll()
		if ok {
			return resp, nil
		}
		if err := r.Err(); err != nil {
			return resp, err
		}
	}
	return h.apply(op, nil, true)
}

// cut reports whether the parts, as they are, are a consistent cut: no log has completed more. The caller holds all
// locks; no part can change.
func (r *Replica[O, R]) cut() bool {
	for i := range r.parts {
		p := &r.parts[i]
		r.at(PtCompleted)
		if p.log.Completed() > p.applied.Load() {
			return false
		}
	}
	return true
}
