package doorbell

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// The protocol's own numbers.
const (
	version  = 0
	noFile   = -1
	sendFile = -1 // "shared memory follows", in place of an ID
)

// Connect makes a peer, and returns its ID and the socket for its QEMU, which the caller passes on and closes. The peer leaves
// when the last descriptor of the socket is closed, so with the QEMU.
func (s *Server) Connect() (socket *os.File, id int, err error) {
	fd, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, 0, fmt.Errorf("doorbell: %w", os.NewSyscallError("socketpair", err))
	}
	mine, theirs := os.NewFile(uintptr(fd[0]), "doorbell"), os.NewFile(uintptr(fd[1]), "doorbell-qemu")
	conn, err := net.FileConn(mine)
	mine.Close()
	if err != nil {
		theirs.Close()
		return nil, 0, fmt.Errorf("doorbell: %w", err)
	}
	id, err = s.accept(conn.(*net.UnixConn))
	if err != nil {
		theirs.Close()
		return nil, 0, err
	}
	return theirs, id, nil
}

// Listen also lets peers connect to a socket at path, for QEMUs that somebody else starts. What a server that died has
// left there is replaced; a path that is in use otherwise is an error. Close removes it.
func (s *Server) Listen(path string) error {
	if st, err := os.Lstat(path); err == nil {
		if st.Mode().Type() != fs.ModeSocket {
			return fmt.Errorf("doorbell: %s exists and is no socket", path)
		}
		c, err := net.Dial("unix", path)
		if err == nil {
			c.Close()
			return fmt.Errorf("doorbell: another server listens at %s", path)
		}
		if !errors.Is(err, unix.ECONNREFUSED) {
			return fmt.Errorf("doorbell: %w", err)
		}
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("doorbell: %w", err)
		}
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return fmt.Errorf("doorbell: %w", err)
	}
	// Who can connect has the memory of the whole rack.
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return fmt.Errorf("doorbell: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		l.Close()
		return ErrClosed
	}
	s.listener = append(s.listener, l)
	s.running.Go(func() {
		for {
			conn, err := l.AcceptUnix()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				s.accept(conn) // it sees the end of its connection if that fails
			}
		}
	})
	return nil
}

// accept makes a peer of the client at the other end of conn, which it owns from now on.
func (s *Server) accept(conn *net.UnixConn) (id int, err error) {
	p, err := s.join(conn)
	if err != nil {
		conn.Close()
		return 0, err
	}
	gone := make(chan struct{})
	go func() {
		defer s.running.Done()
		// Clients have nothing to say: whatever ends this read ends the peer.
		var b [1]byte
		var why error
		if n, _ := conn.Read(b[:]); n > 0 {
			why = ErrTalks
		}
		s.leave(p, why) // before tell ends, which does not know why
		close(gone)
	}()
	go func() {
		defer s.running.Done()
		err := s.tell(p, gone)
		if err == errGone {
			err = nil
		}
		s.leave(p, err)
	}()
	return p.id, nil
}

// errGone is that the client has closed its end.
var errGone = errors.New("doorbell: peer is gone")

// news is what a client is to be told next: that a peer has left, or with files that it has joined.
type news struct {
	id    int
	join  uint64
	files []int // copies of its eventfds
}

// tell sends p everything it must know, until it is gone or cannot be sent to.
func (s *Server) tell(p *peer, gone <-chan struct{}) error {
	for _, m := range [...]struct {
		v  int64
		fd int
	}{{version, noFile}, {int64(p.id), noFile}, {sendFile, int(s.memory.Fd())}} {
		if err := send(p.conn, m.v, m.fd); err != nil {
			return err
		}
	}
	known := map[int]uint64{} // the join of each peer that p was told of
	for {
		n, changed, err := s.news(p, known)
		if err != nil {
			return err
		}
		if n == nil {
			select {
			case <-gone:
				return nil
			case <-changed:
			}
			continue
		}
		if n.files == nil {
			delete(known, n.id)
			err = send(p.conn, int64(n.id), noFile)
		} else {
			known[n.id] = n.join
		}
		for _, fd := range n.files {
			if err == nil {
				err = send(p.conn, int64(n.id), fd)
			}
			unix.Close(fd)
		}
		if err != nil {
			return err
		}
	}
}

// news returns the first difference between known and the peers there are, nil if there is none. Since it is worked out when p
// is ready for it, a client that does not read costs nothing. Departures come first, since IDs are used again, and p's own ID last.
func (s *Server) news(p *peer, known map[int]uint64) (*news, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, join := range known {
		if q := s.peers[id]; q == nil || q.join != join {
			return &news{id: id}, nil, nil
		}
	}
	var next *peer
	for _, q := range s.peers {
		if known[q.id] == 0 && (next == nil || order(p, q, next) < 0) {
			next = q
		}
	}
	if next == nil {
		return nil, s.changed, nil
	}
	n := &news{id: next.id, join: next.join}
	for _, fd := range next.events {
		// A copy: the peer may leave, and its descriptors be closed, before the message is sent.
		c, err := duplicate(fd)
		if err != nil {
			for _, fd := range n.files {
				unix.Close(fd)
			}
			return nil, nil, err
		}
		n.files = append(n.files, c)
	}
	return n, nil, nil
}

// order says whether p is told of a before b.
func order(p, a, b *peer) int {
	own := func(q *peer) int {
		if q == p {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(own(a), own(b)), cmp.Compare(a.id, b.id))
}

// send sends one message.
func send(conn *net.UnixConn, v int64, fd int) error {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(v))
	var oob []byte
	if fd != noFile {
		oob = unix.UnixRights(fd)
	}
	n, _, err := conn.WriteMsgUnix(b[:], oob, nil)
	switch {
	case errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, net.ErrClosed):
		return errGone
	case err == nil && n != len(b):
		return fmt.Errorf("doorbell: sent %d bytes of %d", n, len(b))
	case err != nil:
		return fmt.Errorf("doorbell: send to peer: %w", err)
	}
	return nil
}

// Devices returns QEMU's arguments for a peer's device: the value of -device, and the -chardev for a socket that is file
// descriptor fd in QEMU.
func (s *Server) Devices(fd int) (device string, extra []string) {
	return fmt.Sprintf("ivshmem-doorbell,chardev=doorbell,vectors=%d", s.vectors),
		[]string{"-chardev", fmt.Sprintf("socket,id=doorbell,fd=%d", fd)}
}
