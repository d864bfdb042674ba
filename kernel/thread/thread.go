// Package thread schedules kernel threads over CPUs: run queues, futex and timed waits. A kernel thread is what the Go
// runtime believes to be an operating system thread (an M); goroutines are scheduled by the runtime on top, so there are
// rarely more runnable threads than CPUs, and the policy is kept simple.
//
// The package is pure bookkeeping: it never touches a register, a clock or a lock. Callers hold one lock around every
// call, pass the time in, and carry out what comes back: a set of CPUs to kick (an inter-processor interrupt to each), the thread
// to run next, the deadline to arm. It allocates nothing after New and its state holds indices only, so that it can be
// used by kernel code (see package trap).
//
// # Policy
//
// Every CPU has a first-in first-out queue. A thread that becomes runnable goes to an idle CPU if there is one (its last one
// first: its cache is warm there), otherwise to the queue of its last CPU. A thread that was asleep goes to
// the head and may take the CPU from one that has run for WakeGranularity: the runtime's monitor thread and timers must not
// wait for a whole slice. A thread that used up its Slice goes to the tail. A CPU without work takes the head of the
// longest queue.
package thread

import "math/bits"

// Limits. MaxThreads bounds the operating system threads of one kernel's runtime: each goroutine that is locked to its thread or
// blocks in a system call needs one.
const (
	MaxThreads = 1024
	MaxCPUs    = 64
	buckets    = 256
)

// Scheduling periods, ns.
const (
	Slice           = 4_000_000
	WakeGranularity = 500_000
)

// Never is the deadline of a wait without one.
const Never int64 = 1<<63 - 1

// ID names a thread: its index in the table. None is no thread.
type ID int32

// None is the absence of a thread.
const None ID = -1

// State of a thread.
type State uint8

// The states. A Blocked thread waits for a key, a deadline, or both.
const (
	Free State = iota
	Running
	Runnable
	Blocked
)

type thread struct {
	state      State
	woken      bool // queued by a wake-up, not by the end of a slice
	timedOut   bool
	cpu        int32  // that runs it, or ran it last
	next, prev ID     // in its run queue, its wait bucket, or the free list
	timer      int32  // position in its CPU's timer heap, -1 if none
	allowed    uint64 // CPUs that may run it
	key        uint64
	deadline   int64
}

type list struct{ head, tail ID }

type cpu struct {
	queue   list
	length  int
	current ID
	since   int64 // when current got the CPU
	timers  [MaxThreads]ID
	ntimers int
}

// Table is the whole state. Guarded by the caller's lock.
type Table struct {
	threads [MaxThreads]thread
	cpus    [MaxCPUs]cpu
	waiting [buckets]list
	free    ID
	ncpu    int
	idle    uint64 // bit c: CPU c runs nothing
	live    int
	peak    int
}

// Init makes t an empty table with no CPU. Must be called before anything else.
func (t *Table) Init() {
	t.free = None
	for i := MaxThreads - 1; i >= 0; i-- {
		t.threads[i] = thread{next: t.free, prev: None, timer: -1}
		t.free = ID(i)
	}
	for i := range t.waiting {
		t.waiting[i] = list{None, None}
	}
	for i := range t.cpus {
		t.cpus[i].queue = list{None, None}
		t.cpus[i].current = None
	}
	t.ncpu, t.idle, t.live, t.peak = 0, 0, 0, 0
}

// AddCPU makes CPU c (the next unused number) available; it is not idle until it first calls Next.
func (t *Table) AddCPU(c int) {
	if c >= t.ncpu {
		t.ncpu = c + 1
	}
}

// CPUs returns the number of CPUs added.
func (t *Table) CPUs() int { return t.ncpu }

// Live returns the number of threads that exist, and the most there ever were.
func (t *Table) Live() (now, peak int) { return t.live, t.peak }

// Current returns the thread that CPU c runs, or None.
func (t *Table) Current(c int) ID { return t.cpus[c].current }

// State returns the state of a thread.
func (t *Table) State(id ID) State { return t.threads[id].state }

// CPU returns the CPU that runs the thread, or ran it last.
func (t *Table) CPU(id ID) int { return int(t.threads[id].cpu) }

// Idle returns the set of idle CPUs.
func (t *Table) Idle() uint64 { return t.idle }

