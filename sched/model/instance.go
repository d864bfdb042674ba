package model

import (
	"cmp"
	"fmt"
	"slices"
)

// Limits of an instance. Costs of certified atoms cannot overflow within them.
const (
	MaxDkernels  = 4096
	MaxDkernelID = 1<<16 - 1
	MaxCores     = 4096    // of one dkernel
	MaxSlices    = 1 << 20 // of one dkernel
	MaxItems     = 4096    // requests of one batch
	MaxUnits     = 1 << 24 // cores or slices of one request
)

// Node is one dkernel: what it has and what is used there before the round.
type Node struct {
	ID                    int64
	Cores, Slices         int64
	UsedCores, UsedSlices int64
	Generation            int64
	Alive, Drained        bool
}

// Item is one request of the round. Its place in Instance.Items is its id in the relations.
type Item struct {
	Process       int64
	Cores, Slices int64
	Shape         Shape
	Pins          []int64 // ids of the dkernels it is restricted to; empty for any
	Near          []int64 // ids of the dkernels it would like
	Home          int64   // id of the dkernel it moves from, 0 for a new request
}

// Held is what processes hold before the round, kept by the caller between rounds. Rows are flat:
// CellsAt gives (process, dkernel, cores, slices) in order of dkernel, ProcessAt gives (id, cores, slices).
type Held interface {
	Len() int
	CellsAt(i int) []int64
	ProcessAt(i int) []int64
	Find(process int64) int // −1 for a process it does not know
}

// Part is a grant: so much for an item at a node, by their indexes.
type Part struct {
	Item, Node    int32
	Cores, Slices int32
}

// Instance is one round: the state, the requests, and the tables that policies read. It is reused from round to
// round: fill the exported fields, then call Prepare.
type Instance struct {
	Number int64  // of the round
	Cursor int64  // rank of the dkernel granted last, −1 before the first
	Seed   uint64 // of random()
	Nodes  []Node
	Items  []Item
	Held   Held

	rank    []int32 // id → rank+1
	tables  [numRels][]int64
	changed [numRels][]int64 // the rows of held and load that the round changes
	pinsAt  []int32
	nearAt  []int32
	views   map[*statement][]int64
	sorted  []Part
}

// Rank is the index of the dkernel with this id in Nodes, −1 for none.
func (in *Instance) Rank(id int64) int {
	if id < 0 || id >= int64(len(in.rank)) {
		return -1
	}
	return int(in.rank[id]) - 1
}

// Prepare indexes the nodes and builds the tables that p reads. The error names what is out of its limits.
func (in *Instance) Prepare(p *Policy) error {
	if len(in.Nodes) > MaxDkernels || len(in.Items) > MaxItems {
		return fmt.Errorf("%d dkernels and %d requests: the limits are %d and %d", len(in.Nodes), len(in.Items), MaxDkernels, MaxItems)
	}
	clear(in.rank)
	for i := range in.Nodes {
		n := &in.Nodes[i]
		if n.ID < 0 || n.ID > MaxDkernelID || n.Cores < 0 || n.Cores > MaxCores || n.Slices < 0 || n.Slices > MaxSlices {
			return fmt.Errorf("dkernel %d with %d cores and %d slices is out of the limits", n.ID, n.Cores, n.Slices)
		}
		for int64(len(in.rank)) <= n.ID {
			in.rank = append(in.rank, 0)
		}
		if in.rank[n.ID] != 0 {
			return fmt.Errorf("dkernel %d is listed twice", n.ID)
		}
		in.rank[n.ID] = int32(i + 1)
	}
	for i := range in.Items {
		if it := &in.Items[i]; it.Cores < 0 || it.Slices < 0 || it.Cores > MaxUnits || it.Slices > MaxUnits || it.Shape > Apart {
			return fmt.Errorf("request %d for %d cores and %d slices is out of the limits", i, it.Cores, it.Slices)
		}
	}
	in.views = nil
	for r := range relPending {
		if p.uses&(1<<r) != 0 {
			in.build(r)
		}
	}
	return nil
}

