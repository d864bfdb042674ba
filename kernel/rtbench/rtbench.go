// Package rtbench measures what a kernel gives the Go runtime: switching between
// goroutines and threads, timers, garbage collection, memory. The same code runs in
// a kernel of this project and in a static ELF on Linux, so that the two can be set
// side by side.
//
// A benchmark takes samples; a sample is the mean over a batch where one operation
// is too short to be timed alone. Reported are the samples' median and 99th
// percentile (nearest rank: of fewer than 100 samples, the largest), and the
// smallest, which a busy host disturbs least.
//
// Results leave as lines of text, "##dinos-bench " and a JSON object.
package rtbench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Prefix begins the line of each result.
const Prefix = "##dinos-bench "

// Result is the outcome of one benchmark.
type Result struct {
	Name string  `json:"name"`
	Unit string  `json:"unit"` // of Min, P50 and P99: "ns" per operation, or "us"
	Min  float64 `json:"min"`
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	N    int     `json:"n"`    // samples
	CPUs int     `json:"cpus"` // runtime.NumCPU
	// Skip is why there are no numbers, empty if there are.
	Skip string `json:"skip,omitempty"`
}

// Parse returns the result in a line of output; ok is false if the line is none.
// The prefix may come after other text, since a console is shared.
func Parse(line string) (r Result, ok bool, err error) {
	_, text, ok := strings.Cut(line, Prefix)
	if !ok {
		return Result{}, false, nil
	}
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return Result{}, true, fmt.Errorf("rtbench: bad result line %q: %w", line, err)
	}
	if r.Name == "" {
		return Result{}, true, fmt.Errorf("rtbench: result line %q has no name", line)
	}
	return r, true, nil
}

// Env is what the benchmarks need and cannot get from the standard library alone.
type Env struct {
	// Out receives the result lines.
	Out io.Writer
	// Pin binds the calling thread to one CPU, from 0; nil where that is not
	// possible. Threads that were bound end with their benchmark.
	Pin func(cpu int) error
	// Quick takes a twentieth of the samples and a small heap: for tests.
	Quick bool
}

// scale returns n samples, fewer when quick.
func (e *Env) scale(n int) int {
	if e.Quick {
		return max(n/20, 2)
	}
	return n
}

// Benchmark is one row of the table.
type Benchmark struct {
	Name string
	Unit string
	Doc  string
	run  func(*Env) (samples, error)
}

// samples are measurements in the benchmark's unit.
type samples []float64

// errSkip wraps the reason for which a benchmark cannot be run here.
type errSkip string

func (e errSkip) Error() string { return string(e) }

// Table returns the benchmarks in the order in which they run.
func Table() []Benchmark {
	return []Benchmark{
		{"pingpong", "ns", "round trip between two goroutines over unbuffered channels, GOMAXPROCS 1", pingpong},
		{"handover", "ns", "wake-up of a goroutine locked to another thread, threads placed freely", handover},
		{"handover-cpu", "ns", "the same with the two threads bound to CPUs 0 and 1", handoverPinned},
		{"sleep-1ms", "us", "lateness of time.Sleep(1 ms)", sleepLateness},
		{"timer-1ms", "us", "lateness of a time.Timer of 1 ms, other timers pending", timerLateness},
		{"gc-pause", "us", "stop-the-world time of a GC cycle, 256 MiB live, goroutines allocating", gcPause},
		{"gc-cycle", "us", "duration of runtime.GC, 256 MiB live", gcCycle},
		{"spawn", "ns", "go statement to the end of the goroutine", spawn},
		{"yield", "ns", "runtime.Gosched with one other runnable goroutine, GOMAXPROCS 1", yield},
		{"mutex", "ns", "Lock and Unlock of a sync.Mutex that GOMAXPROCS (at least 2) goroutines want", mutex},
		{"alloc-64", "ns", "allocation of 64 bytes, garbage collection included", allocSmall},
		{"alloc-1M", "ns", "allocation of 1 MiB, every page written, garbage collection included", allocLarge},
		{"now", "ns", "time.Now", now},
	}
}

// Run runs every benchmark whose name contains one of the patterns (all if there are none)
// and writes the results. A failing benchmark does not stop the others; the
// errors are joined. It changes GOMAXPROCS and the GC percentage while it runs,
// so nothing else should be running.
func Run(env Env, patterns ...string) error {
	var errs []error
	matched := false
	for _, b := range Table() {
		if len(patterns) > 0 && !slices.ContainsFunc(patterns, func(p string) bool { return strings.Contains(b.Name, p) }) {
			continue
		}
		matched = true
		if err := b.report(&env); err != nil {
			errs = append(errs, fmt.Errorf("rtbench: %s: %w", b.Name, err))
		}
	}
	if !matched {
		errs = append(errs, fmt.Errorf("rtbench: no benchmark matches %q", patterns))
	}
	return errors.Join(errs...)
}

// report runs b and writes its line.
func (b *Benchmark) report(env *Env) error {
	runtime.GC() // the last benchmark's garbage is not this one's
	s, err := b.run(env)
	r := Result{Name: b.Name, Unit: b.Unit, CPUs: runtime.NumCPU(), N: len(s)}
	var skip errSkip
	switch {
	case errors.As(err, &skip):
		r.Skip = string(skip)
	case err != nil:
		return err
	case len(s) == 0:
		return errors.New("no samples")
	default:
		r.Min, r.P50, r.P99 = slices.Min(s), s.percentile(50), s.percentile(99)
	}
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	// One Write, so that a console's other writers do not come between.
	_, err = env.Out.Write([]byte(Prefix + string(line) + "\n"))
	return err
}

// percentile returns the p-th percentile by nearest rank.
func (s samples) percentile(p float64) float64 {
	sorted := slices.Sorted(slices.Values(s))
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[max(rank, 1)-1]
}

// batches takes n samples of a function that does ops operations, in nanoseconds
// per operation, after one that is not counted.
func batches(n, ops int, f func()) samples {
	f()
	s := make(samples, n)
	for i := range s {
		start := time.Now()
		f()
		s[i] = float64(time.Since(start)) / float64(ops)
	}
	return s
}

// procs sets GOMAXPROCS and returns a function that restores it.
func procs(n int) (restore func()) {
	old := runtime.GOMAXPROCS(n)
	return func() { runtime.GOMAXPROCS(old) }
}
