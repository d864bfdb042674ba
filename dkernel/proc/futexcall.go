package proc

import (
	"encoding/binary"

	"dinos/dkernel/cred"
	"dinos/dkernel/futex"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

// call prepares the futex.Call that the thread keeps, so that none is allocated.
func (t *Thread) call(deadline int64) *futex.Call {
	c := &t.futexCall
	*c = futex.Call{Mem: t.mem.Space, Sleeper: t.sleeper, Waiter: &t.waiter, Owner: &t.owner, Deadline: deadline}
	return c
}

// Futex is futex(2) with its arguments as they are: val2 is the address of a timeout or a number, by the operation. Errors are
// those of package futex; linux.ENOSYS: no such operation.
func (t *Thread) Futex(addr uint64, op int32, val uint32, val2, addr2 uint64, val3 uint32) (uint64, error) {
	cmd := op & linux.FUTEX_CMD_MASK
	shared := op&linux.FUTEX_PRIVATE_FLAG == 0
	table, mem := t.sys.futex, t.mem.Space
	n2 := int(int32(val2))
	switch cmd {
	case linux.FUTEX_WAKE:
		val3 = linux.FUTEX_BITSET_MATCH_ANY
		fallthrough
	case linux.FUTEX_WAKE_BITSET:
		if op&linux.FUTEX_CLOCK_REALTIME != 0 {
			return 0, linux.ENOSYS
		}
		n, err := table.Wake(mem, addr, shared, int(int32(val)), val3)
		return uint64(n), err
	case linux.FUTEX_WAIT, linux.FUTEX_WAIT_BITSET, linux.FUTEX_WAIT_REQUEUE_PI, linux.FUTEX_LOCK_PI, linux.FUTEX_LOCK_PI2:
		return 0, t.futexWait(cmd, op, addr, shared, val, val2, addr2, val3)
	}
	if op&linux.FUTEX_CLOCK_REALTIME != 0 {
		return 0, linux.ENOSYS
	}
	n, err := 0, error(linux.ENOSYS)
	switch cmd {
	case linux.FUTEX_REQUEUE:
		n, err = table.Requeue(mem, addr, addr2, shared, int(int32(val)), n2, nil)
	case linux.FUTEX_CMP_REQUEUE:
		n, err = table.Requeue(mem, addr, addr2, shared, int(int32(val)), n2, &val3)
	case linux.FUTEX_WAKE_OP:
		n, err = table.WakeOp(mem, addr, addr2, shared, int(int32(val)), n2, val3)
	case linux.FUTEX_CMP_REQUEUE_PI:
		n, err = table.CmpRequeuePI(mem, addr, addr2, shared, int(int32(val)), n2, val3)
	case linux.FUTEX_TRYLOCK_PI:
		err = table.LockPI(t.call(wait.Forever), addr, shared, true)
	case linux.FUTEX_UNLOCK_PI:
		err = table.UnlockPI(mem, addr, shared, &t.owner)
	}
	return uint64(n), err
}

// futexWait is the operations that sleep.
func (t *Thread) futexWait(cmd, op int32, addr uint64, shared bool, val uint32, timeout, addr2 uint64, val3 uint32) error {
	real := op&linux.FUTEX_CLOCK_REALTIME != 0
	switch cmd {
	case linux.FUTEX_LOCK_PI: // of this one the clock is always that
		if real {
			return linux.ENOSYS
		}
		real = true
	case linux.FUTEX_WAIT:
		if real {
			return linux.ENOSYS
		}
		val3 = linux.FUTEX_BITSET_MATCH_ANY
	}
	if timeout == 0 {
		return t.futexSleep(cmd, addr, shared, val, addr2, val3, wait.Forever)
	}
	ns, err := t.timespec(timeout)
	if err != nil {
		return err
	}
	if cmd == linux.FUTEX_WAIT {
		return t.futexSleepUntil(cmd, addr, shared, val, addr2, val3, after(t.sys.clock.Monotonic(), ns))
	}
	if !real {
		return t.futexSleepUntil(cmd, addr, shared, val, addr2, val3, ns)
	}
	return t.futexSleepUntil(cmd, addr, shared, val, addr2, val3, t.fromReal(ns))
}

// fromReal is the time of CLOCK_MONOTONIC at which CLOCK_REALTIME is ns, if nobody sets it.
func (t *Thread) fromReal(ns int64) int64 {
	c := t.sys.clock
	return after(c.Monotonic(), max(ns-c.Realtime(), -1))
}

func (t *Thread) futexSleep(cmd int32, addr uint64, shared bool, val uint32, addr2 uint64, val3 uint32, deadline int64) error {
	c := t.call(deadline)
	table := t.sys.futex
	switch cmd {
	case linux.FUTEX_WAIT_REQUEUE_PI:
		return table.WaitRequeuePI(c, addr, addr2, shared, val)
	case linux.FUTEX_LOCK_PI, linux.FUTEX_LOCK_PI2:
		return table.LockPI(c, addr, shared, false)
	}
	return table.Wait(c, addr, shared, val, val3)
}

// futexSleepUntil is futexSleep with a deadline, which an interruption does not move.
func (t *Thread) futexSleepUntil(cmd int32, addr uint64, shared bool, val uint32, addr2 uint64, val3 uint32, deadline int64) error {
	err := t.futexSleep(cmd, addr, shared, val, addr2, val3, deadline)
	if err == linux.ERESTARTSYS { // of FUTEX_WAIT and FUTEX_WAIT_BITSET; the others begin again as they are
		return t.SetRestart(func() (uint64, error) {
			return 0, t.futexSleepUntil(cmd, addr, shared, val, addr2, val3, deadline)
		})
	}
	return err
}

// timespec reads a struct timespec and returns it in ns. linux.EFAULT, linux.EINVAL.
func (t *Thread) timespec(addr uint64) (int64, error) {
	b := t.scratch[:16]
	if _, err := t.mem.CopyIn(b, addr); err != nil {
		return 0, err
	}
	ts := linux.Timespec{Sec: int64(binary.LittleEndian.Uint64(b)), Nsec: int64(binary.LittleEndian.Uint64(b[8:]))}
	ns, ok := ts.Ns()
	if !ok {
		return 0, linux.EINVAL
	}
	return ns, nil
}

// futexWaitvSize is the size of struct futex_waitv.
const futexWaitvSize = 24

// FutexWaitv is futex_waitv(2): it returns the index of a futex that was woken. linux.EINVAL, linux.EFAULT, linux.EAGAIN, linux.ETIMEDOUT,
// linux.ERESTARTSYS.
func (t *Thread) FutexWaitv(addr uint64, n, flags uint32, timeout uint64, clock int32) (uint64, error) {
	if flags != 0 || n == 0 || n > linux.FUTEX_WAITV_MAX || addr == 0 {
		return 0, linux.EINVAL
	}
	deadline := int64(wait.Forever)
	if timeout != 0 {
		if clock != linux.CLOCK_MONOTONIC && clock != linux.CLOCK_REALTIME {
			return 0, linux.EINVAL
		}
		ns, err := t.timespec(timeout)
		if err != nil {
			return 0, err
		}
		if deadline = ns; clock == linux.CLOCK_REALTIME {
			deadline = t.fromReal(ns)
		}
	}
	b := make([]byte, n*futexWaitvSize)
	if _, err := t.mem.CopyIn(b, addr); err != nil {
		return 0, err
	}
	vecs := make([]futex.Vec, n)
	for i := range vecs {
		e := b[i*futexWaitvSize:]
		le := binary.LittleEndian
		val, f := le.Uint64(e), le.Uint32(e[16:])
		if f&^(linux.FUTEX2_PRIVATE|3) != 0 || f&3 != linux.FUTEX2_SIZE_U32 || le.Uint32(e[20:]) != 0 || val>>32 != 0 {
			return 0, linux.EINVAL
		}
		vecs[i] = futex.Vec{Addr: le.Uint64(e[8:]), Val: uint32(val), Shared: f&linux.FUTEX2_PRIVATE == 0}
	}
	i, err := t.sys.futex.Waitv(t.call(deadline), vecs)
	return uint64(i), err
}

// robustSize is the size of struct robust_list_head.
const robustSize = 24

// SetRobustList is set_robust_list(2). linux.EINVAL.
func (t *Thread) SetRobustList(head, size uint64) error {
	if size != robustSize {
		return linux.EINVAL
	}
	t.robust.Store(head)
	return nil
}

// GetRobustList is get_robust_list(2): id 0 is the caller. linux.ESRCH, linux.EPERM.
func (t *Thread) GetRobustList(id int32) (head, size uint64, err error) {
	u := t
	if id != 0 {
		if u = t.sys.Thread(id); u == nil {
			return 0, 0, linux.ESRCH
		}
	}
	if !t.MayInspect(u) {
		return 0, 0, linux.EPERM
	}
	return u.robust.Load(), robustSize, nil
}

// MayInspect reports whether t may look into u as a debugger could (PTRACE_MODE_READ_REALCREDS in ptrace(2)).
func (t *Thread) MayInspect(u *Thread) bool {
	if t.proc == u.proc {
		return true
	}
	c, to := t.Cred(), u.Cred()
	if c.Can(cred.SYS_PTRACE) {
		return true
	}
	return c.UID == to.EUID && c.UID == to.SUID && c.UID == to.UID && c.GID == to.EGID && c.GID == to.SGID && c.GID == to.GID &&
		u.proc.Dumpable() && to.Permitted&^c.Permitted == 0
}

// exitRobust tells the next owners of robust futexes that their owner has died (exit_robust_list in kernel/futex/core.c).
func (t *Thread) exitRobust() {
	head := t.robust.Swap(0)
	if head == 0 {
		return
	}
	var b [robustSize]byte
	if _, err := t.mem.CopyIn(b[:], head); err != nil {
		return
	}
	le := binary.LittleEndian
	entry, offset, pending := le.Uint64(b[:]), le.Uint64(b[8:]), le.Uint64(b[16:])
	for n := 0; entry&^1 != head && n < linux.ROBUST_LIST_LIMIT; n++ {
		// The next one first: a woken thread may change this one.
		_, errNext := t.mem.CopyIn(b[:8], entry&^1)
		next := le.Uint64(b[:])
		if entry&^1 != pending&^1 && t.futexDeath(entry&^1+offset, entry&1 != 0, false) != nil {
			return
		}
		if errNext != nil {
			return
		}
		entry = next
	}
	if pending&^1 != 0 {
		_ = t.futexDeath(pending&^1+offset, pending&1 != 0, true)
	}
}

// futexDeath marks the word of a futex that t owns (handle_futex_death).
func (t *Thread) futexDeath(addr uint64, pi, pending bool) error {
	if addr%4 != 0 {
		return linux.EINVAL
	}
	v, err := t.mem.Load32(addr)
	for err == nil {
		owner := v & linux.FUTEX_TID_MASK
		if pending && !pi && owner == 0 {
			// It died between unlocking and waking.
			_, _ = t.sys.futex.Wake(t.mem.Space, addr, true, 1, linux.FUTEX_BITSET_MATCH_ANY)
			return nil
		}
		if owner != uint32(t.TID()) {
			return nil
		}
		var was uint32
		if was, err = t.mem.CompareAndSwap32(addr, v, v&linux.FUTEX_WAITERS|linux.FUTEX_OWNER_DIED); err != nil {
			break
		}
		if was == v {
			if !pi && v&linux.FUTEX_WAITERS != 0 {
				_, _ = t.sys.futex.Wake(t.mem.Space, addr, true, 1, linux.FUTEX_BITSET_MATCH_ANY)
			}
			return nil
		}
		v = was
	}
	return err
}

// SetTidAddress is set_tid_address(2): it returns the thread id.
func (t *Thread) SetTidAddress(addr uint64) int32 {
	t.clearTID = addr
	return t.TID()
}
