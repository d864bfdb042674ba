// Package pseudo is what file systems are made of whose files are generated when they are read: proc and sysfs.
package pseudo

import (
	"sync"

	"dinos/dkernel/uio"
	"dinos/dkernel/vfs"
	"dinos/kernel/linux"
)

// FS is a file system of Nodes.
type FS struct{ *vfs.FS }

// Node is a file: what is set tells its kind.
type Node struct {
	Perm     uint32 // permissions
	UID, GID uint32
	Ino      uint64 // 0: a new number

	// Keep says that the node is always the same, so that it is made only once. Only in directories that are kept themselves.
	Keep bool

	// Dir is a directory.
	Dir Dir

	// Show and Store are a regular file: Show appends the contents to b, for who opens it from the beginning; Store takes what one
	// write(2) brings. nil: it cannot be read or written (linux.EINVAL... as Linux says EIO).
	Show  func(c *vfs.Caller, b []byte) ([]byte, error)
	Store func(c *vfs.Caller, data []byte) error
	// File is a regular file with a behaviour of its own; Show and Store are not used.
	File func(c *vfs.Caller, d *vfs.Description) (vfs.File, error)

	// Link is a symbolic link. With Jump, following it leads there, whatever Link says; a zero Path means that Link counts.
	Link func(c *vfs.Caller) (string, error)
	Jump func(c *vfs.Caller) (vfs.Path, error)

	// Check is asked before the node is used, beyond permissions; it may be nil.
	Check func(c *vfs.Caller) error
}

// Dir is the names of a directory. Both are called with the directory's lock held for reading.
type Dir interface {
	// Find returns the node of a name, or linux.ENOENT.
	Find(c *vfs.Caller, name string) (*Node, error)
	// Each calls emit for the entries from position from on (0 is the first), until it returns false. next is the position behind.
	Each(c *vfs.Caller, from int64, emit func(e Entry) bool) error
}

// Entry is a name in a directory, as Each gives it.
type Entry struct {
	Name string
	Type uint8 // linux.DT_*
	Ino  uint64
	Next int64
}

// New makes a file system with that root, which is kept.
func New(v *vfs.VFS, kind string, magic int64, root *Node) *FS {
	f := &FS{v.NewFS(vfs.FSConfig{Type: kind, Magic: magic, Dynamic: true})}
	root.Keep = true
	f.SetRoot(f.dentry(nil, "/", root))
	return f
}

// mode is the mode of a node.
func (n *Node) mode() uint32 {
	switch {
	case n.Dir != nil:
		return linux.S_IFDIR | n.Perm
	case n.Link != nil:
		return linux.S_IFLNK | 0o777
	}
	return linux.S_IFREG | n.Perm
}

// Type is the kind of a node for Entry.
func (n *Node) Type() uint8 { return uint8(n.mode() >> 12) }

func (f *FS) dentry(parent *vfs.Dentry, name string, n *Node) *vfs.Dentry {
	x := node{n: n, fs: f}
	var impl any
	switch {
	case n.Dir != nil:
		impl = &dirNode{node: x, kept: map[string]*vfs.Dentry{}}
	case n.Link != nil && n.Jump != nil:
		impl = &jumpNode{linkNode{x}}
	case n.Link != nil:
		impl = &linkNode{x}
	default:
		impl = &fileNode{x}
	}
	in := f.NewInode(impl, n.Ino, vfs.NewFile{Mode: n.mode(), UID: n.UID, GID: n.GID, Now: f.VFS().Now()})
	return new(vfs.Dentry).Init(parent, name, in)
}

type node struct {
	n  *Node
	fs *FS
}

// SetAttr implements vfs.AttrSetter: truncation on opening does nothing, the rest is refused.
func (x *node) SetAttr(_ *vfs.Caller, _ *vfs.Inode, s *vfs.SetAttr) error {
	if s.Valid&^vfs.AttrSize != 0 {
		return linux.EPERM
	}
	return nil
}

