package sched

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"dinos/sched/model"
	"dinos/sched/solve"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// rack makes a scheduler with n equal dkernels 1 to n.
func rack(t testing.TB, n int, cores, slices int64) *Scheduler {
	s, err := New(Options{Seed: 1})
	require.NoError(t, err)
	for i := range n {
		require.NoError(t, s.Join(Dkernel{ID: uint32(i + 1), Cores: cores, Slices: slices, Generation: 1, Alive: true}))
	}
	return s
}

func one(t testing.TB, s *Scheduler, r Request) []Grant {
	d := s.Request([]Request{r})[0]
	if d.Err != nil {
		require.NoError(t, d.Err)
	}
	return append([]Grant(nil), d.Grants...)
}

func TestLocality(t *testing.T) {
	s := rack(t, 4, 8, 64)
	require.NoError(t, s.Start(7))
	first := one(t, s, Request{Process: 7, Cores: 3, Slices: 10})
	require.Len(t, first, 1)
	again := s.Grow(7, 2, 5)
	require.Nil(t, again.Err)
	require.Equal(t, first[0].Dkernel, again.Grants[0].Dkernel, "a process grows where it is")
	require.Equal(t, []Grant{{first[0].Dkernel, 1, 5, 15}}, s.Holds(7))
	// What does not fit there goes elsewhere, in as few pieces as possible.
	more := s.Grow(7, 4, 0)
	require.Nil(t, more.Err)
	require.Len(t, more.Grants, 2)
}

func TestShapes(t *testing.T) {
	for _, policy := range model.Shipped() {
		s := rack(t, 4, 8, 64)
		text, _ := model.ShippedText(policy)
		require.NoError(t, s.SetPolicy(policy, text))
		require.NoError(t, s.Start(1))
		apart := one(t, s, Request{Process: 1, Cores: 4, Slices: 1, Shape: Apart})
		for _, g := range apart {
			require.LessOrEqual(t, g.Cores, int64(1), policy)
		}
		pinned := one(t, s, Request{Process: 1, Cores: 2, Slices: 2, Pinned: []uint32{3}})
		require.Equal(t, []Grant{{3, 1, 2, 2}}, pinned, policy)
	}
	s := rack(t, 4, 8, 64)
	text, _ := model.ShippedText("ours")
	require.NoError(t, s.SetPolicy("ours", text))
	require.NoError(t, s.Start(1))
	for _, g := range one(t, s, Request{Process: 1, Cores: 8, Shape: Spread}) {
		require.Equal(t, int64(2), g.Cores, "a spread request is even")
	}
	near := one(t, s, Request{Process: 1, Slices: 4, Near: []uint32{2}})
	require.Equal(t, uint32(2), near[0].Dkernel)
}

func TestReleaseIsAccounted(t *testing.T) {
	s := rack(t, 2, 4, 16)
	require.NoError(t, s.Start(1))
	for range 100 {
		g := one(t, s, Request{Process: 1, Cores: 8, Slices: 32})
		d := s.Request([]Request{{Process: 1, Cores: 1}})[0]
		require.NotNil(t, d.Err)
		require.Equal(t, "core_capacity", d.Err.Constraint)
		require.NoError(t, s.Release(1, g))
		err := s.Release(1, g)
		var r *Refusal
		require.ErrorAs(t, err, &r)
		require.Equal(t, NotHeld, r.Kind)
	}
	require.Empty(t, s.Holds(1))
}

func TestDrainAndMoves(t *testing.T) {
	s := rack(t, 3, 4, 16)
	require.NoError(t, s.Start(1))
	require.NoError(t, s.Start(2))
	one(t, s, Request{Process: 1, Cores: 3, Slices: 4, Pinned: []uint32{2}})
	_, err := s.Drain(2)
	var r *Refusal
	require.ErrorAs(t, err, &r)
	require.Equal(t, "pinned", r.Constraint)
	one(t, s, Request{Process: 2, Cores: 3, Slices: 4})
	at := s.Holds(2)[0].Dkernel
	moves, err := s.Drain(at)
	require.NoError(t, err)
	require.NotEmpty(t, moves)
	require.Equal(t, int64(3), s.node(at).UsedCores, "the source is used until the move is done")
	require.ErrorAs(t, s.Release(2, s.Holds(2)), &r)
	require.Equal(t, Moving, r.Kind)
	for _, m := range moves {
		require.NoError(t, s.Done(m.ID))
		require.ErrorAs(t, s.Done(m.ID), &r)
		require.Equal(t, UnknownMove, r.Kind)
	}
	require.Equal(t, int64(0), s.node(at).UsedCores)
	require.NoError(t, s.Undrain(at))
	// What cannot be moved is not drained.
	one(t, s, Request{Process: 1, Cores: 4, Slices: 1, Pinned: []uint32{at}})
	d := s.Request([]Request{{Process: 2, Cores: 3}})[0]
	require.NotNil(t, d.Err)
	before := s.Dump()
	_, err = s.Drain(s.Holds(2)[0].Dkernel)
	require.ErrorAs(t, err, &r)
	require.Equal(t, Infeasible, r.Kind)
	require.Equal(t, before, s.Dump())
}

