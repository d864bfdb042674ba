package sched

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"dinos/sched/model"
	"dinos/sched/solve"
)

// retryFactor is how much longer the solver looks before a request is refused that would fit alone.
const retryFactor = 8

// Request decides a batch of requests that arrived together. Each is granted or refused by itself; a refused one
// changes nothing and does not hinder the others.
func (s *Scheduler) Request(batch []Request) []Decision {
	s.dec, s.gr, s.ids, s.item = s.dec[:0], s.gr[:0], s.ids[:0], s.item[:0]
	s.in.Items = s.in.Items[:0]
	for k := range batch {
		r := &batch[k]
		bad := s.validate(r)
		if k >= MaxBatch {
			bad = refuse("Request", Invalid, "requests", "a batch has at most %d requests", MaxBatch)
		}
		s.dec = append(s.dec, Decision{ID: r.ID, Err: bad})
		if bad == nil {
			s.addItem(r)
			s.item = append(s.item, k)
		}
	}
	if len(s.item) == 0 {
		return s.dec
	}
	if err := s.solve(s.budget); err != nil {
		for _, k := range s.item {
			s.dec[k].Err = internal("Request", err)
		}
		return s.dec
	}
	s.explainRefused()
	s.commit(batch)
	return s.dec
}

func internal(op string, err error) *Refusal {
	return &Refusal{Op: op, Kind: Internal, Constraint: "solver", Detail: err.Error(), Err: err}
}

// Grow asks for more for a process, wherever the policy wants it in view of what the process holds.
func (s *Scheduler) Grow(process uint64, cores, slices int64) Decision {
	one := [1]Request{{Process: process, Cores: cores, Slices: slices}}
	return s.Request(one[:])[0]
}

func (s *Scheduler) validate(r *Request) *Refusal {
	bad := func(k Kind, constraint, format string, args ...any) *Refusal {
		return refuse("Request", k, constraint, format, args...)
	}
	switch {
	case r.Cores < 0 || r.Slices < 0:
		return bad(Invalid, "requests", "%d cores and %d slices: neither can be negative", r.Cores, r.Slices)
	case r.Cores == 0 && r.Slices == 0:
		return bad(Invalid, "requests", "it asks for nothing: give it cores or slices")
	case r.Cores > model.MaxUnits || r.Slices > model.MaxUnits:
		return bad(Invalid, "requests", "%d cores and %d slices: at most %d of either can be asked for", r.Cores, r.Slices, model.MaxUnits)
	case r.Shape > Apart:
		return bad(Invalid, "requests", "shape %d: shapes are pack, spread and apart", uint8(r.Shape))
	}
	if _, err := s.lookProcess("Request", r.Process); err != nil {
		return err
	}
	if err := s.validateList(r.Pinned, "pins"); err != nil {
		return err
	}
	return s.validateList(r.Near, "near")
}

// validateList wants known dkernels, each once.
func (s *Scheduler) validateList(ids []uint32, what string) *Refusal {
	if len(ids) > model.MaxDkernels {
		return refuse("Request", Invalid, what, "%d dkernels are named, more than there can be", len(ids))
	}
	for k, id := range ids {
		if s.node(id) == nil {
			return refuse("Request", UnknownDkernel, what, "there is no dkernel %d", id)
		}
		if slices.Contains(ids[:k], id) {
			return refuse("Request", Invalid, what, "dkernel %d is named twice", id)
		}
	}
	return nil
}

func (s *Scheduler) addItem(r *Request) {
	it := model.Item{Process: int64(r.Process), Cores: r.Cores, Slices: r.Slices, Shape: r.Shape}
	it.Pins = s.list(r.Pinned)
	it.Near = s.list(r.Near)
	s.in.Items = append(s.in.Items, it)
}

func (s *Scheduler) list(ids []uint32) []int64 {
	begin := len(s.ids)
	for _, id := range ids {
		s.ids = append(s.ids, int64(id))
	}
	return s.ids[begin:len(s.ids):len(s.ids)]
}

