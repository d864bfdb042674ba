package epoll

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/dkernel/ipc/event"
	"dinos/dkernel/ipc/ipctest"
	"dinos/dkernel/ipc/pipe"
	"dinos/dkernel/vfs"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

const (
	evAddr  = ipctest.Base
	outAddr = ipctest.Base + 4096
)

func create(t testing.TB, th *ipctest.Thread) int {
	fd, err := Create(&th.Caller, 0)
	require.NoError(t, err)
	return fd
}

func ctl(th *ipctest.Thread, ep, op, fd int, events uint32) error {
	var b [12]byte
	binary.LittleEndian.PutUint32(b[:], events)
	binary.LittleEndian.PutUint32(b[4:], uint32(fd))
	_, _ = th.Mem.CopyOut(evAddr, b[:])
	return Ctl(&th.Caller, ep, op, fd, evAddr)
}

// events is what Wait stored: descriptor:events.
func events(th *ipctest.Thread, n int) (out []string) {
	b := make([]byte, n*eventSize)
	_, _ = th.Mem.CopyIn(b, outAddr)
	for ; len(b) > 0; b = b[eventSize:] {
		out = append(out, fmt.Sprintf("%d:%x", binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b)))
	}
	return out
}

func waitNow(t testing.TB, th *ipctest.Thread, ep, max int) []string {
	n, err := Wait(&th.Caller, ep, outAddr, max, 0)
	require.NoError(t, err)
	return events(th, n)
}

// Random operations on pipes and counters give what they give on the host's Linux, in the same order.
func TestLikeLinux(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for round := range 40 {
		likeLinux(t, rng, round)
	}
}

func errOf(e error) error {
	if e, ok := e.(syscall.Errno); ok {
		return linux.Errno(e)
	}
	return e
}

func likeLinux(t *testing.T, rng *rand.Rand, round int) {
	th := ipctest.NewThread(ipctest.NewVFS())
	ep := create(t, th)
	hep, err := syscall.EpollCreate1(0)
	require.NoError(t, err)
	defer syscall.Close(hep)
	var our, host []int
	for range 4 {
		r, w, err := pipe.Pipe2(&th.Caller, linux.O_NONBLOCK)
		require.NoError(t, err)
		var h [2]int
		require.NoError(t, syscall.Pipe2(h[:], syscall.O_NONBLOCK))
		our, host = append(our, r, w), append(host, h[0], h[1])
	}
	defer func() {
		for _, h := range host {
			if h >= 0 {
				_ = syscall.Close(h)
			}
		}
	}()
	flags := []uint32{linux.EPOLLIN, linux.EPOLLOUT, linux.EPOLLET, linux.EPOLLONESHOT, linux.EPOLLRDNORM, linux.EPOLLPRI, linux.EPOLLEXCLUSIVE}
	var log []string
	for range 150 {
		i := rng.IntN(len(our))
		if host[i] < 0 {
			continue
		}
		var a, b any
		switch k := rng.IntN(12); {
		case k < 5:
			op := 1 + rng.IntN(4)
			var f uint32
			for _, x := range flags[:6+rng.IntN(2)] {
				if rng.IntN(3) == 0 {
					f |= x
				}
			}
			a = ctl(th, ep, op, our[i], f)
			b = errOf(syscall.EpollCtl(hep, op, host[i], &syscall.EpollEvent{Events: f, Fd: int32(our[i])}))
			log = append(log, fmt.Sprintf("ctl %d %d %x: %v", op, our[i], f, b))
		case k < 9:
			p := make([]byte, []int{1, 4096, 65536}[rng.IntN(3)])
			var an, bn int
			var aerr, berr error
			if i%2 == 0 {
				an, aerr = th.Read(our[i], p)
				bn, berr = syscall.Read(host[i], p)
			} else {
				an, aerr = th.Write(our[i], p)
				bn, berr = syscall.Write(host[i], p)
			}
			a, b = fmt.Sprint(an, aerr), fmt.Sprint(max(bn, 0), errOf(berr))
			log = append(log, fmt.Sprintf("io %d %d: %v", our[i], len(p), b))
		case k == 9 && rng.IntN(5) == 0:
			th.Close(our[i])
			_ = syscall.Close(host[i])
			host[i] = -1
			log = append(log, fmt.Sprintf("close %d", our[i]))
		default:
			n := 1 + rng.IntN(8)
			a = fmt.Sprint(waitNow(t, th, ep, n))
			var evs [8]syscall.EpollEvent
			hn, err := syscall.EpollWait(hep, evs[:n], 0)
			require.NoError(t, err)
			var s []string
			for _, e := range evs[:hn] {
				s = append(s, fmt.Sprintf("%d:%x", e.Fd, e.Events))
			}
			b = fmt.Sprint(s)
			log = append(log, fmt.Sprintf("wait %d: %v", n, b))
		}
		if fmt.Sprint(a) != fmt.Sprint(b) {
			for _, l := range log {
				t.Log(l)
			}
			t.Fatalf("round %d: Linux %v, here %v", round, b, a)
		}
	}
}

