// Package hostfs mounts a directory of the host: names and contents are the host's, asked for by the file messages of package proto,
// which the launcher serves.
//
// What the host said about a name is believed for a short while (Config.Fresh), as network file systems do: a change that another
// program makes on the host is seen after that. Reading and writing go to the host at once. Pages of mapped files are kept here
// as long as somebody maps the file; what a shared mapping has written goes to the host by msync(2), fsync(2) and when the file is
// closed. Locks and inotify know of this machine only.
//
// Locks of a file: file.io, then file.mu, as in tmpfs.
package hostfs

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"dinos/dkernel/frame"
	"dinos/dkernel/uio"
	"dinos/dkernel/vfs"
	"dinos/kernel/linux"
	"dinos/shmem/proto"
	"dinos/shmem/rpc"
)

// Calls sends a request to the host and decodes the answer to reply. An error of a file operation is an *rpc.RemoteError with its
// errno, or a linux.Errno; all others read as linux.EIO. It may be called by several goroutines.
type Calls interface {
	Call(req proto.Request, reply proto.Message) error
}

// Conn makes Calls of a connection. Timeout is for each call; 0 is the connection's own.
type Conn struct {
	C       *rpc.Conn
	Timeout time.Duration
}

// Call implements Calls.
func (c Conn) Call(req proto.Request, reply proto.Message) error {
	return c.C.Call(context.Background(), req, reply, c.Timeout)
}

// Config describes a mount.
type Config struct {
	Calls Calls
	// Fresh is how long attributes and names are believed, in ns.
	Fresh int64
	// ReadOnly refuses changes here already.
	ReadOnly bool
}

// FS is a directory of the host.
type FS struct {
	*vfs.FS
	v     *vfs.VFS
	calls Calls
	fresh int64
	pool  *frame.Pool
	root  *vfs.Dentry
}

// magic is f_type of statfs(2): that of 9p, whose programs expect a file system of another machine (V9FS_MAGIC).
const magic = 0x01021997

// New asks the host for the directory and makes the file system. Errors: those of the host.
func New(v *vfs.VFS, c Config) (*FS, error) {
	f := &FS{v: v, calls: c.Calls, fresh: c.Fresh, pool: v.Frames}
	f.FS = v.NewFS(vfs.FSConfig{Type: "hostfs", Magic: magic, Impl: f, Dynamic: true, ReadOnly: c.ReadOnly})
	var r proto.StatReply
	if err := f.call(&proto.Stat{}, &r); err != nil {
		return nil, err
	}
	if r.Attr.Type != linux.S_IFDIR {
		return nil, linux.ENOTDIR
	}
	f.root = f.dentry(nil, "/", &r.Attr)
	f.SetRoot(f.root)
	return f, nil
}

// call makes a call and turns its error into an errno.
func (f *FS) call(req proto.Request, reply proto.Message) error {
	err := f.calls.Call(req, reply)
	if err == nil {
		return nil
	}
	var e linux.Errno
	if errors.As(err, &e) {
		return e
	}
	var r *rpc.RemoteError
	if errors.As(err, &r) && r.Code == proto.CodeErrno && r.Errno > 0 && r.Errno < 512 {
		return linux.Errno(r.Errno)
	}
	return linux.EIO
}

// Statfs implements vfs.Statfser.
func (f *FS) Statfs(_ *vfs.Caller, s *linux.Statfs) error {
	var r proto.StatfsReply
	if err := f.call(&proto.Statfs{Path: "."}, &r); err != nil {
		return err
	}
	s.Blocks, s.Bfree, s.Bavail, s.Files, s.Ffree = r.Blocks, r.Free, r.Free, r.Files, r.FreeFiles
	s.Bsize, s.Frsize, s.Namelen = int64(r.BlockSize), int64(r.BlockSize), int64(r.NameMax)
	return nil
}

// path is the path of a dentry on the host, relative to the directory; "" is that itself.
func (f *FS) path(d *vfs.Dentry) string {
	if d == f.root {
		return ""
	}
	parts := []string{d.Name()}
	for d = d.Parent(); d != f.root && d != d.Parent(); d = d.Parent() {
		parts = append(parts, d.Name())
	}
	slices.Reverse(parts)
	return strings.Join(parts, "/")
}

