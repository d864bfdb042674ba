package mm

import (
	"sync"
	"sync/atomic"

	"dinos/dkernel/frame"
	"dinos/kernel/linux"
)

// Anon is memory without a file that several address spaces share: MAP_SHARED|MAP_ANONYMOUS, and System V segments. It is zero at first.
type Anon struct {
	sys   *System
	id    uint64
	pages uint64
	paid  uint64 // promised pages
	refs  atomic.Int64
	maps  Mappings
	info  Info

	mu     sync.Mutex
	frames map[uint64]frame.Frame // guarded by mu
}

// NewAnon makes an Anon with one reference, which Release gives back. The error is linux.ENOMEM.
func (y *System) NewAnon(pages uint64, noReserve bool) (*Anon, error) {
	a := &Anon{sys: y, id: y.ids.Add(1), pages: pages, frames: map[uint64]frame.Frame{}}
	a.info = Info{Name: "/dev/zero (deleted)", Minor: 1, Inode: a.id}
	if !noReserve || y.mode.Load() == linux.OVERCOMMIT_NEVER {
		if !y.promise(pages) {
			return nil, linux.ENOMEM
		}
		a.paid = pages
		y.committed.Add(int64(pages))
	}
	a.refs.Store(1)
	return a, nil
}

// SetInfo changes what /proc/PID/maps says. It must be called before the memory is mapped.
func (a *Anon) SetInfo(i Info) { a.info = i }

// ID implements Object, as do the next ones.
func (a *Anon) ID() uint64 { return a.id }

// Access implements Object.
func (a *Anon) Access() Access { return MayRead | MayWrite }

// Info implements Object.
func (a *Anon) Info() Info { return a.info }

// Page implements Object.
func (a *Anon) Page(index uint64, _ bool) (frame.Frame, error) {
	if index >= a.pages {
		return frame.None, linux.ENXIO
	}
	a.mu.Lock()
	f, ok := a.frames[index]
	if ok {
		a.sys.frames.Ref(f)
		a.mu.Unlock()
		return f, nil
	}
	a.mu.Unlock()
	f, err := a.sys.frames.AllocZero()
	if err != nil {
		return frame.None, err
	}
	a.mu.Lock()
	if g, ok := a.frames[index]; ok { // somebody was faster
		a.sys.frames.Unref(f)
		f = g
	} else {
		a.frames[index] = f
	}
	a.sys.frames.Ref(f)
	a.mu.Unlock()
	return f, nil
}

// Cached implements Object.
func (a *Anon) Cached(index uint64, dst []frame.Frame) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range dst {
		f, ok := a.frames[index+uint64(i)]
		if ok {
			a.sys.frames.Ref(f)
		}
		dst[i] = f
	}
}

// Notify implements Object.
func (a *Anon) Notify() bool { return false }

// Sync implements Object.
func (a *Anon) Sync(uint64, uint64, bool) error { return nil }

// Punch implements Puncher.
func (a *Anon) Punch(offset, n uint64) error {
	first, end := pageUp(offset)>>pageShift, (offset+n)>>pageShift
	if end <= first {
		return nil
	}
	var out []frame.Frame
	a.mu.Lock()
	for i, f := range a.frames {
		if i >= first && i < end {
			out = append(out, f)
			delete(a.frames, i)
		}
	}
	a.mu.Unlock()
	a.maps.Zap(first, end-1, false)
	for _, f := range out {
		a.sys.frames.Unref(f)
	}
	return nil
}

// Mappings implements Object.
func (a *Anon) Mappings() *Mappings { return &a.maps }

// Retain implements Object.
func (a *Anon) Retain() { a.refs.Add(1) }

// Release implements Object.
func (a *Anon) Release() {
	if a.refs.Add(-1) != 0 {
		return
	}
	a.sys.committed.Add(-int64(a.paid))
	for _, f := range a.frames {
		a.sys.frames.Unref(f)
	}
	a.frames = nil
}
