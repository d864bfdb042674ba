package nr_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"testing"

	"dinos/nr"
	"dinos/shmem/region"

	"github.com/stretchr/testify/require"
)

// blob is an op for structures that take any value without harm.
type blob struct {
	Key  uint32
	Kind uint16
	Pad  [2]uint8
	Val  uint64
}

// blobs keeps sums and copies of operands.
type blobs struct {
	sums [8]uint64
	last []byte
}

func (b *blobs) Read(op blob) uint64 { return b.sums[op.Key%8] }
func (b *blobs) Apply(op blob) uint64 {
	b.sums[op.Key%8] += op.Val
	return b.sums[op.Key%8]
}
func (b *blobs) ReadOperand(op blob, data []byte) uint64 { return uint64(len(b.last) - len(data)) }
func (b *blobs) ApplyOperand(op blob, data []byte) uint64 {
	b.last = append(b.last[:0], data...)
	return uint64(len(data))
}
func (b *blobs) Snapshot(w io.Writer) error { return binary.Write(w, binary.LittleEndian, b.sums) }
func (b *blobs) Restore(r io.Reader) error  { return binary.Read(r, binary.LittleEndian, &b.sums) }

// impatient gives up, as a kernel does that gets no answer.
type impatient struct{}

func (impatient) Wait(w nr.Wait) bool { return w.Attempt < 20 }

func blobConfig(logs int) nr.Config[blob, uint64] {
	return nr.Config[blob, uint64]{
		New: func(int) nr.Structure[blob, uint64] { return new(blobs) }, Logs: logs,
		Route: func(op blob) int {
			if op.Kind%8 == 7 {
				return nr.AllLogs
			}
			return int(op.Key) % logs
		},
		ApplyAll: func(parts []nr.Structure[blob, uint64], op blob) (n uint64) {
			for _, p := range parts {
				n += p.Apply(op)
			}
			return n
		},
		ReadAll: func(parts []nr.Structure[blob, uint64], op blob) (n uint64) {
			for _, p := range parts {
				n += p.Read(op)
			}
			return n
		},
		Entries: 8, Replicas: 3, ArenaBytes: 256, Threads: 2, Patience: 2, Waiter: impatient{},
	}
}

// hostile runs a rack over memory into which script writes between operations. All that matters is that every call comes
// back, with an error or not.
func hostile(t *testing.T, script []byte) {
	next := func() uint64 {
		var b [8]byte
		n := copy(b[:], script)
		script = script[n:]
		return binary.LittleEndian.Uint64(b[:])
	}
	logs := 1 + int(next()&1)
	cfg := blobConfig(logs)
	size, err := cfg.Size()
	require.NoError(t, err)
	mem := region.Slab(int(size))
	require.NoError(t, nr.Format(mem, cfg))
	var (
		insts []*nr.Instance[blob, uint64]
		reps  []*nr.Replica[blob, uint64]
		hs    []*nr.Handle[blob, uint64]
		snap  bytes.Buffer
		ids   []nr.ID
	)
	attach := func(rep *nr.Replica[blob, uint64], err error) {
		if err != nil {
			return
		}
		h, err := rep.Register()
		require.NoError(t, err)
		reps, hs, ids = append(reps, rep), append(hs, h), append(ids, rep.ID())
	}
	open := func() {
		if in, err := nr.Open(mem, cfg); err == nil && len(insts) < 4 {
			insts = append(insts, in)
		}
	}
	for range 2 {
		open()
		attach(insts[len(insts)-1].First())
	}
	for step := 0; len(script) > 0 && step < 200; step++ {
		x := next()
		i, arg := int(x>>8&0xff), x>>16
		h, in := hs[i%len(hs)], insts[i%len(insts)]
		op := blob{Key: uint32(arg), Kind: uint16(arg >> 8), Val: arg}
		switch x & 15 {
		case 0, 1:
			if h.Pending() {
				_, _ = h.Resume()
			} else {
				_, _ = h.Apply(op)
			}
		case 2:
			_, _ = h.Read(op)
		case 3:
			_, _ = h.ApplyOperand(op, bytes.Repeat([]byte{byte(arg)}, int(arg>>8%200)))
		case 4:
			_ = reps[i%len(reps)].Sync()
		case 5:
			_ = in.Evict(ids[int(arg)%len(ids)], arg>>8&1 == 0)
		case 6:
			snap.Reset()
			if id, err := reps[i%len(reps)].Donate(&snap, nil); err == nil {
				ids = append(ids, id)
			}
		case 7:
			b := bytes.Clone(snap.Bytes())
			if len(b) > 0 && arg&3 == 0 {
				b[int(arg>>8)%len(b)] ^= byte(arg >> 2)
			}
			if len(hs) < 6 {
				attach(in.Join(bytes.NewReader(b)))
			}
		case 8:
			open()
			_ = in.Members()
			for _, l := range in.Logs() {
				require.NoError(t, l.Dump(io.Discard, 20))
			}
		case 9:
			_ = reps[i%len(reps)].Close()
		default:
			// Scribble: a word, often near the start, where the words that matter are, with a value that may be close to good.
			off := arg % uint64(len(mem)/8) * 8
			if arg>>32&1 == 0 {
				off = off % 4096
			}
			old := binary.LittleEndian.Uint64(mem[off:])
			v := next()
			switch arg >> 33 & 3 {
			case 0:
				v = old + v%16 - 8
			case 1:
				v = old ^ 1<<(v%64)
			case 2:
				v = old&(1<<48-1) | v<<48
			}
			binary.LittleEndian.PutUint64(mem[off:], v)
		}
	}
}

