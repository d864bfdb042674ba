package vfs

import (
	"strings"

	"dinos/kernel/linux"
)

// openFlags are the flags that openat2 knows; open(2) ignores others.
const openFlags = linux.O_ACCMODE | linux.O_CREAT | linux.O_EXCL | linux.O_NOCTTY | linux.O_TRUNC | linux.O_APPEND | linux.O_NONBLOCK |
	linux.O_SYNC | linux.O_ASYNC | linux.O_DIRECT | linux.O_LARGEFILE | linux.O_DIRECTORY | linux.O_NOFOLLOW | linux.O_NOATIME |
	linux.O_CLOEXEC | linux.O_PATH | linux.O_TMPFILE

// OpenAt is open(2) and openat(2): it returns the new descriptor.
func (c *Caller) OpenAt(dirfd int, path string, flags, mode uint32) (int, error) {
	flags &= openFlags
	if flags&linux.O_PATH != 0 {
		flags &= linux.O_PATH | linux.O_DIRECTORY | linux.O_NOFOLLOW | linux.O_CLOEXEC
	}
	return c.openFD(dirfd, path, flags, mode&0o7777, 0)
}

// OpenAt2 is openat2(2), whose structure the caller has checked for its size.
func (c *Caller) OpenAt2(dirfd int, path string, how linux.OpenHow) (int, error) {
	f := how.Flags
	if f&^uint64(openFlags) != 0 || how.Resolve&^0x3f != 0 || how.Mode&^0o7777 != 0 {
		return 0, linux.EINVAL
	}
	creates := f&linux.O_CREAT != 0 || f&linux.O_TMPFILE == linux.O_TMPFILE
	switch {
	case how.Mode != 0 && !creates:
		return 0, linux.EINVAL
	case f&linux.O_PATH != 0 && f&^(linux.O_PATH|linux.O_DIRECTORY|linux.O_NOFOLLOW|linux.O_CLOEXEC) != 0:
		return 0, linux.EINVAL
	case how.Resolve&linux.RESOLVE_BENEATH != 0 && how.Resolve&linux.RESOLVE_IN_ROOT != 0:
		return 0, linux.EINVAL
	case how.Resolve&linux.RESOLVE_CACHED != 0:
		// "Only if it needs no I/O" is a hint that callers fall back from.
		return 0, linux.EAGAIN
	}
	var w WalkFlags
	for _, x := range []struct {
		bit uint64
		w   WalkFlags
	}{{linux.RESOLVE_NO_XDEV, NoXDev}, {linux.RESOLVE_NO_MAGICLINKS, NoMagic}, {linux.RESOLVE_NO_SYMLINKS, NoSymlinks},
		{linux.RESOLVE_BENEATH, Beneath}, {linux.RESOLVE_IN_ROOT, InRoot}} {
		if how.Resolve&x.bit != 0 {
			w |= x.w
		}
	}
	return c.openFD(dirfd, path, uint32(f), uint32(how.Mode), w)
}

func (c *Caller) openFD(dirfd int, path string, flags, mode uint32, w WalkFlags) (int, error) {
	fd, err := c.Files.reserve(c.OpenLimit)
	if err != nil {
		return 0, err
	}
	d, err := c.Open(dirfd, path, flags, mode, w)
	if err != nil {
		c.Files.unreserve(fd)
		return 0, err
	}
	c.Files.fill(fd, d, flags&linux.O_CLOEXEC != 0)
	return fd, nil
}

