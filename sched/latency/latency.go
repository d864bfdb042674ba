// Package latency measures how long rounds of the scheduler take, with a clock of the caller's, so that the same
// cases run on the host and inside of a kernel.
package latency

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"

	"dinos/sched"
	"dinos/sched/model"
	"dinos/sched/solve"
)

// Case is one measurement: a rack of equal dkernels, filled to a share of its cores, and batches of requests that are
// decided and given back again.
type Case struct {
	Nodes         int
	Cores, Slices int64 // of each dkernel
	Fill          float64
	Batch, Rounds int
	Policy        string // a shipped one
	Plain         bool   // packed requests alone; else 70 % packed, 20 % spread, 10 % apart
	Budget        solve.Budget
	Seed          uint64
}

func (c Case) String() string {
	mix := "mixed"
	if c.Plain {
		mix = "plain"
	}
	return fmt.Sprintf("%d x %d x %d, batch %d, %.0f %% full, %s, %s", c.Nodes, c.Cores, c.Slices, c.Batch, 100*c.Fill, mix, c.Policy)
}

// Result is what a Case gave.
type Result struct {
	Nanos    []int64                 // of each round, ascending
	Optimal  int                     // rounds proved optimal
	Refused  int                     // requests, of Batch × Rounds
	Gap      [model.MaxTiers]float64 // mean over the rounds, by tier
	Allocs   float64                 // heap objects a round
	Requests int
}

// Quantile is the time below which a share q of the rounds stayed, in nanoseconds.
func (r *Result) Quantile(q float64) int64 {
	if len(r.Nanos) == 0 {
		return 0
	}
	return r.Nanos[min(len(r.Nanos)-1, int(q*float64(len(r.Nanos))))]
}

// bench is a running case.
type bench struct {
	c    Case
	s    *sched.Scheduler
	r    *rand.Rand
	next uint64
}

// Filled makes the rack of a case.
func Filled(c Case) (*sched.Scheduler, error) {
	b, err := newBench(c)
	if err != nil {
		return nil, err
	}
	return b.s, nil
}

func newBench(c Case) (*bench, error) {
	s, err := sched.New(sched.Options{Seed: c.Seed, Budget: solve.Budget{Iterations: 1}})
	if err != nil {
		return nil, err
	}
	text, err := model.ShippedText(c.Policy)
	if err != nil {
		return nil, err
	}
	if err := s.SetPolicy(c.Policy, text); err != nil {
		return nil, err
	}
	for i := range c.Nodes {
		if err := s.Join(sched.Dkernel{ID: uint32(i + 1), Cores: c.Cores, Slices: c.Slices, Generation: 1, Alive: true}); err != nil {
			return nil, err
		}
	}
	b := &bench{c: c, s: s, r: rand.New(rand.NewPCG(c.Seed, 2))}
	if err := b.fill(); err != nil {
		return nil, err
	}
	return b, s.SetBudget(c.Budget)
}

// fill grants processes of 1 to 8 cores, with slices in proportion, until the share of the cores is reached.
func (b *bench) fill() error {
	goal := int64(b.c.Fill * float64(int64(b.c.Nodes)*b.c.Cores))
	var batch []sched.Request
	for used := int64(0); used < goal; {
		q, err := b.request(true)
		if err != nil {
			return err
		}
		q.Slices = 1 + q.Cores*int64(1+b.r.IntN(int(max(1, 2*b.c.Slices/b.c.Cores))))/2
		batch = append(batch, q)
		if used += q.Cores; len(batch) == 200 || used >= goal {
			b.s.Request(batch) // at high fill some are refused; the next ones fill up
			batch = batch[:0]
		}
	}
	return nil
}

func (b *bench) request(plain bool) (sched.Request, error) {
	b.next++
	most := int(min(8, b.c.Cores))
	q := sched.Request{ID: b.next, Process: b.next, Cores: int64(1 + b.r.IntN(most)), Slices: int64(1 + b.r.IntN(int(max(1, b.c.Slices/16))))}
	if !plain {
		switch k := b.r.IntN(10); {
		case k < 2:
			q.Shape = sched.Spread
		case k == 2 && q.Cores <= int64(b.c.Nodes)/2:
			q.Shape = sched.Apart
		}
	}
	return q, b.s.Start(q.Process)
}

// Measure runs a case. clock gives nanoseconds.
func Measure(c Case, clock func() int64) (*Result, error) {
	b, err := newBench(c)
	if err != nil {
		return nil, err
	}
	res := &Result{}
	batch := make([]sched.Request, c.Batch)
	warm := min(c.Rounds, 20)
	var mallocs uint64
	for round := range c.Rounds + warm {
		for i := range batch {
			if batch[i], err = b.request(c.Plain); err != nil {
				return nil, err
			}
		}
		var before, after runtime.MemStats
		if round == warm {
			runtime.ReadMemStats(&before)
		}
		start := clock()
		dec := b.s.Request(batch)
		took := clock() - start
		if round == warm {
			runtime.ReadMemStats(&after)
			mallocs = after.Mallocs - before.Mallocs
		}
		if round >= warm {
			res.add(b.s.Last(), dec, took, c.Rounds)
		}
		for i := range batch {
			if _, err := b.s.Exit(batch[i].Process); err != nil {
				return nil, err
			}
		}
	}
	res.Allocs = float64(mallocs)
	slices.Sort(res.Nanos)
	return res, nil
}

func (r *Result) add(last sched.Round, dec []sched.Decision, took int64, rounds int) {
	r.Nanos = append(r.Nanos, took)
	r.Requests += len(dec)
	for i := range dec {
		if dec[i].Err != nil {
			r.Refused++
		}
	}
	if last.Status == solve.Optimal {
		r.Optimal++
	}
	sol := solve.Solution{Status: last.Status, Cost: last.Cost, Bound: last.Bound}
	for t := range r.Gap {
		r.Gap[t] += sol.Gap(t) / float64(rounds)
	}
}