func (f *FS) child(dir *vfs.Dentry, name string) string {
	if p := f.path(dir); p != "" {
		return p + "/" + name
	}
	return name
}

// node is what all files have.
type node struct {
	fs     *FS
	in     *vfs.Inode
	naming sync.Mutex
	known  []*vfs.Dentry // its names here; guarded by naming
	host   atomic.Uint64 // the host's inode number
	nlink  atomic.Uint32
	blocks atomic.Int64
	until  atomic.Int64 // attributes are believed until then
}

// name is a name by which the host knows it, or nil.
func (n *node) name() *vfs.Dentry {
	n.naming.Lock()
	defer n.naming.Unlock()
	for len(n.known) > 0 && n.known[0].Gone() {
		n.known = n.known[1:]
	}
	if len(n.known) == 0 {
		return nil
	}
	return n.known[0]
}

// impl is the Node of an inode; all kinds have a *node.
type impl interface{ base() *node }

func (n *node) base() *node { return n }

// dentry makes a name and the file behind it.
func (f *FS) dentry(parent *vfs.Dentry, name string, a *proto.Attr) *vfs.Dentry {
	var x impl
	var n *node
	switch a.Type {
	case linux.S_IFDIR:
		d := &dir{names: map[string]*vfs.Dentry{}}
		x, n = d, &d.node
	case linux.S_IFLNK:
		l := &link{}
		x, n = l, &l.node
	case linux.S_IFREG:
		r := &file{}
		x, n = r, &r.node
	default:
		o := &other{}
		x, n = o, &o.node
	}
	n.fs = f
	in := f.NewInode(x, a.Inode, vfs.NewFile{Mode: a.Type | a.Mode&0o7777, UID: a.UID, GID: a.GID, Rdev: a.Device})
	n.in = in
	d := new(vfs.Dentry).Init(parent, name, in)
	n.known = append(n.known, d)
	n.learn(a)
	return d
}

// learn takes over attributes from the host.
func (n *node) learn(a *proto.Attr) {
	n.host.Store(a.Inode)
	n.nlink.Store(a.Links)
	n.blocks.Store(int64(a.Blocks))
	n.in.SetAttrs(&vfs.Attr{Mode: a.Type | a.Mode&0o7777, UID: a.UID, GID: a.GID, Nlink: uint32(n.in.Nlink()), Size: n.in.Size(),
		Atime: a.Accessed, Mtime: a.Modified, Ctime: a.Changed})
	if r, ok := n.in.Node().(*file); ok {
		r.resized(int64(a.Size), a.Modified)
	} else {
		n.in.SetSize(int64(a.Size))
	}
	n.until.Store(n.fs.v.Now() + n.fs.fresh)
}

// refresh asks the host for attributes, unless they are fresh.
func (n *node) refresh() error {
	if n.fs.v.Now() < n.until.Load() {
		return nil
	}
	q := proto.Stat{}
	if h := n.handle(); h != 0 {
		q.Handle = h
	} else if d := n.name(); d == nil {
		return nil // nobody can tell more about it
	} else {
		q.Path = n.fs.path(d)
	}
	var r proto.StatReply
	if err := n.fs.call(&q, &r); err != nil {
		return err
	}
	if r.Attr.Type == n.in.Type() {
		n.learn(&r.Attr)
	}
	return nil
}

// handle is one of the open handles of the file, or 0.
func (n *node) handle() uint64 {
	if f, ok := n.in.Node().(*file); ok {
		f.mu.Lock()
		defer f.mu.Unlock()
		for h := range f.handles {
			return h
		}
	}
	return 0
}

// GetAttr implements vfs.AttrGetter.
func (n *node) GetAttr(_ *vfs.Caller, in *vfs.Inode, a *vfs.Attr) error {
	if err := n.refresh(); err != nil {
		return err
	}
	a.Ino, a.Nlink, a.Blocks, a.Btime = n.host.Load(), n.nlink.Load(), n.blocks.Load(), 0
	a.Mode, a.UID, a.GID, a.Size = in.Mode(), in.UID(), in.GID(), in.Size()
	a.Atime, a.Mtime, a.Ctime = in.Times()
	return nil
}

// The bits of proto.SetAttr.Set.
const (
	setMode = 1 << iota
	setOwner
	setGroup
	setSize
	setAccessed
	setModified
)

