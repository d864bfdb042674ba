package racktest

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/ckernel/cluster"
	"dinos/dkernel/ctl"
	"dinos/shmem/layout"
	"dinos/shmem/proto"
	"dinos/shmem/region"
	"dinos/shmem/ring"
	"dinos/shmem/rpc"
)

// target is a part of the shared memory that the test damages.
type target struct {
	name  string
	off   region.Off
	bytes uint64
}

// targets is every structure of a rack but what users keep in slices and logs.
func targets(t *testing.T, k *layout.Rack) []target {
	list := []target{
		{"superblock", 0, layout.OffRackTSC + 8},
		{"grants", k.Grants.Off, layout.GrantHeaderBytes + (k.Slices.Count+5*4)*layout.GrantEntryBytes},
	}
	for i := range k.Peers() {
		list = append(list, target{"machine " + k.PeerName(i), k.Machines.At(uint64(i)), layout.OffStats + 8*uint64(layout.Stats)})
		list = append(list, target{"inbox " + k.PeerName(i), k.Inboxes.At(uint64(i)), 512})
		for j := range k.Peers() {
			if i == j {
				continue
			}
			off, _, err := k.Ring(i, j)
			require.NoError(t, err)
			list = append(list, target{"ring " + k.PeerName(i) + " to " + k.PeerName(j), off, ring.ControlBytes + 512})
		}
	}
	for i := range k.Logs.Count {
		list = append(list, target{"log label", k.Logs.At(i), 0x300})
	}
	return list
}

// typed reports whether an error is one of those that callers are told of.
func typed(err error) bool {
	var remote *rpc.RemoteError
	for _, e := range []error{ctl.ErrEnded, ctl.ErrNotGranted, context.DeadlineExceeded, context.Canceled} {
		if errors.Is(err, e) {
			return true
		}
	}
	return err == nil || errors.As(err, &remote)
}

// TestBitFlips flips bits of every structure under live peers that use them. Calls fail with typed errors or go through; nobody crashes or
// hangs; when it stops the rack puts itself right: everybody who is alive is served, who is not can be started again, the audit is clean.
func TestBitFlips(t *testing.T) {
	seeds := []uint64{1, 2}
	flips := 60
	if long() {
		seeds, flips = []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, 400
	}
	for _, seed := range seeds {
		r := New(t, Options{Dkernels: 3, Seed: seed, Timing: cluster.Timing{Beat: 25 * time.Millisecond, Dead: 500 * time.Millisecond, Rings: 2 * time.Second}})
		ctx, cancel := context.WithCancel(ctxFor(t, 10*time.Minute))
		r.StartCkernel()
		var wg sync.WaitGroup
		for i := 1; i <= 3; i++ {
			m := r.StartDkernel(i)
			ready(t, m)
			wg.Go(func() { r.fuzzLoad(ctx, t, m, seed) })
		}
		rnd := rand.New(rand.NewPCG(seed, 9))
		list := targets(t, r.K)
		for range flips {
			g := list[rnd.IntN(len(list))]
			off := g.off + region.Off(rnd.Uint64N(g.bytes/8)*8)
			w, err := r.Mem.LoadU64(off)
			require.NoError(t, err)
			switch rnd.IntN(4) {
			case 0:
				w = rnd.Uint64()
			case 1:
				w = 0
			default:
				w ^= 1 << rnd.IntN(64)
			}
			require.NoError(t, r.Mem.StoreU64(off, w))
			if rnd.IntN(3) == 0 {
				time.Sleep(time.Duration(rnd.IntN(20)) * time.Millisecond)
			}
		}
		cancel()
		wg.Wait()
		r.heals(t, seed)
		r.Close()
	}
}

// fuzzLoad asks for things and gives them back; memory that was granted is not looked at, since what the table said may have been damaged.
func (r *Rack) fuzzLoad(ctx context.Context, t *testing.T, m *Machine, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, uint64(m.Peer)))
	n := m.Node
	for ctx.Err() == nil && m.Alive() {
		short, cancel := context.WithTimeout(ctx, 2*time.Second)
		w := proto.Want{Process: rnd.Uint64N(3), Machine: -1}
		cores, err := n.RequestCores(short, w, 1, 2)
		if !typed(err) {
			t.Errorf("seed %d: %v", seed, err)
		}
		list, err := n.RequestSlices(short, w, 1, 2)
		if !typed(err) {
			t.Errorf("seed %d: %v", seed, err)
		}
		if err := n.ReleaseCores(short, cores); !typed(err) {
			t.Errorf("seed %d: %v", seed, err)
		}
		if err := n.ReleaseSlices(short, list); !typed(err) {
			t.Errorf("seed %d: %v", seed, err)
		}
		if peer, err := n.Conn(1 + rnd.IntN(3)); err == nil {
			_ = peer.Call(short, &proto.Null{Payload: []byte("hello")}, &proto.NullReply{}, 50*time.Millisecond)
		}
		cancel()
	}
}

// heals waits until the rack works again, starting anew what has ended.
func (r *Rack) heals(t *testing.T, seed uint64) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Log(seed, strings.Join(r.Lines(), "\n"))
		}
	}()
	ctx := ctxFor(t, 60*time.Second)
	ended := 0
	for i := 0; i <= 3; i++ {
		m := r.Machine(i)
		if m.Alive() {
			continue
		}
		ended++
		t.Logf("seed %d: %s has ended: %v", seed, r.K.PeerName(i), m.Err)
		if i == layout.Ckernel {
			r.StartCkernel()
			continue
		}
		require.NoError(t, r.Report(ctx, m))
		ready(t, r.StartDkernel(i))
	}
	var problems []string
	until(t, "the audit is clean", func() bool { problems = r.Audit(ctx); return len(problems) == 0 })
	for i := 1; i <= 3; i++ {
		m := r.Machine(i)
		require.True(t, m.Alive(), "%v", m.Err)
		list, err := m.Node.RequestSlices(ctx, proto.Want{Machine: -1}, 1, 1)
		require.NoError(t, err)
		require.NoError(t, m.Node.ReleaseSlices(ctx, list))
		for j := range r.K.Peers() {
			if i == j {
				continue
			}
			until(t, "peers can talk", func() bool {
				c, err := m.Node.Conn(j)
				return err == nil && c.Call(ctx, &proto.Heartbeat{}, &proto.HeartbeatReply{}, time.Second) == nil || j == r.K.Host()
			})
		}
	}
	t.Logf("seed %d: %d machines ended", seed, ended)
}
