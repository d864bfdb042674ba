package grant

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"dinos/shmem/layout"
)

// model is the table as a plain map, and what every dkernel believes to have.
type model struct {
	t      *testing.T
	k      *layout.Rack
	g      *Table
	units  map[Unit]Entry // Grant is the name, 0 where nobody has one
	life   map[int]uint64 // of machines that are online
	last   map[int]uint64
	ended  []Name // names that were in force once
	given  map[Name]bool
	ckLife uint64
}

func (m *model) owner(t *rapid.T, process bool) Owner {
	p := rapid.IntRange(1, machines-1).Draw(t, "peer")
	o := Owner{Peer: p, Generation: m.life[p]}
	if process {
		o.Process = rapid.Uint64Range(0, 3).Draw(t, "process")
	}
	return o
}

// in lists the units in a state, in order.
func (m *model) in(s State) []Unit {
	var us []Unit
	for i := range m.g.units() {
		if u := m.g.unit(i); m.units[u].State == s {
			us = append(us, u)
		}
	}
	return us
}

// begin notes a grant with a name that must be new.
func (m *model) begin(t *rapid.T, n Name, s State, o Owner) {
	require.False(t, m.given[n], "%v was given before", n)
	m.given[n] = true
	m.units[n.Unit] = Entry{s, o, n.Grant}
}

func (m *model) end(u Unit, s State, o Owner) {
	if g := m.units[u].Grant; g != 0 {
		m.ended = append(m.ended, Name{u, g})
	}
	m.units[u] = Entry{State: s, Owner: o}
}

// free ends a held unit the way that Release does.
func (m *model) free(u Unit) {
	if u.Core {
		m.end(u, Free, Owner{Peer: u.Machine, Generation: m.life[u.Machine]})
	} else {
		m.end(u, Dirty, Owner{})
	}
}

func (m *model) grant(t *rapid.T) {
	o := m.owner(t, true)
	n := rapid.IntRange(0, 6).Draw(t, "n")
	cores := rapid.Bool().Draw(t, "cores")
	var can []Unit
	for _, u := range m.in(Free) {
		if u.Core == cores && (!cores || u.Machine == o.Peer) {
			can = append(can, u)
		}
	}
	f := m.g.GrantSlices
	if cores {
		f = m.g.GrantCores
	}
	got, err := f(o, n, nil)
	switch {
	case n > 0 && o.Generation == 0 && n <= len(can) || cores && o.Generation == 0:
		require.ErrorIs(t, err, ErrNoSuch)
	case n > len(can):
		require.ErrorIs(t, err, ErrNone)
	default:
		require.NoError(t, err)
		require.Len(t, got, n)
		for i, name := range got {
			require.Equal(t, can[i], name.Unit, "the least first")
			m.begin(t, name, Held, o)
		}
	}
}

// pick is a unit in the state with its name, if there is one.
func (m *model) pick(t *rapid.T, s State) (Name, Owner) {
	us := m.in(s)
	if len(us) == 0 {
		t.Skip("none")
	}
	u := rapid.SampledFrom(us).Draw(t, "unit")
	return Name{u, m.units[u].Grant}, m.units[u].Owner
}

func (m *model) assign(t *rapid.T) {
	n, o := m.pick(t, Held)
	p := rapid.Uint64Range(0, 3).Draw(t, "process")
	got, err := m.g.Assign(Owner{Peer: o.Peer, Generation: o.Generation}, n, p)
	if o.Process != 0 || p == 0 {
		require.ErrorIs(t, err, ErrState)
		return
	}
	require.NoError(t, err)
	m.end(n.Unit, Held, o)
	o.Process = p
	m.begin(t, got, Held, o)
}

