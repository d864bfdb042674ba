package nr_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"

	"dinos/nr"
	"dinos/nr/oplog"
	"dinos/shmem/region"

	"github.com/stretchr/testify/require"
)

type (
	withPointer struct {
		A uint32
		P *int
	}
	withBool  struct{ B [3]struct{ Flag bool } }
	withInt   struct{ N int }
	withSlice struct{ S []byte }
	tooLarge  [oplog.MaxOpSize + 1]uint8
	empty     struct{}
)

func sizeOf[O any]() error {
	_, err := nr.Config[O, int]{}.Size()
	return err
}

func TestOpTypes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{sizeOf[withPointer](), "withPointer.P is a ptr, want a value without pointers"},
		{sizeOf[withBool](), "withBool.B[].Flag is a bool, which has invalid bit patterns; want uint8"},
		{sizeOf[withInt](), "withInt.N is int, want an integer of fixed width such as int64"},
		{sizeOf[withSlice](), "withSlice.S is a slice, want"},
		{sizeOf[string](), "op field string is a string"},
		{sizeOf[any](), "interface"},
		{sizeOf[tooLarge](), "has 4097 bytes, want 1 to 4096"},
		{sizeOf[empty](), "has 0 bytes, want 1 to 4096"},
	} {
		require.ErrorIs(t, c.err, nr.ErrConfig)
		require.ErrorContains(t, c.err, c.want)
	}
	require.NoError(t, sizeOf[[4]complex128]())
	require.NoError(t, sizeOf[uint8]())
}

// TestOtherOpType: a kernel of another build, whose op has another layout, is refused.
func TestOtherOpType(t *testing.T) {
	type one struct{ A, B uint32 }
	type two struct{ A uint64 }
	c1 := nr.Config[one, int]{}
	size, err := c1.Size()
	require.NoError(t, err)
	mem := region.Slab(int(size))
	require.NoError(t, nr.Format(mem, c1))
	_, err = nr.Open(mem, nr.Config[two, int]{New: func(int) nr.Structure[two, int] { return nil }})
	require.ErrorIs(t, err, nr.ErrConfig)
	require.ErrorContains(t, err, "another op type")
}

// odd is an op of 13 bytes, so that encoding has a partial word.
type odd struct {
	B [13]uint8
}
type oddSum struct{ n [13]uint64 }

func (s *oddSum) Read(op odd) uint64 { return s.n[op.B[0]] }
func (s *oddSum) Apply(op odd) uint64 {
	for i, b := range op.B {
		s.n[i] += uint64(b)
	}
	return s.n[12]
}

func TestOddOpSize(t *testing.T) {
	in, err := nr.New(nr.Config[odd, uint64]{New: func(int) nr.Structure[odd, uint64] { return new(oddSum) }, Entries: 4})
	require.NoError(t, err)
	h := handle(t, first(t, in))
	op := odd{[13]uint8{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}}
	for i := range uint64(20) {
		got, err := h.Apply(op)
		require.NoError(t, err)
		require.Equal(t, 12*(i+1), got)
	}
	for i := range uint8(13) {
		got, err := h.Read(odd{[13]uint8{i}})
		require.NoError(t, err)
		require.EqualValues(t, 20*int(i), got)
	}
}

func first[O, R any](t testing.TB, in *nr.Instance[O, R]) *nr.Replica[O, R] {
	t.Helper()
	rep, err := in.First()
	require.NoError(t, err)
	return rep
}

func handle[O, R any](t testing.TB, rep *nr.Replica[O, R]) *nr.Handle[O, R] {
	t.Helper()
	h, err := rep.Register()
	require.NoError(t, err)
	return h
}

// part keeps the keys of one log; the second word of a response is how many parts answered.
type part struct{ n map[uint32]uint64 }

type partOp struct {
	Key uint32
	All uint32
	N   uint64
}

func (p *part) Read(op partOp) [2]uint64 { return [2]uint64{p.n[op.Key], 1} }
func (p *part) Apply(op partOp) [2]uint64 {
	p.n[op.Key] += op.N
	return p.Read(op)
}
func (p *part) Snapshot(w io.Writer) error {
	for k, v := range p.n {
		if err := binary.Write(w, binary.LittleEndian, []uint64{uint64(k), v}); err != nil {
			return err
		}
	}
	return nil
}
func (p *part) Restore(r io.Reader) error {
	for {
		var kv [2]uint64
		if err := binary.Read(r, binary.LittleEndian, &kv); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		p.n[uint32(kv[0])] = kv[1]
	}
}

