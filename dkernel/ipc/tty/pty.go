package tty

import (
	"strconv"

	"dinos/dkernel/uio"
	"dinos/dkernel/vfs"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

// master is the other side of a pseudo terminal, as a file.
type master struct{ t *TTY }

// openMaster opens /dev/ptmx: each time a new pseudo terminal, whose other half is locked.
func (s *System) openMaster(c *vfs.Caller, d *vfs.Description, _ *vfs.Inode, _ uint32) (vfs.File, error) {
	s.mu.Lock()
	num := 0
	for num < len(s.ptys) && s.ptys[num] != nil {
		num++
	}
	if num == MaxPTY {
		s.mu.Unlock()
		return nil, linux.ENOSPC
	}
	t := s.newTTY(kindPTY, num, vfs.MkDev(majorPTS, uint32(num)))
	t.locked = true
	if num == len(s.ptys) {
		s.ptys = append(s.ptys, nil)
	}
	s.ptys[num] = t
	s.mu.Unlock()
	d.SetStream()
	if s.added != nil {
		s.added(c, num, t.dev)
	}
	return master{t}, nil
}

// Number, Unlock and Resize are for the kernel that runs a program on a pseudo terminal: TIOCGPTN, TIOCSPTLCK and TIOCSWINSZ.

// Number is the N of /dev/pts/N.
func (m master) Number() int { return m.t.num }

// Unlock lets the programs' side be opened.
func (m master) Unlock() {
	m.t.mu.Lock()
	m.t.locked = false
	m.t.mu.Unlock()
}

// Resize sets the size of the window.
func (m master) Resize(w linux.Winsize) { m.t.Resize(w) }

// PTY is the pseudo terminal of number num, or nil (for /dev/pts).
func (s *System) PTY(num int) *TTY {
	s.mu.Lock()
	defer s.mu.Unlock()
	if uint(num) >= uint(len(s.ptys)) {
		return nil
	}
	return s.ptys[num]
}

// free gives back the number of t.
func (s *System) free(t *TTY) {
	s.mu.Lock()
	s.ptys[t.num] = nil
	s.mu.Unlock()
}

// Release implements vfs.File: the programs' side is hung up.
func (m master) Release(*vfs.Description) {
	t := m.t
	t.mu.Lock()
	t.orphaned = true
	t.packet, t.status = false, 0
	last := t.opens == 0
	t.mu.Unlock()
	t.q.Wake(wait.Readable | wait.Writable | wait.Hup)
	if t.sys.removed != nil {
		t.sys.removed(t.num)
	}
	t.hangUp(false)
	if last {
		t.sys.free(t)
	}
}

// Read implements vfs.File. Errors: linux.EIO when all programs have closed the other side.
func (m master) Read(c *vfs.Caller, d *vfs.Description, io *uio.IO, _ *int64) (int64, error) {
	if io.Len() == 0 {
		return 0, nil
	}
	chunk := chunks.Get().(*[inSize]byte)
	p := chunk[:min(int64(len(chunk)), io.Len())]
	n := 0
	err := d.Sleeper(c).Until(&m.t.other, wait.Readable, wait.Forever, func() (err error) {
		n, err = m.t.masterRead(p)
		return err
	})
	if err == nil {
		n, err = io.Write(p[:n])
		if n > 0 {
			err = nil
		}
	}
	chunks.Put(chunk)
	return int64(n), err
}

func (t *TTY) masterRead(p []byte) (int, error) {
	t.mu.Lock()
	header := 0
	if t.packet {
		if t.status != 0 {
			p[0], t.status = t.status, 0
			t.mu.Unlock()
			return 1, nil
		}
		if t.d.out.n > 0 {
			p[0], header = linux.TIOCPKT_DATA, 1
		}
	}
	if t.d.out.n == 0 {
		defer t.mu.Unlock()
		if t.alone {
			return 0, linux.EIO
		}
		return 0, linux.EAGAIN
	}
	n := header + t.d.out.take(p[header:])
	t.d.putEcho()
	t.done(wait.Writable, 0)
	return n, nil
}

// Write implements vfs.File.
func (m master) Write(c *vfs.Caller, d *vfs.Description, io *uio.IO, _ *int64) (n int64, err error) {
	s := d.Sleeper(c)
	chunk := chunks.Get().(*[inSize]byte)
	for io.Len() > 0 && err == nil {
		var k, w int
		if k, err = io.Read(chunk[:writeChunk]); err != nil {
			break
		}
		err = s.Until(&m.t.other, wait.Writable, wait.Forever, func() error {
			w += m.t.input(chunk[w:k])
			if w < k {
				return linux.EAGAIN
			}
			return nil
		})
		n += int64(w)
	}
	chunks.Put(chunk)
	if n > 0 {
		err = nil
	}
	return n, err
}

// Poll implements vfs.File.
func (m master) Poll(*vfs.Description) (ev wait.Events) {
	t := m.t
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.d.out.n > 0 {
		ev |= wait.Readable
	}
	if t.status != 0 {
		ev |= wait.Readable | wait.Pri
	}
	if t.alone {
		ev |= wait.Hup
	}
	if t.pending.room() > 0 {
		ev |= wait.Writable
	}
	return ev
}

// Queue implements vfs.File.
func (m master) Queue(*vfs.Description) *wait.Queue { return &m.t.other }

// Ioctl implements vfs.File.
func (m master) Ioctl(c *vfs.Caller, d *vfs.Description, req uint32, arg uint64) (uint64, error) {
	t := m.t
	switch req {
	case linux.TIOCGPTN:
		return 0, c.PutInt(arg, int32(t.num))
	case linux.TIOCSPTLCK, linux.TIOCPKT:
		on, err := c.GetInt(arg)
		if err != nil {
			return 0, err
		}
		t.mu.Lock()
		if req == linux.TIOCSPTLCK {
			t.locked = on != 0
		} else if t.packet != (on != 0) {
			t.packet, t.status = on != 0, 0
		}
		t.mu.Unlock()
		return 0, nil
	case linux.TIOCGPTLCK, linux.TIOCGPKT:
		t.mu.Lock()
		on := t.locked
		if req == linux.TIOCGPKT {
			on = t.packet
		}
		t.mu.Unlock()
		return 0, c.PutInt(arg, flagInt(on))
	case linux.FIONREAD:
		t.mu.Lock()
		n := t.d.out.n
		t.mu.Unlock()
		return 0, c.PutInt(arg, int32(n))
	case linux.TIOCGDEV:
		return 0, c.PutInt(arg, int32(vfs.MkDev(majorTTY, minorPTMX)))
	case linux.TCFLSH:
		return 0, m.flush(arg)
	case linux.TIOCSIG:
		return 0, m.signal(arg)
	case linux.TIOCSETD:
		return 0, setDiscipline(c, arg)
	case linux.TCSBRK, linux.TCSBRKP, linux.TIOCSBRK, linux.TIOCCBRK:
		return 0, nil // what was written has left
	case linux.TIOCGPTPEER:
		return t.openPeer(c, uint32(arg))
	}
	return t.common(c, req, arg)
}

// flush is tcflush(3) of the master: what it has not read, or what the programs have not.
func (m master) flush(arg uint64) error {
	t := m.t
	if arg > linux.TCIOFLUSH {
		return linux.EINVAL
	}
	t.mu.Lock()
	var q, other wait.Events
	if arg != linux.TCOFLUSH {
		t.d.out.truncate(0)
		q = wait.Writable
	}
	if arg != linux.TCIFLUSH {
		t.pending.truncate(0)
		other = wait.Writable
	}
	t.done(q, other)
	return nil
}

// signal is TIOCSIG: the foreground process group gets a signal as if its character had been typed.
func (m master) signal(sig uint64) error {
	if sig != linux.SIGINT && sig != linux.SIGQUIT && sig != linux.SIGTSTP {
		return linux.EINVAL
	}
	if g := m.t.Group(); g != 0 {
		m.t.sys.jobs.SignalGroup(g, int(sig))
	}
	return nil
}

// openPeer is TIOCGPTPEER: a descriptor of the programs' side.
func (t *TTY) openPeer(c *vfs.Caller, flags uint32) (uint64, error) {
	d, err := c.Open(linux.AT_FDCWD, "/dev/pts/"+strconv.Itoa(t.num), flags, 0, 0)
	if err != nil {
		return 0, err
	}
	fd, err := c.Files.Install(d, 0, c.OpenLimit, flags&linux.O_CLOEXEC != 0)
	if err != nil {
		d.Unref()
		return 0, err
	}
	return uint64(fd), nil
}
