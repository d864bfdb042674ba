package vfs

import (
	"encoding/binary"

	"dinos/dkernel/uio"
	"dinos/kernel/linux"
)

// with runs do with the description of fd.
func (c *Caller) with(fd int, do func(d *Description) error) error {
	r, err := c.Files.Get(fd)
	if err != nil {
		return err
	}
	err = do(r.Description)
	r.Put()
	return err
}

// Read is read(2) and readv(2).
func (c *Caller) Read(fd int, io *uio.IO) (int64, error) {
	r, err := c.Files.Get(fd)
	if err != nil {
		return 0, err
	}
	n, err := r.Read(c, io)
	r.Put()
	return n, err
}

// Write is write(2) and writev(2).
func (c *Caller) Write(fd int, io *uio.IO) (int64, error) {
	r, err := c.Files.Get(fd)
	if err != nil {
		return 0, err
	}
	n, err := r.Write(c, io)
	r.Put()
	return n, err
}

// Pread is pread64(2) and preadv(2).
func (c *Caller) Pread(fd int, io *uio.IO, off int64) (int64, error) {
	r, err := c.Files.Get(fd)
	if err != nil {
		return 0, err
	}
	n, err := r.Pread(c, io, off)
	r.Put()
	return n, err
}

// Pwrite is pwrite64(2) and pwritev(2).
func (c *Caller) Pwrite(fd int, io *uio.IO, off int64) (int64, error) {
	r, err := c.Files.Get(fd)
	if err != nil {
		return 0, err
	}
	n, err := r.Pwrite(c, io, off)
	r.Put()
	return n, err
}

// ReadV2 is preadv2(2): off -1 is the position of the description.
func (c *Caller) ReadV2(fd int, io *uio.IO, off int64, flags uint32) (int64, error) {
	if flags&^(linux.RWF_HIPRI|linux.RWF_NOWAIT) != 0 {
		return 0, linux.EOPNOTSUPP
	}
	if flags&linux.RWF_NOWAIT != 0 {
		defer c.noWait()()
	}
	if off == -1 {
		return c.Read(fd, io)
	}
	return c.Pread(fd, io, off)
}

// WriteV2 is pwritev2(2).
func (c *Caller) WriteV2(fd int, io *uio.IO, off int64, flags uint32) (n int64, err error) {
	if flags&^(linux.RWF_HIPRI|linux.RWF_DSYNC|linux.RWF_SYNC) != 0 {
		return 0, linux.EOPNOTSUPP
	}
	if off == -1 {
		n, err = c.Write(fd, io)
	} else {
		n, err = c.Pwrite(fd, io, off)
	}
	if err == nil && flags&(linux.RWF_DSYNC|linux.RWF_SYNC) != 0 {
		err = c.Fsync(fd, flags&linux.RWF_SYNC == 0)
	}
	return n, err
}

// Lseek is lseek(2).
func (c *Caller) Lseek(fd int, off int64, whence int) (int64, error) {
	r, err := c.Files.Get(fd)
	if err != nil {
		return 0, err
	}
	defer r.Put()
	return r.Seek(c, off, whence)
}

// Seek moves the position, as lseek(2).
func (d *Description) Seek(c *Caller, off int64, whence int) (int64, error) {
	if d.mode&Stream != 0 {
		return 0, linux.ESPIPE
	}
	if whence < 0 || whence > linux.SEEK_HOLE {
		return 0, linux.EINVAL
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var pos int64
	var err error
	if s, ok := d.file.(Seeker); ok {
		pos, err = s.Seek(c, d, d.off, off, whence)
	} else {
		pos, err = SeekIn(d.off, off, whence, d.inode.Size())
	}
	if err == nil {
		d.off = pos
	}
	return pos, err
}

// SeekIn is lseek(2) in a file of a size without holes.
func SeekIn(cur, off int64, whence int, size int64) (int64, error) {
	switch whence {
	case linux.SEEK_SET:
		cur = 0
	case linux.SEEK_CUR:
	case linux.SEEK_END:
		cur = size
	case linux.SEEK_DATA, linux.SEEK_HOLE:
		if off < 0 || off >= size {
			return 0, linux.ENXIO
		}
		if whence == linux.SEEK_HOLE {
			return size, nil
		}
		return off, nil
	default:
		return 0, linux.EINVAL
	}
	if off > 0 && cur > Unlimited-off {
		return 0, linux.EOVERFLOW
	}
	if cur+off < 0 {
		return 0, linux.EINVAL
	}
	return cur + off, nil
}

// Offset is the position (for /proc/PID/fdinfo).
func (d *Description) Offset() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.off
}

