package tty

import (
	"encoding/binary"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/dkernel/ipc/ipctest"
	"dinos/dkernel/ipc/oracle"
	"dinos/kernel/linux"
)

// jobs is a table of processes, and of what was sent.
type jobs struct {
	mu       sync.Mutex
	sent     []string
	sessions map[int32]int32 // of groups
	tasks    []*fakeTask
}

func (j *jobs) SignalGroup(g int32, sig int) {
	j.mu.Lock()
	j.sent = append(j.sent, fmt.Sprintf("%d:%d", g, sig))
	j.mu.Unlock()
}

func (j *jobs) LoseTerminal(session int32, t *TTY, hangup bool, foreground int32) {
	for _, k := range j.tasks {
		if k.session == session && k.tty == t {
			k.tty = nil
		}
	}
	if hangup {
		j.mu.Lock()
		j.sent = append(j.sent, fmt.Sprintf("leader of %d:hup,cont, foreground %d", session, foreground))
		j.mu.Unlock()
	}
}

func (j *jobs) GroupSession(g int32) (int32, bool) { s, ok := j.sessions[g]; return s, ok }

func (j *jobs) take() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.sent
	j.sent = nil
	return s
}

type fakeTask struct {
	session, group int32
	leader, orphan bool
	ignores        bool
	tty            *TTY
}

func (k *fakeTask) Session() int32     { return k.session }
func (k *fakeTask) Group() int32       { return k.group }
func (k *fakeTask) Leader() bool       { return k.leader }
func (k *fakeTask) Terminal() *TTY     { return k.tty }
func (k *fakeTask) SetTerminal(t *TTY) { k.tty = t }
func (k *fakeTask) Orphaned() bool     { return k.orphan }
func (k *fakeTask) Ignores(int) bool   { return k.ignores }

// shell is a terminal with a session: its leader, which is a shell in the foreground, and a job of it in the background.
func shell(t *testing.T) (j *jobs, sh, job *ipctest.Thread, m, s int) {
	j = &jobs{sessions: map[int32]int32{10: 10, 11: 10, 20: 20}}
	sys := New(Config{Now: ipctest.Now, Jobs: j})
	a := &fakeTask{session: 10, group: 10, leader: true}
	b := &fakeTask{session: 10, group: 11}
	j.tasks = []*fakeTask{a, b}
	sh = ipctest.NewThread(ipctest.NewVFS())
	sh.Task = a
	m, s = openPTY(t, sys, sh)
	require.Nil(t, a.tty, "O_NOCTTY")
	require.NoError(t, sh.IoctlInt(s, linux.TIOCSCTTY, 0))
	require.NotNil(t, a.tty)
	b.tty = a.tty
	job = sh.Sibling()
	job.Task = b
	return j, sh, job, m, s
}

func word(v int32) []byte { return binary.LittleEndian.AppendUint32(nil, uint32(v)) }

