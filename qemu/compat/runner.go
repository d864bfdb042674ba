package compat

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Command is a program to run in a directory tree.
type Command struct {
	Root    string // the tree on the host; "/" of the program
	Path    string // in the tree
	Args    []string
	Env     []string
	Dir     string // in the tree
	Stdin   string
	Timeout time.Duration
}

// Outcome is how a program ended.
type Outcome struct {
	Stdout, Stderr string
	Status         int // exit status, or 128 and the number of the signal
}

// Runner runs programs on a system. An error is the runner's own: the program was not run, or not to its end.
type Runner interface {
	Name() string
	Run(ctx context.Context, c *Command) (Outcome, error)
}

// result is a line of a Go test's output.
var result = regexp.MustCompile(`^\s*--- (PASS|FAIL|SKIP): \S+`)

// view is what of an outcome is compared.
func (c *Case) view(o Outcome) string {
	switch {
	case c.Status:
		return fmt.Sprintf("status %d\n", o.Status)
	case c.GoTest:
		var lines []string
		for line := range strings.Lines(o.Stdout) {
			if m := result.FindString(line); m != "" {
				lines = append(lines, strings.TrimSpace(m))
			}
		}
		slices.Sort(lines)
		return fmt.Sprintf("%s\nstatus %d\n", strings.Join(lines, "\n"), o.Status)
	}
	out, errs := o.Stdout, o.Stderr
	if c.Sort {
		out, errs = sorted(out), sorted(errs)
	}
	return fmt.Sprintf("%s--- stderr\n%s--- status %d\n", out, errs, o.Status)
}

func sorted(s string) string {
	lines := strings.SplitAfter(s, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// difference shows the first lines where two views part.
func difference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		a, b := "(end)", "(end)"
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			b = g[i]
		}
		if a != b {
			return fmt.Sprintf("line %d: Linux %q, here %q", i+1, clip(a), clip(b))
		}
	}
	return ""
}

func clip(s string) string {
	if len(s) > 120 {
		return s[:120] + "…"
	}
	return s
}

// command is the Command for a case. The program's name is its path: that is what all runners can give it.
func (p *Program) command(root string, c *Case) *Command {
	env := append([]string{"PATH=/bin", "HOME=/root", "LC_ALL=C", "TERM=dumb", "TZ=UTC"}, c.Env...)
	args := slices.Clone(c.Args)
	args[0] = "/bin/" + args[0]
	return &Command{Root: root, Path: args[0], Args: args, Env: env, Dir: c.Dir, Stdin: c.Stdin, Timeout: c.Timeout}
}
