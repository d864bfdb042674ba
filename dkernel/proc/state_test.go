package proc

import (
	"encoding/binary"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/dkernel/cred"
	"dinos/dkernel/signal"
	"dinos/dkernel/vfs/procfs"
	"dinos/kernel/linux"
	"dinos/kernel/ureg"
)

const no = ^uint32(0)

// Changes of user ids, by who makes them: real, effective, saved id after it (setuid(2), setreuid(2), setresuid(2)).
func TestUserIDs(t *testing.T) {
	m := newMachine(t, false)
	type ids [3]uint32
	for _, c := range []struct {
		name   string
		before ids
		do     func(t *Thread) error
		err    error
		after  ids
	}{
		{"root setuid", ids{0, 0, 0}, func(t *Thread) error { return t.Setuid(5) }, nil, ids{5, 5, 5}},
		{"user setuid to another", ids{5, 5, 5}, func(t *Thread) error { return t.Setuid(6) }, linux.EPERM, ids{5, 5, 5}},
		{"user setuid to saved", ids{5, 5, 7}, func(t *Thread) error { return t.Setuid(7) }, nil, ids{5, 7, 7}},
		{"setuid -1", ids{0, 0, 0}, func(t *Thread) error { return t.Setuid(no) }, linux.EINVAL, ids{0, 0, 0}},
		{"swap", ids{5, 7, 7}, func(t *Thread) error { return t.Setreuid(7, 5) }, nil, ids{7, 5, 5}},
		{"setreuid real only", ids{5, 7, 9}, func(t *Thread) error { return t.Setreuid(7, no) }, nil, ids{7, 7, 7}},
		{"setreuid to saved", ids{5, 5, 9}, func(t *Thread) error { return t.Setreuid(no, 9) }, nil, ids{5, 9, 9}},
		{"setreuid real to saved", ids{5, 5, 9}, func(t *Thread) error { return t.Setreuid(9, no) }, linux.EPERM, ids{5, 5, 9}},
		{"setreuid effective to real", ids{5, 7, 9}, func(t *Thread) error { return t.Setreuid(no, 5) }, nil, ids{5, 5, 9}},
		{"setresuid", ids{5, 6, 7}, func(t *Thread) error { return t.Setresuid(7, 5, no) }, nil, ids{7, 5, 7}},
		{"setresuid to another", ids{5, 6, 7}, func(t *Thread) error { return t.Setresuid(no, 8, no) }, linux.EPERM, ids{5, 6, 7}},
		{"root setresuid", ids{0, 0, 0}, func(t *Thread) error { return t.Setresuid(1, 2, 3) }, nil, ids{1, 2, 3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m.run(func(u *prog) {
				n := *cred.Root()
				n.UID, n.EUID, n.SUID, n.FSUID = c.before[0], c.before[1], c.before[2], c.before[1]
				if c.before != (ids{}) {
					n.Effective, n.Permitted = 0, 0
				}
				u.setCred(&n)
				require.Equal(t, c.err, c.do(u.Thread))
				x := u.Cred()
				require.Equal(t, c.after, ids{x.UID, x.EUID, x.SUID})
				require.Equal(t, x.EUID, x.FSUID)
				require.Same(t, x, u.Caller.Cred)
			})
		})
	}
}

