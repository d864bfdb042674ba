package doorbell

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// patience bounds what must happen soon; it is never waited for in full unless something is wrong.
const patience = 20 * time.Second

// client is what QEMU's device is to the server.
type client struct {
	t       *testing.T
	conn    *net.UnixConn
	vectors int
	id      int
	memory  int
	peers   map[int][]int // eventfds by ID
	left    []int
}

func newServer(t *testing.T, vectors int) *Server {
	t.Helper()
	s, err := New(Config{Vectors: vectors, Size: 64 << 10})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// connect makes a client and reads what comes before peers are announced.
func connect(t *testing.T, s *Server) *client {
	t.Helper()
	f, id, err := s.Connect()
	require.NoError(t, err)
	conn, err := net.FileConn(f)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	c := greet(t, conn.(*net.UnixConn), s.vectors)
	require.Equal(t, id, c.id)
	return c
}

func greet(t *testing.T, conn *net.UnixConn, vectors int) *client {
	t.Helper()
	c := &client{t: t, conn: conn, vectors: vectors, memory: -1, peers: map[int][]int{}}
	t.Cleanup(c.close)
	v, fd := c.read()
	require.Equal(t, []int64{0, -1}, []int64{v, int64(fd)}, "version")
	v, fd = c.read()
	require.Equal(t, -1, fd)
	c.id = int(v)
	v, c.memory = c.read()
	require.Equal(t, int64(-1), v)
	require.NotEqual(t, -1, c.memory, "shared memory")
	return c
}

// read reads one message, which must come soon.
func (c *client) read() (v int64, fd int) {
	c.t.Helper()
	c.conn.SetReadDeadline(time.Now().Add(patience))
	v, fd, err := c.message()
	require.NoError(c.t, err)
	return v, fd
}

func (c *client) message() (v int64, fd int, err error) {
	var b [8]byte
	oob := make([]byte, unix.CmsgSpace(4*4))
	n, oobn, _, _, err := c.conn.ReadMsgUnix(b[:], oob)
	if err != nil {
		return 0, -1, err
	}
	if n != 8 {
		return 0, -1, fmt.Errorf("message of %d bytes", n)
	}
	fd = -1
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(msgs) > 1 {
		return 0, -1, fmt.Errorf("%d control messages, %v", len(msgs), err)
	}
	if len(msgs) == 1 {
		fds, err := unix.ParseUnixRights(&msgs[0])
		if err != nil || len(fds) != 1 {
			return 0, -1, fmt.Errorf("%d files, %v", len(fds), err)
		}
		fd = fds[0]
	}
	return int64(binary.LittleEndian.Uint64(b[:])), fd, nil
}

// news reads one message about a peer and takes it in, as QEMU's ivshmem.c does.
func (c *client) news() (id int, joined bool) {
	c.t.Helper()
	v, fd := c.read()
	require.NoError(c.t, c.take(v, fd))
	return int(v), fd != -1
}

func (c *client) take(v int64, fd int) error {
	if v < 0 || v > maxID {
		return fmt.Errorf("peer %d", v)
	}
	id := int(v)
	if fd == -1 {
		if c.peers[id] == nil {
			return fmt.Errorf("unknown peer %d left", id)
		}
		for _, fd := range c.peers[id] {
			unix.Close(fd)
		}
		delete(c.peers, id)
		c.left = append(c.left, id)
		return nil
	}
	if len(c.peers[id]) == c.vectors {
		return fmt.Errorf("more than %d vectors of peer %d", c.vectors, id)
	}
	c.peers[id] = append(c.peers[id], fd)
	return nil
}

// until takes news in until the peers are those given, complete.
func (c *client) until(ids ...int) {
	c.t.Helper()
	for !c.knows(ids) {
		c.news()
	}
}

func (c *client) knows(ids []int) bool {
	if len(c.peers) != len(ids) {
		return false
	}
	for _, id := range ids {
		if len(c.peers[id]) != c.vectors {
			return false
		}
	}
	return true
}

func (c *client) ring(id, vector int) {
	c.t.Helper()
	_, err := unix.Write(c.peers[id][vector], []byte{1, 0, 0, 0, 0, 0, 0, 0})
	require.NoError(c.t, err)
}

// rung returns how often vector was rung, waiting until it was at least once.
func (c *client) rung(vector int) uint64 {
	c.t.Helper()
	fd := c.peers[c.id][vector]
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience/time.Millisecond))
	require.NoError(c.t, err)
	require.Equal(c.t, 1, n, "the doorbell was not rung")
	var b [8]byte
	_, err = unix.Read(fd, b[:])
	require.NoError(c.t, err)
	return binary.LittleEndian.Uint64(b[:])
}

