package sched

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"dinos/sched/model"
	"dinos/sched/solve"
)

// Dump is the whole state as text, one thing a line. Load reads it back; both ends are the same for equal states.
// The lines of `request` that Load accepts besides are not part of a state: they are questions for ExplainFile.
func (s *Scheduler) Dump() string {
	var b strings.Builder
	fmt.Fprintf(&b, "dinos-sched 1\nseed %d\nround %d cursor %d nextmove %d\nbudget iterations %d\n", s.seed, s.round, s.at, s.next, s.budget.Iterations)
	for i := range s.nodes {
		n := &s.nodes[i]
		fmt.Fprintf(&b, "dkernel %d cores %d slices %d generation %d%s%s\n", n.ID, n.Cores, n.Slices, uint64(n.Generation),
			word(n.Alive, " alive"), word(n.Drained, " drained"))
	}
	for i := range s.procs {
		p := &s.procs[i]
		fmt.Fprintf(&b, "process %d\n", p.id)
		for k, x := range p.extra {
			c := p.cells[4*k:]
			fmt.Fprintf(&b, "hold %d dkernel %d cores %d slices %d", p.id, c[1], c[2], c[3])
			if x != (extra{}) {
				fmt.Fprintf(&b, " pinned %d %d apart %d", x.pinned[0], x.pinned[1], x.apart)
			}
			b.WriteByte('\n')
		}
	}
	for _, m := range s.moves {
		fmt.Fprintf(&b, "move %d process %d from %d to %d cores %d slices %d\n", m.ID, m.Process, m.From, m.To, m.Cores, m.Slices)
	}
	for _, t := range s.tombQ {
		if s.tombs[t] {
			fmt.Fprintf(&b, "exited %d\n", t)
		}
	}
	fmt.Fprintf(&b, "policy %s\n", s.policy.Name)
	for _, l := range strings.Split(s.policy.Text, "\n") {
		fmt.Fprintf(&b, "| %s\n", l)
	}
	return b.String()
}

func word(on bool, w string) string {
	if on {
		return w
	}
	return ""
}

// ParseError is a fault in the text of a state.
type ParseError struct {
	Line int
	Msg  string
}

func (e *ParseError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Msg) }

// loader reads a state.
type loader struct {
	s        *Scheduler
	line     int
	words    []string
	policy   string
	text     []string
	requests []Request
	moves    []Move
}

// Load makes a scheduler from the text of a state. The error is a *ParseError or a *Refusal that says what would be
// right. Requests in the text are ignored.
func Load(text string) (*Scheduler, error) {
	l, err := load(text)
	if err != nil {
		return nil, err
	}
	return l.s, nil
}

func load(text string) (*loader, error) {
	s, err := New(Options{})
	if err != nil {
		return nil, err
	}
	l := &loader{s: s}
	for i, line := range strings.Split(text, "\n") {
		l.line = i + 1
		if rest, ok := strings.CutPrefix(line, "|"); ok {
			l.text = append(l.text, strings.TrimPrefix(rest, " "))
			continue
		}
		l.words = strings.Fields(line)
		if len(l.words) == 0 || strings.HasPrefix(l.words[0], "#") {
			continue
		}
		if err := l.entry(); err != nil {
			return nil, err
		}
		if len(l.words) > 0 {
			return nil, l.fail("unexpected %q at the end", l.words[0])
		}
	}
	if l.policy != "" {
		if err := s.SetPolicy(l.policy, strings.Join(l.text, "\n")); err != nil {
			return nil, err
		}
	}
	// Moves come last: the cells they lead to must be there.
	for _, m := range l.moves {
		if err := l.move(m); err != nil {
			return nil, err
		}
	}
	return l, nil
}

func (l *loader) fail(format string, args ...any) error {
	return &ParseError{l.line, fmt.Sprintf(format, args...)}
}

// word takes the next word.
func (l *loader) word() string {
	if len(l.words) == 0 {
		return ""
	}
	w := l.words[0]
	l.words = l.words[1:]
	return w
}

// maybe takes the next word if it is w.
func (l *loader) maybe(w string) bool {
	if len(l.words) > 0 && l.words[0] == w {
		l.words = l.words[1:]
		return true
	}
	return false
}

