package proc

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/dkernel/signal"
	"dinos/kernel/linux"
)

func TestExitAndWait(t *testing.T) {
	m := newMachine(t, false)
	status := m.run(func(u *prog) {
		_, err := u.wait(-1, 0)
		require.Equal(t, linux.ECHILD, err)
		_, err = u.wait(-1, 0x100)
		require.Equal(t, linux.EINVAL, err)
		id := u.fork(func(c *prog) {
			require.Equal(t, u.PID(), c.Getppid())
			c.exit(0x1ff)
		})
		require.EqualValues(t, 0xff00, u.status(id))
		_, err = u.wait(id, 0)
		require.Equal(t, linux.ECHILD, err)

		var release atomic.Bool
		id = u.fork(func(c *prog) { eventually(t, release.Load); c.exitGroup(4) })
		r, err := u.wait(id, linux.WNOHANG)
		require.NoError(t, err)
		require.Zero(t, r.PID)
		release.Store(true)
		var info WaitResult
		u.ok(func() (err error) { info, err = u.Waitid(linux.P_PID, id, linux.WEXITED|linux.WNOWAIT); return err })
		require.Equal(t, []int32{linux.SIGCHLD, linux.CLD_EXITED, id, 4}, []int32{info.Info.Signo, info.Info.Code, info.Info.PID(), info.Info.Status()})
		require.NoError(t, u.err(func() error { return u.Kill(id, 9) }), "a zombie is there to be signalled")
		require.EqualValues(t, 4<<8, u.status(id))
		require.Equal(t, linux.ESRCH, u.err(func() error { return u.Kill(id, 0) }))
		for _, x := range []struct {
			kind    int
			id      int32
			options uint32
		}{{linux.P_PID, 0, linux.WEXITED}, {linux.P_ALL, 0, 0}, {9, 1, linux.WEXITED}, {linux.P_PID, 1, linux.WEXITED | 0x100}, {linux.P_PGID, -1, linux.WEXITED}} {
			_, err := u.Waitid(x.kind, x.id, x.options)
			require.Equal(t, linux.EINVAL, err, "%+v", x)
		}
		u.exit(7)
	})
	require.EqualValues(t, 7<<8, status)
}

// The exit code of a process is its leader's, unless it ended as a group.
func TestThreadsAndExit(t *testing.T) {
	m := newMachine(t, false)
	status := m.run(func(u *prog) {
		u.thread(1, func(c *prog) {
			eventually(t, func() bool { return u.Process().alive() == 1 })
			require.Equal(t, u.PID(), c.PID())
			require.NotEqual(t, u.PID(), c.TID())
			c.exit(9)
		})
		u.exit(5)
	})
	require.EqualValues(t, 5<<8, status)
	status = m.run(func(u *prog) {
		for i := range 3 {
			u.thread(i+1, func(c *prog) {
				if i == 2 {
					c.exitGroup(6)
				}
				if i == 1 {
					c.spin(func() bool { return false })
				}
				c.err(c.Pause)
			})
		}
		u.err(u.Pause)
	})
	require.EqualValues(t, 6<<8, status)
}

func TestClearTID(t *testing.T) {
	m := newMachine(t, false)
	const word, ptid = memBase + 0x100, memBase + 0x104
	m.run(func(u *prog) {
		var go_ atomic.Bool
		id, err := u.clone(linux.CloneArgs{Flags: threadFlags | linux.CLONE_PARENT_SETTID | linux.CLONE_CHILD_SETTID | linux.CLONE_CHILD_CLEARTID | linux.CLONE_SETTLS,
			ChildTID: word, ParentTID: ptid, Stack: stack - 0x2000, TLS: 0x7777}, func(c *prog) {
			require.EqualValues(t, 0x7777, c.Regs.FSBase)
			require.EqualValues(t, stack-0x2000, c.Regs.RSP)
			eventually(t, go_.Load)
		})
		require.NoError(t, err)
		require.EqualValues(t, id, u.space().get32(word))
		require.EqualValues(t, id, u.space().get32(ptid))
		go_.Store(true)
		for u.space().get32(word) != 0 { // pthread_join
			_, err := u.call(func() (uint64, error) { return u.Futex(word, linux.FUTEX_WAIT, uint32(id), 0, 0, 0) })
			require.True(t, err == nil || err == linux.EAGAIN, "%v", err)
		}
		eventually(t, func() bool { return u.Process().alive() == 1 })
	})
}