func (c *client) close() {
	c.conn.Close()
	for _, fds := range c.peers {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
	if c.memory != -1 {
		unix.Close(c.memory)
	}
	c.peers, c.memory = nil, -1
}

// peersAre waits until the server has just these peers.
func peersAre(t *testing.T, s *Server, want ...int) {
	t.Helper()
	timeout := time.After(patience)
	for {
		ids, changed := s.Peers()
		if slices.Equal(ids, want) {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("peers are %v, want %v", ids, want)
		}
	}
}

// TestOrder: the messages come in the order that the protocol says.
func TestOrder(t *testing.T) {
	s := newServer(t, 2)
	require.Equal(t, 0, s.ID())
	a := connect(t, s)
	for _, want := range []int{0, 0, 1, 1} {
		id, joined := a.news()
		require.Equal(t, want, id)
		require.True(t, joined)
	}
	b := connect(t, s)
	for _, want := range []int{0, 0, 1, 1, 2, 2} {
		id, joined := b.news()
		require.Equal(t, want, id)
		require.True(t, joined)
	}
	a.until(0, 1, 2)
	b.close()
	id, joined := a.news()
	require.Equal(t, 2, id)
	require.False(t, joined)
	peersAre(t, s, 0, 1)
	c := connect(t, s)
	require.Equal(t, 3, c.id, "an ID is not used again at once")
}

// TestRing: everybody reaches everybody, on the vector that was meant, host included.
func TestRing(t *testing.T) {
	s := newServer(t, 3)
	a, b := connect(t, s), connect(t, s)
	a.until(0, 1, 2)
	b.until(0, 1, 2)
	a.ring(b.id, 2)
	a.ring(b.id, 2)
	require.Equal(t, uint64(2), b.rung(2))
	b.ring(a.id, 0)
	require.Equal(t, uint64(1), a.rung(0))
	require.NoError(t, s.Ring(a.id, 1))
	require.Equal(t, uint64(1), a.rung(1))
	b.ring(s.ID(), 1)
	n, err := s.Wait(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, uint64(1), n)
	require.NoError(t, s.Ring(s.ID(), 0))
	_, err = s.Wait(t.Context(), 0)
	require.NoError(t, err)

	require.ErrorIs(t, s.Ring(9, 0), ErrNoPeer)
	for _, v := range []int{-1, 3} {
		require.ErrorIs(t, s.Ring(a.id, v), ErrNoVector)
		_, err = s.Wait(t.Context(), v)
		require.ErrorIs(t, err, ErrNoVector)
	}
	a.close()
	b.until(0, 2)
	require.ErrorIs(t, s.Ring(1, 0), ErrNoPeer)
}

// TestWait: a context ends a wait, and the next one works all the same.
func TestWait(t *testing.T) {
	s := newServer(t, 1)
	for range 50 {
		ctx, cancel := context.WithCancel(t.Context())
		go cancel()
		_, err := s.Wait(ctx, 0)
		cancel()
		require.ErrorIs(t, err, context.Canceled)
	}
	require.NoError(t, s.Ring(0, 0))
	n, err := s.Wait(t.Context(), 0)
	require.NoError(t, err)
	require.Equal(t, uint64(1), n)
	done := make(chan error)
	go func() {
		_, err := s.Wait(context.Background(), 0)
		done <- err
	}()
	require.NoError(t, s.Close())
	require.ErrorIs(t, <-done, ErrClosed)
	require.ErrorIs(t, s.Ring(0, 0), ErrClosed)
	_, _, err = s.Connect()
	require.ErrorIs(t, err, ErrClosed)
}

// TestMemory: all have the same bytes, and nobody can take them away.
func TestMemory(t *testing.T) {
	s := newServer(t, 1)
	c := connect(t, s)
	m, err := unix.Mmap(c.memory, 0, len(s.Memory()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	require.NoError(t, err)
	s.Memory()[1000], m[2000] = 1, 2
	require.Equal(t, byte(1), m[1000])
	require.Equal(t, byte(2), s.Memory()[2000])
	require.NoError(t, unix.Munmap(m))
	require.ErrorIs(t, unix.Ftruncate(c.memory, 4096), unix.EPERM)
	require.ErrorIs(t, unix.Ftruncate(c.memory, 1<<20), unix.EPERM)
}

// TestMemoryFile: memory that the caller made outlives the server.
func TestMemoryFile(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "memory"))
	require.NoError(t, err)
	defer f.Close()
	_, err = New(Config{Vectors: 1, Memory: f})
	require.ErrorContains(t, err, "0 bytes, want a power of two")
	require.NoError(t, f.Truncate(8192))
	s, err := New(Config{Vectors: 1, Memory: f})
	require.NoError(t, err)
	s.Memory()[4097] = 7
	require.NoError(t, s.Close())
	var b [1]byte
	_, err = f.ReadAt(b[:], 4097)
	require.NoError(t, err)
	require.Equal(t, byte(7), b[0])
}

func TestConfig(t *testing.T) {
	for _, c := range []Config{{}, {Vectors: 1}, {Vectors: 0, Size: 4096}, {Vectors: 65, Size: 4096}, {Vectors: -1, Size: 4096},
		{Vectors: 1, Size: 4095}, {Vectors: 1, Size: 12288}, {Vectors: 1, Size: 2048}, {Vectors: 1, Size: 1 << 63}} {
		_, err := New(c)
		require.Error(t, err, "%+v", c)
	}
}

// TestSlowClient: a client that reads nothing holds nobody up, and is told the outcome when it reads.
func TestSlowClient(t *testing.T) {
	s := newServer(t, 16)
	slow := connect(t, s)
	watcher := connect(t, s)
	for range 60 {
		c := connect(t, s)
		c.until(0, slow.id, watcher.id, c.id)
		c.close()
		peersAre(t, s, 0, slow.id, watcher.id)
	}
	last := connect(t, s)
	watcher.until(0, slow.id, watcher.id, last.id)
	slow.until(0, slow.id, watcher.id, last.id)
	last.until(0, slow.id, watcher.id, last.id)
	last.ring(slow.id, 15)
	require.Equal(t, uint64(1), slow.rung(15))
}

// TestTalkingClient: a client that sends something does not know the protocol.
func TestTalkingClient(t *testing.T) {
	s := newServer(t, 1)
	c := connect(t, s)
	_, err := c.conn.Write([]byte{1})
	require.NoError(t, err)
	peersAre(t, s, 0)
}

// TestRandom: whatever joins and leaves, everybody ends up knowing the peers there are, with eventfds that work.
func TestRandom(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	s := newServer(t, 2)
	s.next = maxID - 20 // runs over the end of the IDs
	var live []*client
	for range 120 {
		if len(live) < 2 || len(live) < 9 && rng.IntN(2) == 0 {
			live = append(live, connect(t, s))
		} else {
			i := rng.IntN(len(live))
			live[i].close()
			live = slices.Delete(live, i, i+1)
		}
		if rng.IntN(4) == 0 {
			for _, c := range live {
				for range rng.IntN(6) {
					c.conn.SetReadDeadline(time.Now().Add(time.Microsecond))
					v, fd, err := c.message()
					if err != nil {
						break
					}
					require.NoError(t, c.take(v, fd))
				}
			}
		}
	}
	want := []int{0}
	for _, c := range live {
		want = append(want, c.id)
	}
	slices.Sort(want)
	peersAre(t, s, want...)
	for _, c := range live {
		c.until(want...)
	}
	for _, c := range live {
		for _, d := range live {
			c.ring(d.id, 1)
			require.Equal(t, uint64(1), d.rung(1), "%d rings %d", c.id, d.id)
		}
	}
}

func TestFull(t *testing.T) {
	s := newServer(t, 1)
	s.mu.Lock()
	for i := 1; i < MaxPeers; i++ {
		s.peers[i] = &peer{id: i, join: 1}
	}
	s.mu.Unlock()
	_, _, err := s.Connect()
	require.ErrorIs(t, err, ErrFull)
	s.mu.Lock()
	for i := 1; i < MaxPeers; i++ {
		delete(s.peers, i)
	}
	s.mu.Unlock()
}

func TestListen(t *testing.T) {
	s := newServer(t, 1)
	path := filepath.Join(t.TempDir(), "doorbell")
	// What a killed server leaves behind.
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	stale.SetUnlinkOnClose(false)
	require.NoError(t, stale.Close())
	require.NoError(t, s.Listen(path))
	dial := func() *client {
		conn, err := net.Dial("unix", path)
		require.NoError(t, err)
		return greet(t, conn.(*net.UnixConn), 1)
	}
	a, b := dial(), dial()
	a.until(0, a.id, b.id)
	b.until(0, a.id, b.id)
	st, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), st.Mode().Perm())
	other := newServer(t, 1)
	require.ErrorContains(t, other.Listen(path), "another server listens")
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.ErrorContains(t, other.Listen(file), "no socket")
	require.NoError(t, s.Close())
	require.NoFileExists(t, path)
	require.ErrorIs(t, s.Listen(path), ErrClosed)
	require.NoFileExists(t, path)
}