// build fills the table of a relation that does not depend on the decisions.
func (in *Instance) build(r relID) {
	t := in.tables[r][:0]
	for i := range in.Nodes {
		n := &in.Nodes[i]
		freeC, freeS := n.Cores-n.UsedCores, n.Slices-n.UsedSlices
		switch r {
		case relDkernels:
			t = append(t, n.ID, int64(i), n.Cores, n.Slices, n.Generation, b2i(n.Alive), b2i(n.Drained))
		case relCores:
			t = append(t, n.ID, n.Cores, n.UsedCores, freeC)
		case relSlices:
			t = append(t, n.ID, n.Slices, n.UsedSlices, freeS)
		case relUnallocated:
			t = append(t, n.ID, freeC, freeS)
		case relHealth:
			t = append(t, n.ID, n.Generation, b2i(n.Alive), b2i(n.Drained))
		}
	}
	switch r {
	case relRequests:
		for i := range in.Items {
			it := &in.Items[i]
			t = append(t, int64(i), it.Process, it.Cores, it.Slices, int64(it.Shape))
		}
	case relPins:
		t, in.pinsAt = in.lists(t, in.pinsAt, true)
	case relNear:
		t, in.nearAt = in.lists(t, in.nearAt, false)
	case relRound:
		t = append(t, in.Number, in.Cursor, int64(len(in.Nodes)), int64(len(in.Items)))
	}
	in.tables[r] = t
}

func (in *Instance) lists(t []int64, at []int32, pins bool) ([]int64, []int32) {
	at = at[:0]
	for i := range in.Items {
		at = append(at, int32(len(t)))
		ids := in.Items[i].Near
		if pins {
			ids = in.Items[i].Pins
		}
		for _, id := range ids {
			t = append(t, int64(i), id)
		}
	}
	return t, append(at, int32(len(t)))
}

// lookup gives the rows of r whose first column is key; ok is false where there is no index.
func (in *Instance) lookup(r *Relation, key int64) (rows []int64, ok bool) {
	t := in.tables[r.id]
	switch r.id {
	case relDkernels, relCores, relSlices, relUnallocated, relHealth:
		i, w := in.Rank(key), len(r.Cols)
		if i < 0 {
			return nil, true
		}
		return t[i*w : (i+1)*w], true
	case relRequests:
		if w := int64(len(r.Cols)); key >= 0 && key < int64(len(in.Items)) {
			return t[key*w : (key+1)*w], true
		}
		return nil, true
	case relPins, relNear:
		at := in.pinsAt
		if r.id == relNear {
			at = in.nearAt
		}
		if key >= 0 && key < int64(len(in.Items)) {
			return t[at[key]:at[key+1]], true
		}
		return nil, true
	case relPlacements, relProcesses:
		if in.Held == nil {
			return nil, true
		}
		i := in.Held.Find(key)
		switch {
		case i < 0:
			return nil, true
		case r.id == relProcesses:
			return in.Held.ProcessAt(i), true
		}
		return in.Held.CellsAt(i), true
	}
	return nil, false
}

func (in *Instance) table(r *Relation, changed bool) []int64 {
	if r.view != nil {
		return in.viewRows(r.view)
	}
	if changed && (r.id == relHeld || r.id == relLoad) {
		return in.changed[r.id]
	}
	return in.tables[r.id]
}

func (in *Instance) viewRows(s *statement) []int64 {
	if rows, ok := in.views[s]; ok {
		return rows
	}
	var out []int64
	e := &env{in: in}
	add := func(v *env) bool {
		if s.sel.star {
			for _, sl := range s.sel.slots {
				out = append(out, v.frames[sl]...)
			}
			return true
		}
		for _, f := range s.q.items {
			out = append(out, f(v))
		}
		return true
	}
	grouped := len(s.sel.groupBy) > 0
	for _, it := range s.sel.items {
		grouped = grouped || hasAggregate(it.e)
	}
	if grouped {
		s.q.groups(e, add)
	} else {
		s.q.run(e, &walker{what: add})
	}
	if in.views == nil {
		in.views = map[*statement][]int64{}
	}
	in.views[s] = out
	return out
}

// groups visits the groups of the query in the order of their first tuple; without GROUP BY all tuples are one.
func (q *query) groups(e *env, f func(*env) bool) {
	var order []string
	tuples := map[string][][]int64{}
	slots := q.sel.slots
	var key []byte
	q.run(e, &walker{what: func(v *env) bool {
		key = key[:0]
		for _, g := range q.groupF {
			key = fmt.Appendf(key, "%d,", g(v))
		}
		k := string(key)
		if _, ok := tuples[k]; !ok {
			order = append(order, k)
		}
		for _, s := range slots {
			tuples[k] = append(tuples[k], v.frames[s])
		}
		return true
	}})
	for _, k := range order {
		e.group, e.slots = tuples[k], slots
		for j, s := range slots {
			e.frames[s] = e.group[j]
		}
		if q.having != nil && q.having(e) == 0 {
			continue
		}
		if !f(e) {
			return
		}
	}
}

