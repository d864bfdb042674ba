package oplog

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"dinos/shmem/region"

	"github.com/stretchr/testify/require"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

func newTestLog(t testing.TB, c Config) (*Log, region.Region) {
	t.Helper()
	size, err := c.Size()
	require.NoError(t, err)
	r, err := region.New(region.Slab(int(size)))
	require.NoError(t, err)
	require.NoError(t, Format(r, c))
	l, err := Open(r)
	require.NoError(t, err)
	return l, r
}

func join(t testing.TB, l *Log, pos uint64) *Member {
	t.Helper()
	id, err := l.Claim(pos, 0)
	require.NoError(t, err)
	m, err := l.Activate(id, [MaxSlots]Gen{})
	require.NoError(t, err)
	return m
}

func appendOps(t testing.TB, m *Member, ops ...uint64) {
	t.Helper()
	at := make([]uint64, len(ops))
	n, err := m.Append(ops, make([][]byte, len(ops)), at)
	require.NoError(t, err)
	require.Equal(t, len(ops), n)
}

// drain consumes everything and returns the ops.
func drain(t testing.TB, m *Member) (out []uint64) {
	t.Helper()
	c := m.log.NewChunk()
	for m.Pos() < m.log.Tail() {
		was := m.Pos()
		stop, err := m.Fetch(c, m.log.Tail(), 0)
		require.NoError(t, err)
		for i := range c.Items {
			out = append(out, c.Ops[i*m.log.opWords])
		}
		if stop == AtHole && m.Pos() == was {
			_, _, err := m.Blocked(1 << 20)
			require.NoError(t, err)
		}
	}
	return out
}

var small = Config{Entries: 8, OpSize: 8, Slots: 3, Generation: 5}

func TestConfigErrors(t *testing.T) {
	for _, c := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.Entries = 12 }, "12 entries, want a power of two from 4"},
		{func(c *Config) { c.Entries = 2 }, "2 entries, want"},
		{func(c *Config) { c.OpSize = 0 }, "ops of 0 bytes, want 1 to 4096"},
		{func(c *Config) { c.OpSize = MaxOpSize + 1 }, "ops of 4097 bytes"},
		{func(c *Config) { c.Slots = 0 }, "0 replica slots, want 1 to 64"},
		{func(c *Config) { c.Slots = 65 }, "65 replica slots"},
		{func(c *Config) { c.ArenaBytes = 100 }, "arena of 100 bytes, want a multiple of 64"},
	} {
		cfg := small
		c.change(&cfg)
		_, err := cfg.Size()
		require.ErrorIs(t, err, ErrConfig)
		require.ErrorContains(t, err, c.want)
	}
	size, err := small.Size()
	require.NoError(t, err)
	r, err := region.New(region.Slab(int(size) - 64))
	require.NoError(t, err)
	require.ErrorIs(t, Format(r, small), ErrConfig)
	_, err = Open(r)
	require.ErrorContains(t, err, "not an operation log")
}

// TestLayout pins the offsets that the package comment documents.
func TestLayout(t *testing.T) {
	l, r := newTestLog(t, Config{Entries: 8, OpSize: 24, Slots: 3, ArenaBytes: 128, Generation: 5, Fingerprint: 0xf1})
	a := join(t, l, 0)
	at := make([]uint64, 2)
	n, err := a.Append([]uint64{1, 2, 3, 4, 5, 6}, [][]byte{nil, []byte("operand!!")}, at)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	c := l.NewChunk()
	_, err = a.Fetch(c, 2, 0)
	require.NoError(t, err)
	require.NoError(t, l.Complete(2))
	for _, w := range []struct {
		off  region.Off
		want uint64
	}{
		{0x00, Magic}, {0x08, LayoutVersion}, {0x10, 5}, {0x18, 8}, {0x20, 24}, {0x28, 3}, {0x30, 128}, {0x38, 0xf1},
		{0x80, 2}, {0x100, 2}, {0x180, 1 << 48}, {0x200, 0}, {0x280, 1<<50 | 2<<48 | 2}, {0x300, 0},
		{0x400, 1<<32 | 1<<16 | 2}, {0x408, 0}, {0x410, 1}, {0x420, 3},
		{0x440, 1<<32 | 1<<16 | 2}, {0x448, 9}, {0x450, 4}, {0x600, 0x21646e617265706f},
	} {
		got, err := r.LoadU64(w.off)
		require.NoError(t, err)
		require.Equal(t, w.want, got, "offset %#x", w.off)
	}
}

