package sched

import (
	"strings"
	"testing"

	"dinos/sched/model"
	"dinos/sched/solve"

	"github.com/stretchr/testify/require"
)

const state = `dinos-sched 1
seed 7
round 3 cursor 0 nextmove 2
budget iterations 50
# a comment
dkernel 1 cores 4 slices 16 generation 1 alive
dkernel 2 cores 4 slices 16 generation 9 alive drained
dkernel 5 cores 8 slices 8 generation 2
dkernel 6 cores 8 slices 8 generation 2 alive
process 10
process 11
hold 10 dkernel 1 cores 3 slices 4
hold 11 dkernel 6 cores 2 slices 2 pinned 1 0 apart 1
move 1 process 11 from 1 to 6 cores 1 slices 1
exited 4
`

func TestExplain(t *testing.T) {
	out, err := ExplainFile(state + "request 1 process 10 cores 1 slices 2\nrequest 2 process 10 cores 7 slices 0\nrequest 3 process 11 cores 1 slices 0 pinned 2,5\nrequest 4 process 4 cores 1 slices 0\n")
	require.NoError(t, err)
	parts := strings.Split(out, "\nrequest ")
	require.Len(t, parts, 4)
	require.Contains(t, parts[0], "granted: 0 cores and 2 slices at dkernel 1\ngranted: 1 cores and 0 slices at dkernel 6\noptimal")
	require.Contains(t, parts[0], "blocked by core_capacity", "dkernel 1 has no core left: one is on its way to another")
	require.Contains(t, parts[0], "blocked by not_drained")
	require.Contains(t, parts[0], "blocked by alive")
	require.Contains(t, parts[1], "minimal set of constraints that refuse it: core_capacity, alive, not_drained")
	require.Contains(t, parts[1], "physical:4:19 core_capacity")
	require.Contains(t, parts[2], "minimal set of constraints that refuse it: alive, not_drained, pinned")
	require.Contains(t, parts[3], "dead process (processes): process 4 has exited")
}

func TestLoadErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":      "no request to explain",
		"hello": `line 1: expected "dinos-sched 1": this is not the state of a scheduler`,
		state + "dkernel 1 cores 1 slices 1 generation 1":         "line 16: Join: invalid (dkernels): dkernel 1 is a member already",
		state + "dkernel 9 cores x":                               `line 16: expected a number after "cores", found "x"`,
		state + "dkernel 0 cores 1 slices 1 generation 1":         "dkernel id 0: ids are from 1 to",
		state + "process 10":                                      "line 16: Start: invalid (processes): process 10 has started already",
		state + "hold 10 dkernel 1 cores 1 slices 1":              "line 16: a second entry for process 10 at dkernel 1",
		state + "hold 10 dkernel 6 cores 9 slices 1":              "9 cores and 1 slices at dkernel 6, where 6 and 6 are free",
		state + "hold 12 dkernel 1 cores 1 slices 1":              "process 12 is not among the processes above",
		state + "frob 1":                                          `unknown entry "frob"; entries are seed,`,
		state + "exited 5 6":                                      `line 16: unexpected "6" at the end`,
		state + "request 1 process 1 cores 1 slices 0 wide":       `unexpected "wide"; a request may say pack, spread, apart`,
		state + "request 1 process 1 cores 1 slices 0 pinned 1,x": `found "x"`,
		state + "policy p\n| CREATE CONSTRAINT":                   "p:1:18: expected a name",
		state + "move 1 process 10 from 6 to 1 cores 1 slices 1":  "move 1 of process 10 from 6 to 1 does not fit",
	} {
		if !strings.HasPrefix(want, "no request") {
			_, err := Load(text)
			require.ErrorContains(t, err, want)
		}
		_, err := ExplainFile(text)
		require.ErrorContains(t, err, want)
	}
	s, err := Load(state)
	require.NoError(t, err)
	back, err := Load(s.Dump())
	require.NoError(t, err)
	require.Equal(t, s.Dump(), back.Dump())
}

