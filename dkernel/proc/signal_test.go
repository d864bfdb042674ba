package proc

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/dkernel/signal"
	"dinos/kernel/linux"
	"dinos/kernel/ureg"
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
	none := func(u *prog) error { return u.Nanosleep(linux.Timespec{Sec: 100}, 0) }
	for _, c := range []struct {
		name  string
		flags uint64
		call  func(u *prog) error
		want  error
	}{
		{"wait", 0, func(u *prog) error { _, err := u.Wait4(-1, linux.WALL); return err }, linux.EINTR},
		{"pause, SA_RESTART", linux.SA_RESTART, (*prog).pause, linux.EINTR},
		{"sigsuspend, SA_RESTART", linux.SA_RESTART, func(u *prog) error { return u.Sigsuspend(0) }, linux.EINTR},
		{"nanosleep, SA_RESTART", linux.SA_RESTART, none, linux.EINTR},
		{"sigtimedwait, SA_RESTART", linux.SA_RESTART, func(u *prog) error { _, err := u.Sigtimedwait(signal.Of(40), nil); return err }, linux.EINTR},
		{"futex, no timeout", 0, func(u *prog) error { _, err := u.Futex(memBase, linux.FUTEX_WAIT, 0, 0, 0, 0); return err }, linux.EINTR},
		{"futex with a timeout, SA_RESTART", linux.SA_RESTART, func(u *prog) error {
			u.space().put64(memBase+0x100, 100)
			_, err := u.Futex(memBase, linux.FUTEX_WAIT, 0, memBase+0x100, 0, 0)
			return err
		}, linux.EINTR},
	} {
		t.Run(c.name, func(t *testing.T) {
			m.run(func(u *prog) {
				u.on(10, c.flags, 0, func(*prog, signal.Info) {})
				require.Equal(t, c.want, u.interrupted(10, func() error { return c.call(u) }))
				require.Positive(t, u.handled.Load())
			})
		})
	}
	// These are begun again, and end by what they wait for.
	t.Run("wait, SA_RESTART", func(t *testing.T) {
		m.run(func(u *prog) {
			u.on(10, linux.SA_RESTART, 0, func(*prog, signal.Info) {})
			id := u.fork(func(c *prog) {
				for u.handled.Load() < 5 {
					time.Sleep(time.Millisecond)
					c.kill(u.PID(), 10)
				}
			})
			require.Zero(t, u.status(id))
		})
	})
	t.Run("futex, SA_RESTART", func(t *testing.T) {
		m.run(func(u *prog) {
			u.on(10, linux.SA_RESTART, 0, func(*prog, signal.Info) {})
			u.thread(1, func(c *prog) {
				for u.handled.Load() < 5 {
					time.Sleep(time.Millisecond)
					c.ok(func() error { return c.Tgkill(u.PID(), u.TID(), 10) })
				}
				for n := uint64(0); n == 0; {
					n, _ = c.call(func() (uint64, error) { return c.Futex(memBase, linux.FUTEX_WAKE, 1, 0, 0, 0) })
				}
			})
			u.ok(func() error { _, err := u.Futex(memBase, linux.FUTEX_WAIT, 0, 0, 0, 0); return err })
		})
	})
	// A stop interrupts and, without a handler, changes nothing: restart_syscall goes on with the time that is left.
	t.Run("nanosleep over a stop", func(t *testing.T) {
		m.run(func(u *prog) {
			id := u.fork(func(c *prog) {
				begin := time.Now()
				c.ok(func() error { return c.Nanosleep(linux.Timespec{Nsec: 40e6}, 0) })
				require.Less(t, time.Since(begin), 5*time.Second)
				require.GreaterOrEqual(t, time.Since(begin), 40*time.Millisecond)
				c.exit(1)
			})
			time.Sleep(3 * time.Millisecond)
			u.kill(id, linux.SIGSTOP)
			u.status2(id, linux.WUNTRACED, linux.SIGSTOP<<8|0x7f)
			u.kill(id, linux.SIGCONT)
			require.EqualValues(t, 1<<8, u.status(id))
		})
	})
}

func (u *prog) pause() error { return u.Pause() }