// What becomes of capabilities when root becomes somebody else, and back.
func TestCapabilities(t *testing.T) {
	m := newMachine(t, false)
	m.run(func(u *prog) {
		require.NoError(t, u.Setresuid(no, 5, no))
		require.Zero(t, u.Cred().Effective)
		require.Equal(t, cred.AllCaps, u.Cred().Permitted)
		require.NoError(t, u.Setresuid(no, 0, no))
		require.Equal(t, cred.AllCaps, u.Cred().Effective)
		require.EqualValues(t, 0, u.Setfsuid(5))
		require.False(t, u.Can(cred.DAC_OVERRIDE))
		require.True(t, u.Can(cred.SETUID))
		require.EqualValues(t, 5, u.Setfsuid(0))
		require.True(t, u.Can(cred.DAC_OVERRIDE))

		_, err := u.Prctl(linux.PR_SET_KEEPCAPS, 1, 0, 0, 0)
		require.NoError(t, err)
		require.NoError(t, u.Setresuid(5, 5, 5))
		require.Equal(t, cred.AllCaps, u.Cred().Permitted, "kept")
		require.Zero(t, u.Cred().Effective)
		e, p, i, err := u.Capget(0)
		require.NoError(t, err)
		require.Equal(t, []cred.Caps{0, cred.AllCaps, 0}, []cred.Caps{e, p, i})
		kill := cred.Caps(1 << cred.KILL)
		require.NoError(t, u.Capset(0, kill, kill, 0))
		require.Equal(t, linux.EPERM, u.Capset(0, kill, kill|1, 0), "none that are not permitted")
		require.Equal(t, linux.EPERM, u.Capset(0, kill|1, kill, 0))
		require.Equal(t, linux.EPERM, u.Capset(1, kill, kill, 0), "of others")
		require.NoError(t, u.Capset(0, kill, kill, kill))
		require.Equal(t, linux.EPERM, u.Setgroups([]uint32{1}))
		_, err = u.Prctl(linux.PR_CAP_AMBIENT, linux.PR_CAP_AMBIENT_RAISE, uint64(cred.KILL), 0, 0)
		require.NoError(t, err)
		_, err = u.Prctl(linux.PR_CAP_AMBIENT, linux.PR_CAP_AMBIENT_RAISE, uint64(cred.CHOWN), 0, 0)
		require.Equal(t, linux.EPERM, err)
		v, err := u.Prctl(linux.PR_CAP_AMBIENT, linux.PR_CAP_AMBIENT_IS_SET, uint64(cred.KILL), 0, 0)
		require.NoError(t, err)
		require.EqualValues(t, 1, v)
		require.NoError(t, u.Capset(0, 0, 0, 0))
		require.Zero(t, u.Cred().Ambient)
		_, _, _, err = u.Capget(9999)
		require.Equal(t, linux.ESRCH, err)
	})
	m.run(func(u *prog) {
		require.NoError(t, u.Setgroups([]uint32{7, 3, 5}))
		require.Equal(t, []uint32{3, 5, 7}, u.Cred().Groups)
		require.NoError(t, u.Setresuid(5, 5, 5))
		require.Zero(t, u.Cred().Permitted, "not kept")
		require.False(t, u.Process().Dumpable(), "who changed ids is not dumpable")
		id := u.fork(func(c *prog) { require.Equal(t, linux.EPERM, c.Setuid(0)) })
		u.status(id)
	})
}

