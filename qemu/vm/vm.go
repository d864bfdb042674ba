package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"dinos/kernel/testproto"
)

// Time that QEMU itself gets, on a busy host: to answer the first QMP command, and to be asked what a hung guest was doing.
const (
	startTimeout = 20 * time.Second
	dumpTimeout  = 20 * time.Second
)

// VM is a running machine. Its methods are safe for concurrent use.
type VM struct {
	cfg     Config
	cmd     *exec.Cmd
	console *Console
	monitor *Monitor
	stdin   *os.File
	stderr  *tail

	exited  chan struct{} // closed when QEMU has exited and the console is complete
	waitErr error         // of cmd.Wait; read after exited

	kill sync.Once
	mu   sync.Mutex
	ours bool // we killed it; guarded by mu
}

// Start starts a machine. The error is a *HostError.
func Start(cfg Config) (*VM, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, &HostError{VM: cfg.Name, Op: "configure", Err: err}
	}
	path, err := find(cfg.Binary)
	if err != nil {
		return nil, &HostError{VM: cfg.Name, Op: "find QEMU", Err: err}
	}
	v := &VM{cfg: cfg, console: newConsole(cfg.Output), stderr: &tail{}, exited: make(chan struct{})}
	if err := v.launch(path); err != nil {
		return nil, &HostError{VM: cfg.Name, Op: "start QEMU", Err: err, Stderr: v.stderr.String()}
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	err = v.monitor.handshake(ctx)
	if err == nil && !cfg.Paused {
		err = v.monitor.Run(ctx, "cont", nil, nil)
	}
	// If QEMU has ended, its exit tells more: that is for Wait.
	if err != nil && !errors.Is(err, errMonitorClosed) {
		v.Close()
		return nil, &HostError{VM: cfg.Name, Op: "talk to QEMU", Err: err, Stderr: v.stderr.String()}
	}
	return v, nil
}

// Installed returns nil if the QEMU that Start uses by default is installed.
func Installed() error {
	_, err := find(defaultBinary)
	return err
}

func find(binary string) (string, error) {
	path, err := exec.LookPath(binary)
	if err != nil {
		return "", fmt.Errorf("%w: install qemu-system-x86", err)
	}
	return path, nil
}

// launch starts the process and what reads from it. On error nothing stays open.
func (v *VM) launch(path string) (err error) {
	var mine, theirs []*os.File // our ends, QEMU's ends
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
		if err != nil {
			for _, f := range mine {
				f.Close()
			}
		}
	}()
	pair := func(a, b *os.File, err error) (*os.File, *os.File, error) {
		if err == nil {
			mine, theirs = append(mine, a), append(theirs, b)
		}
		return a, b, err
	}
	stdout, stdoutW, err := pair(os.Pipe())
	if err != nil {
		return err
	}
	stdinR, stdin, err := os.Pipe()
	if err != nil {
		return err
	}
	mine, theirs = append(mine, stdin), append(theirs, stdinR)
	qmp, qmpTheirs, err := pair(socketPair())
	if err != nil {
		return err
	}
	conn, err := net.FileConn(qmp)
	if err != nil {
		return err
	}
	qmp.Close() // conn has its own descriptor

	v.stdin = stdin
	v.cmd = exec.Command(path, v.cfg.args()...)
	v.cmd.Stdin, v.cmd.Stdout, v.cmd.Stderr = stdinR, stdoutW, v.stderr
	v.cmd.ExtraFiles = append([]*os.File{qmpTheirs}, v.cfg.Files...)
	// A group of its own: an interrupt typed at the terminal is for us, and we stop QEMU in order.
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	v.monitor = newMonitor(conn)
	if err := v.run(stdout); err != nil {
		conn.Close()
		return err
	}
	return nil
}

// run starts the process and returns; a goroutine closes v.exited at its end.
func (v *VM) run(stdout *os.File) error {
	started := make(chan error)
	go func() {
		// The death signal is sent when the thread that forked ends, so that thread must live as long as QEMU.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := v.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		fed := make(chan struct{})
		go func() {
			v.console.feed(stdout)
			stdout.Close()
			close(fed)
		}()
		v.waitErr = v.cmd.Wait()
		<-fed
		<-v.monitor.done // its last events say why QEMU ended
		close(v.exited)
	}()
	return <-started
}

func socketPair() (a, b *os.File, err error) {
	fd, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(fd[0]), "qmp"), os.NewFile(uintptr(fd[1]), "qmp-qemu"), nil
}

