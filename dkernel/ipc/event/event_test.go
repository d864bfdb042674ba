package event

import (
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/dkernel/ipc/ipctest"
	"dinos/dkernel/ipc/oracle"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

func word(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }

func errOf(e error) error {
	if e, ok := e.(syscall.Errno); ok {
		return linux.Errno(e)
	}
	return e
}

// Random reads and writes of counters give what they give on the host's Linux.
func TestEventfdLikeLinux(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	values := []uint64{0, 1, 2, 1000, 1 << 63, full - 1, full, full + 1}
	for range 20 {
		th := ipctest.NewThread(ipctest.NewVFS())
		flags := uint32(linux.EFD_NONBLOCK | rng.IntN(2))
		n := uint32(rng.IntN(3))
		fd, err := CreateEventfd(&th.Caller, n, flags)
		require.NoError(t, err)
		h, _, e := syscall.Syscall(syscall.SYS_EVENTFD2, uintptr(n), uintptr(flags), 0)
		require.Zero(t, e)
		host := int(h)
		for range 100 {
			a, b := make([]byte, 8), make([]byte, 8)
			if rng.IntN(2) == 0 {
				v := word(values[rng.IntN(len(values))])[:8-rng.IntN(30)/29]
				an, aerr := th.Write(fd, v)
				bn, berr := syscall.Write(host, v)
				require.Equal(t, errOf(berr), aerr)
				require.Equal(t, max(bn, 0), an)
			} else {
				an, aerr := th.Read(fd, a)
				bn, berr := syscall.Read(host, b)
				require.Equal(t, errOf(berr), aerr)
				require.Equal(t, max(bn, 0), an)
				require.Equal(t, b, a)
			}
			require.Equal(t, oracle.Poll(host), th.Poll(fd))
		}
		_ = syscall.Close(host)
	}
	th := ipctest.NewThread(ipctest.NewVFS())
	_, err := CreateEventfd(&th.Caller, 0, 2)
	require.Equal(t, linux.EINVAL, err)
}

func TestEventfdBlocks(t *testing.T) {
	th := ipctest.NewThread(ipctest.NewVFS())
	fd, err := CreateEventfd(&th.Caller, 0, 0)
	require.NoError(t, err)
	other := th.Sibling()
	const rounds = 2000
	go func() {
		for range rounds {
			_, _ = other.Write(fd, word(full)) // waits until the last one was read
		}
	}()
	b := make([]byte, 8)
	for range rounds {
		n, err := th.Read(fd, b)
		require.NoError(t, err)
		require.Equal(t, 8, n)
		require.Equal(t, word(full), b)
	}
	time.AfterFunc(time.Millisecond, th.Interrupt)
	_, err = th.Read(fd, b)
	require.Equal(t, linux.ERESTARTSYS, err)
	th.Calm()
	if ipctest.Race {
		return // pools are not what they are
	}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		_, _ = th.Write(fd, b)
		_, _ = th.Read(fd, b)
	}))
}

func spec(value, interval time.Duration) linux.Itimerspec {
	return linux.Itimerspec{Value: linux.NsTimespec(int64(value)), Interval: linux.NsTimespec(int64(interval))}
}

func TestTimerfd(t *testing.T) {
	th := ipctest.NewThread(ipctest.NewVFS())
	var offset atomic.Int64
	k := &Clocks{Monotonic: ipctest.Now, Realtime: func() int64 { return ipctest.Now() + 1e18 + offset.Load() }}
	open := func(clock int32) int {
		fd, err := k.CreateTimerfd(&th.Caller, clock, 0)
		require.NoError(t, err)
		return fd
	}
	read := func(fd int) uint64 {
		b := make([]byte, 8)
		_, err := th.Read(fd, b)
		require.NoError(t, err)
		return binary.LittleEndian.Uint64(b)
	}
	fd := open(linux.CLOCK_MONOTONIC)
	start := time.Now()
	_, err := SetTimer(&th.Caller, fd, 0, spec(5*time.Millisecond, 3*time.Millisecond))
	require.NoError(t, err)
	require.Zero(t, th.Poll(fd))
	n := read(fd)
	require.GreaterOrEqual(t, time.Since(start), 5*time.Millisecond)
	for n < 10 {
		n += read(fd)
	}
	require.GreaterOrEqual(t, time.Since(start), 5*time.Millisecond+9*3*time.Millisecond)
	cur, err := GetTimer(&th.Caller, fd)
	require.NoError(t, err)
	require.Equal(t, linux.NsTimespec(3e6), cur.Interval)
	left, _ := cur.Value.Ns()
	require.LessOrEqual(t, left, int64(3e6))
	require.Positive(t, left)

	_, err = SetTimer(&th.Caller, fd, linux.TFD_TIMER_ABSTIME, spec(1, 0)) // in the past
	require.NoError(t, err)
	require.EqualValues(t, 1, read(fd))
	require.Zero(t, th.Poll(fd))
	old, err := SetTimer(&th.Caller, fd, 0, spec(time.Hour, time.Minute))
	require.NoError(t, err)
	require.Equal(t, spec(0, 0), old)
	old, err = SetTimer(&th.Caller, fd, 0, linux.Itimerspec{})
	require.NoError(t, err)
	require.EqualValues(t, 60, old.Interval.Sec)
	require.GreaterOrEqual(t, old.Value.Sec, int64(3590))
	th.SetNonblock(fd, true)
	_, err = th.Read(fd, make([]byte, 8))
	require.Equal(t, linux.EAGAIN, err)

	// The clock is set.
	rt := open(linux.CLOCK_REALTIME)
	both := uint32(linux.TFD_TIMER_ABSTIME | linux.TFD_TIMER_CANCEL_ON_SET)
	_, err = SetTimer(&th.Caller, rt, both, spec(time.Duration(k.Realtime()+int64(time.Hour)), 0))
	require.NoError(t, err)
	plain := open(linux.CLOCK_REALTIME)
	_, err = SetTimer(&th.Caller, plain, linux.TFD_TIMER_ABSTIME, spec(time.Duration(k.Realtime()+int64(time.Hour)), 0))
	require.NoError(t, err)
	time.AfterFunc(time.Millisecond, func() { offset.Store(int64(2 * time.Hour)); k.Stepped() })
	_, err = th.Read(rt, make([]byte, 8))
	require.Equal(t, linux.ECANCELED, err)
	require.EqualValues(t, 1, read(plain))
	require.EqualValues(t, 1, read(rt))
	th.Close(rt)
	th.Close(plain)
	require.Empty(t, k.timers)

	for _, bad := range []linux.Itimerspec{{Value: linux.Timespec{Nsec: 1e9}}, {Interval: linux.Timespec{Sec: -1}}} {
		_, err = SetTimer(&th.Caller, fd, 0, bad)
		require.Equal(t, linux.EINVAL, err)
	}
	_, err = SetTimer(&th.Caller, fd, 8, spec(0, 0))
	require.Equal(t, linux.EINVAL, err)
	_, err = k.CreateTimerfd(&th.Caller, linux.CLOCK_THREAD_CPUTIME_ID, 0)
	require.Equal(t, linux.EINVAL, err)
	ev, err := CreateEventfd(&th.Caller, 0, 0)
	require.NoError(t, err)
	_, err = GetTimer(&th.Caller, ev)
	require.Equal(t, linux.EINVAL, err)
}

