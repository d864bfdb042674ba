package region

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func slab(t require.TestingT, n int) ([]byte, Region) {
	b := Slab(n)
	r, err := New(b)
	require.NoError(t, err)
	return b, r
}

func TestNewRefusesMisalignedMemory(t *testing.T) {
	b := Slab(256)
	_, err := New(b[8:])
	require.ErrorIs(t, err, ErrMisaligned)
	r, err := New(nil)
	require.NoError(t, err)
	_, err = r.LoadU64(0)
	require.ErrorIs(t, err, ErrRange)
}

// TestAccessMatchesBytes compares every single-word access with encoding/binary over the same bytes, at good and bad offsets.
func TestAccessMatchesBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 200).Draw(t, "size")
		b, r := slab(t, n)
		copy(b, rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "bytes"))
		off := Off(rapid.OneOf(rapid.Uint64Range(0, uint64(n)+16), rapid.Uint64()).Draw(t, "off"))
		v := rapid.Uint64().Draw(t, "v")

		inside64 := uint64(off) < uint64(n) && uint64(n)-uint64(off) >= 8
		got, err := r.LoadU64(off)
		switch {
		case !inside64:
			require.ErrorIs(t, err, ErrRange)
		case off%8 != 0:
			require.ErrorIs(t, err, ErrMisaligned)
		default:
			require.NoError(t, err)
			old := binary.LittleEndian.Uint64(b[off:])
			require.Equal(t, old, got)
			sum, _ := r.AddU64(off, 5)
			require.Equal(t, old+5, sum)
			was, _ := r.SwapU64(off, v)
			require.Equal(t, sum, was)
			ok, _ := r.CompareAndSwapU64(off, v+1, 7)
			require.False(t, ok)
			ok, _ = r.CompareAndSwapU64(off, v, 7)
			require.True(t, ok)
			require.NoError(t, r.StoreU64(off, v))
			require.Equal(t, v, binary.LittleEndian.Uint64(b[off:]))
		}

		inside32 := uint64(off) < uint64(n) && uint64(n)-uint64(off) >= 4
		got32, err := r.LoadU32(off)
		switch {
		case !inside32:
			require.ErrorIs(t, err, ErrRange)
		case off%4 != 0:
			require.ErrorIs(t, err, ErrMisaligned)
		default:
			require.NoError(t, err)
			require.Equal(t, binary.LittleEndian.Uint32(b[off:]), got32)
			sum, _ := r.AddU32(off, 3)
			require.Equal(t, got32+3, sum)
			was, _ := r.SwapU32(off, uint32(v))
			require.Equal(t, sum, was)
			ok, _ := r.CompareAndSwapU32(off, uint32(v), 9)
			require.True(t, ok)
			require.NoError(t, r.StoreU32(off, uint32(v)))
			require.Equal(t, uint32(v), binary.LittleEndian.Uint32(b[off:]))
		}
	})
}

func TestBytesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b, r := slab(t, 128)
		for i := range b {
			b[i] = 0xee
		}
		src := rapid.SliceOfN(rapid.Byte(), 0, 140).Draw(t, "src")
		off := Off(rapid.Uint64Range(0, 140).Draw(t, "off"))
		err := r.StoreBytes(off, src)
		rounded := (len(src) + 7) &^ 7
		if off%8 != 0 || int(off)+rounded > 128 {
			require.Error(t, err)
			require.Equal(t, bytes.Repeat([]byte{0xee}, 128), b, "a refused store changed memory")
			return
		}
		require.NoError(t, err)
		dst := make([]byte, len(src))
		require.NoError(t, r.LoadBytes(dst, off))
		require.True(t, bytes.Equal(src, dst))
		for i, c := range b {
			switch {
			case i < int(off) || i >= int(off)+rounded:
				require.EqualValues(t, 0xee, c, "byte %d outside was changed", i)
			case i >= int(off)+len(src):
				require.Zero(t, c, "pad byte %d", i)
			}
		}
	})
}

