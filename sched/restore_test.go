package sched

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func kind(t *testing.T, err error) Kind {
	t.Helper()
	var r *Refusal
	require.True(t, errors.As(err, &r), "%v", err)
	return r.Kind
}

// TestRestore: a scheduler that was told what is held decides as the one that granted it.
func TestRestore(t *testing.T) {
	const seed = 5
	rnd := rand.New(rand.NewPCG(seed, seed))
	a, err := New(Options{Seed: 1})
	require.NoError(t, err)
	for d := uint32(1); d <= 4; d++ {
		require.NoError(t, a.Join(Dkernel{ID: d, Cores: 16, Slices: 64, Generation: uint64(d) + 10, Alive: true}))
	}
	for p := uint64(1); p <= 12; p++ {
		require.NoError(t, a.Start(p))
		a.Request([]Request{{Process: p, Cores: rnd.Int64N(5) + 1, Slices: rnd.Int64N(10), Shape: Shape(rnd.IntN(2))}})
	}
	b, err := New(Options{Seed: 1})
	require.NoError(t, err)
	for _, n := range a.Dkernels() {
		require.NoError(t, b.Join(Dkernel{ID: uint32(n.ID), Cores: n.Cores, Slices: n.Slices, Generation: uint64(n.Generation), Alive: true}))
	}
	for _, p := range a.Processes() {
		require.NoError(t, b.Restore(p, a.Holds(p)))
		require.Equal(t, a.Holds(p), b.Holds(p))
	}
	require.Equal(t, a.Dkernels(), b.Dkernels())
	b.round, b.at, a.at = a.round, -1, -1
	for range 20 {
		r := []Request{{Process: rnd.Uint64N(12) + 1, Cores: rnd.Int64N(3) + 1, Slices: rnd.Int64N(3)}}
		da := a.Request(r)[0]
		db := b.Request(r)[0]
		require.Equal(t, da.Err == nil, db.Err == nil)
		require.Equal(t, da.Grants, db.Grants)
	}
	for _, p := range a.Processes() {
		require.NoError(t, b.Release(p, b.Holds(p)))
	}
}

func TestRestoreRefuses(t *testing.T) {
	s, err := New(Options{})
	require.NoError(t, err)
	require.NoError(t, s.Join(Dkernel{ID: 1, Cores: 4, Slices: 8, Generation: 7, Alive: true}))
	require.NoError(t, s.Restore(3, []Grant{{1, 7, 2, 2}}))
	require.NoError(t, s.Start(9))
	_, err = s.Exit(9)
	require.NoError(t, err)
	before := s.Dump()
	for _, c := range []struct {
		process uint64
		grants  []Grant
		want    Kind
	}{
		{3, []Grant{{2, 7, 1, 0}}, UnknownDkernel},
		{3, []Grant{{1, 6, 1, 0}}, Stale},
		{3, []Grant{{1, 7, 3, 0}}, Invalid},
		{3, []Grant{{1, 7, 0, 7}}, Invalid},
		{3, []Grant{{1, 7, 0, 0}}, Invalid},
		{3, []Grant{{1, 7, -1, 3}}, Invalid},
		{3, []Grant{{1, 7, 1, 0}, {1, 7, 1, 0}}, Invalid},
		{4, []Grant{{1, 7, 1, 0}, {2, 7, 1, 0}}, UnknownDkernel},
		{9, []Grant{{1, 7, 1, 0}}, DeadProcess},
		{MaxProcess, []Grant{{1, 7, 1, 0}}, Invalid},
	} {
		require.Equal(t, c.want, kind(t, s.Restore(c.process, c.grants)), "%+v", c)
		require.Equal(t, before, s.Dump(), "%+v", c)
	}
}

func TestResize(t *testing.T) {
	s, err := New(Options{})
	require.NoError(t, err)
	require.NoError(t, s.Join(Dkernel{ID: 1, Cores: 4, Slices: 8, Generation: 7, Alive: true}))
	require.NoError(t, s.Restore(3, []Grant{{1, 7, 2, 2}}))
	before := s.Dump()
	require.Equal(t, UnknownDkernel, kind(t, s.Resize(2, 7, 4, 8)))
	require.Equal(t, Stale, kind(t, s.Resize(1, 8, 4, 8)))
	require.Equal(t, Invalid, kind(t, s.Resize(1, 7, 1, 8)))
	require.Equal(t, Invalid, kind(t, s.Resize(1, 7, 4, 1)))
	require.Equal(t, Invalid, kind(t, s.Resize(1, 7, -4, 8)))
	require.Equal(t, Invalid, kind(t, s.Resize(1, 7, 4, 1<<62)))
	require.Equal(t, before, s.Dump())
	require.Error(t, s.Request([]Request{{Process: 3, Slices: 7}})[0].Err)
	require.NoError(t, s.Resize(1, 7, 4, 9))
	require.Nil(t, s.Request([]Request{{Process: 3, Slices: 7}})[0].Err)
	require.NoError(t, s.Resize(1, 7, 2, 9))
	require.Error(t, s.Request([]Request{{Process: 3, Cores: 1}})[0].Err)
}
