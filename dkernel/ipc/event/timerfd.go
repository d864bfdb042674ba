package event

import (
	"fmt"
	"sync"
	"time"

	"dinos/dkernel/cred"
	"dinos/dkernel/uio"
	"dinos/dkernel/vfs"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

// Clocks is the time that timers go by.
type Clocks struct {
	// Monotonic is CLOCK_MONOTONIC in ns, the clock of wait.Sleeper's deadlines as well. CLOCK_BOOTTIME is the same: the machine does
	// not sleep.
	Monotonic func() int64
	// Realtime is CLOCK_REALTIME in ns.
	Realtime func() int64

	mu     sync.Mutex
	timers map[*Timerfd]struct{} // armed, of CLOCK_REALTIME and absolute; guarded by mu
}

// Stepped is to be called when Realtime was set (clock_settime(2)), not when it is slewed: timers of absolute times wait anew, those
// with TFD_TIMER_CANCEL_ON_SET are cancelled.
func (k *Clocks) Stepped() {
	k.mu.Lock()
	timers := make([]*Timerfd, 0, len(k.timers))
	for t := range k.timers {
		timers = append(timers, t)
	}
	k.mu.Unlock()
	for _, t := range timers {
		t.stepped()
	}
}

// follow has t told of steps, or no more.
func (k *Clocks) follow(t *Timerfd, on bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !on {
		delete(k.timers, t)
		return
	}
	if k.timers == nil {
		k.timers = map[*Timerfd]struct{}{}
	}
	k.timers[t] = struct{}{}
}

// Timerfd counts how often a time came: timerfd_create(2).
//
// How often it expired is computed when somebody asks. A timer of the Go runtime just wakes who waits.
//
// Lock order: Timerfd.mu, then Clocks.mu.
type Timerfd struct {
	vfs.BaseFile
	q     wait.Queue
	k     *Clocks
	clock int32

	mu        sync.Mutex // guards all below
	timer     *time.Timer
	next      int64 // when it expires next, by its clock; 0: not armed
	interval  int64
	ticks     uint64 // set by TFD_IOC_SET_TICKS
	cancelled bool   // the clock was set
	cancel    bool   // TFD_TIMER_CANCEL_ON_SET
	absolute  bool
}

func realtime(clock int32) bool {
	return clock == linux.CLOCK_REALTIME || clock == linux.CLOCK_REALTIME_ALARM
}

// CreateTimerfd is timerfd_create(2): it returns the descriptor. Errors: linux.EINVAL for a clock that has no timers, linux.EPERM for
// those that wake the machine, without CAP_WAKE_ALARM.
func (k *Clocks) CreateTimerfd(c *vfs.Caller, clock int32, flags uint32) (int, error) {
	status, cloexec, err := createFlags(flags)
	if err != nil {
		return 0, err
	}
	const capWakeAlarm cred.Cap = 35
	switch clock {
	case linux.CLOCK_REALTIME, linux.CLOCK_MONOTONIC, linux.CLOCK_BOOTTIME:
	case linux.CLOCK_REALTIME_ALARM, linux.CLOCK_BOOTTIME_ALARM:
		if !c.Cred.Can(capWakeAlarm) {
			return 0, linux.EPERM
		}
	default:
		return 0, linux.EINVAL
	}
	return c.InstallAnon("[timerfd]", &Timerfd{k: k, clock: clock}, linux.O_RDWR|status, cloexec)
}

func getTimer(c *vfs.Caller, fd int) (vfs.Ref, *Timerfd, error) {
	r, err := c.Files.Get(fd)
	if err != nil {
		return r, nil, err
	}
	t, ok := r.File().(*Timerfd)
	if !ok {
		r.Put()
		return r, nil, linux.EINVAL
	}
	return r, t, nil
}

// SetTimer is timerfd_settime(2): it returns what was set before. Errors: linux.EINVAL, linux.EBADF, linux.ECANCELED if it was cancelled since
// and is set to be cancelled again; then it is set all the same.
func SetTimer(c *vfs.Caller, fd int, flags uint32, v linux.Itimerspec) (old linux.Itimerspec, err error) {
	value, ok1 := v.Value.Ns()
	interval, ok2 := v.Interval.Ns()
	if flags&^(linux.TFD_TIMER_ABSTIME|linux.TFD_TIMER_CANCEL_ON_SET) != 0 || !ok1 || !ok2 {
		return old, linux.EINVAL
	}
	r, t, err := getTimer(c, fd)
	if err != nil {
		return old, err
	}
	defer r.Put()
	t.mu.Lock()
	old = t.left()
	t.disarm()
	both := uint32(linux.TFD_TIMER_ABSTIME | linux.TFD_TIMER_CANCEL_ON_SET)
	t.cancel = realtime(t.clock) && flags&both == both
	if t.cancel && t.cancelled {
		err = linux.ECANCELED
	}
	t.cancelled, t.ticks = false, 0
	t.absolute = flags&linux.TFD_TIMER_ABSTIME != 0
	t.interval = interval
	if value != 0 {
		if !t.absolute {
			value = add(t.now(), value)
		}
		t.next = value
		t.arm()
	}
	if t.absolute && realtime(t.clock) && (value != 0 || t.cancel) {
		t.k.follow(t, true)
	}
	t.mu.Unlock()
	t.q.Wake(wait.In) // it may be in the past
	return old, err
}

// GetTimer is timerfd_gettime(2).
func GetTimer(c *vfs.Caller, fd int) (linux.Itimerspec, error) {
	r, t, err := getTimer(c, fd)
	if err != nil {
		return linux.Itimerspec{}, err
	}
	defer r.Put()
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.left(), nil
}

func add(a, b int64) int64 {
	if s := a + b; s >= a {
		return s
	}
	return 1<<63 - 1
}

// What follows is called with mu held.

// now is the time of the timer's clock. Relative times go by the monotonic one, whatever becomes of the other.
func (t *Timerfd) now() int64 {
	if t.absolute && realtime(t.clock) {
		return t.k.Realtime()
	}
	return t.k.Monotonic()
}

// arm has the runtime wake us at the next time.
func (t *Timerfd) arm() {
	d := time.Duration(max(t.next-t.now(), 0))
	if t.timer == nil {
		t.timer = time.AfterFunc(d, t.fire)
	} else {
		t.timer.Reset(d)
	}
}

func (t *Timerfd) disarm() {
	t.next = 0
	if t.timer != nil {
		t.timer.Stop()
	}
	if realtime(t.clock) {
		t.k.follow(t, false)
	}
}

// fire is called by the runtime, without mu.
func (t *Timerfd) fire() {
	t.mu.Lock()
	// Go's clock may be a moment ahead of ours, and the time of day may have been set back.
	if t.next != 0 && t.now() < t.next {
		t.arm()
		t.mu.Unlock()
		return
	}
	t.mu.Unlock()
	t.q.Wake(wait.In)
}

// expired is how often it has expired since it was read.
func (t *Timerfd) expired() uint64 {
	if t.next == 0 {
		return t.ticks
	}
	late := t.now() - t.next
	switch {
	case late < 0:
		return t.ticks
	case t.interval == 0:
		return t.ticks + 1
	}
	return t.ticks + 1 + uint64(late/t.interval)
}

// left is what is set, with the time that is left.
func (t *Timerfd) left() linux.Itimerspec {
	s := linux.Itimerspec{Interval: linux.NsTimespec(t.interval)}
	if t.next == 0 {
		return s
	}
	d := t.next - t.now()
	if d <= 0 {
		if t.interval == 0 {
			return s
		}
		d = t.interval - -d%t.interval
	}
	s.Value = linux.NsTimespec(d)
	return s
}

// stepped is told that the time of day was set, without mu.
func (t *Timerfd) stepped() {
	t.mu.Lock()
	if t.cancel {
		t.cancelled = true
	}
	if t.next != 0 {
		t.arm()
	}
	t.mu.Unlock()
	t.q.Wake(wait.In)
}

// take takes how often it expired: linux.EAGAIN if it did not, linux.ECANCELED if the clock was set.
func (t *Timerfd) take() (uint64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cancelled {
		t.cancelled = false
		return 0, linux.ECANCELED
	}
	n := t.expired()
	if n == 0 {
		return 0, linux.EAGAIN
	}
	if t.next != 0 && n > t.ticks {
		if t.interval == 0 {
			t.next = 0
		} else {
			t.next = add(t.next, int64(n-t.ticks)*t.interval)
			t.arm()
		}
	}
	t.ticks = 0
	return n, nil
}

// Read implements vfs.File.
func (t *Timerfd) Read(c *vfs.Caller, d *vfs.Description, io *uio.IO, _ *int64) (int64, error) {
	if io.Len() < 8 {
		return 0, linux.EINVAL
	}
	var n uint64
	err := d.Sleeper(c).Until(&t.q, wait.In, wait.Forever, func() (err error) {
		n, err = t.take()
		return err
	})
	if err != nil {
		return 0, err
	}
	return put8(io, n)
}

// Poll implements vfs.File.
func (t *Timerfd) Poll(*vfs.Description) wait.Events {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cancelled || t.expired() > 0 {
		return wait.In
	}
	return 0
}

// Queue implements vfs.File.
func (t *Timerfd) Queue(*vfs.Description) *wait.Queue { return &t.q }

// Ioctl implements vfs.File: TFD_IOC_SET_TICKS, for programs that are restored.
func (t *Timerfd) Ioctl(c *vfs.Caller, _ *vfs.Description, req uint32, arg uint64) (uint64, error) {
	if req != linux.TFD_IOC_SET_TICKS {
		return 0, linux.ENOTTY
	}
	var io uio.IO
	io.User(c.Mem, arg, 8)
	n, err := get8(&io)
	if err != nil {
		return 0, err
	}
	if n == 0 {
		return 0, linux.EINVAL
	}
	t.mu.Lock()
	t.ticks = n
	t.mu.Unlock()
	t.q.Wake(wait.In)
	return 0, nil
}

// Release implements vfs.File.
func (t *Timerfd) Release(*vfs.Description) {
	t.mu.Lock()
	t.disarm()
	t.mu.Unlock()
}

// FDInfo implements vfs.FDInfoer.
func (t *Timerfd) FDInfo(_ *vfs.Description, b []byte) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.left()
	return fmt.Appendf(b, "clockid: %d\nticks: %d\nit_value: (%d, %d)\nit_interval: (%d, %d)\n", t.clock, t.expired(), l.Value.Sec,
		l.Value.Nsec, l.Interval.Sec, l.Interval.Nsec)
}