func TestGoldenDump(t *testing.T) {
	l, _ := newTestLog(t, Config{Entries: 8, OpSize: 8, Slots: 4, ArenaBytes: 128, Generation: 3, Fingerprint: 0xabc})
	a, b, c := join(t, l, 0), join(t, l, 0), join(t, l, 0)
	for i := range uint64(3) {
		appendOps(t, a, 0x10+i, 0x20+i)
		drain(t, a)
		drain(t, b)
		drain(t, c)
	}
	_, err := b.Append([]uint64{0x77}, [][]byte{[]byte("twelve bytes")}, make([]uint64, 1))
	require.NoError(t, err)
	// c dies with one entry stamped and one only reserved.
	room := uint64(0)
	p, ok, err := l.reserve(2, &room)
	require.True(t, ok)
	require.NoError(t, err)
	e := l.ring.At(p).Word(0)
	require.True(t, e.CompareAndSwap(e.Load(), entryWord(l.lap(p), c.id.Gen, c.id.Slot, KindReserved)))
	ok, err = l.Mark(0)
	require.True(t, ok)
	require.NoError(t, err)
	var out bytes.Buffer
	require.NoError(t, l.Dump(&out, 100))
	require.NoError(t, l.Evict(c.ID()))
	require.NoError(t, l.Dump(&out, 4))
	golden(t, "dump.txt", out.Bytes())
}

func golden(t *testing.T, name string, got []byte) {
	path := filepath.Join("testdata", name)
	if *rewrite {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got), "go test -rewrite accepts the new form")
}

// TestWrap goes a tiny ring round many times; the memory stays what it is.
func TestWrap(t *testing.T) {
	n := uint64(200_000)
	if os.Getenv("DINOS_LONG") == "1" {
		n = 1_000_000_000
	}
	l, _ := newTestLog(t, Config{Entries: 4, OpSize: 8, Slots: 2})
	a, b := join(t, l, 0), join(t, l, 0)
	ca, cb := l.NewChunk(), l.NewChunk()
	ops, data, at := make([]uint64, 2), make([][]byte, 2), make([]uint64, 2)
	allocs := testing.AllocsPerRun(1, func() {
		for i := uint64(0); i < n; i += 2 {
			ops[0], ops[1] = i, i+1
			if k, err := a.Append(ops, data, at); k != 2 || err != nil {
				t.Fatal(k, err)
			}
			for _, m := range []struct {
				m *Member
				c *Chunk
			}{{a, ca}, {b, cb}} {
				if _, err := m.m.Fetch(m.c, l.Tail(), 0); err != nil || len(m.c.Items) != 2 || m.c.Ops[1] != i+1 {
					t.Fatal(i, err, m.c.Items, m.c.Ops[:2])
				}
			}
		}
	})
	require.Zero(t, allocs)
	require.Equal(t, 2*n, l.Tail()) // AllocsPerRun runs it twice
	require.GreaterOrEqual(t, l.Head()+4, l.Tail())
}

func TestFullNamesTheSlowest(t *testing.T) {
	l, _ := newTestLog(t, small)
	a, b := join(t, l, 0), join(t, l, 0)
	appendOps(t, a, 1, 2, 3, 4)
	appendOps(t, a, 5, 6, 7, 8)
	drain(t, a)
	n, err := a.Append([]uint64{9}, [][]byte{nil}, make([]uint64, 1))
	require.NoError(t, err)
	require.Zero(t, n)
	by, err := a.Full()
	require.NoError(t, err)
	require.Equal(t, Blocker{0, b.ID().Slot, b.ID().Gen}, by)
	require.Equal(t, []uint64{1, 2, 3, 4, 5, 6, 7, 8}, drain(t, b))
	appendOps(t, a, 9)
	require.Equal(t, []uint64{9}, drain(t, b))
}