// maxDents is how much getdents64 returns at most in a call.
const maxDents = 64 << 10

// Getdents is getdents64(2), or getdents(2) if old: it writes whole entries to io.
func (c *Caller) Getdents(fd int, io *uio.IO, old bool) (int64, error) {
	r, err := c.Files.Get(fd)
	if err != nil {
		return 0, err
	}
	defer r.Put()
	d := r.Description
	dr, ok := d.file.(DirReader)
	if !ok {
		return 0, linux.ENOTDIR
	}
	room := int(min(io.Len(), maxDents))
	buf := make([]byte, 0, min(room, 4096))
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.path.Dentry.gone.Load() {
		return 0, linux.ENOENT
	}
	full := false
	next, err := dr.ReadDir(c, d, d.off, func(e Dirent) bool {
		n := dirent(buf[len(buf):], e, old)
		if len(buf)+n > room {
			full = true
			return false
		}
		if cap(buf)-len(buf) < n {
			buf = append(make([]byte, 0, min(room, 4*cap(buf)+n)), buf...)
		}
		dirent(buf[len(buf):cap(buf)], e, old)
		buf = buf[:len(buf)+n]
		return true
	})
	if err != nil {
		return 0, err
	}
	if full && len(buf) == 0 {
		return 0, linux.EINVAL
	}
	if _, err := io.Write(buf); err != nil {
		return 0, err
	}
	d.off = next
	d.inode.Accessed(d)
	if d.inode.watched() {
		d.notify(linux.IN_ACCESS)
	}
	return int64(len(buf)), nil
}

// dirent encodes e, if it fits b, and returns its size: struct linux_dirent64, or linux_dirent if old.
func dirent(b []byte, e Dirent, old bool) int {
	head := 19
	if old {
		head = 18
	}
	n := head + len(e.Name) + 1
	if old {
		n++ // the type is in the last byte
	}
	n = (n + 7) &^ 7
	if len(b) < n {
		return n
	}
	b = b[:n]
	clear(b)
	binary.LittleEndian.PutUint64(b, e.Ino)
	binary.LittleEndian.PutUint64(b[8:], uint64(e.Next))
	binary.LittleEndian.PutUint16(b[16:], uint16(n))
	if old {
		b[n-1] = e.Type
	} else {
		b[18] = e.Type
	}
	copy(b[head:], e.Name)
	return n
}

// Fsync is fsync(2) and fdatasync(2).
func (c *Caller) Fsync(fd int, dataOnly bool) error {
	return c.with(fd, func(d *Description) error {
		if s, ok := d.file.(Syncer); ok {
			return s.Sync(c, d, dataOnly)
		}
		if t := d.inode.Type(); t != linux.S_IFREG && t != linux.S_IFDIR {
			return linux.EINVAL
		}
		return nil
	})
}

// Syncfs is syncfs(2).
func (c *Caller) Syncfs(fd int) error {
	return c.with(fd, func(d *Description) error {
		if s, ok := d.inode.fs.conf.Impl.(Syncfser); ok {
			return s.Syncfs(c)
		}
		return nil
	})
}

// Sync is sync(2).
func (c *Caller) Sync() {
	v := c.FS.v
	v.mounting.Lock()
	order := append([]*Mount(nil), v.order...)
	v.mounting.Unlock()
	for _, m := range order {
		if s, ok := m.fs.conf.Impl.(Syncfser); ok {
			_ = s.Syncfs(c)
		}
	}
}

// SyncFileRange is sync_file_range(2).
func (c *Caller) SyncFileRange(fd int, off, n int64, flags uint32) error {
	if flags&^7 != 0 || off < 0 || n < 0 || off+n < 0 {
		return linux.EINVAL
	}
	return c.with(fd, func(d *Description) error {
		switch d.inode.Type() {
		case linux.S_IFREG, linux.S_IFDIR, linux.S_IFBLK, linux.S_IFLNK:
		default:
			return linux.ESPIPE
		}
		if s, ok := d.file.(Syncer); ok && flags&(linux.SYNC_FILE_RANGE_WRITE|linux.SYNC_FILE_RANGE_WAIT_AFTER) != 0 {
			return s.Sync(c, d, true)
		}
		return nil
	})
}

