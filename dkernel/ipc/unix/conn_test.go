package unix

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

	"dinos/dkernel/ipc/ipctest"
	"dinos/dkernel/ipc/oracle"
	"dinos/dkernel/ipc/pipe"
	"dinos/dkernel/ipc/socket"
	"dinos/kernel/linux"
)

func (w *world) create(typ int) int {
	fd, err := w.net.Create(&w.th.Caller, linux.AF_UNIX, typ, 0)
	require.NoError(w.t, err)
	return fd
}

func (w *world) bind(th *ipctest.Thread, fd int, addr []byte) error {
	_, _ = th.Mem.CopyOut(atName, addr)
	return socket.Bind(&th.Caller, fd, atName, len(addr))
}

func (w *world) connect(th *ipctest.Thread, fd int, addr []byte) error {
	_, _ = th.Mem.CopyOut(atName, addr)
	return socket.Connect(&th.Caller, fd, atName, len(addr))
}

func (w *world) name(fd int, peer bool) (string, error) {
	w.put(atInt, socket.Int(110))
	if err := socket.Getsockname(&w.th.Caller, fd, atName, atInt, peer); err != nil {
		return "", err
	}
	return string(w.get(atName, int(binary.LittleEndian.Uint32(w.get(atInt, 4))))[2:]), nil
}

// Random calls on sockets with abstract names give what they give on the host's Linux.
func TestNamesLikeLinux(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for round := range 60 {
		n := &names{w: newWorld(t), rng: rng, round: round, prefix: fmt.Sprintf("dinos-%x-%d-", seed, round)}
		n.run()
		for _, h := range n.host {
			_ = syscall.Close(h)
		}
		n.w.th.Files.Leave(&n.w.th.Caller)
		require.Empty(t, n.w.sys.names.abstract)
	}
}

type names struct {
	w         *world
	rng       *rand.Rand
	round     int
	prefix    string
	our, host []int
	types     []int
	log       []string
}

func (n *names) same(what string, want, got any) {
	n.log = append(n.log, fmt.Sprintf("%s: %v", what, want))
	if fmt.Sprint(want) == fmt.Sprint(got) {
		return
	}
	for _, s := range n.log {
		n.w.t.Log(s)
	}
	n.w.t.Fatalf("round %d: %s\nLinux %v\nhere  %v", n.round, what, want, got)
}

func (n *names) add(our, host, typ int) {
	n.our, n.host, n.types = append(n.our, our), append(n.host, host), append(n.types, typ)
}

// addr is one of a few addresses.
func (n *names) addr() (string, []byte, syscall.Sockaddr) {
	k := fmt.Sprint(n.rng.IntN(3))
	return k, abstract(n.prefix + k), &syscall.SockaddrUnix{Name: "@" + n.prefix + k}
}