func TestPrctl(t *testing.T) {
	m := newMachine(t, false)
	const at = memBase + 0x40
	m.run(func(u *prog) {
		for _, c := range []struct {
			op             int
			a2, a3, a4, a5 uint64
			want           uint64
			err            error
		}{
			{linux.PR_SET_PDEATHSIG, 65, 0, 0, 0, 0, linux.EINVAL}, {linux.PR_GET_PDEATHSIG, 8, 0, 0, 0, 0, linux.EFAULT},
			{linux.PR_GET_DUMPABLE, 0, 0, 0, 0, 1, nil}, {linux.PR_SET_DUMPABLE, 2, 0, 0, 0, 0, linux.EINVAL}, {linux.PR_SET_DUMPABLE, 0, 0, 0, 0, 0, nil},
			{linux.PR_GET_DUMPABLE, 0, 0, 0, 0, 0, nil}, {linux.PR_SET_KEEPCAPS, 2, 0, 0, 0, 0, linux.EINVAL}, {linux.PR_GET_KEEPCAPS, 0, 0, 0, 0, 0, nil},
			{linux.PR_CAPBSET_READ, 41, 0, 0, 0, 0, linux.EINVAL}, {linux.PR_CAPBSET_READ, 40, 0, 0, 0, 1, nil}, {linux.PR_CAPBSET_DROP, 40, 0, 0, 0, 0, nil},
			{linux.PR_CAPBSET_READ, 40, 0, 0, 0, 0, nil}, {linux.PR_SET_TIMERSLACK, 77, 0, 0, 0, 0, nil}, {linux.PR_GET_TIMERSLACK, 0, 0, 0, 0, 77, nil},
			{linux.PR_SET_TIMERSLACK, 0, 0, 0, 0, 0, nil}, {linux.PR_GET_TIMERSLACK, 0, 0, 0, 0, 50000, nil}, {linux.PR_SET_TIMING, 1, 0, 0, 0, 0, linux.EINVAL},
			{linux.PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0, 0, linux.EINVAL}, {linux.PR_SET_NO_NEW_PRIVS, 1, 1, 0, 0, 0, linux.EINVAL}, {linux.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0, 0, nil},
			{linux.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0, nil}, {linux.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0, 1, nil}, {linux.PR_SET_THP_DISABLE, 1, 0, 0, 0, 0, nil},
			{linux.PR_GET_THP_DISABLE, 0, 0, 0, 0, 1, nil}, {linux.PR_GET_THP_DISABLE, 1, 0, 0, 0, 0, linux.EINVAL}, {linux.PR_SET_TSC, linux.PR_TSC_SIGSEGV, 0, 0, 0, 0, linux.EINVAL},
			{linux.PR_MCE_KILL, 1, 1, 0, 0, 0, nil}, {linux.PR_MCE_KILL_GET, 0, 0, 0, 0, 1, nil}, {linux.PR_MCE_KILL, 5, 0, 0, 0, 0, linux.EINVAL},
			{linux.PR_SET_SECUREBITS, 0x100, 0, 0, 0, 0, linux.EPERM}, {linux.PR_SET_SECUREBITS, 3, 0, 0, 0, 0, nil}, {linux.PR_SET_SECUREBITS, 0, 0, 0, 0, 0, linux.EPERM},
			{linux.PR_GET_SECUREBITS, 0, 0, 0, 0, 3, nil}, {linux.PR_SET_VMA, 0, 0, 0, 0, 0, linux.EINVAL}, {12345, 0, 0, 0, 0, 0, linux.EINVAL},
			{linux.PR_SET_NAME, 8, 0, 0, 0, 0, linux.EFAULT}, {linux.PR_CAP_AMBIENT, 9, 0, 0, 0, 0, linux.EINVAL},
		} {
			v, err := u.Prctl(c.op, c.a2, c.a3, c.a4, c.a5)
			if c.err != nil {
				require.Equal(t, c.err, err, "%+v", c)
			} else {
				require.NoError(t, err, "%+v", c)
				require.Equal(t, c.want, v, "%+v", c)
			}
		}
		_, _ = u.space().CopyOut(at, []byte("a name that is too long\x00"))
		_, err := u.Prctl(linux.PR_SET_NAME, at, 0, 0, 0)
		require.NoError(t, err)
		require.Equal(t, "a name that is ", u.Name())
		_, err = u.Prctl(linux.PR_GET_NAME, at+64, 0, 0, 0)
		require.NoError(t, err)
		require.EqualValues(t, 0, u.space().get32(at+64+15)&0xff)
		// A name that ends where memory does.
		end := uint64(memBase + memSize - 3)
		_, _ = u.space().CopyOut(end, []byte("ab\x00"))
		_, err = u.Prctl(linux.PR_SET_NAME, end, 0, 0, 0)
		require.NoError(t, err)
		require.Equal(t, "ab", u.Name())
		require.Zero(t, u.Personality(0xffffffff))
		u.Personality(0x20000)
		require.Equal(t, "2.6.60", u.Uname().Release)
		require.NoError(t, u.SetHostname("other"))
		require.Equal(t, "other", u.Uname().Nodename)
		require.Equal(t, linux.EINVAL, u.SetHostname(string(make([]byte, 65))))
	})
}

