// Package unix is sockets of AF_UNIX: unix(7).
//
// A socket has a queue of what was sent to it, packets, which for streams are just pieces. Sending appends to the queue of the peer;
// how much may be under way is counted at the sender, so that it has to wait, as on Linux.
//
// Lock order: System.link, which guards who is whose peer and is held when that changes; then sock.read; then sock.mu, of one socket at a
// time. Program memory is touched with sock.read only, or none; files are released with none.
package unix

import (
	"sync"
	"sync/atomic"

	"dinos/dkernel/ipc/socket"
	"dinos/dkernel/vfs"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

// queueLimit is how many packets can wait at a datagram socket (net.unix.max_dgram_qlen).
const queueLimit = 10

// System is all sockets of AF_UNIX of a dkernel: its [socket.Family].
type System struct {
	now func() int64

	link sync.Mutex // guards peers: see the package

	names struct {
		mu       sync.Mutex
		abstract map[abstractName]*sock
		next     uint32 // of names that are made up
	}
	flight flight
}

// New makes a System. now is the clock of wait.Sleeper's deadlines, in ns.
func New(now func() int64) *System {
	s := &System{now: now}
	s.names.abstract = map[abstractName]*sock{}
	s.flight.files = map[*sock]*flying{}
	return s
}

// abstractName is a name that is no path, with its 0 in front. Each type of sockets has its own, as on Linux.
type abstractName struct {
	typ  int
	name string
}

type state uint8

const (
	closed state = iota // not connected; datagram sockets may still have a peer
	listening
	connected
)

// What of a connection was shut down.
const (
	shutRead  = 1
	shutWrite = 2
	shutBoth  = 3
)

// sock is a socket.
type sock struct {
	vfs.BaseFile
	opt  socket.Options
	sys  *System
	typ  int
	q    wait.Queue   // its users
	room wait.Queue   // others who wait for room in its queue
	sent atomic.Int64 // memory of what it sent and nobody has received

	read sync.Mutex // held while a packet is copied out: see the package

	mu       sync.Mutex // guards all below; peer is changed with System.link held as well
	state    state
	shut     uint8
	dead     bool
	err      linux.Errno // reported once, 0 for none
	peer     *sock
	clients  map[*sock]struct{} // datagram sockets whose peer this is
	name     string             // as in struct sockaddr_un; empty: none
	head     *packet
	tail     *packet
	count    int // packets in the queue
	backlog  int
	pending  []*sock // connections that were not accepted
	cred     linux.Ucred
	peerCred linux.Ucred
	groups   []uint32 // of the peer
}

var noCred = linux.Ucred{UID: ^uint32(0), GID: ^uint32(0)}

func credOf(c *vfs.Caller) linux.Ucred {
	return linux.Ucred{PID: c.PID, UID: c.Cred.EUID, GID: c.Cred.EGID}
}

func (s *System) newSock(typ int) *sock {
	k := &sock{sys: s, typ: typ, peerCred: noCred}
	k.opt.Init()
	return k
}

// Create implements socket.Family.
func (s *System) Create(_ *vfs.Caller, typ, protocol int) (socket.Socket, error) {
	if protocol != 0 && protocol != linux.AF_UNIX {
		return nil, linux.EPROTONOSUPPORT
	}
	switch typ {
	case linux.SOCK_RAW: // as on Linux
		typ = linux.SOCK_DGRAM
	case linux.SOCK_STREAM, linux.SOCK_DGRAM, linux.SOCK_SEQPACKET:
	default:
		return nil, linux.ESOCKTNOSUPPORT
	}
	return s.newSock(typ), nil
}

// Pair implements socket.Family.
func (s *System) Pair(c *vfs.Caller, typ, protocol int) (socket.Socket, socket.Socket, error) {
	x, err := s.Create(c, typ, protocol)
	if err != nil {
		return nil, nil, err
	}
	a := x.(*sock)
	b := s.newSock(a.typ)
	a.peer, b.peer = b, a
	if a.typ != linux.SOCK_DGRAM {
		a.state, b.state = connected, connected
	} else {
		a.clients, b.clients = map[*sock]struct{}{b: {}}, map[*sock]struct{}{a: {}}
	}
	a.cred, b.cred = credOf(c), credOf(c)
	a.peerCred, b.peerCred = b.cred, a.cred
	a.groups, b.groups = c.Cred.Groups, c.Cred.Groups
	return a, b, nil
}

// sleeper is what an operation sleeps with, nil if it may not.
func sleeper(c *vfs.Caller, d *vfs.Description, m *socket.Message) *wait.Sleeper {
	if m.Nonblock(d) {
		return nil
	}
	return c.Sleeper
}

// ofPackets tells that the socket keeps the bounds of messages.
func (s *sock) ofPackets() bool { return s.typ != linux.SOCK_STREAM }

// Queue implements vfs.File.
func (s *sock) Queue(*vfs.Description) *wait.Queue { return &s.q }

// writable tells whether so little is under way that a program should write more.
func (s *sock) writable() bool {
	send, _ := s.opt.Buffers()
	return (s.sent.Load()+1)*4 <= int64(send) // Linux counts from 1
}

// Poll implements vfs.File.
func (s *sock) Poll(*vfs.Description) (ev wait.Events) {
	s.mu.Lock()
	if s.err != 0 {
		ev |= wait.Err
	}
	if s.shut == shutBoth {
		ev |= wait.Hup
	}
	if s.shut&shutRead != 0 {
		ev |= wait.RdHup | wait.Readable
	}
	if s.head != nil || len(s.pending) > 0 {
		ev |= wait.Readable
	}
	if s.typ != linux.SOCK_DGRAM && s.state == closed {
		ev |= wait.Hup
	}
	writes := s.state != listening
	peer := s.peer
	s.mu.Unlock()
	if !writes || !s.writable() {
		return ev
	}
	if s.typ == linux.SOCK_DGRAM && peer != nil && peer.crowded(s) {
		return ev
	}
	return ev | wait.Writable | wait.WrBand
}

// crowded tells whether by cannot send to s, a datagram socket, for now. Two that are each other's peers have only the limit of memory.
func (s *sock) crowded(by *sock) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.peer != by && s.count > queueLimit
}

