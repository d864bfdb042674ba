package ring

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"dinos/shmem/region"
)

// made is memory with an empty ring of data bytes.
func made(t require.TestingT, data uint64) region.Region {
	r, err := region.New(region.Slab(int(Bytes(data))))
	require.NoError(t, err)
	require.NoError(t, Format(r, data, 1))
	return r
}

func pair(t require.TestingT, r region.Region, data uint64) (*Tx, *Rx) {
	tx, err := AttachTx(r, data, nil)
	require.NoError(t, err)
	rx, err := AttachRx(r, data, Resume, nil)
	require.NoError(t, err)
	return tx, rx
}

func message(i, n int) []byte {
	b := make([]byte, n)
	for k := range b {
		b[k] = byte(i + k*7)
	}
	return b
}

// TestModel compares random operations of both ends, restarts included, with a queue.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data := uint64(64) << rapid.IntRange(0, 4).Draw(t, "log size")
		r := made(t, data)
		tx, rx := pair(t, r, data)
		var sent, pushed [][]byte // flushed, and not flushed yet
		free := func() int {
			n := int(data / 8)
			for _, q := range [][][]byte{sent, pushed} {
				for _, m := range q {
					n -= int(words(len(m)))
				}
			}
			return n
		}
		i := 0
		buf := make([]byte, data)
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				i++
				m := message(i, rapid.IntRange(0, int(data)+8).Draw(t, "size"))
				cut := rapid.IntRange(0, len(m)/8).Draw(t, "cut") * 8
				err := tx.Push(m[:cut], m[cut:])
				switch {
				case len(m) > int(data)-8:
					require.ErrorIs(t, err, ErrTooBig)
				case int(words(len(m))) <= free():
					if err == ErrFull { // the receiver holds its releases back
						rx.Release()
						err = tx.Push(m[:cut], m[cut:])
					}
					require.NoError(t, err)
					pushed = append(pushed, m)
				default:
					require.ErrorIs(t, err, ErrFull)
				}
			},
			"flush": func(t *rapid.T) {
				require.NoError(t, tx.Flush())
				sent, pushed = append(sent, pushed...), nil
			},
			"abort": func(t *rapid.T) { tx.Abort(); pushed = nil },
			"recv": func(t *rapid.T) {
				n, err := rx.Recv(buf)
				if len(sent) == 0 {
					require.ErrorIs(t, err, ErrEmpty)
					return
				}
				require.NoError(t, err)
				require.True(t, bytes.Equal(sent[0], buf[:n]))
				sent = sent[1:]
			},
			"too small": func(t *rapid.T) {
				if len(sent) > 0 && len(sent[0]) > 0 {
					n, err := rx.Recv(buf[:len(sent[0])-1])
					require.ErrorIs(t, err, ErrTooBig)
					require.Equal(t, len(sent[0]), n)
				}
			},
			"ready":          func(t *rapid.T) { require.Equal(t, len(sent) > 0, rx.Ready()) },
			"restart sender": func(t *rapid.T) { tx, pushed = sender(t, r, data), nil },
			"restart receiver": func(t *rapid.T) {
				var err error
				rx, err = AttachRx(r, data, Discard, nil)
				require.NoError(t, err)
				sent = nil
			},
			"receiver takes over": func(t *rapid.T) {
				rx.Release()
				var err error
				rx, err = AttachRx(r, data, Resume, nil)
				require.NoError(t, err)
			},
		})
	})
}

func sender(t require.TestingT, r region.Region, data uint64) *Tx {
	tx, err := AttachTx(r, data, nil)
	require.NoError(t, err)
	return tx
}

// TestPositionsWrap runs over the end of the 48-bit positions.
func TestPositionsWrap(t *testing.T) {
	r := made(t, 256)
	start := uint64(1)<<posBits | (posMask - 20)
	require.NoError(t, r.StoreU64(offTail, start))
	require.NoError(t, r.StoreU64(offHead, start))
	tx, rx := pair(t, r, 256)
	buf := make([]byte, 256)
	for i := range 100 {
		m := message(i, 60)
		require.NoError(t, tx.Push(nil, m))
		require.NoError(t, tx.Flush())
		n, err := rx.Recv(buf)
		require.NoError(t, err)
		require.Equal(t, m, buf[:n])
	}
	require.Less(t, rx.head, uint64(posMask/2), "did not wrap")
}