func TestRebalance(t *testing.T) {
	s := rack(t, 2, 4, 16)
	text, _ := model.ShippedText("ours")
	require.NoError(t, s.SetPolicy("ours", text))
	for p := uint64(1); p <= 2; p++ {
		require.NoError(t, s.Start(p))
	}
	one(t, s, Request{Process: 1, Cores: 3})
	one(t, s, Request{Process: 2, Cores: 5}) // in two pieces
	require.Len(t, s.Holds(2), 2)
	first := s.Holds(1)
	require.NoError(t, s.Release(1, first))
	for _, g := range s.Holds(2) {
		if g.Cores == 4 {
			require.NoError(t, s.Release(2, []Grant{{g.Dkernel, 1, 1, 0}}))
		}
	}
	_, err := s.Rebalance(0)
	require.Error(t, err)
	moves, err := s.Rebalance(4)
	require.NoError(t, err)
	require.Len(t, moves, 1)
	require.NoError(t, s.Done(moves[0].ID))
	require.Len(t, s.Holds(2), 1, "the pieces are together")
	moves, err = s.Rebalance(4)
	require.NoError(t, err)
	require.Empty(t, moves, "nothing is moved without need")
}

// TestBadInput goes through what a caller can get wrong: a typed refusal that names the constraint, and no change.
func TestBadInput(t *testing.T) {
	var r *Refusal
	request := func(q Request) func(s *Scheduler) error {
		return func(s *Scheduler) error {
			if d := s.Request([]Request{q}); d[0].Err != nil {
				return d[0].Err
			}
			return nil
		}
	}
	policy := func(text string) func(s *Scheduler) error {
		return func(s *Scheduler) error { return s.SetPolicy("p", text) }
	}
	for _, c := range []struct {
		name       string
		do         func(s *Scheduler) error
		kind       Kind
		constraint string
	}{
		{"more cores than exist", request(Request{Process: 1, Cores: 1000}), Infeasible, "core_capacity"},
		{"more slices than exist", request(Request{Process: 1, Slices: 1000}), Infeasible, "slice_capacity"},
		{"more than is free", request(Request{Process: 1, Cores: 29}), Infeasible, "core_capacity"},
		{"pins with too little room", request(Request{Process: 1, Cores: 9, Pinned: []uint32{1}}), Infeasible, "core_capacity"},
		{"pin to a drained dkernel", request(Request{Process: 1, Cores: 1, Pinned: []uint32{3}}), Infeasible, "not_drained"},
		{"pin to a dead dkernel", request(Request{Process: 1, Cores: 1, Pinned: []uint32{4}}), Infeasible, "alive"},
		{"apart on too few dkernels", request(Request{Process: 1, Cores: 3, Shape: Apart}), Infeasible, "alive"},
		{"pin to an unknown dkernel", request(Request{Process: 1, Cores: 1, Pinned: []uint32{9}}), UnknownDkernel, "pins"},
		{"pin twice", request(Request{Process: 1, Cores: 1, Pinned: []uint32{1, 1}}), Invalid, "pins"},
		{"near an unknown dkernel", request(Request{Process: 1, Cores: 1, Near: []uint32{0}}), UnknownDkernel, "near"},
		{"negative cores", request(Request{Process: 1, Cores: -1}), Invalid, "requests"},
		{"negative slices", request(Request{Process: 1, Cores: 1, Slices: math.MinInt64}), Invalid, "requests"},
		{"huge cores", request(Request{Process: 1, Cores: math.MaxInt64}), Invalid, "requests"},
		{"nothing", request(Request{Process: 1}), Invalid, "requests"},
		{"unknown shape", request(Request{Process: 1, Cores: 1, Shape: 9}), Invalid, "requests"},
		{"unknown process", request(Request{Process: 5, Cores: 1}), UnknownProcess, "processes"},
		{"huge process", request(Request{Process: math.MaxUint64, Cores: 1}), UnknownProcess, "processes"},
		{"dead process", request(Request{Process: 2, Cores: 1}), DeadProcess, "processes"},
		{"dead process exits again", func(s *Scheduler) error { _, err := s.Exit(2); return err }, DeadProcess, "processes"},
		{"release by an unknown process", func(s *Scheduler) error { return s.Release(5, nil) }, UnknownProcess, "processes"},
		{"release of more than held", func(s *Scheduler) error { return s.Release(1, []Grant{{1, 1, 99, 0}}) }, NotHeld, "placements"},
		{"release of a past life", func(s *Scheduler) error { return s.Release(1, []Grant{{1, 7, 1, 0}}) }, Stale, "placements"},
		{"release of nothing", func(s *Scheduler) error { return s.Release(1, []Grant{{1, 1, 0, 0}}) }, Invalid, "placements"},
		{"release of a negative", func(s *Scheduler) error { return s.Release(1, []Grant{{1, 1, -1, 0}}) }, Invalid, "placements"},
		{"release twice in one call", func(s *Scheduler) error { return s.Release(1, []Grant{{1, 1, 1, 0}, {1, 1, 1, 0}}) }, Invalid, "placements"},
		{"shrink by more than held", func(s *Scheduler) error { _, err := s.Shrink(1, 99, 0); return err }, NotHeld, "placements"},
		{"shrink by nothing", func(s *Scheduler) error { _, err := s.Shrink(1, 0, 0); return err }, Invalid, "requests"},
		{"shrink by a negative", func(s *Scheduler) error { _, err := s.Shrink(1, 1, -1); return err }, Invalid, "requests"},
		{"drain of an unknown dkernel", func(s *Scheduler) error { _, err := s.Drain(9); return err }, UnknownDkernel, "dkernels"},
		{"drain twice", func(s *Scheduler) error { _, err := s.Drain(3); return err }, Invalid, "not_drained"},
		{"drain of a dead dkernel", func(s *Scheduler) error { _, err := s.Drain(4); return err }, Infeasible, "alive"},
		{"undrain of what is not drained", func(s *Scheduler) error { return s.Undrain(1) }, Invalid, "not_drained"},
		{"no moves", func(s *Scheduler) error { _, err := s.Rebalance(-1); return err }, Invalid, "moves"},
		{"unknown move", func(s *Scheduler) error { return s.Cancel(77) }, UnknownMove, "moves"},
		{"join twice", func(s *Scheduler) error { return s.Join(Dkernel{ID: 1, Cores: 1, Generation: 2}) }, Invalid, "dkernels"},
		{"join as dkernel 0", func(s *Scheduler) error { return s.Join(Dkernel{}) }, Invalid, "dkernels"},
		{"join with negative cores", func(s *Scheduler) error { return s.Join(Dkernel{ID: 9, Cores: -1}) }, Invalid, "dkernels"},
		{"join with huge memory", func(s *Scheduler) error { return s.Join(Dkernel{ID: 9, Slices: math.MaxInt64}) }, Invalid, "dkernels"},
		{"leave of a past life", func(s *Scheduler) error { _, err := s.Leave(1, 9); return err }, Stale, "dkernels"},
		{"start twice", func(s *Scheduler) error { return s.Start(1) }, Invalid, "processes"},
		{"start of an exited one", func(s *Scheduler) error { return s.Start(2) }, DeadProcess, "processes"},
		{"no budget", func(s *Scheduler) error { return s.SetBudget(solve.Budget{}) }, Budget, "budget"},
		{"negative budget", func(s *Scheduler) error { return s.SetBudget(solve.Budget{Iterations: -1}) }, Budget, "budget"},
		{"policy that does not parse", policy("CREATE CONSTRAINT"), BadPolicy, "p"},
		{"empty policy", policy(" -- nothing\n"), BadPolicy, "p"},
		{"policy that is never satisfied", policy("CREATE CONSTRAINT c AS SELECT * FROM pending CHECK false"), BadPolicy, "p"},
		{"policy that contradicts itself", policy("CREATE CONSTRAINT a AS SELECT * FROM pending CHECK controllable__dkernel < 3;" +
			"CREATE CONSTRAINT b AS SELECT * FROM pending CHECK controllable__dkernel > 3"), BadPolicy, "p"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := rack(t, 4, 8, 64)
			require.NoError(t, s.Start(1))
			require.NoError(t, s.Start(2))
			one(t, s, Request{Process: 1, Cores: 4, Slices: 4, Pinned: []uint32{1}})
			_, err := s.Exit(2)
			require.NoError(t, err)
			_, err = s.Drain(3)
			require.NoError(t, err)
			require.NoError(t, s.SetAlive(4, 1, false))
			before := s.Dump()
			err = c.do(s)
			require.ErrorAs(t, err, &r)
			t.Log(err)
			require.Equal(t, c.kind, r.Kind, "%v", err)
			require.Equal(t, c.constraint, r.Constraint, "%v", err)
			require.Equal(t, stateOf(before), stateOf(s.Dump()), "the state is unchanged")
		})
	}
}