func TestLimits(t *testing.T) {
	m := newMachine(t, false)
	m.run(func(u *prog) {
		_, err := u.Prlimit(0, 16, nil)
		require.Equal(t, linux.EINVAL, err)
		_, err = u.Prlimit(9999, 0, nil)
		require.Equal(t, linux.ESRCH, err)
		_, err = u.Prlimit(0, linux.RLIMIT_AS, &linux.Rlimit{Cur: 2, Max: 1})
		require.Equal(t, linux.EINVAL, err)
		_, err = u.Prlimit(0, linux.RLIMIT_NOFILE, &linux.Rlimit{Cur: 1, Max: 1<<20 + 1})
		require.Equal(t, linux.EPERM, err)
		old, err := u.Prlimit(0, linux.RLIMIT_NOFILE, &linux.Rlimit{Cur: 77, Max: 100})
		require.NoError(t, err)
		require.Equal(t, linux.Rlimit{Cur: 1024, Max: 1 << 20}, old)
		u.deliver()
		require.Equal(t, 77, u.Caller.OpenLimit)
		_, err = u.Prlimit(0, linux.RLIMIT_AS, &linux.Rlimit{Cur: 5 << 20, Max: linux.RLIM_INFINITY})
		require.NoError(t, err)
		require.EqualValues(t, 5<<20, u.space().limits.AS)
		var ready, done atomic.Bool
		id := u.fork(func(c *prog) {
			require.Equal(t, 77, c.Caller.OpenLimit)
			require.NoError(t, c.Setresuid(5, 5, 5))
			_, err := c.Prlimit(0, linux.RLIMIT_NOFILE, &linux.Rlimit{Cur: 50, Max: 200})
			require.Equal(t, linux.EPERM, err, "the hard limit is for good")
			_, err = c.Prlimit(u.PID(), linux.RLIMIT_NOFILE, nil)
			require.Equal(t, linux.EPERM, err)
			ready.Store(true)
			eventually(t, done.Load)
			c.deliver()
			require.Equal(t, 9, c.Caller.OpenLimit)
		})
		eventually(t, ready.Load)
		_, err = u.Prlimit(id, linux.RLIMIT_NOFILE, &linux.Rlimit{Cur: 9, Max: 9})
		require.NoError(t, err)
		done.Store(true)
		u.status(id)
	})
}

func TestSched(t *testing.T) {
	m := newMachine(t, false)
	m.run(func(u *prog) {
		set, err := u.SchedGetaffinity(0)
		require.NoError(t, err)
		require.Equal(t, 2, set.Count())
		require.Equal(t, linux.EINVAL, u.SchedSetaffinity(0, CPUSet{1: 1}), "a CPU that is not there")
		require.NoError(t, u.SchedSetaffinity(0, CPUSet{0: 0xfe}))
		set, _ = u.SchedGetaffinity(u.TID())
		require.Equal(t, CPUSet{0: 2}, set)
		require.Equal(t, linux.ESRCH, u.SchedSetaffinity(9999, set))
		require.Equal(t, linux.EINVAL, u.SchedSetscheduler(0, linux.SCHED_FIFO, 0))
		require.Equal(t, linux.EINVAL, u.SchedSetscheduler(0, linux.SCHED_OTHER, 1))
		require.Equal(t, linux.EINVAL, u.SchedSetscheduler(0, 4, 0))
		require.NoError(t, u.SchedSetscheduler(0, linux.SCHED_RR|linux.SCHED_RESET_ON_FORK, 7))
		policy, prio, err := u.SchedGetscheduler(0)
		require.NoError(t, err)
		require.Equal(t, []int{linux.SCHED_RR | linux.SCHED_RESET_ON_FORK, 7}, []int{policy, prio})
		ns, _ := u.SchedRRGetInterval(0)
		require.EqualValues(t, 100e6, ns)
		id := u.fork(func(c *prog) {
			policy, prio, _ := c.SchedGetscheduler(0)
			require.Equal(t, []int{linux.SCHED_OTHER, 0}, []int{policy, prio}, "reset on fork")
			require.NoError(t, c.Setresuid(5, 5, 5))
			require.Equal(t, linux.EPERM, c.SchedSetscheduler(0, linux.SCHED_FIFO, 5))
			require.NoError(t, c.Setpriority(linux.PRIO_PROCESS, 0, 5))
			require.Equal(t, linux.EACCES, c.Setpriority(linux.PRIO_PROCESS, 0, 0))
			require.Equal(t, linux.EPERM, c.Setpriority(linux.PRIO_PROCESS, u.PID(), 19))
			require.Equal(t, linux.EPERM, c.SchedSetaffinity(u.PID(), CPUSet{0: 3}))
			n, err := c.Getpriority(linux.PRIO_USER, 5)
			require.NoError(t, err)
			require.Equal(t, 15, n)
		})
		u.status(id)
		_, err = u.Getpriority(7, 0)
		require.Equal(t, linux.EINVAL, err)
		_, err = u.Getpriority(linux.PRIO_PROCESS, 9999)
		require.Equal(t, linux.ESRCH, err)
		require.NoError(t, u.Setpriority(linux.PRIO_PGRP, 0, -100))
		n, _ := u.Getpriority(linux.PRIO_PGRP, 0)
		require.Equal(t, 40, n)
		require.NoError(t, u.SchedSetattr(0, &linux.SchedAttr{Policy: linux.SCHED_BATCH, Nice: 3}))
		a, err := u.SchedGetattr(0)
		require.NoError(t, err)
		require.EqualValues(t, []int32{linux.SCHED_BATCH, 3}, []int32{int32(a.Policy), a.Nice})
		require.Equal(t, linux.EINVAL, u.SchedSetattr(0, &linux.SchedAttr{Flags: 1 << 40}))
		require.NoError(t, u.IoprioSet(linux.IOPRIO_WHO_PROCESS, 0, linux.IOPRIO_CLASS_BE<<13|4))
		p, err := u.IoprioGet(linux.IOPRIO_WHO_PROCESS, 0)
		require.NoError(t, err)
		require.Equal(t, linux.IOPRIO_CLASS_BE<<13|4, p)
		require.Equal(t, linux.EINVAL, u.IoprioSet(linux.IOPRIO_WHO_PROCESS, 0, 7<<13))
		low, high, err := SchedPriorityRange(linux.SCHED_FIFO)
		require.NoError(t, err)
		require.Equal(t, []int{1, 99}, []int{low, high})
	})
}

