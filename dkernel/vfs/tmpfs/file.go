package tmpfs

import (
	"sync"
	"sync/atomic"

	"dinos/dkernel/frame"
	"dinos/dkernel/mm"
	"dinos/dkernel/uio"
	"dinos/dkernel/vfs"
	"dinos/kernel/linux"
)

// file is a regular file.
type file struct {
	vfs.BaseFile
	fs *FS
	in *vfs.Inode
	xattrs

	io    sync.RWMutex // see the package
	mu    sync.Mutex
	pages pageTree
	seals atomic.Uint32 // changed with io locked
	maps  mm.Mappings

	// base are the contents from 0 on where there is no page: bytes of an archive, which are not ours to change. Guarded as removals are.
	base      []byte
	basePages atomic.Int64 // pages of base that have no page of their own
}

// Open implements vfs.Opener. The file is its own File.
func (f *file) Open(*vfs.Caller, *vfs.Description, *vfs.Inode) (vfs.File, error) { return f, nil }

// SetContents makes data the contents of a new regular file of a tmpfs, without copying: data must never change again.
func SetContents(in *vfs.Inode, data []byte) error {
	f, ok := in.Node().(*file)
	if !ok {
		return linux.EINVAL
	}
	f.io.Lock()
	defer f.io.Unlock()
	if f.pages.n.Load() > 0 || f.in.Size() > 0 {
		return linux.EBUSY
	}
	f.base = data
	f.basePages.Store((int64(len(data)) + pageSize - 1) / pageSize)
	in.SetSize(int64(len(data)))
	return nil
}

// Blocks implements vfs.Blocker.
func (f *file) Blocks(*vfs.Inode) int64 {
	return (f.pages.n.Load() + f.basePages.Load()) * (pageSize / 512)
}

// Read implements vfs.File.
func (f *file) Read(c *vfs.Caller, d *vfs.Description, io *uio.IO, off *int64) (n int64, err error) {
	f.io.RLock()
	pos := *off
	size := f.in.Size()
	for pos < size && io.Len() > 0 {
		in := pos & (pageSize - 1)
		want := min(pageSize-in, size-pos)
		var k int64
		if p := f.pages.get(pos / pageSize); p != frame.None {
			var w int
			w, err = io.Write(f.fs.pool.Bytes(p)[in : in+want])
			k = int64(w)
		} else if pos < int64(len(f.base)) {
			var w int
			w, err = io.Write(f.base[pos:min(pos+want, int64(len(f.base)))])
			k = int64(w)
		} else {
			k, err = io.Zero(want)
		}
		pos += k
		n += k
		if err != nil {
			break
		}
	}
	f.io.RUnlock()
	*off = pos
	if n > 0 {
		err = nil
	}
	if err == nil {
		f.in.Accessed(d)
	}
	return n, err
}

// Write implements vfs.File.
func (f *file) Write(c *vfs.Caller, d *vfs.Description, io *uio.IO, off *int64) (n int64, err error) {
	if io.Len() == 0 {
		return 0, nil
	}
	f.io.Lock()
	size := f.in.Size()
	if d.Append() {
		*off = size
	}
	pos := *off
	err = f.mayWrite(c, pos, io, size)
	if err == linux.EFBIG && pos >= c.FileSizeLimit {
		defer c.SendSignal(linux.SIGXFSZ)
	}
	if err == nil && pos > size {
		f.clearTail(size)
	}
	for err == nil && io.Len() > 0 {
		var k int
		k, err = f.writePage(io, pos)
		pos += int64(k)
		n += int64(k)
		if pos > size {
			size = pos
			f.in.SetSize(size)
		}
	}
	f.io.Unlock()
	*off = pos
	if n > 0 {
		f.in.Written(c)
		return n, nil
	}
	return 0, err
}

// mayWrite checks seals and limits, and cuts io to what they allow.
func (f *file) mayWrite(c *vfs.Caller, pos int64, io *uio.IO, size int64) error {
	if f.Sealed() {
		return linux.EPERM
	}
	if pos+io.Len() > size && f.seals.Load()&linux.F_SEAL_GROW != 0 {
		return linux.EPERM
	}
	limit := min(c.FileSizeLimit, linux.MAX_LFS_BYTES)
	if pos >= limit {
		return linux.EFBIG
	}
	io.Limit(limit - pos)
	return nil
}

// writePage writes to the page at pos what fits in it. io is locked.
func (f *file) writePage(io *uio.IO, pos int64) (int, error) {
	i, in := pos/pageSize, pos&(pageSize-1)
	p := f.pages.get(i)
	if p != frame.None {
		return io.Read(f.fs.pool.Bytes(p)[in:])
	}
	if in != 0 || io.Len() < pageSize {
		p, err := f.add(i)
		if err != nil {
			return 0, err
		}
		return io.Read(f.fs.pool.Bytes(p)[in:])
	}
	// A whole page is written before it is there for others, so that it need not be cleared.
	p, err := f.fs.take(false)
	if err != nil {
		return 0, err
	}
	b := f.fs.pool.Bytes(p)
	n, err := io.Read(b)
	if n < pageSize {
		f.fill(b[n:], pos+int64(n))
		if n == 0 {
			f.fs.give(p)
			return 0, err
		}
	}
	f.mu.Lock()
	if q := f.pages.get(i); q != frame.None { // a page fault was faster
		f.mu.Unlock()
		copy(f.fs.pool.Bytes(q), b[:n])
		f.fs.give(p)
		return n, err
	}
	f.enter(i, p)
	f.mu.Unlock()
	return n, err
}

