package tty

import (
	"dinos/kernel/linux"
)

// Sizes, those of Linux where programs can tell.
const (
	inSize    = 4096  // of the line discipline's input: the longest line is inSize-1 bytes and a newline
	backlog   = 12288 // input that waits for room in there
	outLimit  = 16384 // output that the other side has not taken
	outFetch  = 4096  // of which as much survives a flush: on Linux the other side has it already
	echoLimit = 4096  // echo that waits for room in the output
	echoBatch = 256   // as much echo is put out before the end of a batch of input
)

// disc is the line discipline N_TTY (termios(3)): a state machine between the bytes that come in, those that a reader gets, and those
// that go out. It has no locks and wakes nobody; what of that is due, its owner sees by looking.
type disc struct {
	set linux.Termios

	in  [inSize]byte
	eol [inSize / 64]uint64 // which bytes of in end a line
	// Positions in in, counted on for ever. tail <= canon <= head; what is before canon can be read in canonical mode.
	head, canon, tail uint32

	lnext   bool // the next byte is taken literally
	erasing bool // an erasure is being printed between \ and / (ECHOPRT)

	column, canonColumn uint // of the output, and where the current line of input began

	stopped bool // output is, by STOP
	held    bool // output is, by tcflow(TCOOFF), which START does not undo

	echo ring // not yet put out: see putEcho
	out  ring
	sent int // how much of out was there before what is going on now

	signals  []int // to the foreground process group, in order; the owner clears it
	flushed  uint8 // TIOCPKT_* of what was flushed and stopped; the owner clears it
	received bool  // something new can be read: the owner clears it
}

func newDisc() *disc {
	return &disc{set: defaultTermios(), echo: ring{limit: echoLimit}, out: ring{limit: outLimit}}
}

func (d *disc) iflag(f uint32) bool { return d.set.Iflag&f != 0 }
func (d *disc) oflag(f uint32) bool { return d.set.Oflag&f != 0 }
func (d *disc) lflag(f uint32) bool { return d.set.Lflag&f != 0 }

// is tells whether c is the control character i; 0 is none.
func (d *disc) is(c byte, i int) bool { return c != 0 && c == d.set.CC[i] }

func (d *disc) canonical() bool { return d.lflag(linux.ICANON) && !d.lflag(linux.EXTPROC) }

// raw tells that input needs no look at each byte.
func (d *disc) raw() bool {
	const i = linux.ISTRIP | linux.IUCLC | linux.IGNCR | linux.ICRNL | linux.INLCR | linux.IXON | linux.PARMRK
	const l = linux.ICANON | linux.ISIG | linux.ECHO
	return !d.iflag(i) && !d.lflag(l)
}

// receive takes input and returns how many bytes of it; the rest must wait until something was read.
func (d *disc) receive(p []byte) (n int) {
	d.sent = d.out.n
	for n < len(p) {
		room := inSize - int(d.head-d.tail)
		if d.iflag(linux.PARMRK) {
			room = (room + 2) / 3
		}
		room--
		if room <= 0 {
			if !d.lflag(linux.ICANON) || d.canon != d.tail {
				break
			}
			// A line without an end has filled it: each byte more replaces the last one, so that there can be an end.
			if room < 0 {
				d.head--
			}
			room = 1
		}
		batch := p[n:min(len(p), n+room)]
		if d.raw() {
			for _, c := range batch {
				d.queue(c)
			}
		} else {
			for _, c := range batch {
				d.receiveByte(c)
			}
		}
		n += len(batch)
	}
	d.putEcho()
	if n > 0 && !d.canonical() && d.head != d.tail {
		d.received = true
	}
	return n
}

func (d *disc) queue(c byte) {
	d.in[d.head%inSize] = c
	d.head++
}

