// Package tmpfs is a file system in memory (tmpfs(5)): all of POSIX, sparse files, extended attributes, memfd_create(2) with seals. The
// pages of files are frames, so that mappings share them with read(2) and write(2).
//
// Locks of a file, outermost first: file.io (data: shared for reading, exclusive for what writes, cuts or punches), file.mu
// (which pages there are). Program memory is touched with file.io held, which no page fault needs: a fault calls Page, which takes
// file.mu only. Whoever removes pages holds both; whoever adds one holds file.mu; so with file.io held, pages can be looked up
// without a lock, since they do not go.
package tmpfs

import (
	"strconv"
	"strings"
	"sync/atomic"

	"dinos/dkernel/frame"
	"dinos/dkernel/vfs"
	"dinos/kernel/linux"
)

// pageSize is that of a frame.
const pageSize = frame.Size

// Config says how large a file system can be and what its root is like.
type Config struct {
	Size   int64  // bytes, rounded up to pages; 0: as much as there are frames
	Inodes int64  // 0: no limit
	Mode   uint32 // permissions of the root; 0: 01777
	UID    uint32
	GID    uint32
	Type   string // as in /proc/filesystems; "": tmpfs
	// Options are shown in /proc/mounts.
	Options string
}

// FS is a tmpfs.
type FS struct {
	*vfs.FS
	v      *vfs.VFS
	pool   *frame.Pool
	limit  int64 // pages; 0: none
	nodes  int64 // inodes; 0: no limit
	pages  atomic.Int64
	inodes atomic.Int64
}

// New makes an empty file system.
func New(v *vfs.VFS, c Config) *FS {
	if c.Type == "" {
		c.Type = "tmpfs"
	}
	if c.Mode == 0 {
		c.Mode = 0o1777
	}
	f := &FS{v: v, pool: v.Frames, limit: (c.Size + pageSize - 1) / pageSize, nodes: c.Inodes}
	f.FS = v.NewFS(vfs.FSConfig{Type: c.Type, Magic: linux.TMPFS_MAGIC, Impl: f, Options: c.Options})
	n := &dir{fs: f, names: map[string]*entry{}}
	f.inodes.Add(1)
	in := f.NewInode(n, 0, vfs.NewFile{Mode: linux.S_IFDIR | c.Mode&0o7777, UID: c.UID, GID: c.GID, Now: v.Now()})
	in.SetSize(2 * direntSize)
	f.SetRoot(new(vfs.Dentry).Init(nil, "/", in))
	return f
}

// Parse reads the data of mount(2): size, nr_blocks, nr_inodes, mode, uid, gid. total is the memory that percentages are of. The
// error is linux.EINVAL.
func Parse(data string, total int64) (Config, error) {
	c := Config{Size: total / 2}
	for _, o := range strings.Split(data, ",") {
		k, v, _ := strings.Cut(o, "=")
		base := 10
		switch k {
		case "", "rw", "ro", "noswap", "inode64", "inode32", "huge", "mpol":
			continue
		case "mode":
			base = 8
		}
		n, err := number(v, base, total)
		if err != nil || n < 0 {
			return c, linux.EINVAL
		}
		switch k {
		case "size":
			c.Size = n
		case "nr_blocks":
			if n > (1<<62)/pageSize {
				return c, linux.EINVAL
			}
			c.Size = n * pageSize
		case "nr_inodes":
			c.Inodes = n
		case "mode":
			c.Mode = uint32(n) & 0o7777
		case "uid":
			c.UID = uint32(n)
		case "gid":
			c.GID = uint32(n)
		default:
			return c, linux.EINVAL
		}
	}
	if data != "" {
		c.Options = data
	}
	return c, nil
}

