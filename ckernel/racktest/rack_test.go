package racktest

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/ckernel/cluster"
	"dinos/dkernel/ctl"
	"dinos/shmem/grant"
	"dinos/shmem/layout"
	"dinos/shmem/peer"
	"dinos/shmem/proto"
)

// long says that the long forms of the tests run, which DINOS_LONG=1 asks for.
func long() bool { return os.Getenv("DINOS_LONG") != "" }

func ctxFor(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func ready(t *testing.T, m *Machine) {
	t.Helper()
	select {
	case <-m.Node.Ready():
	case <-m.Done:
		t.Fatalf("machine %d ended: %v", m.Peer, m.Err)
	case <-time.After(30 * time.Second):
		t.Fatalf("machine %d did not get ready", m.Peer)
	}
}

// until waits for a condition that must come true.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func status(t *testing.T, r *Rack) map[int]proto.Member {
	t.Helper()
	var a proto.StatusReply
	require.NoError(t, r.Call(ctxFor(t, 20*time.Second), &proto.Status{Check: true}, &a))
	require.Empty(t, a.Problems)
	list := map[int]proto.Member{}
	for _, m := range a.Members {
		list[int(m.Peer)] = m
	}
	return list
}

func is(m proto.Member, s layout.State) bool { return layout.State(m.State) == s }

// TestLife is the life of a rack: dkernels that wait for the ckernel, join, hold something, leave, and come again.
func TestLife(t *testing.T) {
	r := New(t, Options{Dkernels: 3, Verbose: true})
	ctx := ctxFor(t, time.Minute)
	one := r.StartDkernel(1) // before there is a ckernel
	time.Sleep(50 * time.Millisecond)
	r.StartCkernel()
	two := r.StartDkernel(2)
	ready(t, one)
	ready(t, two)
	until(t, "1 hears of 2", func() bool { _, ok := one.Node.Member(2); return ok })
	require.Len(t, one.Node.Members(), 3)

	cores, err := one.Node.RequestCores(ctx, proto.Want{Process: 7, Machine: -1}, 5, 5)
	require.NoError(t, err)
	require.Len(t, cores, 5)
	slices, err := one.Node.RequestSlices(ctx, proto.Want{Machine: -1}, 3, 3)
	require.NoError(t, err)
	c, s := one.Node.Holds()
	require.Equal(t, []int{5, 3}, []int{c, s})
	_, err = one.Node.RequestCores(ctx, proto.Want{Process: 7, Machine: -1}, 9, 9)
	require.ErrorContains(t, err, "exhausted")
	_, err = one.Node.RequestCores(ctx, proto.Want{Process: 7, Machine: 3}, 1, 1)
	require.ErrorContains(t, err, "machine 3 is no dkernel of the rack now")
	_, err = one.Node.RequestCores(ctx, proto.Want{}, -1, 1)
	require.ErrorContains(t, err, "want 0 to")
	_, err = one.Node.RequestCores(ctx, proto.Want{Machine: -1}, 3, 2)
	require.ErrorContains(t, err, "malformed")
	require.NoError(t, one.Node.ReleaseSlices(ctx, slices[:1]))
	require.ErrorContains(t, one.Node.ReleaseSlices(ctx, slices[:1]), "is not held by dkernel1")
	require.ErrorContains(t, two.Node.ReleaseSlices(ctx, slices[1:2]), "is not held by dkernel2")
	st := status(t, r)
	require.True(t, is(st[1], layout.StateUp) && is(st[2], layout.StateUp) && is(st[r.K.Host()], layout.StateUp))
	require.EqualValues(t, 2, st[1].Slices)

	// The clock of the rack is known, and the same everywhere.
	until(t, "clock", func() bool { _, ok1 := one.Node.RackTime(); _, ok2 := two.Node.RackTime(); return ok1 && ok2 })
	_, uncertain, ok := two.Node.RackTSC()
	require.True(t, ok)
	a, _ := one.Node.RackTime()
	b, _ := two.Node.RackTime()
	t.Logf("clock uncertain by %d cycles, two machines read %v apart", uncertain, time.Duration(b-a))

	// 1 leaves: all it had comes back.
	require.NoError(t, one.Stop())
	until(t, "2 hears that 1 has left", func() bool { _, ok := two.Node.Member(1); return !ok })
	st = status(t, r)
	require.True(t, is(st[1], layout.StateDown))
	require.Equal(t, layout.StateDown, layout.State(r.Host.Block(1).State.Load()))
	again := r.StartDkernel(1)
	ready(t, again)
	require.Greater(t, again.Node.Generation(), one.Node.Generation())
	all, err := again.Node.RequestSlices(ctx, proto.Want{Machine: -1}, r.O.Slices, r.O.Slices)
	require.NoError(t, err, "what 1 had is zeroed and free")
	require.Len(t, all, r.O.Slices)
	require.Empty(t, r.Audit(ctx))
}

