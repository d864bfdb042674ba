package proc

import (
	"dinos/dkernel/signal"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

// WaitResult is what wait4(2) and waitid(2) tell. PID 0: no child has anything to tell (WNOHANG).
type WaitResult struct {
	PID    int32
	Status uint32 // wait4's
	Info   signal.Info
	Usage  linux.Rusage
}

// who are the children that a wait is for.
type who struct {
	kind    int // linux.P_ALL, P_PID, P_PGID
	id      int32
	options uint32
}

func (w *who) matches(t *Thread, c *Process) bool {
	switch w.kind {
	case linux.P_PID:
		if c.id.n != w.id {
			return false
		}
	case linux.P_PGID:
		if c.group == nil || c.group.id.n != w.id {
			return false
		}
	}
	if w.options&linux.WNOTHREAD != 0 && c.parentThread != t {
		return false
	}
	// Children that do not send SIGCHLD are for those who ask for them.
	return w.options&linux.WALL != 0 || (c.exitSignal != linux.SIGCHLD) == (w.options&linux.WCLONE != 0)
}

// Wait4 is wait4(2): id > 0 a child, 0 the own group, -1 any, below that a group. linux.ECHILD, linux.EINVAL, linux.ERESTARTSYS.
func (t *Thread) Wait4(id int32, options uint32) (WaitResult, error) {
	const known = linux.WNOHANG | linux.WUNTRACED | linux.WCONTINUED | linux.WNOTHREAD | linux.WCLONE | linux.WALL
	if options&^known != 0 {
		return WaitResult{}, linux.EINVAL
	}
	w := who{options: options | linux.WEXITED}
	switch {
	case id == -1<<31:
		return WaitResult{}, linux.ESRCH
	case id < -1:
		w.kind, w.id = linux.P_PGID, -id
	case id == -1:
		w.kind = linux.P_ALL
	case id == 0:
		w.kind, w.id = linux.P_PGID, t.proc.Group()
	default:
		w.kind, w.id = linux.P_PID, id
	}
	return t.wait(&w)
}

// Waitid is waitid(2); Info of the result is for the program, with Signo 0 if there was nothing to tell. For linux.P_PIDFD id is a
// descriptor. linux.ECHILD, linux.EINVAL, linux.EBADF, linux.EAGAIN, linux.ERESTARTSYS.
func (t *Thread) Waitid(kind int, id int32, options uint32) (WaitResult, error) {
	const known = linux.WNOHANG | linux.WNOWAIT | linux.WEXITED | linux.WSTOPPED | linux.WCONTINUED | linux.WNOTHREAD |
		linux.WCLONE | linux.WALL
	if options&^known != 0 || options&(linux.WEXITED|linux.WSTOPPED|linux.WCONTINUED) == 0 {
		return WaitResult{}, linux.EINVAL
	}
	w := who{kind: kind, id: id, options: options}
	again := false
	switch kind {
	case linux.P_ALL:
	case linux.P_PID:
		if id <= 0 {
			return WaitResult{}, linux.EINVAL
		}
	case linux.P_PGID:
		if id < 0 {
			return WaitResult{}, linux.EINVAL
		}
		if id == 0 {
			w.id = t.proc.Group()
		}
	case linux.P_PIDFD:
		if id < 0 {
			return WaitResult{}, linux.EINVAL
		}
		p, nonblock, err := t.pidfdProcess(int(id))
		if err != nil {
			return WaitResult{}, err
		}
		w.kind, w.id = linux.P_PID, p.id.n
		if nonblock && options&linux.WNOHANG == 0 {
			w.options |= linux.WNOHANG
			again = true
		}
	default:
		return WaitResult{}, linux.EINVAL
	}
	r, err := t.wait(&w)
	if err == nil && r.PID == 0 && again {
		err = linux.EAGAIN
	}
	return r, err
}

func (t *Thread) wait(w *who) (r WaitResult, err error) {
	err = t.sleeper.Until(&t.proc.childq, wait.In, sleepForever, func() error {
		r, err = t.look(w)
		if err == linux.EAGAIN && w.options&linux.WNOHANG != 0 {
			r, err = WaitResult{}, nil
		}
		return err
	})
	return r, err
}

// look takes what a child has to tell. linux.EAGAIN: nothing yet.
func (t *Thread) look(w *who) (r WaitResult, err error) {
	s := t.sys
	s.tree.Lock()
	defer s.tree.Unlock()
	err = linux.ECHILD
	for c := t.proc.children; c != nil; c = c.nextChild {
		if !w.matches(t, c) {
			continue
		}
		err = linux.EAGAIN
		if c.zombie {
			if w.options&linux.WEXITED != 0 {
				return t.lookZombie(w, c), nil
			}
			continue
		}
		if r, ok := t.lookStop(w, c); ok {
			return r, nil
		}
	}
	return r, err
}

func (t *Thread) lookZombie(w *who, c *Process) WaitResult {
	code, status := exitCode(c.status)
	u := c.usedAll()
	r := WaitResult{PID: c.id.n, Status: c.status, Info: c.childInfo(code, status), Usage: u.rusage()}
	r.Info.U[2], r.Info.U[3] = 0, 0 // waitid tells no times
	if w.options&linux.WNOWAIT == 0 {
		p := t.proc
		p.mu.Lock()
		p.waited.add(&u)
		p.mu.Unlock()
		t.sys.reap(c)
	}
	return r
}

func (t *Thread) lookStop(w *who, c *Process) (r WaitResult, ok bool) {
	c.mu.Lock()
	keep := w.options&linux.WNOWAIT != 0
	code, status := int32(0), int32(0)
	switch {
	case c.stop.waitStop && w.options&linux.WSTOPPED != 0:
		code, status = linux.CLD_STOPPED, int32(c.stop.code)
		r.Status = uint32(status)<<8 | 0x7f
		c.stop.waitStop = keep
	case c.stop.waitCont && w.options&linux.WCONTINUED != 0:
		code, status = linux.CLD_CONTINUED, linux.SIGCONT
		r.Status = 0xffff
		c.stop.waitCont = keep
	default:
		c.mu.Unlock()
		return r, false
	}
	c.mu.Unlock()
	u := c.usedAll()
	r.PID, r.Info, r.Usage = c.id.n, c.childInfo(code, status), u.rusage()
	r.Info.U[2], r.Info.U[3] = 0, 0
	return r, true
}