func TestSigsuspend(t *testing.T) {
	m := newMachine(t, false)
	m.run(func(u *prog) {
		var in signal.Set
		u.on(10, 0, signal.Of(12), func(p *prog, _ signal.Info) { in = p.Blocked() })
		u.block(10, 40)
		u.kill(u.PID(), 10)
		err := u.err(func() error { return u.Sigsuspend(signal.Of(3)) })
		require.Equal(t, linux.EINTR, err)
		require.Equal(t, signal.Of(3, 10, 12), in, "the handler runs under the new mask")
		require.Equal(t, signal.Of(10, 40), u.Blocked(), "and then the old one is back")
		// ppoll and the like that end by themselves.
		u.SwapMask(signal.Of(5))
		require.Equal(t, signal.Of(5), u.Blocked())
		u.RestoreMask()
		require.Equal(t, signal.Of(10, 40), u.Blocked())
	})
}

func TestSigtimedwait(t *testing.T) {
	m := newMachine(t, false)
	m.run(func(u *prog) {
		u.block(10, 40)
		_, err := u.Sigtimedwait(signal.Of(10), &linux.Timespec{})
		require.Equal(t, linux.EAGAIN, err)
		_, err = u.Sigtimedwait(signal.Of(10), &linux.Timespec{Nsec: 1e9})
		require.Equal(t, linux.EINVAL, err)
		_, err = u.Sigtimedwait(signal.Of(10), &linux.Timespec{Nsec: 1e6})
		require.Equal(t, linux.EAGAIN, err)
		u.kill(u.PID(), 40)
		u.ok(func() error { return u.Tgkill(u.PID(), u.TID(), 10) })
		i, err := u.Sigtimedwait(signal.Of(10, 40), nil)
		require.NoError(t, err)
		require.EqualValues(t, 10, i.Signo)
		i, err = u.Sigtimedwait(signal.Of(10, 40), nil)
		require.NoError(t, err)
		require.EqualValues(t, 40, i.Signo)
		id := u.fork(func(c *prog) { time.Sleep(2 * time.Millisecond); c.kill(u.PID(), 40) })
		i, err = u.Sigtimedwait(signal.Of(40), nil)
		require.NoError(t, err)
		require.Equal(t, id, i.PID())
		u.status(id)
		require.False(t, u.Interrupted())
		// signalfd's way.
		_, ok := u.TakeSignal(signal.Of(40))
		require.False(t, ok)
		u.kill(u.PID(), 40)
		require.Equal(t, signal.Of(40), u.PendingSignals())
		i, ok = u.TakeSignal(signal.Of(40))
		require.True(t, ok)
		require.EqualValues(t, 40, i.Signo)
	})
}

// A signal of the process is for any thread that does not block it.
func TestSignalFindsAThread(t *testing.T) {
	m := newMachine(t, false)
	m.run(func(u *prog) {
		var who atomic.Int32
		u.on(10, 0, 0, func(p *prog, _ signal.Info) { who.Store(p.TID()) })
		u.block(10)
		var up atomic.Bool
		tid := u.thread(1, func(c *prog) {
			c.unblock(10)
			up.Store(true)
			c.err(c.Pause)
			c.err(c.Pause)
		})
		eventually(t, up.Load)
		u.kill(u.PID(), 10)
		eventually(t, func() bool { return who.Load() == tid })
		// One that all block goes to the first that unblocks it, and one that a dying thread had not taken goes on.
		u.thread(2, func(c *prog) { c.block(12); who.Store(0) })
		eventually(t, func() bool { return who.Load() == 0 && u.Process().alive() == 2 })
		u.exitGroup(0)
	})
}

// Faults: what the handler is told, and what happens if there can be none.
// A leader that has ended keeps its number as long as the process lives, other threads for a moment: signals for such a thread alone go
// nowhere, and count for nobody.
func TestSignalToDeadThread(t *testing.T) {
	m := newMachine(t, false)
	status := m.run(func(u *prog) {
		u.thread(1, func(c *prog) {
			eventually(t, func() bool { return c.Process().alive() == 1 })
			for _, sig := range []int{linux.SIGUSR1, linux.SIGRTMIN} {
				c.ok(func() error { return c.Tgkill(c.PID(), c.PID(), sig) })
				i := signal.From(sig, linux.SI_QUEUE, c.PID(), 0)
				c.ok(func() error { return c.TgSigqueue(c.PID(), c.PID(), sig, i) })
			}
			require.Zero(t, m.sys.users.m[0].signals.Load(), "nobody will ever take them")
		})
		u.exit(3)
	})
	require.EqualValues(t, 3<<8, status)
}