// Open opens a file without giving it a descriptor. w are restrictions of the path (NoXDev and the like).
func (c *Caller) Open(dirfd int, path string, flags, mode uint32, w WalkFlags) (*Description, error) {
	if flags&linux.O_PATH == 0 {
		if flags&(linux.O_TMPFILE&^linux.O_DIRECTORY) != 0 {
			if flags&linux.O_TMPFILE != linux.O_TMPFILE || flags&linux.O_CREAT != 0 || flags&linux.O_ACCMODE == linux.O_RDONLY {
				return nil, linux.EINVAL
			}
		} else if flags&(linux.O_CREAT|linux.O_DIRECTORY) == linux.O_CREAT|linux.O_DIRECTORY {
			return nil, linux.EINVAL
		}
	}
	if flags&linux.O_NOFOLLOW == 0 && flags&(linux.O_CREAT|linux.O_EXCL) != linux.O_CREAT|linux.O_EXCL {
		w |= Follow
	}
	var nd walk
	if err := nd.start(c, dirfd, path, w); err != nil {
		return nil, err
	}
	if flags&linux.O_CREAT != 0 {
		return c.openCreate(&nd, path, flags, mode)
	}
	if err := nd.to(path); err != nil {
		return nil, err
	}
	if flags&linux.O_DIRECTORY != 0 && nd.at.Dentry.inode.dirs == nil {
		return nil, linux.ENOTDIR
	}
	if flags&linux.O_TMPFILE == linux.O_TMPFILE {
		return c.openTmp(nd.at, flags, mode)
	}
	return c.openPath(nd.at, flags, false)
}

// openCreate opens with O_CREAT: the last part of the path may not exist.
func (c *Caller) openCreate(nd *walk, path string, flags, mode uint32) (*Description, error) {
	for {
		l, err := nd.dirOf(path)
		if err != nil {
			return nil, err
		}
		switch {
		case !l.plain() && flags&linux.O_EXCL != 0:
			return nil, linux.EEXIST
		case !l.plain() || l.slash:
			return nil, linux.EISDIR
		}
		child, made, err := c.findOrCreate(nd, l.name, flags, mode)
		if err != nil {
			return nil, err
		}
		if made {
			p := Path{nd.at.Mount, child}
			return c.openPath(p, flags&^linux.O_TRUNC, true)
		}
		if child.inode.Type() == linux.S_IFLNK && nd.flags&Follow != 0 {
			if path, err = nd.follow(child, ""); err != nil {
				return nil, err
			}
			if path == "" { // a magic link, which led there
				return c.openPath(nd.at, flags, false)
			}
			continue
		}
		if err := nd.enter(child); err != nil {
			return nil, err
		}
		if nd.at.Dentry.inode.IsDir() {
			return nil, linux.EISDIR
		}
		if err := c.mayReuse(child.Parent().inode, nd.at.Dentry.inode); err != nil {
			return nil, err
		}
		return c.openPath(nd.at, flags, false)
	}
}

// mayReuse is fs.protected_regular and protected_fifos: O_CREAT of a file that is there, and somebody else's.
func (c *Caller) mayReuse(dir, in *Inode) error {
	level := int32(0)
	switch in.Type() {
	case linux.S_IFREG:
		level = c.FS.v.Protect.Regular.Load()
	case linux.S_IFIFO:
		level = c.FS.v.Protect.FIFOs.Load()
	}
	m := dir.Mode()
	if level == 0 || m&linux.S_ISVTX == 0 || in.UID() == dir.UID() || in.UID() == c.Cred.FSUID {
		return nil
	}
	if m&0o002 != 0 || m&0o020 != 0 && level >= 2 {
		return linux.EACCES
	}
	return nil
}

func (c *Caller) findOrCreate(nd *walk, name string, flags, mode uint32) (child *Dentry, made bool, err error) {
	child, err = nd.lookup(name)
	if err == linux.ENOENT {
		child, made, err = c.create(nd, name, mode)
	}
	if err == nil && !made && flags&linux.O_EXCL != 0 {
		return nil, false, linux.EEXIST
	}
	return child, made, err
}

