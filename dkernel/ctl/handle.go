package ctl

import (
	"time"

	"dinos/shmem/layout"
	"dinos/shmem/proto"
	"dinos/shmem/rpc"
)

// register fills the Mux with what every dkernel serves.
func (n *Node) register() {
	m := n.peer.Mux()
	rpc.HandleNull(m)
	rpc.Handle(m, rpc.Inline, n.heartbeat)
	rpc.Handle(m, rpc.Inline, n.membership)
	rpc.Handle(m, rpc.Worker, n.status)
	rpc.Handle(m, rpc.Worker, n.statistics)
	rpc.Handle(m, rpc.Worker, n.serveShutdown)
	rpc.Handle(m, rpc.Worker, n.reclaim)
}

// heartbeat serves Heartbeat: the rack's clock as this machine knows it, from which also a restarted ckernel takes it.
func (n *Node) heartbeat(_ *rpc.Request, q *proto.Heartbeat, a *proto.HeartbeatReply) error {
	tsc, _, _ := n.clock.read()
	n.mu.Lock()
	defer n.mu.Unlock()
	*a = proto.HeartbeatReply{Sequence: q.Sequence, TSC: tsc, Epoch: n.epoch}
	return nil
}

// status serves Status with what this machine knows.
func (n *Node) status(_ *rpc.Request, q *proto.Status, a *proto.StatusReply) error {
	a.TimeNs, _ = n.RackTime()
	a.Rack = n.peer.Rack().Generation
	n.mu.Lock()
	a.Epoch = n.epoch
	n.mu.Unlock()
	a.Members = n.Members()
	if r, err := n.grants(); err == nil && q.Check {
		p := r.Audit(nil)
		a.FreeCores, a.FreeSlices = p.FreeCores, p.FreeSlices
		for _, v := range p.Violations[:min(len(p.Violations), proto.MaxList)] {
			a.Problems = append(a.Problems, proto.CutText(v.String()))
		}
	}
	if q.Processes && n.cfg.Processes != nil {
		list := n.cfg.Processes()
		a.Processes = list[:min(len(list), proto.MaxList)]
	}
	return nil
}

// statistics serves Statistics of this machine.
func (n *Node) statistics(_ *rpc.Request, q *proto.Statistics, a *proto.StatisticsReply) error {
	if q.Machine != -1 && q.Machine != int32(n.Self()) {
		return rpc.Errorf(proto.CodeNotFound, "machine %d, this is %d: ask the ckernel", q.Machine, n.Self())
	}
	a.TimeNs, _ = n.RackTime()
	a.Values = n.peer.Values(n.Self())
	return nil
}

// serveShutdown serves Shutdown, of the ckernel and the host tool.
func (n *Node) serveShutdown(r *rpc.Request, q *proto.Shutdown, _ *proto.Done) error {
	if from := n.peer.PeerOf(r.Conn); from != layout.Ckernel && from != n.peer.Rack().Host() {
		return rpc.Errorf(proto.CodeDenied, "only the ckernel and the host tool shut a kernel down")
	}
	n.Shutdown(q.Reason, q.Reboot)
	return nil
}

// reclaim serves Reclaim, of the ckernel.
func (n *Node) reclaim(r *rpc.Request, q *proto.Reclaim, _ *proto.Done) error {
	switch {
	case n.peer.PeerOf(r.Conn) != layout.Ckernel:
		return rpc.Errorf(proto.CodeDenied, "only the ckernel reclaims")
	case n.cfg.Reclaim == nil:
		return rpc.Errorf(proto.CodeUnsupported, "nothing on this kernel can be asked to give something back")
	}
	// The message is the handler's until it returns.
	n.cfg.Reclaim(append([]proto.Core(nil), q.Cores...), append([]proto.Slice(nil), q.Slices...), time.Duration(q.DeadlineUs)*time.Microsecond)
	return nil
}
