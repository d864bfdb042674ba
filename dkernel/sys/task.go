package sys

import (
	"bytes"

	"dinos/dkernel/cred"
	"dinos/dkernel/proc"
	"dinos/dkernel/uio"
	"dinos/dkernel/vfs"
	"dinos/kernel/linux"
)

// Task is a thread as system calls see it. It belongs to the thread's goroutine.
type Task struct {
	T   *proc.Thread
	C   *vfs.Caller
	K   *Kernel
	Mem Memory

	trace func(t *proc.Thread, line []byte) // or nil

	fast Fast
	cred *cred.Cred // with which fast was told
	tid  int32      // likewise

	yields uint32
	args   Args
	io     uio.IO
	vecs   [8]uio.Vec // of readv and the like, when they are few
	buf    [linux.PATH_MAX]byte
	other  [linux.PATH_MAX]byte // for the second path of a call
	line   []byte               // of the trace
	counts [NumCalls]uint32     // not yet in the table's
}

// Fast answers system calls whose result does not change from call to call, before they come here.
type Fast interface {
	// SetFast has call nr answered with v. Numbers up to SYS_GETTID can be given.
	SetFast(nr int, v uint64)
	ClearFast()
}

// answers tells fast what there is to answer. A trace sees all calls, so then there is nothing.
func (t *Task) answers() {
	t.cred, t.tid = t.T.Cred(), t.T.TID()
	if t.fast == nil || t.trace != nil {
		return
	}
	c := t.cred
	for _, a := range [...]struct {
		nr int
		v  uint64
	}{{linux.SYS_GETPID, uint64(t.T.PID())}, {linux.SYS_GETTID, uint64(t.tid)},
		{linux.SYS_GETUID, uint64(c.UID)}, {linux.SYS_GETEUID, uint64(c.EUID)},
		{linux.SYS_GETGID, uint64(c.GID)}, {linux.SYS_GETEGID, uint64(c.EGID)}} {
		t.fast.SetFast(a.nr, a.v)
	}
}

// NewTask is the Task of t. fast may be nil.
func (k *Kernel) NewTask(t *proc.Thread, fast Fast) *Task {
	n := &Task{T: t, C: &t.Caller, K: k, Mem: t.Space().(Memory), trace: t.Process().Trace(), fast: fast}
	n.answers()
	return n
}

// Close ends the task, with its thread.
func (t *Task) Close() {
	for nr, n := range t.counts {
		if n != 0 {
			t.K.Table.counts[nr].Add(uint64(n))
		}
	}
}

// Do serves the system call that the registers of the thread ask for.
func (t *Task) Do() {
	f := &t.T.Regs
	nr := f.RAX
	f.OrigRAX = nr
	t.args = Args{f.RDI, f.RSI, f.RDX, f.R10, f.R8, f.R9}
	if t.trace != nil {
		t.traced(nr)
		return
	}
	if ret, ok := t.call(nr); ok {
		f.RAX = ret
	}
	if t.T.Cred() != t.cred || t.T.TID() != t.tid {
		t.answers()
	}
}

// call returns the value for RAX, unless the handler has set the registers itself.
func (t *Task) call(nr uint64) (ret uint64, ok bool) {
	tab := t.K.Table
	if nr >= NumCalls || tab.calls[nr].Do == nil {
		tab.miss(t.T.Name(), nr)
		return linux.ENOSYS.Ret(), true
	}
	t.counts[nr]++
	ret, err := tab.calls[nr].Do(t, &t.args)
	if err == nil {
		return ret, true
	}
	e, is := err.(linux.Errno)
	switch {
	case !is:
		// An error that no package should have let through; the program is told something true all the same.
		t.K.log("sys: %s: %v", Name(nr), err)
		e = linux.EIO
	case e == noResult:
		return 0, false
	}
	return e.Ret(), true
}

func (t *Task) traced(nr uint64) {
	f := &t.T.Regs
	a := t.args
	b := Format(t.line[:0], t.Mem, nr, &a, -1)
	ret, ok := t.call(nr)
	if !ok {
		t.trace(t.T, append(b, " = ?"...))
		return
	}
	f.RAX = ret
	if int64(ret) >= 0 || nr >= NumCalls { // buffers that the call has filled
		b = Format(b[:0], t.Mem, nr, &a, int64(ret))
	}
	b = Result(b, ret)
	t.line = b
	t.trace(t.T, b)
}

