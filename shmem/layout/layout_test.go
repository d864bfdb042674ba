package layout

import (
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"dinos/shmem/region"
	"dinos/shmem/ring"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files")

// small is the least rack that has everything: a ckernel, a dkernel, a log, a few slices.
var small = Config{Size: 8 << 20, Machines: 2, RingBytes: 4096, HostRingBytes: 4096, InboxSlots: 16, Logs: 1, LogBytes: 4096}

func memory(t require.TestingT, n uint64) region.Region {
	r, err := region.New(region.Slab(int(n)))
	require.NoError(t, err)
	return r
}

func format(t require.TestingT, c Config) *Rack {
	k, err := Format(memory(t, c.Size), c, 5)
	require.NoError(t, err)
	return k
}

func golden(t *testing.T, name, got string) {
	path := filepath.Join("testdata", name+".golden")
	if *rewrite {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err, "go test -rewrite makes it")
	require.Equal(t, string(want), got)
}

// TestGolden pins the layout: whoever changes a golden file raises Version.
func TestGolden(t *testing.T) {
	k := format(t, small)
	m, err := k.Machine(k.Region, 1)
	require.NoError(t, err)
	m.Begin('d', 3, 12345)
	m.State.Store(uint64(StateUp))
	m.Stat[StatCalls].Store(17)
	m.Mailbox[2].Store(0xabc)
	r, data, err := k.RingRegion(k.Region, 1, k.Host())
	require.NoError(t, err)
	tx, err := ring.AttachTx(r, data, nil)
	require.NoError(t, err)
	require.NoError(t, tx.Push(nil, []byte("hello")))
	require.NoError(t, tx.Flush())
	for name, part := range map[string]string{"super": "super", "map": "map", "machine": "machine:1", "ring": "ring:1:2",
		"inbox": "inbox:0", "raw": "raw:0:0x60", "all": "all"} {
		var b strings.Builder
		require.NoError(t, Dump(&b, k.Region, part, DumpOptions{}))
		golden(t, name, b.String())
	}
	var b strings.Builder
	l, err := Compute(Config{Size: 1 << 30, Machines: 5})
	require.NoError(t, err)
	require.NoError(t, Dump(&b, k.Region, "map", DumpOptions{Config: &l.Config}))
	golden(t, "map5", b.String())
}

// TestAreasAreDisjoint checks every part of random racks: inside, aligned, not shared, and found again by Open.
func TestAreasAreDisjoint(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := Config{
			Machines:      rapid.IntRange(1, 6).Draw(t, "machines"),
			RingBytes:     4096 << rapid.IntRange(0, 3).Draw(t, "ring"),
			HostRingBytes: 4096 << rapid.IntRange(0, 3).Draw(t, "host ring"),
			InboxSlots:    16 << rapid.IntRange(0, 2).Draw(t, "inbox"),
			Logs:          rapid.SampledFrom([]int{NoLogs, 1, 3}).Draw(t, "logs"),
			LogBytes:      4096 * rapid.Uint64Range(1, 5).Draw(t, "log"),
		}
		slices := rapid.Uint64Range(1, 3).Draw(t, "slices")
		var err error
		c.Size, err = MinSize(c, slices)
		require.NoError(t, err)
		k := format(t, c)
		require.Equal(t, slices, k.Slices.Count)
		type span struct {
			off, end uint64
			name     string
		}
		spans := []span{{0, SuperBytes, "super"}}
		add := func(name string, off region.Off, n, align uint64) {
			require.Zero(t, uint64(off)%align, name)
			require.LessOrEqual(t, uint64(off)+n, k.Region.Len(), name)
			spans = append(spans, span{uint64(off), uint64(off) + n, name})
		}
		for i := range k.Peers() {
			add(fmt.Sprint("machine ", i), k.Machines.At(uint64(i)), MachineBytes, region.PadSize)
			add(fmt.Sprint("inbox ", i), k.Inboxes.At(uint64(i)), ring.MultiBytes(k.Config.InboxSlots, InboxSlotSize), region.PadSize)
			for j := range k.Peers() {
				off, data, err := k.Ring(i, j)
				require.Equal(t, i == j, err != nil)
				if err == nil {
					add(fmt.Sprint("ring ", i, j), off, ring.Bytes(data), region.PadSize)
				}
			}
		}
		add("grants", k.Grants.Off, GrantBytes(k.Slices.Count, k.Config.Machines), PageSize)
		for i := range k.Config.Logs {
			off, err := k.Log(i)
			require.NoError(t, err)
			add(fmt.Sprint("log ", i), off, k.Config.LogBytes, PageSize)
		}
		for i := range k.Slices.Count {
			off, err := k.Slice(i)
			require.NoError(t, err)
			add(fmt.Sprint("slice ", i), off, SliceSize, SliceSize)
		}
		sort.Slice(spans, func(i, j int) bool { return spans[i].off < spans[j].off })
		for i := 1; i < len(spans); i++ {
			require.LessOrEqual(t, spans[i-1].end, spans[i].off, "%s and %s", spans[i-1].name, spans[i].name)
		}
		again, err := Open(k.Region)
		require.NoError(t, err)
		require.Equal(t, k.Layout, again.Layout)
	})
}

