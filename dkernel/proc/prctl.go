package proc

import (
	"bytes"

	"dinos/dkernel/cred"
	"dinos/kernel/linux"
)

// processPrctl is the state of prctl(2) that a process has. Guarded by Process.mu.
type processPrctl struct {
	dumpable   int
	thpDisable uint64
}

// threadPrctl is the state of prctl(2) that a thread has.
type threadPrctl struct {
	slack, defaultSlack uint64 // ns; kept and told, timers do not become less exact by it
	tsc                 uint64
	mce                 uint64
	ioFlusher           bool
	nprocExceeded       bool
}

const slackDefault = 50_000

func newProcessPrctl() processPrctl { return processPrctl{dumpable: 1} }

func (s processPrctl) fork() processPrctl { return s }

func (s *processPrctl) exec(x *Program, old *cred.Cred) {
	s.dumpable = 1
	if x.Secure {
		s.dumpable = 0
	}
}

func newThreadPrctl() threadPrctl {
	return threadPrctl{slack: slackDefault, defaultSlack: slackDefault, tsc: linux.PR_TSC_ENABLE, mce: mceDefault}
}

func (s threadPrctl) fork() threadPrctl {
	s.defaultSlack, s.nprocExceeded = s.slack, false
	return s
}

const (
	mceClear   = 0
	mceSet     = 1
	mceLate    = 0
	mceEarly   = 1
	mceDefault = 2
)

// Name is the thread's name (comm). Anybody may call it.
func (t *Thread) Name() string {
	if n := t.name.Load(); n != nil {
		return *n
	}
	return ""
}

// SetName changes the name, of which at most 15 bytes are kept. Anybody may call it.
func (t *Thread) SetName(n string) {
	n = n[:min(len(n), 15)]
	t.name.Store(&n)
}

// Dumpable is PR_GET_DUMPABLE of the process. Anybody may call it.
func (p *Process) Dumpable() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.prctl.dumpable == 1
}

// Prctl is prctl(2). What belongs to the address space (PR_SET_MM, PR_SET_VMA) and what this kernel does not have is linux.EINVAL, as
// on a Linux that was built without it.
func (t *Thread) Prctl(op int, a2, a3, a4, a5 uint64) (uint64, error) {
	rest := a3 | a4 | a5
	switch op {
	case linux.PR_SET_PDEATHSIG:
		if a2 > linux.NumSignals {
			return 0, linux.EINVAL
		}
		t.deathSig.Store(int32(a2))
	case linux.PR_GET_PDEATHSIG:
		return 0, t.putInt(a2, t.deathSig.Load())
	case linux.PR_GET_DUMPABLE, linux.PR_SET_DUMPABLE, linux.PR_SET_THP_DISABLE, linux.PR_GET_THP_DISABLE:
		return t.prctlProcess(op, a2, rest)
	case linux.PR_GET_TIMING:
		return 0, nil // PR_TIMING_STATISTICAL
	case linux.PR_SET_TIMING:
		if a2 != 0 {
			return 0, linux.EINVAL
		}
	case linux.PR_SET_NAME, linux.PR_GET_NAME:
		return 0, t.prctlName(op, a2)
	case linux.PR_GET_SECCOMP:
		return 0, nil // SECCOMP_MODE_DISABLED
	case linux.PR_GET_KEEPCAPS, linux.PR_SET_KEEPCAPS, linux.PR_CAPBSET_READ, linux.PR_CAPBSET_DROP, linux.PR_GET_SECUREBITS,
		linux.PR_SET_SECUREBITS, linux.PR_CAP_AMBIENT, linux.PR_SET_NO_NEW_PRIVS, linux.PR_GET_NO_NEW_PRIVS:
		return t.prctlCred(op, a2, a3, a4, a5)
	case linux.PR_GET_TSC:
		return 0, t.putInt(a2, int32(t.prctl.tsc))
	case linux.PR_SET_TSC:
		// Only what is so anyway: CR4.TSD would be needed for the rest.
		if a2 != linux.PR_TSC_ENABLE {
			return 0, linux.EINVAL
		}
	case linux.PR_SET_TIMERSLACK:
		if t.prctl.slack = a2; int64(a2) <= 0 {
			t.prctl.slack = t.prctl.defaultSlack
		}
	case linux.PR_GET_TIMERSLACK:
		return t.prctl.slack, nil
	case linux.PR_MCE_KILL, linux.PR_MCE_KILL_GET:
		return t.prctlMCE(op, a2, a3, a4|a5)
	case linux.PR_SET_CHILD_SUBREAPER:
		t.sys.tree.Lock()
		defer t.sys.tree.Unlock()
		if t.proc.subreaper = a2 != 0; a2 != 0 {
			t.proc.markSubreaper()
		}
	case linux.PR_GET_CHILD_SUBREAPER:
		t.sys.tree.RLock()
		on := t.proc.subreaper
		t.sys.tree.RUnlock()
		return 0, t.putInt(a2, int32(bit(on)))
	case linux.PR_GET_TID_ADDRESS:
		return 0, t.putLong(a2, t.clearTID)
	case linux.PR_SET_IO_FLUSHER, linux.PR_GET_IO_FLUSHER:
		return t.prctlFlusher(op, a2, rest)
	default:
		return 0, linux.EINVAL
	}
	return 0, nil
}

