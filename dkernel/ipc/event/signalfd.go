package event

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"dinos/dkernel/uio"
	"dinos/dkernel/vfs"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

// Signals is a thread as signalfd(2) sees it; vfs.Caller.Task implements it. Bit s-1 of a set is signal s.
type Signals interface {
	// HasSignal tells whether a signal of set is pending for the thread or its process.
	HasSignal(set uint64) bool
	// TakeSignal takes one, the lowest, out of those that are pending. The calling thread is the one.
	TakeSignal(set uint64) (info linux.SignalfdSiginfo, ok bool)
	// SignalQueue is where each new pending signal of the process or the thread is announced as wait.Readable.
	SignalQueue() *wait.Queue
}

// unblockable are the signals that no set can have.
const unblockable = 1<<(linux.SIGKILL-1) | 1<<(linux.SIGSTOP-1)

// Signalfd reads pending signals: signalfd(2). Reading takes signals of the thread that reads, as on Linux; polling looks at the
// thread that made it, where Linux looks at the one that polls.
type Signalfd struct {
	vfs.BaseFile
	maker Signals
	set   atomic.Uint64
}

// siginfoSize is the size of struct signalfd_siginfo.
const siginfoSize = 128

// CreateSignalfd is signalfd4(2): it returns the descriptor, a new one if fd is -1. set is that of the program, of 8 bytes. Errors:
// linux.EINVAL if fd is no signalfd, linux.EBADF.
func CreateSignalfd(c *vfs.Caller, fd int, set uint64, flags uint32) (int, error) {
	status, cloexec, err := createFlags(flags)
	if err != nil {
		return 0, err
	}
	set &^= unblockable
	if fd != -1 {
		r, err := c.Files.Get(fd)
		if err != nil {
			return 0, err
		}
		defer r.Put()
		s, ok := r.File().(*Signalfd)
		if !ok {
			return 0, linux.EINVAL
		}
		s.set.Store(set)
		s.maker.SignalQueue().Wake(wait.Readable) // what is pending may be in the set now
		return fd, nil
	}
	maker, ok := c.Task.(Signals)
	if !ok {
		return 0, linux.EINVAL
	}
	s := &Signalfd{maker: maker}
	s.set.Store(set)
	return c.InstallAnon("[signalfd]", s, linux.O_RDWR|status, cloexec)
}

// Read implements vfs.File: as many signals as fit and are pending, at least one.
func (s *Signalfd) Read(c *vfs.Caller, d *vfs.Description, io *uio.IO, _ *int64) (n int64, err error) {
	t, ok := c.Task.(Signals)
	if !ok || io.Len() < siginfoSize {
		return 0, linux.EINVAL
	}
	var b [siginfoSize]byte
	for io.Len() >= siginfoSize {
		info, ok := t.TakeSignal(s.set.Load())
		if !ok && n > 0 {
			break
		}
		if !ok {
			err = d.Sleeper(c).Until(t.SignalQueue(), wait.Readable, wait.Forever, func() error {
				if info, ok = t.TakeSignal(s.set.Load()); !ok {
					return linux.EAGAIN
				}
				return nil
			})
			if err != nil {
				return 0, err
			}
		}
		encode(b[:], &info)
		k, err := io.Write(b[:])
		if err != nil {
			if n == 0 {
				return 0, err
			}
			break
		}
		n += int64(k)
	}
	return n, nil
}

func encode(b []byte, i *linux.SignalfdSiginfo) {
	le := binary.LittleEndian
	for k, v := range [...]uint32{i.Signo, uint32(i.Errno), uint32(i.Code), i.PID, i.UID, uint32(i.FD), i.TID, i.Band, i.Overrun, i.Trapno,
		uint32(i.Status), uint32(i.Int)} {
		le.PutUint32(b[4*k:], v)
	}
	for k, v := range [...]uint64{i.Ptr, i.Utime, i.Stime, i.Addr} {
		le.PutUint64(b[48+8*k:], v)
	}
	le.PutUint16(b[80:], i.AddrLSB)
	le.PutUint32(b[84:], uint32(i.Syscall))
	le.PutUint64(b[88:], i.CallAddr)
	le.PutUint32(b[96:], i.Arch)
}

// Poll implements vfs.File.
func (s *Signalfd) Poll(*vfs.Description) wait.Events {
	if s.maker.HasSignal(s.set.Load()) {
		return wait.In
	}
	return 0
}

// Queue implements vfs.File.
func (s *Signalfd) Queue(*vfs.Description) *wait.Queue { return s.maker.SignalQueue() }

// FDInfo implements vfs.FDInfoer.
func (s *Signalfd) FDInfo(_ *vfs.Description, b []byte) []byte {
	return fmt.Appendf(b, "sigmask:\t%016x\n", s.set.Load())
}
