package vfs

import (
	"dinos/dkernel/cred"
	"dinos/kernel/linux"
)

// Attr are the attributes of a file: what stat(2) and statx(2) tell. Times are in ns since 1970.
type Attr struct {
	Dev, Ino            uint64
	Mode                uint32
	Nlink               uint32
	UID, GID            uint32
	Rdev                uint64
	Size                int64
	Blocks              int64 // of 512 bytes
	Blksize             int64
	Atime, Mtime, Ctime int64
	Btime               int64 // 0 if unknown
	MountID             uint64
	MountRoot           bool
}

func timespec(ns int64) linux.Timespec {
	s, n := ns/1e9, ns%1e9
	if n < 0 {
		s, n = s-1, n+1e9
	}
	return linux.Timespec{Sec: s, Nsec: n}
}

func statxTime(ns int64) linux.StatxTimestamp {
	t := timespec(ns)
	return linux.StatxTimestamp{Sec: t.Sec, Nsec: uint32(t.Nsec)}
}

// Stat sets s to what stat(2) returns.
func (a *Attr) Stat(s *linux.Stat) {
	*s = linux.Stat{Dev: a.Dev, Ino: a.Ino, Nlink: uint64(a.Nlink), Mode: a.Mode, UID: a.UID, GID: a.GID, Rdev: a.Rdev,
		Size: a.Size, Blksize: a.Blksize, Blocks: a.Blocks, Atime: timespec(a.Atime), Mtime: timespec(a.Mtime), Ctime: timespec(a.Ctime)}
}

// Statx sets s to what statx(2) returns.
func (a *Attr) Statx(s *linux.Statx) {
	*s = linux.Statx{Mask: linux.STATX_BASIC_STATS | linux.STATX_MNT_ID, Blksize: uint32(a.Blksize), Nlink: a.Nlink,
		UID: a.UID, GID: a.GID, Mode: uint16(a.Mode), Ino: a.Ino, Size: uint64(a.Size), Blocks: uint64(a.Blocks),
		AttributesMask: linux.STATX_ATTR_MOUNT_ROOT, Atime: statxTime(a.Atime), Ctime: statxTime(a.Ctime), Mtime: statxTime(a.Mtime),
		RdevMajor: Major(a.Rdev), RdevMinor: Minor(a.Rdev), DevMajor: Major(a.Dev), DevMinor: Minor(a.Dev), MntID: a.MountID}
	if a.Btime != 0 {
		s.Mask |= linux.STATX_BTIME
		s.Btime = statxTime(a.Btime)
	}
	if a.MountRoot {
		s.Attributes |= linux.STATX_ATTR_MOUNT_ROOT
	}
}

// Blocker is a Node that knows how many blocks of 512 bytes it has; others have as many as their size needs.
type Blocker interface{ Blocks(in *Inode) int64 }

// getattr reads the attributes of what is at p.
func (c *Caller) getattr(p Path, a *Attr) error {
	in := p.Dentry.inode
	*a = Attr{Dev: in.fs.dev, Ino: in.ino, Mode: in.mode.Load(), Nlink: uint32(in.nlink.Load()), UID: in.uid.Load(),
		GID: in.gid.Load(), Rdev: in.rdev, Size: in.size.Load(), Blksize: 4096,
		Atime: in.atime.Load(), Mtime: in.mtime.Load(), Ctime: in.ctime.Load(), Btime: in.btime}
	if b, ok := in.node.(Blocker); ok {
		a.Blocks = b.Blocks(in)
	}
	if p.Mount != nil {
		a.MountID = p.Mount.id
		a.MountRoot = p.Dentry == p.Mount.root
	}
	if in.fs.conf.Dynamic {
		if g, ok := in.node.(AttrGetter); ok {
			return g.GetAttr(c, in, a)
		}
	}
	return nil
}

// StatAt is stat(2), lstat(2), newfstatat(2) and the path part of statx(2).
func (c *Caller) StatAt(dirfd int, path string, flags int, a *Attr) error {
	if flags&^(linux.AT_SYMLINK_NOFOLLOW|linux.AT_EMPTY_PATH|linux.AT_NO_AUTOMOUNT|linux.AT_STATX_SYNC_TYPE) != 0 {
		return linux.EINVAL
	}
	if path == "" && flags&linux.AT_EMPTY_PATH != 0 && dirfd >= 0 {
		return c.Fstat(dirfd, a)
	}
	p, err := c.Walk(dirfd, path, atFlags(flags, true))
	if err != nil {
		return err
	}
	return c.getattr(p, a)
}

// Fstat is fstat(2).
func (c *Caller) Fstat(fd int, a *Attr) error {
	r, err := c.Files.GetPath(fd)
	if err != nil {
		return err
	}
	defer r.Put()
	return r.Stat(c, a)
}

