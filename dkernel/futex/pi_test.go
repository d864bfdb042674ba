package futex

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

// piMachine is threads that find each other by id.
type piMachine struct {
	*memory
	*Table
	mu sync.Mutex
	th map[uint32]*thread
}

func newPI() *piMachine {
	p := &piMachine{memory: newMemory(16), th: map[uint32]*thread{}}
	p.Table = NewTable(func(id uint32) *Owner {
		p.mu.Lock()
		defer p.mu.Unlock()
		if t := p.th[id]; t != nil {
			return &t.o
		}
		return nil
	}, nil)
	return p
}

func (p *piMachine) thread(id uint32) *thread {
	t := newThread(p.memory, id)
	p.mu.Lock()
	p.th[id] = t
	p.mu.Unlock()
	return t
}

func (p *piMachine) exit(id uint32) {
	p.mu.Lock()
	t := p.th[id]
	p.mu.Unlock()
	p.Exit(&t.o)
	p.mu.Lock()
	delete(p.th, id)
	p.mu.Unlock()
}

func TestLockPI(t *testing.T) {
	p := newPI()
	a, b := p.thread(10), p.thread(11)
	w := &p.words[1]
	require.NoError(t, p.LockPI(&a.Call, 4, false, false))
	require.EqualValues(t, 10, w.Load())
	require.Equal(t, linux.EDEADLK, p.LockPI(&a.Call, 4, false, false))
	require.Equal(t, linux.EWOULDBLOCK, p.LockPI(&b.Call, 4, false, true))
	require.Equal(t, linux.EPERM, p.UnlockPI(p.memory, 4, false, &b.o))
	require.NoError(t, p.UnlockPI(p.memory, 4, false, &a.o))
	require.Zero(t, w.Load())
	w.Store(999)
	require.Equal(t, linux.ESRCH, p.LockPI(&a.Call, 4, false, false))
	w.Store(0)
	require.NoError(t, p.LockPI(&b.Call, 4, false, true))
	require.NoError(t, p.UnlockPI(p.memory, 4, false, &b.o))

	// Waiters get it in order; the word always says whose it is.
	require.NoError(t, p.LockPI(&a.Call, 4, false, false))
	var done []chan error
	for i := range 3 {
		th := p.thread(uint32(20 + i))
		ch := make(chan error, 1)
		go func() { ch <- p.LockPI(&th.Call, 4, false, false) }()
		until(t, func() bool { return queued(p.Table) == i+1 })
		done = append(done, ch)
	}
	require.EqualValues(t, 10|linux.FUTEX_WAITERS, w.Load())
	_, err := p.Wake(p.memory, 4, false, 1, any32)
	require.Equal(t, linux.EINVAL, err, "a PI futex is not woken")
	owner := &a.o
	for i := range done {
		require.NoError(t, p.UnlockPI(p.memory, 4, false, owner))
		require.NoError(t, <-done[i])
		require.EqualValues(t, uint32(20+i)|linux.FUTEX_WAITERS, w.Load())
		owner = &p.th[uint32(20+i)].o
	}
	require.NoError(t, p.UnlockPI(p.memory, 4, false, owner))
	require.Zero(t, w.Load())
	require.Zero(t, p.Waiting())
}

func TestPIEnds(t *testing.T) {
	p := newPI()
	a, b := p.thread(10), p.thread(11)
	require.NoError(t, p.LockPI(&a.Call, 4, false, false))
	b.Deadline = now() + 1e6
	require.Equal(t, linux.ETIMEDOUT, p.LockPI(&b.Call, 4, false, false))
	b.Deadline = wait.Forever
	b.interrupt()
	require.Equal(t, linux.ERESTARTNOINTR, p.LockPI(&b.Call, 4, false, false))
	b.signal.Store(false)
	require.NoError(t, p.UnlockPI(p.memory, 4, false, &a.o))
	require.Zero(t, p.words[1].Load(), "who gave up does not get it")
	require.Nil(t, a.o.owns)

	// The owner dies with two waiters.
	require.NoError(t, p.LockPI(&a.Call, 4, false, false))
	ch := make(chan error, 2)
	go func() { ch <- p.LockPI(&b.Call, 4, false, false) }()
	until(t, func() bool { return queued(p.Table) == 1 })
	c := p.thread(12)
	go func() { ch <- p.LockPI(&c.Call, 4, false, false) }()
	until(t, func() bool { return queued(p.Table) == 2 })
	p.exit(10)
	require.NoError(t, <-ch)
	require.EqualValues(t, 11|linux.FUTEX_WAITERS|linux.FUTEX_OWNER_DIED, p.words[1].Load())
	p.exit(11)
	require.NoError(t, <-ch)
	require.EqualValues(t, 12, p.words[1].Load()&linux.FUTEX_TID_MASK)
	require.Zero(t, p.Waiting())
}