// numbers takes `name value` pairs in order; an empty name takes a bare value.
func (l *loader) numbers(names ...string) ([]int64, error) {
	out := make([]int64, len(names))
	for i, n := range names {
		if n != "" && !l.maybe(n) {
			return nil, l.fail("expected %q, found %q", n, strings.Join(l.words, " "))
		}
		w := l.word()
		v, err := strconv.ParseInt(w, 10, 64)
		if err != nil {
			if u, uerr := strconv.ParseUint(w, 10, 64); uerr == nil && (n == "generation" || n == "seed") {
				v, err = int64(u), nil
			}
		}
		if err != nil {
			return nil, l.fail("expected a number after %q, found %q", n, w)
		}
		out[i] = v
	}
	return out, nil
}

func (l *loader) entry() error {
	if l.line == 1 {
		if l.words[0] != "dinos-sched" || len(l.words) != 2 || l.words[1] != "1" {
			return l.fail("expected \"dinos-sched 1\": this is not the state of a scheduler")
		}
		l.words = nil
		return nil
	}
	switch l.words[0] {
	case "seed":
		v, err := l.numbers("seed")
		if err == nil {
			l.s.seed, l.s.solver = uint64(v[0]), solve.New(uint64(v[0]))
		}
		return err
	case "round":
		v, err := l.numbers("round", "cursor", "nextmove")
		if err == nil {
			l.s.round, l.s.at, l.s.next = v[0], v[1], uint64(v[2])
		}
		return err
	case "budget":
		l.word()
		v, err := l.numbers("iterations")
		if err == nil && v[0] > 0 && v[0] <= 1<<30 {
			l.s.budget.Iterations = int(v[0])
		}
		return err
	case "dkernel":
		return l.dkernel()
	case "process":
		v, err := l.numbers("process")
		if err != nil {
			return err
		}
		return l.wrap(l.s.Start(uint64(v[0])))
	case "hold":
		return l.hold()
	case "move":
		v, err := l.numbers("move", "process", "from", "to", "cores", "slices")
		if err == nil {
			l.moves = append(l.moves, Move{uint64(v[0]), uint64(v[1]), uint32(v[2]), uint32(v[3]), v[4], v[5]})
		}
		return err
	case "exited":
		v, err := l.numbers("exited")
		if err == nil && len(l.s.tombQ) < maxTombs {
			l.s.tombs[v[0]] = true
			l.s.tombQ = append(l.s.tombQ, v[0])
		}
		return err
	case "policy":
		l.word()
		l.policy = l.word()
		return nil
	case "request":
		return l.request()
	}
	return l.fail("unknown entry %q; entries are seed, round, budget, dkernel, process, hold, move, exited, policy, | and request", l.words[0])
}

func (l *loader) wrap(err error) error {
	if err != nil {
		return l.fail("%v", err)
	}
	return nil
}

func (l *loader) dkernel() error {
	v, err := l.numbers("dkernel", "cores", "slices", "generation")
	if err != nil {
		return err
	}
	d := Dkernel{Cores: v[1], Slices: v[2], Generation: uint64(v[3])}
	if v[0] > 0 && v[0] <= model.MaxDkernelID {
		d.ID = uint32(v[0])
	}
	d.Alive = l.maybe("alive")
	d.Drained = l.maybe("drained")
	at := l.s.at
	err = l.s.Join(d)
	l.s.at = at
	return l.wrap(err)
}

func (l *loader) hold() error {
	v, err := l.numbers("hold", "dkernel", "cores", "slices")
	if err != nil {
		return err
	}
	i, ok := l.s.index[v[0]]
	if !ok {
		return l.fail("process %d is not among the processes above", v[0])
	}
	p, n := &l.s.procs[i], l.s.node(uint32(v[1]))
	switch {
	case n == nil || v[1] != n.ID:
		return l.fail("dkernel %d is not among the dkernels above", v[1])
	case v[2] < 0 || v[3] < 0 || v[2] > n.Cores-n.UsedCores || v[3] > n.Slices-n.UsedSlices || v[2]+v[3] == 0:
		return l.fail("%d cores and %d slices at dkernel %d, where %d and %d are free", v[2], v[3], n.ID, n.Cores-n.UsedCores, n.Slices-n.UsedSlices)
	case p.find(n.ID) >= 0:
		return l.fail("a second entry for process %d at dkernel %d", v[0], n.ID)
	}
	l.s.take(p, uint32(n.ID), v[2], v[3])
	if len(l.words) == 0 {
		return nil
	}
	x, err := l.numbers("pinned", "", "apart")
	if err != nil {
		return err
	}
	if x[0] < 0 || x[0] > v[2] || x[1] < 0 || x[1] > v[3] || x[2] < 0 || x[2] > v[2] {
		return l.fail("more units are pinned or apart than held")
	}
	p.extra[p.find(n.ID)] = extra{[2]int64{x[0], x[1]}, x[2]}
	return nil
}

