package proc

import (
	"sync"
	"sync/atomic"

	"dinos/dkernel/futex"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
	"dinos/kernel/ureg"
)

// Clock tells the time and makes timers. NewClock makes the usual one.
type Clock interface {
	// Monotonic is CLOCK_MONOTONIC and CLOCK_BOOTTIME, in ns.
	Monotonic() int64
	// Realtime is CLOCK_REALTIME, in ns since 1970. If it jumps, System.ClockWasSet must be called after that.
	Realtime() int64
	// NewTimer returns a timer that is not set and calls f, in a goroutine of its own, when it goes off.
	NewTimer(f func()) Timer
}

// Timer calls a function once at a time.
type Timer interface {
	// Set makes the timer go off at a time of Clock.Monotonic, now if that is past, instead of whenever it was set to.
	Set(deadline int64)
	// Stop takes the setting back. The function may just be running.
	Stop()
}

// Starter starts threads: the run loop.
type Starter interface {
	// NewCPU gives a new thread its CPU state: a copy of parent's, or a fresh one if parent is nil. It is called in parent's goroutine.
	NewCPU(parent, child *Thread) ureg.CPU
	// Start runs t in a new goroutine, from t.Regs. When Deliver returns false, the goroutine ends and touches t no more.
	Start(t *Thread)
}

// Config is what a System is made of. All hooks may be called by any goroutine.
type Config struct {
	Clock   Clock
	Starter Starter
	Remote  futex.Remote // waiters on other dkernels; nil if there are none
	// Kick makes a thread that is in ring 3, or about to enter it without having seen Interrupted, leave it soon. It is called
	// with Process.mu held and must not block.
	Kick func(*Thread)
	// Barrier makes every CPU that runs a thread of p in ring 3 pass through the kernel and returns when all have (membarrier(2)).
	// syncCore: they also serialize their instruction streams; rseq: they end their restartable sequences. cpu < 0: all CPUs.
	Barrier func(p *Process, syncCore, rseq bool, cpu int)
	// Exited is told when a process has ended: status is in wait(2)'s form. It may be nil. No lock is held.
	Exited func(p *Process, status uint32)
	// Affinity is told that the CPUs a thread may run on have changed. It may be nil.
	Affinity func(*Thread, CPUSet)
	// Account brings the CPU times of a thread up to date with Ran, as well as it can. It may be nil.
	Account func(*Thread)
	// CPU is the CPU that the calling goroutine is on, and its node, for rseq(2) and getcpu(2). It may be nil.
	CPU func() (cpu, node uint32)
	// CoarseResolution is that of CLOCK_REALTIME_COARSE, ns.
	CoarseResolution int64
	// CPUs are the CPUs that threads may run on: the mask of a new process.
	CPUs CPUSet
	// MaxThreads is the limit of threads of the system, MaxPID that of pids; 0 is the default.
	MaxThreads, MaxPID int
	// Machine, Release, Version are what uname(2) says; Hostname at first.
	Release, Version, Hostname string
}

// System has all processes of a dkernel.
type System struct {
	cfg   Config
	clock Clock
	futex *futex.Table

	tree    sync.RWMutex
	pids    pidTable
	init    *Process
	threads atomic.Int32
	forks   atomic.Int64 // since the start: "processes" of /proc/stat
	users   users

	clockSet wait.Queue // who sleeps until a time of CLOCK_REALTIME
	uts      uts
}

// uts is what uname(2) tells and can be changed.
type uts struct {
	mu           sync.Mutex
	host, domain string
}

// Utsname is what uname(2) tells.
type Utsname struct{ Sysname, Nodename, Release, Version, Machine, Domainname string }

// maxName is the longest host name: __NEW_UTS_LEN.
const maxName = 64

// Uname returns the names; personality is the asking process', which may want to hear of an older kernel.
func (t *Thread) Uname() Utsname {
	u := t.sys.Uname()
	if t.personality.Load()&uname26 != 0 {
		u.Release = "2.6.60"
	}
	return u
}

// Uname returns the names.
func (s *System) Uname() Utsname {
	s.uts.mu.Lock()
	defer s.uts.mu.Unlock()
	return Utsname{"Linux", s.uts.host, s.cfg.Release, s.cfg.Version, "x86_64", s.uts.domain}
}

// uname26 is UNAME26 of personality(2).
const uname26 = 0x0020000

// SetHostname is sethostname(2): linux.EPERM, linux.EINVAL.
func (t *Thread) SetHostname(name string) error { return t.setUTS(&t.sys.uts.host, name) }

// SetDomainname is setdomainname(2).
func (t *Thread) SetDomainname(name string) error { return t.setUTS(&t.sys.uts.domain, name) }

func (t *Thread) setUTS(p *string, name string) error {
	if !t.Can(capSysAdmin) {
		return linux.EPERM
	}
	if len(name) > maxName {
		return linux.EINVAL
	}
	t.sys.uts.mu.Lock()
	*p = name
	t.sys.uts.mu.Unlock()
	return nil
}

// Stats are counts of the System.
type Stats struct {
	Threads   int   // zombies included
	Forks     int64 // threads and processes made since the start
	PIDs      int   // numbers in use
	Waiting   int   // threads that sleep on futexes
	Processes int
}

// Stats returns counts.
func (s *System) Stats() Stats {
	n := 0
	s.Processes(2, func(*Process) bool { n++; return true })
	s.pids.mu.Lock()
	used := s.pids.used
	s.pids.mu.Unlock()
	return Stats{Threads: int(s.threads.Load()), Forks: s.forks.Load(), PIDs: used, Waiting: s.futex.Waiting(), Processes: n}
}