// solve runs the solver on the items of s.in; the answer is in s.out.
func (s *Scheduler) solve(b solve.Budget) error {
	s.in.Number, s.in.Cursor, s.in.Nodes = s.round, s.at, s.nodes
	s.in.Seed = model.Mix(s.seed ^ uint64(s.round))
	if len(s.nodes) == 0 {
		s.out.Parts, s.out.Refused = s.out.Parts[:0], s.out.Refused[:0]
		for i := range s.in.Items {
			s.out.Refused = append(s.out.Refused, int32(i))
		}
		return nil
	}
	return s.solver.Solve(s.policy, &s.in, b, &s.out)
}

// explainRefused gives each refused item its constraint. Where some would fit alone the solver gets more time first.
func (s *Scheduler) explainRefused() {
	if len(s.out.Refused) == 0 {
		return
	}
	alone, err := s.conflicts()
	if err == nil && alone && s.out.Status != solve.Optimal {
		more := s.budget
		more.Iterations *= retryFactor
		more.Nanos *= retryFactor
		before := len(s.out.Refused)
		first := s.out
		s.out = solve.Solution{}
		if err := s.solve(more); err != nil || len(s.out.Refused) > before {
			s.out = first
		}
		_, err = s.conflicts()
	}
	for k, i := range s.out.Refused {
		if err != nil {
			s.dec[s.item[i]].Err = internal("Request", err)
			continue
		}
		s.dec[s.item[i]].Err = s.why("Request", int(i), s.sets[k])
	}
}

// conflicts computes the minimal set of constraints for each refused item into s.sets; alone says that one of them
// would be granted if it had come by itself.
func (s *Scheduler) conflicts() (alone bool, err error) {
	s.sets = s.sets[:0]
	for _, i := range s.out.Refused {
		var c []string
		if len(s.nodes) > 0 {
			if c, err = s.solver.Conflict(s.policy, &s.in, int(i)); err != nil {
				return false, err
			}
			alone = alone || len(c) == 0
		}
		s.sets = append(s.sets, c)
	}
	return alone, nil
}

// why is the refusal of item i of s.in, which the constraints in conflict refuse.
func (s *Scheduler) why(op string, i int, conflict []string) *Refusal {
	it := &s.in.Items[i]
	what := fmt.Sprintf("%d cores and %d slices for process %d", it.Cores, it.Slices, it.Process)
	if len(s.nodes) == 0 {
		return refuse(op, Infeasible, "dkernels", "%s: there are no dkernels", what)
	}
	if len(conflict) == 0 {
		return refuse(op, Contended, "capacity", "%s fit alone, but not with the other requests of the batch", what)
	}
	free := s.free(it)
	r := refuse(op, Infeasible, conflict[0], "%s; %d cores and %d slices are free where it may go", what, free[0], free[1])
	r.Conflict = conflict
	return r
}

// free is what is free at dkernels that are alive, not drained and among the pins.
func (s *Scheduler) free(it *model.Item) (f [2]int64) {
	for d := range s.nodes {
		n := &s.nodes[d]
		if n.Alive && !n.Drained && (len(it.Pins) == 0 || slices.Contains(it.Pins, n.ID)) {
			f[0] += n.Cores - n.UsedCores
			f[1] += n.Slices - n.UsedSlices
		}
	}
	return f
}

// commit books the parts of the solution and makes the grants.
func (s *Scheduler) commit(batch []Request) {
	n := 0
	for range s.out.Parts {
		n++
	}
	s.gr = slices.Grow(s.gr, n)
	begin := 0
	for k := range s.out.Parts {
		q := &s.out.Parts[k]
		it := &s.in.Items[q.Item]
		r := &batch[s.item[q.Item]]
		p := &s.procs[s.index[it.Process]]
		id := uint32(s.nodes[q.Node].ID)
		s.take(p, id, int64(q.Cores), int64(q.Slices))
		x := &p.extra[p.find(int64(id))]
		if len(r.Pinned) > 0 {
			x.pinned[0] += int64(q.Cores)
			x.pinned[1] += int64(q.Slices)
		}
		if r.Shape == Apart {
			x.apart += int64(q.Cores)
		}
		s.gr = append(s.gr, s.grant(id, int64(q.Cores), int64(q.Slices)))
		if k+1 == len(s.out.Parts) || s.out.Parts[k+1].Item != q.Item {
			s.dec[s.item[q.Item]].Grants = s.gr[begin:len(s.gr):len(s.gr)]
			begin = len(s.gr)
		}
		s.at = int64(q.Node)
	}
	s.last = Round{s.round, len(s.in.Items), len(s.out.Refused), s.out.Status, s.out.Cost, s.out.Bound, s.out.Iterations}
	s.round++
}