// fill sets b to the contents of base at pos.
func (f *file) fill(b []byte, pos int64) {
	n := 0
	if pos < int64(len(f.base)) {
		n = copy(b, f.base[pos:])
	}
	clear(b[n:])
}

// enter adds a page. mu is held.
func (f *file) enter(i int64, p frame.Frame) {
	f.pages.put(i, p)
	if i*pageSize < int64(len(f.base)) {
		f.basePages.Add(-1)
	}
}

// add makes page i, with what is in base or zero, unless it is there. No page goes away meanwhile: io is locked, or mu.
func (f *file) add(i int64) (frame.Frame, error) {
	zero := i*pageSize >= int64(len(f.base))
	p, err := f.fs.take(zero)
	if err != nil {
		return frame.None, err
	}
	if !zero {
		f.fill(f.fs.pool.Bytes(p), i*pageSize)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if q := f.pages.get(i); q != frame.None {
		f.fs.give(p)
		return q, nil
	}
	f.enter(i, p)
	return p, nil
}

// cut takes the pages [first, last] out of the file, and of mappings. io is locked.
func (f *file) cut(first, last int64) {
	var gone []frame.Frame
	f.mu.Lock()
	f.pages.remove(first, last, func(p frame.Frame) { gone = append(gone, p) })
	f.mu.Unlock()
	f.maps.Zap(uint64(first), uint64(last), true)
	for _, p := range gone {
		f.fs.give(p)
	}
}

// lastPage is beyond all pages of a file.
const lastPage = 1 << 52

// clearTail zeroes what is behind the end in the last page: a mapping may have written there.
func (f *file) clearTail(size int64) {
	if in := size & (pageSize - 1); in != 0 {
		if p := f.pages.get(size / pageSize); p != frame.None {
			clear(f.fs.pool.Bytes(p)[in:])
		}
	}
}

// SetAttr implements vfs.AttrSetter: it changes the size.
func (f *file) SetAttr(_ *vfs.Caller, in *vfs.Inode, s *vfs.SetAttr) error {
	if s.Valid&vfs.AttrSize == 0 {
		return f.mayMode(s)
	}
	f.io.Lock()
	defer f.io.Unlock()
	old := in.Size()
	switch {
	case s.Size < old && f.seals.Load()&linux.F_SEAL_SHRINK != 0, s.Size > old && f.seals.Load()&linux.F_SEAL_GROW != 0:
		return linux.EPERM
	case s.Size > old:
		f.clearTail(old)
		in.SetSize(s.Size)
	default: // pages beyond the end, from fallocate(2), go even if the size stays
		f.shrink(s.Size)
	}
	return nil
}

// mayMode refuses to change execute permission under F_SEAL_EXEC.
func (f *file) mayMode(s *vfs.SetAttr) error {
	if s.Valid&vfs.AttrMode != 0 && f.seals.Load()&linux.F_SEAL_EXEC != 0 && (s.Mode^f.in.Mode())&0o111 != 0 {
		return linux.EPERM
	}
	return nil
}

// shrink cuts the file at size. io is locked.
func (f *file) shrink(size int64) {
	f.in.SetSize(size)
	if size < int64(len(f.base)) {
		f.mu.Lock()
		f.base = f.base[:size:size]
		f.recount()
		f.mu.Unlock()
	}
	f.cut((size+pageSize-1)/pageSize, lastPage)
	f.clearTail(size)
}

// recount sets basePages after base became shorter. mu is held.
func (f *file) recount() {
	n := (int64(len(f.base)) + pageSize - 1) / pageSize
	have := int64(0)
	for i := f.pages.next(0); i >= 0 && i < n; i = f.pages.next(i + 1) {
		have++
	}
	f.basePages.Store(n - have)
}

// Evict implements vfs.Evicter.
func (f *file) Evict(*vfs.Inode) {
	f.io.Lock()
	f.base = nil
	f.basePages.Store(0)
	f.cut(0, lastPage)
	f.io.Unlock()
	f.fs.inodes.Add(-1)
}

// Seek implements vfs.Seeker: with holes.
func (f *file) Seek(_ *vfs.Caller, _ *vfs.Description, cur, off int64, whence int) (int64, error) {
	size := f.in.Size()
	if whence != linux.SEEK_DATA && whence != linux.SEEK_HOLE {
		return vfs.SeekIn(cur, off, whence, size)
	}
	if off < 0 || off >= size {
		return 0, linux.ENXIO
	}
	f.io.RLock()
	defer f.io.RUnlock()
	i := off / pageSize
	if whence == linux.SEEK_DATA {
		if off < int64(len(f.base)) {
			return off, nil
		}
		n := f.pages.next(i)
		if n < 0 || n*pageSize >= size {
			return 0, linux.ENXIO
		}
		return max(off, n*pageSize), nil
	}
	for i*pageSize < size && (i*pageSize < int64(len(f.base)) || f.pages.get(i) != frame.None) {
		i++
	}
	return min(max(off, i*pageSize), size), nil
}

// Allocate implements vfs.Allocator.
func (f *file) Allocate(c *vfs.Caller, d *vfs.Description, mode uint32, off, n int64) error {
	if mode&^(linux.FALLOC_FL_KEEP_SIZE|linux.FALLOC_FL_PUNCH_HOLE) != 0 {
		return linux.EOPNOTSUPP
	}
	f.io.Lock()
	defer f.io.Unlock()
	if mode&linux.FALLOC_FL_PUNCH_HOLE != 0 {
		if f.Sealed() {
			return linux.EPERM
		}
		err := f.punch(off, n)
		if err == nil {
			f.in.Modified()
		}
		return err
	}
	if f.seals.Load()&linux.F_SEAL_GROW != 0 && off+n > f.in.Size() {
		return linux.EPERM
	}
	first, last := off/pageSize, (off+n-1)/pageSize
	// What cannot fit is refused before work is done for it.
	if f.fs.limit > 0 && last-first+1-f.pages.n.Load() > f.fs.limit-f.fs.pages.Load() {
		return linux.ENOSPC
	}
	var made []int64
	for i := first; i <= last; i++ {
		if f.pages.get(i) != frame.None {
			continue
		}
		if _, err := f.add(i); err != nil {
			for _, j := range made {
				if j*pageSize >= int64(len(f.base)) {
					f.cut(j, j)
				}
			}
			return err
		}
		made = append(made, i)
	}
	if mode&linux.FALLOC_FL_KEEP_SIZE == 0 && off+n > f.in.Size() {
		f.clearTail(f.in.Size())
		f.in.SetSize(off + n)
	}
	f.in.Modified()
	return nil
}

// punch makes a hole. io is locked.
func (f *file) punch(off, n int64) error {
	end := min(off+n, f.in.Size())
	if end <= off {
		return nil
	}
	// base has no holes: what is behind the hole becomes pages, and base ends before it.
	for i := off / pageSize; i*pageSize < int64(len(f.base)); i++ {
		if f.pages.get(i) == frame.None && (i*pageSize < off || i*pageSize >= end-pageSize) {
			if _, err := f.add(i); err != nil {
				return err
			}
		}
	}
	if off < int64(len(f.base)) {
		f.mu.Lock()
		keep := off / pageSize * pageSize
		f.base = f.base[:keep:keep]
		f.recount()
		f.mu.Unlock()
	}
	first, last := (off+pageSize-1)/pageSize, (off+n)/pageSize-1
	clearIn := func(from, to int64) {
		if p := f.pages.get(from / pageSize); p != frame.None {
			in := from & (pageSize - 1)
			clear(f.fs.pool.Bytes(p)[in : in+to-from])
		}
	}
	if first > last+1 { // within a page
		clearIn(off, off+n)
		return nil
	}
	if off < first*pageSize {
		clearIn(off, first*pageSize)
	}
	if tail := (last + 1) * pageSize; tail < off+n {
		clearIn(tail, off+n)
	}
	if first <= last {
		f.cut(first, last)
	}
	return nil
}

// Seals implements vfs.Sealer.
func (f *file) Seals() (uint32, error) {
	return f.seals.Load(), nil
}

// AddSeals implements vfs.Sealer.
func (f *file) AddSeals(_ *vfs.Caller, d *vfs.Description, seals uint32) error {
	const all = linux.F_SEAL_SEAL | linux.F_SEAL_SHRINK | linux.F_SEAL_GROW | linux.F_SEAL_WRITE | linux.F_SEAL_FUTURE_WRITE | linux.F_SEAL_EXEC
	if !d.CanWrite() {
		return linux.EPERM
	}
	if seals&^all != 0 {
		return linux.EINVAL
	}
	f.io.Lock()
	defer f.io.Unlock()
	if f.seals.Load()&linux.F_SEAL_SEAL != 0 {
		return linux.EPERM
	}
	if seals&linux.F_SEAL_WRITE != 0 && f.seals.Load()&linux.F_SEAL_WRITE == 0 && f.mappedWritable() {
		return linux.EBUSY
	}
	// A file that nobody can run any more, nor write if it could be run: as Linux couples them.
	if seals&linux.F_SEAL_EXEC != 0 && f.in.Mode()&0o111 != 0 {
		seals |= linux.F_SEAL_SHRINK | linux.F_SEAL_GROW | linux.F_SEAL_WRITE | linux.F_SEAL_FUTURE_WRITE
	}
	f.seals.Or(seals)
	return nil
}
