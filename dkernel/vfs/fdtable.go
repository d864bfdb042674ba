package vfs

import (
	"math/bits"
	"sync"
	"sync/atomic"

	"dinos/kernel/linux"
)

// FDTable is the descriptors of a process: files_struct of Linux. Threads that share it (CLONE_FILES) are its users.
//
// Get takes no lock: the slots are atomic, and a table that grows leaves its old slots as they were. Descriptions are never
// used again after their last reference, so a stale slot leads to one that cannot be referenced, which reads as closed.
//
// Lock order: FDTable.mu, then nothing: descriptions are released after it.
type FDTable struct {
	slots atomic.Pointer[[]atomic.Pointer[Description]]
	users atomic.Int32

	mu      sync.Mutex
	open    []uint64 // bit fd%64 of word fd/64: in use; guarded by mu, as the next two
	cloexec []uint64
	next    int // no free descriptor is below it

	locked atomic.Bool // the owner has, or had, POSIX locks: close looks for them
}

// maxFD is the limit of what RLIMIT_NOFILE can be (fs.nr_open).
const maxFD = 1 << 20

// Ref is a description that an operation uses. Put it back when done, in the same goroutine.
type Ref struct {
	*Description
	counted bool
}

// Put ends the use.
func (r Ref) Put() {
	if r.counted {
		r.Description.Unref()
	}
}

// NewFDTable makes an empty table with one user.
func NewFDTable() *FDTable {
	t := &FDTable{}
	s := make([]atomic.Pointer[Description], 64)
	t.slots.Store(&s)
	t.open, t.cloexec = make([]uint64, 1), make([]uint64, 1)
	t.users.Store(1)
	return t
}

// Get returns the description of fd for an operation of one of the table's users: linux.EBADF if there is none, or only one
// of O_PATH. It takes no reference if the caller is the only user, as only that one could close it meanwhile.
func (t *FDTable) Get(fd int) (Ref, error) {
	r, err := t.GetPath(fd)
	if err == nil && r.mode&PathOnly != 0 {
		r.Put()
		return Ref{}, linux.EBADF
	}
	return r, err
}

// GetPath is Get for the operations that O_PATH allows.
func (t *FDTable) GetPath(fd int) (Ref, error) {
	s := *t.slots.Load()
	if uint(fd) >= uint(len(s)) {
		return Ref{}, linux.EBADF
	}
	d := s[fd].Load()
	if d == nil {
		return Ref{}, linux.EBADF
	}
	if t.users.Load() == 1 {
		return Ref{Description: d}, nil
	}
	if !d.tryRef() {
		return Ref{}, linux.EBADF
	}
	return Ref{d, true}, nil
}

// Lookup returns the description of fd with a reference, for anybody (another process, /proc, SCM_RIGHTS), or nil.
func (t *FDTable) Lookup(fd int) *Description {
	s := *t.slots.Load()
	if uint(fd) >= uint(len(s)) {
		return nil
	}
	if d := s[fd].Load(); d != nil && d.tryRef() {
		return d
	}
	return nil
}

// Share adds a user (clone with CLONE_FILES). It returns t.
func (t *FDTable) Share() *FDTable {
	t.users.Add(1)
	return t
}

// Users is the number of users.
func (t *FDTable) Users() int { return int(t.users.Load()) }

// Leave drops a user (exit, unshare, execve of a thread); the last one closes everything.
func (t *FDTable) Leave(c *Caller) {
	if t.users.Add(-1) > 0 {
		return
	}
	for _, d := range t.take(0, maxFD) {
		t.finish(c, d)
	}
}

// Fork returns a copy with one user, for a new process.
func (t *FDTable) Fork() *FDTable {
	n := &FDTable{}
	t.mu.Lock()
	old := *t.slots.Load()
	// The used part, so that one large descriptor does not make all children large.
	words := len(t.open)
	for words > 1 && t.open[words-1] == 0 {
		words--
	}
	s := make([]atomic.Pointer[Description], words*64)
	n.open = make([]uint64, words)
	for w, set := range t.open[:words] {
		for ; set != 0; set &= set - 1 {
			fd := w*64 + bits.TrailingZeros64(set)
			if d := old[fd].Load(); d != nil {
				s[fd].Store(d.Ref())
				n.open[w] |= 1 << (fd % 64)
			}
		}
	}
	n.cloexec = append([]uint64(nil), t.cloexec[:words]...)
	t.mu.Unlock()
	n.slots.Store(&s)
	n.users.Store(1)
	return n
}

