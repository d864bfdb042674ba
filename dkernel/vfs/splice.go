package vfs

import (
	"dinos/dkernel/uio"
	"dinos/kernel/linux"
)

// chunk is how much goes through the kernel at once.
const chunk = 64 << 10

// transfer is a copy from one description to another.
type transfer struct {
	c        *Caller
	in, out  *Description
	inOff    *int64 // nil: a stream
	outOff   *int64
	nonblock bool
}

// open checks that the one is open for reading, the other for writing.
func (t *transfer) open() error {
	if !t.in.CanRead() || !t.out.CanWrite() {
		return linux.EBADF
	}
	return nil
}

// run moves up to n bytes. What was moved before an error counts.
func (t *transfer) run(n int64) (done int64, err error) {
	n = min(n, linux.MAX_RW_COUNT)
	buf := make([]byte, min(n, chunk))
	if t.nonblock {
		defer t.c.noWait()()
	}
	for done < n {
		k, err := t.once(buf[:min(int64(len(buf)), n-done)])
		done += k
		if err != nil || k == 0 {
			if done > 0 {
				return done, nil
			}
			return 0, err
		}
		if t.inOff == nil { // a stream gives what it has; files are read on until their end
			break
		}
	}
	return done, nil
}

// once moves a buffer full.
func (t *transfer) once(buf []byte) (int64, error) {
	var io uio.IO
	if p, ok := t.in.file.(Peeker); ok && t.inOff == nil {
		n, err := p.Peek(t.c, t.in, buf, t.nonblock)
		if err != nil || n == 0 {
			return 0, err
		}
		io.Bytes(buf[:n])
		w, err := t.out.write(t.c, &io, t.outOff)
		p.Consume(t.c, t.in, int(max(w, 0)))
		return w, err
	}
	var before int64
	if t.inOff != nil {
		before = *t.inOff
	}
	io.Bytes(buf)
	n, err := t.in.read(t.c, &io, t.inOff)
	if err != nil || n == 0 {
		return 0, err
	}
	var done int64
	for done < n {
		io.Bytes(buf[done:n])
		w, err := t.out.write(t.c, &io, t.outOff)
		done += max(w, 0)
		if err != nil || w == 0 {
			if t.inOff != nil {
				*t.inOff = before + done
			}
			return done, err
		}
		if t.inOff != nil && w < n-done {
			break
		}
	}
	if t.inOff != nil {
		*t.inOff = before + done
	}
	return done, nil
}

// pair gets two descriptions, and locks their positions if those are used. The same description twice is locked once.
func (c *Caller) pair(infd, outfd int, inOff, outOff *int64, do func(t *transfer) (int64, error)) (int64, error) {
	a, err := c.Files.Get(infd)
	if err != nil {
		return 0, err
	}
	defer a.Put()
	b, err := c.Files.Get(outfd)
	if err != nil {
		return 0, err
	}
	defer b.Put()
	t := &transfer{c: c, in: a.Description, out: b.Description}
	x, y := t.in, t.out
	lockX, lockY := inOff == nil && x.mode&Stream == 0, outOff == nil && y.mode&Stream == 0
	if x == y {
		lockX, lockY = lockX || lockY, false
	}
	// Two positions are locked in the order of their files, so that two such calls cannot wait for each other.
	yFirst := lockY && y.inode.ino < x.inode.ino
	if yFirst {
		y.mu.Lock()
		defer y.mu.Unlock()
	}
	if lockX {
		x.mu.Lock()
		defer x.mu.Unlock()
	}
	if lockY && !yFirst {
		y.mu.Lock()
		defer y.mu.Unlock()
	}
	// Both sides go their own way even if they have one position; in the end it is that of the reading side, as on Linux.
	var from, to int64
	if x.mode&Stream == 0 {
		if t.inOff = &from; inOff == nil {
			inOff = &x.off
		}
		from = *inOff
	}
	if y.mode&Stream == 0 {
		if t.outOff = &to; outOff == nil {
			outOff = &y.off
		}
		to = *outOff
	}
	n, err := do(t)
	if n > 0 && t.outOff != nil {
		*outOff = to
	}
	if n > 0 && t.inOff != nil {
		*inOff = from
	}
	return n, err
}

// Sendfile is sendfile(2). off nil is the position of in; else it is moved.
func (c *Caller) Sendfile(outfd, infd int, off *int64, n int64) (int64, error) {
	if n < 0 || off != nil && *off < 0 {
		return 0, linux.EINVAL
	}
	return c.pair(infd, outfd, off, nil, func(t *transfer) (int64, error) {
		if err := t.open(); err != nil {
			return 0, err
		}
		if t.in.mode&Stream != 0 {
			if off != nil {
				return 0, linux.ESPIPE
			}
			return 0, linux.EINVAL
		}
		if t.in.inode.IsDir() || t.out.Append() {
			return 0, linux.EINVAL
		}
		return t.run(n)
	})
}

