package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dinos/qemu/rack/statedir"
)

// followPoll is how often a followed log is looked at.
const followPoll = 50 * time.Millisecond

func newLogCmd(ref rackRef) *cobra.Command {
	var follow bool
	lines := 50
	cmd := &cobra.Command{
		Use:   "log [KERNEL...]",
		Short: "the consoles of kernels, of all if none is named; also of a dead rack",
		Long: `Log prints the last lines of the consoles of the named kernels, or of all kernels, each line behind its kernel's name. "launcher" is what the
rack's background process has to say, "events" what happened to the rack.`,
		ValidArgsFunction: func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return kernelNames(cmd, &ref)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible(cmd)
			defer stop()
			base, name, err := ref.resolve()
			if err != nil {
				return err
			}
			if lines < 0 {
				return fmt.Errorf("%d lines, want 0 (all) or more", lines)
			}
			return showLogs(ctx, cmd.OutOrStdout(), statedir.Path(base, name), name, args, lines, follow)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what comes from now on")
	cmd.Flags().IntVarP(&lines, "lines", "n", lines, "of each log; 0 for all")
	ref.bind(cmd)
	return cmd
}

// logTail is a log that is being printed.
type logTail struct {
	path, prefix string
	f            *os.File
	rest         []byte // a line that has not ended
}

const logSuffix = ".log"

// kernelLogs are the logs in a rack's directory that are consoles.
func kernelLogs(dir string) ([]string, error) {
	all, err := filepath.Glob(filepath.Join(dir, "*"+logSuffix))
	var names []string
	for _, path := range all {
		name := strings.TrimSuffix(filepath.Base(path), logSuffix)
		if strings.HasSuffix(name, "kernel") || strings.HasPrefix(name, "dkernel") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, err
}

func showLogs(ctx context.Context, out io.Writer, dir, rack string, names []string, lines int, follow bool) error {
	have, err := kernelLogs(dir)
	if err != nil {
		return err
	}
	all := len(names) == 0
	if all {
		names = have
	}
	if _, err := os.Stat(dir); err != nil {
		return fmt.Errorf("%w: %q", statedir.ErrNone, rack)
	}
	var tails []*logTail
	for _, name := range names {
		t := &logTail{path: filepath.Join(dir, name+logSuffix)}
		if len(names) > 1 || all {
			t.prefix = name + ": "
		}
		if !slices.Contains(have, name) && name != "launcher" && name != "events" {
			return fmt.Errorf("no log of %q; there are %s, launcher, events", name, strings.Join(have, ", "))
		}
		if err := t.start(out, lines); err != nil {
			return err
		}
		defer t.close()
		tails = append(tails, t)
	}
	for follow {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followPoll):
		}
		if all { // a kernel may have been added
			now, _ := kernelLogs(dir)
			for _, name := range now {
				if !slices.Contains(names, name) {
					names = append(names, name)
					t := &logTail{path: filepath.Join(dir, name+logSuffix), prefix: name + ": "}
					defer t.close()
					tails = append(tails, t)
				}
			}
		}
		for _, t := range tails {
			if err := t.more(out); err != nil {
				return err
			}
		}
		if _, err := os.Stat(dir); err != nil {
			return nil // the rack has ended
		}
	}
	return nil
}

// start prints the last lines of a log.
func (t *logTail) start(out io.Writer, lines int) error {
	b, err := os.ReadFile(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it has said nothing yet
	}
	if err != nil {
		return err
	}
	if t.f, err = os.Open(t.path); err != nil {
		return err
	}
	if _, err := t.f.Seek(int64(len(b)), io.SeekStart); err != nil {
		return err
	}
	if end := len(bytes.TrimRight(b, "\n")); lines > 0 {
		for n := 0; end > 0; end-- {
			if b[end-1] == '\n' {
				if n++; n == lines {
					break
				}
			}
		}
		b = b[end:]
	}
	return t.print(out, b, true)
}

// more prints what has come since the last look.
func (t *logTail) more(out io.Writer) error {
	if t.f == nil {
		f, err := os.Open(t.path)
		if err != nil {
			return nil // not there yet
		}
		t.f = f
	}
	b, err := io.ReadAll(t.f)
	if err != nil {
		return err
	}
	if err := t.print(out, b, false); err != nil {
		return err
	}
	// When the log was full, it has got another name, and a new one goes on.
	a, err := t.f.Stat()
	if err != nil {
		return err
	}
	if now, err := os.Stat(t.path); err == nil && !os.SameFile(a, now) {
		t.close()
	}
	return nil
}

// print writes whole lines; the rest waits for its end unless all is asked for.
func (t *logTail) print(out io.Writer, b []byte, all bool) error {
	t.rest = append(t.rest, b...)
	for len(t.rest) > 0 {
		line, rest, whole := bytes.Cut(t.rest, []byte{'\n'})
		if !whole && !all {
			return nil
		}
		if _, err := fmt.Fprintf(out, "%s%s\n", t.prefix, bytes.TrimRight(line, "\r")); err != nil {
			return err
		}
		t.rest = rest
	}
	t.rest = nil
	return nil
}

func (t *logTail) close() {
	if t.f != nil {
		t.f.Close()
		t.f = nil
	}
}