// assign builds the tables that depend on the decisions: pending, held and load.
func (in *Instance) assign(parts []Part) {
	in.views = nil
	// Units of a request are numbered in the order of their nodes: exchanging equal rows changes nothing.
	in.sorted = append(in.sorted[:0], parts...)
	parts = in.sorted
	slices.SortFunc(parts, func(a, b Part) int {
		return cmp.Or(cmp.Compare(a.Item, b.Item), cmp.Compare(in.Nodes[a.Node].ID, in.Nodes[b.Node].ID))
	})
	pend := in.tables[relPending][:0]
	id := int64(0)
	for res := range int64(2) {
		for _, p := range parts {
			n := int64(p.Cores)
			if res == 1 {
				n = int64(p.Slices)
			}
			for range n {
				pend = append(pend, make([]int64, pendWidth)...)
				in.pendingRow(pend[len(pend)-pendWidth:], int(p.Item), res, in.Nodes[p.Node].ID)
				pend[len(pend)-pendWidth+pendID] = id
				id++
			}
		}
	}
	in.tables[relPending] = pend
	in.assignLoad(parts)
	in.assignHeld(parts)
}

// pendingRow fills row for one unit of an item at a dkernel.
func (in *Instance) pendingRow(row []int64, item int, resource, dkernel int64) {
	it := &in.Items[item]
	row[pendID] = 0
	row[pendRequest] = int64(item)
	row[pendProcess] = it.Process
	row[pendResource] = resource
	row[pendCores] = 1 - resource
	row[pendSlices] = resource
	row[pendShape] = int64(it.Shape)
	row[pendPinned] = b2i(len(it.Pins) > 0)
	row[pendHome] = it.Home
	row[pendMoving] = b2i(it.Home != 0)
	row[pendDkernel] = dkernel
}

func (in *Instance) assignLoad(parts []Part) {
	all, changed := in.tables[relLoad][:0], in.changed[relLoad][:0]
	for i := range in.Nodes {
		n := &in.Nodes[i]
		all = append(all, n.ID, n.UsedCores, n.UsedSlices, n.Cores, n.Slices)
	}
	touched := make([]bool, len(in.Nodes))
	for _, p := range parts {
		row := all[int(p.Node)*loadWidth:]
		row[loadCores] += int64(p.Cores)
		row[loadSlices] += int64(p.Slices)
		touched[p.Node] = true
	}
	for i, t := range touched {
		if t {
			changed = append(changed, all[i*loadWidth:(i+1)*loadWidth]...)
		}
	}
	in.tables[relLoad], in.changed[relLoad] = all, changed
}

func (in *Instance) assignHeld(parts []Part) {
	all, changed := in.tables[relHeld][:0], in.changed[relHeld][:0]
	at := map[[2]int64]int{}
	touched := map[int]bool{}
	known := map[int64]bool{}
	for i := range in.Items {
		p := in.Items[i].Process
		if known[p] || in.Held == nil || in.Held.Find(p) < 0 {
			continue
		}
		known[p] = true
		for cells := in.Held.CellsAt(in.Held.Find(p)); len(cells) >= 4; cells = cells[4:] {
			if cells[2] == 0 && cells[3] == 0 {
				continue
			}
			at[[2]int64{p, cells[1]}] = len(all)
			all = append(all, p, cells[1], cells[2], cells[3], 0)
		}
	}
	for _, p := range parts {
		k := [2]int64{in.Items[p.Item].Process, in.Nodes[p.Node].ID}
		o, ok := at[k]
		if !ok {
			o = len(all)
			at[k] = o
			all = append(all, k[0], k[1], 0, 0, 1)
		}
		all[o+heldCores] += int64(p.Cores)
		all[o+heldSlices] += int64(p.Slices)
		touched[o] = true
	}
	for o := 0; o < len(all); o += heldWidth {
		if touched[o] {
			changed = append(changed, all[o:o+heldWidth]...)
		}
	}
	in.tables[relHeld], in.changed[relHeld] = all, changed
}