// move books a move that is under way: its source is in use besides what the process holds.
func (l *loader) move(m Move) error {
	n, to := l.s.node(m.From), l.s.node(m.To)
	i, ok := l.s.index[int64(m.Process)]
	bad := fmt.Errorf("move %d of process %d from %d to %d does not fit the rest of the state", m.ID, m.Process, m.From, m.To)
	if n == nil || to == nil || !ok || m.From == m.To || m.Cores < 0 || m.Slices < 0 || m.Cores+m.Slices == 0 || m.ID >= l.s.next ||
		m.Cores > n.Cores-n.UsedCores || m.Slices > n.Slices-n.UsedSlices {
		return bad
	}
	have, there := l.s.procs[i].at(m.To), l.s.arriving(m.Process, m.To)
	if have[0] < there[0]+m.Cores || have[1] < there[1]+m.Slices {
		return bad
	}
	for _, o := range l.s.moves {
		if o.ID == m.ID {
			return bad
		}
	}
	n.UsedCores += m.Cores
	n.UsedSlices += m.Slices
	l.s.moves = append(l.s.moves, m)
	return nil
}

// request reads a question: request ID process P cores C slices S [spread|apart] [pinned 1,2] [near 3].
func (l *loader) request() error {
	v, err := l.numbers("request", "process", "cores", "slices")
	if err != nil {
		return err
	}
	r := Request{ID: uint64(v[0]), Process: uint64(v[1]), Cores: v[2], Slices: v[3]}
	for len(l.words) > 0 {
		switch w := l.word(); w {
		case "pack":
		case "spread":
			r.Shape = Spread
		case "apart":
			r.Shape = Apart
		case "pinned", "near":
			var ids []uint32
			for _, f := range strings.Split(l.word(), ",") {
				id, err := strconv.ParseUint(f, 10, 32)
				if err != nil {
					return l.fail("expected numbers of dkernels with commas between them after %q, found %q", w, f)
				}
				ids = append(ids, uint32(id))
			}
			if w == "pinned" {
				r.Pinned = ids
			} else {
				r.Near = ids
			}
		default:
			return l.fail("unexpected %q; a request may say pack, spread, apart, pinned LIST, near LIST", w)
		}
	}
	l.requests = append(l.requests, r)
	return nil
}

// Show is the state for people: dkernels, processes, moves, policy, last round.
func (s *Scheduler) Show() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-8s %14s %16s %-12s %s\n", "dkernel", "cores", "slices", "generation", "state")
	for i := range s.nodes {
		n := &s.nodes[i]
		state := "alive"
		if !n.Alive {
			state = "dead"
		}
		if n.Drained {
			state += ", drained"
		}
		fmt.Fprintf(&b, "%-8d %6d of %4d %7d of %5d %-12d %s\n", n.ID, n.UsedCores, n.Cores, n.UsedSlices, n.Slices, n.Generation, state)
	}
	fmt.Fprintf(&b, "\n%-8s %6s %7s  %s\n", "process", "cores", "slices", "at (dkernel: cores + slices)")
	for _, id := range s.Processes() {
		p := &s.procs[s.index[int64(id)]]
		fmt.Fprintf(&b, "%-8d %6d %7d ", id, p.sum[1], p.sum[2])
		for c := p.cells; len(c) > 0; c = c[4:] {
			fmt.Fprintf(&b, " %d: %d + %d", c[1], c[2], c[3])
		}
		b.WriteByte('\n')
	}
	for _, m := range s.moves {
		fmt.Fprintf(&b, "move %d: process %d, %d cores + %d slices, from %d to %d\n", m.ID, m.Process, m.Cores, m.Slices, m.From, m.To)
	}
	if r := s.last; r.Requests > 0 {
		fmt.Fprintf(&b, "\nlast round %d: %d requests, %d refused, %v, cost %v, bound %v, %d iterations\n",
			r.Number, r.Requests, r.Refused, r.Status, r.Cost, r.Bound, r.Iterations)
	}
	b.WriteByte('\n')
	b.WriteString(s.policy.Describe())
	return b.String()
}

// ShowPolicy is the text of the policy in force, or of a shipped one by its name.
func (s *Scheduler) ShowPolicy(name string) (string, error) {
	if name == "" || name == s.policy.Name {
		return s.policy.Text, nil
	}
	return model.ShippedText(name)
}