// Stat reads the attributes of the file.
func (d *Description) Stat(c *Caller, a *Attr) error { return c.getattr(d.path, a) }

// SetAttr is a change of attributes. Valid says which.
type SetAttr struct {
	Valid        AttrMask
	Mode         uint32 // without the type
	UID, GID     uint32
	Size         int64
	Atime, Mtime int64
}

// AttrMask is a set of attributes.
type AttrMask uint32

// The attributes of a SetAttr.
const (
	AttrMode AttrMask = 1 << iota
	AttrUID
	AttrGID
	AttrSize
	AttrAtime
	AttrMtime
)

// setattr changes attributes; permissions are checked already. in.attr is held.
func (c *Caller) setattr(in *Inode, s *SetAttr) error {
	n, ok := in.node.(AttrSetter)
	if ok {
		if err := n.SetAttr(c, in, s); err != nil {
			return err
		}
	} else if s.Valid&AttrSize != 0 {
		return linux.EINVAL
	} else if in.fs.conf.Dynamic {
		return linux.EPERM
	}
	if s.Valid&AttrUID != 0 {
		in.uid.Store(s.UID)
	}
	if s.Valid&AttrGID != 0 {
		in.gid.Store(s.GID)
	}
	if s.Valid&AttrMode != 0 {
		in.mode.Store(in.mode.Load()&linux.S_IFMT | s.Mode&0o7777)
	}
	if s.Valid&AttrAtime != 0 {
		in.atime.Store(s.Atime)
	}
	if s.Valid&AttrMtime != 0 {
		in.mtime.Store(s.Mtime)
	}
	in.Changed()
	return nil
}

// change is what all changes of attributes have in common. set is called with in.attr held and fills s; its error ends it.
func (c *Caller) change(p Path, events uint32, set func(in *Inode, s *SetAttr) error) error {
	if err := p.Mount.writable(); err != nil {
		return err
	}
	in := p.Dentry.inode
	if !in.TryRef() {
		return linux.ENOENT
	}
	defer in.Unref()
	in.attr.Lock()
	var s SetAttr
	err := set(in, &s)
	if err == nil && s.Valid != 0 {
		err = c.setattr(in, &s)
	}
	in.attr.Unlock()
	if err == nil && s.Valid != 0 {
		c.FS.v.notifyPath(p, events)
	}
	return err
}

// target finds the file that a call of the *at family with a path, or a descriptor, is about. opath says that O_PATH is enough
// for a descriptor.
func (c *Caller) target(dirfd int, path string, flags int, opath bool, do func(Path) error) error {
	if path == "" && flags&linux.AT_EMPTY_PATH != 0 && dirfd != linux.AT_FDCWD {
		get := c.Files.Get
		if opath {
			get = c.Files.GetPath
		}
		r, err := get(dirfd)
		if err != nil {
			return err
		}
		defer r.Put()
		return do(r.path)
	}
	p, err := c.Walk(dirfd, path, atFlags(flags, true))
	if err != nil {
		return err
	}
	return do(p)
}

// FchmodAt is chmod(2), fchmod(2) (path "" with AT_EMPTY_PATH), fchmodat(2) and fchmodat2(2).
func (c *Caller) FchmodAt(dirfd int, path string, mode uint32, flags int) error {
	if flags&^(linux.AT_SYMLINK_NOFOLLOW|linux.AT_EMPTY_PATH) != 0 {
		return linux.EINVAL
	}
	return c.target(dirfd, path, flags, true, func(p Path) error { return c.chmod(p, mode) })
}

// Fchmod is fchmod(2).
func (c *Caller) Fchmod(fd int, mode uint32) error {
	r, err := c.Files.Get(fd)
	if err != nil {
		return err
	}
	defer r.Put()
	return c.chmod(r.path, mode)
}

func (c *Caller) chmod(p Path, mode uint32) error {
	return c.change(p, linux.IN_ATTRIB, func(in *Inode, s *SetAttr) error {
		if in.Type() == linux.S_IFLNK {
			return linux.EOPNOTSUPP
		}
		if !in.owned(c) {
			return linux.EPERM
		}
		mode &= 0o7777
		if mode&linux.S_ISGID != 0 && !c.Cred.InGroup(in.GID()) && !c.Cred.Can(cred.FSETID) {
			mode &^= linux.S_ISGID
		}
		s.Valid, s.Mode = AttrMode, mode
		return nil
	})
}

// FchownAt is chown(2), lchown(2), fchownat(2). ^uint32(0) leaves an id as it is.
func (c *Caller) FchownAt(dirfd int, path string, uid, gid uint32, flags int) error {
	if flags&^(linux.AT_SYMLINK_NOFOLLOW|linux.AT_EMPTY_PATH) != 0 {
		return linux.EINVAL
	}
	return c.target(dirfd, path, flags, true, func(p Path) error { return c.chown(p, uid, gid) })
}

