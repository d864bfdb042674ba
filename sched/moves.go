package sched

import (
	"slices"

	"dinos/sched/model"
	"dinos/sched/solve"
)

// arriving is what is on its way for a process to a dkernel.
func (s *Scheduler) arriving(process uint64, to uint32) (x [2]int64) {
	for _, m := range s.moves {
		if m.Process == process && m.To == to {
			x[0] += m.Cores
			x[1] += m.Slices
		}
	}
	return x
}

func (s *Scheduler) findMove(op string, id uint64) (int, error) {
	for k := range s.moves {
		if s.moves[k].ID == id {
			return k, nil
		}
	}
	return 0, refuse(op, UnknownMove, "moves", "move %d is not under way: has it ended before?", id)
}

// Done ends a move: what it moved is free at its source now.
func (s *Scheduler) Done(move uint64) error {
	k, err := s.findMove("Done", move)
	if err != nil {
		return err
	}
	s.endMove(k, true)
	return nil
}

// Cancel ends a move: the process holds at the source what it held before.
func (s *Scheduler) Cancel(move uint64) error {
	k, err := s.findMove("Cancel", move)
	if err != nil {
		return err
	}
	s.endMove(k, false)
	return nil
}

func (s *Scheduler) endMove(k int, done bool) {
	m := s.moves[k]
	s.moves = slices.Delete(s.moves, k, k+1)
	end := m.From
	if !done {
		p := &s.procs[s.index[int64(m.Process)]]
		p.change(int64(m.To), -m.Cores, -m.Slices)
		p.change(int64(m.From), m.Cores, m.Slices)
		end = m.To
	}
	n := s.node(end)
	n.UsedCores -= m.Cores
	n.UsedSlices -= m.Slices
}

// begin books a move: the destination is used from now on, the source until the end.
func (s *Scheduler) begin(p *process, from, to uint32, cores, sl int64) Move {
	m := Move{s.next, uint64(p.id), from, to, cores, sl}
	s.next++
	p.change(int64(from), -cores, -sl)
	p.change(int64(to), cores, sl)
	n := s.node(to)
	n.UsedCores += cores
	n.UsedSlices += sl
	s.moves = append(s.moves, m)
	return m
}

// Drain lets a dkernel take nothing new and moves away what is held there. If something has nowhere to go nothing
// happens, and the refusal says why.
func (s *Scheduler) Drain(id uint32) ([]Move, error) {
	n, err := s.lookNode("Drain", id)
	if err != nil {
		return nil, err
	}
	switch {
	case n.Drained:
		return nil, refuse("Drain", Invalid, "not_drained", "dkernel %d is drained already", id)
	case !n.Alive:
		return nil, refuse("Drain", Infeasible, "alive", "dkernel %d is dead: nothing can be moved from it, let it leave", id)
	}
	for _, m := range s.moves {
		if m.To == id {
			return nil, refuse("Drain", Moving, "placements", "move %d is on its way to dkernel %d: end it first", m.ID, id)
		}
	}
	s.in.Items, s.item, s.ids = s.in.Items[:0], s.item[:0], s.ids[:0]
	for i := range s.procs {
		if err := s.leaving("Drain", i, id); err != nil {
			return nil, err
		}
	}
	if len(s.in.Items) > MaxBatch {
		return nil, refuse("Drain", Invalid, "requests", "%d processes are at dkernel %d, more than %d in a batch", len(s.in.Items), id, MaxBatch)
	}
	n.Drained = true
	if len(s.in.Items) == 0 {
		return nil, nil
	}
	var refusal *Refusal
	s.lift(id, -1)
	if err := s.solve(s.budget); err != nil {
		refusal = internal("Drain", err)
	} else if len(s.out.Refused) > 0 {
		if _, err := s.conflicts(); err != nil {
			refusal = internal("Drain", err)
		} else {
			refusal = s.why("Drain", int(s.out.Refused[0]), s.sets[0])
		}
	}
	s.lift(id, 1)
	if refusal != nil {
		n.Drained = false
		return nil, refusal
	}
	s.round++
	begin := len(s.moves)
	for _, q := range s.out.Parts {
		p := &s.procs[s.index[s.in.Items[q.Item].Process]]
		to := uint32(s.nodes[q.Node].ID)
		m := s.begin(p, id, to, int64(q.Cores), int64(q.Slices))
		if s.in.Items[q.Item].Shape == Apart {
			p.extra[p.find(int64(to))].apart += m.Cores
		}
	}
	return slices.Clone(s.moves[begin:]), nil
}

// leaving adds items for what process i holds at a dkernel that is to be drained.
func (s *Scheduler) leaving(op string, i int, id uint32) error {
	p := &s.procs[i]
	k := p.find(int64(id))
	if k < 0 {
		return nil
	}
	x, c, sl := p.extra[k], p.cells[4*k+2], p.cells[4*k+3]
	if x.pinned != [2]int64{} {
		return refuse(op, Infeasible, "pinned", "process %d has %d cores and %d slices pinned to dkernel %d", p.id, x.pinned[0], x.pinned[1], id)
	}
	if x.apart == 0 {
		s.in.Items = append(s.in.Items, model.Item{Process: p.id, Cores: c, Slices: sl, Home: int64(id)})
		return nil
	}
	// Its cores stay apart: they may go to where it has none.
	begin := len(s.ids)
	for d := range s.nodes {
		if p.at(uint32(s.nodes[d].ID))[0] == 0 {
			s.ids = append(s.ids, s.nodes[d].ID)
		}
	}
	pins := s.ids[begin:len(s.ids):len(s.ids)]
	if len(pins) == 0 {
		return refuse(op, Infeasible, "apart", "process %d has cores apart from each other at all dkernels", p.id)
	}
	s.in.Items = append(s.in.Items, model.Item{Process: p.id, Cores: c, Shape: Apart, Home: int64(id), Pins: pins})
	if sl > 0 {
		s.in.Items = append(s.in.Items, model.Item{Process: p.id, Slices: sl, Home: int64(id)})
	}
	return nil
}

