package ring

import (
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/shmem/region"
)

// TestCorruptEveryWord flips bits in each word of a ring that is in use: both ends go on, or fail with a typed error; each
// returned message has a possible size; nothing hangs.
func TestCorruptEveryWord(t *testing.T) {
	const data, seed = 256, 4711
	rnd := rand.New(rand.NewPCG(seed, 1))
	for off := region.Off(0); off < region.Off(Bytes(data)); off += 8 {
		for bit := range 64 {
			r := made(t, data)
			tx, rx := pair(t, r, data)
			buf := make([]byte, data)
			use := func() {
				for range 12 {
					for range 2 {
						err := tx.Push(nil, message(1, rnd.IntN(100)))
						requireTyped(t, err)
						requireTyped(t, tx.Flush())
					}
					tx.Arm(8)
					n, err := rx.Recv(buf)
					requireTyped(t, err)
					require.LessOrEqual(t, n, data)
					rx.Arm()
				}
			}
			use()
			w, err := r.LoadU64(off)
			require.NoError(t, err)
			require.NoError(t, r.StoreU64(off, w^1<<bit))
			require.NoError(t, Dump(io.Discard, r, 10))
			use()
			// The same for somebody who attaches to it now.
			if tx2, err := AttachTx(r, data, nil); err == nil {
				tx = tx2
			} else {
				requireTyped(t, err)
			}
			if rx2, err := AttachRx(r, data, Start(bit&1), nil); err == nil {
				rx = rx2
			} else {
				requireTyped(t, err)
			}
			use()
			// Made anew it is as good as new.
			require.NoError(t, Format(r, data, 2))
			tx, rx = pair(t, r, data)
			require.NoError(t, tx.Push(nil, []byte("ok")))
			require.NoError(t, tx.Flush())
			n, err := rx.Recv(buf)
			require.NoError(t, err)
			require.Equal(t, "ok", string(buf[:n]))
		}
	}
}

func requireTyped(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	for _, e := range []error{ErrEmpty, ErrFull, ErrStale, ErrTooBig, ErrCorrupt, ErrReset, ErrConfig} {
		if errors.Is(err, e) {
			return
		}
	}
	t.Fatalf("untyped error: %v", err)
}

// TestWildIndices has the peer store any value into its index.
func TestWildIndices(t *testing.T) {
	const data = 256
	tag := uint64(1) << posBits
	for _, c := range []struct {
		name string
		off  region.Off
		v    uint64
		want error
	}{
		{"tail far ahead", offTail, tag | 1000, ErrCorrupt},
		{"tail one past the ring", offTail, tag | 33, ErrCorrupt},
		{"tail backwards", offTail, tag | posMask, ErrCorrupt},
		{"tail into garbage", offTail, tag | 30, ErrCorrupt},
		{"tail of another generation", offTail, 7<<posBits | 1, ErrStale},
		{"head far ahead", offHead, tag | 1000, ErrCorrupt},
		{"head past tail", offHead, tag | 3, ErrCorrupt},
		{"head backwards", offHead, tag | posMask, ErrCorrupt},
		{"head of another generation", offHead, 7<<posBits | 1, ErrStale},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := made(t, data)
			tx, rx := pair(t, r, data)
			require.NoError(t, r.StoreU64(c.off, c.v))
			var err error
			if c.off == offTail {
				_, err = rx.Recv(make([]byte, data))
			} else {
				for err == nil {
					err = tx.Push(nil, make([]byte, 40))
				}
			}
			require.ErrorIs(t, err, c.want)
		})
	}
	t.Run("repair", func(t *testing.T) {
		r := made(t, data)
		rung := 0
		tx, err := AttachTx(r, data, func() { rung++ })
		require.NoError(t, err)
		rx, err := AttachRx(r, data, Resume, nil)
		require.NoError(t, err)
		buf := make([]byte, data)
		require.NoError(t, tx.Push(nil, []byte("x")))
		require.NoError(t, tx.Flush())
		require.NoError(t, r.StoreU64(offTail, 7<<posBits|1))
		_, err = rx.Recv(buf)
		require.ErrorIs(t, err, ErrStale)
		require.True(t, rx.Arm())
		require.NoError(t, tx.Repair())
		require.Equal(t, 1, rung, "a repair is news")
		_, err = rx.Recv(buf)
		require.NoError(t, err)
		require.NoError(t, r.StoreU64(offHead, 7<<posBits|1))
		require.NoError(t, rx.Repair())
		for err = nil; err == nil; {
			err = tx.Push(nil, make([]byte, 40))
		}
		require.ErrorIs(t, err, ErrFull)
		require.NoError(t, tx.Repair())
		require.NoError(t, Format(r, data, 2))
		require.ErrorIs(t, tx.Repair(), ErrReset, "another life of the ring is not repaired")
		require.ErrorIs(t, rx.Repair(), ErrReset)
	})
	t.Run("length", func(t *testing.T) {
		for _, n := range []uint64{249, 1 << 20, 1<<32 - 1, 9} {
			r := made(t, data)
			tx, rx := pair(t, r, data)
			require.NoError(t, tx.Push(nil, make([]byte, 8)))
			require.NoError(t, tx.Flush())
			require.NoError(t, r.StoreU64(offData, mark(1, 0)|n))
			_, err := rx.Recv(make([]byte, data))
			require.ErrorIs(t, err, ErrCorrupt)
			_, again := rx.Recv(make([]byte, data))
			require.Equal(t, err, again, "it must stick")
			require.False(t, rx.Arm())
		}
	})
}

