package vfs

import (
	"strings"

	"dinos/dkernel/cred"
	"dinos/kernel/linux"
)

// newFile says what a new file in directory dir is like: owner and group follow the caller, or the directory if that is setgid.
func (c *Caller) newFile(dir *Inode, mode uint32, rdev uint64) NewFile {
	n := NewFile{Mode: mode, UID: c.Cred.FSUID, GID: c.Cred.FSGID, Rdev: rdev, Now: c.FS.v.Now()}
	if dir.Mode()&linux.S_ISGID == 0 {
		return n
	}
	n.GID = dir.GID()
	if mode&linux.S_IFMT == linux.S_IFDIR {
		n.Mode |= linux.S_ISGID
	} else if mode&(linux.S_ISGID|linux.S_IXGRP) == linux.S_ISGID|linux.S_IXGRP && !c.Cred.InGroup(n.GID) && !c.Cred.Can(cred.FSETID) {
		n.Mode &^= linux.S_ISGID
	}
	return n
}

// mayCreate checks that c may enter a name in the directory in, whose lock is held.
func (c *Caller) mayCreate(in *Inode) (Editor, error) {
	if in.dead {
		return nil, linux.ENOENT
	}
	e, ok := in.node.(Editor)
	if !ok && in.fs.conf.Dynamic {
		return nil, linux.ENOENT // as Linux' proc has it, whose lookup already fails
	}
	if err := in.Permit(c, 3); err != nil {
		return nil, err
	}
	if !ok {
		return nil, linux.EPERM
	}
	return e, nil
}

// mayDelete checks that c may remove child from the directory in. dir says that the call is about directories.
func (c *Caller) mayDelete(in *Inode, child *Dentry, dir bool) error {
	if err := in.Permit(c, 3); err != nil {
		return err
	}
	if in.Mode()&linux.S_ISVTX != 0 && child.inode.uid.Load() != c.Cred.FSUID && in.uid.Load() != c.Cred.FSUID && !c.Cred.Can(cred.FOWNER) {
		return linux.EPERM
	}
	switch {
	case dir && !child.inode.IsDir():
		return linux.ENOTDIR
	case !dir && child.inode.IsDir():
		return linux.EISDIR
	case in.dead:
		return linux.ENOENT
	}
	return nil
}

// make enters a new file other than a regular one that is opened.
func (c *Caller) make(dirfd int, path string, mode uint32, rdev uint64, target string, made func(*Inode)) error {
	var w walk
	if err := w.start(c, dirfd, path, 0); err != nil {
		return err
	}
	l, err := w.dirOf(path)
	if err != nil {
		return err
	}
	if !l.plain() {
		return linux.EEXIST
	}
	dir := w.at.Dentry
	in := dir.inode
	in.dir.Lock()
	defer in.dir.Unlock()
	if _, err := in.dirs.Lookup(c, dir, l.name); err == nil {
		return linux.EEXIST
	} else if err != linux.ENOENT {
		return err
	}
	isDir := mode&linux.S_IFMT == linux.S_IFDIR
	if l.slash && !isDir {
		return linux.ENOENT
	}
	if err := w.at.Mount.writable(); err != nil {
		return err
	}
	e, err := c.mayCreate(in)
	if err != nil {
		return err
	}
	if k := mode & linux.S_IFMT; (k == linux.S_IFCHR && rdev != 0 || k == linux.S_IFBLK) && !c.Cred.Can(cred.MKNOD) {
		return linux.EPERM
	}
	n := c.newFile(in, mode, rdev)
	n.Target = strings.Clone(target)
	l.name = strings.Clone(l.name)
	child, err := e.Create(c, dir, l.name, n)
	if err != nil {
		return err
	}
	if made != nil {
		made(child.inode)
	}
	if isDir {
		in.nlink.Add(1)
		c.FS.v.notifyDir(dir, linux.IN_CREATE|linux.IN_ISDIR, l.name, 0)
	} else {
		c.FS.v.notifyDir(dir, linux.IN_CREATE, l.name, 0)
	}
	in.Modified()
	return nil
}

// MkdirAt is mkdir(2) and mkdirat(2).
func (c *Caller) MkdirAt(dirfd int, path string, mode uint32) error {
	return c.make(dirfd, path, linux.S_IFDIR|mode&0o1777&^c.FS.Umask(), 0, "", nil)
}