// lift hides from the model (sign −1) what the items of the round hold at their home, or shows it again (+1).
func (s *Scheduler) lift(home uint32, sign int64) {
	n := s.node(home)
	for i := range s.in.Items {
		it := &s.in.Items[i]
		p := &s.procs[s.index[it.Process]]
		k := p.find(int64(home))
		p.cells[4*k+2] += sign * it.Cores
		p.cells[4*k+3] += sign * it.Slices
		p.sum[1] += sign * it.Cores
		p.sum[2] += sign * it.Slices
		n.UsedCores += sign * it.Cores
		n.UsedSlices += sign * it.Slices
	}
}

// Undrain lets a dkernel take requests again.
func (s *Scheduler) Undrain(id uint32) error {
	n, err := s.lookNode("Undrain", id)
	if err != nil {
		return err
	}
	if !n.Drained {
		return refuse("Undrain", Invalid, "not_drained", "dkernel %d is not drained", id)
	}
	n.Drained = false
	return nil
}

// Rebalance improves the placement under the policy by at most max moves and begins them. Processes that are on many
// dkernels come first. A move is made only where the cost of the rack, movement included, becomes less. Units that
// are pinned, apart or already moving stay.
func (s *Scheduler) Rebalance(max int) ([]Move, error) {
	if max <= 0 {
		return nil, refuse("Rebalance", Invalid, "moves", "at most %d moves: give it at least one", max)
	}
	begin := len(s.moves)
	for _, c := range s.candidates() {
		if len(s.moves)-begin >= max {
			break
		}
		p := &s.procs[s.index[c.process]]
		k := p.find(c.dkernel)
		if k < 0 || !s.movable(p, k) {
			continue
		}
		if err := s.tryMove(p, k, max-(len(s.moves)-begin)); err != nil {
			for len(s.moves) > begin {
				s.endMove(len(s.moves)-1, false)
			}
			return nil, err
		}
	}
	return slices.Clone(s.moves[begin:]), nil
}

type candidate struct {
	process, dkernel int64
	cells            int
	units            int64
}

func (s *Scheduler) candidates() []candidate {
	var out []candidate
	for i := range s.procs {
		p := &s.procs[i]
		for k := 0; 4*k < len(p.cells); k++ {
			c := p.cells[4*k:]
			out = append(out, candidate{p.id, c[1], len(p.extra), c[2] + c[3]})
		}
	}
	slices.SortFunc(out, func(a, b candidate) int {
		switch {
		case a.cells != b.cells:
			return b.cells - a.cells
		case a.units != b.units:
			return int(a.units - b.units)
		case a.process != b.process:
			return int(a.process - b.process)
		}
		return int(a.dkernel - b.dkernel)
	})
	return out
}

func (s *Scheduler) movable(p *process, k int) bool {
	if p.extra[k] != (extra{}) {
		return false
	}
	d := uint32(p.cells[4*k+1])
	if n := s.node(d); !n.Alive {
		return false
	}
	return s.arriving(uint64(p.id), d) == [2]int64{}
}

// rebalanceBudget is for one request, which the greedy solves in most cases.
var rebalanceBudget = solve.Budget{Iterations: 16}

// tryMove moves the k-th cell of a process if that costs less than to stay.
func (s *Scheduler) tryMove(p *process, k, most int) error {
	home, cores, sl := p.cells[4*k+1], p.cells[4*k+2], p.cells[4*k+3]
	s.ids = append(s.ids[:0], home)
	s.in.Items = append(s.in.Items[:0], model.Item{Process: p.id, Cores: cores, Slices: sl, Home: home, Pins: s.ids[:1]})
	s.lift(uint32(home), -1)
	err := s.solve(rebalanceBudget)
	stay, mustGo := s.out.Cost, len(s.out.Refused) > 0
	if err == nil {
		s.in.Items[0].Pins = nil
		err = s.solve(rebalanceBudget)
	}
	s.lift(uint32(home), 1)
	if err != nil {
		return internal("Rebalance", err)
	}
	moves := 0
	for _, q := range s.out.Parts {
		if s.nodes[q.Node].ID != home {
			moves++
		}
	}
	if len(s.out.Refused) > 0 || moves == 0 || moves > most || !mustGo && s.out.Cost.Compare(&stay) >= 0 {
		return nil
	}
	s.round++
	for _, q := range s.out.Parts {
		if to := s.nodes[q.Node].ID; to != home {
			s.begin(p, uint32(home), uint32(to), int64(q.Cores), int64(q.Slices))
		}
	}
	return nil
}