// str reads a string of a program, at most a path long: linux.EFAULT, linux.ENAMETOOLONG. It is a view of a buffer, good for the present call: who
// keeps it makes a copy, as package vfs does.
func (t *Task) str(addr uint64) (string, error) {
	b, err := t.bytesZ(addr, t.buf[:])
	return view(b), err
}

// str2 is str for a second string.
func (t *Task) str2(addr uint64) (string, error) {
	b, err := t.bytesZ(addr, t.other[:])
	return view(b), err
}

// bytesZ reads up to a zero byte to buf.
func (t *Task) bytesZ(addr uint64, buf []byte) ([]byte, error) {
	for n := 0; n < len(buf); {
		// Up to the end of a line of 64 bytes at first: most strings are short; then up to the end of the page.
		step := 64 - int(addr+uint64(n))&63
		if n > 0 {
			step = 4096 - int(addr+uint64(n))&4095
		}
		got, err := t.Mem.CopyIn(buf[n:min(n+step, len(buf))], addr+uint64(n))
		if i := bytes.IndexByte(buf[n:n+got], 0); i >= 0 {
			return buf[:n+i], nil
		}
		if err != nil {
			return nil, linux.EFAULT
		}
		n += got
	}
	return nil, linux.ENAMETOOLONG
}

// strings reads a list of strings (argv), in all at most limit bytes with their zero bytes: linux.E2BIG.
func (t *Task) strings(addr uint64, limit int) ([]string, error) {
	var list []string
	if addr == 0 {
		return nil, nil // as Linux, which warns
	}
	for ; ; addr += 8 {
		p, err := t.load64(addr)
		if err != nil {
			return nil, err
		}
		if p == 0 {
			return list, nil
		}
		s, err := t.long(p, min(limit, maxArg))
		if err != nil {
			return nil, err
		}
		if limit -= len(s) + 1 + 8; limit < 0 {
			return nil, linux.E2BIG
		}
		list = append(list, s)
	}
}

// maxArg is MAX_ARG_STRLEN.
const maxArg = 32 * 4096

// long reads a string that may be longer than a path.
func (t *Task) long(addr uint64, limit int) (string, error) {
	var s []byte
	for {
		b, err := t.bytesZ(addr, t.buf[:min(len(t.buf), limit-len(s))])
		if err == nil {
			return string(append(s, b...)), nil
		}
		if err != linux.ENAMETOOLONG {
			return "", err
		}
		s = append(s, t.buf[:min(len(t.buf), limit-len(s))]...)
		if len(s) >= limit {
			return "", linux.E2BIG
		}
		addr += uint64(len(t.buf))
	}
}

func (t *Task) load64(addr uint64) (uint64, error) { return load[uint64](t, addr) }

// user sets the task's cursor to a range of the program.
func (t *Task) user(addr, n uint64) *uio.IO {
	// Linux moves at most this much in one call (MAX_RW_COUNT).
	t.io.User(t.Mem, addr, min(n, 0x7ffff000))
	return &t.io
}

// iovec sets the task's cursor to the ranges that an array of struct iovec names.
func (t *Task) iovec(addr, n uint64) (*uio.IO, error) {
	if n > linux.UIO_MAXIOV {
		return nil, linux.EINVAL
	}
	v := t.vecs[:min(n, uint64(len(t.vecs)))]
	if n > uint64(len(t.vecs)) {
		v = make([]uio.Vec, n)
	}
	if err := loadSlice(t, addr, v); err != nil {
		return nil, err
	}
	if err := t.io.UserVecs(t.Mem, v); err != nil {
		return nil, err
	}
	t.io.Limit(0x7ffff000)
	return &t.io, nil
}

// out copies b to the program.
func (t *Task) out(addr uint64, b []byte) error {
	if _, err := t.Mem.CopyOut(addr, b); err != nil {
		return linux.EFAULT
	}
	return nil
}

// fill copies as much of b as the size allows and returns how much there is (getcwd, readlink take it from there).
func (t *Task) fill(addr, size uint64, b []byte) (uint64, error) {
	n := min(uint64(len(b)), size)
	return n, t.out(addr, b[:n])
}
