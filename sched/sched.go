// Package sched is the scheduler of the rack: it knows the dkernels, the processes and what each holds, and decides
// by a declarative policy where requests go.
//
// Scheduler is a deterministic state machine: a batch goes in, decisions come out. It has no goroutine, lock, clock
// or I/O of its own, and equal calls give equal results. One goroutine, the control kernel's, calls it. A call that
// answers with an error has changed nothing. Slices in answers are valid until the next call.
//
// Cores and slices are counted by dkernel; which core and which slice a grant means is the caller's business.
package sched

import (
	"fmt"
	"slices"
	"sort"

	"dinos/sched/model"
	"dinos/sched/solve"
)

// Shape says how the cores of a request are laid out.
type Shape = model.Shape

// The shapes of a request: few dkernels, evenly over dkernels, at most one core a dkernel.
const (
	Pack   = model.Pack
	Spread = model.Spread
	Apart  = model.Apart
)

// Limits of what a caller may ask. Beyond them a request is refused as Invalid.
const (
	MaxBatch   = model.MaxItems
	MaxProcess = 1 << 62
	maxTombs   = 4096 // exited processes that are remembered as such
)

// Dkernel is one data kernel: what it has and whether it may be used.
type Dkernel struct {
	ID         uint32 // 1 to model.MaxDkernelID
	Cores      int64
	Slices     int64
	Generation uint64 // of its present life
	Alive      bool
	Drained    bool
}

// Request asks for cores and slices for a process.
type Request struct {
	ID            uint64 // the caller's, echoed in the Decision
	Process       uint64
	Cores, Slices int64
	Shape         Shape
	Pinned        []uint32 // only these dkernels; empty for any
	Near          []uint32 // dkernels it would like, such as those of its cores
}

// Grant is so many cores and slices at a dkernel.
type Grant struct {
	Dkernel       uint32
	Generation    uint64
	Cores, Slices int64
}

// Decision answers a Request: grants, or Err.
type Decision struct {
	ID     uint64
	Grants []Grant
	Err    *Refusal
}

// Move takes a process's cores and slices from one dkernel to another. While it is under way both ends are accounted,
// so that moves can be carried out in any order; Done or Cancel ends it.
type Move struct {
	ID            uint64
	Process       uint64
	From, To      uint32
	Cores, Slices int64
}

// Options of a Scheduler.
type Options struct {
	Seed   uint64
	Budget solve.Budget // of one batch; zero is DefaultBudget
}

// DefaultBudget is a search of bounded work without a clock, so that results can be repeated.
var DefaultBudget = solve.Budget{Iterations: 200, Gap: 0.005}

// process is a process and what it holds.
type process struct {
	id    int64
	sum   [3]int64 // id, cores, slices: its row in the relation processes
	cells []int64  // (process, dkernel, cores, slices), in order of dkernel: its rows in placements
	extra []extra  // of each cell
}

// extra is what is known of the units of a cell besides their number.
type extra struct {
	pinned [2]int64 // units that came by a request with pins: they are not moved
	apart  int64    // cores of requests of shape Apart: they are moved only to where the process has no core
}

// Scheduler is the state machine.
type Scheduler struct {
	seed   uint64
	budget solve.Budget
	policy *model.Policy
	solver *solve.Solver

	nodes []model.Node // in order of id
	procs []process
	index map[int64]int // process id → place in procs
	tombs map[int64]bool
	tombQ []int64
	moves []Move // in order of id
	next  uint64 // id of the next move
	round int64
	at    int64 // rank of the dkernel granted last

	in   model.Instance
	out  solve.Solution
	ids  []int64 // pins and near lists of the round
	dec  []Decision
	gr   []Grant
	item []int      // place in the batch of each item
	sets [][]string // conflicts of the refused items

	last Round
}

// Round describes the last batch that was solved.
type Round struct {
	Number     int64
	Requests   int
	Refused    int
	Status     solve.Status
	Cost       solve.Vector
	Bound      solve.Vector
	Iterations int
}