func (d *disc) receiveByte(c byte) {
	if d.iflag(linux.ISTRIP) {
		c &= 0x7f
	}
	if d.iflag(linux.IUCLC) && d.lflag(linux.IEXTEN) {
		c = lower(c)
	}
	if d.lnext {
		d.lnext = false
		d.restartAny()
		d.keep(c, false)
		return
	}
	if d.lflag(linux.EXTPROC) {
		d.queue(c)
		return
	}
	if d.control(c) {
		return
	}
	d.restartAny()
	end := c
	switch {
	case c == '\r' && d.iflag(linux.IGNCR):
		return
	case c == '\r' && d.iflag(linux.ICRNL):
		end = '\n'
	case c == '\n' && d.iflag(linux.INLCR):
		end = '\r'
	}
	if d.lflag(linux.ICANON) && d.edit(end) {
		return
	}
	d.keep(end, end == '\n' && c == '\r')
}

// keep takes a byte that means nothing more. newline says that it is echoed as one, not as ^J.
func (d *disc) keep(c byte, newline bool) {
	if d.lflag(linux.ECHO) {
		d.endErasing()
		if newline {
			d.echoRaw(c)
		} else {
			d.markColumn()
			d.echoChar(c)
		}
	}
	if c == 0xff && d.iflag(linux.PARMRK) {
		d.queue(c) // doubled, to tell it from a mark
	}
	d.queue(c)
}

// restartAny has any byte restart the output, if that is so set.
func (d *disc) restartAny() {
	if d.stopped && !d.held && d.iflag(linux.IXON) && d.iflag(linux.IXANY) {
		d.start()
		d.putEcho()
	}
}

// control takes c if it stops or restarts the output or makes a signal.
func (d *disc) control(c byte) bool {
	if d.iflag(linux.IXON) {
		switch {
		case d.is(c, linux.VSTART):
			d.start()
			d.putEcho()
			return true
		case d.is(c, linux.VSTOP):
			d.stop()
			return true
		}
	}
	if d.lflag(linux.ISIG) {
		switch {
		case d.is(c, linux.VINTR):
			d.signal(linux.SIGINT, c)
			return true
		case d.is(c, linux.VQUIT):
			d.signal(linux.SIGQUIT, c)
			return true
		case d.is(c, linux.VSUSP):
			d.signal(linux.SIGTSTP, c)
			return true
		}
	}
	return false
}

func (d *disc) signal(sig int, c byte) {
	d.signals = append(d.signals, sig)
	if !d.lflag(linux.NOFLSH) {
		d.echo.truncate(0)
		d.flushOut()
		d.flushIn()
	}
	if d.iflag(linux.IXON) {
		d.start()
	}
	if d.lflag(linux.ECHO) {
		d.echoChar(c)
	} else {
		d.putEcho()
	}
}

// flushIn drops the input (tcflush(3)).
func (d *disc) flushIn() {
	d.tail, d.canon, d.head = 0, 0, 0
	d.erasing = false
	clear(d.eol[:])
	d.flushed |= linux.TIOCPKT_FLUSHREAD
}

// flushOut drops the output that the other side could not have taken yet, on Linux either, where what is written before is passed
// on in the background, up to outFetch bytes.
func (d *disc) flushOut() {
	d.out.truncate(min(d.sent, outFetch))
	d.flushed |= linux.TIOCPKT_FLUSHWRITE
}

func (d *disc) stop() {
	if !d.stopped {
		d.stopped = true
		d.flushed = d.flushed&^linux.TIOCPKT_START | linux.TIOCPKT_STOP
	}
}

func (d *disc) start() {
	if d.stopped && !d.held {
		d.stopped = false
		d.flushed = d.flushed&^linux.TIOCPKT_STOP | linux.TIOCPKT_START
	}
}

// hold is tcflow(3) of output.
func (d *disc) hold(on bool) {
	if d.held == on {
		return
	}
	d.held = on
	if on {
		d.stop()
	} else {
		d.start()
		d.putEcho()
	}
}