// Console returns the guest's serial port.
func (v *VM) Console() *Console { return v.console }

// Monitor returns the QMP connection.
func (v *VM) Monitor() *Monitor { return v.monitor }

// Input writes to the guest's serial port.
func (v *VM) Input() io.Writer { return v.stdin }

// Config returns the configuration with defaults filled in.
func (v *VM) Config() Config { return v.cfg }

// PID returns QEMU's process ID.
func (v *VM) PID() int { return v.cmd.Process.Pid }

// Exited is closed when QEMU has exited and its console is complete.
func (v *VM) Exited() <-chan struct{} { return v.exited }

// Wait waits for the guest to leave through isa-debug-exit. The error is nil if it passed (testproto.ExitPass), a *GuestError
// if it ended otherwise, and a *HostError if QEMU failed or ctx was cancelled. When ctx's deadline passes the guest is taken
// for hung: Wait dumps what it was doing and kills it. After a nil or *GuestError the machine is gone.
func (v *VM) Wait(ctx context.Context) (testproto.Exit, error) {
	select {
	case <-v.exited:
		return v.result()
	case <-ctx.Done():
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return 0, v.Hang("no exit before the deadline")
	}
	v.Close()
	return 0, &HostError{VM: v.cfg.Name, Op: "wait", Err: ctx.Err()}
}

// Hang reports a guest that made no progress, as told by detail, and kills it. The error is a *GuestError with a dump or, if
// QEMU cannot be asked either, a *HostError. If the guest ended in the meantime, it is how it ended, nil if it passed.
func (v *VM) Hang(detail string) error {
	ctx, cancel := context.WithTimeout(context.Background(), dumpTimeout)
	defer cancel()
	dump, err := v.Dump(ctx)
	select {
	case <-v.exited:
		_, err := v.result()
		return err
	default:
	}
	v.Close()
	if err != nil {
		return &HostError{VM: v.cfg.Name, Op: "ask QEMU about a guest without progress (" + detail + ")", Err: err, Stderr: v.stderr.String()}
	}
	return &GuestError{VM: v.cfg.Name, Failure: Hung, Detail: detail, Console: v.console.Tail(), Dump: dump}
}

// errKilled is how a machine ends that Close killed.
var errKilled = errors.New("killed by its owner")

// result says how the machine ended; v.exited is closed.
func (v *VM) result() (testproto.Exit, error) {
	v.mu.Lock()
	ours := v.ours
	v.mu.Unlock()
	host := func(err error) (testproto.Exit, error) {
		return 0, &HostError{VM: v.cfg.Name, Op: "run QEMU", Err: err, Stderr: v.stderr.String()}
	}
	guest := func(e testproto.Exit, f Failure, detail string) (testproto.Exit, error) {
		return e, &GuestError{VM: v.cfg.Name, Failure: f, Detail: detail, Console: v.console.Tail()}
	}
	st, ok := v.cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case ours:
		return host(errKilled)
	case !ok || !st.Exited():
		return host(v.waitErr)
	}
	if e, ok := testproto.FromStatus(st.ExitStatus()); ok {
		switch e {
		case testproto.ExitPass:
			return e, nil
		case testproto.ExitFail:
			return guest(e, Failed, "")
		case testproto.ExitCrash:
			return guest(e, Crashed, "")
		case testproto.ExitRefused:
			return guest(e, Refused, "")
		case testproto.ExitFenced:
			return guest(e, Fenced, "")
		}
		return guest(e, Exited, fmt.Sprintf("with %#x, which means nothing", uint8(e)))
	}
	if st.ExitStatus() != 0 {
		return host(v.waitErr)
	}
	switch reason := v.monitor.shutdownReason(); reason {
	case "guest-reset":
		return guest(0, Reset, "")
	case "host-qmp-quit", "host-signal", "host-ui":
		return host(fmt.Errorf("told to quit (%s)", reason))
	default:
		return guest(0, Off, reason)
	}
}

// Close kills the machine, if it still runs, and waits until it is gone. It may be called more than once.
func (v *VM) Close() {
	v.kill.Do(func() {
		select {
		case <-v.exited:
		default:
			v.mu.Lock()
			v.ours = true
			v.mu.Unlock()
			v.cmd.Process.Kill() // the only error is that it has exited
		}
		<-v.exited
		v.monitor.conn.Close()
		v.stdin.Close()
	})
}
