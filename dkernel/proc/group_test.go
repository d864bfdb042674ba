package proc

import (
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/dkernel/signal"
	"dinos/kernel/linux"
)

func TestGroups(t *testing.T) {
	m := newMachine(t, false)
	m.run(func(u *prog) {
		_, err := u.Setsid()
		require.Equal(t, linux.EPERM, err, "it leads a group")
		require.Equal(t, linux.EPERM, u.Setpgid(0, 0), "and a session")
		require.Equal(t, linux.EINVAL, u.Setpgid(0, -1))
		require.Equal(t, linux.ESRCH, u.Setpgid(99999, 0))
		var stage atomic.Int32
		id := u.fork(func(c *prog) {
			eventually(t, func() bool { return stage.Load() == 1 })
			require.Equal(t, linux.ESRCH, c.Setpgid(u.PID(), 0), "not a child")
			n, err := c.Setsid()
			require.Equal(t, linux.EPERM, err)
			require.Zero(t, n)
			require.NoError(t, c.Setpgid(0, u.PID()))
			n, err = c.Setsid()
			require.NoError(t, err)
			require.Equal(t, c.PID(), n)
			stage.Store(2)
			require.NoError(t, c.BeginExec())
			c.FinishExec(&Program{Space: m.newSpace()})
			stage.Store(3)
			eventually(t, func() bool { return stage.Load() == 4 })
		})
		require.NoError(t, u.Setpgid(id, id))
		g, err := u.Getpgid(id)
		require.NoError(t, err)
		require.Equal(t, id, g)
		require.Equal(t, linux.EPERM, u.Setpgid(id, 54321), "no such group")
		require.NoError(t, u.Setpgid(id, u.PID()))
		require.NoError(t, u.Setpgid(id, id))
		stage.Store(1)
		eventually(t, func() bool { return stage.Load() == 3 })
		require.Equal(t, linux.EPERM, u.Setpgid(id, id), "another session")
		n, err := u.Getsid(id)
		require.NoError(t, err)
		require.Equal(t, id, n)
		id2 := u.fork(func(c *prog) {
			require.NoError(t, c.BeginExec())
			c.FinishExec(&Program{Space: m.newSpace()})
			stage.Store(5)
			c.err(c.Pause)
		})
		eventually(t, func() bool { return stage.Load() == 5 })
		require.Equal(t, linux.EACCES, u.Setpgid(id2, id2), "it has executed")
		stage.Store(4)
		u.status(id)
		// kill of a group: 0 and -group reach the members, all of them.
		u.disposition(linux.SIGTERM, linux.SIG_IGN)
		id3 := u.fork(func(c *prog) { c.disposition(linux.SIGTERM, linux.SIG_DFL); stage.Store(6); c.err(c.Pause) })
		eventually(t, func() bool { return stage.Load() == 6 })
		u.kill(0, linux.SIGTERM)
		require.EqualValues(t, linux.SIGTERM, u.status(id2))
		require.EqualValues(t, linux.SIGTERM, u.status(id3))
		require.Equal(t, linux.ESRCH, u.err(func() error { return u.Kill(-54321, 0) }))
	})
}

func TestKillPermission(t *testing.T) {
	m := newMachine(t, false)
	m.run(func(u *prog) {
		id := u.fork(func(c *prog) { c.err(c.Pause) })
		other := u.fork(func(c *prog) {
			require.NoError(t, c.Setresuid(1000, 1000, 1000))
			require.Equal(t, linux.EPERM, c.Kill(id, 15))
			require.Equal(t, linux.EPERM, c.Kill(id, 0))
			require.NoError(t, c.Kill(id, linux.SIGCONT), "the same session")
			require.Equal(t, linux.EPERM, c.Tkill(id, 15))
			require.Equal(t, linux.EINVAL, c.Kill(id, 65))
			require.Equal(t, linux.EINVAL, c.Kill(id, -1))
			require.Equal(t, linux.EINVAL, c.Tgkill(0, 1, 1))
			require.Equal(t, linux.ESRCH, c.Tgkill(c.PID(), id, 1))
			require.Equal(t, linux.EPERM, c.Kill(-1, 15), "nobody that it may")
		})
		require.Zero(t, u.status(other))
		u.kill(-1, linux.SIGKILL)
		require.EqualValues(t, linux.SIGKILL, u.status(id))
	})
}

func TestAutoReap(t *testing.T) {
	m := newMachine(t, false)
	m.run(func(u *prog) {
		n := 0
		u.on(linux.SIGCHLD, linux.SA_NOCLDWAIT|linux.SA_RESTART, 0, func(*prog, signal.Info) { n++ })
		id := u.fork(func(*prog) {})
		_, err := u.wait(id, 0)
		require.Equal(t, linux.ECHILD, err, "wait ends when the last child does")
		require.Equal(t, 1, n, "the signal comes all the same")
		u.disposition(linux.SIGCHLD, linux.SIG_IGN)
		id = u.fork(func(*prog) {})
		_, err = u.wait(id, 0)
		require.Equal(t, linux.ECHILD, err)
		require.Equal(t, 1, n)
	})
}

func TestSubreaperAndDeathSignal(t *testing.T) {
	m := newMachine(t, false)
	m.run(func(u *prog) {
		u.ok(func() error { _, err := u.Prctl(linux.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); return err })
		var grandchild atomic.Int32
		id := u.fork(func(c *prog) {
			var ready atomic.Bool
			grandchild.Store(c.fork(func(g *prog) {
				g.ok(func() error { _, err := g.Prctl(linux.PR_SET_PDEATHSIG, 12, 0, 0, 0); return err })
				ready.Store(true)
				g.err(g.Pause)
			}))
			eventually(t, ready.Load)
		})
		u.status(id)
		require.EqualValues(t, 12, u.status(grandchild.Load()), "it is ours now, and its parent's death killed it")
	})
}

// Children that do not send SIGCHLD are for __WCLONE and __WALL only.
func TestWaitClone(t *testing.T) {
	m := newMachine(t, false)
	m.run(func(u *prog) {
		u.disposition(10, linux.SIG_IGN)
		id, err := u.clone(linux.CloneArgs{ExitSignal: 10}, func(*prog) {})
		require.NoError(t, err)
		_, err = u.wait(-1, 0)
		require.Equal(t, linux.ECHILD, err)
		r, err := u.wait(-1, linux.WCLONE)
		require.NoError(t, err)
		require.Equal(t, id, r.PID)
		// WNOTHREAD: children of another thread are not seen.
		var done atomic.Int32
		child := make(chan int32, 1)
		u.thread(1, func(c *prog) {
			child <- c.fork(func(*prog) {})
			eventually(t, func() bool { return done.Load() == 1 })
		})
		n := <-child
		_, err = u.wait(-1, linux.WNOTHREAD)
		require.Equal(t, linux.ECHILD, err)
		done.Store(1)
		require.Zero(t, u.status(n))
	})
}
