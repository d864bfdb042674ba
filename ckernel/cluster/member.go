package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"dinos/sched"
	"dinos/shmem/grant"
	"dinos/shmem/layout"
	"dinos/shmem/proto"
)

func (e Tick) step(c *Cluster) {
	// Of a long pause no more counts than the others had a chance to fill: this ckernel was not there to see them.
	passed := min(max(e.Now-c.now, 0), int64(c.cfg.Timing.Beat)*3/2)
	c.now = e.Now
	for _, b := range e.Beats {
		if b.Peer < 1 || b.Peer >= len(c.members) {
			continue
		}
		m := &c.members[b.Peer]
		switch m.status {
		case up:
			c.look(b, passed)
		case dead:
			if c.now-m.asked >= fenceAgain {
				c.askHost(b.Peer)
			}
		}
	}
	if c.ending != 0 {
		c.end()
	}
}

// look counts the silence of a member.
func (c *Cluster) look(b Beat, passed int64) {
	m := &c.members[b.Peer]
	m.silence += passed
	m.mute += passed
	if b.Count != m.beat {
		m.beat, m.silence = b.Count, 0
	}
	switch {
	case m.silence >= int64(c.cfg.Timing.Dead):
		c.die(b.Peer, fmt.Sprintf("no heartbeat for %v", time.Duration(m.silence)))
	case m.mute >= int64(c.cfg.Timing.Rings):
		c.die(b.Peer, fmt.Sprintf("cut off: it beats, but sent nothing for %v", time.Duration(m.mute)))
	}
}

// die declares the life of a member dead and has it fenced.
func (c *Cluster) die(peer int, reason string) {
	c.declare(peer, reason)
	c.askHost(peer)
}

// declare declares the life of a member dead.
func (c *Cluster) declare(peer int, reason string) {
	m := &c.members[peer]
	m.status, m.reason = dead, reason
	c.heard(peer)
	gen := m.info.Generation
	c.logf("%s generation %d is dead: %s", name(peer), gen, reason)
	c.do(StoreFence{peer, gen})
	c.do(PeerDied{peer, gen})
	c.do(Evict{peer, gen, false})
	if err := c.cfg.Placement.SetAlive(uint32(peer), gen, false); err != nil {
		c.logf("scheduler: %v", err)
	}
	c.changed(peer, layout.StateDead)
	c.dropWaits(peer)
}

func (c *Cluster) askHost(peer int) {
	m := &c.members[peer]
	m.asked = c.now
	c.do(HostFence{peer, m.info.Generation, m.reason})
}

// step of Over: that life and all before it run no more.
func (e Over) step(c *Cluster) {
	if e.Peer < 1 || e.Peer >= len(c.members) {
		return
	}
	m := &c.members[e.Peer]
	if m.info.Generation > e.Generation {
		return // long known
	}
	if m.info.Generation < e.Generation {
		// It ended before it registered. What it sent before must not make it a member now.
		if m.status != absent {
			Over{e.Peer, m.info.Generation, e.Reason}.step(c)
		}
		if m.status == absent {
			m.info, m.reason = proto.Member{Generation: e.Generation, Name: m.info.Name}, e.Reason
			c.do(StoreFence{e.Peer, e.Generation})
		}
		return
	}
	if m.status == up {
		c.declare(e.Peer, cmp.Or(e.Reason, "the host tool says so"))
	}
	if m.status == dead {
		c.gone(e.Peer)
	}
}

// gone takes back what a life had that is over for certain.
func (c *Cluster) gone(peer int) {
	m := &c.members[peer]
	gen := m.info.Generation
	more := c.bequeath(peer, gen)
	held, err := c.reclaim(peer, gen)
	if err != nil {
		c.logf("grant table: %v", err)
		return // it stays dead, and is tried again at the host's next word
	}
	m.status, m.drained, m.leaving = absent, false, false
	lost, err := c.cfg.Placement.Leave(uint32(peer), gen)
	if err != nil {
		c.logf("scheduler: %v", err)
	}
	c.rebookHeirs(more)
	c.do(Evict{peer, gen, true})
	for p, h := range c.home {
		if h == peer {
			delete(c.home, p)
		}
	}
	c.logf("%s generation %d is gone: %d cores and slices taken back, %d processes lost some", name(peer), gen, held, len(lost))
	c.retry()
}

// reclaim takes back all units of a life and those before, and returns how many were held.
func (c *Cluster) reclaim(peer int, gen uint64) (int, error) {
	var held []grant.Unit
	err := c.tableDo(func() error {
		more, err := c.cfg.Table.Reclaim(peer, gen)
		held = append(held, more...)
		return err
	})
	for _, u := range held {
		c.unhold(u)
	}
	for u, h := range c.holder {
		if h == peer { // it asked for a unit of another machine, whose kernel answers for it now
			c.holder[u] = c.ownerPeer(u)
		}
	}
	c.recount()
	return len(held), err
}