// New makes a scheduler with the default policy and no dkernels.
func New(o Options) (*Scheduler, error) {
	if o.Budget.Iterations == 0 && o.Budget.Nanos == 0 && o.Budget.Clock == nil {
		o.Budget = DefaultBudget
	}
	s := &Scheduler{seed: o.Seed, solver: solve.New(o.Seed), index: map[int64]int{}, tombs: map[int64]bool{}, next: 1, at: -1}
	if err := s.SetBudget(o.Budget); err != nil {
		return nil, err
	}
	s.policy = model.MustShipped(model.DefaultPolicy)
	s.in.Held = (*held)(s)
	return s, nil
}

// SetBudget changes the budget of the rounds to come.
func (s *Scheduler) SetBudget(b solve.Budget) error {
	if b.Iterations < 0 || b.Nanos < 0 || b.Gap < 0 || b.Iterations == 0 && (b.Clock == nil || b.Nanos == 0) {
		return refuse("SetBudget", Budget, "budget", "a budget of %d iterations and %d ns solves nothing: give it iterations, or nanoseconds and a clock", b.Iterations, b.Nanos)
	}
	s.budget = b
	return nil
}

// held shows the processes to the model.
type held Scheduler

func (h *held) Len() int                { return len(h.procs) }
func (h *held) CellsAt(i int) []int64   { return h.procs[i].cells }
func (h *held) ProcessAt(i int) []int64 { return h.procs[i].sum[:] }
func (h *held) Find(process int64) int {
	if i, ok := h.index[process]; ok {
		return i
	}
	return -1
}

// node is the dkernel with this id, nil for none.
func (s *Scheduler) node(id uint32) *model.Node {
	if i, ok := s.findNode(id); ok {
		return &s.nodes[i]
	}
	return nil
}

func (s *Scheduler) findNode(id uint32) (int, bool) {
	i := sort.Search(len(s.nodes), func(i int) bool { return s.nodes[i].ID >= int64(id) })
	return i, i < len(s.nodes) && s.nodes[i].ID == int64(id)
}

// lookNode is node with a refusal for an id that is not there.
func (s *Scheduler) lookNode(op string, id uint32) (*model.Node, error) {
	if n := s.node(id); n != nil {
		return n, nil
	}
	return nil, refuse(op, UnknownDkernel, "dkernels", "there is no dkernel %d", id)
}

// lookProcess is the process with this id, with a refusal for one that never was or has exited.
func (s *Scheduler) lookProcess(op string, id uint64) (*process, *Refusal) {
	if i, ok := s.index[int64(id)]; ok && id < MaxProcess {
		return &s.procs[i], nil
	}
	if id < MaxProcess && s.tombs[int64(id)] {
		return nil, refuse(op, DeadProcess, "processes", "process %d has exited", id)
	}
	return nil, refuse(op, UnknownProcess, "processes", "there is no process %d: start it first", id)
}

// Join adds a dkernel.
func (s *Scheduler) Join(d Dkernel) error {
	switch {
	case d.ID == 0 || d.ID > model.MaxDkernelID:
		return refuse("Join", Invalid, "dkernels", "dkernel id %d: ids are from 1 to %d", d.ID, model.MaxDkernelID)
	case d.Cores < 0 || d.Cores > model.MaxCores:
		return refuse("Join", Invalid, "dkernels", "dkernel %d with %d cores: 0 to %d are possible", d.ID, d.Cores, model.MaxCores)
	case d.Slices < 0 || d.Slices > model.MaxSlices:
		return refuse("Join", Invalid, "dkernels", "dkernel %d with %d slices: 0 to %d are possible", d.ID, d.Slices, model.MaxSlices)
	case len(s.nodes) >= model.MaxDkernels:
		return refuse("Join", Invalid, "dkernels", "there are %d dkernels already, the most possible", len(s.nodes))
	}
	i, found := s.findNode(d.ID)
	if found {
		return refuse("Join", Invalid, "dkernels", "dkernel %d is a member already, of generation %d: it leaves before it joins again",
			d.ID, s.nodes[i].Generation)
	}
	s.nodes = slices.Insert(s.nodes, i, model.Node{ID: int64(d.ID), Cores: d.Cores, Slices: d.Slices,
		Generation: int64(d.Generation), Alive: d.Alive, Drained: d.Drained})
	if int64(i) <= s.at {
		s.at++
	}
	return nil
}

