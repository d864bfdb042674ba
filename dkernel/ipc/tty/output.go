package tty

import "dinos/kernel/linux"

func isControl(c byte) bool { return c < ' ' || c == 0x7f }

// isAlnum, lower and upper go by ISO 8859-1, as Linux does.
func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' && c < 0x80 || c >= 0xc0 && c != 0xd7 && c != 0xf7
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' || c >= 0xc0 && c <= 0xde && c != 0xd7 {
		return c + 0x20
	}
	return c
}

func upper(c byte) byte {
	if c >= 'a' && c <= 'z' || c >= 0xdf && c != 0xf7 {
		return c - 0x20
	}
	return c
}

// inRune tells whether c is no first byte of a character.
func (d *disc) inRune(c byte) bool { return d.iflag(linux.IUTF8) && c&0xc0 == 0x80 }

// write takes output of a program and returns how many bytes of it.
func (d *disc) write(p []byte) (n int) {
	d.putEcho()
	if d.stopped {
		return 0
	}
	if !d.oflag(linux.OPOST) {
		return d.out.put(p)
	}
	for n < len(p) && d.process(&d.out, p[n]) {
		n++
	}
	return n
}

// process puts c to r as the settings say (OPOST), unless there is no room, and follows the column.
func (d *disc) process(r *ring, c byte) bool {
	room := r.room()
	if room <= 0 {
		return false
	}
	switch c {
	case '\n':
		if d.oflag(linux.ONLCR) {
			if room < 2 {
				return false
			}
			d.column, d.canonColumn = 0, 0
			r.putc('\r')
			break
		}
		if d.oflag(linux.ONLRET) {
			d.column = 0
		}
		d.canonColumn = d.column
	case '\r':
		if d.oflag(linux.ONOCR) && d.column == 0 {
			return true
		}
		if d.oflag(linux.OCRNL) {
			c = '\n'
			if !d.oflag(linux.ONLRET) {
				break
			}
		}
		d.column, d.canonColumn = 0, 0
	case '\t':
		n := 8 - d.column&7
		if d.set.Oflag&linux.TABDLY == linux.XTABS {
			if uint(room) < n {
				return false
			}
			d.column += n
			for range n {
				r.putc(' ')
			}
			return true
		}
		d.column += n
	case '\b':
		d.back()
	default:
		if isControl(c) {
			break
		}
		if d.oflag(linux.OLCUC) {
			c = upper(c)
		}
		if !d.inRune(c) {
			d.column++
		}
	}
	r.putc(c)
	return true
}

func (d *disc) back() {
	if d.column > 0 {
		d.column--
	}
}

// What is to be echoed waits in d.echo as bytes and, behind opEcho, operations, since what they become depends on the settings and
// the column at the time they are put out.
const (
	opEcho = 0xff // by itself behind another one: the byte

	opBack = 0x80 // the column is one less than it seems
	opMark = 0x81 // here the line of input begins
	opTab  = 0x82 // a tab is erased; the next byte is its place, see echoErasedTab
	// any other: a control character, shown as ^X
)

// putEcho puts out what waits to be echoed, as far as that goes.
func (d *disc) putEcho() {
	for !d.stopped && d.echo.n > 0 {
		n := d.putEchoed()
		if n == 0 {
			return
		}
		d.echo.skip(n)
	}
}

// putEchoed puts out the first byte or operation and returns how long that was, 0 if there is no room.
func (d *disc) putEchoed() int {
	var op [3]byte
	d.echo.peek(op[:])
	room := d.out.room()
	switch {
	case op[0] != opEcho && d.oflag(linux.OPOST):
		if !d.process(&d.out, op[0]) {
			return 0
		}
		return 1
	case op[0] != opEcho:
		if room < 1 {
			return 0
		}
		d.out.putc(op[0])
		return 1
	}
	switch op[1] {
	case opBack:
		d.back()
	case opMark:
		d.canonColumn = d.column
	case opTab:
		if room < 8 {
			return 0
		}
		d.eraseTab(op[2])
		return 3
	case opEcho:
		if room < 1 {
			return 0
		}
		d.out.putc(opEcho)
		d.column++
	default:
		if room < 2 {
			return 0
		}
		d.out.putc('^')
		d.out.putc(op[1] ^ 0x40)
		d.column += 2
	}
	return 2
}

// afterTab says in the place of opTab that it is counted from another tab, not from the beginning of the line.
const afterTab = 0x80

func (d *disc) eraseTab(place byte) {
	at := uint(place &^ afterTab)
	if place&afterTab == 0 {
		at += d.canonColumn
	}
	for range 8 - at&7 {
		d.out.putc('\b')
		d.back()
	}
}

