package replay

import (
	"fmt"
	"slices"

	"dinos/sched"
	"dinos/sched/model"
	"dinos/sched/solve"
)

// Rack is the machine that a trace runs on.
type Rack struct {
	Dkernels      int
	Cores, Slices int64
	Policy        string
	Seed          uint64
	Budget        solve.Budget
	Rebalance     int // moves after each batch; 0 for none
}

// Point is the state after a batch.
type Point struct {
	Time    int64
	Used    float64 // share of the cores
	Widest  float64 // share of the cores in use at the fullest dkernel
	Whole   float64 // share of the processes that are at one dkernel
	Remote  float64 // share of the slices at dkernels where their process has no core
	Refused int     // requests, since the beginning
}

// Report is what a replay gave.
type Report struct {
	Rack     Rack
	Points   []Point
	Nanos    []int64 // of each batch, ascending
	Requests int
	Refused  int
	Proved   int // batches proved optimal
	Batches  int
	Moves    int
}

// Quantile is the time below which a share q of the batches stayed.
func (r *Report) Quantile(q float64) int64 {
	if len(r.Nanos) == 0 {
		return 0
	}
	return r.Nanos[min(len(r.Nanos)-1, int(q*float64(len(r.Nanos))))]
}

// Whole is the mean over the points of the share of processes at one dkernel.
func (r *Report) Whole() float64 {
	sum := 0.0
	for _, p := range r.Points {
		sum += p.Whole
	}
	return sum / float64(max(1, len(r.Points)))
}

// NewRack makes the scheduler of a rack.
func NewRack(k Rack) (*sched.Scheduler, error) {
	s, err := sched.New(sched.Options{Seed: k.Seed, Budget: k.Budget})
	if err != nil {
		return nil, err
	}
	text, err := model.ShippedText(k.Policy)
	if err != nil {
		return nil, err
	}
	if err := s.SetPolicy(k.Policy, text); err != nil {
		return nil, err
	}
	for i := range k.Dkernels {
		if err := s.Join(sched.Dkernel{ID: uint32(i + 1), Cores: k.Cores, Slices: k.Slices, Generation: 1, Alive: true}); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Run replays a trace. Events of equal time are one batch. A process whose first request is refused leaves at once.
func Run(k Rack, events []Event, clock func() int64) (*Report, error) {
	s, err := NewRack(k)
	if err != nil {
		return nil, err
	}
	rep := &Report{Rack: k}
	for len(events) > 0 {
		n := 1
		for n < len(events) && events[n].Time == events[0].Time {
			n++
		}
		if err := rep.batch(s, events[:n], clock); err != nil {
			return nil, err
		}
		events = events[n:]
	}
	slices.Sort(rep.Nanos)
	return rep, nil
}

func (rep *Report) batch(s *sched.Scheduler, events []Event, clock func() int64) error {
	var batch []sched.Request
	first := map[uint64]bool{}
	for _, e := range events {
		switch e.Verb {
		case Exit:
			if slices.Contains(s.Processes(), e.Process) {
				if _, err := s.Exit(e.Process); err != nil {
					return err
				}
			}
			continue
		case Shrink:
			// What was refused before cannot be given back.
			_, _ = s.Shrink(e.Process, e.Cores, e.Slices)
			continue
		case Arrive:
			if err := s.Start(e.Process); err != nil {
				return fmt.Errorf("time %d: %w", e.Time, err)
			}
			first[e.Process] = true
		}
		batch = append(batch, sched.Request{Process: e.Process, Cores: e.Cores, Slices: e.Slices, Shape: e.Shape})
	}
	if len(batch) == 0 {
		return nil
	}
	start := clock()
	dec := s.Request(batch)
	rep.Nanos = append(rep.Nanos, clock()-start)
	rep.Batches++
	if s.Last().Status == solve.Optimal {
		rep.Proved++
	}
	for i := range dec {
		rep.Requests++
		if bad := dec[i].Err; bad != nil {
			if bad.Kind == sched.Internal {
				return bad
			}
			rep.Refused++
			if first[batch[i].Process] {
				if _, err := s.Exit(batch[i].Process); err != nil {
					return err
				}
			}
		}
	}
	if rep.Rack.Rebalance > 0 {
		moves, err := s.Rebalance(rep.Rack.Rebalance)
		if err != nil {
			return err
		}
		for _, m := range moves {
			rep.Moves++
			if err := s.Done(m.ID); err != nil {
				return err
			}
		}
	}
	rep.Points = append(rep.Points, point(s, events[0].Time, rep.Refused))
	return nil
}

func point(s *sched.Scheduler, now int64, refused int) Point {
	p := Point{Time: now, Refused: refused}
	var used, total int64
	for _, n := range s.Dkernels() {
		used += n.UsedCores
		total += n.Cores
		p.Widest = max(p.Widest, float64(n.UsedCores)/float64(max(1, n.Cores)))
	}
	p.Used = float64(used) / float64(max(1, total))
	procs, whole := 0, 0
	var remote, all int64
	for _, id := range s.Processes() {
		h := s.Holds(id)
		if len(h) == 0 {
			continue
		}
		procs++
		if len(h) == 1 {
			whole++
		}
		for _, g := range h {
			all += g.Slices
			if g.Cores == 0 {
				remote += g.Slices
			}
		}
	}
	p.Whole = float64(whole) / float64(max(1, procs))
	p.Remote = float64(remote) / float64(max(1, all))
	return p
}
