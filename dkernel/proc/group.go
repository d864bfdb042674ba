package proc

import (
	"dinos/dkernel/signal"
	"dinos/kernel/linux"
)

// group is a process group. All of it is guarded by System.tree.
type group struct {
	id      *pid
	session *Session
	members *Process
	n       int
}

// Session is a session: process groups that share a controlling terminal. All of it is guarded by System.tree.
type Session struct {
	id     *pid
	leader *Process // nil after it ended
	groups int
	// oldGroup was in the foreground when the terminal was hung up.
	oldGroup int32
}

// enter puts p into group g. tree is locked, here and below.
func (g *group) enter(p *Process) {
	p.group = g
	p.nextInGroup, p.prevInGroup = g.members, nil
	if g.members != nil {
		g.members.prevInGroup = p
	}
	g.members = p
	g.n++
}

// findGroup returns the group with a number; nil if there is none.
func (s *System) findGroup(id int32) *group {
	if n := s.pids.get(id); n != nil {
		return n.group.Load()
	}
	return nil
}

// newGroup makes a group with p's number in session ss.
func (s *System) newGroup(n *pid, ss *Session) *group {
	g := &group{id: s.pids.ref(n), session: ss}
	ss.groups++
	n.group.Store(g)
	return g
}

func (s *System) newSession(n *pid, leader *Process) *Session {
	ss := &Session{id: s.pids.ref(n), leader: leader}
	n.session.Store(ss)
	return ss
}

// leaveGroup takes p out of its group, which ends with its last member, as the session does with its last group.
func (s *System) leaveGroup(p *Process) {
	g := p.group
	if p.prevInGroup != nil {
		p.prevInGroup.nextInGroup = p.nextInGroup
	} else {
		g.members = p.nextInGroup
	}
	if p.nextInGroup != nil {
		p.nextInGroup.prevInGroup = p.prevInGroup
	}
	p.nextInGroup, p.prevInGroup, p.group = nil, nil, nil
	if g.n--; g.n > 0 {
		return
	}
	g.id.group.Store(nil)
	s.pids.unref(g.id)
	if ss := g.session; ss.groups == 1 {
		ss.groups = 0
		ss.id.session.Store(nil)
		s.pids.unref(ss.id)
	} else {
		ss.groups--
	}
}

// orphaned reports whether no member of g but except has a parent in another group of the session, so that nobody would
// continue it if it stopped.
func (s *System) orphaned(g *group, except *Process) bool {
	for p := g.members; p != nil; p = p.nextInGroup {
		if p == except || p.zombie || p.parent == nil || p.parent == s.init {
			continue
		}
		if p.parent.group != g && p.parent.session == p.session {
			return false
		}
	}
	return true
}

// abandon sends SIGHUP and SIGCONT to the group of p, if it has just become orphaned because of except and has stopped members.
// parent is the process whose exit, or the one of whose child p, is the reason.
func (s *System) abandon(p, parent, except *Process) {
	g := p.group
	if g == nil || parent == nil || parent.group == g || parent.session != p.session || !s.orphaned(g, except) {
		return
	}
	stopped := false
	for m := g.members; m != nil && !stopped; m = m.nextInGroup {
		m.mu.Lock()
		stopped = m.stop.stopped
		m.mu.Unlock()
	}
	if stopped {
		s.signalMembers(g, signal.Kernel(linux.SIGHUP))
		s.signalMembers(g, signal.Kernel(linux.SIGCONT))
	}
}

// signalMembers sends a signal of the kernel to all of g.
func (s *System) signalMembers(g *group, i signal.Info) {
	for p := g.members; p != nil; p = p.nextInGroup {
		_ = p.post(nil, nil, i, true)
	}
}

// SignalGroup sends a signal of the kernel to a process group, as a terminal does. linux.ESRCH: there is none.
func (s *System) SignalGroup(pgid int32, i signal.Info) error {
	s.tree.RLock()
	defer s.tree.RUnlock()
	g := s.findGroup(pgid)
	if g == nil {
		return linux.ESRCH
	}
	s.signalMembers(g, i)
	return nil
}

