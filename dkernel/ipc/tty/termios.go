package tty

import (
	"encoding/binary"

	"dinos/kernel/linux"
)

// defaultTermios is what a terminal begins with (tty_std_termios of Linux: "sane" of stty(1)).
func defaultTermios() linux.Termios {
	return linux.Termios{
		Iflag: linux.ICRNL | linux.IXON,
		Oflag: linux.OPOST | linux.ONLCR,
		Cflag: linux.B38400 | linux.CS8 | linux.CREAD,
		Lflag: linux.ISIG | linux.ICANON | linux.ECHO | linux.ECHOE | linux.ECHOK | linux.ECHOCTL | linux.ECHOKE | linux.IEXTEN,
		CC: [19]uint8{
			linux.VINTR: 'C' - '@', linux.VQUIT: '\\' - '@', linux.VERASE: 0x7f, linux.VKILL: 'U' - '@', linux.VEOF: 'D' - '@',
			linux.VMIN: 1, linux.VSTART: 'Q' - '@', linux.VSTOP: 'S' - '@', linux.VSUSP: 'Z' - '@', linux.VREPRINT: 'R' - '@',
			linux.VDISCARD: 'O' - '@', linux.VWERASE: 'W' - '@', linux.VLNEXT: 'V' - '@',
		},
		ISpeed: 38400, OSpeed: 38400,
	}
}

// bauds are the speeds of the codes below and from BOTHER + 1 on (termios(3)).
var (
	bauds = [16]uint32{0, 50, 75, 110, 134, 150, 200, 300, 600, 1200, 1800, 2400, 4800, 9600, 19200, 38400}
	fast  = [16]uint32{0, 57600, 115200, 230400, 460800, 500000, 576000, 921600, 1000000, 1152000, 1500000, 2000000, 2500000,
		3000000, 3500000, 4000000}
)

// baud is the speed that the CBAUD bits in code say; other is that of BOTHER.
func baud(code, other uint32) uint32 {
	switch {
	case code&linux.CBAUD == linux.BOTHER:
		return other
	case code&linux.BOTHER != 0:
		return fast[code&0xf]
	}
	return bauds[code&0xf]
}

// setSpeeds makes the speeds what the flags say, as after every change.
func setSpeeds(t *linux.Termios) {
	t.OSpeed = baud(t.Cflag, t.OSpeed)
	if in := t.Cflag >> linux.IBSHIFT; in&linux.CBAUD == 0 {
		t.ISpeed = t.OSpeed
	} else {
		t.ISpeed = baud(in, t.ISpeed)
	}
}

// encode writes struct termios2, whose beginning is struct termios.
func encode(t *linux.Termios) (b [linux.Termios2Size]byte) {
	le := binary.LittleEndian
	le.PutUint32(b[0:], t.Iflag)
	le.PutUint32(b[4:], t.Oflag)
	le.PutUint32(b[8:], t.Cflag)
	le.PutUint32(b[12:], t.Lflag)
	b[16] = t.Line
	copy(b[17:], t.CC[:])
	le.PutUint32(b[36:], t.ISpeed)
	le.PutUint32(b[40:], t.OSpeed)
	return b
}

// decode changes t to what a struct termios or termios2 says.
func decode(t *linux.Termios, b []byte) {
	le := binary.LittleEndian
	t.Iflag, t.Oflag, t.Cflag, t.Lflag = le.Uint32(b), le.Uint32(b[4:]), le.Uint32(b[8:]), le.Uint32(b[12:])
	t.Line = b[16]
	copy(t.CC[:], b[17:])
	if len(b) >= linux.Termios2Size {
		t.ISpeed, t.OSpeed = le.Uint32(b[36:]), le.Uint32(b[40:])
	}
}

// encodeOld writes struct termio.
func encodeOld(t *linux.Termios) (b [linux.TermioSize]byte) {
	le := binary.LittleEndian
	le.PutUint16(b[0:], uint16(t.Iflag))
	le.PutUint16(b[2:], uint16(t.Oflag))
	le.PutUint16(b[4:], uint16(t.Cflag))
	le.PutUint16(b[6:], uint16(t.Lflag))
	b[8] = t.Line
	copy(b[9:17], t.CC[:])
	return b
}

// decodeOld changes the lower halves of t's flags and its first control characters to what a struct termio says.
func decodeOld(t *linux.Termios, b []byte) {
	le := binary.LittleEndian
	low := func(f *uint32, off int) { *f = *f&^0xffff | uint32(le.Uint16(b[off:])) }
	low(&t.Iflag, 0)
	low(&t.Oflag, 2)
	low(&t.Cflag, 4)
	low(&t.Lflag, 6)
	t.Line = b[8]
	copy(t.CC[:8], b[9:17])
}
