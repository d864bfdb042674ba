package layout

import (
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/shmem/region"
)

// TestRestate damages every bit of the superblock's constant words: whoever has the rack open can put it right.
func TestRestate(t *testing.T) {
	for _, logs := range []int{NoLogs, 2} {
		mem, err := region.New(region.Slab(16 << 20))
		require.NoError(t, err)
		k, err := Format(mem, Config{Machines: 2, Logs: logs}, 5)
		require.NoError(t, err)
		damaged, err := k.Restate()
		require.NoError(t, err)
		require.False(t, damaged)
		for off := region.Off(0); off < offCheck+8; off += 8 {
			for bit := range 64 {
				w, err := mem.LoadU64(off)
				require.NoError(t, err)
				require.NoError(t, mem.StoreU64(off, w^1<<bit))
				_, err = Open(mem)
				require.Error(t, err, "%#x bit %d", off, bit)
				damaged, err := k.Restate()
				require.NoError(t, err)
				require.True(t, damaged)
				again, err := Open(mem)
				require.NoError(t, err)
				require.Equal(t, k.Layout, again.Layout)
			}
		}
	}
}
