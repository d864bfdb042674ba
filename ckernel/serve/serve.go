// Package serve is the control kernel without its machine: membership, grants and scheduling of package cluster, served to the dkernels and
// the host tool over shared memory. It is pure; package ckernel gives it memory, doorbells and a clock.
package serve

import (
	"context"

	"dinos/shmem/peer"
)

// Config is a control kernel.
type Config struct {
	Peer   peer.Config // Self, Kind, OnPeer, OnTick are New's
	Policy string      // of the scheduler, one that ships; "" is the default
	Seed   uint64      // of the scheduler's choices
}

// Server is a life of the control kernel.
type Server struct {
	peer *peer.Peer
}

// New takes the ckernel's machine block. What a former life of it left in shared memory is recovered by Run.
func New(cfg Config) (*Server, error) {
	cfg.Peer.Self, cfg.Peer.Kind = 0, 'c'
	p, err := peer.Open(cfg.Peer)
	if err != nil {
		return nil, err
	}
	return &Server{peer: p}, nil
}

// Peer is the ckernel's end of the rack. More handlers can be registered on its Mux before Run.
func (s *Server) Peer() *peer.Peer { return s.peer }

// Doorbell is what the doorbell's interrupt calls. It does not block.
func (s *Server) Doorbell() { s.peer.Doorbell() }

// Run serves until ctx ends, the rack is shut down (nil), or another ckernel takes over (peer.ErrFenced, peer.ErrReplaced).
func (s *Server) Run(ctx context.Context) error { return s.peer.Run(ctx) }
