package vfs

import (
	"dinos/dkernel/uio"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

// File is the behaviour of an open file description: what a pipe, a socket, a regular file or a directory does. One File may serve
// many descriptions (then what belongs to one of them is in Description.State) or just one. All methods may be called by several
// goroutines at once. Errors are linux.Errno values.
//
// Embed [BaseFile] and write what applies. Calls that few kinds of files have are interfaces of their own below: Seeker, Flusher,
// Syncer, DirReader, Pager, Allocator, Truncater, FlagSetter, Peeker, PipeSizer, Sealer, FDInfoer.
type File interface {
	// Read moves data of the file to io (io.Write puts it there) and returns how much; 0 is the end of the file. off is nil for
	// streams (those whose description has Stream); else it is where to read, and is moved on by what was read. The caller holds
	// no lock of the file, but for read(2) of a seekable file the one of the description's position.
	//
	// A stream that has nothing returns linux.EAGAIN if d.Nonblock() or c.Sleeper is nil, else it waits with c.Sleeper.
	// What was moved before an error counts: n > 0 with a nil error.
	Read(c *Caller, d *Description, io *uio.IO, off *int64) (n int64, err error)
	// Write moves data from io (io.Read gets it) to the file, as Read does. For a seekable file with O_APPEND, *off is set by
	// the file to its end first.
	Write(c *Caller, d *Description, io *uio.IO, off *int64) (n int64, err error)
	// Poll returns what is possible now: wait.Readable, wait.Writable, wait.Hup, …
	Poll(d *Description) wait.Events
	// Queue is where changes of Poll are announced; nil if it never changes: then epoll_ctl(2) fails with EPERM. It stays the same as
	// long as d is open.
	Queue(d *Description) *wait.Queue
	// Ioctl does what ioctl(2) does; arg is often an address in c.Mem. linux.ENOTTY for a request that it does not know.
	Ioctl(c *Caller, d *Description, req uint32, arg uint64) (uint64, error)
	// Release is called once, when the last reference to d is gone. Nobody else uses d then.
	Release(d *Description)
}

// Seeker is a File with an lseek(2) of its own. Other seekable files have one that goes by the inode's size.
type Seeker interface {
	// Seek returns the new position; cur is the old one. The position is locked.
	Seek(c *Caller, d *Description, cur, off int64, whence int) (int64, error)
}

// Flusher is a File that is told of each close(2) of a descriptor of it.
type Flusher interface {
	Flush(c *Caller, d *Description) error
}

// Syncer is a File that fsync(2) means something to. On other regular files and directories it does nothing, on the rest it
// fails with linux.EINVAL.
type Syncer interface {
	Sync(c *Caller, d *Description, dataOnly bool) error
}

// DirReader is a directory.
type DirReader interface {
	// ReadDir calls emit for each entry from position pos on (0 is the beginning, others are what an entry said was next)
	// until that returns false. It begins with "." and "..". It returns the position to go on from, that of an entry which
	// emit refused included.
	ReadDir(c *Caller, d *Description, pos int64, emit func(Dirent) bool) (int64, error)
}

// Dirent is an entry of a directory.
type Dirent struct {
	Name string
	Ino  uint64
	Type uint8 // linux.DT_DIR, …
	Next int64 // the position behind it
}

// Allocator is a File with fallocate(2).
type Allocator interface {
	// Allocate is given a mode that is valid, off >= 0 and n > 0 whose sum does not overflow.
	Allocate(c *Caller, d *Description, mode uint32, off, n int64) error
}

// Truncater is a File with ftruncate(2) that is no file of an inode (those have Inode's).
type Truncater interface {
	Truncate(c *Caller, d *Description, size int64) error
}

// FlagSetter is a File that wants to know of, or can refuse, changes of the status flags by fcntl(F_SETFL) and FIONBIO, FIOASYNC.
type FlagSetter interface {
	SetFlags(c *Caller, d *Description, old, new uint32) error
}

// Peeker is a readable stream which splice(2) and tee(2) can take from without losing data when the other side takes less.
type Peeker interface {
	// Peek copies to p what Read would return next, and leaves it there. It waits for the first byte as Read does (but
	// linux.EAGAIN if nonblock); n = 0 is the end. Until Consume is called, and it always is after a nil error, other readers wait.
	Peek(c *Caller, d *Description, p []byte, nonblock bool) (n int, err error)
	// Consume takes the first n bytes of what the last Peek returned and lets others read again.
	Consume(c *Caller, d *Description, n int)
}

// Piper marks the ends of pipes and FIFOs, for splice(2) and tee(2), and gives their size: fcntl(F_GETPIPE_SZ, F_SETPIPE_SZ).
type Piper interface {
	PipeSize(d *Description) int
	SetPipeSize(c *Caller, d *Description, n int) (int, error)
	// Same tells whether two ends are of the same pipe, which splice(2) and tee(2) refuse.
	Same(other File) bool
}

// Sealer is a File with seals: fcntl(F_ADD_SEALS, F_GET_SEALS).
type Sealer interface {
	Seals() (uint32, error)
	AddSeals(c *Caller, d *Description, seals uint32) error
}

// FDInfoer is a File with lines of its own in /proc/PID/fdinfo.
type FDInfoer interface {
	FDInfo(d *Description, b []byte) []byte
}

// BaseFile is a File that can do nothing: reading and writing fail with linux.EINVAL, ioctls with linux.ENOTTY, and it is always
// ready. Embed it.
type BaseFile struct{}

// Read implements File.
func (BaseFile) Read(*Caller, *Description, *uio.IO, *int64) (int64, error) { return 0, linux.EINVAL }

// Write implements File.
func (BaseFile) Write(*Caller, *Description, *uio.IO, *int64) (int64, error) { return 0, linux.EINVAL }

// Poll implements File.
func (BaseFile) Poll(*Description) wait.Events { return wait.Readable | wait.Writable }

// Queue implements File.
func (BaseFile) Queue(*Description) *wait.Queue { return nil }

// Ioctl implements File.
func (BaseFile) Ioctl(*Caller, *Description, uint32, uint64) (uint64, error) { return 0, linux.ENOTTY }

// Release implements File.
func (BaseFile) Release(*Description) {}
