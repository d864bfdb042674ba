package solve

import "dinos/sched/model"

// Choice is what a policy says of one node for a request.
type Choice struct {
	Node    int
	Room    [2]int64 // cores and slices of the request that it could have there now
	Blocked []string // hard constraints that keep the whole request from it
	Cost    Vector   // change of the cost if all of it went there; meaningful if nothing blocks
}

// Choices tells for each node what item i of the instance, the only one to be placed, could have there.
func (s *Solver) Choices(p *model.Policy, in *model.Instance, i int) ([]Choice, error) {
	if err := in.Prepare(p); err != nil {
		return nil, err
	}
	defer s.setOff(nil)
	s.setOff(nil)
	s.bind(p, in)
	out := make([]Choice, s.nodes)
	want := s.items[i].want
	for d := range out {
		out[d] = Choice{Node: d, Room: s.room(i, d, want)}
		s.closer(s.tiers, i, d, want, &out[d].Cost, true)
	}
	for k := range p.Atoms {
		if !p.Atoms[k].Hard {
			continue
		}
		off := make([]bool, len(p.Atoms))
		for j := range off {
			off[j] = j != k
		}
		s.setOff(off)
		s.bind(p, in)
		for d := range out {
			if s.room(i, d, want) != want {
				out[d].Blocked = append(out[d].Blocked, p.Atoms[k].Name)
			}
		}
	}
	return out, nil
}

func (s *Solver) setOff(off []bool) {
	s.off, s.bound = off, nil
}

// Conflict is a minimal set of hard constraints that together refuse item i, even with no other request: without
// any one of them it would find a place. It is empty if the request can be placed alone. The set is found by
// leaving out one constraint after the other (a deletion filter: Chinneck and Dravnieks, ORSA J. Computing 1991).
func (s *Solver) Conflict(p *model.Policy, in *model.Instance, i int) ([]string, error) {
	alone := *in
	alone.Items = in.Items[i : i+1]
	if err := alone.Prepare(p); err != nil {
		return nil, err
	}
	defer s.setOff(nil)
	off := make([]bool, len(p.Atoms))
	if s.feasible(p, &alone, off) {
		return nil, nil
	}
	var names []string
	for k := range p.Atoms {
		a := &p.Atoms[k]
		if !a.Hard || a.Kind == model.Symmetry {
			continue
		}
		off[k] = true
		if s.feasible(p, &alone, off) {
			off[k] = false
			names = append(names, a.Name)
		}
	}
	return names, nil
}

// feasible says whether the only item of in finds a place when the atoms in off are set aside.
func (s *Solver) feasible(p *model.Policy, in *model.Instance, off []bool) bool {
	s.setOff(off)
	s.bind(p, in)
	s.rng = model.Mix(s.seed | 1)
	if !s.place(0, bestFit, 0) {
		return false
	}
	if !s.loose || s.looseValue()[0] == s.value[0] {
		return true
	}
	s.remove(0)
	return s.anySpot()
}

// anySpot tries each single node, for the sake of loose constraints.
func (s *Solver) anySpot() bool {
	want := s.items[0].want
	for d := range s.nodes {
		if s.room(0, d, want) != want {
			continue
		}
		s.put(0, d, want)
		s.settle(0)
		if s.looseValue()[0] == s.value[0] {
			return true
		}
		s.remove(0)
	}
	return false
}
