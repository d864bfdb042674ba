// Package vfs is files as programs see them: open file descriptions and descriptor tables, paths, mounts, permissions, times, locks,
// inotify. File systems (packages below it in the tree: tmpfs, devfs, procfs, hostfs) give it inodes; other packages give it
// files (pipes, ttys, sockets) by implementing [File].
//
// The words are those of Linux: a [Dentry] is a name in a directory, an [Inode] is the file, a [Description] is an opened
// file, an [FDTable] has the descriptors. The names in a directory belong to the file system, which finds them by Lookup; there is
// no second cache in front of it.
//
// System calls are methods of [Caller], one each, that take decoded values and return linux.Errno errors. They do not keep the strings
// that they are given.
//
// Lock order, outermost first:
//
//	VFS.mounting            changes of the mount tree
//	Description.mu          the position
//	VFS.renaming            moves of directories to other parents
//	Inode.dir               names in a directory; ancestors before descendants, else by inode number
//	Inode.attr              changes of attributes
//	what a file system has  (tmpfs: file.pages)
//	Inode locks, watches    leaves
//
// No lock but the first two is held while program memory is touched.
package vfs

import (
	"sync"
	"sync/atomic"

	"dinos/dkernel/frame"
	"dinos/kernel/linux"
)

// Config is what a VFS works with.
type Config struct {
	// Now is the time of day in ns since 1970. It is called often and must be cheap.
	Now func() int64
	// Frames has the pages of files.
	Frames *frame.Pool
}

// VFS is one tree of files, and what all trees share: device numbers, locks, watches. There is one in a dkernel.
type VFS struct {
	now    func() int64
	Frames *frame.Pool

	mounting sync.Mutex
	mounts   atomic.Pointer[map[mountPoint]*Mount] // copied on write under mounting
	root     *Mount                                // guarded by mounting until Root is called first
	mountIDs uint64                                // guarded by mounting
	order    []*Mount                              // in the order of /proc/self/mountinfo; guarded by mounting

	renaming sync.RWMutex // write: a directory changes its parent; read: a path is written down

	devices  devices
	anonDevs atomic.Uint32
	watches  atomic.Int64 // inotify watches in all, so that nobody looks for them when there are none
	cookies  atomic.Uint32
	mapIDs   atomic.Uint64
	posix    posixState
	openFIFO atomic.Pointer[FIFOOpener]

	// Protect are the sysctls fs.protected_*: what may not be done with the files of others, above all in sticky directories.
	Protect struct{ Hardlinks, Symlinks, Regular, FIFOs atomic.Int32 }

	anon, pipes, sockets *FS // of files without a name
	opened               atomic.Int64
	coarse               atomic.Int64
}

// FIFOOpener opens a FIFO: package ipc registers it. It may block until the other side comes, as open(2) says. in.Private is
// for its use.
type FIFOOpener func(c *Caller, d *Description, in *Inode) (File, error)

// New makes a VFS without a root.
func New(c Config) *VFS {
	v := &VFS{now: c.Now, Frames: c.Frames}
	v.mounts.Store(&map[mountPoint]*Mount{})
	v.devices.init()
	v.Protect.Hardlinks.Store(1) // as distributions set it
	v.anon = v.NewFS(FSConfig{Type: "anon_inodefs", Magic: linux.ANON_INODE_MAGIC})
	v.pipes = v.NewFS(FSConfig{Type: "pipefs", Magic: linux.PIPEFS_MAGIC})
	v.sockets = v.NewFS(FSConfig{Type: "sockfs", Magic: linux.SOCKFS_MAGIC})
	return v
}

// Now is the time of day in ns.
func (v *VFS) Now() int64 {
	t := v.now()
	v.coarse.Store(t)
	return t
}

// RegisterFIFO says how FIFOs are opened. Without it they fail with linux.ENXIO.
func (v *VFS) RegisterFIFO(f FIFOOpener) { v.openFIFO.Store(&f) }

// OpenFiles is how many open file descriptions there are (fs.file-nr).
func (v *VFS) OpenFiles() int64 { return v.opened.Load() }

// FS is an instance of a file system.
type FS struct {
	v       *VFS
	conf    FSConfig
	dev     uint64
	lastIno atomic.Uint64
	root    *Dentry
}

// FSConfig describes a file system.
type FSConfig struct {
	Type  string // as in /proc/filesystems
	Magic int64  // f_type of statfs(2)
	Impl  any    // what the file system is to itself; Statfser, Syncfser are looked for in it
	// Dynamic says that names and attributes may change without the VFS' doing (proc, hostfs).
	Dynamic bool
	// ReadOnly refuses every change with EROFS.
	ReadOnly bool
	// Options are appended to the mount's in /proc/mounts, as "size=1024k".
	Options string
}

// Statfser is the Impl of a file system with figures.
type Statfser interface {
	// Statfs fills blocks and inodes; the rest is set.
	Statfs(c *Caller, s *linux.Statfs) error
}

// Syncfser is the Impl of a file system that has something to write back.
type Syncfser interface{ Syncfs(c *Caller) error }

// NewFS makes a file system. Set its root with SetRoot.
func (v *VFS) NewFS(c FSConfig) *FS {
	return &FS{v: v, conf: c, dev: uint64(v.anonDevs.Add(1))}
}

// VFS returns the VFS of f.
func (f *FS) VFS() *VFS { return f.v }

// Dev is st_dev of its files: major 0.
func (f *FS) Dev() uint64 { return f.dev }

// Type is the name of its kind.
func (f *FS) Type() string { return f.conf.Type }

// Impl is what the file system gave.
func (f *FS) Impl() any { return f.conf.Impl }

// SetRoot sets the root directory, once, before f is mounted.
func (f *FS) SetRoot(d *Dentry) { f.root = d }

// Root is the root directory.
func (f *FS) Root() *Dentry { return f.root }

// NextIno is an inode number not given before.
func (f *FS) NextIno() uint64 { return f.lastIno.Add(1) }
