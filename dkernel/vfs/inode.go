package vfs

import (
	"sync"
	"sync/atomic"

	"dinos/dkernel/cred"
	"dinos/kernel/linux"
)

// Inode is a file. What all files have is here; the rest is in its Node, which the file system gives.
//
// It counts who needs its data: being linked (one, however many links), open descriptions, mappings. After the last, the
// Node's Evict frees them. Memory of the Inode itself is the garbage collector's.
type Inode struct {
	fs   *FS
	node any
	dirs Directory // node, if it is a directory
	open Opener    // node, if it has an Open
	ino  uint64
	rdev uint64

	mode                atomic.Uint32 // type and permissions
	uid, gid            atomic.Uint32
	nlink               atomic.Int32
	size                atomic.Int64
	atime, mtime, ctime atomic.Int64
	btime               int64

	linkable atomic.Bool // it has no name yet, but link(2) may give it one (O_TMPFILE)
	refs     atomic.Int64
	mapped   atomic.Uint64 // the number of the contents for mm, once they were mapped
	writers  atomic.Int32  // descriptions open for writing; below 0: that many executions deny it

	dir  sync.RWMutex // names in it
	dead bool         // it was removed; guarded by dir
	attr sync.Mutex   // changes of attributes

	locks   atomic.Pointer[lockList]
	watches atomic.Pointer[watchList]
	private atomic.Pointer[any]
}

// The Node of an inode implements those of these interfaces that apply.
type (
	// Opener opens regular files and directories. Without it open(2) fails with ENXIO; devices, FIFOs and sockets do not come here.
	Opener interface {
		Open(c *Caller, d *Description, in *Inode) (File, error)
	}
	// Directory finds names. It is called with in.dir read-locked.
	Directory interface {
		// Lookup returns the entry name, which is neither "." nor "..", nor empty nor too long, or linux.ENOENT.
		Lookup(c *Caller, dir *Dentry, name string) (*Dentry, error)
	}
	// Editor is a Directory that can be changed. Its methods are called with the locks of the directories (and, for Remove and
	// replaced names, of a directory that goes) held, after all checks of POSIX. Link counts and times are the VFS' work.
	Editor interface {
		// Create makes a file: a directory, regular, a device, FIFO, socket or symbolic link. in has type, mode, owner, rdev.
		Create(c *Caller, dir *Dentry, name string, n NewFile) (*Dentry, error)
		// Link enters another name for in.
		Link(c *Caller, dir *Dentry, name string, in *Inode) (*Dentry, error)
		// Remove takes out child; an empty directory or another file. linux.ENOTEMPTY if it is not empty.
		Remove(c *Caller, dir, child *Dentry) error
		// Rename moves child to the name of newDir, where victim (nil if none) is replaced, or takes child's place if exchange.
		Rename(c *Caller, oldDir, child, newDir *Dentry, name string, victim *Dentry, exchange bool) error
	}
	// TmpFiler makes files without a name (O_TMPFILE).
	TmpFiler interface {
		TmpFile(c *Caller, dir *Dentry, n NewFile) (*Inode, error)
	}
	// Linker is a symbolic link.
	Linker interface {
		Readlink(c *Caller, in *Inode) (string, error)
	}
	// Jumper is a symbolic link that leads to a file without a path (/proc/self/fd/0). It is a Linker as well.
	Jumper interface {
		Jump(c *Caller, in *Inode) (Path, error)
	}
	// AttrGetter refreshes attributes that the Node knows better, before they are used: it sets them in a.
	AttrGetter interface {
		GetAttr(c *Caller, in *Inode, a *Attr) error
	}
	// AttrSetter takes part in changes of attributes: it changes the size (and the contents with it), and may refuse others. Without it,
	// a size cannot be changed and the rest is kept in the Inode. Called with in.attr held.
	AttrSetter interface {
		SetAttr(c *Caller, in *Inode, s *SetAttr) error
	}
	// Permitter replaces the check of permission bits.
	Permitter interface {
		Permit(c *Caller, in *Inode, want uint32) error
	}
	// Evicter frees the data, once, when nobody needs it any more.
	Evicter interface{ Evict(in *Inode) }
	// Xattrer has extended attributes. Names are complete ("user.x"). Errors: linux.ENODATA, EEXIST, ENOSPC, EOPNOTSUPP.
	Xattrer interface {
		GetXattr(in *Inode, name string) ([]byte, error)
		SetXattr(in *Inode, name string, value []byte, flags int) error
		RemoveXattr(in *Inode, name string) error
		ListXattr(in *Inode) []string
	}
)

