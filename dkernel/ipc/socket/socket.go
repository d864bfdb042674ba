// Package socket is the socket calls, for any family: it looks up descriptors, copies addresses, ranges and control messages from and
// to programs, and gives the work to a [Socket]. Each call is a function of this package with the call's arguments.
package socket

import (
	"sync"

	"dinos/dkernel/uio"
	"dinos/dkernel/vfs"
	"dinos/kernel/linux"
)

// Socket is a socket of some family. Its Read and Write are Recv and Send without flags. Addresses are struct sockaddr as programs
// have them, the family first; they have been copied and are at most MaxAddr bytes. Errors are linux.Errno values.
// Methods may be called by several goroutines. Blocking is as for vfs.File, and does not happen with linux.MSG_DONTWAIT.
type Socket interface {
	vfs.File
	Bind(c *vfs.Caller, addr []byte) error
	Connect(c *vfs.Caller, d *vfs.Description, addr []byte) error
	Listen(c *vfs.Caller, backlog int) error
	// Accept waits for a connection and returns its socket, which has no description yet.
	Accept(c *vfs.Caller, d *vfs.Description) (Socket, error)
	// Name appends the address of the socket to b, or that of its peer.
	Name(c *vfs.Caller, peer bool, b []byte) ([]byte, error)
	// Shutdown is given linux.SHUT_RD, SHUT_WR or SHUT_RDWR.
	Shutdown(c *vfs.Caller, how int) error
	// Send sends m.IO, to m.Name if there is one, with m.Control.
	Send(c *vfs.Caller, d *vfs.Description, m *Message) (int64, error)
	// Recv fills m.IO, and m.Name and what Put and PutFiles add. It sets m.Out.
	Recv(c *vfs.Caller, d *vfs.Description, m *Message) (int64, error)
	// Option returns the value of an option, SetOption changes it. linux.ENOPROTOOPT for one that it does not know.
	Option(c *vfs.Caller, level, name int) ([]byte, error)
	SetOption(c *vfs.Caller, level, name int, v []byte) error
}

// Family makes sockets.
type Family interface {
	// Create makes a socket without a description. typ is without flags.
	Create(c *vfs.Caller, typ, protocol int) (Socket, error)
	// Pair makes two that are connected: linux.EOPNOTSUPP if the family has none such.
	Pair(c *vfs.Caller, typ, protocol int) (a, b Socket, err error)
}

// MaxAddr is how long an address can be: struct sockaddr_storage.
const MaxAddr = 128

// maxFamily and maxType are those of Linux, less which it says EINVAL or EAFNOSUPPORT.
const (
	maxFamily = 46
	maxType   = 11
)

// maxControl and maxOption are how much of a control message and an option a program can give.
const (
	maxControl = 20480 // net.core.optmem_max
	maxOption  = 4096
)

// System is the families there are.
type System struct {
	families [maxFamily]Family
}

// New makes a System of no families.
func New() *System { return &System{} }

// Register adds a family, before the System is in use.
func (s *System) Register(family int, f Family) { s.families[family] = f }

// Message is what Send and Recv work on.
type Message struct {
	IO    uio.IO
	Flags uint32 // linux.MSG_*, as the program gave them
	// Name is where to send to; nil or empty: to the peer. For Recv it has no bytes and room for MaxAddr: the sender is appended.
	Name []byte
	// Control is the control messages to send: a sequence of struct cmsghdr with data. For Recv it is what Put and PutFiles added.
	Control []byte
	// Out is linux.MSG_TRUNC, MSG_CTRUNC, MSG_EOR, as msg_flags is to be.
	Out uint32

	room int   // for Control
	fds  []int // installed by PutFiles

	name [MaxAddr]byte
	vecs []uio.Vec
	raw  []byte
}

// messages are kept, so that none is allocated.
var messages = sync.Pool{New: func() any { return new(Message) }}

// NewMessage gives a message with flags. Give it back with Free.
func NewMessage(flags uint32) *Message {
	m := messages.Get().(*Message)
	m.Flags, m.Out, m.room = flags, 0, 0
	m.Name, m.Control, m.fds = m.name[:0], m.Control[:0], m.fds[:0]
	return m
}

