package proc

import (
	"encoding/binary"

	"dinos/dkernel/signal"
	"dinos/kernel/linux"
	"dinos/kernel/ureg"
)

// rseq is the registration of rseq(2).
type rseq struct {
	addr uint64 // 0: none
	len  uint32
	sig  uint32
	cpu  uint32 // what the program was told
	told bool
}

// fork is the registration of a child with a copy of the memory.
func (r rseq) fork() rseq { r.told = false; return r }

// struct rseq (include/uapi/linux/rseq.h).
const (
	rseqSize    = 32
	rseqCS      = 8
	rseqNode    = 20
	rseqCSSize  = 32
	rseqUnknown = 1<<32 - 1 // RSEQ_CPU_ID_UNINITIALIZED
)

// Rseq is rseq(2). linux.EINVAL, linux.EPERM, linux.EBUSY, linux.EFAULT.
func (t *Thread) Rseq(addr uint64, size, flags, sig uint32) error {
	r := &t.rseq
	if flags&linux.RSEQ_FLAG_UNREGISTER != 0 {
		switch {
		case flags != linux.RSEQ_FLAG_UNREGISTER, r.addr == 0, r.addr != addr, r.len != size:
			return linux.EINVAL
		case r.sig != sig:
			return linux.EPERM
		}
		if err := t.rseqTell(0, rseqUnknown, 0, 0); err != nil {
			return linux.EFAULT
		}
		*r = rseq{}
		return nil
	}
	switch {
	case flags != 0:
		return linux.EINVAL
	case r.addr != 0 && (r.addr != addr || r.len != size):
		return linux.EINVAL
	case r.addr != 0 && r.sig != sig:
		return linux.EPERM
	case r.addr != 0:
		return linux.EBUSY
	case size < rseqSize || addr%rseqSize != 0:
		return linux.EINVAL
	case addr >= ureg.UserTop || addr+uint64(size) > ureg.UserTop:
		return linux.EFAULT
	}
	*r = rseq{addr: addr, len: size, sig: sig}
	t.work.Or(workRseq)
	return nil
}

// RseqStale reports whether the thread has a registration that names another CPU than the one it is about to enter ring 3 on: then the
// run loop calls Preempted, and Deliver. It is one comparison for threads without rseq.
func (t *Thread) RseqStale(cpu uint32) bool {
	return t.rseq.addr != 0 && (t.rseq.cpu != cpu || !t.rseq.told)
}

// Preempted must be called when the thread lost its CPU in the midst of ring 3, before it enters ring 3 again: Deliver then ends its
// restartable sequence.
func (t *Thread) Preempted() {
	if t.rseq.addr != 0 {
		t.work.Or(workRseq)
	}
}

// rseqTell stores CPU numbers to struct rseq.
func (t *Thread) rseqTell(start, cpu, node, cid uint32) error {
	b := t.scratch[:8]
	le := binary.LittleEndian
	le.PutUint32(b, start)
	le.PutUint32(b[4:], cpu)
	if _, err := t.mem.CopyOut(t.rseq.addr, b); err != nil {
		return err
	}
	le.PutUint32(b, node)
	le.PutUint32(b[4:], cid)
	_, err := t.mem.CopyOut(t.rseq.addr+rseqNode, b)
	return err
}

// rseqFix ends a restartable sequence that was interrupted, and tells the program which CPU it is on.
func (t *Thread) rseqFix(f *ureg.Frame) {
	r := &t.rseq
	if r.addr == 0 {
		return
	}
	err := t.rseqAbort(f)
	cpu, node := uint32(0), uint32(0)
	if c := t.sys.cfg.CPU; c != nil {
		cpu, node = c()
	}
	if err == nil && (!r.told || cpu != r.cpu) {
		// A concurrency id has to be unique among the running threads of the process; so are CPUs.
		err = t.rseqTell(cpu, cpu, node, cpu)
		r.cpu, r.told = cpu, true
	}
	if err != nil {
		*r = rseq{}
		t.force(signal.Kernel(linux.SIGSEGV))
	}
}