func (n *names) run() {
	w, rng := n.w, n.rng
	types := []int{linux.SOCK_STREAM, linux.SOCK_STREAM, linux.SOCK_DGRAM, linux.SOCK_SEQPACKET}
	for range 150 {
		if len(n.our) == 0 || len(n.our) < 8 && rng.IntN(8) == 0 {
			typ := types[rng.IntN(len(types))]
			h, err := syscall.Socket(syscall.AF_UNIX, typ|syscall.SOCK_NONBLOCK, 0)
			require.NoError(w.t, err)
			n.add(w.create(typ|linux.SOCK_NONBLOCK), h, typ)
			n.log = append(n.log, fmt.Sprintf("%d = socket %d", len(n.our)-1, typ))
			continue
		}
		i := rng.IntN(len(n.our))
		our, host := n.our[i], n.host[i]
		switch rng.IntN(12) {
		case 0, 1:
			k, a, h := n.addr()
			n.same(fmt.Sprintf("bind %d to %s", i, k), errnoOf(syscall.Bind(host, h)), w.bind(w.th, our, a))
		case 2, 3, 4:
			k, a, h := n.addr()
			n.same(fmt.Sprintf("connect %d to %s", i, k), errnoOf(syscall.Connect(host, h)), w.connect(w.th, our, a))
		case 5:
			b := rng.IntN(3)
			n.same(fmt.Sprintf("listen %d %d", i, b), errnoOf(syscall.Listen(host, b)), socket.Listen(&w.th.Caller, our, b))
		case 6:
			h, _, err := syscall.Accept4(host, syscall.SOCK_NONBLOCK)
			o, oerr := socket.Accept4(&w.th.Caller, our, 0, 0, linux.SOCK_NONBLOCK)
			n.same(fmt.Sprintf("accept %d", i), errnoOf(err), oerr)
			if err == nil {
				n.add(o, h, n.types[i])
			}
		case 7:
			data := []byte("hello")[:1+rng.IntN(5)]
			x, xerr := w.sendmsg(w.th, our, data, nil, nil, 0)
			y, yerr := syscall.SendmsgN(host, data, nil, nil, linux.MSG_NOSIGNAL)
			n.same(fmt.Sprintf("send %d", i), fmt.Sprint(max(y, 0), errnoOf(yerr)), fmt.Sprint(x, xerr))
		case 8:
			k, a, h := n.addr()
			x, xerr := w.sendmsg(w.th, our, []byte("to"), nil, a, 0)
			y, yerr := syscall.SendmsgN(host, []byte("to"), nil, h, linux.MSG_NOSIGNAL)
			n.same(fmt.Sprintf("send %d to %s", i, k), fmt.Sprint(max(y, 0), errnoOf(yerr)), fmt.Sprint(x, xerr))
		case 9:
			x, y := w.recvmsg(w.th, our, 3, 0, 0), hostRecv(host, 3, 0, 0)
			n.same(fmt.Sprintf("recv %d", i), fmt.Sprint(y.n, y.err, y.data, y.flags, y.name), fmt.Sprint(x.n, x.err, x.data, x.flags, x.name))
		case 10:
			n.compareNames(i)
		case 11:
			if rng.IntN(2) == 0 {
				how := rng.IntN(3)
				n.same(fmt.Sprintf("shutdown %d %d", i, how), errnoOf(syscall.Shutdown(host, how)), socket.Shutdown(&w.th.Caller, our, how))
				break
			}
			w.th.Close(our)
			_ = syscall.Close(host)
			n.log = append(n.log, fmt.Sprintf("close %d, %d takes its place", i, len(n.our)-1))
			last := len(n.our) - 1
			n.our[i], n.host[i], n.types[i] = n.our[last], n.host[last], n.types[last]
			n.our, n.host, n.types = n.our[:last], n.host[:last], n.types[:last]
		}
		for k := range n.our {
			n.same(fmt.Sprintf("poll %d", k), fmt.Sprintf("%x", oracle.Poll(n.host[k])), fmt.Sprintf("%x", w.th.Poll(n.our[k])))
		}
	}
}

func (n *names) compareNames(i int) {
	for _, peer := range []bool{false, true} {
		h, herr := oracle.Name(n.host[i], peer)
		x, err := n.w.name(n.our[i], peer)
		n.same(fmt.Sprintf("name %d, peer %v", i, peer), fmt.Sprintf("%q %v", h[min(2, len(h)):], herr), fmt.Sprintf("%q %v", x, err))
	}
	u, err := syscall.GetsockoptUcred(n.host[i], linux.SOL_SOCKET, linux.SO_PEERCRED)
	require.NoError(n.w.t, err)
	n.w.put(atInt, socket.Int(12))
	require.NoError(n.w.t, socket.Getsockopt(&n.w.th.Caller, n.our[i], linux.SOL_SOCKET, linux.SO_PEERCRED, atName, atInt))
	b := n.w.get(atName, 12)
	le := binary.LittleEndian
	n.same(fmt.Sprintf("SO_PEERCRED %d", i), fmt.Sprint(u.Pid, u.Uid, u.Gid), fmt.Sprint(int32(le.Uint32(b)), le.Uint32(b[4:]), le.Uint32(b[8:])))
}

