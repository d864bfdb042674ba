package ctl

import (
	"context"
	"errors"
	"fmt"
	"time"

	"dinos/shmem/grant"
	"dinos/shmem/proto"
	"dinos/shmem/rpc"
)

// settle claims until an answer comes, if an answer was lost: afterwards the ckernel and this node agree on what the node has.
func (n *Node) settle(ctx context.Context) error {
	return n.retry(ctx, func() error { return n.claim(ctx) })
}

// owes notes that an answer may have been lost.
func (n *Node) owes() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.owe = true
}

// claimOwed claims if that is owed, once: the caller comes again.
func (n *Node) claimOwed() {
	n.mu.Lock()
	owe := n.owe
	n.mu.Unlock()
	if owe {
		_ = n.claim(n.ctx)
	}
}

// claim names all that is held, in messages of what one may hold, and takes over the answer.
func (n *Node) claim(ctx context.Context) error {
	n.op.Lock() // no request is under way now, and none begins
	defer n.op.Unlock()
	n.mu.Lock()
	if !n.owe {
		n.mu.Unlock()
		return nil // somebody else has
	}
	var cores []proto.Core
	var list []proto.Slice
	for u, g := range n.held {
		if u.Core {
			cores = append(cores, proto.Core{Machine: uint16(u.Machine), Core: uint16(u.Index), Grant: g})
		} else {
			list = append(list, proto.Slice{Slice: u.Index, Grant: g})
		}
	}
	n.mu.Unlock()
	held := map[grant.Unit]uint64{}
	for first := true; ; first = false {
		a, b := min(len(cores), proto.MaxList), min(len(list), proto.MaxList)
		q := &proto.Claim{Cores: cores[:a], Slices: list[:b], First: first, Last: a == len(cores) && b == len(list)}
		var r proto.ClaimReply
		if err := n.call(ctx, q, &r, callTimeout); err != nil {
			return err
		}
		for _, k := range append(coreNames(r.Cores), sliceNames(r.Slices)...) {
			if k.Grant != 0 {
				held[k.Unit] = k.Grant
			}
		}
		if q.Last {
			break
		}
		cores, list = cores[a:], list[b:]
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.held, n.owe = held, false
	return nil
}

// leave gives back all that this machine has and leaves the rack. Without a ckernel to tell, or with one that does not answer in time, it just
// ends: then the ckernel finds out by itself.
func (n *Node) leave(reason string) error {
	ctx, cancel := context.WithTimeout(n.ctx, leaveWithin)
	defer cancel()
	n.op.Lock()
	n.leaving = true // nothing is asked for from now on
	n.op.Unlock()
	n.mu.Lock()
	member := n.member
	clear(n.held)
	n.owe = true
	n.mu.Unlock()
	if !member {
		return nil
	}
	for {
		err := n.settle(ctx) // nothing is claimed, so all is released that was asked for by this node
		if err == nil {
			n.gone.Store(true)
			err = n.call(ctx, &proto.Leave{Reason: proto.CutText(reason)}, &proto.Done{}, callTimeout)
		}
		var remote *rpc.RemoteError
		switch {
		case err == nil, n.gone.Load() && errors.As(err, &remote) && remote.Code == proto.CodeNotMember: // the answer was lost
			return nil
		case ctx.Err() != nil:
			return nil // the ckernel is not there
		case !errors.Is(err, errUnknownFate):
			return fmt.Errorf("ctl: leaving the rack: %w", err)
		}
		if n.rest(ctx, 5*time.Millisecond, err) != nil {
			return nil
		}
		n.owes()
	}
}
