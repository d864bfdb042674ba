package sched

import "dinos/sched/model"

// Resize changes what a dkernel has: where slices come from a pool that all share, what one may have depends on what the others
// hold. It cannot have less than is used there.
func (s *Scheduler) Resize(id uint32, generation uint64, cores, slices int64) error {
	n, err := s.lookNode("Resize", id)
	if err != nil {
		return err
	}
	switch {
	case n.Generation != int64(generation):
		return refuse("Resize", Stale, "dkernels", "dkernel %d is of generation %d, not %d", id, n.Generation, generation)
	case cores < 0 || cores > model.MaxCores || slices < 0 || slices > model.MaxSlices:
		return refuse("Resize", Invalid, "dkernels", "dkernel %d with %d cores and %d slices: 0 to %d and 0 to %d are possible", id, cores, slices,
			model.MaxCores, model.MaxSlices)
	case cores < n.UsedCores || slices < n.UsedSlices:
		return refuse("Resize", Invalid, "dkernels", "dkernel %d with %d cores and %d slices, of which %d and %d are used", id, cores, slices,
			n.UsedCores, n.UsedSlices)
	}
	n.Cores, n.Slices = cores, slices
	return nil
}

// Restore books what a process already holds, without a decision: a control kernel that was restarted finds it in the table of
// grants. The process is started if it is not known. The dkernels have joined before, in the lives that the grants name. Whether a
// request was pinned or apart is not known any more, so rebalancing may move what it got. All of it or, with an error, none.
func (s *Scheduler) Restore(process uint64, grants []Grant) error {
	if process >= MaxProcess {
		return refuse("Restore", Invalid, "processes", "process id %d: ids are less than 2^62", process)
	}
	if s.tombs[int64(process)] {
		return refuse("Restore", DeadProcess, "processes", "process %d has exited", process)
	}
	for k, g := range grants {
		n := s.node(g.Dkernel)
		switch {
		case n == nil:
			return refuse("Restore", UnknownDkernel, "placements", "there is no dkernel %d", g.Dkernel)
		case n.Generation != int64(g.Generation):
			return refuse("Restore", Stale, "placements", "dkernel %d is of generation %d, not %d", g.Dkernel, n.Generation, g.Generation)
		case g.Cores < 0 || g.Slices < 0 || g.Cores == 0 && g.Slices == 0:
			return refuse("Restore", Invalid, "placements", "%d cores and %d slices at dkernel %d", g.Cores, g.Slices, g.Dkernel)
		case g.Cores > n.Cores-n.UsedCores || g.Slices > n.Slices-n.UsedSlices:
			return refuse("Restore", Invalid, "placements", "%d cores and %d slices at dkernel %d, which has %d and %d free", g.Cores, g.Slices,
				g.Dkernel, n.Cores-n.UsedCores, n.Slices-n.UsedSlices)
		}
		for _, other := range grants[:k] {
			if other.Dkernel == g.Dkernel {
				return refuse("Restore", Invalid, "placements", "dkernel %d is named twice", g.Dkernel)
			}
		}
	}
	i, ok := s.index[int64(process)]
	if !ok {
		if err := s.Start(process); err != nil {
			return err
		}
		i = s.index[int64(process)]
	}
	for _, g := range grants {
		s.take(&s.procs[i], g.Dkernel, g.Cores, g.Slices)
	}
	return nil
}
