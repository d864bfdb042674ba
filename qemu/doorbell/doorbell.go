// Package doorbell is the host's end of a rack: it makes the shared memory and serves the doorbells between QEMU's ivshmem-doorbell
// devices, as QEMU's own ivshmem-server would (QEMU, docs/specs/ivshmem-spec.txt, protocol version 0). The host is itself
// a peer: it has an ID, can ring and be rung, and has the memory mapped.
//
// The protocol goes one way, from server to client, over a Unix stream socket. A message is 8 bytes, a little-endian int64, with at
// most one file descriptor:
//
//	0                 protocol version
//	ID                the client's own
//	-1 + fd           shared memory
//	ID + fd           an eventfd of peer ID: first vector 0, then 1, and so on; the last peer announced at first is the client itself
//	ID                peer ID has left
//
// To ring a doorbell is to add 1 to an eventfd; the server has no part in it. Rings that are not consumed in time coalesce.
//
// # Failures
//
// A client that dies leaves; one that sends anything, which the protocol does not know, is thrown out. One that does not
// read holds up nobody: what it has missed is worked out when it reads again, and is bounded by the number of peers.
// Nothing stays behind when this process dies, unless the caller put the memory or the socket into a file system.
package doorbell

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Limits.
const (
	MaxVectors = 64
	MaxPeers   = 1024
	MinSize    = 4096

	maxID = 1<<16 - 1 // doorbell registers have 16 bits for it
)

// Errors.
var (
	ErrClosed   = errors.New("doorbell: server is closed")
	ErrTalks    = errors.New("doorbell: peer sent something, and the protocol has only messages to it")
	ErrNoPeer   = errors.New("doorbell: no such peer")
	ErrNoVector = errors.New("doorbell: no such vector")
	ErrFull     = fmt.Errorf("doorbell: there are %d peers already", MaxPeers)
)

// Config describes a Server.
type Config struct {
	// Vectors is how many doorbells each peer has, 1 to MaxVectors; the devices must be told the same number.
	Vectors int
	// Size is that of the shared memory in bytes, a power of two. It is made without a name, so that it is gone with its users.
	Size uint64
	// Memory, if set, is the shared memory instead: a file whose size is right, for memory that is to survive.
	// The server uses a descriptor of its own.
	Memory *os.File
	// Left, if set, is called when a peer has left; err is nil if it closed its connection, ErrClosed if the server was closed, and
	// else says why it was thrown out. It may be called by several goroutines at once, and must not call Close.
	Left func(id int, err error)
}

// Server serves the doorbells of one shared memory. Its methods may be called concurrently.
type Server struct {
	vectors int
	left    func(id int, err error)
	memory  *os.File
	mapped  []byte
	host    *peer
	rung    []*os.File // copies of the host's eventfds, to wait on
	running sync.WaitGroup

	mu       sync.Mutex
	closed   bool          // guarded by mu, as is all below
	peers    map[int]*peer // with host
	next     int           // ID to try first: IDs are not reused soon
	joined   uint64        // number of the last join
	changed  chan struct{} // closed at the next change of peers
	listener []*net.UnixListener
}

// peer is somebody with doorbells.
type peer struct {
	id     int
	join   uint64        // tells two peers apart that had the same ID
	events []int         // an eventfd a vector; closed under mu when the peer leaves
	conn   *net.UnixConn // nil for the host
}

// New makes the shared memory and the host's own doorbells.
func New(cfg Config) (*Server, error) {
	if cfg.Vectors < 1 || cfg.Vectors > MaxVectors {
		return nil, fmt.Errorf("doorbell: %d vectors, want 1 to %d", cfg.Vectors, MaxVectors)
	}
	s := &Server{vectors: cfg.Vectors, left: cfg.Left, peers: map[int]*peer{}, changed: make(chan struct{})}
	if err := s.open(cfg); err != nil {
		return nil, err
	}
	host, err := s.join(nil)
	if err != nil {
		s.Close()
		return nil, err
	}
	s.host = host
	for _, fd := range host.events {
		c, err := duplicate(fd)
		if err != nil {
			s.Close()
			return nil, err
		}
		s.rung = append(s.rung, os.NewFile(uintptr(c), "doorbell"))
	}
	return s, nil
}

// open gets and maps the memory. On error nothing stays open.
func (s *Server) open(cfg Config) (err error) {
	if cfg.Memory != nil {
		var fd int
		if fd, err = duplicate(int(cfg.Memory.Fd())); err == nil {
			s.memory = os.NewFile(uintptr(fd), cfg.Memory.Name())
		}
	} else {
		s.memory, err = anonymous(cfg.Size)
	}
	if err != nil {
		return err
	}
	st, err := s.memory.Stat()
	if err == nil {
		size := st.Size()
		if err = checkSize(uint64(size)); err == nil {
			s.mapped, err = unix.Mmap(int(s.memory.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		}
	}
	if err != nil {
		s.memory.Close()
		return fmt.Errorf("doorbell: shared memory %s: %w", s.memory.Name(), err)
	}
	return nil
}

func checkSize(n uint64) error {
	if n < MinSize || n&(n-1) != 0 || n > 1<<46 {
		return fmt.Errorf("%d bytes, want a power of two from %d on", n, MinSize)
	}
	return nil
}

// anonymous returns memory without a name. Its size is sealed: whoever shrank it could kill everybody who has it mapped.
func anonymous(size uint64) (*os.File, error) {
	if err := checkSize(size); err != nil {
		return nil, fmt.Errorf("doorbell: shared memory: %w", err)
	}
	fd, err := unix.MemfdCreate("dinos-shared", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("doorbell: shared memory: %w", os.NewSyscallError("memfd_create", err))
	}
	f := os.NewFile(uintptr(fd), "memfd")
	err = f.Truncate(int64(size))
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("doorbell: shared memory of %d bytes: %w", size, err)
	}
	return f, nil
}

// duplicate returns a copy of a descriptor that does not reach children.
func duplicate(fd int) (int, error) {
	fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("doorbell: %w", os.NewSyscallError("fcntl(F_DUPFD_CLOEXEC)", err))
	}
	return fd, nil
}

