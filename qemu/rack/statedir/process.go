package statedir

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Process names a process of the host for as long as the host runs: numbers are used again, start times are not.
type Process struct {
	PID   int
	Start uint64 // clock ticks since the host booted; proc(5), field 22 of stat
}

// NewProcess is the process that has a number now.
func NewProcess(pid int) (Process, error) {
	st, err := readStat(pid)
	return Process{pid, st.start}, err
}

// BootID names this run of the host.
func BootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "" // then process numbers and start times are all there is
	}
	return strings.TrimSpace(string(b))
}

// tick is the unit of times in /proc on amd64; sysconf(3), _SC_CLK_TCK.
const tick = 10 * time.Millisecond

// stat is what proc(5) says of a process.
type stat struct {
	state        byte
	ticks, start uint64 // processor time, and when it started
}

func readStat(pid int) (s stat, err error) {
	path := fmt.Sprintf("/proc/%d/stat", pid)
	b, err := os.ReadFile(path)
	if err != nil {
		return s, err
	}
	// The second field is a name, in parentheses, of any bytes; the third one is fields[0] here.
	i := bytes.LastIndexByte(b, ')')
	fields := strings.Fields(string(b[i+1:]))
	if i < 0 || len(fields) < 20 {
		return s, fmt.Errorf("%s: %q is not what proc(5) says", path, b)
	}
	var errs [3]error
	var user, system uint64
	user, errs[0] = strconv.ParseUint(fields[11], 10, 64)
	system, errs[1] = strconv.ParseUint(fields[12], 10, 64)
	s.start, errs[2] = strconv.ParseUint(fields[19], 10, 64)
	s.state, s.ticks = fields[0][0], user+system
	return s, errors.Join(errs[:]...)
}

// alive reports whether the process still runs. A zombie does not.
func (p Process) alive(boot string) bool {
	if p.PID <= 1 || boot != BootID() {
		return false
	}
	s, err := readStat(p.PID)
	return err == nil && s.start == p.Start && s.state != 'Z'
}

// killWait is how long a killed process may take to go: it may have to write back or free gigabytes.
const killWait = 10 * time.Second

// kill kills the process and waits until it is gone. Nothing happens if it is gone already, or if the number is another's by now.
func (p Process) kill(boot string) error {
	if !p.alive(boot) {
		return nil
	}
	// The descriptor holds on to the process, so that between check and signal its number cannot become another's.
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err == unix.ESRCH {
		return nil
	}
	if err != nil {
		return fmt.Errorf("process %d: %w", p.PID, os.NewSyscallError("pidfd_open", err))
	}
	defer unix.Close(fd)
	if !p.alive(boot) {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return fmt.Errorf("process %d: %w", p.PID, os.NewSyscallError("pidfd_send_signal", err))
	}
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for end := time.Now().Add(killWait); ; {
		left := time.Until(end)
		if left <= 0 {
			return fmt.Errorf("process %d: still there %v after it was killed", p.PID, killWait)
		}
		n, err := unix.Poll(poll, int(left/time.Millisecond)+1)
		if n > 0 {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("process %d: %w", p.PID, os.NewSyscallError("poll", err))
		}
	}
}

// CPUTime is the processor time that the process has used, in steps of 10 ms. The error is fs.ErrNotExist if it is gone.
func (p Process) CPUTime() (time.Duration, error) {
	st, err := readStat(p.PID)
	if err == nil && st.start != p.Start {
		err = &fs.PathError{Op: "read", Path: fmt.Sprintf("/proc/%d", p.PID), Err: fs.ErrNotExist}
	}
	return time.Duration(st.ticks) * tick, err
}