// Options have the values, the limits and the errors of the host's Linux.
func TestOptionsLikeLinux(t *testing.T) {
	w := newWorld(t)
	rng := rand.New(rand.NewPCG(3, 4))
	for _, typ := range []int{linux.SOCK_STREAM, linux.SOCK_DGRAM} {
		our := w.create(typ)
		host, err := syscall.Socket(syscall.AF_UNIX, typ, 0)
		require.NoError(t, err)
		defer syscall.Close(host)
		for name := 1; name < 50; name++ {
			switch name {
			case linux.SO_BINDTODEVICE, linux.SO_ATTACH_FILTER, linux.SO_ATTACH_FILTER + 1, linux.SO_PEERNAME, linux.SO_PEERSEC,
				linux.SO_TIMESTAMP, 35, 37, 41, 43, 44, 45, 46, 47, 48, linux.SO_PASSSEC, linux.SO_INCOMING_CPU, linux.SO_PEEK_OFF,
				linux.SO_MARK, linux.SO_SNDBUFFORCE, linux.SO_RCVBUFFORCE:
				continue // of networks, or of privileges that the host's process may not have; see the package
			}
			for range 6 {
				v := []byte{byte(rng.IntN(3)), byte(rng.IntN(2) * rng.IntN(256)), byte(rng.IntN(2)), 0, byte(rng.IntN(3)), 0, 0, 0, 0,
					0, 0, 0, 0, 0, 0, 0}[:[]int{2, 4, 8, 16}[rng.IntN(4)]]
				w.put(atData, v)
				got := socket.Setsockopt(&w.th.Caller, our, linux.SOL_SOCKET, name, atData, len(v))
				want := oracle.Setsockopt(host, linux.SOL_SOCKET, name, v)
				require.Equal(t, want, got, "set %d to %x", name, v)
				room := rng.IntN(18)
				w.put(atInt, socket.Int(room))
				got = socket.Getsockopt(&w.th.Caller, our, linux.SOL_SOCKET, name, atData, atInt)
				b, want := oracle.Getsockopt(host, linux.SOL_SOCKET, name, room)
				require.Equal(t, want, got, "get %d", name)
				if want == nil {
					require.Equal(t, b, w.get(atData, int(binary.LittleEndian.Uint32(w.get(atInt, 4)))), "get %d", name)
				}
			}
		}
		require.Equal(t, linux.EOPNOTSUPP, socket.Setsockopt(&w.th.Caller, our, 6, 1, atData, 4))
	}
}

func TestCreate(t *testing.T) {
	w := newWorld(t)
	c := &w.th.Caller
	for _, x := range [][3]int{{linux.AF_INET, linux.SOCK_STREAM, 0}, {99, 1, 0}, {-1, 1, 0}, {linux.AF_UNIX, 4, 0}, {linux.AF_UNIX, 3, 0},
		{linux.AF_UNIX, 1 | 0x100, 0}, {linux.AF_UNIX, 1, 1}, {linux.AF_UNIX, 1, 7}, {linux.AF_UNIX, 12, 0}} {
		_, err := w.net.Create(c, x[0], x[1], x[2])
		h, want := syscall.Socket(x[0], x[1], x[2])
		if x[0] == linux.AF_INET {
			want = syscall.EAFNOSUPPORT // not yet
		}
		require.Equal(t, errnoOf(want), err, "%v", x)
		_ = syscall.Close(h)
	}
	r, _, err := pipe.Pipe2(c, 0)
	require.NoError(t, err)
	require.Equal(t, linux.ENOTSOCK, socket.Listen(c, r, 1))
	require.Equal(t, linux.EBADF, socket.Listen(c, 99, 1))
	require.Equal(t, linux.EFAULT, w.net.Pair(c, linux.AF_UNIX, linux.SOCK_STREAM, 0, 8))
	before := w.th.Files.Count()
	w.th.OpenLimit = w.th.Files.Next(0) + before + 1
	require.Equal(t, linux.EMFILE, w.net.Pair(c, linux.AF_UNIX, linux.SOCK_STREAM, 0, atInt))
	require.Equal(t, before, w.th.Files.Count())
	// Autobind.
	w.th.OpenLimit = 100
	s := w.create(linux.SOCK_DGRAM)
	require.NoError(t, w.bind(w.th, s, []byte{1, 0}))
	name, err := w.name(s, false)
	require.NoError(t, err)
	require.Len(t, name, 6)
	for _, bad := range [][]byte{{1}, {}, {2, 0, 'x'}, make([]byte, 111)} {
		require.Equal(t, linux.EINVAL, w.bind(w.th, s, bad))
	}
}

