// Package slices gets a dkernel's slices of shared memory from the ckernel: it is the frame.Source of a kernel in a rack.
package slices

import (
	"context"
	"fmt"
	"sync"
	"time"

	"dinos/dkernel/frame"
	"dinos/shmem/layout"
	"dinos/shmem/proto"
)

// Node is the kernel's side of the control plane; ctl.Node has it.
type Node interface {
	RequestSlices(ctx context.Context, w proto.Want, least, most int) ([]proto.Slice, error)
	ReleaseSlices(ctx context.Context, list []proto.Slice) error
}

// ahead is how many slices are asked for at a time: each request takes a message and a decision.
const ahead = 4

// patience is how long a page fault may wait for the ckernel, which may be restarting.
const patience = 30 * time.Second

// Source implements frame.Source. Its methods may be called by any goroutine.
type Source struct {
	node  Node
	self  int32
	first uint64 // number of the first slice, counted from the start of the shared memory as package frame counts
	count uint64
	fail  func(error) // told of slices that could not be given back

	taking sync.Mutex    // held while the ckernel is asked; before mu
	spare  []proto.Slice // granted and not taken; guarded by taking

	mu   sync.Mutex             // held for moments: Give must not wait for the ckernel
	held map[uint64]proto.Slice // taken, by frame's number; guarded by mu
}

var _ frame.Source = (*Source)(nil)

// New is a source of slices of the rack k for machine self. fail is told, by any goroutine, of slices that could not be given back.
func New(node Node, k *layout.Rack, self int, fail func(error)) *Source {
	return &Source{node: node, self: int32(self), first: uint64(k.Slices.Off) / frame.SliceSize, count: k.Slices.Count, fail: fail,
		held: map[uint64]proto.Slice{}}
}

// Take implements frame.Source. The errors are those of the control plane.
func (s *Source) Take() (uint64, error) {
	s.taking.Lock()
	defer s.taking.Unlock()
	if len(s.spare) == 0 {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		list, err := s.node.RequestSlices(ctx, proto.Want{Machine: s.self}, 1, ahead)
		if err != nil {
			return 0, err
		}
		for _, sl := range list {
			if sl.Slice >= s.count {
				return 0, fmt.Errorf("slices: the ckernel granted slice %d of %d", sl.Slice, s.count)
			}
		}
		s.spare = append(s.spare, list...)
	}
	if len(s.spare) == 0 {
		return 0, fmt.Errorf("slices: the ckernel granted nothing")
	}
	sl := s.spare[len(s.spare)-1]
	s.spare = s.spare[:len(s.spare)-1]
	n := s.first + sl.Slice
	s.mu.Lock()
	s.held[n] = sl
	s.mu.Unlock()
	return n, nil
}

// Give implements frame.Source. The slice goes back in the background.
func (s *Source) Give(n uint64) {
	s.mu.Lock()
	sl, ok := s.held[n]
	delete(s.held, n)
	s.mu.Unlock()
	if !ok {
		s.fail(fmt.Errorf("slices: slice %d is given back, and was not taken", n))
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.node.ReleaseSlices(ctx, []proto.Slice{sl}); err != nil {
			s.fail(fmt.Errorf("slices: giving back slice %d: %w", sl.Slice, err))
		}
	}()
}
