// Command mutate breaks node replication on purpose, one small edit at a time, and demands that the tests notice each.
//
//	go run ./nr/nrtest/mutate [-run regexp] [-v]
//
// Run it in the root of the module. The edits reach the compiler by -overlay; no file of the tree is touched.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

// limit is the longest a mutant may keep the tests busy. One that hangs is noticed, too, but the tests have limits of their own.
const limit = 10 * time.Minute

func run(args []string, w io.Writer) error {
	fs := flag.NewFlagSet("mutate", flag.ContinueOnError)
	pick := fs.String("run", "", "only mutants whose name matches")
	verbose := fs.Bool("v", false, "print what the tests say")
	if err := fs.Parse(args); err != nil {
		return err
	}
	re, err := regexp.Compile(*pick)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "nr-mutate")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	// The tests must pass unbroken, or their failing proves nothing.
	if out, err := test(""); err != nil {
		return fmt.Errorf("the tests fail without a mutation: %w\n%s", err, out)
	}
	fmt.Fprintf(w, "%-32s ok\n", "(unbroken)")
	var missed []string
	for _, m := range mutants {
		if !re.MatchString(m.name) {
			continue
		}
		overlay, err := m.overlay(dir)
		if err != nil {
			return err
		}
		if out, err := exec.Command("go", "build", "-overlay", overlay, "./nr/...").CombinedOutput(); err != nil {
			return fmt.Errorf("mutant %q does not compile: %w\n%s", m.name, err, out)
		}
		start := time.Now()
		out, err := test(overlay)
		verdict := "caught"
		if err == nil {
			verdict = "MISSED"
			missed = append(missed, m.name)
		}
		fmt.Fprintf(w, "%-32s %s in %.1fs: %s\n", m.name, verdict, time.Since(start).Seconds(), firstFailure(out))
		if *verbose {
			fmt.Fprintf(w, "%s\n", out)
		}
	}
	if len(missed) > 0 {
		return fmt.Errorf("%d mutants were not noticed: %s", len(missed), strings.Join(missed, ", "))
	}
	return nil
}

func test(overlay string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	args := []string{"test", "-count=1", "-failfast", "-run", "TestExplore|TestRandomHistories|TestEvicted", "-timeout", limit.String()}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	return exec.CommandContext(ctx, "go", append(args, "./nr/nrtest")...).CombinedOutput()
}

// overlay writes the edited files and the -overlay file that puts them in place.
func (m mutant) overlay(dir string) (string, error) {
	replace := map[string]string{}
	for i, e := range m.edits {
		file, err := filepath.Abs(filepath.FromSlash(e.file))
		if err != nil {
			return "", err
		}
		from := file
		if r, ok := replace[file]; ok {
			from = r
		}
		src, err := os.ReadFile(from)
		if err != nil {
			return "", err
		}
		if n := bytes.Count(src, []byte(e.old)); n != 1 {
			return "", fmt.Errorf("mutant %q: %s has %d places that read %q, want 1: bring the mutant up to date", m.name, e.file, n, e.old)
		}
		to := filepath.Join(dir, fmt.Sprintf("%s-%d.go", strings.ReplaceAll(m.name, " ", "-"), i))
		if err := os.WriteFile(to, bytes.Replace(src, []byte(e.old), []byte(e.new), 1), 0o600); err != nil {
			return "", err
		}
		replace[file] = to
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, b, 0o600)
}

// firstFailure is the line of go test's output that says what was noticed.
func firstFailure(out []byte) string {
	for line := range strings.SplitSeq(string(out), "\n") {
		line = strings.TrimSpace(line)
		for _, mark := range []string{"seed ", "schedule ", "panic: ", "Error: "} {
			if i := strings.Index(line, mark); i >= 0 {
				return fmt.Sprintf("%.150s", line[i:])
			}
		}
	}
	return ""
}
