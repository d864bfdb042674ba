package racktest

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/dkernel/ctl"
	"dinos/nr"
	"dinos/shmem/proto"
	"dinos/shmem/rpc"
)

// sum is a replicated number.
type sum struct{ n uint64 }

func (s *sum) Apply(op uint64) uint64 { s.n += op; return s.n }
func (s *sum) Read(uint64) uint64     { return s.n }

func sumConfig(gen uint64) nr.Config[uint64, uint64] {
	return nr.Config[uint64, uint64]{New: func(int) nr.Structure[uint64, uint64] { return &sum{} }, Entries: 32, Replicas: 4, Threads: 2, Generation: gen}
}

// replica is a replica of a sum on a machine.
func replica(t *testing.T, ctx context.Context, m *Machine) (ctl.Log, *nr.Replica[uint64, uint64], *nr.Handle[uint64, uint64]) {
	l, err := m.Node.AssignLog(ctx, 7, 1)
	require.NoError(t, err)
	if l.Fresh {
		require.NoError(t, nr.Format(l.Memory, sumConfig(l.Generation)))
		require.NoError(t, m.Node.LogReady(l))
	}
	in, err := nr.Open(l.Memory, sumConfig(l.Generation))
	require.NoError(t, err)
	rep, err := in.First()
	require.NoError(t, err)
	require.NoError(t, m.Node.LogReplica(l, rep.ID().Slot, int(rep.ID().Gen)))
	h, err := rep.Register()
	require.NoError(t, err)
	return l, rep, h
}

