package grant

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/shmem/layout"
	"dinos/shmem/region"
)

// hostile runs everything over memory that anybody may have written. It checks that a table that was taken over is consistent and
// works, whatever was there.
func hostile(t require.TestingT, k *layout.Rack) {
	var b strings.Builder
	require.NoError(t, Dump(&b, words64(t, k)))
	if r, err := Open(k); err == nil {
		r.Audit(nil)
	}
	g, _, err := Recover(k)
	if err != nil {
		return
	}
	for _, v := range g.Audit(nil).Violations {
		require.Contains(t, []Kind{IsLost, MixedLife}, v.Kind, "%v", v)
	}
	for p := 1; p < machines; p++ {
		if _, err := g.Reclaim(p, ^uint64(0)); err != nil {
			require.ErrorIs(t, err, ErrExhausted)
			return
		}
	}
	for u, e := range g.All() {
		if e.State == Lost {
			_, err := g.Settle(u, Owner{})
			require.NoError(t, err)
		}
	}
	z, err := g.StartZero(Owner{Peer: 0, Generation: 1}, int(g.slices), nil)
	if err != nil {
		require.ErrorIs(t, err, ErrExhausted)
		return
	}
	for _, n := range z {
		if err := g.Zeroed(Owner{Peer: 0, Generation: 1}, n); err != nil {
			require.ErrorIs(t, err, ErrExhausted)
			return
		}
	}
	require.Equal(t, Counts{Slices: g.slices, FreeSlices: g.slices}, g.Counts())
	require.NoError(t, g.Audit(nil).Err())
}

// TestHostileBytes scribbles over a good table, a little or a lot.
func TestHostileBytes(t *testing.T) {
	const seed = 4
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 150 {
		k, g, _ := mixed(t)
		r := words64(t, k)
		for range 1 + rnd.IntN(300) {
			off := region.Off(rnd.Uint64N(r.Len()/8) * 8)
			if rnd.IntN(3) > 0 { // where there is something
				off = layout.GrantHeaderBytes + region.Off(rnd.Uint64N(40*8)*8)
			}
			switch rnd.IntN(3) {
			case 0:
				require.NoError(t, r.StoreU64(off, rnd.Uint64()))
			case 1:
				flip(t, r, off, rnd.IntN(64))
			default: // an entry that makes its own sense
				i := rnd.Uint64N(g.units())
				e := pack(State(rnd.IntN(int(states))), Owner{rnd.IntN(machines + 1), rnd.Uint64N(3), rnd.Uint64N(3)}, rnd.Uint64N(4)*(maxVersion/3))
				l, err := words(r, i)
				require.NoError(t, err)
				l.store(e, rackGen, i)
				l[wordState].Store(e.word)
			}
		}
		hostile(t, k)
	}
}

// FuzzHostile is TestHostileBytes with the fuzzer's bytes, xored over header and entries.
func FuzzHostile(f *testing.F) {
	f.Add([]byte{}, uint16(0))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff"), uint16(offWriter))
	f.Add([]byte("\x01"), uint16(layout.GrantHeaderBytes))
	f.Fuzz(func(t *testing.T, b []byte, at uint16) {
		k, _, _ := mixed(t)
		r := words64(t, k)
		for i, v := range b {
			off := (uint64(at) + uint64(i)) % r.Len()
			w, err := r.LoadU64(region.Off(off &^ 7))
			require.NoError(t, err)
			require.NoError(t, r.StoreU64(region.Off(off&^7), w^uint64(v)<<(off%8*8)))
		}
		hostile(t, k)
	})
}