// rseqAbort moves RIP to the abort handler if it is in a critical section (rseq_ip_fixup in kernel/rseq.c).
func (t *Thread) rseqAbort(f *ureg.Frame) error {
	b := t.scratch[:rseqCSSize]
	le := binary.LittleEndian
	if _, err := t.mem.CopyIn(b[:8], t.rseq.addr+rseqCS); err != nil {
		return err
	}
	cs := le.Uint64(b)
	if cs == 0 {
		return nil
	}
	if cs >= ureg.UserTop {
		return linux.EINVAL
	}
	if _, err := t.mem.CopyIn(b, cs); err != nil {
		return err
	}
	version, flags := le.Uint32(b), le.Uint32(b[4:])
	start, length, abort := le.Uint64(b[8:]), le.Uint64(b[16:]), le.Uint64(b[24:])
	if start >= ureg.UserTop || start+length >= ureg.UserTop || start+length < start || abort >= ureg.UserTop || version != 0 ||
		abort-start < length || abort < 4 {
		return linux.EINVAL
	}
	if _, err := t.mem.CopyIn(b[:4], abort-4); err != nil {
		return err
	}
	if le.Uint32(b) != t.rseq.sig {
		return linux.EINVAL
	}
	inside := f.RIP-start < length
	if inside && flags != 0 {
		return linux.EINVAL
	}
	clear(b[:8])
	if _, err := t.mem.CopyOut(t.rseq.addr+rseqCS, b[:8]); err != nil {
		return err
	}
	if inside {
		f.RIP = abort
	}
	return nil
}

// Membarrier is membarrier(2). linux.EINVAL, linux.EPERM: not registered.
func (t *Thread) Membarrier(cmd, flags, cpu int32) (uint64, error) {
	const private = linux.MEMBARRIER_CMD_PRIVATE_EXPEDITED | linux.MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE |
		linux.MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ
	const register = private << 1
	const global = linux.MEMBARRIER_CMD_GLOBAL | linux.MEMBARRIER_CMD_GLOBAL_EXPEDITED | linux.MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED
	if flags != 0 && (cmd != linux.MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ || flags != linux.MEMBARRIER_CMD_FLAG_CPU) {
		return 0, linux.EINVAL
	}
	if flags == 0 {
		cpu = -1
	}
	barrier := t.sys.cfg.Barrier
	if barrier == nil {
		if cmd == linux.MEMBARRIER_CMD_QUERY {
			return 0, nil
		}
		return 0, linux.EINVAL
	}
	p := t.proc
	p.mu.Lock()
	have := p.barriers
	p.mu.Unlock()
	switch cmd {
	case linux.MEMBARRIER_CMD_QUERY:
		return private | register | global | linux.MEMBARRIER_CMD_GET_REGISTRATIONS, nil
	case linux.MEMBARRIER_CMD_GET_REGISTRATIONS:
		return uint64(have), nil
	case linux.MEMBARRIER_CMD_GLOBAL, linux.MEMBARRIER_CMD_GLOBAL_EXPEDITED:
		barrier(nil, false, false, -1)
	case linux.MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, linux.MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED,
		linux.MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, linux.MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ:
		p.mu.Lock()
		p.barriers |= uint32(cmd)
		p.mu.Unlock()
	case linux.MEMBARRIER_CMD_PRIVATE_EXPEDITED, linux.MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, linux.MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ:
		if have&uint32(cmd<<1) == 0 {
			return 0, linux.EPERM
		}
		core := cmd == linux.MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE
		if p.alive() > 1 || core || t.mem.users.Load() > 1 {
			barrier(p, core, cmd == linux.MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ, int(cpu))
		}
	default:
		return 0, linux.EINVAL
	}
	return 0, nil
}
