// Package schedbench measures the scheduler against what it must reach, and prints a table and CSV.
package schedbench

import (
	"encoding/csv"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"dinos/sched/latency"
	"dinos/sched/model"
	"dinos/sched/replay"
	"dinos/sched/solve"
)

// Options of a Run.
type Options struct {
	Seed     uint64
	Quick    bool      // a tenth of the rounds, and of the dkernels of the largest case
	CSV      io.Writer // a row for each line of the tables; nil for none
	NoExact  bool      // do not ask the exact solver, even if it is there
	Policies []string  // to time; nil for locality and ours
}

// The reference's solver path (DCM with H2 and OR-tools CP-SAT behind TCP): what is published or was measured of it.
const (
	referenceBatching = 3 * time.Millisecond  // it waits so long for a batch, before anything is solved
	referenceSolve    = 20 * time.Millisecond // CP-SAT on 64 dkernels × 96 cores × 512 slices, best case; worst 3.2 s
)

// target is a case with the time it must stay below at the 99th percentile.
type target struct {
	latency.Case
	p99 time.Duration
}

func targets(o Options, policy string) []target {
	scale, big := 1, 1000
	if o.Quick {
		scale, big = 10, 100
	}
	rack := func(nodes int, cores, slices int64, batch, rounds int, plain bool, budget, p99 time.Duration) target {
		return target{latency.Case{Nodes: nodes, Cores: cores, Slices: slices, Fill: 0.5, Batch: batch, Rounds: max(2, rounds/scale),
			Policy: policy, Plain: plain, Seed: o.Seed, Budget: solve.Budget{Nanos: int64(budget), Gap: 0.005}}, p99}
	}
	return []target{
		rack(4, 8, 64, 1, 5000, true, 3*time.Microsecond, 20*time.Microsecond),
		rack(4, 8, 64, 1, 5000, false, 3*time.Microsecond, 20*time.Microsecond),
		rack(64, 96, 1024, 1, 3000, false, 20*time.Microsecond, 0),
		rack(64, 96, 1024, 50, 500, false, 400*time.Microsecond, time.Millisecond),
		rack(big, 96, 1024, big/2, 20, false, 30*time.Millisecond, 50*time.Millisecond),
	}
}

// table prints aligned lines and the same as CSV.
type table struct {
	w   io.Writer
	csv *csv.Writer
	err error
}

func (t *table) line(format string, cells ...any) {
	if t.err == nil {
		_, t.err = fmt.Fprintf(t.w, format+"\n", cells...)
	}
	if t.csv == nil || len(cells) == 0 {
		return
	}
	row := make([]string, len(cells))
	for i, c := range cells {
		row[i] = fmt.Sprint(c)
	}
	if err := t.csv.Write(row); err != nil && t.err == nil {
		t.err = err
	}
}

// Run measures and prints. Missing a target is printed, not an error: the machine may be busy.
func Run(w io.Writer, o Options) error {
	t := &table{w: w}
	if o.CSV != nil {
		t.csv = csv.NewWriter(o.CSV)
	}
	if len(o.Policies) == 0 {
		o.Policies = []string{"locality", "ours"}
	}
	for _, p := range o.Policies {
		if _, err := model.ShippedText(p); err != nil {
			return err
		}
	}
	if err := t.latencies(o); err != nil {
		return err
	}
	if err := t.quality(o); err != nil {
		return err
	}
	if t.csv != nil {
		t.csv.Flush()
		if err := t.csv.Error(); err != nil {
			return err
		}
	}
	return t.err
}

// threadTime is the processor time of the calling thread: what a round takes when nobody else wants the processor.
func threadTime() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		return 0
	}
	return ts.Nano()
}