func TestReset(t *testing.T) {
	r := made(t, 256)
	tx, rx := pair(t, r, 256)
	require.NoError(t, tx.Push(nil, message(1, 8)))
	require.NoError(t, tx.Flush())
	require.NoError(t, Format(r, 256, 2))

	// A new receiver ignores what the old sender does until that one has noticed.
	buf := make([]byte, 256)
	rx2, err := AttachRx(r, 256, Resume, nil)
	require.NoError(t, err)
	_, err = rx.Recv(buf)
	require.ErrorIs(t, err, ErrReset)
	require.False(t, rx.Arm(), "an end that was reset must not sleep")
	require.NoError(t, tx.Push(nil, message(2, 8)))
	require.ErrorIs(t, tx.Flush(), ErrReset)
	require.ErrorIs(t, tx.Push(nil, nil), ErrReset)
	_, err = rx2.Recv(buf)
	require.ErrorIs(t, err, ErrStale)

	tx2, err := AttachTx(r, 256, nil)
	require.NoError(t, err)
	require.NoError(t, tx2.Push(nil, message(3, 16)))
	require.NoError(t, tx2.Flush())
	n, err := rx2.Recv(buf)
	require.NoError(t, err)
	require.Equal(t, message(3, 16), buf[:n])
	require.EqualValues(t, 2, rx2.Generation())
}

func TestBadConfiguration(t *testing.T) {
	r := made(t, 256)
	for _, c := range []struct {
		err  error
		want string
	}{
		{Format(r, 100, 1), "100 bytes of data, want a power of two"},
		{Format(r, 32, 1), "want a power of two from 64"},
		{Format(r, 512, 1), fmt.Sprintf("%d bytes of memory, want %d", Bytes(256), Bytes(512))},
		{FormatMulti(r, 3, 64, 1), "3 slots, want a power of two"},
		{FormatMulti(r, 4, 100, 1), "slots of 100 bytes, want a power of two"},
		{FormatMulti(r, 8, 64, 1), "bytes of memory, want"},
		{second(AttachTx(r, 128, nil)), "ring has size 256 and slot size 0, want 128 and 0"},
		{second(AttachRx(r, 128, Resume, nil)), "ring has size 256"},
		{second(AttachMultiTx(r, 4, 64, Sender{}, nil)), "magic"},
		{second(AttachMultiRx(r, 4, 60)), "slots of 60 bytes"},
	} {
		require.ErrorIs(t, c.err, ErrConfig)
		require.ErrorContains(t, c.err, c.want)
	}
}

func second[T any](_ T, err error) error { return err }

// TestConcurrent streams messages between two goroutines that sleep on channels: the race detector, the contents and
// the absence of a deadlock judge. It is the only test here in which the hardware reorders.
func TestConcurrent(t *testing.T) {
	const data, n = 1 << 10, 30000
	r := made(t, data)
	bell := func() (chan struct{}, func()) {
		c := make(chan struct{}, 1)
		return c, func() {
			select {
			case c <- struct{}{}:
			default:
			}
		}
	}
	rxBell, wakeRx := bell()
	txBell, wakeTx := bell()
	tx, err := AttachTx(r, data, wakeRx)
	require.NoError(t, err)
	rx, err := AttachRx(r, data, Resume, wakeTx)
	require.NoError(t, err)
	go func() {
		for i := 0; i < n; {
			m := message(i, i%90)
			switch err := tx.Push(nil, m); err {
			case nil:
				i++
				if i%7 == 0 || i == n {
					if tx.Flush() != nil {
						return
					}
				}
			case ErrFull:
				if tx.Flush() != nil {
					return
				}
				if tx.Arm(len(m)) {
					<-txBell
				}
				tx.Disarm()
			default:
				panic(err)
			}
		}
	}()
	buf := make([]byte, data)
	for i := 0; i < n; {
		k, err := rx.Recv(buf)
		switch err {
		case nil:
			require.True(t, bytes.Equal(message(i, i%90), buf[:k]), "message %d", i)
			i++
		case ErrEmpty:
			if rx.Arm() {
				<-rxBell
			}
			rx.Disarm()
		default:
			t.Fatal(err)
		}
	}
	t.Logf("doorbells: %d to the receiver, %d to the sender, for %d messages", tx.Doorbells(), rx.Doorbells(), n)
}