// A server with threads: every client gets its answer.
func TestServer(t *testing.T) {
	w := newWorld(t)
	ls := w.create(linux.SOCK_STREAM)
	require.NoError(t, w.bind(w.th, ls, abstract("server")))
	require.NoError(t, socket.Listen(&w.th.Caller, ls, 2))
	const clients, servers, each = 4, 2, 100
	var wg, sw sync.WaitGroup
	for range servers {
		th := w.th.Sibling()
		th.Mem = ipctest.NewMem(1 << 20)
		th.Caller.Mem = th.Mem
		sw.Add(1)
		go func() {
			defer sw.Done()
			for {
				fd, err := socket.Accept4(&th.Caller, ls, 0, 0, 0)
				if err != nil {
					return
				}
				b := make([]byte, 100)
				for {
					n, err := th.Read(fd, b)
					if err != nil {
						t.Errorf("server: %v", err)
					}
					if n <= 0 {
						break
					}
					_, _ = th.Write(fd, b[:n])
				}
				th.Close(fd)
			}
		}()
	}
	for range clients {
		th := w.th.Sibling()
		th.Mem = ipctest.NewMem(1 << 20)
		th.Caller.Mem = th.Mem
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range each {
				fd, err := w.net.Create(&th.Caller, linux.AF_UNIX, linux.SOCK_STREAM, 0)
				if err == nil {
					err = w.connect(th, fd, abstract("server"))
				}
				if err != nil {
					t.Errorf("client: %v", err)
					return
				}
				q := fmt.Sprintf("question %d", i)
				_, _ = th.Write(fd, []byte(q))
				b := make([]byte, 100)
				n, err := th.Read(fd, b)
				if err != nil || string(b[:n]) != q {
					t.Errorf("client: %q, %v", b[:n], err)
				}
				th.Close(fd)
			}
		}()
	}
	wg.Wait()
	require.NoError(t, socket.Shutdown(&w.th.Caller, ls, linux.SHUT_RD))
	sw.Wait()
}

// What is blocked ends: by data, by room, by a signal, by a time-out, by closing.
func TestBlocking(t *testing.T) {
	w := newWorld(t)
	a, b := w.pair(linux.SOCK_STREAM)
	other := w.th.Sibling()
	writer := w.th.Sibling()
	time.AfterFunc(time.Millisecond, func() { _, _ = writer.Write(b, []byte("x")) })
	buf := make([]byte, 10)
	n, err := w.th.Read(a, buf)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	big := make([]byte, 1<<20)
	go func() {
		p := make([]byte, 50000)
		for sum := 0; sum < len(big); {
			n, err := other.Read(b, p)
			if err != nil {
				t.Error(err)
				return
			}
			sum += n
		}
	}()
	n, err = w.th.Write(a, big)
	require.NoError(t, err)
	require.Equal(t, len(big), n)
	time.AfterFunc(time.Millisecond, w.th.Interrupt)
	_, err = w.th.Read(a, buf)
	require.Equal(t, linux.ERESTARTSYS, err)
	w.th.Calm()
	w.put(atData, append(binary.LittleEndian.AppendUint64(nil, 0), binary.LittleEndian.AppendUint64(nil, 2000)...))
	require.NoError(t, socket.Setsockopt(&w.th.Caller, a, linux.SOL_SOCKET, linux.SO_RCVTIMEO, atData, 16))
	start := time.Now()
	_, err = w.th.Read(a, buf)
	require.Equal(t, linux.EAGAIN, err)
	require.GreaterOrEqual(t, time.Since(start), 2*time.Millisecond)
	w.th.Interrupt()
	_, err = w.th.Read(a, buf)
	require.Equal(t, linux.EINTR, err)
	w.th.Calm()
	closer := w.th.Sibling()
	c, d := w.pair(linux.SOCK_SEQPACKET)
	time.AfterFunc(time.Millisecond, func() { closer.Close(d) })
	n, err = w.th.Read(c, buf)
	require.NoError(t, err)
	require.Zero(t, n)
	// A full backlog.
	ls := w.create(linux.SOCK_STREAM)
	require.NoError(t, w.bind(w.th, ls, abstract("full")))
	require.NoError(t, socket.Listen(&w.th.Caller, ls, 0))
	require.NoError(t, w.connect(w.th, w.create(linux.SOCK_STREAM), abstract("full")))
	s := w.create(linux.SOCK_STREAM)
	accept := w.th.Sibling()
	time.AfterFunc(time.Millisecond, func() { _, _ = socket.Accept4(&accept.Caller, ls, 0, 0, 0) })
	require.NoError(t, w.connect(w.th, s, abstract("full")))
	s = w.create(linux.SOCK_STREAM)
	time.AfterFunc(time.Millisecond, func() { accept.Close(ls) })
	require.Equal(t, linux.ECONNREFUSED, w.connect(w.th, s, abstract("full")))
	// A waiting write whose reader goes away.
	e, f := w.pair(linux.SOCK_STREAM)
	time.AfterFunc(time.Millisecond, func() { closer.Close(f) })
	w.th.Signals = nil
	n, err = w.th.Write(e, big)
	require.NoError(t, err)
	require.Positive(t, n)
	_, err = w.th.Write(e, big)
	require.Contains(t, []error{linux.EPIPE, linux.ECONNRESET}, err)
}

