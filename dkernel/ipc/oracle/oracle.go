package oracle

import (
	"encoding/binary"
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

// PollAll is poll(2) at once.
func PollAll(fds []linux.PollFD) (int, error) {
	p := make([]unix.PollFd, len(fds))
	for i, f := range fds {
		p[i] = unix.PollFd{Fd: f.FD, Events: f.Events}
	}
	n, err := unix.Poll(p, 0)
	for i := range p {
		fds[i].Revents = p[i].Revents
	}
	return n, Errno(err)
}

// Select is select(2) at once.
func Select(n int, sets *[3][128]byte) (int, error) {
	var s [3]unix.FdSet
	for k := range s {
		for i := range s[k].Bits {
			s[k].Bits[i] = int64(binary.LittleEndian.Uint64(sets[k][8*i:]))
		}
	}
	n, err := unix.Select(n, &s[0], &s[1], &s[2], &unix.Timeval{})
	for k := range s {
		for i := range s[k].Bits {
			binary.LittleEndian.PutUint64(sets[k][8*i:], uint64(s[k].Bits[i]))
		}
	}
	return n, Errno(err)
}