// stateOf leaves out the count of rounds, which a refused batch advances.
func stateOf(dump string) string {
	var keep []string
	for _, l := range strings.Split(dump, "\n") {
		if !strings.HasPrefix(l, "round ") {
			keep = append(keep, l)
		}
	}
	return strings.Join(keep, "\n")
}

// oracle is a naive account of who holds what. It checks every physical constraint after every step.
type oracle struct {
	s     *Scheduler
	holds map[uint64]map[uint32][2]int64
	moves map[uint64]Move
}

func (o *oracle) add(p uint64, d uint32, c, sl int64) {
	if o.holds[p] == nil {
		o.holds[p] = map[uint32][2]int64{}
	}
	x := o.holds[p][d]
	x[0] += c
	x[1] += sl
	if x == [2]int64{} {
		delete(o.holds[p], d)
		return
	}
	o.holds[p][d] = x
}

func (o *oracle) check(t *rapid.T) {
	used := map[uint32][2]int64{}
	for p, cells := range o.holds {
		var want []Grant
		for d, x := range cells {
			if x[0] < 0 || x[1] < 0 {
				t.Fatalf("process %d holds %v at dkernel %d", p, x, d)
			}
			u := used[d]
			used[d] = [2]int64{u[0] + x[0], u[1] + x[1]}
			want = append(want, Grant{Dkernel: d, Cores: x[0], Slices: x[1]})
		}
		got := o.s.Holds(p)
		if len(got) != len(want) {
			t.Fatalf("process %d holds %v, by the oracle %v", p, got, want)
		}
		for _, g := range got {
			if cells[g.Dkernel] != [2]int64{g.Cores, g.Slices} {
				t.Fatalf("process %d holds %v, by the oracle %v", p, got, want)
			}
		}
	}
	for _, m := range o.moves {
		u := used[m.From]
		used[m.From] = [2]int64{u[0] + m.Cores, u[1] + m.Slices}
	}
	for _, n := range o.s.Dkernels() {
		u := used[uint32(n.ID)]
		if u != [2]int64{n.UsedCores, n.UsedSlices} {
			t.Fatalf("dkernel %d: used %v by the oracle, %d and %d by the scheduler", n.ID, u, n.UsedCores, n.UsedSlices)
		}
		if u[0] > n.Cores || u[1] > n.Slices {
			t.Fatalf("dkernel %d: %v used of %d cores and %d slices", n.ID, u, n.Cores, n.Slices)
		}
	}
}