// Free gives m back.
func (m *Message) Free() {
	m.IO = uio.IO{}
	if cap(m.Control) <= 4096 && cap(m.vecs) <= 64 {
		messages.Put(m)
	}
}

// Nonblock tells whether the operation may not block.
func (m *Message) Nonblock(d *vfs.Description) bool {
	return m.Flags&linux.MSG_DONTWAIT != 0 || d.Nonblock()
}

// of returns the socket of a descriptor.
func of(c *vfs.Caller, fd int) (vfs.Ref, Socket, error) {
	r, err := c.Files.Get(fd)
	if err != nil {
		return r, nil, err
	}
	s, ok := r.File().(Socket)
	if !ok {
		r.Put()
		return r, nil, linux.ENOTSOCK
	}
	return r, s, nil
}

// flags splits the type of socket(2).
func flags(typ int) (t int, status uint32, cloexec bool, err error) {
	f := uint32(typ) &^ 0xf
	if f&^(linux.SOCK_CLOEXEC|linux.SOCK_NONBLOCK) != 0 {
		return 0, 0, false, linux.EINVAL
	}
	return typ & 0xf, f & linux.SOCK_NONBLOCK, f&linux.SOCK_CLOEXEC != 0, nil
}

func (s *System) family(family, typ int) (Family, error) {
	switch {
	case family < 0 || family >= maxFamily:
		return nil, linux.EAFNOSUPPORT
	case typ >= maxType:
		return nil, linux.EINVAL
	case s.families[family] == nil:
		return nil, linux.EAFNOSUPPORT
	}
	return s.families[family], nil
}

// install gives a socket a description and a descriptor.
func install(c *vfs.Caller, s Socket, status uint32, cloexec bool) (int, error) {
	dn := c.FS.VFS().NewSocket(c)
	d := c.NewNameless(dn, s, linux.O_RDWR|status, vfs.Stream)
	dn.Inode().Unref()
	fd, err := c.Files.Install(d, 0, c.OpenLimit, cloexec)
	if err != nil {
		d.Unref()
	}
	return fd, err
}

// Create is socket(2).
func (s *System) Create(c *vfs.Caller, family, typ, protocol int) (int, error) {
	t, status, cloexec, err := flags(typ)
	if err != nil {
		return 0, err
	}
	f, err := s.family(family, t)
	if err != nil {
		return 0, err
	}
	sock, err := f.Create(c, t, protocol)
	if err != nil {
		return 0, err
	}
	return install(c, sock, status, cloexec)
}

// Pair is socketpair(2); it stores the two descriptors at addr.
func (s *System) Pair(c *vfs.Caller, family, typ, protocol int, addr uint64) error {
	t, status, cloexec, err := flags(typ)
	if err != nil {
		return err
	}
	f, err := s.family(family, t)
	if err != nil {
		return err
	}
	a, b, err := f.Pair(c, t, protocol)
	if err != nil {
		return err
	}
	x, err := install(c, a, status, cloexec)
	if err != nil {
		drop(c, b)
		return err
	}
	y, err := install(c, b, status, cloexec)
	if err == nil {
		var buf [8]byte
		le.PutUint32(buf[:], uint32(x))
		le.PutUint32(buf[4:], uint32(y))
		if _, err = c.Mem.CopyOut(addr, buf[:]); err == nil {
			return nil
		}
		_ = c.Files.Close(c, y)
	}
	_ = c.Files.Close(c, x)
	return err
}

// drop releases a socket that has no description.
func drop(c *vfs.Caller, s Socket) {
	dn := c.FS.VFS().NewSocket(c)
	d := c.NewNameless(dn, s, linux.O_RDWR, vfs.Stream)
	dn.Inode().Unref()
	d.Unref()
}

