package serve

import (
	"dinos/ckernel/cluster"
	"dinos/shmem/layout"
	"dinos/shmem/proto"
	"dinos/shmem/rpc"
)

// register fills the Mux.
func (s *Server) register() {
	m := s.peer.Mux()
	rpc.HandleNull(m)
	rpc.Handle(m, rpc.Inline, s.heartbeat)
	decide[proto.Register, proto.RegisterReply](s, m)
	decide[proto.Leave, proto.Done](s, m)
	decide[proto.Topology, proto.TopologyReply](s, m)
	decide[proto.Fence, proto.Done](s, m)
	decide[proto.Shutdown, proto.Done](s, m)
	decide[proto.RequestCores, proto.RequestCoresReply](s, m)
	decide[proto.ReleaseCores, proto.Done](s, m)
	decide[proto.RequestSlices, proto.RequestSlicesReply](s, m)
	decide[proto.ReleaseSlices, proto.Done](s, m)
	decide[proto.Claim, proto.ClaimReply](s, m)
	decide[proto.Drain, proto.DrainReply](s, m)
	decide[proto.Audit, proto.AuditReply](s, m)
	decide[proto.AssignLog, proto.AssignLogReply](s, m)
	decide[proto.ReleaseLog, proto.Done](s, m)
	decide[proto.ExitProcess, proto.Done](s, m)
	decide[proto.SchedShow, proto.SchedShowReply](s, m)
	decide[proto.SchedSet, proto.SchedSetReply](s, m)
	decide[proto.SchedExplain, proto.SchedExplainReply](s, m)
	rpc.Handle(m, rpc.Worker, s.status)
	rpc.Handle(m, rpc.Worker, s.statistics)
	rpc.Handle(m, rpc.Worker, s.logPositions)
	rpc.Handle(m, rpc.Inline, s.logLine)
	rpc.HandleStream(m, s.readLog)
	s.registerRoutes(m)
}

// decide has the cluster serve requests of Q's type.
func decide[Q, R any, PQ interface {
	*Q
	proto.Request
}, PR interface {
	*R
	proto.Message
}](s *Server, m *rpc.Mux) {
	rpc.Handle(m, rpc.Worker, func(r *rpc.Request, q PQ, a PR) error {
		msg, err := s.ask(r, q)
		if err != nil {
			return err
		}
		got, ok := msg.(PR)
		if !ok {
			return rpc.Errorf(proto.CodeInternal, "%T answers %v", msg, q.Type())
		}
		*a = *got
		return nil
	})
}

// ask gives a request to the cluster and waits for its answer.
func (s *Server) ask(r *rpc.Request, q proto.Request) (proto.Message, error) {
	from := s.peer.PeerOf(r.Conn)
	if from < 0 {
		return nil, rpc.Errorf(proto.CodeStale, "the connection was made anew")
	}
	ch := make(chan cluster.Reply, 1)
	s.mu.Lock()
	// A caller that has given up may claim what it holds next: what it is granted after that nobody would know of.
	if err := r.Err(); err != nil {
		s.mu.Unlock()
		return nil, err
	}
	if s.over || s.cluster == nil {
		s.mu.Unlock()
		return nil, rpc.Errorf(proto.CodeBusy, "the ckernel does not serve now")
	}
	s.token++
	token := s.token
	s.waiting[token] = ch
	s.step(cluster.Request{Token: token, From: from, Generation: r.Peer(), Message: q})
	s.mu.Unlock()
	select {
	case a := <-ch:
		return answer(a)
	default:
	}
	select {
	case a := <-ch:
		return answer(a)
	case <-r.Done():
	case <-s.ctx.Done():
	}
	s.mu.Lock()
	delete(s.waiting, token)
	s.step(cluster.Cancel{Token: token})
	s.mu.Unlock()
	select {
	case a := <-ch: // nobody hears of it; the claim that follows finds out
		return answer(a)
	default:
		return nil, rpc.Errorf(proto.CodeCanceled, "%v was given up", q.Type())
	}
}

func answer(a cluster.Reply) (proto.Message, error) {
	if a.Err != nil {
		return nil, &rpc.RemoteError{Code: a.Err.Code, Errno: a.Err.Errno, Text: a.Err.Text}
	}
	return a.Message, nil
}

// heartbeat serves Heartbeat: of members, to whom it is the proof that their rings work, and of who only wants the clock.
func (s *Server) heartbeat(r *rpc.Request, q *proto.Heartbeat, a *proto.HeartbeatReply) error {
	msg, err := s.ask(r, q) // the cluster answers at once
	if err != nil {
		return err
	}
	*a = *msg.(*proto.HeartbeatReply)
	a.TSC = s.rackTSC()
	return nil
}

// status serves Status; the processes are the dkernels' to tell.
func (s *Server) status(r *rpc.Request, q *proto.Status, a *proto.StatusReply) error {
	msg, err := s.ask(r, q)
	if err != nil {
		return err
	}
	*a = *msg.(*proto.StatusReply)
	a.TimeNs = s.now()
	host := s.peer.Block(s.rack.Host())
	if st := layout.State(host.State.Load()); st == layout.StateUp {
		a.Members = append(a.Members, proto.Member{Peer: uint16(s.rack.Host()), Kind: 'h', State: uint8(st), Generation: host.Generation.Load(), Name: "host"})
	}
	if q.Processes {
		s.processes(r, a)
	}
	return nil
}

// statistics serves Statistics from the blocks, which the machines write; so also those of a dead one are there.
func (s *Server) statistics(_ *rpc.Request, q *proto.Statistics, a *proto.StatisticsReply) error {
	i := int(q.Machine)
	if q.Machine == -1 {
		i = layout.Ckernel
	}
	if i < 0 || i >= s.rack.Peers() {
		return rpc.Errorf(proto.CodeNotFound, "machine %d, want 0 to %d, or -1 for the ckernel", q.Machine, s.rack.Peers()-1)
	}
	a.TimeNs = s.now()
	a.Values = s.peer.Values(i)
	return nil
}
