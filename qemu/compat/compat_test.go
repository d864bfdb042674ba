package compat

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/dkernel/loader/elftest"
	"dinos/kernel/linux"
)

// TestPrograms: the descriptions are well-formed, and name sources that are there.
func TestPrograms(t *testing.T) {
	list, err := Programs()
	require.NoError(t, err)
	seen := map[string]bool{}
	for _, p := range list {
		require.False(t, seen[p.Name], p.Name)
		seen[p.Name] = true
		require.Contains(t, []string{"T1", "T2"}, p.Tier, p.Name)
		_, err := p.key()
		require.NoError(t, err, p.Name)
		require.Equal(t, p.Kind == kindSource, p.Build != "", "%s: build belongs to src", p.Name)
	}
	for _, name := range []string{"busybox", "bash", "zsh", "mksh-musl", "sash", "lua", "sqlite3", "xz", "zstd", "e2fsck", "gpgv", "dar", "tini",
		"hello-glibc", "hello-musl", "hello-glibc-pie", "hello-musl-pie", "threads-glibc", "threads-musl", "gc", "gotest-runtime", "stress-ng"} {
		require.True(t, seen[name], name)
	}
}

func TestParse(t *testing.T) {
	p, err := Parse("p", "# comment\ntier T1\ndeb pkg bin/x  # where\nas q\n\n== one\n@ timeout 5s\n@ env A=b c\n@ dir /tmp\n@ sort\n"+
		"$ q 'a b' \"c d\"e \\f ''\nin 1\n\n# in 2\n\n\n== two\n@ status\n$ q\n")
	require.NoError(t, err)
	require.Equal(t, &Program{Name: "p", Tier: "T1", As: "q", Kind: kindDeb, Args: []string{"pkg", "bin/x"}, Cases: []Case{
		{Name: "one", Args: []string{"q", "a b", "c de", "f", ""}, Env: []string{"A=b c"}, Dir: "/tmp", Stdin: "in 1\n\n# in 2\n", Timeout: 5 * time.Second, Sort: true},
		{Name: "two", Args: []string{"q"}, Dir: "/work", Timeout: defaultTimeout, Status: true},
	}}, p)
	const head = "tier T1\ndeb a b\n"
	for text, want := range map[string]string{
		"":                                 "are needed",
		"tier T1\n== x\n$ y":               "a source",
		"deb a b\n== x\n$ y":               "a tier",
		head:                               "at least one case",
		head + "== x\n":                    `p.txt:4: case "x" has no command line`,
		head + "== x\n== y\n$ z":           `p.txt:4: case "x" has no command line`,
		head + "== x\n$ y\n== x\n$ y":      `p.txt:5: a second case "x"`,
		head + "src c\n":                   "p.txt:3: a second source",
		"deb a\n":                          "deb takes 2 to 2 words, not 1",
		"nonsense\n":                       `unknown line "nonsense"`,
		head + "== x\n@ loud\n$ y":         `unknown option "loud"`,
		head + "== x\n@ timeout soon\n$ y": "invalid duration",
		head + "== x\n@ env A\n$ y":        "env wants NAME=VALUE",
		head + "== x\n@ dir a\n$ y":        "dir wants an absolute path",
		head + "== x\nrun y\n":             "neither an option",
		head + "== x\n$ y 'z\n":            "a ' without its end",
		head + "== x\n$  \n":               "an empty command line",
	} {
		_, err := Parse("p", text)
		require.ErrorContains(t, err, want, "%q", text)
	}
}

func TestView(t *testing.T) {
	o := Outcome{Stdout: "b\na\n", Stderr: "e\n", Status: 3}
	require.Equal(t, "b\na\n--- stderr\ne\n--- status 3\n", (&Case{}).view(o))
	require.Equal(t, "a\nb\n--- stderr\ne\n--- status 3\n", (&Case{Sort: true}).view(o))
	require.Equal(t, "status 3\n", (&Case{Status: true}).view(o))
	o.Stdout = "=== RUN TestB\n--- PASS: TestB (0.01s)\nnoise\n    --- FAIL: TestA/x (1.00s)\nFAIL\n"
	require.Equal(t, "--- FAIL: TestA/x\n--- PASS: TestB\nstatus 3\n", (&Case{GoTest: true}).view(o))
	require.Equal(t, `line 2: Linux "b", here "c"`, difference("a\nb\n", "a\nc\n"))
	require.Equal(t, `line 2: Linux "b", here "(end)"`, difference("a\nb", "a"))
	require.Empty(t, difference("a", "a"))
}

// fixed answers by command line.
type fixed map[string]any

func (fixed) Name() string { return "fixed" }

func (f fixed) Run(_ context.Context, c *Command) (Outcome, error) {
	switch v := f[strings.TrimPrefix(strings.Join(c.Args, " "), "/bin/")].(type) {
	case error:
		return Outcome{}, v
	case string:
		return Outcome{Stdout: v}, nil
	case *int:
		*v++
		return Outcome{Status: *v}, nil
	}
	return Outcome{}, fmt.Errorf("unexpected %q", c.Args)
}

// cached is a Builder that already has a program.
func cached(t *testing.T, p *Program, exe []byte) *Builder {
	b := &Builder{Dir: t.TempDir(), Log: t.Logf}
	key, err := p.key()
	require.NoError(t, err)
	path := filepath.Join(b.Dir, "programs", fmt.Sprintf("%s-%x", p.Name, key[:6]))
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, exe, 0o755))
	return b
}