func TestShowAndSet(t *testing.T) {
	s, err := Load(state)
	require.NoError(t, err)
	one(t, s, Request{Process: 10, Cores: 1})
	show := s.Show()
	for _, want := range []string{"2             0 of    4       0 of    16 9            alive, drained", "dead", "move 1: process 11, 1 cores + 1 slices, from 1 to 6",
		"last round 3: 1 requests, 0 refused", "near_pending         pair          tier 1     certified"} {
		require.Contains(t, show, want)
	}
	_, err = s.Set("mine", "CREATE CONSTRAINT a AS\nSELECT * FROM laod CHECK true")
	require.ErrorContains(t, err, `mine:2:15: unknown relation "laod"; did you mean "load"?`)
	require.ErrorContains(t, err, "policy locality stays in force")
	out, err := s.Set("mine", "CREATE CONSTRAINT few AS SELECT * FROM held CHECK cores <= 3;\nCREATE CONSTRAINT odd AS SELECT * FROM load MINIMIZE cores % 2")
	require.NoError(t, err)
	require.Contains(t, out, "policy mine replaces locality")
	require.Contains(t, out, "uncertified: not a quadratic function with conditions")
	d := s.Request([]Request{{Process: 10, Cores: 4, Pinned: []uint32{6}}})[0]
	require.NotNil(t, d.Err)
	require.Equal(t, []string{"pinned", "few"}, d.Err.Conflict)
	text, err := s.ShowPolicy("ours")
	require.NoError(t, err)
	require.Contains(t, text, "Least movement")
	text, err = s.ShowPolicy("")
	require.NoError(t, err)
	require.Contains(t, text, "few")
}

// FuzzLoad: no text makes Load panic, and what it accepts dumps and loads to itself.
func FuzzLoad(f *testing.F) {
	f.Add(state + "request 1 process 10 cores 1 slices 2 spread pinned 1,2 near 6\n")
	f.Add(state + "policy p\n| CREATE CONSTRAINT c AS SELECT * FROM load MINIMIZE cores\n")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Load(text)
		if err != nil {
			return
		}
		back, err := Load(s.Dump())
		if err != nil {
			t.Fatalf("%v in\n%s", err, s.Dump())
		}
		if back.Dump() != s.Dump() {
			t.Fatalf("dumped\n%s\nloaded\n%s", s.Dump(), back.Dump())
		}
		_, _ = ExplainFile(text)
	})
}

// FuzzRequests drives a scheduler with bytes: ids, counts and lists of any size, in and out of range.
func FuzzRequests(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 1, 200, 7, 9, 2, 1, 1, 1, 3, 0, 0, 4, 4, 1, 9, 5, 5, 2, 2})
	f.Fuzz(func(t *testing.T, ops []byte) {
		s := rack(t, 3, 4, 8)
		require.NoError(t, s.SetBudget(solve.Budget{Iterations: 2}))
		next := func() int64 {
			if len(ops) == 0 {
				return 0
			}
			b := ops[0]
			ops = ops[1:]
			switch b {
			case 255:
				return 1 << 62
			case 254:
				return -1 << 63
			}
			return int64(b) - 2
		}
		policies := model.Shipped()
		for n := 0; len(ops) > 0 && n < 60; n++ {
			switch p, d := uint64(next()), uint32(next()); next() & 15 {
			case 0:
				_ = s.Start(p)
			case 1:
				_, _ = s.Exit(p)
			case 2:
				_ = s.Release(p, []Grant{{d, 1, next(), next()}})
			case 3:
				_, _ = s.Shrink(p, next(), next())
			case 4:
				_, _ = s.Drain(d)
			case 5:
				_ = s.Undrain(d)
			case 6:
				_, _ = s.Rebalance(int(next()))
			case 7:
				_ = s.Done(p)
			case 8:
				_ = s.Cancel(p)
			case 9:
				_, _ = s.Leave(d, 1)
			case 10:
				_ = s.Join(Dkernel{ID: d, Cores: next(), Slices: next(), Generation: 1, Alive: true})
			case 11:
				_ = s.SetAlive(d, 1, p&1 == 0)
			case 12:
				name := policies[d%uint32(len(policies))]
				text, _ := model.ShippedText(name)
				require.NoError(t, s.SetPolicy(name, text))
			default:
				for _, dec := range s.Request([]Request{{Process: p, Cores: next(), Slices: next(), Shape: Shape(next()), Pinned: []uint32{d}}, {Process: p, Cores: next(), Near: []uint32{d}}}) {
					if dec.Err != nil && dec.Err.Kind == Internal {
						t.Fatal(dec.Err)
					}
				}
			}
		}
		if _, err := Load(s.Dump()); err != nil {
			t.Fatal(err)
		}
	})
}
