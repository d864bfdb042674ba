package grant

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/shmem/layout"
	"dinos/shmem/region"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files")

const (
	rackGen  = 9
	machines = 4
)

// rack is a rack whose memory ends behind the grant table; nothing else of it is looked at.
func rack(t require.TestingT, slices uint64) *layout.Rack {
	c := layout.Config{Machines: machines, RingBytes: 4096, HostRingBytes: 4096, InboxSlots: 16, Logs: 1, LogBytes: 4096}
	var err error
	c.Size, err = layout.MinSize(c, slices)
	require.NoError(t, err)
	l, err := layout.Compute(c)
	require.NoError(t, err)
	require.Equal(t, slices, l.Slices.Count)
	r, err := region.New(region.Slab(int(l.Grants.End())))
	require.NoError(t, err)
	return &layout.Rack{Layout: l, Region: r, Generation: rackGen}
}

func table(t require.TestingT, slices uint64) (*layout.Rack, *Table) {
	k := rack(t, slices)
	g, err := Format(k, true)
	require.NoError(t, err)
	return k, g
}

// mixed is a table with a unit in every state; lives are those of its machines.
func mixed(t require.TestingT) (*layout.Rack, *Table, Lives) {
	k, g := table(t, 8)
	require.NoError(t, g.Online(1, 3, 4))
	require.NoError(t, g.Online(2, 5, 2))
	one, two := Owner{Peer: 1, Generation: 3}, Owner{Peer: 2, Generation: 5}
	names, err := g.GrantSlices(one, 3, nil)
	require.NoError(t, err)
	_, err = g.Assign(one, names[1], 77)
	require.NoError(t, err)
	_, err = g.GrantSlices(Owner{2, 5, 78}, 1, nil)
	require.NoError(t, err)
	_, err = g.Release(one, names[2])
	require.NoError(t, err)
	_, err = g.StartZero(two, 1, nil)
	require.NoError(t, err)
	names, err = g.GrantSlices(two, 1, nil)
	require.NoError(t, err)
	_, err = g.Release(two, names...)
	require.NoError(t, err)
	_, err = g.GrantCores(Owner{1, 3, 77}, 2, nil)
	require.NoError(t, err)
	return k, g, func(p int) (uint64, bool) { return map[int]uint64{1: 3, 2: 5}[p], p == 1 || p == 2 }
}

func words64(t require.TestingT, k *layout.Rack) region.Region {
	r, err := k.GrantRegion(k.Region)
	require.NoError(t, err)
	return r
}

// entryOff is where a word of a unit's entry is.
func entryOff(t require.TestingT, g *Table, u Unit, word int) region.Off {
	i, err := g.index(u)
	require.NoError(t, err)
	return region.Off(layout.GrantHeaderBytes + i*layout.GrantEntryBytes + uint64(8*word))
}

func flip(t require.TestingT, r region.Region, off region.Off, bit int) {
	v, err := r.LoadU64(off)
	require.NoError(t, err)
	require.NoError(t, r.StoreU64(off, v^1<<bit))
}

// TestLifeOfASlice walks one slice through all its states, by name.
func TestLifeOfASlice(t *testing.T) {
	k, g := table(t, 3)
	rd, err := Open(k)
	require.NoError(t, err)
	one, two, ck := Owner{Peer: 1, Generation: 3}, Owner{Peer: 2, Generation: 1}, Owner{Peer: 0, Generation: 8}
	n, err := g.Grant(Slice(1), one)
	require.NoError(t, err)
	require.NoError(t, rd.Holds(n, one))
	require.ErrorIs(t, rd.Holds(n, two), ErrStale)
	_, err = g.Grant(Slice(1), two)
	require.ErrorIs(t, err, ErrState)

	p, err := g.Assign(one, n, 42)
	require.NoError(t, err)
	require.ErrorIs(t, rd.Holds(n, one), ErrStale)
	require.NoError(t, rd.Holds(p, Owner{1, 3, 42}))
	_, err = g.Assign(one, p, 43)
	require.ErrorIs(t, err, ErrState, "from process to process without zeroing")
	_, err = g.Release(one, n)
	require.ErrorIs(t, err, ErrStale)
	_, err = g.Release(two, p)
	require.ErrorIs(t, err, ErrStale)
	_, err = g.Release(Owner{1, 3, 43}, p)
	require.ErrorIs(t, err, ErrStale)
	_, err = g.Release(Owner{1, 3, 42}, p, p)
	require.ErrorIs(t, err, ErrStale)
	require.NoError(t, rd.Holds(p, Owner{1, 3, 42}))
	done, err := g.Release(one, p)
	require.NoError(t, err)
	require.Equal(t, 1, done)

	_, err = g.Grant(Slice(1), two)
	require.ErrorIs(t, err, ErrState, "dirty")
	_, err = g.GrantSlices(two, 3, nil)
	require.ErrorIs(t, err, ErrNone)
	z, err := g.StartZero(ck, 5, nil)
	require.NoError(t, err)
	require.Len(t, z, 1)
	require.ErrorIs(t, g.Zeroed(two, z[0]), ErrStale)
	require.ErrorIs(t, g.Zeroed(ck, p), ErrStale)
	require.NoError(t, g.Zeroed(ck, z[0]))
	require.ErrorIs(t, g.Zeroed(ck, z[0]), ErrStale)
	require.Equal(t, uint64(3), g.Counts().FreeSlices)
	require.NoError(t, g.Audit(nil).Err())
}