func TestBadConfiguration(t *testing.T) {
	for want, c := range map[string]Config{
		"size 0, want a multiple of 2097152":      {Machines: 2},
		"size 5000000, want":                      {Size: 5000000, Machines: 2},
		"0 machines, want 1 to 32":                {Size: 64 << 20},
		"33 machines, want 1 to 32":               {Size: 64 << 20, Machines: 33},
		"rings of 5000 bytes":                     {Size: 64 << 20, Machines: 2, RingBytes: 5000},
		"host rings of 33554432 bytes":            {Size: 64 << 20, Machines: 2, HostRingBytes: 32 << 20},
		"inboxes of 8 slots":                      {Size: 64 << 20, Machines: 2, InboxSlots: 8},
		"-2 logs":                                 {Size: 64 << 20, Machines: 2, Logs: -2},
		"logs of 100 bytes":                       {Size: 64 << 20, Machines: 2, LogBytes: 100},
		"want at least 37748736: 35651584 of con": {Size: 4 << 20, Machines: 2},
	} {
		_, err := Compute(c)
		require.ErrorContains(t, err, want)
	}
	_, err := Format(memory(t, 4<<20), small, 1)
	require.ErrorIs(t, err, ErrTooSmall)
	_, err = Format(memory(t, 8<<20), small, 0)
	require.ErrorIs(t, err, ErrConfig)
	k := format(t, small)
	for _, err := range []error{second(k.Machine(k.Region, 3)), second(k.Log(1)), second(k.Slice(k.Slices.Count)),
		second(k.InboxRegion(k.Region, -1))} {
		require.ErrorIs(t, err, ErrNoSuch)
	}
}

func second[T any](_ T, err error) error { return err }

func TestOpenRefuses(t *testing.T) {
	open := func(k *Rack, n uint64) error {
		r, err := k.Region.Sub(0, n)
		require.NoError(t, err)
		return second(Open(r))
	}
	k := format(t, small)
	require.NoError(t, open(k, small.Size))
	require.ErrorIs(t, open(k, 4<<20), ErrTooSmall)
	require.ErrorContains(t, open(k, 4<<20), "4194304 bytes, the rack was formatted for 8388608")
	require.ErrorIs(t, open(k, 512), ErrTooSmall)

	require.NoError(t, k.Region.StoreU64(8, Version+1))
	err := open(k, small.Size)
	require.ErrorIs(t, err, ErrVersion)
	require.ErrorContains(t, err, fmt.Sprintf("%d in memory, this build has %d", Version+1, Version))

	require.NoError(t, k.Region.StoreU64(0, 77))
	require.ErrorIs(t, open(k, small.Size), ErrUnformatted)
	require.ErrorIs(t, second(Open(memory(t, 8192))), ErrUnformatted)
}

// TestCorruptSuperblock flips every bit of what Open reads: it notices each.
func TestCorruptSuperblock(t *testing.T) {
	k := format(t, small)
	for off := region.Off(0); off <= offCheck; off += 8 {
		for bit := range 64 {
			w, err := k.Region.LoadU64(off)
			require.NoError(t, err)
			require.NoError(t, k.Region.StoreU64(off, w^1<<bit))
			_, err = Open(k.Region)
			require.Error(t, err, "offset %#x bit %d", off, bit)
			require.NoError(t, k.Region.StoreU64(off, w))
		}
	}
	require.NoError(t, second(Open(k.Region)))
}

// TestDumpOfGarbage prints every part of memory in which words were flipped at random, and of pure noise.
func TestDumpOfGarbage(t *testing.T) {
	const seed = 12
	rnd := rand.New(rand.NewPCG(seed, seed))
	k := format(t, small)
	parts := []string{"all", "map", "super", "machines", "machine:1", "rings", "ring:0:1", "ring:0:2", "inboxes", "inbox:2", "grants",
		"logs", "log:0"}
	for range 30 {
		for range 200 {
			off := region.Off(rnd.IntN(int(k.Slices.Off)/8) * 8)
			if rnd.IntN(2) == 0 {
				off = region.Off(rnd.IntN(4096/8) * 8)
			}
			w, err := k.Region.LoadU64(off)
			require.NoError(t, err)
			require.NoError(t, k.Region.StoreU64(off, w^1<<rnd.IntN(64)))
		}
		for _, p := range parts {
			_ = Dump(io.Discard, k.Region, p, DumpOptions{}) // it may refuse; it must come back
			require.NoError(t, Dump(io.Discard, k.Region, p, DumpOptions{Config: &small}), p)
		}
	}
	for _, p := range []string{"", "nothing", "ring", "ring:1", "ring:1:1", "ring:0:9", "machine:x", "machine:3", "slice:100", "raw:1:8",
		"raw:0:0x1000000", "raw:0x7ffffffffffffff8:16", "machine:1:2", "log:1"} {
		require.ErrorIs(t, Dump(io.Discard, k.Region, p, DumpOptions{Config: &small}), ErrNoSuch, p)
	}
}

// TestMachineLives checks that generations only grow, and that a life that was fenced is never taken up again.
func TestMachineLives(t *testing.T) {
	k := format(t, small)
	m, err := k.Machine(k.Region, 1)
	require.NoError(t, err)
	require.EqualValues(t, 1, m.Begin('d', 0, 1))
	require.EqualValues(t, 2, m.Begin('d', 4, 2))
	require.False(t, m.Fenced(2))
	m.Fence.Store(9)
	require.True(t, m.Fenced(2))
	require.EqualValues(t, 10, m.Begin('d', 4, 3))
	id, err := m.DoorbellID(8)
	require.NoError(t, err)
	require.Equal(t, 4, id)
	m.Doorbell.Store(1 << 40)
	_, err = m.DoorbellID(8)
	require.ErrorIs(t, err, ErrNoSuch)
	for s := range Stats {
		require.NotEmpty(t, s.String())
	}
}