// A critical section is aborted when the thread loses its CPU in it, and by a signal; elsewhere nothing happens.
func TestRseq(t *testing.T) {
	const area, cs, abort, sig = memBase + 0x1000, memBase + 0x1040, memBase + 0x2000, 0x53053053
	cpu := atomic.Uint32{}
	m := newMachine(t, false, func(c *Config) { c.CPU = func() (uint32, uint32) { return cpu.Load(), 1 } })
	setup := func(u *prog) {
		b := make([]byte, 32)
		binary.LittleEndian.PutUint64(b[8:], code)
		binary.LittleEndian.PutUint64(b[16:], 0x10)
		binary.LittleEndian.PutUint64(b[24:], abort)
		_, _ = u.space().CopyOut(cs, b)
		u.space().put32(abort-4, sig)
		u.ok(func() error { return u.Rseq(area, 32, 0, sig) })
	}
	m.run(func(u *prog) {
		for _, c := range []struct {
			addr       uint64
			size, flag uint32
			err        error
		}{{area + 8, 32, 0, linux.EINVAL}, {area, 16, 0, linux.EINVAL}, {area, 32, 2, linux.EINVAL}, {1 << 63, 32, 0, linux.EFAULT}, {area, 32, 1, linux.EINVAL}} {
			require.Equal(t, c.err, u.Rseq(c.addr, c.size, c.flag, sig), "%+v", c)
		}
		cpu.Store(3)
		setup(u)
		require.Equal(t, []uint32{3, 3, 1, 3}, []uint32{u.space().get32(area), u.space().get32(area + 4), u.space().get32(area + 20), u.space().get32(area + 24)})
		require.Equal(t, linux.EBUSY, u.Rseq(area, 32, 0, sig))
		require.Equal(t, linux.EPERM, u.Rseq(area, 32, 0, 1))
		require.Equal(t, linux.EINVAL, u.Rseq(area+32, 32, 0, sig))
		require.False(t, u.RseqStale(3))
		require.True(t, u.RseqStale(2))

		u.space().put64(area+8, cs)
		u.Regs.RIP, u.Regs.OrigRAX = code+0x10, ureg.NoSyscall
		u.Preempted()
		u.deliver()
		require.EqualValues(t, code+0x10, u.Regs.RIP, "behind the section")
		require.Zero(t, u.space().get64(area+8))

		u.space().put64(area+8, cs)
		u.Regs.RIP = code + 8
		cpu.Store(2)
		u.Preempted()
		u.deliver()
		require.EqualValues(t, abort, u.Regs.RIP)
		require.EqualValues(t, 2, u.space().get32(area+4))

		u.space().put64(area+8, cs)
		u.Regs.RIP = code + 8
		u.on(10, 0, 0, func(*prog, signal.Info) {})
		u.Regs.RIP = code + 8
		_ = u.Tgkill(u.PID(), u.TID(), 10)
		u.deliver()
		require.EqualValues(t, abort, u.Regs.RIP, "the handler returns to the abort handler")
		require.EqualValues(t, 1, u.handled.Load())
		u.Regs.RIP = code

		id := u.fork(func(c *prog) { require.Equal(t, linux.EBUSY, c.Rseq(area, 32, 0, sig), "inherited by fork") })
		u.status(id)
		u.thread(1, func(c *prog) { require.NoError(t, c.Rseq(area+32, 32, 0, sig), "not by threads") })
		eventually(t, func() bool { return u.Process().alive() == 1 })
		require.Equal(t, linux.EPERM, u.Rseq(area, 32, linux.RSEQ_FLAG_UNREGISTER, 1))
		require.NoError(t, u.Rseq(area, 32, linux.RSEQ_FLAG_UNREGISTER, sig))
		require.EqualValues(t, no, u.space().get32(area+4))
	})
	// Descriptors that lie.
	for name, spoil := range map[string]func(s *testSpace){
		"signature":        func(s *testSpace) { s.put32(abort-4, 1) },
		"version":          func(s *testSpace) { s.put32(cs, 1) },
		"abort inside":     func(s *testSpace) { s.put64(cs+24, code+4) },
		"in the kernel":    func(s *testSpace) { s.put64(cs+8, 1<<63) },
		"nowhere":          func(s *testSpace) { s.put64(area+8, 0x10) },
		"wraps":            func(s *testSpace) { s.put64(cs+16, ^uint64(0)) },
		"not a user addr":  func(s *testSpace) { s.put64(area+8, 1<<63) },
		"unsupported flag": func(s *testSpace) { s.put32(cs+4, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			require.EqualValues(t, linux.SIGSEGV|0x80, m.run(func(u *prog) {
				setup(u)
				u.space().put64(area+8, cs)
				spoil(u.space())
				u.Regs.RIP, u.Regs.OrigRAX = code+8, ureg.NoSyscall
				u.Preempted()
				u.deliver()
				t.Error("alive")
			}))
		})
	}
}

