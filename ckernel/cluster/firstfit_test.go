package cluster

import (
	"fmt"
	"slices"

	"dinos/sched"
)

// FirstFit is a Placement without a policy: each request goes to the dkernels with the least numbers that have room. It is for tests of
// what does not depend on where things go.
type FirstFit struct {
	nodes map[uint32]*node
	procs map[uint64]map[uint32]units
	past  map[uint64]bool
}

type node struct {
	sched.Dkernel
	used units
}

// NewFirstFit is a FirstFit without dkernels.
func NewFirstFit() *FirstFit {
	return &FirstFit{nodes: map[uint32]*node{}, procs: map[uint64]map[uint32]units{}, past: map[uint64]bool{}}
}

func no(op string, k sched.Kind, format string, args ...any) *sched.Refusal {
	return &sched.Refusal{Op: op, Kind: k, Constraint: "first fit", Detail: fmt.Sprintf(format, args...)}
}

func (f *FirstFit) look(op string, id uint32, generation uint64) (*node, error) {
	n := f.nodes[id]
	if n == nil {
		return nil, no(op, sched.UnknownDkernel, "there is no dkernel %d", id)
	}
	if n.Generation != generation {
		return nil, no(op, sched.Stale, "dkernel %d is of generation %d, not %d", id, n.Generation, generation)
	}
	return n, nil
}

// Join implements Placement.
func (f *FirstFit) Join(d sched.Dkernel) error {
	if f.nodes[d.ID] != nil {
		return no("Join", sched.Invalid, "dkernel %d is a member already", d.ID)
	}
	f.nodes[d.ID] = &node{Dkernel: d}
	return nil
}

// Leave implements Placement.
func (f *FirstFit) Leave(id uint32, generation uint64) (lost []sched.Lost, err error) {
	if _, err := f.look("Leave", id, generation); err != nil {
		return nil, err
	}
	for p, at := range f.procs {
		if u, ok := at[id]; ok {
			lost = append(lost, sched.Lost{Process: p, Cores: u.cores, Slices: u.slices})
			delete(at, id)
		}
	}
	delete(f.nodes, id)
	return lost, nil
}

// SetAlive implements Placement.
func (f *FirstFit) SetAlive(id uint32, generation uint64, alive bool) error {
	n, err := f.look("SetAlive", id, generation)
	if err == nil {
		n.Alive = alive
	}
	return err
}

// Resize implements Placement.
func (f *FirstFit) Resize(id uint32, generation uint64, cores, slices int64) error {
	n, err := f.look("Resize", id, generation)
	if err == nil && (cores < n.used.cores || slices < n.used.slices) {
		err = no("Resize", sched.Invalid, "dkernel %d uses %v", id, n.used)
	}
	if err == nil {
		n.Cores, n.Slices = cores, slices
	}
	return err
}

// Start implements Placement.
func (f *FirstFit) Start(process uint64) error {
	switch {
	case f.past[process]:
		return no("Start", sched.DeadProcess, "process %d has exited", process)
	case f.procs[process] != nil:
		return no("Start", sched.Invalid, "process %d has started already", process)
	}
	f.procs[process] = map[uint32]units{}
	return nil
}

// Exit implements Placement.
func (f *FirstFit) Exit(process uint64) ([]sched.Grant, error) {
	if f.procs[process] == nil {
		return nil, no("Exit", sched.UnknownProcess, "there is no process %d", process)
	}
	held := f.Holds(process)
	for _, g := range held {
		f.take(process, g, -1)
	}
	delete(f.procs, process)
	f.past[process] = true
	return held, nil
}

func (f *FirstFit) take(process uint64, g sched.Grant, sign int64) {
	n, u := f.nodes[g.Dkernel], f.procs[process][g.Dkernel]
	n.used.cores += sign * g.Cores
	n.used.slices += sign * g.Slices
	u.cores += sign * g.Cores
	u.slices += sign * g.Slices
	if f.procs[process][g.Dkernel] = u; u == (units{}) {
		delete(f.procs[process], g.Dkernel)
	}
}

// Request implements Placement.
func (f *FirstFit) Request(batch []sched.Request) []sched.Decision {
	var out []sched.Decision
	for _, r := range batch {
		out = append(out, f.request(r))
	}
	return out
}

func (f *FirstFit) request(r sched.Request) sched.Decision {
	d := sched.Decision{ID: r.ID}
	if f.procs[r.Process] == nil {
		d.Err = no("Request", sched.UnknownProcess, "there is no process %d", r.Process)
		return d
	}
	left := units{r.Cores, r.Slices}
	for _, id := range f.ids() {
		n := f.nodes[id]
		if !n.Alive || n.Drained || len(r.Pinned) > 0 && !slices.Contains(r.Pinned, id) {
			continue
		}
		g := sched.Grant{Dkernel: id, Generation: n.Generation, Cores: min(left.cores, n.Cores-n.used.cores), Slices: min(left.slices, n.Slices-n.used.slices)}
		if g.Cores > 0 || g.Slices > 0 {
			d.Grants = append(d.Grants, g)
			left.cores -= g.Cores
			left.slices -= g.Slices
		}
	}
	if left != (units{}) {
		return sched.Decision{ID: r.ID, Err: no("Request", sched.Infeasible, "%d cores and %d slices too few", left.cores, left.slices)}
	}
	for _, g := range d.Grants {
		f.take(r.Process, g, 1)
	}
	return d
}

func (f *FirstFit) ids() []uint32 {
	var ids []uint32
	for id := range f.nodes {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// Release implements Placement.
func (f *FirstFit) Release(process uint64, grants []sched.Grant) error {
	for _, g := range grants {
		if u := f.procs[process][g.Dkernel]; g.Cores > u.cores || g.Slices > u.slices {
			return no("Release", sched.NotHeld, "process %d holds %v at dkernel %d", process, u, g.Dkernel)
		}
	}
	for _, g := range grants {
		f.take(process, g, -1)
	}
	return nil
}

// Restore implements Placement.
func (f *FirstFit) Restore(process uint64, grants []sched.Grant) error {
	for _, g := range grants {
		if _, err := f.look("Restore", g.Dkernel, g.Generation); err != nil {
			return err
		}
	}
	if f.procs[process] == nil {
		f.procs[process] = map[uint32]units{}
	}
	for _, g := range grants {
		f.take(process, g, 1)
	}
	return nil
}

// Holds implements Placement.
func (f *FirstFit) Holds(process uint64) []sched.Grant {
	var out []sched.Grant
	for _, id := range f.ids() {
		if u, ok := f.procs[process][id]; ok {
			out = append(out, sched.Grant{Dkernel: id, Generation: f.nodes[id].Generation, Cores: u.cores, Slices: u.slices})
		}
	}
	return out
}

// Drain implements Placement: what is there stays until it is released.
func (f *FirstFit) Drain(id uint32) ([]sched.Move, error) {
	if f.nodes[id] == nil {
		return nil, no("Drain", sched.UnknownDkernel, "there is no dkernel %d", id)
	}
	f.nodes[id].Drained = true
	return nil, nil
}

// Undrain implements Placement.
func (f *FirstFit) Undrain(id uint32) error {
	if f.nodes[id] == nil {
		return no("Undrain", sched.UnknownDkernel, "there is no dkernel %d", id)
	}
	f.nodes[id].Drained = false
	return nil
}

// Cancel implements Placement: it never moves anything.
func (f *FirstFit) Cancel(move uint64) error {
	return no("Cancel", sched.UnknownMove, "move %d is not under way", move)
}
