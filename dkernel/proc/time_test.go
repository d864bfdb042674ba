package proc

import (
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/dkernel/signal"
	"dinos/kernel/linux"
)

func tv(d time.Duration) linux.Timeval  { return linux.NsTimeval(int64(d)) }
func ts(d time.Duration) linux.Timespec { return linux.NsTimespec(int64(d)) }

func TestRealTimer(t *testing.T) {
	m := newMachine(t, true)
	m.run(func(u *prog) {
		n := 0
		u.on(linux.SIGALRM, linux.SA_SIGINFO, 0, func(_ *prog, i signal.Info) { require.EqualValues(t, linux.SI_KERNEL, i.Code); n++ })
		pass := func(d time.Duration) { m.hand.pass(d); u.spin(func() bool { return !u.Interrupted() }) }
		_, err := u.Setitimer(linux.ITIMER_REAL, linux.Itimerval{Value: tv(100 * time.Millisecond), Interval: tv(30 * time.Millisecond)})
		require.NoError(t, err)
		pass(99 * time.Millisecond)
		v, err := u.Getitimer(linux.ITIMER_REAL)
		require.NoError(t, err)
		require.Equal(t, linux.Itimerval{Value: tv(time.Millisecond), Interval: tv(30 * time.Millisecond)}, v)
		require.Zero(t, n)
		pass(time.Millisecond)
		require.Equal(t, 1, n)
		pass(30 * time.Millisecond)
		require.Equal(t, 2, n)
		// It starts anew when the signal is taken, so that what is missed does not pile up.
		u.block(linux.SIGALRM)
		pass(100 * time.Millisecond)
		require.Equal(t, signal.Of(linux.SIGALRM), u.Sigpending())
		v, _ = u.Getitimer(linux.ITIMER_REAL)
		require.Zero(t, v.Value)
		u.unblock(linux.SIGALRM)
		require.Equal(t, 3, n)
		v, _ = u.Getitimer(linux.ITIMER_REAL)
		require.Equal(t, tv(20*time.Millisecond), v.Value)
		// alarm(2) takes it over.
		require.EqualValues(t, 1, u.Alarm(5), "never 0 if something was left")
		pass(1600 * time.Millisecond)
		require.EqualValues(t, 3, u.Alarm(0), "rounded")
		pass(time.Hour)
		require.Equal(t, 3, n)
		for _, bad := range []linux.Timeval{{Sec: -1}, {Usec: 1e6}, {Usec: -1}} {
			_, err = u.Setitimer(linux.ITIMER_REAL, linux.Itimerval{Value: bad})
			require.Equal(t, linux.EINVAL, err)
		}
		_, err = u.Getitimer(3)
		require.Equal(t, linux.EINVAL, err)
		// Ignored, it goes on.
		u.disposition(linux.SIGALRM, linux.SIG_IGN)
		_, _ = u.Setitimer(linux.ITIMER_REAL, linux.Itimerval{Value: tv(time.Millisecond), Interval: tv(10 * time.Millisecond)})
		pass(5 * time.Millisecond)
		u.on(linux.SIGALRM, 0, 0, func(*prog, signal.Info) { n++ })
		pass(6 * time.Millisecond)
		require.Equal(t, 4, n)
		u.fork(func(c *prog) {
			v, _ := c.Getitimer(linux.ITIMER_REAL)
			require.Zero(t, v, "children have no timers")
		})
		_, _ = u.wait(-1, 0)
	})
}