// echoRoom makes room for three more bytes of echo. Old echo is dropped if the output is stuck.
func (d *disc) echoRoom() {
	if d.echo.n >= echoBatch {
		d.putEcho()
	}
	for d.echo.n > d.echo.limit-8 {
		var op [3]byte
		d.echo.peek(op[:])
		switch {
		case op[0] != opEcho:
			d.echo.skip(1)
		case op[1] == opTab:
			d.echo.skip(3)
		default:
			d.echo.skip(2)
		}
	}
}

func (d *disc) echoOp(op byte) {
	d.echoRoom()
	d.echo.putc(opEcho)
	d.echo.putc(op)
}

// echoRaw echoes c as it is, but for OPOST.
func (d *disc) echoRaw(c byte) {
	if c == opEcho {
		d.echoOp(opEcho)
		return
	}
	d.echoRoom()
	d.echo.putc(c)
}

// echoChar echoes c, a control character as ^X.
func (d *disc) echoChar(c byte) {
	if d.lflag(linux.ECHOCTL) && isControl(c) && c != '\t' {
		d.echoOp(c)
		return
	}
	d.echoRaw(c)
}

func (d *disc) echoString(s string) {
	for i := range len(s) {
		d.echoRaw(s[i])
	}
}

// markColumn remembers where a line of input begins on the screen.
func (d *disc) markColumn() {
	if d.canon == d.head {
		d.echoOp(opMark)
	}
}

func (d *disc) endErasing() {
	if d.erasing {
		d.echoRaw('/')
		d.erasing = false
	}
}

// erase undoes a character (ERASE), a word (WERASE) or the line (KILL).
func (d *disc) erase(c byte) {
	if d.head == d.canon {
		return
	}
	one, word := d.is(c, linux.VERASE), false
	if !one {
		if word = d.is(c, linux.VWERASE); !word && d.kill() {
			return
		}
	}
	seen := false
	for d.head != d.canon {
		at, ok := d.lastRune()
		if !ok {
			break
		}
		c := d.in[at%inSize]
		if word {
			if isAlnum(c) || c == '_' {
				seen = true
			} else if seen {
				break
			}
		}
		n := d.head - at
		d.head = at
		if d.lflag(linux.ECHO) {
			d.echoErased(c, at, n, one)
		}
		if one {
			break
		}
	}
	if d.head == d.canon && d.lflag(linux.ECHO) {
		d.endErasing()
	}
}

// kill drops the line if that is not to be seen as erasing each character.
func (d *disc) kill() bool {
	switch {
	case !d.lflag(linux.ECHO):
		d.head = d.canon
	case !d.lflag(linux.ECHOK) || !d.lflag(linux.ECHOKE) || !d.lflag(linux.ECHOE):
		d.head = d.canon
		d.endErasing()
		d.echoChar(d.set.CC[linux.VKILL])
		if d.lflag(linux.ECHOK) {
			d.echoRaw('\n')
		}
	default:
		return false
	}
	return true
}

// lastRune finds where the last character of the line begins, which may be several bytes back. It is not ok if its beginning is
// not in the line.
func (d *disc) lastRune() (at uint32, ok bool) {
	at = d.head - 1
	for d.inRune(d.in[at%inSize]) && at != d.canon {
		at--
	}
	return at, !d.inRune(d.in[at%inSize])
}

// echoErased shows that the character c, which was n bytes from at on, is gone.
func (d *disc) echoErased(c byte, at, n uint32, one bool) {
	switch {
	case d.lflag(linux.ECHOPRT):
		if !d.erasing {
			d.echoRaw('\\')
			d.erasing = true
		}
		d.echoChar(c)
		for i := at + 1; i < at+n; i++ {
			d.echoRaw(d.in[i%inSize])
			d.echoOp(opBack)
		}
	case one && !d.lflag(linux.ECHOE):
		d.echoChar(d.set.CC[linux.VERASE])
	case c == '\t':
		d.echoErasedTab()
	default:
		if isControl(c) {
			if !d.lflag(linux.ECHOCTL) {
				return
			}
			d.echoString("\b \b")
		}
		d.echoString("\b \b")
	}
}

// echoErasedTab goes back to where the cursor was before the tab behind d.head.
func (d *disc) echoErasedTab() {
	width, tab := uint(0), false
	for i := d.head; i != d.canon && !tab; {
		i--
		c := d.in[i%inSize]
		switch {
		case c == '\t':
			tab = true
		case isControl(c):
			if d.lflag(linux.ECHOCTL) {
				width += 2
			}
		case !d.inRune(c):
			width++
		}
	}
	width &= 7
	if tab {
		width |= afterTab
	}
	d.echoOp(opTab)
	d.echo.putc(byte(width))
}