func TestCloneRefuses(t *testing.T) {
	m := newMachine(t, false, func(c *Config) { c.MaxThreads = 4 })
	m.run(func(u *prog) {
		for _, f := range []uint64{linux.CLONE_THREAD, linux.CLONE_SIGHAND, linux.CLONE_THREAD | linux.CLONE_VM, linux.CLONE_NEWNS | linux.CLONE_FS,
			linux.CLONE_NEWPID, linux.CLONE_NEWUSER, linux.CLONE_PIDFD | linux.CLONE_PARENT_SETTID, linux.CLONE_PIDFD | linux.CLONE_DETACHED} {
			_, err := u.clone(linux.CloneArgs{Flags: f}, nil)
			require.Equal(t, linux.EINVAL, err, "%#x", f)
		}
		_, err := u.clone(linux.CloneArgs{Flags: linux.CLONE_SETTLS, TLS: 1 << 47}, nil)
		require.Equal(t, linux.EPERM, err)
		for _, a := range []linux.CloneArgs{{Flags: 1 << 40}, {Flags: linux.CLONE_DETACHED}, {Flags: 17}, {ExitSignal: 65}, {Stack: 5}, {StackSize: 5},
			{Flags: linux.CLONE_SIGHAND | linux.CLONE_VM | linux.CLONE_CLEAR_SIGHAND}, {Flags: threadFlags, ExitSignal: 17}, {SetTID: 8}, {SetTIDSize: 1},
			{Stack: 1 << 63, StackSize: 1 << 63}} {
			_, err := u.Clone3(a, nil)
			require.Equal(t, linux.EINVAL, err, "%+v", a)
		}
		_, err = u.Clone3(linux.CloneArgs{Flags: linux.CLONE_INTO_CGROUP}, nil)
		require.Equal(t, linux.EBADF, err)
		require.Equal(t, linux.EINVAL, u.Unshare(1))
		require.Equal(t, linux.EINVAL, u.Unshare(linux.CLONE_NEWNET))
		require.NoError(t, u.Unshare(linux.CLONE_FS|linux.CLONE_FILES|linux.CLONE_SYSVSEM))
		// The table is full: nothing is left behind.
		for i := range 3 {
			u.thread(i+1, func(c *prog) { c.err(c.Pause) })
		}
		_, err = u.clone(ForkArgs(), nil)
		require.Equal(t, linux.EAGAIN, err)
		require.Equal(t, linux.EINVAL, u.Unshare(linux.CLONE_VM))
		u.exitGroup(0)
	})
}

func TestSetTID(t *testing.T) {
	m := newMachine(t, false)
	m.run(func(u *prog) {
		clone := func(want int32) (int32, error) {
			n, err := u.call(func() (uint64, error) {
				u.next = func(*prog) {}
				n, err := u.Clone3(linux.CloneArgs{ExitSignal: linux.SIGCHLD, SetTID: 8, SetTIDSize: 1}, []int32{want})
				return uint64(n), err
			})
			return int32(n), err
		}
		n, err := clone(4242)
		require.NoError(t, err)
		require.EqualValues(t, 4242, n)
		_, err = clone(4242)
		require.Equal(t, linux.EEXIST, err)
		_, err = clone(0)
		require.Equal(t, linux.EINVAL, err)
		u.status(n)
		n, err = clone(4242)
		require.NoError(t, err)
		u.status(n)
	})
}

func TestNPROC(t *testing.T) {
	m := newMachine(t, false)
	m.run(func(u *prog) {
		require.NoError(t, u.Setresuid(1000, 1000, 1000))
		_, err := u.Prlimit(0, linux.RLIMIT_NPROC, &linux.Rlimit{Cur: 3, Max: 3})
		require.NoError(t, err)
		var ids []int32
		for {
			id, err := u.clone(ForkArgs(), func(c *prog) { c.err(c.Pause) })
			if err != nil {
				require.Equal(t, linux.EAGAIN, err)
				break
			}
			ids = append(ids, id)
		}
		require.Len(t, ids, 2, "three threads of the user in all")
		for _, id := range ids {
			u.kill(id, 9)
			require.EqualValues(t, 9, u.status(id))
		}
		_, err = u.clone(ForkArgs(), func(*prog) {})
		require.NoError(t, err)
		_, err = u.wait(-1, 0)
		require.NoError(t, err)
	})
}