func TestCPUTimers(t *testing.T) {
	m := newMachine(t, true)
	m.run(func(u *prog) {
		var got []int
		for _, s := range []int{linux.SIGVTALRM, linux.SIGPROF, linux.SIGXCPU} {
			u.on(s, linux.SA_SIGINFO, 0, func(_ *prog, i signal.Info) { got = append(got, int(i.Signo)) })
		}
		ran := func(user, sys time.Duration) {
			u.Ran(int64(user), int64(sys))
			u.spin(func() bool { return !u.Interrupted() })
		}
		_, err := u.Setitimer(linux.ITIMER_VIRTUAL, linux.Itimerval{Value: tv(10 * time.Millisecond), Interval: tv(10 * time.Millisecond)})
		require.NoError(t, err)
		_, err = u.Setitimer(linux.ITIMER_PROF, linux.Itimerval{Value: tv(15 * time.Millisecond)})
		require.NoError(t, err)
		ran(9*time.Millisecond, 5*time.Millisecond)
		require.Empty(t, got)
		ran(0, time.Millisecond)
		require.Equal(t, []int{linux.SIGPROF}, got)
		ran(time.Millisecond, 0)
		require.Equal(t, []int{linux.SIGPROF, linux.SIGVTALRM}, got)
		v, _ := u.Getitimer(linux.ITIMER_VIRTUAL)
		require.Equal(t, tv(10*time.Millisecond), v.Value)
		v, _ = u.Getitimer(linux.ITIMER_PROF)
		require.Zero(t, v)
		// Whoever runs without a break is made to leave ring 3 about then.
		kicks := m.kicks.Load()
		m.hand.pass(11 * time.Millisecond)
		require.Greater(t, m.kicks.Load(), kicks)
		_, _ = u.Setitimer(linux.ITIMER_VIRTUAL, linux.Itimerval{})
		u.spin(func() bool { return !u.Interrupted() })
		kicks = m.kicks.Load()
		m.hand.pass(time.Minute)
		require.Equal(t, kicks, m.kicks.Load(), "no timer, no tick")

		// The limit on CPU time: SIGXCPU each second, SIGKILL at the end.
		got = nil
		_, err = u.Prlimit(0, linux.RLIMIT_CPU, &linux.Rlimit{Cur: 1, Max: 4})
		require.NoError(t, err)
		ran(970*time.Millisecond, 10*time.Millisecond)
		require.Empty(t, got[:0])
		ran(50*time.Millisecond, 0)
		require.Equal(t, []int{linux.SIGXCPU}, got)
		ran(900*time.Millisecond, 0)
		require.Len(t, got, 1)
		ran(200*time.Millisecond, 0)
		require.Len(t, got, 2)
		id := u.fork(func(c *prog) { // a limit is inherited, what was used is not
			c.Ran(0, 999e6)
			c.spin(func() bool { return !c.Interrupted() })
			c.disposition(linux.SIGXCPU, linux.SIG_DFL)
			c.Ran(0, 2e6)
			c.spin(func() bool { return false })
		})
		require.EqualValues(t, linux.SIGXCPU|0x80, u.status(id))
		ran(3*time.Second, 0)
		t.Error("alive after the hard limit")
	})
	require.EqualValues(t, linux.SIGKILL, m.status[2])
}

func TestTimesAndUsage(t *testing.T) {
	m := newMachine(t, true)
	m.run(func(u *prog) {
		u.Ran(25e6, 14e6)
		u.Faulted(false)
		u.Faulted(true)
		u.Switched(true)
		id := u.fork(func(c *prog) {
			c.Ran(31e6, 0)
			c.thread(1, func(d *prog) { d.Ran(0, 12e6) })
			eventually(t, func() bool { return c.Process().alive() == 1 })
		})
		r, err := u.wait(id, 0)
		require.NoError(t, err)
		require.Equal(t, []int64{31000, 12000}, []int64{r.Usage.Utime.Usec, r.Usage.Stime.Usec})
		tms, _ := u.Times()
		require.Equal(t, linux.Tms{Utime: 2, Stime: 1, Cutime: 3, Cstime: 1}, tms)
		self, err := u.Getrusage(linux.RUSAGE_SELF)
		require.NoError(t, err)
		require.Equal(t, []int64{25000, 14000, 1, 1, 1, 12}, []int64{self.Utime.Usec, self.Stime.Usec, self.Minflt, self.Majflt, self.Nvcsw, self.Maxrss})
		kids, _ := u.Getrusage(linux.RUSAGE_CHILDREN)
		require.EqualValues(t, 31000, kids.Utime.Usec)
		th, _ := u.Getrusage(linux.RUSAGE_THREAD)
		require.EqualValues(t, 25000, th.Utime.Usec)
		_, err = u.Getrusage(5)
		require.Equal(t, linux.EINVAL, err)
	})
}

