// Package nrtest tests node replication under controlled schedules: virtual kernels over one slab, each thread a
// coroutine that stops before every step of the protocol; a scheduler that decides who goes on, by a seed or by
// exhausting the choices; histories that porcupine checks.
package nrtest

import (
	"errors"
	"fmt"
	"iter"
	"strings"

	"dinos/nr/oplog"
)

// ErrStuck: all threads wait and nothing changes any more.
var ErrStuck = errors.New("nrtest: stuck")

// errKilled unwinds a thread that is never going on.
var errKilled = errors.New("nrtest: thread abandoned")

// Chooser decides what happens next: one of n ≥ 1 possibilities, of which the first is to go on with the same thread if
// same is true.
type Chooser interface {
	Choose(n int, same bool) int
}

// Sched runs threads one step at a time. It is not safe for concurrent use; nothing in it runs concurrently.
type Sched struct {
	Choice   Chooser
	MaxSteps int
	Skip     func(oplog.Point) bool          // steps that are no scheduling points
	After    func(kernel int, p oplog.Point) // called when the step before which a thread had stopped is done
	Clock    int64                           // rises with each step and each event of a history

	threads  []*thread
	current  *thread
	progress int64
	frozen   map[int]bool
	trace    []string
	Tracing  bool
}

type thread struct {
	name   string
	kernel int
	next   func() (bool, bool)
	stop   func()
	yield  func(bool) bool
	done   bool
	delay  int // steps of others before the first one
	point  oplog.Point
	waits  int64 // progress when it began to wait; -1 if it does not wait
	last   int64 // progress after its last step
	err    error
}

// Go adds a thread of a kernel. It starts after delay steps of the whole.
func (s *Sched) Go(kernel int, name string, delay int, f func() error) {
	t := &thread{name: name, kernel: kernel, delay: delay, waits: -1}
	t.next, t.stop = iter.Pull(func(yield func(bool) bool) {
		t.yield = yield
		defer func() {
			if e := recover(); e != nil && e != any(errKilled) {
				t.err = fmt.Errorf("thread %s: panic: %v", name, e)
			}
		}()
		t.err = f()
	})
	s.threads = append(s.threads, t)
}

// Probe is a scheduling point; it goes into nr.Config.
func (s *Sched) Probe(p oplog.Point) {
	if s.current == nil || s.Skip != nil && s.Skip(p) {
		return
	}
	s.step(p, false)
}

func (s *Sched) step(p oplog.Point, waiting bool) {
	t := s.current
	t.point = p
	if s.Tracing {
		s.trace = append(s.trace, fmt.Sprintf("%s:%d%s", t.name, p, map[bool]string{true: "w"}[waiting]))
	}
	if !t.yield(waiting) {
		panic(errKilled)
	}
}

// Yield is a scheduling point of a test's own.
func (s *Sched) Yield() {
	if s.current != nil {
		s.step(0xff, false)
	}
}

// WaitTurn lets the current thread pause until another one has made a step.
func (s *Sched) WaitTurn() {
	if s.current != nil {
		s.step(0xfe, true)
	}
}

// Freeze stops all threads of a kernel where they are: it died, or stalls until Thaw.
func (s *Sched) Freeze(kernel int) { s.frozen[kernel] = true }

// Thaw lets a stalled kernel go on.
func (s *Sched) Thaw(kernel int) { delete(s.frozen, kernel) }

// NewSched is a scheduler that asks c.
func NewSched(c Chooser) *Sched {
	return &Sched{Choice: c, MaxSteps: 50_000, frozen: map[int]bool{}}
}

// Run steps the threads until all that are not frozen have ended. It returns the first error of a thread, or ErrStuck.
func (s *Sched) Run() error {
	defer s.abandon()
	var last *thread
	idle := 0
	for range s.MaxSteps {
		var ready, waiting []*thread
		if last != nil && s.ready(last) && last.waits < 0 {
			ready = append(ready, last)
		}
		same := len(ready) == 1
		alive := false
		for _, t := range s.threads {
			if t.done || s.frozen[t.kernel] {
				continue
			}
			alive = true
			switch {
			case !s.ready(t) || t == last && same:
			case t.waits >= 0 && !s.changed(t):
				waiting = append(waiting, t)
			default:
				ready = append(ready, t)
			}
		}
		if !alive {
			return s.firstError()
		}
		var t *thread
		switch {
		case len(ready) > 0:
			t = ready[0]
			if len(ready) > 1 {
				t = ready[s.Choice.Choose(len(ready), same)]
			}
			idle = 0
		case len(waiting) > 0:
			// Nobody can go on but by looking again, as patience with the dead demands: in turn, without a choice.
			t = waiting[idle%len(waiting)]
			if idle++; idle > 3000 {
				return fmt.Errorf("%w: %s", ErrStuck, s.describe())
			}
		}
		s.Clock++
		if t != nil {
			s.resume(t)
			last = t
			if t.err != nil {
				return t.err
			}
		}
		s.passTime()
	}
	return fmt.Errorf("%w: %d steps: %s", ErrStuck, s.MaxSteps, s.describe())
}

// changed reports whether a look again is worth while for a waiting thread: somebody has made a step since, and so has
// everybody who could. Without the latter two threads that look again in turn would starve a third, and there would be
// schedules without end.
func (s *Sched) changed(t *thread) bool {
	for _, u := range s.threads {
		if u != t && u.waits < 0 && s.ready(u) && u.last <= t.waits {
			return false
		}
	}
	return s.progress > t.waits
}

func (s *Sched) ready(t *thread) bool { return !t.done && !s.frozen[t.kernel] && t.delay <= 0 }

func (s *Sched) passTime() {
	for _, t := range s.threads {
		if t.delay > 0 {
			t.delay--
		}
	}
}

func (s *Sched) resume(t *thread) {
	s.current = t
	p := t.point
	waits, ok := t.next()
	s.current = nil
	if s.After != nil {
		s.After(t.kernel, p)
	}
	if !ok {
		t.done = true
	}
	if waits {
		t.waits = s.progress
	} else {
		t.waits = -1
		s.progress++
		t.last = s.progress
	}
}

func (s *Sched) firstError() error {
	for _, t := range s.threads {
		if t.err != nil {
			return t.err
		}
	}
	return nil
}

// abandon unwinds what has not ended, so that coroutines do not pile up.
func (s *Sched) abandon() {
	for _, t := range s.threads {
		if !t.done {
			s.current = nil
			t.stop()
			t.done = true
		}
	}
}

func (s *Sched) describe() string {
	var b strings.Builder
	for _, t := range s.threads {
		switch {
		case t.done:
		case s.frozen[t.kernel]:
			fmt.Fprintf(&b, "%s frozen; ", t.name)
		case t.waits >= 0:
			fmt.Fprintf(&b, "%s waits; ", t.name)
		default:
			fmt.Fprintf(&b, "%s runs; ", t.name)
		}
	}
	return b.String()
}

// Trace is what was scheduled, if Tracing was set.
func (s *Sched) Trace() string { return strings.Join(s.trace, " ") }