// create makes a regular file, unless somebody was faster.
func (c *Caller) create(nd *walk, name string, mode uint32) (*Dentry, bool, error) {
	dir := nd.at.Dentry
	in := dir.inode
	in.dir.Lock()
	defer in.dir.Unlock()
	if child, err := in.dirs.Lookup(c, dir, name); err != linux.ENOENT {
		return child, false, err
	}
	if err := nd.at.Mount.writable(); err != nil {
		return nil, false, err
	}
	e, err := c.mayCreate(in)
	if err != nil {
		return nil, false, err
	}
	name = strings.Clone(name)
	child, err := e.Create(c, dir, name, c.newFile(in, linux.S_IFREG|mode&^c.FS.Umask(), 0))
	if err != nil {
		return nil, false, err
	}
	in.Modified()
	c.FS.v.notifyDir(dir, linux.IN_CREATE, name, 0)
	return child, true, nil
}

// openTmp opens a file without a name in a directory.
func (c *Caller) openTmp(dir Path, flags, mode uint32) (*Description, error) {
	in := dir.Inode()
	if err := in.Permit(c, 3); err != nil {
		return nil, err
	}
	if err := dir.Mount.writable(); err != nil {
		return nil, err
	}
	t, ok := in.node.(TmpFiler)
	if !ok {
		return nil, linux.EOPNOTSUPP
	}
	n, err := t.TmpFile(c, dir.Dentry, c.newFile(in, linux.S_IFREG|mode&^c.FS.Umask(), 0))
	if err != nil {
		return nil, err
	}
	d := new(Dentry).Init(dir.Dentry, "#"+itoa(n.ino), n)
	d.gone.Store(true)
	out, err := c.openPath(Path{dir.Mount, d}, flags&^linux.O_TRUNC, true)
	n.linkable.Store(flags&linux.O_EXCL == 0)
	n.nlink.Store(0)
	n.Unref() // the link's; the description has its own
	return out, err
}

// openPath opens what was found. made says that it was just created, so that its permissions do not matter.
func (c *Caller) openPath(p Path, flags uint32, made bool) (*Description, error) {
	in := p.Dentry.inode
	if flags&linux.O_PATH != 0 {
		if !in.TryRef() {
			return nil, linux.ENOENT
		}
		return c.FS.v.newDescription(c, p, flags&linux.O_PATH|flags&(linux.O_DIRECTORY|linux.O_NOFOLLOW), PathOnly), nil
	}
	if err := c.mayOpen(p, &flags, made); err != nil {
		return nil, err
	}
	if !in.TryRef() {
		return nil, linux.ENOENT
	}
	m := access(flags)
	if m&Writable != 0 && in.Type() == linux.S_IFREG {
		if err := in.addWriter(); err != nil {
			in.Unref()
			return nil, err
		}
		m |= counted
	}
	keep := flags &^ (linux.O_CREAT | linux.O_EXCL | linux.O_NOCTTY | linux.O_TRUNC | linux.O_CLOEXEC)
	d := c.FS.v.newDescription(c, p, keep|linux.O_LARGEFILE, m)
	if err := c.openFile(d, flags); err != nil {
		return nil, err
	}
	if in.watched() || p.Dentry.Parent().inode.watched() {
		d.notify(linux.IN_OPEN)
	}
	return d, nil
}

// access is the Mode of the access mode in flags.
func access(flags uint32) Mode {
	switch flags & linux.O_ACCMODE {
	case linux.O_RDONLY:
		return Readable
	case linux.O_WRONLY:
		return Writable
	case linux.O_RDWR:
		return Readable | Writable
	}
	return 0
}

// mayOpen is the check of permissions.
func (c *Caller) mayOpen(p Path, flags *uint32, made bool) error {
	in := p.Dentry.inode
	want := [4]uint32{4, 2, 6, 6}[*flags&linux.O_ACCMODE]
	if *flags&linux.O_TRUNC != 0 {
		want |= 2
	}
	switch in.Type() {
	case linux.S_IFLNK:
		return linux.ELOOP
	case linux.S_IFDIR:
		if want&2 != 0 {
			return linux.EISDIR
		}
	case linux.S_IFBLK, linux.S_IFCHR:
		if p.Mount != nil && p.Mount.Flags()&linux.MS_NODEV != 0 {
			return linux.EACCES
		}
		*flags &^= linux.O_TRUNC
	case linux.S_IFIFO, linux.S_IFSOCK:
		*flags &^= linux.O_TRUNC
	default:
		if want&2 != 0 && !made {
			if err := p.Mount.writable(); err != nil {
				return err
			}
		}
	}
	if !made {
		if err := in.Permit(c, want); err != nil {
			return err
		}
	}
	if *flags&linux.O_NOATIME != 0 && !in.owned(c) {
		return linux.EPERM
	}
	return nil
}

