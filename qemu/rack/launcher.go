package rack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"dinos/qemu/rack/control"
	"dinos/qemu/rack/statedir"
	"dinos/qemu/vm"
)

// launcherFile is the launcher's end of the socket to who starts it: the first of exec.Cmd.ExtraFiles.
const launcherFile = 3

// report is what a launcher says while it starts: events, and at last that it is up or why not.
type report struct {
	Event *Event         `json:"event,omitempty"`
	Up    bool           `json:"up,omitempty"`
	Error *control.Error `json:"error,omitempty"`
}

func socketPath(base, name string) string {
	return filepath.Join(statedir.Path(base, name), statedir.ControlName)
}

// Spawn starts a launcher, which is the program exe with the arguments args and must call Launch, in a session of its own, and returns when its
// rack is up. When ctx is done before, the launcher gives up and leaves nothing. Errors are those of Start, as *control.Error.
func Spawn(ctx context.Context, exe string, args []string, cfg Config, progress Progress) (*Remote, error) {
	full, err := cfg.withDefaults() // what cannot be is told by this process already
	if err != nil {
		return nil, coded(err)
	}
	cfg.Name, cfg.Base = full.Name, full.Base
	// The launcher has another working directory.
	for _, path := range []*string{&cfg.Ckernel, &cfg.Dkernel, &cfg.Initrd, &cfg.Share} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return nil, err
		}
	}
	fd, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	mine, theirs := os.NewFile(uintptr(fd[0]), "launcher"), os.NewFile(uintptr(fd[1]), "launcher-child")
	defer mine.Close() // a launcher that is not up takes that for the end
	cmd := exec.Command(exe, args...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr // until it has a log
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return nil, fmt.Errorf("start the launcher: %w", err)
	}
	gone := make(chan struct{})
	go func() {
		cmd.Wait() // should it end before this process
		close(gone)
	}()
	stop := context.AfterFunc(ctx, func() { unix.Shutdown(fd[0], unix.SHUT_RDWR) })
	defer stop()
	if err := json.NewEncoder(mine).Encode(launch{cfg, cfg.Base}); err != nil && !errors.Is(err, unix.EPIPE) {
		return nil, fmt.Errorf("talk to the launcher: %w", err)
	}
	for dec := json.NewDecoder(mine); ; {
		var rep report
		err := dec.Decode(&rep)
		switch {
		case ctx.Err() != nil:
			<-gone
			return nil, ctx.Err()
		case err != nil: // that it did not even listen shows here, too
			return nil, control.Errorf(control.CodeHost, "the launcher of rack %q ended without saying why (%v)", cfg.Name, err)
		case rep.Error != nil:
			return nil, rep.Error
		case rep.Up:
			return &Remote{cfg.Base, cfg.Name, socketPath(cfg.Base, cfg.Name)}, nil
		case rep.Event != nil && progress != nil:
			progress(*rep.Event)
		}
	}
}

// launch is what a launcher is told.
type launch struct {
	Config Config
	Base   string
}

// Launch is the launcher: it takes its orders from file descriptor 3, starts the rack, and serves it until somebody ends it. That a rack cannot be
// started is reported to who wants it, and no error here.
func Launch() error { return serveLauncher(startVM) }

// serveLauncher is Launch with machines that start makes.
func serveLauncher(start func(vm.Config) (machine, error)) error {
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	// Somebody may just try the command: the descriptor is then another's, or nobody's.
	if kind, err := unix.GetsockoptInt(launcherFile, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil || kind != unix.AF_UNIX {
		return errors.New("launcher: it is started by 'dinos up'")
	}
	unix.CloseOnExec(launcherFile)
	unix.SetNonblock(launcherFile, true) // so that Close ends a Read
	conn := os.NewFile(launcherFile, "launcher")
	var order launch
	dec := json.NewDecoder(conn)
	if err := dec.Decode(&order); err != nil {
		return fmt.Errorf("launcher: it is started by 'dinos up': %w", err)
	}
	order.Config.Base, order.Config.start = order.Base, start
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	enc := json.NewEncoder(conn)
	r, srv, down, err := startAndServe(ctx, order.Config, conn, enc)
	if err != nil {
		var e *control.Error
		if !errors.As(coded(err), &e) {
			e = &control.Error{Code: control.CodeCanceled, Text: err.Error()}
		}
		return enc.Encode(report{Error: e})
	}
	redirect(filepath.Join(r.Dir(), "launcher.log"))
	enc.Encode(report{Up: true})
	conn.Close()
	select {
	case <-ctx.Done():
		r.Shutdown("the launcher was told to end")
	case <-down:
	}
	// The rack's memory must be there as long as somebody may ask about it.
	srv.Close()
	r.Close()
	return nil
}

// startAndServe starts the rack and the server of its commands. down is closed when a command has ended the rack.
func startAndServe(ctx context.Context, cfg Config, conn io.Reader, enc *json.Encoder) (r *Rack, srv *control.Server, down chan struct{}, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Whoever asked for the rack has gone away when the socket ends.
	go func() {
		io.Copy(io.Discard, conn)
		cancel()
	}()
	r, err = Start(ctx, cfg, func(e Event) { enc.Encode(report{Event: &e}) })
	if err != nil {
		return nil, nil, nil, err
	}
	srv, down, err = r.Serve()
	if err != nil {
		r.Close()
	}
	return r, srv, down, err
}

// Serve serves commands about the rack at its socket. down is closed when a command has ended the kernels: then close the server, and the rack.
func (r *Rack) Serve() (srv *control.Server, down chan struct{}, err error) {
	down = make(chan struct{})
	srv, err = control.Listen(r.dir.Join(statedir.ControlName), r.handlers(func(keep bool) {
		if keep {
			r.Keep(true)
		}
		r.Shutdown("the host ends the rack")
		r.mu.Lock()
		defer r.mu.Unlock()
		select {
		case <-down:
		default:
			close(down)
		}
	}))
	return srv, down, err
}

// redirect lets standard output and error go to a file: the terminal is not ours any more.
func redirect(path string) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		f, err = os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	}
	if err != nil {
		return
	}
	defer f.Close()
	unix.Dup2(int(f.Fd()), 1)
	unix.Dup2(int(f.Fd()), 2)
}
