package signal

import "dinos/kernel/linux"

// Queued is a pending signal. POSIX timers own theirs; the others come from a Pool.
type Queued struct {
	Info  Info
	Owner Owner // nil: the Pool gets it back
	next  *Queued
	// charged is whose quota of pending signals it counts for; nil if none, as with an Owner.
	charged Quota
}

// Owner is told when its Queued is delivered or dropped.
type Owner interface {
	// Dequeued is called with the lock of the queue held. It may change q.Info, if that is delivered.
	Dequeued(q *Queued, delivered bool)
}

// Quota is a user's number of pending signals (RLIMIT_SIGPENDING).
type Quota interface{ Release() }

// Pool keeps unused Queued of one process, so that a steady flow of signals allocates nothing. Same lock as the queues.
type Pool struct {
	free *Queued
	n    int
}

const poolMax = 16

func (p *Pool) get() *Queued {
	q := p.free
	if q == nil {
		return &Queued{}
	}
	p.free, q.next = q.next, nil
	p.n--
	return q
}

func (p *Pool) put(q *Queued) {
	if q.charged != nil {
		q.charged.Release()
	}
	if q.Owner != nil || p.n >= poolMax {
		return
	}
	*q = Queued{next: p.free}
	p.free = q
	p.n++
}

// Pending are the signals that wait for one thread, or for any thread of a process. The zero value is empty.
type Pending struct {
	set        Set
	head, tail *Queued
}

// Set returns what is pending.
func (p *Pending) Set() Set { return p.set }

// Legacy reports whether another sig would be dropped: of signals below SIGRTMIN at most one is pending.
func (p *Pending) Legacy(sig int) bool { return sig < linux.SIGRTMIN && p.set.Has(sig) }

// Mark makes sig pending without a siginfo: what remains of a signal that could not be queued.
func (p *Pending) Mark(sig int) { p.set |= Of(sig) }

// Add makes a signal pending with its siginfo.
func (p *Pending) Add(pool *Pool, i Info, charged Quota) {
	q := pool.get()
	q.Info, q.charged = i, charged
	p.AddQueued(q)
}

// AddQueued makes q pending, which is in no queue.
func (p *Pending) AddQueued(q *Queued) {
	q.next = nil
	if p.tail == nil {
		p.head = q
	} else {
		p.tail.next = q
	}
	p.tail = q
	p.set |= Of(int(q.Info.Signo))
}

func (p *Pending) unlink(prev, q *Queued) {
	if prev == nil {
		p.head = q.next
	} else {
		prev.next = q.next
	}
	if p.tail == q {
		p.tail = prev
	}
	q.next = nil
}

// Take removes the first signal that is in want, synchronous ones first, and returns its siginfo. ok is false if there is none.
func (p *Pending) Take(pool *Pool, want Set) (i Info, ok bool) {
	sig := (p.set & want).First()
	if sig == 0 {
		return i, false
	}
	var prev *Queued
	for q := p.head; q != nil; prev, q = q, q.next {
		if int(q.Info.Signo) == sig {
			return p.take(pool, prev, q), true
		}
	}
	// It was marked only.
	p.set &^= Of(sig)
	return Info{Signo: int32(sig)}, true
}

// TakeFault removes the first synchronous signal in want that the kernel sent because of an instruction: it precedes all others.
func (p *Pending) TakeFault(pool *Pool, want Set) (i Info, ok bool) {
	if p.set&want&Synchronous == 0 {
		return i, false
	}
	var prev *Queued
	for q := p.head; q != nil; prev, q = q, q.next {
		if q.Info.Code > linux.SI_USER && (want & Synchronous).Has(int(q.Info.Signo)) {
			return p.take(pool, prev, q), true
		}
	}
	return i, false
}

func (p *Pending) take(pool *Pool, prev, q *Queued) Info {
	sig := q.Info.Signo
	p.unlink(prev, q)
	p.recount(int(sig))
	if q.Owner != nil {
		q.Owner.Dequeued(q, true)
	}
	i := q.Info
	pool.put(q)
	return i
}

// recount clears the bit of sig if no more of it is queued.
func (p *Pending) recount(sig int) {
	for q := p.head; q != nil; q = q.next {
		if int(q.Info.Signo) == sig {
			return
		}
	}
	p.set &^= Of(sig)
}

// Drop forgets all pending signals in s.
func (p *Pending) Drop(pool *Pool, s Set) {
	if p.set&s == 0 {
		return
	}
	p.set &^= s
	var prev *Queued
	for q := p.head; q != nil; {
		next := q.next
		if s.Has(int(q.Info.Signo)) {
			p.unlink(prev, q)
			if q.Owner != nil {
				q.Owner.Dequeued(q, false)
			}
			pool.put(q)
		} else {
			prev = q
		}
		q = next
	}
}

// Remove takes q, which has an owner, out if it is in, without telling that, and reports whether it was.
func (p *Pending) Remove(q *Queued) bool {
	var prev *Queued
	for o := p.head; o != nil; prev, o = o, o.next {
		if o == q {
			p.unlink(prev, q)
			p.recount(int(q.Info.Signo))
			return true
		}
	}
	return false
}
