package vfs

import (
	"math"
	"slices"
	"sync"

	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

// Record locks (fcntl_locking(2)) and flock(2). A POSIX lock belongs to a descriptor table, as on Linux to the files_struct, an
// OFD lock to a description. The two conflict with each other; flock is a world of its own.

// lockList is the locks of an inode. It is made when the first is asked for.
type lockList struct {
	mu     sync.Mutex
	ranges []rangeLock // by start; those of one owner do not overlap; guarded by mu
	whole  []flock     // guarded by mu
	queue  wait.Queue  // something was unlocked
}

type rangeLock struct {
	start, end int64 // inclusive; math.MaxInt64 is the end of all files
	write      bool
	owner      any // *FDTable or *Description
	pid        int32
}

type flock struct {
	d         *Description
	exclusive bool
}

// posixState is who waits for whom, over all files: to find deadlocks of POSIX locks.
type posixState struct {
	mu    sync.Mutex
	waits map[*FDTable][]*FDTable // owner → those it waits for, one for each of its waiting threads; guarded by mu
}

func (in *Inode) lockList() *lockList {
	if l := in.locks.Load(); l != nil {
		return l
	}
	in.locks.CompareAndSwap(nil, &lockList{})
	return in.locks.Load()
}

// conflict is the first lock that keeps r from being set, or nil. mu is held.
func (l *lockList) conflict(r *rangeLock) *rangeLock {
	for i := range l.ranges {
		x := &l.ranges[i]
		if x.start > r.end {
			break
		}
		if x.end >= r.start && x.owner != r.owner && (x.write || r.write) {
			return x
		}
	}
	return nil
}

// set replaces what the owner of r has in r's range by r, or nothing if unlock. mu is held, and there is no conflict.
func (l *lockList) set(r rangeLock, unlock bool) {
	var out []rangeLock
	shrunk := false
	for _, x := range l.ranges {
		if x.owner != r.owner || x.end < r.start || x.start > r.end {
			// A neighbour of the same kind becomes one with r.
			if !unlock && x.owner == r.owner && x.write == r.write && (x.end != math.MaxInt64 && x.end+1 == r.start || r.end != math.MaxInt64 && r.end+1 == x.start) {
				r.start, r.end = min(r.start, x.start), max(r.end, x.end)
				continue
			}
			out = append(out, x)
			continue
		}
		if !unlock && x.write == r.write {
			r.start, r.end = min(r.start, x.start), max(r.end, x.end)
			continue
		}
		shrunk = shrunk || unlock || x.write
		if x.start < r.start {
			a := x
			a.end = r.start - 1
			out = append(out, a)
		}
		if x.end > r.end {
			b := x
			b.start = r.end + 1
			out = append(out, b)
		}
	}
	if !unlock {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b rangeLock) int {
		switch {
		case a.start < b.start:
			return -1
		case a.start > b.start:
			return 1
		}
		return 0
	})
	l.ranges = out
	if shrunk {
		l.queue.Wake(wait.In)
	}
}

// RecordLock is fcntl(F_GETLK, F_SETLK, F_SETLKW) and their F_OFD_ variants: cmd says which. For the GETLK ones f is changed to the lock
// in the way, or its Type to F_UNLCK. Errors: linux.EAGAIN if locked, EDEADLK, EBADF, EINVAL, EOVERFLOW, and those of sleeping.
func (c *Caller) RecordLock(fd int, cmd int, f *linux.Flock) error {
	ref, err := c.Files.Get(fd)
	if err != nil {
		return err
	}
	defer ref.Put()
	d := ref.Description
	r, err := d.lockRange(f)
	if err != nil {
		return err
	}
	ofd := cmd == linux.F_OFD_GETLK || cmd == linux.F_OFD_SETLK || cmd == linux.F_OFD_SETLKW
	if ofd {
		if f.PID != 0 {
			return linux.EINVAL
		}
		r.owner, r.pid = d, -1
	} else {
		r.owner, r.pid = c.Files, c.PID
	}
	l := d.inode.lockList()
	if cmd == linux.F_GETLK || cmd == linux.F_OFD_GETLK {
		return l.get(&r, f, ofd)
	}
	switch {
	case f.Type == linux.F_RDLCK && d.mode&Readable == 0, f.Type == linux.F_WRLCK && d.mode&Writable == 0:
		return linux.EBADF
	case f.Type == linux.F_UNLCK:
		l.mu.Lock()
		l.set(r, true)
		l.mu.Unlock()
		return nil
	}
	if ofd {
		d.locked.Store(true)
	} else {
		c.Files.locked.Store(true)
	}
	if err := c.lockWait(l, r, cmd == linux.F_SETLKW || cmd == linux.F_OFD_SETLKW); err != nil {
		return err
	}
	// If another thread closed the descriptor meanwhile, its close did not see the lock.
	if !ofd {
		s := *c.Files.slots.Load()
		if fd >= len(s) || s[fd].Load() != d {
			l.mu.Lock()
			l.set(r, true)
			l.mu.Unlock()
			return linux.EBADF
		}
	}
	return nil
}

