package main

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// changeTerminal, if in is a terminal, has change its settings, and reading return as soon as something was typed. The returned function
// puts the terminal back.
func changeTerminal(in io.Reader, change func(t *unix.Termios)) (restore func()) {
	f, ok := in.(*os.File)
	if !ok {
		return func() {}
	}
	fd := int(f.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return func() {} // no terminal
	}
	t := *old
	change(&t)
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &t); err != nil {
		return func() {}
	}
	return func() { unix.IoctlSetTermios(fd, unix.TCSETS, old) }
}

// quietTerminal, if in is a terminal, stops it from echoing and from keeping what is typed until the end of the line: the kernel's
// console does both. ^C and ^Z still make signals. The returned function puts the terminal back.
func quietTerminal(in io.Reader) (restore func()) {
	return changeTerminal(in, func(t *unix.Termios) {
		t.Lflag &^= unix.ECHO | unix.ICANON
		t.Iflag &^= unix.ICRNL
	})
}

// rawTerminal, if in is a terminal, has every byte that is typed there come through as it is. The returned function puts the terminal back.
func rawTerminal(in io.Reader) (restore func()) {
	return changeTerminal(in, func(t *unix.Termios) { // as cfmakeraw(3)
		t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
		t.Oflag &^= unix.OPOST
		t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
		t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	})
}

// isTerminal reports whether a reader or writer is a terminal.
func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// windowSize is the size of the terminal out, or what terminals used to have.
func windowSize(out io.Writer) (rows, columns uint16) {
	if f, ok := out.(*os.File); ok {
		if w, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && w.Row > 0 && w.Col > 0 {
			return w.Row, w.Col
		}
	}
	return 24, 80
}