func TestPOSIXTimers(t *testing.T) {
	m := newMachine(t, true)
	m.run(func(u *prog) {
		var got []signal.Info
		u.on(40, linux.SA_SIGINFO, 0, func(_ *prog, i signal.Info) { got = append(got, i) })
		pass := func(d time.Duration) { m.hand.pass(d); u.spin(func() bool { return !u.Interrupted() }) }
		for _, bad := range []Sigevent{{Notify: 7}, {Notify: linux.SIGEV_SIGNAL, Signo: 65}, {Notify: linux.SIGEV_SIGNAL}, {Notify: linux.SIGEV_THREAD_ID, Signo: 10, TID: 1}} {
			_, err := u.TimerCreate(linux.CLOCK_MONOTONIC, &bad)
			require.Equal(t, linux.EINVAL, err, "%+v", bad)
		}
		_, err := u.TimerCreate(99, nil)
		require.Equal(t, linux.EINVAL, err)
		_, err = u.TimerCreate(linux.CLOCK_MONOTONIC_COARSE, nil)
		require.Equal(t, linux.EOPNOTSUPP, err)
		id, err := u.TimerCreate(linux.CLOCK_MONOTONIC, &Sigevent{Value: 77, Signo: 40})
		require.NoError(t, err)
		_, err = u.TimerSettime(id, 0, linux.Itimerspec{Value: ts(10 * time.Millisecond), Interval: ts(3 * time.Millisecond)})
		require.NoError(t, err)
		v, err := u.TimerGettime(id)
		require.NoError(t, err)
		require.Equal(t, linux.Itimerspec{Value: ts(10 * time.Millisecond), Interval: ts(3 * time.Millisecond)}, v)
		pass(10 * time.Millisecond)
		require.Len(t, got, 1)
		require.Equal(t, signal.Timer(40, id, 0, 77), got[0])
		// Three intervals and a bit while the signal is blocked: one signal, two overruns.
		u.block(40)
		pass(10 * time.Millisecond)
		u.unblock(40)
		require.Len(t, got, 2)
		require.EqualValues(t, 2, got[1].Overrun())
		n, err := u.TimerGetoverrun(id)
		require.NoError(t, err)
		require.EqualValues(t, 2, n)
		pass(2 * time.Millisecond)
		require.Len(t, got, 3, "and it goes on in its rhythm")
		// Set anew, or deleted, it takes back what was not delivered.
		u.block(40)
		pass(3 * time.Millisecond)
		require.Equal(t, signal.Of(40), u.Sigpending())
		_, err = u.TimerSettime(id, 0, linux.Itimerspec{})
		require.NoError(t, err)
		require.Zero(t, u.Sigpending())
		_, err = u.TimerSettime(id, linux.TIMER_ABSTIME, linux.Itimerspec{Value: ts(1)})
		require.NoError(t, err)
		pass(1)
		require.Equal(t, signal.Of(40), u.Sigpending(), "a past time is now")
		require.NoError(t, u.TimerDelete(id))
		require.Zero(t, u.Sigpending())
		u.unblock(40)
		require.Equal(t, linux.EINVAL, u.TimerDelete(id))
		_, err = u.TimerSettime(id, 0, linux.Itimerspec{})
		require.Equal(t, linux.EINVAL, err)

		// SIGEV_NONE is only looked at; SIGEV_THREAD_ID goes to one thread.
		id, err = u.TimerCreate(linux.CLOCK_REALTIME, &Sigevent{Notify: linux.SIGEV_NONE})
		require.NoError(t, err)
		_, err = u.TimerSettime(id, 0, linux.Itimerspec{Value: ts(5 * time.Millisecond), Interval: ts(4 * time.Millisecond)})
		require.NoError(t, err)
		pass(7 * time.Millisecond)
		v, _ = u.TimerGettime(id)
		require.Equal(t, ts(2*time.Millisecond), v.Value)
		var hit atomic.Int32
		u.on(41, linux.SA_SIGINFO, 0, func(p *prog, _ signal.Info) { hit.Store(p.TID()) })
		tid := u.thread(1, func(c *prog) { c.spin(func() bool { return hit.Load() != 0 }) })
		id, err = u.TimerCreate(linux.CLOCK_BOOTTIME, &Sigevent{Notify: linux.SIGEV_THREAD_ID, Signo: 41, TID: tid})
		require.NoError(t, err)
		_, err = u.TimerSettime(id, 0, linux.Itimerspec{Value: ts(1)})
		require.NoError(t, err)
		m.hand.pass(1)
		eventually(t, func() bool { return hit.Load() == tid })
		// As many as pending signals are allowed.
		_, err = u.Prlimit(0, linux.RLIMIT_SIGPENDING, &linux.Rlimit{Cur: 4, Max: 4})
		require.NoError(t, err)
		for range 2 {
			_, err = u.TimerCreate(linux.CLOCK_MONOTONIC, nil)
			require.NoError(t, err)
		}
		_, err = u.TimerCreate(linux.CLOCK_MONOTONIC, nil)
		require.Equal(t, linux.EAGAIN, err)
	})
}