func (o *oracle) granted(t *rapid.T, q Request, grants []Grant) {
	var c, sl int64
	seen := map[uint32]bool{}
	for _, g := range grants {
		n := o.s.node(g.Dkernel)
		switch {
		case seen[g.Dkernel]:
			t.Fatalf("two grants at dkernel %d", g.Dkernel)
		case n == nil, !n.Alive, n.Drained:
			t.Fatalf("grant at dkernel %d, which takes nothing", g.Dkernel)
		case q.Shape == Apart && g.Cores > 1:
			t.Fatalf("cores that are apart: %v", grants)
		case g.Generation != uint64(n.Generation):
			t.Fatalf("grant of another life: %v", g)
		}
		seen[g.Dkernel] = true
		if len(q.Pinned) > 0 && !contains(q.Pinned, g.Dkernel) {
			t.Fatalf("grant at dkernel %d, pins %v", g.Dkernel, q.Pinned)
		}
		c += g.Cores
		sl += g.Slices
		o.add(q.Process, g.Dkernel, g.Cores, g.Slices)
	}
	if c != q.Cores || sl != q.Slices {
		t.Fatalf("asked for %d and %d, got %d and %d", q.Cores, q.Slices, c, sl)
	}
}

func contains(ids []uint32, id uint32) bool {
	for _, x := range ids {
		if x == id {
			return true
		}
	}
	return false
}

