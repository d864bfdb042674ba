// Package procfs is /proc (proc(5)) and the small part of /sys that programs look at. What it tells comes from the kernel by the
// interfaces Machine, Processes and Process.
package procfs

import (
	"dinos/dkernel/cred"
	"dinos/dkernel/mm"
	"dinos/dkernel/uio"
	"dinos/dkernel/vfs"
	"dinos/kernel/linux"
)

// CPU describes a processor, for /proc/cpuinfo.
type CPU struct {
	ID                       int
	Vendor, Model            string // "GenuineIntel", "Intel(R) …"
	Family, Number, Stepping int
	KHz                      int64
	CacheKB                  int
	Package, Core            int
	Flags                    string // as cpuinfo has them: "fpu vme …"
	PhysBits, VirtBits       int
}

// CPUTimes is how long a processor has done what, in ns since boot.
type CPUTimes struct{ User, Nice, System, Idle, IOWait, IRQ, SoftIRQ, Steal int64 }

// Memory is the memory of the machine, in bytes.
type Memory struct {
	Total, Free, Available  int64
	Buffers, Cached, Shmem  int64
	Active, Inactive        int64
	Anon, Mapped            int64
	Slab, PageTables, Stack int64
	CommitLimit, Committed  int64
}

// Activity is what the machine does and has done.
type Activity struct {
	Uptime          int64 // ns since boot
	Boot            int64 // ns since 1970
	Load            [3]float64
	Running, Tasks  int // threads
	Blocked         int
	LastPID         int32
	Forks           uint64
	ContextSwitches uint64
	Interrupts      uint64
	PageFaults      uint64
	MajorFaults     uint64
}

// Machine tells about the machine. Its methods may be called by several goroutines.
type Machine interface {
	CPUs() []CPU
	// Times are those of the processors of CPUs, in that order.
	Times() []CPUTimes
	Memory() Memory
	Activity() Activity
	// CommandLine is that of the kernel.
	CommandLine() string
	// Uname are sysname, nodename, release, version, machine, domainname of uname(2).
	Uname() [6]string
}

// Processes is the table of processes.
type Processes interface {
	// Process returns the process of a pid, or nil. A reaped one is nil; a zombie is not.
	Process(pid int32) Process
	// Thread returns a thread of any process as if it were one, or nil.
	Thread(tid int32) Process
	// Next is the smallest pid of a process that is >= from, or 0.
	Next(from int32) int32
}

// Process is a process, or a thread of one, that may end at any time: then its methods return zero values or linux.ESRCH.
type Process interface {
	// Info reads what stat and status tell. It reports false if the process was reaped.
	Info(i *Info) bool
	// Threads are the ids of the threads of the process, ascending.
	Threads() []int32
	Cred() *cred.Cred
	// Dumpable is that of prctl(PR_GET_DUMPABLE): who may look at it beyond root.
	Dumpable() bool
	Files() *vfs.FDTable // nil of a zombie
	FS() *vfs.FSContext  // nil of a zombie
	Exe() vfs.Path       // zero of a zombie
	Memory() Space       // nil of a zombie
	Limits() [linux.RLIM_NLIMITS]linux.Rlimit
	Auxv() []byte
	SetComm(name string) error
	// OOMScoreAdj and SetOOMScoreAdj are -1000 to 1000.
	OOMScoreAdj() int
	SetOOMScoreAdj(n int) error
	// Wait names what the thread sleeps in, "" if it does not.
	Wait() string
}

// Space is an address space: *mm.Space.
type Space interface {
	uio.Memory
	Regions(addr uint64, limit int) []mm.Region
	Stat() mm.Stat
}

// Info is a snapshot of a process or thread. Times are in ns.
type Info struct {
	PID, TID                                         int32
	Comm                                             string
	State                                            byte // R S D Z T t X
	PPID, Group, Session                             int32
	TTY                                              uint64 // device, as vfs.MkDev has it; 0: none
	TTYGroup                                         int32  // -1: none
	Flags                                            uint32
	MinorFaults, ChildMinor, MajorFaults, ChildMajor uint64
	User, System, ChildUser, ChildSystem             int64
	Priority, Nice                                   int
	Threads                                          int
	Start                                            int64 // after boot
	ExitSignal, LastCPU                              int
	RTPriority, Policy                               int
	ExitCode                                         int
	Tracer                                           int32

	StartCode, EndCode, StartData, EndData, StartBreak, StartStack uint64
	ArgStart, ArgEnd, EnvStart, EnvEnd                             uint64
	SP, IP                                                         uint64

	Pending, SharedPending, Blocked, Ignored, Caught uint64 // signal sets, bit 0 is signal 1
	Queued, QueueLimit                               uint64

	Voluntary, Involuntary uint64 // context switches
	NoNewPrivs             bool
	CPUs                   []uint64 // allowed; bit i of word i/64

	ReadChars, WriteChars, ReadCalls, WriteCalls uint64
}

// Sysctl is a file of /proc/sys. Without Set it cannot be written.
type Sysctl struct {
	Path string // "kernel/hostname"
	Get  func() string
	Set  func(c *vfs.Caller, s string) error
}

// Config is what New needs.
type Config struct {
	Machine   Machine
	Processes Processes
	// FileSystems are the kinds that mount(2) knows, for /proc/filesystems; those with a block device beneath begin with "dev ".
	FileSystems []string
	// Sysctls are added to the ones that are there anyway, or replace them.
	Sysctls []Sysctl
	// Random is for /proc/sys/kernel/random.
	Random func([]byte)
}