// Accept4 is accept4(2), and accept(2) with flags 0.
func Accept4(c *vfs.Caller, fd int, addr, lenAddr uint64, flag uint32) (int, error) {
	if flag&^(linux.SOCK_CLOEXEC|linux.SOCK_NONBLOCK) != 0 {
		return 0, linux.EINVAL
	}
	r, s, err := of(c, fd)
	if err != nil {
		return 0, err
	}
	defer r.Put()
	n, err := s.Accept(c, r.Description)
	if err != nil {
		return 0, err
	}
	nfd, err := install(c, n, flag&linux.SOCK_NONBLOCK, flag&linux.SOCK_CLOEXEC != 0)
	if err != nil || addr == 0 {
		return nfd, err
	}
	var buf [MaxAddr]byte
	name, err := n.Name(c, true, buf[:0])
	if err == nil {
		err = putAddr(c, name, addr, lenAddr)
	} else {
		err = linux.ECONNABORTED
	}
	if err != nil {
		_ = c.Files.Close(c, nfd)
		return 0, err
	}
	return nfd, nil
}

// Bind is bind(2).
func Bind(c *vfs.Caller, fd int, addr uint64, n int) error {
	return withAddr(c, fd, addr, n, func(r vfs.Ref, s Socket, a []byte) error { return s.Bind(c, a) })
}

// Connect is connect(2).
func Connect(c *vfs.Caller, fd int, addr uint64, n int) error {
	return withAddr(c, fd, addr, n, func(r vfs.Ref, s Socket, a []byte) error { return s.Connect(c, r.Description, a) })
}

func withAddr(c *vfs.Caller, fd int, addr uint64, n int, do func(vfs.Ref, Socket, []byte) error) error {
	r, s, err := of(c, fd)
	if err != nil {
		return err
	}
	defer r.Put()
	var buf [MaxAddr]byte
	a, err := getAddr(c, buf[:0], addr, n)
	if err != nil {
		return err
	}
	return do(r, s, a)
}

// Listen is listen(2).
func Listen(c *vfs.Caller, fd, backlog int) error {
	r, s, err := of(c, fd)
	if err != nil {
		return err
	}
	defer r.Put()
	if uint(backlog) > linux.SOMAXCONN {
		backlog = linux.SOMAXCONN
	}
	return s.Listen(c, backlog)
}

// Shutdown is shutdown(2).
func Shutdown(c *vfs.Caller, fd, how int) error {
	r, s, err := of(c, fd)
	if err != nil {
		return err
	}
	defer r.Put()
	if how < linux.SHUT_RD || how > linux.SHUT_RDWR {
		return linux.EINVAL
	}
	return s.Shutdown(c, how)
}

// Getsockname is getsockname(2), or getpeername(2) if peer.
func Getsockname(c *vfs.Caller, fd int, addr, lenAddr uint64, peer bool) error {
	r, s, err := of(c, fd)
	if err != nil {
		return err
	}
	defer r.Put()
	var buf [MaxAddr]byte
	name, err := s.Name(c, peer, buf[:0])
	if err != nil {
		return err
	}
	return putAddr(c, name, addr, lenAddr)
}

// Setsockopt is setsockopt(2).
func Setsockopt(c *vfs.Caller, fd, level, name int, addr uint64, n int) error {
	if n < 0 {
		return linux.EINVAL
	}
	r, s, err := of(c, fd)
	if err != nil {
		return err
	}
	defer r.Put()
	v := make([]byte, min(n, maxOption))
	if _, err := c.Mem.CopyIn(v, addr); err != nil {
		return err
	}
	return s.SetOption(c, level, name, v)
}

// Getsockopt is getsockopt(2): it stores as much of the value as *lenAddr says, and how much that was.
func Getsockopt(c *vfs.Caller, fd, level, name int, addr, lenAddr uint64) error {
	r, s, err := of(c, fd)
	if err != nil {
		return err
	}
	defer r.Put()
	n, err := c.GetInt(lenAddr)
	if err != nil {
		return err
	}
	if n < 0 {
		return linux.EINVAL
	}
	v, err := s.Option(c, level, name)
	if err != nil {
		return err
	}
	v = v[:min(len(v), int(n))]
	if _, err := c.Mem.CopyOut(addr, v); err != nil {
		return err
	}
	return c.PutInt(lenAddr, int32(len(v)))
}
