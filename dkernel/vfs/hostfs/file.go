package hostfs

import (
	"sync"

	"dinos/dkernel/frame"
	"dinos/dkernel/mm"
	"dinos/dkernel/uio"
	"dinos/dkernel/vfs"
	"dinos/kernel/linux"
	"dinos/shmem/proto"
)

const pageSize = frame.Size

// file is a regular file.
type file struct {
	node
	io sync.RWMutex // contents: shared for reading, exclusive for writing; not held when program memory is touched
	mu sync.Mutex   // what follows

	handles  map[uint64]bool // open handles; true: for writing
	pages    map[uint64]*page
	maps     mm.Mappings
	modified int64 // the time of the host's that pages are of
}

// page is a page that is mapped. dirty is guarded by file.mu.
type page struct {
	frame frame.Frame
	dirty bool
}

// open is the vfs.File of one description: it has a handle of its own, so that the host checks what it may.
type open struct {
	vfs.BaseFile
	f      *file
	handle uint64
}

// Open implements vfs.Opener.
func (f *file) Open(_ *vfs.Caller, d *vfs.Description, _ *vfs.Inode) (vfs.File, error) {
	var r proto.OpenReply
	flags := d.Flags() & (linux.O_ACCMODE | linux.O_SYNC)
	err := f.fs.call(&proto.Open{Path: f.fs.path(d.Path().Dentry), Flags: flags | linux.O_NOFOLLOW}, &r)
	if err != nil {
		return nil, err
	}
	if r.Attr.Type != linux.S_IFREG {
		_ = f.fs.call(&proto.Close{Handle: r.Handle}, &proto.Done{})
		return nil, linux.ESTALE // replaced since it was looked up
	}
	f.learn(&r.Attr)
	f.mu.Lock()
	if f.handles == nil {
		f.handles = map[uint64]bool{}
	}
	f.handles[r.Handle] = d.CanWrite()
	f.mu.Unlock()
	return &open{f: f, handle: r.Handle}, nil
}

// resized takes over the host's size. Pages that others on the host have changed since they were read are dropped.
func (f *file) resized(size, modified int64) {
	f.mu.Lock()
	old := f.in.Size()
	f.in.SetSize(size)
	stale := f.modified != modified
	f.modified = modified
	var gone []frame.Frame
	last := uint64(size+pageSize-1) / pageSize
	for i, p := range f.pages {
		if i >= last || stale && !p.dirty {
			gone = append(gone, p.frame)
			delete(f.pages, i)
		}
	}
	f.mu.Unlock()
	if len(gone) > 0 {
		if stale {
			last = 0
		}
		f.maps.Zap(last, ^uint64(0), size < old)
	}
	for _, p := range gone {
		f.fs.pool.Unref(p)
	}
}

// Evict implements vfs.Evicter.
func (f *file) Evict(*vfs.Inode) {
	f.mu.Lock()
	pages := f.pages
	f.pages = nil
	f.mu.Unlock()
	for _, p := range pages {
		f.fs.pool.Unref(p.frame)
	}
}

// fetch reads from the host to p, as much as there is.
func (f *file) fetch(handle uint64, p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		var r proto.ReadReply
		n := min(len(p)-done, proto.MaxData)
		if err := f.fs.call(&proto.Read{Handle: handle, Offset: uint64(off) + uint64(done), Count: uint32(n)}, &r); err != nil {
			return done, err
		}
		if len(r.Data) > n {
			return done, linux.EIO
		}
		done += copy(p[done:], r.Data)
		if len(r.Data) == 0 {
			break
		}
	}
	return done, nil
}

// store writes p to the host.
func (f *file) store(handle uint64, p []byte, off int64, appends bool) (n int, size int64, err error) {
	for n < len(p) {
		var r proto.WriteReply
		k := min(len(p)-n, proto.MaxData)
		if err := f.fs.call(&proto.Write{Handle: handle, Offset: uint64(off) + uint64(n), Append: appends, Data: p[n : n+k]}, &r); err != nil {
			return n, size, err
		}
		if int64(r.Count) > int64(k) || r.Count == 0 {
			return n, size, linux.EIO
		}
		n += int(r.Count)
		size = int64(r.Size)
	}
	return n, size, nil
}

