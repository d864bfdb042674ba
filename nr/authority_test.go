package nr_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/nr"
	"dinos/shmem/region"
)

type sum struct{ n uint64 }

func (c *sum) Apply(op uint64) uint64 { c.n += op; return c.n }
func (c *sum) Read(uint64) uint64     { return c.n }

// TestAuthority: who does not know the op type can evict a replica; the others go on, the evicted one hears of it.
func TestAuthority(t *testing.T) {
	for _, logs := range []int{1, 3} {
		cfg := nr.Config[uint64, uint64]{New: func(int) nr.Structure[uint64, uint64] { return &sum{} }, Entries: 16, Replicas: 4, Generation: 3}
		if logs > 1 {
			cfg.Logs, cfg.Route = logs, func(op uint64) int { return int(op) % logs }
			all := func(parts []nr.Structure[uint64, uint64], _ uint64) uint64 { return uint64(len(parts)) }
			cfg.ApplyAll, cfg.ReadAll = all, all
		}
		size, err := cfg.Size()
		require.NoError(t, err)
		mem := region.Slab(int(size))
		_, err = nr.Attach(mem)
		require.ErrorContains(t, err, "not a formatted instance")
		require.NoError(t, nr.Format(mem, cfg))
		in, err := nr.Open(mem, cfg)
		require.NoError(t, err)
		a, err := in.First()
		require.NoError(t, err)
		b, err := in.First()
		require.NoError(t, err)
		ha, err := a.Register()
		require.NoError(t, err)
		hb, err := b.Register()
		require.NoError(t, err)
		_, err = hb.Apply(1)
		require.NoError(t, err)

		boss, err := nr.Attach(mem)
		require.NoError(t, err)
		require.Len(t, boss.Members(), 2)
		require.Len(t, boss.Logs(), len(in.Logs()))
		require.NoError(t, boss.Evict(b.ID(), true))
		_, err = hb.Apply(1)
		require.ErrorIs(t, err, nr.ErrEvicted)
		for range 100 { // more than the log holds
			_, err = ha.Apply(1)
			require.NoError(t, err)
		}
		got, err := ha.Read(1)
		require.NoError(t, err)
		require.EqualValues(t, 101, got)
		require.Len(t, boss.Members(), 1)
	}
}