// TestReplicasOfTheDead: a replica on a machine that dies does not stop the others, whose log is full without it.
func TestReplicasOfTheDead(t *testing.T) {
	r := New(t, Options{Dkernels: 2, Verbose: true})
	ctx := ctxFor(t, time.Minute)
	r.StartCkernel()
	one, two := r.StartDkernel(1), r.StartDkernel(2)
	ready(t, one)
	ready(t, two)
	l1, rep1, h1 := replica(t, ctx, one)
	l2, _, h2 := replica(t, ctx, two)
	require.True(t, l1.Fresh)
	require.False(t, l2.Fresh)
	require.Equal(t, l1.Index, l2.Index)
	for range 10 {
		_, err := h1.Apply(1)
		require.NoError(t, err)
		_, err = h2.Apply(1)
		require.NoError(t, err)
	}
	var a proto.LogPositionsReply
	require.NoError(t, r.Call(ctx, &proto.LogPositions{}, &a))
	require.Len(t, a.Logs, 1)
	require.EqualValues(t, 7, a.Logs[0].Process)
	require.EqualValues(t, 1, a.Logs[0].Part)
	require.Len(t, a.Logs[0].Replicas, 2)
	require.EqualValues(t, []int32{1, 2}, []int32{a.Logs[0].Replicas[0].Machine, a.Logs[0].Replicas[1].Machine})
	require.ErrorContains(t, two.Node.ReleaseLog(ctx, 7, 1), "still has replicas")

	one.Kill()
	require.NoError(t, r.Report(ctx, one))
	done := make(chan error, 1)
	go func() {
		for range 200 { // many times what the log holds
			if _, err := h2.Apply(1); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	select {
	case err := <-done:
		require.NoError(t, err)
	case <-ctx.Done():
		t.Fatal("the dead replica holds the log up")
	}
	got, err := h2.Read(0)
	require.NoError(t, err)
	require.EqualValues(t, 220, got)
	_, err = h1.Apply(1)
	require.ErrorIs(t, err, nr.ErrEvicted)
	_ = rep1

	// A restarted ckernel knows the log.
	r.Machine(0).Kill()
	r.StartCkernel()
	again, err := two.Node.AssignLog(ctx, 7, 1)
	require.NoError(t, err)
	require.Equal(t, l2.Index, again.Index)
	require.Equal(t, l2.Generation, again.Generation)
	require.False(t, again.Fresh)
	// Its process ends: the log is free for another.
	require.NoError(t, two.Node.ExitProcess(ctx, &proto.ExitProcess{PID: 7}))
	other, err := two.Node.AssignLog(ctx, 8, 0)
	require.NoError(t, err)
	require.NotEqual(t, l2.Generation, other.Generation)
}

// TestMakerDies: the log that a dead kernel was to format goes to who waits for it.
func TestMakerDies(t *testing.T) {
	r := New(t, Options{Dkernels: 2})
	ctx := ctxFor(t, time.Minute)
	r.StartCkernel()
	one, two := r.StartDkernel(1), r.StartDkernel(2)
	ready(t, one)
	ready(t, two)
	l, err := one.Node.AssignLog(ctx, 0, 0)
	require.NoError(t, err)
	require.True(t, l.Fresh)
	got := make(chan ctl.Log, 1)
	go func() {
		l, err := two.Node.AssignLog(ctx, 0, 0)
		if err != nil {
			t.Error(err)
		}
		got <- l
	}()
	time.Sleep(50 * time.Millisecond)
	require.Empty(t, got)
	one.Kill()
	require.NoError(t, r.Report(ctx, one))
	next := <-got
	require.True(t, next.Fresh)
	require.Equal(t, l.Index, next.Index)
	require.ErrorIs(t, one.Node.LogReady(l), ctl.ErrNotGranted, "the dead one's word counts no more")
}

// TestRoutes: what concerns processes goes to the dkernel that runs them; one that runs none says so.
func TestRoutes(t *testing.T) {
	r := New(t, Options{Dkernels: 2})
	ctx := ctxFor(t, time.Minute)
	r.StartCkernel()
	serving := func(c *ctl.Config) {
		c.Processes = func() []proto.ProcessInfo { return []proto.ProcessInfo{{PID: 42, Name: "sh"}} }
	}
	one, two := r.StartDkernel(1), r.StartDkernel(2, serving, func(*ctl.Config) {})
	ready(t, one)
	ready(t, two)
	var remote *rpc.RemoteError
	err := r.Call(ctx, &proto.CreateProcess{Home: 1, Path: "/bin/sh"}, &proto.CreateProcessReply{})
	require.ErrorAs(t, err, &remote)
	require.Equal(t, proto.CodeUnsupported, remote.Code)
	err = r.Call(ctx, &proto.CreateProcess{Home: 7}, &proto.CreateProcessReply{})
	require.ErrorAs(t, err, &remote)
	require.Equal(t, proto.CodeNotFound, remote.Code)
	err = r.Call(ctx, &proto.CreateProcess{Home: -1, Cores: 60}, &proto.CreateProcessReply{})
	require.ErrorAs(t, err, &remote)
	require.Equal(t, proto.CodeExhausted, remote.Code)
	err = r.Call(ctx, &proto.KillProcess{PID: 5}, &proto.Done{})
	require.ErrorAs(t, err, &remote)
	require.Equal(t, proto.CodeUnsupported, remote.Code)
	err = r.Call(ctx, &proto.Open{}, &proto.OpenReply{})
	require.ErrorAs(t, err, &remote)
	require.Equal(t, proto.CodeUnsupported, remote.Code)

	var st proto.StatusReply
	require.NoError(t, r.Call(ctx, &proto.Status{Processes: true}, &st))
	require.Equal(t, []proto.ProcessInfo{{PID: 42, Name: "sh"}}, st.Processes)
	require.Empty(t, st.Problems)
	var stats proto.StatisticsReply
	require.NoError(t, r.Call(ctx, &proto.Statistics{Machine: 1}, &stats))
	require.NotEmpty(t, stats.Values)
	err = r.Call(ctx, &proto.Statistics{Machine: 9}, &stats)
	require.ErrorAs(t, err, &remote)
	require.Equal(t, proto.CodeNotFound, remote.Code)
}

// hostConn is the host tool's connection to the ckernel, once it is up.
func hostConn(t *testing.T, r *Rack) (c *rpc.Conn) {
	until(t, "the host tool hears of the ckernel", func() (ok bool) {
		var err error
		c, err = r.Host.Conn(0)
		return err == nil
	})
	return c
}

// TestPrograms runs programs through the ckernel on a dkernel that has a handler for them.
func TestPrograms(t *testing.T) {
	r := New(t, Options{Dkernels: 1})
	ctx := ctxFor(t, time.Minute)
	r.StartCkernel()
	m := r.StartDkernelWith(1, nil, func(n *ctl.Node) {
		rpc.Handle(n.Mux(), rpc.Worker, func(_ *rpc.Request, q *proto.CreateProcess, a *proto.CreateProcessReply) error {
			a.PID, a.Home = 100, uint16(q.Home)
			return nil
		})
		rpc.Handle(n.Mux(), rpc.Worker, func(_ *rpc.Request, q *proto.WaitProcess, a *proto.WaitProcessReply) error {
			if q.PID != 100 && q.PID != 101 {
				return rpc.Errorf(proto.CodeNotFound, "no process %d", q.PID)
			}
			a.Status = 3
			return nil
		})
		rpc.HandleStream(n.Mux(), func(s *rpc.Stream, q *proto.Run) error {
			if err := s.Accept(&proto.RunReply{PID: 101, Home: 1}); err != nil {
				return err
			}
			b := make([]byte, 100)
			for {
				k, err := s.Read(b)
				if err != nil {
					return nil
				}
				if _, err := s.Write(bytes.ToUpper(b[:k])); err != nil {
					return err
				}
			}
		})
	})
	ready(t, m)
	var made proto.CreateProcessReply
	require.NoError(t, r.Call(ctx, &proto.CreateProcess{Home: -1, Cores: 1}, &made))
	require.Equal(t, proto.CreateProcessReply{PID: 100, Home: 1}, made)
	var w proto.WaitProcessReply
	require.NoError(t, r.Call(ctx, &proto.WaitProcess{PID: 100}, &w))
	require.EqualValues(t, 3, w.Status)
	require.ErrorContains(t, r.Call(ctx, &proto.WaitProcess{PID: 9}, &w), "no process 9")

	c := hostConn(t, r)
	var ran proto.RunReply
	s, err := c.Open(ctx, &proto.Run{Want: proto.Want{Machine: -1}, Path: "/bin/cat"}, &ran, 0)
	require.NoError(t, err)
	require.EqualValues(t, 101, ran.PID)
	_, err = s.Write([]byte("hello"))
	require.NoError(t, err)
	require.NoError(t, s.CloseWrite())
	var out bytes.Buffer
	_, err = out.ReadFrom(s)
	require.NoError(t, err)
	require.Equal(t, "HELLO", out.String())
	_, err = c.Open(ctx, &proto.Stdio{PID: 5}, &proto.StdioReply{}, 0)
	require.ErrorContains(t, err, "unsupported")
}

// TestJournal: what kernels say is kept, and read by machine, from the past and as it comes.
func TestJournal(t *testing.T) {
	r := New(t, Options{Dkernels: 2})
	ctx := ctxFor(t, time.Minute)
	r.StartCkernel()
	one := r.StartDkernel(1)
	ready(t, one)
	require.NoError(t, one.Node.Say(1, "first words"))
	require.NoError(t, one.Node.Say(1, "second words"))
	c := hostConn(t, r)
	read := func(q *proto.ReadLog) string {
		s, err := c.Open(ctx, q, &proto.ReadLogReply{}, 0)
		require.NoError(t, err)
		var out bytes.Buffer
		_, err = out.ReadFrom(s)
		require.NoError(t, err)
		return out.String()
	}
	until(t, "the words are there", func() bool { return bytes.Contains([]byte(read(&proto.ReadLog{Machine: -1})), []byte("second words")) })
	require.Contains(t, read(&proto.ReadLog{Machine: -1}), "ckernel: dkernel1 generation 1 has joined")
	only := read(&proto.ReadLog{Machine: 1, Lines: 1})
	require.Contains(t, only, "dkernel1: second words\n")
	require.NotContains(t, only, "first")
	_, err := c.Open(ctx, &proto.ReadLog{Machine: 17}, &proto.ReadLogReply{}, 0)
	require.ErrorContains(t, err, "machine 17, want 0 to 3")

	s, err := c.Open(ctx, &proto.ReadLog{Machine: 1, Follow: true, Lines: 1}, &proto.ReadLogReply{}, 0)
	require.NoError(t, err)
	require.NoError(t, one.Node.Say(1, "third words"))
	got := ""
	b := make([]byte, 1000)
	for !bytes.Contains([]byte(got), []byte("third words")) {
		k, err := s.Read(b)
		require.NoError(t, err)
		got += string(b[:k])
	}
	require.NoError(t, s.Close())
}

// TestLiveScheduler changes the policy of a rack that runs.
func TestLiveScheduler(t *testing.T) {
	r := New(t, Options{Dkernels: 2})
	ctx := ctxFor(t, time.Minute)
	r.StartCkernel()
	one, two := r.StartDkernel(1), r.StartDkernel(2)
	ready(t, one)
	ready(t, two)
	_, err := one.Node.RequestCores(ctx, proto.Want{Process: 3, Machine: -1}, 2, 2)
	require.NoError(t, err)
	var set proto.SchedSetReply
	require.NoError(t, r.Call(ctx, &proto.SchedSet{Name: "ours"}, &set))
	require.Contains(t, string(set.Text), "policy ours replaces locality")
	require.ErrorContains(t, r.Call(ctx, &proto.SchedSet{Name: "x", Text: []byte("CREATE")}, &set), "x:1:")
	var show proto.SchedShowReply
	require.NoError(t, r.Call(ctx, &proto.SchedShow{}, &show))
	require.Equal(t, "ours", show.Name)
	require.Contains(t, string(show.Text), "dkernel")
	var why proto.SchedExplainReply
	require.NoError(t, r.Call(ctx, &proto.SchedExplain{Requests: []byte("request 1 process 3 cores 2 slices 1\nrequest 2 process 3 cores 99 slices 0\n")}, &why))
	require.Contains(t, string(why.Text), "refused: 99 cores")
	require.ErrorContains(t, r.Call(ctx, &proto.SchedExplain{Requests: []byte("process 4\n")}, &why), "want lines of \"request\"")
}
