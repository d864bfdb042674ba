package unix

import (
	"dinos/dkernel/ipc/socket"
	"dinos/dkernel/uio"
	"dinos/dkernel/vfs"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

// destination is where a message goes: to the address it has, or to the peer.
func (s *sock) destination(c *vfs.Caller, m *socket.Message) (*sock, error) {
	s.mu.Lock()
	peer, st := s.peer, s.state
	s.mu.Unlock()
	if s.typ == linux.SOCK_SEQPACKET {
		if st != connected {
			return nil, linux.ENOTCONN
		}
		return peer, nil
	}
	if len(m.Name) > 0 {
		name, err := parse(m.Name)
		if err != nil {
			return nil, err
		}
		return s.find(c, name)
	}
	if peer == nil {
		return nil, linux.ENOTCONN
	}
	return peer, nil
}

func (s *sock) sendPacket(c *vfs.Caller, d *vfs.Description, io *uio.IO, m *socket.Message, a *ancillary) (int64, error) {
	n := io.Len()
	if s.typ == linux.SOCK_SEQPACKET {
		if _, err := s.destination(c, m); err != nil {
			return 0, err
		}
	}
	if send, _ := s.opt.Buffers(); n > int64(send)-32 {
		return 0, linux.EMSGSIZE
	}
	if s.opt.PassCred() {
		if err := s.autobind(); err != nil {
			return 0, err
		}
	}
	p, err := s.allocate(c, d, io, m, int(n))
	if err != nil {
		return 0, err
	}
	to, err := s.destination(c, m)
	if err != nil {
		p.free(s.sys)
		return 0, err
	}
	s.attach(c, p, a, to)
	err = s.deliver(p, to)
	for err == linux.EAGAIN || err == errGone {
		if err == errGone {
			// Its name may be another socket's by now.
			if to, err = s.destination(c, m); err == nil {
				err = s.deliver(p, to)
			}
			continue
		}
		sl := sleeper(c, d, m)
		if sl == nil {
			break
		}
		if err = s.opt.Wait(sl, s.sys.now, &to.room, wait.Writable, true, func() error { return s.deliver(p, to) }); err == linux.EAGAIN {
			break
		}
	}
	if err != nil {
		p.free(s.sys)
		return 0, err
	}
	return n, nil
}

// deliver puts a message into the queue of to: linux.EAGAIN if that is full, errGone if to was closed and s is not connected to it.
func (s *sock) deliver(p *packet, to *sock) error {
	to.mu.Lock()
	switch {
	case to.dead:
		to.mu.Unlock()
		if s.typ == linux.SOCK_SEQPACKET {
			return linux.EPIPE
		}
		return s.refused(to)
	case s.typ == linux.SOCK_DGRAM && to.peer != nil && to.peer != s:
		to.mu.Unlock()
		return linux.EPERM
	case to.shut&shutRead != 0:
		to.mu.Unlock()
		return linux.EPIPE
	case to != s && to.peer != s && to.count > queueLimit:
		to.mu.Unlock()
		return linux.EAGAIN
	}
	to.enqueue(p)
	to.mu.Unlock()
	to.q.Wake(wait.Readable)
	return nil
}

// refused disconnects s from a datagram socket that was closed: linux.ECONNREFUSED, or errGone if it was not connected to it.
func (s *sock) refused(to *sock) error {
	s.sys.link.Lock()
	s.mu.Lock()
	was := s.peer == to
	if was {
		s.peer, s.state = nil, closed
	}
	s.mu.Unlock()
	s.sys.link.Unlock()
	if !was {
		return errGone
	}
	s.drop(to)
	return linux.ECONNREFUSED
}

// hasRoom tells those who wait for room in the queue, and those who poll for it.
func (s *sock) hasRoom() {
	s.room.Wake(wait.Writable)
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.clients {
		if k != s.peer {
			k.q.Wake(wait.Writable | wait.WrBand)
		}
	}
}

func (s *sock) recvPacket(c *vfs.Caller, d *vfs.Description, io *uio.IO, m *socket.Message) (int64, error) {
	if m.Flags&linux.MSG_OOB != 0 {
		return 0, linux.EOPNOTSUPP
	}
	s.mu.Lock()
	st := s.state
	s.mu.Unlock()
	if s.typ == linux.SOCK_SEQPACKET && st != connected {
		return 0, linux.ENOTCONN
	}
	sl := sleeper(c, d, m)
	if m.Flags&linux.MSG_PEEK != 0 {
		return s.peekPacket(c, io, m, sl)
	}
	var p *packet
	wake := false
	try := func() (err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.head == nil || s.err != 0 {
			return s.nothing(sl != nil)
		}
		wake = s.count > queueLimit
		p = s.dequeue()
		return nil
	}
	s.read.Lock() // not in the middle of a peek
	err := try()
	s.read.Unlock()
	if err == linux.EAGAIN {
		err = s.opt.Wait(sl, s.sys.now, &s.q, wait.Readable|wait.RdHup, false, func() error {
			s.read.Lock()
			defer s.read.Unlock()
			return try()
		})
	}
	if err != nil || p == nil {
		return 0, err
	}
	if wake {
		s.hasRoom()
	} else {
		s.room.Wake(wait.Writable)
	}
	files := p.detach(false) // it is ours alone
	if files != nil {
		s.sys.flight.land(files)
	}
	n, err := s.open(c, p, io, m, files)
	p.free(s.sys)
	return n, err
}

// nothing is what a receive says if the queue is empty, or there is an error, which goes first. mu is held. nil is the end.
func (s *sock) nothing(waits bool) error {
	if e := s.err; e != 0 {
		s.err = 0
		return e
	}
	if s.shut&shutRead != 0 && (waits || s.typ == linux.SOCK_SEQPACKET) {
		return nil
	}
	return linux.EAGAIN
}

// open copies a message to the program. files are those that came with it.
func (s *sock) open(c *vfs.Caller, p *packet, io *uio.IO, m *socket.Message, files []*vfs.Description) (int64, error) {
	size := int64(len(p.data))
	n := min(size, io.Len())
	if n < size {
		m.Out |= linux.MSG_TRUNC
	}
	if _, err := io.Write(p.data[:n]); err != nil {
		for _, f := range files {
			f.Unref()
		}
		return 0, err
	}
	m.Name = p.sender(m.Name)
	s.give(c, m, p.cred, files)
	if m.Flags&linux.MSG_TRUNC != 0 {
		n = size
	}
	return n, nil
}

// peekPacket looks at the first message and leaves it.
func (s *sock) peekPacket(c *vfs.Caller, io *uio.IO, m *socket.Message, sl *wait.Sleeper) (n int64, err error) {
	try := func() error {
		s.read.Lock()
		defer s.read.Unlock()
		s.mu.Lock()
		p := s.head
		if p == nil || s.err != 0 {
			err := s.nothing(sl != nil)
			s.mu.Unlock()
			return err
		}
		files := p.detach(true)
		s.mu.Unlock()
		var err error
		n, err = s.open(c, p, io, m, files)
		return err
	}
	err = s.opt.Wait(sl, s.sys.now, &s.q, wait.Readable|wait.RdHup, false, try)
	return n, err
}