// Fchown is fchown(2).
func (c *Caller) Fchown(fd int, uid, gid uint32) error {
	r, err := c.Files.Get(fd)
	if err != nil {
		return err
	}
	defer r.Put()
	return c.chown(r.path, uid, gid)
}

func (c *Caller) chown(p Path, uid, gid uint32) error {
	const keep = ^uint32(0)
	return c.change(p, linux.IN_ATTRIB, func(in *Inode, s *SetAttr) error {
		may := c.Cred.Can(cred.CHOWN)
		mine := c.Cred.FSUID == in.UID()
		if uid != keep {
			if !may && !(mine && uid == in.UID()) {
				return linux.EPERM
			}
			s.Valid, s.UID = s.Valid|AttrUID, uid
		}
		if gid != keep {
			if !may && !(mine && (gid == in.GID() || c.Cred.InGroup(gid))) {
				return linux.EPERM
			}
			s.Valid, s.GID = s.Valid|AttrGID, gid
		}
		// Even root's chown takes the bits away (chown(2)); of directories it does not.
		m := in.Mode()
		if in.Type() != linux.S_IFDIR && m&(linux.S_ISUID|linux.S_ISGID) != 0 {
			n := m &^ linux.S_ISUID
			if m&linux.S_IXGRP != 0 || !c.Cred.InGroup(in.GID()) && !c.Cred.Can(cred.FSETID) {
				n &^= linux.S_ISGID
			}
			if n != m && !in.owned(c) {
				return linux.EPERM
			}
			if n != m {
				s.Valid, s.Mode = s.Valid|AttrMode, n&0o7777
			}
		}
		return nil
	})
}

// UtimensAt is utimensat(2), and with times in that form utime(2), utimes(2), futimesat(2). times nil is now for both. path ""
// with AT_EMPTY_PATH, or nopath, is the file of dirfd.
func (c *Caller) UtimensAt(dirfd int, path string, nopath bool, times *[2]linux.Timespec, flags int) error {
	if flags&^(linux.AT_SYMLINK_NOFOLLOW|linux.AT_EMPTY_PATH) != 0 {
		return linux.EINVAL
	}
	if times != nil {
		for _, t := range times {
			if t.Nsec != linux.UTIME_NOW && t.Nsec != linux.UTIME_OMIT && uint64(t.Nsec) >= 1e9 {
				return linux.EINVAL
			}
		}
		if times[0].Nsec == linux.UTIME_OMIT && times[1].Nsec == linux.UTIME_OMIT {
			return nil
		}
	}
	if nopath {
		if flags != 0 {
			return linux.EINVAL
		}
		r, err := c.Files.Get(dirfd)
		if err != nil {
			return err
		}
		defer r.Put()
		return c.utimens(r.path, times)
	}
	return c.target(dirfd, path, flags, true, func(p Path) error { return c.utimens(p, times) })
}

func (c *Caller) utimens(p Path, times *[2]linux.Timespec) error {
	now := c.FS.v.Now()
	bothNow := times == nil || times[0].Nsec == linux.UTIME_NOW && times[1].Nsec == linux.UTIME_NOW
	return c.change(p, linux.IN_ATTRIB, func(in *Inode, s *SetAttr) error {
		if !in.owned(c) {
			if !bothNow {
				return linux.EPERM
			}
			if err := in.Permit(c, 2); err != nil {
				return err
			}
		}
		if times == nil {
			*s = SetAttr{Valid: AttrAtime | AttrMtime, Atime: now, Mtime: now}
			return nil
		}
		for i, at := range []*int64{&s.Atime, &s.Mtime} {
			switch t := times[i]; t.Nsec {
			case linux.UTIME_OMIT:
				continue
			case linux.UTIME_NOW:
				*at = now
			default:
				*at = t.Sec*1e9 + t.Nsec
			}
			s.Valid |= AttrAtime << i
		}
		return nil
	})
}

// Truncate is truncate(2).
func (c *Caller) Truncate(path string, size int64) error {
	if size < 0 {
		return linux.EINVAL
	}
	p, err := c.Walk(linux.AT_FDCWD, path, Follow)
	if err != nil {
		return err
	}
	in := p.Inode()
	switch in.Type() {
	case linux.S_IFDIR:
		return linux.EISDIR
	case linux.S_IFREG:
	default:
		return linux.EINVAL
	}
	if err := p.Mount.writable(); err != nil {
		return err
	}
	if err := in.Permit(c, 2); err != nil {
		return err
	}
	if err := in.addWriter(); err != nil {
		return err
	}
	defer in.writers.Add(-1)
	if !in.TryRef() {
		return linux.ENOENT
	}
	defer in.Unref()
	if err := c.truncate(p.Mount, in, size); err != nil {
		return err
	}
	c.FS.v.notifyPath(p, linux.IN_MODIFY)
	return nil
}

