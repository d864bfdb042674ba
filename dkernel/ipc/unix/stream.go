package unix

import (
	"dinos/dkernel/ipc/socket"
	"dinos/dkernel/uio"
	"dinos/dkernel/vfs"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

// maxPiece is how many bytes of a stream one packet has.
const maxPiece = 36544

// Read implements vfs.File.
func (s *sock) Read(c *vfs.Caller, d *vfs.Description, io *uio.IO, _ *int64) (int64, error) {
	if io.Len() == 0 {
		return 0, nil
	}
	m := socket.NewMessage(0)
	n, err := s.recv(c, d, io, m)
	m.Free()
	return n, err
}

// Write implements vfs.File.
func (s *sock) Write(c *vfs.Caller, d *vfs.Description, io *uio.IO, _ *int64) (int64, error) {
	m := socket.NewMessage(0)
	n, err := s.send(c, d, io, m)
	m.Free()
	return n, err
}

// Send implements socket.Socket.
func (s *sock) Send(c *vfs.Caller, d *vfs.Description, m *socket.Message) (int64, error) {
	return s.send(c, d, &m.IO, m)
}

// Recv implements socket.Socket.
func (s *sock) Recv(c *vfs.Caller, d *vfs.Description, m *socket.Message) (int64, error) {
	return s.recv(c, d, &m.IO, m)
}

func (s *sock) send(c *vfs.Caller, d *vfs.Description, io *uio.IO, m *socket.Message) (n int64, err error) {
	var a ancillary
	if len(m.Control) > 0 {
		if a, err = s.parseControl(c, m.Control); err != nil {
			return 0, err
		}
	}
	switch {
	case m.Flags&linux.MSG_OOB != 0:
		err = linux.EOPNOTSUPP
	case s.ofPackets():
		n, err = s.sendPacket(c, d, io, m, &a)
	default:
		n, err = s.sendStream(c, d, io, m, &a)
		if err == linux.EPIPE && m.Flags&linux.MSG_NOSIGNAL == 0 {
			c.SendSignal(linux.SIGPIPE)
		}
	}
	if a.files != nil {
		a.release()
	}
	return n, err
}

func (s *sock) recv(c *vfs.Caller, d *vfs.Description, io *uio.IO, m *socket.Message) (int64, error) {
	if s.ofPackets() {
		return s.recvPacket(c, d, io, m)
	}
	return s.recvStream(c, d, io, m)
}

// mayAllocate tells whether s may have one more packet under way: linux.EAGAIN if there are too many; and what else keeps it from
// sending.
func (s *sock) mayAllocate() error {
	s.mu.Lock()
	e, shut := s.err, s.shut
	s.err = 0
	s.mu.Unlock()
	switch {
	case e != 0:
		return e
	case shut&shutWrite != 0:
		return linux.EPIPE
	}
	if send, _ := s.opt.Buffers(); s.sent.Load() < int64(send) {
		return nil
	}
	return linux.EAGAIN
}

// allocate waits for memory and fills a packet with n bytes of io.
func (s *sock) allocate(c *vfs.Caller, d *vfs.Description, io *uio.IO, m *socket.Message, n int) (*packet, error) {
	err := s.mayAllocate()
	if err == linux.EAGAIN {
		err = s.opt.Wait(sleeper(c, d, m), s.sys.now, &s.q, wait.Writable, true, s.mayAllocate)
	}
	if err != nil {
		return nil, err
	}
	p := newPacket(n)
	p.from, p.charge = s, s.charge(n)
	s.sent.Add(p.charge)
	if _, err := io.Read(p.data); err != nil {
		p.free(s.sys)
		return nil, err
	}
	return p, nil
}

func (s *sock) sendStream(c *vfs.Caller, d *vfs.Description, io *uio.IO, m *socket.Message, a *ancillary) (n int64, err error) {
	s.mu.Lock()
	peer, st, shut := s.peer, s.state, s.shut
	s.mu.Unlock()
	switch {
	case len(m.Name) > 0 && st == connected:
		return 0, linux.EISCONN
	case len(m.Name) > 0:
		return 0, linux.EOPNOTSUPP
	case peer == nil:
		return 0, linux.ENOTCONN
	case shut&shutWrite != 0:
		return 0, linux.EPIPE
	}
	for io.Len() > 0 {
		send, _ := s.opt.Buffers()
		size := int(min(io.Len(), int64(send/2-64), maxPiece))
		var p *packet
		if p, err = s.allocate(c, d, io, m, size); err != nil {
			break
		}
		s.attach(c, p, a, peer)
		peer.mu.Lock()
		if peer.dead || peer.shut&shutRead != 0 {
			peer.mu.Unlock()
			p.free(s.sys)
			err = linux.EPIPE
			break
		}
		peer.enqueue(p)
		peer.mu.Unlock()
		peer.q.Wake(wait.Readable)
		n += int64(size)
	}
	if n > 0 {
		err = nil
	}
	return n, err
}

// reader is a receive from a stream.
type reader struct {
	s      *sock
	c      *vfs.Caller
	io     *uio.IO
	m      *socket.Message
	n      int64
	target int64 // it waits for as much
	peek   bool
	done   bool // it does not go on even if there is more
	known  bool // cred is known
	cred   linux.Ucred
	files  []*vfs.Description
}

func (s *sock) recvStream(c *vfs.Caller, d *vfs.Description, io *uio.IO, m *socket.Message) (int64, error) {
	if m.Flags&linux.MSG_OOB != 0 {
		return 0, linux.EINVAL
	}
	s.mu.Lock()
	st := s.state
	s.mu.Unlock()
	if st != connected {
		return 0, linux.EINVAL
	}
	r := reader{s: s, c: c, io: io, m: m, peek: m.Flags&linux.MSG_PEEK != 0}
	r.target = io.Len()
	if m.Flags&linux.MSG_WAITALL == 0 {
		r.target = min(r.target, int64(s.opt.Lowat()))
	}
	r.target = max(r.target, 1)
	err := r.try()
	if err == linux.EAGAIN {
		if sl := sleeper(c, d, m); sl != nil {
			err = s.opt.Wait(sl, s.sys.now, &s.q, wait.Readable|wait.RdHup, false, r.try)
		}
	}
	if r.n > 0 {
		err = nil
	}
	if err == nil {
		s.give(c, m, r.cred, r.files)
	}
	return r.n, err
}

// try takes what there is: linux.EAGAIN if that is not enough.
func (r *reader) try() error {
	s := r.s
	for {
		s.read.Lock()
		err := r.take()
		s.read.Unlock()
		if err != nil || r.done || r.n >= r.target || r.io.Len() == 0 && r.n == 0 && s.some() {
			return err
		}
		s.mu.Lock()
		if s.head == nil {
			break
		}
		s.mu.Unlock() // it came this moment
	}
	defer s.mu.Unlock()
	switch {
	case s.err != 0:
		e := s.err
		s.err = 0
		return e
	case s.shut&shutRead != 0:
		return nil
	}
	return linux.EAGAIN
}

// some tells whether there is something to read.
func (s *sock) some() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.head != nil
}