// TestDeath: a machine that dies, and one that hangs, is declared dead and fenced; the others go on.
func TestDeath(t *testing.T) {
	for _, how := range []string{"reported", "silent", "hung", "hung and resumed"} {
		t.Run(how, func(t *testing.T) {
			r := New(t, Options{Dkernels: 2, Verbose: true})
			ctx := ctxFor(t, time.Minute)
			r.StartCkernel()
			one, two := r.StartDkernel(1), r.StartDkernel(2)
			ready(t, one)
			ready(t, two)
			_, err := one.Node.RequestSlices(ctx, proto.Want{Machine: -1}, 4, 4)
			require.NoError(t, err)
			_, err = two.Node.RequestCores(ctx, proto.Want{Process: 5, Machine: 1}, 2, 2)
			require.NoError(t, err)
			start := time.Now()
			switch how {
			case "reported":
				one.Kill()
				require.NoError(t, r.Report(ctx, one))
			case "silent":
				one.Kill()
			default:
				one.Hang()
			}
			until(t, "2 hears of the death", func() bool { _, ok := two.Node.Member(1); return !ok })
			t.Logf("%s: 2 knew after %v", how, time.Since(start))
			if how == "hung and resumed" {
				one.Resume()
			}
			until(t, "it is fenced", func() bool { return !one.Alive() })
			if how == "hung and resumed" && !errors.Is(one.Err, ctl.ErrHalted) {
				require.ErrorIs(t, one.Err, peer.ErrFenced)
			}
			until(t, "all is taken back", func() bool { return is(status(t, r)[1], layout.StateDown) })
			require.Empty(t, r.Audit(ctx))
			next := r.StartDkernel(1)
			ready(t, next)
			_, err = next.Node.RequestSlices(ctx, proto.Want{Machine: -1}, r.O.Slices, r.O.Slices)
			require.NoError(t, err)
			require.Empty(t, r.Audit(ctx))
		})
	}
}

// TestRackShutdown ends a rack in order.
func TestRackShutdown(t *testing.T) {
	r := New(t, Options{Dkernels: 2, Verbose: true})
	ctx := ctxFor(t, time.Minute)
	c := r.StartCkernel()
	asked := make(chan string, 1)
	one := r.StartDkernel(1, func(c *ctl.Config) { c.Shutdown = func(reason string, _ bool) { asked <- reason } })
	two := r.StartDkernel(2)
	ready(t, one)
	ready(t, two)
	_, err := two.Node.RequestSlices(ctx, proto.Want{Process: 9, Machine: 1}, 2, 2)
	require.NoError(t, err)
	require.NoError(t, r.Call(ctx, &proto.Shutdown{Reason: "enough"}, &proto.Done{}))
	for _, m := range []*Machine{one, two, c} {
		select {
		case <-m.Done:
			require.NoError(t, m.Err)
		case <-ctx.Done():
			t.Fatal("machine", m.Peer, "did not end")
		}
	}
	require.Equal(t, "enough", <-asked)
	for i := range 3 {
		require.Equal(t, layout.StateDown, layout.State(r.Host.Block(i).State.Load()), i)
	}
}