// MknodAt is mknod(2) and mknodat(2); dev as MkDev makes it.
func (c *Caller) MknodAt(dirfd int, path string, mode uint32, dev uint64) error {
	switch mode & linux.S_IFMT {
	case 0:
		mode |= linux.S_IFREG
	case linux.S_IFREG, linux.S_IFCHR, linux.S_IFBLK, linux.S_IFIFO, linux.S_IFSOCK:
	case linux.S_IFDIR:
		return linux.EPERM
	default:
		return linux.EINVAL
	}
	k := mode & linux.S_IFMT
	if k != linux.S_IFCHR && k != linux.S_IFBLK {
		dev = 0
	}
	return c.make(dirfd, path, k|mode&0o7777&^c.FS.Umask(), dev, "", nil)
}

// BindSocket makes the name of a socket: bind(2) of AF_UNIX. sock can be found by Inode.Private of what LookupSocket returns.
// Errors: linux.EADDRINUSE if the name exists.
func (c *Caller) BindSocket(path string, mode uint32, sock any) error {
	err := c.make(linux.AT_FDCWD, path, linux.S_IFSOCK|mode&0o7777&^c.FS.Umask(), 0, "", func(in *Inode) { in.SetPrivate(sock) })
	if err == linux.EEXIST {
		return linux.EADDRINUSE
	}
	return err
}

// LookupSocket finds a socket's name, to connect to it. Errors: linux.ECONNREFUSED if it is no socket, or nobody's.
func (c *Caller) LookupSocket(path string) (any, error) {
	p, err := c.Walk(linux.AT_FDCWD, path, Follow)
	if err != nil {
		return nil, err
	}
	if err := p.Inode().Permit(c, 2); err != nil {
		return nil, err
	}
	if s := p.Inode().Private(); s != nil && p.Inode().Type() == linux.S_IFSOCK {
		return s, nil
	}
	return nil, linux.ECONNREFUSED
}

// SymlinkAt is symlink(2) and symlinkat(2).
func (c *Caller) SymlinkAt(target string, dirfd int, path string) error {
	if target == "" {
		return linux.ENOENT
	}
	if len(target) >= linux.PATH_MAX {
		return linux.ENAMETOOLONG
	}
	return c.make(dirfd, path, linux.S_IFLNK|0o777, 0, target, nil)
}

// LinkAt is link(2) and linkat(2).
func (c *Caller) LinkAt(olddir int, oldpath string, newdir int, newpath string, flags int) error {
	if flags&^(linux.AT_SYMLINK_FOLLOW|linux.AT_EMPTY_PATH) != 0 {
		return linux.EINVAL
	}
	old, err := c.Walk(olddir, oldpath, atFlags(flags, false))
	if err != nil {
		return err
	}
	if oldpath == "" {
		r, err := c.Files.GetPath(olddir)
		if err != nil {
			return linux.ENOENT // AT_FDCWD: a directory, which cannot be linked either
		}
		ok := r.cred == c.Cred || c.Cred.Can(cred.DAC_READ_SEARCH)
		r.Put()
		if !ok {
			return linux.ENOENT
		}
	}
	var w walk
	if err := w.start(c, newdir, newpath, 0); err != nil {
		return err
	}
	l, err := w.dirOf(newpath)
	if err != nil {
		return err
	}
	if !l.plain() {
		return linux.EEXIST
	}
	return c.link(old, w.at, l)
}

// mayLink is fs.protected_hardlinks: only who owns a file, or could as well copy it, may give it another name.
func (c *Caller) mayLink(in *Inode) error {
	if c.FS.v.Protect.Hardlinks.Load() == 0 || in.owned(c) {
		return nil
	}
	m := in.Mode()
	if m&linux.S_IFMT != linux.S_IFREG || m&linux.S_ISUID != 0 || m&(linux.S_ISGID|linux.S_IXGRP) == linux.S_ISGID|linux.S_IXGRP || in.Permit(c, 6) != nil {
		return linux.EPERM
	}
	return nil
}

