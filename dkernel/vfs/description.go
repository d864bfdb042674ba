package vfs

import (
	"sync"
	"sync/atomic"

	"dinos/dkernel/cred"
	"dinos/dkernel/uio"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

// Description is an open file description: what descriptors made by open(2) refer to, shared by dup(2) and fork(2). It counts its
// references; Ref and Unref belong together. Immutable but for what is said to be guarded.
type Description struct {
	file  File
	refs  atomic.Int64
	flags atomic.Uint32 // access mode and status flags, as F_GETFL returns them
	mode  Mode
	path  Path
	inode *Inode // of path or of an anonymous file; nil never
	cred  *cred.Cred

	// State is what the File keeps for this description. It is set before the description is in use.
	State any

	mu  sync.Mutex // guards off; held during read(2), write(2), lseek(2), getdents64(2) of seekable files
	off int64

	owner atomic.Pointer[Owner]

	hookMu sync.Mutex
	hooks  []Hook // guarded by hookMu

	locked atomic.Bool // it had flock or OFD locks, to be dropped at the end
}

// Mode says what can be done with a description.
type Mode uint16

// The bits of a Mode.
const (
	Readable Mode = 1 << iota
	Writable
	Stream   // no position: read(2) gets a nil offset, lseek(2) and pread(2) fail with ESPIPE
	PathOnly // O_PATH
	execDeny // writing to the inode is denied while this is open
	counted  // it counts as a writer of the inode
	quiet    // opening failed: closing says nothing
)

// Owner is whom SIGIO is for: fcntl(F_SETOWN_EX) and F_SETSIG.
type Owner struct {
	Kind int32 // linux.F_OWNER_PID, …
	ID   int32
	Sig  int32
}

// Hook is told when a description is released (epoll drops it then).
type Hook interface {
	// Released is called without locks, before File.Release.
	Released(d *Description)
}

// settable are the flags that F_SETFL changes.
const settable = linux.O_APPEND | linux.O_ASYNC | linux.O_DIRECT | linux.O_NOATIME | linux.O_NONBLOCK

// File returns the behaviour.
func (d *Description) File() File { return d.file }

// Flags returns the access mode and the status flags, as fcntl(F_GETFL) does.
func (d *Description) Flags() uint32 { return d.flags.Load() }

// Nonblock tells whether O_NONBLOCK is set.
func (d *Description) Nonblock() bool { return d.flags.Load()&linux.O_NONBLOCK != 0 }

// Sleeper is what an operation of c on d sleeps with, nil if it may not block.
func (d *Description) Sleeper(c *Caller) *wait.Sleeper {
	if d.Nonblock() {
		return nil
	}
	return c.Sleeper
}

// Append tells whether O_APPEND is set.
func (d *Description) Append() bool { return d.flags.Load()&linux.O_APPEND != 0 }

// CanRead tells whether it was opened for reading.
func (d *Description) CanRead() bool { return d.mode&Readable != 0 }

// CanWrite tells whether it was opened for writing.
func (d *Description) CanWrite() bool { return d.mode&Writable != 0 }

// Mode returns what can be done with d.
func (d *Description) Mode() Mode { return d.mode }

// Path returns where the file was found.
func (d *Description) Path() Path { return d.path }

// Inode returns the file's inode.
func (d *Description) Inode() *Inode { return d.inode }

// Cred returns the credentials of who opened it.
func (d *Description) Cred() *cred.Cred { return d.cred }

// Owner returns whom SIGIO is for, or nil.
func (d *Description) Owner() *Owner { return d.owner.Load() }

// SetOwner sets it; nil is nobody.
func (d *Description) SetOwner(o *Owner) { d.owner.Store(o) }

// Ref adds a reference. The caller has one.
func (d *Description) Ref() *Description {
	d.refs.Add(1)
	return d
}

// Refs is how many references there are, at this moment.
func (d *Description) Refs() int64 { return d.refs.Load() }

// tryRef adds a reference unless there is none left.
func (d *Description) tryRef() bool {
	for {
		n := d.refs.Load()
		if n <= 0 {
			return false
		}
		if d.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Unref drops a reference; the last one releases the file.
func (d *Description) Unref() {
	if d.refs.Add(-1) == 0 {
		d.release()
	}
}

// AddHook has h told when d is released. The caller holds a reference.
func (d *Description) AddHook(h Hook) {
	d.hookMu.Lock()
	d.hooks = append(d.hooks, h)
	d.hookMu.Unlock()
}

// RemoveHook undoes one AddHook, if d was not released meanwhile.
func (d *Description) RemoveHook(h Hook) {
	d.hookMu.Lock()
	defer d.hookMu.Unlock()
	for i, x := range d.hooks {
		if x == h {
			d.hooks = append(d.hooks[:i], d.hooks[i+1:]...)
			return
		}
	}
}

func (d *Description) release() {
	d.hookMu.Lock()
	hooks := d.hooks
	d.hooks = nil
	d.hookMu.Unlock()
	for _, h := range hooks {
		h.Released(d)
	}
	if d.locked.Load() {
		d.inode.dropLocks(d)
	}
	if d.mode&PathOnly == 0 {
		d.closed()
		d.file.Release(d)
	}
	d.inode.fs.v.opened.Add(-1)
	if m := d.path.Mount; m != nil {
		m.opens.Add(-1)
	}
	if d.mode&counted != 0 {
		d.inode.writers.Add(-1)
	}
	if d.mode&execDeny != 0 {
		d.inode.AllowWrite()
	}
	d.inode.Unref()
}

// Read is read(2). The error is linux.EBADF if d is not open for reading.
func (d *Description) Read(c *Caller, io *uio.IO) (int64, error) {
	if d.mode&Readable == 0 {
		return 0, linux.EBADF
	}
	if d.mode&Stream != 0 {
		return d.read(c, io, nil)
	}
	d.mu.Lock()
	n, err := d.read(c, io, &d.off)
	d.mu.Unlock()
	return n, err
}

// Write is write(2).
func (d *Description) Write(c *Caller, io *uio.IO) (int64, error) {
	if d.mode&Writable == 0 {
		return 0, linux.EBADF
	}
	if d.mode&Stream != 0 {
		return d.write(c, io, nil)
	}
	d.mu.Lock()
	n, err := d.write(c, io, &d.off)
	d.mu.Unlock()
	return n, err
}

// Pread is pread64(2) and preadv(2).
func (d *Description) Pread(c *Caller, io *uio.IO, off int64) (int64, error) {
	if err := d.mayAt(off, Readable); err != nil {
		return 0, err
	}
	c.pos = off
	return d.read(c, io, &c.pos)
}

// Pwrite is pwrite64(2) and pwritev(2). With O_APPEND it appends, as on Linux.
func (d *Description) Pwrite(c *Caller, io *uio.IO, off int64) (int64, error) {
	if err := d.mayAt(off, Writable); err != nil {
		return 0, err
	}
	c.pos = off
	return d.write(c, io, &c.pos)
}

// mayAt is the check of pread and pwrite; way is Readable or Writable.
func (d *Description) mayAt(off int64, way Mode) error {
	switch {
	case off < 0:
		return linux.EINVAL
	case d.mode&Stream != 0:
		return linux.ESPIPE
	case d.mode&way == 0:
		return linux.EBADF
	}
	return nil
}

// limit cuts io to what one call moves. linux.EINVAL if that would reach beyond the largest position.
func limit(io *uio.IO, off *int64) error {
	io.Limit(linux.MAX_RW_COUNT)
	if off != nil && *off+io.Len() < 0 {
		return linux.EINVAL
	}
	return nil
}

// read and write are what is common to all kinds of reading and writing: the size limit and inotify.
func (d *Description) read(c *Caller, io *uio.IO, off *int64) (int64, error) {
	if err := limit(io, off); err != nil {
		return 0, err
	}
	n, err := d.file.Read(c, d, io, off)
	if n > 0 && d.inode.watched() {
		d.notify(linux.IN_ACCESS)
	}
	return n, err
}

func (d *Description) write(c *Caller, io *uio.IO, off *int64) (int64, error) {
	if err := limit(io, off); err != nil {
		return 0, err
	}
	n, err := d.file.Write(c, d, io, off)
	if n > 0 && d.inode.watched() {
		d.notify(linux.IN_MODIFY)
	}
	return n, err
}

// Poll returns what is possible now.
func (d *Description) Poll() wait.Events {
	if d.mode&PathOnly != 0 {
		return wait.Nval
	}
	return d.file.Poll(d)
}

// Queue is where changes of Poll are announced, or nil.
func (d *Description) Queue() *wait.Queue {
	if d.mode&PathOnly != 0 {
		return nil
	}
	return d.file.Queue(d)
}