// Lost is what a process held at a dkernel that left.
type Lost struct {
	Process       uint64
	Cores, Slices int64
}

// Leave removes a dkernel with what was held there and tells who lost what. Moves to it are cancelled, moves from it
// count as done.
func (s *Scheduler) Leave(id uint32, generation uint64) ([]Lost, error) {
	n, err := s.lookNode("Leave", id)
	if err != nil {
		return nil, err
	}
	if n.Generation != int64(generation) {
		return nil, refuse("Leave", Stale, "dkernels", "dkernel %d is of generation %d, not %d", id, n.Generation, generation)
	}
	var lost []Lost
	for k := len(s.moves) - 1; k >= 0; k-- {
		switch m := s.moves[k]; id {
		case m.To:
			s.endMove(k, false)
		case m.From:
			lost = append(lost, Lost{m.Process, m.Cores, m.Slices})
			s.endMove(k, true)
		}
	}
	for i := range s.procs {
		p := &s.procs[i]
		if k := p.find(int64(id)); k >= 0 {
			c, sl := p.cells[4*k+2], p.cells[4*k+3]
			lost = append(lost, Lost{uint64(p.id), c, sl})
			s.take(p, id, -c, -sl)
		}
	}
	i, _ := s.findNode(id)
	s.nodes = slices.Delete(s.nodes, i, i+1)
	if int64(i) <= s.at {
		s.at--
	}
	return lost, nil
}

// SetAlive says whether a dkernel answers. A dead one gets nothing; what is held there stays until Leave.
func (s *Scheduler) SetAlive(id uint32, generation uint64, alive bool) error {
	n, err := s.lookNode("SetAlive", id)
	if err != nil {
		return err
	}
	if n.Generation != int64(generation) {
		return refuse("SetAlive", Stale, "dkernels", "dkernel %d is of generation %d, not %d", id, n.Generation, generation)
	}
	n.Alive = alive
	return nil
}

// Start makes a process known, holding nothing.
func (s *Scheduler) Start(id uint64) error {
	if id >= MaxProcess {
		return refuse("Start", Invalid, "processes", "process id %d: ids are less than 2^62", id)
	}
	if _, ok := s.index[int64(id)]; ok {
		return refuse("Start", Invalid, "processes", "process %d has started already", id)
	}
	if s.tombs[int64(id)] {
		return refuse("Start", DeadProcess, "processes", "process %d has exited: a new one has a new id", id)
	}
	s.index[int64(id)] = len(s.procs)
	n := len(s.procs)
	if n < cap(s.procs) {
		s.procs = s.procs[:n+1] // with the buffers of a process that has exited
	} else {
		s.procs = append(s.procs, process{})
	}
	p := &s.procs[n]
	p.id, p.sum, p.cells, p.extra = int64(id), [3]int64{int64(id)}, p.cells[:0], p.extra[:0]
	return nil
}

// Exit ends a process and gives back all it holds, both ends of its moves included.
func (s *Scheduler) Exit(id uint64) ([]Grant, error) {
	p, bad := s.lookProcess("Exit", id)
	if bad != nil {
		return nil, bad
	}
	s.gr = s.gr[:0]
	for k := len(s.moves) - 1; k >= 0; k-- {
		if m := s.moves[k]; m.Process == id {
			s.gr = append(s.gr, s.grant(m.From, m.Cores, m.Slices))
			s.endMove(k, true)
		}
	}
	for len(p.cells) > 0 {
		d, c, sl := uint32(p.cells[1]), p.cells[2], p.cells[3]
		s.gr = append(s.gr, s.grant(d, c, sl))
		s.take(p, d, -c, -sl)
	}
	s.forget(int64(id))
	return s.gr, nil
}

