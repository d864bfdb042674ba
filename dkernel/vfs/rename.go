package vfs

import (
	"strings"

	"dinos/dkernel/cred"
	"dinos/kernel/linux"
)

// renaming is a rename(2) under way.
type renaming struct {
	c        *Caller
	from, to Path // the directories
	old, new last
	flags    uint32
	src      *Dentry
	dst      *Dentry // nil if the new name does not exist
}

// RenameAt is rename(2), renameat(2) and renameat2(2).
func (c *Caller) RenameAt(olddir int, oldpath string, newdir int, newpath string, flags uint32) error {
	const all = linux.RENAME_NOREPLACE | linux.RENAME_EXCHANGE | linux.RENAME_WHITEOUT
	if flags&^all != 0 || flags&linux.RENAME_EXCHANGE != 0 && flags != linux.RENAME_EXCHANGE {
		return linux.EINVAL
	}
	if flags&linux.RENAME_WHITEOUT != 0 && !c.Cred.Can(cred.MKNOD) {
		return linux.EPERM
	}
	r := renaming{c: c, flags: flags}
	var w walk
	for _, x := range []struct {
		fd   int
		path string
		at   *Path
		l    *last
	}{{olddir, oldpath, &r.from, &r.old}, {newdir, newpath, &r.to, &r.new}} {
		err := w.start(c, x.fd, x.path, 0)
		if err == nil {
			*x.l, err = w.dirOf(x.path)
		}
		if err != nil {
			return err
		}
		*x.at = w.at
	}
	switch {
	case r.from.Mount != r.to.Mount:
		return linux.EXDEV
	case !r.old.plain():
		return linux.EBUSY
	case !r.new.plain() && flags&linux.RENAME_NOREPLACE != 0:
		return linux.EEXIST
	case !r.new.plain():
		return linux.EBUSY
	}
	if err := r.from.Mount.writable(); err != nil {
		return err
	}
	unlock := r.lock()
	err := r.check()
	if err == nil && r.dst != nil && r.src.inode == r.dst.inode {
		unlock()
		return nil // two names of one file: nothing happens
	}
	if err == nil {
		err = r.do()
	}
	unlock()
	if err != nil {
		return err
	}
	r.tell()
	return nil
}

// lock locks the directories, ancestors first.
func (r *renaming) lock() (unlock func()) {
	v := r.c.FS.v
	a, b := r.from.Dentry.inode, r.to.Dentry.inode
	if a == b {
		a.dir.Lock()
		return a.dir.Unlock
	}
	v.renaming.Lock()
	if r.to.Dentry.below(r.from.Dentry) || !r.from.Dentry.below(r.to.Dentry) && a.ino < b.ino {
		a.dir.Lock()
		b.dir.Lock()
	} else {
		b.dir.Lock()
		a.dir.Lock()
	}
	return func() {
		a.dir.Unlock()
		b.dir.Unlock()
		v.renaming.Unlock()
	}
}