// Datagram senders wait for room, edge by edge; none is lost.
func TestDatagramQueue(t *testing.T) {
	w := newWorld(t)
	to := w.create(linux.SOCK_DGRAM)
	require.NoError(t, w.bind(w.th, to, abstract("sink")))
	const senders, each = 4, 300
	for k := range senders {
		th := w.th.Sibling()
		th.Mem = ipctest.NewMem(1 << 20)
		th.Caller.Mem = th.Mem
		fd := w.create(linux.SOCK_DGRAM)
		if k%2 == 0 {
			require.NoError(t, w.connect(th, fd, abstract("sink")))
		}
		go func() {
			for i := range each {
				var name []byte
				if k%2 == 1 {
					name = abstract("sink")
				}
				if n, err := w.sendmsg(th, fd, []byte{byte(k), byte(i), byte(i >> 8)}, nil, name, 0); n != 3 || err != nil {
					t.Errorf("send: %d, %v", n, err)
				}
			}
		}()
	}
	next := make([]int, senders)
	b := make([]byte, 10)
	for range senders * each {
		n, err := w.th.Read(to, b)
		require.NoError(t, err)
		require.Equal(t, 3, n)
		require.Equal(t, next[b[0]], int(b[1])|int(b[2])<<8)
		next[b[0]]++
	}
	// One that polls is told.
	fd := w.create(linux.SOCK_DGRAM | linux.SOCK_NONBLOCK)
	require.NoError(t, w.connect(w.th, fd, abstract("sink")))
	for err := error(nil); err == nil; {
		_, err = w.th.Write(fd, b)
	}
	require.Zero(t, w.th.Poll(fd)&linux.EPOLLOUT)
	_, err := w.th.Read(to, b)
	require.NoError(t, err)
	require.NotZero(t, w.th.Poll(fd)&linux.EPOLLOUT)
}

// Sockets in the queues of one another are found and closed, and those that can still be reached are not.
func TestGarbage(t *testing.T) {
	w := newWorld(t)
	v := w.th.FS.VFS()
	base := v.OpenFiles()
	send := func(via, fd int) {
		_, err := w.sendmsg(w.th, via, []byte("x"), rights(fd, 1), nil, 0)
		require.NoError(t, err)
	}
	// Through itself; through another pair; a chain that ends in a live one.
	a, b := w.pair(linux.SOCK_STREAM)
	send(a, b)
	w.th.Close(a)
	w.th.Close(b)
	c, d := w.pair(linux.SOCK_DGRAM)
	e, f := w.pair(linux.SOCK_SEQPACKET)
	send(c, e)
	send(c, f)
	send(e, d)
	send(e, c)
	for _, fd := range []int{c, d, e} {
		w.th.Close(fd)
	}
	require.EqualValues(t, 5, v.OpenFiles()-base, "f reaches four; b waits to be found")
	w.th.Close(f)
	w.th.Close(w.create(linux.SOCK_STREAM))
	require.EqualValues(t, 0, v.OpenFiles()-base)
	require.Empty(t, w.sys.flight.files)
	require.Zero(t, w.sys.flight.count)

	g, h := w.pair(linux.SOCK_STREAM)
	i, j := w.pair(linux.SOCK_STREAM)
	send(g, i)
	send(g, j)
	w.th.Close(i)
	w.th.Close(j)
	w.th.Close(w.create(linux.SOCK_STREAM))
	r := w.recvmsg(w.th, h, 1, 100, 0)
	require.NoError(t, r.err)
	require.Equal(t, []string{"1 files", " <nil>"}, describe(r.control, func(fd int) {
		require.NoError(t, w.bind(w.th, fd, abstract("alive")))
		w.th.Close(fd)
	}))
	// A listening socket that is garbage with a connection in its queue.
	ls := w.create(linux.SOCK_STREAM)
	require.NoError(t, w.bind(w.th, ls, abstract("loop")))
	require.NoError(t, socket.Listen(&w.th.Caller, ls, 1))
	cl := w.create(linux.SOCK_STREAM)
	require.NoError(t, w.connect(w.th, cl, abstract("loop")))
	send(cl, ls)
	send(cl, cl)
	w.th.Close(ls)
	w.th.Close(cl)
	w.th.Close(g)
	w.th.Close(h)
	w.th.Close(w.create(linux.SOCK_STREAM))
	require.EqualValues(t, 0, v.OpenFiles()-base)

	// As much as may be under way.
	user := *w.th.Cred
	user.Effective = 0
	w.th.Cred, w.th.OpenLimit = &user, 64
	k, _ := w.pair(linux.SOCK_STREAM)
	var err error
	for n := 0; err == nil; n++ {
		_, err = w.sendmsg(w.th, k, []byte("x"), rights(k, 10), nil, linux.MSG_DONTWAIT)
		require.Less(t, n, 100)
	}
	require.Equal(t, linux.ETOOMANYREFS, err)
	_, err = w.sendmsg(w.th, k, []byte("x"), rights(99, 1), nil, 0)
	require.Equal(t, linux.EBADF, err)
	_, err = w.sendmsg(w.th, k, []byte("x"), rights(k, 254), nil, 0)
	require.Equal(t, linux.EINVAL, err)
	_, err = w.sendmsg(w.th, k, []byte("x"), cmsg(linux.SCM_CREDENTIALS, make([]byte, 12)), nil, 0)
	require.Equal(t, linux.EPERM, err)
}

