package ctl

import (
	"maps"
	"slices"

	"dinos/shmem/layout"
	"dinos/shmem/proto"
	"dinos/shmem/rpc"
)

// Members are the ckernel and the dkernels that are members, in order.
func (n *Node) Members() []proto.Member {
	n.mu.Lock()
	defer n.mu.Unlock()
	var list []proto.Member
	for _, i := range slices.Sorted(maps.Keys(n.members)) {
		list = append(list, n.members[i])
	}
	return list
}

// Member is a member by its number.
func (n *Node) Member(peer int) (proto.Member, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	m, ok := n.members[peer]
	return m, ok
}

// takeMembers makes list the members, and tells of those that came or went meanwhile. mu is held.
func (n *Node) takeMembers(epoch uint64, list []proto.Member) {
	now := map[int]proto.Member{}
	for _, m := range list {
		now[int(m.Peer)] = m
	}
	for i, old := range n.members {
		if m, ok := now[i]; !ok || m.Generation != old.Generation {
			old.State = uint8(layout.StateDown)
			n.bury(old)
			n.owe = true
			n.push(change{old, "gone when this kernel looked again"})
		}
	}
	for i, m := range now {
		if old, ok := n.members[i]; (!ok || m.Generation != old.Generation) && i != n.Self() {
			n.push(change{m, ""})
		}
	}
	n.members, n.epoch = now, epoch
}

// bury tells the connection to a machine that its life is over. mu is held.
func (n *Node) bury(m proto.Member) {
	if c, err := n.peer.Conn(int(m.Peer)); err == nil && m.Peer != layout.Ckernel {
		c.PeerDied(uint32(m.Generation))
	}
}

func (n *Node) push(c change) {
	select {
	case n.news <- c:
	default:
	}
}

// tell calls OnMember.
func (n *Node) tell() {
	for {
		select {
		case c := <-n.news:
			if n.cfg.OnMember != nil {
				n.cfg.OnMember(c.member, c.reason)
			}
		case <-n.ctx.Done():
			return
		}
	}
}

// membership serves Membership, which only the ckernel sends.
func (n *Node) membership(r *rpc.Request, q *proto.Membership, _ *proto.Done) error {
	if n.peer.PeerOf(r.Conn) != layout.Ckernel {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if q.Epoch <= n.epoch {
		return nil // known already
	}
	if q.Epoch == n.epoch+1 {
		n.epoch = q.Epoch // else some were lost; the next heartbeat sees that
	}
	i := int(q.Member.Peer)
	old, ok := n.members[i]
	switch {
	case layout.State(q.Member.State) == layout.StateUp:
		if ok && old.Generation > q.Member.Generation {
			return nil
		}
		n.members[i] = q.Member
	case ok && old.Generation <= q.Member.Generation:
		delete(n.members, i)
		n.bury(old)
		n.owe = true // slices of processes there have come to other machines, and got new names
	}
	n.push(change{q.Member, q.Reason})
	return nil
}

// refresh asks who is a member: changes were missed.
func (n *Node) refresh() {
	var a proto.TopologyReply
	if err := n.call(n.ctx, &proto.Topology{}, &a, callTimeout); err != nil {
		return // the next heartbeat sees the same
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if a.Epoch >= n.epoch {
		n.takeMembers(a.Epoch, a.Members)
	}
}