// Read implements vfs.File.
func (o *open) Read(_ *vfs.Caller, _ *vfs.Description, io *uio.IO, off *int64) (n int64, err error) {
	buf := make([]byte, min(io.Len(), proto.MaxData))
	for io.Len() > 0 {
		p := buf[:min(io.Len(), int64(len(buf)))]
		o.f.io.RLock()
		k, err := o.f.fetch(o.handle, p, *off)
		k = o.f.overlay(p, *off, k)
		o.f.io.RUnlock()
		w := 0
		if k > 0 {
			w, err = io.Write(p[:k])
		}
		*off += int64(w)
		n += int64(w)
		if err != nil && n == 0 {
			return 0, err
		}
		if err != nil || w < len(p) {
			break
		}
	}
	return n, nil
}

// overlay puts what mappings have written over n bytes from the host, and returns how many there are then.
func (f *file) overlay(p []byte, off int64, n int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.pages) == 0 {
		return n
	}
	for i, g := range f.pages {
		at := int64(i)*pageSize - off
		if !g.dirty || at+pageSize <= 0 || at >= int64(n) {
			continue
		}
		b := f.fs.pool.Bytes(g.frame)
		if at < 0 {
			copy(p[:n], b[-at:])
		} else {
			copy(p[at:n], b)
		}
	}
	return n
}

// Write implements vfs.File.
func (o *open) Write(c *vfs.Caller, d *vfs.Description, io *uio.IO, off *int64) (n int64, err error) {
	f := o.f
	if !d.Append() {
		if *off >= c.FileSizeLimit && io.Len() > 0 {
			c.SendSignal(linux.SIGXFSZ)
			return 0, linux.EFBIG
		}
		io.Limit(c.FileSizeLimit - *off)
	}
	buf := make([]byte, min(io.Len(), proto.MaxData))
	for io.Len() > 0 && err == nil {
		var k, w int
		if k, err = io.Read(buf[:min(io.Len(), int64(len(buf)))]); err != nil {
			break
		}
		f.io.Lock()
		var size int64
		w, size, err = f.store(o.handle, buf[:k], *off, d.Append())
		if d.Append() && w > 0 {
			*off = size - int64(w)
		}
		if w > 0 {
			f.wrote(buf[:w], *off, size)
		}
		f.io.Unlock()
		*off += int64(w)
		n += int64(w)
	}
	if n > 0 {
		f.in.Modified()
		f.until.Store(0) // the host knows the time
		return n, nil
	}
	return 0, err
}

// wrote brings the pages up to date with what was written to the host.
func (f *file) wrote(p []byte, off, size int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.in.SetSize(size)
	if len(f.pages) == 0 {
		return
	}
	for len(p) > 0 {
		in := off % pageSize
		n := min(int64(len(p)), pageSize-in)
		if g := f.pages[uint64(off/pageSize)]; g != nil {
			copy(f.fs.pool.Bytes(g.frame)[in:], p[:n])
		}
		p, off = p[n:], off+n
	}
}

// Flush implements vfs.Flusher: what mappings have written goes to the host when a descriptor is closed, so that errors are told.
func (o *open) Flush(_ *vfs.Caller, d *vfs.Description) error {
	if !d.CanWrite() {
		return nil
	}
	return o.f.writeBack(o.handle, 0, ^uint64(0))
}

// Sync implements vfs.Syncer.
func (o *open) Sync(_ *vfs.Caller, _ *vfs.Description, dataOnly bool) error {
	if err := o.f.writeBack(o.handle, 0, ^uint64(0)); err != nil {
		return err
	}
	return o.f.fs.call(&proto.Sync{Handle: o.handle, DataOnly: dataOnly}, &proto.Done{})
}

// Allocate implements vfs.Allocator.
func (o *open) Allocate(_ *vfs.Caller, _ *vfs.Description, mode uint32, off, n int64) error {
	f := o.f
	f.io.Lock()
	defer f.io.Unlock()
	if err := f.writeBack(o.handle, 0, ^uint64(0)); err != nil {
		return err
	}
	err := f.fs.call(&proto.Allocate{Handle: o.handle, Offset: uint64(off), Length: uint64(n), Mode: mode}, &proto.Done{})
	if err != nil {
		return err
	}
	f.until.Store(0)
	f.mu.Lock()
	f.modified = -1 // pages may be of before: ask again
	f.mu.Unlock()
	return f.refresh()
}