func TestJobControl(t *testing.T) {
	j, sh, job, m, s := shell(t)
	b := word(0)
	require.NoError(t, sh.Ioctl(s, linux.TIOCGPGRP, b))
	require.Equal(t, word(10), b)
	require.NoError(t, sh.Ioctl(s, linux.TIOCGSID, b))
	require.Equal(t, word(10), b)

	// Keys are signals to the foreground.
	_, err := sh.Write(m, []byte("x\x03\x1a\x1c"))
	require.NoError(t, err)
	require.Equal(t, []string{"10:2", "10:20", "10:3"}, j.take())

	// The background is stopped when it reads, and when it changes settings, not when it writes.
	p := make([]byte, 10)
	_, err = job.Read(s, p)
	require.Equal(t, linux.ERESTARTSYS, err)
	require.Equal(t, []string{"11:21"}, j.take())
	_, err = job.Write(s, p[:1])
	require.NoError(t, err)
	require.Equal(t, linux.ERESTARTSYS, job.IoctlInt(s, linux.TCFLSH, 0))
	require.Equal(t, linux.ERESTARTSYS, job.Ioctl(s, linux.TIOCSPGRP, word(11)))
	require.Equal(t, []string{"11:22", "11:22"}, j.take())
	tm := defaultTermios()
	tm.Lflag |= linux.TOSTOP
	set := encode(&tm)
	require.NoError(t, sh.Ioctl(s, linux.TCSETS, set[:]))
	_, err = job.Write(s, p[:1])
	require.Equal(t, linux.ERESTARTSYS, err)
	require.Equal(t, []string{"11:22"}, j.take())

	k := job.Task.(*fakeTask)
	k.ignores = true
	_, err = job.Read(s, p)
	require.Equal(t, linux.EIO, err)
	require.NoError(t, job.Ioctl(s, linux.TIOCSPGRP, word(11)), "a shell blocks SIGTTOU")
	k.ignores = false
	require.Equal(t, int32(11), k.tty.Group())
	sh.Task.(*fakeTask).orphan = true
	_, err = sh.Read(s, p)
	require.Equal(t, linux.EIO, err)
	require.Equal(t, linux.ENOTTY, sh.Ioctl(s, linux.TIOCSPGRP, word(10)))
	require.Equal(t, linux.ESRCH, job.Ioctl(s, linux.TIOCSPGRP, word(99)))
	require.Equal(t, linux.EPERM, job.Ioctl(s, linux.TIOCSPGRP, word(20)))
	require.Equal(t, linux.EINVAL, job.Ioctl(s, linux.TIOCSPGRP, word(-1)))
	require.Empty(t, j.take())

	// The window.
	require.NoError(t, sh.Ioctl(m, linux.TIOCSWINSZ, []byte{24, 0, 80, 0, 0, 0, 0, 0}))
	require.NoError(t, sh.Ioctl(m, linux.TIOCSWINSZ, []byte{24, 0, 80, 0, 0, 0, 0, 0}))
	require.Equal(t, []string{"11:28"}, j.take())
	w := make([]byte, 8)
	require.NoError(t, job.Ioctl(s, linux.TIOCGWINSZ, w))
	require.Equal(t, []byte{24, 0, 80, 0, 0, 0, 0, 0}, w)
}

func TestControllingTerminal(t *testing.T) {
	j, sh, job, m, s := shell(t)
	tt := sh.Task.(*fakeTask).tty
	other := sh.Sibling()
	o := &fakeTask{session: 20, group: 20, leader: true}
	other.Task = o
	j.tasks = append(j.tasks, o)
	require.Equal(t, linux.EPERM, other.IoctlInt(s, linux.TIOCSCTTY, 0))
	require.Equal(t, linux.ENOTTY, other.IoctlInt(s, linux.TIOCNOTTY, 0))
	require.Equal(t, linux.ENOTTY, other.Ioctl(s, linux.TIOCGPGRP, word(0)))
	_, err := other.OpenDevice(tt.sys.openTTY, 0, linux.O_RDWR)
	require.Equal(t, linux.ENXIO, err)
	fd, err := job.OpenDevice(tt.sys.openTTY, 0, linux.O_RDWR)
	require.NoError(t, err)
	job.Close(fd)

	require.NoError(t, job.IoctlInt(s, linux.TIOCNOTTY, 0), "just its own")
	require.Nil(t, job.Task.(*fakeTask).tty)
	require.NotNil(t, sh.Task.(*fakeTask).tty)
	job.Task.(*fakeTask).tty = tt
	Disown(sh.Task.(*fakeTask), true)
	require.Equal(t, []string{"10:1", "10:18"}, j.take())
	require.Nil(t, job.Task.(*fakeTask).tty)
	require.Zero(t, tt.Session())

	// Opening gives it to a leader without one.
	fd, err = other.OpenDevice(tt.sys.openSlave, tt.dev, linux.O_RDWR)
	require.NoError(t, err)
	require.Equal(t, tt, o.tty)
	other.Close(fd)
	require.NoError(t, sh.IoctlInt(s, linux.TIOCSCTTY, 1), "root can steal it")
	require.Nil(t, o.tty)
	j.take()

	// The master closes.
	go func() { time.Sleep(time.Millisecond); sh.Close(m) }()
	p := make([]byte, 1)
	_, err = sh.Read(s, p)
	require.Contains(t, []error{nil, linux.EIO}, err)
	n, err := sh.Read(s, p)
	require.Zero(t, n)
	require.NoError(t, err)
	_, err = sh.Write(s, p)
	require.Equal(t, linux.EIO, err)
	require.Equal(t, []string{"leader of 10:hup,cont, foreground 10"}, j.take())
	require.EqualValues(t, 0x15d, sh.Poll(s))
	require.Equal(t, linux.EIO, sh.Ioctl(s, linux.TCGETS, make([]byte, 36)))
	require.NotNil(t, tt.sys.PTY(0))
	sh.Close(s)
	require.Nil(t, tt.sys.PTY(0), "the number is free again")
}