func (t *table) latencies(o Options) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start := time.Now()
	clocks := []struct {
		name string
		now  func() int64
	}{{"wall", func() int64 { return int64(time.Since(start)) }}, {"cpu", threadTime}}
	const format = "%-56s %-5s %9s %9s %9s %9s %-7s %8s %8s %8s %7s %9s"
	t.line(format, "case", "clock", "p50 us", "p90 us", "p99 us", "must us", "reached", "proved %", "gap %", "refused", "allocs", "reference")
	for _, policy := range o.Policies {
		for _, c := range targets(o, policy) {
			for _, k := range clocks {
				c.Budget.Clock = k.now
				r, err := latency.Measure(c.Case, k.now)
				if err != nil {
					return fmt.Errorf("%v: %w", c.Case, err)
				}
				must, reached := "", ""
				if c.p99 > 0 {
					must, reached = us(int64(c.p99)), yes(r.Quantile(0.99) <= int64(c.p99))
				}
				t.line(format, c.Case.String(), k.name, us(r.Quantile(0.5)), us(r.Quantile(0.9)), us(r.Quantile(0.99)), must, reached,
					percent(float64(r.Optimal)/float64(len(r.Nanos))), percent(worst(r.Gap[1:])), strconv.Itoa(r.Refused),
					fmt.Sprintf("%.1f", r.Allocs), ratio(c.Nodes, r.Quantile(0.5)))
			}
		}
	}
	t.line("the search of a round ends at a proof, at a gap of 0.5 %% in every tier, or when its budget of time is spent.")
	t.line("reference: times faster than the reference's %v of batching plus %v of solving at best; 3.2 s at worst.", referenceBatching, referenceSolve)
	t.line("cpu: processor time of the thread, which other programs on the machine do not lengthen.")
	return nil
}

func us(ns int64) string { return fmt.Sprintf("%.1f", float64(ns)/1000) }

func percent(x float64) string { return fmt.Sprintf("%.2f", 100*x) }

// ratio is empty where the reference has not been measured.
func ratio(nodes int, ns int64) string {
	if nodes > 64 {
		return ""
	}
	return fmt.Sprintf("%.0fx", float64(referenceBatching+referenceSolve)/float64(max(ns, 1)))
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "NO"
}

func worst(xs []float64) float64 {
	m := 0.0
	for _, x := range xs {
		m = max(m, x)
	}
	return m
}

// Small suite: instances, and the work that each may cost.
const suite = 60

var suiteBudget = solve.Budget{Iterations: 200_000}

func (t *table) quality(o Options) error {
	const format = "%-12s %10s %8s %8s %14s %14s %14s"
	n, limit := suite, 20*time.Second
	if o.Quick {
		n = suite / 5
	}
	if _, err := exec.LookPath("cbc"); err != nil || o.NoExact {
		limit = 0
		t.line("the comparison with an exact solver is skipped: %s", replay.ErrNoSolver)
	}
	t.line("")
	t.line(format, "small suite", "instances", "proved", "reached", "asked of CBC", "equal to CBC", "CBC/ours time")
	for _, policy := range []string{"locality", "ours"} {
		p := model.MustShipped(policy)
		proved, asked, equal := 0, 0, 0
		var mine, theirs int64
		for i := range n {
			c, err := replay.Compare(fmt.Sprintf("%s %d", policy, i), p, replay.SmallRound(i), suiteBudget, limit)
			if err != nil {
				return err
			}
			if c.Proved {
				proved++
			}
			if c.Exact != nil {
				asked++
				mine += c.Nanos
				theirs += c.ExactNs
				if c.Equal() {
					equal++
				}
			}
		}
		t.line(format, policy, strconv.Itoa(n), strconv.Itoa(proved), yes(proved == n && equal == asked), strconv.Itoa(asked), strconv.Itoa(equal),
			fmt.Sprintf("%.0fx", float64(theirs)/float64(max(mine, 1))))
	}
	t.line("locality is the reference's weights: equal to CBC means at least the reference's locality, solved exactly.")
	return t.full(o)
}

// full shows the gap where room is scarce.
func (t *table) full(o Options) error {
	const format = "%-56s %9s %9s %9s %9s %9s %9s"
	t.line("")
	t.line(format, "gap by tier, in %, and what is refused", "tier 1", "tier 2", "tier 3", "tier 4", "tier 6", "refused %")
	rounds := 20
	if o.Quick {
		rounds = 3
	}
	for _, policy := range o.Policies {
		for _, fill := range []float64{0.5, 0.8, 0.9} {
			c := latency.Case{Nodes: 64, Cores: 96, Slices: 1024, Fill: fill, Batch: 50, Rounds: rounds, Policy: policy, Seed: o.Seed,
				Budget: solve.Budget{Nanos: int64(time.Millisecond), Clock: threadTime}}
			r, err := latency.Measure(c, threadTime)
			if err != nil {
				return fmt.Errorf("%v: %w", c, err)
			}
			g := func(tier int) string { return percent(r.Gap[tier]) }
			t.line(format, c.String(), g(1), g(2), g(3), g(4), g(6), percent(float64(r.Refused)/float64(max(1, r.Requests))))
		}
	}
	return nil
}
