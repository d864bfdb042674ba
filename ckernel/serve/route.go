package serve

import (
	"context"
	"errors"
	"io"
	"time"

	"dinos/ckernel/cluster"
	"dinos/shmem/proto"
	"dinos/shmem/rpc"
)

// registerRoutes has what concerns processes served by the dkernels that run them. A dkernel without a handler answers CodeUnsupported,
// and that is what the caller gets.
func (s *Server) registerRoutes(m *rpc.Mux) {
	rpc.Handle(m, rpc.Worker, s.createProcess)
	routeByPID[proto.KillProcess, proto.Done](s, m, func(q *proto.KillProcess) uint64 { return q.PID })
	routeByPID[proto.SignalProcess, proto.Done](s, m, func(q *proto.SignalProcess) uint64 { return q.PID })
	routeByPID[proto.WaitProcess, proto.WaitProcessReply](s, m, func(q *proto.WaitProcess) uint64 { return q.PID })
	rpc.HandleStream(m, s.run)
	rpc.HandleStream(m, s.stdio)
}

// remaining is how long the caller of r still waits.
func (s *Server) remaining(r *rpc.Request) time.Duration {
	d := r.Deadline()
	if d == rpc.Forever {
		return 24 * time.Hour
	}
	return max(time.Duration(d-s.peer.Clock().Now()), time.Millisecond)
}

// till is a context that ends with a request.
func (s *Server) till(r *rpc.Request) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(s.ctx)
	done := r.Done()
	go func() {
		select {
		case <-done:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// passOn is an error of a dkernel for who asked the ckernel: its answer as it is, else that there was none.
func (s *Server) passOn(peer int, err error) error {
	var remote *rpc.RemoteError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &remote):
		return remote
	case errors.Is(err, rpc.ErrTimeout):
		return rpc.Errorf(proto.CodeTimeout, "%s: %v", s.peer.Name(peer), err)
	}
	return rpc.Errorf(proto.CodeNotFound, "%s: %v", s.peer.Name(peer), err)
}

// home picks the machine for a new process.
func (s *Server) home(want int32, cores, slices int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over || s.cluster == nil {
		return 0, rpc.Errorf(proto.CodeBusy, "the ckernel does not serve now")
	}
	if want >= 0 {
		if gens := *s.members.Load(); want < 1 || int(want) >= len(gens) || gens[want] == 0 {
			return 0, rpc.Errorf(proto.CodeNotFound, "machine %d is no dkernel of the rack now", want)
		}
		return int(want), nil
	}
	h, err := s.cluster.PickHome(cores, slices)
	if err != nil {
		return 0, rpc.Errorf(cluster.Code(err), "no place for the process: %v", err)
	}
	return h, nil
}

func (s *Server) setHome(pid uint64, peer int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cluster.SetHome(pid, peer)
}

// createProcess serves CreateProcess.
func (s *Server) createProcess(r *rpc.Request, q *proto.CreateProcess, a *proto.CreateProcessReply) error {
	h, err := s.home(q.Home, int64(q.Cores), int64(q.Slices))
	if err != nil {
		return err
	}
	q.Home = int32(h)
	ctx, cancel := s.till(r)
	defer cancel()
	c, err := s.peer.Conn(h)
	if err == nil {
		err = c.Call(ctx, q, a, s.remaining(r))
	}
	if err == nil {
		s.setHome(a.PID, h)
	}
	return s.passOn(h, err)
}

// where are the machines to ask about a process: its home, or all members if that is not known any more.
func (s *Server) where(pid uint64) []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cluster != nil {
		if h, ok := s.cluster.Home(pid); ok {
			return []int{h}
		}
	}
	var list []int
	for i, gen := range *s.members.Load() {
		if gen != 0 {
			list = append(list, i)
		}
	}
	return list
}

// elsewhere reports whether an error says that another machine may know of the process.
func elsewhere(err error) bool {
	var remote *rpc.RemoteError
	return errors.As(err, &remote) && (remote.Code == proto.CodeNotFound || remote.Code == proto.CodeUnsupported)
}

func routeByPID[Q, R any, PQ interface {
	*Q
	proto.Request
}, PR interface {
	*R
	proto.Message
}](s *Server, m *rpc.Mux, pid func(PQ) uint64) {
	rpc.Handle(m, rpc.Worker, func(r *rpc.Request, q PQ, a PR) error {
		ctx, cancel := s.till(r)
		defer cancel()
		var err error = rpc.Errorf(proto.CodeNotFound, "process %d: there is no dkernel", pid(q))
		for _, h := range s.where(pid(q)) {
			var c *rpc.Conn
			if c, err = s.peer.Conn(h); err == nil {
				err = c.Call(ctx, q, a, s.remaining(r))
			}
			if err = s.passOn(h, err); !elsewhere(err) {
				break
			}
		}
		return err
	})
}

// run serves Run: the stream goes on to the dkernel that runs the program.
func (s *Server) run(in *rpc.Stream, q *proto.Run) error {
	h, err := s.home(q.Want.Machine, int64(q.Cores), int64(q.Slices))
	if err != nil {
		return err
	}
	q.Want.Machine = int32(h)
	var a proto.RunReply
	out, err := s.open(h, q, &a)
	if err != nil {
		return err
	}
	s.setHome(a.PID, h)
	return pipe(in, out, &a)
}

// stdio serves Stdio.
func (s *Server) stdio(in *rpc.Stream, q *proto.Stdio) error {
	var a proto.StdioReply
	var err error = rpc.Errorf(proto.CodeNotFound, "process %d: there is no dkernel", q.PID)
	for _, h := range s.where(q.PID) {
		var out *rpc.Stream
		if out, err = s.open(h, q, &a); err == nil {
			return pipe(in, out, &a)
		}
		if !elsewhere(err) {
			break
		}
	}
	return err
}

func (s *Server) open(peer int, q proto.Request, a proto.Message) (*rpc.Stream, error) {
	c, err := s.peer.Conn(peer)
	if err != nil {
		return nil, s.passOn(peer, err)
	}
	out, err := c.Open(s.ctx, q, a, 0)
	return out, s.passOn(peer, err)
}

// pipe accepts a stream and moves its bytes to and from another one until both directions have ended.
func pipe(in, out *rpc.Stream, a proto.Message) error {
	defer out.Close()
	if err := in.Accept(a); err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := io.Copy(out, in); err != nil {
			out.Close()
			return
		}
		_ = out.CloseWrite()
	}()
	_, err := io.Copy(in, out)
	if err == nil {
		err = in.CloseWrite()
	}
	if err != nil {
		return err // the stream ends with it, and so does the other direction
	}
	<-done
	return nil
}

// processes adds to a status what the dkernels say of their processes; who does not answer is named.
func (s *Server) processes(r *rpc.Request, a *proto.StatusReply) {
	ctx, cancel := s.till(r)
	defer cancel()
	for i, gen := range *s.members.Load() {
		if gen == 0 {
			continue
		}
		var one proto.StatusReply
		c, err := s.peer.Conn(i)
		if err == nil {
			err = c.Call(ctx, &proto.Status{Processes: true}, &one, min(s.remaining(r), time.Second))
		}
		if err != nil {
			a.Problems = append(a.Problems, proto.CutText("processes of "+s.peer.Name(i)+": "+err.Error()))
			continue
		}
		room := proto.MaxList - len(a.Processes)
		a.Processes = append(a.Processes, one.Processes[:min(len(one.Processes), room)]...)
	}
}