// number reads a number with a suffix k, m, g, t or %.
func number(s string, base int, total int64) (int64, error) {
	if s == "" {
		return 0, linux.EINVAL
	}
	shift := 0
	switch s[len(s)-1] | 0x20 {
	case 'k':
		shift = 10
	case 'm':
		shift = 20
	case 'g':
		shift = 30
	case 't':
		shift = 40
	case '%' | 0x20:
		n, err := strconv.ParseInt(s[:len(s)-1], 10, 32)
		return total / 100 * n, err
	}
	if shift > 0 {
		s = s[:len(s)-1]
	}
	n, err := strconv.ParseInt(s, base, 64)
	if err != nil || n > (1<<62)>>shift {
		return 0, linux.EINVAL
	}
	return n << shift, nil
}

// Maker is mount(2)'s entry for tmpfs; total is the memory of the machine.
func Maker(total int64) vfs.FSMaker {
	return func(v *vfs.VFS, _, data string) (*vfs.FS, error) {
		c, err := Parse(data, total)
		if err != nil {
			return nil, err
		}
		return New(v, c).FS, nil
	}
}

// Statfs implements vfs.Statfser.
func (f *FS) Statfs(_ *vfs.Caller, s *linux.Statfs) error {
	if f.limit > 0 {
		s.Blocks = uint64(f.limit)
		s.Bfree = uint64(max(f.limit-f.pages.Load(), 0))
		s.Bavail = s.Bfree
	}
	if f.nodes > 0 {
		s.Files = uint64(f.nodes)
		s.Ffree = uint64(max(f.nodes-f.inodes.Load(), 0))
	}
	return nil
}

// Usage is how many pages and inodes there are.
func (f *FS) Usage() (pages, inodes int64) { return f.pages.Load(), f.inodes.Load() }

// newInode makes an inode of any type, or says linux.ENOSPC.
func (f *FS) newInode(n vfs.NewFile) (*vfs.Inode, error) {
	if f.inodes.Add(1) > f.nodes && f.nodes > 0 {
		f.inodes.Add(-1)
		return nil, linux.ENOSPC
	}
	var node any
	var size int64
	switch n.Mode & linux.S_IFMT {
	case linux.S_IFDIR:
		node, size = &dir{fs: f, names: map[string]*entry{}}, 2*direntSize
	case linux.S_IFREG:
		x := &file{fs: f}
		x.seals.Store(linux.F_SEAL_SEAL)
		in := f.NewInode(x, 0, n)
		x.in = in
		return in, nil
	case linux.S_IFLNK:
		node, size = &link{other: other{fs: f}, target: n.Target}, int64(len(n.Target))
	default:
		node = &other{fs: f}
	}
	in := f.NewInode(node, 0, n)
	in.SetSize(size)
	return in, nil
}

// take gets a page for a file, zeroed if so wanted, and counts it. Errors: linux.ENOSPC, and those of the pool.
func (f *FS) take(zeroed bool) (frame.Frame, error) {
	if f.pages.Add(1) > f.limit && f.limit > 0 {
		f.pages.Add(-1)
		return frame.None, linux.ENOSPC
	}
	alloc := f.pool.Alloc
	if zeroed {
		alloc = f.pool.AllocZero
	}
	p, err := alloc()
	if err != nil {
		f.pages.Add(-1)
	}
	return p, err
}

// give gives a page back.
func (f *FS) give(p frame.Frame) {
	f.pool.Unref(p)
	f.pages.Add(-1)
}

// other is a device, FIFO or socket.
type other struct {
	fs *FS
	xattrs
}

// Evict implements vfs.Evicter.
func (o *other) Evict(*vfs.Inode) { o.fs.inodes.Add(-1) }

// SetAttr implements vfs.AttrSetter.
func (o *other) SetAttr(_ *vfs.Caller, _ *vfs.Inode, s *vfs.SetAttr) error {
	if s.Valid&vfs.AttrSize != 0 {
		return linux.EINVAL
	}
	return nil
}

// link is a symbolic link.
type link struct {
	other
	target string
}

// Readlink implements vfs.Linker.
func (l *link) Readlink(*vfs.Caller, *vfs.Inode) (string, error) { return l.target, nil }
