package mm

import (
	"slices"
	"sync"
	"sync/atomic"

	"dinos/dkernel/frame"
	"dinos/kernel/linux"
	"dinos/kernel/paging"
)

// Unlimited is no limit.
const Unlimited = ^uint64(0)

// Limits are the resource limits that concern memory, in bytes, and the capability to lock more.
type Limits struct {
	AS, Data, Stack, MemLock uint64
	IPCLock                  bool // CAP_IPC_LOCK
}

// DefaultLimits are those that Linux starts init with.
var DefaultLimits = Limits{AS: Unlimited, Data: Unlimited, Stack: 8 << 20, MemLock: 8 << 20}

// Space is an address space. Its methods may be called by any number of goroutines. Whoever uses it holds a reference: the creator has one.
type Space struct {
	sys     *System
	id      uint64
	users   atomic.Int64
	engine  engine
	tree    *tree // for what needs no lock: reading page tables
	readers readers
	starved atomic.Bool

	limAS, limData, limStack, limLock atomic.Uint64
	ipcLock                           atomic.Bool
	stackAt, lastAnon, future         atomic.Uint64
	breakAt                           atomic.Uint64 // the break that was set last, near enough to judge what is asked for

	forkMu sync.Mutex // held by fork until all CPUs have forgotten what they could write to

	mu      sync.Mutex // a leaf but for Mappings.mu, which is never taken inside
	binds   map[uint64]*binding
	byObj   map[Object]*binding
	recent  atomic.Pointer[binding] // last found
	handles uint64
}

// binding is what an address space has of an object: operations name it by its handle.
type binding struct {
	handle uint64
	id     uint64 // of the contents
	obj    Object
	notify bool
	vmas   atomic.Int32
	pins   atomic.Int32 // users besides vmas; below 0 when it is gone, which it becomes with Space.mu held
}

