package logdir

import (
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/shmem/layout"
	"dinos/shmem/region"
)

func newDir(t *testing.T) Dir {
	r, err := region.New(region.Slab(8 << 20))
	require.NoError(t, err)
	k, err := layout.Format(r, layout.Config{Machines: 3, Logs: 2, LogBytes: 64 << 10}, 9)
	require.NoError(t, err)
	return Of(k)
}

func TestLabels(t *testing.T) {
	d := newDir(t)
	require.Equal(t, 2, d.Count())
	_, err := d.Read(0)
	require.ErrorIs(t, err, ErrNoLabel)
	for _, f := range []func() error{func() error { _, err := d.Read(2); return err }, func() error { return d.Write(-1, Label{1, 1, 1, 1, 1}) },
		func() error { return d.Clear(2) }, func() error { return d.SetReady(2, 1) }, func() error { return d.SetOwner(2, 0, 1, 1, 1) },
		func() error { return d.SetOwner(0, Slots, 1, 1, 1) }, func() error { _, err := d.Memory(2); return err }} {
		require.ErrorIs(t, f(), layout.ErrNoSuch)
	}
	require.ErrorIs(t, d.Write(0, Label{1, 1, 0, 1, 1}), ErrNoLabel)
	want := Label{7, 3, 11, 2, 5}
	require.NoError(t, d.Write(1, want))
	got, err := d.Read(1)
	require.NoError(t, err)
	require.Equal(t, want, got)
	_, err = d.Read(0)
	require.ErrorIs(t, err, ErrNoLabel)

	require.False(t, d.Ready(1, 11))
	require.NoError(t, d.SetReady(1, 11))
	require.True(t, d.Ready(1, 11))
	require.False(t, d.Ready(1, 12))
	require.NoError(t, d.SetOwner(1, 63, 5, 2, 1<<32+77))
	peer, life, ok := d.Owner(1, 63, 5)
	require.True(t, ok)
	require.Equal(t, 2, peer)
	require.EqualValues(t, 77, life)
	_, _, ok = d.Owner(1, 63, 6)
	require.False(t, ok, "another incarnation of the slot")
	_, _, ok = d.Owner(1, 62, 5)
	require.False(t, ok)
	mem, err := d.Memory(1)
	require.NoError(t, err)
	require.Len(t, mem, 63<<10)

	// Another use: what was said of the former one is gone.
	require.NoError(t, d.Write(1, Label{8, 0, 12, 1, 1}))
	require.False(t, d.Ready(1, 11))
	_, _, ok = d.Owner(1, 63, 5)
	require.False(t, ok)
	require.NoError(t, d.Clear(1))
	_, err = d.Read(1)
	require.ErrorIs(t, err, ErrNoLabel)
}

// TestDamage flips every bit of a label: it is read as it was or not at all.
func TestDamage(t *testing.T) {
	d := newDir(t)
	want := Label{7, 3, 11, 2, 5}
	require.NoError(t, d.Write(0, want))
	require.NoError(t, d.SetOwner(0, 4, 5, 2, 77))
	r, err := d.k.LogRegion(d.k.Region, 0)
	require.NoError(t, err)
	for off := region.Off(0); off < offReady; off += 8 {
		for bit := range 64 {
			w, err := r.LoadU64(off)
			require.NoError(t, err)
			require.NoError(t, r.StoreU64(off, w^1<<bit))
			if got, err := d.Read(0); err == nil {
				require.Equal(t, want, got)
			} else {
				require.ErrorIs(t, err, ErrNoLabel)
			}
			require.NoError(t, r.StoreU64(off, w))
		}
	}
	wrong := 0
	for bit := range 64 {
		off := region.Off(offOwners + 8*4)
		w, err := r.LoadU64(off)
		require.NoError(t, err)
		require.NoError(t, r.StoreU64(off, w^1<<bit))
		if _, _, ok := d.Owner(0, 4, 5); ok {
			wrong++
		}
		require.NoError(t, r.StoreU64(off, w))
	}
	require.LessOrEqual(t, wrong, 2, "the check of 8 bits lets one of 256 pass")
}