// TestMultiCorruptEveryWord is TestCorruptEveryWord for fixed slots.
func TestMultiCorruptEveryWord(t *testing.T) {
	const slots, size = 4, 64
	for off := region.Off(0); off < region.Off(MultiBytes(slots, size)); off += 8 {
		for bit := range 64 {
			r := madeMulti(t, slots, size)
			rx, err := AttachMultiRx(r, slots, size)
			require.NoError(t, err)
			tx, err := AttachMultiTx(r, slots, size, Sender{1, 1}, nil)
			require.NoError(t, err)
			buf := make([]byte, size)
			use := func() {
				for range 6 {
					requireTyped(t, tx.Send([]byte("hello")))
					requireTyped(t, tx.Send([]byte("world")))
					_, s, err := rx.Recv(buf)
					requireTyped(t, err)
					rx.Skip(s)
					rx.Blocked()
					rx.Arm()
				}
			}
			use()
			w, err := r.LoadU64(off)
			require.NoError(t, err)
			require.NoError(t, r.StoreU64(off, w^1<<bit))
			require.NoError(t, Dump(io.Discard, r, 10))
			use()
			if rx2, err := AttachMultiRx(r, slots, size); err == nil {
				rx = rx2
			} else {
				requireTyped(t, err)
			}
			use()
			require.NoError(t, FormatMulti(r, slots, size, 2))
			rx, err = AttachMultiRx(r, slots, size)
			require.NoError(t, err)
			require.NoError(t, tx.Send([]byte("ok")))
			n, _, err := rx.Recv(buf)
			require.NoError(t, err)
			require.Equal(t, "ok", string(buf[:n]))
		}
	}
}

func TestDump(t *testing.T) {
	r := made(t, 256)
	tx, _ := pair(t, r, 256)
	require.NoError(t, tx.Push(nil, message(1, 20)))
	require.NoError(t, tx.Push(nil, message(2, 8)))
	require.NoError(t, tx.Push(nil, message(3, 8)))
	require.NoError(t, tx.Flush())
	var b strings.Builder
	require.NoError(t, Dump(&b, r, 2))
	require.Equal(t, `one-sender ring: version 1, generation 1, size 256, slot size 0
  tail 0x1000000000008 head 0x1000000000000 tx sleep 0 rx sleep 0
  8 of 32 words taken
  0x0: 20 bytes 322b241d160f0801 6a635c554e474039 00000000867f7871
  0x4: 8 bytes 332c251e17100902
  … 2 words more
`, b.String())
}

func TestNoAllocation(t *testing.T) {
	r := made(t, 1024)
	tx, rx := pair(t, r, 1024)
	m, buf := make([]byte, 64), make([]byte, 64)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		_ = tx.Push(m[:24], m[24:])
		_ = tx.Flush()
		_, _ = rx.Recv(buf)
		_, _ = rx.Recv(buf)
		rx.Arm()
		rx.Disarm()
	}))
	r = madeMulti(t, 16, 128)
	mt, err := AttachMultiTx(r, 16, 128, Sender{}, nil)
	require.NoError(t, err)
	mr, err := AttachMultiRx(r, 16, 128)
	require.NoError(t, err)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		_ = mt.Send(m)
		_, _, _ = mr.Recv(buf)
	}))
}

func BenchmarkPushRecv64(b *testing.B) {
	for _, c := range []struct {
		name  string
		batch int
	}{{"batch1", 1}, {"batch8", 8}} {
		b.Run(c.name, func(b *testing.B) {
			r := made(b, 64<<10)
			tx, rx := pair(b, r, 64<<10)
			m, buf := make([]byte, 64), make([]byte, 64)
			b.ReportAllocs()
			for range b.N / c.batch {
				for range c.batch {
					_ = tx.Push(m[:24], m[24:])
				}
				_ = tx.Flush()
				for range c.batch {
					_, _ = rx.Recv(buf)
				}
			}
		})
	}
}

func BenchmarkMultiSendRecv48(b *testing.B) {
	r := madeMulti(b, 64, 64)
	tx, err := AttachMultiTx(r, 64, 64, Sender{}, nil)
	require.NoError(b, err)
	rx, err := AttachMultiRx(r, 64, 64)
	require.NoError(b, err)
	m, buf := make([]byte, 48), make([]byte, 64)
	b.ReportAllocs()
	for range b.N {
		_ = tx.Send(m)
		_, _, _ = rx.Recv(buf)
	}
}
