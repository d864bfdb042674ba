package compat

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Verdict is what became of a case.
type Verdict string

// The verdicts. A case whose verdict was Same and no longer is has regressed.
const (
	Same        Verdict = "same"
	Differs     Verdict = "differs"      // other output or exit status than on Linux
	Failed      Verdict = "failed"       // it did not come to its end
	Unstable    Verdict = "unstable"     // two runs on Linux differ: the case is no good
	Unavailable Verdict = "unavailable"  // the program could not be had
	LinuxFailed Verdict = "linux failed" // Linux could not run it
	NotRun      Verdict = "not run"      // there is nothing to compare with Linux yet
)

// Result is one case's.
type Result struct {
	Program, Tier, Case string
	Verdict             Verdict
	Detail              string
}

// ID names the case.
func (r *Result) ID() string { return r.Program + "/" + r.Case }

// Suite runs cases.
type Suite struct {
	Builder *Builder
	Linux   Runner
	Other   Runner // compared with Linux; nil: only Linux runs
	// Repeat runs each case a second time on Linux first, to see whether it can be compared at all.
	Repeat bool
	// Show logs what is compared of each case, as Linux has it.
	Show    bool
	Scratch string // an empty directory
	Log     func(format string, args ...any)
}

// Run runs the cases of programs that only selects, by "program/case"; nil selects all. An error is the context's.
func (s *Suite) Run(ctx context.Context, programs []*Program, only func(id string) bool) ([]Result, error) {
	busybox := ""
	if i := slices.IndexFunc(programs, func(p *Program) bool { return p.Name == "busybox" }); i >= 0 {
		var err error
		if busybox, err = s.Builder.Get(ctx, programs[i]); err != nil {
			s.Log("busybox, which many cases use: %v", err)
		}
	}
	var out []Result
	for _, p := range programs {
		cases := slices.DeleteFunc(slices.Clone(p.Cases), func(c Case) bool { return only != nil && !only(p.Name+"/"+c.Name) })
		if len(cases) == 0 {
			continue
		}
		exe, err := s.Builder.Get(ctx, p)
		if err != nil {
			s.Log("%v", err)
		}
		for i := range cases {
			r := Result{Program: p.Name, Tier: p.Tier, Case: cases[i].Name}
			if err != nil {
				r.Verdict = Unavailable
			} else {
				s.runCase(ctx, p, &cases[i], exe, busybox, &r)
			}
			s.Log("%-12s %s %s", r.Verdict, r.ID(), r.Detail)
			out = append(out, r)
			if ctx.Err() != nil {
				return out, ctx.Err()
			}
		}
	}
	return out, nil
}

// once runs a case in a fresh tree.
func (s *Suite) once(ctx context.Context, on Runner, p *Program, c *Case, exe, busybox string) (string, error) {
	root, err := os.MkdirTemp(s.Scratch, "root-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(root)
	if err := Tree(root, p, exe, busybox); err != nil {
		return "", err
	}
	o, err := on.Run(ctx, p.command(root, c))
	if err != nil {
		return "", err
	}
	return c.view(o), nil
}

func (s *Suite) runCase(ctx context.Context, p *Program, c *Case, exe, busybox string, r *Result) {
	want, err := s.once(ctx, s.Linux, p, c, exe, busybox)
	if err != nil {
		r.Verdict, r.Detail = LinuxFailed, err.Error()
		return
	}
	if s.Show {
		s.Log("=== %s\n%s", r.ID(), want)
	}
	if s.Repeat {
		again, err := s.once(ctx, s.Linux, p, c, exe, busybox)
		if err != nil || again != want {
			r.Verdict, r.Detail = Unstable, difference(want, again)
			return
		}
	}
	if s.Other == nil {
		r.Verdict = NotRun
		return
	}
	got, err := s.once(ctx, s.Other, p, c, exe, busybox)
	switch {
	case err != nil:
		r.Verdict, r.Detail = Failed, err.Error()
	case got != want:
		r.Verdict, r.Detail = Differs, difference(want, got)
	default:
		r.Verdict = Same
	}
}

// Report is the file of results: a table of programs, then every case that has a verdict.
func Report(results []Result, other string) string {
	type row struct {
		tier, name        string
		cases, same, bad  int
		notRun, elsewhere int
	}
	var rows []*row
	for _, r := range results {
		i := slices.IndexFunc(rows, func(x *row) bool { return x.name == r.Program })
		if i < 0 {
			rows = append(rows, &row{tier: r.Tier, name: r.Program})
			i = len(rows) - 1
		}
		rows[i].cases++
		switch r.Verdict {
		case Same:
			rows[i].same++
		case NotRun:
			rows[i].notRun++
		case Unavailable, LinuxFailed, Unstable:
			rows[i].elsewhere++
		default:
			rows[i].bad++
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Programs on %s and on Linux\n\nWritten by `make compat`. A case is the same if output and exit status are those of Linux.\n\n", other)
	b.WriteString("| tier | program | cases | same | different or failed | not run | no reference |\n|---|---|---|---|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %d | %d | %d |\n", r.tier, r.name, r.cases, r.same, r.bad, r.notRun, r.elsewhere)
	}
	b.WriteString("\n```\n")
	for _, r := range results {
		fmt.Fprintf(&b, "%-12s %s\n", r.Verdict, r.ID())
	}
	b.WriteString("```\n")
	return b.String()
}

// ReadReport returns the verdicts of a file that Report wrote. A file that is not there has none.
func ReadReport(file string) (map[string]Verdict, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	_, list, ok := strings.Cut(string(data), "\n```\n")
	if !ok {
		return nil, fmt.Errorf("compat: %s has no list of cases between ``` lines", filepath.Base(file))
	}
	list, _, _ = strings.Cut(list, "```")
	out := map[string]Verdict{}
	for line := range strings.Lines(list) {
		if len(line) < 14 {
			return nil, fmt.Errorf("compat: %s: no verdict and case in %q", filepath.Base(file), line)
		}
		out[strings.TrimSpace(line[13:])] = Verdict(strings.TrimSpace(line[:12]))
	}
	return out, nil
}

// Regressions lists the cases that were the same before and are not now. A case that was not run is none.
func Regressions(before map[string]Verdict, now []Result) []Result {
	var out []Result
	for _, r := range now {
		if before[r.ID()] == Same && r.Verdict != Same && r.Verdict != NotRun {
			out = append(out, r)
		}
	}
	return out
}

// Merge puts the results of a part of the cases into those of all: cases that were not run keep what was found before.
func Merge(before map[string]Verdict, programs []*Program, now []Result) []Result {
	var out []Result
	for _, p := range programs {
		for _, c := range p.Cases {
			r := Result{Program: p.Name, Tier: p.Tier, Case: c.Name, Verdict: NotRun}
			i := slices.IndexFunc(now, func(x Result) bool { return x.ID() == r.ID() })
			switch old, known := before[r.ID()]; {
			case i >= 0 && now[i].Verdict != NotRun:
				r = now[i]
			case known && (old == Same || old == Differs || old == Failed):
				r.Verdict = old
			}
			out = append(out, r)
		}
	}
	return out
}