func TestTimerOnSetClock(t *testing.T) {
	m := newMachine(t, true)
	m.run(func(u *prog) {
		n := 0
		u.on(linux.SIGALRM, 0, 0, func(*prog, signal.Info) { n++ })
		id, err := u.TimerCreate(linux.CLOCK_REALTIME, nil)
		require.NoError(t, err)
		at := m.hand.Realtime() + int64(time.Hour)
		_, err = u.TimerSettime(id, linux.TIMER_ABSTIME, linux.Itimerspec{Value: linux.NsTimespec(at)})
		require.NoError(t, err)
		m.hand.pass(time.Minute)
		m.hand.mu.Lock()
		m.hand.offset += int64(time.Hour)
		m.hand.mu.Unlock()
		m.sys.ClockWasSet()
		m.hand.pass(1)
		u.spin(func() bool { return !u.Interrupted() })
		require.Equal(t, 1, n)
	})
}

func TestCPUClockTimer(t *testing.T) {
	m := newMachine(t, true)
	m.run(func(u *prog) {
		n := 0
		u.on(linux.SIGALRM, 0, 0, func(*prog, signal.Info) { n++ })
		for _, c := range []int32{linux.CLOCK_PROCESS_CPUTIME_ID, linux.CLOCK_THREAD_CPUTIME_ID} {
			id, err := u.TimerCreate(c, nil)
			require.NoError(t, err)
			_, err = u.TimerSettime(id, 0, linux.Itimerspec{Value: ts(10 * time.Millisecond), Interval: ts(time.Millisecond)})
			require.NoError(t, err)
		}
		ran := func(d time.Duration) { u.Ran(int64(d), 0); u.spin(func() bool { return !u.Interrupted() }) }
		ran(9 * time.Millisecond)
		require.Zero(t, n)
		u.thread(1, func(c *prog) { c.Ran(1e6, 0); c.spin(func() bool { return !c.Interrupted() }) })
		eventually(t, func() bool { return u.Process().alive() == 1 })
		u.spin(func() bool { return !u.Interrupted() })
		ran(0)
		require.Positive(t, n, "the process has used it up")
		before := n
		ran(time.Millisecond)
		require.Greater(t, n, before)
	})
}

