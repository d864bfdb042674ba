package nrtest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// long is whether the long forms of the tests were asked for: DINOS_LONG=1.
func long() bool { return os.Getenv("DINOS_LONG") == "1" }

// firstSeed lets NR_SEED=n repeat one history.
func firstSeed(t *testing.T, dflt uint64, n int) (uint64, int) {
	if s := os.Getenv("NR_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
		return seed, 1
	}
	return dflt, n
}

// randomWorld is a world that depends on the seed alone.
func randomWorld(seed uint64) (*World, error) {
	c := NewRandom(seed)
	r := rand.New(rand.NewPCG(seed, 0x776f726c64))
	sh := Shape{Logs: 1 + r.IntN(3), Entries: 4 << r.IntN(3), Replicas: 4 + r.IntN(3), Patience: 1 + r.IntN(4), Threads: 8}
	if r.IntN(2) == 0 {
		sh.Logs = 1
	}
	w, err := NewWorld(fmt.Sprintf("seed-%d", seed), c, sh)
	if err != nil {
		return nil, err
	}
	ops := func() []Op {
		var out []Op
		for range 1 + r.IntN(3) {
			out = append(out, Op{Kind: [...]uint8{Get, Add, Add, Set, Sum, AddAll, Get}[r.IntN(7)], Key: uint8(r.IntN(Keys)),
				Arg: uint16(1 + r.IntN(9))})
		}
		return out
	}
	for range 2 + r.IntN(2) {
		if _, err := w.Boot(); err != nil {
			return nil, err
		}
	}
	booted := len(w.Kernels)
	for _, k := range w.Kernels {
		for range 1 + r.IntN(2) {
			w.Thread(k, r.IntN(40), ops()...)
		}
	}
	for range r.IntN(3) {
		if _, err := w.Join(w.Kernels[r.IntN(booted)], r.IntN(80), ops()...); err != nil {
			return nil, err
		}
	}
	// Kernel 0 survives; the others may meet any fate.
	for _, k := range w.Kernels[1:] {
		switch r.IntN(6) {
		case 0:
			w.Kill(k, r.IntN(150))
		case 1:
			w.Stall(k, r.IntN(150))
		case 2:
			w.Leave(k)
		case 3:
			w.StallLong(k, r.IntN(150))
		}
	}
	for _, k := range w.Kernels {
		w.Syncer(k, 0)
	}
	return w, nil
}

// TestRandomHistories runs many small racks in which replicas join, leave, stall, are evicted or die at any step.
func TestRandomHistories(t *testing.T) {
	n := 3000
	switch {
	case long():
		n = 200_000
	case underRace:
		n = 1500
	}
	seed, n := firstSeed(t, 1, n)
	t.Logf("seeds %d to %d; NR_SEED=n repeats one", seed, seed+uint64(n)-1)
	ops := 0
	for s := seed; s < seed+uint64(n); s++ {
		w, err := randomWorld(s)
		require.NoError(t, err)
		w.Tracing = n == 1
		if err := w.Finish(); err != nil {
			if n == 1 {
				t.Log(w.Trace())
				for _, l := range w.Kernels[0].in.Logs() {
					_ = l.Dump(os.Stdout, 100)
				}
			}
			t.Fatalf("seed %d: %v", s, err)
		}
		ops += w.Len()
	}
	t.Logf("%d histories, %d calls", n, ops)
}
