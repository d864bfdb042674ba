// Package epoll is epoll(7).
//
// Each watched file has an item, which is an entry in the file's queue. A wake-up there puts it on the list of items that may be
// ready, and so waiting costs as much as is ready, not as is watched. Whether an item is ready, who waits finds out by asking the
// file. Level triggered items go back on the list after they were reported.
//
// Lock order: nesting (the package's only lock for all), then Epoll.mu, of an epoll that watches before that of one that is watched; then
// locks of files and wait.Queue.mu, of which Epoll.ready.mu is a leaf. A queue's wake-up runs through nested epolls: it
// takes the mutex of the queue of the epoll while it holds that of the file. This is the one exception to the rule of
// package wait that a Waker touches no queue; it is no deadlock since nesting has no loops.
package epoll

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"

	"dinos/dkernel/vfs"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

// Limits.
const (
	// maxNests is how many epolls can watch one another in a chain, less one (EP_MAX_NESTS of Linux).
	maxNests = 4
	// maxItems is how many files all epolls together can watch (fs.epoll.max_user_watches).
	maxItems = 1 << 20
	// batch is how many events are copied to a program at once.
	batch = 32
	// eventSize is the size of struct epoll_event.
	eventSize = 12
)

// The events of an item that are not events but ways to report them.
const private = linux.EPOLLWAKEUP | linux.EPOLLONESHOT | linux.EPOLLET | linux.EPOLLEXCLUSIVE

// exclusiveOK is what may be asked for together with EPOLLEXCLUSIVE.
const exclusiveOK = linux.EPOLLIN | linux.EPOLLOUT | linux.EPOLLERR | linux.EPOLLHUP | linux.EPOLLWAKEUP | linux.EPOLLET |
	linux.EPOLLEXCLUSIVE

// item is a watched file.
type item struct {
	entry  wait.Entry
	ep     *Epoll
	d      *vfs.Description
	q      *wait.Queue
	target *Epoll // the file, if it is an epoll
	fd     int
	events atomic.Uint32 // changed with ep.mu held; only private ones: it rests (EPOLLONESHOT)
	data   [2]uint32     // guarded by ep.mu
	gone   bool          // guarded by ep.mu
	queued bool          // it is on a list; guarded by ep.ready.mu, as is next
	next   *item
}

type key struct {
	d  *vfs.Description
	fd int
}

// Epoll is an instance of epoll, and its [vfs.File].
type Epoll struct {
	vfs.BaseFile
	q     wait.Queue // threads in Wait, exclusively, and who watches this epoll
	ready struct {
		mu         sync.Mutex
		head, tail *item
	}

	mu    sync.Mutex // guards items and the two below, which Wait uses
	items map[key]*item
	buf   [batch * eventSize]byte
	sent  [batch]*item

	nests bool           // it has, or had, epolls among its items; guarded by mu
	above map[*Epoll]int // who watches this epoll, by how many items; guarded by nesting
}

var (
	nesting sync.Mutex   // held while epolls are put into one another
	watched atomic.Int64 // items in all
)

// Create is epoll_create1(2): it returns the descriptor.
func Create(c *vfs.Caller, flags uint32) (int, error) {
	if flags&^linux.EPOLL_CLOEXEC != 0 {
		return 0, linux.EINVAL
	}
	ep := &Epoll{items: map[key]*item{}}
	return c.InstallAnon("[eventpoll]", ep, linux.O_RDWR, flags != 0)
}

func get(c *vfs.Caller, fd int) (vfs.Ref, *Epoll, error) {
	r, err := c.Files.Get(fd)
	if err != nil {
		return r, nil, err
	}
	ep, ok := r.File().(*Epoll)
	if !ok {
		r.Put()
		return r, nil, linux.EINVAL
	}
	return r, ep, nil
}

// Ctl is epoll_ctl(2); addr is that of a struct epoll_event.
func Ctl(c *vfs.Caller, epfd, op, fd int, addr uint64) error {
	var b [eventSize]byte
	if op != linux.EPOLL_CTL_DEL {
		if _, err := c.Mem.CopyIn(b[:], addr); err != nil {
			return err
		}
	}
	er, err := c.Files.Get(epfd)
	if err != nil {
		return err
	}
	defer er.Put()
	tr, err := c.Files.Get(fd)
	if err != nil {
		return err
	}
	defer tr.Put()
	if tr.Queue() == nil {
		return linux.EPERM
	}
	ep, ok := er.File().(*Epoll)
	if !ok || er.Description == tr.Description {
		return linux.EINVAL
	}
	le := binary.LittleEndian
	events, data := le.Uint32(b[:]), [2]uint32{le.Uint32(b[4:]), le.Uint32(b[8:])}
	target, nested := tr.File().(*Epoll)
	if events&linux.EPOLLEXCLUSIVE != 0 && op != linux.EPOLL_CTL_DEL {
		if op == linux.EPOLL_CTL_MOD || nested || events&^exclusiveOK != 0 {
			return linux.EINVAL
		}
	}
	if nested {
		nesting.Lock()
		defer nesting.Unlock()
		if op == linux.EPOLL_CTL_ADD && (target.reaches(ep) || ep.height()+1+target.depth() > maxNests) {
			return linux.ELOOP
		}
	}
	ep.mu.Lock()
	defer ep.mu.Unlock()
	k := key{tr.Description, fd}
	it := ep.items[k]
	switch op {
	case linux.EPOLL_CTL_ADD:
		if it != nil {
			return linux.EEXIST
		}
		return ep.add(k, target, events, data)
	case linux.EPOLL_CTL_DEL:
		if it == nil {
			return linux.ENOENT
		}
		ep.remove(it)
		it.d.RemoveHook(it)
		return nil
	case linux.EPOLL_CTL_MOD:
		if it == nil {
			return linux.ENOENT
		}
		if it.events.Load()&linux.EPOLLEXCLUSIVE != 0 {
			return linux.EINVAL
		}
		it.q.Remove(&it.entry)
		it.data = data
		it.watch(events)
		return nil
	}
	return linux.EINVAL
}

