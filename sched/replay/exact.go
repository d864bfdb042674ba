package replay

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"dinos/sched/model"
)

// ErrNoSolver says that the exact solver is not installed (Debian package coinor-cbc).
var ErrNoSolver = errors.New("cbc is not installed: apt install coinor-cbc")

// ErrTime says that the exact solver did not finish in time.
var ErrTime = errors.New("cbc did not prove an optimum in time")

// mip writes a mixed-integer program for one round, stated independently of package solve. It knows the goals of two
// policies: `locality`, tiers 1 and 2, and `ours`, tiers 1 to 4. All requests must be placed.
type mip struct {
	in      *model.Instance
	cons    []string
	bounds  []string
	general []string
	binary  []string
	goals   map[int][]string // terms by tier
}

// Exact finds the optimal cost of the first tiers of a policy for a round, tier after tier, each with the earlier ones
// fixed at their optima. It answers as many tiers as it knows: 2 of locality, 4 of ours.
func Exact(policy string, in *model.Instance, limit time.Duration) ([]int64, error) {
	bin, err := exec.LookPath("cbc")
	if err != nil {
		return nil, ErrNoSolver
	}
	m := &mip{in: in, goals: map[int][]string{}}
	m.state()
	tiers := 0
	switch policy {
	case "locality":
		m.locality()
		tiers = 2
	case "ours":
		m.ours()
		tiers = 4
	default:
		return nil, fmt.Errorf("no exact model of policy %q: there are locality and ours", policy)
	}
	dir, err := os.MkdirTemp("", "dinos-exact")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	var out []int64
	for t := 1; t <= tiers; t++ {
		v, err := m.run(bin, dir, t, limit)
		if err != nil {
			return out, err
		}
		if len(m.goals[t]) > 0 {
			m.con("%s = %g", strings.Join(m.goals[t], " "), v)
		}
		out = append(out, int64(math.Round(v)))
	}
	return out, nil
}

func (m *mip) con(format string, args ...any) { m.cons = append(m.cons, fmt.Sprintf(format, args...)) }

func (m *mip) goal(t int, k float64, v string) {
	m.goals[t] = append(m.goals[t], fmt.Sprintf("%+g %s", k, v))
}

func (m *mip) bin(format string, args ...any) string {
	v := fmt.Sprintf(format, args...)
	m.binary = append(m.binary, v)
	return v
}

func (m *mip) open(d int) bool { return m.in.Nodes[d].Alive && !m.in.Nodes[d].Drained }

// state has the units of each request at each node, xc and xs, their sums, and the capacities.
func (m *mip) state() {
	for i := range m.in.Items {
		it := &m.in.Items[i]
		for r, want := range [...]int64{it.Cores, it.Slices} {
			var sum []string
			for d := range m.in.Nodes {
				v := unit(r, i, d)
				m.general = append(m.general, v)
				sum = append(sum, "+ "+v)
				most := want
				if r == 0 && it.Shape == model.Apart {
					most = min(most, 1)
				}
				if !m.open(d) || len(it.Pins) > 0 && !has(it.Pins, m.in.Nodes[d].ID) {
					most = 0
				}
				m.bounds = append(m.bounds, fmt.Sprintf("0 <= %s <= %d", v, most))
			}
			m.con("%s = %d", strings.Join(sum, " "), want)
		}
	}
	for d := range m.in.Nodes {
		n := &m.in.Nodes[d]
		for r, free := range [...]int64{n.Cores - n.UsedCores, n.Slices - n.UsedSlices} {
			var sum []string
			for i := range m.in.Items {
				sum = append(sum, "+ "+unit(r, i, d))
			}
			m.con("%s <= %d", strings.Join(sum, " "), free)
		}
	}
}

func unit(r, i, d int) string { return fmt.Sprintf("x%d_%d_%d", r, i, d) }

func has(ids []int64, id int64) bool {
	for _, x := range ids {
		if x == id {
			return true
		}
	}
	return false
}

// held is what a process holds at a node before the round.
func (m *mip) held(p int64, d int) (c, s int64) {
	if m.in.Held == nil {
		return 0, 0
	}
	i := m.in.Held.Find(p)
	if i < 0 {
		return 0, 0
	}
	for rows := m.in.Held.CellsAt(i); len(rows) >= 4; rows = rows[4:] {
		if rows[1] == m.in.Nodes[d].ID {
			return rows[2], rows[3]
		}
	}
	return 0, 0
}

// processes lists the items of each process, in order of first appearance.
func (m *mip) processes() (ids []int64, items map[int64][]int) {
	items = map[int64][]int{}
	for i := range m.in.Items {
		p := m.in.Items[i].Process
		if items[p] == nil {
			ids = append(ids, p)
		}
		items[p] = append(items[p], i)
	}
	return ids, items
}