// Queued returns the number of threads that wait for CPU c.
func (t *Table) Queued(c int) int { return t.cpus[c].length }

// Create makes a thread in state Blocked with neither key nor deadline, home on CPU c. None if the table is full.
func (t *Table) Create(c int) ID {
	id := t.free
	if id == None {
		return None
	}
	t.free = t.threads[id].next
	t.threads[id] = thread{state: Blocked, cpu: int32(c), allowed: 1<<MaxCPUs - 1, next: None, prev: None, timer: -1, deadline: Never}
	t.live++
	t.peak = max(t.peak, t.live)
	return id
}

// Adopt makes a Blocked thread without key or deadline the one that CPU c runs: for the first thread of a machine.
func (t *Table) Adopt(c int, id ID, now int64) {
	t.threads[id].state = Running
	t.threads[id].cpu = int32(c)
	t.cpus[c].current, t.cpus[c].since = id, now
	t.idle &^= 1 << c
}

// Allow restricts the thread that CPU c runs to a set of CPUs, of which at least one must have been added, and returns
// whether c is in it; if not, the CPU must Yield and call Next. Threads start with their creator's set: see Inherit.
func (t *Table) Allow(c int, set uint64) bool {
	t.threads[t.cpus[c].current].allowed = set
	return set&(1<<c) != 0
}

// Inherit gives thread id the set of CPUs of thread from.
func (t *Table) Inherit(id, from ID) { t.threads[id].allowed = t.threads[from].allowed }

// Allowed returns the set of CPUs that may run the thread.
func (t *Table) Allowed(id ID) uint64 { return t.threads[id].allowed }

// Exit frees the thread that CPU c runs. The CPU must call Next.
func (t *Table) Exit(c int) {
	id := t.cpus[c].current
	t.cpus[c].current = None
	t.threads[id].state = Free
	t.threads[id].next = t.free
	t.free = id
	t.live--
}

// Block puts the thread that CPU c runs to sleep until Wake of key (0: none) or the deadline (Never: none). The CPU
// must call Next.
func (t *Table) Block(c int, key uint64, deadline int64) {
	id := t.cpus[c].current
	t.cpus[c].current = None
	th := &t.threads[id]
	th.state, th.key, th.deadline, th.timedOut = Blocked, key, deadline, false
	if key != 0 {
		t.push(&t.waiting[bucket(key)], id)
	}
	if deadline != Never {
		t.addTimer(c, id)
	}
}

// TimedOut reports whether the thread's last wait ended by its deadline.
func (t *Table) TimedOut(id ID) bool { return t.threads[id].timedOut }

// Wake makes up to n threads runnable that wait for key, first come first served. It returns how many, and the CPUs to
// kick.
func (t *Table) Wake(key uint64, n int) (woken int, kick uint64) {
	b := &t.waiting[bucket(key)]
	for id := b.head; id != None && woken < n; {
		next := t.threads[id].next
		if t.threads[id].key == key {
			kick |= t.unblock(id)
			woken++
		}
		id = next
	}
	return woken, kick
}

// WakeThread makes a Blocked thread runnable whatever it waits for, and returns the CPUs to kick. Other states are left alone.
func (t *Table) WakeThread(id ID) (kick uint64) {
	if t.threads[id].state != Blocked {
		return 0
	}
	return t.unblock(id)
}

// Expire makes the threads runnable whose deadline on CPU c has come, and returns the CPUs to kick.
func (t *Table) Expire(c int, now int64) (kick uint64) {
	q := &t.cpus[c]
	for q.ntimers > 0 {
		id := q.timers[0]
		if t.threads[id].deadline > now {
			break
		}
		kick |= t.unblock(id)
		t.threads[id].timedOut = true
	}
	return kick &^ (1 << c)
}

// Yield puts the thread that CPU c runs behind the others that wait for c, or, if c may not run it any more or an idle CPU
// can take it, sends it there, and returns the CPUs to kick. The CPU must call Next.
func (t *Table) Yield(c int) (kick uint64) {
	q := &t.cpus[c]
	id := q.current
	q.current = None
	th := &t.threads[id]
	if th.allowed&(1<<c) == 0 || q.queue.head != None && t.idle&th.allowed != 0 {
		th.state = Blocked
		return t.unblock(id) &^ (1 << c)
	}
	th.state, th.woken = Runnable, false
	t.push(&q.queue, id)
	q.length++
	return 0
}