func (c *Caller) link(old, at Path, l last) error {
	in, dir := old.Inode(), at.Dentry.inode
	dir.dir.Lock()
	defer dir.dir.Unlock()
	if _, err := dir.dirs.Lookup(c, at.Dentry, l.name); err == nil {
		return linux.EEXIST
	} else if err != linux.ENOENT {
		return err
	}
	if l.slash {
		return linux.ENOENT
	}
	if err := at.Mount.writable(); err != nil {
		return err
	}
	if old.Mount != at.Mount {
		return linux.EXDEV
	}
	if err := c.mayLink(in); err != nil {
		return err
	}
	e, err := c.mayCreate(dir)
	if err != nil {
		return err
	}
	if in.IsDir() {
		return linux.EPERM
	}
	in.attr.Lock()
	defer in.attr.Unlock()
	switch n := in.nlink.Load(); {
	case n == 0 && !in.TryRef():
		return linux.ENOENT
	case n == 0:
		defer in.Unref()
		if !in.linkable.Load() {
			return linux.ENOENT
		}
	case n >= maxLinks:
		return linux.EMLINK
	}
	l.name = strings.Clone(l.name)
	if _, err := e.Link(c, at.Dentry, l.name, in); err != nil {
		return err
	}
	in.relink()
	in.Changed()
	dir.Modified()
	c.FS.v.notifyInode(in, linux.IN_ATTRIB)
	c.FS.v.notifyDir(at.Dentry, linux.IN_CREATE, l.name, 0)
	return nil
}

// maxLinks is where link(2) says EMLINK: what fits a signed 32-bit count.
const maxLinks = 1<<31 - 1

// UnlinkAt is unlink(2), rmdir(2) and unlinkat(2).
func (c *Caller) UnlinkAt(dirfd int, path string, flags int) error {
	if flags&^linux.AT_REMOVEDIR != 0 {
		return linux.EINVAL
	}
	rmdir := flags&linux.AT_REMOVEDIR != 0
	var w walk
	if err := w.start(c, dirfd, path, 0); err != nil {
		return err
	}
	l, err := w.dirOf(path)
	if err != nil {
		return err
	}
	if !l.plain() {
		switch {
		case !rmdir:
			return linux.EISDIR
		case l.name == "..":
			return linux.ENOTEMPTY
		case l.name == ".":
			return linux.EINVAL
		}
		return linux.EBUSY
	}
	if err := w.at.Mount.writable(); err != nil {
		return err
	}
	dir := w.at.Dentry
	in := dir.inode
	in.dir.Lock()
	child, err := in.dirs.Lookup(c, dir, l.name)
	if err == nil && !rmdir && l.slash {
		err = linux.ENOTDIR
		if child.inode.IsDir() {
			err = linux.EISDIR
		}
	}
	if err == nil {
		err = c.remove(dir, child, rmdir)
	}
	in.dir.Unlock()
	if err != nil {
		return err
	}
	var isDir uint32
	if rmdir {
		isDir = linux.IN_ISDIR
	}
	c.FS.v.removed(dir, child, l.name, isDir)
	return nil
}

// remove takes child out of dir, whose lock is held.
func (c *Caller) remove(dir, child *Dentry, rmdir bool) error {
	in, gone := dir.inode, child.inode
	if err := c.mayDelete(in, child, rmdir); err != nil {
		return err
	}
	e, ok := in.node.(Editor)
	if !ok {
		return linux.EPERM
	}
	if child.mounts.Load() != 0 {
		return linux.EBUSY
	}
	if rmdir {
		gone.dir.Lock()
		defer gone.dir.Unlock()
	}
	if err := e.Remove(c, dir, child); err != nil {
		return err
	}
	child.gone.Store(true)
	if rmdir {
		gone.dead = true
		in.nlink.Add(-1)
	}
	in.Modified()
	gone.Changed()
	return nil
}

// removed drops the link of a removed name and tells who watches. No lock is held: the data may go with it.
func (v *VFS) removed(dir, child *Dentry, name string, isDir uint32) {
	in := child.inode
	if isDir == 0 {
		v.notifyInode(in, linux.IN_ATTRIB) // the link count
	}
	v.notifyDir(dir, linux.IN_DELETE|isDir, name, 0)
	if isDir != 0 {
		in.unlink(2)
	} else {
		in.unlink(1)
	}
}

// ReadlinkAt is readlink(2) and readlinkat(2). linux.EINVAL if it is no symbolic link (ENOENT for "" of a file that is none).
func (c *Caller) ReadlinkAt(dirfd int, path string) (string, error) {
	p, err := c.Walk(dirfd, path, EmptyPath)
	if err != nil {
		return "", err
	}
	in := p.Inode()
	if in.Type() != linux.S_IFLNK {
		if path == "" {
			return "", linux.ENOENT
		}
		return "", linux.EINVAL
	}
	l, ok := in.node.(Linker)
	if !ok {
		return "", linux.EINVAL
	}
	s, err := l.Readlink(c, in)
	if err == nil {
		in.atime.Store(c.FS.v.Now())
	}
	return s, err
}
