// Package uio moves data between the kernel and a program's memory without a detour: a file is given an IO, which says where in
// the program the data goes or comes from, and copies its pages there itself.
package uio

import "dinos/kernel/linux"

// Memory is a program's address space, as system calls use it: every address in it is an allegation. Each method fails with
// linux.EFAULT and says how many bytes were copied before the one that could not be. The copying methods resolve page faults,
// so they may block; the caller holds no lock that a fault needs (those of package mm, and of any file that may be mapped).
// Methods may be called by several goroutines.
type Memory interface {
	CopyIn(dst []byte, addr uint64) (int, error)
	CopyOut(addr uint64, src []byte) (int, error)
	// Zero stores n zero bytes.
	Zero(addr, n uint64) (uint64, error)
}

// Vec is a range of a program's memory: struct iovec.
type Vec struct{ Base, Len uint64 }

// IO is a cursor over ranges of a program's memory, or over a slice of the kernel's own. It belongs to one goroutine.
type IO struct {
	mem  Memory // nil: only bytes
	vecs []Vec  // what is left; the first may be partly done
	one  [1]Vec // backs vecs in the usual case
	own  []byte // what is left of the kernel's own slice
	left int64
}

// User sets o to one range of a program's memory. Nothing is allocated.
func (o *IO) User(mem Memory, addr, n uint64) {
	o.mem, o.own = mem, nil
	o.one[0] = Vec{addr, n}
	o.vecs = o.one[:]
	o.left = int64(n)
}

// UserVecs sets o to several ranges. It fails with linux.EINVAL if their sizes add up to more than a ssize_t (readv(2)). The
// slice is changed as o moves on.
func (o *IO) UserVecs(mem Memory, vecs []Vec) error {
	var sum int64
	for _, v := range vecs {
		if int64(v.Len) < 0 || sum+int64(v.Len) < sum {
			return linux.EINVAL
		}
		sum += int64(v.Len)
	}
	*o = IO{mem: mem, vecs: vecs, left: sum}
	return nil
}

// Bytes sets o to a slice of the kernel's own memory.
func (o *IO) Bytes(p []byte) { *o = IO{own: p, left: int64(len(p))} }

// Len is how many bytes are left.
func (o *IO) Len() int64 { return o.left }

// Limit drops what is beyond the next n bytes.
func (o *IO) Limit(n int64) {
	if n >= 0 && n < o.left {
		o.left = n
	}
}

// next returns what is left of the current range of the program, at most n bytes of it.
func (o *IO) next(n uint64) (addr, size uint64) {
	for len(o.vecs) > 0 && o.vecs[0].Len == 0 {
		o.vecs = o.vecs[1:]
	}
	if len(o.vecs) == 0 {
		return 0, 0
	}
	return o.vecs[0].Base, min(n, o.vecs[0].Len, uint64(o.left))
}

func (o *IO) advance(n int) {
	if o.mem == nil {
		o.own = o.own[n:]
	} else {
		o.vecs[0].Base += uint64(n)
		o.vecs[0].Len -= uint64(n)
	}
	o.left -= int64(n)
}

// Write copies p to the program (this is what read(2) does), as much as fits. The error is linux.EFAULT; n bytes went well.
func (o *IO) Write(p []byte) (n int, err error) {
	for len(p) > 0 && o.left > 0 {
		c := 0
		if o.mem == nil {
			c = copy(o.own, p[:min(int64(len(p)), o.left)])
		} else {
			addr, size := o.next(uint64(len(p)))
			c, err = o.mem.CopyOut(addr, p[:size])
		}
		o.advance(c)
		n += c
		p = p[c:]
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// Read copies from the program to p (this is what write(2) does), as much as there is: 0 with no error at the end, unlike
// an io.Reader. The error is linux.EFAULT; n bytes went well.
func (o *IO) Read(p []byte) (n int, err error) {
	for len(p) > 0 && o.left > 0 {
		c := 0
		if o.mem == nil {
			c = copy(p[:min(int64(len(p)), o.left)], o.own)
		} else {
			addr, size := o.next(uint64(len(p)))
			c, err = o.mem.CopyIn(p[:size], addr)
		}
		o.advance(c)
		n += c
		p = p[c:]
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// Zero stores n zero bytes to the program, as many as fit.
func (o *IO) Zero(n int64) (done int64, err error) {
	for n > 0 && o.left > 0 {
		c := 0
		if o.mem == nil {
			c = int(min(n, o.left))
			clear(o.own[:c])
		} else {
			addr, size := o.next(uint64(n))
			var z uint64
			z, err = o.mem.Zero(addr, size)
			c = int(z)
		}
		o.advance(c)
		n -= int64(c)
		done += int64(c)
		if err != nil {
			return done, err
		}
	}
	return done, nil
}
