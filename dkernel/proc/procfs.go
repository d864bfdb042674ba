package proc

import (
	"slices"

	"dinos/dkernel/cred"
	"dinos/dkernel/mm"
	"dinos/dkernel/vfs"
	"dinos/dkernel/vfs/procfs"
	"dinos/kernel/linux"
)

// Proc is the System as /proc shows it.
func (s *System) Proc() procfs.Processes { return table{s} }

type table struct{ s *System }

// Process implements procfs.Processes.
func (t table) Process(id int32) procfs.Process {
	if p := t.s.Process(id); p != nil {
		return &entry{p: p}
	}
	return nil
}

// Thread implements procfs.Processes.
func (t table) Thread(id int32) procfs.Process {
	if u := t.s.Thread(id); u != nil {
		return &entry{p: u.proc, t: u}
	}
	return nil
}

// Next implements procfs.Processes.
func (t table) Next(from int32) (id int32) {
	t.s.Processes(from, func(p *Process) bool {
		id = p.id.n
		return false
	})
	return id
}

// entry is a process in /proc, or a thread if t is not nil.
type entry struct {
	p *Process
	t *Thread
}

// main is the thread that e is about: of a process its leader, or any other if that has ended; nil of a zombie.
func (e *entry) main() *Thread {
	if e.t != nil {
		return e.t
	}
	e.p.mu.Lock()
	defer e.p.mu.Unlock()
	if e.p.leader != nil {
		return e.p.leader
	}
	return e.p.threads
}

// Info implements procfs.Process.
func (e *entry) Info(i *procfs.Info) bool {
	p, t := e.p, e.main()
	*i = procfs.Info{PID: p.id.n, TID: p.id.n, State: 'S', TTYGroup: -1, Start: p.born}
	if !p.place(i) {
		return false
	}
	if t == nil {
		t = p.id.thread.Load() // the leader is known until the end
	} else if e.t != nil {
		i.TID, i.Start = t.TID(), t.born
	}
	if t != nil {
		i.Comm = t.Name()
		i.NoNewPrivs = t.Cred().NoNewPrivs
	}
	caught, ignored := p.actions().Caught()
	i.Caught, i.Ignored = uint64(caught), uint64(ignored)
	p.mu.Lock()
	defer p.mu.Unlock()
	i.Threads = p.nthreads
	e.use(i)
	e.program(i)
	i.SharedPending = uint64(p.shared.Set())
	i.Queued, i.QueueLimit = uint64(p.user.Load().signals.Load()), p.limits[linux.RLIMIT_SIGPENDING].Cur
	if t == nil {
		return true
	}
	i.Pending, i.Blocked = uint64(t.pending.Set()), uint64(t.blocked)
	i.Nice, i.Policy, i.RTPriority = t.sched.nice, t.sched.policy, t.sched.rtprio
	if i.Priority = 20 + t.sched.nice; t.sched.rtprio > 0 {
		i.Priority = -1 - t.sched.rtprio
	}
	i.CPUs = slices.Clone(t.sched.cpus[:])
	switch {
	case i.State == 'Z':
	case t.stopped:
		i.State = 'T'
	case p.nthreads > 0 && !t.asleep.Load():
		i.State = 'R'
	}
	return true
}

// place fills in what the tree of processes says. It reports false if p was waited for.
func (p *Process) place(i *procfs.Info) bool {
	s := p.sys
	s.tree.RLock()
	defer s.tree.RUnlock()
	if p.group == nil {
		return false
	}
	if p.parent != nil {
		i.PPID = p.parent.id.n
	}
	i.Group, i.Session = p.group.id.n, p.session.id.n
	i.ExitSignal = p.exitSignal
	if p.tty != nil {
		i.TTY, i.TTYGroup = p.tty.Dev(), p.tty.Group()
	}
	const forkNoExec, kthread = 0x40, 0x200000 // PF_FORKNOEXEC, PF_KTHREAD
	switch {
	case p == s.init:
		i.Flags, i.Comm = kthread, "init"
	case !p.execed:
		i.Flags = forkNoExec
	}
	if p.zombie {
		i.State, i.ExitCode = 'Z', int(p.status)
	}
	return true
}

// use fills in what was used. p.mu is locked.
func (e *entry) use(i *procfs.Info) {
	p := e.p
	var u, w usage
	if e.t != nil {
		u = e.t.used()
	} else {
		u, w = p.usedLocked(), p.waited
	}
	i.User, i.System, i.ChildUser, i.ChildSystem = u.utime, u.stime, w.utime, w.stime
	i.MinorFaults, i.MajorFaults = uint64(u.minflt), uint64(u.majflt)
	i.ChildMinor, i.ChildMajor = uint64(w.minflt), uint64(w.majflt)
	i.Voluntary, i.Involuntary = uint64(u.nvcsw), uint64(u.nivcsw)
}

