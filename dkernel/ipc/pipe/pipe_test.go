package pipe

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/dkernel/ipc/ipctest"
	"dinos/dkernel/ipc/oracle"
	"dinos/dkernel/uio"
	"dinos/dkernel/vfs"
	"dinos/kernel/linux"
)

func open(t testing.TB, flags uint32) (th *ipctest.Thread, r, w int) {
	th = ipctest.NewThread(ipctest.NewVFS())
	r, w, err := Pipe2(&th.Caller, flags)
	require.NoError(t, err)
	return th, r, w
}

// Random operations give what they give on the host's Linux: results, errors, bytes, poll events.
func TestLikeLinux(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for round := range 30 {
		flags := uint32(linux.O_NONBLOCK)
		th, r, w := open(t, flags)
		var h [2]int
		require.NoError(t, syscall.Pipe2(h[:], int(flags)))
		likeLinux(t, rng, th, [2]int{r, w}, h, round)
		_ = syscall.Close(h[0])
		_ = syscall.Close(h[1])
	}
}

func likeLinux(t *testing.T, rng *rand.Rand, th *ipctest.Thread, ours, host [2]int, round int) {
	sizes := []int{1, 2, 100, 1000, 4095, 4096, 4097, 5000, 8192, 20000, 65536, 100000}
	buf := make([]byte, 100000)
	got, want := make([]byte, 100000), make([]byte, 100000)
	for i := range buf {
		buf[i] = byte(rng.Uint32())
	}
	for step := range 200 {
		n := sizes[rng.IntN(len(sizes))]
		if rng.IntN(2) == 0 {
			n = rng.IntN(n) + 1
		}
		what := rng.IntN(20)
		switch {
		case what < 8:
			a, aerr := th.Write(ours[1], buf[:n])
			b, berr := syscall.Write(host[1], buf[:n])
			equal(t, round, step, "write", n, a, aerr, max(b, 0), oracle.Errno(err(berr)))
		case what < 16:
			a, aerr := th.Read(ours[0], got[:n])
			b, berr := syscall.Read(host[0], want[:n])
			equal(t, round, step, "read", n, a, aerr, max(b, 0), oracle.Errno(err(berr)))
			require.True(t, bytes.Equal(got[:a], want[:a]), "bytes of round %d step %d", round, step)
		case what == 16:
			n = rng.IntN(200000)
			a, aerr := th.Fcntl(ours[0], linux.F_SETPIPE_SZ, uint64(n))
			b, _, e := syscall.Syscall(syscall.SYS_FCNTL, uintptr(host[0]), linux.F_SETPIPE_SZ, uintptr(n))
			if e != 0 {
				b = 0
			}
			equal(t, round, step, "F_SETPIPE_SZ", n, int(a), aerr, int(b), errno(e))
		case what == 17: // packets, from here on or no more
			on := uint64(rng.IntN(2) * linux.O_DIRECT)
			_, err := th.Fcntl(ours[1], linux.F_SETFL, linux.O_NONBLOCK|on)
			require.NoError(t, err)
			_, _, e := syscall.Syscall(syscall.SYS_FCNTL, uintptr(host[1]), linux.F_SETFL, uintptr(linux.O_NONBLOCK|on))
			require.Zero(t, e)
		default:
			var a, b [4]byte
			require.NoError(t, th.Ioctl(ours[0], linux.FIONREAD, a[:]))
			require.NoError(t, oracle.Ioctl(host[0], linux.FIONREAD, b[:]))
			require.Equal(t, b, a, "FIONREAD")
		}
		for i := range 2 {
			require.Equal(t, oracle.Poll(host[i]), th.Poll(ours[i]), "poll of %d, round %d step %d", i, round, step)
		}
	}
}

func err(e error) error {
	if e, ok := e.(syscall.Errno); ok {
		return linux.Errno(e)
	}
	return e
}

func errno(e syscall.Errno) error {
	if e == 0 {
		return nil
	}
	return linux.Errno(e)
}

func equal(t *testing.T, round, step int, what string, arg, a int, aerr error, b int, berr error) {
	t.Helper()
	require.Equal(t, berr, aerr, "round %d step %d: %s(%d)", round, step, what, arg)
	require.Equal(t, b, a, "round %d step %d: %s(%d)", round, step, what, arg)
}

