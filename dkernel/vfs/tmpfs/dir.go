package tmpfs

import (
	"cmp"
	"slices"

	"dinos/dkernel/uio"
	"dinos/dkernel/vfs"
	"dinos/kernel/linux"
)

// direntSize is what an entry adds to the size of a directory, as on Linux.
const direntSize = 20

// dir is a directory. The VFS locks it: read-locked for Lookup, locked for changes; ReadDir locks by DirLock.
type dir struct {
	fs    *FS
	names map[string]*entry
	list  []slot // in the order they were made, which is that of cookies
	dead  int    // how many of list have no entry any more
	last  int64  // cookie
	xattrs
}

// entry is a name. Its cookie is its position for getdents64, which it keeps as long as it lives, so that a reader
// who goes on finds its place whatever was made or removed.
type entry struct {
	vfs.Dentry
	cookie int64
}

type slot struct {
	cookie int64
	e      *entry // nil: removed
}

// firstCookie is behind "." and "..", which are at 0 and 1.
const firstCookie = 2

// Lookup implements vfs.Directory.
func (d *dir) Lookup(_ *vfs.Caller, _ *vfs.Dentry, name string) (*vfs.Dentry, error) {
	if e := d.names[name]; e != nil {
		return &e.Dentry, nil
	}
	return nil, linux.ENOENT
}

// Create implements vfs.Editor.
func (d *dir) Create(_ *vfs.Caller, at *vfs.Dentry, name string, n vfs.NewFile) (*vfs.Dentry, error) {
	in, err := d.fs.newInode(n)
	if err != nil {
		return nil, err
	}
	return d.enter(at, name, in), nil
}

// TmpFile implements vfs.TmpFiler.
func (d *dir) TmpFile(_ *vfs.Caller, _ *vfs.Dentry, n vfs.NewFile) (*vfs.Inode, error) {
	return d.fs.newInode(n)
}

// Link implements vfs.Editor.
func (d *dir) Link(_ *vfs.Caller, at *vfs.Dentry, name string, in *vfs.Inode) (*vfs.Dentry, error) {
	return d.enter(at, name, in), nil
}

func (d *dir) enter(at *vfs.Dentry, name string, in *vfs.Inode) *vfs.Dentry {
	e := &entry{}
	e.Init(at, name, in)
	d.add(at, name, e)
	return &e.Dentry
}

func (d *dir) add(at *vfs.Dentry, name string, e *entry) {
	d.last = max(d.last+1, firstCookie)
	e.cookie = d.last
	d.names[name] = e
	d.list = append(d.list, slot{e.cookie, e})
	at.Inode().SetSize(int64(len(d.names)+2) * direntSize)
}

// drop takes a name out.
func (d *dir) drop(at *vfs.Dentry, name string) {
	e := d.names[name]
	delete(d.names, name)
	d.list[d.find(e.cookie)].e = nil
	d.dead++
	if d.dead > 16 && d.dead > len(d.list)/2 {
		d.list = slices.DeleteFunc(d.list, func(x slot) bool { return x.e == nil })
		d.dead = 0
	}
	at.Inode().SetSize(int64(len(d.names)+2) * direntSize)
}

// Remove implements vfs.Editor.
func (d *dir) Remove(_ *vfs.Caller, at, child *vfs.Dentry) error {
	if err := empty(child); err != nil {
		return err
	}
	d.drop(at, child.Name())
	return nil
}

// empty says linux.ENOTEMPTY of a directory that is not.
func empty(child *vfs.Dentry) error {
	if c, ok := child.Inode().Node().(*dir); ok && len(c.names) > 0 {
		return linux.ENOTEMPTY
	}
	return nil
}

// Rename implements vfs.Editor.
func (d *dir) Rename(_ *vfs.Caller, from, child, to *vfs.Dentry, name string, victim *vfs.Dentry, exchange bool) error {
	nd := to.Inode().Node().(*dir)
	old := child.Name()
	e := d.names[old]
	if exchange {
		x := nd.names[name]
		d.names[old], nd.names[name] = x, e
		i, j := d.find(e.cookie), nd.find(x.cookie)
		d.list[i].e, nd.list[j].e = x, e
		e.cookie, x.cookie = x.cookie, e.cookie
		return nil
	}
	if victim != nil {
		if err := empty(victim); err != nil {
			return err
		}
		nd.drop(to, name)
	}
	d.drop(from, old)
	nd.add(to, name, e)
	return nil
}

// find is where the slot of cookie is, or would be.
func (d *dir) find(cookie int64) int {
	i, _ := slices.BinarySearchFunc(d.list, cookie, func(x slot, c int64) int { return cmp.Compare(x.cookie, c) })
	return i
}

// Open implements vfs.Opener.
func (d *dir) Open(*vfs.Caller, *vfs.Description, *vfs.Inode) (vfs.File, error) {
	return dirFile{d: d}, nil
}

// SetAttr implements vfs.AttrSetter.
func (d *dir) SetAttr(_ *vfs.Caller, _ *vfs.Inode, s *vfs.SetAttr) error {
	if s.Valid&vfs.AttrSize != 0 {
		return linux.EISDIR
	}
	return nil
}

// Evict implements vfs.Evicter.
func (d *dir) Evict(*vfs.Inode) { d.fs.inodes.Add(-1) }

// dirFile is an open directory.
type dirFile struct {
	vfs.BaseFile
	d *dir
}

// Read implements vfs.File.
func (dirFile) Read(*vfs.Caller, *vfs.Description, *uio.IO, *int64) (int64, error) {
	return 0, linux.EISDIR
}

// Seek implements vfs.Seeker: positions are cookies, and any can be sought.
func (dirFile) Seek(_ *vfs.Caller, _ *vfs.Description, cur, off int64, whence int) (int64, error) {
	if whence != linux.SEEK_SET && whence != linux.SEEK_CUR {
		return 0, linux.EINVAL
	}
	return vfs.SeekIn(cur, off, whence, 0)
}

// ReadDir implements vfs.DirReader.
func (f dirFile) ReadDir(_ *vfs.Caller, d *vfs.Description, pos int64, emit func(vfs.Dirent) bool) (int64, error) {
	self := d.Path().Dentry
	in := d.Inode()
	for ; pos < firstCookie; pos++ {
		e := vfs.Dirent{Name: ".", Ino: in.Ino(), Type: linux.DT_DIR, Next: pos + 1}
		if pos == 1 {
			e.Name, e.Ino = "..", self.Parent().Inode().Ino()
		}
		if !emit(e) {
			return pos, nil
		}
	}
	in.DirRLock()
	defer in.DirRUnlock()
	for _, s := range f.d.list[f.d.find(pos):] {
		if s.e != nil {
			to := s.e.Inode()
			if !emit(vfs.Dirent{Name: s.e.Name(), Ino: to.Ino(), Type: uint8(to.Type() >> 12), Next: s.cookie + 1}) {
				return s.cookie, nil
			}
		}
		pos = s.cookie + 1
	}
	return pos, nil
}