func (c *Cluster) ownerPeer(u grant.Unit) int {
	if e, err := c.cfg.Table.Entry(u); err == nil && e.State == grant.Held {
		return e.Owner.Peer
	}
	return nobody
}

// changed tells everybody of a change of the membership.
func (c *Cluster) changed(peer int, s layout.State) {
	c.epoch++
	c.do(StoreEpoch{c.epoch})
	info := c.info(peer)
	info.State = uint8(s)
	msg := &proto.Membership{Epoch: c.epoch, Member: info, Reason: proto.CutText(c.members[peer].reason)}
	for i := range c.members {
		if i != peer && c.members[i].status == up {
			c.do(Notify{i, msg})
		}
	}
	c.do(Notify{c.host(), msg})
}

func name(peer int) string {
	if peer == layout.Ckernel {
		return "ckernel"
	}
	return fmt.Sprintf("dkernel%d", peer)
}

// info is a machine as others are told of it.
func (c *Cluster) info(peer int) proto.Member {
	if peer == layout.Ckernel {
		m := c.cfg.Self
		m.Peer, m.Kind, m.State, m.Generation = 0, 'c', uint8(layout.StateUp), c.cfg.Generation
		m.Uptime = uint64(max(c.now, 0))
		return m
	}
	m := &c.members[peer]
	i := m.info
	i.Peer, i.Kind = uint16(peer), 'd'
	i.Slices = uint64(m.kernel.slices + m.process.slices)
	switch {
	case m.status == dead:
		i.State = uint8(layout.StateDead)
	case m.status == absent:
		i.State = uint8(layout.StateDown)
	case m.leaving:
		i.State = uint8(layout.StateLeaving)
	default:
		i.State = uint8(layout.StateUp)
	}
	if m.status == up {
		i.Uptime = uint64(max(c.now-m.joined, 0))
	}
	return i
}

// register serves Register.
func (c *Cluster) register(r *Request, q *proto.Register) {
	if r.From < 1 || r.From >= len(c.members) {
		c.refuse(r, proto.CodeMalformed, "peer %d does not register, dkernels 1 to %d do", r.From, len(c.members)-1)
		return
	}
	m := &c.members[r.From]
	gen := m.info.Generation
	switch {
	case uint32(q.Generation) != r.Generation || q.Generation == 0:
		c.refuse(r, proto.CodeMalformed, "generation %d in a frame of generation %d", q.Generation, r.Generation)
	case q.Rack != c.cfg.Rack:
		c.refuse(r, proto.CodeConflict, "rack %d, this is rack %d", q.Rack, c.cfg.Rack)
	case q.Cores < 1 || q.Cores > layout.MaxCores:
		c.refuse(r, proto.CodeMalformed, "%d cores, want 1 to %d", q.Cores, layout.MaxCores)
	case q.Generation < gen, q.Generation == gen && m.status != up:
		c.refuse(r, proto.CodeDenied, "generation %d of %s is fenced, the last was %d", q.Generation, name(r.From), gen)
	case c.ending != 0:
		c.refuse(r, proto.CodeConflict, "the rack is being shut down")
	case q.Generation == gen: // once more, to a restarted ckernel or because the answer got lost
		m.info.Name, m.info.Doorbell, m.info.Memory = q.Name, q.Doorbell, q.Memory
		m.mute = 0
		c.reply(r, c.registered(r.From))
	default:
		c.join(r, q)
	}
}

// join makes a new life a member.
func (c *Cluster) join(r *Request, q *proto.Register) {
	m := &c.members[r.From]
	// A life begins when the former is over.
	if m.status == up {
		c.declare(r.From, fmt.Sprintf("its machine began life %d", q.Generation))
	}
	if m.status == dead {
		c.gone(r.From)
	}
	if m.status == dead {
		c.refuse(r, proto.CodeInternal, "what generation %d held could not be taken back", m.info.Generation)
		return
	}
	if err := c.tableDo(func() error { return c.cfg.Table.Online(r.From, q.Generation, int(q.Cores)) }); err != nil {
		c.fail(r, err)
		return
	}
	d := sched.Dkernel{ID: uint32(r.From), Cores: int64(q.Cores), Slices: 0, Generation: q.Generation, Alive: true}
	if err := c.cfg.Placement.Join(d); err != nil {
		_ = c.tableDo(func() error { _, err := c.cfg.Table.Reclaim(r.From, q.Generation); return err })
		c.fail(r, err)
		return
	}
	*m = member{status: up, joined: c.now, claimed: true, info: proto.Member{Generation: q.Generation, Doorbell: q.Doorbell,
		Cores: q.Cores, Memory: q.Memory, Name: q.Name}}
	c.recount()
	c.logf("%s generation %d has joined with %d cores", name(r.From), q.Generation, q.Cores)
	c.changed(r.From, layout.StateUp)
	c.reply(r, c.registered(r.From))
	c.retry()
}