func TestEnds(t *testing.T) {
	th, r, w := open(t, 0)
	n, err := th.Write(w, []byte("abc"))
	require.NoError(t, err)
	require.Equal(t, 3, n)
	require.EqualValues(t, linux.EPOLLIN|linux.EPOLLRDNORM, th.Poll(r))
	_, err = th.Write(r, nil)
	require.Equal(t, linux.EBADF, err)
	th.Close(w)
	p := make([]byte, 10)
	n, err = th.Read(r, p)
	require.NoError(t, err)
	require.Equal(t, "abc", string(p[:n]))
	require.EqualValues(t, linux.EPOLLHUP, th.Poll(r))
	n, err = th.Read(r, p)
	require.NoError(t, err)
	require.Zero(t, n)

	th, r, w = open(t, 0)
	th.Close(r)
	require.EqualValues(t, linux.EPOLLERR|linux.EPOLLOUT|linux.EPOLLWRNORM, th.Poll(w))
	n, err = th.Write(w, nil)
	require.NoError(t, err)
	require.Zero(t, n)
	require.Empty(t, th.Signals)
	_, err = th.Write(w, p)
	require.Equal(t, linux.EPIPE, err)
	require.Equal(t, []int{linux.SIGPIPE}, th.Signals)
	_, _, err = Pipe2(&th.Caller, linux.O_APPEND)
	require.Equal(t, linux.EINVAL, err)
	th.OpenLimit = 1
	_, _, err = Pipe2(&th.Caller, 0)
	require.Equal(t, linux.EMFILE, err)
	require.Equal(t, 1, th.Files.Count())
}

func TestFault(t *testing.T) {
	th, r, w := open(t, linux.O_NONBLOCK)
	var io uio.IO
	io.User(th.Mem, ipctest.Base+1<<20-100, 200) // half of it is not there
	_, err := th.Caller.Write(w, &io)
	require.Equal(t, linux.EFAULT, err)
	_, err = th.Write(w, make([]byte, 200))
	require.NoError(t, err)
	io.User(th.Mem, ipctest.Base+1<<20-100, 200)
	_, err = th.Caller.Read(r, &io)
	require.Equal(t, linux.EFAULT, err)
	n, err := th.Read(r, make([]byte, 300))
	require.NoError(t, err)
	require.Equal(t, 200, n, "a page that could not be copied stays")
}

// Writers of up to PIPE_BUF bytes never mix, nothing is lost, all sleepers wake.
func TestAtomicWrites(t *testing.T) {
	th, r, w := open(t, 0)
	const writers, each = 4, 500
	var wg sync.WaitGroup
	for id := range writers {
		s := th.Sibling()
		wg.Add(1)
		go func() {
			defer wg.Done()
			rng := rand.New(rand.NewPCG(7, uint64(id)))
			for range each {
				p := bytes.Repeat([]byte{byte(id)}, 2+rng.IntN(pageSize-1))
				p[0], p[1] = byte(len(p)>>8), byte(len(p))
				if n, err := s.Write(w, p); err != nil || n != len(p) {
					t.Errorf("write: %d, %v", n, err)
				}
			}
		}()
	}
	go func() { wg.Wait(); th.Close(w) }()
	rd := th.Sibling()
	var all []byte
	p := make([]byte, 10000)
	for {
		n, err := rd.Read(r, p)
		require.NoError(t, err)
		if n == 0 {
			break
		}
		all = append(all, p[:n]...)
	}
	count := 0
	for len(all) > 0 {
		n := int(all[0])<<8 | int(all[1])
		if n > 2 {
			require.Equal(t, n-2, bytes.Count(all[2:n], all[2:3]))
		}
		all = all[n:]
		count++
	}
	require.Equal(t, writers*each, count)
}

func TestInterrupt(t *testing.T) {
	th, r, w := open(t, 0)
	time.AfterFunc(time.Millisecond, th.Interrupt)
	_, err := th.Read(r, make([]byte, 1))
	require.Equal(t, linux.ERESTARTSYS, err)
	n, err := th.Write(w, make([]byte, 100000))
	require.NoError(t, err, "what was written counts")
	require.Equal(t, DefaultSize, n)
	_, err = th.Write(w, make([]byte, 1))
	require.Equal(t, linux.ERESTARTSYS, err)
	p := th.Desc(r).File().(*Pipe)
	require.True(t, p.rd.Empty() && p.wr.Empty())
}

