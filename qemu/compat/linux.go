package compat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Linux runs programs on the Linux that this process runs on, as root and in the tree: with chroot, in a mount namespace of their own,
// which has /proc and /dev. It needs root or, less completely (without /proc), unprivileged user namespaces.
type Linux struct{}

// Name implements Runner.
func (Linux) Name() string { return "Linux" }

// Run implements Runner.
func (Linux) Run(ctx context.Context, c *Command) (Outcome, error) {
	type answer struct {
		o   Outcome
		err error
	}
	done := make(chan answer)
	go func() {
		// The thread gets a mount namespace of its own and is not used again: it ends with the goroutine, which stays locked to it.
		runtime.LockOSThread()
		o, err := c.runHere(ctx)
		done <- answer{o, err}
	}()
	a := <-done
	return a.o, a.err
}

func (c *Command) runHere(ctx context.Context) (Outcome, error) {
	attr := &syscall.SysProcAttr{Chroot: c.Root, Setsid: true}
	if os.Geteuid() == 0 {
		if err := c.mounts(); err != nil {
			return Outcome{}, fmt.Errorf("compat: mounting /proc and /dev for %s: %w", c.Args[0], err)
		}
	} else {
		attr.Cloneflags = unix.CLONE_NEWUSER | unix.CLONE_NEWNS
		attr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.Path)
	cmd.Args, cmd.Env, cmd.Dir, cmd.SysProcAttr = c.Args, c.Env, c.Dir, attr
	cmd.Err = nil // the path is one in the tree
	cmd.Stdin = strings.NewReader(c.Stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = time.Second
	// What the program left behind goes with its session's process group.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	err := cmd.Run()
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return Outcome{}, fmt.Errorf("compat: %s: not at its end after %v", strings.Join(c.Args, " "), c.Timeout)
	case err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay):
		return Outcome{}, fmt.Errorf("compat: %w", err)
	}
	o := Outcome{Stdout: out.String(), Stderr: errs.String()}
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
		o.Status = 128 + int(ws.Signal())
	} else {
		o.Status = ws.ExitStatus()
	}
	return o, nil
}

// mounts gives this thread a mount namespace in which the tree has /proc and /dev. They are gone when the program is.
func (c *Command) mounts() error {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("proc", filepath.Join(c.Root, "proc"), "proc", 0, ""); err != nil {
		return err
	}
	dev := filepath.Join(c.Root, "dev")
	if err := unix.Mount("dev", dev, "tmpfs", unix.MS_NOSUID, "mode=755"); err != nil {
		return err
	}
	for name, minor := range map[string]uint32{"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9} {
		if err := unix.Mknod(filepath.Join(dev, name), unix.S_IFCHR|0o666, int(unix.Mkdev(1, minor))); err != nil {
			return err
		}
		if err := os.Chmod(filepath.Join(dev, name), 0o666); err != nil {
			return err
		}
	}
	for name, to := range map[string]string{"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"} {
		if err := os.Symlink(to, filepath.Join(dev, name)); err != nil {
			return err
		}
	}
	return os.Mkdir(filepath.Join(dev, "shm"), 0o1777)
}

// Dinos runs programs by "dinos run" (an executable's path): in the rack that is up, or one of their own each.
type Dinos struct{ Path string }

// Name implements Runner.
func (Dinos) Name() string { return "dinos" }

// Available reports whether the executable has the command.
func (d Dinos) Available(ctx context.Context) bool {
	return exec.CommandContext(ctx, d.Path, "run", "--help").Run() == nil
}

// runnerFailed is the exit status of "dinos run" when it could not run the program at all.
const runnerFailed = 125

// Run implements Runner.
func (d Dinos) Run(ctx context.Context, c *Command) (Outcome, error) {
	args := []string{"run", "--root", c.Root, "-w", c.Dir}
	for _, e := range c.Env {
		args = append(args, "-e", e)
	}
	args = append(append(args, "--", c.Path), c.Args[1:]...)
	// The rack may have to boot, and is emulated: ten times as slow as this machine is normal.
	ctx, cancel := context.WithTimeout(ctx, time.Minute+10*c.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, d.Path, args...)
	cmd.Stdin = strings.NewReader(c.Stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	if ctx.Err() != nil {
		return Outcome{}, fmt.Errorf("compat: dinos run %s: not at its end in time", strings.Join(c.Args, " "))
	}
	if err != nil && !errors.As(err, &exit) {
		return Outcome{}, fmt.Errorf("compat: %w", err)
	}
	o := Outcome{Stdout: out.String(), Stderr: errs.String(), Status: cmd.ProcessState.ExitCode()}
	if o.Status == runnerFailed {
		return o, fmt.Errorf("compat: dinos run %s: %s", strings.Join(c.Args, " "), strings.TrimSpace(o.Stderr))
	}
	return o, nil
}
