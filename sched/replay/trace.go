// Package replay drives the scheduler with generated or recorded workloads, measures the quality of its placements,
// compares them with an exact solver (COIN-OR CBC, where it is installed), and draws the results.
package replay

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"dinos/sched"
)

// Verb is what an Event does.
type Verb string

// The verbs of a trace. Arrive starts a process and asks for its first resources; grow asks for more, shrink gives
// back, exit ends it.
const (
	Arrive Verb = "arrive"
	Grow   Verb = "grow"
	Shrink Verb = "shrink"
	Exit   Verb = "exit"
)

// Event is one line of a trace. Events of equal time make a batch.
type Event struct {
	Time          int64 // milliseconds
	Verb          Verb
	Process       uint64
	Cores, Slices int64
	Shape         sched.Shape
}

// Workload parametrises a generated trace: Poisson arrivals, geometric sizes, exponential lifetimes.
type Workload struct {
	Seed      uint64
	Processes int
	Gap       float64 // mean milliseconds between batches
	Batch     int     // mean arrivals in a batch
	Cores     float64 // mean cores of a request
	Slices    float64 // mean slices a core
	Life      float64 // mean lifetime in milliseconds
	Spread    float64 // share of the requests that are spread, that are apart
	Apart     float64
	Change    float64 // share of the processes that grow and shrink once
}

// Generate makes the trace of a workload; equal workloads give equal traces.
func Generate(w Workload) ([]Event, error) {
	if w.Processes < 1 || w.Gap <= 0 || w.Batch < 1 || w.Cores < 1 || w.Slices < 0 || w.Life <= 0 || w.Spread < 0 || w.Apart < 0 || w.Spread+w.Apart > 1 {
		return nil, fmt.Errorf("workload %+v: counts and means are positive, shares are from 0 to 1", w)
	}
	r := rand.New(rand.NewPCG(w.Seed, 7))
	var out []Event
	now, inBatch := 0.0, 0
	for id := uint64(1); id <= uint64(w.Processes); id++ {
		if inBatch == 0 {
			now += w.Gap * r.ExpFloat64()
			inBatch = geometric(r, float64(w.Batch))
		}
		inBatch--
		e := Event{Time: int64(now), Verb: Arrive, Process: id, Cores: int64(geometric(r, w.Cores))}
		e.Slices = int64(float64(e.Cores) * w.Slices * (0.5 + r.Float64()))
		switch x := r.Float64(); {
		case x < w.Spread:
			e.Shape = sched.Spread
		case x < w.Spread+w.Apart:
			e.Shape = sched.Apart
		}
		life := w.Life * r.ExpFloat64()
		out = append(out, e)
		if r.Float64() < w.Change {
			out = append(out, Event{Time: int64(now + life/3), Verb: Grow, Process: id, Cores: 1, Slices: e.Slices / 2},
				Event{Time: int64(now + life*2/3), Verb: Shrink, Process: id, Cores: 1})
		}
		out = append(out, Event{Time: int64(now + life + 1), Verb: Exit, Process: id})
	}
	slices.SortStableFunc(out, func(a, b Event) int { return int(a.Time - b.Time) })
	return out, nil
}

func geometric(r *rand.Rand, mean float64) int {
	if mean <= 1 {
		return 1
	}
	return 1 + int(math.Log(1-r.Float64())/math.Log(1-1/mean))
}

// Write records a trace as text: time verb process cores slices shape, one event a line.
func Write(w io.Writer, events []Event) error {
	b := bufio.NewWriter(w)
	for _, e := range events {
		fmt.Fprintf(b, "%d %s %d %d %d %v\n", e.Time, e.Verb, e.Process, e.Cores, e.Slices, e.Shape)
	}
	return b.Flush()
}

// Read reads what Write has written; lines that begin with # are comments. The error has the line.
func Read(r io.Reader) ([]Event, error) {
	var out []Event
	in := bufio.NewScanner(r)
	for line := 1; in.Scan(); line++ {
		f := strings.Fields(in.Text())
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		e, err := parseEvent(f)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		if len(out) > 0 && e.Time < out[len(out)-1].Time {
			return nil, fmt.Errorf("line %d: time %d after %d: events are in order", line, e.Time, out[len(out)-1].Time)
		}
		out = append(out, e)
	}
	return out, in.Err()
}

func parseEvent(f []string) (e Event, err error) {
	if len(f) != 6 {
		return e, fmt.Errorf("%d words: an event is time verb process cores slices shape", len(f))
	}
	var n [4]int64
	for i, k := range [...]int{0, 2, 3, 4} {
		if n[i], err = strconv.ParseInt(f[k], 10, 64); err != nil || n[i] < 0 {
			return e, fmt.Errorf("%q is not a count", f[k])
		}
	}
	e = Event{Time: n[0], Verb: Verb(f[1]), Process: uint64(n[1]), Cores: n[2], Slices: n[3]}
	switch e.Verb {
	case Arrive, Grow, Shrink, Exit:
	default:
		return e, fmt.Errorf("unknown verb %q: verbs are arrive, grow, shrink, exit", f[1])
	}
	for _, s := range [...]sched.Shape{sched.Pack, sched.Spread, sched.Apart} {
		if s.String() == f[5] {
			e.Shape = s
			return e, nil
		}
	}
	return e, fmt.Errorf("unknown shape %q: shapes are pack, spread, apart", f[5])
}