// edit takes c if it edits or ends a line in canonical mode.
func (d *disc) edit(c byte) bool {
	ext, echo := d.lflag(linux.IEXTEN), d.lflag(linux.ECHO)
	switch {
	case d.is(c, linux.VERASE), d.is(c, linux.VKILL), d.is(c, linux.VWERASE) && ext:
		d.erase(c)
	case d.is(c, linux.VLNEXT) && ext:
		d.lnext = true
		if echo {
			d.endErasing()
			if d.lflag(linux.ECHOCTL) {
				d.echoRaw('^')
				d.echoRaw('\b')
			}
		}
	case d.is(c, linux.VREPRINT) && echo && ext:
		d.endErasing()
		d.echoChar(c)
		d.echoRaw('\n')
		for i := d.canon; i != d.head; i++ {
			d.echoChar(d.in[i%inSize])
		}
	case c == '\n':
		if echo || d.lflag(linux.ECHONL) {
			d.echoRaw(c)
		}
		d.endLine(c)
	case d.is(c, linux.VEOF):
		d.endLine(0)
	case d.is(c, linux.VEOL), d.is(c, linux.VEOL2) && ext:
		if echo {
			d.markColumn()
			d.echoChar(c)
		}
		if c == 0xff && d.iflag(linux.PARMRK) {
			d.queue(c)
		}
		d.endLine(c)
	default:
		return false
	}
	return true
}

// endLine ends a line with c. An end of file is a 0 that ends a line; it is not given to the reader.
func (d *disc) endLine(c byte) {
	i := d.head % inSize
	d.eol[i/64] |= 1 << (i % 64)
	d.queue(c)
	d.canon = d.head
	d.received = true
}

func (d *disc) ends(pos uint32) bool {
	i := pos % inSize
	return d.eol[i/64]>>(i%64)&1 != 0
}

// setTermios changes the settings, with all that follows from it for what is there.
func (d *disc) setTermios(t linux.Termios) {
	old := d.set
	d.set = t
	if (old.Lflag^t.Lflag)&(linux.ICANON|linux.EXTPROC) != 0 {
		clear(d.eol[:])
		d.canon = d.tail
		if t.Lflag&linux.ICANON != 0 && d.head != d.tail {
			// What is there becomes a line.
			i := (d.head - 1) % inSize
			d.eol[i/64] |= 1 << (i % 64)
			d.canon = d.head
		}
		d.erasing, d.lnext = false, false
	}
	if old.Iflag&linux.IXON != 0 && t.Iflag&linux.IXON == 0 {
		d.start() // nobody else could any more
		d.putEcho()
	}
}

// available is how many bytes a reader could get (FIONREAD).
func (d *disc) available() int {
	if !d.canonical() {
		return int(d.head - d.tail)
	}
	n := int(d.canon - d.tail)
	for i := d.tail; i != d.canon; i++ {
		if d.ends(i) && d.in[i%inSize] == 0 {
			n--
		}
	}
	return n
}

// readable tells whether there is something to read: in canonical mode a line (maybe an empty one, the end of the file), else
// at least min bytes.
func (d *disc) readable(min int) bool {
	if d.canonical() {
		return d.canon != d.tail
	}
	return int(d.head-d.tail) >= max(min, 1)
}

// read takes one line, or as much of it as p has room for, in canonical mode, else what is there.
func (d *disc) read(p []byte) (n int) {
	if !d.canonical() {
		for n < len(p) && d.tail != d.head {
			at := d.tail % inSize
			c := copy(p[n:], d.in[at:at+min(d.head-d.tail, inSize-at)])
			n += c
			d.tail += uint32(c)
		}
		return n
	}
	for d.tail != d.canon && n < len(p) {
		end := d.ends(d.tail)
		c := d.in[d.tail%inSize]
		if !end || c != 0 {
			p[n] = c
			n++
		}
		d.pass(end)
		if end {
			return n
		}
	}
	// An end of file right behind is not to be taken for another one.
	if n > 0 && d.tail != d.canon && d.ends(d.tail) && d.in[d.tail%inSize] == 0 {
		d.pass(true)
	}
	return n
}

// pass moves on by a byte of input.
func (d *disc) pass(end bool) {
	if end {
		i := d.tail % inSize
		d.eol[i/64] &^= 1 << (i % 64)
	}
	d.tail++
}
