package futex

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

// memory is words of a program; address 4n is word n, and 4 × (its size) is not there.
type memory struct {
	words  []atomic.Uint32
	object uint64
}

func newMemory(n int) *memory { return &memory{words: make([]atomic.Uint32, n), object: 7} }

func (m *memory) word(addr uint64) (*atomic.Uint32, error) {
	if addr%4 != 0 || addr/4 >= uint64(len(m.words)) {
		return nil, linux.EFAULT
	}
	return &m.words[addr/4], nil
}

func (m *memory) FutexKey(addr uint64, shared, write bool) (Key, error) {
	if _, err := m.word(addr); err != nil {
		return Key{}, err
	}
	if shared {
		return Key{1, addr}, nil
	}
	return Key{m.object, addr}, nil
}

func (m *memory) Load32(addr uint64) (uint32, error) {
	w, err := m.word(addr)
	if err != nil {
		return 0, err
	}
	return w.Load(), nil
}

func (m *memory) CompareAndSwap32(addr uint64, old, new uint32) (uint32, error) {
	w, err := m.word(addr)
	if err != nil {
		return 0, err
	}
	for {
		if w.CompareAndSwap(old, new) {
			return old, nil
		}
		if v := w.Load(); v != old {
			return v, nil
		}
	}
}

var start = time.Now()

func now() int64 { return int64(time.Since(start)) }

// thread is what a thread brings to a call.
type thread struct {
	Call
	signal atomic.Bool
	w      Waiter
	o      Owner
}

func newThread(m Memory, id uint32) *thread {
	t := &thread{}
	t.o.ID.Store(id)
	t.Call = Call{Mem: m, Sleeper: wait.NewSleeper(now, t.signal.Load), Waiter: &t.w, Owner: &t.o, Deadline: wait.Forever}
	return t
}

func (t *thread) interrupt() {
	t.signal.Store(true)
	t.Sleeper.Rouse()
}

// until waits for a condition that other goroutines bring about.
func until(t testing.TB, f func() bool) {
	t.Helper()
	for range 20000 {
		if f() {
			return
		}
		runtime.Gosched()
		time.Sleep(50 * time.Microsecond)
	}
	t.Fatal("it never happened")
}

// queued counts the waiters that are in a bucket, not those on their way.
func queued(tab *Table) (n int) {
	for i := range tab.buckets {
		b := &tab.buckets[i]
		b.mu.Lock()
		for w := b.head; w != nil; w = w.next {
			n++
		}
		b.mu.Unlock()
	}
	return n
}

const any32 = ^uint32(0)

func TestWaitFails(t *testing.T) {
	m := newMemory(4)
	tab := NewTable(nil, nil)
	th := newThread(m, 1)
	require.Equal(t, linux.EAGAIN, tab.Wait(&th.Call, 4, false, 1, any32))
	require.Equal(t, linux.EINVAL, tab.Wait(&th.Call, 5, false, 0, any32))
	require.Equal(t, linux.EINVAL, tab.Wait(&th.Call, 4, false, 0, 0))
	require.Equal(t, linux.EFAULT, tab.Wait(&th.Call, 16, false, 0, any32))
	th.Deadline = now() + 1e6
	require.Equal(t, linux.ETIMEDOUT, tab.Wait(&th.Call, 4, false, 0, any32))
	th.Deadline = now() - 1
	require.Equal(t, linux.ETIMEDOUT, tab.Wait(&th.Call, 4, false, 0, any32))
	th.Deadline = wait.Forever
	th.interrupt()
	require.Equal(t, linux.ERESTARTSYS, tab.Wait(&th.Call, 4, false, 0, any32))
	_, err := tab.Wake(m, 6, false, 1, any32)
	require.Equal(t, linux.EINVAL, err)
	n, err := tab.Wake(m, 400, false, 1, any32)
	require.NoError(t, err)
	require.Zero(t, n)
	_, err = tab.Wake(m, 400, true, 1, any32)
	require.Equal(t, linux.EFAULT, err)
	_, err = tab.Wake(m, 1<<63, false, 1, any32)
	require.Equal(t, linux.EFAULT, err)
	_, err = tab.Wake(m, 4, false, 1, 0)
	require.Equal(t, linux.EINVAL, err)
	require.Zero(t, tab.Waiting())
}

