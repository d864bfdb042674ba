package proc

import (
	"dinos/dkernel/ipc/tty"
	"dinos/dkernel/signal"
	"dinos/kernel/linux"
)

// Thread implements tty.Task: job control.
var _ tty.Task = (*Thread)(nil)

// Session implements tty.Task.
func (t *Thread) Session() int32 { return t.proc.Session() }

// Group implements tty.Task.
func (t *Thread) Group() int32 { return t.proc.Group() }

// Leader implements tty.Task: it reports whether the process leads its session.
func (t *Thread) Leader() bool {
	t.sys.tree.RLock()
	defer t.sys.tree.RUnlock()
	return t.proc.session != nil && t.proc.session.leader == t.proc
}

// Terminal implements tty.Task: the controlling terminal, or nil.
func (t *Thread) Terminal() *tty.TTY { return t.proc.Terminal() }

// SetTerminal implements tty.Task.
func (t *Thread) SetTerminal(y *tty.TTY) {
	t.sys.tree.Lock()
	defer t.sys.tree.Unlock()
	t.proc.tty = y
	if y != nil && t.proc.session != nil {
		t.proc.session.oldGroup = 0
	}
}

// Orphaned implements tty.Task: nobody would continue the process group if it stopped.
func (t *Thread) Orphaned() bool {
	t.sys.tree.RLock()
	defer t.sys.tree.RUnlock()
	return t.proc.group == nil || t.sys.orphaned(t.proc.group, nil)
}

// Ignores implements tty.Task: the signal is blocked or ignored.
func (t *Thread) Ignores(sig int) bool {
	return t.blocked.Has(sig) || t.proc.actions().Get(sig).Handler == linux.SIG_IGN
}

// Terminal is the controlling terminal of p, or nil. Anybody may call it.
func (p *Process) Terminal() *tty.TTY {
	p.sys.tree.RLock()
	defer p.sys.tree.RUnlock()
	return p.tty
}

// Jobs is the System as terminals see it.
func (s *System) Jobs() tty.Jobs { return jobs{s} }

type jobs struct{ s *System }

// SignalGroup implements tty.Jobs.
func (j jobs) SignalGroup(group int32, sig int) { _ = j.s.SignalGroup(group, signal.Kernel(sig)) }

// GroupSession implements tty.Jobs.
func (j jobs) GroupSession(group int32) (session int32, ok bool) {
	s := j.s
	s.tree.RLock()
	defer s.tree.RUnlock()
	if g := s.findGroup(group); g != nil {
		return g.session.id.n, true
	}
	return 0, false
}

// LoseTerminal implements tty.Jobs.
func (j jobs) LoseTerminal(session int32, y *tty.TTY, hangup bool, foreground int32) {
	s := j.s
	s.tree.Lock()
	defer s.tree.Unlock()
	s.Processes(1, func(p *Process) bool {
		if p.session != nil && p.session.id.n == session && p.tty == y {
			p.tty = nil
		}
		return true
	})
	if !hangup {
		return
	}
	n := s.pids.get(session)
	if n == nil {
		return
	}
	if ss := n.session.Load(); ss != nil && ss.leader != nil {
		_ = ss.leader.post(nil, nil, signal.Kernel(linux.SIGHUP), true)
		_ = ss.leader.post(nil, nil, signal.Kernel(linux.SIGCONT), true)
		ss.oldGroup = foreground
	}
}
