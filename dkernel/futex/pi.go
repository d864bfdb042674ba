package futex

import (
	"sync"
	"sync/atomic"

	"dinos/kernel/linux"
)

// Priority inheritance futexes: the word has the owner's thread id, and the kernel gives the lock to the first waiter. There are no
// priorities to inherit; what matters is who owns what: that is handed over in order, a deadlock is found, and the next in line gets the lock
// when its owner dies (futex(2), "Priority-inheritance futexes").

// pi is guarded by mu, as are all piStates and Owners. mu is taken with a bucket locked.
type pi struct {
	mu   sync.Mutex
	find func(tid uint32) *Owner
}

// Owner is a thread that may own PI futexes. The zero value with ID set is ready.
type Owner struct {
	// ID is the thread id that it has in the words.
	ID atomic.Uint32

	owns    *piState // contended locks that it owns
	blocked *piState // the one that it waits for
	gone    bool
}

// piState is a contended PI futex. It is there as long as somebody waits.
type piState struct {
	key     Key
	owner   *Owner
	waiters int
	next    *piState // in owner.owns
}

type piWaiter struct {
	state *piState // nil: no waiter of a PI futex
	owner *Owner
	mem   Memory
	addr  uint64 // of the PI futex
	err   error  // what went wrong in handing it over

	// Of FUTEX_WAIT_REQUEUE_PI: it is to be moved to target.
	requeuePI bool
	target    Key
}

func (t *Table) own(st *piState, o *Owner) {
	st.owner = o
	st.next, o.owns = o.owns, st
}

func (t *Table) disown(st *piState) {
	for p := &st.owner.owns; *p != nil; p = &(*p).next {
		if *p == st {
			*p = st.next
			break
		}
	}
	st.owner, st.next = nil, nil
}

// top returns the first waiter of key in b, which is locked. linux.EINVAL: there is one that is not for a PI futex.
func top(b *bucket, key Key) (*Waiter, error) {
	for w := b.head; w != nil; w = w.next {
		if w.key == key {
			if w.state == nil {
				return nil, linux.EINVAL
			}
			return w, nil
		}
	}
	return nil, nil
}

// acquire takes the PI futex at addr for o, if it is free (true), or returns the state to wait at. b, the bucket of key, is
// locked. linux.EAGAIN: something changed, begin again with b unlocked; linux.EWOULDBLOCK: try, and it is not free.
func (t *Table) acquire(b *bucket, mem Memory, addr uint64, key Key, o *Owner, try, waiters bool) (*piState, bool, error) {
	first, err := top(b, key)
	if err != nil {
		return nil, false, err
	}
	v, err := mem.Load32(addr)
	if err != nil {
		return nil, false, err
	}
	me := o.ID.Load()
	if v&linux.FUTEX_TID_MASK == me {
		return nil, false, linux.EDEADLK
	}
	if first == nil && v&linux.FUTEX_TID_MASK == 0 {
		n := me | v&linux.FUTEX_OWNER_DIED
		if waiters {
			n |= linux.FUTEX_WAITERS
		}
		was, err := mem.CompareAndSwap32(addr, v, n)
		if err == nil && was != v {
			err = linux.EAGAIN
		}
		return nil, err == nil, err
	}
	if try {
		return nil, false, linux.EWOULDBLOCK
	}
	t.pi.mu.Lock()
	defer t.pi.mu.Unlock()
	if first != nil {
		st := first.state
		tid := v & linux.FUTEX_TID_MASK
		if tid != 0 && tid != st.owner.ID.Load() || tid == 0 && v&linux.FUTEX_OWNER_DIED == 0 {
			return nil, false, linux.EINVAL // the program has changed the word
		}
		return st, false, t.deadlock(st, o)
	}
	if was, err := mem.CompareAndSwap32(addr, v, v|linux.FUTEX_WAITERS); err != nil || was != v {
		if err == nil {
			err = linux.EAGAIN
		}
		return nil, false, err
	}
	owner := t.pi.find(v & linux.FUTEX_TID_MASK)
	if owner == nil || owner.gone {
		// Either it never was, or it has just died and changed the word.
		if now, err := mem.Load32(addr); err != nil || now != v|linux.FUTEX_WAITERS {
			return nil, false, linux.EAGAIN
		}
		return nil, false, linux.ESRCH
	}
	st := &piState{key: key}
	t.own(st, owner)
	if err := t.deadlock(st, o); err != nil {
		t.disown(st)
		return nil, false, err
	}
	return st, false, nil
}