// fakeSignals is a thread with pending signals.
type fakeSignals struct {
	q       wait.Queue
	pending atomic.Uint64
}

func (f *fakeSignals) HasSignal(set uint64) bool { return f.pending.Load()&set != 0 }
func (f *fakeSignals) SignalQueue() *wait.Queue  { return &f.q }
func (f *fakeSignals) post(s int)                { f.pending.Or(1 << (s - 1)); f.q.Wake(wait.Readable) }
func (f *fakeSignals) TakeSignal(set uint64) (i linux.SignalfdSiginfo, ok bool) {
	for s := range 64 {
		if f.pending.Load()&set>>s&1 != 0 {
			f.pending.And(^uint64(1 << s))
			return linux.SignalfdSiginfo{Signo: uint32(s + 1), PID: 42, Ptr: 0x1122334455667788, AddrLSB: 7}, true
		}
	}
	return i, false
}

func TestSignalfd(t *testing.T) {
	th := ipctest.NewThread(ipctest.NewVFS())
	_, err := CreateSignalfd(&th.Caller, -1, 1, 0)
	require.Equal(t, linux.EINVAL, err, "no signals here")
	f := &fakeSignals{}
	th.Task = f
	fd, err := CreateSignalfd(&th.Caller, -1, 1<<(linux.SIGUSR1-1)|1<<(linux.SIGKILL-1), 0)
	require.NoError(t, err)
	f.post(linux.SIGUSR2)
	require.Zero(t, th.Poll(fd))
	time.AfterFunc(time.Millisecond, func() { f.post(linux.SIGUSR1) })
	b := make([]byte, 300)
	n, err := th.Read(fd, b)
	require.NoError(t, err)
	require.Equal(t, 128, n)
	require.EqualValues(t, linux.SIGUSR1, binary.LittleEndian.Uint32(b))
	require.EqualValues(t, 42, binary.LittleEndian.Uint32(b[12:]))
	require.EqualValues(t, 0x1122334455667788, binary.LittleEndian.Uint64(b[48:]))
	require.EqualValues(t, 7, b[80])
	again, err := CreateSignalfd(&th.Caller, fd, ^uint64(0), 0)
	require.NoError(t, err)
	require.Equal(t, fd, again)
	require.EqualValues(t, linux.EPOLLIN, th.Poll(fd))
	f.post(linux.SIGHUP)
	n, err = th.Read(fd, b)
	require.NoError(t, err)
	require.Equal(t, 256, n)
	_, err = th.Read(fd, b[:127])
	require.Equal(t, linux.EINVAL, err)
	_, err = CreateSignalfd(&th.Caller, 99, 1, 0)
	require.Equal(t, linux.EBADF, err)
}

func BenchmarkEventfdRoundTrip(b *testing.B) {
	th := ipctest.NewThread(ipctest.NewVFS())
	x, _ := CreateEventfd(&th.Caller, 0, 0)
	y, _ := CreateEventfd(&th.Caller, 0, 0)
	peer := th.Sibling()
	one := word(1)
	go func() {
		p := make([]byte, 8)
		for {
			_, _ = peer.Read(x, p)
			if _, err := peer.Write(y, one); err != nil {
				return
			}
		}
	}()
	p := make([]byte, 8)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = th.Write(x, one)
		_, _ = th.Read(y, p)
	}
}
