// Package hostfiles serves a directory of the host to the kernels of a rack, by the file messages of package proto. A kernel mounts it
// at /host.
//
// Paths never leave the directory, whatever symbolic links are in it: they are resolved as after a chroot(2) to it (openat2(2),
// RESOLVE_IN_ROOT). What is done is done as the user who runs the rack.
//
// A handle belongs to the life of the kernel that opened it, and is closed when that ends (Drop).
package hostfiles

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"dinos/shmem/proto"
	"dinos/shmem/rpc"
)

// MaxHandles is how many files a kernel may have open; beyond, linux' EMFILE.
const MaxHandles = 4096

// Server serves one directory. Its handlers may run concurrently.
type Server struct {
	root     int // descriptor of the directory
	readOnly bool

	mu      sync.Mutex
	clients map[client]*handles
}

// client is a life of a kernel.
type client struct {
	conn *rpc.Conn
	life uint32
}

type handles struct {
	mu   sync.Mutex
	next uint64
	open map[uint64]*file
}

type file struct {
	fd   int
	uses int        // guarded by handles.mu: operations under way, plus 1 while open; the last one closes fd
	mu   sync.Mutex // the directory's position, and appending
}

// New serves the directory root.
func New(root string, readOnly bool) (*Server, error) {
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("directory for /host: %w", &fs.PathError{Op: "open", Path: root, Err: err})
	}
	s := &Server{root: fd, readOnly: readOnly, clients: map[client]*handles{}}
	// Old kernels lack openat2; better to say so now than at each file.
	t, err := s.openat(fd, ".", unix.O_PATH, 0)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("directory for /host: openat2 of %s: %w (Linux 5.6 or later is needed)", root, err)
	}
	unix.Close(t)
	return s, nil
}

// Close closes all files. No handler may be running.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c, h := range s.clients {
		h.close()
		delete(s.clients, c)
	}
	unix.Close(s.root)
}

// Drop closes what other lives than the current one of conn's peer have open.
func (s *Server) Drop(conn *rpc.Conn, life uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c, h := range s.clients {
		if c.conn == conn && c.life != life {
			h.close()
			delete(s.clients, c)
		}
	}
}

func (h *handles) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.open {
		h.drop(f)
	}
	h.open = nil
}

// of returns the handles of who asks.
func (s *Server) of(r *rpc.Request) *handles {
	c := client{r.Conn, r.Peer()}
	s.mu.Lock()
	h := s.clients[c]
	fresh := h == nil
	if fresh {
		h = &handles{open: map[uint64]*file{}}
		s.clients[c] = h
	}
	s.mu.Unlock()
	if fresh {
		s.Drop(r.Conn, r.Peer())
	}
	return h
}

func (h *handles) add(fd int) (uint64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.open) >= MaxHandles || h.open == nil {
		unix.Close(fd)
		return 0, unix.EMFILE
	}
	h.next++
	h.open[h.next] = &file{fd: fd, uses: 1}
	return h.next, nil
}

// get returns the file of a handle for an operation, which ends with put.
func (h *handles) get(n uint64) (*file, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.open[n]
	if f == nil {
		return nil, unix.EBADF
	}
	f.uses++
	return f, nil
}

func (h *handles) put(f *file) {
	h.mu.Lock()
	h.drop(f)
	h.mu.Unlock()
}

// drop ends a use. mu is held.
func (h *handles) drop(f *file) {
	if f.uses--; f.uses == 0 {
		unix.Close(f.fd)
	}
}

// forget closes a handle.
func (h *handles) forget(n uint64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.open[n]
	if f == nil {
		return unix.EBADF
	}
	delete(h.open, n)
	h.drop(f)
	return nil
}