func TestVfork(t *testing.T) {
	m := newMachine(t, false)
	m.run(func(u *prog) {
		var child atomic.Int32
		const word = memBase + 64
		id, err := u.clone(VforkArgs(), func(c *prog) {
			c.space().put32(word, 5) // the parent's memory
			time.Sleep(2 * time.Millisecond)
			child.Store(1)
			c.exit(0)
		})
		require.NoError(t, err)
		require.EqualValues(t, 1, child.Load(), "the parent goes on after the child's exit")
		require.EqualValues(t, 5, u.space().get32(word))
		u.status(id)
		// A signal does not end the wait, death does.
		u.on(10, 0, 0, func(*prog, signal.Info) {})
		id, err = u.clone(VforkArgs(), func(c *prog) {
			c.kill(u.PID(), 10)
			time.Sleep(2 * time.Millisecond)
			require.Zero(t, u.handled.Load())
			n := m.newSpace()
			require.NoError(t, c.BeginExec())
			c.FinishExec(&Program{Space: n, Comm: "new"})
			require.Equal(t, "new", c.Name())
			child.Store(2)
			eventually(t, func() bool { return u.handled.Load() == 1 })
		})
		require.NoError(t, err)
		u.status(id)
		require.EqualValues(t, 2, child.Load())
	})
	status := m.run(func(u *prog) {
		_, _ = u.clone(VforkArgs(), func(c *prog) {
			c.kill(u.PID(), 9)
			eventually(t, func() bool { p := m.sys.Process(u.PID()); return p == nil || p.alive() == 0 })
		})
		t.Error("alive")
	})
	require.EqualValues(t, 9, status)
}

func TestExec(t *testing.T) {
	m := newMachine(t, false)
	m.run(func(u *prog) {
		u.disposition(10, linux.SIG_IGN)
		u.on(12, linux.SA_SIGINFO, 0, func(*prog, signal.Info) {})
		u.block(40)
		u.kill(u.PID(), 40)
		_, err := u.TimerCreate(linux.CLOCK_MONOTONIC, nil)
		require.NoError(t, err)
		require.NoError(t, u.SetRobustList(memBase, 24))
		u.thread(1, func(c *prog) { c.spin(func() bool { return false }) })
		u.thread(2, func(c *prog) {
			old := c.TID()
			require.NoError(t, c.BeginExec())
			c.FinishExec(&Program{Space: m.newSpace(), Comm: "a-name-of-more-than-fifteen", Exec: ExecInfo{Exe: "/bin/x"}})
			require.Equal(t, c.PID(), c.TID(), "it is the leader now")
			require.Nil(t, m.sys.Thread(old))
			require.Equal(t, c.Thread, m.sys.Thread(c.PID()))
			require.Equal(t, "a-name-of-more-", c.Name())
			require.Equal(t, "/bin/x", c.Process().Info().Exe)
			require.Equal(t, c.PID(), c.Caller.TID)
			for sig, h := range map[int]uint64{10: linux.SIG_IGN, 12: linux.SIG_DFL} {
				a, _ := c.Sigaction(sig, nil)
				require.Equal(t, signal.Action{Handler: h}, a)
			}
			require.Equal(t, signal.Of(40), c.Sigpending(), "pending signals stay")
			require.Equal(t, signal.Of(40), c.Blocked())
			require.Equal(t, linux.EINVAL, c.TimerDelete(0))
			head, _, _ := c.GetRobustList(0)
			require.Zero(t, head)
			// With itself alone it is quick, and again.
			require.NoError(t, c.BeginExec())
			c.FinishExec(&Program{Space: m.newSpace(), Comm: "x"})
			c.exit(11)
		})
		u.err(u.Pause)
		t.Error("the old leader is alive")
	})
	require.EqualValues(t, 11<<8, m.status[2])
}

// Two threads in execve: one wins, the other dies.
func TestExecRace(t *testing.T) {
	m := newMachine(t, false)
	for range 30 {
		status := m.run(func(u *prog) {
			exec := func(c *prog) {
				if err := c.err(c.BeginExec); err != nil {
					return
				}
				c.FinishExec(&Program{Space: m.newSpace(), Comm: "x"})
				require.Equal(t, 1, c.Process().alive())
				c.exit(3)
			}
			u.thread(1, exec)
			exec(u)
		})
		require.EqualValues(t, 3<<8, status)
	}
}