// take moves what is in the queue to io. s.read is held.
func (r *reader) take() error {
	s := r.s
	wantsCred := s.opt.PassCred()
	var last *packet // of those that were looked at
	for {
		s.mu.Lock()
		p := s.head
		if last != nil {
			p = last.next
		}
		if p == nil || wantsCred && r.known && p.cred != r.cred {
			r.done = r.done || p != nil || r.peek && r.n > 0
			s.mu.Unlock()
			return nil
		}
		s.mu.Unlock()
		// Only who holds read moves p on or takes it out.
		want := int(min(int64(len(p.data)-p.off), r.io.Len()))
		if _, err := r.io.Write(p.data[p.off:][:want]); err != nil {
			return err
		}
		r.n += int64(want)
		r.known, r.cred = wantsCred, p.cred
		if len(r.m.Name) == 0 {
			r.m.Name = p.sender(r.m.Name)
		}
		if r.peek {
			s.mu.Lock()
			r.files = p.detach(true)
			s.mu.Unlock()
			last = p
		} else if !r.consume(p, want) {
			r.done = r.done || r.files != nil
			return nil
		}
		if r.files != nil {
			r.done = true
		}
		// Linux looks on for files when it peeks, even if it has all bytes.
		if r.done || r.io.Len() == 0 && !r.peek {
			return nil
		}
	}
}

// consume moves on in p by n bytes and tells whether it is used up.
func (r *reader) consume(p *packet, n int) bool {
	s := r.s
	s.mu.Lock()
	p.off += n
	r.files = p.detach(false)
	all := p.off == len(p.data)
	if all {
		s.dequeue()
	}
	s.mu.Unlock()
	if r.files != nil {
		s.sys.flight.land(r.files)
	}
	if all {
		p.free(s.sys)
	}
	return all
}