func TestPeek(t *testing.T) {
	th, r, w := open(t, 0)
	p := th.Desc(r).File().(*Pipe)
	_, _ = th.Write(w, []byte("hello"))
	buf := make([]byte, 3)
	n, err := p.Peek(&th.Caller, th.Desc(r), buf, true)
	require.NoError(t, err)
	require.Equal(t, "hel", string(buf[:n]))
	other := th.Sibling()
	done := make(chan string)
	go func() {
		b := make([]byte, 10)
		n, _ := other.Read(r, b)
		done <- string(b[:n])
	}()
	_, err = p.Peek(&th.Caller, th.Desc(r), buf, true)
	require.Equal(t, linux.EAGAIN, err, "one at a time")
	p.Consume(&th.Caller, th.Desc(r), 2)
	require.Equal(t, "llo", <-done)
	require.True(t, p.Same(th.Desc(w).File()))
	require.False(t, p.Same(New()))
}

// Opening a FIFO waits for the other side, as fifo(7) says.
func TestFIFO(t *testing.T) {
	v := ipctest.NewVFS()
	p := New()
	desc := func(th *ipctest.Thread, flags uint32) *vfs.Description {
		return th.NewNameless(v.NewPipe(&th.Caller), p, flags, vfs.Stream)
	}
	a, b := ipctest.NewThread(v), ipctest.NewThread(v)
	w := desc(a, linux.O_WRONLY|linux.O_NONBLOCK)
	require.Equal(t, linux.ENXIO, p.Open(&a.Caller, w))
	r := desc(a, linux.O_RDONLY|linux.O_NONBLOCK)
	require.NoError(t, p.Open(&a.Caller, r))
	require.Zero(t, p.Poll(r), "no end of the file before a writer came")
	require.NoError(t, p.Open(&a.Caller, w))
	w.Unref()
	require.EqualValues(t, linux.EPOLLHUP, p.Poll(r))
	r.Unref()

	// A reader and a writer wait for each other.
	opened := make(chan error)
	br := desc(b, linux.O_RDONLY)
	go func() { opened <- p.Open(&b.Caller, br) }()
	aw := desc(a, linux.O_WRONLY)
	require.NoError(t, p.Open(&a.Caller, aw))
	require.NoError(t, <-opened)
	aw.Unref()
	br.Unref()

	br = desc(b, linux.O_RDONLY)
	go func() { opened <- p.Open(&b.Caller, br) }()
	b.Interrupt()
	require.Equal(t, linux.ERESTARTSYS, <-opened)
	require.Zero(t, p.readers.Load())
}

func TestNoAllocation(t *testing.T) {
	if ipctest.Race {
		t.Skip("pools are not what they are")
	}
	th, r, w := open(t, 0)
	p := make([]byte, 1)
	_, _ = th.Write(w, p)
	_, _ = th.Read(r, p)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		_, _ = th.Write(w, p)
		_, _ = th.Read(r, p)
	}))
}

// A byte to another thread and back.
func BenchmarkRoundTrip(b *testing.B) {
	th, r1, w1 := open(b, 0)
	r2, w2, err := Pipe2(&th.Caller, 0)
	require.NoError(b, err)
	peer := th.Sibling()
	go func() {
		p := make([]byte, 1)
		for {
			if n, _ := peer.Read(r1, p); n == 0 {
				return
			}
			_, _ = peer.Write(w2, p)
		}
	}()
	p := make([]byte, 1)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = th.Write(w1, p)
		_, _ = th.Read(r2, p)
	}
	b.StopTimer()
	th.Close(w1)
}

func BenchmarkWriteRead(b *testing.B) {
	for _, size := range []int{1, 4096, 65536} {
		b.Run(map[int]string{1: "1B", 4096: "4KiB", 65536: "64KiB"}[size], func(b *testing.B) {
			th, r, w := open(b, 0)
			p := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				_, _ = th.Write(w, p)
				_, _ = th.Read(r, p)
			}
		})
	}
}
