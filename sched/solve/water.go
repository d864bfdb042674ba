package solve

import (
	"slices"

	"dinos/sched/model"
)

// loadLow bounds a goal on the load: as it is, plus for squares what spreading the rest evenly adds at least.
func (s *Solver) loadLow(l *loadGoal) int64 {
	if !rises(&l.Form) {
		return noBound
	}
	now := int64(0)
	for _, x := range l.now {
		now += x
	}
	if l.form == stepForm {
		return now + s.stepLow(l)
	}
	if len(l.Form.Guards) > 0 {
		return now
	}
	return now + s.waterLow(l)
}

// waterLow is the least that the unplaced units add to Σ (lin + k·u²)/div, were they divisible at will: they go
// where the marginal cost is least, up to one level for all nodes. The level is found by bisection.
func (s *Solver) waterLow(l *loadGoal) int64 {
	add := 0.0
	for r := range 2 {
		want := int64(0)
		for _, x := range s.lb.left {
			want += x[r]
		}
		want = min(want, s.lb.sum[r][s.nodes])
		if want == 0 {
			continue
		}
		add += s.level(l, r, float64(want))
	}
	if add == 0 {
		return 0
	}
	if l.Form.Div >= 0 {
		add -= float64(s.nodes) // each node's quotient is rounded down, before and after
	}
	return max(0, int64(add*(1-1e-9))-1)
}

func (s *Solver) level(l *loadGoal, r int, want float64) float64 {
	f := s.lb.flow[:0]
	sq, lin := float64(l.Form.Square[r]), float64(l.Form.Lin.Coef[r])
	lo, hi := 0.0, 0.0
	for d := range s.nodes {
		if free := s.lb.open[d][r]; free > 0 {
			w := 1 / s.divisor(l, d)
			u := float64(s.vars[d][r])
			f = append(f, flow{(lin + 2*sq*u) * w, 2 * sq * w, float64(free)})
			hi = max(hi, (lin+2*sq*(u+float64(free)))*w)
		}
	}
	s.lb.flow = f
	fill := func(level float64) (units, cost float64) {
		for i := range f {
			n := &f[i]
			if n.marginal >= level {
				continue
			}
			x := n.free
			if n.slope > 0 {
				x = min(x, (level-n.marginal)/n.slope)
			}
			units += x
			cost += x * (n.marginal + n.slope*x/2)
		}
		return units, cost
	}
	for range 26 {
		mid := (lo + hi) / 2
		if u, _ := fill(mid); u < want {
			lo = mid
		} else {
			hi = mid
		}
	}
	// Below the level everything is paid for; what is missing up to want costs at least the level.
	u, c := fill(lo)
	return c + max(0, want-u)*lo
}

// flow is a node in the computation of a level: the cost of its next unit, how fast that rises, and its room.
type flow struct{ marginal, slope, free float64 }

func (s *Solver) divisor(l *loadGoal, d int) float64 {
	if l.Form.Div < 0 {
		return 1
	}
	return float64(max(1, s.vars[d][l.Form.Div]))
}

// extremeLow bounds the maximum over nodes: it is no less than now, and than where all nodes are evenly full.
func (s *Solver) extremeLow(g int) int64 {
	l := &s.extremes[g]
	low := s.top[g]
	f := &l.Form
	if f.Square != [2]int64{} || f.Div >= 0 {
		return low
	}
	sum, n := int64(0), int64(0)
	for d, ok := range s.baseOK {
		if ok {
			sum += l.now[d]
			n++
		}
	}
	if n == 0 {
		return low
	}
	for _, x := range s.lb.left {
		sum += f.Lin.Coef[0]*x[0] + f.Lin.Coef[1]*x[1]
	}
	return max(low, ceilDiv(sum, n), s.wholeLow(l))
}

func ceilDiv(a, b int64) int64 {
	if a > 0 {
		return (a + b - 1) / b
	}
	return a / b
}

// wholeLow bounds an extreme by the processes that an earlier tier wants at one node each: solutions in which that
// tier is not at its bound are more than the bound anyway. Of the j largest, either one goes to a node that is not
// among the j−1 emptiest, or two share a node.
func (s *Solver) wholeLow(l *loadGoal) int64 {
	b := &s.lb
	b.sizes, b.nows = b.sizes[:0], b.nows[:0]
	for g := range s.groups {
		gr := &s.groups[g]
		if gr.Kind != model.Pair || gr.Weight >= 0 || gr.ByRequest || gr.Tier >= l.Tier {
			continue
		}
		for p := range s.procs {
			rest, most, _ := s.groupLeft(gr, p)
			n := rest[0] + rest[1]
			if n > 0 && gr.total[p] == 0 && rest == b.left[p] && s.freshPairs(rest, most) == n*(n-1) {
				b.sizes = append(b.sizes, l.Form.Lin.Coef[0]*rest[0]+l.Form.Lin.Coef[1]*rest[1])
			}
		}
		break
	}
	for d, ok := range s.baseOK {
		if ok {
			b.nows = append(b.nows, l.now[d])
		}
	}
	slices.Sort(b.sizes)
	slices.Sort(b.nows)
	low := int64(Unbounded)
	for j := range min(len(b.sizes), len(b.nows)) {
		size := b.sizes[len(b.sizes)-1-j]
		x := b.nows[j] + size
		if j > 0 {
			x = min(x, b.nows[0]+2*size)
		}
		low = max(low, x)
	}
	return low
}

// stepLow bounds how many more nodes pass the threshold of a step in one resource: what the others can take below it
// is not enough, and the nodes with the most room beyond it come first.
func (s *Solver) stepLow(l *loadGoal) int64 {
	g := &l.Form.Guards[0].Lin
	r := 0
	if g.Coef[0] == 0 {
		r = 1
	}
	a := g.Coef[r]
	if a <= 0 || g.Coef[1-r] != 0 || l.k <= 0 {
		return 0
	}
	b := &s.lb
	b.nows = b.nows[:0]
	left := int64(0)
	for _, x := range b.left {
		left += x[r]
	}
	for d := range s.nodes {
		open := b.open[d][r]
		lin := g.Eval(&s.vars[d])
		below := open
		if lin < 0 {
			below = min(open, (-lin-1)/a)
		}
		left -= below
		b.nows = append(b.nows, open-below)
	}
	slices.Sort(b.nows)
	low := int64(0)
	for i := len(b.nows) - 1; i >= 0 && left > 0 && b.nows[i] > 0; i-- {
		left -= b.nows[i]
		low += l.k
	}
	return low
}
