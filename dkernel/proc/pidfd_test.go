package proc

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

func TestPidfd(t *testing.T) {
	m := newMachine(t, false)
	m.run(func(u *prog) {
		const at = memBase + 32
		var end atomic.Bool
		id, err := u.clone(linux.CloneArgs{Flags: linux.CLONE_PIDFD, Pidfd: at, ExitSignal: linux.SIGCHLD}, func(c *prog) {
			c.spin(end.Load)
			c.exit(5)
		})
		require.NoError(t, err)
		fd := int(u.space().get32(at))
		r, err := u.Caller.Files.Get(fd)
		require.NoError(t, err)
		on, _ := u.Caller.Files.Cloexec(fd)
		require.True(t, on)
		require.Zero(t, r.Poll())
		fd2, err := u.PidfdOpen(id, linux.PIDFD_NONBLOCK)
		require.NoError(t, err)
		_, err = u.Waitid(linux.P_PIDFD, int32(fd2), linux.WEXITED)
		require.Equal(t, linux.EAGAIN, err)
		require.NoError(t, u.PidfdSendSignal(fd, 0, nil, 0))
		require.Equal(t, linux.EINVAL, u.PidfdSendSignal(fd, 0, nil, 8))
		require.Equal(t, linux.EBADF, u.PidfdSendSignal(77, 0, nil, 0))
		end.Store(true)
		s := wait.NewSleeper(m.sys.clock.Monotonic, nil)
		require.NoError(t, s.Until(r.Queue(), wait.In, wait.Forever, func() error {
			if r.Poll()&wait.In == 0 {
				return linux.EAGAIN
			}
			return nil
		}))
		w, err := u.Waitid(linux.P_PIDFD, int32(fd2), linux.WEXITED)
		require.NoError(t, err)
		require.EqualValues(t, 5, w.Info.Status())
		require.Equal(t, wait.Readable|wait.Hup, r.Poll())
		require.Equal(t, linux.ESRCH, u.PidfdSendSignal(fd, 9, nil, 0))
		r.Put()
		_, err = u.PidfdOpen(id, 0)
		require.Equal(t, linux.ESRCH, err)
		_, err = u.PidfdOpen(0, 0)
		require.Equal(t, linux.EINVAL, err)
		_, err = u.PidfdOpen(u.PID(), 4)
		require.Equal(t, linux.EINVAL, err)

		// A bad pointer for the descriptor leaves nothing.
		before := u.Caller.Files.Count()
		_, err = u.clone(linux.CloneArgs{Flags: linux.CLONE_PIDFD, Pidfd: 8, ExitSignal: linux.SIGCHLD}, nil)
		require.Equal(t, linux.EFAULT, err)
		require.Equal(t, before, u.Caller.Files.Count())

		// Descriptors of others.
		self, err := u.PidfdOpen(u.PID(), 0)
		require.NoError(t, err)
		n, err := u.PidfdGetfd(self, fd, 0)
		require.NoError(t, err)
		x, err := u.Caller.Files.Get(n)
		require.NoError(t, err)
		require.Equal(t, r.File(), x.File())
		x.Put()
		_, err = u.PidfdGetfd(self, 500, 0)
		require.Equal(t, linux.EBADF, err)
		// Of a thread.
		u.thread(1, func(c *prog) { c.err(c.Pause) })
		ts := u.Process().Threads()
		_, err = u.PidfdOpen(ts[1].TID(), 0)
		require.Equal(t, linux.ENOENT, err)
		tfd, err := u.PidfdOpen(ts[1].TID(), linux.PIDFD_THREAD)
		require.NoError(t, err)
		require.NoError(t, u.PidfdSendSignal(tfd, 0, nil, 0))
		u.exitGroup(0)
	})
}

func TestRobustList(t *testing.T) {
	m := newMachine(t, false)
	const head, lockA, lockB, pend = memBase + 0x400, memBase + 0x500, memBase + 0x600, memBase + 0x700
	const offset = 16
	m.run(func(u *prog) {
		s := u.space()
		waiting := make(chan error, 1)
		ready := make(chan bool)
		u.thread(1, func(c *prog) {
			<-ready
			_, err := c.call(func() (uint64, error) {
				return c.Futex(lockA+offset, linux.FUTEX_WAIT, s.get32(lockA+offset), 0, 0, 0)
			})
			waiting <- err
		})
		u.thread(2, func(c *prog) {
			id := uint32(c.TID())
			s.put64(head, lockA)
			s.put64(head+8, offset)
			s.put64(head+16, pend)
			s.put64(lockA, lockB)
			s.put32(lockA+offset, id|linux.FUTEX_WAITERS)
			s.put64(lockB, head)
			s.put32(lockB+offset, 12345) // not ours
			s.put32(pend+offset, id)
			require.Equal(t, linux.EINVAL, c.SetRobustList(head, 8))
			require.NoError(t, c.SetRobustList(head, 24))
			close(ready)
			eventually(t, func() bool { return m.sys.Stats().Waiting == 1 })
			time.Sleep(time.Millisecond)
		})
		require.NoError(t, <-waiting)
		require.EqualValues(t, uint32(linux.FUTEX_WAITERS|linux.FUTEX_OWNER_DIED), s.get32(lockA+offset))
		require.EqualValues(t, 12345, s.get32(lockB+offset))
		eventually(t, func() bool { return s.get32(pend+offset) == linux.FUTEX_OWNER_DIED })
		// A list that has no end, and one that is nowhere.
		u.thread(3, func(c *prog) {
			s.put64(lockB, lockB)
			s.put64(head, lockB)
			require.NoError(t, c.SetRobustList(head, 24))
		})
		u.thread(4, func(c *prog) { require.NoError(t, c.SetRobustList(0xffff800000000000, 24)) })
		eventually(t, func() bool { return u.Process().alive() == 1 })
	})
}