// Release implements vfs.File.
func (o *open) Release(d *vfs.Description) {
	f := o.f
	if d.CanWrite() {
		// Mappings that outlived the last descriptor end here; there is nobody left to tell of an error.
		_ = f.writeBack(o.handle, 0, ^uint64(0))
	}
	f.mu.Lock()
	delete(f.handles, o.handle)
	var gone []frame.Frame
	if len(f.handles) == 0 {
		for i, p := range f.pages {
			gone = append(gone, p.frame)
			delete(f.pages, i)
		}
	}
	f.mu.Unlock()
	for _, p := range gone {
		f.fs.pool.Unref(p)
	}
	_ = f.fs.call(&proto.Close{Handle: o.handle}, &proto.Done{})
}

// writeBack writes the dirty pages from first to last to the host.
func (f *file) writeBack(handle uint64, first, last uint64) error {
	f.mu.Lock()
	var dirty []uint64
	for i, p := range f.pages {
		if p.dirty && i >= first && i <= last {
			dirty = append(dirty, i)
		}
	}
	f.mu.Unlock()
	for _, i := range dirty {
		f.mu.Lock()
		p := f.pages[i]
		if p == nil || !p.dirty {
			f.mu.Unlock()
			continue
		}
		p.dirty = false
		fr := p.frame
		f.fs.pool.Ref(fr)
		f.mu.Unlock()
		// From here on a write marks the page again.
		f.maps.Clean(i, i)
		off := int64(i) * pageSize
		n := min(f.in.Size()-off, pageSize)
		var err error
		if n > 0 {
			_, _, err = f.store(handle, append([]byte(nil), f.fs.pool.Bytes(fr)[:n]...), off, false)
		}
		f.fs.pool.Unref(fr)
		if err != nil {
			f.mu.Lock()
			if q := f.pages[i]; q != nil {
				q.dirty = true
			}
			f.mu.Unlock()
			return err
		}
	}
	if len(dirty) > 0 {
		f.until.Store(0)
	}
	return nil
}

// Pager implements vfs.PagerOf.
func (o *open) Pager(*vfs.Description) vfs.Pager { return pager{o} }

// pager is the pages of a file, read through one of its handles.
type pager struct{ o *open }

// Page implements vfs.Pager.
func (p pager) Page(index uint64, write bool) (frame.Frame, error) {
	f := p.o.f
	if int64(index) < 0 || index >= 1<<51 || int64(index)*pageSize >= f.in.Size() {
		return frame.None, linux.ENXIO
	}
	f.mu.Lock()
	if g := f.pages[index]; g != nil {
		g.dirty = g.dirty || write
		f.fs.pool.Ref(g.frame)
		f.mu.Unlock()
		return g.frame, nil
	}
	f.mu.Unlock()
	fr, err := f.fs.pool.Alloc()
	if err != nil {
		return frame.None, err
	}
	b := f.fs.pool.Bytes(fr)
	n, err := f.fetch(p.o.handle, b, int64(index)*pageSize)
	if err != nil {
		f.fs.pool.Unref(fr)
		return frame.None, err
	}
	clear(b[n:])
	f.mu.Lock()
	defer f.mu.Unlock()
	if g := f.pages[index]; g != nil { // somebody was faster
		f.fs.pool.Unref(fr)
		g.dirty = g.dirty || write
		f.fs.pool.Ref(g.frame)
		return g.frame, nil
	}
	if f.pages == nil {
		f.pages = map[uint64]*page{}
	}
	f.pages[index] = &page{fr, write}
	f.fs.pool.Ref(fr) // one for the file, one for the caller
	return fr, nil
}

// Cached implements vfs.Pager.
func (p pager) Cached(index uint64, dst []frame.Frame) {
	f := p.o.f
	f.mu.Lock()
	defer f.mu.Unlock()
	for k := range dst {
		dst[k] = frame.None
		if g := f.pages[index+uint64(k)]; g != nil {
			f.fs.pool.Ref(g.frame)
			dst[k] = g.frame
		}
	}
}

// Sync implements vfs.Pager.
func (p pager) Sync(first, last uint64, _ bool) error {
	return p.o.f.writeBack(p.o.handle, first, last)
}

// Notify implements vfs.Pager: writes must be noticed, to be brought to the host.
func (p pager) Notify() bool { return true }

// Mappings implements vfs.Pager.
func (p pager) Mappings() *mm.Mappings { return &p.o.f.maps }

// Sealed implements vfs.Pager.
func (p pager) Sealed() bool { return false }