func TestFaults(t *testing.T) {
	m := newMachine(t, false)
	for _, c := range []struct {
		name string
		f    ureg.Frame
		want signal.Info
		trap uint64
		err  uint64
	}{
		{"divide", ureg.Frame{Trap: ureg.Divide}, signal.Fault(linux.SIGFPE, linux.FPE_INTDIV, code), 0, 0},
		{"int3", ureg.Frame{Trap: ureg.Break}, signal.Kernel(linux.SIGTRAP), 3, 0},
		{"single step", ureg.Frame{Trap: ureg.Debug, RFLAGS: ureg.FlagTF}, signal.Fault(linux.SIGTRAP, linux.TRAP_TRACE, code), 1, 0},
		{"ud2", ureg.Frame{Trap: ureg.Undefined}, signal.Fault(linux.SIGILL, linux.ILL_ILLOPN, code), 6, 0},
		{"protection", ureg.Frame{Trap: ureg.Protect, Error: 0x10}, signal.Kernel(linux.SIGSEGV), 13, 0x10},
		{"stack segment", ureg.Frame{Trap: ureg.StackSeg}, signal.Kernel(linux.SIGBUS), 12, 0},
		{"alignment", ureg.Frame{Trap: ureg.Align}, signal.Fault(linux.SIGBUS, linux.BUS_ADRALN, 0), 17, 0},
		{"SSE, inexact", ureg.Frame{Trap: ureg.SIMD, MXCSR: 0x20}, signal.Fault(linux.SIGFPE, linux.FPE_FLTRES, code), 19, 0},
		{"SSE, divide", ureg.Frame{Trap: ureg.SIMD, MXCSR: 0x1f80&^(1<<9) | 4}, signal.Fault(linux.SIGFPE, linux.FPE_FLTDIV, code), 19, 0},
		{"page", ureg.Frame{Trap: ureg.Page, Error: 6, CR2: 0x123}, signal.Fault(linux.SIGSEGV, linux.SEGV_MAPERR, 0x123), 14, 6},
		{"page of the kernel", ureg.Frame{Trap: ureg.Page, Error: 4, CR2: 1 << 63}, signal.Fault(linux.SIGSEGV, linux.SEGV_MAPERR, 1<<63), 14, 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			raise := func(u *prog) {
				f := &u.Regs
				f.Trap, f.Error, f.CR2, f.OrigRAX = c.f.Trap, c.f.Error, c.f.CR2, ureg.NoSyscall
				f.RFLAGS |= c.f.RFLAGS
				f.MXCSR = c.f.MXCSR
				if f.Trap == ureg.Page {
					u.PageFault(f, linux.SIGSEGV, linux.SEGV_MAPERR)
				} else {
					u.Exception(f)
				}
				u.deliver()
			}
			sig := int(c.want.Signo)
			m.run(func(u *prog) {
				u.on(sig, linux.SA_SIGINFO, 0, func(p *prog, i signal.Info) {
					require.Equal(t, c.want, i)
					require.Equal(t, []uint64{c.trap, c.err}, []uint64{p.fault.TrapNo, p.fault.Err})
					require.Zero(t, p.Regs.RFLAGS&ureg.FlagTF)
				})
				raise(u)
				require.EqualValues(t, 1, u.handled.Load())
				// Blocked, or ignored, it kills.
				for _, prepare := range []func(p *prog){func(p *prog) { p.block(sig) }, func(p *prog) { p.disposition(sig, linux.SIG_IGN) }, func(p *prog) { p.disposition(sig, linux.SIG_DFL) }} {
					id := u.fork(func(k *prog) { prepare(k); raise(k); t.Error("alive") })
					require.EqualValues(t, sig|0x80, u.status(id))
				}
			})
		})
	}
}

