package mm

import (
	"dinos/dkernel/frame"
)

// Access is what a mapping of an Object may ever be.
type Access uint8

// Bits of Access.
const (
	MayRead  Access = 1 << iota // the file is open for reading
	MayWrite                    // it is open for writing, and shared mappings may write (no seal against it)
	NoExec                      // it is on a file system mounted noexec
)

// Info is what /proc/PID/maps says about a mapped object.
type Info struct {
	Name         string // the path, or something like "[vdso]"
	Major, Minor uint32 // of the device
	Inode        uint64
}

// Object is a file as address spaces see it: an open file description that can be mapped. Objects with the same ID are views of the
// same contents (an inode), and have the same pages.
//
// An address space calls an Object without holding any of its own locks, except Retain, Access and ID, which must not block.
// So an Object may call its Mappings with its own lock held, but must not hold that lock while it copies to or from programs.
//
// All methods may be called by any number of goroutines.
type Object interface {
	// ID identifies the contents: at least 2^62 (those below are mm's own), below 2^63, never used again. Futexes in shared mappings
	// are told apart by it.
	ID() uint64
	Access() Access
	Info() Info

	// Page is the frame with page index of the contents, with a reference for the caller. write says that the program is going to
	// write to it (shared mappings only): a hole is filled, the page is dirty from here on. Private mappings copy the frame
	// before they write. Errors: linux.ENOMEM; anything else, such as linux.ENXIO beyond the end, becomes SIGBUS.
	Page(index uint64, write bool) (frame.Frame, error)
	// Cached sets dst[i] to the frame with page index+i, with a reference, where that needs no waiting and the page is there and not
	// beyond the end; the others to frame.None. It is for reading ahead and for mincore(2).
	Cached(index uint64, dst []frame.Frame)
	// Notify reports whether the contents have to be written back somewhere: then a page is only writable after Page with write
	// said so, and again after Mappings.Clean.
	Notify() bool
	// Sync writes back the pages [first, last] (msync(2)); wait for it to be done if wait.
	Sync(first, last uint64, wait bool) error

	// Mappings is where address spaces enter themselves that map the contents: the same one for all Objects of one ID.
	Mappings() *Mappings
	// Retain and Release count the address spaces' references to the open file description.
	Retain()
	Release()
}

// Puncher is an Object whose pages can be removed (madvise(2) with MADV_REMOVE).
type Puncher interface {
	Punch(offset, n uint64) error
}
