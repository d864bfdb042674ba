package nrtest

import "math/rand/v2"

// Random chooses by a seed. Stay is the probability to go on with the same thread: high values give long runs of one
// thread and so few, far-reaching preemptions, low ones a fine mixture.
type Random struct {
	Rand *rand.Rand
	Stay float64
}

// NewRandom is a Random whose Stay depends on the seed, too.
func NewRandom(seed uint64) *Random {
	r := rand.New(rand.NewPCG(seed, 0x6e72))
	return &Random{r, [...]float64{0, 0.5, 0.8, 0.95}[r.IntN(4)]}
}

// Choose implements [Chooser].
func (r *Random) Choose(n int, same bool) int {
	if same && r.Rand.Float64() < r.Stay {
		return 0
	}
	return r.Rand.IntN(n)
}

// Explorer enumerates all schedules with up to Bound preemptions: switches away from a thread that could have gone on.
// (Musuvathi and Qadeer, "Iterative Context Bounding for Systematic Testing of Multithreaded Programs", PLDI 2007.)
// A negative Bound is none: all schedules.
//
//	for e.Begin(); e.More(); e.End() { run a world from the start with e as its Chooser }
type Explorer struct {
	Bound int

	path  []branch
	depth int
	used  int
	done  bool
	Runs  int
}

type branch struct{ n, taken int }

// Begin starts the enumeration.
func (e *Explorer) Begin() { e.path, e.depth, e.used, e.done, e.Runs = nil, 0, 0, false, 0 }

// More reports whether there is another schedule to run.
func (e *Explorer) More() bool { e.depth, e.used = 0, 0; return !e.done }

// End moves to the next schedule: the last choice that has possibilities left takes the next one.
func (e *Explorer) End() {
	e.Runs++
	e.path = e.path[:e.depth]
	for len(e.path) > 0 {
		b := &e.path[len(e.path)-1]
		if b.taken++; b.taken < b.n {
			return
		}
		e.path = e.path[:len(e.path)-1]
	}
	e.done = true
}

// Choose implements [Chooser].
func (e *Explorer) Choose(n int, same bool) int {
	if same && e.Bound >= 0 && e.used >= e.Bound {
		return 0 // no preemption left: no choice
	}
	if e.depth == len(e.path) {
		e.path = append(e.path, branch{n, 0})
	}
	k := e.path[e.depth].taken
	e.depth++
	if same && k != 0 {
		e.used++
	}
	return k
}

// Path is the current schedule, to be run again by Replay.
func (e *Explorer) Path() []int {
	var p []int
	for _, b := range e.path[:min(e.depth, len(e.path))] {
		p = append(p, b.taken)
	}
	return p
}
