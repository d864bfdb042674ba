// Command init is process 1 of the Linux guest: it runs /program with the
// arguments in /args, its output on the first serial port between two marks, and
// stops the machine. It is built static and put in an initramfs by package linuxguest.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"dinos/kernel/testproto"
	"dinos/qemu/linuxguest/marks"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "init: only runs as process 1 of the Linux guest")
		os.Exit(2)
	}
	console, err := setUp()
	if err == nil {
		err = waitForClock()
	}
	if err != nil {
		// Without a console there is nobody to tell; the host sees the machine reset.
		if console != nil {
			fmt.Fprintf(console, "%s%v\n", marks.Fail, err)
		}
		leave(testproto.ExitCrash)
	}
	fmt.Fprintf(console, "%s%s\n", marks.Begin, release())
	code, err := run(console)
	if err != nil {
		fmt.Fprintf(console, "\n%s%v\n", marks.Fail, err)
		leave(testproto.ExitCrash)
	}
	fmt.Fprintf(console, "\n%s%d\n", marks.Exit, code)
	leave(testproto.ExitPass)
}

// setUp mounts what programs expect and opens the serial port, raw.
func setUp() (*os.File, error) {
	for _, m := range [][2]string{{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}, {"tmpfs", "/tmp"}} {
		if err := os.MkdirAll(m[1], 0o755); err != nil {
			return nil, err
		}
		if err := unix.Mount(m[0], m[1], m[0], 0, ""); err != nil {
			return nil, fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	console, err := os.OpenFile("/dev/ttyS0", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	t, err := unix.IoctlGetTermios(int(console.Fd()), unix.TCGETS)
	if err != nil {
		return console, err
	}
	t.Oflag &^= unix.OPOST // no carriage returns in the program's output
	t.Lflag &^= unix.ECHO | unix.ICANON | unix.ISIG
	return console, unix.IoctlSetTermios(int(console.Fd()), unix.TCSETS, t)
}

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err.Error()
	}
	return unix.ByteSliceToString(u.Release[:])
}

// run runs the program and returns its exit status, 128 + signal if one ended it.
func run(console *os.File) (int, error) {
	args, err := os.ReadFile("/args")
	if err != nil {
		return 0, err
	}
	cmd := exec.Command("/program")
	if len(args) > 0 {
		for _, a := range bytes.Split(args[:len(args)-1], []byte{0}) {
			cmd.Args = append(cmd.Args, string(a))
		}
	}
	cmd.Stdout, cmd.Stderr = console, console
	cmd.Env = []string{"PATH=/", "HOME=/tmp", "TMPDIR=/tmp"}
	cmd.Dir = "/tmp"
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if s := exit.Sys().(syscall.WaitStatus); s.Signaled() {
			return 128 + int(s.Signal()), nil
		}
		return exit.ExitCode(), nil
	}
	return 0, err
}

// waitForClock waits until Linux keeps time by the TSC. Until then, and for ever
// if it distrusts the TSC, it counts ticks, and all that is measured is a multiple of 4 ms.
func waitForClock() error {
	const path = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
	deadline := time.Now().Add(time.Minute)
	for {
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		switch name := strings.TrimSpace(string(source)); {
		case name == "tsc" || name == "kvm-clock":
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("clock source is %s, not tsc: times would be useless", name)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// outb writes to an I/O port; ioperm must have allowed it. Debian's cloud kernel
// has no /dev/port.
func outb(port uint16, value uint8)

// leave ends the machine through isa-debug-exit, or by a reset if that fails.
func leave(code testproto.Exit) {
	runtime.LockOSThread() // ioperm is the thread's
	if tty, err := os.OpenFile("/dev/ttyS0", os.O_RDWR|unix.O_NOCTTY, 0); err == nil {
		// TCSBRK with an argument waits until everything is sent.
		_ = unix.IoctlSetInt(int(tty.Fd()), unix.TCSBRK, 1)
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOPERM, testproto.DebugExitPort, 1, 1); errno == 0 {
		outb(testproto.DebugExitPort, uint8(code))
	}
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	_ = unix.Pause() // process 1 must not return before the machine is gone
}
