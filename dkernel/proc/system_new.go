package proc

import (
	"fmt"

	"dinos/dkernel/cred"
	"dinos/dkernel/futex"
	"dinos/dkernel/signal"
	"dinos/kernel/linux"
	"dinos/kernel/ureg"
)

// New makes a System with process 1, init, which has no thread: it inherits orphans and waits for them at once.
func New(c Config) (*System, error) {
	switch {
	case c.Clock == nil:
		return nil, fmt.Errorf("proc: Config.Clock is nil, a Clock is needed (NewClock makes one)")
	case c.Starter == nil:
		return nil, fmt.Errorf("proc: Config.Starter is nil, a run loop is needed")
	case c.CPUs == CPUSet{}:
		return nil, fmt.Errorf("proc: Config.CPUs is empty, at least one CPU is needed")
	case c.MaxPID != 0 && (c.MaxPID <= reservedPIDs || c.MaxPID > defaultMaxPID):
		return nil, fmt.Errorf("proc: Config.MaxPID is %d, it must be above %d and at most %d", c.MaxPID, reservedPIDs, defaultMaxPID)
	}
	s := &System{cfg: c, clock: c.Clock}
	s.pids.init(c.MaxPID)
	s.users.m = map[uint32]*user{}
	s.uts.host, s.uts.domain = c.Hostname, "(none)"
	s.futex = futex.NewTable(s.findOwner, c.Remote)
	id, err := s.pids.alloc(0)
	if err != nil {
		return nil, err
	}
	p := s.newProcess(id)
	s.init = p
	p.unkill = true
	p.limits = DefaultLimits()
	p.acts.Store(signal.NewActions())
	p.cred.Store(cred.Root())
	p.user.Store(s.users.get(0))
	p.session = s.newSession(id, p)
	s.newGroup(id, p.session).enter(p)
	id.proc.Store(p)
	return s, nil
}

// findOwner is for PI futexes.
func (s *System) findOwner(tid uint32) *futex.Owner {
	if tid > defaultMaxPID {
		return nil
	}
	if t := s.Thread(int32(tid)); t != nil {
		return &t.owner
	}
	return nil
}

// Futex is the table of sleeping threads.
func (s *System) Futex() *futex.Table { return s.futex }

// Init is process 1.
func (s *System) Init() *Process { return s.init }

// Spawn makes the first thread of a process that init is the parent of, in a group of its own. It does not run until
// Start. linux.EAGAIN: there are too many processes.
func (s *System) Spawn(x *Spec) (*Thread, error) {
	if int(s.threads.Add(1)) > s.maxThreads() {
		s.threads.Add(-1)
		return nil, linux.EAGAIN
	}
	id, err := s.pids.alloc(0)
	if err != nil {
		s.threads.Add(-1)
		return nil, err
	}
	p := s.newProcess(id)
	p.space.Store(newSpace(x.Space))
	p.limits = DefaultLimits()
	if x.Limits != nil {
		p.limits = *x.Limits
	}
	p.acts.Store(signal.NewActions())
	p.exec, p.trace = x.Exec, x.Trace
	p.prctl = newProcessPrctl()
	c := x.Cred
	if c == nil {
		c = cred.Root()
	}
	u := s.users.get(c.UID)
	u.threads.Add(1)
	p.user.Store(u)
	t := s.newThread(p, id)
	t.sched = newSched(s.cfg.CPUs)
	t.prctl = newThreadPrctl()
	t.alt = signal.AltStack{}
	p.leader = t
	t.setCred(c)
	t.SetName(x.Comm)
	t.CPU = s.cfg.Starter.NewCPU(nil, t)
	p.linkThread(t)
	if x.Thread != nil {
		x.Thread(t)
	}
	t.CPU.Reset(&t.Regs)
	t.Regs.OrigRAX = ureg.NoSyscall
	s.tree.Lock()
	defer s.tree.Unlock()
	p.exitSignal = linux.SIGCHLD
	p.execed = true
	s.linkChild(s.init, p)
	if p.session = s.init.session; !x.SameSession {
		p.session = s.newSession(id, p)
	}
	s.newGroup(id, p.session).enter(p)
	id.proc.Store(p)
	id.thread.Store(t)
	s.forks.Add(1)
	return t, nil
}

// Start runs a thread that Spawn made.
func (s *System) Start(t *Thread) { s.cfg.Starter.Start(t) }
