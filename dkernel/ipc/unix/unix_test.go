package unix

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
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

// Places in a thread's memory.
const (
	atMsg     = ipctest.Base
	atIov     = ipctest.Base + 0x100
	atName    = ipctest.Base + 0x200
	atInt     = ipctest.Base + 0x300
	atControl = ipctest.Base + 0x1000
	atData    = ipctest.Base + 0x8000
)

type world struct {
	t   testing.TB
	th  *ipctest.Thread
	net *socket.System
	sys *System
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, th: ipctest.NewThread(ipctest.NewVFS()), net: socket.New(), sys: New(ipctest.Now)}
	w.net.Register(linux.AF_UNIX, w.sys)
	// The ids of this process, which the host's answers have.
	w.th.PID = int32(syscall.Getpid())
	cr := *w.th.Cred
	cr.UID, cr.EUID, cr.SUID, cr.FSUID = uint32(syscall.Getuid()), uint32(syscall.Geteuid()), uint32(syscall.Geteuid()), uint32(syscall.Geteuid())
	cr.GID, cr.EGID, cr.SGID, cr.FSGID = uint32(syscall.Getgid()), uint32(syscall.Getegid()), uint32(syscall.Getegid()), uint32(syscall.Getegid())
	w.th.Cred = &cr
	return w
}

func (w *world) put(at uint64, b []byte) {
	_, err := w.th.Mem.CopyOut(at, b)
	require.NoError(w.t, err)
}

func (w *world) get(at uint64, n int) []byte {
	b := make([]byte, n)
	_, err := w.th.Mem.CopyIn(b, at)
	require.NoError(w.t, err)
	return b
}

func (w *world) pair(typ int) (a, b int) {
	require.NoError(w.t, w.net.Pair(&w.th.Caller, linux.AF_UNIX, typ, 0, atInt))
	p := w.get(atInt, 8)
	return int(binary.LittleEndian.Uint32(p)), int(binary.LittleEndian.Uint32(p[4:]))
}

func abstract(name string) []byte { return append([]byte{linux.AF_UNIX, 0, 0}, name...) }

// header stores a struct msghdr with one range.
func (w *world) header(th *ipctest.Thread, name []byte, room, data int, control int) {
	le := binary.LittleEndian
	var h [56]byte
	if name != nil || room > 0 {
		le.PutUint64(h[0:], atName)
		le.PutUint32(h[8:], uint32(max(len(name), room)))
		_, _ = th.Mem.CopyOut(atName, name)
	}
	le.PutUint64(h[16:], atIov)
	le.PutUint64(h[24:], 1)
	if control > 0 {
		le.PutUint64(h[32:], atControl)
		le.PutUint64(h[40:], uint64(control))
	}
	_, _ = th.Mem.CopyOut(atMsg, h[:])
	var v [16]byte
	le.PutUint64(v[:], atData)
	le.PutUint64(v[8:], uint64(data))
	_, _ = th.Mem.CopyOut(atIov, v[:])
}

func (w *world) sendmsg(th *ipctest.Thread, fd int, data, control, name []byte, flags int) (int, error) {
	_, _ = th.Mem.CopyOut(atData, data)
	_, _ = th.Mem.CopyOut(atControl, control)
	w.header(th, name, 0, len(data), len(control))
	n, err := socket.Sendmsg(&th.Caller, fd, atMsg, uint32(flags))
	return int(n), err
}

type received struct {
	n       int
	err     error
	data    string
	control []byte
	flags   int
	name    string
}

func (w *world) recvmsg(th *ipctest.Thread, fd, size, control, flags int) (r received) {
	w.header(th, nil, 110, size, control)
	n, err := socket.Recvmsg(&th.Caller, fd, atMsg, uint32(flags))
	r.n, r.err = int(n), err
	if err != nil {
		return r
	}
	h := make([]byte, 56)
	_, _ = th.Mem.CopyIn(h, atMsg)
	le := binary.LittleEndian
	b := make([]byte, min(r.n, size))
	_, _ = th.Mem.CopyIn(b, atData)
	r.data, r.flags = string(b), int(le.Uint32(h[48:]))
	r.control = make([]byte, le.Uint64(h[40:]))
	_, _ = th.Mem.CopyIn(r.control, atControl)
	name := make([]byte, le.Uint32(h[8:]))
	_, _ = th.Mem.CopyIn(name, atName)
	if len(name) > 2 {
		r.name = string(name[2:])
	}
	return r
}