// lockRange checks f and makes it absolute.
func (d *Description) lockRange(f *linux.Flock) (rangeLock, error) {
	var base int64
	switch f.Whence {
	case linux.SEEK_SET:
	case linux.SEEK_CUR:
		d.mu.Lock()
		base = d.off
		d.mu.Unlock()
	case linux.SEEK_END:
		base = d.inode.Size()
	default:
		return rangeLock{}, linux.EINVAL
	}
	if f.Type != linux.F_RDLCK && f.Type != linux.F_WRLCK && f.Type != linux.F_UNLCK {
		return rangeLock{}, linux.EINVAL
	}
	if f.Start > math.MaxInt64-base {
		return rangeLock{}, linux.EOVERFLOW
	}
	r := rangeLock{start: base + f.Start, end: math.MaxInt64, write: f.Type == linux.F_WRLCK}
	switch {
	case r.start < 0:
		return r, linux.EINVAL
	case f.Len > 0:
		if f.Len-1 > math.MaxInt64-r.start {
			return r, linux.EOVERFLOW
		}
		r.end = r.start + f.Len - 1
	case f.Len < 0:
		if r.start+f.Len < 0 {
			return r, linux.EINVAL
		}
		r.end = r.start - 1
		r.start += f.Len
	}
	return r, nil
}

func (l *lockList) get(r *rangeLock, f *linux.Flock, ofd bool) error {
	if f.Type == linux.F_UNLCK && !ofd {
		return linux.EINVAL
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var x *rangeLock
	if f.Type == linux.F_UNLCK {
		// An extension of OFD locks: what the description has itself.
		if i := slices.IndexFunc(l.ranges, func(x rangeLock) bool {
			return x.owner == r.owner && x.start <= r.end && x.end >= r.start
		}); i >= 0 {
			x = &l.ranges[i]
		}
	} else {
		x = l.conflict(r)
	}
	if x == nil {
		f.Type = linux.F_UNLCK
		return nil
	}
	*f = linux.Flock{Type: linux.F_RDLCK, Whence: linux.SEEK_SET, Start: x.start, PID: x.pid}
	if x.write {
		f.Type = linux.F_WRLCK
	}
	if x.end != math.MaxInt64 {
		f.Len = x.end - x.start + 1
	}
	return nil
}

// lockWait sets r, and waits until it can if block.
func (c *Caller) lockWait(l *lockList, r rangeLock, block bool) error {
	p := &c.FS.v.posix
	me, _ := r.owner.(*FDTable)
	var waiting *FDTable
	try := func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		x := l.conflict(&r)
		if x == nil {
			l.set(r, false)
			return nil
		}
		if !block || me == nil {
			return linux.EAGAIN
		}
		other, _ := x.owner.(*FDTable)
		if other == waiting {
			return linux.EAGAIN
		}
		if err := p.await(me, waiting, other); err != nil {
			waiting = nil
			return err
		}
		waiting = other
		return linux.EAGAIN
	}
	s := c.Sleeper
	if !block {
		s = nil
	}
	err := s.Until(&l.queue, wait.In, wait.Forever, try)
	if waiting != nil {
		_ = p.await(me, waiting, nil)
	}
	return err
}

