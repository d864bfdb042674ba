package paging

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPage(t *testing.T) {
	s, _ := newSpace(t, 40)
	require.NoError(t, s.Map(0x5000, 0x123000, 0x1000, rw, Size4K))
	require.NoError(t, s.Map(Size2M, 0, Size2M, rw, Size2M))
	require.NoError(t, s.Map(Size1G, 0, Size1G, rw, Size1G))
	require.NoError(t, s.Map(^uint64(0xfff), 0x7000, 0x1000, 0, Size4K))
	for _, c := range []struct {
		va, pa uint64
		a      Attr
	}{
		{0x5123, 0x123123, rw}, {0x4fff, 0, 0}, {0x6000, 0, 0}, {Size2M, 0, 0}, {Size1G + 5, 0, 0}, {1 << 40, 0, 0}, {^uint64(0), 0x7fff, 0},
	} {
		pa, a := s.Page(c.va)
		require.Equal(t, c.pa, pa, "%#x", c.va)
		require.Equal(t, c.a, a, "%#x", c.va)
	}
	_, err := s.Protect(0x5000, 0x1000, 0, Present)
	require.NoError(t, err)
	pa, a := s.Page(0x5008)
	require.EqualValues(t, 0x123008, pa)
	require.Equal(t, rw&^Present, a)
}

func BenchmarkPage(b *testing.B) {
	s := leanSpace(b, 8)
	require.NoError(b, s.Map(0, 0, 0x1000, rw, Size4K))
	for b.Loop() {
		s.Page(0x123)
	}
}