// NewFile says what is to be created.
type NewFile struct {
	Mode     uint32 // with the type
	UID, GID uint32
	Rdev     uint64
	Target   string // of a symbolic link
	Now      int64
}

// NewInode makes an inode of f with one link (two for a directory) and the reference that stands for being linked. ino 0
// takes the next number.
func (f *FS) NewInode(node any, ino uint64, n NewFile) *Inode {
	if ino == 0 {
		ino = f.NextIno()
	}
	in := &Inode{fs: f, node: node, ino: ino, rdev: n.Rdev, btime: n.Now}
	in.open, _ = node.(Opener)
	in.mode.Store(n.Mode)
	in.uid.Store(n.UID)
	in.gid.Store(n.GID)
	in.atime.Store(n.Now)
	in.mtime.Store(n.Now)
	in.ctime.Store(n.Now)
	in.nlink.Store(1)
	if n.Mode&linux.S_IFMT == linux.S_IFDIR {
		in.dirs, _ = node.(Directory)
		in.nlink.Store(2)
	}
	in.refs.Store(1)
	return in
}

// DirRLock keeps the names in the directory from changing, for a Node that lists them; DirRUnlock ends that.
func (in *Inode) DirRLock() { in.dir.RLock() }

// DirRUnlock undoes DirRLock.
func (in *Inode) DirRUnlock() { in.dir.RUnlock() }

// FS returns the file system of in.
func (in *Inode) FS() *FS { return in.fs }

// Node returns what the file system gave.
func (in *Inode) Node() any { return in.node }

// Ino is the inode number.
func (in *Inode) Ino() uint64 { return in.ino }

// Rdev is the device number of a device file, as MkDev makes it.
func (in *Inode) Rdev() uint64 { return in.rdev }

// Mode is type and permissions.
func (in *Inode) Mode() uint32 { return in.mode.Load() }

// Type is the type part of the mode.
func (in *Inode) Type() uint32 { return in.mode.Load() & linux.S_IFMT }

// IsDir tells whether it is a directory.
func (in *Inode) IsDir() bool { return in.Type() == linux.S_IFDIR }

// UID is the owner.
func (in *Inode) UID() uint32 { return in.uid.Load() }

// GID is the group.
func (in *Inode) GID() uint32 { return in.gid.Load() }

// Nlink is the number of links.
func (in *Inode) Nlink() int { return int(in.nlink.Load()) }

// SetNlink sets the number of links, for a file system that makes inodes of its own.
func (in *Inode) SetNlink(n int) { in.nlink.Store(int32(n)) }

// Times are the times of the last access, change of the contents, and change of the attributes, in ns since 1970.
func (in *Inode) Times() (atime, mtime, ctime int64) {
	return in.atime.Load(), in.mtime.Load(), in.ctime.Load()
}

// Size is the size in bytes.
func (in *Inode) Size() int64 { return in.size.Load() }

// SetSize sets the size. The Node guards against concurrent changes.
func (in *Inode) SetSize(n int64) { in.size.Store(n) }

// SetAttrs takes over attributes that a Node learned (hostfs).
func (in *Inode) SetAttrs(a *Attr) {
	in.mode.Store(a.Mode)
	in.uid.Store(a.UID)
	in.gid.Store(a.GID)
	in.nlink.Store(int32(a.Nlink))
	in.size.Store(a.Size)
	in.atime.Store(a.Atime)
	in.mtime.Store(a.Mtime)
	in.ctime.Store(a.Ctime)
}

// Private returns what SetPrivate stored: the pipe of a FIFO, the socket of a bound name.
func (in *Inode) Private() any {
	if p := in.private.Load(); p != nil {
		return *p
	}
	return nil
}

// SetPrivate stores x if nothing is stored yet, and returns what is stored then.
func (in *Inode) SetPrivate(x any) any {
	if in.private.CompareAndSwap(nil, &x) {
		return x
	}
	return in.Private()
}

// Ref adds a reference to the data. The caller has one.
func (in *Inode) Ref() { in.refs.Add(1) }