// allParts adds N to Key in each part that is there.
func allParts(parts []nr.Structure[partOp, [2]uint64], op partOp) (out [2]uint64) {
	for _, p := range parts {
		if p != nil {
			r := p.Apply(op)
			out[0] += r[0]
			out[1]++
		}
	}
	return out
}

func partConfig(logs int) nr.Config[partOp, [2]uint64] {
	return nr.Config[partOp, [2]uint64]{
		New:  func(int) nr.Structure[partOp, [2]uint64] { return &part{map[uint32]uint64{}} },
		Logs: logs, Entries: 16, Replicas: 4,
		Route: func(op partOp) int {
			if op.All != 0 {
				return nr.AllLogs
			}
			return int(op.Key) % logs
		},
		ApplyAll: allParts,
		ReadAll: func(parts []nr.Structure[partOp, [2]uint64], op partOp) [2]uint64 {
			op.N = 0
			return allParts(parts, op)
		},
	}
}

// TestSubscribeToSomeLogs: a replica of logs 0 and 2 of three serves those, refuses the rest, and does its part of ops
// across all logs.
func TestSubscribeToSomeLogs(t *testing.T) {
	in, err := nr.New(partConfig(3))
	require.NoError(t, err)
	a := first(t, in)
	ha := handle(t, a)
	for k := range uint32(6) {
		_, err := ha.Apply(partOp{Key: k, N: 10})
		require.NoError(t, err)
	}
	var snap bytes.Buffer
	_, err = a.Donate(&snap, []int{0, 2})
	require.NoError(t, err)
	_, err = ha.Apply(partOp{All: 1, Key: 3, N: 5})
	require.NoError(t, err)
	b, err := in.Join(&snap)
	require.NoError(t, err)
	hb := handle(t, b)
	got, err := hb.Read(partOp{Key: 3})
	require.NoError(t, err)
	require.EqualValues(t, 15, got[0])
	for k := range uint32(200) { // round the rings, with ops across and without
		k := k / 2 * 2 % 6
		if k == 4 {
			_, err := hb.Apply(partOp{Key: 4})
			require.ErrorIs(t, err, nr.ErrRoute)
			_, err = hb.Read(partOp{Key: 4})
			require.ErrorIs(t, err, nr.ErrRoute)
			_, err = hb.Apply(partOp{All: 1})
			require.ErrorIs(t, err, nr.ErrRoute)
			_, err = ha.Apply(partOp{All: 1, Key: 2, N: 1})
			require.NoError(t, err)
			continue
		}
		_, err := hb.Apply(partOp{Key: k, N: 1})
		require.NoError(t, err)
	}
	for _, k := range []uint32{0, 2, 3} {
		x, err := ha.Read(partOp{Key: k})
		require.NoError(t, err)
		y, err := hb.Read(partOp{Key: k})
		require.NoError(t, err)
		require.Equal(t, x, y)
	}
	sum, err := ha.Read(partOp{All: 1, Key: 2})
	require.NoError(t, err)
	require.EqualValues(t, 3, sum[1])
	_, err = b.Donate(&snap, []int{1})
	require.ErrorIs(t, err, nr.ErrRoute)
	_, err = a.Donate(&snap, []int{3})
	require.ErrorContains(t, err, "log 3, want 0 to 2")
	require.NoError(t, b.Close())
	require.Len(t, in.Members(), 1)
}

// TestSingleLogIsASpecialCase runs the same configuration with one log.
func TestSingleLogIsASpecialCase(t *testing.T) {
	in, err := nr.New(partConfig(1))
	require.NoError(t, err)
	h := handle(t, first(t, in))
	_, err = h.Apply(partOp{Key: 1, N: 2})
	require.NoError(t, err)
	out, err := h.Apply(partOp{All: 1, Key: 1, N: 3})
	require.NoError(t, err)
	require.Equal(t, [2]uint64{5, 1}, out)
	out, err = h.Read(partOp{All: 1, Key: 1})
	require.NoError(t, err)
	require.Equal(t, [2]uint64{5, 1}, out)
}

// limited gives up after some turns.
type limited struct{ turns int }

func (l limited) Wait(w nr.Wait) bool { return w.Attempt < l.turns }

