package mm

import (
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/kernel/linux"
)

const (
	rw      = linux.PROT_READ | linux.PROT_WRITE
	private = linux.MAP_PRIVATE | linux.MAP_ANONYMOUS
	shared  = linux.MAP_SHARED | linux.MAP_ANONYMOUS
	fixed   = linux.MAP_FIXED
)

func (s *Space) must(t testing.TB, a MapArgs) uint64 {
	t.Helper()
	addr, err := s.Map(a)
	require.NoError(t, err)
	return addr
}

func TestBasics(t *testing.T) {
	m := newMachine(t, 8, nil)
	tables := m.tables.left()
	s := m.space()
	a := s.must(t, MapArgs{Len: 10 * pageSize, Prot: rw, Flags: private})
	require.Equal(t, s.tree.layout.MmapBase-10*pageSize, a)
	n, err := s.CopyOut(a+pageSize-3, []byte("hello"))
	require.NoError(t, err)
	require.Equal(t, 5, n)
	str, err := s.String(a+pageSize-3, 100)
	require.NoError(t, err)
	require.Equal(t, "hello", str)

	c, err := s.Fork()
	require.NoError(t, err)
	_, err = c.CopyOut(a+pageSize-3, []byte("child"))
	require.NoError(t, err)
	str, _ = s.String(a+pageSize-3, 100)
	require.Equal(t, "hello", str)
	str, _ = c.String(a+pageSize-3, 100)
	require.Equal(t, "child", str)
	c.Put()

	require.NoError(t, s.Protect(a, pageSize, linux.PROT_READ))
	n, err = s.CopyOut(a+pageSize-1, []byte("xy"))
	require.Equal(t, 0, n)
	require.Equal(t, linux.EFAULT, err)
	require.NoError(t, s.Unmap(a, 2*pageSize))
	_, err = s.Load32(a)
	require.Equal(t, linux.EFAULT, err)
	s.Put()
	m.clean(tables)
}