// SetAttr implements vfs.AttrSetter: the host does it, and tells how it is then.
func (n *node) SetAttr(_ *vfs.Caller, in *vfs.Inode, s *vfs.SetAttr) error {
	q := proto.SetAttr{Attr: proto.Attr{Mode: s.Mode, UID: s.UID, GID: s.GID, Size: uint64(s.Size), Accessed: s.Atime, Modified: s.Mtime}}
	for _, x := range []struct {
		a   vfs.AttrMask
		bit uint32
	}{{vfs.AttrMode, setMode}, {vfs.AttrUID, setOwner}, {vfs.AttrGID, setGroup}, {vfs.AttrSize, setSize}, {vfs.AttrAtime, setAccessed}, {vfs.AttrMtime, setModified}} {
		if s.Valid&x.a != 0 {
			q.Set |= x.bit
		}
	}
	if q.Set&setSize != 0 && in.Type() != linux.S_IFREG {
		return linux.EINVAL
	}
	if h := n.handle(); h != 0 {
		q.Handle = h
	} else if d := n.name(); d == nil {
		return linux.ESTALE
	} else if q.Path = n.fs.path(d); q.Path == "" {
		q.Path = "."
	}
	var r proto.SetAttrReply
	if err := n.fs.call(&q, &r); err != nil {
		return err
	}
	n.learn(&r.Attr)
	return nil
}

// dir is a directory. The names that were looked up are kept, so that a file has one inode for all who use it.
type dir struct {
	node
	mu    sync.Mutex
	names map[string]*vfs.Dentry // guarded by mu
}

// Lookup implements vfs.Directory.
func (d *dir) Lookup(_ *vfs.Caller, at *vfs.Dentry, name string) (*vfs.Dentry, error) {
	d.mu.Lock()
	old := d.names[name]
	d.mu.Unlock()
	if old != nil && d.fs.v.Now() < old.Inode().Node().(impl).base().until.Load() {
		return old, nil
	}
	var r proto.StatReply
	err := d.fs.call(&proto.Stat{Path: d.fs.child(at, name)}, &r)
	d.mu.Lock()
	defer d.mu.Unlock()
	old = d.names[name]
	if err == nil && old != nil && old.Inode().Type() == r.Attr.Type && old.Inode().Node().(impl).base().host.Load() == r.Attr.Inode {
		old.Inode().Node().(impl).base().learn(&r.Attr)
		return old, nil
	}
	if old != nil && (err == nil || err == linux.ENOENT) { // somebody on the host removed or replaced it
		delete(d.names, name)
		old.Forget()
		old.Inode().Unref()
	}
	if err != nil {
		return nil, err
	}
	n := d.fs.dentry(at, strings.Clone(name), &r.Attr)
	d.names[n.Name()] = n
	return n, nil
}

// Create implements vfs.Editor.
func (d *dir) Create(c *vfs.Caller, at *vfs.Dentry, name string, n vfs.NewFile) (*vfs.Dentry, error) {
	p := d.fs.child(at, name)
	var err error
	switch n.Mode & linux.S_IFMT {
	case linux.S_IFDIR:
		err = d.fs.call(&proto.Mkdir{Path: p, Mode: n.Mode & 0o7777}, &proto.Done{})
	case linux.S_IFLNK:
		err = d.fs.call(&proto.Symlink{Path: p, Target: n.Target}, &proto.Done{})
	case linux.S_IFREG:
		var r proto.OpenReply
		err = d.fs.call(&proto.Open{Path: p, Flags: linux.O_CREAT | linux.O_EXCL | linux.O_WRONLY, Mode: n.Mode & 0o7777}, &r)
		if err == nil {
			err = d.fs.call(&proto.Close{Handle: r.Handle}, &proto.Done{})
		}
	default:
		return nil, linux.EPERM // no devices, FIFOs and sockets on the host
	}
	if err != nil {
		return nil, err
	}
	return d.Lookup(c, at, name)
}

// Link implements vfs.Editor. The new name is the old inode's.
func (d *dir) Link(_ *vfs.Caller, at *vfs.Dentry, name string, in *vfs.Inode) (*vfs.Dentry, error) {
	n := in.Node().(impl).base()
	old := n.name()
	if old == nil {
		return nil, linux.ENOENT
	}
	if err := d.fs.call(&proto.Link{From: d.fs.path(old), To: d.fs.child(at, name)}, &proto.Done{}); err != nil {
		return nil, err
	}
	n.until.Store(0)
	dn := new(vfs.Dentry).Init(at, name, in)
	n.naming.Lock()
	n.known = append(n.known, dn)
	n.naming.Unlock()
	d.mu.Lock()
	d.names[name] = dn
	d.mu.Unlock()
	return dn, nil
}