// Exec closes the descriptors with FD_CLOEXEC. The caller is the only user.
func (t *FDTable) Exec(c *Caller) {
	t.mu.Lock()
	var gone []*Description
	for w, set := range t.cloexec {
		for ; set != 0; set &= set - 1 {
			gone = append(gone, t.clear(w*64+bits.TrailingZeros64(set)))
		}
	}
	t.mu.Unlock()
	for _, d := range gone {
		t.finish(c, d)
	}
}

// Install gives d, whose reference it takes over, the lowest free descriptor from min on and below limit. Errors: linux.EMFILE;
// then the caller keeps the reference.
func (t *FDTable) Install(d *Description, min, limit int, cloexec bool) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fd := t.free(min)
	if fd >= limit || fd >= maxFD {
		return 0, linux.EMFILE
	}
	t.set(fd, d, cloexec)
	return fd, nil
}

// reserve takes the lowest free descriptor; it is not in use until fill.
func (t *FDTable) reserve(limit int) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fd := t.free(0)
	if fd >= limit || fd >= maxFD {
		return 0, linux.EMFILE
	}
	t.set(fd, nil, false)
	return fd, nil
}

func (t *FDTable) unreserve(fd int) {
	t.mu.Lock()
	t.clear(fd)
	t.mu.Unlock()
}

func (t *FDTable) fill(fd int, d *Description, cloexec bool) {
	t.mu.Lock()
	t.set(fd, d, cloexec)
	t.mu.Unlock()
}

// Close is close(2).
func (t *FDTable) Close(c *Caller, fd int) error {
	t.mu.Lock()
	if !t.used(fd) {
		t.mu.Unlock()
		return linux.EBADF
	}
	d := t.clear(fd)
	t.mu.Unlock()
	return t.finish(c, d)
}

// finish is what follows when a descriptor of d is gone.
func (t *FDTable) finish(c *Caller, d *Description) (err error) {
	if d.mode&PathOnly == 0 {
		if f, ok := d.file.(Flusher); ok {
			err = f.Flush(c, d)
		}
		if t.locked.Load() {
			d.inode.dropLocks(t)
		}
	}
	d.Unref()
	return err
}

// Dup is dup(2), fcntl(F_DUPFD) and F_DUPFD_CLOEXEC: the lowest descriptor from min on.
func (t *FDTable) Dup(fd, min, limit int, cloexec bool) (int, error) {
	d := t.Lookup(fd)
	if d == nil {
		return 0, linux.EBADF
	}
	if min < 0 || min >= limit {
		d.Unref()
		return 0, linux.EINVAL
	}
	n, err := t.Install(d, min, limit, cloexec)
	if err != nil {
		d.Unref()
	}
	return n, err
}

// Dup2 is dup2(2).
func (t *FDTable) Dup2(c *Caller, from, to, limit int) (int, error) {
	if from == to {
		if d := t.Lookup(from); d != nil {
			d.Unref()
			return to, nil
		}
		return 0, linux.EBADF
	}
	return t.Dup3(c, from, to, limit, 0)
}

// Dup3 is dup3(2).
func (t *FDTable) Dup3(c *Caller, from, to, limit int, flags uint32) (int, error) {
	if flags&^linux.O_CLOEXEC != 0 || from == to {
		return 0, linux.EINVAL
	}
	if to < 0 || to >= limit || to >= maxFD {
		return 0, linux.EBADF
	}
	d := t.Lookup(from)
	if d == nil {
		return 0, linux.EBADF
	}
	t.mu.Lock()
	var old *Description
	if t.used(to) {
		old = t.clear(to)
	} else if t.busy(to) { // another thread is opening it
		t.mu.Unlock()
		d.Unref()
		return 0, linux.EBUSY
	}
	t.set(to, d, flags&linux.O_CLOEXEC != 0)
	t.mu.Unlock()
	if old != nil {
		t.finish(c, old) // dup2 does not report what closing says
	}
	return to, nil
}