// A stack that is gone, handlers nowhere, frames that lie: SIGSEGV, and an end to it.
func TestHostileStacks(t *testing.T) {
	m := newMachine(t, false)
	for name, main := range map[string]func(u *prog){
		"no stack": func(u *prog) {
			u.on(10, 0, 0, func(*prog, signal.Info) { t.Error("entered") })
			u.Regs.RSP = 0x100
			u.kill(u.PID(), 10)
		},
		"no stack for SIGSEGV either": func(u *prog) {
			u.on(10, 0, 0, func(*prog, signal.Info) { t.Error("entered") })
			u.on(linux.SIGSEGV, 0, 0, func(*prog, signal.Info) { t.Error("entered") })
			u.Regs.RSP = 0x100
			u.kill(u.PID(), 10)
		},
		"handler in the kernel": func(u *prog) {
			u.ok(func() error {
				_, err := u.Sigaction(10, &signal.Action{Handler: 0xffffffff80000000, Flags: linux.SA_RESTORER})
				return err
			})
			u.kill(u.PID(), 10)
		},
		"SIGSEGV's handler not canonical": func(u *prog) {
			u.ok(func() error {
				_, err := u.Sigaction(linux.SIGSEGV, &signal.Action{Handler: 1 << 50, Flags: linux.SA_RESTORER | linux.SA_NODEFER})
				return err
			})
			u.kill(u.PID(), linux.SIGSEGV)
		},
		"no restorer": func(u *prog) {
			u.ok(func() error { _, err := u.Sigaction(10, &signal.Action{Handler: 0x5000}); return err })
			u.kill(u.PID(), 10)
		},
		"return to the kernel": func(u *prog) {
			u.on(10, 0, 0, func(p *prog, _ signal.Info) { p.space().put64(p.Regs.RSP+8+40+16*8, 0xffffffff80000000) })
			u.kill(u.PID(), 10)
		},
		"return to kernel selectors": func(u *prog) {
			u.on(10, 0, 0, func(p *prog, _ signal.Info) { p.space().put64(p.Regs.RSP+8+40+18*8, 0x08) })
			u.kill(u.PID(), 10)
		},
		"sigreturn from nowhere": func(u *prog) {
			u.Regs.RSP = 0xffff800000000000
			u.Sigreturn(&u.Regs)
			u.deliver()
		},
	} {
		t.Run(name, func(t *testing.T) {
			require.EqualValues(t, linux.SIGSEGV|0x80, m.run(func(u *prog) { main(u); t.Error("alive") }))
		})
	}
}

func TestAlternateStack(t *testing.T) {
	m := newMachine(t, false)
	const base, size = memBase + 0x2000, 0x4000
	m.run(func(u *prog) {
		old, err := u.Sigaltstack(&signal.AltStack{SP: base, Size: size})
		require.NoError(t, err)
		require.Equal(t, signal.AltStack{Flags: linux.SS_DISABLE}, old)
		u.on(10, linux.SA_ONSTACK, 0, func(p *prog, _ signal.Info) {
			require.True(t, p.Regs.RSP > base && p.Regs.RSP < base+size)
			old, _ := p.Sigaltstack(nil)
			require.EqualValues(t, linux.SS_ONSTACK, old.Flags)
			_, err := p.Sigaltstack(&signal.AltStack{Flags: linux.SS_DISABLE})
			require.Equal(t, linux.EPERM, err)
		})
		u.kill(u.PID(), 10)
		_, err = u.Sigaltstack(&signal.AltStack{SP: base, Size: size, Flags: linux.SS_AUTODISARM})
		require.NoError(t, err)
		u.on(12, linux.SA_ONSTACK, 0, func(p *prog, _ signal.Info) {
			require.True(t, p.Regs.RSP > base && p.Regs.RSP < base+size)
			old, _ := p.Sigaltstack(nil)
			require.EqualValues(t, linux.SS_DISABLE, old.Flags, "disarmed")
		})
		u.kill(u.PID(), 12)
		old, _ = u.Sigaltstack(nil)
		require.Equal(t, signal.AltStack{SP: base, Size: size, Flags: linux.SS_AUTODISARM}, old, "and armed again")
	})
}