// Release gives back what a process holds. All of it or, with an error, none.
func (s *Scheduler) Release(id uint64, grants []Grant) error {
	p, bad := s.lookProcess("Release", id)
	if bad != nil {
		return bad
	}
	for k := range grants {
		g := &grants[k]
		n := s.node(g.Dkernel)
		switch {
		case n == nil:
			return refuse("Release", UnknownDkernel, "placements", "there is no dkernel %d", g.Dkernel)
		case n.Generation != int64(g.Generation):
			return refuse("Release", Stale, "placements", "dkernel %d is of generation %d, not %d", g.Dkernel, n.Generation, g.Generation)
		case g.Cores < 0 || g.Slices < 0 || g.Cores+g.Slices == 0 || g.Cores > model.MaxUnits || g.Slices > model.MaxUnits:
			return refuse("Release", Invalid, "placements", "%d cores and %d slices at dkernel %d", g.Cores, g.Slices, g.Dkernel)
		}
		for _, other := range grants[:k] {
			if other.Dkernel == g.Dkernel {
				return refuse("Release", Invalid, "placements", "dkernel %d is named twice", g.Dkernel)
			}
		}
		have := p.at(g.Dkernel)
		if g.Cores > have[0] || g.Slices > have[1] {
			return refuse("Release", NotHeld, "placements", "process %d holds %d cores and %d slices at dkernel %d, not %d and %d: has it released them before?",
				id, have[0], have[1], g.Dkernel, g.Cores, g.Slices)
		}
		if m := s.arriving(id, g.Dkernel); g.Cores > have[0]-m[0] || g.Slices > have[1]-m[1] {
			return refuse("Release", Moving, "placements", "%d cores and %d slices of process %d are on their way to dkernel %d: end the move first",
				m[0], m[1], id, g.Dkernel)
		}
	}
	for _, g := range grants {
		s.take(p, g.Dkernel, -g.Cores, -g.Slices)
	}
	return nil
}

// at is what the process holds at a dkernel.
func (p *process) at(dkernel uint32) [2]int64 {
	if k := p.find(int64(dkernel)); k >= 0 {
		return [2]int64{p.cells[4*k+2], p.cells[4*k+3]}
	}
	return [2]int64{}
}

// Shrink takes cores and slices away from a process and says which: first at dkernels that are dead or drained, then
// where the process has least, so that it ends up on few dkernels, and among those where the load is highest.
func (s *Scheduler) Shrink(id uint64, cores, sl int64) ([]Grant, error) {
	p, bad := s.lookProcess("Shrink", id)
	if bad != nil {
		return nil, bad
	}
	if cores < 0 || sl < 0 || cores+sl == 0 {
		return nil, refuse("Shrink", Invalid, "requests", "%d cores and %d slices: give it something to take away", cores, sl)
	}
	var moving [2]int64
	for _, m := range s.moves {
		if m.Process == id {
			moving[0] += m.Cores
			moving[1] += m.Slices
		}
	}
	if cores > p.sum[1] || sl > p.sum[2] {
		return nil, refuse("Shrink", NotHeld, "placements", "process %d holds %d cores and %d slices, not %d and %d", id, p.sum[1], p.sum[2], cores, sl)
	}
	if cores > p.sum[1]-moving[0] || sl > p.sum[2]-moving[1] {
		return nil, refuse("Shrink", Moving, "placements", "%d cores and %d slices of process %d are moving: end the moves first", moving[0], moving[1], id)
	}
	order := s.shrinkOrder(p)
	s.gr = s.gr[:0]
	for _, d := range order {
		have, m := p.at(d), s.arriving(id, d)
		c, l := min(cores, have[0]-m[0]), min(sl, have[1]-m[1])
		if c+l == 0 {
			continue
		}
		s.gr = append(s.gr, s.grant(d, c, l))
		cores -= c
		sl -= l
	}
	for _, g := range s.gr {
		s.take(p, g.Dkernel, -g.Cores, -g.Slices)
	}
	return s.gr, nil
}

