package sched

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"dinos/sched/model"
	"dinos/sched/solve"

	"github.com/stretchr/testify/require"
)

// filled makes a rack of n dkernels with processes of 1 to 8 cores up to a share of its cores.
func filled(t testing.TB, policy string, n int, cores, slices int64, share float64) (s *Scheduler, r *rand.Rand, next uint64) {
	s = rack(t, n, cores, slices)
	text, err := model.ShippedText(policy)
	require.NoError(t, err)
	require.NoError(t, s.SetPolicy(policy, text))
	require.NoError(t, s.SetBudget(solve.Budget{Iterations: 1}))
	r = rand.New(rand.NewPCG(1, 2))
	var batch []Request
	for used := int64(0); float64(used) < share*float64(int64(n)*cores); {
		next++
		require.NoError(t, s.Start(next))
		c := int64(1 + r.IntN(int(min(8, cores))))
		batch = append(batch, Request{Process: next, Cores: c, Slices: 1 + c*int64(1+r.IntN(int(2*slices/cores)))/2})
		used += c
	}
	for len(batch) > 0 {
		k := min(len(batch), 200)
		for _, d := range s.Request(batch[:k]) {
			if d.Err != nil {
				require.NoError(t, d.Err)
			}
		}
		batch = batch[k:]
	}
	return s, r, next
}

// requests makes a batch of new processes: 70 % packed, 20 % spread, 10 % apart.
func requests(t testing.TB, s *Scheduler, r *rand.Rand, next *uint64, n int) []Request {
	var out []Request
	cores, slices, nodes := s.nodes[0].Cores, s.nodes[0].Slices, int64(len(s.nodes))
	for range n {
		*next++
		require.NoError(t, s.Start(*next))
		q := Request{Process: *next, Cores: int64(1 + r.IntN(int(min(8, cores)))), Slices: int64(1 + r.IntN(int(slices/16)))}
		switch k := r.IntN(10); {
		case k < 2:
			q.Shape = Spread
		case k == 2 && q.Cores <= nodes/2:
			q.Shape = Apart
		}
		out = append(out, q)
	}
	return out
}

// BenchmarkRound measures a batch at half load: decide, then give everything back.
func BenchmarkRound(b *testing.B) {
	for _, c := range []struct {
		nodes         int
		cores, slices int64
		batch         int
	}{{4, 8, 64, 1}, {64, 96, 1024, 1}, {64, 96, 1024, 50}, {1000, 96, 1024, 500}} {
		for _, policy := range model.Shipped() {
			b.Run(fmt.Sprintf("nodes=%d/batch=%d/%s", c.nodes, c.batch, policy), func(b *testing.B) {
				s, r, next := filled(b, policy, c.nodes, c.cores, c.slices, 0.5)
				var sets [][]Request
				for range 8 {
					sets = append(sets, requests(b, s, r, &next, c.batch))
				}
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					batch := sets[i%len(sets)]
					dec := s.Request(batch)
					b.StopTimer()
					for k := range dec {
						if dec[k].Err == nil {
							require.NoError(b, s.Release(batch[k].Process, dec[k].Grants))
						}
					}
					b.StartTimer()
				}
			})
		}
	}
}