// Chains of epolls are as long as on Linux, and have no loops.
func TestNesting(t *testing.T) {
	before := watched.Load()
	th := ipctest.NewThread(ipctest.NewVFS())
	chain := func(n int) (c []int) {
		for range n + 1 {
			c = append(c, create(t, th))
		}
		for i := range n {
			require.NoError(t, ctl(th, c[i], linux.EPOLL_CTL_ADD, c[i+1], linux.EPOLLIN))
		}
		return c
	}
	for a := range 4 {
		for b := range 4 {
			var want error
			if a+b+1 > 4 {
				want = linux.ELOOP
			}
			x, y := chain(a), chain(b)
			require.Equal(t, want, ctl(th, x[a], linux.EPOLL_CTL_ADD, y[0], linux.EPOLLIN), "%d %d", a, b)
		}
	}
	c := chain(3)
	require.Equal(t, linux.ELOOP, ctl(th, c[3], linux.EPOLL_CTL_ADD, c[0], linux.EPOLLIN))
	require.Equal(t, linux.EINVAL, ctl(th, c[3], linux.EPOLL_CTL_ADD, c[3], linux.EPOLLIN))
	ev, err := event.CreateEventfd(&th.Caller, 0, 0)
	require.NoError(t, err)
	require.NoError(t, ctl(th, c[3], linux.EPOLL_CTL_ADD, ev, linux.EPOLLIN))
	require.Empty(t, waitNow(t, th, c[0], 4))
	go func() { time.Sleep(time.Millisecond); _ = th.Desc(ev).File().(*event.Eventfd).Add(1) }()
	n, err := Wait(&th.Caller, c[0], outAddr, 4, wait.Forever)
	require.NoError(t, err)
	require.Equal(t, []string{fmt.Sprintf("%d:1", c[1])}, events(th, n))
	_, err = th.Read(ev, make([]byte, 8))
	require.NoError(t, err)
	require.Empty(t, waitNow(t, th, c[0], 4))
	// A link that is taken out, or closed, does not count.
	require.NoError(t, ctl(th, c[1], linux.EPOLL_CTL_DEL, c[2], 0))
	require.NoError(t, ctl(th, c[3], linux.EPOLL_CTL_ADD, c[0], linux.EPOLLIN))
	th.Close(c[3])
	require.NoError(t, ctl(th, c[0], linux.EPOLL_CTL_ADD, c[2], linux.EPOLLIN))
	require.Less(t, before, watched.Load())
	th.Files.Leave(&th.Caller)
	require.Equal(t, before, watched.Load())
}