func (m *model) release(t *rapid.T) {
	_, by := m.pick(t, Held)
	by.Process = 0
	var names []Name
	for _, u := range m.in(Held) {
		e := m.units[u]
		if e.Owner.Peer == by.Peer && rapid.Bool().Draw(t, "this") {
			names = append(names, Name{u, e.Grant})
		}
	}
	bad := rapid.SampledFrom([]string{"", "", "", "stale", "twice", "other"}).Draw(t, "bad")
	switch {
	case bad == "stale" && len(m.ended) > 0:
		names = append(names, rapid.SampledFrom(m.ended).Draw(t, "stale"))
	case bad == "twice" && len(names) > 0:
		names = append(names, names[0])
	case bad == "other" && len(names) > 0:
		by.Generation++
	default:
		bad = ""
	}
	done, err := m.g.Release(by, names...)
	if bad != "" {
		require.ErrorIs(t, err, ErrStale)
		require.Zero(t, done)
		return
	}
	require.NoError(t, err)
	require.Equal(t, len(names), done)
	for _, n := range names {
		m.free(n.Unit)
	}
}

func (m *model) startZero(t *rapid.T) {
	by := m.owner(t, false)
	if by.Generation == 0 {
		by = Owner{Peer: layout.Ckernel, Generation: m.ckLife}
	}
	n := rapid.IntRange(0, 5).Draw(t, "n")
	want := m.in(Dirty)
	got, err := m.g.StartZero(by, n, nil)
	require.NoError(t, err)
	require.Len(t, got, min(n, len(want)))
	for i, name := range got {
		require.Equal(t, want[i], name.Unit)
		m.begin(t, name, Zeroing, by)
	}
}

func (m *model) zeroed(t *rapid.T) {
	n, o := m.pick(t, Zeroing)
	if len(m.ended) > 0 && rapid.IntRange(0, 3).Draw(t, "stale") == 0 {
		require.ErrorIs(t, m.g.Zeroed(o, rapid.SampledFrom(m.ended).Draw(t, "name")), ErrStale)
	}
	require.NoError(t, m.g.Zeroed(o, n))
	m.end(n.Unit, Free, Owner{})
}

// join begins a new life of a machine that is off, or registers one that is on once more.
func (m *model) join(t *rapid.T) {
	p := rapid.IntRange(1, machines-1).Draw(t, "peer")
	if m.life[p] != 0 {
		require.ErrorIs(t, m.g.Online(p, m.life[p]+1, 4), ErrState)
		return
	}
	m.last[p]++
	m.life[p] = m.last[p]
	n := rapid.IntRange(1, 5).Draw(t, "cores")
	for range 2 {
		require.NoError(t, m.g.Online(p, m.life[p], n))
	}
	for c := range n {
		m.end(Core(p, c), Free, Owner{Peer: p, Generation: m.life[p]})
	}
}

func (m *model) die(t *rapid.T) {
	p := rapid.IntRange(1, machines-1).Draw(t, "peer")
	if m.life[p] == 0 {
		t.Skip("is off")
	}
	var held []Unit
	for i := range m.g.units() {
		u := m.g.unit(i)
		e := m.units[u]
		switch {
		case e.Owner.Peer != p || e.Owner.Generation == 0:
			continue
		case u.Core:
			m.end(u, Absent, Owner{})
		default:
			m.end(u, Dirty, Owner{})
		}
		if e.State == Held {
			held = append(held, u)
		}
	}
	got, err := m.g.Reclaim(p, m.life[p])
	require.NoError(t, err)
	require.Equal(t, held, got)
	delete(m.life, p)
}

func (m *model) exit(t *rapid.T) {
	p := rapid.Uint64Range(1, 3).Draw(t, "process")
	var held []Unit
	for _, u := range m.in(Held) {
		if m.units[u].Owner.Process == p {
			held = append(held, u)
			m.free(u)
		}
	}
	got, err := m.g.ReclaimProcess(p)
	require.NoError(t, err)
	require.Equal(t, held, got)
}