// deadlock fails with linux.EDEADLK if the owner of st waits, over whatever chain, for o.
func (t *Table) deadlock(st *piState, o *Owner) error {
	for range 1024 { // Linux' limit too
		if st.owner == o {
			return linux.EDEADLK
		}
		if st.owner == nil {
			return nil
		}
		if st = st.owner.blocked; st == nil {
			return nil
		}
	}
	return linux.EDEADLK
}

// join makes w, which is in no bucket or is about to be moved, a waiter of st.
func (t *Table) join(st *piState, w *Waiter) {
	t.pi.mu.Lock()
	w.state = st
	st.waiters++
	w.owner.blocked = st
	t.pi.mu.Unlock()
}

// leave takes w, which is out of its bucket, from the waiters of its state.
func (t *Table) leave(w *Waiter) {
	t.pi.mu.Lock()
	st := w.state
	w.state, w.owner.blocked = nil, nil
	if st.waiters--; st.waiters == 0 && st.owner != nil {
		t.disown(st)
	}
	t.pi.mu.Unlock()
}

// LockPI is FUTEX_LOCK_PI, FUTEX_LOCK_PI2 and, with try, FUTEX_TRYLOCK_PI. linux.ERESTARTNOINTR: a signal came.
func (t *Table) LockPI(c *Call, addr uint64, shared, try bool) error {
	if err := aligned(addr); err != nil {
		return err
	}
	key, err := c.Mem.FutexKey(addr, shared, true)
	if err != nil {
		return err
	}
	w := c.Waiter
	b := t.bucket(key)
	for {
		if _, err := c.Mem.Load32(addr); err != nil { // it is there from now on
			return err
		}
		b.mu.Lock()
		st, got, err := t.acquire(b, c.Mem, addr, key, c.Owner, try, false)
		if err == nil && !got {
			w.key, w.bits, w.sleeper = key, ^uint32(0), c.Sleeper
			w.piWaiter = piWaiter{owner: c.Owner, mem: c.Mem, addr: addr}
			t.join(st, w)
			b.waiting.Add(1)
			t.queue(b, w)
		}
		b.mu.Unlock()
		if err == linux.EAGAIN && !try {
			continue
		}
		if err != nil || got {
			return err
		}
		break
	}
	err = t.sleepPI(c, w)
	if err == linux.ERESTARTSYS {
		err = linux.ERESTARTNOINTR
	}
	return err
}

// sleepPI waits until the lock is handed over (nil).
func (t *Table) sleepPI(c *Call, w *Waiter) error {
	err := w.sleep(c)
	if err != nil && t.remove(w) {
		t.leave(w)
		w.piWaiter = piWaiter{}
		return err
	}
	err = w.err
	w.piWaiter = piWaiter{}
	return err
}

// hand gives the futex of w, the first waiter, to it: its word becomes bits and the new owner's id. b is locked, and st
// has no owner any more. expect is what the word has to be, nil: anything.
func (t *Table) hand(b *bucket, w *Waiter, bits uint32, expect *uint32) error {
	for {
		v, err := w.mem.Load32(w.addr)
		if expect != nil {
			v = *expect
		}
		if err == nil {
			var was uint32
			was, err = w.mem.CompareAndSwap32(w.addr, v, w.owner.ID.Load()|bits)
			if err == nil && was != v {
				if expect != nil {
					return linux.EAGAIN
				}
				continue
			}
		}
		if err != nil && expect != nil {
			return err
		}
		t.pi.mu.Lock()
		st := w.state
		if st.owner != nil {
			t.disown(st)
		}
		w.state, w.owner.blocked, w.err = nil, nil, err
		if st.waiters--; st.waiters > 0 {
			t.own(st, w.owner)
		}
		t.pi.mu.Unlock()
		t.rouse(b, w)
		return nil
	}
}

// UnlockPI is FUTEX_UNLOCK_PI. linux.EPERM: o does not own it.
func (t *Table) UnlockPI(mem Memory, addr uint64, shared bool, o *Owner) error {
	if err := aligned(addr); err != nil {
		return err
	}
	for {
		v, err := mem.Load32(addr)
		if err != nil {
			return err
		}
		if v&linux.FUTEX_TID_MASK != o.ID.Load() {
			return linux.EPERM
		}
		key, err := mem.FutexKey(addr, shared, true)
		if err != nil {
			return err
		}
		if err := t.unlock(mem, addr, key, v, o); err != linux.EAGAIN {
			return err
		}
	}
}

func (t *Table) unlock(mem Memory, addr uint64, key Key, v uint32, o *Owner) error {
	b := t.bucket(key)
	b.mu.Lock()
	defer b.mu.Unlock()
	w, err := top(b, key)
	if err != nil {
		return err
	}
	if w == nil {
		was, err := mem.CompareAndSwap32(addr, v, 0)
		if err == nil && was != v {
			err = linux.EAGAIN
		}
		return err
	}
	t.pi.mu.Lock()
	mine := w.state.owner == o
	t.pi.mu.Unlock()
	if !mine {
		return linux.EINVAL
	}
	return t.hand(b, w, linux.FUTEX_WAITERS, &v)
}