// TestBadArguments has every refusal of an argument; nothing may change.
func TestBadArguments(t *testing.T) {
	k, g, lives := mixed(t)
	before := snapshot(t, k)
	one := Owner{Peer: 1, Generation: 3}
	slice := func(u Unit, o Owner) error { _, err := g.Grant(u, o); return err }
	for i, c := range []struct {
		err  error
		want error
	}{
		{slice(Slice(8), one), ErrNoSuch},
		{slice(Slice(1<<63), one), ErrNoSuch},
		{slice(Unit{Machine: 1}, one), ErrNoSuch},
		{slice(Core(machines, 0), one), ErrNoSuch},
		{slice(Core(-1, 0), one), ErrNoSuch},
		{slice(Core(1, layout.MaxCores), one), ErrNoSuch},
		{slice(Core(1, -1), one), ErrNoSuch},
		{slice(Slice(5), Owner{}), ErrNoSuch},
		{slice(Slice(5), Owner{Peer: 0, Generation: 1}), ErrNoSuch},
		{slice(Slice(5), Owner{Peer: machines, Generation: 1}), ErrNoSuch},
		{slice(Slice(5), Owner{Peer: 257, Generation: 1}), ErrNoSuch},
		{slice(Slice(5), Owner{Peer: 1}), ErrNoSuch},
		{slice(Core(1, 3), Owner{Peer: 2, Generation: 5}), ErrNoSuch},
		{slice(Core(1, 3), Owner{Peer: 1, Generation: 2}), ErrStale},
		{slice(Core(1, 4), one), ErrState},
		{g.Online(0, 1, 1), ErrNoSuch},
		{g.Online(3, 0, 1), ErrNoSuch},
		{g.Online(3, 1, layout.MaxCores+1), ErrNoSuch},
		{g.Online(3, 1, -1), ErrNoSuch},
		{g.Online(1, 4, 4), ErrState},
		{g.Online(1, 3, 3), ErrState},
		{g.Online(1, 3, 5), ErrState},
		{second(g.GrantSlices(one, -1, nil)), ErrNone},
		{second(g.GrantSlices(one, 9, nil)), ErrNone},
		{second(g.GrantCores(one, 3, nil)), ErrNone},
		{second(g.GrantCores(Owner{Peer: -1, Generation: 1}, 1, nil)), ErrNoSuch},
		{second(g.StartZero(Owner{Peer: machines, Generation: 1}, 1, nil)), ErrNoSuch},
		{second(g.StartZero(Owner{1, 3, 7}, 1, nil)), ErrNoSuch},
		{second(g.Reclaim(0, 1)), ErrNoSuch},
		{second(g.ReclaimProcess(0)), ErrNoSuch},
		{second(g.Settle(Slice(0), one)), ErrState},
		{second(g.Settle(Slice(8), one)), ErrNoSuch},
	} {
		require.ErrorIs(t, c.err, c.want, "case %d", i)
	}
	require.NoError(t, g.Online(1, 3, 4), "registering once more")
	require.Equal(t, before, snapshot(t, k))
	require.NoError(t, g.Audit(lives).Err())
}

func second[T any](_ T, err error) error { return err }