// Remove implements vfs.Editor.
func (d *dir) Remove(_ *vfs.Caller, at, child *vfs.Dentry) error {
	err := d.fs.call(&proto.Unlink{Path: d.fs.path(child), RemoveDir: child.Inode().IsDir()}, &proto.Done{})
	if err != nil {
		return err
	}
	d.mu.Lock()
	delete(d.names, child.Name())
	d.mu.Unlock()
	n := child.Inode().Node().(impl).base()
	n.until.Store(0)
	if l := n.nlink.Load(); l > 0 {
		n.nlink.Store(l - 1)
	}
	return nil
}

// Rename implements vfs.Editor.
func (d *dir) Rename(_ *vfs.Caller, from, child, to *vfs.Dentry, name string, victim *vfs.Dentry, exchange bool) error {
	var flags uint32
	if exchange {
		flags = linux.RENAME_EXCHANGE
	}
	old := child.Name()
	if err := d.fs.call(&proto.Rename{From: d.fs.path(child), To: d.fs.child(to, name), Flags: flags}, &proto.Done{}); err != nil {
		return err
	}
	t := to.Inode().Node().(*dir)
	d.mu.Lock()
	delete(d.names, old)
	if exchange {
		d.names[old] = victim
	}
	d.mu.Unlock()
	t.mu.Lock()
	t.names[name] = child
	t.mu.Unlock()
	return nil
}

// Open implements vfs.Opener.
func (d *dir) Open(_ *vfs.Caller, desc *vfs.Description, _ *vfs.Inode) (vfs.File, error) {
	p := d.fs.path(desc.Path().Dentry)
	var r proto.OpenReply
	if err := d.fs.call(&proto.Open{Path: p, Flags: linux.O_RDONLY | linux.O_DIRECTORY}, &r); err != nil {
		return nil, err
	}
	return &dirFile{d: d, handle: r.Handle}, nil
}

// dirFile is an open directory.
type dirFile struct {
	vfs.BaseFile
	d      *dir
	handle uint64
}

// Read implements vfs.File.
func (*dirFile) Read(*vfs.Caller, *vfs.Description, *uio.IO, *int64) (int64, error) {
	return 0, linux.EISDIR
}

// Release implements vfs.File.
func (f *dirFile) Release(*vfs.Description) {
	_ = f.d.fs.call(&proto.Close{Handle: f.handle}, &proto.Done{})
}

// ReadDir implements vfs.DirReader. Positions are the host's.
func (f *dirFile) ReadDir(_ *vfs.Caller, _ *vfs.Description, pos int64, emit func(vfs.Dirent) bool) (int64, error) {
	const batch = 8 << 10
	for {
		var r proto.GetdentsReply
		if err := f.d.fs.call(&proto.Getdents{Handle: f.handle, Offset: uint64(pos), Count: batch}, &r); err != nil {
			return pos, err
		}
		if len(r.Entries) == 0 {
			return pos, nil
		}
		for _, e := range r.Entries {
			if !emit(vfs.Dirent{Name: e.Name, Ino: e.Inode, Type: e.Type, Next: int64(e.Next)}) {
				return pos, nil
			}
			pos = int64(e.Next)
		}
	}
}

// Sync implements vfs.Syncer.
func (f *dirFile) Sync(_ *vfs.Caller, _ *vfs.Description, dataOnly bool) error {
	return f.d.fs.call(&proto.Sync{Handle: f.handle, DataOnly: dataOnly}, &proto.Done{})
}

// link is a symbolic link.
type link struct{ node }

// Readlink implements vfs.Linker.
func (l *link) Readlink(*vfs.Caller, *vfs.Inode) (string, error) {
	d := l.name()
	if d == nil {
		return "", linux.ENOENT
	}
	var r proto.ReadlinkReply
	err := l.fs.call(&proto.Readlink{Path: l.fs.path(d)}, &r)
	return r.Target, err
}

// other is a device, FIFO or socket, which is not the host's when it is opened here.
type other struct{ node }
