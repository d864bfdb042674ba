package tty

import (
	"dinos/dkernel/vfs"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

// Task is a thread as job control sees it; vfs.Caller.Task implements it. Its methods tell of the thread that calls.
type Task interface {
	// Session and Group are the ids of the process' session and process group.
	Session() int32
	Group() int32
	// Leader tells whether the process is the leader of its session.
	Leader() bool
	// Terminal is the controlling terminal of the process, nil if it has none. Children inherit it.
	Terminal() *TTY
	SetTerminal(t *TTY)
	// Orphaned tells whether no member of the process group has a parent that is in another group of the same session.
	Orphaned() bool
	// Ignores tells whether a signal is blocked by the thread or ignored by the process.
	Ignores(sig int) bool
}

// Jobs is all processes. Its methods are called without a lock of this package and must not call back.
type Jobs interface {
	// SignalGroup sends a signal of the kernel's to all processes of a group. Nothing happens if there is none.
	SignalGroup(group int32, sig int)
	// LoseTerminal takes t from all processes of the session whose controlling terminal it is. If hangup, the session's leader
	// gets SIGHUP and SIGCONT, and what it has as foreground group is sent the same when the leader exits.
	LoseTerminal(session int32, t *TTY, hangup bool, foreground int32)
	// GroupSession returns the session of a process group.
	GroupSession(group int32) (session int32, ok bool)
}

// task is the caller's, or nil for one without job control.
func task(c *vfs.Caller) Task {
	t, _ := c.Task.(Task)
	return t
}

// mayChange stops a background process that would use t: it and its group get sig. Errors: linux.ERESTARTSYS then, linux.EIO if it
// cannot be stopped, as POSIX says (general terminal interface, 11.1.4).
func (t *TTY) mayChange(c *vfs.Caller, sig int) error {
	k := task(c)
	if k == nil || k.Terminal() != t {
		return nil
	}
	t.mu.Lock()
	foreground := t.group
	t.mu.Unlock()
	group := k.Group()
	switch {
	case foreground == 0 || foreground == group:
		return nil
	case k.Ignores(sig):
		if sig == linux.SIGTTIN {
			return linux.EIO
		}
		return nil
	case k.Orphaned():
		return linux.EIO
	}
	t.sys.jobs.SignalGroup(group, sig)
	return linux.ERESTARTSYS
}

// acquire makes t the controlling terminal of the caller's session, if that may have it when opening one.
func (t *TTY) acquire(k Task) {
	if k == nil || !k.Leader() || k.Terminal() != nil {
		return
	}
	t.mu.Lock()
	free := t.session == 0
	if free {
		t.session, t.group = k.Session(), k.Group()
	}
	t.mu.Unlock()
	if free {
		k.SetTerminal(t)
	}
}

// control is TIOCSCTTY: t becomes the controlling terminal of the caller's session. steal takes it from another one.
func (t *TTY) control(k Task, steal, readable bool) error {
	if k == nil {
		return linux.EPERM
	}
	session := k.Session()
	t.mu.Lock()
	owner := t.session
	t.mu.Unlock()
	if k.Leader() && owner == session {
		return nil
	}
	if !k.Leader() || k.Terminal() != nil || owner != 0 && !steal || !readable && !steal {
		return linux.EPERM
	}
	if owner != 0 {
		t.sys.jobs.LoseTerminal(owner, t, false, 0)
	}
	t.mu.Lock()
	t.session, t.group = session, k.Group()
	t.mu.Unlock()
	k.SetTerminal(t)
	return nil
}

// Disown is the end of the controlling terminal's use by a process: TIOCNOTTY, or the exit of a session's leader. A process that
// is no leader loses just its own; a leader's whole session loses it, and the foreground group is hung up on.
func Disown(k Task, exits bool) {
	t := k.Terminal()
	if t == nil {
		return
	}
	if !k.Leader() {
		k.SetTerminal(nil)
		return
	}
	if exits && t.kind != kindPTY {
		t.hangUp(true)
		return
	}
	t.mu.Lock()
	session, group := t.session, t.group
	mine := session == k.Session()
	if mine {
		t.session, t.group = 0, 0
	}
	t.mu.Unlock()
	if mine && group != 0 {
		t.sys.jobs.SignalGroup(group, linux.SIGHUP)
		t.sys.jobs.SignalGroup(group, linux.SIGCONT)
	}
	t.sys.jobs.LoseTerminal(k.Session(), t, false, 0)
	k.SetTerminal(nil)
}

// setGroup is tcsetpgrp(3).
func (t *TTY) setGroup(k Task, group int32) error {
	if group < 0 {
		return linux.EINVAL
	}
	if k == nil || k.Terminal() != t {
		return linux.ENOTTY
	}
	session, ok := t.sys.jobs.GroupSession(group)
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.session != k.Session():
		return linux.ENOTTY
	case !ok:
		return linux.ESRCH
	case session != t.session:
		return linux.EPERM
	}
	t.group = group
	return nil
}

// Group is the foreground process group, 0 if there is none.
func (t *TTY) Group() int32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.group
}

// Session is the session whose controlling terminal t is, 0 if there is none.
func (t *TTY) Session() int32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.session
}

// hangUp ends the use of t by all who have it open: they read the end of the file and cannot write. Its session loses it. exits says
// that it is because the session's leader exits: then the foreground group is hung up on.
func (t *TTY) hangUp(exits bool) {
	t.mu.Lock()
	t.hangups++
	session, group := t.session, t.group
	t.session, t.group = 0, 0
	t.d.flushIn()
	t.pending.truncate(0)
	t.d.stopped, t.d.held = false, false
	t.mu.Unlock()
	if session != 0 {
		t.sys.jobs.LoseTerminal(session, t, true, group)
	}
	if exits && group != 0 {
		t.sys.jobs.SignalGroup(group, linux.SIGHUP)
	}
	t.q.Wake(wait.Readable | wait.Writable | wait.Hup | wait.Err)
	t.other.Wake(wait.Readable | wait.Writable | wait.Hup)
}
