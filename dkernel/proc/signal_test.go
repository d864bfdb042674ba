package proc

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/dkernel/signal"
	"dinos/kernel/linux"
)

// What each signal does to a process that has no handler (signal(7), "Standard signals").
func TestDefaultActions(t *testing.T) {
	m := newMachine(t, false)
	want := func(sig int) uint32 {
		switch sig {
		case linux.SIGCHLD, linux.SIGCONT, linux.SIGURG, linux.SIGWINCH:
			return 3 << 8
		case linux.SIGQUIT, linux.SIGILL, linux.SIGTRAP, linux.SIGABRT, linux.SIGBUS, linux.SIGFPE, linux.SIGSEGV, linux.SIGXCPU, linux.SIGXFSZ, linux.SIGSYS:
			return uint32(sig) | 0x80
		}
		return uint32(sig)
	}
	m.run(func(u *prog) {
		for sig := 1; sig <= linux.NumSignals; sig++ {
			if signal.Stops.Has(sig) {
				continue
			}
			id := u.fork(func(c *prog) {
				c.kill(c.PID(), sig)
				c.exit(3)
			})
			if s := u.status(id); s != want(sig) {
				t.Errorf("signal %d: status %#x, want %#x", sig, s, want(sig))
			}
		}
	})
}

func TestHandler(t *testing.T) {
	m := newMachine(t, false)
	m.run(func(u *prog) {
		var got []string
		note := func(u *prog, i signal.Info) {
			got = append(got, fmt.Sprintf("%d code %d from %d mask %x", i.Signo, i.Code, i.PID()-u.PID(), uint64(u.Blocked())))
		}
		u.on(10, linux.SA_SIGINFO, signal.Of(12, 9), note)
		u.kill(u.PID(), 10)
		require.Equal(t, []string{"10 code 0 from 0 mask a00"}, got)
		require.Zero(t, u.Blocked(), "the mask is back")

		got = nil
		u.on(10, linux.SA_SIGINFO|linux.SA_NODEFER|linux.SA_RESETHAND, 0, note)
		u.ok(func() error { return u.Tgkill(u.PID(), u.TID(), 10) })
		require.Equal(t, []string{"10 code -6 from 0 mask 0"}, got)
		old, err := u.Sigaction(10, nil)
		require.NoError(t, err)
		require.Zero(t, old.Handler, "reset")

		// Blocked ones wait; the lowest comes first, that is, on top of the others' frames.
		got = nil
		for _, s := range []int{10, 12, 40} {
			u.on(s, linux.SA_SIGINFO, ^signal.Set(0), note)
			u.block(s)
		}
		for _, s := range []int{40, 12, 10, 12, 40} {
			u.kill(u.PID(), s)
		}
		require.Equal(t, signal.Of(10, 12, 40), u.Sigpending())
		u.unblock(10, 12, 40)
		require.Len(t, got, 4, "12 once, 40 twice: %v", got)
		require.Contains(t, got[0], "10 ")
		require.Contains(t, got[1], "12 ")
		require.Contains(t, got[3], "40 ")
		require.Zero(t, u.Sigpending())
	})
}

func TestSigactionRules(t *testing.T) {
	m := newMachine(t, false)
	m.run(func(u *prog) {
		for _, sig := range []int{0, 65, -1, linux.SIGKILL, linux.SIGSTOP} {
			_, err := u.Sigaction(sig, &signal.Action{Handler: 5})
			require.Equal(t, linux.EINVAL, err)
		}
		_, err := u.Sigaction(linux.SIGKILL, nil)
		require.NoError(t, err)
		// Ignoring forgets what is pending.
		u.on(10, 0, 0, func(*prog, signal.Info) { t.Error("10 was ignored") })
		u.block(10)
		u.kill(u.PID(), 10)
		u.disposition(10, linux.SIG_IGN)
		require.Zero(t, u.Sigpending())
		u.kill(u.PID(), 10) // blocked: kept, though ignored
		require.Equal(t, signal.Of(10), u.Sigpending())
		u.unblock(10)
		require.Zero(t, u.Sigpending())
		_, err = u.Sigprocmask(7, new(signal.Set))
		require.Equal(t, linux.EINVAL, err)
		all := ^signal.Set(0)
		u.ok(func() error { _, err := u.Sigprocmask(linux.SIG_SETMASK, &all); return err })
		require.Equal(t, ^signal.Unblockable, u.Blocked())
	})
}

