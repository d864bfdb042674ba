package nr_test

import (
	"encoding/binary"
	"io"
	"sync"
	"testing"

	"dinos/nr"

	"github.com/stretchr/testify/require"
)

// counter adds up.
type counter struct{ sum uint64 }

type add struct{ N uint64 }

func (c *counter) Read(add) uint64 { return c.sum }
func (c *counter) Apply(op add) uint64 {
	c.sum += op.N
	return c.sum
}
func (c *counter) Snapshot(w io.Writer) error { return binary.Write(w, binary.LittleEndian, c.sum) }
func (c *counter) Restore(r io.Reader) error  { return binary.Read(r, binary.LittleEndian, &c.sum) }

func newCounter(int) nr.Structure[add, uint64] { return new(counter) }

func TestCounterThinPath(t *testing.T) {
	in, err := nr.New(nr.Config[add, uint64]{New: newCounter, Entries: 16, Replicas: 4})
	require.NoError(t, err)
	const replicas, threads, n = 2, 3, 2000
	var wg sync.WaitGroup
	var reps []*nr.Replica[add, uint64]
	for range replicas {
		rep, err := in.First()
		require.NoError(t, err)
		reps = append(reps, rep)
	}
	for i := range replicas * threads {
		h, err := reps[i%replicas].Register()
		require.NoError(t, err)
		wg.Add(1)
		go func() {
			defer wg.Done()
			last := uint64(0)
			for k := range n {
				v, err := h.Apply(add{1})
				if err != nil || v <= last {
					t.Errorf("apply: %d after %d, %v", v, last, err)
					return
				}
				if k%4 == 0 {
					if w, err := h.Read(add{}); err != nil || w < v {
						t.Errorf("read: %d after %d, %v", w, v, err)
						return
					}
				}
				last = v
			}
		}()
	}
	wg.Wait()
	for _, rep := range reps {
		h, err := rep.Register()
		require.NoError(t, err)
		v, err := h.Read(add{})
		require.NoError(t, err)
		require.EqualValues(t, replicas*threads*n, v)
	}
}

func BenchmarkApplyUncontended(b *testing.B) {
	in, err := nr.New(nr.Config[add, uint64]{New: newCounter})
	require.NoError(b, err)
	rep, err := in.First()
	require.NoError(b, err)
	h, err := rep.Register()
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := h.Apply(add{1}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadUncontended(b *testing.B) {
	in, err := nr.New(nr.Config[add, uint64]{New: newCounter})
	require.NoError(b, err)
	rep, err := in.First()
	require.NoError(b, err)
	h, err := rep.Register()
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := h.Read(add{}); err != nil {
			b.Fatal(err)
		}
	}
}
