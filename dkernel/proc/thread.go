package proc

import (
	"sync/atomic"

	"dinos/dkernel/cred"
	"dinos/dkernel/futex"
	"dinos/dkernel/signal"
	"dinos/dkernel/vfs"
	"dinos/dkernel/wait"
	"dinos/kernel/ureg"
)

// Thread is a thread of a process. Its goroutine owns it; methods that others may call say so.
type Thread struct {
	// Regs are its registers while it is not in ring 3.
	Regs ureg.Frame
	// CPU is the rest of its registers.
	CPU ureg.CPU
	// Caller is what file operations need to know of it: credentials, descriptors, paths, sleeper, memory. Kept up to date here.
	Caller vfs.Caller
	// Run is for the run loop.
	Run any

	sys     *System
	proc    *Process
	id      atomic.Pointer[pid]
	work    atomic.Uint32 // what Deliver has to do: bits work*; anybody adds, only the thread takes away
	cred    atomic.Pointer[cred.Cred]
	name    atomic.Pointer[string]
	sleeper *wait.Sleeper
	mem     *space // proc.space, without a look at it

	files       atomic.Pointer[vfs.FDTable]   // Caller.Files, for others
	fs          atomic.Pointer[vfs.FSContext] // Caller.FS
	personality atomic.Uint32
	utime       atomic.Int64 // ns
	stime       atomic.Int64
	minflt      atomic.Int64
	majflt      atomic.Int64
	nvcsw       atomic.Int64
	nivcsw      atomic.Int64
	asleep      atomic.Bool // it slept last, and has not used the CPU since: for /proc
	onlyFatal   bool        // the present sleep ends for nothing but death

	// Guarded by sys.tree.
	madeChildren int // children whose parentThread it is

	// Guarded by proc.mu.
	next, prev *Thread
	pending    signal.Pending
	blocked    signal.Set // only the thread changes it
	waiting    signal.Set // blocked signals that sigtimedwait waits for
	exiting    bool
	stopping   bool // has to take part in a stop
	stopped    bool
	sched      sched

	// Its goroutine's.
	saved     signal.Set // the mask to restore after delivery, if restore
	restore   bool
	alt       signal.AltStack
	fault     signal.LastFault
	frames    signal.Stack
	restart   func() (uint64, error)
	clearTID  uint64
	robust    atomic.Uint64 // head of the list of robust futexes (set_robust_list(2)); others read it
	waiter    futex.Waiter
	owner     futex.Owner
	rseq      rseq
	futexCall futex.Call
	scratch   [64]byte // for small copies from and to the program, so that they do not escape
	pidfd     int      // of CLONE_PIDFD, until it is started
	exitCode  uint32
	prctl     threadPrctl
	vfork     *vfork // whom to tell that the parent's memory is free
	deathSig  atomic.Int32
	born      int64 // CLOCK_MONOTONIC
}

// TID is the thread id. Anybody may call it.
func (t *Thread) TID() int32 { return t.id.Load().n }

// PID is the id of its process. Anybody may call it.
func (t *Thread) PID() int32 { return t.proc.id.n }

// System is the system that the thread is of.
func (t *Thread) System() *System { return t.sys }

// Process is the thread's process. Anybody may call it.
func (t *Thread) Process() *Process { return t.proc }

// Space is the address space, of the thread's own goroutine.
func (t *Thread) Space() Space { return t.mem.Space }

// Cred are its credentials. Anybody may call it.
func (t *Thread) Cred() *cred.Cred { return t.cred.Load() }

// Can reports whether it has a capability. Anybody may call it.
func (t *Thread) Can(c cred.Cap) bool { return t.cred.Load().Can(c) }

// Interrupted reports whether Deliver must be called before ring 3 is entered: one atomic load.
func (t *Thread) Interrupted() bool { return t.work.Load() != 0 }

// Sleeper is how the thread sleeps.
func (t *Thread) Sleeper() *wait.Sleeper { return t.sleeper }

// SetFiles gives the thread a descriptor table, whose user it is from now on.
func (t *Thread) SetFiles(f *vfs.FDTable) {
	t.Caller.Files = f
	t.files.Store(f)
}

// SetFS gives the thread its directories.
func (t *Thread) SetFS(f *vfs.FSContext) {
	t.Caller.FS = f
	t.fs.Store(f)
}

// Files is the descriptor table, for others than the thread: FDTable.Lookup and Next may be used. nil after its end. Anybody may call it.
func (t *Thread) Files() *vfs.FDTable { return t.files.Load() }

// FS has the directories, for others than the thread. nil after its end. Anybody may call it.
func (t *Thread) FS() *vfs.FSContext { return t.fs.Load() }
