package tty

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/dkernel/ipc/ipctest"
	"dinos/dkernel/ipc/oracle"
	"dinos/kernel/linux"
)

// pair is a pseudo terminal: two descriptors of ours, and two of the host's.
type pair struct {
	t        *testing.T
	th       *ipctest.Thread
	m, s     int
	hm, hs   int
	log      []string
	packet   bool
	noBlock  bool
	compared int
}

func newPair(t *testing.T) *pair {
	p := &pair{t: t, th: ipctest.NewThread(ipctest.NewVFS())}
	sys := New(Config{Now: ipctest.Now})
	p.m, p.s = openPTY(t, sys, p.th)
	p.th.SetNonblock(p.m, true)
	p.th.SetNonblock(p.s, true)
	p.hm, p.hs = oracle.PTY(t)
	return p
}

func (p *pair) logf(format string, args ...any) { p.log = append(p.log, fmt.Sprintf(format, args...)) }

func (p *pair) same(want, got any, what string) {
	p.t.Helper()
	if fmt.Sprint(want) == fmt.Sprint(got) {
		p.compared++
		return
	}
	from := max(0, len(p.log)-25)
	for _, l := range p.log[from:] {
		p.t.Log(l)
	}
	p.t.Fatalf("%s: Linux %v, here %v", what, want, got)
}

// set changes the settings of both.
func (p *pair) set(tm linux.Termios) {
	b := encode(&tm)
	p.logf("set %x %x %x cc %q", tm.Iflag, tm.Oflag, tm.Lflag, tm.CC[:])
	require.NoError(p.t, oracle.Ioctl(p.hs, linux.TCSETS, b[:linux.TermiosSize]))
	require.NoError(p.t, p.th.Ioctl(p.s, linux.TCSETS, b[:linux.TermiosSize]))
	var x, y [linux.Termios2Size]byte
	require.NoError(p.t, oracle.Ioctl(p.hs, linux.TCGETS2, x[:]))
	require.NoError(p.t, p.th.Ioctl(p.s, linux.TCGETS2, y[:]))
	p.same(x, y, "TCGETS2")
}

// typed has both masters write. The host's kernel passes that on in the background. Polling waits for it, but only if there is
// nothing to read yet, so all is read before.
func (p *pair) typed(s string) {
	p.readAll()
	p.logf("type %q", s)
	n, err := p.th.Write(p.m, []byte(s))
	h, herr := syscall.Write(p.hm, []byte(s))
	p.same(fmt.Sprint(h, herr), fmt.Sprint(n, err), "write to the master")
	p.settle()
}

func (p *pair) readAll() {
	for p.th.Poll(p.s)&linux.EPOLLIN != 0 {
		p.read(false, 4096)
	}
}

// settle gives the host's kernel, which passes on what was written in the background, time to come to what we came to. If it never
// does, the comparison that follows says so.
func (p *pair) settle() {
	for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); time.Sleep(20 * time.Microsecond) {
		hp, op := [2]int16{oracle.Poll(p.hs), oracle.Poll(p.hm)}, [2]int16{p.th.Poll(p.s), p.th.Poll(p.m)}
		if hp == op && p.waiting(p.hs, p.s) && p.waiting(p.hm, p.m) {
			return
		}
	}
}

// waiting compares how many bytes wait.
func (p *pair) waiting(host, our int) bool {
	var a, b [4]byte
	require.NoError(p.t, p.th.Ioctl(our, linux.FIONREAD, a[:]))
	require.NoError(p.t, oracle.Ioctl(host, linux.FIONREAD, b[:]))
	return a == b
}

func (p *pair) read(master bool, n int) {
	our, host := p.s, p.hs
	if master {
		our, host = p.m, p.hm
	}
	p.settle()
	a, b := make([]byte, n), make([]byte, n)
	an, aerr := p.th.Read(our, a)
	bn, berr := syscall.Read(host, b)
	bn = max(bn, 0)
	p.logf("read master=%v %d: %q %v / %q %v", master, n, a[:an], aerr, b[:bn], berr)
	p.same(fmt.Sprintf("%q %v", b[:bn], errOf(berr)), fmt.Sprintf("%q %v", a[:an], aerr), "read")
}

func errOf(e error) error {
	if e, ok := e.(syscall.Errno); ok {
		return linux.Errno(e)
	}
	return e
}

func (p *pair) poll() {
	p.same(oracle.Poll(p.hs), p.th.Poll(p.s), "poll of the slave")
	p.same(oracle.Poll(p.hm), p.th.Poll(p.m), "poll of the master")
}

func (p *pair) inq() {
	var a, b [4]byte
	require.NoError(p.t, p.th.Ioctl(p.s, linux.FIONREAD, a[:]))
	require.NoError(p.t, oracle.Ioctl(p.hs, linux.FIONREAD, b[:]))
	p.same(b, a, "FIONREAD")
}