func TestPIDeadlock(t *testing.T) {
	p := newPI()
	a, b, c := p.thread(10), p.thread(11), p.thread(12)
	require.NoError(t, p.LockPI(&a.Call, 4, false, false))
	require.NoError(t, p.LockPI(&b.Call, 8, false, false))
	require.NoError(t, p.LockPI(&c.Call, 12, false, false))
	ch := make(chan error, 2)
	go func() { ch <- p.LockPI(&a.Call, 8, false, false) }()
	until(t, func() bool { return queued(p.Table) == 1 })
	go func() { ch <- p.LockPI(&b.Call, 12, false, false) }()
	until(t, func() bool { return queued(p.Table) == 2 })
	require.Equal(t, linux.EDEADLK, p.LockPI(&c.Call, 4, false, false))
	require.NoError(t, p.UnlockPI(p.memory, 12, false, &c.o))
	require.NoError(t, <-ch)
	require.NoError(t, p.UnlockPI(p.memory, 8, false, &b.o))
	require.NoError(t, <-ch)
}

func TestRequeuePI(t *testing.T) {
	p := newPI()
	type waiter struct {
		*thread
		ch chan error
	}
	var ws []waiter
	for i := range 3 {
		w := waiter{p.thread(uint32(20 + i)), make(chan error, 1)}
		go func() { w.ch <- p.WaitRequeuePI(&w.Call, 4, 8, false, 0) }()
		until(t, func() bool { return queued(p.Table) == i+1 })
		ws = append(ws, w)
	}
	_, err := p.CmpRequeuePI(p.memory, 4, 12, false, 1, 10, 0)
	require.Equal(t, linux.EINVAL, err, "not the futex that they wait for")
	_, err = p.CmpRequeuePI(p.memory, 4, 8, false, 2, 10, 0)
	require.Equal(t, linux.EINVAL, err)
	_, err = p.CmpRequeuePI(p.memory, 4, 8, false, 1, 10, 5)
	require.Equal(t, linux.EAGAIN, err)
	n, err := p.CmpRequeuePI(p.memory, 4, 8, false, 1, 10, 0)
	require.NoError(t, err)
	require.Equal(t, 3, n)
	require.NoError(t, <-ws[0].ch, "the lock was free, so the first has it")
	require.EqualValues(t, 20|linux.FUTEX_WAITERS, p.words[2].Load())
	ws[2].interrupt()
	require.Equal(t, linux.EWOULDBLOCK, <-ws[2].ch)
	require.NoError(t, p.UnlockPI(p.memory, 8, false, &ws[0].o))
	require.NoError(t, <-ws[1].ch)
	require.NoError(t, p.UnlockPI(p.memory, 8, false, &ws[1].o))
	require.Zero(t, p.words[2].Load())
	require.Zero(t, p.Waiting())
	// Before it is moved, an interruption starts it anew.
	ws[0].interrupt()
	require.Equal(t, linux.ERESTARTNOINTR, p.WaitRequeuePI(&ws[0].Call, 4, 8, false, 0))
	require.Equal(t, linux.EINVAL, p.WaitRequeuePI(&ws[0].Call, 4, 4, false, 0))
}

// Threads lock, time out, and die, at random. Nobody is in twice, and whoever waits gets it in the end.
func TestPIUnderLoad(t *testing.T) {
	const threads, rounds = 6, 400
	p := newPI()
	var inside, count int
	var wg sync.WaitGroup
	for i := range threads {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := rand.New(rand.NewPCG(2, uint64(i)))
			id := uint32(100 + i)
			th := p.thread(id)
			for n := 0; n < rounds; n++ {
				// As a library does it: in user mode if nobody waits.
				if !p.words[1].CompareAndSwap(0, id) {
					th.Deadline = wait.Forever
					if r.IntN(4) == 0 {
						th.Deadline = now() + int64(r.IntN(100_000))
					}
					if err := p.LockPI(&th.Call, 4, false, false); err == linux.ETIMEDOUT {
						continue
					} else if err != nil {
						t.Error(err)
						return
					}
				}
				if v := p.words[1].Load(); v&linux.FUTEX_TID_MASK != id {
					t.Errorf("%d is in, but the word is %#x", id, v)
				}
				inside++
				if inside != 1 {
					t.Error("two owners")
				}
				count++
				if r.IntN(3) == 0 {
					runtime.Gosched()
				}
				inside--
				if r.IntN(20) == 0 { // dies as owner, its robust list first
					for {
						v := p.words[1].Load()
						if p.words[1].CompareAndSwap(v, v&linux.FUTEX_WAITERS|linux.FUTEX_OWNER_DIED) {
							break
						}
					}
					p.exit(id)
					id += threads
					th = p.thread(id)
					continue
				}
				if !p.words[1].CompareAndSwap(id, 0) {
					if err := p.UnlockPI(p.memory, 4, false, &th.o); err != nil {
						t.Error(err)
						return
					}
				}
			}
			p.exit(id)
		}()
	}
	wg.Wait()
	require.Positive(t, count)
	require.Zero(t, p.Waiting())
}
