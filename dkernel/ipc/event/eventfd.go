// Package event is the files that are not about data: eventfd(2), timerfd_create(2), signalfd(2).
package event

import (
	"encoding/binary"
	"fmt"
	"sync"

	"dinos/dkernel/uio"
	"dinos/dkernel/vfs"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

// Eventfd is a counter that can be waited for: eventfd(2). As a [vfs.File] it moves 8 bytes at a time.
//
// Lock order: Eventfd.mu; no program memory is touched under it.
type Eventfd struct {
	vfs.BaseFile
	q         wait.Queue
	semaphore bool

	mu sync.Mutex
	n  uint64 // guarded by mu; at most full
}

// full is the largest value of a counter.
const full = ^uint64(0) - 1

// CreateEventfd is eventfd2(2): it returns the descriptor.
func CreateEventfd(c *vfs.Caller, n uint32, flags uint32) (int, error) {
	status, cloexec, err := createFlags(flags &^ linux.EFD_SEMAPHORE)
	if err != nil {
		return 0, err
	}
	e := &Eventfd{n: uint64(n), semaphore: flags&linux.EFD_SEMAPHORE != 0}
	return c.InstallAnon("[eventfd]", e, linux.O_RDWR|status, cloexec)
}

// createFlags returns the status flags and whether to close on exec, of the flags that the calls of this package know: O_NONBLOCK and
// O_CLOEXEC, by their names of EFD_NONBLOCK and so on. linux.EINVAL for others.
func createFlags(flags uint32) (status uint32, cloexec bool, err error) {
	if flags&^(linux.O_CLOEXEC|linux.O_NONBLOCK) != 0 {
		return 0, false, linux.EINVAL
	}
	return flags & linux.O_NONBLOCK, flags&linux.O_CLOEXEC != 0, nil
}

// take takes the counter, or one of a semaphore: linux.EAGAIN if it is 0.
func (e *Eventfd) take() (v uint64, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.n == 0 {
		return 0, linux.EAGAIN
	}
	v = e.n
	if e.semaphore {
		v = 1
	}
	e.n -= v
	return v, nil
}

// Add adds n to the counter: linux.EAGAIN if it would be more than the largest value. The kernel may call it (for KVM-like uses, and
// completions).
func (e *Eventfd) Add(n uint64) error {
	e.mu.Lock()
	if n > full-e.n {
		e.mu.Unlock()
		return linux.EAGAIN
	}
	e.n += n
	e.mu.Unlock()
	e.q.Wake(wait.Readable)
	return nil
}

// Read implements vfs.File.
func (e *Eventfd) Read(c *vfs.Caller, d *vfs.Description, io *uio.IO, _ *int64) (int64, error) {
	if io.Len() < 8 {
		return 0, linux.EINVAL
	}
	var v uint64
	err := d.Sleeper(c).Until(&e.q, wait.Readable, wait.Forever, func() (err error) {
		v, err = e.take()
		return err
	})
	if err != nil {
		return 0, err
	}
	e.q.Wake(wait.Writable)
	return put8(io, v)
}

// Write implements vfs.File.
func (e *Eventfd) Write(c *vfs.Caller, d *vfs.Description, io *uio.IO, _ *int64) (int64, error) {
	if io.Len() < 8 {
		return 0, linux.EINVAL
	}
	v, err := get8(io)
	if err != nil {
		return 0, err
	}
	if v > full {
		return 0, linux.EINVAL
	}
	if err = d.Sleeper(c).Until(&e.q, wait.Writable, wait.Forever, func() error { return e.Add(v) }); err != nil {
		return 0, err
	}
	return 8, nil
}

// Poll implements vfs.File.
func (e *Eventfd) Poll(*vfs.Description) (ev wait.Events) {
	e.mu.Lock()
	n := e.n
	e.mu.Unlock()
	if n > 0 {
		ev |= wait.In
	}
	if n < full {
		ev |= wait.Out
	}
	return ev
}

// Queue implements vfs.File.
func (e *Eventfd) Queue(*vfs.Description) *wait.Queue { return &e.q }

// FDInfo implements vfs.FDInfoer.
func (e *Eventfd) FDInfo(_ *vfs.Description, b []byte) []byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	return fmt.Appendf(b, "eventfd-count: %16x\neventfd-semaphore: %d\n", e.n, map[bool]int{true: 1}[e.semaphore])
}

// words are buffers of 8 bytes, which would escape to the heap otherwise.
var words = sync.Pool{New: func() any { return new([8]byte) }}

func put8(io *uio.IO, v uint64) (int64, error) {
	b := words.Get().(*[8]byte)
	binary.LittleEndian.PutUint64(b[:], v)
	n, err := io.Write(b[:])
	words.Put(b)
	if err != nil {
		return 0, err
	}
	return int64(n), nil
}

func get8(io *uio.IO) (uint64, error) {
	b := words.Get().(*[8]byte)
	_, err := io.Read(b[:])
	v := binary.LittleEndian.Uint64(b[:])
	words.Put(b)
	return v, err
}