// Files are sent, received, and sockets closed, all at once; nothing leaks.
func TestGarbageRace(t *testing.T) {
	w := newWorld(t)
	v := w.th.FS.VFS()
	base := v.OpenFiles()
	var wg sync.WaitGroup
	var got atomic.Int64
	for k := range 4 {
		th := ipctest.NewThread(v)
		wg.Add(1)
		go func() {
			defer wg.Done()
			rng := rand.New(rand.NewPCG(uint64(k), 5))
			for range 300 {
				if err := w.net.Pair(&th.Caller, linux.AF_UNIX, linux.SOCK_STREAM|linux.SOCK_NONBLOCK, 0, atInt); err != nil {
					t.Error(err)
					return
				}
				b := make([]byte, 8)
				_, _ = th.Mem.CopyIn(b, atInt)
				fds := []int{int(binary.LittleEndian.Uint32(b)), int(binary.LittleEndian.Uint32(b[4:]))}
				for range rng.IntN(5) {
					_, _ = w.sendmsg(th, fds[rng.IntN(2)], []byte("x"), rights(fds[rng.IntN(2)], 1), nil, 0)
					if rng.IntN(2) == 0 {
						r := w.recvmsg(th, fds[rng.IntN(2)], 1, 24, 0)
						describe(r.control, func(fd int) { got.Add(1); th.Close(fd) })
					}
				}
				th.Close(fds[0])
				th.Close(fds[1])
			}
		}()
	}
	wg.Wait()
	w.th.Close(w.create(linux.SOCK_STREAM))
	require.EqualValues(t, 0, v.OpenFiles()-base)
	require.Positive(t, got.Load())
}

func TestNoAllocation(t *testing.T) {
	if ipctest.Race {
		t.Skip("pools are not what they are")
	}
	for _, typ := range []int{linux.SOCK_STREAM, linux.SOCK_DGRAM} {
		w := newWorld(t)
		a, b := w.pair(typ)
		p := make([]byte, 100)
		require.Zero(t, testing.AllocsPerRun(200, func() {
			_, _ = w.th.Write(a, p)
			_, _ = w.th.Read(b, p)
		}))
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	for _, typ := range []int{linux.SOCK_STREAM, linux.SOCK_DGRAM} {
		b.Run(map[int]string{1: "stream", 2: "dgram"}[typ], func(b *testing.B) {
			w := newWorld(b)
			x, y := w.pair(typ)
			peer := w.th.Sibling()
			go func() {
				p := make([]byte, 1)
				for {
					if n, _ := peer.Read(y, p); n == 0 {
						return
					}
					_, _ = peer.Write(y, p)
				}
			}()
			p := make([]byte, 1)
			b.ReportAllocs()
			for b.Loop() {
				_, _ = w.th.Write(x, p)
				_, _ = w.th.Read(x, p)
			}
		})
	}
}

func BenchmarkStream64K(b *testing.B) {
	w := newWorld(b)
	x, y := w.pair(linux.SOCK_STREAM)
	p := make([]byte, 65536)
	b.SetBytes(65536)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = w.th.Write(x, p)
		for n := 0; n < len(p); {
			k, _ := w.th.Read(y, p)
			n += k
		}
	}
}
