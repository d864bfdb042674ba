package rack

import (
	"context"
	"fmt"
	"time"

	"dinos/shmem/layout"
	"dinos/shmem/proto"
	"dinos/shmem/rpc"
)

// handle serves what kernels ask of the host.
func (r *Rack) handle(m *rpc.Mux) {
	rpc.Handle(m, rpc.Worker, func(_ *rpc.Request, q *proto.Fence, _ *proto.Done) error { return r.fence(q) })
	rpc.Handle(m, rpc.Worker, func(q *rpc.Request, e *proto.Membership, _ *proto.Done) error {
		if r.peer.PeerOf(q.Conn) != layout.Ckernel {
			return nil // not its business
		}
		text := fmt.Sprintf("member, generation %d, epoch %d", e.Member.Generation, e.Epoch)
		if s := layout.State(e.Member.State); s != layout.StateUp {
			text = fmt.Sprintf("no member any more (%v), generation %d, epoch %d", s, e.Member.Generation, e.Epoch)
		}
		if e.Reason != "" {
			text += ": " + e.Reason
		}
		r.events.add(r.shared.PeerName(int(e.Member.Peer)), "%s", text)
		return nil
	})
	rpc.Handle(m, rpc.Worker, func(q *rpc.Request, e *proto.LogLine, _ *proto.Done) error {
		if k := r.byPeer(r.peer.PeerOf(q.Conn)); k != nil {
			fmt.Fprintf(k.log, "[%d.%06d cpu %d] %s\n", e.TimeNs/1e9, e.TimeNs/1e3%1e6, e.CPU, e.Text)
		}
		return nil
	})
}

func (r *Rack) byPeer(p int) *kernel {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p < 0 || p >= len(r.kernels) {
		return nil
	}
	return r.kernels[p]
}

// fence makes sure that a life of a kernel is over, as the ckernel asks. When it returns nil, it is: that life's machine is gone, or there was
// none any more.
func (r *Rack) fence(q *proto.Fence) error {
	k := r.byPeer(int(q.Peer))
	if k == nil || k.peer == layout.Ckernel {
		return rpc.Errorf(proto.CodeNotFound, "peer %d is no dkernel of this rack", q.Peer)
	}
	r.mu.Lock()
	m := k.m
	life := k.block.Generation.Load()
	// A later life is not meant. A machine whose kernel has not begun its life yet will get a later one: generations pass over what was fenced.
	spare := m == nil || life > q.Generation || life == k.before && life >= q.Generation
	if !spare && k.why == "" {
		k.why = fmt.Sprintf("killed for the ckernel, which declared generation %d dead", q.Generation)
		if q.Reason != "" {
			k.why += ": " + q.Reason
		}
	}
	r.mu.Unlock()
	if !spare {
		m.Close()
	}
	return nil
}

// lifeOver tells the ckernel that a life of a kernel has ended, and fails what this host has under way with it.
func (r *Rack) lifeOver(k *kernel, life uint64, reason string) {
	if c, err := r.conn(k.peer); err == nil {
		c.PeerDied(uint32(life))
		if r.files != nil {
			r.files.Drop(c, 0) // all that it had open
		}
	}
	if k.peer == layout.Ckernel {
		return
	}
	r.mu.Lock()
	ck := r.kernels[layout.Ckernel]
	listens := ck != nil && ck.m != nil && !ck.paused && !r.ending
	r.mu.Unlock()
	if !listens || layout.State(ck.block.State.Load()) != layout.StateUp {
		return // one that starts later finds the heartbeat missing
	}
	if err := r.tellOver(k, life, reason); err != nil {
		r.events.add(k.name, "the ckernel could not be told: %v", err)
	}
}

// tellOver tells the ckernel that a life of a kernel is over.
func (r *Rack) tellOver(k *kernel, life uint64, reason string) error {
	q := &proto.Fence{Peer: uint16(k.peer), Generation: life, Reason: proto.CutText(reason)}
	return r.ask(r.ctx, layout.Ckernel, q, &proto.Done{}, fenceTimeout)
}

// tellAll tells the ckernel which kernels have no machine.
func (r *Rack) tellAll() {
	for _, k := range r.all() {
		r.mu.Lock()
		gone, life, why := k.m == nil && !k.endedAt.IsZero(), k.block.Generation.Load(), k.ended
		r.mu.Unlock()
		if k.peer == layout.Ckernel || !gone || life == 0 {
			continue
		}
		// If it does not get through, the ckernel finds the heartbeat missing.
		_ = r.tellOver(k, life, why)
	}
}

// ask calls a kernel.
func (r *Rack) ask(ctx context.Context, p int, q proto.Request, reply proto.Message, timeout time.Duration) error {
	c, err := r.conn(p)
	if err != nil {
		return err
	}
	return c.Call(ctx, q, reply, timeout)
}

// askToEnd asks a kernel to end in order.
func (r *Rack) askToEnd(ctx context.Context, k *kernel, reason string) error {
	if layout.State(k.block.State.Load()) != layout.StateUp {
		return fmt.Errorf("it is no member")
	}
	return r.ask(ctx, k.peer, &proto.Shutdown{Reason: proto.CutText(reason)}, &proto.Done{}, callTimeout)
}

// shutdownKernels has the ckernel end the rack in order, and waits until all machines are gone or time is over.
func (r *Rack) shutdownKernels(reason string) {
	ctx, cancel := context.WithTimeout(r.ctx, endTimeout)
	defer cancel()
	list := r.all()
	if len(list) == 0 {
		return
	}
	asked := map[*kernel]bool{}
	r.mu.Lock()
	for _, k := range list {
		if asked[k] = k.m != nil && !k.paused; asked[k] {
			k.why = "ended with the rack"
		}
	}
	r.mu.Unlock()
	whole := false // the ckernel, which comes first, asks the others; without it, they are asked one by one
	for _, k := range list {
		if !asked[k] || whole {
			continue
		}
		if err := r.askToEnd(ctx, k, reason); err != nil {
			r.events.add(k.name, "could not be asked to end: %v", err)
			asked[k] = false
			continue
		}
		whole = k.peer == layout.Ckernel
	}
	for _, k := range list {
		r.mu.Lock()
		gone := k.gone
		r.mu.Unlock()
		if !asked[k] {
			continue
		}
		select {
		case <-gone:
		case <-ctx.Done():
			r.events.add(k.name, "did not end in order within %v", endTimeout)
		}
	}
}

// beat is when a kernel's heartbeat was seen to change. Only watchBeats writes it, under Rack.mu.
type beat struct {
	value uint64
	at    time.Time
}

// watchBeats looks at all heartbeats, ten times a second.
func (r *Rack) watchBeats() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p, k := range r.kernels {
		if k == nil {
			continue
		}
		if v := k.block.Heartbeat.Load(); v != r.beats[p].value {
			r.beats[p] = beat{v, time.Now()}
		}
	}
	return nil
}
