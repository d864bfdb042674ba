package slices

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/shmem/layout"
	"dinos/shmem/proto"
	"dinos/shmem/region"
)

// ckernel grants slices from a list.
type ckernel struct {
	mu   sync.Mutex
	free []uint64
	held map[uint64]uint64
	n    uint64
	back chan struct{}
	ask  func() // called by RequestSlices
}

var errNone = errors.New("none left")

func (c *ckernel) RequestSlices(_ context.Context, w proto.Want, least, most int) (list []proto.Slice, err error) {
	if c.ask != nil {
		c.ask()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if w.Machine != 2 || len(c.free) < least {
		return nil, errNone
	}
	for len(list) < most && len(c.free) > 0 {
		c.n++
		list = append(list, proto.Slice{Slice: c.free[0], Grant: c.n})
		c.held[c.free[0]] = c.n
		c.free = c.free[1:]
	}
	return list, nil
}

func (c *ckernel) ReleaseSlices(_ context.Context, list []proto.Slice) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer func() { c.back <- struct{}{} }()
	for _, s := range list {
		if c.held[s.Slice] != s.Grant {
			return errors.New("stale")
		}
		delete(c.held, s.Slice)
		c.free = append(c.free, s.Slice)
	}
	return nil
}

func newSource(t *testing.T, n uint64) (*Source, *ckernel, *layout.Rack, region.Region) {
	mem, err := region.New(region.Slab(64 << 20))
	require.NoError(t, err)
	k, err := layout.Format(mem, layout.Config{Machines: 4, Logs: layout.NoLogs}, 1)
	require.NoError(t, err)
	c := &ckernel{held: map[uint64]uint64{}, back: make(chan struct{}, 100)}
	for i := range n {
		c.free = append(c.free, i)
	}
	return New(c, k, 2, func(err error) { t.Error(err) }), c, k, mem
}

func TestSource(t *testing.T) {
	s, c, k, mem := newSource(t, 6)
	got := map[uint64]bool{}
	for range 6 {
		n, err := s.Take()
		require.NoError(t, err)
		require.False(t, got[n])
		got[n] = true
		require.GreaterOrEqual(t, n*(2<<20), uint64(k.Slices.Off))
		require.LessOrEqual(t, (n+1)*(2<<20), mem.Len())
	}
	_, err := s.Take()
	require.ErrorIs(t, err, errNone)
	for n := range got {
		s.Give(n)
		<-c.back
	}
	require.Empty(t, c.held)
	_, err = s.Take()
	require.NoError(t, err)

	// A ckernel that grants what does not exist is not believed; a slice given back twice is told.
	c.free = []uint64{1 << 40}
	s.spare = nil
	_, err = s.Take()
	require.ErrorContains(t, err, "granted slice")
	var told error
	s.fail = func(err error) { told = err }
	s.Give(1)
	require.ErrorContains(t, told, "was not taken")
}

// TestGiveWhileAsked: to give a slice back does not wait for the ckernel's answer to who asks for one.
func TestGiveWhileAsked(t *testing.T) {
	s, c, _, _ := newSource(t, 1)
	n, err := s.Take()
	require.NoError(t, err)
	c.ask = func() {
		s.Give(n)
		<-c.back
	}
	again, err := s.Take()
	require.NoError(t, err)
	require.Equal(t, n, again)
}