func TestSuite(t *testing.T) {
	p, err := Parse("p", "tier T1\ndeb a b\n== same\n$ p 1\n== differs\n$ p 2\n== fails\n$ p 3\n== no reference\n$ p 4\n== unstable\n$ p 5\n== left out\n$ p 6\n")
	require.NoError(t, err)
	s := Suite{Builder: cached(t, p, nil), Repeat: true, Scratch: t.TempDir(), Log: t.Logf,
		Linux: fixed{"p 1": "x", "p 2": "x", "p 3": "x", "p 4": errors.New("no"), "p 5": new(int)},
		Other: fixed{"p 1": "x", "p 2": "y", "p 3": errors.New("hangs"), "p 4": "x"}}
	got, err := s.Run(context.Background(), []*Program{p}, func(id string) bool { return id != "p/left out" })
	require.NoError(t, err)
	verdicts := map[string]Verdict{}
	for _, r := range got {
		verdicts[r.ID()] = r.Verdict
	}
	want := map[string]Verdict{"p/same": Same, "p/differs": Differs, "p/fails": Failed, "p/no reference": LinuxFailed, "p/unstable": Unstable}
	require.Equal(t, want, verdicts)
	left, err := os.ReadDir(s.Scratch)
	require.NoError(t, err)
	require.Empty(t, left)

	file := filepath.Join(t.TempDir(), "RESULTS.md")
	before, err := ReadReport(file)
	require.NoError(t, err)
	require.Empty(t, before)
	all := Merge(map[string]Verdict{"p/left out": Same, "p/gone": Same}, []*Program{p}, got)
	text := Report(all, "dinos")
	require.Contains(t, text, "| T1 | p | 6 | 2 | 2 | 0 | 2 |\n")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	before, err = ReadReport(file)
	require.NoError(t, err)
	want["p/left out"] = Same
	require.Equal(t, want, before)

	require.Empty(t, Regressions(before, got))
	for _, v := range []Verdict{Differs, Failed, Unavailable, LinuxFailed, Unstable} {
		lost := Regressions(before, []Result{{Program: "p", Case: "same", Verdict: v}, {Program: "p", Case: "differs", Verdict: v}})
		require.Len(t, lost, 1)
		require.Equal(t, "p/same", lost[0].ID())
	}
	require.Empty(t, Regressions(before, []Result{{Program: "p", Case: "same", Verdict: NotRun}}))
	require.NoError(t, os.WriteFile(file, []byte("nothing"), 0o644))
	_, err = ReadReport(file)
	require.ErrorContains(t, err, "no list of cases")

	s.Other = nil
	got, err = s.Run(context.Background(), []*Program{p}, func(id string) bool { return id == "p/same" })
	require.NoError(t, err)
	require.Equal(t, NotRun, got[0].Verdict)
}

// TestLinux runs small programs in a tree of their own.
func TestLinux(t *testing.T) {
	exe, err := elftest.Args(linux.ET_DYN)
	require.NoError(t, err)
	p, err := Parse("p", "tier T1\ndeb a b\n== x\n$ p one ''\n")
	require.NoError(t, err)
	b := cached(t, p, exe)
	path, err := b.Get(context.Background(), p)
	require.NoError(t, err)
	root := t.TempDir()
	require.NoError(t, Tree(root, p, path, ""))
	cmd := p.command(root, &p.Cases[0])
	o, err := Linux{}.Run(context.Background(), cmd)
	if errors.Is(err, os.ErrPermission) {
		t.Skip(err)
	}
	require.NoError(t, err)
	require.Equal(t, Outcome{Stdout: "/bin/p\x00one\x00\x00", Status: 3}, o)

	spin, err := elftest.Spin(linux.ET_EXEC, 0, 0)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(root, "bin", "p"), spin, 0o755))
	cmd.Timeout = 100 * time.Millisecond
	_, err = Linux{}.Run(context.Background(), cmd)
	require.ErrorContains(t, err, "not at its end after 100ms")

	fault, err := elftest.Fault(linux.ET_EXEC, "ud2", 0x0f, 0x0b)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(root, "bin", "p"), fault, 0o755))
	cmd.Timeout = time.Minute
	o, err = Linux{}.Run(context.Background(), cmd)
	require.NoError(t, err)
	require.Equal(t, 128+4, o.Status)

	cmd.Path = "/bin/nothing"
	_, err = Linux{}.Run(context.Background(), cmd)
	require.ErrorIs(t, err, os.ErrNotExist)
	dev, err := os.ReadDir(filepath.Join(root, "dev"))
	require.NoError(t, err)
	require.Empty(t, dev, "what was mounted is gone")
}

// TestDinos drives a script in place of dinos.
func TestDinos(t *testing.T) {
	script := filepath.Join(t.TempDir(), "dinos")
	write := func(text string) Dinos {
		require.NoError(t, os.WriteFile(script, []byte("#!/bin/sh\n"+text), 0o755))
		return Dinos{script}
	}
	ctx := context.Background()
	require.False(t, write("exit 1").Available(ctx))
	d := write(`[ "$2" = --help ] && exit 0; echo "$@"; cat; echo err >&2; exit 5`)
	require.True(t, d.Available(ctx))
	c := &Command{Root: "/r", Path: "/bin/p", Args: []string{"p", "-x", "y z"}, Env: []string{"A=1"}, Dir: "/work", Stdin: "in\n", Timeout: time.Second}
	o, err := d.Run(ctx, c)
	require.NoError(t, err)
	require.Equal(t, Outcome{Stdout: "run --root /r -w /work -e A=1 -- /bin/p -x y z\nin\n", Stderr: "err\n", Status: 5}, o)
	_, err = write("echo no rack >&2; exit 125").Run(ctx, c)
	require.ErrorContains(t, err, "no rack")
	_, err = Dinos{script + "x"}.Run(ctx, c)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.False(t, Dinos{script + "x"}.Available(ctx))
}