// TestDeadCombiner leaves each kind of hole and checks that others get past it, without the authority where nobody stamped.
func TestDeadCombiner(t *testing.T) {
	l, _ := newTestLog(t, small)
	a, dead := join(t, l, 0), join(t, l, 0)
	room := uint64(0)
	p, ok, err := l.reserve(2, &room)
	require.True(t, ok && err == nil && p == 0)
	e := l.ring.At(0).Word(0)
	require.True(t, e.CompareAndSwap(0, entryWord(1, dead.id.Gen, dead.id.Slot, KindReserved)))
	appendOps(t, a, 42)

	c := l.NewChunk()
	stop, err := a.Fetch(c, 3, 0)
	require.NoError(t, err)
	require.Equal(t, AtHole, stop)
	by, done, err := a.Blocked(1 << 20)
	require.NoError(t, err)
	require.False(t, done, "a live writer's entry was taken away")
	require.Equal(t, Blocker{0, dead.id.Slot, dead.id.Gen}, by)

	require.NoError(t, l.Evict(dead.ID()))
	require.Equal(t, KindRetired, l.Entry(0).Kind)
	require.Equal(t, KindNoop, l.Entry(1).Kind)
	require.Equal(t, []uint64{42}, drain(t, a))

	// The dead one was only slow. Whatever it does is without effect, and it learns.
	e.CompareAndSwap(entryWord(1, dead.id.Gen, dead.id.Slot, KindReserved), entryWord(1, dead.id.Gen, dead.id.Slot, KindOp))
	require.Equal(t, KindRetired, l.Entry(0).Kind)
	_, err = dead.Append([]uint64{1}, [][]byte{nil}, make([]uint64, 1))
	require.ErrorIs(t, err, ErrEvicted)
	_, err = dead.Fetch(c, l.Tail(), 0)
	require.ErrorIs(t, err, ErrEvicted)

	// Its entry stays out of use for as many laps as it takes, until it has let go.
	for i := range uint64(20) {
		appendOps(t, a, i)
		drain(t, a)
	}
	require.Equal(t, KindRetired, entryKind(l.ring.At(0).Word(0).Load()))
	require.NoError(t, dead.Leave())
	for i := range uint64(20) {
		appendOps(t, a, i)
		drain(t, a)
	}
	require.Equal(t, KindOp, entryKind(l.ring.At(0).Word(0).Load()))
}

// TestUnstampedHole: nobody is evicted, patience is enough.
func TestUnstampedHole(t *testing.T) {
	l, _ := newTestLog(t, small)
	a := join(t, l, 0)
	room := uint64(0)
	_, _, err := l.reserve(3, &room)
	require.NoError(t, err)
	appendOps(t, a, 7)
	c := l.NewChunk()
	for attempt := range DefaultPatience {
		_, done, err := a.Blocked(attempt)
		require.NoError(t, err)
		require.False(t, done, "impatient at attempt %d", attempt)
	}
	_, err = a.Fetch(c, 1, 0)
	require.NoError(t, err)
	require.Zero(t, a.Pos())
	require.Equal(t, []uint64{7}, drain(t, a))
}

// TestForgedEntryBehindFence: an evicted writer that does not look at its slot, or lies, is ignored behind its fence.
func TestForgedEntryBehindFence(t *testing.T) {
	l, _ := newTestLog(t, small)
	a, evil := join(t, l, 0), join(t, l, 0)
	appendOps(t, evil, 1)
	require.NoError(t, l.Evict(evil.ID()))
	evil.mine, evil.gone = new(word), nil // it does not look where it is told that it is out
	evil.mine.Store(evil.word)
	appendOps(t, evil, 2, 3)
	appendOps(t, a, 4)
	require.Equal(t, []uint64{1, 4}, drain(t, a))
}

func TestEvictIsIdempotent(t *testing.T) {
	l, _ := newTestLog(t, small)
	a, b := join(t, l, 0), join(t, l, 0)
	require.NoError(t, l.Evict(b.ID()))
	require.NoError(t, l.Evict(b.ID()))
	require.NoError(t, l.Release(b.ID()))
	require.NoError(t, l.Evict(b.ID()), "it is gone already")
	require.ErrorIs(t, l.Release(b.ID()), ErrStale)
	require.ErrorIs(t, l.Evict(ID{1, 9}), ErrStale)
	require.ErrorIs(t, l.Evict(ID{5, 1}), ErrStale)
	require.ErrorIs(t, l.Evict(ID{-1, 1}), ErrStale)
	appendOps(t, a, 1)
	require.Equal(t, []uint64{1}, drain(t, a))
}

