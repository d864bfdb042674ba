package hostfiles

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"dinos/shmem/proto"
	"dinos/shmem/rpc"
)

// change is what all changes of the directory begin with: it refuses them if the server only reads, and finds the name.
func (s *Server) change(r *rpc.Request, dir uint64, p string, f func(dir int, base string) error) error {
	if s.readOnly {
		return errno(unix.EROFS)
	}
	fd, base, done, err := s.at(s.of(r), dir, p)
	if err != nil {
		return errno(err)
	}
	defer done()
	return errno(f(fd, base))
}

func (s *Server) unlink(r *rpc.Request, q *proto.Unlink, _ *proto.Done) error {
	flags := 0
	if q.RemoveDir {
		flags = unix.AT_REMOVEDIR
	}
	return s.change(r, q.Dir, q.Path, func(dir int, base string) error { return unix.Unlinkat(dir, base, flags) })
}

func (s *Server) mkdir(r *rpc.Request, q *proto.Mkdir, _ *proto.Done) error {
	return s.change(r, q.Dir, q.Path, func(dir int, base string) error {
		if err := unix.Mkdirat(dir, base, q.Mode&0o7777); err != nil {
			return err
		}
		return unix.Fchmodat(dir, base, q.Mode&0o7777, 0) // the program's umask has been applied; ours does not count
	})
}

func (s *Server) symlink(r *rpc.Request, q *proto.Symlink, _ *proto.Done) error {
	return s.change(r, q.Dir, q.Path, func(dir int, base string) error { return unix.Symlinkat(q.Target, dir, base) })
}

func (s *Server) rename(r *rpc.Request, q *proto.Rename, _ *proto.Done) error {
	return s.change(r, q.FromDir, q.From, func(from int, base string) error {
		to, name, done, err := s.at(s.of(r), q.ToDir, q.To)
		if err != nil {
			return err
		}
		defer done()
		return unix.Renameat2(from, base, to, name, uint(q.Flags))
	})
}

func (s *Server) link(r *rpc.Request, q *proto.Link, _ *proto.Done) error {
	return s.change(r, q.FromDir, q.From, func(from int, base string) error {
		to, name, done, err := s.at(s.of(r), q.ToDir, q.To)
		if err != nil {
			return err
		}
		defer done()
		return unix.Linkat(from, base, to, name, 0)
	})
}

// The bits of SetAttr.Set.
const (
	setMode = 1 << iota
	setOwner
	setGroup
	setSize
	setAccessed
	setModified
)

func (s *Server) setAttr(r *rpc.Request, q *proto.SetAttr, a *proto.SetAttrReply) error {
	if s.readOnly {
		return errno(unix.EROFS)
	}
	fd, end, err := s.start(s.of(r), q.Handle)
	if err != nil {
		return errno(err)
	}
	defer end()
	if q.Path != "" {
		if fd, err = s.openat(fd, q.Path, unix.O_PATH|unix.O_NOFOLLOW, 0); err != nil {
			return errno(err)
		}
		defer unix.Close(fd)
	}
	if err := apply(fd, q); err != nil {
		return errno(err)
	}
	a.Attr, err = fstat(fd)
	return errno(err)
}

// apply changes the file of fd, which may be an O_PATH descriptor: so by way of /proc/self/fd.
func apply(fd int, q *proto.SetAttr) error {
	name := "/proc/self/fd/" + strconv.Itoa(fd)
	if q.Set&setSize != 0 {
		if err := os.Truncate(name, int64(q.Attr.Size)); err != nil {
			return err
		}
	}
	if q.Set&(setOwner|setGroup) != 0 {
		uid, gid := -1, -1
		if q.Set&setOwner != 0 {
			uid = int(q.Attr.UID)
		}
		if q.Set&setGroup != 0 {
			gid = int(q.Attr.GID)
		}
		if err := unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
			return err
		}
	}
	if q.Set&setMode != 0 {
		if err := unix.Chmod(name, q.Attr.Mode&0o7777); err != nil {
			return err
		}
	}
	if q.Set&(setAccessed|setModified) != 0 {
		ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_OMIT}}
		if q.Set&setAccessed != 0 {
			ts[0] = unix.NsecToTimespec(q.Attr.Accessed)
		}
		if q.Set&setModified != 0 {
			ts[1] = unix.NsecToTimespec(q.Attr.Modified)
		}
		return unix.UtimesNanoAt(unix.AT_FDCWD, name, ts, 0)
	}
	return nil
}