// TestStalledAndResumed: with a waiter that gives up, a full log is an error that names who holds it, and the op is withdrawn;
// an op that is in the log already is resumed.
func TestStalledAndResumed(t *testing.T) {
	cfg := nr.Config[add, uint64]{New: newCounter, Entries: 4, Replicas: 3, Waiter: limited{3}}
	size, err := cfg.Size()
	require.NoError(t, err)
	mem := region.Slab(int(size))
	require.NoError(t, nr.Format(mem, cfg))
	inA, err := nr.Open(mem, cfg)
	require.NoError(t, err)
	inB, err := nr.Open(mem, cfg) // another kernel: nobody here can look after its replica
	require.NoError(t, err)
	a, b := first(t, inA), first(t, inB)
	ha := handle(t, a)
	for range 4 {
		_, err := ha.Apply(add{1})
		require.NoError(t, err)
	}
	_, err = ha.Apply(add{100})
	require.ErrorIs(t, err, nr.ErrStalled)
	require.ErrorContains(t, err, "slot 1 incarnation 1 has consumed up to 0")
	require.ErrorContains(t, err, "withdrawn")
	require.False(t, ha.Pending())
	require.NoError(t, b.Sync())
	sum, err := ha.Apply(add{1})
	require.NoError(t, err)
	require.EqualValues(t, 5, sum)

	// b reserves and dies before publishing: from a's log it looks stamped by a live replica.
	stamp(t, inA, b.ID())
	_, err = ha.Apply(add{7})
	require.ErrorIs(t, err, nr.ErrStalled)
	require.ErrorContains(t, err, "reserved by slot 1 incarnation 1")
	require.ErrorContains(t, err, "the op is in the log")
	require.True(t, ha.Pending())
	_, err = ha.Apply(add{1})
	require.ErrorIs(t, err, nr.ErrPending)
	require.ErrorIs(t, ha.Close(), nr.ErrPending)
	require.ErrorIs(t, a.Close(), nr.ErrPending)
	_, err = ha.Resume()
	require.ErrorIs(t, err, nr.ErrStalled)
	require.NoError(t, inA.Evict(b.ID(), true))
	sum, err = ha.Resume()
	require.NoError(t, err)
	require.EqualValues(t, 12, sum)
	require.NoError(t, ha.Close())
	require.NoError(t, a.Close())
}

// stamp reserves the next position as replica id would, by hand.
func stamp(t *testing.T, in *nr.Instance[add, uint64], id nr.ID) {
	l := in.Logs()[0]
	require.NoError(t, l.StampForTest(id))
}

// bomb panics at the third op.
type bomb struct{ n int }

func (b *bomb) Read(add) uint64 { return uint64(b.n) }
func (b *bomb) Apply(add) uint64 {
	if b.n++; b.n == 3 {
		panic("bomb")
	}
	return uint64(b.n)
}

// TestPanicOfTheStructure: the replica is finished, nobody hangs, and the panic reaches its caller.
func TestPanicOfTheStructure(t *testing.T) {
	in, err := nr.New(nr.Config[add, uint64]{New: func(int) nr.Structure[add, uint64] { return new(bomb) }})
	require.NoError(t, err)
	rep := first(t, in)
	h, h2 := handle(t, rep), handle(t, rep)
	for range 2 {
		_, err := h.Apply(add{})
		require.NoError(t, err)
	}
	require.PanicsWithValue(t, "bomb", func() { _, _ = h.Apply(add{}) })
	_, err = h2.Apply(add{})
	require.ErrorIs(t, err, nr.ErrPanic)
	_, err = h2.Read(add{})
	require.ErrorIs(t, err, nr.ErrPanic)
	require.NoError(t, rep.Close())
	require.Empty(t, in.Members())
}

func TestEvictedLearnsAtItsNextOperation(t *testing.T) {
	in, err := nr.New(nr.Config[add, uint64]{New: newCounter, Entries: 8, Replicas: 3})
	require.NoError(t, err)
	a, b := first(t, in), first(t, in)
	ha, hb := handle(t, a), handle(t, b)
	_, err = hb.Apply(add{1})
	require.NoError(t, err)
	require.NoError(t, in.Evict(b.ID(), false))
	_, err = hb.Read(add{})
	require.ErrorIs(t, err, nr.ErrEvicted)
	_, err = hb.Apply(add{1})
	require.ErrorIs(t, err, nr.ErrEvicted)
	require.ErrorIs(t, b.Sync(), nr.ErrEvicted)
	require.Len(t, in.Members(), 2, "quarantined until it lets go")
	require.NoError(t, b.Close())
	require.Len(t, in.Members(), 1)
	for range 50 {
		_, err := ha.Apply(add{1})
		require.NoError(t, err)
	}
	sum, err := ha.Read(add{})
	require.NoError(t, err)
	require.EqualValues(t, 51, sum)
}

