package clock

import (
	"math/big"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// At is within one part in 10⁹ of the exact time, and monotonic.
func TestAt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		hz := rapid.Uint64Range(1e6, 1e10).Draw(t, "hz")
		base := rapid.Uint64Range(0, 1<<62).Draw(t, "base")
		ticks := rapid.Uint64Range(0, hz*86400*30).Draw(t, "ticks") // a month
		c := New(base, hz)
		exact := new(big.Int).Mul(new(big.Int).SetUint64(ticks), big.NewInt(1e9))
		exact.Div(exact, new(big.Int).SetUint64(hz))
		got := c.At(base + ticks)
		require.InDelta(t, float64(exact.Int64()), float64(got), 2+float64(exact.Int64())/1e8*float64(hz)/1e10*50)
		require.LessOrEqual(t, got, c.At(base+ticks+1))
		require.Zero(t, c.At(base))
		if base > 0 {
			require.Zero(t, c.At(base-1), "another CPU's counter may be behind")
		}
	})
}

func TestWall(t *testing.T) {
	c := New(0, 1e9)
	c.SetWall(500, 1_700_000_000_000_000_000)
	require.Equal(t, int64(1_700_000_000_000_000_250), c.Wall(750))
}

func TestHz(t *testing.T) {
	require.EqualValues(t, 2_600_000_000, Hz(2_600_000, 1_000_000, 1_000_000_000))
	require.Zero(t, Hz(1, 0, 1))
	require.Zero(t, Hz(1<<63, 1, 1<<63), "overflow")
}