func hostRecv(fd, size, control, flags int) (r received) {
	b, oob := make([]byte, size), make([]byte, control)
	n, oobn, rflags, from, err := syscall.Recvmsg(fd, b, oob, flags)
	if err != nil {
		return received{err: oracle.Errno(errnoOf(err))}
	}
	r = received{n: n, data: string(b[:min(n, size)]), control: oob[:oobn], flags: rflags &^ linux.MSG_CMSG_CLOEXEC}
	if u, ok := from.(*syscall.SockaddrUnix); ok {
		r.name = u.Name
		if len(r.name) > 0 && r.name[0] == '@' {
			r.name = "\x00" + r.name[1:]
		}
	}
	return r
}

func errnoOf(e error) error {
	if e, ok := e.(syscall.Errno); ok {
		return linux.Errno(e)
	}
	return e
}

// rights is a control message with n copies of a descriptor.
func rights(fd, n int) []byte {
	var b []byte
	for range n {
		b = binary.LittleEndian.AppendUint32(b, uint32(fd))
	}
	return cmsg(linux.SCM_RIGHTS, b)
}

func cmsg(typ uint32, data []byte) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(16+len(data)))
	b = binary.LittleEndian.AppendUint32(b, linux.SOL_SOCKET)
	b = append(binary.LittleEndian.AppendUint32(b, typ), data...)
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	return b
}

// describe makes control messages comparable: descriptors are closed and replaced by how many there are.
func describe(control []byte, closeFD func(int)) (out []string) {
	for {
		m, rest, ok, err := socket.NextCmsg(control)
		if err != nil || !ok {
			return append(out, fmt.Sprintf("%x %v", control, err))
		}
		if m.Type == linux.SCM_RIGHTS {
			for i := 0; i+4 <= len(m.Data); i += 4 {
				closeFD(int(binary.LittleEndian.Uint32(m.Data[i:])))
			}
			out = append(out, fmt.Sprintf("%d files", len(m.Data)/4))
		} else {
			out = append(out, fmt.Sprintf("%d: %x", m.Type, m.Data))
		}
		control = rest
	}
}

// Random operations on connected sockets give what they give on the host's Linux.
func TestPairsLikeLinux(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for round := range 60 {
		typ := []int{linux.SOCK_STREAM, linux.SOCK_DGRAM, linux.SOCK_SEQPACKET}[round%3]
		w := newWorld(t)
		a, b := w.pair(typ | linux.SOCK_NONBLOCK)
		h, err := syscall.Socketpair(syscall.AF_UNIX, typ|syscall.SOCK_NONBLOCK, 0)
		require.NoError(t, err)
		l := &likeLinux{w: w, rng: rng, our: [2]int{a, b}, host: h, round: round}
		l.file, _, err = pipe.Pipe2(&w.th.Caller, 0)
		require.NoError(t, err)
		extra, err := syscall.Dup(0)
		require.NoError(t, err)
		l.hostFile = extra
		l.run()
		_ = syscall.Close(extra)
		for _, fd := range l.host {
			if fd >= 0 {
				_ = syscall.Close(fd)
			}
		}
		w.th.Files.Leave(&w.th.Caller)
		require.Zero(t, w.sys.flight.count, "files in flight")
	}
}

type likeLinux struct {
	w         *world
	rng       *rand.Rand
	our, host [2]int
	file      int // to send, and the host's
	hostFile  int
	round     int
	log       []string
}

func (l *likeLinux) same(what string, want, got any) {
	l.log = append(l.log, fmt.Sprintf("%s: %v", what, want))
	if fmt.Sprint(want) == fmt.Sprint(got) {
		return
	}
	for _, s := range l.log {
		l.w.t.Log(s)
	}
	l.w.t.Fatalf("round %d: %s\nLinux %v\nhere  %v", l.round, what, want, got)
}

