package solve

import (
	"math"
	"slices"

	"dinos/sched/model"
)

// pricer computes a Lagrangian bound of the number of dkernels that processes must newly use: capacities are taken out
// of the constraints and into the cost, at a price for each node and resource, so that every process can be placed by
// itself; whatever the prices, the sum of these minima less the price of the capacities is a bound. A subgradient
// search raises it (Held, Wolfe and Crowder, Math. Programming 1974).
type pricer struct {
	s     *Solver
	price [2][]float64 // of a unit, by node
	use   [2][]float64 // by node, in the present minima
	order [2][]int32   // nodes by price
	unit  [2][]float64 // 1 / total, so that cores and slices count alike in the step
}

// Certify tries to tighten the bound of a solution that Solve has just found for in under p, for goals that count the
// dkernels newly used, where the greedy bound is weak: on a nearly full rack. It takes some milliseconds for a hundred
// rounds on 64 dkernels, so it is for a time when nobody waits. The status becomes Optimal if the bound meets the cost.
func (s *Solver) Certify(p *model.Policy, in *model.Instance, out *Solution, rounds int) error {
	if err := in.Prepare(p); err != nil {
		return err
	}
	if out.Status == Optimal || out.Cost[0] > 0 {
		return nil
	}
	s.bind(p, in)
	s.lowerBound(&s.lb.root)
	for k := range s.tiers {
		t := &s.tiers[k]
		if len(t.cells) != 1 || !opens(t.cells[0]) || t.row >= 0 || len(t.loads)+len(t.extremes)+len(t.groups) > 0 {
			continue
		}
		a := t.cells[0]
		if low := newPricer(s).search(a, float64(out.Cost[t.tier]), rounds); low > out.Bound[t.tier] {
			out.Bound[t.tier] = low
		}
	}
	if out.Cost.Compare(&out.Bound) <= 0 && !s.loose {
		out.Status = Optimal
	}
	return nil
}

func newPricer(s *Solver) *pricer {
	q := &pricer{s: s}
	for r := range 2 {
		q.price[r], q.use[r], q.unit[r] = make([]float64, s.nodes), make([]float64, s.nodes), make([]float64, s.nodes)
		for d := range s.nodes {
			q.unit[r][d] = 1 / float64(max(1, s.vars[d][model.VarTotalCores+r]))
			q.order[r] = append(q.order[r], int32(d))
		}
	}
	return q
}

// search is the subgradient method with Polyak's step, towards the cost of the known solution.
func (q *pricer) search(a *model.Atom, known float64, rounds int) int64 {
	s := q.s
	s.distinctNeeds(a.Tier)
	best, theta, since := math.Inf(-1), 1.0, 0
	for range rounds {
		low := q.evaluate(a)
		if since++; low > best {
			best, since = low, 0
		}
		if math.Ceil(best-1e-6) >= known {
			break
		}
		if since == 10 {
			theta, since = theta/2, 0
		}
		norm := 0.0
		for r := range 2 {
			for d := range s.nodes {
				g := (q.use[r][d] - float64(s.lb.open[d][r])) * q.unit[r][d]
				if g > 0 || q.price[r][d] > 0 {
					norm += g * g
				}
			}
		}
		if norm == 0 {
			break
		}
		step := theta * (known - low) / norm
		for r := range 2 {
			for d := range s.nodes {
				g := (q.use[r][d] - float64(s.lb.open[d][r])) * q.unit[r][d]
				q.price[r][d] = max(0, q.price[r][d]+step*g*q.unit[r][d])
			}
		}
	}
	// A tolerance keeps rounding from claiming a dkernel too many.
	return int64(math.Ceil(best - 1e-6))
}

// evaluate is the bound at the present prices; use becomes what its minima take.
func (q *pricer) evaluate(a *model.Atom) float64 {
	s := q.s
	low := 0.0
	for r := range 2 {
		price := q.price[r]
		clear(q.use[r])
		slices.SortStableFunc(q.order[r], func(a, b int32) int {
			switch {
			case price[a] < price[b]:
				return -1
			case price[a] > price[b]:
				return 1
			}
			return 0
		})
		for d := range s.nodes {
			low -= price[d] * float64(s.lb.open[d][r])
		}
	}
	for g := range s.procs {
		if s.lb.left[g] != [2]int64{} {
			low += q.process(a, g)
		}
	}
	return low
}

// process is the least cost of one process at the present prices, or less: whole at a node it is not at yet, or on as
// many nodes as it needs at least, each unit at the cheapest node with room.
func (q *pricer) process(a *model.Atom, g int) float64 {
	s := q.s
	left, k := s.lb.left[g], float64(a.Form.Lin.Const)
	cells := s.cellX[g*s.nodes : (g+1)*s.nodes]
	if s.filled[g] > 0 || s.lb.need[g] > 1 {
		need := max(0, s.lb.need[g]-int64(s.filled[g]))
		if s.filled[g] == 0 {
			need = max(need, s.nodesFor(cells, left))
		}
		return k*float64(need) + q.fill(left, true)
	}
	one, at := math.Inf(1), -1
	for d := range s.nodes {
		if s.lb.open[d][0] < left[0] || s.lb.open[d][1] < left[1] {
			continue
		}
		if c := k + q.price[0][d]*float64(left[0]) + q.price[1][d]*float64(left[1]); c < one {
			one, at = c, d
		}
	}
	many := k*float64(max(2, s.nodesFor(cells, left))) + q.fill(left, false)
	if one <= many {
		q.use[0][at] += float64(left[0])
		q.use[1][at] += float64(left[1])
		return one
	}
	return k*float64(max(2, s.nodesFor(cells, left))) + q.fill(left, true)
}

// fill is the price of so many units at the cheapest nodes with room; take books them.
func (q *pricer) fill(left [2]int64, take bool) float64 {
	cost := 0.0
	for r := range 2 {
		n := left[r]
		for _, d := range q.order[r] {
			if n == 0 {
				break
			}
			x := min(n, q.s.lb.open[d][r])
			cost += q.price[r][d] * float64(x)
			if take {
				q.use[r][d] += float64(x)
			}
			n -= x
		}
	}
	return cost
}