// await notes that me waits for next now and no more for old; nil is nobody. linux.EDEADLK if next waits for me: then me
// waits for neither.
func (p *posixState) await(me, old, next *FDTable) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waits == nil {
		p.waits = map[*FDTable][]*FDTable{}
	}
	if old != nil {
		w := p.waits[me]
		if i := slices.Index(w, old); i >= 0 {
			w = slices.Delete(w, i, i+1)
		}
		if len(w) == 0 {
			delete(p.waits, me)
		} else {
			p.waits[me] = w
		}
	}
	if next == nil {
		return nil
	}
	seen := map[*FDTable]bool{}
	todo := []*FDTable{next}
	for len(todo) > 0 {
		x := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if x == me {
			return linux.EDEADLK
		}
		if !seen[x] {
			seen[x] = true
			todo = append(todo, p.waits[x]...)
		}
	}
	p.waits[me] = append(p.waits[me], next)
	return nil
}

// dropLocks drops the POSIX locks of an *FDTable, one of whose descriptors of in was closed, or the OFD locks and the flock of a *Description.
func (in *Inode) dropLocks(owner any) {
	l := in.locks.Load()
	if l == nil {
		return
	}
	l.mu.Lock()
	n, m := len(l.ranges), len(l.whole)
	l.ranges = slices.DeleteFunc(l.ranges, func(r rangeLock) bool { return r.owner == owner })
	l.whole = slices.DeleteFunc(l.whole, func(f flock) bool { return any(f.d) == owner })
	if len(l.ranges) != n || len(l.whole) != m {
		l.queue.Wake(wait.In)
	}
	l.mu.Unlock()
}

// Flock is flock(2). Errors: linux.EWOULDBLOCK, EINVAL, EBADF, and those of sleeping.
func (c *Caller) Flock(fd int, op int) error {
	block := op&linux.LOCK_NB == 0
	op &^= linux.LOCK_NB
	if op != linux.LOCK_SH && op != linux.LOCK_EX && op != linux.LOCK_UN {
		return linux.EINVAL
	}
	ref, err := c.Files.Get(fd)
	if err != nil {
		return err
	}
	defer ref.Put()
	d := ref.Description
	l := d.inode.lockList()
	l.mu.Lock()
	if i := slices.IndexFunc(l.whole, func(f flock) bool { return f.d == d }); i >= 0 {
		if op != linux.LOCK_UN && l.whole[i].exclusive == (op == linux.LOCK_EX) {
			l.mu.Unlock()
			return nil
		}
		// A lock is converted by giving it up first: flock(2) says that this is not atomic.
		l.whole = slices.Delete(l.whole, i, i+1)
		l.queue.Wake(wait.In)
	}
	l.mu.Unlock()
	if op == linux.LOCK_UN {
		return nil
	}
	d.locked.Store(true)
	ex := op == linux.LOCK_EX
	s := c.Sleeper
	if !block {
		s = nil
	}
	return s.Until(&l.queue, wait.In, wait.Forever, func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, f := range l.whole {
			if f.d != d && (ex || f.exclusive) {
				return linux.EAGAIN
			}
		}
		l.whole = append(l.whole, flock{d, ex})
		return nil
	})
}

// Locks are the locks of the file as lines of /proc/PID/fdinfo have them, those of d and of t.
func (d *Description) Locks(t *FDTable) (out []string) {
	l := d.inode.locks.Load()
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	line := func(kind string, write bool, pid int32, start int64, end string) {
		mode := "READ "
		if write {
			mode = "WRITE"
		}
		p := itoa(uint64(pid))
		if pid < 0 {
			p = "-1"
		}
		out = append(out, itoa(uint64(len(out)+1))+": "+kind+"  ADVISORY  "+mode+" "+p+" 00:"+itoa(d.inode.fs.dev)+":"+itoa(d.inode.ino)+" "+itoa(uint64(start))+" "+end)
	}
	for _, r := range l.ranges {
		if r.owner != any(d) && r.owner != any(t) {
			continue
		}
		end := "EOF"
		if r.end != math.MaxInt64 {
			end = itoa(uint64(r.end))
		}
		kind := "POSIX"
		if r.pid < 0 {
			kind = "OFDLCK"
		}
		line(kind, r.write, r.pid, r.start, end)
	}
	for _, f := range l.whole {
		if f.d == d {
			line("FLOCK", f.exclusive, 0, 0, "EOF")
		}
	}
	return out
}
