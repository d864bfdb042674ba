package cluster

import (
	"slices"

	"dinos/shmem/layout"
	"dinos/shmem/proto"
)

func (e Request) step(c *Cluster) {
	r := &e
	if !c.started {
		c.refuse(r, proto.CodeBusy, "the ckernel is starting")
		return
	}
	if q, ok := r.Message.(*proto.Register); ok {
		c.register(r, q)
		return
	}
	if r.From != c.host() && !c.member(r) {
		return
	}
	if r.From == c.host() {
		c.serveHost(r)
	} else {
		c.serveMember(r)
	}
}

// member refuses the request of who is no member. What a member sends shows that its rings work.
func (c *Cluster) member(r *Request) bool {
	if r.From < 1 || r.From >= len(c.members) {
		c.refuse(r, proto.CodeNotMember, "peer %d is no member", r.From)
		return false
	}
	m := &c.members[r.From]
	switch {
	case m.status == up && uint32(m.info.Generation) == r.Generation:
		m.mute = 0
		return true
	case uint32(m.info.Generation) == r.Generation && m.info.Generation != 0:
		c.refuse(r, proto.CodeNotMember, "generation %d of %s is fenced: %s", m.info.Generation, name(r.From), m.reason)
	default:
		c.refuse(r, proto.CodeNotMember, "generation %d of %s has not registered", r.Generation, name(r.From))
	}
	return false
}

// serveHost serves what only the host tool may send, and what everybody may.
func (c *Cluster) serveHost(r *Request) {
	switch q := r.Message.(type) {
	case *proto.Fence:
		c.fence(r, q)
	case *proto.Shutdown:
		c.shutdown(r, q)
	case *proto.Drain:
		c.drain(r, q)
	case *proto.SchedSet:
		c.schedSet(r, q)
	default:
		c.serveAny(r)
	}
}

// serveMember serves what only members may send, and what everybody may.
func (c *Cluster) serveMember(r *Request) {
	switch q := r.Message.(type) {
	case *proto.Leave:
		c.leave(r, q)
	case *proto.RequestCores:
		c.requestCores(r, q)
	case *proto.RequestSlices:
		c.requestSlices(r, q)
	case *proto.ReleaseCores:
		c.release(r, coreNames(q.Cores))
	case *proto.ReleaseSlices:
		c.release(r, sliceNames(q.Slices))
	case *proto.Claim:
		c.claim(r, q)
	case *proto.ExitProcess:
		c.exitProcess(r, q)
	case *proto.AssignLog:
		c.assignLog(r, q)
	case *proto.ReleaseLog:
		c.releaseLog(r, q)
	case *proto.Fence, *proto.Shutdown, *proto.Drain, *proto.SchedSet:
		c.refuse(r, proto.CodeDenied, "only the host tool sends %v", q.Type())
	default:
		c.serveAny(r)
	}
}

func (c *Cluster) serveAny(r *Request) {
	switch q := r.Message.(type) {
	case *proto.Heartbeat:
		c.reply(r, &proto.HeartbeatReply{Sequence: q.Sequence, Epoch: c.epoch}) // the shell adds the clock
	case *proto.Topology:
		c.reply(r, c.topology())
	case *proto.Status:
		c.status(r, q)
	case *proto.Audit:
		c.audit(r)
	case *proto.SchedShow:
		c.schedShow(r, q)
	case *proto.SchedExplain:
		c.schedExplain(r, q)
	default:
		c.refuse(r, proto.CodeUnsupported, "the ckernel does not serve %v from %s", q.Type(), c.peerName(r.From))
	}
}

func (c *Cluster) peerName(peer int) string {
	if peer == c.host() {
		return "the host tool"
	}
	return name(peer)
}

// step of Cancel forgets a request that waits.
func (e Cancel) step(c *Cluster) {
	c.waits = slices.DeleteFunc(c.waits, func(w wait) bool { return w.r.Token == e.Token })
}

func (c *Cluster) topology() *proto.TopologyReply {
	a := &proto.TopologyReply{Epoch: c.epoch, Members: c.present()}
	for _, m := range a.Members {
		if m.Peer == layout.Ckernel {
			continue // its cores are nobody else's
		}
		for i := range m.Cores {
			if len(a.Threads) < proto.MaxList {
				a.Threads = append(a.Threads, proto.Thread{Machine: m.Peer, Core: i, APIC: i, Node: m.Peer})
			}
		}
	}
	return a
}

// status serves Status.
func (c *Cluster) status(r *Request, q *proto.Status) {
	n := c.cfg.Table.Counts()
	a := &proto.StatusReply{TimeNs: uint64(max(c.now, 0)), Epoch: c.epoch, Rack: c.cfg.Rack, FreeCores: n.FreeCores, FreeSlices: n.FreeSlices,
		Members: []proto.Member{c.info(layout.Ckernel)}}
	for i := range c.members {
		if c.members[i].info.Generation != 0 {
			a.Members = append(a.Members, c.info(i))
		}
	}
	if q.Check {
		_, a.Problems = c.Audit()
	}
	c.reply(r, a)
}

// audit serves Audit.
func (c *Cluster) audit(r *Request) {
	p, problems := c.Audit()
	c.reply(r, &proto.AuditReply{Slices: p.Slices, Cores: p.Cores, Free: p.FreeSlices + p.FreeCores, Problems: problems})
}
