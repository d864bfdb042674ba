package oracle

import (
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"dinos/kernel/linux"
)

// PTY opens a pseudo terminal of the host, both sides without blocking. They are closed with the test.
func PTY(t testing.TB) (master, slave int) {
	m, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("the host has no pseudo terminals: %v", err)
	}
	t.Cleanup(func() { _ = unix.Close(m) })
	var zero [4]byte
	if err := Ioctl(m, linux.TIOCSPTLCK, zero[:]); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(m, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	s, err := unix.Open("/dev/pts/"+strconv.Itoa(n), unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(s) })
	return m, s
}

// Poll is poll(2) of one descriptor, for all events, at once.
func Poll(fd int) int16 {
	p := []unix.PollFd{{Fd: int32(fd), Events: 0x7fff &^ unix.POLLNVAL}}
	_, _ = unix.Poll(p, 0)
	return p[0].Revents
}