func TestErrors(t *testing.T) {
	th := ipctest.NewThread(ipctest.NewVFS())
	ep := create(t, th)
	r, _, err := pipe.Pipe2(&th.Caller, 0)
	require.NoError(t, err)
	never := th.NewNameless(th.FS.VFS().NewAnon(&th.Caller, "x"), vfs.BaseFile{}, linux.O_RDWR, vfs.Stream)
	fd, err := th.Files.Install(never, 0, 100, false)
	require.NoError(t, err)
	require.Equal(t, linux.EPERM, ctl(th, ep, linux.EPOLL_CTL_ADD, fd, linux.EPOLLIN))
	require.Equal(t, linux.EBADF, ctl(th, ep, linux.EPOLL_CTL_ADD, 99, linux.EPOLLIN))
	require.Equal(t, linux.EBADF, ctl(th, 99, linux.EPOLL_CTL_ADD, r, linux.EPOLLIN))
	require.Equal(t, linux.EINVAL, ctl(th, r, linux.EPOLL_CTL_ADD, ep, linux.EPOLLIN))
	require.Equal(t, linux.EINVAL, ctl(th, ep, 9, r, linux.EPOLLIN))
	require.Equal(t, linux.EFAULT, Ctl(&th.Caller, ep, linux.EPOLL_CTL_ADD, r, 0))
	_, err = Wait(&th.Caller, ep, outAddr, 0, 0)
	require.Equal(t, linux.EINVAL, err)
	_, err = Wait(&th.Caller, r, outAddr, 1, 0)
	require.Equal(t, linux.EINVAL, err)
	_, err = Create(&th.Caller, 1)
	require.Equal(t, linux.EINVAL, err)

	// An event that cannot be stored stays.
	ev, err := event.CreateEventfd(&th.Caller, 1, 0)
	require.NoError(t, err)
	require.NoError(t, ctl(th, ep, linux.EPOLL_CTL_ADD, ev, linux.EPOLLIN|linux.EPOLLET))
	_, err = Wait(&th.Caller, ep, 0, 1, 0)
	require.Equal(t, linux.EFAULT, err)
	require.Len(t, waitNow(t, th, ep, 1), 1)
	require.Empty(t, waitNow(t, th, ep, 1))

	start := time.Now()
	n, err := Wait(&th.Caller, ep, outAddr, 1, ipctest.Now()+5e6)
	require.NoError(t, err)
	require.Zero(t, n)
	require.GreaterOrEqual(t, time.Since(start), 5*time.Millisecond)
	time.AfterFunc(time.Millisecond, th.Interrupt)
	_, err = Wait(&th.Caller, ep, outAddr, 1, wait.Forever)
	require.Equal(t, linux.EINTR, err)
	require.Contains(t, string(th.Desc(ep).File().(*Epoll).FDInfo(nil, nil)), "tfd:        ")
}

// Each event of many edge triggered counters is seen by exactly one of many threads; none is lost.
func TestThreads(t *testing.T) {
	th := ipctest.NewThread(ipctest.NewVFS())
	ep := create(t, th)
	const counters, threads, each = 8, 4, 3000
	var fds []int
	for range counters {
		fd, err := event.CreateEventfd(&th.Caller, 0, linux.EFD_NONBLOCK)
		require.NoError(t, err)
		require.NoError(t, ctl(th, ep, linux.EPOLL_CTL_ADD, fd, linux.EPOLLIN|linux.EPOLLET))
		fds = append(fds, fd)
	}
	var sum atomic.Uint64
	var wg sync.WaitGroup
	for k := range threads {
		s := th.Sibling()
		addr := uint64(outAddr + 4096*k)
		wg.Add(1)
		go func() {
			defer wg.Done()
			b := make([]byte, 3*eventSize)
			for sum.Load() < counters*each {
				n, err := Wait(&s.Caller, ep, addr, 3, ipctest.Now()+50e6)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = s.Mem.CopyIn(b, addr)
				for i := range n {
					v := make([]byte, 8)
					if c, _ := s.Read(int(binary.LittleEndian.Uint32(b[i*eventSize+4:])), v); c == 8 {
						sum.Add(binary.LittleEndian.Uint64(v))
					}
				}
			}
		}()
	}
	for _, fd := range fds {
		s := th.Sibling()
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range each {
				_, _ = s.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
			}
		}()
	}
	wg.Wait()
	require.EqualValues(t, counters*each, sum.Load())
}