func TestRealTimeQueue(t *testing.T) {
	m := newMachine(t, false)
	status := m.run(func(u *prog) {
		u.block(35)
		send := func(v uint64) error {
			i := signal.From(35, linux.SI_QUEUE, u.PID(), 0)
			i.U[1] = v
			return u.err(func() error { return u.Sigqueue(u.PID(), 35, i) })
		}
		for v := range uint64(5) {
			require.NoError(t, send(v))
		}
		_, err := u.Prlimit(0, linux.RLIMIT_SIGPENDING, &linux.Rlimit{Cur: 6, Max: 6})
		require.NoError(t, err)
		require.NoError(t, send(5))
		require.Equal(t, linux.EAGAIN, send(6))
		u.kill(u.PID(), 36) // kill(2) does not fail for want of room
	})
	require.EqualValues(t, 36, status)

	m.run(func(u *prog) {
		var got []uint64
		u.on(35, linux.SA_SIGINFO, 0, func(_ *prog, i signal.Info) { got = append(got, i.Value()) })
		u.block(35)
		for v := range uint64(5) {
			i := signal.From(35, linux.SI_QUEUE, 9, 9)
			i.U[1] = v
			u.ok(func() error { return u.Sigqueue(u.PID(), 35, i) })
		}
		u.unblock(35)
		require.Equal(t, []uint64{0, 1, 2, 3, 4}, got)
		bad := signal.From(35, linux.SI_USER, 1, 1)
		u.fork(func(c *prog) {
			require.Equal(t, linux.EPERM, c.Sigqueue(u.PID(), 35, bad), "pretends to be kill")
			bad.Code = linux.SI_TKILL
			require.Equal(t, linux.EPERM, c.TgSigqueue(u.PID(), u.TID(), 35, bad))
			require.NoError(t, c.Sigqueue(u.PID(), 0, signal.From(0, linux.SI_QUEUE, 1, 1)))
			require.Equal(t, linux.ESRCH, c.Sigqueue(9999, 0, signal.From(0, linux.SI_QUEUE, 1, 1)))
		})
		_, err := u.wait(-1, 0)
		require.NoError(t, err)
	})
}

// An interrupted call: what the program sees, by SA_RESTART.
func TestRestart(t *testing.T) {
	m := newMachine(t, false)
	for _, c := range []struct {
		name       string
		flags      uint64
		call       func(u *prog) error
		want       error
		handlers   int
		mayRestart bool
	}{
		{"wait", 0, func(u *prog) error { _, err := u.wait(-1, 0); return err }, linux.EINTR, 1, false},
		{"wait, SA_RESTART", linux.SA_RESTART, func(u *prog) error { _, err := u.wait(-1, 0); return err }, nil, 1, true},
		{"pause, SA_RESTART", linux.SA_RESTART, func(u *prog) error { return u.err(u.Pause) }, linux.EINTR, 1, false},
		{"sigsuspend, SA_RESTART", linux.SA_RESTART, func(u *prog) error { return u.err(func() error { return u.Sigsuspend(0) }) }, linux.EINTR, 1, false},
		{"nanosleep, SA_RESTART", linux.SA_RESTART, func(u *prog) error {
			return u.err(func() error { return u.Nanosleep(linux.Timespec{Sec: 100}, 0) })
		}, linux.EINTR, 1, false},
		{"nanosleep, ignored", 1 << 40, func(u *prog) error {
			return u.err(func() error { return u.Nanosleep(linux.Timespec{Nsec: 30e6}, 0) })
		}, nil, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m.run(func(u *prog) {
				var in atomic.Bool
				if c.flags == 1<<40 {
					// SIGCONT without a handler interrupts nothing, a stop and its end begin the sleep again.
				} else {
					u.on(10, c.flags, 0, func(*prog, signal.Info) {})
				}
				child := u.fork(func(k *prog) {
					eventually(t, in.Load)
					time.Sleep(2 * time.Millisecond)
					if c.flags == 1<<40 {
						k.kill(u.PID(), linux.SIGSTOP)
						eventually(t, func() bool { p := m.sys.Process(u.PID()); p.mu.Lock(); defer p.mu.Unlock(); return p.stop.stopped })
						k.kill(u.PID(), linux.SIGCONT)
					} else {
						k.kill(u.PID(), 10)
					}
					if c.mayRestart {
						eventually(t, func() bool { return u.handled.Load() == 1 })
						k.exit(0)
					}
					k.err(func() error { return k.Nanosleep(linux.Timespec{Nsec: 5e6}, 0) })
				})
				in.Store(true)
				err := c.call(u)
				if err != c.want && !(err == nil && c.want == nil) {
					t.Errorf("got %v, want %v", err, c.want)
				}
				require.EqualValues(t, c.handlers, u.handled.Load())
				if !c.mayRestart {
					u.status(child)
				}
			})
		})
	}
}
