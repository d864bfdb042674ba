package mm

import (
	"sync"
	"sync/atomic"

	"dinos/dkernel/frame"
	"dinos/kernel/linux"
)

// file is an Object for tests.
type file struct {
	m      *machine
	id     uint64
	access Access
	notify bool
	maps   Mappings
	refs   atomic.Int64

	mu     sync.Mutex
	size   uint64
	frames map[uint64]frame.Frame
	dirty  map[uint64]bool
	synced []uint64
}

var fileIDs atomic.Uint64

func (m *machine) file(pages uint64) *file {
	f := &file{m: m, id: 1<<62 | fileIDs.Add(1), access: MayRead | MayWrite, size: pages, frames: map[uint64]frame.Frame{}, dirty: map[uint64]bool{}}
	f.refs.Store(1)
	return f
}

func (f *file) ID() uint64          { return f.id }
func (f *file) Access() Access      { return f.access }
func (f *file) Info() Info          { return Info{Name: "/file", Inode: f.id} }
func (f *file) Notify() bool        { return f.notify }
func (f *file) Mappings() *Mappings { return &f.maps }
func (f *file) Retain()             { f.refs.Add(1) }
func (f *file) Release()            { f.refs.Add(-1) }

func (f *file) Page(index uint64, write bool) (frame.Frame, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if index >= f.size {
		return 0, linux.ENXIO
	}
	fr, ok := f.frames[index]
	if !ok {
		var err error
		if fr, err = f.m.pool.AllocZero(); err != nil {
			return 0, err
		}
		f.frames[index] = fr
	}
	if write {
		f.dirty[index] = true
	}
	f.m.pool.Ref(fr)
	return fr, nil
}

func (f *file) Cached(index uint64, dst []frame.Frame) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range dst {
		dst[i] = 0
		if fr, ok := f.frames[index+uint64(i)]; ok && index+uint64(i) < f.size {
			f.m.pool.Ref(fr)
			dst[i] = fr
		}
	}
}

func (f *file) Sync(first, last uint64, _ bool) error {
	f.mu.Lock()
	for i := range f.dirty {
		if i >= first && i <= last {
			f.synced = append(f.synced, i)
			delete(f.dirty, i)
		}
	}
	f.mu.Unlock()
	f.maps.Clean(first, last)
	return nil // a real one would read the pages now
}

// resize is ftruncate.
func (f *file) resize(pages uint64) {
	f.mu.Lock()
	f.size = pages
	out := f.take(pages, ^uint64(0))
	f.mu.Unlock()
	f.maps.Zap(pages, ^uint64(0), true)
	for _, fr := range out {
		f.m.pool.Unref(fr)
	}
}

// Punch makes a hole.
func (f *file) Punch(offset, n uint64) error {
	first, last := offset>>pageShift, (offset+n)>>pageShift-1
	f.mu.Lock()
	out := f.take(first, last)
	f.mu.Unlock()
	f.maps.Zap(first, last, false)
	for _, fr := range out {
		f.m.pool.Unref(fr)
	}
	return nil
}

func (f *file) take(first, last uint64) (out []frame.Frame) {
	for i, fr := range f.frames {
		if i >= first && i <= last {
			out = append(out, fr)
			delete(f.frames, i)
		}
	}
	return out
}