// CloseRange is close_range(2) without CLOSE_RANGE_UNSHARE, for which the caller makes itself a copy of the table (Fork) before.
func (t *FDTable) CloseRange(c *Caller, first, last uint32, flags uint32) error {
	if flags&^(linux.CLOSE_RANGE_UNSHARE|linux.CLOSE_RANGE_CLOEXEC) != 0 || first > last {
		return linux.EINVAL
	}
	if flags&linux.CLOSE_RANGE_CLOEXEC == 0 {
		for _, d := range t.take(int(first), int(last)) {
			t.finish(c, d)
		}
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for fd := int(first); fd <= int(last) && fd < len(t.open)*64; fd++ {
		if t.used(fd) {
			t.cloexec[fd/64] |= 1 << (fd % 64)
		}
	}
	return nil
}

// take empties the slots first to last and returns what was there.
func (t *FDTable) take(first, last int) (gone []*Description) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for fd := first; fd <= last && fd < len(t.open)*64; fd++ {
		if t.open[fd/64]>>(fd%64) == 0 {
			fd |= 63
			continue
		}
		if t.used(fd) {
			gone = append(gone, t.clear(fd))
		}
	}
	return gone
}

// Cloexec returns FD_CLOEXEC of fd (fcntl(F_GETFD)).
func (t *FDTable) Cloexec(fd int) (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.used(fd) {
		return false, linux.EBADF
	}
	return t.cloexec[fd/64]>>(fd%64)&1 != 0, nil
}

// SetCloexec is fcntl(F_SETFD).
func (t *FDTable) SetCloexec(fd int, on bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.used(fd) {
		return linux.EBADF
	}
	t.cloexec[fd/64] &^= 1 << (fd % 64)
	if on {
		t.cloexec[fd/64] |= 1 << (fd % 64)
	}
	return nil
}

// Next returns the lowest descriptor in use from fd on, or -1 (for /proc/PID/fd).
func (t *FDTable) Next(fd int) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	for w := max(fd, 0) / 64; w < len(t.open); w++ {
		set := t.open[w]
		if w == fd/64 {
			set &= ^uint64(0) << (fd % 64)
		}
		for ; set != 0; set &= set - 1 {
			if fd := w*64 + bits.TrailingZeros64(set); t.used(fd) {
				return fd
			}
		}
	}
	return -1
}

// Count is how many descriptors are in use.
func (t *FDTable) Count() (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, w := range t.open {
		n += bits.OnesCount64(w)
	}
	return n
}

// Size is the room of the table (FDSize of /proc/PID/status).
func (t *FDTable) Size() int { return len(*t.slots.Load()) }

// What follows is called with mu held.

func (t *FDTable) used(fd int) bool {
	return fd >= 0 && fd < len(t.open)*64 && (*t.slots.Load())[fd].Load() != nil
}

// busy tells whether fd is in use or reserved.
func (t *FDTable) busy(fd int) bool {
	return fd < len(t.open)*64 && t.open[fd/64]>>(fd%64)&1 != 0
}

// free is the lowest free descriptor from min on; it may be beyond the room.
func (t *FDTable) free(min int) int {
	from := max(min, t.next)
	for w := from / 64; w < len(t.open); w++ {
		set := ^t.open[w]
		if w == from/64 {
			set &= ^uint64(0) << (from % 64)
		}
		if set != 0 {
			return w*64 + bits.TrailingZeros64(set)
		}
	}
	return max(from, len(t.open)*64)
}

func (t *FDTable) set(fd int, d *Description, cloexec bool) {
	if room := len(t.open) * 64; fd >= room {
		t.grow(max(fd/64+1, 2*len(t.open)))
	}
	w, b := fd/64, uint64(1)<<(fd%64)
	t.open[w] |= b
	t.cloexec[w] &^= b
	if cloexec {
		t.cloexec[w] |= b
	}
	if fd == t.next {
		t.next++
	}
	(*t.slots.Load())[fd].Store(d)
}

func (t *FDTable) grow(words int) {
	words = min(words, maxFD/64)
	old := *t.slots.Load()
	s := make([]atomic.Pointer[Description], words*64)
	for i := range old {
		s[i].Store(old[i].Load())
	}
	t.open = append(t.open, make([]uint64, words-len(t.open))...)
	t.cloexec = append(t.cloexec, make([]uint64, words-len(t.cloexec))...)
	t.slots.Store(&s)
}

// clear empties a slot that is used and returns what was there, with its reference.
func (t *FDTable) clear(fd int) *Description {
	w, b := fd/64, uint64(1)<<(fd%64)
	t.open[w] &^= b
	t.cloexec[w] &^= b
	t.next = min(t.next, fd)
	return (*t.slots.Load())[fd].Swap(nil)
}