func TestClocks(t *testing.T) {
	m := newMachine(t, true, func(c *Config) { c.CoarseResolution = 4e6 })
	m.run(func(u *prog) {
		u.Ran(5, 6)
		get := func(id int32) int64 {
			n, err := u.ClockGettime(id)
			require.NoError(t, err, "%d", id)
			return n
		}
		require.EqualValues(t, 1e9, get(linux.CLOCK_MONOTONIC))
		require.EqualValues(t, 1e9, get(linux.CLOCK_BOOTTIME))
		require.EqualValues(t, 1e9+1e18, get(linux.CLOCK_REALTIME))
		require.EqualValues(t, 11, get(linux.CLOCK_PROCESS_CPUTIME_ID))
		require.EqualValues(t, 11, get(linux.CLOCK_THREAD_CPUTIME_ID))
		id := u.PID()
		require.EqualValues(t, 11, get(^id<<3|2), "clock_getcpuclockid")
		require.EqualValues(t, 5, get(^id<<3|1))
		require.EqualValues(t, 11, get(^u.TID()<<3|6), "pthread_getcpuclockid")
		for _, bad := range []int32{10, 12, 99, linux.CLOCK_REALTIME_ALARM, -1, ^int32(9999)<<3 | 2, ^id<<3 | 3, ^int32(1)<<3 | 6} {
			_, err := u.ClockGettime(bad)
			require.Equal(t, linux.EINVAL, err, "%d", bad)
		}
		n, err := u.ClockGetres(linux.CLOCK_REALTIME_COARSE)
		require.NoError(t, err)
		require.EqualValues(t, 4e6, n)
		n, _ = u.ClockGetres(linux.CLOCK_MONOTONIC)
		require.EqualValues(t, 1, n)
		_, err = u.ClockGetres(12)
		require.Equal(t, linux.EINVAL, err)

		for id, want := range map[int32]error{linux.CLOCK_MONOTONIC_RAW: linux.EOPNOTSUPP, linux.CLOCK_THREAD_CPUTIME_ID: linux.EOPNOTSUPP,
			linux.CLOCK_BOOTTIME_ALARM: linux.EOPNOTSUPP, -2: linux.EINVAL, 12: linux.EINVAL} {
			require.Equal(t, want, u.ClockNanosleep(id, 0, linux.Timespec{}, 0), "%d", id)
		}
		require.Equal(t, linux.EINVAL, u.Nanosleep(linux.Timespec{Nsec: 1e9}, 0))
		require.Equal(t, linux.EINVAL, u.Nanosleep(linux.Timespec{Sec: -1}, 0))
		require.NoError(t, u.ClockNanosleep(linux.CLOCK_REALTIME, linux.TIMER_ABSTIME, linux.Timespec{Sec: 5}, 0), "that is past")
	})
}

// What is left of an interrupted sleep is told, and the sleep goes on where it was.
func TestSleepRemainder(t *testing.T) {
	m := newMachine(t, false)
	const rem = memBase + 0x200
	m.run(func(u *prog) {
		u.on(10, 0, 0, func(*prog, signal.Info) {})
		interrupt := func(f func() error) error { return u.interrupted(10, f) }
		err := interrupt(func() error { return u.Nanosleep(linux.Timespec{Sec: 50}, rem) })
		require.Equal(t, linux.EINTR, err)
		require.EqualValues(t, 49, u.space().get64(rem))
		require.Less(t, u.space().get64(rem+8), uint64(1e9))
		err = interrupt(func() error { return u.Nanosleep(linux.Timespec{Sec: 50}, 0xffff800000000000) })
		require.Equal(t, linux.EFAULT, err)
		err = interrupt(func() error {
			return u.ClockNanosleep(linux.CLOCK_REALTIME, linux.TIMER_ABSTIME, linux.Timespec{Sec: math.MaxInt64}, rem)
		})
		require.Equal(t, linux.EINTR, err)
		_, err = u.call(func() (uint64, error) { return u.RestartSyscall() })
		require.Equal(t, linux.EINTR, err)
	})
}