func snapshot(t require.TestingT, k *layout.Rack) []byte {
	r := words64(t, k)
	b := make([]byte, r.Len())
	require.NoError(t, r.LoadBytes(b, 0))
	return b
}

// TestDeath checks what becomes of everything that a dead machine had.
func TestDeath(t *testing.T) {
	_, g, lives := mixed(t)
	held, err := g.Reclaim(2, 4)
	require.NoError(t, err)
	require.Empty(t, held, "an older life has nothing")
	held, err = g.Reclaim(2, 5)
	require.NoError(t, err)
	require.Equal(t, []Unit{Slice(3)}, held)
	held, err = g.Reclaim(1, 3)
	require.NoError(t, err)
	require.Equal(t, []Unit{Slice(0), Slice(1), Core(1, 0), Core(1, 1)}, held)
	c := g.Counts()
	require.Equal(t, Counts{Slices: 8, FreeSlices: 3, DirtySlices: 5}, c)
	require.NoError(t, g.Audit(func(int) (uint64, bool) { return 0, false }).Err())
	_ = lives
	require.NoError(t, g.Online(1, 4, 8), "rejoin with another number of cores")
	require.Equal(t, uint64(8), g.Counts().FreeCores)
}

func TestProcessEnds(t *testing.T) {
	_, g, lives := mixed(t)
	held, err := g.ReclaimProcess(77)
	require.NoError(t, err)
	require.Equal(t, []Unit{Slice(1), Core(1, 0), Core(1, 1)}, held)
	require.Equal(t, uint64(6), g.Counts().FreeCores)
	require.NoError(t, g.Audit(lives).Err())
}

// TestRecover checks that a restarted ckernel has the same view and that the old one cannot write any more.
func TestRecover(t *testing.T) {
	k, g, lives := mixed(t)
	mine, err := g.StartZero(Owner{Peer: 0, Generation: 2}, 1, nil)
	require.NoError(t, err)
	n, err := g.Grant(Slice(7), Owner{Peer: 1, Generation: 3})
	require.NoError(t, err)
	h, found, err := Recover(k)
	require.NoError(t, err)
	require.Empty(t, found)
	for u, e := range g.All() {
		got, err := h.Entry(u)
		require.NoError(t, err)
		if u == mine[0].Unit {
			require.Equal(t, Dirty, got.State, "the ckernel that zeroed it is gone")
			continue
		}
		require.Equal(t, e, got)
	}
	require.NoError(t, h.Audit(lives).Err())

	before := snapshot(t, k)
	_, err = g.Grant(Slice(6), Owner{Peer: 1, Generation: 3})
	require.ErrorIs(t, err, ErrFenced)
	_, err = g.Release(Owner{Peer: 1, Generation: 3}, n)
	require.ErrorIs(t, err, ErrFenced)
	_, err = g.Reclaim(1, 3)
	require.ErrorIs(t, err, ErrFenced)
	_, err = g.Repair()
	require.ErrorIs(t, err, ErrFenced)
	require.Equal(t, before, snapshot(t, k))
	_, err = h.Release(Owner{Peer: 1, Generation: 3}, n)
	require.NoError(t, err, "names live on")

	// What a dkernel was never told of, it finds and gives back.
	rd, err := Open(k)
	require.NoError(t, err)
	own, err := rd.Owned(Owner{1, 3, 77})
	require.NoError(t, err)
	require.Len(t, own, 3)
	own, err = rd.Owned(Owner{Peer: 1, Generation: 3})
	require.NoError(t, err)
	require.Len(t, own, 4)
	done, err := h.Release(Owner{Peer: 1, Generation: 3}, own...)
	require.NoError(t, err)
	require.Equal(t, 4, done)
	flip(t, words64(t, k), entryOff(t, h, Slice(3), wordState), 9)
	own, err = rd.Owned(Owner{Peer: 1, Generation: 3})
	require.ErrorIs(t, err, ErrDamaged)
	require.Empty(t, own)
}