// openat opens p below the directory dir; "" is dir itself.
func (s *Server) openat(dir int, p string, flags int, mode uint32) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	if flags&unix.O_PATH == 0 { // openat2 refuses what makes no sense
		how.Flags |= unix.O_NOCTTY | unix.O_LARGEFILE
	}
	if flags&(unix.O_CREAT|unix.O_TMPFILE&^unix.O_DIRECTORY) != 0 {
		how.Mode = uint64(mode & 0o7777)
	}
	if p == "" {
		p = "."
	}
	for {
		fd, err := unix.Openat2(dir, p, &how)
		if err != unix.EINTR && err != unix.EAGAIN { // EAGAIN: somebody renames on the way
			return fd, err
		}
	}
}

// at finds what a handle and a path mean: the directory (to be closed by done) and the last part of the path.
func (s *Server) at(h *handles, dir uint64, p string) (fd int, base string, done func(), err error) {
	start, end, err := s.start(h, dir)
	if err != nil {
		return 0, "", nil, err
	}
	defer end()
	p = strings.TrimRight(p, "/")
	d, base := path.Split(p)
	if base == "" || base == "." || base == ".." {
		return 0, "", nil, unix.EBUSY // no operation on a name means these
	}
	fd, err = s.openat(start, d, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return 0, "", nil, err
	}
	return fd, base, func() { unix.Close(fd) }, nil
}

// start is the directory of a handle, to be given back by done.
func (s *Server) start(h *handles, dir uint64) (fd int, done func(), err error) {
	if dir == 0 {
		return s.root, func() {}, nil
	}
	f, err := h.get(dir)
	if err != nil {
		return 0, nil, err
	}
	return f.fd, func() { h.put(f) }, nil
}

// errno makes an error for the wire.
func errno(err error) error {
	if err == nil {
		return nil
	}
	var e syscall.Errno
	if !errors.As(err, &e) {
		e = unix.EIO
	}
	return &rpc.RemoteError{Code: proto.CodeErrno, Errno: uint32(e), Text: err.Error()}
}

func attrOf(st *unix.Stat_t) proto.Attr {
	return proto.Attr{Inode: st.Ino, Size: uint64(st.Size), Blocks: uint64(st.Blocks), Device: st.Rdev, Mode: st.Mode & 0o7777, Links: uint32(st.Nlink),
		UID: st.Uid, GID: st.Gid, BlockSize: uint32(st.Blksize), Type: st.Mode & unix.S_IFMT, Accessed: st.Atim.Nano(), Modified: st.Mtim.Nano(), Changed: st.Ctim.Nano()}
}

func fstat(fd int) (proto.Attr, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return proto.Attr{}, err
	}
	return attrOf(&st), nil
}

// flags that a kernel may pass to open.
const openFlags = unix.O_ACCMODE | unix.O_CREAT | unix.O_EXCL | unix.O_TRUNC | unix.O_APPEND | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_PATH |
	unix.O_DSYNC | unix.O_SYNC | unix.O_TMPFILE

func (s *Server) open(r *rpc.Request, q *proto.Open, a *proto.OpenReply) error {
	h := s.of(r)
	dir, end, err := s.start(h, q.Dir)
	if err != nil {
		return errno(err)
	}
	defer end()
	flags := int(q.Flags) & openFlags
	if flags&unix.O_PATH != 0 {
		flags &= unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW
	}
	if s.readOnly && (flags&unix.O_ACCMODE != unix.O_RDONLY || flags&(unix.O_CREAT|unix.O_TRUNC) != 0) && flags&unix.O_PATH == 0 {
		return errno(unix.EROFS)
	}
	// O_NONBLOCK: the open of a FIFO or a device of the host must not hold up a worker. Appending is done by offset.
	fd, err := s.openat(dir, q.Path, flags&^unix.O_APPEND|unix.O_NONBLOCK&^(flags&unix.O_PATH), q.Mode)
	if err != nil && flags&unix.O_PATH == 0 && err == unix.EINVAL {
		fd, err = s.openat(dir, q.Path, flags&^unix.O_APPEND, q.Mode)
	}
	if err != nil {
		return errno(err)
	}
	if a.Attr, err = fstat(fd); err != nil {
		unix.Close(fd)
		return errno(err)
	}
	a.Handle, err = h.add(fd)
	return errno(err)
}

