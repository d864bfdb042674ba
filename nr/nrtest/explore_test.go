package nrtest

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"dinos/nr"
	"dinos/nr/oplog"
	"dinos/nr/replica"

	"github.com/stretchr/testify/require"
)

// local are steps that touch nothing another kernel sees. With one thread a kernel, schedules that differ only in them are the same.
func local(p oplog.Point) bool {
	return p >= oplog.PointReplica && p != replica.PtCompleted && p != replica.PtWait
}

type scenario struct {
	name        string
	bound       int // preemptions; -1: all schedules
	longBound   int // with DINOS_LONG=1
	raceBound   int // under the race detector
	shape       Shape
	everyStep   bool // steps inside a kernel count, too
	setup       func(w *World, k []*Kernel)
	kernels     int
	prefill     int // ops per kernel before the schedule begins
	atLeastRuns int
}

var add, set, get, sum, all = Op{Kind: Add, Arg: 1}, Op{Kind: Set, Arg: 7}, Op{Kind: Get}, Op{Kind: Sum}, Op{Kind: AddAll, Arg: 2}

func key(o Op, k uint8) Op { o.Key = k; return o }

func scenarios() []scenario {
	one := Shape{Logs: 1, Entries: 4, Replicas: 3, Patience: 1, Threads: 3}
	two := Shape{Logs: 2, Entries: 4, Replicas: 3, Patience: 1, Threads: 3}
	return []scenario{
		{name: "two appenders", bound: -1, longBound: -1, raceBound: 3, shape: one, kernels: 2, atLeastRuns: 500, setup: func(w *World, k []*Kernel) {
			w.Thread(k[0], 0, add)
			w.Thread(k[1], 0, set)
		}},
		{name: "append and reads on both", bound: 3, longBound: 6, raceBound: 2, prefill: 1, shape: one, kernels: 3, setup: func(w *World, k []*Kernel) {
			w.Thread(k[0], 0, add)
			w.Thread(k[1], 0, get)
			w.Thread(k[2], 0, set, get)
		}},
		{name: "combining in one kernel", bound: 2, longBound: 4, raceBound: 1, shape: one, kernels: 2, everyStep: true, setup: func(w *World, k []*Kernel) {
			w.Thread(k[0], 0, add, get)
			w.Thread(k[0], 0, get, add)
			w.Thread(k[1], 0, set)
		}},
		{name: "wrap with collection", bound: 3, longBound: 5, raceBound: 2, prefill: 2, shape: one, kernels: 2, setup: func(w *World, k []*Kernel) {
			w.Thread(k[0], 0, add, add, get)
			w.Thread(k[1], 0, set, get, add)
		}},
		{name: "death", bound: 3, longBound: 5, raceBound: 2, prefill: 1, shape: one, kernels: 2, setup: func(w *World, k []*Kernel) {
			w.Thread(k[0], 0, add, get)
			w.Thread(k[1], 0, set, add)
			w.Kill(k[1], 0)
		}},
		{name: "stall", bound: 2, longBound: 4, raceBound: 1, prefill: 2, shape: one, kernels: 2, setup: func(w *World, k []*Kernel) {
			w.Thread(k[0], 0, add, add, get)
			w.Thread(k[1], 0, set, add)
			w.Stall(k[1], 0)
		}},
		{name: "stall while the ring is reused", bound: 2, longBound: 4, raceBound: 2, prefill: 1, shape: one, kernels: 2, setup: func(w *World, k []*Kernel) {
			w.Thread(k[0], 0, set, add, add, key(set, 1), key(add, 2), add, get)
			w.Thread(k[1], 0, key(set, 3))
			w.StallLong(k[1], 0)
		}},
		{name: "stall half way into an entry", bound: 2, longBound: 3, raceBound: 1, shape: one, kernels: 2, setup: func(w *World, k []*Kernel) {
			w.Thread(k[0], 0, key(set, 1), key(add, 2), add, set)
			w.Thread(k[1], 0, key(set, 3))
			w.Stall(k[1], 0)
		}},
		{name: "join below the donor", bound: 2, longBound: 4, raceBound: 1, prefill: 1, shape: one, kernels: 3, setup: func(w *World, k []*Kernel) {
			// Slot 0 is free again, kernel 2 has filled the ring, kernel 1 has not looked yet.
			if err := errors.Join(w.Depart(k[0]), w.work(k[2], 9, []Op{add, add, add, add})); err != nil {
				panic(err)
			}
			w.Thread(k[2], 0, add)
			w.JoinAfter(k[1])
		}},
		{name: "join", bound: 0, longBound: 2, raceBound: 0, prefill: 2, shape: one, kernels: 2, setup: func(w *World, k []*Kernel) {
			w.Thread(k[0], 0, add)
			w.Thread(k[1], 0, set, add)
			must(w.Join(k[0], 0, get))
		}},
		{name: "two logs", bound: 4, longBound: 7, raceBound: 2, shape: two, kernels: 2, setup: func(w *World, k []*Kernel) {
			w.Thread(k[0], 0, key(add, 0), key(get, 1))
			w.Thread(k[1], 0, key(add, 1), key(get, 0))
		}},
		{name: "two logs, op across", bound: 3, longBound: 6, raceBound: 2, shape: two, kernels: 2, setup: func(w *World, k []*Kernel) {
			w.Thread(k[0], 0, all)
			w.Thread(k[1], 0, key(add, 1), key(get, 0))
		}},
		{name: "two logs, reads across", bound: 3, longBound: 5, raceBound: 2, shape: two, kernels: 2, setup: func(w *World, k []*Kernel) {
			// Log 0 before log 1, in the order in which a read goes through them, and distinguishable in the sum.
			w.Thread(k[0], 0, sum, key(add, 0))
			w.Thread(k[1], 0, key(set, 0), key(add, 1), sum)
		}},
		{name: "two logs, death across", bound: 1, longBound: 3, raceBound: 1, prefill: 2, shape: two, kernels: 2, setup: func(w *World, k []*Kernel) {
			w.Thread(k[0], 0, key(add, 0), sum, key(add, 1))
			w.Thread(k[1], 0, all, all)
			w.Kill(k[1], 0)
			w.Syncer(k[0], 0)
		}},
		{name: "two logs, three kernels across", bound: 2, longBound: 3, raceBound: 1, shape: two, kernels: 3, setup: func(w *World, k []*Kernel) {
			w.Thread(k[0], 0, all)
			w.Thread(k[1], 0, key(add, 1), key(get, 0))
			w.Thread(k[2], 0, key(get, 1), key(get, 0), key(get, 1))
		}},
	}
}

