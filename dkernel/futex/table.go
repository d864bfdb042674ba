package futex

import (
	"sync"
	"sync/atomic"

	"dinos/dkernel/wait"
	"dinos/kernel/linux"
	"dinos/kernel/ureg"
)

// nBuckets is a power of two, more than threads that are likely to wait at the same time on the same CPUs.
const nBuckets = 512

// Table has all waiters of a dkernel. Make it with NewTable.
type Table struct {
	buckets [nBuckets]bucket
	remote  Remote
	pi      pi
}

// bucket has the waiters of the keys with one hash, in the order in which they came. It has a cache line of its own.
type bucket struct {
	waiting    atomic.Int32 // waiters, those included that are about to lock mu
	mu         sync.Mutex
	head, tail *Waiter // guarded by mu
	index      uint32
	_          [64 - 36]byte
}

// Waiter is a thread's place in a bucket. A thread has one for its life, so that it sleeps without allocation; it is used for one
// call at a time.
type Waiter struct {
	next, prev *Waiter // guarded by the bucket's lock, as what follows
	key        Key
	bits       uint32
	sleeper    *wait.Sleeper

	// bucket is where it waits; nil once it was woken, and then nobody but the thread touches the Waiter. Changed with the
	// bucket locked, read by the thread without.
	bucket atomic.Pointer[bucket]

	piWaiter
}

// NewTable makes a Table. find returns the thread with an id, or nil; it is for PI futexes and is called with a bucket locked.
// remote may be nil.
func NewTable(find func(tid uint32) *Owner, remote Remote) *Table {
	t := &Table{remote: remote}
	t.pi.find = find
	for i := range t.buckets {
		t.buckets[i].index = uint32(i)
	}
	return t
}

func (t *Table) bucket(k Key) *bucket {
	h := (k.Object ^ k.Offset>>2*0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9
	return &t.buckets[(h^h>>29)>>32%nBuckets]
}

// queue enters w. b is locked, and counts w already.
func (t *Table) queue(b *bucket, w *Waiter) {
	w.prev, w.next = b.tail, nil
	if b.tail != nil {
		b.tail.next = w
	} else {
		b.head = w
	}
	b.tail = w
	w.bucket.Store(b)
	if t.remote != nil {
		t.remote.Waiting(w.key, 1)
	}
}

// unlink takes w out and leaves w.bucket to the caller. b is locked.
func (t *Table) unlink(b *bucket, w *Waiter) {
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		b.head = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		b.tail = w.prev
	}
	w.next, w.prev = nil, nil
	b.waiting.Add(-1)
	if t.remote != nil {
		t.remote.Waiting(w.key, -1)
	}
}

// rouse wakes w. b is locked; w must not be touched after.
func (t *Table) rouse(b *bucket, w *Waiter) {
	t.unlink(b, w)
	s := w.sleeper
	w.bucket.Store(nil)
	s.Rouse()
}

// lockOf locks the bucket that w is in and returns it; nil if it is in none.
func (w *Waiter) lockOf() *bucket {
	for {
		b := w.bucket.Load()
		if b == nil {
			return nil
		}
		b.mu.Lock()
		if w.bucket.Load() == b {
			return b
		}
		b.mu.Unlock() // requeued meanwhile
	}
}

// remove takes w out if it was not woken, and reports whether it did.
func (t *Table) remove(w *Waiter) bool {
	b := w.lockOf()
	if b == nil {
		return false
	}
	t.unlink(b, w)
	w.bucket.Store(nil)
	b.mu.Unlock()
	return true
}

// sleep waits until w is woken (nil), or returns what ended the sleep, with w still in.
func (w *Waiter) sleep(c *Call) error {
	for w.bucket.Load() != nil {
		if err := c.Sleeper.Sleep(c.Deadline); err != nil {
			return err
		}
	}
	return nil
}

func aligned(addrs ...uint64) error {
	for _, a := range addrs {
		if a%4 != 0 {
			return linux.EINVAL
		}
	}
	return nil
}

// compare fails with linux.EAGAIN if the word at addr is not val.
func compare(mem Memory, addr uint64, val uint32) error {
	v, err := mem.Load32(addr)
	if err == nil && v != val {
		err = linux.EAGAIN
	}
	return err
}

// prepare makes w wait for key if the word at addr is val: linux.EAGAIN if it is not.
func (t *Table) prepare(c *Call, w *Waiter, addr uint64, val uint32, key Key) error {
	b := t.bucket(key)
	b.waiting.Add(1)
	b.mu.Lock()
	if err := compare(c.Mem, addr, val); err != nil {
		b.waiting.Add(-1)
		b.mu.Unlock()
		return err
	}
	w.key, w.sleeper = key, c.Sleeper
	t.queue(b, w)
	b.mu.Unlock()
	return nil
}