// Splice is splice(2). At least one side is a pipe.
func (c *Caller) Splice(infd int, inOff *int64, outfd int, outOff *int64, n int64, flags uint32) (int64, error) {
	if flags&^15 != 0 {
		return 0, linux.EINVAL
	}
	if n == 0 {
		return 0, nil
	}
	return c.pair(infd, outfd, inOff, outOff, func(t *transfer) (int64, error) {
		if err := t.open(); err != nil {
			return 0, err
		}
		in, isIn := t.in.file.(Piper)
		_, isOut := t.out.file.(Piper)
		switch {
		case !isIn && !isOut:
			return 0, linux.EINVAL
		case isIn && inOff != nil, isOut && outOff != nil:
			return 0, linux.ESPIPE
		case inOff != nil && t.in.mode&Stream != 0, outOff != nil && t.out.mode&Stream != 0:
			return 0, linux.EINVAL
		case inOff != nil && *inOff < 0, outOff != nil && *outOff < 0:
			return 0, linux.EINVAL
		case isIn && isOut && in.Same(t.out.file):
			return 0, linux.EINVAL
		case !isOut && t.out.Append():
			return 0, linux.EINVAL
		}
		t.nonblock = flags&linux.SPLICE_F_NONBLOCK != 0 || isIn && t.in.Nonblock() || isOut && t.out.Nonblock()
		if isOut && t.inOff != nil {
			// Not more than the pipe holds, so that a file of any size is not read in vain.
			n = min(n, int64(max(isOutSize(t.out), 4096)))
		}
		return t.run(n)
	})
}

func isOutSize(d *Description) int { return d.file.(Piper).PipeSize(d) }

// Tee is tee(2).
func (c *Caller) Tee(infd, outfd int, n int64, flags uint32) (int64, error) {
	if flags&^15 != 0 {
		return 0, linux.EINVAL
	}
	if n == 0 {
		return 0, nil
	}
	return c.pair(infd, outfd, nil, nil, func(t *transfer) (int64, error) {
		if err := t.open(); err != nil {
			return 0, err
		}
		in, isIn := t.in.file.(Piper)
		_, isOut := t.out.file.(Piper)
		p, canPeek := t.in.file.(Peeker)
		if !isIn || !isOut || !canPeek || in.Same(t.out.file) {
			return 0, linux.EINVAL
		}
		nonblock := flags&linux.SPLICE_F_NONBLOCK != 0 || t.in.Nonblock()
		buf := make([]byte, min(n, chunk))
		k, err := p.Peek(c, t.in, buf, nonblock)
		if err != nil || k == 0 {
			return 0, err
		}
		defer p.Consume(c, t.in, 0)
		if nonblock || t.out.Nonblock() {
			defer c.noWait()()
		}
		var io uio.IO
		io.Bytes(buf[:k])
		return t.out.write(c, &io, nil)
	})
}

// Vmsplice is vmsplice(2): io is the program's memory. It copies; a gift is not taken.
func (c *Caller) Vmsplice(fd int, io *uio.IO, flags uint32) (int64, error) {
	if flags&^15 != 0 {
		return 0, linux.EINVAL
	}
	r, err := c.Files.Get(fd)
	if err != nil {
		return 0, err
	}
	defer r.Put()
	if _, ok := r.file.(Piper); !ok {
		return 0, linux.EBADF
	}
	if flags&linux.SPLICE_F_NONBLOCK != 0 {
		defer c.noWait()()
	}
	if r.CanWrite() {
		return r.Write(c, io)
	}
	return r.Read(c, io)
}

// CopyFileRange is copy_file_range(2).
func (c *Caller) CopyFileRange(infd int, inOff *int64, outfd int, outOff *int64, n int64, flags uint32) (int64, error) {
	if flags != 0 {
		return 0, linux.EINVAL
	}
	return c.pair(infd, outfd, inOff, outOff, func(t *transfer) (int64, error) {
		if t.in.inode.IsDir() || t.out.inode.IsDir() {
			return 0, linux.EISDIR
		}
		if t.in.inode.Type() != linux.S_IFREG || t.out.inode.Type() != linux.S_IFREG {
			return 0, linux.EINVAL
		}
		if err := t.open(); err != nil {
			return 0, err
		}
		if t.out.Append() {
			return 0, linux.EBADF
		}
		a, b := *t.inOff, *t.outOff
		if a < 0 || b < 0 || n < 0 {
			return 0, linux.EINVAL
		}
		if b > Unlimited-n {
			return 0, linux.EOVERFLOW
		}
		n = min(n, max(t.in.inode.Size()-a, 0))
		if t.in.inode == t.out.inode && a < b+n && b < a+n {
			return 0, linux.EINVAL
		}
		return t.run(n)
	})
}
