package tmpfs

import (
	"dinos/dkernel/frame"
	"dinos/dkernel/mm"
	"dinos/kernel/linux"
)

// What follows is vfs.Pager. A page fault may come from within Read or Write of the same file, which hold f.io: only f.mu is taken.

// Page implements vfs.Pager.
func (f *file) Page(index uint64, write bool) (frame.Frame, error) {
	for {
		if index > lastPage || int64(index)*pageSize >= f.in.Size() {
			return frame.None, linux.ENXIO
		}
		f.mu.Lock()
		if p := f.pages.get(int64(index)); p != frame.None {
			f.fs.pool.Ref(p)
			f.mu.Unlock()
			return p, nil
		}
		f.mu.Unlock()
		if err := f.grow(int64(index)); err != nil {
			return frame.None, err
		}
	}
}

// grow makes page i while others may write to, cut and punch the file.
func (f *file) grow(i int64) error {
	p, err := f.fs.take(true)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	// The end may have moved since the caller looked: a page behind it would outlive the cut.
	if f.pages.get(i) != frame.None || i*pageSize >= f.in.Size() {
		f.fs.give(p)
		return nil
	}
	f.fill(f.fs.pool.Bytes(p), i*pageSize)
	f.enter(i, p)
	return nil
}

// Cached implements vfs.Pager. A page that is only in the archive counts: it is memory.
func (f *file) Cached(index uint64, dst []frame.Frame) {
	f.mu.Lock()
	defer f.mu.Unlock()
	pages := (f.in.Size() + pageSize - 1) / pageSize
	for k := range dst {
		dst[k] = frame.None
		i := int64(index) + int64(k)
		if index > lastPage || i >= pages {
			continue
		}
		if p := f.pages.get(i); p != frame.None {
			f.fs.pool.Ref(p)
			dst[k] = p
		}
	}
}

// Sync implements vfs.Pager.
func (f *file) Sync(uint64, uint64, bool) error { return nil }

// vfs.Syncer is not implemented: fsync(2) of a regular file succeeds without it.

// Notify implements vfs.Pager.
func (f *file) Notify() bool { return false }

// Mappings implements vfs.Pager.
func (f *file) Mappings() *mm.Mappings { return &f.maps }

// Sealed implements vfs.Pager.
func (f *file) Sealed() bool {
	return f.seals.Load()&(linux.F_SEAL_WRITE|linux.F_SEAL_FUTURE_WRITE) != 0
}

// mappedWritable tells whether a shared mapping may write to the file.
func (f *file) mappedWritable() bool { return !f.maps.Empty() }
