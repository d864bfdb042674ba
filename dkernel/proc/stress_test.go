package proc

import (
	"math/rand/v2"
	"time"

	"dinos/dkernel/signal"
	"dinos/kernel/linux"
)

// stress is a process that makes threads and children, which do random things to each other, and ends them all.
func stress(u *prog, seed uint64) {
	u.disposition(linux.SIGCHLD, linux.SIG_DFL)
	u.on(10, linux.SA_RESTART, 0, func(*prog, signal.Info) {})
	u.on(12, 0, 0, func(*prog, signal.Info) {})
	u.on(40, linux.SA_SIGINFO, 0, func(*prog, signal.Info) {})
	var ids []int32
	for i := range 3 {
		ids = append(ids, u.fork(func(c *prog) {
			for n := range 3 {
				_, _ = c.clone(linux.CloneArgs{Flags: threadFlags, Stack: c.newStack()}, func(d *prog) {
					d.chaos(rand.New(rand.NewPCG(seed, uint64(10*i+n))), 60)
				})
			}
			c.chaos(rand.New(rand.NewPCG(seed, uint64(100+i))), 60)
		}))
	}
	r := rand.New(rand.NewPCG(seed, 7))
	for range 60 {
		_ = u.err(func() error {
			return u.Kill(ids[r.IntN(len(ids))], []int{10, 12, 40, linux.SIGSTOP, linux.SIGCONT}[r.IntN(5)])
		})
		if r.IntN(8) == 0 {
			time.Sleep(100 * time.Microsecond)
		}
	}
	for _, id := range ids {
		u.kill(id, linux.SIGKILL)
	}
	for range ids {
		if _, err := u.wait(-1, 0); err != nil {
			u.m.t.Error(err)
		}
	}
}

// chaos does n random things.
func (u *prog) chaos(r *rand.Rand, n int) {
	for range n {
		switch r.IntN(12) {
		case 0:
			_, _ = u.clone(ForkArgs(), func(c *prog) { c.exit(1) })
		case 1:
			_, _ = u.wait(-1, linux.WNOHANG|linux.WALL|linux.WUNTRACED)
		case 2:
			ts := u.Process().Threads()
			id := ts[r.IntN(len(ts))].TID()
			_ = u.err(func() error { return u.Tgkill(u.PID(), id, 10) })
		case 3:
			_ = u.err(func() error { return u.Kill(u.PID(), 40) })
		case 4:
			u.block(10, 12)
		case 5:
			u.unblock(10, 12, 40)
		case 6:
			_ = u.err(func() error { return u.Nanosleep(linux.Timespec{Nsec: int64(r.IntN(200_000))}, 0) })
		case 7:
			_, _ = u.call(func() (uint64, error) { return u.Futex(memBase, linux.FUTEX_WAKE, 1, 0, 0, 0) })
		case 8:
			u.space().put64(memBase+0x80, 0)
			u.space().put64(memBase+0x88, uint64(r.IntN(200_000)))
			_, _ = u.call(func() (uint64, error) { return u.Futex(memBase, linux.FUTEX_WAIT, 0, memBase+0x80, 0, 0) })
		case 9:
			_ = u.err(func() error { _, err := u.Sigtimedwait(signal.Of(40), &linux.Timespec{Nsec: 50_000}); return err })
		case 10:
			_, _ = u.clone(linux.CloneArgs{Flags: threadFlags, Stack: u.newStack()}, func(d *prog) { d.exit(0) })
		case 11:
			if r.IntN(10) == 0 {
				if u.err(u.BeginExec) == nil {
					u.FinishExec(&Program{Space: u.m.newSpace(), Comm: "chaos"})
					u.Regs.RSP = stack
				}
			}
		}
	}
}
