// Package tty is terminals: the line discipline N_TTY, job control, pseudo terminals, and the console (termios(3), ioctl_tty(2),
// pty(7), POSIX.1-2017 chapter 11).
//
// A TTY has two sides. Programs have it open as a [vfs.File]. On the other side is the master of a pseudo terminal, itself a
// vfs.File, or for the console the kernel, by the methods Input, Output and Resize.
//
// Lock order: TTY.mu; nothing is locked while it is held but queues, no program memory is touched, no signal sent.
package tty

import (
	"sync"

	"dinos/dkernel/uio"
	"dinos/dkernel/vfs"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

type kind uint8

const (
	kindPTY kind = iota
	kindConsole
)

// TTY is a terminal.
type TTY struct {
	kind kind
	num  int    // of a pseudo terminal
	dev  uint64 // vfs.MkDev
	sys  *System

	q     wait.Queue // programs
	other wait.Queue // the other side

	mu      sync.Mutex // guards all below
	d       *disc
	pending ring // input for which d has no room
	win     linux.Winsize

	session, group int32 // whose controlling terminal it is; the foreground process group

	opens    int    // descriptions of programs
	hangups  uint32 // descriptions opened before the last one are dead
	alone    bool   // the other side is gone, or seen from there: all programs have closed it
	locked   bool   // unlockpt(3) is missing
	excl     bool   // TIOCEXCL
	packet   bool   // the master reads packets (TIOCPKT)
	status   uint8  // for it: TIOCPKT_*
	reading  bool   // a program reads; others wait
	writing  bool   // a program writes; others wait
	orphaned bool   // the master is closed
}

// opened is the State of a program's description.
type opened struct{ hangups uint32 }

func (s *System) newTTY(k kind, num int, dev uint64) *TTY {
	return &TTY{sys: s, kind: k, num: num, dev: dev, d: newDisc(), pending: ring{limit: backlog}}
}

// Dev is the number of the device.
func (t *TTY) Dev() uint64 { return t.dev }

// chunks are buffers between programs and terminals, as no program memory may be touched under a lock.
var chunks = sync.Pool{New: func() any { return new([inSize]byte) }}

// writeChunk is how many bytes of a write(2) are processed at a time.
const writeChunk = 2048

// done ends a change: it unlocks, and tells everybody whom it concerns. q and other are events that happened anyway.
func (t *TTY) done(q, other wait.Events) {
	d := t.d
	if d.received {
		d.received = false
		q |= wait.Readable
	}
	if d.out.n > 0 {
		other |= wait.Readable
	}
	if d.flushed != 0 {
		if d.flushed&linux.TIOCPKT_START != 0 {
			q |= wait.Writable
		}
		t.report(d.flushed)
		d.flushed = 0
	}
	if t.status != 0 {
		other |= wait.Readable | wait.Pri
	}
	signals, group := d.signals, t.group
	d.signals = nil
	t.mu.Unlock()
	if q != 0 {
		t.q.Wake(q)
	}
	if other != 0 {
		t.other.Wake(other)
	}
	for _, s := range signals {
		if group != 0 {
			t.sys.jobs.SignalGroup(group, s)
		}
	}
}

// report notes something for a master in packet mode.
func (t *TTY) report(bits uint8) {
	if !t.packet {
		return
	}
	if bits&linux.TIOCPKT_STOP != 0 {
		t.status &^= linux.TIOCPKT_START
	}
	if bits&linux.TIOCPKT_START != 0 {
		t.status &^= linux.TIOCPKT_STOP
	}
	t.status |= bits
}

// input takes bytes from the other side and returns how many.
func (t *TTY) input(p []byte) int {
	t.mu.Lock()
	n := 0
	if t.pending.n == 0 {
		n = t.d.receive(p)
	}
	n += t.pending.put(p[n:])
	t.done(0, 0)
	return n
}

// refill gives the line discipline what it had no room for before, with mu held. It returns the event for the other side.
func (t *TTY) refill() (ev wait.Events) {
	for t.pending.n > 0 {
		n := t.d.receive(t.pending.first())
		if n == 0 {
			break
		}
		t.pending.skip(n)
		ev = wait.Writable
	}
	return ev
}

// output takes bytes for the other side.
func (t *TTY) output(p []byte) int {
	t.mu.Lock()
	n := t.d.out.take(p)
	var ev wait.Events
	if n > 0 {
		ev = wait.Writable
		t.d.putEcho()
	}
	t.done(ev, 0)
	return n
}

// dead tells, with mu held, whether t was hung up since d was opened.
func (t *TTY) dead(d *vfs.Description) bool {
	o, _ := d.State.(*opened)
	return o != nil && o.hangups != t.hangups
}

// Open counts a program's description, which must not be released through t after an error. It becomes the controlling terminal of a
// session leader that has none, unless noctty or it cannot be read. Errors: linux.EIO for one half of a pseudo terminal whose
// master is closed or not unlocked, linux.EBUSY after TIOCEXCL.
func (t *TTY) Open(c *vfs.Caller, d *vfs.Description, noctty bool) error {
	t.mu.Lock()
	switch {
	case t.locked || t.orphaned:
		t.mu.Unlock()
		return linux.EIO
	case t.excl && !admin(c):
		t.mu.Unlock()
		return linux.EBUSY
	}
	t.opens++
	t.alone = false
	d.State = &opened{t.hangups}
	t.mu.Unlock()
	if !noctty && d.CanRead() {
		t.acquire(task(c))
	}
	return nil
}

// Release implements vfs.File.
func (t *TTY) Release(d *vfs.Description) {
	t.mu.Lock()
	t.opens--
	var ev wait.Events
	last := t.opens == 0
	if last {
		t.excl = false
		if t.kind == kindPTY {
			t.alone = true
			ev = wait.Readable | wait.Writable | wait.Hup
		}
	}
	gone := last && t.orphaned
	t.done(0, ev)
	if gone {
		t.sys.free(t)
	}
}

// claim has other readers or writers wait, as a read(2) or write(2) of several steps is not to be mixed with others.
func (t *TTY) claim(c *vfs.Caller, d *vfs.Description, flag *bool) error {
	return d.Sleeper(c).Until(&t.q, wait.All, wait.Forever, func() error {
		t.mu.Lock()
		defer t.mu.Unlock()
		if *flag {
			return linux.EAGAIN
		}
		*flag = true
		return nil
	})
}

func (t *TTY) unclaim(flag *bool, ev wait.Events) {
	t.mu.Lock()
	*flag = false
	t.mu.Unlock()
	t.q.Wake(ev)
}

// Read implements vfs.File: the program's side.
func (t *TTY) Read(c *vfs.Caller, d *vfs.Description, io *uio.IO, _ *int64) (int64, error) {
	t.mu.Lock()
	dead := t.dead(d)
	t.mu.Unlock()
	if dead {
		return 0, nil
	}
	if err := t.mayChange(c, linux.SIGTTIN); err != nil {
		return 0, err
	}
	if err := t.claim(c, d, &t.reading); err != nil {
		return 0, err
	}
	chunk := chunks.Get().(*[inSize]byte)
	n, err := t.read(c, d, chunk[:min(int64(len(chunk)), io.Len())])
	t.unclaim(&t.reading, wait.Readable)
	if n > 0 {
		n, err = io.Write(chunk[:n])
		if n > 0 {
			err = nil
		}
	}
	chunks.Put(chunk)
	return int64(n), err
}

// read waits until p has a line, or as many bytes as VMIN and VTIME say.
func (t *TTY) read(c *vfs.Caller, d *vfs.Description, p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	t.mu.Lock()
	least, gap, deadline := 0, int64(0), wait.Forever
	if !t.d.canonical() {
		// VTIME is in tenths of a second: between bytes, or of the whole read if VMIN is 0.
		least, gap = int(t.d.set.CC[linux.VMIN]), int64(t.d.set.CC[linux.VTIME])*100e6
		if least == 0 {
			least, deadline = 1, 0
			if gap > 0 {
				deadline, gap = t.sys.now()+gap, 0
			}
		}
		// Linux reads in pieces of 64 bytes, and does not go on if that is less than VMIN.
		if least > 64 {
			p = p[:min(len(p), 64)]
		}
	}
	t.mu.Unlock()
	s, more := d.Sleeper(c), true
	for more && err == nil {
		err = s.Until(&t.q, wait.Readable, deadline, func() error {
			got, end, err := t.tryRead(d, p[n:])
			n += got
			more = !end && n < least && n < len(p)
			if err == linux.EAGAIN && deadline == 0 {
				more, err = false, nil
			}
			return err
		})
		if gap > 0 {
			deadline = t.sys.now() + gap
		}
	}
	if n > 0 || err == linux.ETIMEDOUT {
		err = nil
	}
	return n, err
}

// tryRead takes what there is. end says that nothing more comes.
func (t *TTY) tryRead(d *vfs.Description, p []byte) (n int, end bool, err error) {
	t.mu.Lock()
	if t.d.readable(1) {
		n = t.d.read(p)
		ev := t.refill()
		t.done(0, ev)
		return n, false, nil
	}
	defer t.mu.Unlock()
	switch {
	case t.orphaned:
		return 0, true, linux.EIO
	case t.dead(d):
		return 0, true, nil
	}
	return 0, false, linux.EAGAIN
}

// Write implements vfs.File: the program's side.
func (t *TTY) Write(c *vfs.Caller, d *vfs.Description, io *uio.IO, _ *int64) (n int64, err error) {
	t.mu.Lock()
	dead := t.dead(d) || t.orphaned
	t.mu.Unlock()
	if dead {
		return 0, linux.EIO
	}
	if err := t.claim(c, d, &t.writing); err != nil {
		return 0, err
	}
	chunk := chunks.Get().(*[inSize]byte)
	for io.Len() > 0 && err == nil {
		if err = t.mayWrite(c); err != nil {
			break
		}
		var k, w int
		if k, err = io.Read(chunk[:writeChunk]); err != nil {
			break
		}
		w, err = t.write(c, d, chunk[:k])
		n += int64(w)
	}
	chunks.Put(chunk)
	t.unclaim(&t.writing, wait.Writable)
	if n > 0 {
		err = nil
	}
	return n, err
}

// mayWrite stops a background process if TOSTOP says so.
func (t *TTY) mayWrite(c *vfs.Caller) error {
	t.mu.Lock()
	stop := t.d.lflag(linux.TOSTOP)
	t.mu.Unlock()
	if !stop {
		return nil
	}
	return t.mayChange(c, linux.SIGTTOU)
}

// write waits until all of p is written.
func (t *TTY) write(c *vfs.Caller, d *vfs.Description, p []byte) (n int, err error) {
	err = d.Sleeper(c).Until(&t.q, wait.Writable, wait.Forever, func() error {
		t.mu.Lock()
		if t.dead(d) || t.orphaned {
			t.mu.Unlock()
			return linux.EIO
		}
		n += t.d.write(p[n:])
		t.done(0, 0)
		if n < len(p) {
			return linux.EAGAIN
		}
		return nil
	})
	return n, err
}

// Poll implements vfs.File: the program's side.
func (t *TTY) Poll(d *vfs.Description) (ev wait.Events) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dead(d) {
		return wait.Readable | wait.Writable | wait.Err | wait.Hup
	}
	least := 1
	if t.d.set.CC[linux.VTIME] == 0 {
		least = int(t.d.set.CC[linux.VMIN])
	}
	if t.d.readable(least) {
		ev |= wait.Readable
	}
	if t.orphaned {
		ev |= wait.Hup
	}
	if !t.d.stopped && !t.writing && t.d.out.room() > 0 {
		ev |= wait.Writable
	}
	return ev
}

// Queue implements vfs.File.
func (t *TTY) Queue(*vfs.Description) *wait.Queue { return &t.q }