// sleepers starts n threads that wait for the word at addr, one after the other, and returns where they report.
func sleepers(t testing.TB, tab *Table, m Memory, addr uint64, bits ...uint32) []chan error {
	var done []chan error
	for i, b := range bits {
		ch := make(chan error, 1)
		th := newThread(m, uint32(100+i))
		before := queued(tab)
		go func() { ch <- tab.Wait(&th.Call, addr, false, 0, b) }()
		until(t, func() bool { return queued(tab) == before+1 })
		done = append(done, ch)
	}
	return done
}

func TestWakeInOrderAndByBits(t *testing.T) {
	m := newMemory(4)
	tab := NewTable(nil, nil)
	done := sleepers(t, tab, m, 4, 1, 2, 1, 3)
	n, err := tab.Wake(m, 8, false, 10, any32)
	require.NoError(t, err)
	require.Zero(t, n, "another word")
	n, _ = tab.Wake(m, 4, true, 10, any32)
	require.Zero(t, n, "a shared futex is another one")
	n, _ = tab.Wake(m, 4, false, 1, 2)
	require.Equal(t, 1, n)
	require.NoError(t, <-done[1])
	n, _ = tab.Wake(m, 4, false, 0, any32)
	require.Equal(t, 1, n, "Linux wakes one even if asked for none")
	require.NoError(t, <-done[0])
	n, _ = tab.Wake(m, 4, false, 10, any32)
	require.Equal(t, 2, n)
	require.NoError(t, <-done[2])
	require.NoError(t, <-done[3])
	require.Zero(t, tab.Waiting())
}

func TestRequeue(t *testing.T) {
	m := newMemory(4)
	tab := NewTable(nil, nil)
	done := sleepers(t, tab, m, 4, 1, 1, 1, 1)
	bad := uint32(9)
	_, err := tab.Requeue(m, 4, 8, false, 1, 10, &bad)
	require.Equal(t, linux.EAGAIN, err)
	_, err = tab.Requeue(m, 4, 8, false, -1, 10, nil)
	require.Equal(t, linux.EINVAL, err)
	good := uint32(0)
	n, err := tab.Requeue(m, 4, 8, false, 1, 2, &good)
	require.NoError(t, err)
	require.Equal(t, 3, n)
	require.NoError(t, <-done[0])
	n, _ = tab.Wake(m, 8, false, 10, any32)
	require.Equal(t, 2, n)
	n, _ = tab.Wake(m, 4, false, 10, any32)
	require.Equal(t, 1, n)
	for _, d := range done[1:] {
		require.NoError(t, <-d)
	}
	require.Zero(t, tab.Waiting())
}

func TestWakeOp(t *testing.T) {
	op := func(kind, cmp uint32, arg, with int32) uint32 {
		return kind<<28 | cmp<<24 | uint32(arg)&0xfff<<12 | uint32(with)&0xfff
	}
	for _, c := range []struct {
		before uint32
		op     uint32
		after  uint32
		hit    bool
		err    error
	}{
		{5, op(0, 0, 7, 5), 7, true, nil}, {5, op(0, 1, 7, 5), 7, false, nil},
		{5, op(1, 2, -2, 6), 3, true, nil}, {5, op(1, 2, 2, -6), 7, false, nil},
		{5, op(2, 3, 8, 5), 13, true, nil}, {5, op(3, 4, 4, 5), 1, false, nil}, {5, op(4, 5, 1, 5), 4, true, nil},
		{^uint32(0), op(1, 2, 1, 0), 0, true, nil}, // compared as a signed number
		{0, op(8|2, 0, 31, 0), 1 << 31, true, nil}, // shifted operand
		{5, op(5, 0, 0, 0), 5, false, linux.ENOSYS}, {5, op(0, 9, 6, 0), 6, false, linux.ENOSYS},
	} {
		m := newMemory(4)
		tab := NewTable(nil, nil)
		done := sleepers(t, tab, m, 4, 1)
		done2 := sleepers(t, tab, m, 8, 1)
		m.words[2].Store(c.before)
		n, err := tab.WakeOp(m, 4, 8, false, 1, 1, c.op)
		require.Equal(t, c.after, m.words[2].Load(), "%+v", c)
		if c.err != nil {
			require.Equal(t, c.err, err)
		} else {
			require.NoError(t, err)
			require.Equal(t, map[bool]int{false: 1, true: 2}[c.hit], n, "%+v", c)
		}
		_, _ = tab.Wake(m, 4, false, 1, any32)
		_, _ = tab.Wake(m, 8, false, 1, any32)
		require.NoError(t, <-done[0])
		require.NoError(t, <-done2[0])
	}
}