// TestDyingWriter stores every subset of what a change stores before its swap, by the first ckernel and by a later one: readers and a
// successor see the old entry.
func TestDyingWriter(t *testing.T) {
	k, g, lives := mixed(t)
	r := words64(t, k)
	for range 2 {
		for u, old := range g.All() {
			i, err := g.index(u)
			require.NoError(t, err)
			e, err := g.next(i, Held, Owner{2, 0xabcd, 0xef01})
			require.NoError(t, err)
			require.Greater(t, e.version(), old.Grant)
			rec := wordRecord + recordWords*int(e.version()&1)
			for subset := range 8 {
				for w, v := range []uint64{e.generation, e.process, e.check(rackGen, i)} {
					if subset>>w&1 != 0 {
						require.NoError(t, r.StoreU64(entryOff(t, g, u, rec+w), v))
					}
				}
				got, err := g.Read(u)
				require.NoError(t, err)
				require.Equal(t, old, got)
			}
		}
		require.NoError(t, g.Audit(lives).Err())
		h, found, err := Recover(k)
		require.NoError(t, err)
		require.Empty(t, found)
		require.Equal(t, g.Counts(), h.Counts())
		g = h
	}
}

// TestMovedEntry: an entry that was copied over another is damaged, though all its bytes are good.
func TestMovedEntry(t *testing.T) {
	k, g, _ := mixed(t)
	b := make([]byte, layout.GrantEntryBytes)
	r := words64(t, k)
	require.NoError(t, r.LoadBytes(b, entryOff(t, g, Slice(0), 0)))
	require.NoError(t, r.StoreBytes(entryOff(t, g, Slice(7), 0), b))
	_, err := g.Read(Slice(7))
	require.ErrorIs(t, err, ErrDamaged)
}

// TestEveryBitFlip flips every bit that means something: the audit names the unit, a restart loses just that unit, the living
// ckernel repairs it.
func TestEveryBitFlip(t *testing.T) {
	k, g, lives := mixed(t)
	r := words64(t, k)
	clean := snapshot(t, k)
	for _, u := range []Unit{Slice(0), Slice(1), Slice(2), Slice(4), Slice(6), Core(0, 0), Core(1, 0), Core(1, 3), Core(3, 63)} {
		e, err := g.Entry(u)
		require.NoError(t, err)
		rec := wordRecord + recordWords*int(e.Grant&1)
		for _, w := range []int{wordState, rec, rec + 1, rec + 2, wordSpare} {
			for bit := range 64 {
				off := entryOff(t, g, u, w)
				flip(t, r, off, bit)
				_, err := g.Read(u)
				require.ErrorIs(t, err, ErrDamaged, "%v word %d bit %d", u, w, bit)
				p := g.Audit(lives)
				require.NotEmpty(t, p.Violations)
				require.Equal(t, BadEntry, p.Violations[0].Kind)
				require.Equal(t, u, p.Violations[0].Unit)
				found, err := g.Repair()
				require.NoError(t, err)
				require.Len(t, found, 1)
				require.Equal(t, clean, snapshot(t, k))
			}
		}
	}
	u := Slice(0)
	flip(t, r, entryOff(t, g, u, wordState), 20)
	h, found, err := Recover(k)
	require.NoError(t, err)
	require.Len(t, found, 1)
	require.Equal(t, u, found[0].Unit)
	p := h.Audit(lives)
	require.Len(t, p.Violations, 1)
	require.Equal(t, IsLost, p.Violations[0].Kind)
	n, err := h.Settle(u, Owner{Peer: 1, Generation: 3})
	require.NoError(t, err)
	require.Greater(t, n.Grant, uint64(2)<<writerShift, "a name that nobody ever had")
	require.NoError(t, h.Audit(lives).Err())
}

