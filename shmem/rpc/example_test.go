package rpc_test

import (
	"context"
	"fmt"
	"time"

	"dinos/shmem/layout"
	"dinos/shmem/proto"
	"dinos/shmem/region"
	"dinos/shmem/rpc"
)

// Two kernels of a rack, here two loops over memory of the heap: the ckernel serves heartbeats, a dkernel sends one.
func Example() {
	mem, err := region.New(region.Slab(8 << 20))
	if err != nil {
		panic(err)
	}
	rack, err := layout.Format(mem, layout.Config{Machines: 2, Logs: layout.NoLogs}, 1)
	if err != nil {
		panic(err)
	}
	clock := rpc.NewSystemClock()
	var loops [2]*rpc.Loop
	for i := range loops {
		loops[i] = rpc.NewLoop(clock, rpc.NewChanSleeper(clock), rpc.DefaultSpin)
		defer loops[i].Stop()
	}
	connect := func(self, peer int, m *rpc.Mux) *rpc.Conn {
		cfg, err := rpc.PeerConfig(rack, self, peer)
		if err != nil {
			panic(err)
		}
		cfg.Generation, cfg.Handlers = 1, m
		cfg.Notify = loops[peer].Wake // on real machines: a store to the doorbell register
		c, err := loops[self].Connect(cfg)
		if err != nil {
			panic(err)
		}
		return c
	}

	var mux rpc.Mux
	rpc.Handle(&mux, rpc.Inline, func(_ *rpc.Request, q *proto.Heartbeat, a *proto.HeartbeatReply) error {
		if q.Epoch != 1 {
			return rpc.Errorf(proto.CodeConflict, "this is epoch 1, not %d", q.Epoch)
		}
		a.Sequence = q.Sequence
		return nil
	})
	connect(layout.Ckernel, 1, &mux)
	ckernel := connect(1, layout.Ckernel, nil)
	for _, l := range loops {
		go l.Run()
	}

	var reply proto.HeartbeatReply
	err = ckernel.Call(context.Background(), &proto.Heartbeat{Sequence: 7, Epoch: 1}, &reply, time.Second)
	fmt.Println(reply.Sequence, err)
	err = ckernel.Call(context.Background(), &proto.Heartbeat{Epoch: 2}, &reply, time.Second)
	fmt.Println(err)
	// Output:
	// 7 <nil>
	// peer: conflict: this is epoch 1, not 2
}
