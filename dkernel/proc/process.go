package proc

import (
	"sync"
	"sync/atomic"

	"dinos/dkernel/cred"
	"dinos/dkernel/futex"
	"dinos/dkernel/ipc/tty"
	"dinos/dkernel/mm"
	"dinos/dkernel/signal"
	"dinos/dkernel/uio"
	"dinos/dkernel/vfs"
	"dinos/dkernel/wait"
)

// Space is an address space: mm.Space, with a Fork that returns a Space. Its methods may be called by several goroutines.
type Space interface {
	uio.Memory
	futex.Memory
	// Fork returns a copy for a new process. linux.ENOMEM.
	Fork() (Space, error)
	// Release is called once, when no process uses it any more.
	Release()
	// Stat is what there is of it at this moment, in pages.
	Stat() mm.Stat
	// Regions lists mappings, for /proc.
	Regions(addr uint64, limit int) []mm.Region
	// SetLimits sets the limits for what comes next.
	SetLimits(mm.Limits)
}

// space counts the processes that use a Space (CLONE_VM without CLONE_THREAD: vfork), and whoever looks at it meanwhile.
type space struct {
	Space
	users atomic.Int32
}

func newSpace(s Space) *space {
	r := &space{Space: s}
	r.users.Store(1)
	return r
}

// acquire adds a user, unless there is none left.
func (s *space) acquire() bool {
	for {
		n := s.users.Load()
		if n == 0 {
			return false
		}
		if s.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// peak is the most bytes that were in memory.
func (s *space) peak() uint64 { return s.Stat().Peak * 4096 }

func (s *space) release() {
	if s.users.Add(-1) == 0 {
		s.Space.Release()
	}
}

// Process is a thread group.
type Process struct {
	sys   *System
	id    *pid
	trace func(*Thread, []byte) // Spec.Trace; it does not change
	born  int64                 // CLOCK_MONOTONIC
	user  atomic.Pointer[user]
	space atomic.Pointer[space] // nil of a zombie
	acts  atomic.Pointer[signal.Actions]
	cred  atomic.Pointer[cred.Cred] // the leader's

	// Guarded by sys.tree.
	parent               *Process
	parentThread         *Thread // who made it; nil if that is gone
	children             *Process
	nextChild, prevChild *Process
	group                *group
	nextInGroup          *Process
	prevInGroup          *Process
	exitSignal           int
	subreaper            bool // PR_SET_CHILD_SUBREAPER
	underSubreaper       bool // an ancestor is one
	execed               bool // since the fork: setpgid by its parent fails
	zombie               bool
	status               uint32 // of a zombie, in wait(2)'s form
	session              *Session
	tty                  *tty.TTY // controlling terminal

	oomAdj   atomic.Int32
	cpuArmed atomic.Bool // a timer runs on CPU time

	childq wait.Queue // children's changes of state
	exitq  wait.Queue // its own end: pidfds

	mu sync.Mutex
	// Guarded by mu.
	threads  *Thread // all that have not exited, a ring
	nthreads int
	leader   *Thread // nil after it exited
	shared   signal.Pending
	pool     signal.Pool
	target   *Thread // the last that got a signal of the process, so that the load goes round
	stop     stop
	exiting  bool // a group exit, or exec, has begun
	code     uint32
	execer   *Thread // who waits in exec for the others to end
	execq    wait.Queue
	limits   Limits
	sigq     wait.Queue // signals that become pending: signalfd
	itimers  itimers
	timers   timers
	dead     usage // of threads that exited
	waited   usage // of children that were waited for
	exec     ExecInfo
	prctl    processPrctl
	barriers uint32 // membarrier registrations
	unkill   bool   // signals without handler do not kill it: init
}

// ExecInfo is what is known of the program that a process runs.
type ExecInfo struct {
	Exe                string   // path of the executable
	Path               vfs.Path // the same, for /proc/PID/exe
	ArgStart, ArgEnd   uint64
	EnvStart, EnvEnd   uint64
	StackStart         uint64
	Auxv               []byte
	CodeStart, CodeEnd uint64
	DataStart, DataEnd uint64
	BrkStart           uint64
}

// Trace is Spec.Trace of the process that this one descends from.
func (p *Process) Trace() func(t *Thread, line []byte) { return p.trace }

// PID is the process id.
func (p *Process) PID() int32 { return p.id.n }

func (p *Process) actions() *signal.Actions { return p.acts.Load() }

// Cred are the credentials of the process' leader, also after its end. Anybody may call it.
func (p *Process) Cred() *cred.Cred { return p.cred.Load() }
