package linux

// Ioctls of terminals (ioctl_tty(2), include/uapi/asm-generic/ioctls.h). TIOCINQ is FIONREAD.
const (
	TCGETS      = 0x5401
	TCSETS      = 0x5402
	TCSETSW     = 0x5403
	TCSETSF     = 0x5404
	TCGETA      = 0x5405
	TCSETA      = 0x5406
	TCSETAW     = 0x5407
	TCSETAF     = 0x5408
	TCSBRK      = 0x5409
	TCXONC      = 0x540a
	TCFLSH      = 0x540b
	TIOCEXCL    = 0x540c
	TIOCNXCL    = 0x540d
	TIOCSCTTY   = 0x540e
	TIOCGPGRP   = 0x540f
	TIOCSPGRP   = 0x5410
	TIOCOUTQ    = 0x5411
	TIOCSTI     = 0x5412
	TIOCGWINSZ  = 0x5413
	TIOCSWINSZ  = 0x5414
	TIOCMGET    = 0x5415
	TIOCCONS    = 0x541d
	TIOCPKT     = 0x5420
	TIOCNOTTY   = 0x5422
	TIOCSETD    = 0x5423
	TIOCGETD    = 0x5424
	TCSBRKP     = 0x5425
	TIOCSBRK    = 0x5427
	TIOCCBRK    = 0x5428
	TIOCGSID    = 0x5429
	TCGETS2     = 0x802c542a
	TCSETS2     = 0x402c542b
	TCSETSW2    = 0x402c542c
	TCSETSF2    = 0x402c542d
	TIOCGPTN    = 0x80045430
	TIOCSPTLCK  = 0x40045431
	TIOCGDEV    = 0x80045432
	TIOCVHANGUP = 0x5437
	TIOCSIG     = 0x40045436
	TIOCGPKT    = 0x80045438
	TIOCGPTLCK  = 0x80045439
	TIOCGEXCL   = 0x80045440
	TIOCGPTPEER = 0x5441
)

// What TIOCPKT reports, and the arguments of TCXONC and TCFLSH.
const (
	TIOCPKT_DATA       = 0x0
	TIOCPKT_FLUSHREAD  = 0x1
	TIOCPKT_FLUSHWRITE = 0x2
	TIOCPKT_STOP       = 0x4
	TIOCPKT_START      = 0x8
	TIOCPKT_NOSTOP     = 0x10
	TIOCPKT_DOSTOP     = 0x20
	TIOCPKT_IOCTL      = 0x40

	TCOOFF = 0x0
	TCOON  = 0x1
	TCIOFF = 0x2
	TCION  = 0x3

	TCIFLUSH  = 0x0
	TCOFLUSH  = 0x1
	TCIOFLUSH = 0x2
)

// The bits of c_iflag, c_oflag, c_cflag and c_lflag (termios(3), include/uapi/asm-generic/termbits.h).
const (
	IGNBRK  = 0x1
	BRKINT  = 0x2
	IGNPAR  = 0x4
	PARMRK  = 0x8
	INPCK   = 0x10
	ISTRIP  = 0x20
	INLCR   = 0x40
	IGNCR   = 0x80
	ICRNL   = 0x100
	IUCLC   = 0x200
	IXON    = 0x400
	IXANY   = 0x800
	IXOFF   = 0x1000
	IMAXBEL = 0x2000
	IUTF8   = 0x4000

	OPOST  = 0x1
	OLCUC  = 0x2
	ONLCR  = 0x4
	OCRNL  = 0x8
	ONOCR  = 0x10
	ONLRET = 0x20
	OFILL  = 0x40
	OFDEL  = 0x80
	TABDLY = 0x1800
	XTABS  = 0x1800

	B9600   = 0xd
	B38400  = 0xf
	CBAUD   = 0x100f
	BOTHER  = 0x1000
	CSIZE   = 0x30
	CS8     = 0x30
	CSTOPB  = 0x40
	CREAD   = 0x80
	PARENB  = 0x100
	PARODD  = 0x200
	HUPCL   = 0x400
	CLOCAL  = 0x800
	CIBAUD  = 0x100f0000
	IBSHIFT = 0x10

	ISIG    = 0x1
	ICANON  = 0x2
	XCASE   = 0x4
	ECHO    = 0x8
	ECHOE   = 0x10
	ECHOK   = 0x20
	ECHONL  = 0x40
	NOFLSH  = 0x80
	TOSTOP  = 0x100
	ECHOCTL = 0x200
	ECHOPRT = 0x400
	ECHOKE  = 0x800
	FLUSHO  = 0x1000
	PENDIN  = 0x4000
	IEXTEN  = 0x8000
	EXTPROC = 0x10000
)

// Indices of c_cc.
const (
	VINTR    = 0x0
	VQUIT    = 0x1
	VERASE   = 0x2
	VKILL    = 0x3
	VEOF     = 0x4
	VTIME    = 0x5
	VMIN     = 0x6
	VSWTC    = 0x7
	VSTART   = 0x8
	VSTOP    = 0x9
	VSUSP    = 0xa
	VEOL     = 0xb
	VREPRINT = 0xc
	VDISCARD = 0xd
	VWERASE  = 0xe
	VLNEXT   = 0xf
	VEOL2    = 0x10
)

// N_TTY is the only line discipline.
const N_TTY = 0

// Termios is struct ktermios and struct termios2; struct termios is all before ISpeed.
type Termios struct {
	Iflag, Oflag, Cflag, Lflag uint32
	Line                       uint8
	CC                         [19]uint8
	ISpeed, OSpeed             uint32
}

// Sizes of struct termios, of struct termios2 and of the old struct termio.
const (
	TermiosSize  = 36
	Termios2Size = 44
	TermioSize   = 18
)

// Winsize is struct winsize.
type Winsize struct{ Row, Col, Xpixel, Ypixel uint16 }