// FuzzHostileRegion: any bytes in the shared memory give errors, never a crash, a hang or an access outside. Run it
// with go test -fuzz HostileRegion ./nr; TestHostileRegion runs some thousand scripts of a fixed seed.
func FuzzHostileRegion(f *testing.F) {
	for seed := range uint64(16) {
		f.Add(hostileScript(seed))
	}
	f.Fuzz(func(t *testing.T, script []byte) { hostile(t, script) })
}

func hostileScript(seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 7))
	b := make([]byte, 8*(1+r.IntN(150)))
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
	return b
}

func TestHostileRegion(t *testing.T) {
	n := uint64(1500)
	if testing.Short() {
		n = 200
	}
	t.Logf("seeds 0 to %d", n-1)
	for seed := range n {
		hostile(t, hostileScript(seed))
	}
}

// TestHostileHeader scribbles on each word of headers and tables before Open.
func TestHostileHeader(t *testing.T) {
	cfg := blobConfig(2)
	size, err := cfg.Size()
	require.NoError(t, err)
	for off := 0; off < 3000; off += 8 {
		for _, v := range []uint64{0, 1, 3, 1 << 31, 1 << 32, 1<<63 - 1, 1 << 63, ^uint64(0)} {
			mem := region.Slab(int(size))
			require.NoError(t, nr.Format(mem, cfg))
			binary.LittleEndian.PutUint64(mem[off:], v)
			in, err := nr.Open(mem, cfg)
			if err != nil {
				continue
			}
			rep, err := in.First()
			if err != nil {
				continue
			}
			h, err := rep.Register()
			require.NoError(t, err)
			for k := range uint32(10) {
				_, _ = h.Apply(blob{Key: k, Kind: uint16(k), Val: 1})
			}
		}
	}
}

// TestTruncatedMemory opens every shorter prefix of a formatted memory.
func TestTruncatedMemory(t *testing.T) {
	cfg := blobConfig(2)
	size, err := cfg.Size()
	require.NoError(t, err)
	mem := region.Slab(int(size))
	require.ErrorIs(t, nr.Format(mem[:size-64], cfg), nr.ErrConfig)
	require.NoError(t, nr.Format(mem, cfg))
	for n := 0; n < int(size)-region.PadSize; n += 32 {
		_, err := nr.Open(mem[:n], cfg)
		require.Error(t, err, "%d of %d bytes", n, size)
	}
}