// TestClose: clients see the end, and no descriptor stays, whatever was going on.
func TestClose(t *testing.T) {
	before := descriptors(t)
	for range 10 {
		s, err := New(Config{Vectors: 4, Size: 4096})
		require.NoError(t, err)
		clients := []*client{connect(t, s), connect(t, s), connect(t, s)}
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				f, _, err := s.Connect()
				if err != nil {
					return
				}
				f.Close()
			}
		})
		wg.Go(func() {
			for s.Ring(clients[0].id, 0) == nil {
			}
		})
		time.Sleep(2 * time.Millisecond)
		require.NoError(t, s.Close())
		require.NoError(t, s.Close(), "twice")
		wg.Wait()
		for _, c := range clients {
			for {
				c.conn.SetReadDeadline(time.Now().Add(patience))
				v, fd, err := c.message()
				if err != nil {
					require.False(t, os.IsTimeout(err))
					break
				}
				require.NoError(t, c.take(v, fd))
			}
			c.close()
		}
	}
	require.Equal(t, before, descriptors(t))
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(list)
}

// TestLeft: the owner learns who left and why.
func TestLeft(t *testing.T) {
	type departure struct {
		id  int
		err error
	}
	left := make(chan departure, 10)
	s, err := New(Config{Vectors: 3, Size: 4096, Left: func(id int, err error) { left <- departure{id, err} }})
	require.NoError(t, err)
	a, b, c := connect(t, s), connect(t, s), connect(t, s)
	a.close()
	require.Equal(t, departure{a.id, nil}, <-left)
	_, err = b.conn.Write([]byte{1})
	require.NoError(t, err)
	d := <-left
	require.Equal(t, b.id, d.id)
	require.ErrorIs(t, d.err, ErrTalks)
	require.NoError(t, s.Close())
	d = <-left
	require.Equal(t, c.id, d.id)
	require.ErrorIs(t, d.err, ErrClosed)
	require.Empty(t, left)
}
