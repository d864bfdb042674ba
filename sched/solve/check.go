package solve

import (
	"fmt"

	"dinos/sched/model"
)

// checker verifies a solution from nothing but the instance: it shares no state and no arithmetic with the search.
type checker struct {
	used [][2]int64
	got  [][2]int64
}

// Check verifies that a solution breaks no physical constraint and none of the policy: counts are as requested,
// capacities hold, nothing is at a dead or drained dkernel or outside of its pins, cores that want to be apart are.
// The error names the constraint. Solve has done this already; it is exported for those who store solutions.
func Check(p *model.Policy, in *model.Instance, out *Solution) error {
	var c checker
	if err := in.Prepare(p); err != nil {
		return err
	}
	return c.check(p, in, out)
}

func (c *checker) check(p *model.Policy, in *model.Instance, out *Solution) error {
	c.used, c.got = resize(c.used, len(in.Nodes)), resize(c.got, len(in.Items))
	for k, q := range out.Parts {
		if q.Item < 0 || int(q.Item) >= len(in.Items) || q.Node < 0 || int(q.Node) >= len(in.Nodes) ||
			q.Cores < 0 || q.Slices < 0 || q.Cores == 0 && q.Slices == 0 {
			return fmt.Errorf("part %d is malformed: %+v", k, q)
		}
		if err := c.part(in, &q); err != nil {
			return err
		}
		// Parts of an item stand together, so that a node named twice is found by looking back.
		for j := k - 1; j >= 0 && out.Parts[j].Item == q.Item; j-- {
			if out.Parts[j].Node == q.Node {
				return fmt.Errorf("request %d has two parts at dkernel %d", q.Item, in.Nodes[q.Node].ID)
			}
		}
		c.used[q.Node][0] += int64(q.Cores)
		c.used[q.Node][1] += int64(q.Slices)
		c.got[q.Item][0] += int64(q.Cores)
		c.got[q.Item][1] += int64(q.Slices)
	}
	if err := c.totals(in, out); err != nil {
		return err
	}
	for i := range p.Atoms {
		if err := c.atom(p, &p.Atoms[i], in, out); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) part(in *model.Instance, q *model.Part) error {
	n, it := &in.Nodes[q.Node], &in.Items[q.Item]
	switch {
	case !n.Alive:
		return fmt.Errorf("alive: request %d is at dead dkernel %d", q.Item, n.ID)
	case n.Drained:
		return fmt.Errorf("not_drained: request %d is at drained dkernel %d", q.Item, n.ID)
	case it.Shape == model.Apart && q.Cores > 1:
		return fmt.Errorf("apart: request %d has %d cores at dkernel %d", q.Item, q.Cores, n.ID)
	}
	if len(it.Pins) == 0 {
		return nil
	}
	for _, id := range it.Pins {
		if id == n.ID {
			return nil
		}
	}
	return fmt.Errorf("pinned: request %d is at dkernel %d, outside of its pins", q.Item, n.ID)
}

func (c *checker) totals(in *model.Instance, out *Solution) error {
	for d := range c.used {
		n := &in.Nodes[d]
		if u := n.UsedCores + c.used[d][0]; c.used[d][0] > 0 && u > n.Cores {
			return fmt.Errorf("core_capacity: %d cores used of %d at dkernel %d", u, n.Cores, n.ID)
		}
		if u := n.UsedSlices + c.used[d][1]; c.used[d][1] > 0 && u > n.Slices {
			return fmt.Errorf("slice_capacity: %d slices used of %d at dkernel %d", u, n.Slices, n.ID)
		}
	}
	for _, i := range out.Refused {
		if i < 0 || int(i) >= len(in.Items) || c.got[i] != [2]int64{} {
			return fmt.Errorf("request %d is refused and placed, or unknown", i)
		}
		c.got[i] = [2]int64{in.Items[i].Cores, in.Items[i].Slices}
	}
	for i := range in.Items {
		if it := &in.Items[i]; c.got[i] != [2]int64{it.Cores, it.Slices} {
			return fmt.Errorf("request %d for %d cores and %d slices got %d and %d", i, it.Cores, it.Slices, c.got[i][0], c.got[i][1])
		}
	}
	return nil
}

// atom checks a hard atom of the policy's own; the physical ones are checked above.
func (c *checker) atom(p *model.Policy, a *model.Atom, in *model.Instance, out *Solution) error {
	if !a.Hard || a.Physical {
		return nil
	}
	broken := func(q *model.Part) error {
		return fmt.Errorf("%s: request %d may not have %d cores and %d slices at dkernel %d", a.Name, q.Item, q.Cores, q.Slices, in.Nodes[q.Node].ID)
	}
	switch a.Kind {
	case model.Row:
		for k := range out.Parts {
			q := &out.Parts[k]
			if q.Cores > 0 && p.RowValue(a, in, int(q.Item), 0, int(q.Node)) == 0 ||
				q.Slices > 0 && p.RowValue(a, in, int(q.Item), 1, int(q.Node)) == 0 {
				return broken(q)
			}
		}
	case model.Load:
		for k := range out.Parts {
			q := &out.Parts[k]
			n := &in.Nodes[q.Node]
			v := model.Vars{n.UsedCores + c.used[q.Node][0], n.UsedSlices + c.used[q.Node][1], 0, n.Cores, n.Slices}
			if a.Form.Lin.Eval(&v) > 0 {
				return broken(q)
			}
		}
	case model.Symmetry:
	default:
		// The rest is rare in policies; it is interpreted as written.
		for _, v := range p.EvaluateOne(a, in, out.Parts) {
			return fmt.Errorf("%s: broken by %d rows or groups", v.Constraint, v.Rows)
		}
	}
	return nil
}