// TestHeader damages each word of the header.
func TestHeader(t *testing.T) {
	k, g, lives := mixed(t)
	r := words64(t, k)
	for _, off := range []region.Off{0, 8, 16, offSlices, offMachines} {
		flip(t, r, off, 3)
		_, err := Open(k)
		require.ErrorIs(t, err, ErrUnformatted, "offset %#x", uint64(off))
		_, _, err = Recover(k)
		require.ErrorIs(t, err, ErrUnformatted)
		require.Error(t, g.Audit(lives).Err())
		_, err = g.Repair()
		require.NoError(t, err)
		require.NoError(t, g.Audit(lives).Err())
	}
	for bit := range 64 {
		flip(t, r, offWriter, bit)
		_, err := g.Grant(Slice(7), Owner{Peer: 1, Generation: 3})
		require.ErrorIs(t, err, ErrTampered)
		_, err = g.Repair()
		require.NoError(t, err)
	}
	require.NoError(t, g.Audit(lives).Err())
	// A successor finds a number that was not used, even so.
	h, _, err := Recover(k)
	require.NoError(t, err)
	n, err := h.Grant(Slice(7), Owner{Peer: 1, Generation: 3})
	require.NoError(t, err)
	flip(t, r, offWriter, 5)
	h, found, err := Recover(k)
	require.NoError(t, err)
	require.Len(t, found, 1)
	require.Equal(t, BadHeader, found[0].Kind)
	require.Equal(t, uint64(3), h.writer)
	_, err = h.Release(Owner{Peer: 1, Generation: 3}, n)
	require.NoError(t, err)

	require.NoError(t, r.StoreU64(offWriter, writerWord(rackGen, maxWriter)))
	_, _, err = Recover(k)
	require.ErrorIs(t, err, ErrExhausted)
	empty := rack(t, 8)
	_, err = Open(empty)
	require.ErrorIs(t, err, ErrUnformatted)
	k.Generation++
	_, err = Open(k)
	require.ErrorIs(t, err, ErrUnformatted, "another rack")
	k.Region = region.Region{}
	_, err = Open(k)
	require.ErrorIs(t, err, ErrUnformatted)
	_, err = Format(k, true)
	require.ErrorIs(t, err, ErrUnformatted)
}

// TestForgery is a peer that knows the hash: bytes that make sense are found by comparison with the view, and no call acts on them.
func TestForgery(t *testing.T) {
	_, g, lives := mixed(t)
	one := Owner{Peer: 1, Generation: 3}
	forged := pack(Held, Owner{2, 5, 0}, 1<<40)
	l, err := words(g.r, 5)
	require.NoError(t, err)
	l.store(forged, rackGen, 5)
	l[wordState].Store(forged.word)
	p := g.Audit(lives)
	require.Len(t, p.Violations, 1)
	require.Equal(t, Violation{Differs, Slice(5), p.Violations[0].Text}, p.Violations[0])
	require.Contains(t, p.Err().Error(), "slice 5")

	before := g.Counts()
	names, err := g.GrantSlices(one, 2, nil)
	require.ErrorIs(t, err, ErrTampered)
	require.Empty(t, names)
	require.Equal(t, before, g.Counts(), "all or none")
	_, err = g.Release(Owner{Peer: 2, Generation: 5}, Name{Slice(5), forged.version()})
	require.ErrorIs(t, err, ErrStale)
	found, err := g.Repair()
	require.NoError(t, err)
	require.Len(t, found, 1)
	names, err = g.GrantSlices(one, 2, nil)
	require.NoError(t, err)
	require.Len(t, names, 2)

	// Death goes through it.
	i, _ := g.index(Slice(0))
	l, err = words(g.r, i)
	require.NoError(t, err)
	l[wordState].Store(^uint64(0))
	held, err := g.Reclaim(1, 3)
	require.NoError(t, err)
	require.Contains(t, held, Slice(0))
	require.NoError(t, g.Audit(func(p int) (uint64, bool) { return 5, p == 2 }).Err())
}

// TestRollback is a batch that meets a forged entry in its middle.
func TestRollback(t *testing.T) {
	_, g, lives := mixed(t)
	require.NoError(t, g.r.StoreU64(entryOff(t, g, Slice(6), wordState), 1))
	before := g.Counts()
	dst, err := g.GrantSlices(Owner{Peer: 1, Generation: 3}, 3, []Name{{}})
	require.ErrorIs(t, err, ErrTampered)
	require.Len(t, dst, 1)
	require.Equal(t, before, g.Counts())
	require.NoError(t, g.r.StoreU64(entryOff(t, g, Core(2, 1), wordState), 1))
	_, err = g.GrantCores(Owner{Peer: 2, Generation: 5}, 2, nil)
	require.ErrorIs(t, err, ErrTampered)
	require.Equal(t, before, g.Counts())
	require.Error(t, g.Online(3, 1, 70))
	require.NoError(t, g.r.StoreU64(entryOff(t, g, Core(3, 1), wordState), 1))
	require.ErrorIs(t, g.Online(3, 1, 4), ErrTampered)
	require.Equal(t, before, g.Counts())
	_, err = g.Repair()
	require.NoError(t, err)
	require.NoError(t, g.Audit(lives).Err())
}