// SignalProcess sends a signal of the kernel to a process. linux.ESRCH: there is none.
func (s *System) SignalProcess(id int32, i signal.Info) error {
	p := s.Process(id)
	if p == nil {
		return linux.ESRCH
	}
	return p.post(nil, nil, i, true)
}

// Group is the process group of a process; 0 after it was waited for. Anybody may call it.
func (p *Process) Group() int32 {
	p.sys.tree.RLock()
	defer p.sys.tree.RUnlock()
	if p.group == nil {
		return 0
	}
	return p.group.id.n
}

// Session is the id of the session of a process. Anybody may call it.
func (p *Process) Session() int32 {
	p.sys.tree.RLock()
	defer p.sys.tree.RUnlock()
	if p.session == nil {
		return 0
	}
	return p.session.id.n
}

// lookup returns the process that a call names: itself for 0. tree is locked.
func (t *Thread) lookup(id int32) (*Process, error) {
	if id == 0 {
		return t.proc, nil
	}
	if n := t.sys.pids.get(id); n != nil {
		if p := n.proc.Load(); p != nil {
			return p, nil
		}
		if u := n.thread.Load(); u != nil {
			return u.proc, linux.EINVAL // a thread that is no process; most calls mind
		}
	}
	return nil, linux.ESRCH
}

// Getppid is getppid(2).
func (t *Thread) Getppid() int32 {
	t.sys.tree.RLock()
	defer t.sys.tree.RUnlock()
	if t.proc.parent == nil {
		return 0
	}
	return t.proc.parent.id.n
}

// Getpgid is getpgid(2): 0 is the caller. linux.ESRCH.
func (t *Thread) Getpgid(id int32) (int32, error) {
	t.sys.tree.RLock()
	defer t.sys.tree.RUnlock()
	p, _ := t.lookup(id)
	if p == nil || p.group == nil {
		return 0, linux.ESRCH
	}
	return p.group.id.n, nil
}

// Getsid is getsid(2). linux.ESRCH.
func (t *Thread) Getsid(id int32) (int32, error) {
	t.sys.tree.RLock()
	defer t.sys.tree.RUnlock()
	p, _ := t.lookup(id)
	if p == nil || p.session == nil {
		return 0, linux.ESRCH
	}
	return p.session.id.n, nil
}

// Setpgid is setpgid(2): zeros mean the caller and its own number. linux.EINVAL, linux.ESRCH, linux.EPERM, linux.EACCES.
func (t *Thread) Setpgid(id, pgid int32) error {
	if pgid < 0 {
		return linux.EINVAL
	}
	s := t.sys
	s.tree.Lock()
	defer s.tree.Unlock()
	p, err := t.lookup(id)
	if err != nil {
		return err
	}
	if pgid == 0 {
		pgid = p.id.n
	}
	switch {
	case p.parent == t.proc:
		if p.session != t.proc.session {
			return linux.EPERM
		}
		if p.execed {
			return linux.EACCES
		}
	case p != t.proc:
		return linux.ESRCH
	}
	if p.zombie && p.group == nil {
		return linux.ESRCH
	}
	if p.session.leader == p {
		return linux.EPERM
	}
	g := s.findGroup(pgid)
	if pgid != p.id.n && (g == nil || g.session != p.session) {
		return linux.EPERM
	}
	if g == p.group {
		return nil
	}
	if g == nil {
		g = s.newGroup(p.id, p.session)
	}
	s.leaveGroup(p)
	g.enter(p)
	return nil
}

// Setsid is setsid(2): it returns the session's id. linux.EPERM: the caller leads a group.
func (t *Thread) Setsid() (int32, error) {
	s, p := t.sys, t.proc
	s.tree.Lock()
	defer s.tree.Unlock()
	if p.session.leader == p || p.id.group.Load() != nil {
		return 0, linux.EPERM
	}
	ss := s.newSession(p.id, p)
	g := s.newGroup(p.id, ss)
	s.leaveGroup(p)
	g.enter(p)
	p.session, p.tty = ss, nil
	return p.id.n, nil
}