// Exit ends the ownerships of a thread that dies: whoever is next in line gets each lock, with FUTEX_OWNER_DIED. The robust list
// comes before.
func (t *Table) Exit(o *Owner) {
	for {
		t.pi.mu.Lock()
		o.gone = true
		st := o.owns
		t.pi.mu.Unlock()
		if st == nil {
			return
		}
		b := t.bucket(st.key)
		b.mu.Lock()
		t.pi.mu.Lock()
		still := st.owner == o
		t.pi.mu.Unlock()
		if w, _ := top(b, st.key); still && w != nil {
			_ = t.hand(b, w, linux.FUTEX_WAITERS|linux.FUTEX_OWNER_DIED, nil)
		} else if still {
			// The last waiter has left its bucket and is about to leave the state.
			t.pi.mu.Lock()
			if st.owner == o {
				t.disown(st)
			}
			t.pi.mu.Unlock()
		}
		b.mu.Unlock()
	}
}

// Revive makes an Owner that Exit ended usable again: execve(2) ends ownerships, but not the thread.
func (t *Table) Revive(o *Owner) {
	t.pi.mu.Lock()
	o.gone = false
	t.pi.mu.Unlock()
}

// WaitRequeuePI is FUTEX_WAIT_REQUEUE_PI: it sleeps at addr, is moved to the PI futex at lock by CmpRequeuePI, and returns when it owns
// that.
func (t *Table) WaitRequeuePI(c *Call, addr, lock uint64, shared bool, val uint32) error {
	if addr == lock {
		return linux.EINVAL
	}
	key, target, err := t.keys(c.Mem, addr, lock, shared, true)
	if err != nil {
		return err
	}
	if key == target {
		return linux.EINVAL
	}
	w := c.Waiter
	w.piWaiter = piWaiter{owner: c.Owner, mem: c.Mem, addr: lock, requeuePI: true, target: target}
	if err := t.prepare(c, w, addr, val, key); err != nil {
		w.piWaiter = piWaiter{}
		return err
	}
	err = w.sleep(c)
	if err != nil {
		b := w.lockOf()
		if b != nil {
			moved := w.state != nil
			t.unlink(b, w)
			w.bucket.Store(nil)
			b.mu.Unlock()
			if moved {
				t.leave(w)
			}
			w.piWaiter = piWaiter{}
			switch {
			case err == linux.ERESTARTSYS && moved:
				return linux.EWOULDBLOCK // it cannot be begun again at addr
			case err == linux.ERESTARTSYS:
				return linux.ERESTARTNOINTR
			}
			return err
		}
	}
	err = w.err
	w.piWaiter = piWaiter{}
	return err
}

// CmpRequeuePI is FUTEX_CMP_REQUEUE_PI: the first waiter of from gets the lock at to, if that is free; up to nMove others wait for it from
// now on. nWake must be 1.
func (t *Table) CmpRequeuePI(mem Memory, from, to uint64, shared bool, nWake, nMove int, cmp uint32) (int, error) {
	if nWake != 1 || nMove < 0 || from == to {
		return 0, linux.EINVAL
	}
	k1, k2, err := t.keys(mem, from, to, shared, true)
	if err != nil {
		return 0, err
	}
	if k1 == k2 {
		return 0, linux.EINVAL
	}
	b1, b2 := t.bucket(k1), t.bucket(k2)
	b2.waiting.Add(1)
	defer b2.waiting.Add(-1)
	lock2(b1, b2)
	defer unlock2(b1, b2)
	if err := compare(mem, from, cmp); err != nil {
		return 0, err
	}
	done := 0
	for w := b1.head; w != nil && done-1 < nMove; {
		next := w.next
		if w.key == k1 {
			if !w.requeuePI || w.target != k2 {
				return done, linux.EINVAL
			}
			st, got, err := t.acquire(b2, mem, to, k2, w.owner, false, true)
			for err == linux.EAGAIN { // a thread in user mode was faster; not for ever, as the bucket is locked
				st, got, err = t.acquire(b2, mem, to, k2, w.owner, false, true)
			}
			if err != nil {
				return done, err
			}
			done++
			w.requeuePI = false
			if got {
				t.rouse(b1, w)
			} else {
				t.join(st, w)
				t.move(b1, b2, w, k2)
			}
		}
		w = next
	}
	return done, nil
}
