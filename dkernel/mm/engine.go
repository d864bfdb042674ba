package mm

import (
	"encoding/binary"
	"runtime"
	"sync"
	"sync/atomic"

	"dinos/dkernel/frame"
	"dinos/kernel/linux"
	"dinos/nr"
)

// engine carries operations to the tree.
//
// An address space with one replica needs no log: its operations are applied under a mutex, by the same code. That is four times
// as fast as a log, and making one takes longer than all the rest of fork (nr.Apply 110 ns, nr.New 200 µs, 600 KB). When another
// replica is to join, attach hands the tree to nr; from then on operations go through the log.
type engine struct {
	mu  sync.Mutex
	t   *tree                  // guarded by mu until log is set, by nr afterwards
	log atomic.Pointer[logged] // set once, with mu held
}

func (e *engine) apply(o *op, r *resp) { e.applyFrames(o, nil, r) }

// applyFrames sets r, which is zero before.
func (e *engine) applyFrames(o *op, frames []frame.Frame, r *resp) {
	if e.log.Load() == nil {
		e.mu.Lock()
		if e.log.Load() == nil {
			e.t.do(o, frames, r)
			e.mu.Unlock()
			return
		}
		e.mu.Unlock()
	}
	*r = e.log.Load().apply(o, frames)
}

// read is tree.look; k is zero before.
func (e *engine) read(addr uint64, prot int, k *look) {
	if e.log.Load() == nil {
		e.mu.Lock()
		if e.log.Load() == nil {
			e.t.look(addr, flags(prot), k)
			e.mu.Unlock()
			return
		}
		e.mu.Unlock()
	}
	*k = e.log.Load().read(addr, prot)
}

// view calls f with the tree, which does not change meanwhile; f changes nothing.
func (e *engine) view(f func(*tree)) {
	e.mu.Lock()
	if l := e.log.Load(); l != nil {
		e.mu.Unlock()
		l.view(e.t, f)
		return
	}
	f(e.t)
	e.mu.Unlock()
}

// attach puts the tree under an nr replica, which must have been made with e.t as its structure and been given no op.
func (e *engine) attach(rep *nr.Replica[op, both]) error {
	l := &logged{rep: rep}
	for i := range l.handles {
		h, err := rep.Register()
		if err != nil {
			if i == 0 {
				return err
			}
			break
		}
		l.handles[i].h = h
		l.n++
	}
	e.mu.Lock()
	e.log.Store(l)
	e.mu.Unlock()
	return nil
}

// maxHandles is how many goroutines can be inside a log at a time; others wait.
const maxHandles = 32

// logged is an engine's way through a log. Handles belong to one goroutine at a time.
type logged struct {
	rep     *nr.Replica[op, both]
	n       int
	handles [maxHandles]struct {
		busy atomic.Bool
		h    *nr.Handle[op, both]
		data [8 * maxAround]byte
		_    [39]byte
	}
}

// take returns the index of a free handle.
func (l *logged) take() int {
	for i := int(frame.StackHash() >> 56); ; i++ {
		k := i % l.n
		if s := &l.handles[k]; !s.busy.Load() && s.busy.CompareAndSwap(false, true) {
			return k
		}
		if k == l.n-1 {
			runtime.Gosched()
		}
	}
}

// failed is what becomes of an op when the replica has failed: it was evicted, or the log is corrupt. The process cannot go on.
const failed = linux.EIO

func (l *logged) apply(o *op, frames []frame.Frame) resp {
	s := &l.handles[l.take()]
	var r both
	var err error
	if frames == nil {
		r, err = s.h.Apply(*o)
	} else {
		for i, f := range frames {
			binary.LittleEndian.PutUint64(s.data[8*i:], uint64(f))
		}
		r, err = s.h.ApplyOperand(*o, s.data[:8*len(frames)])
	}
	s.busy.Store(false)
	if err != nil {
		return resp{err: failed}
	}
	return r.resp
}

func (l *logged) read(addr uint64, prot int) look {
	s := &l.handles[l.take()]
	r, err := s.h.Read(op{Kind: opLook, Addr: addr, Flags: uint64(prot)})
	s.busy.Store(false)
	if err != nil {
		return look{seen: seenNone}
	}
	return r.look
}

func (l *logged) view(t *tree, f func(*tree)) {
	k := l.take()
	s := &l.handles[k]
	t.views[k] = f // only this goroutine uses the place
	_, _ = s.h.Read(op{Kind: opView, Addr: uint64(k)})
	t.views[k] = nil
	s.busy.Store(false)
}