func must(_ *Kernel, err error) {
	if err != nil {
		panic(err)
	}
}

// TestExplore runs every schedule of small cases: all of them, or all with up to so many preemptions.
func TestExplore(t *testing.T) {
	for _, sc := range scenarios() {
		t.Run(sc.name, func(t *testing.T) {
			e := &Explorer{Bound: sc.bound}
			switch {
			case long():
				e.Bound = sc.longBound
			case underRace:
				e.Bound = sc.raceBound
			}
			for e.Begin(); e.More(); e.End() {
				w, err := NewWorld(fmt.Sprintf("explore-%s-%d", sc.name, e.Runs), e, sc.shape)
				require.NoError(t, err)
				if !sc.everyStep {
					w.Skip = local
				}
				for range sc.kernels {
					_, err := w.Boot()
					require.NoError(t, err)
				}
				require.NoError(t, w.Prefill(sc.prefill))
				sc.setup(w, w.Kernels)
				if err := w.Finish(); err != nil {
					t.Fatalf("schedule %v: %v", e.Path(), err)
				}
			}
			require.GreaterOrEqual(t, e.Runs, max(sc.atLeastRuns, 10), "so few schedules mean that steps are not seen")
			t.Logf("%d schedules", e.Runs)
		})
	}
}

// TestEvictedReplicaDonatesNothing: a replica that failed may have stopped half way.
func TestEvictedReplicaDonatesNothing(t *testing.T) {
	w, err := NewWorld("donor", inTurn{}, Shape{Logs: 2, Entries: 8, Replicas: 3, Patience: 1, Threads: 3})
	require.NoError(t, err)
	for range 2 {
		_, err := w.Boot()
		require.NoError(t, err)
	}
	require.NoError(t, w.Prefill(2))
	k := w.Kernels[1]
	require.NoError(t, w.Kernels[0].in.Evict(k.id, false))
	require.ErrorIs(t, k.rep.Sync(), nr.ErrEvicted)
	var out bytes.Buffer
	_, err = k.rep.Donate(&out, nil)
	require.ErrorIs(t, err, nr.ErrEvicted)
	require.Zero(t, out.Len())
	require.NoError(t, k.rep.Close())
}