// locality: −4096 a unit where the process is, −1024 a pair; then the fullest dkernel.
func (m *mip) locality() {
	ids, items := m.processes()
	for g, p := range ids {
		for d := range m.in.Nodes {
			var sum []string
			total := int64(0)
			c, s := m.held(p, d)
			for _, i := range items[p] {
				for r := range 2 {
					sum = append(sum, "+ "+unit(r, i, d))
					if c+s > 0 {
						m.goal(1, -4096, unit(r, i, d))
					}
				}
				total += m.in.Items[i].Cores + m.in.Items[i].Slices
			}
			// n(n−1) is the sum of 2(k−1) for k up to n; u_k says that there are k rows at least.
			prev := ""
			for k := int64(1); k <= total; k++ {
				u := m.bin("u_%d_%d_%d", g, d, k)
				sum = append(sum, "- "+u)
				if prev != "" {
					m.con("%s - %s >= 0", prev, u)
					m.goal(1, -2048*float64(k-1), u)
				}
				prev = u
			}
			m.con("%s = 0", strings.Join(sum, " "))
		}
	}
	m.general = append(m.general, "top")
	m.goal(2, 1, "top")
	for d := range m.in.Nodes {
		var sum []string
		for i := range m.in.Items {
			sum = append(sum, "- "+unit(0, i, d))
		}
		m.con("top %s >= %d", strings.Join(sum, " "), m.in.Nodes[d].UsedCores)
	}
}

// ours: spread and near, dkernels newly used, remote slices, full dkernels.
func (m *mip) ours() {
	for i := range m.in.Items {
		it := &m.in.Items[i]
		for d := range m.in.Nodes {
			if it.Shape == model.Spread {
				var sum []string
				for k := int64(1); k <= it.Cores; k++ {
					u := m.bin("s_%d_%d_%d", i, d, k)
					sum = append(sum, "- "+u)
					if k > 1 {
						m.goal(1, 2*float64(k-1), u)
					}
				}
				if len(sum) > 0 {
					m.con("%s %s = 0", unit(0, i, d), strings.Join(sum, " "))
				}
			}
			if len(it.Near) > 0 && !has(it.Near, m.in.Nodes[d].ID) {
				m.goal(1, 1, unit(0, i, d))
				m.goal(1, 1, unit(1, i, d))
			}
		}
	}
	m.cells()
	for d := range m.in.Nodes {
		n := &m.in.Nodes[d]
		full := m.bin("full_%d", d)
		m.goal(4, 1, full)
		sum := fmt.Sprintf("- %d %s", 10*n.Cores+1, full)
		for i := range m.in.Items {
			sum += " + 10 " + unit(0, i, d)
		}
		m.con("%s <= %d", sum, 9*n.Cores-10*n.UsedCores)
	}
}

func (m *mip) cells() {
	ids, items := m.processes()
	for g, p := range ids {
		for d := range m.in.Nodes {
			c, s := m.held(p, d)
			var want [2]int64
			sums := [2]string{}
			for _, i := range items[p] {
				for r := range 2 {
					sums[r] += " + " + unit(r, i, d)
				}
				want[0] += m.in.Items[i].Cores
				want[1] += m.in.Items[i].Slices
			}
			if c+s == 0 {
				z := m.bin("z_%d_%d", g, d)
				m.goal(2, 1, z)
				m.con("%s - %d %s <= 0", sums[0]+sums[1], want[0]+want[1], z)
			}
			if c > 0 {
				continue // it has cores there: its slices are not remote
			}
			// far is the slices at d unless some core comes there.
			far, core := fmt.Sprintf("far_%d_%d", g, d), m.bin("core_%d_%d", g, d)
			m.goal(3, 1, far)
			m.con("%s - %s >= 0", sums[0], core)
			m.con("%s %s + %d %s >= %d", far, strings.ReplaceAll(sums[1], "+", "-"), want[1]+s, core, s)
		}
	}
}

// run minimises one tier.
func (m *mip) run(bin, dir string, t int, limit time.Duration) (float64, error) {
	if len(m.goals[t]) == 0 {
		return 0, nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Minimize\n obj: %s\nSubject To\n", wrap(strings.Join(m.goals[t], " ")))
	for i, c := range m.cons {
		fmt.Fprintf(&b, " c%d: %s\n", i, wrap(c))
	}
	fmt.Fprintf(&b, "Bounds\n %s\nGenerals\n %s\nBinaries\n %s\nEnd\n", strings.Join(m.bounds, "\n "), strings.Join(m.general, "\n "), strings.Join(m.binary, "\n "))
	lp, sol := filepath.Join(dir, "p.lp"), filepath.Join(dir, "p.sol")
	if err := os.WriteFile(lp, []byte(b.String()), 0o600); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit+10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, bin, lp, "sec", strconv.Itoa(int(max(1, limit.Seconds()))), "ratio", "0", "solve", "solution", sol).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("cbc: %w\n%s", err, out)
	}
	text, err := os.ReadFile(sol)
	if err != nil {
		return 0, fmt.Errorf("cbc left no solution: %w\n%s", err, out)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	if !strings.HasPrefix(first, "Optimal - objective value") {
		if strings.Contains(first, "nfeasible") {
			return 0, fmt.Errorf("cbc: %s", first)
		}
		return 0, ErrTime
	}
	f := strings.Fields(first)
	return strconv.ParseFloat(f[len(f)-1], 64)
}

// wrap breaks long lines, which the LP format limits.
func wrap(s string) string {
	var b strings.Builder
	n := 0
	for _, w := range strings.Fields(s) {
		if n += len(w) + 1; n > 200 && (w == "+" || w == "-" || w[0] == '+' || w[0] == '-') {
			b.WriteString("\n  ")
			n = len(w)
		}
		b.WriteString(w)
		b.WriteByte(' ')
	}
	return b.String()
}
