package replica

import (
	"fmt"

	"dinos/nr/oplog"
	"dinos/shmem/region"
)

// combine is one step of the combiner of p: it collects what waits, appends it, and applies the log as far as the ops
// of this replica reach. The caller holds p.lock.
func (r *Replica[O, R]) combine(p *part[O, R]) outcome {
	if r.failure.Load() != nil {
		return failed
	}
	if p.waiting() {
		if out := r.send(p); out == failed {
			return out
		}
	}
	if p.index == CrossLog {
		return r.crossOut()
	}
	if n := len(p.out); n > 0 {
		if out := r.catchUp(p, p.out[n-1].pos+1); out != progressed {
			return out
		}
	}
	if !p.waiting() {
		return progressed
	}
	// Something could not be appended: the ring or the arena is full. Consuming is our part in making room.
	was := p.member.Pos()
	if out := r.catchUp(p, p.log.Tail()); out != progressed || p.member.Pos() != was {
		return out
	}
	return r.noRoom(p)
}

// waiting reports whether an op waits to be appended.
func (p *part[O, R]) waiting() bool {
	return p.self >= 0 && !p.selfSent || p.pending.Load() != 0
}

// noRoom finds out who keeps p's ring full.
func (r *Replica[O, R]) noRoom(p *part[O, R]) outcome {
	by, err := p.member.Full()
	if err != nil {
		return r.fail(err)
	}
	p.by = by
	return atRoom
}

// send collects waiting contexts and appends their ops.
func (r *Replica[O, R]) send(p *part[O, R]) outcome {
	r.collect(p)
	n := len(p.batch)
	if n == 0 {
		return progressed
	}
	for i, k := range p.batch {
		c := &r.ctxs[k]
		op := p.ops[i*p.width : (i+1)*p.width]
		if p.index == CrossLog {
			op[0] = crossOp
			if c.read {
				op[0] = crossReader
			}
			op = op[crossWords:]
		}
		encode(op, &c.op)
		p.data[i] = c.data
	}
	done, err := p.member.Append(p.ops[:n*p.width], p.data[:n], p.at[:n])
	for i, k := range p.batch[:done] {
		p.out = append(p.out, sent{p.at[i], k})
		if p.data[i] != nil {
			r.ctxs[k].data, p.data[i] = nil, nil // the caller's bytes are not kept alive
		}
		p.selfSent = p.selfSent || k == p.self
	}
	if err != nil {
		return r.fail(err)
	}
	for _, k := range p.batch[done:] {
		// Back among the waiting ones; their owners see no difference.
		if k != p.self {
			r.ctxs[k].state.Store(ctxPending)
			p.pending.Add(1)
		}
	}
	return progressed
}

// collect fills p.batch with contexts that wait, the combiner's own first.
func (r *Replica[O, R]) collect(p *part[O, R]) {
	p.batch = p.batch[:0]
	if p.self >= 0 && !p.selfSent {
		p.batch = append(p.batch, p.self)
	}
	if p.pending.Load() == 0 {
		return
	}
	for k := range r.ctxs[:r.high.Load()] {
		c := &r.ctxs[k]
		if len(p.batch) == cap(p.batch) {
			return
		}
		if c.state.Load() == ctxPending && c.log == p.index && c.state.CompareAndSwap(ctxPending, ctxSent) {
			p.pending.Add(-1)
			p.batch = append(p.batch, int32(k))
		}
	}
}

// catchUp applies p's log up to limit. The caller holds p.lock.
func (r *Replica[O, R]) catchUp(p *part[O, R], limit uint64) outcome {
	if p.member.Pos() >= limit {
		return progressed
	}
	if err := p.member.Limit(limit); err != nil {
		return r.fail(err)
	}
	for p.member.Pos() < limit {
		was := p.member.Pos()
		stop, err := p.member.Fetch(p.chunk, limit, r.next)
		if err != nil {
			return r.fail(err)
		}
		if p.member.Pos() != was {
			if out := r.applyChunk(p); out != progressed {
				return out
			}
		}
		if p.member.Pos() >= limit {
			break
		}
		switch stop {
		case oplog.AtBarrier:
			p.crossing = r.next
			return atBarrier
		case oplog.AtHole:
			if out := r.hole(p); out != progressed {
				return out
			}
		}
	}
	return progressed
}

