// Package ctl is a data kernel's side of the control plane: it registers with the control kernel, beats, asks for cores and slices and gives
// them back, hears of members that come and go, and notices that this life was fenced.
package ctl

import (
	"context"
	"time"

	"dinos/shmem/peer"
	"dinos/shmem/proto"
	"dinos/shmem/rpc"
)

// Config is a data kernel.
type Config struct {
	Peer peer.Config // Self is the dkernel's number; Kind, OnPeer and OnTick are New's
	// Shutdown is called once when the ckernel or the host tool asks this kernel to end. It gives back what the kernel can give back; then
	// Run leaves the rack and returns nil. nil does nothing.
	Shutdown func(reason string, reboot bool)
	// Reclaim is called when the ckernel wants something back soon. nil answers that nothing can be given.
	Reclaim func(cores []proto.Core, slices []proto.Slice, within time.Duration)
}

// Node is a life of a data kernel.
type Node struct {
	peer *peer.Peer
	cfg  Config
}

// New takes the machine block.
func New(cfg Config) (*Node, error) {
	cfg.Peer.Kind = 'd'
	p, err := peer.Open(cfg.Peer)
	if err != nil {
		return nil, err
	}
	return &Node{peer: p, cfg: cfg}, nil
}

// Peer is this kernel's end of the rack, Mux where other packages register their handlers before Run.
func (n *Node) Peer() *peer.Peer { return n.peer }
func (n *Node) Mux() *rpc.Mux    { return n.peer.Mux() }

// Doorbell is what the doorbell's interrupt calls. It does not block.
func (n *Node) Doorbell() { n.peer.Doorbell() }

// Conn is the connection to a peer; see peer.Peer.Conn.
func (n *Node) Conn(peer int) (*rpc.Conn, error) { return n.peer.Conn(peer) }

// Run registers, retrying until the ckernel is up, and serves until ctx ends or a shutdown was asked for (nil; it has left the rack in
// order), or this life was fenced (peer.ErrFenced, peer.ErrReplaced): then the kernel must stop at once.
func (n *Node) Run(ctx context.Context) error { return n.peer.Run(ctx) }
