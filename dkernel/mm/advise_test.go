package mm

import (
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/kernel/linux"
)

// stop makes six private pages around an object's page, all in one row with a number in each, and returns where they begin.
func stop(t *testing.T, s *Space, f *file) uint64 {
	t.Helper()
	a := s.must(t, MapArgs{Addr: arena, Len: 7 * k, Prot: rw, Flags: private | fixed})
	s.must(t, MapArgs{Addr: a + 4*k, Len: k, Prot: rw, Flags: linux.MAP_PRIVATE | fixed, Object: f})
	for i := range uint64(7) {
		require.NoError(t, s.Store64(a+i*k, i+1))
	}
	return a
}

// MADV_WIPEONFORK is EINVAL at the first mapping that is shared or of an object; the mappings before it have been changed by then.
func TestWipeOnForkStops(t *testing.T) {
	run(t, nil, func(m *machine, s *Space) {
		f := m.file(1)
		a := stop(t, s, f)
		require.NoError(t, s.Unmap(a+k, k))
		require.Equal(t, linux.EINVAL, s.Advise(a, 7*k, linux.MADV_WIPEONFORK), "a hole before it does not count")
		c, err := s.Fork()
		require.NoError(t, err)
		defer c.Put()
		for i, want := range []uint64{0, 0, 0, 0, 5, 6, 7} {
			if i == 1 {
				continue
			}
			v, err := c.Load64(a + uint64(i)*k)
			require.NoError(t, err)
			require.Equal(t, want, v, "page %d of the child", i)
			v, err = s.Load64(a + uint64(i)*k)
			require.NoError(t, err)
			require.EqualValues(t, i+1, v, "page %d of the parent", i)
		}
		require.NoError(t, c.tree.check())
		f.resize(0)
	})
}

// What advice makes alike becomes one mapping, also where the call fails later on.
func TestAdviseJoins(t *testing.T) {
	run(t, nil, func(m *machine, s *Space) {
		f := m.file(1)
		a := stop(t, s, f)
		require.NoError(t, s.Advise(a+k, k, linux.MADV_WIPEONFORK))
		require.Len(t, s.Regions(0, 10), 5)
		require.Equal(t, linux.EINVAL, s.Advise(a, 5*k, linux.MADV_WIPEONFORK))
		require.Len(t, s.Regions(0, 10), 3, "up to the object")

		require.NoError(t, s.Advise(a+6*k, k, linux.MADV_DONTFORK))
		require.Len(t, s.Regions(0, 10), 4)
		require.Equal(t, linux.ENOMEM, s.Advise(a+6*k, 2*k, linux.MADV_DOFORK))
		require.Len(t, s.Regions(0, 10), 3, "up to the hole")
		f.resize(0)
	})
}