func (s *Scheduler) forget(id int64) {
	i, last := s.index[id], len(s.procs)-1
	s.procs[i], s.procs[last] = s.procs[last], s.procs[i]
	s.index[s.procs[i].id] = i
	s.procs = s.procs[:last]
	delete(s.index, id)
	s.tombs[id] = true
	if s.tombQ = append(s.tombQ, id); len(s.tombQ) > maxTombs {
		delete(s.tombs, s.tombQ[0])
		s.tombQ = s.tombQ[1:]
	}
}

func (s *Scheduler) grant(id uint32, cores, slices int64) Grant {
	g := Grant{Dkernel: id, Cores: cores, Slices: slices}
	if n := s.node(id); n != nil {
		g.Generation = uint64(n.Generation)
	}
	return g
}

// find is the place of the cell at a dkernel, −1 for none.
func (p *process) find(dkernel int64) int {
	for k := 0; 4*k < len(p.cells); k++ {
		if p.cells[4*k+1] == dkernel {
			return k
		}
	}
	return -1
}

// take changes what a process holds at a dkernel, and what is used there.
func (s *Scheduler) take(p *process, dkernel uint32, cores, slices int64) {
	p.change(int64(dkernel), cores, slices)
	n := s.node(dkernel)
	n.UsedCores += cores
	n.UsedSlices += slices
}

// change alters a cell of the process alone; an empty cell goes away.
func (p *process) change(dkernel, cores, sl int64) {
	k := p.find(dkernel)
	if k < 0 {
		k = 0
		for 4*k < len(p.cells) && p.cells[4*k+1] < dkernel {
			k++
		}
		p.cells = append(p.cells, 0, 0, 0, 0)
		copy(p.cells[4*k+4:], p.cells[4*k:])
		p.cells[4*k], p.cells[4*k+1], p.cells[4*k+2], p.cells[4*k+3] = p.id, dkernel, 0, 0
		p.extra = slices.Insert(p.extra, k, extra{})
	}
	c := p.cells[4*k : 4*k+4]
	c[2] += cores
	c[3] += sl
	p.sum[1] += cores
	p.sum[2] += sl
	x := &p.extra[k]
	x.pinned = [2]int64{min(x.pinned[0], c[2]), min(x.pinned[1], c[3])}
	x.apart = min(x.apart, c[2])
	if c[2] == 0 && c[3] == 0 {
		p.cells = slices.Delete(p.cells, 4*k, 4*k+4)
		p.extra = slices.Delete(p.extra, k, k+1)
	}
}

// Last describes the last round.
func (s *Scheduler) Last() Round { return s.last }

// Dkernels lists the dkernels in order of id, with what is used.
func (s *Scheduler) Dkernels() []model.Node { return slices.Clone(s.nodes) }

// Processes lists the ids of the processes in order.
func (s *Scheduler) Processes() []uint64 {
	out := make([]uint64, len(s.procs))
	for i := range s.procs {
		out[i] = uint64(s.procs[i].id)
	}
	slices.Sort(out)
	return out
}

// Holds lists what a process holds, in order of dkernel; nil for a process that is not known.
func (s *Scheduler) Holds(id uint64) []Grant {
	p, bad := s.lookProcess("Holds", id)
	if bad != nil {
		return nil
	}
	var out []Grant
	for c := p.cells; len(c) > 0; c = c[4:] {
		out = append(out, s.grant(uint32(c[1]), c[2], c[3]))
	}
	return out
}

// Moves lists the moves under way, in order of id.
func (s *Scheduler) Moves() []Move { return slices.Clone(s.moves) }

// Policy is the name and the text of the policy in force.
func (s *Scheduler) Policy() (name, text string) { return s.policy.Name, s.policy.Text }

func (d Dkernel) String() string {
	return fmt.Sprintf("dkernel %d (%d cores, %d slices, generation %d)", d.ID, d.Cores, d.Slices, d.Generation)
}