func (p *pair) print(s string) {
	p.logf("print %q", s)
	n, err := p.th.Write(p.s, []byte(s))
	h, herr := syscall.Write(p.hs, []byte(s))
	p.same(fmt.Sprint(max(h, 0), errOf(herr)), fmt.Sprint(n, err), "write")
}

func openPTY(t testing.TB, sys *System, th *ipctest.Thread) (m, s int) {
	md, err := th.OpenDevice(sys.openMaster, 0, linux.O_RDWR|linux.O_NOCTTY)
	require.NoError(t, err)
	var b [4]byte
	require.NoError(t, th.Ioctl(md, linux.TIOCSPTLCK, b[:]))
	require.NoError(t, th.Ioctl(md, linux.TIOCGPTN, b[:]))
	sd, err := th.OpenDevice(sys.openSlave, sys.PTY(int(b[0])).dev, linux.O_RDWR|linux.O_NOCTTY)
	require.NoError(t, err)
	return md, sd
}

// Random settings, typing, printing and reading give what they give on the host's Linux, byte for byte.
func TestLikeLinux(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	compared := 0
	for range 40 {
		p := newPair(t)
		likeLinux(p, rng)
		compared += p.compared
		_ = syscall.Close(p.hs)
	}
	t.Logf("%d answers compared", compared)
}

func likeLinux(p *pair, rng *rand.Rand) {
	tm := defaultTermios()
	p.set(tm)
	for range 150 {
		switch k := rng.IntN(20); {
		case k < 8:
			p.typed(text(rng, &tm, 1+rng.IntN(30)))
			p.inq()
		case k < 11:
			p.print(text(rng, &tm, 1+rng.IntN(30)))
			p.read(true, 4096)
		case k < 14:
			p.read(false, 1+rng.IntN(10))
		case k < 18:
			p.read(true, 4096)
		default:
			p.drain()
			tm = settings(rng)
			p.set(tm)
		}
		p.poll()
	}
}

// drain reads all of both sides.
func (p *pair) drain() {
	p.readAll()
	p.read(true, 4096)
}

// text is random text that has all characters which mean something.
func text(rng *rand.Rand, tm *linux.Termios, n int) string {
	const plain = "ab c_d-1Z\xe4\xc3\xa4\xff\t\t\r\n\b\x01\x7f"
	b := make([]byte, n)
	for i := range b {
		switch rng.IntN(3) {
		case 0:
			b[i] = tm.CC[rng.IntN(len(tm.CC))]
			if b[i] < 2 {
				b[i] = 'x'
			}
		default:
			b[i] = plain[rng.IntN(len(plain))]
		}
	}
	if tm.Lflag&linux.ISIG == 0 || tm.Lflag&linux.NOFLSH != 0 || !strings.ContainsAny(string(b), string(tm.CC[:2])+"\x1a") {
		return string(b)
	}
	// A signal drops output that was begun in the same moment, or not: the host's kernel passes it on in the background. So
	// nothing in the same text may restart the output.
	for i, c := range b {
		signal := c == tm.CC[linux.VINTR] || c == tm.CC[linux.VQUIT] || c == tm.CC[linux.VSUSP]
		if c == tm.CC[linux.VSTART] || signal && tm.Iflag&linux.IXANY != 0 {
			b[i] = 'x'
		}
	}
	return string(b)
}

func settings(rng *rand.Rand) linux.Termios {
	tm := defaultTermios()
	flip := func(f *uint32, bits ...uint32) {
		for _, b := range bits {
			if rng.IntN(4) == 0 {
				*f ^= b
			}
		}
	}
	flip(&tm.Iflag, linux.ISTRIP, linux.INLCR, linux.IGNCR, linux.ICRNL, linux.IUCLC, linux.IXON, linux.IXANY, linux.IMAXBEL, linux.IUTF8,
		linux.PARMRK)
	flip(&tm.Oflag, linux.OPOST, linux.OLCUC, linux.ONLCR, linux.OCRNL, linux.ONOCR, linux.ONLRET, linux.XTABS)
	flip(&tm.Lflag, linux.ISIG, linux.ICANON, linux.ECHO, linux.ECHOE, linux.ECHOK, linux.ECHONL, linux.NOFLSH, linux.ECHOCTL,
		linux.ECHOPRT, linux.ECHOKE, linux.IEXTEN)
	if rng.IntN(2) == 0 {
		tm.CC[linux.VEOL] = 'Z'
		tm.CC[linux.VEOL2] = '-'
	}
	if rng.IntN(3) == 0 {
		tm.CC[linux.VMIN] = uint8(rng.IntN(4))
	}
	return tm
}