func TestClaim(t *testing.T) {
	l, _ := newTestLog(t, small)
	a := join(t, l, 0)
	for range 3 {
		appendOps(t, a, 1, 2, 3, 4)
		drain(t, a)
	}
	_, err := l.Collect()
	require.NoError(t, err)
	_, err = l.Claim(3, 0)
	require.ErrorIs(t, err, ErrBehind)
	_, err = l.Claim(13, 0)
	require.ErrorIs(t, err, ErrBehind)
	id, err := l.Claim(12, 0)
	require.NoError(t, err)
	_, err = l.Activate(ID{id.Slot, id.Gen + 1}, [MaxSlots]Gen{})
	require.ErrorIs(t, err, ErrStale)
	// A joiner holds the log, and an evicted joiner does not, and cannot activate.
	appendOps(t, a, 1, 2, 3, 4)
	drain(t, a)
	appendOps(t, a, 1, 2, 3, 4)
	drain(t, a)
	n, err := a.Append([]uint64{1}, [][]byte{nil}, make([]uint64, 1))
	require.NoError(t, err)
	require.Zero(t, n)
	require.NoError(t, l.Evict(id))
	appendOps(t, a, 1)
	_, err = l.Activate(id, [MaxSlots]Gen{})
	require.ErrorIs(t, err, ErrStale)
}

// TestIncarnationsDoNotComeBack uses up a slot.
func TestIncarnationsDoNotComeBack(t *testing.T) {
	l, _ := newTestLog(t, Config{Entries: 4, OpSize: 8, Slots: 1})
	for g := Gen(1); g <= MaxGen; g++ {
		m := join(t, l, 0)
		require.Equal(t, ID{0, g}, m.ID())
		require.NoError(t, m.Leave())
	}
	_, err := l.Claim(0, 0)
	require.ErrorIs(t, err, ErrNoSlot)
}

func TestFormatKeepsIncarnations(t *testing.T) {
	l, r := newTestLog(t, small)
	old := join(t, l, 0)
	appendOps(t, old, 1)
	c := small
	c.Generation++
	require.NoError(t, Format(r, c))
	l2, err := Open(r)
	require.NoError(t, err)
	m := join(t, l2, 0)
	m2 := join(t, l2, 0)
	m3 := join(t, l2, 0)
	require.Contains(t, []Gen{m.ID().Gen, m2.ID().Gen, m3.ID().Gen}, Gen(2))
	_, err = old.Append([]uint64{1}, [][]byte{nil}, make([]uint64, 1))
	require.ErrorIs(t, err, ErrEvicted)
	require.ErrorIs(t, l.Alive(), ErrEvicted)
}

func TestExhausted(t *testing.T) {
	l, _ := newTestLog(t, small)
	for _, w := range []*word{l.tail, l.ctail, l.head} {
		w.Store(maxPos)
	}
	for i := range uint64(8) { // the entries are those of the lap before
		l.ring.At(maxPos + i).Word(0).Store(entryWord(l.lap(maxPos+i)-1, 0, 0, KindNoop))
	}
	m := join(t, l, maxPos)
	appendOps(t, m, 1)
	require.Equal(t, []uint64{1}, drain(t, m))
	_, err := m.Append([]uint64{2}, [][]byte{nil}, make([]uint64, 1))
	require.ErrorIs(t, err, ErrExhausted)
}