// Wait is FUTEX_WAIT and FUTEX_WAIT_BITSET: it sleeps if the word at addr is val. linux.EAGAIN: it is not; linux.ETIMEDOUT;
// linux.ERESTARTSYS: a signal came.
func (t *Table) Wait(c *Call, addr uint64, shared bool, val, bits uint32) error {
	if bits == 0 {
		return linux.EINVAL
	}
	if err := aligned(addr); err != nil {
		return err
	}
	key, err := c.Mem.FutexKey(addr, shared, false)
	if err != nil {
		return err
	}
	// Once without the lock: the page is there after that, and whoever comes too late does not disturb others.
	if err := compare(c.Mem, addr, val); err != nil {
		return err
	}
	w := c.Waiter
	w.bits = bits
	if err := t.prepare(c, w, addr, val, key); err != nil {
		return err
	}
	if err := w.sleep(c); err != nil && t.remove(w) {
		return err
	}
	return nil
}

// Vec is an element of Waitv.
type Vec struct {
	Addr   uint64
	Val    uint32
	Shared bool
}

// Waitv is futex_waitv(2): it sleeps until one of several futexes is woken, and returns which.
func (t *Table) Waitv(c *Call, vecs []Vec) (int, error) {
	ws := make([]Waiter, len(vecs))
	undo := func(n int) (woken int) {
		woken = -1
		for i := range ws[:n] {
			if !t.remove(&ws[i]) {
				woken = i
			}
		}
		return woken
	}
	keys := make([]Key, len(vecs))
	for i, v := range vecs {
		if err := aligned(v.Addr); err != nil {
			return 0, err
		}
		k, err := c.Mem.FutexKey(v.Addr, v.Shared, false)
		if err != nil {
			return 0, err
		}
		keys[i] = k
	}
	for i, v := range vecs {
		ws[i].bits = ^uint32(0)
		if err := t.prepare(c, &ws[i], v.Addr, v.Val, keys[i]); err != nil {
			if woken := undo(i); woken >= 0 {
				return woken, nil
			}
			return 0, err
		}
	}
	for {
		for i := range ws {
			if ws[i].bucket.Load() == nil {
				return undo(len(ws)), nil
			}
		}
		if err := c.Sleeper.Sleep(c.Deadline); err != nil {
			if woken := undo(len(ws)); woken >= 0 {
				return woken, nil
			}
			return 0, err
		}
	}
}

// Wake is FUTEX_WAKE and FUTEX_WAKE_BITSET: it wakes up to n waiters, at least one as Linux does, and returns how many.
func (t *Table) Wake(mem Memory, addr uint64, shared bool, n int, bits uint32) (int, error) {
	if bits == 0 {
		return 0, linux.EINVAL
	}
	if err := aligned(addr); err != nil {
		return 0, err
	}
	key, err := mem.FutexKey(addr, shared, false)
	if err == linux.EFAULT && !shared && addr < ureg.UserTop {
		return 0, nil // Linux does not look at the memory: nobody waits where nothing is
	}
	if err != nil {
		return 0, err
	}
	return t.WakeKey(key, n, bits)
}

// WakeKey is Wake for whoever has the key already, such as another dkernel.
func (t *Table) WakeKey(key Key, n int, bits uint32) (woken int, err error) {
	woken, err = t.wakeLocal(key, n, bits)
	if t.remote != nil && err == nil && woken < max(n, 1) {
		woken += t.remote.Wake(key, n-woken, bits)
	}
	return woken, err
}

// WakeLocal is WakeKey for the waiters of this dkernel only: what a Remote calls.
func (t *Table) WakeLocal(key Key, n int, bits uint32) int {
	woken, _ := t.wakeLocal(key, n, bits)
	return woken
}