func madeMulti(t require.TestingT, slots, size uint64) region.Region {
	r, err := region.New(region.Slab(int(MultiBytes(slots, size))))
	require.NoError(t, err)
	require.NoError(t, FormatMulti(r, slots, size, 1))
	return r
}

// TestMultiConcurrent has several senders; each one's messages arrive once and in order.
func TestMultiConcurrent(t *testing.T) {
	const senders, n = 4, 4000
	r := madeMulti(t, 16, 64)
	bell := make(chan struct{}, 1)
	rx, err := AttachMultiRx(r, 16, 64)
	require.NoError(t, err)
	var wg sync.WaitGroup
	for s := range senders {
		tx, err := AttachMultiTx(r, 16, 64, Sender{uint8(s), 9}, func() {
			select {
			case bell <- struct{}{}:
			default:
			}
		})
		require.NoError(t, err)
		wg.Go(func() {
			var b [24]byte
			for i := 0; i < n; {
				binary.LittleEndian.PutUint64(b[:], uint64(i))
				switch err := tx.Send(b[:8+i%16]); err {
				case nil:
					i++
				case ErrFull:
					runtime.Gosched()
				default:
					panic(err)
				}
			}
		})
	}
	var next [senders]uint64
	buf := make([]byte, 64)
	for left := senders * n; left > 0; {
		k, s, err := rx.Recv(buf)
		if err == ErrEmpty {
			if rx.Arm() {
				<-bell
			}
			rx.Disarm()
			continue
		}
		require.NoError(t, err)
		i := binary.LittleEndian.Uint64(buf)
		require.Equal(t, next[s.Slot], i, "sender %v", s)
		require.Equal(t, int(8+i%16), k)
		next[s.Slot]++
		left--
	}
	wg.Wait()
}

// TestMultiDeath lets a sender die with a slot claimed: nobody gets past it until it is skipped.
func TestMultiDeath(t *testing.T) {
	r := madeMulti(t, 4, 64)
	rx, err := AttachMultiRx(r, 4, 64)
	require.NoError(t, err)
	dead, err := AttachMultiTx(r, 4, 64, Sender{3, 7}, nil)
	require.NoError(t, err)
	live, err := AttachMultiTx(r, 4, 64, Sender{1, 2}, nil)
	require.NoError(t, err)
	buf := make([]byte, 64)
	for round := range 10 {
		died := round%2 == 0
		if died {
			// It dies before it has moved tail; the next sender helps.
			dead.probe = func(p point) {
				if p == ptStoreTail {
					panic("dead")
				}
			}
			require.Panics(t, func() { _ = dead.Send([]byte("x")) })
		}
		require.NoError(t, live.Send([]byte("y")))
		s, blocked := rx.Blocked()
		require.Equal(t, died, blocked)
		if died {
			_, _, err = rx.Recv(buf)
			require.ErrorIs(t, err, ErrEmpty)
			require.Equal(t, Sender{3, 7}, s)
			require.False(t, rx.Skip(Sender{1, 2}), "skipped a slot of somebody else")
			require.False(t, rx.Skip(Sender{3, 8}), "skipped a slot of another life")
			require.True(t, rx.Skip(s))
		}
		n, s, err := rx.Recv(buf)
		require.NoError(t, err)
		require.Equal(t, Sender{1, 2}, s)
		require.Equal(t, "y", string(buf[:n]))
	}
	for range 4 {
		require.NoError(t, live.Send([]byte("z")))
	}
	require.ErrorIs(t, live.Send(nil), ErrFull)
	require.ErrorIs(t, live.Send(make([]byte, 49)), ErrTooBig)
	rx, err = AttachMultiRx(r, 4, 64) // a restarted receiver goes on
	require.NoError(t, err)
	for range 4 {
		_, _, err := rx.Recv(buf)
		require.NoError(t, err)
	}
	_, _, err = rx.Recv(buf)
	require.ErrorIs(t, err, ErrEmpty)
}