func TestMembarrier(t *testing.T) {
	type call struct {
		all, core, rseq bool
		cpu             int
	}
	var got []call
	m := newMachine(t, false, func(c *Config) {
		c.Barrier = func(p *Process, core, rseq bool, cpu int) { got = append(got, call{p == nil, core, rseq, cpu}) }
	})
	m.run(func(u *prog) {
		do := func(cmd, flags, cpu int32) error { _, err := u.Membarrier(cmd, flags, cpu); return err }
		mask, err := u.Membarrier(linux.MEMBARRIER_CMD_QUERY, 0, 0)
		require.NoError(t, err)
		require.EqualValues(t, 0x3ff, mask)
		require.Equal(t, linux.EINVAL, do(1<<12, 0, 0))
		require.Equal(t, linux.EINVAL, do(linux.MEMBARRIER_CMD_GLOBAL, 1, 0))
		require.Equal(t, linux.EPERM, do(linux.MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0))
		require.NoError(t, do(linux.MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0))
		require.NoError(t, do(linux.MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ, 0, 0))
		require.NoError(t, do(linux.MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0))
		require.Empty(t, got, "one thread needs no barrier")
		u.thread(1, func(c *prog) { c.err(c.Pause) })
		require.NoError(t, do(linux.MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0))
		require.NoError(t, do(linux.MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ, linux.MEMBARRIER_CMD_FLAG_CPU, 1))
		require.NoError(t, do(linux.MEMBARRIER_CMD_GLOBAL, 0, 0))
		require.Equal(t, []call{{false, false, false, -1}, {false, false, true, 1}, {true, false, false, -1}}, got)
		u.exitGroup(0)
	})
	bare := newMachine(t, false)
	bare.run(func(u *prog) {
		mask, err := u.Membarrier(linux.MEMBARRIER_CMD_QUERY, 0, 0)
		require.NoError(t, err)
		require.Zero(t, mask)
		_, err = u.Membarrier(linux.MEMBARRIER_CMD_GLOBAL, 0, 0)
		require.Equal(t, linux.EINVAL, err)
	})
}