func bit(on bool) uint64 {
	if on {
		return 1
	}
	return 0
}

// markSubreaper tells all descendants that they have one above them. tree is locked.
func (p *Process) markSubreaper() {
	for c := p.children; c != nil; c = c.nextChild {
		if !c.underSubreaper {
			c.underSubreaper = true
			c.markSubreaper()
		}
	}
}

func (t *Thread) prctlProcess(op int, a2, rest uint64) (uint64, error) {
	p := t.proc
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &p.prctl
	switch op {
	case linux.PR_GET_DUMPABLE:
		return uint64(s.dumpable), nil
	case linux.PR_SET_DUMPABLE:
		if a2 > 1 {
			return 0, linux.EINVAL
		}
		s.dumpable = int(a2)
	case linux.PR_SET_THP_DISABLE:
		if rest != 0 {
			return 0, linux.EINVAL
		}
		s.thpDisable = bit(a2 != 0)
	case linux.PR_GET_THP_DISABLE:
		if a2|rest != 0 {
			return 0, linux.EINVAL
		}
		return s.thpDisable, nil
	}
	return 0, nil
}

func (t *Thread) prctlName(op int, addr uint64) error {
	var b [16]byte
	if op == linux.PR_GET_NAME {
		copy(b[:15], t.Name())
		_, err := t.mem.CopyOut(addr, b[:])
		return err
	}
	// The name may end just before memory that is not there.
	n, err := t.mem.CopyIn(b[:15], addr)
	end := bytes.IndexByte(b[:n], 0)
	if end < 0 {
		if err != nil {
			return err
		}
		end = 15
	}
	t.SetName(string(b[:end]))
	return nil
}

func (t *Thread) prctlMCE(op int, a2, a3, rest uint64) (uint64, error) {
	if op == linux.PR_MCE_KILL_GET {
		if a2|a3|rest != 0 {
			return 0, linux.EINVAL
		}
		return t.prctl.mce, nil
	}
	switch {
	case rest != 0:
		return 0, linux.EINVAL
	case a2 == mceClear && a3 == 0:
		t.prctl.mce = mceDefault
	case a2 == mceSet && a3 <= mceDefault:
		t.prctl.mce = a3
	default:
		return 0, linux.EINVAL
	}
	return 0, nil
}

func (t *Thread) prctlFlusher(op int, a2, rest uint64) (uint64, error) {
	if !t.Can(cred.SYS_RESOURCE) {
		return 0, linux.EPERM
	}
	if rest != 0 || op == linux.PR_SET_IO_FLUSHER && a2 > 1 || op == linux.PR_GET_IO_FLUSHER && a2 != 0 {
		return 0, linux.EINVAL
	}
	if op == linux.PR_GET_IO_FLUSHER {
		return bit(t.prctl.ioFlusher), nil
	}
	t.prctl.ioFlusher = a2 == 1
	return 0, nil
}