// Fadvise is posix_fadvise(2), which is advice: it is checked and not followed.
func (c *Caller) Fadvise(fd int, off, n int64, advice int) error {
	return c.with(fd, func(d *Description) error {
		if d.inode.Type() == linux.S_IFIFO {
			return linux.ESPIPE
		}
		if advice < 0 || advice > linux.POSIX_FADV_NOREUSE || n < 0 {
			return linux.EINVAL
		}
		return nil
	})
}

// Readahead is readahead(2).
func (c *Caller) Readahead(fd int) error {
	return c.with(fd, func(d *Description) error {
		if d.mode&Readable == 0 {
			return linux.EBADF
		}
		if t := d.inode.Type(); t != linux.S_IFREG && t != linux.S_IFBLK {
			return linux.EINVAL
		}
		return nil
	})
}

// Fallocate is fallocate(2).
func (c *Caller) Fallocate(fd int, mode uint32, off, n int64) error {
	return c.with(fd, func(d *Description) error {
		if off < 0 || n <= 0 {
			return linux.EINVAL
		}
		const known = linux.FALLOC_FL_KEEP_SIZE | linux.FALLOC_FL_PUNCH_HOLE | linux.FALLOC_FL_COLLAPSE_RANGE | linux.FALLOC_FL_ZERO_RANGE | linux.FALLOC_FL_INSERT_RANGE | linux.FALLOC_FL_UNSHARE_RANGE
		if mode&^known != 0 || mode&linux.FALLOC_FL_PUNCH_HOLE != 0 && mode != linux.FALLOC_FL_PUNCH_HOLE|linux.FALLOC_FL_KEEP_SIZE {
			return linux.EOPNOTSUPP
		}
		if d.mode&Writable == 0 {
			return linux.EBADF
		}
		switch d.inode.Type() {
		case linux.S_IFIFO:
			return linux.ESPIPE
		case linux.S_IFDIR:
			return linux.EISDIR
		case linux.S_IFREG:
		default:
			return linux.ENODEV
		}
		if off > Unlimited-n {
			return linux.EFBIG
		}
		if mode&linux.FALLOC_FL_KEEP_SIZE == 0 && off+n > c.FileSizeLimit && off+n > d.inode.Size() {
			c.SendSignal(linux.SIGXFSZ)
			return linux.EFBIG
		}
		a, ok := d.file.(Allocator)
		if !ok {
			return linux.EOPNOTSUPP
		}
		err := a.Allocate(c, d, mode, off, n)
		if err == nil {
			d.inode.dropSuid(c)
			if d.inode.watched() {
				d.notify(linux.IN_MODIFY)
			}
		}
		return err
	})
}

// Fcntl is fcntl(2), but for the commands with a structure: RecordLock, Owner and SetOwner of the description.
func (c *Caller) Fcntl(fd int, cmd int, arg uint64) (uint64, error) {
	switch cmd {
	case linux.F_DUPFD, linux.F_DUPFD_CLOEXEC:
		if arg > maxFD {
			arg = maxFD
		}
		n, err := c.Files.Dup(fd, int(arg), c.OpenLimit, cmd == linux.F_DUPFD_CLOEXEC)
		return uint64(n), err
	case linux.F_GETFD:
		on, err := c.Files.Cloexec(fd)
		if on {
			return linux.FD_CLOEXEC, err
		}
		return 0, err
	case linux.F_SETFD:
		return 0, c.Files.SetCloexec(fd, arg&linux.FD_CLOEXEC != 0)
	}
	r, err := c.Files.GetPath(fd)
	if err != nil {
		return 0, err
	}
	defer r.Put()
	if cmd == linux.F_GETFL {
		return uint64(r.Flags()), nil
	}
	if r.mode&PathOnly != 0 {
		return 0, linux.EBADF
	}
	return r.fcntl(c, cmd, arg)
}