// restart is a new life of the ckernel.
func (m *model) restart(t *rapid.T) {
	g, found, err := Recover(m.k)
	require.NoError(t, err)
	require.Empty(t, found)
	_, err = m.g.StartZero(Owner{Generation: 1}, 1, nil)
	if m.g.dirty.n > 0 {
		require.ErrorIs(t, err, ErrFenced)
	}
	m.g = g
	m.ckLife++
	for _, u := range m.in(Zeroing) {
		if m.units[u].Owner.Peer == layout.Ckernel {
			m.end(u, Dirty, Owner{})
		}
	}
}

// damage hits one word of the table and has the ckernel repair it.
func (m *model) damage(t *rapid.T) {
	r := words64(t, m.k)
	i := rapid.Uint64Range(0, m.g.units()-1).Draw(t, "entry")
	w := rapid.IntRange(0, entryWords-1).Draw(t, "word")
	flip(t, r, entryOff(t, m.g, m.g.unit(i), w), rapid.IntRange(0, 63).Draw(t, "bit"))
	_, err := m.g.Repair()
	require.NoError(t, err)
}

// check compares view and shared table with the model.
func (m *model) check(t *rapid.T) {
	p := m.g.Audit(func(p int) (uint64, bool) {
		if p == layout.Ckernel {
			return m.ckLife, true
		}
		return m.life[p], m.life[p] != 0
	})
	require.NoError(t, p.Err())
	var byState [states]uint64
	for u, e := range m.g.All() {
		want := m.units[u]
		byState[want.State]++
		got, err := m.g.Read(u)
		// By hand: there are thousands of these, and testify takes its time.
		if err != nil || got != e || e.State != want.State || e.Owner != want.Owner || want.Grant != 0 && e.Grant != want.Grant {
			t.Fatalf("%v: shared memory says %+v (%v), the view %+v, the model %+v", u, got, err, e, want)
		}
	}
	require.Equal(t, byState, p.ByState)
	c := m.g.Counts()
	require.Equal(t, p.FreeSlices, c.FreeSlices)
	require.Equal(t, p.FreeCores, c.FreeCores)
	require.Equal(t, p.Cores, c.Cores)
	require.Equal(t, byState[Dirty], c.DirtySlices)
	require.Equal(t, p.HeldByDkernel+p.HeldByProcesses, c.Held)
}

// TestModel runs random calls against the model: two owners of a unit, a leak, a slice that is granted before it was zeroed, a name
// that comes twice, or a restart that forgets anything would differ.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &model{t: t, k: rack(rt, 70), units: map[Unit]Entry{}, life: map[int]uint64{}, last: map[int]uint64{}, given: map[Name]bool{}, ckLife: 1}
		zeroed := rapid.Bool().Draw(rt, "zeroed")
		var err error
		m.g, err = Format(m.k, zeroed)
		require.NoError(rt, err)
		for i := range m.g.units() {
			s := Absent
			if i < m.g.slices {
				s = Dirty
				if zeroed {
					s = Free
				}
			}
			m.units[m.g.unit(i)] = Entry{State: s}
		}
		actions := map[string]func(*rapid.T){"": m.check, "grant": m.grant, "assign": m.assign, "release": m.release,
			"startZero": m.startZero, "zeroed": m.zeroed, "join": m.join, "die": m.die, "exit": m.exit, "restart": m.restart, "damage": m.damage}
		rt.Repeat(actions)
	})
}

func TestSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, want := newSet(200), []uint64{}
		for _, i := range rapid.SliceOfN(rapid.Uint64Range(0, 199), 1, 100).Draw(t, "members") {
			at, in := slices.BinarySearch(want, i)
			require.Equal(t, in, s.has(i))
			s.put(i, !in)
			if in {
				want = slices.Delete(want, at, at+1)
			} else {
				want = slices.Insert(want, at, i)
			}
			require.Equal(t, uint64(len(want)), s.n)
			if len(want) > 0 {
				require.Equal(t, want[0], s.first())
			}
		}
	})
}