// Set puts a policy in force and says what became of it.
func (s *Scheduler) Set(name, text string) (string, error) {
	old := s.policy.Name
	if err := s.SetPolicy(name, text); err != nil {
		return "", fmt.Errorf("%w\npolicy %s stays in force", err, old)
	}
	return fmt.Sprintf("policy %s replaces %s\n%s", name, old, s.policy.Describe()), nil
}

// Explain says where a request would go now and why, or which constraints refuse it. It changes nothing.
func (s *Scheduler) Explain(r Request) (string, error) {
	if bad := s.validate(&r); bad != nil {
		return "", bad
	}
	s.in.Items, s.ids = s.in.Items[:0], s.ids[:0]
	s.addItem(&r)
	if err := s.solve(s.budget); err != nil {
		return "", internal("Explain", err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "request %d: process %d, %d cores and %d slices, %v, under policy %s\n", r.ID, r.Process, r.Cores, r.Slices, r.Shape, s.policy.Name)
	if len(s.out.Refused) > 0 {
		if _, err := s.conflicts(); err != nil {
			return "", internal("Explain", err)
		}
		bad := s.why("Request", 0, s.sets[0])
		fmt.Fprintf(&b, "refused: %s\n", bad.Detail)
		if len(bad.Conflict) > 0 {
			fmt.Fprintf(&b, "minimal set of constraints that refuse it: %s\n", strings.Join(bad.Conflict, ", "))
			s.describe(&b, bad.Conflict)
		}
	} else {
		for _, q := range s.out.Parts {
			fmt.Fprintf(&b, "granted: %d cores and %d slices at dkernel %d\n", q.Cores, q.Slices, s.nodes[q.Node].ID)
		}
		fmt.Fprintf(&b, "%v: cost %v, bound %v\n", s.out.Status, s.out.Cost[1:], s.out.Bound[1:])
	}
	if len(s.nodes) == 0 {
		return b.String(), nil
	}
	err := s.choices(&b)
	return b.String(), err
}

// describe gives the place of constraints in their files.
func (s *Scheduler) describe(b *strings.Builder, names []string) {
	for i := range s.policy.Atoms {
		a := &s.policy.Atoms[i]
		if !slices.Contains(names, a.Name) {
			continue
		}
		file := s.policy.Name
		if a.Physical {
			file = "physical"
		}
		fmt.Fprintf(b, "  %s:%d:%d %s\n", file, a.Pos.Line, a.Pos.Col, a.Name)
	}
}

// choices tabulates what each dkernel would mean for the only item of the round.
func (s *Scheduler) choices(b *strings.Builder) error {
	cs, err := s.solver.Choices(s.policy, &s.in, 0)
	if err != nil {
		return internal("Explain", err)
	}
	fmt.Fprintf(b, "%-8s %6s %7s  %s\n", "dkernel", "cores", "slices", "all of it there")
	for _, c := range cs {
		fmt.Fprintf(b, "%-8d %6d %7d  ", s.nodes[c.Node].ID, c.Room[0], c.Room[1])
		if len(c.Blocked) > 0 {
			fmt.Fprintf(b, "blocked by %s\n", strings.Join(c.Blocked, ", "))
			continue
		}
		b.WriteString("costs")
		for i := range s.policy.Atoms {
			if a := &s.policy.Atoms[i]; !a.Hard && (i == 0 || s.policy.Atoms[i-1].Tier != a.Tier || s.policy.Atoms[i-1].Hard) {
				fmt.Fprintf(b, " %+d (tier %d)", c.Cost[a.Tier], a.Tier)
			}
		}
		b.WriteByte('\n')
	}
	return nil
}

// ExplainFile answers the request lines of a dumped state, each against the state as it is.
func ExplainFile(text string) (string, error) {
	l, err := load(text)
	if err != nil {
		return "", err
	}
	if len(l.requests) == 0 {
		return "", &ParseError{l.line, "no request to explain: add a line such as \"request 1 process 1 cores 2 slices 3 spread pinned 1,2 near 3\""}
	}
	var b strings.Builder
	for i, r := range l.requests {
		if i > 0 {
			b.WriteByte('\n')
		}
		out, err := l.s.Explain(r)
		if err != nil {
			out = fmt.Sprintf("request %d: %v\n", r.ID, err)
		}
		b.WriteString(out)
	}
	return b.String(), nil
}