func (s *Server) sync(r *rpc.Request, q *proto.Sync, _ *proto.Done) error {
	h := s.of(r)
	f, err := h.get(q.Handle)
	if err != nil {
		return errno(err)
	}
	defer h.put(f)
	if q.DataOnly {
		return errno(unix.Fdatasync(f.fd))
	}
	return errno(unix.Fsync(f.fd))
}

func (s *Server) statfs(r *rpc.Request, q *proto.Statfs, a *proto.StatfsReply) error {
	fd, err := s.openat(s.root, q.Path, unix.O_PATH, 0)
	if err != nil {
		return errno(err)
	}
	defer unix.Close(fd)
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return errno(err)
	}
	*a = proto.StatfsReply{Type: uint64(st.Type), Blocks: st.Blocks, Free: st.Bavail, Files: st.Files, FreeFiles: st.Ffree,
		BlockSize: uint32(st.Bsize), NameMax: uint32(st.Namelen)}
	return nil
}

func (s *Server) allocate(r *rpc.Request, q *proto.Allocate, _ *proto.Done) error {
	h := s.of(r)
	f, err := h.get(q.Handle)
	if err != nil {
		return errno(err)
	}
	defer h.put(f)
	return errno(unix.Fallocate(f.fd, q.Mode, int64(q.Offset), int64(q.Length)))
}

func (s *Server) lock(r *rpc.Request, q *proto.LockFile, _ *proto.Done) error {
	h := s.of(r)
	f, err := h.get(q.Handle)
	if err != nil {
		return errno(err)
	}
	defer h.put(f)
	if q.Kind > 2 || q.Wait {
		// A wait would hold a worker for as long as somebody on the host likes.
		return errno(unix.EINVAL)
	}
	l := unix.Flock_t{Type: [...]int16{unix.F_UNLCK, unix.F_RDLCK, unix.F_WRLCK}[q.Kind], Start: int64(q.Start)}
	if q.End != 0 {
		l.Len = int64(q.End - q.Start)
	}
	return errno(unix.FcntlFlock(uintptr(f.fd), unix.F_OFD_SETLK, &l))
}

// Handle enters the server's handlers in m. Calls may block on the host's disk, so all run as workers.
func (s *Server) Handle(m *rpc.Mux) {
	rpc.Handle(m, rpc.Worker, s.open)
	rpc.Handle(m, rpc.Worker, s.close)
	rpc.Handle(m, rpc.Worker, s.read)
	rpc.Handle(m, rpc.Worker, s.write)
	rpc.Handle(m, rpc.Worker, s.stat)
	rpc.Handle(m, rpc.Worker, s.getdents)
	rpc.Handle(m, rpc.Worker, s.unlink)
	rpc.Handle(m, rpc.Worker, s.rename)
	rpc.Handle(m, rpc.Worker, s.mkdir)
	rpc.Handle(m, rpc.Worker, s.symlink)
	rpc.Handle(m, rpc.Worker, s.link)
	rpc.Handle(m, rpc.Worker, s.readlink)
	rpc.Handle(m, rpc.Worker, s.setAttr)
	rpc.Handle(m, rpc.Worker, s.sync)
	rpc.Handle(m, rpc.Worker, s.statfs)
	rpc.Handle(m, rpc.Worker, s.allocate)
	rpc.Handle(m, rpc.Worker, s.lock)
}