// Ioctl implements vfs.File: SIOCINQ and SIOCOUTQ.
func (s *sock) Ioctl(c *vfs.Caller, _ *vfs.Description, req uint32, arg uint64) (uint64, error) {
	n := 0
	switch req {
	case linux.FIONREAD:
		s.mu.Lock()
		if s.state == listening {
			s.mu.Unlock()
			return 0, linux.EINVAL
		}
		for p := s.head; p != nil; p = p.next {
			n += len(p.data) - p.off
			if s.ofPackets() && s.typ != linux.SOCK_SEQPACKET {
				break
			}
		}
		s.mu.Unlock()
	case linux.TIOCOUTQ:
		n = int(s.sent.Load())
	case linux.SIOCATMARK:
	default:
		return 0, linux.ENOTTY
	}
	return 0, c.PutInt(arg, int32(n))
}

// Option implements socket.Socket.
func (s *sock) Option(_ *vfs.Caller, level, name int) ([]byte, error) {
	if level != linux.SOL_SOCKET {
		return nil, linux.EOPNOTSUPP
	}
	if v, ok := s.opt.Get(name); ok {
		return v, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch name {
	case linux.SO_TYPE:
		return socket.Int(s.typ), nil
	case linux.SO_DOMAIN:
		return socket.Int(linux.AF_UNIX), nil
	case linux.SO_PROTOCOL:
		return socket.Int(0), nil
	case linux.SO_ACCEPTCONN:
		return socket.Bool(s.state == listening), nil
	case linux.SO_ERROR:
		e := s.err
		s.err = 0
		return socket.Int(int(e)), nil
	case linux.SO_PEERCRED:
		return encodeCred(s.peerCred), nil
	case linux.SO_PEERGROUPS:
		if s.peerCred == noCred {
			return nil, linux.ENODATA
		}
		var v []byte
		for _, g := range s.groups {
			v = append(v, socket.Int(int(g))...)
		}
		return v, nil
	}
	return nil, linux.ENOPROTOOPT
}

func encodeCred(u linux.Ucred) []byte {
	return append(append(socket.Int(int(u.PID)), socket.Int(int(u.UID))...), socket.Int(int(u.GID))...)
}

// SetOption implements socket.Socket.
func (s *sock) SetOption(c *vfs.Caller, level, name int, v []byte) error {
	if level != linux.SOL_SOCKET {
		return linux.EOPNOTSUPP
	}
	ok, err := s.opt.Set(c, name, v)
	if !ok {
		err = linux.ENOPROTOOPT
		if name == linux.SO_REUSEPORT {
			err = nil
			if v[0]|v[1]|v[2]|v[3] != 0 {
				err = linux.EOPNOTSUPP
			}
		}
	}
	return err
}