func TestSnapshotErrors(t *testing.T) {
	in, err := nr.New(nr.Config[add, uint64]{New: newCounter, Entries: 8, Replicas: 2})
	require.NoError(t, err)
	a := first(t, in)
	var snap bytes.Buffer
	_, err = a.Donate(&snap, nil)
	require.NoError(t, err)
	good := bytes.Clone(snap.Bytes())
	_, err = a.Donate(&snap, nil)
	require.ErrorIs(t, err, nr.ErrNoSlot)
	for n := range len(good) {
		_, err := in.Join(bytes.NewReader(good[:n]))
		require.ErrorIs(t, err, nr.ErrSnapshot, "%d bytes", n)
	}
	// A part that was cut off gave the slot back.
	_, err = in.Join(bytes.NewReader(good))
	require.ErrorIs(t, err, nr.ErrStale)
	snap.Reset()
	_, err = a.Donate(&snap, nil)
	require.NoError(t, err)
	_, err = in.Join(&snap)
	require.NoError(t, err)
	_, err = a.Donate(failing{}, nil)
	require.ErrorIs(t, err, nr.ErrNoSlot)
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestDonateToAFullDiskGivesTheSlotBack(t *testing.T) {
	in, err := nr.New(nr.Config[add, uint64]{New: newCounter, Entries: 8, Replicas: 2})
	require.NoError(t, err)
	a := first(t, in)
	for range 3 {
		_, err := a.Donate(failing{}, nil)
		require.ErrorIs(t, err, nr.ErrSnapshot)
		require.ErrorIs(t, err, io.ErrShortWrite)
	}
	require.Len(t, in.Members(), 1)
}

func TestHandles(t *testing.T) {
	in, err := nr.New(nr.Config[add, uint64]{New: newCounter, Threads: 2})
	require.NoError(t, err)
	rep := first(t, in)
	h1, h2 := handle(t, rep), handle(t, rep)
	_, err = rep.Register()
	require.ErrorIs(t, err, nr.ErrThreads)
	require.NoError(t, h1.Close())
	require.NoError(t, h1.Close())
	_, err = h1.Apply(add{})
	require.ErrorIs(t, err, nr.ErrThreads)
	_, err = h1.Read(add{})
	require.ErrorIs(t, err, nr.ErrThreads)
	handle(t, rep)
	_, err = h2.Resume()
	require.ErrorIs(t, err, nr.ErrStale)
	_, err = h2.ApplyOperand(add{}, []byte("x"))
	require.ErrorIs(t, err, nr.ErrRoute)
	require.ErrorContains(t, err, "is no OperandStructure")
	_, err = h2.ReadOperand(add{}, []byte("x"))
	require.ErrorIs(t, err, nr.ErrRoute)
}

func TestConfigErrors(t *testing.T) {
	for _, c := range []struct {
		cfg  nr.Config[add, uint64]
		want string
	}{
		{nr.Config[add, uint64]{}, "New is missing"},
		{nr.Config[add, uint64]{New: newCounter, Logs: 65}, "65 logs, want 1 to 64"},
		{nr.Config[add, uint64]{New: newCounter, Logs: -1}, "-1 logs"},
		{nr.Config[add, uint64]{New: newCounter, Entries: 3}, "3 entries, want a power of two"},
		{nr.Config[add, uint64]{New: newCounter, Replicas: 65}, "65 replica slots"},
		{nr.Config[add, uint64]{New: newCounter, ArenaBytes: 7}, "arena of 7 bytes"},
	} {
		_, err := nr.New(c.cfg)
		require.ErrorIs(t, err, nr.ErrConfig)
		require.ErrorContains(t, err, c.want)
	}
	in, err := nr.New(nr.Config[add, uint64]{New: newCounter, Logs: 2})
	require.NoError(t, err)
	_, err = in.First()
	require.ErrorContains(t, err, "Route is missing with 2 logs")
	var b strings.Builder
	for _, l := range in.Logs() {
		require.NoError(t, l.Dump(&b, 1))
	}
	require.Contains(t, b.String(), "slots")
}

// TestAllocations: the hot paths allocate nothing.
func TestAllocations(t *testing.T) {
	in, err := nr.New(blobConfig(2))
	require.NoError(t, err)
	h := handle(t, first(t, in))
	data := []byte("some bytes")
	i := uint32(0)
	require.Zero(t, testing.AllocsPerRun(200, func() {
		i++
		if _, err := h.Apply(blob{Key: i, Val: 1}); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Read(blob{Key: i}); err != nil {
			t.Fatal(err)
		}
		if _, err := h.ApplyOperand(blob{Key: i}, data); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Apply(blob{Kind: 7, Val: 1}); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Read(blob{Kind: 7}); err != nil {
			t.Fatal(err)
		}
	}))
}