func (o *oracle) moved(t *rapid.T, moves []Move) {
	for _, m := range moves {
		if n := o.s.node(m.To); !n.Alive || n.Drained || m.From == m.To {
			t.Fatalf("move %+v to a dkernel that takes nothing", m)
		}
		o.add(m.Process, m.From, -m.Cores, -m.Slices)
		o.add(m.Process, m.To, m.Cores, m.Slices)
		o.moves[m.ID] = m
	}
}

func (o *oracle) ended(m Move, done bool) {
	if !done {
		o.add(m.Process, m.To, -m.Cores, -m.Slices)
		o.add(m.Process, m.From, m.Cores, m.Slices)
	}
	delete(o.moves, m.ID)
}

// TestAgainstOracle drives random streams of all calls against the oracle.
func TestAgainstOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := model.Shipped()
		s, _ := New(Options{Seed: rapid.Uint64().Draw(t, "seed"), Budget: solve.Budget{Iterations: 4}})
		o := &oracle{s, map[uint64]map[uint32][2]int64{}, map[uint64]Move{}}
		id := func(what string) uint32 { return uint32(rapid.IntRange(1, 5).Draw(t, what)) }
		pid := func() uint64 { return rapid.Uint64Range(1, 6).Draw(t, "process") }
		list := func(what string) []uint32 {
			return rapid.SliceOfNDistinct(rapid.Uint32Range(1, 5), 0, 3, rapid.ID[uint32]).Draw(t, what)
		}
		gen := uint64(0)
		for d := uint32(1); d <= 3; d++ {
			if err := s.Join(Dkernel{ID: d, Cores: 6, Slices: 12, Alive: true}); err != nil {
				t.Fatal(err)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"join": func(t *rapid.T) {
				gen++
				_ = s.Join(Dkernel{ID: id("id"), Cores: rapid.Int64Range(0, 6).Draw(t, "cores"), Slices: rapid.Int64Range(0, 12).Draw(t, "slices"),
					Generation: gen, Alive: rapid.Bool().Draw(t, "alive")})
			},
			"leave": func(t *rapid.T) {
				n := s.node(id("id"))
				if n == nil {
					return
				}
				d := uint32(n.ID)
				before := s.Moves()
				lost, err := s.Leave(d, uint64(n.Generation))
				if err != nil {
					t.Fatal(err)
				}
				for _, m := range before {
					if m.To == d || m.From == d {
						o.ended(m, m.To != d)
					}
				}
				for p := range o.holds {
					delete(o.holds[p], d)
				}
				for _, l := range lost {
					if l.Cores < 0 || l.Slices < 0 || l.Cores+l.Slices == 0 {
						t.Fatalf("lost %+v", l)
					}
				}
			},
			"alive": func(t *rapid.T) {
				if n := s.node(id("id")); n != nil {
					if err := s.SetAlive(uint32(n.ID), uint64(n.Generation), rapid.Bool().Draw(t, "alive")); err != nil {
						t.Fatal(err)
					}
				}
			},
			"start": func(t *rapid.T) { _ = s.Start(pid()) },
			"exit": func(t *rapid.T) {
				p := pid()
				if _, err := s.Exit(p); err == nil {
					delete(o.holds, p)
					for k, m := range o.moves {
						if m.Process == p {
							delete(o.moves, k)
						}
					}
					delete(s.tombs, int64(p)) // so that the stream can go on with few ids
				}
			},
			"request": func(t *rapid.T) {
				var batch []Request
				for range rapid.IntRange(1, 4).Draw(t, "batch") {
					batch = append(batch, Request{Process: pid(), Cores: rapid.Int64Range(-1, 7).Draw(t, "cores"), Slices: rapid.Int64Range(0, 14).Draw(t, "slices"),
						Shape: Shape(rapid.IntRange(0, 2).Draw(t, "shape")), Pinned: list("pins"), Near: list("near")})
				}
				for k, d := range s.Request(batch) {
					if d.Err == nil {
						o.granted(t, batch[k], d.Grants)
					} else if d.Err.Kind == Internal || len(d.Grants) > 0 {
						t.Fatalf("%v with grants %v", d.Err, d.Grants)
					}
				}
			},
			"release": func(t *rapid.T) {
				p := pid()
				g := Grant{Dkernel: id("id"), Cores: rapid.Int64Range(0, 4).Draw(t, "cores"), Slices: rapid.Int64Range(0, 4).Draw(t, "slices")}
				if n := s.node(g.Dkernel); n != nil {
					g.Generation = uint64(n.Generation)
				}
				if s.Release(p, []Grant{g}) == nil {
					o.add(p, g.Dkernel, -g.Cores, -g.Slices)
				}
			},
			"shrink": func(t *rapid.T) {
				p, c, sl := pid(), rapid.Int64Range(0, 4).Draw(t, "cores"), rapid.Int64Range(0, 4).Draw(t, "slices")
				gs, err := s.Shrink(p, c, sl)
				if err != nil {
					return
				}
				for _, g := range gs {
					o.add(p, g.Dkernel, -g.Cores, -g.Slices)
					c -= g.Cores
					sl -= g.Slices
				}
				if c != 0 || sl != 0 {
					t.Fatalf("shrunk by %v, %d and %d too little", gs, c, sl)
				}
			},
			"drain": func(t *rapid.T) {
				moves, err := s.Drain(id("id"))
				if err == nil {
					o.moved(t, moves)
				}
				var r *Refusal
				if errors.As(err, &r) && r.Kind == Internal {
					t.Fatal(err)
				}
			},
			"undrain": func(t *rapid.T) { _ = s.Undrain(id("id")) },
			"rebalance": func(t *rapid.T) {
				n := rapid.IntRange(1, 4).Draw(t, "moves")
				moves, err := s.Rebalance(n)
				if err != nil || len(moves) > n {
					t.Fatalf("%d moves of %d: %v", len(moves), n, err)
				}
				o.moved(t, moves)
			},
			"end": func(t *rapid.T) {
				all := s.Moves()
				if len(all) == 0 {
					return
				}
				m, done := all[rapid.IntRange(0, len(all)-1).Draw(t, "move")], rapid.Bool().Draw(t, "done")
				end := s.Cancel
				if done {
					end = s.Done
				}
				if err := end(m.ID); err != nil {
					t.Fatal(err)
				}
				o.ended(m, done)
			},
			"policy": func(t *rapid.T) {
				n := rapid.SampledFrom(names).Draw(t, "policy")
				text, _ := model.ShippedText(n)
				if err := s.SetPolicy(n, text); err != nil {
					t.Fatal(err)
				}
			},
			"": func(t *rapid.T) {
				o.check(t)
				dump := s.Dump()
				back, err := Load(dump)
				if err != nil {
					t.Fatalf("%v in\n%s", err, dump)
				}
				if got := back.Dump(); got != dump {
					t.Fatalf("dumped\n%s\nloaded\n%s", dump, got)
				}
			},
		})
	})
}

// TestPolicyForThisRack: a policy about the dkernels that there are is satisfiable, whatever their numbers.
func TestPolicyForThisRack(t *testing.T) {
	s, err := New(Options{})
	require.NoError(t, err)
	text := "CREATE CONSTRAINT only AS SELECT * FROM pending CHECK controllable__dkernel = 900"
	require.Error(t, s.SetPolicy("p", text))
	require.NoError(t, s.Join(Dkernel{ID: 900, Cores: 4, Slices: 4, Generation: 1}))
	require.NoError(t, s.SetPolicy("p", text))
}

// TestDeterminism runs one stream twice.
func TestDeterminism(t *testing.T) {
	run := func() string {
		s := rack(t, 5, 8, 32)
		var log strings.Builder
		for i := range uint64(40) {
			require.NoError(t, s.Start(i))
			batch := []Request{{Process: i, Cores: int64(i%5 + 1), Slices: int64(i % 7)}, {Process: i / 2, Cores: 1, Shape: Spread}}
			for _, d := range s.Request(batch) {
				fmt.Fprintln(&log, d.Grants, d.Err)
			}
		}
		return log.String() + s.Dump()
	}
	require.Equal(t, run(), run())
}
