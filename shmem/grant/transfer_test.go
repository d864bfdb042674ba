package grant

import (
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/shmem/layout"
	"dinos/shmem/region"
)

func TestTransfer(t *testing.T) {
	mem, err := region.New(region.Slab(16 << 20))
	require.NoError(t, err)
	k, err := layout.Format(mem, layout.Config{Machines: 4, Logs: layout.NoLogs}, 5)
	require.NoError(t, err)
	table, err := Format(k, true)
	require.NoError(t, err)
	for p := 1; p < 4; p++ {
		require.NoError(t, table.Online(p, uint64(p), 1))
	}
	own := func(p int, pid uint64) Owner { return Owner{Peer: p, Generation: uint64(p), Process: pid} }
	n, err := table.Grant(Slice(0), own(1, 7))
	require.NoError(t, err)
	kernel, err := table.Grant(Slice(1), own(1, 0))
	require.NoError(t, err)
	core, err := table.Grant(Core(1, 0), own(1, 7))
	require.NoError(t, err)
	for _, c := range []struct {
		n    Name
		to   Owner
		want error
	}{{n, own(2, 8), ErrState}, {n, own(2, 0), ErrState}, {kernel, own(2, 7), ErrState}, {core, own(2, 7), ErrState}, {n, own(0, 7), ErrNoSuch},
		{Name{n.Unit, n.Grant + 1}, own(2, 7), ErrStale}, {Name{Slice(99), 1}, own(2, 7), ErrNoSuch}} {
		_, err := table.Transfer(c.n, c.to)
		require.ErrorIs(t, err, c.want, "%v to %v", c.n, c.to)
	}
	require.False(t, table.Inherited(n.Unit))
	moved, err := table.Transfer(n, own(2, 7))
	require.NoError(t, err)
	e, err := table.Entry(n.Unit)
	require.NoError(t, err)
	require.Equal(t, Entry{Held, own(2, 7), moved.Grant}, e)
	require.True(t, table.Inherited(n.Unit))
	require.False(t, table.Inherited(kernel.Unit))
	require.True(t, e.Same(n) && e.Same(moved) && !e.Same(Name{n.Unit, moved.Grant + 1}))
	require.NoError(t, table.Audit(nil).Err())
	// Its former machine goes: the slice stays.
	held, err := table.Reclaim(1, 1)
	require.NoError(t, err)
	require.ElementsMatch(t, []Unit{kernel.Unit, core.Unit}, held)

	// Another ckernel sees it, too, and goes on.
	next, _, err := Recover(k)
	require.NoError(t, err)
	require.True(t, next.Inherited(n.Unit))
	again, err := next.Transfer(moved, own(3, 7))
	require.NoError(t, err)
	require.True(t, next.Inherited(n.Unit))
	_, err = next.Release(own(3, 7), again)
	require.NoError(t, err)
	z, err := next.StartZero(Owner{Generation: 1}, 1, nil)
	require.NoError(t, err)
	require.NoError(t, next.Zeroed(Owner{Generation: 1}, z[0]))
	for {
		fresh, err := next.Grant(n.Unit, own(3, 7))
		if err == nil {
			require.False(t, next.Inherited(n.Unit), "granted anew")
			e, err := next.Entry(n.Unit)
			require.NoError(t, err)
			require.False(t, e.Same(again), "%v %v", e, again)
			require.True(t, e.Same(fresh))
			return
		}
		z, err := next.StartZero(Owner{Generation: 1}, 1, nil)
		require.NoError(t, err)
		require.NoError(t, next.Zeroed(Owner{Generation: 1}, z[0]))
	}
}