// Reads wait as VMIN and VTIME say.
func TestMinTime(t *testing.T) {
	th := ipctest.NewThread(ipctest.NewVFS())
	m, s := openPTY(t, New(Config{Now: ipctest.Now}), th)
	set := func(least, tenths uint8) {
		tm := defaultTermios()
		tm.Lflag = 0
		tm.CC[linux.VMIN], tm.CC[linux.VTIME] = least, tenths
		b := encode(&tm)
		require.NoError(t, th.Ioctl(s, linux.TCSETS, b[:36]))
	}
	read := func() (string, time.Duration) {
		p, start := make([]byte, 10), time.Now()
		n, err := th.Read(s, p)
		require.NoError(t, err)
		return string(p[:n]), time.Since(start)
	}
	typed := func(after time.Duration, text string) {
		typist := th.Sibling()
		time.AfterFunc(after, func() { _, _ = typist.Write(m, []byte(text)) })
	}
	set(0, 0)
	got, _ := read()
	require.Empty(t, got)
	set(0, 1)
	got, took := read()
	require.Empty(t, got)
	require.GreaterOrEqual(t, took, 100*time.Millisecond)
	typed(10*time.Millisecond, "a")
	set(0, 255)
	got, _ = read()
	require.Equal(t, "a", got)
	set(3, 0)
	typed(0, "b")
	typed(20*time.Millisecond, "cd")
	got, _ = read()
	require.Equal(t, "bcd", got)
	set(3, 1)
	typed(0, "e")
	got, took = read()
	require.Equal(t, "e", got)
	require.GreaterOrEqual(t, took, 100*time.Millisecond)
	set(9, 0)
	typed(0, "f")
	time.AfterFunc(20*time.Millisecond, th.Interrupt)
	got, _ = read()
	require.Equal(t, "f", got, "what was read before a signal counts")
	_, err := th.Read(s, make([]byte, 1))
	require.Equal(t, linux.ERESTARTSYS, err)
}

// A master that does not read makes writers wait, and nothing is lost or mixed up.
func TestFlow(t *testing.T) {
	th := ipctest.NewThread(ipctest.NewVFS())
	m, s := openPTY(t, New(Config{Now: ipctest.Now}), th)
	var wg sync.WaitGroup
	const each = 100000
	for _, fd := range []int{m, s} {
		w := th.Sibling()
		wg.Add(1)
		go func() {
			defer wg.Done()
			p := make([]byte, each)
			for i := range p {
				p[i] = byte('a' + i%26)
				if i%50 == 49 {
					p[i] = '\n'
				}
			}
			n, err := w.Write(fd, p)
			if n != each || err != nil {
				t.Errorf("write: %d, %v", n, err)
			}
		}()
	}
	tm := defaultTermios()
	tm.Lflag &^= linux.ECHO
	tm.Oflag = 0
	b := encode(&tm)
	require.NoError(t, th.Ioctl(s, linux.TCSETS, b[:36]))
	for _, fd := range []int{m, s} {
		r := th.Sibling()
		wg.Add(1)
		go func() {
			defer wg.Done()
			p := make([]byte, 4096)
			for n := 0; n < each; {
				c, err := r.Read(fd, p)
				if err != nil {
					t.Errorf("read: %v", err)
					return
				}
				for _, x := range p[:c] {
					if want := byte('a' + n%26); x != want && !(n%50 == 49 && x == '\n') {
						t.Errorf("byte %d: %q instead of %q", n, x, want)
						return
					}
					n++
				}
			}
		}()
	}
	wg.Wait()
}