// keep pins b, unless it is gone.
func (b *binding) keep() bool {
	for {
		n := b.pins.Load()
		if n < 0 {
			return false
		}
		if b.pins.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// NewSpace makes an empty address space. The error is linux.ENOMEM.
func (y *System) NewSpace(l Layout, lim Limits) (*Space, error) {
	s := &Space{sys: y, id: y.ids.Add(1)}
	s.users.Store(1)
	s.SetLimits(lim)
	s.tree = newTree(y, l, s.byHandle)
	if err := y.hw.NewTables(&s.tree.pt); err != nil {
		return nil, linux.ENOMEM
	}
	s.engine.t = s.tree
	return s, nil
}

// ID is a number that no other address space of this dkernel has or had.
func (s *Space) ID() uint64 { return s.id }

// Root is the physical address of the PML4 table, for CR3.
func (s *Space) Root() uint64 { return s.tree.pt.Root() }

// Get adds a reference (CLONE_VM, and whoever looks at another's memory). It reports false if there is none left.
func (s *Space) Get() bool {
	for {
		n := s.users.Load()
		if n <= 0 {
			return false
		}
		if s.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Put takes a reference away. With the last one all memory is given back; no thread may be able to enter the address space then.
func (s *Space) Put() {
	if n := s.users.Add(-1); n > 0 {
		return
	} else if n < 0 {
		panic("mm: address space released twice")
	}
	s.sys.hw.Retire(s)
	s.destroy()
}

func (s *Space) destroy() {
	// From here on nobody is told of truncations; who is doing that holds the Mappings' lock, so wait for it.
	s.mu.Lock()
	binds := s.binds
	s.binds, s.byObj = nil, nil
	s.recent.Store(nil)
	s.mu.Unlock()
	for _, b := range binds {
		b.obj.Mappings().remove(s, b.id)
	}
	t := s.tree
	t.pt.Destroy(func(l paging.Leaf) { s.sys.unref(s.sys.frames.FromPhys(l.PA)) })
	s.sys.committed.Add(-int64(t.count.account))
	for _, b := range binds {
		b.obj.Release()
	}
}

// SetLimits sets the limits for what comes next.
func (s *Space) SetLimits(l Limits) {
	pages := func(n uint64) uint64 { return min(n>>pageShift, noLimit) }
	s.limAS.Store(pages(l.AS))
	s.limData.Store(pages(l.Data))
	s.limStack.Store(pages(l.Stack))
	s.limLock.Store(pages(l.MemLock))
	s.ipcLock.Store(l.IPCLock)
}

// lockLimit is how many pages may be locked.
func (s *Space) lockLimit() uint64 {
	if s.ipcLock.Load() {
		return noLimit
	}
	return s.limLock.Load()
}

// limited adds the limits to o.
func (s *Space) limited(o *op) *op {
	o.LimitAS, o.LimitData, o.LimitLock, o.MaxMaps = s.limAS.Load(), s.limData.Load(), s.lockLimit(), s.sys.maxMaps
	return o
}

// do applies o and completes it: when it returns, nothing that was removed can be used any more.
func (s *Space) do(o *op) (r resp) {
	s.engine.apply(o, &r)
	s.finish(&r)
	return r
}

func (s *Space) finish(r *resp) {
	if r.account != 0 {
		s.sys.committed.Add(r.account)
	}
	if r.out != nil {
		s.dispose(r.out)
		r.out = nil
	}
}

// dispose waits until nobody can use what g has, and frees it.
func (s *Space) dispose(g *gather) {
	if g.flush.Pages != 0 {
		g.ranges[0] = Range{g.flush.Start, g.flush.Pages}
		s.sys.hw.Flush(s, g.ranges[:])
	}
	s.readers.wait()
	for _, f := range g.frames {
		s.sys.frames.Unref(f)
	}
	if g.flush.Pages != 0 {
		s.tree.pt.Release(&g.flush)
	}
	for _, b := range g.dead {
		s.unpin(b, 0)
	}
	clear(g.dead)
	g.dead = g.dead[:0]
	if cap(g.frames) > 1<<16 {
		g.frames = nil // of a large munmap: not worth keeping
	}
	g.frames = g.frames[:0]
	s.tree.spareOut.Store(g)
}

// byHandle finds a binding. Operations call it, under the engine's lock.
func (s *Space) byHandle(handle uint64) *binding {
	if b := s.recent.Load(); b != nil && b.handle == handle {
		return b
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.binds[handle]
}

// pin returns the binding of obj, which stays until unpin.
func (s *Space) pin(obj Object) *binding {
	if b := s.pinKnown(obj); b != nil {
		return b
	}
	// A truncation must find the address space before anybody can have a page.
	obj.Mappings().add(s, obj.ID())
	s.mu.Lock()
	if s.byObj[obj] == nil {
		s.handles++
		b := s.bindLocked(obj, s.handles)
		s.mu.Unlock()
		return b
	}
	s.mu.Unlock()
	obj.Mappings().remove(s, obj.ID())
	return s.pin(obj)
}

func (s *Space) pinKnown(obj Object) *binding {
	if b := s.recent.Load(); b != nil && b.obj == obj && b.keep() {
		return b
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.byObj[obj]
	if b != nil {
		b.keep() // it is not gone while it is in the map
		s.recent.Store(b)
	}
	return b
}

// bindLocked makes a binding with one pin, not yet in its object's Mappings.
func (s *Space) bindLocked(obj Object, handle uint64) *binding {
	b := &binding{handle: handle, id: obj.ID(), obj: obj, notify: obj.Notify()}
	b.pins.Store(1)
	obj.Retain()
	if s.binds == nil {
		s.binds, s.byObj = map[uint64]*binding{}, map[Object]*binding{}
	}
	s.binds[handle], s.byObj[obj] = b, b
	s.recent.Store(b)
	return b
}

// unpin takes n pins away, and releases the object if nothing is left.
func (s *Space) unpin(b *binding, n int32) {
	if b.pins.Add(-n) != 0 || b.vmas.Load() != 0 {
		return
	}
	s.mu.Lock()
	if s.binds == nil || b.vmas.Load() != 0 || !b.pins.CompareAndSwap(0, -1<<30) {
		s.mu.Unlock()
		return
	}
	delete(s.binds, b.handle)
	delete(s.byObj, b.obj)
	s.recent.CompareAndSwap(b, nil)
	s.mu.Unlock()
	b.obj.Mappings().remove(s, b.id)
	b.obj.Release()
}

// Fork makes a copy: private memory copy-on-write, shared memory shared. It has the limits of s. The error is linux.ENOMEM.
func (s *Space) Fork() (*Space, error) {
	y := s.sys
	var promised uint64
	s.engine.view(func(t *tree) { promised = t.count.account })
	if !y.promise(promised) {
		return nil, linux.ENOMEM
	}
	c, err := y.NewSpace(s.tree.layout, Limits{})
	if err != nil {
		return nil, err
	}
	c.limAS.Store(s.limAS.Load())
	c.limData.Store(s.limData.Load())
	c.limStack.Store(s.limStack.Load())
	c.limLock.Store(s.limLock.Load())
	c.ipcLock.Store(s.ipcLock.Load())
	c.stackAt.Store(s.stackAt.Load())
	c.breakAt.Store(s.breakAt.Load())

	s.forkMu.Lock()
	pinned := s.lend(c)
	c.engine.mu.Lock() // truncations find c already
	s.tree.child = c.tree
	var r resp
	s.engine.apply(&op{Kind: opFork}, &r)
	s.tree.child = nil
	promised = c.tree.count.account
	c.engine.mu.Unlock()
	y.committed.Add(int64(promised))
	s.finish(&r)
	s.do(&op{Kind: opForked})
	s.forkMu.Unlock()
	for _, b := range pinned {
		c.unpin(b, 1)
	}
	if r.err != 0 {
		c.Put()
		return nil, linux.ENOMEM
	}
	return c, nil
}

// lend gives c a pinned binding, with the same handle, for each of s.
func (s *Space) lend(c *Space) []*binding {
	s.mu.Lock()
	c.mu.Lock()
	var out []*binding
	for h, b := range s.binds {
		out = append(out, c.bindLocked(b.obj, h))
	}
	c.handles = s.handles
	c.mu.Unlock()
	s.mu.Unlock()
	slices.SortFunc(out, func(a, b *binding) int { return int(int64(a.handle) - int64(b.handle)) })
	for _, b := range out {
		b.obj.Mappings().add(c, b.id)
	}
	return out
}

// frameAt is the frame that an access to addr may use now, frame.None if it needs a fault first. The caller is a reader.
func (s *Space) frameAt(addr uint64, write bool) frame.Frame {
	if addr >= userTop {
		return frame.None
	}
	need := canRead
	if write {
		need = canWrite
	}
	pa, a := s.tree.pt.Page(addr)
	if a&need != need {
		return frame.None
	}
	return s.sys.frames.FromPhys(pa)
}
