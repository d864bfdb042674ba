// Package compat runs real static programs on Linux and on dinos and compares what they print and how they end.
//
// A program is a file programs/NAME.txt: where it comes from, then its cases. Each case is a command line, with its standard input:
//
//	tier T1
//	deb busybox-static bin/busybox         # a file of a Debian package
//	src lua5.4                             # or: built from the source of a Debian package …
//	build make -C src all && cp src/lua $OUT  # … by shell commands, in its directory
//	c hello.c musl pie                     # or: built from testdata/hello.c; glibc or musl, pie or not
//	go gc.go                               # or: built from testdata/gc.go without cgo
//	gotest sync                            # or: the tests of a package of Go's standard library
//	as sh2                                 # its name in /bin; else NAME
//
//	== a name
//	@ timeout 60s                          # more options: env K=V, dir /, sort, status, gotest
//	$ busybox sh -c 'echo hi'
//	what follows is its input
//
// Options: sort compares lines in any order, status only the exit status, gotest which tests passed.
//
// Programs run as root in a directory tree of their own: /bin has the program and busybox, under the names of its applets; /work,
// where they start, is empty and writable; there are /tmp, /dev and /proc.
package compat

import (
	"embed"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

// Kinds of sources.
const (
	kindDeb    = "deb"
	kindSource = "src"
	kindC      = "c"
	kindGo     = "go"
	kindGoTest = "gotest"
)

// Program is a program and its cases.
type Program struct {
	Name, Tier string
	As         string // its name in /bin
	Kind       string
	Args       []string // of Kind
	Build      string
	Cases      []Case
}

// Case is one run.
type Case struct {
	Name    string
	Args    []string // Args[0] is the program's name
	Env     []string
	Dir     string
	Stdin   string
	Timeout time.Duration
	Sort    bool // lines may come in any order
	Status  bool // only the exit status counts
	GoTest  bool // only the results of Go tests count
}

const defaultTimeout = 30 * time.Second

//go:embed programs testdata
var files embed.FS

// Programs returns all programs, in order of tier and name.
func Programs() ([]*Program, error) {
	entries, err := files.ReadDir("programs")
	if err != nil {
		return nil, err
	}
	var out []*Program
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".txt")
		if !ok {
			continue
		}
		text, err := files.ReadFile(path.Join("programs", e.Name()))
		if err != nil {
			return nil, err
		}
		p, err := Parse(name, string(text))
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *Program) int { return strings.Compare(a.Tier+" "+a.Name, b.Tier+" "+b.Name) })
	return out, nil
}

// Parse reads the description of a program.
func Parse(name, text string) (*Program, error) {
	p := &Program{Name: name, As: name}
	var c *Case
	var stdin []string
	begun := false // the case's command line has been read
	end := func(n int) error {
		if c == nil {
			return nil
		}
		if !begun {
			return fmt.Errorf("programs/%s.txt:%d: case %q has no command line ($ …)", name, n, c.Name)
		}
		for len(stdin) > 0 && stdin[len(stdin)-1] == "" {
			stdin = stdin[:len(stdin)-1]
		}
		if len(stdin) > 0 {
			c.Stdin = strings.Join(stdin, "\n") + "\n"
		}
		p.Cases = append(p.Cases, *c)
		stdin, begun = nil, false
		return nil
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		var err error
		title, isTitle := strings.CutPrefix(line, "== ")
		switch {
		case isTitle:
			err = end(i + 1)
			c = &Case{Name: title, Timeout: defaultTimeout, Dir: "/work"}
			if slices.ContainsFunc(p.Cases, func(o Case) bool { return o.Name == title }) {
				err = fmt.Errorf("a second case %q", title)
			}
		case begun:
			stdin = append(stdin, line)
		case strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#"):
		case c == nil:
			err = p.directive(line)
		case strings.HasPrefix(line, "@ "):
			err = c.option(line[2:])
		case strings.HasPrefix(line, "$ "):
			c.Args, err = words(line[2:])
			begun = true
		default:
			err = fmt.Errorf("neither an option (@ …) nor a command line ($ …): %q", line)
		}
		if err != nil {
			return nil, fmt.Errorf("programs/%s.txt:%d: %w", name, i+1, err)
		}
	}
	if err := end(len(lines)); err != nil {
		return nil, err
	}
	if p.Kind == "" || p.Tier == "" || len(p.Cases) == 0 {
		return nil, fmt.Errorf("programs/%s.txt: a tier, a source (deb, src, c, go, gotest) and at least one case (== …) are needed", name)
	}
	return p, nil
}

// directive reads a line in front of the cases.
func (p *Program) directive(line string) error {
	line, _, _ = strings.Cut(line, " #")
	f := strings.Fields(line)
	want := map[string][2]int{"tier": {1, 1}, "as": {1, 1}, kindDeb: {2, 2}, kindSource: {1, 1}, kindC: {2, 3}, kindGo: {1, 1}, kindGoTest: {1, 1}}
	if f[0] == "build" {
		p.Build += strings.TrimSpace(strings.TrimPrefix(line, "build")) + "\n"
		return nil
	}
	n, known := want[f[0]]
	if !known {
		return fmt.Errorf("unknown line %q", f[0])
	}
	if len(f)-1 < n[0] || len(f)-1 > n[1] {
		return fmt.Errorf("%s takes %d to %d words, not %d", f[0], n[0], n[1], len(f)-1)
	}
	switch f[0] {
	case "tier":
		p.Tier = f[1]
	case "as":
		p.As = f[1]
	default:
		if p.Kind != "" {
			return fmt.Errorf("a second source: %s", line)
		}
		p.Kind, p.Args = f[0], f[1:]
	}
	return nil
}

// option reads an option of a case.
func (c *Case) option(text string) error {
	name, value, _ := strings.Cut(text, " ")
	switch name {
	case "timeout":
		d, err := time.ParseDuration(value)
		if err != nil {
			return err
		}
		c.Timeout = d
	case "env":
		if !strings.Contains(value, "=") {
			return fmt.Errorf("env wants NAME=VALUE, not %q", value)
		}
		c.Env = append(c.Env, value)
	case "dir":
		if !path.IsAbs(value) {
			return fmt.Errorf("dir wants an absolute path, not %q", value)
		}
		c.Dir = value
	case "sort":
		c.Sort = true
	case "status":
		c.Status = true
	case "gotest":
		c.GoTest = true
	default:
		return fmt.Errorf("unknown option %q", name)
	}
	return nil
}

// words splits a command line as a shell does: blanks separate, '…' and "…" hold together, \ takes the next character as it is
// (not in '…').
func words(line string) ([]string, error) {
	var out []string
	var cur strings.Builder
	in, quote := false, byte(0)
	for i := 0; i < len(line); i++ {
		ch := line[i]
		switch {
		case ch == quote:
			quote = 0
		case quote == 0 && (ch == '\'' || ch == '"'):
			quote, in = ch, true
		case ch == '\\' && quote != '\'' && i+1 < len(line):
			i++
			cur.WriteByte(line[i])
			in = true
		case quote == 0 && (ch == ' ' || ch == '\t'):
			if in {
				out = append(out, cur.String())
				cur.Reset()
			}
			in = false
		default:
			cur.WriteByte(ch)
			in = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("a %c without its end", quote)
	}
	if in {
		out = append(out, cur.String())
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("an empty command line")
	}
	return out, nil
}
