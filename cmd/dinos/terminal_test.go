package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// pseudoTerminal is both ends of a terminal; pts(4).
func pseudoTerminal(t *testing.T) (master, terminal *os.File) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	require.NoError(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { terminal.Close() })
	return master, terminal
}

func TestTerminal(t *testing.T) {
	master, term := pseudoTerminal(t)
	require.True(t, isTerminal(term))
	require.False(t, isTerminal(strings.NewReader("")))
	rows, columns := windowSize(term)
	require.Equal(t, []uint16{24, 80}, []uint16{rows, columns}, "a terminal that knows no size")
	require.NoError(t, unix.IoctlSetWinsize(int(term.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: 120}))
	rows, columns = windowSize(term)
	require.Equal(t, []uint16{50, 120}, []uint16{rows, columns})

	before, err := unix.IoctlGetTermios(int(term.Fd()), unix.TCGETS)
	require.NoError(t, err)
	restore := rawTerminal(term)
	_, err = master.Write([]byte("a\x03\r")) // no line, no interrupt, no line feed made of the return
	require.NoError(t, err)
	b := make([]byte, 3)
	_, err = io.ReadFull(term, b)
	require.NoError(t, err)
	require.Equal(t, "a\x03\r", string(b))
	restore()
	after, err := unix.IoctlGetTermios(int(term.Fd()), unix.TCGETS)
	require.NoError(t, err)
	require.Equal(t, before, after)
	rawTerminal(strings.NewReader(""))()
}

// TestInterruptibleReader: what comes after the stop is somebody else's.
func TestInterruptibleReader(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	in, stop := interruptibleReader(r)
	_, err = w.WriteString("one")
	require.NoError(t, err)
	b := make([]byte, 10)
	n, err := in.Read(b)
	require.NoError(t, err)
	require.Equal(t, "one", string(b[:n]))
	ended := make(chan error)
	go func() {
		_, err := in.Read(make([]byte, 10))
		ended <- err
	}()
	require.True(t, stop())
	require.ErrorIs(t, <-ended, io.EOF)
	_, err = w.WriteString("two")
	require.NoError(t, err)
	n, err = r.Read(b)
	require.NoError(t, err)
	require.Equal(t, "two", string(b[:n]))
	_, stop = interruptibleReader(strings.NewReader(""))
	require.False(t, stop())
}