func (t *Table) wakeLocal(key Key, n int, bits uint32) (woken int, err error) {
	b := t.bucket(key)
	// A read-modify-write, so that the program's store before the call is seen by whoever counts itself after this.
	if b.waiting.Add(0) == 0 {
		return 0, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return t.wake(b, key, n, bits)
}

// wake wakes waiters in b, which is locked.
func (t *Table) wake(b *bucket, key Key, n int, bits uint32) (woken int, err error) {
	for w := b.head; w != nil; {
		next := w.next
		if w.key == key {
			if w.state != nil || w.requeuePI {
				return woken, linux.EINVAL
			}
			if w.bits&bits != 0 {
				t.rouse(b, w)
				if woken++; woken >= n {
					break
				}
			}
		}
		w = next
	}
	return woken, nil
}

// lock2 locks two buckets, which may be the same.
func lock2(a, b *bucket) {
	if a.index > b.index {
		a, b = b, a
	}
	a.mu.Lock()
	if a != b {
		b.mu.Lock()
	}
}

func unlock2(a, b *bucket) {
	a.mu.Unlock()
	if a != b {
		b.mu.Unlock()
	}
}

// Requeue is FUTEX_REQUEUE and, with cmp, FUTEX_CMP_REQUEUE: it wakes up to nWake waiters of from and makes up to nMove more wait
// for to instead. It returns how many in all. linux.EAGAIN: cmp is not what from has.
func (t *Table) Requeue(mem Memory, from, to uint64, shared bool, nWake, nMove int, cmp *uint32) (int, error) {
	if nWake < 0 || nMove < 0 {
		return 0, linux.EINVAL
	}
	k1, k2, err := t.keys(mem, from, to, shared, false)
	if err != nil {
		return 0, err
	}
	b1, b2 := t.bucket(k1), t.bucket(k2)
	b2.waiting.Add(1) // nobody who wakes may think that b2 is empty while waiters move
	defer b2.waiting.Add(-1)
	lock2(b1, b2)
	defer unlock2(b1, b2)
	if cmp != nil {
		if err := compare(mem, from, *cmp); err != nil {
			return 0, err
		}
	}
	done := 0
	for w := b1.head; w != nil && done-nWake < nMove; {
		next := w.next
		if w.key == k1 {
			if w.state != nil || w.requeuePI {
				return done, linux.EINVAL
			}
			if done++; done <= nWake {
				t.rouse(b1, w)
			} else if k1 != k2 {
				t.move(b1, b2, w, k2)
			}
		}
		w = next
	}
	return done, nil
}

// move makes w wait for another key. Both buckets are locked.
func (t *Table) move(b1, b2 *bucket, w *Waiter, key Key) {
	t.unlink(b1, w)
	w.key = key
	b2.waiting.Add(1)
	t.queue(b2, w)
}

// keys returns the keys of two words, and has touched the first one, so that it is there.
func (t *Table) keys(mem Memory, a, b uint64, shared, write bool) (k1, k2 Key, err error) {
	if err = aligned(a, b); err != nil {
		return
	}
	if k1, err = mem.FutexKey(a, shared, false); err != nil {
		return
	}
	if k2, err = mem.FutexKey(b, shared, write); err != nil {
		return
	}
	_, err = mem.Load32(a)
	return
}

// WakeOp is FUTEX_WAKE_OP: it changes the word at to as op says, wakes up to n1 waiters of from, and, if the old value compares as
// op says, up to n2 of to.
func (t *Table) WakeOp(mem Memory, from, to uint64, shared bool, n1, n2 int, op uint32) (int, error) {
	k1, k2, err := t.keys(mem, from, to, shared, true)
	if err != nil {
		return 0, err
	}
	hit, err := apply(mem, to, op)
	if err != nil {
		return 0, err
	}
	woken, err := t.WakeKey(k1, n1, ^uint32(0))
	if hit && err == nil {
		n := 0
		n, err = t.WakeKey(k2, n2, ^uint32(0))
		woken += n
	}
	return woken, err
}

// apply does the operation of FUTEX_WAKE_OP (futex_atomic_op_inuser): bits 28–31 of op the operation, 24–27 the comparison, 12–23 its
// operand, 0–11 what to compare with; both are signed.
func apply(mem Memory, addr uint64, op uint32) (bool, error) {
	arg, cmp := int32(op<<8)>>20, int32(op<<20)>>20
	if op>>31 != 0 { // FUTEX_OP_OPARG_SHIFT: Linux takes what is out of range modulo 32
		arg = 1 << (uint32(arg) & 31)
	}
	kind := op >> 28 & 7
	if kind > 4 {
		return false, linux.ENOSYS
	}
	old, err := mem.Load32(addr)
	for {
		if err != nil {
			return false, err
		}
		n := uint32(arg)
		switch kind {
		case 1:
			n = old + n
		case 2:
			n = old | n
		case 3:
			n = old &^ n
		case 4:
			n = old ^ n
		}
		was, e := mem.CompareAndSwap32(addr, old, n)
		if e == nil && was == old {
			break
		}
		old, err = was, e
	}
	v := int32(old)
	switch op >> 24 & 15 {
	case 0:
		return v == cmp, nil
	case 1:
		return v != cmp, nil
	case 2:
		return v < cmp, nil
	case 3:
		return v <= cmp, nil
	case 4:
		return v > cmp, nil
	case 5:
		return v >= cmp, nil
	}
	return false, linux.ENOSYS
}

// Waiting is how many threads wait; for tests and statistics.
func (t *Table) Waiting() (n int) {
	for i := range t.buckets {
		n += int(t.buckets[i].waiting.Load())
	}
	return n
}