func (l *likeLinux) run() {
	w, rng := l.w, l.rng
	sizes := []int{0, 1, 10, 100, 1000, 4000, 10000, 100000}
	pattern := make([]byte, 100000)
	for i := range pattern {
		pattern[i] = byte(rng.Uint32())
	}
	for range 120 {
		i := rng.IntN(2)
		our, host := l.our[i], l.host[i]
		if host < 0 {
			continue
		}
		size := sizes[rng.IntN(len(sizes))]
		switch k := rng.IntN(20); {
		case k < 8:
			var a, b []byte
			switch rng.IntN(6) {
			case 0:
				n := rng.IntN(3)
				a, b = rights(l.file, n), rights(l.hostFile, n)
			case 1:
				var u []byte
				for _, v := range []int{int(w.th.PID), int(w.th.Cred.UID), int(w.th.Cred.GID)} {
					u = append(u, socket.Int(v)...)
				}
				a = cmsg(linux.SCM_CREDENTIALS, u)
				b = a
			}
			if size > 50000 && rng.IntN(2) == 0 {
				a, b = nil, nil
			}
			size = max(size, min(1, len(b))) // package syscall adds a byte otherwise
			start := rng.IntN(len(pattern) - size + 1)
			data := pattern[start : start+size]
			w.th.Signals = nil
			n, err := w.sendmsg(w.th, our, data, a, nil, 0)
			hn, herr := syscall.SendmsgN(host, data, b, nil, linux.MSG_NOSIGNAL)
			l.same(fmt.Sprintf("send %d, %d bytes, control %x", i, size, b), fmt.Sprint(max(hn, 0), errnoOf(herr)), fmt.Sprint(n, err))
		case k < 15:
			flags := 0
			for _, f := range []int{linux.MSG_PEEK, linux.MSG_TRUNC, linux.MSG_WAITALL, linux.MSG_CMSG_CLOEXEC} {
				if rng.IntN(5) == 0 {
					flags |= f
				}
			}
			control := []int{0, 0, 8, 16, 20, 24, 32, 64, 100}[rng.IntN(9)]
			size = max(size, min(1, control))
			x, y := w.recvmsg(w.th, our, size, control, flags), hostRecv(host, size, control, flags)
			x.flags &^= linux.MSG_CMSG_CLOEXEC
			xc := describe(x.control, w.th.Close)
			yc := describe(y.control, func(fd int) { _ = syscall.Close(fd) })
			l.same(fmt.Sprintf("recv %d, %d bytes, flags %x, control %d", i, size, flags, control),
				fmt.Sprint(y.n, y.err, y.flags, len(y.name), yc), fmt.Sprint(x.n, x.err, x.flags, len(x.name), xc)) // names are made up
			require.True(w.t, x.data == y.data, "other bytes")
		case k == 15 && rng.IntN(3) == 0:
			how := rng.IntN(3)
			l.same(fmt.Sprintf("shutdown %d %d", i, how), errnoOf(syscall.Shutdown(host, how)), socket.Shutdown(&w.th.Caller, our, how))
		case k == 16 && rng.IntN(4) == 0:
			w.th.Close(our)
			_ = syscall.Close(host)
			l.host[i] = -1
			l.same(fmt.Sprintf("close %d", i), nil, nil)
		case k == 17:
			on := rng.IntN(2)
			w.put(atInt, socket.Int(on))
			l.same(fmt.Sprintf("SO_PASSCRED %d %d", i, on), errnoOf(syscall.SetsockoptInt(host, linux.SOL_SOCKET, linux.SO_PASSCRED, on)),
				socket.Setsockopt(&w.th.Caller, our, linux.SOL_SOCKET, linux.SO_PASSCRED, atInt, 4))
		case k == 18:
			var a, b [4]byte
			x, y := w.th.Ioctl(our, linux.FIONREAD, a[:]), oracle.Ioctl(host, linux.FIONREAD, b[:])
			l.same("FIONREAD", fmt.Sprint(b, y), fmt.Sprint(a, x))
		default:
			v, err := syscall.GetsockoptInt(host, linux.SOL_SOCKET, linux.SO_ERROR)
			w.put(atInt, append(socket.Int(0), socket.Int(4)...))
			x := socket.Getsockopt(&w.th.Caller, our, linux.SOL_SOCKET, linux.SO_ERROR, atInt, atInt+4)
			l.same("SO_ERROR", fmt.Sprint(v, errnoOf(err)), fmt.Sprint(binary.LittleEndian.Uint32(w.get(atInt, 4)), x))
		}
		for k := range 2 {
			if l.host[k] >= 0 {
				var a, b [4]byte
				x, y := w.th.Ioctl(l.our[k], linux.TIOCOUTQ, a[:]), oracle.Ioctl(l.host[k], linux.TIOCOUTQ, b[:])
				l.same("SIOCOUTQ", fmt.Sprint(b, y), fmt.Sprint(a, x))
				l.same(fmt.Sprintf("poll %d", k), fmt.Sprintf("%x", oracle.Poll(l.host[k])), fmt.Sprintf("%x", w.th.Poll(l.our[k])))
			}
		}
	}
}
