package unix

import (
	"bytes"
	"fmt"

	"dinos/dkernel/ipc/socket"
	"dinos/dkernel/vfs"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

const (
	familySize = 2                                // of sun_family
	addrSize   = familySize + linux.UNIX_PATH_MAX // of struct sockaddr_un
)

// parse returns the name in an address: what is in sun_path, with a 0 in front for an abstract one, else up to the first 0.
func parse(addr []byte) (string, error) {
	if len(addr) <= familySize || len(addr) > addrSize || addr[0] != linux.AF_UNIX || addr[1] != 0 {
		return "", linux.EINVAL
	}
	path := addr[familySize:]
	if path[0] == 0 {
		return string(path), nil
	}
	if i := bytes.IndexByte(path, 0); i >= 0 {
		path = path[:i]
	}
	return string(path), nil
}

// address appends the address of a name to b.
func address(name string, b []byte) []byte {
	b = append(b, linux.AF_UNIX, 0)
	b = append(b, name...)
	if name != "" && name[0] != 0 {
		b = append(b, 0)
	}
	return b
}

// Bind implements socket.Socket.
func (s *sock) Bind(c *vfs.Caller, addr []byte) error {
	if len(addr) == familySize && addr[0] == linux.AF_UNIX && addr[1] == 0 {
		return s.autobind()
	}
	name, err := parse(addr)
	if err != nil {
		return err
	}
	s.mu.Lock()
	bound := s.name != ""
	s.mu.Unlock()
	if bound {
		return linux.EINVAL
	}
	if name[0] == 0 {
		return s.bindAbstract(name)
	}
	if err := c.BindSocket(name, 0o777, s); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.name != "" {
		return linux.EINVAL // somebody else was faster; the name stays, as on Linux
	}
	s.name = name
	return nil
}

func (s *sock) bindAbstract(name string) error {
	n := &s.sys.names
	n.mu.Lock()
	defer n.mu.Unlock()
	k := abstractName{s.typ, name}
	if n.abstract[k] != nil {
		return linux.EADDRINUSE
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.name != "" {
		return linux.EINVAL
	}
	s.name = name
	n.abstract[k] = s
	return nil
}

// autobind gives the socket a name that nobody has, unless it has one: five hexadecimal digits.
func (s *sock) autobind() error {
	for range 1 << 20 {
		s.mu.Lock()
		bound := s.name != ""
		s.mu.Unlock()
		if bound {
			return nil
		}
		n := &s.sys.names
		n.mu.Lock()
		n.next = (n.next + 1) & 0xfffff
		name := fmt.Sprintf("\x00%05x", n.next)
		n.mu.Unlock()
		if err := s.bindAbstract(name); err != linux.EADDRINUSE {
			return nil
		}
	}
	return linux.ENOSPC
}

// find returns the socket of a name, of the type of s.
func (s *sock) find(c *vfs.Caller, name string) (*sock, error) {
	var k *sock
	if name[0] == 0 {
		n := &s.sys.names
		n.mu.Lock()
		k = n.abstract[abstractName{s.typ, name}]
		n.mu.Unlock()
		if k == nil {
			return nil, linux.ECONNREFUSED
		}
	} else {
		x, err := c.LookupSocket(name)
		if err != nil {
			return nil, err
		}
		var ok bool
		if k, ok = x.(*sock); !ok || k.sys != s.sys {
			return nil, linux.ECONNREFUSED
		}
	}
	k.mu.Lock()
	dead := k.dead
	k.mu.Unlock()
	if dead {
		return nil, linux.ECONNREFUSED
	}
	if k.typ != s.typ {
		return nil, linux.EPROTOTYPE
	}
	return k, nil
}

// Listen implements socket.Socket.
func (s *sock) Listen(c *vfs.Caller, backlog int) error {
	if s.typ == linux.SOCK_DGRAM {
		return linux.EOPNOTSUPP
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.name == "" || s.state == connected {
		return linux.EINVAL
	}
	grew := backlog > s.backlog
	s.state, s.backlog = listening, backlog
	s.cred, s.peerCred = credOf(c), credOf(c)
	s.groups = c.Cred.Groups
	if grew {
		s.room.Wake(wait.Writable)
	}
	return nil
}

// Connect implements socket.Socket.
func (s *sock) Connect(c *vfs.Caller, d *vfs.Description, addr []byte) error {
	if s.typ == linux.SOCK_DGRAM {
		return s.connectDatagram(c, addr)
	}
	name, err := parse(addr)
	if err != nil {
		return err
	}
	if s.opt.PassCred() {
		if err := s.autobind(); err != nil {
			return err
		}
	}
	sl := d.Sleeper(c)
	for {
		to, err := s.find(c, name)
		if err != nil {
			return err
		}
		again := false
		err = s.opt.Wait(sl, s.sys.now, &to.room, wait.Writable, true, func() error {
			err := s.connect(c, to)
			if err == errGone {
				again, err = true, nil
			}
			return err
		})
		if err != nil || !again {
			return err
		}
	}
}

// errGone says that a socket was closed while somebody wanted to connect to it; another one may have its name.
const errGone = linux.ESTALE

// connect makes a connection that waits to be accepted by to: linux.EAGAIN if there are too many.
func (s *sock) connect(c *vfs.Caller, to *sock) error {
	s.sys.link.Lock()
	defer s.sys.link.Unlock()
	s.mu.Lock()
	st := s.state
	s.mu.Unlock()
	to.mu.Lock()
	switch {
	case to.dead:
		to.mu.Unlock()
		return errGone
	case to.state != listening || to.shut&shutRead != 0:
		to.mu.Unlock()
		return linux.ECONNREFUSED
	case len(to.pending) > to.backlog:
		to.mu.Unlock()
		return linux.EAGAIN
	case st == connected:
		to.mu.Unlock()
		return linux.EISCONN
	case st == listening:
		to.mu.Unlock()
		return linux.EINVAL
	}
	n := s.sys.newSock(s.typ)
	n.state, n.peer, n.name = connected, s, to.name
	n.cred, n.peerCred, n.groups = to.cred, credOf(c), c.Cred.Groups
	if to.opt.PassCred() {
		_, _ = n.opt.Set(c, linux.SO_PASSCRED, socket.Int(1))
	}
	to.pending = append(to.pending, n)
	cr, groups := to.cred, to.groups
	to.mu.Unlock()
	s.mu.Lock()
	s.state, s.peer = connected, n
	s.cred, s.peerCred, s.groups = credOf(c), cr, groups
	s.mu.Unlock()
	to.q.Wake(wait.Readable)
	s.q.Wake(wait.Writable)
	return nil
}

// connectDatagram sets the peer, or with an address of no family none.
func (s *sock) connectDatagram(c *vfs.Caller, addr []byte) error {
	if len(addr) < familySize {
		return linux.EINVAL
	}
	var to *sock
	if addr[0] != linux.AF_UNSPEC || addr[1] != 0 {
		name, err := parse(addr)
		if err != nil {
			return err
		}
		if s.opt.PassCred() {
			if err := s.autobind(); err != nil {
				return err
			}
		}
		if to, err = s.find(c, name); err != nil {
			return err
		}
	}
	s.sys.link.Lock()
	defer s.sys.link.Unlock()
	if to != nil {
		to.mu.Lock()
		dead, taken := to.dead, to.peer != nil && to.peer != s
		if !dead && !taken {
			if to.clients == nil {
				to.clients = map[*sock]struct{}{}
			}
			to.clients[s] = struct{}{}
		}
		to.mu.Unlock()
		switch {
		case dead:
			return linux.ECONNREFUSED
		case taken:
			return linux.EPERM
		}
	}
	s.mu.Lock()
	old := s.peer
	s.peer = to
	if to != nil {
		s.state = connected
	} else {
		s.state = closed
	}
	s.mu.Unlock()
	if old != nil && old != to {
		old.forget(s)
		s.drop(old)
	}
	s.q.Wake(wait.Writable)
	return nil
}

// forget notes that by, a datagram socket, has another peer now.
func (s *sock) forget(by *sock) {
	s.mu.Lock()
	delete(s.clients, by)
	s.mu.Unlock()
}

// drop is what happens to s, a datagram socket, when it is no longer connected to old: what came from there is gone, and the other
// side gets an error if it still is connected.
func (s *sock) drop(old *sock) {
	s.read.Lock()
	s.mu.Lock()
	p := s.empty()
	s.mu.Unlock()
	s.read.Unlock()
	if p == nil {
		return
	}
	p.freeAll(s.sys)
	old.mu.Lock()
	if !old.dead && old.peer == s {
		old.err = linux.ECONNRESET
	}
	old.mu.Unlock()
	old.q.Wake(wait.Err)
	s.hasRoom()
}

// Accept implements socket.Socket.
func (s *sock) Accept(c *vfs.Caller, d *vfs.Description) (socket.Socket, error) {
	if s.typ == linux.SOCK_DGRAM {
		return nil, linux.EOPNOTSUPP
	}
	sl := d.Sleeper(c)
	var n *sock
	err := s.opt.Wait(sl, s.sys.now, &s.q, wait.Readable, false, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case s.state != listening:
			return linux.EINVAL
		case len(s.pending) > 0:
			n = s.pending[0]
			s.pending[0] = nil
			s.pending = s.pending[1:]
			return nil
		case s.shut&shutRead != 0 && sl != nil:
			return linux.EINVAL
		}
		return linux.EAGAIN
	})
	if err != nil {
		return nil, err
	}
	s.room.Wake(wait.Writable)
	return n, nil
}

// Name implements socket.Socket.
func (s *sock) Name(_ *vfs.Caller, peer bool, b []byte) ([]byte, error) {
	s.mu.Lock()
	name, p := s.name, s.peer
	s.mu.Unlock()
	if peer {
		if p == nil {
			return nil, linux.ENOTCONN
		}
		p.mu.Lock()
		name = p.name
		p.mu.Unlock()
	}
	return address(name, b), nil
}

// Shutdown implements socket.Socket.
func (s *sock) Shutdown(_ *vfs.Caller, how int) error {
	mode := uint8(how + 1)
	s.mu.Lock()
	s.shut |= mode
	peer := s.peer
	s.mu.Unlock()
	s.q.Wake(wait.Readable | wait.Writable | wait.RdHup | wait.Hup)
	s.room.Wake(wait.Writable)
	if peer == nil || s.typ == linux.SOCK_DGRAM {
		return nil
	}
	var theirs uint8
	if mode&shutRead != 0 {
		theirs |= shutWrite
	}
	if mode&shutWrite != 0 {
		theirs |= shutRead
	}
	peer.mu.Lock()
	peer.shut |= theirs
	peer.mu.Unlock()
	peer.q.Wake(wait.Readable | wait.Writable | wait.RdHup | wait.Hup)
	return nil
}

// Release implements vfs.File.
func (s *sock) Release(*vfs.Description) {
	s.release()
	s.sys.flight.collect()
}

// release closes the socket: its name is free, its peer hears of it.
func (s *sock) release() {
	s.sys.link.Lock()
	s.mu.Lock()
	s.dead, s.shut = true, shutBoth
	name, peer := s.name, s.peer
	unread := s.head
	if unread != nil && unread.off == len(unread.data) {
		unread = unread.next // an empty packet is not missed, if it is the first
	}
	p := s.empty()
	pending, clients := s.pending, s.clients
	s.pending, s.clients, s.peer = nil, nil, nil
	if s.state == connected {
		s.state = closed
	}
	s.mu.Unlock()
	if name != "" && name[0] == 0 {
		n := &s.sys.names
		n.mu.Lock()
		if k := (abstractName{s.typ, name}); n.abstract[k] == s { // not just one that was accepted by who has it
			delete(n.abstract, k)
		}
		n.mu.Unlock()
	}
	if peer != nil {
		s.part(peer, unread != nil)
	}
	s.sys.link.Unlock()
	for k := range clients {
		k.q.Wake(wait.Writable) // sending fails now
	}
	s.room.Wake(wait.Writable)
	for _, k := range pending {
		k.refuse()
	}
	p.freeAll(s.sys)
}

// part tells the peer of a socket that closes, with System.link held. reset says that something it sent was not read.
func (s *sock) part(peer *sock, reset bool) {
	if s.typ == linux.SOCK_DGRAM {
		peer.forget(s)
		return
	}
	peer.mu.Lock()
	peer.shut = shutBoth
	if reset {
		peer.err = linux.ECONNRESET
	}
	peer.mu.Unlock()
	peer.q.Wake(wait.Readable | wait.Writable | wait.RdHup | wait.Hup | wait.Err)
}

// refuse closes a connection that was never accepted.
func (s *sock) refuse() {
	s.sys.link.Lock()
	s.mu.Lock()
	peer := s.peer
	s.mu.Unlock()
	if peer != nil {
		s.part(peer, true)
	}
	s.sys.link.Unlock()
	s.mu.Lock()
	p := s.empty()
	s.dead, s.shut = true, shutBoth
	s.mu.Unlock()
	p.freeAll(s.sys)
}
