package vfs

import (
	"strings"
	"sync/atomic"
)

// Dentry is a name of a file in a directory. A file system makes it (embedded in an entry of its own, or alone) and finds it
// again by Lookup as long as the name exists. It moves when the file is renamed, so it stays the identity of a mount
// point and of a working directory.
type Dentry struct {
	inode  *Inode
	parent atomic.Pointer[Dentry] // of a root: itself
	name   atomic.Pointer[string]
	own    string // backs name until it is renamed
	gone   atomic.Bool
	mounts atomic.Int32 // how many mounts are on it
}

// Init sets up a dentry; parent nil means that it is a root.
func (d *Dentry) Init(parent *Dentry, name string, in *Inode) *Dentry {
	d.inode, d.own = in, name
	d.name.Store(&d.own)
	if parent == nil {
		parent = d
	}
	d.parent.Store(parent)
	return d
}

// Inode returns the file.
func (d *Dentry) Inode() *Inode { return d.inode }

// Name is the last part of its path; of a root it is "/" or what Init got.
func (d *Dentry) Name() string { return *d.name.Load() }

// Parent is the directory it is in; of a root, itself.
func (d *Dentry) Parent() *Dentry { return d.parent.Load() }

// Gone tells whether the name was removed.
func (d *Dentry) Gone() bool { return d.gone.Load() }

// Forget marks the name as removed, for a file system whose names go without unlink(2) (proc, hostfs).
func (d *Dentry) Forget() { d.gone.Store(true) }

// move changes the place. VFS.renaming is write-locked if the parent changes.
func (d *Dentry) move(parent *Dentry, name string) {
	d.name.Store(&name)
	d.parent.Store(parent)
}

// below tells whether d is dir or below it. VFS.renaming is held.
func (d *Dentry) below(dir *Dentry) bool {
	for {
		if d == dir {
			return true
		}
		p := d.parent.Load()
		if p == d {
			return false
		}
		d = p
	}
}

// Path is a place in the tree: a dentry seen through a mount.
type Path struct {
	Mount  *Mount
	Dentry *Dentry
}

// Inode returns the file, nil of the zero Path.
func (p Path) Inode() *Inode {
	if p.Dentry == nil {
		return nil
	}
	return p.Dentry.inode
}

// MountID is the number of the mount, as mountinfo has it; 0 of a file without a path.
func (p Path) MountID() uint64 {
	if p.Mount == nil {
		return 0
	}
	return p.Mount.id
}

// String is the path from the root of all mounts, for messages.
func (p Path) String() string {
	if p.Dentry == nil {
		return ""
	}
	s, _ := p.From(Path{})
	return s
}

// From writes p as seen by a process whose root is root. reachable is false if p is not below root: then it is the path
// from the root of its mount tree. A removed file has " (deleted)" behind it. Files without a name (pipes) have the one
// they were made with, "pipe:[12]".
func (p Path) From(root Path) (s string, reachable bool) {
	if p.Mount == nil {
		return p.Dentry.label(), true
	}
	v := p.Dentry.inode.fs.v
	v.renaming.RLock()
	defer v.renaming.RUnlock()
	var parts [16]string
	names := parts[:0]
	d, m := p.Dentry, p.Mount
	for {
		if d == root.Dentry && m == root.Mount {
			reachable = true
			break
		}
		if d == m.root {
			at := m.at.Load()
			if at == nil {
				reachable = root.Dentry == nil
				break
			}
			d, m = at.Dentry, at.Mount
			continue
		}
		up := d.parent.Load()
		if up == d {
			break
		}
		names = append(names, d.Name())
		d = up
	}
	var b strings.Builder
	for i := len(names) - 1; i >= 0; i-- {
		b.WriteByte('/')
		b.WriteString(names[i])
	}
	if b.Len() == 0 {
		b.WriteByte('/')
	}
	if p.Dentry.gone.Load() {
		b.WriteString(" (deleted)")
	}
	return b.String(), reachable
}