// Due reports whether the thread that CPU c runs must give way now.
func (t *Table) Due(c int, now int64) bool { return t.sliceEnd(c) <= now }

// sliceEnd returns when the current thread of CPU c must give way: Never while nobody waits.
func (t *Table) sliceEnd(c int) int64 {
	q := &t.cpus[c]
	if q.current == None || q.queue.head == None {
		return Never
	}
	if t.threads[q.queue.head].woken {
		return q.since + WakeGranularity
	}
	return q.since + Slice
}

// Deadline returns when CPU c next needs its timer: the earliest end of a wait or of the current slice.
func (t *Table) Deadline(c int) int64 {
	d := t.sliceEnd(c)
	if q := &t.cpus[c]; q.ntimers > 0 {
		d = min(d, t.threads[q.timers[0]].deadline)
	}
	return d
}

// Next gives CPU c, which runs nothing, a thread: the head of its queue, else the first thread that c may run in the
// longest other queue that has one. None makes the CPU idle until a kick.
func (t *Table) Next(c int, now int64) ID {
	from, id := c, t.cpus[c].queue.head
	if id == None {
		from, id = t.steal(c)
	}
	if id == None {
		t.idle |= 1 << c
		return None
	}
	q := &t.cpus[from]
	t.remove(&q.queue, id)
	q.length--
	th := &t.threads[id]
	th.state, th.cpu = Running, int32(c)
	t.idle &^= 1 << c
	t.cpus[c].current, t.cpus[c].since = id, now
	return id
}

// steal finds a thread for CPU c in another queue.
func (t *Table) steal(c int) (from int, id ID) {
	most := 0
	id = None
	for i := range t.ncpu {
		if t.cpus[i].length <= most {
			continue
		}
		for h := t.cpus[i].queue.head; h != None; h = t.threads[h].next {
			if t.threads[h].allowed&(1<<c) != 0 {
				from, id, most = i, h, t.cpus[i].length
				break
			}
		}
	}
	return from, id
}

// unblock ends the wait of a Blocked thread and queues it. It returns the CPUs to kick.
func (t *Table) unblock(id ID) (kick uint64) {
	th := &t.threads[id]
	if th.key != 0 {
		t.remove(&t.waiting[bucket(th.key)], id)
		th.key = 0
	}
	if th.timer >= 0 {
		t.dropTimer(id)
	}
	c := int(th.cpu)
	if can := t.idle & th.allowed; can&(1<<c) == 0 {
		switch {
		case can != 0:
			c = bits.TrailingZeros64(can)
		case th.allowed&(1<<c) == 0:
			c = bits.TrailingZeros64(th.allowed)
		}
	}
	th.state, th.woken, th.cpu = Runnable, true, int32(c)
	q := &t.cpus[c]
	t.pushFront(&q.queue, id)
	q.length++
	// Idle or busy, the CPU must look: to run it, or to arm the timer that ends the current slice.
	t.idle &^= 1 << c
	return 1 << c
}

func bucket(key uint64) int { return int((key >> 2) * 0x9e3779b97f4a7c15 >> 56) }

func (t *Table) push(l *list, id ID) {
	th := &t.threads[id]
	th.next, th.prev = None, l.tail
	if l.tail == None {
		l.head = id
	} else {
		t.threads[l.tail].next = id
	}
	l.tail = id
}

// pushFront queues a woken thread before those that used up a slice and behind those woken earlier.
func (t *Table) pushFront(l *list, id ID) {
	at := l.head
	for at != None && t.threads[at].woken {
		at = t.threads[at].next
	}
	if at == None {
		t.push(l, id)
		return
	}
	th := &t.threads[id]
	th.next, th.prev = at, t.threads[at].prev
	if th.prev == None {
		l.head = id
	} else {
		t.threads[th.prev].next = id
	}
	t.threads[at].prev = id
}

func (t *Table) remove(l *list, id ID) {
	th := &t.threads[id]
	if th.prev == None {
		l.head = th.next
	} else {
		t.threads[th.prev].next = th.next
	}
	if th.next == None {
		l.tail = th.prev
	} else {
		t.threads[th.next].prev = th.prev
	}
	th.next, th.prev = None, None
}