// Packet mode and what else a master sees, compared with the host's.
func TestPackets(t *testing.T) {
	p := newPair(t)
	both := func(master bool, req uint32, arg []byte) {
		t.Helper()
		our, host := p.s, p.hs
		if master {
			our, host = p.m, p.hm
		}
		a, b := append([]byte(nil), arg...), append([]byte(nil), arg...)
		x, y := p.th.Ioctl(our, req, a), oracle.Ioctl(host, req, b)
		require.Equal(t, y, x, "ioctl %#x", req)
		if req != linux.TIOCGPTN && req != linux.TIOCGDEV {
			require.Equal(t, b, a, "ioctl %#x", req)
		}
	}
	num := func(master bool, req uint32, arg uint64) {
		t.Helper()
		our, host := p.s, p.hs
		if master {
			our, host = p.m, p.hm
		}
		require.Equal(t, oracle.IoctlInt(host, req, uintptr(arg)), p.th.IoctlInt(our, req, arg), "ioctl %#x %d", req, arg)
	}
	read := func() { p.settle(); p.poll(); p.read(true, 100); p.poll() }
	both(true, linux.TIOCPKT, word(1))
	both(true, linux.TIOCGPKT, word(0))
	both(true, linux.TIOCGPTLCK, word(7))
	p.print("hello\n")
	read()
	num(false, linux.TCXONC, linux.TCOOFF)
	read()
	num(false, linux.TCXONC, linux.TCOON)
	read()
	num(false, linux.TCFLSH, linux.TCIFLUSH)
	read()
	num(false, linux.TCFLSH, linux.TCIOFLUSH)
	read()
	tm := defaultTermios()
	tm.Iflag &^= linux.IXON
	p.set(tm)
	read()
	tm = defaultTermios()
	p.set(tm)
	read()
	p.typed("x\x03")
	read()
	read()
	both(true, linux.TIOCPKT, word(0))
	read()
	for _, req := range []uint32{linux.TCGETS, linux.TCGETA, linux.TIOCGWINSZ, linux.TIOCGPGRP, linux.TIOCGSID, linux.TIOCGETD,
		linux.TIOCOUTQ, linux.TIOCGEXCL, linux.TIOCSETD, linux.TIOCMGET, linux.TIOCGPTN, linux.TIOCGDEV, linux.TIOCGPKT} {
		both(false, req, make([]byte, 64))
		both(true, req, make([]byte, 64))
	}
	for _, req := range []uint32{linux.TCSBRK, linux.TCFLSH, linux.TCXONC, linux.TIOCEXCL, linux.TIOCNXCL, linux.TIOCNOTTY} {
		num(false, req, 1)
		num(false, req, 17)
	}
	old := encodeOld(&tm)
	both(false, linux.TCSETA, old[:])
	both(false, linux.TCGETS2, make([]byte, 64))
	tm.Cflag = tm.Cflag&^linux.CBAUD | linux.BOTHER
	tm.ISpeed, tm.OSpeed = 12345, 12345
	set := encode(&tm)
	both(false, linux.TCSETS2, set[:])
	both(false, linux.TCGETS2, make([]byte, 64))
	_ = syscall.Close(p.hs)
	p.th.Close(p.s)
	p.same(oracle.Poll(p.hm), p.th.Poll(p.m), "poll after closing")
	p.s, p.hs = p.m, p.hm
	read()
}

// The kernel's side of the console.
func TestConsole(t *testing.T) {
	th := ipctest.NewThread(ipctest.NewVFS())
	sys := New(Config{Now: ipctest.Now})
	fd, err := th.OpenDevice(sys.openConsole, 0, linux.O_RDWR)
	require.NoError(t, err)
	con := sys.Console()
	require.Equal(t, 3, con.Input([]byte("hi\r")))
	p := make([]byte, 20)
	n, err := th.Read(fd, p)
	require.NoError(t, err)
	require.Equal(t, "hi\n", string(p[:n]))
	require.Equal(t, "hi\r\n", string(p[:con.Output(p)]))
	_, err = th.Write(fd, []byte("out\n"))
	require.NoError(t, err)
	go func() {
		time.Sleep(time.Millisecond)
		for con.Output(make([]byte, 2)) > 0 {
		}
	}()
	require.NoError(t, th.IoctlInt(fd, linux.TCSBRK, 1), "waits until the output has left")
	con.Hangup()
	n, err = th.Read(fd, p)
	require.NoError(t, err)
	require.Zero(t, n)
	fd, err = th.OpenDevice(sys.openConsole, 0, linux.O_RDWR)
	require.NoError(t, err)
	_, err = th.Write(fd, []byte("again"))
	require.NoError(t, err)
	for con.Input(p) == len(p) {
	}
	require.Positive(t, con.Output(p))
}

func BenchmarkEcho(b *testing.B) {
	th := ipctest.NewThread(ipctest.NewVFS())
	m, s := openPTY(b, New(Config{Now: ipctest.Now}), th)
	line, p := []byte("a line as one types it\n"), make([]byte, 100)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = th.Write(m, line)
		_, _ = th.Read(s, p)
		_, _ = th.Read(m, p)
	}
}