func TestSubStaysInside(t *testing.T) {
	_, r := slab(t, 512)
	s, err := r.Sub(128, 64)
	require.NoError(t, err)
	require.NoError(t, s.StoreU64(56, 1))
	require.ErrorIs(t, s.StoreU64(64, 1), ErrRange)
	v, _ := r.LoadU64(128 + 56)
	require.EqualValues(t, 1, v)
	for _, c := range []struct {
		off Off
		n   uint64
	}{{512, 1}, {64, 449}, {^Off(0) &^ 63, 64}, {64, ^uint64(0)}} {
		_, err := r.Sub(c.off, c.n)
		require.ErrorIs(t, err, ErrRange)
	}
	_, err = r.Sub(8, 64)
	require.ErrorIs(t, err, ErrMisaligned)
	require.NoError(t, r.Zero(128, 64))
	v, _ = r.LoadU64(128 + 56)
	require.Zero(t, v)
	require.ErrorIs(t, r.Zero(8, 3), ErrMisaligned)
	require.ErrorIs(t, r.Zero(504, 16), ErrRange)
}

func TestWordsMasksEveryIndex(t *testing.T) {
	b, r := slab(t, 64+4*32)
	w, err := r.Words(64, 32, 4)
	require.NoError(t, err)
	for _, i := range []uint64{0, 3, 4, 1 << 63, ^uint64(0)} {
		rec := w.At(i)
		rec.Word(0).Store(i + 1)
		rec.Store(1, []uint64{i, ^i})
		var got [2]uint64
		rec.Load(1, got[:])
		require.Equal(t, [2]uint64{i, ^i}, got)
		require.Equal(t, i+1, binary.LittleEndian.Uint64(b[64+(i&3)*32:]))
	}
	for _, c := range []struct{ off, stride, count uint64 }{
		{64, 32, 8}, {64, 32, 3}, {64, 32, 0}, {64, 12, 4}, {64, 0, 4}, {68, 32, 2},
		{0, 1 << 63, 2}, {0, 8, 1 << 63}, {1 << 63, 8, 1},
	} {
		_, err := r.Words(Off(c.off), c.stride, c.count)
		require.Error(t, err, "%+v", c)
	}
	_, err = r.Bytes(0, 1<<40)
	require.ErrorIs(t, err, ErrRange)
	got, err := r.Bytes(64, 8)
	require.NoError(t, err)
	require.Len(t, got, 8)
}

func TestHeader(t *testing.T) {
	_, r := slab(t, 128)
	const magic = 0x1122334455667788
	_, err := r.ReadHeader(0, magic, 2)
	require.ErrorIs(t, err, ErrHeader)
	require.NoError(t, r.WriteHeader(0, Header{magic, 2, 9}))
	h, err := r.ReadHeader(0, magic, 2)
	require.NoError(t, err)
	require.Equal(t, Header{magic, 2, 9}, h)
	_, err = r.ReadHeader(0, magic, 3)
	require.ErrorContains(t, err, "layout version 2 at offset 0x0, want 3")
	_, err = r.ReadHeader(0, magic+1, 2)
	require.ErrorContains(t, err, "magic")
	require.NoError(t, r.CheckGeneration(0, 9))
	require.ErrorContains(t, r.CheckGeneration(0, 8), "generation 9 at offset 0x0, want 8")
	require.NoError(t, r.InvalidateHeader(0))
	_, err = r.ReadHeader(0, magic, 2)
	require.ErrorIs(t, err, ErrHeader)
	require.ErrorIs(t, r.WriteHeader(0, Header{}), ErrHeader)
	require.ErrorIs(t, r.WriteHeader(120, Header{magic, 1, 1}), ErrRange)
	_, err = r.ReadHeader(120, magic, 1)
	require.ErrorIs(t, err, ErrRange)
}

// TestPublish passes records through relaxed stores behind an atomic word: the race detector and the values judge.
func TestPublish(t *testing.T) {
	_, r := slab(t, 256)
	w, err := r.Words(0, 64, 4)
	require.NoError(t, err)
	const n = 20000
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		for i := uint64(1); i <= n; i++ {
			rec := w.At(i)
			for v := rec.Word(0).Load(); i > 4 && v != 0; v = rec.Word(0).Load() {
				runtime.Gosched()
			}
			rec.Store(1, []uint64{i, i * i})
			rec.Word(0).Store(i)
		}
	}()
	for i := uint64(1); i <= n; i++ {
		rec := w.At(i)
		for rec.Word(0).Load() != i {
			runtime.Gosched()
		}
		var got [2]uint64
		rec.Load(1, got[:])
		if got != [2]uint64{i, i * i} {
			t.Fatalf("record %d: got %v", i, got)
		}
		rec.Word(0).Store(0)
	}
	wg.Wait()
}

func BenchmarkLoadU64Checked(b *testing.B) {
	_, r := slab(b, 4096)
	for i := range b.N {
		if _, err := r.LoadU64(Off(i&511) * 8); err != nil {
			b.Fatal(err)
		}
	}
}
