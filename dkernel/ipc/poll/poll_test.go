package poll

import (
	"encoding/binary"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/dkernel/ipc/event"
	"dinos/dkernel/ipc/ipctest"
	"dinos/dkernel/ipc/oracle"
	"dinos/dkernel/ipc/pipe"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

const addr = ipctest.Base + 8

// both is the same files of ours and of the host's: three pipes in different states, and a descriptor that is not open.
func both(t *testing.T) (th *ipctest.Thread, our, host []int) {
	th = ipctest.NewThread(ipctest.NewVFS())
	for k := range 3 {
		r, w, err := pipe.Pipe2(&th.Caller, linux.O_NONBLOCK)
		require.NoError(t, err)
		var h [2]int
		require.NoError(t, syscall.Pipe2(h[:], syscall.O_NONBLOCK))
		t.Cleanup(func() { _ = syscall.Close(h[0]); _ = syscall.Close(h[1]) })
		our, host = append(our, r, w), append(host, h[0], h[1])
		fill := make([]byte, []int{0, 1, 65536}[k])
		_, _ = th.Write(w, fill)
		_, _ = syscall.Write(h[1], fill)
	}
	r, w, err := pipe.Pipe2(&th.Caller, 0)
	require.NoError(t, err)
	var h [2]int
	require.NoError(t, syscall.Pipe2(h[:], 0))
	th.Close(w)
	_ = syscall.Close(h[1])
	t.Cleanup(func() { _ = syscall.Close(h[0]) })
	return th, append(our, r, w), append(host, h[0], 1<<20) // not open
}

func TestPollLikeLinux(t *testing.T) {
	th, our, host := both(t)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		n := rng.IntN(12)
		b, h := make([]byte, 8*n), make([]linux.PollFD, n)
		for i := range n {
			k := rng.IntN(len(our) + 1)
			a, x := int32(-1), int32(-1)
			if k < len(our) {
				a, x = int32(our[k]), int32(host[k])
			}
			want := int16(rng.Uint32()) & 0x3ff
			binary.LittleEndian.PutUint32(b[8*i:], uint32(a))
			binary.LittleEndian.PutUint16(b[8*i+4:], uint16(want))
			h[i] = linux.PollFD{FD: x, Events: want}
		}
		_, _ = th.Mem.CopyOut(addr, b)
		got, err := Poll(&th.Caller, addr, n, 0)
		require.NoError(t, err)
		hn, err := oracle.PollAll(h)
		require.NoError(t, err)
		require.Equal(t, hn, got)
		_, _ = th.Mem.CopyIn(b, addr)
		for i := range h {
			require.Equal(t, h[i].Revents, int16(binary.LittleEndian.Uint16(b[8*i+6:])))
		}
	}
}

func TestSelectLikeLinux(t *testing.T) {
	th, our, host := both(t)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var ours [3][128]byte
		var hosts [3][128]byte
		for k := range our[:len(our)-1] {
			for s := range 3 {
				if rng.IntN(2) == 0 {
					ours[s][our[k]/8] |= 1 << (our[k] % 8)
					hosts[s][host[k]/8] |= 1 << (host[k] % 8)
				}
			}
		}
		for s := range 3 {
			_, _ = th.Mem.CopyOut(addr+uint64(128*s), ours[s][:])
		}
		got, err := Select(&th.Caller, 1024, [3]uint64{addr, addr + 128, addr + 256}, 0)
		require.NoError(t, err)
		hn, err := oracle.Select(1024, &hosts)
		require.NoError(t, err)
		require.Equal(t, hn, got)
		for s := range 3 {
			_, _ = th.Mem.CopyIn(ours[s][:], addr+uint64(128*s))
			for k := range our[:len(our)-1] {
				require.Equal(t, hosts[s][host[k]/8]>>(host[k]%8)&1 != 0, ours[s][our[k]/8]>>(our[k]%8)&1 != 0)
			}
		}
	}
	bad := our[len(our)-1]
	var set [128]byte
	set[bad/8] |= 1 << (bad % 8)
	_, _ = th.Mem.CopyOut(addr, set[:])
	_, err := Select(&th.Caller, 1024, [3]uint64{addr}, 0)
	require.Equal(t, linux.EBADF, err)
	_, err = Select(&th.Caller, -1, [3]uint64{}, 0)
	require.Equal(t, linux.EINVAL, err)
	_, err = Select(&th.Caller, 64, [3]uint64{1}, 0)
	require.Equal(t, linux.EFAULT, err)
}

func TestWaits(t *testing.T) {
	th := ipctest.NewThread(ipctest.NewVFS())
	ev, err := event.CreateEventfd(&th.Caller, 0, 0)
	require.NoError(t, err)
	ask := func() {
		var b [16]byte
		binary.LittleEndian.PutUint32(b[:], uint32(ev))
		binary.LittleEndian.PutUint16(b[4:], linux.EPOLLIN)
		binary.LittleEndian.PutUint32(b[8:], ^uint32(0))
		_, _ = th.Mem.CopyOut(addr, b[:])
	}
	ask()
	other := th.Sibling()
	for range 300 {
		go func() { _, _ = other.Write(ev, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }()
		n, err := Poll(&th.Caller, addr, 2, wait.Forever)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		_, err = th.Read(ev, make([]byte, 8))
		require.NoError(t, err)
	}
	require.True(t, th.Desc(ev).Queue().Empty())
	start := time.Now()
	n, err := Poll(&th.Caller, addr, 1, ipctest.Now()+3e6)
	require.NoError(t, err)
	require.Zero(t, n)
	require.GreaterOrEqual(t, time.Since(start), 3*time.Millisecond)
	// Select of a set that only has a file which reports what the set does not count waits on.
	n, err = Select(&th.Caller, 0, [3]uint64{}, ipctest.Now()+1e6)
	require.NoError(t, err)
	require.Zero(t, n)
	time.AfterFunc(time.Millisecond, th.Interrupt)
	_, err = Poll(&th.Caller, addr, 1, wait.Forever)
	require.Equal(t, linux.ERESTARTNOHAND, err)
	require.True(t, th.Desc(ev).Queue().Empty())
	_, err = Poll(&th.Caller, addr, 5000, 0)
	require.Equal(t, linux.EINVAL, err)
	_, err = Poll(&th.Caller, 0, 1, 0)
	require.Equal(t, linux.EFAULT, err)
	th.Calm()
	_, _ = th.Write(ev, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	if ipctest.Race {
		return // pools are not what they are
	}
	require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = Poll(&th.Caller, addr, 2, wait.Forever) }))
}
