// Package ipctest has what the tests of dkernel/ipc need around the files they test: callers with memory and descriptors.
package ipctest

import (
	"sync"
	"sync/atomic"
	"time"

	"dinos/dkernel/cred"
	"dinos/dkernel/uio"
	"dinos/dkernel/vfs"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

var start = time.Now()

// Now is a monotonic clock.
func Now() int64 { return int64(time.Since(start)) }

// Mem is a program's memory: the addresses from Base on.
type Mem struct {
	mu sync.Mutex // tests share memories between callers
	b  []byte
}

// Base is the first address of a Mem.
const Base = 0x10000

// NewMem makes n bytes of memory.
func NewMem(n int) *Mem { return &Mem{b: make([]byte, n)} }

func (m *Mem) at(addr uint64, n int) ([]byte, error) {
	if addr < Base || addr-Base > uint64(len(m.b)) {
		return nil, linux.EFAULT
	}
	p := m.b[addr-Base:]
	if len(p) < n {
		return p, linux.EFAULT
	}
	return p[:n], nil
}

// CopyIn implements uio.Memory.
func (m *Mem) CopyIn(dst []byte, addr uint64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, err := m.at(addr, len(dst))
	return copy(dst, p), err
}

// CopyOut implements uio.Memory.
func (m *Mem) CopyOut(addr uint64, src []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, err := m.at(addr, len(src))
	return copy(p, src), err
}

// Zero implements uio.Memory.
func (m *Mem) Zero(addr, n uint64) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, err := m.at(addr, int(n))
	clear(p)
	return uint64(len(p)), err
}

// Thread is a caller whose signals can be seen.
type Thread struct {
	vfs.Caller
	Mem     *Mem
	pending atomic.Bool
	Signals []int
	io      uio.IO
}

// NewVFS makes a VFS without a root.
func NewVFS() *vfs.VFS {
	return vfs.New(vfs.Config{Now: func() int64 { return time.Now().UnixNano() }})
}

// NewThread makes a caller of v with a table of descriptors of its own.
func NewThread(v *vfs.VFS) *Thread {
	t := &Thread{Mem: NewMem(1 << 20)}
	t.Caller = vfs.Caller{Cred: cred.Root(), FS: v.NewFSContext(), Files: vfs.NewFDTable(), Mem: t.Mem, PID: 100, TID: 100,
		FileSizeLimit: vfs.Unlimited, OpenLimit: 1024, Signal: func(s int) { t.Signals = append(t.Signals, s) }}
	t.Sleeper = wait.NewSleeper(Now, t.pending.Load)
	return t
}

// Sibling makes another thread with the same descriptors and memory.
func (t *Thread) Sibling() *Thread {
	n := &Thread{Mem: t.Mem}
	n.Caller = t.Caller
	n.Files = t.Files.Share()
	n.Signal = func(s int) { n.Signals = append(n.Signals, s) }
	n.Sleeper = wait.NewSleeper(Now, n.pending.Load)
	return n
}

// Interrupt makes a signal pending, which ends the current sleep and all later ones until Calm.
func (t *Thread) Interrupt() {
	t.pending.Store(true)
	t.Sleeper.Rouse()
}

// Calm takes the signal back.
func (t *Thread) Calm() { t.pending.Store(false) }

// Desc returns the description of fd; it is the caller's as long as that is open.
func (t *Thread) Desc(fd int) *vfs.Description {
	r, err := t.Files.Get(fd)
	if err != nil {
		panic(err)
	}
	d := r.Description
	r.Put()
	return d
}

// Read is read(2) to the kernel's memory.
func (t *Thread) Read(fd int, p []byte) (int, error) {
	t.io.Bytes(p)
	n, err := t.Caller.Read(fd, &t.io)
	return int(n), err
}

// Write is write(2) from the kernel's memory.
func (t *Thread) Write(fd int, p []byte) (int, error) {
	t.io.Bytes(p)
	n, err := t.Caller.Write(fd, &t.io)
	return int(n), err
}

// scratch is where Ioctl has its argument.
const scratch = Base + 1<<19

// Ioctl is ioctl(2) with a pointer to arg, which it changes.
func (t *Thread) Ioctl(fd int, req uint32, arg []byte) error {
	if _, err := t.Mem.CopyOut(scratch, arg); err != nil {
		return err
	}
	_, err := t.Caller.Ioctl(fd, req, scratch)
	_, _ = t.Mem.CopyIn(arg, scratch)
	return err
}

// IoctlInt is ioctl(2) with a number.
func (t *Thread) IoctlInt(fd int, req uint32, arg uint64) error {
	_, err := t.Caller.Ioctl(fd, req, arg)
	return err
}

// Poll is what poll(2) would report of all events.
func (t *Thread) Poll(fd int) int16 { return int16(t.Desc(fd).Poll()) }

// SetNonblock is fcntl(F_SETFL) of O_NONBLOCK.
func (t *Thread) SetNonblock(fd int, on bool) {
	old, err := t.Fcntl(fd, linux.F_GETFL, 0)
	if err != nil {
		panic(err)
	}
	old &^= linux.O_NONBLOCK
	if on {
		old |= linux.O_NONBLOCK
	}
	if _, err := t.Fcntl(fd, linux.F_SETFL, old); err != nil {
		panic(err)
	}
}

// OpenDevice opens a device that has no name, by the function that is registered for it, and returns the descriptor.
func (t *Thread) OpenDevice(open vfs.DeviceOpener, dev uint64, flags uint32) (int, error) {
	v := t.FS.VFS()
	in := v.NewFS(vfs.FSConfig{Type: "test"}).NewInode(nil, 0, vfs.NewFile{Mode: linux.S_IFCHR | 0o600, Rdev: dev})
	f := &late{}
	d := t.NewNameless(new(vfs.Dentry).Init(nil, "device", in), f, flags, vfs.Stream)
	file, err := open(&t.Caller, d, in, flags)
	if err != nil {
		return 0, err
	}
	f.File = file
	return t.Files.Install(d, 0, t.OpenLimit, false)
}

// late is a file that is known after its description.
type late struct{ vfs.File }

// Close is close(2).
func (t *Thread) Close(fd int) {
	if err := t.Files.Close(&t.Caller, fd); err != nil {
		panic(err)
	}
}