func TestOperands(t *testing.T) {
	l, _ := newTestLog(t, Config{Entries: 16, OpSize: 8, Slots: 2, ArenaBytes: 256})
	a, b := join(t, l, 0), join(t, l, 0)
	ca, cb := l.NewChunk(), l.NewChunk()
	_, err := a.Append([]uint64{0}, [][]byte{make([]byte, 129)}, make([]uint64, 1))
	require.ErrorIs(t, err, ErrOperand)
	for i := range 500 {
		want := bytes.Repeat([]byte{byte(i)}, 1+i*7%128)
		n, err := a.Append([]uint64{uint64(i), 0}, [][]byte{want, nil}, make([]uint64, 2))
		require.NoError(t, err)
		require.Equal(t, 2, n)
		for _, m := range []struct {
			m *Member
			c *Chunk
		}{{a, ca}, {b, cb}} {
			_, err := m.m.Fetch(m.c, l.Tail(), 0)
			require.NoError(t, err)
			require.Len(t, m.c.Items, 2)
			require.Equal(t, want, m.c.Items[0].Data)
			require.Empty(t, m.c.Items[1].Data)
		}
	}
	// While b does not consume, operands stay where they are: the arena fills up, and ops that find no room are not appended.
	total := 0
	for {
		n, err := a.Append([]uint64{1, 2}, [][]byte{make([]byte, 40), make([]byte, 100)}, make([]uint64, 2))
		require.NoError(t, err)
		total += n
		_, err = a.Fetch(ca, l.Tail(), 0)
		require.NoError(t, err)
		if n < 2 {
			break
		}
	}
	require.Less(t, total, 6)
	require.Len(t, drain(t, b), total)
	n, err := a.Append([]uint64{1}, [][]byte{make([]byte, 100)}, make([]uint64, 1))
	require.NoError(t, err)
	require.Equal(t, 1, n)
}

// TestArenaOfNextIncarnation: a replica that takes over a slot does not overwrite operands of its predecessor that are still to be read.
func TestArenaOfNextIncarnation(t *testing.T) {
	l, _ := newTestLog(t, Config{Entries: 16, OpSize: 8, Slots: 2, ArenaBytes: 128})
	a, b := join(t, l, 0), join(t, l, 0)
	_, err := a.Append([]uint64{1}, [][]byte{[]byte("keep this")}, make([]uint64, 1))
	require.NoError(t, err)
	drain(t, a)
	require.NoError(t, a.Leave())
	a2 := join(t, l, 1)
	require.Equal(t, a.ID().Slot, a2.ID().Slot)
	n, err := a2.Append([]uint64{2}, [][]byte{[]byte("instead")}, make([]uint64, 1))
	require.NoError(t, err)
	require.Zero(t, n, "the arena is not free yet")
	c := l.NewChunk()
	_, err = b.Fetch(c, l.Tail(), 0)
	require.NoError(t, err)
	require.Equal(t, "keep this", string(c.Items[0].Data))
	n, err = a2.Append([]uint64{2}, [][]byte{[]byte("instead")}, make([]uint64, 1))
	require.NoError(t, err)
	require.Equal(t, 1, n)
}

func TestMarkers(t *testing.T) {
	l, _ := newTestLog(t, small)
	m := join(t, l, 0)
	c := l.NewChunk()
	for x := range uint64(1 << 17) { // past the wrap of the 16-bit counter
		placed, _ := l.Crossed(x)
		require.False(t, placed)
		ok, err := l.Mark(x)
		require.True(t, ok && err == nil)
		ok, err = l.Mark(x) // a second helper finds it there
		require.True(t, ok && err == nil)
		placed, pos := l.Crossed(x)
		require.True(t, placed)
		require.Equal(t, x+1, pos)
		stop, err := m.Fetch(c, l.Tail(), x)
		require.NoError(t, err)
		require.Equal(t, AtBarrier, stop)
		_, err = m.Fetch(c, l.Tail(), x+1)
		require.NoError(t, err)
		require.Equal(t, x+1, m.Pos())
	}
}

func BenchmarkAppendFetch(b *testing.B) {
	l, _ := newTestLog(b, Config{Entries: 1 << 12, OpSize: 8, Slots: 2})
	m := join(b, l, 0)
	c := l.NewChunk()
	ops, data, at := make([]uint64, 1), make([][]byte, 1), make([]uint64, 1)
	b.ReportAllocs()
	for b.Loop() {
		if n, err := m.Append(ops, data, at); n != 1 || err != nil {
			b.Fatal(n, err)
		}
		if _, err := m.Fetch(c, l.Tail(), 0); err != nil {
			b.Fatal(err)
		}
	}
}