func (c *Cluster) registered(peer int) *proto.RegisterReply {
	t := &c.cfg.Timing
	return &proto.RegisterReply{Epoch: c.epoch, Peer: uint16(peer), HeartbeatUs: uint32(t.Beat / time.Microsecond),
		DeadUs: uint32(t.Dead / time.Microsecond), Members: c.present()}
}

// present are the ckernel and all members.
func (c *Cluster) present() []proto.Member {
	list := []proto.Member{c.info(layout.Ckernel)}
	for i := range c.members {
		if c.members[i].status == up {
			list = append(list, c.info(i))
		}
	}
	return list
}

// leave serves Leave: nothing runs on the member any more, and what it still has is taken back.
func (c *Cluster) leave(r *Request, q *proto.Leave) {
	m := &c.members[r.From]
	gen := m.info.Generation
	c.heard(r.From)
	m.status, m.reason = dead, proto.CutText("left: "+q.Reason) // no way back, should the next step fail
	c.do(StoreFence{r.From, gen})
	c.changed(r.From, layout.StateDown)
	c.gone(r.From)
	c.reply(r, &proto.Done{})
	c.do(PeerDied{r.From, gen}) // after the reply
	c.dropWaits(r.From)
	if c.ending != 0 {
		c.end()
	}
}

// shutdown serves Shutdown: the rack ends in order.
func (c *Cluster) shutdown(r *Request, q *proto.Shutdown) {
	if c.ending == 0 {
		c.ending = c.now + shutdownWithin
		c.logf("the rack is being shut down: %s", q.Reason)
		for i := range c.members {
			if m := &c.members[i]; m.status == up {
				m.leaving = true
				c.do(Call{i, &proto.Shutdown{Reason: q.Reason}})
			}
		}
	}
	c.reply(r, &proto.Done{})
	c.end()
}

// end stops the ckernel when all members have left, and fences those that do not.
func (c *Cluster) end() {
	left := 0
	for i := range c.members {
		if c.members[i].status == up {
			if c.now < c.ending {
				left++
			} else {
				c.die(i, "did not leave when the rack was shut down")
			}
		}
	}
	if left == 0 && !c.stopped {
		c.stopped = true
		c.do(Stop{nil})
	}
}

// fence serves Fence: the host tool's word that a life is over.
func (c *Cluster) fence(r *Request, q *proto.Fence) {
	if int(q.Peer) < 1 || int(q.Peer) >= len(c.members) || q.Generation == 0 || q.Generation >= maxGeneration {
		c.refuse(r, proto.CodeMalformed, "generation %d of peer %d, want a dkernel 1 to %d and a generation from 1 to 2^31-1", q.Generation, q.Peer,
			len(c.members)-1)
		return
	}
	Over{int(q.Peer), q.Generation, q.Reason}.step(c)
	c.reply(r, &proto.Done{})
}

func (c *Cluster) reply(r *Request, m proto.Message) { c.do(Reply{Token: r.Token, Message: m}) }

func (c *Cluster) refuse(r *Request, code proto.Code, format string, args ...any) {
	c.do(Reply{Token: r.Token, Err: &proto.ErrorReply{Code: code, Text: proto.CutText(fmt.Sprintf(format, args...))}})
}

// fail answers with an error of the table or the scheduler.
func (c *Cluster) fail(r *Request, err error) { c.refuse(r, Code(err), "%v", err) }

// Code is what an error of the placement or the table is to a peer.
func Code(err error) proto.Code {
	var s *sched.Refusal
	if errors.As(err, &s) {
		switch s.Kind {
		case sched.Infeasible, sched.Contended:
			return proto.CodeExhausted
		case sched.UnknownProcess, sched.DeadProcess, sched.UnknownDkernel, sched.UnknownMove:
			return proto.CodeNotFound
		case sched.Stale:
			return proto.CodeStale
		case sched.NotHeld:
			return proto.CodeDenied
		case sched.Moving:
			return proto.CodeConflict
		case sched.Invalid, sched.BadPolicy, sched.Budget:
			return proto.CodeMalformed
		}
		return proto.CodeInternal
	}
	for _, k := range []struct {
		err  error
		code proto.Code
	}{{grant.ErrNone, proto.CodeExhausted}, {grant.ErrStale, proto.CodeDenied}, {grant.ErrNoSuch, proto.CodeNotFound}, {grant.ErrState, proto.CodeConflict}} {
		if errors.Is(err, k.err) {
			return k.code
		}
	}
	return proto.CodeInternal
}