// TryRef adds one unless the data is gone.
func (in *Inode) TryRef() bool {
	for {
		n := in.refs.Load()
		if n <= 0 {
			return false
		}
		if in.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Unref drops a reference; the last frees the data.
func (in *Inode) Unref() {
	if in.refs.Add(-1) == 0 {
		in.selfDeleted()
		if e, ok := in.node.(Evicter); ok {
			e.Evict(in)
		}
	}
}

// unlink drops a link, or the two of a directory.
func (in *Inode) unlink(n int32) {
	if in.nlink.Add(-n) == 0 {
		in.Unref()
	}
}

// relink adds a link. A file without one (O_TMPFILE) gets back the reference for it.
func (in *Inode) relink() {
	if in.nlink.Add(1) == 1 {
		in.Ref()
	}
}

// DenyWrite keeps others from opening it for writing, as long as a program of it runs: linux.ETXTBSY if somebody has it open so.
func (in *Inode) DenyWrite() error {
	for {
		n := in.writers.Load()
		if n > 0 {
			return linux.ETXTBSY
		}
		if in.writers.CompareAndSwap(n, n-1) {
			return nil
		}
	}
}

// AllowWrite undoes one DenyWrite.
func (in *Inode) AllowWrite() { in.writers.Add(1) }

// addWriter counts a writer: linux.ETXTBSY if it is being executed.
func (in *Inode) addWriter() error {
	for {
		n := in.writers.Load()
		if n < 0 {
			return linux.ETXTBSY
		}
		if in.writers.CompareAndSwap(n, n+1) {
			return nil
		}
	}
}

// Accessed notes a read, as relatime does: if the file was changed since the last, or that is a day ago.
func (in *Inode) Accessed(d *Description) {
	const day = 24 * 3600 * 1e9
	at := in.atime.Load()
	if at > in.mtime.Load() && at > in.ctime.Load() && in.fs.v.coarse.Load()-at < day {
		return
	}
	if d.Flags()&linux.O_NOATIME != 0 || d.path.Mount != nil && d.path.Mount.flags.Load()&(linux.MS_NOATIME|linux.MS_RDONLY) != 0 {
		return
	}
	in.atime.Store(in.fs.v.Now())
}

// Modified notes a change of the contents.
func (in *Inode) Modified() {
	t := in.fs.v.Now()
	in.mtime.Store(t)
	in.ctime.Store(t)
}

// Changed notes a change of the attributes.
func (in *Inode) Changed() { in.ctime.Store(in.fs.v.Now()) }

// Written is called by a Node when c has written: it notes the time and takes away the setuid and setgid bits, unless c has
// CAP_FSETID.
func (in *Inode) Written(c *Caller) {
	in.Modified()
	in.dropSuid(c)
}

func (in *Inode) dropSuid(c *Caller) {
	m := in.mode.Load()
	if m&(linux.S_ISUID|linux.S_ISGID) == 0 || m&linux.S_IFMT != linux.S_IFREG || c.Cred.Can(cred.FSETID) {
		return
	}
	in.attr.Lock()
	in.mode.Store(withoutSuid(in.mode.Load()))
	in.attr.Unlock()
}

// withoutSuid clears setuid, and setgid if it means execution and not mandatory locking.
func withoutSuid(m uint32) uint32 {
	m &^= linux.S_ISUID
	if m&linux.S_IXGRP != 0 {
		m &^= linux.S_ISGID
	}
	return m
}

// Permit checks that c may use in the ways of want: bits 4 read, 2 write, 1 execute or search.
func (in *Inode) Permit(c *Caller, want uint32) error { return in.permit(c, c.Cred, want) }

func (in *Inode) permit(c *Caller, cr *cred.Cred, want uint32) error {
	m := in.mode.Load()
	if want == 1 && m&0o111 == 0o111 {
		return nil
	}
	if want&2 != 0 && in.fs.conf.ReadOnly && (m&linux.S_IFMT == linux.S_IFREG || m&linux.S_IFMT == linux.S_IFDIR) {
		return linux.EROFS
	}
	if p, ok := in.node.(Permitter); ok {
		return p.Permit(c, in, want)
	}
	if !cr.Access(in.uid.Load(), in.gid.Load(), m, m&linux.S_IFMT == linux.S_IFDIR, want) {
		return linux.EACCES
	}
	return nil
}

// owned tells whether c may change attributes of in as its owner.
func (in *Inode) owned(c *Caller) bool {
	return c.Cred.FSUID == in.uid.Load() || c.Cred.Can(cred.FOWNER)
}