// TestCkernelRestarts kills the ckernel again and again under load: dkernels and what they hold outlive it.
func TestCkernelRestarts(t *testing.T) {
	const seed = 3
	kills := 4
	if long() {
		kills = 50
	}
	r := New(t, Options{Dkernels: 3, Seed: seed})
	ctx, cancel := context.WithCancel(ctxFor(t, 10*time.Minute))
	c := r.StartCkernel()
	var wg sync.WaitGroup
	var nodes []*Machine
	for i := 1; i <= 3; i++ {
		m := r.StartDkernel(i)
		ready(t, m)
		nodes = append(nodes, m)
		for g := range uint64(2) {
			wg.Go(func() {
				if err := r.Load(ctx, m, seed+g); err != nil {
					t.Error(err)
				}
			})
		}
	}
	rnd := rand.New(rand.NewPCG(seed, 1))
	for i := range kills {
		time.Sleep(time.Duration(20+rnd.IntN(150)) * time.Millisecond)
		c.Kill()
		time.Sleep(time.Duration(rnd.IntN(60)) * time.Millisecond)
		c = r.StartCkernel()
		require.Empty(t, r.Audit(ctx), "after kill %d", i)
	}
	until(t, "all are members", func() bool {
		st := status(t, r)
		return is(st[1], layout.StateUp) && is(st[2], layout.StateUp) && is(st[3], layout.StateUp)
	})
	cancel()
	wg.Wait()
	for _, m := range nodes {
		require.True(t, m.Alive(), "machine %d ended: %v", m.Peer, m.Err)
		require.NoError(t, m.Stop())
	}
	require.Empty(t, r.Audit(ctxFor(t, time.Minute)))
	until(t, "all is free", func() bool {
		var a proto.StatusReply
		require.NoError(t, r.Call(ctxFor(t, time.Minute), &proto.Status{}, &a))
		return int(a.FreeSlices) == r.O.Slices
	})
	if t.Failed() {
		t.Log(strings.Join(r.Lines(), "\n"))
	}
}

// TestStalledCkernel: a ckernel that stood still for much longer than the dead time does not take the others for dead.
func TestStalledCkernel(t *testing.T) {
	r := New(t, Options{Dkernels: 2, Timing: cluster.Timing{Beat: 20 * time.Millisecond, Dead: 300 * time.Millisecond, Rings: 600 * time.Millisecond}})
	ctx := ctxFor(t, time.Minute)
	c := r.StartCkernel()
	one, two := r.StartDkernel(1), r.StartDkernel(2)
	ready(t, one)
	ready(t, two)
	list, err := one.Node.RequestSlices(ctx, proto.Want{Machine: -1}, 2, 2)
	require.NoError(t, err)
	for range 2 {
		c.Hang()
		time.Sleep(time.Second)
		c.Resume()
		st := status(t, r)
		require.True(t, is(st[1], layout.StateUp) && is(st[2], layout.StateUp), "%v", st)
	}
	require.NoError(t, one.Node.ReleaseSlices(ctx, list))
	require.True(t, one.Alive() && two.Alive())
}

// TestTwoCkernels: the older of two lives of the ckernel gives up, whatever it had in mind.
func TestTwoCkernels(t *testing.T) {
	r := New(t, Options{Dkernels: 1})
	ctx := ctxFor(t, time.Minute)
	old := r.StartCkernel()
	one := r.StartDkernel(1)
	ready(t, one)
	old.Hang()
	r.StartCkernel()
	_, err := one.Node.RequestSlices(ctx, proto.Want{Machine: -1}, 1, 1)
	require.NoError(t, err)
	old.Resume()
	<-old.Done
	require.True(t, errors.Is(old.Err, peer.ErrReplaced) || errors.Is(old.Err, grant.ErrFenced), "%v", old.Err)
	_, err = one.Node.RequestSlices(ctx, proto.Want{Machine: -1}, 1, 1)
	require.NoError(t, err)
	until(t, "the audit is clean", func() bool { return len(r.Audit(ctx)) == 0 })
}