func (s *Scheduler) shrinkOrder(p *process) []uint32 {
	var order []uint32
	for c := p.cells; len(c) > 0; c = c[4:] {
		order = append(order, uint32(c[1]))
	}
	rank := func(d uint32) (bool, int64, int64) {
		n, have := s.node(d), p.at(d)
		return n.Alive && !n.Drained, have[0]<<20/max(n.Cores, 1) + have[1]<<20/max(n.Slices, 1), n.Cores - n.UsedCores
	}
	slices.SortStableFunc(order, func(a, b uint32) int {
		ga, ha, fa := rank(a)
		gb, hb, fb := rank(b)
		switch {
		case ga != gb && gb, ga == gb && ha < hb, ga == gb && ha == hb && fa < fb:
			return -1
		case ga != gb, ha > hb, fa > fb:
			return 1
		}
		return 0
	})
	return order
}

// SetPolicy puts a policy in force if it compiles and some request can be satisfied under it. Otherwise the old one
// stays, and the refusal's Err is the *model.Error with line and column.
func (s *Scheduler) SetPolicy(name, text string) error {
	p, err := checkPolicy(name, text, s.nodes)
	if err != nil {
		return err
	}
	s.policy = p
	return nil
}

// CheckPolicy compiles a policy and tries it on an empty rack. The error is a *Refusal of kind BadPolicy.
func CheckPolicy(name, text string) (*model.Policy, error) { return checkPolicy(name, text, nil) }

func checkPolicy(name, text string, rack []model.Node) (*model.Policy, error) {
	if name == "" || len(name) > model.MaxName || strings.ContainsAny(name, " \t\n:") {
		return nil, refuse("SetPolicy", BadPolicy, "policy", "a policy has a name of up to %d bytes without spaces or colons", model.MaxName)
	}
	p, err := model.Compile(name, text)
	if err != nil {
		r := refuse("SetPolicy", BadPolicy, "policy", "%v", err)
		r.Err = err
		var at *model.Error
		if errors.As(err, &at) {
			r.Constraint = at.Policy
		}
		return nil, r
	}
	return p, satisfiable(p, rack)
}

// satisfiable tries small requests of every shape on the dkernels of the rack as if they were alive and empty, and on
// made-up ones of a few sizes. A policy that refuses all of them can never be satisfied.
func satisfiable(p *model.Policy, rack []model.Node) error {
	s := solve.New(1)
	var conflict []string
	for _, nodes := range [...]int64{0, 4, 64} {
		in := &model.Instance{Cursor: -1}
		for d := range nodes {
			in.Nodes = append(in.Nodes, model.Node{ID: d + 1, Cores: 64, Slices: 1024, Generation: 1, Alive: true})
		}
		if nodes == 0 {
			for _, n := range rack {
				n.UsedCores, n.UsedSlices, n.Alive, n.Drained = 0, 0, true, false
				in.Nodes = append(in.Nodes, n)
			}
			if len(in.Nodes) == 0 {
				continue
			}
		}
		for shape := Pack; shape <= Apart; shape++ {
			for _, w := range [...][2]int64{{1, 1}, {1, 0}, {0, 1}, {2, 2}} {
				in.Items = []model.Item{{Process: 1, Cores: w[0], Slices: w[1], Shape: shape}}
				c, err := s.Conflict(p, in, 0)
				if err == nil && len(c) == 0 {
					return nil
				}
				if conflict == nil {
					conflict = c
				}
			}
		}
	}
	e := &model.Error{Policy: p.Name, Pos: model.Pos{Line: 1, Col: 1},
		Msg:  "the policy can never be satisfied: " + strings.Join(conflict, " with ") + " refuse every request, even on an empty rack",
		Hint: "change or remove one of them"}
	for i := range p.Atoms {
		if a := &p.Atoms[i]; !a.Physical && slices.Contains(conflict, a.Name) {
			e.Pos = a.Pos
			break
		}
	}
	r := refuse("SetPolicy", BadPolicy, e.Policy, "%v", e)
	r.Conflict, r.Err = conflict, e
	return r
}