// check finds both files and does all checks that do not depend on the file system.
func (r *renaming) check() (err error) {
	c, fi, ti := r.c, r.from.Dentry.inode, r.to.Dentry.inode
	exchange := r.flags&linux.RENAME_EXCHANGE != 0
	if r.src, err = fi.dirs.Lookup(c, r.from.Dentry, r.old.name); err != nil {
		return err
	}
	if r.dst, err = ti.dirs.Lookup(c, r.to.Dentry, r.new.name); err != nil && err != linux.ENOENT {
		return err
	}
	if err != nil {
		r.dst = nil
	}
	isDir := r.src.inode.IsDir()
	switch {
	case r.flags&linux.RENAME_NOREPLACE != 0 && r.dst != nil:
		return linux.EEXIST
	case exchange && r.dst == nil:
		return linux.ENOENT
	case exchange && !r.dst.inode.IsDir() && r.new.slash:
		return linux.ENOTDIR
	case !isDir && (r.old.slash || !exchange && r.new.slash):
		return linux.ENOTDIR
	case isDir && r.to.Dentry.below(r.src):
		return linux.EINVAL
	case r.dst != nil && r.dst.inode.IsDir() && r.from.Dentry.below(r.dst):
		if exchange {
			return linux.EINVAL
		}
		return linux.ENOTEMPTY
	case r.dst != nil && r.src.inode == r.dst.inode:
		return nil
	}
	if err := c.mayDelete(fi, r.src, isDir); err != nil {
		return err
	}
	if r.dst == nil {
		if _, err := c.mayCreate(ti); err != nil {
			return err
		}
	} else if err := c.mayDelete(ti, r.dst, exchange && r.dst.inode.IsDir() || !exchange && isDir); err != nil {
		return err
	}
	if _, ok := fi.node.(Editor); !ok {
		return linux.EPERM
	}
	// Who moves a directory changes its "..".
	if fi != ti && isDir {
		if err := r.src.inode.Permit(c, 2); err != nil {
			return err
		}
	}
	if fi != ti && exchange && r.dst.inode.IsDir() {
		if err := r.dst.inode.Permit(c, 2); err != nil {
			return err
		}
	}
	if r.src.mounts.Load() != 0 || r.dst != nil && r.dst.mounts.Load() != 0 {
		return linux.EBUSY
	}
	return nil
}

// do changes the directories.
func (r *renaming) do() error {
	c, fi, ti := r.c, r.from.Dentry.inode, r.to.Dentry.inode
	exchange := r.flags&linux.RENAME_EXCHANGE != 0
	e := fi.node.(Editor)
	r.old.name, r.new.name = strings.Clone(r.old.name), strings.Clone(r.new.name)
	srcDir, dstDir := r.src.inode.IsDir(), r.dst != nil && r.dst.inode.IsDir()
	if dstDir && !exchange {
		r.dst.inode.dir.Lock()
		defer r.dst.inode.dir.Unlock()
	}
	if err := e.Rename(c, r.from.Dentry, r.src, r.to.Dentry, r.new.name, r.dst, exchange); err != nil {
		return err
	}
	switch {
	case exchange:
		r.dst.move(r.from.Dentry, r.old.name)
		r.dst.inode.Changed()
		if srcDir != dstDir && fi != ti {
			n := int32(1)
			if dstDir {
				n = -1
			}
			fi.nlink.Add(-n)
			ti.nlink.Add(n)
		}
	case r.dst != nil:
		r.dst.gone.Store(true)
		r.dst.inode.Changed()
		if dstDir {
			r.dst.inode.dead = true
			ti.nlink.Add(-1)
		}
		fallthrough
	default:
		if srcDir && fi != ti {
			fi.nlink.Add(-1)
			ti.nlink.Add(1)
		}
	}
	r.src.move(r.to.Dentry, r.new.name)
	r.src.inode.Changed()
	fi.Modified()
	ti.Modified()
	if r.flags&linux.RENAME_WHITEOUT != 0 {
		// The name was just freed, so only want of memory can fail; the rename stands then.
		n := c.newFile(fi, linux.S_IFCHR, 0)
		if _, err := e.Create(c, r.from.Dentry, r.old.name, n); err != nil {
			return err
		}
	}
	return nil
}

// tell notifies, and drops what was replaced. No lock is held.
func (r *renaming) tell() {
	v := r.c.FS.v
	exchange := r.flags&linux.RENAME_EXCHANGE != 0
	v.moved(r.from.Dentry, r.old.name, r.to.Dentry, r.new.name, r.src)
	if exchange {
		v.moved(r.to.Dentry, r.new.name, r.from.Dentry, r.old.name, r.dst)
		return
	}
	if r.dst == nil {
		return
	}
	in := r.dst.inode
	if in.IsDir() {
		in.unlink(2)
		return
	}
	v.notifyInode(in, linux.IN_ATTRIB)
	in.unlink(1)
}
