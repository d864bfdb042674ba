package vfs

import (
	"dinos/dkernel/cred"
	"dinos/dkernel/uio"
	"dinos/dkernel/wait"
)

// Caller is the thread for which something is done. Each thread has one for its life, so that calls allocate nothing, and keeps it
// up to date: packages below read its fields without a lock, in that thread's goroutine only.
type Caller struct {
	Cred    *cred.Cred
	FS      *FSContext
	Files   *FDTable
	Sleeper *wait.Sleeper // nil: the call may not block
	Mem     uio.Memory    // of the process; for ioctls
	PID     int32         // thread group, as F_GETLK and the like tell
	TID     int32

	FileSizeLimit int64 // RLIMIT_FSIZE; Unlimited if there is none
	OpenLimit     int   // RLIMIT_NOFILE: descriptors are below it

	// Signal sends a signal to the thread (SIGXFSZ, SIGPIPE). It may be nil.
	Signal func(sig int)
	// Task is the thread in the sense of the packages above, for files that need more of it (job control of ttys).
	Task any

	pos int64 // position of pread and the like, here so that it does not escape to the heap
}

// Unlimited is no limit.
const Unlimited = int64(1<<63 - 1)

// signals that files send
const (
	sigXFSZ = 25
)

func (c *Caller) signal(sig int) {
	if c.Signal != nil {
		c.Signal(sig)
	}
}
