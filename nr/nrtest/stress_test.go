package nrtest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"dinos/nr"
	"dinos/shmem/region"

	"github.com/stretchr/testify/require"
)

// stress is a rack of real goroutines: every kernel has its own access to the slab, and they run as the machine lets them. The
// race detector and porcupine watch.
type stress struct {
	t     *testing.T
	mem   []byte
	cfg   nr.Config[Op, uint32]
	clock atomic.Int64
	ids   atomic.Uint32
	mu    sync.Mutex
	h     History // guarded by mu
	n     int     // clients, guarded by mu
	wg    sync.WaitGroup
	work  sync.WaitGroup
	over  atomic.Bool
}

func (s *stress) open() *nr.Instance[Op, uint32] {
	in, err := nr.Open(s.mem, s.cfg)
	require.NoError(s.t, err)
	return in
}

// kernel has threads do ops on rep, and a syncer keep it up to date. gone says that an eviction may have hit it.
func (s *stress) kernel(rep *nr.Replica[Op, uint32], seed uint64, threads, ops int, gone *atomic.Bool) {
	for t := range threads {
		h, err := rep.Register()
		if err != nil {
			s.t.Error(err)
			return
		}
		s.work.Add(1)
		go func() {
			defer s.work.Done()
			s.thread(h, rand.New(rand.NewPCG(seed, uint64(t))), ops, gone)
		}()
	}
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		for !s.over.Load() {
			if err := rep.Sync(); err != nil {
				if !gone.Load() {
					s.t.Error("sync:", err)
				}
				return
			}
			runtime.Gosched()
		}
	}()
}

func (s *stress) thread(h *nr.Handle[Op, uint32], r *rand.Rand, ops int, gone *atomic.Bool) {
	s.mu.Lock()
	client := s.n
	s.n++
	s.mu.Unlock()
	for range ops {
		op := Op{Kind: [...]uint8{Get, Get, Add, Set, Sum, AddAll}[r.IntN(6)], Key: uint8(r.IntN(Keys)), Arg: uint16(1 + r.IntN(99)),
			ID: s.ids.Add(1)}
		s.mu.Lock()
		call := s.h.Call(client, op, s.clock.Add(1))
		s.mu.Unlock()
		do := h.Apply
		if op.Kind == Get || op.Kind == Sum {
			do = h.Read
		}
		out, err := do(op)
		if err != nil {
			if !gone.Load() || !errors.Is(err, nr.ErrEvicted) {
				s.t.Error(op, err)
			}
			return
		}
		now := s.clock.Add(1)
		s.mu.Lock()
		s.h.Return(call, out, now)
		s.mu.Unlock()
	}
}

// TestStress runs short histories with real goroutines; in each a kernel joins and one is evicted meanwhile.
func TestStress(t *testing.T) {
	n := 200
	switch {
	case long():
		n = 10_000
	case underRace:
		n = 300
	}
	seed, n := firstSeed(t, 1, n)
	t.Logf("seeds %d to %d", seed, seed+uint64(n)-1)
	for ; n > 0 && !t.Failed(); n, seed = n-1, seed+1 {
		stressOnce(t, seed)
	}
}

func stressOnce(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 0x57))
	s := &stress{t: t, cfg: BankConfig(1 + r.IntN(3))}
	s.cfg.Entries, s.cfg.Replicas, s.cfg.Threads = 8<<r.IntN(4), 4, 4
	size, err := s.cfg.Size()
	require.NoError(t, err)
	s.mem = region.Slab(int(size))
	require.NoError(t, nr.Format(s.mem, s.cfg))
	var gone [3]atomic.Bool
	var reps [2]*nr.Replica[Op, uint32]
	for i := range reps {
		reps[i], err = s.open().First()
		require.NoError(t, err)
	}
	for i, rep := range reps {
		s.kernel(rep, seed+uint64(i), 2, 4, &gone[i])
	}
	s.work.Add(1)
	go func() { // the joiner
		defer s.work.Done()
		var snap bytes.Buffer
		if _, err := reps[0].Donate(&snap, nil); err != nil {
			t.Error("donate:", err)
			return
		}
		rep, err := s.open().Join(&snap)
		if err != nil {
			t.Error("join:", err)
			return
		}
		s.kernel(rep, seed+7, 2, 3, &gone[2])
	}()
	authority := s.open()
	for range r.IntN(2000) {
		runtime.Gosched()
	}
	gone[1].Store(true)
	for {
		err := authority.Evict(reps[1].ID(), false)
		if err == nil {
			break
		}
		if !errors.Is(err, nr.ErrFull) {
			t.Error("evict:", err)
			break
		}
		runtime.Gosched()
	}
	s.work.Wait()
	s.over.Store(true)
	s.wg.Wait()
	require.NoError(t, reps[1].Close())
	s.mu.Lock()
	defer s.mu.Unlock()
	require.NoError(t, s.h.Check(fmt.Sprintf("stress-%d", seed)))
}
