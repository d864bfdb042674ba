package proc

import (
	"strconv"

	"dinos/dkernel/signal"
	"dinos/dkernel/vfs"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

// pidfd is the file behind a descriptor that names a process, or a thread (pidfd_open(2)).
type pidfd struct {
	vfs.BaseFile
	p *Process
	t *Thread // nil: the process
}

// Poll implements vfs.File: it is readable when the process has ended, and hung up when it was waited for.
func (f *pidfd) Poll(*vfs.Description) wait.Events {
	s := f.p.sys
	s.tree.RLock()
	defer s.tree.RUnlock()
	switch {
	case f.t != nil && !f.t.isGone():
		return 0
	case f.t == nil && !f.p.zombie:
		return 0
	case f.p.parent == nil:
		return wait.Readable | wait.Hup
	}
	return wait.Readable
}

func (t *Thread) isGone() bool {
	t.proc.mu.Lock()
	defer t.proc.mu.Unlock()
	return t.exiting
}

// Queue implements vfs.File.
func (f *pidfd) Queue(*vfs.Description) *wait.Queue { return &f.p.exitq }

// FDInfo implements vfs.FDInfoer.
func (f *pidfd) FDInfo(_ *vfs.Description, b []byte) []byte {
	n := int64(f.p.id.n)
	s := f.p.sys
	s.tree.RLock()
	if f.p.parent == nil {
		n = -1
	}
	s.tree.RUnlock()
	b = append(b, "Pid:\t"...)
	b = strconv.AppendInt(b, n, 10)
	b = append(b, "\nNSpid:\t"...)
	b = strconv.AppendInt(b, n, 10)
	return append(b, '\n')
}

// newPidfd opens a pidfd and returns its descriptor. linux.EMFILE.
func (t *Thread) newPidfd(p *Process, u *Thread, flags uint32) (int, error) {
	c := &t.Caller
	v := c.FS.VFS()
	d := c.NewNameless(v.NewAnon(c, "[pidfd]"), &pidfd{p: p, t: u}, linux.O_RDWR|flags&linux.PIDFD_NONBLOCK, vfs.Stream)
	fd, err := c.Files.Install(d, 0, c.OpenLimit, true)
	if err != nil {
		d.Unref()
	}
	return fd, err
}

// PidfdOpen is pidfd_open(2). linux.EINVAL, linux.ESRCH, linux.EMFILE.
func (t *Thread) PidfdOpen(id int32, flags uint32) (int, error) {
	if flags&^(linux.PIDFD_NONBLOCK|linux.PIDFD_THREAD) != 0 || id <= 0 {
		return 0, linux.EINVAL
	}
	u := t.sys.Thread(id)
	p := t.sys.Process(id)
	switch {
	case u == nil && p == nil:
		return 0, linux.ESRCH
	case flags&linux.PIDFD_THREAD != 0:
		if u == nil {
			return 0, linux.ESRCH
		}
		return t.newPidfd(u.proc, u, flags)
	case p == nil:
		return 0, linux.ENOENT // a thread that is no process, as Linux says since 6.15
	}
	return t.newPidfd(p, nil, flags)
}

// clonePidfd is CLONE_PIDFD: it opens the descriptor of a child that nobody knows yet.
func (t *Thread) clonePidfd(a *linux.CloneArgs, c *Thread) error {
	var u *Thread
	if a.Flags&linux.CLONE_THREAD != 0 {
		u = c
	}
	fd, err := t.newPidfd(c.proc, u, 0)
	if err != nil {
		return err
	}
	if err := t.putInt(a.Pidfd, int32(fd)); err != nil {
		_ = t.Caller.Files.Close(&t.Caller, fd)
		return err
	}
	c.pidfd = fd
	return nil
}

// lookupPidfd returns what a descriptor names. linux.EBADF.
func (t *Thread) lookupPidfd(fd int) (*pidfd, bool, error) {
	r, err := t.Caller.Files.Get(fd)
	if err != nil {
		return nil, false, linux.EBADF
	}
	defer r.Put()
	f, ok := r.File().(*pidfd)
	if !ok {
		return nil, false, linux.EBADF
	}
	return f, r.Nonblock(), nil
}

func (t *Thread) pidfdProcess(fd int) (*Process, bool, error) {
	f, nonblock, err := t.lookupPidfd(fd)
	if err != nil {
		return nil, false, err
	}
	return f.p, nonblock, nil
}

// PidfdSendSignal is pidfd_send_signal(2): i nil: as kill(2) does. linux.EBADF, linux.EINVAL, linux.EPERM, linux.ESRCH.
func (t *Thread) PidfdSendSignal(fd, sig int, i *signal.Info, flags uint32) error {
	const scopes = linux.PIDFD_SIGNAL_THREAD | linux.PIDFD_SIGNAL_THREAD_GROUP | linux.PIDFD_SIGNAL_PROCESS_GROUP
	if flags&^scopes != 0 || flags&(flags-1) != 0 {
		return linux.EINVAL
	}
	f, _, err := t.lookupPidfd(fd)
	if err != nil {
		return err
	}
	if sig < 0 || sig > linux.NumSignals {
		return linux.EINVAL
	}
	if flags == 0 && f.t != nil {
		flags = linux.PIDFD_SIGNAL_THREAD
	}
	info := t.sent(sig, linux.SI_USER)
	if flags == linux.PIDFD_SIGNAL_THREAD {
		info.Code = linux.SI_TKILL
	}
	if i != nil {
		if int(i.Signo) != sig {
			return linux.EINVAL
		}
		info = *i
		if f.p != t.proc && (i.Code >= 0 || i.Code == linux.SI_TKILL) {
			return linux.EPERM
		}
	}
	s := t.sys
	s.tree.RLock()
	defer s.tree.RUnlock()
	if f.p.parent == nil {
		return linux.ESRCH
	}
	switch flags {
	case linux.PIDFD_SIGNAL_PROCESS_GROUP:
		g := f.p.id.group.Load()
		if g == nil {
			return linux.ESRCH
		}
		return t.killGroup(g, info)
	case linux.PIDFD_SIGNAL_THREAD:
		u := f.t
		if u == nil {
			u = f.p.id.thread.Load()
		}
		if u == nil || u.isGone() && u != f.p.id.thread.Load() {
			return linux.ESRCH
		}
		return t.send(f.p, u, info)
	}
	return t.send(f.p, nil, info)
}

// PidfdGetfd is pidfd_getfd(2): a descriptor of another process, as a descriptor of the caller. linux.EBADF, linux.EINVAL, linux.EPERM,
// linux.ESRCH, linux.EMFILE.
func (t *Thread) PidfdGetfd(fd, target int, flags uint32) (int, error) {
	if flags != 0 {
		return 0, linux.EINVAL
	}
	f, _, err := t.lookupPidfd(fd)
	if err != nil {
		return 0, err
	}
	u := f.t
	if u == nil {
		if ts := f.p.Threads(); len(ts) > 0 {
			u = ts[0]
		}
	}
	if u == nil {
		return 0, linux.ESRCH
	}
	if !t.MayInspect(u) {
		return 0, linux.EPERM
	}
	files := u.Files()
	if files == nil {
		return 0, linux.ESRCH
	}
	d := files.Lookup(target)
	if d == nil {
		return 0, linux.EBADF
	}
	n, err := t.Caller.Files.Install(d, 0, t.Caller.OpenLimit, true)
	if err != nil {
		d.Unref()
	}
	return n, err
}