// program fills in where things are in memory. p.mu is locked.
func (e *entry) program(i *procfs.Info) {
	x := &e.p.exec
	i.StartCode, i.EndCode, i.StartData, i.EndData = x.CodeStart, x.CodeEnd, x.DataStart, x.DataEnd
	i.StartBreak, i.StartStack = x.BrkStart, x.StackStart
	i.ArgStart, i.ArgEnd, i.EnvStart, i.EnvEnd = x.ArgStart, x.ArgEnd, x.EnvStart, x.EnvEnd
}

// Threads implements procfs.Process.
func (e *entry) Threads() (ids []int32) {
	for _, t := range e.p.Threads() {
		ids = append(ids, t.TID())
	}
	if len(ids) == 0 {
		ids = append(ids, e.p.id.n)
	}
	slices.Sort(ids)
	return ids
}

// Cred implements procfs.Process.
func (e *entry) Cred() *cred.Cred {
	if e.t != nil {
		return e.t.Cred()
	}
	return e.p.Cred()
}

// Dumpable implements procfs.Process.
func (e *entry) Dumpable() bool { return e.p.Dumpable() }

// Files implements procfs.Process.
func (e *entry) Files() *vfs.FDTable {
	if t := e.main(); t != nil {
		return t.Files()
	}
	return nil
}

// FS implements procfs.Process.
func (e *entry) FS() *vfs.FSContext {
	if t := e.main(); t != nil {
		return t.FS()
	}
	return nil
}

// Exe implements procfs.Process.
func (e *entry) Exe() vfs.Path {
	if e.p.space.Load() == nil {
		return vfs.Path{}
	}
	return e.p.Info().Path
}

// Memory implements procfs.Process.
func (e *entry) Memory() procfs.Space {
	if e.p.space.Load() == nil {
		return nil
	}
	return memory{e.p}
}

// Limits implements procfs.Process.
func (e *entry) Limits() [linux.RLIM_NLIMITS]linux.Rlimit {
	e.p.mu.Lock()
	defer e.p.mu.Unlock()
	return e.p.limits
}

// Auxv implements procfs.Process.
func (e *entry) Auxv() []byte { return e.p.Info().Auxv }

// SetComm implements procfs.Process.
func (e *entry) SetComm(name string) error {
	t := e.main()
	if t == nil {
		return linux.ESRCH
	}
	t.SetName(name)
	return nil
}

// OOMScoreAdj implements procfs.Process.
func (e *entry) OOMScoreAdj() int { return e.p.OOMScoreAdj() }

// SetOOMScoreAdj implements procfs.Process.
func (e *entry) SetOOMScoreAdj(n int) error {
	if n < -1000 || n > 1000 {
		return linux.EINVAL
	}
	e.p.oomAdj.Store(int32(n))
	return nil
}

// Wait implements procfs.Process. Nobody notes what a thread waits for.
func (e *entry) Wait() string { return "" }

// OOMScoreAdj is what /proc/PID/oom_score_adj says: who is to be killed first for want of memory. Anybody may call it.
func (p *Process) OOMScoreAdj() int { return int(p.oomAdj.Load()) }

// memory is the memory of a process that may end at any time.
type memory struct{ p *Process }

// hold returns the present address space with a reference.
func (m memory) hold() *space {
	if s := m.p.space.Load(); s != nil && s.acquire() {
		return s
	}
	return nil
}

// CopyIn implements uio.Memory.
func (m memory) CopyIn(dst []byte, addr uint64) (int, error) {
	s := m.hold()
	if s == nil {
		return 0, linux.EFAULT
	}
	defer s.release()
	return s.CopyIn(dst, addr)
}

// CopyOut implements uio.Memory.
func (m memory) CopyOut(addr uint64, src []byte) (int, error) {
	s := m.hold()
	if s == nil {
		return 0, linux.EFAULT
	}
	defer s.release()
	return s.CopyOut(addr, src)
}

// Zero implements uio.Memory.
func (m memory) Zero(addr, n uint64) (uint64, error) {
	s := m.hold()
	if s == nil {
		return 0, linux.EFAULT
	}
	defer s.release()
	return s.Zero(addr, n)
}

// Regions implements procfs.Space.
func (m memory) Regions(addr uint64, limit int) []mm.Region {
	s := m.hold()
	if s == nil {
		return nil
	}
	defer s.release()
	return s.Regions(addr, limit)
}

// Stat implements procfs.Space.
func (m memory) Stat() mm.Stat {
	s := m.hold()
	if s == nil {
		return mm.Stat{}
	}
	defer s.release()
	return s.Stat()
}

var _ procfs.Space = memory{}