func TestWaitv(t *testing.T) {
	m := newMemory(8)
	tab := NewTable(nil, nil)
	th := newThread(m, 1)
	vecs := []Vec{{Addr: 4}, {Addr: 8}, {Addr: 12}}
	type result struct {
		i   int
		err error
	}
	ch := make(chan result, 1)
	run := func() {
		i, err := tab.Waitv(&th.Call, vecs)
		ch <- result{i, err}
	}
	go run()
	until(t, func() bool { return queued(tab) == 3 })
	n, _ := tab.Wake(m, 8, false, 5, any32)
	require.Equal(t, 1, n)
	require.Equal(t, result{1, nil}, <-ch)
	m.words[3].Store(1)
	go run()
	require.Equal(t, result{0, linux.EAGAIN}, <-ch)
	m.words[3].Store(0)
	go run()
	until(t, func() bool { return queued(tab) == 3 })
	th.interrupt()
	require.Equal(t, result{0, linux.ERESTARTSYS}, <-ch)
	require.Zero(t, tab.Waiting())
}

// mutex is the one of "Futexes Are Tricky" (U. Drepper, 2011): it loses a wake-up if we do.
type mutex struct {
	addr uint64
	w    *atomic.Uint32
}

func (x *mutex) lock(t testing.TB, tab *Table, th *thread) {
	if x.w.CompareAndSwap(0, 1) {
		return
	}
	for x.w.Swap(2) != 0 {
		if err := tab.Wait(&th.Call, x.addr, false, 2, any32); err != nil && err != linux.EAGAIN {
			t.Error(err)
		}
	}
}

func (x *mutex) unlock(tab *Table, th *thread) {
	if x.w.Add(^uint32(0)) != 0 {
		x.w.Store(0)
		_, _ = tab.Wake(th.Mem, x.addr, false, 1, any32)
	}
}

// Many threads and few locks, also while waiters are moved from one to another word and back by others.
func TestNoWakeIsLost(t *testing.T) {
	const threads, rounds = 8, 3000
	m := newMemory(16)
	tab := NewTable(nil, nil)
	var in [2]int
	var wg sync.WaitGroup
	for i := range threads {
		wg.Add(1)
		go func() {
			defer wg.Done()
			th := newThread(m, uint32(i+1))
			r := rand.New(rand.NewPCG(1, uint64(i)))
			for range rounds {
				k := r.IntN(2)
				x := mutex{uint64(4 * (k + 1)), &m.words[k+1]}
				x.lock(t, tab, th)
				in[k]++
				if r.IntN(4) == 0 {
					runtime.Gosched()
				}
				x.unlock(tab, th)
			}
		}()
	}
	wg.Wait()
	require.Equal(t, threads*rounds, in[0]+in[1])
	require.Zero(t, tab.Waiting())
}

// A condition variable by requeue: each token is consumed once, nobody stays asleep.
func TestRequeueUnderLoad(t *testing.T) {
	const consumers, tokens = 6, 3000
	m := newMemory(16)
	tab := NewTable(nil, nil)
	x := mutex{4, &m.words[1]}
	seq := &m.words[2]
	var have, got int
	done := false
	var wg sync.WaitGroup
	for i := range consumers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			th := newThread(m, uint32(i+1))
			for {
				x.lock(t, tab, th)
				for have == 0 && !done {
					v := seq.Load()
					x.unlock(tab, th)
					if err := tab.Wait(&th.Call, 8, false, v, any32); err != nil && err != linux.EAGAIN {
						t.Error(err)
					}
					for x.w.Swap(2) != 0 { // there may be others that were requeued
						_ = tab.Wait(&th.Call, 4, false, 2, any32)
					}
				}
				if have == 0 {
					x.unlock(tab, th)
					return
				}
				have--
				got++
				x.unlock(tab, th)
			}
		}()
	}
	th := newThread(m, 99)
	broadcast := func() {
		for {
			v := seq.Add(1)
			x.w.Store(2) // it has to be woken by whoever unlocks
			if _, err := tab.Requeue(m, 8, 4, false, 1, 1<<30, &v); err != linux.EAGAIN {
				return
			}
		}
	}
	for range tokens / 3 {
		x.lock(t, tab, th)
		have += 3
		broadcast()
		x.unlock(tab, th)
	}
	x.lock(t, tab, th)
	done = true
	broadcast()
	x.unlock(tab, th)
	wg.Wait()
	require.Equal(t, tokens, got)
	require.Zero(t, tab.Waiting())
}