func (x *node) check(c *vfs.Caller) error {
	if x.n.Check != nil {
		return x.n.Check(c)
	}
	return nil
}

// dirNode is a directory.
type dirNode struct {
	node
	mu   sync.Mutex
	kept map[string]*vfs.Dentry // guarded by mu
}

// Lookup implements vfs.Directory.
func (d *dirNode) Lookup(c *vfs.Caller, at *vfs.Dentry, name string) (*vfs.Dentry, error) {
	if d.n.Keep {
		d.mu.Lock()
		k := d.kept[name]
		d.mu.Unlock()
		if k != nil {
			return k, nil
		}
	}
	if err := d.check(c); err != nil {
		return nil, err
	}
	n, err := d.n.Dir.Find(c, name)
	if err != nil {
		return nil, err
	}
	dn := d.fs.dentry(at, string(append([]byte(nil), name...)), n)
	if !d.n.Keep || !n.Keep {
		return dn, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if k := d.kept[name]; k != nil {
		return k, nil
	}
	d.kept[dn.Name()] = dn
	return dn, nil
}

// Open implements vfs.Opener.
func (d *dirNode) Open(c *vfs.Caller, _ *vfs.Description, _ *vfs.Inode) (vfs.File, error) {
	return dirFile{d: d}, d.check(c)
}

type dirFile struct {
	vfs.BaseFile
	d *dirNode
}

// Read implements vfs.File.
func (dirFile) Read(*vfs.Caller, *vfs.Description, *uio.IO, *int64) (int64, error) {
	return 0, linux.EISDIR
}

// ReadDir implements vfs.DirReader. Positions 0 and 1 are "." and "..".
func (f dirFile) ReadDir(c *vfs.Caller, d *vfs.Description, pos int64, emit func(vfs.Dirent) bool) (int64, error) {
	if err := f.d.check(c); err != nil {
		return 0, err
	}
	self := d.Path().Dentry
	for ; pos < 2; pos++ {
		e := vfs.Dirent{Name: ".", Ino: self.Inode().Ino(), Type: linux.DT_DIR, Next: pos + 1}
		if pos == 1 {
			e.Name, e.Ino = "..", self.Parent().Inode().Ino()
		}
		if !emit(e) {
			return pos, nil
		}
	}
	err := f.d.n.Dir.Each(c, pos-2, func(e Entry) bool {
		ino := e.Ino
		if ino == 0 {
			ino = 1 // 0 would mean a removed entry
		}
		if !emit(vfs.Dirent{Name: e.Name, Ino: ino, Type: e.Type, Next: e.Next + 2}) {
			return false
		}
		pos = e.Next + 2
		return true
	})
	return pos, err
}

// linkNode is a symbolic link.
type linkNode struct{ node }

// Readlink implements vfs.Linker.
func (l *linkNode) Readlink(c *vfs.Caller, _ *vfs.Inode) (string, error) {
	if err := l.check(c); err != nil {
		return "", err
	}
	return l.n.Link(c)
}

// jumpNode is one that leads to a file and not to a name.
type jumpNode struct{ linkNode }

// Jump implements vfs.Jumper.
func (l *jumpNode) Jump(c *vfs.Caller, _ *vfs.Inode) (vfs.Path, error) {
	if err := l.check(c); err != nil {
		return vfs.Path{}, err
	}
	return l.n.Jump(c)
}

// fileNode is a regular file.
type fileNode struct{ node }

// Open implements vfs.Opener.
func (f *fileNode) Open(c *vfs.Caller, d *vfs.Description, _ *vfs.Inode) (vfs.File, error) {
	if err := f.check(c); err != nil {
		return nil, err
	}
	if f.n.File != nil {
		return f.n.File(c, d)
	}
	return &file{n: f.n}, nil
}

// file is an open regular file.
type file struct {
	vfs.BaseFile
	n    *Node
	mu   sync.Mutex
	text []byte // what was generated when the beginning was read; guarded by mu
	made bool
}

// Read implements vfs.File. Who reads from the beginning gets new contents, who reads on gets the rest of what he began with.
func (f *file) Read(c *vfs.Caller, _ *vfs.Description, io *uio.IO, off *int64) (int64, error) {
	if f.n.Show == nil {
		return 0, linux.EIO
	}
	f.mu.Lock()
	if *off == 0 || !f.made {
		t, err := f.n.Show(c, f.text[:0:0])
		if err != nil {
			f.mu.Unlock()
			return 0, err
		}
		f.text, f.made = t, true
	}
	text := f.text // never changed in place
	f.mu.Unlock()
	if *off >= int64(len(text)) {
		return 0, nil
	}
	n, err := io.Write(text[*off:])
	*off += int64(n)
	if n > 0 {
		err = nil
	}
	return int64(n), err
}

// maxWrite is the most that a file takes in a write.
const maxWrite = 64 << 10

// Write implements vfs.File.
func (f *file) Write(c *vfs.Caller, _ *vfs.Description, io *uio.IO, off *int64) (int64, error) {
	if f.n.Store == nil {
		return 0, linux.EIO
	}
	b := make([]byte, min(io.Len(), maxWrite))
	n, err := io.Read(b)
	if err != nil {
		return 0, err
	}
	if err := f.n.Store(c, b[:n]); err != nil {
		return 0, err
	}
	*off += int64(n)
	return int64(n), nil
}

// Seek implements vfs.Seeker: there is no end to seek from.
func (f *file) Seek(_ *vfs.Caller, _ *vfs.Description, cur, off int64, whence int) (int64, error) {
	if whence != linux.SEEK_SET && whence != linux.SEEK_CUR {
		return 0, linux.EINVAL
	}
	return vfs.SeekIn(cur, off, whence, 0)
}

// Map is a directory with a fixed set of names. It is filled before it is used, and not changed after.
type Map struct {
	names []string
	nodes map[string]*Node
}

// Add enters a node and returns the Map. It panics on a name that exists: that is a mistake of the kernel.
func (m *Map) Add(name string, n *Node) *Map {
	if m.nodes == nil {
		m.nodes = map[string]*Node{}
	}
	if m.nodes[name] != nil {
		panic("pseudo: two files named " + name)
	}
	n.Keep = true
	m.names = append(m.names, name)
	m.nodes[name] = n
	return m
}

// Sub returns the Map of the directory name, made if it is not there.
func (m *Map) Sub(name string) *Map {
	if n := m.nodes[name]; n != nil {
		return n.Dir.(*Map)
	}
	s := &Map{}
	m.Add(name, &Node{Perm: 0o555, Dir: s})
	return s
}

// Find implements Dir.
func (m *Map) Find(_ *vfs.Caller, name string) (*Node, error) {
	if n := m.nodes[name]; n != nil {
		return n, nil
	}
	return nil, linux.ENOENT
}

// Each implements Dir.
func (m *Map) Each(_ *vfs.Caller, from int64, emit func(Entry) bool) error {
	for i := from; i < int64(len(m.names)); i++ {
		n := m.nodes[m.names[i]]
		if !emit(Entry{Name: m.names[i], Type: n.Type(), Ino: n.Ino, Next: i + 1}) {
			break
		}
	}
	return nil
}

// Len is the number of names.
func (m *Map) Len() int64 { return int64(len(m.names)) }

// Text is a file with fixed contents.
func Text(s string) *Node {
	return &Node{Perm: 0o444, Show: func(_ *vfs.Caller, b []byte) ([]byte, error) { return append(b, s...), nil }}
}

// Gen is a file that is generated.
func Gen(show func(b []byte) []byte) *Node {
	return &Node{Perm: 0o444, Show: func(_ *vfs.Caller, b []byte) ([]byte, error) { return show(b), nil }}
}