func TestStopAndContinue(t *testing.T) {
	m := newMachine(t, false)
	m.run(func(u *prog) {
		var chld []int32
		u.on(linux.SIGCHLD, linux.SA_SIGINFO|linux.SA_RESTART, 0, func(_ *prog, i signal.Info) {
			chld = append(chld, i.Code, i.Status())
		})
		var turns atomic.Int64
		id := u.fork(func(c *prog) {
			c.thread(1, func(d *prog) { d.spin(func() bool { turns.Add(1); return false }) })
			c.err(c.Pause)
		})
		eventually(t, func() bool { return turns.Load() > 0 })
		u.kill(id, linux.SIGSTOP)
		r, err := u.wait(id, linux.WUNTRACED)
		require.NoError(t, err)
		require.EqualValues(t, linux.SIGSTOP<<8|0x7f, r.Status)
		r, err = u.wait(id, linux.WUNTRACED|linux.WNOHANG)
		require.NoError(t, err)
		require.Zero(t, r.PID, "it is told once")
		at := turns.Load()
		time.Sleep(3 * time.Millisecond)
		require.Equal(t, at, turns.Load(), "stopped is stopped")
		u.kill(id, linux.SIGTERM)
		time.Sleep(time.Millisecond)
		r, err = u.wait(id, linux.WNOHANG)
		require.NoError(t, err)
		require.Zero(t, r.PID, "only SIGKILL ends what is stopped")
		u.kill(id, linux.SIGCONT)
		require.EqualValues(t, linux.SIGTERM, u.status(id))
		require.Equal(t, []int32{linux.CLD_STOPPED, linux.SIGSTOP}, chld[:2])

		chld = nil
		id = u.fork(func(c *prog) { c.spin(func() bool { turns.Add(1); return false }) })
		for range 20 {
			u.kill(id, linux.SIGSTOP)
			var w WaitResult
			u.ok(func() (err error) { w, err = u.Waitid(linux.P_PID, id, linux.WSTOPPED|linux.WNOWAIT); return err })
			require.Equal(t, []int32{linux.CLD_STOPPED, linux.SIGSTOP}, []int32{w.Info.Code, w.Info.Status()})
			u.status2(id, linux.WUNTRACED, linux.SIGSTOP<<8|0x7f)
			at := turns.Load()
			u.kill(id, linux.SIGCONT)
			u.status2(id, linux.WCONTINUED, 0xffff)
			eventually(t, func() bool { return turns.Load() > at })
		}
		u.kill(id, linux.SIGKILL)
		require.EqualValues(t, linux.SIGKILL, u.status(id))
	})
}

func (u *prog) status2(id int32, options, want uint32) {
	u.m.t.Helper()
	r, err := u.wait(id, options)
	require.NoError(u.m.t, err)
	require.Equal(u.m.t, want, r.Status)
}

// SIGCONT undoes a stop that was not taken, and a stop undoes a SIGCONT.
func TestStopSignalsCancel(t *testing.T) {
	m := newMachine(t, false)
	m.run(func(u *prog) {
		u.block(linux.SIGTSTP, linux.SIGCONT)
		u.kill(u.PID(), linux.SIGTSTP)
		require.Equal(t, signal.Of(linux.SIGTSTP), u.Sigpending())
		u.kill(u.PID(), linux.SIGCONT)
		require.Equal(t, signal.Of(linux.SIGCONT), u.Sigpending())
		u.kill(u.PID(), linux.SIGTSTP)
		require.Equal(t, signal.Of(linux.SIGTSTP), u.Sigpending())
		// The group is orphaned (init is the parent): the stop is ignored.
		u.unblock(linux.SIGTSTP)
		require.Zero(t, u.Sigpending())
	})
}

// A job whose shell dies is hung up on and continued.
func TestOrphanedGroup(t *testing.T) {
	m := newMachine(t, false)
	var got log
	m.run(func(u *prog) {
		shell := u.fork(func(s *prog) {
			job := s.fork(func(j *prog) {
				j.ok(func() error { return j.Setpgid(0, 0) })
				j.on(linux.SIGHUP, linux.SA_SIGINFO, 0, func(_ *prog, i signal.Info) { got.add("hup") })
				j.on(linux.SIGCONT, linux.SA_SIGINFO, 0, func(_ *prog, i signal.Info) { got.add("cont") })
				j.kill(j.PID(), linux.SIGTSTP)
				require.NotEqual(t, s.PID(), j.Getppid())
				j.exit(0)
			})
			s.status2(job, linux.WUNTRACED, linux.SIGTSTP<<8|0x7f)
			s.exit(0)
		})
		u.status(shell)
	})
	require.ElementsMatch(t, []string{"hup", "cont"}, got.get())
}

// Everything at once, at random: threads, forks, signals, stops, execs, exits. Afterwards nothing is left.
func TestStress(t *testing.T) {
	m := newMachine(t, false)
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	for r := range rounds {
		m.run(func(u *prog) { stress(u, uint64(r)) })
	}
}