// A waiter whose time is over, or who is interrupted, in the moment of its wake-up: the wake-up counts if and only if it returns nil.
func TestWakeAgainstTimeout(t *testing.T) {
	m := newMemory(4)
	tab := NewTable(nil, nil)
	th := newThread(m, 1)
	for i := range 300 {
		ch := make(chan error, 1)
		th.Deadline = now() + int64(i%50)*2000
		go func() { ch <- tab.Wait(&th.Call, 4, false, 0, any32) }()
		if i%2 == 0 {
			until(t, func() bool { return queued(tab) == 1 || len(ch) == 1 })
		}
		woken, _ := tab.Wake(m, 4, false, 1, any32)
		err := <-ch
		require.Equal(t, woken == 1, err == nil, "%v", err)
	}
	require.Zero(t, tab.Waiting())
}

func TestWaitDoesNotAllocate(t *testing.T) {
	m := newMemory(4)
	tab := NewTable(nil, nil)
	a, b := newThread(m, 1), newThread(m, 2)
	stop := make(chan bool)
	go func() {
		defer close(stop)
		for m.words[1].Load() != 2 {
			_ = tab.Wait(&b.Call, 4, false, 1, any32)
			if m.words[1].CompareAndSwap(0, 1) {
				_, _ = tab.Wake(m, 4, false, 1, any32)
			}
		}
	}()
	m.words[1].Store(1)
	n := testing.AllocsPerRun(200, func() {
		m.words[1].Store(0)
		_, _ = tab.Wake(m, 4, false, 1, any32)
		for m.words[1].Load() == 0 {
			_ = tab.Wait(&a.Call, 4, false, 0, any32)
		}
	})
	m.words[1].Store(2)
	_, _ = tab.Wake(m, 4, false, 1, any32)
	<-stop
	require.Zero(t, n)
}

// Two tables are two dkernels; each is the other's Remote.
type link struct {
	other   *Table
	mu      sync.Mutex
	waiting map[Key]int
}

func (l *link) Wake(k Key, n int, bits uint32) int { return l.other.WakeLocal(k, n, bits) }
func (l *link) Waiting(k Key, d int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting[k] += d; l.waiting[k] == 0 {
		delete(l.waiting, k)
	}
}

func TestRemote(t *testing.T) {
	m := newMemory(4)
	la, lb := &link{waiting: map[Key]int{}}, &link{waiting: map[Key]int{}}
	a, b := NewTable(nil, la), NewTable(nil, lb)
	la.other, lb.other = b, a
	da := sleepers(t, a, m, 4, 1)
	db := sleepers(t, b, m, 4, 1, 1)
	lb.mu.Lock()
	require.Equal(t, map[Key]int{{7, 4}: 2}, lb.waiting)
	lb.mu.Unlock()
	n, err := a.Wake(m, 4, false, 2, any32)
	require.NoError(t, err)
	require.Equal(t, 2, n, "the own first, then the other's")
	require.NoError(t, <-da[0])
	require.NoError(t, <-db[0])
	n, _ = a.Wake(m, 4, false, 2, any32)
	require.Equal(t, 1, n)
	require.NoError(t, <-db[1])
	require.Empty(t, la.waiting)
	require.Empty(t, lb.waiting)
}

func BenchmarkPingPong(b *testing.B) {
	m := newMemory(4)
	tab := NewTable(nil, nil)
	x, y := newThread(m, 1), newThread(m, 2)
	go func() {
		for {
			for m.words[1].Load() == 0 {
				_ = tab.Wait(&y.Call, 4, false, 0, any32)
			}
			if m.words[1].Load() == 2 {
				return
			}
			m.words[1].Store(0)
			_, _ = tab.Wake(m, 4, false, 1, any32)
		}
	}()
	for b.Loop() {
		m.words[1].Store(1)
		_, _ = tab.Wake(m, 4, false, 1, any32)
		for m.words[1].Load() == 1 {
			_ = tab.Wait(&x.Call, 4, false, 1, any32)
		}
	}
	m.words[1].Store(2)
	_, _ = tab.Wake(m, 4, false, 1, any32)
}

func BenchmarkWakeNobody(b *testing.B) {
	m := newMemory(4)
	tab := NewTable(nil, nil)
	for b.Loop() {
		_, _ = tab.Wake(m, 4, false, 1, any32)
	}
}