// TestVersionsEnd: no name is used twice, whatever it takes.
func TestVersionsEnd(t *testing.T) {
	k, g := table(t, 1)
	require.NoError(t, g.publish(0, pack(Free, Owner{}, maxVersion-1)))
	n, err := g.Grant(Slice(0), Owner{Peer: 1, Generation: 1})
	require.NoError(t, err)
	_, err = g.Release(Owner{Peer: 1, Generation: 1}, n)
	require.ErrorIs(t, err, ErrExhausted)
	h, _, err := Recover(k)
	require.NoError(t, err)
	_, err = h.Reclaim(1, 1)
	require.ErrorIs(t, err, ErrExhausted)
}

// TestAuditNamesOwners: owners that are no members, and lives that are mixed.
func TestAuditNamesOwners(t *testing.T) {
	_, g, _ := mixed(t)
	p := g.Audit(func(p int) (uint64, bool) { return 3, p == 1 })
	require.Len(t, p.Violations, 4, "slices 2 and 3, cores 0 and 1 of machine 2")
	for _, v := range p.Violations {
		require.Equal(t, NoMember, v.Kind)
	}
	p = g.Audit(func(p int) (uint64, bool) { return 6, true })
	require.Len(t, p.Violations, 10)
	i, err := g.index(Core(1, 3))
	require.NoError(t, err)
	require.NoError(t, g.publish(i, pack(Free, Owner{Peer: 1, Generation: 2}, 1<<40)))
	p = g.Audit(nil)
	require.Len(t, p.Violations, 1)
	require.Equal(t, MixedLife, p.Violations[0].Kind)
	g.held++
	require.ErrorContains(t, g.Audit(nil).Err(), "counts free")
}

// TestReadersNeverSeeHalf has readers beside a busy writer: process and generation always belong together.
func TestReadersNeverSeeHalf(t *testing.T) {
	k, g := table(t, 1)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		rd, err := Open(k)
		require.NoError(t, err)
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				e, err := rd.Read(Slice(0))
				if errors.Is(err, ErrBusy) {
					continue
				}
				if err != nil || e.State == Held && e.Owner.Process != e.Owner.Generation*3+uint64(e.Owner.Peer) {
					t.Errorf("%+v, %v", e, err)
					return
				}
			}
		})
	}
	ck := Owner{Peer: 0, Generation: 1}
	var names, z []Name
	for i := range uint64(50_000) {
		o := Owner{Peer: 1 + int(i%3), Generation: i + 1}
		o.Process = o.Generation*3 + uint64(o.Peer)
		var errs [4]error
		names, errs[0] = g.GrantSlices(o, 1, names[:0])
		_, errs[1] = g.Release(o, names...)
		z, errs[2] = g.StartZero(ck, 1, z[:0])
		errs[3] = g.Zeroed(ck, z[0])
		if err := errors.Join(errs[:]...); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
}

// TestDumpGolden pins layout and dump: whoever changes the file raises Version.
func TestDumpGolden(t *testing.T) {
	k, g, _ := mixed(t)
	flip(t, words64(t, k), entryOff(t, g, Slice(5), wordSpare), 0)
	var b strings.Builder
	require.NoError(t, Dump(&b, words64(t, k)))
	fmt.Fprintf(&b, "words of slice 1:")
	for w := range entryWords {
		v, err := g.r.LoadU64(entryOff(t, g, Slice(1), w))
		require.NoError(t, err)
		fmt.Fprintf(&b, " %#x", v)
	}
	b.WriteByte('\n')
	const path = "testdata/dump.golden"
	if *rewrite {
		require.NoError(t, os.WriteFile(path, []byte(b.String()), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err, "go test -rewrite makes it")
	require.Equal(t, string(want), b.String())
}

func BenchmarkGrantRelease(b *testing.B) {
	_, g := table(b, 512)
	o, ck := Owner{Peer: 1, Generation: 1}, Owner{Peer: 0, Generation: 1}
	var names, z []Name
	for b.Loop() {
		names, _ = g.GrantSlices(o, 1, names[:0])
		_, _ = g.Release(o, names...)
		z, _ = g.StartZero(ck, 1, z[:0])
		if err := g.Zeroed(ck, z[0]); err != nil {
			b.Fatal(err)
		}
	}
}
