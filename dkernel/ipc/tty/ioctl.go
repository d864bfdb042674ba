package tty

import (
	"encoding/binary"

	"dinos/dkernel/cred"
	"dinos/dkernel/vfs"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

func admin(c *vfs.Caller) bool { return c.Cred.Can(cred.SYS_ADMIN) }

func flagInt(on bool) int32 {
	if on {
		return 1
	}
	return 0
}

// Ioctl implements vfs.File: ioctl_tty(2). Requests that a terminal without a wire behind it has no meaning for, and TIOCCONS, fail with
// linux.ENOTTY.
func (t *TTY) Ioctl(c *vfs.Caller, d *vfs.Description, req uint32, arg uint64) (uint64, error) {
	t.mu.Lock()
	dead := t.dead(d)
	t.mu.Unlock()
	if dead {
		if req == linux.TIOCSPGRP {
			return 0, linux.ENOTTY
		}
		return 0, linux.EIO
	}
	switch req {
	case linux.FIONREAD:
		t.mu.Lock()
		n := t.d.available()
		t.mu.Unlock()
		return 0, c.PutInt(arg, int32(n))
	case linux.TIOCSETD, linux.TIOCSBRK, linux.TIOCCBRK, linux.TCSBRK, linux.TCSBRKP:
		return 0, t.breaks(c, req, arg)
	case linux.TIOCSCTTY:
		return 0, t.control(task(c), arg == 1 && admin(c), d.CanRead() || admin(c))
	case linux.TIOCNOTTY:
		k := task(c)
		if k == nil || k.Terminal() != t {
			return 0, linux.ENOTTY
		}
		Disown(k, false)
		return 0, nil
	case linux.TIOCEXCL, linux.TIOCNXCL:
		t.mu.Lock()
		t.excl = req == linux.TIOCEXCL
		t.mu.Unlock()
		return 0, nil
	case linux.TIOCSTI:
		return 0, t.insert(c, arg)
	case linux.TIOCVHANGUP:
		if !admin(c) {
			return 0, linux.EPERM
		}
		t.hangUp(false)
		return 0, nil
	case linux.TIOCGPGRP, linux.TIOCGSID:
		if k := task(c); k == nil || k.Terminal() != t {
			return 0, linux.ENOTTY
		}
	}
	return t.common(c, req, arg)
}

// common are the requests that the master of a pseudo terminal passes on to the other half.
func (t *TTY) common(c *vfs.Caller, req uint32, arg uint64) (uint64, error) {
	switch req {
	case linux.TCGETS, linux.TCGETS2, linux.TCGETA:
		return 0, t.getTermios(c, req, arg)
	case linux.TCSETS, linux.TCSETSW, linux.TCSETSF, linux.TCSETS2, linux.TCSETSW2, linux.TCSETSF2,
		linux.TCSETA, linux.TCSETAW, linux.TCSETAF:
		return 0, t.setTermios(c, req, arg)
	case linux.TCXONC, linux.TCFLSH:
		return 0, t.flow(c, req, arg)
	case linux.TIOCOUTQ:
		t.mu.Lock()
		n := t.queued()
		t.mu.Unlock()
		return 0, c.PutInt(arg, int32(n))
	case linux.TIOCGWINSZ:
		w := t.Size()
		var b [8]byte
		for i, v := range [4]uint16{w.Row, w.Col, w.Xpixel, w.Ypixel} {
			binary.LittleEndian.PutUint16(b[2*i:], v)
		}
		_, err := c.Mem.CopyOut(arg, b[:])
		return 0, err
	case linux.TIOCSWINSZ:
		var b [8]byte
		if _, err := c.Mem.CopyIn(b[:], arg); err != nil {
			return 0, err
		}
		le := binary.LittleEndian
		t.Resize(linux.Winsize{Row: le.Uint16(b[0:]), Col: le.Uint16(b[2:]), Xpixel: le.Uint16(b[4:]), Ypixel: le.Uint16(b[6:])})
		return 0, nil
	case linux.TIOCGPGRP:
		return 0, c.PutInt(arg, t.Group())
	case linux.TIOCSPGRP:
		return 0, t.setGroupOf(c, arg)
	case linux.TIOCGSID:
		s := t.Session()
		if s == 0 {
			return 0, linux.ENOTTY
		}
		return 0, c.PutInt(arg, s)
	case linux.TIOCGEXCL:
		t.mu.Lock()
		on := t.excl
		t.mu.Unlock()
		return 0, c.PutInt(arg, flagInt(on))
	case linux.TIOCGETD:
		return 0, c.PutInt(arg, linux.N_TTY)
	case linux.TIOCGDEV:
		return 0, c.PutInt(arg, int32(t.dev))
	}
	return 0, linux.ENOTTY
}

// queued is how much output has not left, with mu held. What is on its way to a master counts as gone.
func (t *TTY) queued() int {
	if t.kind == kindPTY {
		return 0
	}
	return t.d.out.n + t.d.echo.n
}

// drain waits until all output has left.
func (t *TTY) drain(c *vfs.Caller) error {
	return c.Sleeper.Until(&t.q, wait.Writable, wait.Forever, func() error {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.queued() > 0 {
			return linux.EAGAIN
		}
		return nil
	})
}

// breaks are the requests that first wait until all output has left. There is no wire to send a break on.
func (t *TTY) breaks(c *vfs.Caller, req uint32, arg uint64) error {
	if err := t.mayChange(c, linux.SIGTTOU); err != nil {
		return err
	}
	if req != linux.TIOCCBRK {
		if err := t.drain(c); err != nil {
			return linux.EINTR
		}
	}
	if req == linux.TIOCSETD {
		return setDiscipline(c, arg)
	}
	return nil
}

// setDiscipline is TIOCSETD: there is just one.
func setDiscipline(c *vfs.Caller, arg uint64) error {
	n, err := c.GetInt(arg)
	if err == nil && n != linux.N_TTY {
		err = linux.EINVAL
	}
	return err
}

// insert is TIOCSTI, which Linux forbids too unless dev.tty.legacy_tiocsti is set: it serves attacks more than programs.
func (t *TTY) insert(c *vfs.Caller, arg uint64) error {
	if !admin(c) {
		return linux.EIO
	}
	var b [1]byte
	if _, err := c.Mem.CopyIn(b[:], arg); err != nil {
		return err
	}
	t.input(b[:])
	return nil
}

func (t *TTY) setGroupOf(c *vfs.Caller, arg uint64) error {
	if err := t.mayChange(c, linux.SIGTTOU); err == linux.EIO {
		return linux.ENOTTY
	} else if err != nil {
		return err
	}
	g, err := c.GetInt(arg)
	if err != nil {
		return err
	}
	return t.setGroup(task(c), g)
}

func (t *TTY) getTermios(c *vfs.Caller, req uint32, arg uint64) (err error) {
	t.mu.Lock()
	set := t.d.set
	t.mu.Unlock()
	if req == linux.TCGETA {
		b := encodeOld(&set)
		_, err = c.Mem.CopyOut(arg, b[:])
		return err
	}
	b := encode(&set)
	n := linux.TermiosSize
	if req == linux.TCGETS2 {
		n = linux.Termios2Size
	}
	_, err = c.Mem.CopyOut(arg, b[:n])
	return err
}

func (t *TTY) setTermios(c *vfs.Caller, req uint32, arg uint64) error {
	if err := t.mayChange(c, linux.SIGTTOU); err != nil {
		return err
	}
	var b [linux.Termios2Size]byte
	n := linux.TermiosSize
	drain, flush := false, false
	switch req {
	case linux.TCSETS2, linux.TCSETSW2, linux.TCSETSF2:
		n = linux.Termios2Size
	case linux.TCSETA, linux.TCSETAW, linux.TCSETAF:
		n = linux.TermioSize
	}
	switch req {
	case linux.TCSETSF, linux.TCSETSF2, linux.TCSETAF:
		drain, flush = true, true
	case linux.TCSETSW, linux.TCSETSW2, linux.TCSETAW:
		drain = true
	}
	if _, err := c.Mem.CopyIn(b[:n], arg); err != nil {
		return err
	}
	if drain {
		if err := t.drain(c); err != nil {
			return err
		}
	}
	t.mu.Lock()
	if flush {
		t.d.flushIn()
	}
	set := t.d.set
	if n == linux.TermioSize {
		decodeOld(&set, b[:n])
	} else {
		decode(&set, b[:n])
	}
	t.apply(set)
	return nil
}

// apply changes the settings, with mu held, and releases it.
func (t *TTY) apply(set linux.Termios) {
	setSpeeds(&set)
	if t.kind == kindPTY {
		set.Cflag = set.Cflag&^(linux.CSIZE|linux.PARENB) | linux.CS8 | linux.CREAD
	}
	old := t.d.set
	t.d.setTermios(set)
	if was, is := standardFlow(&old), standardFlow(&set); was != is {
		t.status &^= linux.TIOCPKT_DOSTOP | linux.TIOCPKT_NOSTOP
		if is {
			t.report(linux.TIOCPKT_DOSTOP)
		} else {
			t.report(linux.TIOCPKT_NOSTOP)
		}
	}
	if (old.Lflag|set.Lflag)&linux.EXTPROC != 0 {
		t.report(linux.TIOCPKT_IOCTL)
	}
	ev := t.refill()
	t.done(wait.Readable|wait.Writable, ev)
}

// standardFlow tells whether ^S and ^Q stop and start the output, which a master in packet mode may do itself.
func standardFlow(t *linux.Termios) bool {
	return t.Iflag&linux.IXON != 0 && t.CC[linux.VSTOP] == 'S'-'@' && t.CC[linux.VSTART] == 'Q'-'@'
}

// flow is tcflow(3) and tcflush(3).
func (t *TTY) flow(c *vfs.Caller, req uint32, arg uint64) error {
	if err := t.mayChange(c, linux.SIGTTOU); err != nil {
		return err
	}
	t.mu.Lock()
	if req == linux.TCFLSH {
		return t.flush(arg)
	}
	var q wait.Events
	switch arg {
	case linux.TCOOFF:
		t.d.hold(true)
	case linux.TCOON:
		t.d.hold(false)
		q = wait.Writable
	case linux.TCIOFF, linux.TCION:
		i := linux.VSTOP
		if arg == linux.TCION {
			i = linux.VSTART
		}
		if b := t.d.set.CC[i]; b != 0 && t.d.out.room() > 0 {
			t.d.out.putc(b)
		}
	default:
		t.mu.Unlock()
		return linux.EINVAL
	}
	t.done(q, 0)
	return nil
}

// flush is tcflush(3), with mu held, which it releases.
func (t *TTY) flush(arg uint64) error {
	if arg > linux.TCIOFLUSH {
		t.mu.Unlock()
		return linux.EINVAL
	}
	var q, other wait.Events
	if arg != linux.TCOFLUSH {
		t.d.flushIn()
		t.pending.truncate(0)
		other = wait.Writable
	}
	if arg != linux.TCIFLUSH {
		t.d.sent = t.d.out.n
		t.d.flushOut()
		q = wait.Writable
	}
	t.done(q, other)
	return nil
}

// Size is the size of the window.
func (t *TTY) Size() linux.Winsize {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.win
}

// Resize sets the size of the window. If it changed, the foreground process group gets SIGWINCH.
func (t *TTY) Resize(w linux.Winsize) {
	t.mu.Lock()
	changed := t.win != w
	t.win = w
	group := t.group
	t.mu.Unlock()
	if changed && group != 0 {
		t.sys.jobs.SignalGroup(group, linux.SIGWINCH)
	}
}