// Ftruncate is ftruncate(2).
func (c *Caller) Ftruncate(fd int, size int64) error {
	if size < 0 {
		return linux.EINVAL
	}
	r, err := c.Files.Get(fd)
	if err != nil {
		return err
	}
	defer r.Put()
	if t, ok := r.file.(Truncater); ok {
		return t.Truncate(c, r.Description, size)
	}
	if r.inode.Type() != linux.S_IFREG || r.mode&Writable == 0 {
		return linux.EINVAL
	}
	if err := c.truncate(r.path.Mount, r.inode, size); err != nil {
		return err
	}
	c.FS.v.notifyPath(r.path, linux.IN_MODIFY)
	return nil
}

// truncate changes the size of a regular file that the caller may write.
func (c *Caller) truncate(m *Mount, in *Inode, size int64) error {
	if size > c.FileSizeLimit && size > in.Size() {
		c.SendSignal(linux.SIGXFSZ)
		return linux.EFBIG
	}
	in.attr.Lock()
	defer in.attr.Unlock()
	s := SetAttr{Valid: AttrSize, Size: size}
	if m := in.Mode(); m&(linux.S_ISUID|linux.S_ISGID) != 0 && !c.Cred.Can(cred.FSETID) {
		s.Valid, s.Mode = s.Valid|AttrMode, withoutSuid(m)&0o7777
	}
	if err := c.setattr(in, &s); err != nil {
		return err
	}
	in.Modified()
	return nil
}

// AccessAt is access(2), faccessat(2) and faccessat2(2): mode is R_OK, W_OK, X_OK together, or F_OK.
func (c *Caller) AccessAt(dirfd int, path string, mode uint32, flags int) error {
	if mode&^7 != 0 || flags&^(linux.AT_EACCESS|linux.AT_SYMLINK_NOFOLLOW|linux.AT_EMPTY_PATH) != 0 {
		return linux.EINVAL
	}
	cr := c.Cred
	if flags&linux.AT_EACCESS == 0 && (cr.FSUID != cr.UID || cr.FSGID != cr.GID || cr.UID == 0 && cr.Effective != cr.Permitted || cr.UID != 0 && cr.Effective != 0) {
		n := *cr
		n.FSUID, n.FSGID = cr.UID, cr.GID
		// The real user's capabilities are all permitted ones, or none (do_faccessat).
		n.Effective = 0
		if cr.UID == 0 {
			n.Effective = cr.Permitted
		}
		c.Cred = &n
		defer func() { c.Cred = cr }()
	}
	return c.target(dirfd, path, flags, true, func(p Path) error {
		if mode == 0 {
			return nil
		}
		in := p.Inode()
		if mode&1 != 0 && in.Type() == linux.S_IFREG && p.Mount != nil && p.Mount.Flags()&linux.MS_NOEXEC != 0 {
			return linux.EACCES
		}
		if err := in.Permit(c, mode); err != nil {
			return err
		}
		if t := in.Type(); mode&2 != 0 && (t == linux.S_IFREG || t == linux.S_IFDIR || t == linux.S_IFLNK) {
			return p.Mount.writable()
		}
		return nil
	})
}

// Statfs is statfs(2).
func (c *Caller) Statfs(path string, s *linux.Statfs) error {
	p, err := c.Walk(linux.AT_FDCWD, path, Follow)
	if err != nil {
		return err
	}
	return c.statfs(p, s)
}

// Fstatfs is fstatfs(2).
func (c *Caller) Fstatfs(fd int, s *linux.Statfs) error {
	r, err := c.Files.GetPath(fd)
	if err != nil {
		return err
	}
	defer r.Put()
	return c.statfs(r.path, s)
}

func (c *Caller) statfs(p Path, s *linux.Statfs) error {
	f := p.Dentry.inode.fs
	*s = linux.Statfs{Type: f.conf.Magic, Bsize: 4096, Frsize: 4096, Namelen: linux.NAME_MAX, FSID: [2]int32{int32(f.dev), 0}, Flags: linux.ST_VALID}
	if p.Mount != nil {
		fl := p.Mount.flags.Load()
		s.Flags |= int64(fl & (linux.MS_RDONLY | linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC | linux.MS_NOATIME))
		if fl&linux.MS_NOATIME == 0 {
			s.Flags |= linux.ST_RELATIME
		}
	}
	if i, ok := f.conf.Impl.(Statfser); ok {
		return i.Statfs(c, s)
	}
	return nil
}
