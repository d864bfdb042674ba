package vfs

import (
	"encoding/binary"

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

// SendSignal sends a signal to the thread, if it can get any.
func (c *Caller) SendSignal(sig int) {
	if c.Signal != nil {
		c.Signal(sig)
	}
}

// noWait keeps calls of c from blocking until undo is called.
func (c *Caller) noWait() (undo func()) {
	s := c.Sleeper
	c.Sleeper = nil
	return func() { c.Sleeper = s }
}

// PutInt stores an int of the program's at addr.
func (c *Caller) PutInt(addr uint64, v int32) error {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], uint32(v))
	_, err := c.Mem.CopyOut(addr, b[:])
	return err
}

// GetInt reads an int of the program's.
func (c *Caller) GetInt(addr uint64) (int32, error) {
	var b [4]byte
	_, err := c.Mem.CopyIn(b[:], addr)
	return int32(binary.LittleEndian.Uint32(b[:])), err
}
