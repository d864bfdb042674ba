package grant

import (
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/shmem/layout"
	"dinos/shmem/region"
)

// TestMend: a damaged header does not make a rack look empty.
func TestMend(t *testing.T) {
	mem, err := region.New(region.Slab(16 << 20))
	require.NoError(t, err)
	k, err := layout.Format(mem, layout.Config{Machines: 2, Logs: layout.NoLogs}, 5)
	require.NoError(t, err)
	n, err := Mend(k)
	require.NoError(t, err)
	require.Zero(t, n, "a new rack has no table")
	_, err = Open(k)
	require.ErrorIs(t, err, ErrUnformatted)

	table, err := Format(k, true)
	require.NoError(t, err)
	require.NoError(t, table.Online(1, 3, 2))
	name, err := table.Grant(Slice(1), Owner{Peer: 1, Generation: 3})
	require.NoError(t, err)
	g, err := k.GrantRegion(k.Region)
	require.NoError(t, err)
	for off := region.Off(0); off < offWriter+8; off += 8 {
		require.NoError(t, g.StoreU64(off, 0xdead<<off))
	}
	_, err = Open(k)
	require.ErrorIs(t, err, ErrUnformatted)
	n, err = Mend(k)
	require.NoError(t, err)
	require.Equal(t, table.units(), n)
	next, found, err := Recover(k)
	require.NoError(t, err)
	require.Len(t, found, 1, "the writer word")
	e, err := next.Entry(name.Unit)
	require.NoError(t, err)
	require.Equal(t, Held, e.State)
	require.Equal(t, name.Grant, e.Grant)
	require.NoError(t, next.Audit(nil).Err())
}