func TestProcfs(t *testing.T) {
	m := newMachine(t, false)
	m.run(func(u *prog) {
		table := m.sys.Proc()
		u.on(10, 0, 0, func(*prog, signal.Info) {})
		u.disposition(12, linux.SIG_IGN)
		u.block(40)
		u.kill(u.PID(), 40)
		u.Ran(5, 6)
		var i procfs.Info
		e := table.Process(u.PID())
		require.True(t, e.Info(&i))
		require.Equal(t, []any{"test", byte('R'), int32(1), u.PID(), u.PID(), 1, int64(5), int64(6)}, []any{i.Comm, i.State, i.PPID, i.Group, i.Session, i.Threads, i.User, i.System})
		require.EqualValues(t, []uint64{1 << 9, 1 << 11, 1 << 39, 1 << 39, 1}, []uint64{i.Caught, i.Ignored, i.Blocked, i.SharedPending, i.Queued})
		require.Equal(t, -1, int(i.TTYGroup))
		id := u.fork(func(c *prog) { c.err(c.Pause) })
		eventually(t, func() bool { return table.Process(id).Info(&i) && i.State == 'S' })
		u.kill(id, linux.SIGSTOP)
		u.status2(id, linux.WUNTRACED, linux.SIGSTOP<<8|0x7f)
		require.True(t, table.Process(id).Info(&i))
		require.EqualValues(t, 'T', i.State)
		require.EqualValues(t, 0x40, i.Flags)
		child := table.Process(id)
		mem := child.Memory()
		u.kill(id, linux.SIGKILL)
		u.ok(func() error { _, err := u.Waitid(linux.P_PID, id, linux.WEXITED|linux.WNOWAIT); return err })
		require.True(t, child.Info(&i))
		require.EqualValues(t, 'Z', i.State)
		require.Equal(t, "test", i.Comm)
		require.Nil(t, child.Memory())
		require.Nil(t, child.Files())
		_, err := mem.CopyIn(make([]byte, 4), memBase)
		require.Equal(t, linux.EFAULT, err)
		require.Equal(t, linux.ESRCH, child.SetComm("x"))
		u.status(id)
		require.False(t, child.Info(&i))
		require.Nil(t, table.Process(id))
		require.Equal(t, u.PID(), table.Next(2))
		require.EqualValues(t, 1, table.Next(0))
		require.Zero(t, table.Next(u.PID()+1))
		require.NoError(t, e.SetOOMScoreAdj(500))
		require.Equal(t, linux.EINVAL, e.SetOOMScoreAdj(1001))
		require.Equal(t, 500, u.Process().OOMScoreAdj())
		tid := u.thread(1, func(c *prog) { c.err(c.Pause) })
		require.Equal(t, []int32{u.PID(), tid}, e.Threads())
		th := table.Thread(tid)
		require.True(t, th.Info(&i))
		require.Equal(t, []int32{u.PID(), tid}, []int32{i.PID, i.TID})
		u.exitGroup(0)
	})
}

func BenchmarkKillSelf(b *testing.B) {
	m := newMachine(b, false)
	m.run(func(u *prog) {
		u.on(10, linux.SA_SIGINFO, 0, func(*prog, signal.Info) {})
		for b.Loop() {
			_ = u.Kill(u.PID(), 10)
			u.deliver()
		}
	})
}

func BenchmarkForkExitWait(b *testing.B) {
	m := newMachine(b, false)
	m.run(func(u *prog) {
		for b.Loop() {
			id, _ := u.clone(VforkArgs(), func(*prog) {})
			_, _ = u.wait(id, 0)
		}
	})
}

func BenchmarkThread(b *testing.B) {
	m := newMachine(b, false)
	m.run(func(u *prog) {
		const word = memBase + 0x80
		for b.Loop() {
			_, _ = u.clone(linux.CloneArgs{Flags: threadFlags | linux.CLONE_CHILD_CLEARTID | linux.CLONE_CHILD_SETTID, ChildTID: word, Stack: stack - 0x2000}, func(*prog) {})
			for v := u.space().get32(word); v != 0; v = u.space().get32(word) {
				_, _ = u.call(func() (uint64, error) { return u.Futex(word, linux.FUTEX_WAIT, v, 0, 0, 0) })
			}
		}
	})
}

func BenchmarkSigprocmask(b *testing.B) {
	m := newMachine(b, false)
	m.run(func(u *prog) {
		a, c := signal.Of(10), signal.Of()
		for b.Loop() {
			_, _ = u.Sigprocmask(linux.SIG_SETMASK, &a)
			_, _ = u.Sigprocmask(linux.SIG_SETMASK, &c)
		}
	})
}