func (d *Description) fcntl(c *Caller, cmd int, arg uint64) (uint64, error) {
	switch cmd {
	case linux.F_SETFL:
		return 0, d.SetFlags(c, uint32(arg))
	case linux.F_GETOWN:
		if o := d.Owner(); o != nil {
			if o.Kind == linux.F_OWNER_PGRP {
				return uint64(-int64(o.ID)), nil
			}
			return uint64(o.ID), nil
		}
		return 0, nil
	case linux.F_SETOWN:
		o := Owner{Kind: linux.F_OWNER_PID, ID: int32(arg)}
		if o.ID == -1<<31 {
			return 0, linux.EINVAL
		}
		if o.ID < 0 {
			o.Kind, o.ID = linux.F_OWNER_PGRP, -o.ID
		}
		if old := d.Owner(); old != nil {
			o.Sig = old.Sig
		}
		d.SetOwner(&o)
		return 0, nil
	case linux.F_GETSIG:
		if o := d.Owner(); o != nil {
			return uint64(o.Sig), nil
		}
		return 0, nil
	case linux.F_SETSIG:
		if arg > 64 {
			return 0, linux.EINVAL
		}
		o := Owner{}
		if old := d.Owner(); old != nil {
			o = *old
		}
		o.Sig = int32(arg)
		d.SetOwner(&o)
		return 0, nil
	case linux.F_GETPIPE_SZ, linux.F_SETPIPE_SZ:
		p, ok := d.file.(Piper)
		if !ok {
			return 0, linux.EBADF
		}
		if cmd == linux.F_GETPIPE_SZ {
			return uint64(p.PipeSize(d)), nil
		}
		if arg > 1<<31-1 {
			return 0, linux.EINVAL
		}
		n, err := p.SetPipeSize(c, d, int(arg))
		return uint64(n), err
	case linux.F_ADD_SEALS, linux.F_GET_SEALS:
		s, ok := d.file.(Sealer)
		if !ok {
			return 0, linux.EINVAL
		}
		if cmd == linux.F_GET_SEALS {
			n, err := s.Seals()
			return uint64(n), err
		}
		return 0, s.AddSeals(c, d, uint32(arg))
	case linux.F_GETLEASE:
		return linux.F_UNLCK, nil
	}
	// Leases and directory notification are not supported; like an unknown command.
	return 0, linux.EINVAL
}

// SetFlags changes the status flags: fcntl(F_SETFL).
func (d *Description) SetFlags(c *Caller, flags uint32) error {
	old := d.flags.Load()
	if flags&linux.O_NOATIME&^old != 0 && !d.inode.owned(c) {
		return linux.EPERM
	}
	n := old&^settable | flags&settable
	f, ok := d.file.(FlagSetter)
	if flags&linux.O_DIRECT&^old != 0 && !ok && d.inode.Type() != linux.S_IFREG {
		return linux.EINVAL
	}
	if ok && n != old {
		if err := f.SetFlags(c, d, old, n); err != nil {
			return err
		}
	}
	for {
		if d.flags.CompareAndSwap(old, n) {
			return nil
		}
		old = d.flags.Load()
		n = old&^settable | flags&settable
	}
}

// Ioctl is ioctl(2).
func (c *Caller) Ioctl(fd int, req uint32, arg uint64) (uint64, error) {
	switch req {
	case linux.FIOCLEX, linux.FIONCLEX:
		return 0, c.Files.SetCloexec(fd, req == linux.FIOCLEX)
	}
	r, err := c.Files.Get(fd)
	if err != nil {
		return 0, err
	}
	defer r.Put()
	d := r.Description
	switch req {
	case linux.FIONBIO, linux.FIOASYNC:
		on, err := c.GetInt(arg)
		if err != nil {
			return 0, err
		}
		bit := uint32(linux.O_NONBLOCK)
		if req == linux.FIOASYNC {
			bit = linux.O_ASYNC
		}
		f := d.Flags() &^ bit
		if on != 0 {
			f |= bit
		}
		return 0, d.SetFlags(c, f)
	case linux.FIONREAD:
		if d.inode.Type() == linux.S_IFREG {
			return 0, c.PutInt(arg, int32(d.inode.Size()-d.Offset()))
		}
	case linux.FIOQSIZE:
		if t := d.inode.Type(); t == linux.S_IFREG || t == linux.S_IFDIR || t == linux.S_IFLNK {
			var b [8]byte
			binary.LittleEndian.PutUint64(b[:], uint64(d.inode.Size()))
			_, err := c.Mem.CopyOut(arg, b[:])
			return 0, err
		}
		return 0, linux.ENOTTY
	}
	return d.file.Ioctl(c, d, req, arg)
}
