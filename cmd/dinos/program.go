package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"dinos/qemu/rack"
	"dinos/qemu/rack/control"
)

// programPath is where programs that are named without a slash are looked for, in the file system of the rack.
var programPath = []string{"/bin", "/usr/bin", "/sbin", "/usr/sbin"}

// programError is that a program did not end well: its exit status is this tool's, as a shell has it.
type programError struct{ status syscall.WaitStatus }

func (e *programError) Error() string {
	if e.status.Signaled() {
		return fmt.Sprintf("the program was ended by signal %d (%v)", e.status.Signal(), e.status.Signal())
	}
	return fmt.Sprintf("the program ended with status %d", e.status.ExitStatus())
}

// exit is the status that a shell would have.
func (e *programError) exit() int {
	if e.status.Signaled() {
		return 128 + int(e.status.Signal())
	}
	return e.status.ExitStatus()
}

func newRunCmd(ref rackRef) *cobra.Command {
	o := runOptions{ref: ref}
	cmd := &cobra.Command{
		Use:   "run PROGRAM [ARGUMENT...]",
		Short: "run a program on the rack, with its standard input and output here",
		Long: `Run runs a static Linux program and connects its standard streams with this process. If those here are a terminal, the program gets one, too.
Signals to this process are passed on. The exit status is the program's, 128 and the number of the signal that ended it, 127 if there is no such
program, 126 if it cannot be run, 125 if dinos failed.

PROGRAM with a slash is a file of this host, or if there is none, of the rack. Without one it is looked for in ` + strings.Join(programPath, ", ") + `
of the rack, then in this host's $PATH. The rack has the files of this host at /host (see 'dinos up --share'); programs start in the directory
where this process is. With --root they have a root directory of their own, and PROGRAM is in it.

If no rack is up, one is started for the program and ends with it.`,
		Example: "  dinos run ./hello\n  dinos run sh -c 'uname -a; ls /'\n  dinos run --root ./tree -w /work /bin/prog",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.program.Args = args
			err := o.run(cmd)
			if p := (*programError)(nil); err != nil && !errors.As(err, &p) {
				err = &runError{err}
			}
			return err
		},
	}
	p, fs := &o.program, cmd.Flags()
	fs.SetInterspersed(false) // what follows the program is the program's
	fs.StringVar(&p.Kernel, "kernel", "", "where (default: the scheduler decides)")
	fs.Uint16Var(&p.Cores, "cores", 0, "that it gets to begin with")
	fs.Uint32Var(&p.Slices, "slices", 0, "of memory, 2 MiB each, that it gets to begin with")
	fs.StringVarP(&p.Dir, "dir", "w", "", "its working directory (default: this one, as the rack sees it, or / with --root)")
	fs.StringArrayVarP(&p.Env, "env", "e", nil, "NAME=VALUE in its environment, or NAME for that of this process; may be repeated")
	fs.Uint32Var(&p.UID, "uid", 0, "its user")
	fs.Uint32Var(&p.GID, "gid", 0, "its group")
	fs.StringVar(&o.root, "root", "", "directory or archive (cpio) of this host whose contents, copied, are its root directory")
	fs.BoolVar(&p.Trace, "strace", false, "print its system calls, and those of its children, on the standard error output")
	fs.BoolVarP(&o.terminal, "tty", "t", false, "give it a terminal, whatever is here")
	fs.BoolVarP(&o.noTerminal, "no-tty", "T", false, "give it pipes, whatever is here")
	cmd.MarkFlagsMutuallyExclusive("tty", "no-tty")
	o.ref.bind(cmd)
	return cmd
}

// runProgram is what the prompt does with a line that is no command of its own: it runs a program. Without a terminal the program's input is empty,
// since what comes there are commands.
func runProgram(ctx context.Context, r *rack.Remote, args []string, in io.Reader, out io.Writer) error {
	p := rack.Program{Args: args, Dir: "/", Terminal: isTerminal(in) && isTerminal(out)}
	if !p.Terminal {
		in, out = strings.NewReader(""), &lockedWriter{w: out} // for output and diagnostics
	}
	files, err := filesOf(r)
	if err == nil {
		err = execute(ctx, r, files, p, in, out, out)
	}
	var e *control.Error
	if errors.As(err, &e) && (e.Code == control.CodeNotFound || e.Code == control.CodeUnsupported) {
		return fmt.Errorf("%q is no command ('help' lists them), nor a program: %w", args[0], err)
	}
	return err
}

// lockedWriter lets two goroutines write.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// execute runs a program to its end. The error is a *programError if it did not end well.
func execute(ctx context.Context, r *rack.Remote, files hostFiles, p rack.Program, in io.Reader, out, diag io.Writer) error {
	base := []string{"PATH=" + strings.Join(programPath, ":"), "HOME=/root"}
	if p.Terminal {
		base = append(base, "TERM="+cmp.Or(os.Getenv("TERM"), "dumb"))
		p.Rows, p.Columns = windowSize(out)
	}
	p.Env = environment(base, p.Env)
	run, err := start(ctx, r, files, p)
	if err != nil {
		return err
	}
	defer run.Close()
	if p.Terminal {
		defer rawTerminal(in)()
	}
	defer passSignals(run, p.Terminal, out)()
	input, stop := interruptibleReader(in)
	var sending sync.WaitGroup
	sending.Go(func() {
		io.Copy(run.Stdin, input)
		run.Stdin.CloseWrite()
	})
	var output sync.WaitGroup
	output.Go(func() { io.Copy(diag, run.Stderr) })
	_, outErr := io.Copy(out, run.Stdout)
	output.Wait()
	ended, err := run.Wait()
	// What is typed from now on is not the program's.
	if stop() {
		sending.Wait()
	}
	switch {
	case err != nil:
		return err
	case outErr != nil && !errors.Is(outErr, control.ErrClosed):
		return outErr
	case !ended.Status.Exited() || ended.Status.ExitStatus() != 0:
		return &programError{ended.Status}
	}
	return nil
}

// passSignals tells a program what this process is told, until stop is called.
func passSignals(run *rack.Run, terminal bool, out io.Writer) (stop func()) {
	ch := make(chan os.Signal, 8)
	list := []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2}
	if terminal {
		list = append(list, syscall.SIGWINCH)
	}
	signal.Notify(ch, list...)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case s := <-ch:
				if s == syscall.SIGWINCH {
					rows, columns := windowSize(out)
					run.Resize(rows, columns)
				} else {
					run.Signal(s.(syscall.Signal))
				}
			}
		}
	}()
	return func() {
		signal.Stop(ch)
		close(done)
	}
}

// interruptibleReader is a reader that can be stopped: a read from a terminal would take what is typed after the program's end. stop reports whether the
// reader takes notice; one that is no file does not, but those have nothing that somebody else wants.
func interruptibleReader(in io.Reader) (r io.Reader, stop func() bool) {
	f, ok := in.(*os.File)
	if !ok {
		return in, func() bool { return false }
	}
	rd, wr, err := os.Pipe()
	if err != nil {
		return in, func() bool { return false }
	}
	return &pollReader{f, rd}, func() bool {
		wr.Close()
		return true
	}
}

// pollReader reads f until somebody closes the other end of stop.
type pollReader struct{ f, stop *os.File }

func (p *pollReader) Read(b []byte) (int, error) {
	fds := []unix.PollFd{{Fd: int32(p.f.Fd()), Events: unix.POLLIN}, {Fd: int32(p.stop.Fd()), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return 0, os.NewSyscallError("poll", err)
		case fds[1].Revents != 0:
			p.stop.Close()
			return 0, io.EOF
		}
		return p.f.Read(b)
	}
}