// Memory returns the shared memory, which is mapped until Close.
func (s *Server) Memory() []byte { return s.mapped }

// ID returns the host's own.
func (s *Server) ID() int { return s.host.id }

// Vectors returns how many doorbells each peer has.
func (s *Server) Vectors() int { return s.vectors }

// Peers returns the IDs of all peers, the host's too, in ascending order, and a channel that is closed when they change.
func (s *Server) Peers() (ids []int, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.peers {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids, s.changed
}

// join adds a peer; with a connection, two goroutines must follow. The error is ErrClosed, ErrFull, or that there are no descriptors left.
func (s *Server) join(conn *net.UnixConn) (*peer, error) {
	p := &peer{conn: conn}
	for range s.vectors {
		fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
		if err != nil {
			p.closeEvents()
			return nil, fmt.Errorf("doorbell: %w", os.NewSyscallError("eventfd", err))
		}
		p.events = append(p.events, fd)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.peers) == MaxPeers {
		p.closeEvents()
		if s.closed {
			return nil, ErrClosed
		}
		return nil, ErrFull
	}
	for s.peers[s.next] != nil {
		s.next = (s.next + 1) & maxID
	}
	p.id, s.next = s.next, (s.next+1)&maxID
	s.joined++
	p.join = s.joined
	s.peers[p.id] = p
	s.change()
	if conn != nil {
		s.running.Add(2) // here, where closed is known to be false: see accept
	}
	return p, nil
}

// change wakes whoever waits for a change. mu is held.
func (s *Server) change() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// leave removes p, if it is still there.
func (s *Server) leave(p *peer, why error) {
	s.mu.Lock()
	there := s.peers[p.id] == p
	if there {
		delete(s.peers, p.id)
		p.closeEvents()
		s.change()
	}
	s.mu.Unlock()
	if there && p.conn != nil {
		p.conn.Close()
		if s.left != nil {
			s.left(p.id, why)
		}
	}
}

func (p *peer) closeEvents() {
	for _, fd := range p.events {
		unix.Close(fd)
	}
}

// Ring rings doorbell vector of a peer. That it has left in the meantime is ErrNoPeer.
func (s *Server) Ring(peer, vector int) error {
	if vector < 0 || vector >= s.vectors {
		return fmt.Errorf("%w: %d of %d", ErrNoVector, vector, s.vectors)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.peers[peer]
	switch {
	case s.closed:
		return ErrClosed
	case p == nil:
		return fmt.Errorf("%w: %d", ErrNoPeer, peer)
	}
	one := [8]byte{1} // in the order of the host, x86
	_, err := unix.Write(p.events[vector], one[:])
	if err == unix.EAGAIN {
		return nil // it has been rung 2^64-2 times and will find out
	}
	return os.NewSyscallError("write", err)
}

// Wait waits until doorbell vector of the host is rung and returns how often it was since the last call. One goroutine
// at a time waits for a vector. The error is ctx's or ErrClosed.
func (s *Server) Wait(ctx context.Context, vector int) (uint64, error) {
	if vector < 0 || vector >= s.vectors {
		return 0, fmt.Errorf("%w: %d of %d", ErrNoVector, vector, s.vectors)
	}
	f := s.rung[vector]
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		f.SetReadDeadline(time.Unix(1, 0))
		close(fired)
	})
	var b [8]byte
	_, err := f.Read(b[:])
	if !stop() {
		<-fired
		f.SetReadDeadline(time.Time{})
	}
	switch {
	case err == nil:
		n := uint64(0)
		for i := range b {
			n |= uint64(b[i]) << (8 * i)
		}
		return n, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return 0, ctx.Err()
	case errors.Is(err, os.ErrClosed):
		return 0, ErrClosed
	}
	return 0, err
}

// Close throws all peers out, ends Listen's sockets, and unmaps the memory: the slice that Memory returned must not be used any more.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	for _, l := range s.listener {
		l.Close()
	}
	all := make([]*peer, 0, len(s.peers))
	for _, p := range s.peers {
		all = append(all, p)
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b *peer) int { return cmp.Compare(a.id, b.id) })
	for _, p := range all {
		s.leave(p, ErrClosed)
	}
	s.running.Wait()
	for _, f := range s.rung {
		f.Close()
	}
	return errors.Join(unix.Munmap(s.mapped), s.memory.Close())
}