// openFile gets the behaviour of d, which it releases after an error.
func (c *Caller) openFile(d *Description, flags uint32) error {
	err := c.behaviour(d, flags)
	if err != nil {
		// Nothing was opened, so that nothing is closed; but the counts go back.
		d.file = BaseFile{}
		d.mode |= quiet
		d.Unref()
	}
	return err
}

func (c *Caller) behaviour(d *Description, flags uint32) (err error) {
	in := d.inode
	switch in.Type() {
	case linux.S_IFCHR, linux.S_IFBLK:
		d.file, err = c.FS.v.devices.open(c, d, in, flags)
	case linux.S_IFIFO:
		f := c.FS.v.openFIFO.Load()
		if f == nil {
			return linux.ENXIO
		}
		d.mode |= Stream
		d.file, err = (*f)(c, d, in)
	default:
		if in.open == nil {
			return linux.ENXIO
		}
		d.file, err = in.open.Open(c, d, in)
		if err == nil && flags&linux.O_TRUNC != 0 && in.Type() == linux.S_IFREG {
			err = c.truncate(d.path.Mount, in, 0)
			if err != nil {
				d.file.Release(d)
			}
		}
	}
	return err
}

// newDescription makes one with one reference; that to p's inode is taken over.
func (v *VFS) newDescription(c *Caller, p Path, flags uint32, m Mode) *Description {
	d := &Description{path: p, inode: p.Dentry.inode, mode: m}
	if c != nil {
		d.cred = c.Cred
	}
	d.flags.Store(flags)
	d.refs.Store(1)
	v.opened.Add(1)
	if p.Mount != nil {
		p.Mount.opens.Add(1)
	}
	return d
}

// closed notes the end of d.
func (d *Description) closed() {
	if d.mode&quiet == 0 && (d.inode.watched() || d.path.Dentry.Parent().inode.watched()) {
		if d.mode&Writable != 0 {
			d.notify(linux.IN_CLOSE_WRITE)
		} else {
			d.notify(linux.IN_CLOSE_NOWRITE)
		}
	}
}

// SetStream says that d has no position. An Opener or device calls it.
func (d *Description) SetStream() { d.mode |= Stream }

// OpenExec opens a file to execute it (execve, uselib): it must be regular and executable, and cannot be opened for writing as
// long as the description lives. flags are AT_EMPTY_PATH and AT_SYMLINK_NOFOLLOW. Errors: linux.EACCES, ETXTBSY, ELOOP, …
func (c *Caller) OpenExec(dirfd int, path string, flags int) (*Description, error) {
	if flags&^(linux.AT_EMPTY_PATH|linux.AT_SYMLINK_NOFOLLOW) != 0 {
		return nil, linux.EINVAL
	}
	p, err := c.Walk(dirfd, path, atFlags(flags, true))
	if err != nil {
		return nil, err
	}
	in := p.Inode()
	switch {
	case in.Type() == linux.S_IFLNK:
		return nil, linux.ELOOP
	case in.Type() != linux.S_IFREG || p.Mount != nil && p.Mount.Flags()&linux.MS_NOEXEC != 0:
		return nil, linux.EACCES
	}
	if err := in.Permit(c, 1); err != nil {
		return nil, err
	}
	if !in.TryRef() {
		return nil, linux.ENOENT
	}
	if err := in.DenyWrite(); err != nil {
		in.Unref()
		return nil, err
	}
	d := c.FS.v.newDescription(c, p, linux.O_LARGEFILE, Readable|execDeny)
	if err := c.openFile(d, 0); err != nil {
		return nil, err
	}
	return d, nil
}
