package ctl

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestClock: of the last measurements the most certain counts, until the rack's clock has moved.
func TestClock(t *testing.T) {
	now := uint64(1000)
	c := clock{tsc: func() uint64 { return now }}
	_, _, ok := c.read()
	require.False(t, ok)
	read := func(delta int64, half uint64) {
		t.Helper()
		tsc, u, ok := c.read()
		require.True(t, ok)
		require.Equal(t, now+uint64(delta), tsc)
		require.Equal(t, half, u)
	}
	c.sample(-500, 90)
	read(-500, 90)
	c.sample(-480, 40)
	read(-480, 40)
	c.sample(-520, 70)
	read(-480, 40)
	now += 50
	read(-480, 40)
	for range len(c.samples) { // the best one gets old
		c.sample(-530, 60)
	}
	read(-530, 60)
	c.sample(1<<40, 500) // another ckernel keeps another clock
	read(1<<40, 500)
}