// add enters a file, with mu held, and with nesting held if it is an epoll.
func (ep *Epoll) add(k key, target *Epoll, events uint32, data [2]uint32) error {
	if watched.Add(1) > maxItems {
		watched.Add(-1)
		return linux.ENOSPC
	}
	it := &item{ep: ep, d: k.d, q: k.d.Queue(), target: target, fd: k.fd, data: data}
	it.entry.W = it
	it.entry.Exclusive = events&linux.EPOLLEXCLUSIVE != 0
	ep.items[k] = it
	if target != nil {
		ep.nests = true
		if target.above == nil {
			target.above = map[*Epoll]int{}
		}
		target.above[ep]++
	}
	k.d.AddHook(it)
	it.watch(events)
	return nil
}

// watch has the item wait for events, and looks whether there are some already.
func (it *item) watch(events uint32) {
	events |= linux.EPOLLERR | linux.EPOLLHUP
	it.events.Store(events)
	it.entry.Mask = wait.Events(events &^ private)
	it.q.Add(&it.entry)
	if it.state() != 0 {
		it.enlist()
		it.ep.q.Wake(wait.Readable)
	}
}

// state is what of the wanted is possible now.
func (it *item) state() uint32 { return uint32(it.d.Poll()) & it.events.Load() &^ private }

// enlist puts the item on the ready list.
func (it *item) enlist() {
	r := &it.ep.ready
	r.mu.Lock()
	if !it.queued {
		it.queued, it.next = true, nil
		if r.tail != nil {
			r.tail.next = it
		} else {
			r.head = it
		}
		r.tail = it
	}
	r.mu.Unlock()
}

// Wake implements wait.Waker: something happened to the file.
func (it *item) Wake(_ *wait.Entry, _ wait.Events) bool {
	events := it.events.Load()
	if events&^private == 0 {
		return false
	}
	it.enlist()
	ep := it.ep
	waiting := !ep.q.Empty()
	if waiting {
		ep.q.Wake(wait.Readable)
	}
	return waiting || events&linux.EPOLLEXCLUSIVE == 0
}

// remove takes an item out, with mu held, and nesting if it is an epoll.
func (ep *Epoll) remove(it *item) {
	it.gone = true
	if t := it.target; t != nil {
		if t.above[ep]--; t.above[ep] == 0 {
			delete(t.above, ep)
		}
	}
	it.q.Remove(&it.entry)
	delete(ep.items, key{it.d, it.fd})
	watched.Add(-1)
	r := &ep.ready
	r.mu.Lock()
	if it.queued {
		it.queued = false
		p, last := &r.head, (*item)(nil)
		for *p != it {
			last = *p
			p = &last.next
		}
		*p = it.next
		if r.tail == it {
			r.tail = last
		}
	}
	r.mu.Unlock()
}

// Released implements vfs.Hook: the file is closed for good.
func (it *item) Released(*vfs.Description) {
	if it.target != nil {
		nesting.Lock()
		defer nesting.Unlock()
	}
	it.ep.mu.Lock()
	defer it.ep.mu.Unlock()
	if !it.gone {
		it.ep.remove(it)
	}
}

// Release implements vfs.File.
func (ep *Epoll) Release(*vfs.Description) {
	ep.mu.Lock()
	nests := ep.nests
	ep.mu.Unlock()
	if nests {
		nesting.Lock()
		defer nesting.Unlock()
	}
	ep.mu.Lock()
	defer ep.mu.Unlock()
	for _, it := range ep.items {
		ep.remove(it)
		it.d.RemoveHook(it)
	}
}

// Queue implements vfs.File.
func (ep *Epoll) Queue(*vfs.Description) *wait.Queue { return &ep.q }

// Poll implements vfs.File: it can be read if an item is ready.
func (ep *Epoll) Poll(*vfs.Description) wait.Events {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	for {
		it := ep.first()
		if it == nil {
			return 0
		}
		if it.state() != 0 {
			it.enlist()
			return wait.Readable
		}
	}
}

// first takes the first item off the ready list, or nil. mu is held.
func (ep *Epoll) first() *item {
	r := &ep.ready
	r.mu.Lock()
	it := r.head
	if it != nil {
		if r.head = it.next; r.head == nil {
			r.tail = nil
		}
		it.queued, it.next = false, nil
	}
	r.mu.Unlock()
	return it
}

// FDInfo implements vfs.FDInfoer.
func (ep *Epoll) FDInfo(_ *vfs.Description, b []byte) []byte {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	for k, it := range ep.items {
		in := k.d.Inode()
		b = fmt.Appendf(b, "tfd: %8d events: %8x data: %16x  pos:0 ino:%x sdev:%x\n", k.fd, it.events.Load(),
			uint64(it.data[0])|uint64(it.data[1])<<32, in.Ino(), in.FS().Dev())
	}
	return b
}