// holeTries bounds how often a position may look resolved without being so; only a peer that scribbles comes there.
const holeTries = 1 << 30

// hole deals with the unpublished entry at p's position.
func (r *Replica[O, R]) hole(p *part[O, R]) outcome {
	if p.triesAt != p.member.Pos() {
		p.tries, p.triesAt = 0, p.member.Pos()
	}
	by, done, err := p.member.Blocked(p.tries)
	p.tries++
	if err != nil {
		return r.fail(err)
	}
	if done && p.tries < holeTries {
		return progressed
	}
	if done {
		return r.fail(fmt.Errorf("%w: position %d of log %d keeps changing", oplog.ErrCorrupt, p.member.Pos(), p.index))
	}
	p.by = by
	return atHole
}

// applyChunk applies what Fetch has brought and hands out responses. The caller holds p.lock.
func (r *Replica[O, R]) applyChunk(p *part[O, R]) outcome {
	pos := p.member.Pos()
	// Before anybody can see an effect, so that later reads on other replicas see it too.
	if err := p.log.Complete(pos); err != nil {
		return r.fail(err)
	}
	r.writeLock(p)
	p.applying = true
	defer r.applied(p)
	mine := 0
	for i := range p.chunk.Items {
		it := &p.chunk.Items[i]
		op := decode[O](p.chunk.Ops[i*p.width : (i+1)*p.width])
		r.at(PtApply)
		var resp R
		switch {
		case len(it.Data) > 0 && p.operand != nil:
			resp = p.operand.ApplyOperand(op, it.Data)
		case r.oneAll && r.group.Route(op) == AllLogs:
			resp = r.group.ApplyAll(r.all, op)
		default:
			resp = p.s.Apply(op)
		}
		if it.Mine && mine < len(p.out) && p.out[mine].pos == it.Pos {
			r.ctxs[p.out[mine].ctx].resp = resp
			mine++
		}
	}
	p.applying = false
	region.StoreRelaxed(&p.applied, pos) // seen before the write lock is: see Read
	r.deliver(p, mine)
	if len(p.out) > 0 && p.out[0].pos < pos {
		return r.fail(fmt.Errorf("%w: our op at position %d of log %d has vanished", oplog.ErrCorrupt, p.out[0].pos, p.index))
	}
	return progressed
}

// applied ends the write lock, also when the structure has panicked.
func (r *Replica[O, R]) applied(p *part[O, R]) {
	if p.applying {
		r.fail(fmt.Errorf("%w in Apply of log %d", ErrPanic, p.index))
	}
	r.at(PtWriteUnlock)
	p.writer.Store(0)
}

// deliver tells the owners of the first n ops in p.out that their responses are there.
func (r *Replica[O, R]) deliver(p *part[O, R], n int) {
	if n == 0 {
		return
	}
	for _, o := range p.out[:n] {
		if o.ctx == p.self {
			p.selfDone = true
			continue
		}
		r.ctxs[o.ctx].state.Store(ctxDone)
	}
	p.out = p.out[:copy(p.out, p.out[n:])]
}

// writeLock keeps readers of p out. The caller holds p.lock.
func (r *Replica[O, R]) writeLock(p *part[O, R]) {
	r.at(PtWriteLock)
	p.writer.Store(1)
	me := uint32(p.index) + 1
	for i := range r.ctxs[:r.high.Load()] {
		c := &r.ctxs[i]
		r.at(PtReaders)
		for attempt := 0; c.reading.Load() == me; attempt++ {
			r.wait(ForReaders, p.index, oplog.Blocker{}, attempt)
		}
	}
}