// prctlCred is what prctl(2) can do to credentials.
func (t *Thread) prctlCred(op int, a2, a3, a4, a5 uint64) (uint64, error) {
	old := t.Cred()
	n := *old
	switch op {
	case linux.PR_GET_KEEPCAPS:
		return bit(old.SecureBits&linux.SECBIT_KEEP_CAPS != 0), nil
	case linux.PR_SET_KEEPCAPS:
		if a2 > 1 {
			return 0, linux.EINVAL
		}
		if old.SecureBits&(linux.SECBIT_KEEP_CAPS<<1) != 0 {
			return 0, linux.EPERM
		}
		n.SecureBits = n.SecureBits&^linux.SECBIT_KEEP_CAPS | uint32(a2)*linux.SECBIT_KEEP_CAPS
	case linux.PR_CAPBSET_READ:
		if a2 > uint64(cred.LastCap) {
			return 0, linux.EINVAL
		}
		return bit(old.Bounding.Has(cred.Cap(a2))), nil
	case linux.PR_CAPBSET_DROP:
		if !old.Can(cred.SETPCAP) {
			return 0, linux.EPERM
		}
		if a2 > uint64(cred.LastCap) {
			return 0, linux.EINVAL
		}
		n.Bounding &^= 1 << a2
	case linux.PR_GET_SECUREBITS:
		return uint64(old.SecureBits), nil
	case linux.PR_SET_SECUREBITS:
		const locks = 0xaa // each lock is the bit above what it locks
		locked := old.SecureBits & locks
		if (locked>>1)&(old.SecureBits^uint32(a2)) != 0 || locked&^uint32(a2) != 0 || a2&^linux.SECBITS_ALL != 0 || !old.Can(cred.SETPCAP) {
			return 0, linux.EPERM
		}
		n.SecureBits = uint32(a2)
	case linux.PR_SET_NO_NEW_PRIVS:
		if a2 != 1 || a3|a4|a5 != 0 {
			return 0, linux.EINVAL
		}
		n.NoNewPrivs = true
	case linux.PR_GET_NO_NEW_PRIVS:
		if a2|a3|a4|a5 != 0 {
			return 0, linux.EINVAL
		}
		return bit(old.NoNewPrivs), nil
	case linux.PR_CAP_AMBIENT:
		if v, done, err := ambient(&n, a2, a3, a4|a5); done {
			return v, err
		}
	}
	t.setCred(&n)
	return 0, nil
}

// ambient is PR_CAP_AMBIENT; done: nothing has changed.
func ambient(n *cred.Cred, op, c, rest uint64) (v uint64, done bool, err error) {
	if op == linux.PR_CAP_AMBIENT_CLEAR_ALL {
		if c|rest != 0 {
			return 0, true, linux.EINVAL
		}
		n.Ambient = 0
		return 0, false, nil
	}
	if rest != 0 || c > uint64(cred.LastCap) {
		return 0, true, linux.EINVAL
	}
	x := cred.Cap(c)
	switch op {
	case linux.PR_CAP_AMBIENT_IS_SET:
		return bit(n.Ambient.Has(x)), true, nil
	case linux.PR_CAP_AMBIENT_LOWER:
		n.Ambient &^= 1 << x
	case linux.PR_CAP_AMBIENT_RAISE:
		if !n.Permitted.Has(x) || !n.Inheritable.Has(x) || n.SecureBits&linux.SECBIT_NO_CAP_AMBIENT != 0 {
			return 0, true, linux.EPERM
		}
		n.Ambient |= 1 << x
	default:
		return 0, true, linux.EINVAL
	}
	return 0, false, nil
}

func (t *Thread) putInt(addr uint64, v int32) error {
	b := [4]byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)}
	_, err := t.mem.CopyOut(addr, b[:])
	return err
}

func (t *Thread) putLong(addr, v uint64) error {
	var b [8]byte
	for i := range b {
		b[i] = byte(v >> (8 * i))
	}
	_, err := t.mem.CopyOut(addr, b[:])
	return err
}

// Personality is personality(2): it returns the old one; 0xffffffff: ask only.
func (t *Thread) Personality(n uint32) uint32 {
	if n == 0xffffffff {
		return t.personality.Load()
	}
	return t.personality.Swap(n)
}