// Files are closed, watched and waited for at the same time.
func TestCloseRace(t *testing.T) {
	th := ipctest.NewThread(ipctest.NewVFS())
	ep := create(t, th)
	var stop atomic.Bool
	var wg sync.WaitGroup
	waiter := th.Sibling()
	wg.Add(1)
	go func() {
		defer wg.Done()
		for !stop.Load() {
			if _, err := Wait(&waiter.Caller, ep, outAddr, 8, ipctest.Now()+1e6); err != nil {
				t.Error(err)
			}
		}
	}()
	for k := range 3 {
		s := th.Sibling()
		s.Mem = ipctest.NewMem(1 << 12)
		s.Caller.Mem = s.Mem
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 500 {
				r, w, err := pipe.Pipe2(&s.Caller, 0)
				if err != nil {
					t.Error(err)
					return
				}
				if err := ctl(s, ep, linux.EPOLL_CTL_ADD, r, linux.EPOLLIN|uint32(i%2)<<31); err != nil {
					t.Error(err)
				}
				_, _ = s.Write(w, []byte("x"))
				if k == 0 {
					_ = ctl(s, ep, linux.EPOLL_CTL_DEL, r, 0)
				}
				s.Close(w)
				s.Close(r)
			}
		}()
	}
	time.Sleep(10 * time.Millisecond)
	go func() { time.Sleep(20 * time.Millisecond); stop.Store(true) }()
	wg.Wait()
	require.Empty(t, th.Desc(ep).File().(*Epoll).items)
	require.Nil(t, th.Desc(ep).File().(*Epoll).ready.head)
}

// One waiter wakes for an exclusive event, all for others.
func TestExclusive(t *testing.T) {
	th := ipctest.NewThread(ipctest.NewVFS())
	ev, err := event.CreateEventfd(&th.Caller, 0, 0)
	require.NoError(t, err)
	var woken atomic.Int32
	const n = 4
	var wg sync.WaitGroup
	for range n {
		s := th.Sibling()
		s.Mem = ipctest.NewMem(1 << 14)
		s.Caller.Mem = s.Mem
		ep := create(t, s)
		require.NoError(t, ctl(s, ep, linux.EPOLL_CTL_ADD, ev, linux.EPOLLIN|linux.EPOLLET|linux.EPOLLEXCLUSIVE))
		wg.Add(1)
		go func() {
			defer wg.Done()
			if k, _ := Wait(&s.Caller, ep, outAddr, 1, ipctest.Now()+200e6); k > 0 {
				woken.Add(1)
			}
		}()
	}
	time.Sleep(20 * time.Millisecond)
	_, _ = th.Write(ev, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	wg.Wait()
	require.EqualValues(t, 1, woken.Load())
}

func TestNoAllocation(t *testing.T) {
	if ipctest.Race {
		t.Skip("pools are not what they are")
	}
	th := ipctest.NewThread(ipctest.NewVFS())
	ep := create(t, th)
	ev, _ := event.CreateEventfd(&th.Caller, 1, 0)
	require.NoError(t, ctl(th, ep, linux.EPOLL_CTL_ADD, ev, linux.EPOLLIN))
	require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = Wait(&th.Caller, ep, outAddr, 8, 0) }))
}

// Waiting for one of many files that are quiet.
func BenchmarkWait(b *testing.B) {
	for _, files := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint(files), func(b *testing.B) {
			th := ipctest.NewThread(ipctest.NewVFS())
			th.OpenLimit = 4096
			ep := create(b, th)
			var ev int
			for range files {
				ev, _ = event.CreateEventfd(&th.Caller, 0, 0)
				_ = ctl(th, ep, linux.EPOLL_CTL_ADD, ev, linux.EPOLLIN)
			}
			one, p := []byte{1, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 8)
			b.ReportAllocs()
			for b.Loop() {
				_, _ = th.Write(ev, one)
				_, _ = Wait(&th.Caller, ep, outAddr, 8, 0)
				_, _ = th.Read(ev, p)
			}
		})
	}
}

// A thread that sleeps in Wait is woken and answers.
func BenchmarkWakeUp(b *testing.B) {
	th := ipctest.NewThread(ipctest.NewVFS())
	ep := create(b, th)
	ask, _ := event.CreateEventfd(&th.Caller, 0, 0)
	answer, _ := event.CreateEventfd(&th.Caller, 0, 0)
	_ = ctl(th, ep, linux.EPOLL_CTL_ADD, ask, linux.EPOLLIN)
	s := th.Sibling()
	one := []byte{1, 0, 0, 0, 0, 0, 0, 0}
	go func() {
		p := make([]byte, 8)
		for {
			_, _ = Wait(&s.Caller, ep, outAddr, 8, wait.Forever)
			_, _ = s.Read(ask, p)
			_, _ = s.Write(answer, one)
		}
	}()
	p := make([]byte, 8)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = th.Write(ask, one)
		_, _ = th.Read(answer, p)
	}
}