func (s *Server) close(r *rpc.Request, q *proto.Close, _ *proto.Done) error {
	return errno(s.of(r).forget(q.Handle))
}

func (s *Server) read(r *rpc.Request, q *proto.Read, a *proto.ReadReply) error {
	h := s.of(r)
	f, err := h.get(q.Handle)
	if err != nil {
		return errno(err)
	}
	defer h.put(f)
	a.Data = make([]byte, min(q.Count, proto.MaxData))
	n, err := unix.Pread(f.fd, a.Data, int64(q.Offset))
	if err != nil {
		return errno(err)
	}
	a.Data = a.Data[:n]
	return nil
}

func (s *Server) write(r *rpc.Request, q *proto.Write, a *proto.WriteReply) error {
	h := s.of(r)
	f, err := h.get(q.Handle)
	if err != nil {
		return errno(err)
	}
	defer h.put(f)
	if q.Append {
		// One writer at a time through this server; other processes of the host are on their own.
		f.mu.Lock()
		defer f.mu.Unlock()
		var st unix.Stat_t
		if err := unix.Fstat(f.fd, &st); err != nil {
			return errno(err)
		}
		q.Offset = uint64(st.Size)
	}
	n, err := unix.Pwrite(f.fd, q.Data, int64(q.Offset))
	if err != nil {
		return errno(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return errno(err)
	}
	a.Count, a.Size = uint32(n), uint64(st.Size)
	return nil
}

func (s *Server) stat(r *rpc.Request, q *proto.Stat, a *proto.StatReply) error {
	dir, end, err := s.start(s.of(r), q.Handle)
	if err != nil {
		return errno(err)
	}
	defer end()
	if q.Path == "" {
		a.Attr, err = fstat(dir)
		return errno(err)
	}
	flags := unix.O_PATH
	if !q.Follow {
		flags |= unix.O_NOFOLLOW
	}
	fd, err := s.openat(dir, q.Path, flags, 0)
	if err != nil {
		return errno(err)
	}
	defer unix.Close(fd)
	a.Attr, err = fstat(fd)
	return errno(err)
}

// getdents returns what fits; offsets are the host's.
func (s *Server) getdents(r *rpc.Request, q *proto.Getdents, a *proto.GetdentsReply) error {
	h := s.of(r)
	f, err := h.get(q.Handle)
	if err != nil {
		return errno(err)
	}
	defer h.put(f)
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := unix.Seek(f.fd, int64(q.Offset), unix.SEEK_SET); err != nil {
		return errno(err)
	}
	// An entry on the wire takes up to 8 bytes less than here.
	buf := make([]byte, max(min(q.Count, proto.MaxData*3/4), 512))
	n, err := unix.Getdents(f.fd, buf)
	if err != nil {
		return errno(err)
	}
	for b := buf[:n]; len(b) >= 19 && len(a.Entries) < proto.MaxList; {
		size := int(binary.LittleEndian.Uint16(b[16:]))
		name, _, _ := strings.Cut(string(b[19:size]), "\x00")
		a.Entries = append(a.Entries, proto.Dirent{Inode: binary.LittleEndian.Uint64(b), Next: binary.LittleEndian.Uint64(b[8:]), Type: b[18], Name: name})
		b = b[size:]
	}
	return nil
}

func (s *Server) readlink(r *rpc.Request, q *proto.Readlink, a *proto.ReadlinkReply) error {
	fd, base, done, err := s.at(s.of(r), q.Dir, q.Path)
	if err != nil {
		return errno(err)
	}
	defer done()
	buf := make([]byte, proto.MaxPath)
	n, err := unix.Readlinkat(fd, base, buf)
	if err != nil {
		return errno(err)
	}
	a.Target = string(buf[:n])
	return nil
}
