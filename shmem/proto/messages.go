package proto

// Messages: their fields, and their code methods, which encode and decode them. Files and streams are in files.go, what several have
// in common in parts.go; registry.go gives all of them numbers.

// Done answers what has no other answer than that it is done.
type Done struct{}

func (m *Done) code(*codec) {}

// ErrorReply answers what failed.
type ErrorReply struct {
	Code  Code
	Errno uint32 // with CodeErrno: as of amd64 Linux
	Text  string
}

func (m *ErrorReply) code(c *codec) { c.u16((*uint16)(&m.Code)).u32(&m.Errno).str(&m.Text, MaxText) }

// Membership.

// Null asks for its payload back: for benchmarks, and to see whether somebody is there.
type Null struct{ Payload []byte }

func (m *Null) code(c *codec) { c.bytes(&m.Payload, MaxData) }

// NullReply answers [Null].
type NullReply struct{ Payload []byte }

func (m *NullReply) code(c *codec) { c.bytes(&m.Payload, MaxData) }

// Register makes a machine a member, in a new life. All else but Null and LogLine needs it first.
type Register struct {
	Generation      uint64
	Rack            uint64 // the generation of the rack that it opened
	Doorbell, Cores uint16
	Memory, TSCHz   uint64
	Name            string
}

func (m *Register) code(c *codec) {
	c.u64(&m.Generation).u64(&m.Rack).u16(&m.Doorbell).u16(&m.Cores).u64(&m.Memory).u64(&m.TSCHz)
	c.str(&m.Name, MaxName)
}

// RegisterReply answers [Register].
type RegisterReply struct {
	Epoch               uint64
	Peer                uint16
	HeartbeatUs, DeadUs uint32 // how often to beat, and after how long without one is dead
	Members             []Member
}

func (m *RegisterReply) code(c *codec) {
	c.u64(&m.Epoch).u16(&m.Peer).u32(&m.HeartbeatUs).u32(&m.DeadUs)
	list(c, &m.Members, MaxList, (*codec).member)
}

// Leave ends a membership in order: nothing runs on the machine any more. What it still has is taken back.
type Leave struct{ Reason string }

func (m *Leave) code(c *codec) { c.str(&m.Reason, MaxText) }

// Topology asks for all machines and hardware threads.
type Topology struct{}

func (m *Topology) code(c *codec) {}

// TopologyReply answers [Topology].
type TopologyReply struct {
	Epoch   uint64
	Members []Member
	Threads []Thread
}

func (m *TopologyReply) code(c *codec) {
	c.u64(&m.Epoch)
	list(c, &m.Members, MaxList, (*codec).member)
	list(c, &m.Threads, MaxList, (*codec).thread)
}

// Heartbeat is the beat with an answer: it proves the way through the rings, which the word in shared memory does not.
type Heartbeat struct{ Sequence, TSC, Epoch uint64 }

func (m *Heartbeat) code(c *codec) { c.u64(&m.Sequence).u64(&m.TSC).u64(&m.Epoch) }

// HeartbeatReply answers [Heartbeat].
type HeartbeatReply struct{ Sequence, TSC, Epoch uint64 }

func (m *HeartbeatReply) code(c *codec) { c.u64(&m.Sequence).u64(&m.TSC).u64(&m.Epoch) }

// Membership tells that a machine came, left or died.
type Membership struct {
	Epoch  uint64
	Member Member
	Reason string
}

func (m *Membership) code(c *codec) { c.u64(&m.Epoch).member(&m.Member).str(&m.Reason, MaxText) }

// Fence tells the host tool to make sure that a life of a machine is over.
type Fence struct {
	Peer       uint16
	Generation uint64
	Reason     string
}

func (m *Fence) code(c *codec) { c.u16(&m.Peer).u64(&m.Generation).str(&m.Reason, MaxText) }

// Shutdown asks a kernel to end in order.
type Shutdown struct {
	Reason string
	Reboot bool
}

func (m *Shutdown) code(c *codec) { c.str(&m.Reason, MaxText).bool(&m.Reboot) }

// Cores and slices.

// RequestCores asks for cores.
type RequestCores struct {
	Want     Want
	Min, Max uint16 // at least and at most so many
}

func (m *RequestCores) code(c *codec) { c.want(&m.Want).u16(&m.Min).u16(&m.Max) }

// RequestCoresReply answers [RequestCores].
type RequestCoresReply struct{ Cores []Core }

func (m *RequestCoresReply) code(c *codec) { list(c, &m.Cores, MaxList, (*codec).core) }

// ReleaseCores gives cores back.
type ReleaseCores struct{ Cores []Core }

func (m *ReleaseCores) code(c *codec) { list(c, &m.Cores, MaxList, (*codec).core) }

// RequestSlices asks for 2 MiB slices. They are zero.
type RequestSlices struct {
	Want     Want
	Min, Max uint32
}

func (m *RequestSlices) code(c *codec) { c.want(&m.Want).u32(&m.Min).u32(&m.Max) }

// RequestSlicesReply answers [RequestSlices].
type RequestSlicesReply struct{ Slices []Slice }

func (m *RequestSlicesReply) code(c *codec) { list(c, &m.Slices, MaxList, (*codec).slice) }

// ReleaseSlices gives slices back; they are zeroed before anybody else gets them.
type ReleaseSlices struct{ Slices []Slice }

func (m *ReleaseSlices) code(c *codec) { list(c, &m.Slices, MaxList, (*codec).slice) }

// Reclaim asks a holder to release something soon.
type Reclaim struct {
	Cores      []Core
	Slices     []Slice
	DeadlineUs uint32
}

func (m *Reclaim) code(c *codec) {
	list(c, &m.Cores, MaxList, (*codec).core)
	list(c, &m.Slices, MaxList, (*codec).slice)
	c.u32(&m.DeadlineUs)
}

// Claim names all that the sender was granted and has not released, in one message or several: after the ckernel was restarted, and
// when answers may have been lost. With Last, what the ckernel has down for the sender and the sender did not name is taken back.
type Claim struct {
	Cores  []Core
	Slices []Slice
	First  bool // forget what former messages claimed
	Last   bool
}

func (m *Claim) code(c *codec) {
	list(c, &m.Cores, MaxList, (*codec).core)
	list(c, &m.Slices, MaxList, (*codec).slice)
	c.bool(&m.First).bool(&m.Last)
}

// ClaimReply answers [Claim] with what was named in the same order. Grant is 0 where the sender does not hold it (any more), and may
// have changed where the table had been damaged.
type ClaimReply struct {
	Cores  []Core
	Slices []Slice
}

func (m *ClaimReply) code(c *codec) {
	list(c, &m.Cores, MaxList, (*codec).core)
	list(c, &m.Slices, MaxList, (*codec).slice)
}

// Drain has nothing new placed on a machine, and asks its holders to move what is there; or allows it again.
type Drain struct {
	Machine uint16
	Undo    bool
}

func (m *Drain) code(c *codec) { c.u16(&m.Machine).bool(&m.Undo) }

// DrainReply answers [Drain] with what is still held on the machine.
type DrainReply struct{ Cores, Slices uint32 }

func (m *DrainReply) code(c *codec) { c.u32(&m.Cores).u32(&m.Slices) }

// Audit checks the ownership of all cores and slices.
type Audit struct{}

func (m *Audit) code(c *codec) {}

// AuditReply answers [Audit].
type AuditReply struct {
	Slices, Cores, Free uint64
	Problems            []string
}

func (m *AuditReply) code(c *codec) {
	c.u64(&m.Slices).u64(&m.Cores).u64(&m.Free).strs(&m.Problems, MaxList, MaxText)
}

// AssignLog asks which log in shared memory serves a structure; one is made if there is none.
type AssignLog struct {
	Process uint64 // 0 for the log of the rack
	Part    uint32 // of a structure that is split
}

func (m *AssignLog) code(c *codec) { c.u64(&m.Process).u32(&m.Part) }

// AssignLogReply answers [AssignLog].
type AssignLogReply struct {
	Log                                          uint32
	Generation, Entries, ArenaBytes, Fingerprint uint64 // but for Generation 0 if only the log's own header says it
	Fresh                                        bool   // the caller formats it
}

func (m *AssignLogReply) code(c *codec) {
	c.u32(&m.Log).u64(&m.Generation).u64(&m.Entries).u64(&m.ArenaBytes).u64(&m.Fingerprint).bool(&m.Fresh)
}

// ReleaseLog gives a log back after the last replica left.
type ReleaseLog struct {
	Process uint64
	Part    uint32
}

func (m *ReleaseLog) code(c *codec) { c.u64(&m.Process).u32(&m.Part) }

// Shootdown asks to drop the translations of an address range. Its reply means that no core of the machine can use them.
type Shootdown struct {
	Process, Start, End uint64
	Log                 uint32
	Position            uint64 // apply the log up to here first
}

func (m *Shootdown) code(c *codec) {
	c.u64(&m.Process).u64(&m.Start).u64(&m.End).u32(&m.Log).u64(&m.Position)
}

// Kernel log, statistics.

// LogLine is a line of a kernel's log.
type LogLine struct {
	TimeNs uint64
	CPU    uint16
	Level  uint8
	Text   string
}

func (m *LogLine) code(c *codec) { c.u64(&m.TimeNs).u16(&m.CPU).u8(&m.Level).str(&m.Text, MaxText) }

// ReadLog opens a stream with log lines as text.
type ReadLog struct {
	Machine int32 // -1 for all
	Follow  bool
	Lines   uint32 // of the past; 0 for all
}

func (m *ReadLog) code(c *codec) { c.i32(&m.Machine).bool(&m.Follow).u32(&m.Lines) }

// ReadLogReply answers [ReadLog].
type ReadLogReply struct{}

func (m *ReadLogReply) code(c *codec) {}

// Statistics asks for the counters of a machine.
type Statistics struct {
	Machine int32 // -1 for the receiver
}

func (m *Statistics) code(c *codec) { c.i32(&m.Machine) }

// StatisticsReply answers [Statistics].
type StatisticsReply struct {
	TimeNs uint64
	Values []Value
}

func (m *StatisticsReply) code(c *codec) {
	c.u64(&m.TimeNs)
	list(c, &m.Values, MaxList, (*codec).value)
}

// Status asks for everything that people want to see.
type Status struct {
	Check     bool // audit, too
	Processes bool
}

func (m *Status) code(c *codec) { c.bool(&m.Check).bool(&m.Processes) }

// StatusReply answers [Status].
type StatusReply struct {
	TimeNs, Epoch, Rack   uint64
	Members               []Member
	Processes             []ProcessInfo
	FreeCores, FreeSlices uint64
	Problems              []string
}

func (m *StatusReply) code(c *codec) {
	c.u64(&m.TimeNs).u64(&m.Epoch).u64(&m.Rack)
	list(c, &m.Members, MaxList, (*codec).member)
	list(c, &m.Processes, MaxList, (*codec).processInfo)
	c.u64(&m.FreeCores).u64(&m.FreeSlices).strs(&m.Problems, MaxList, MaxText)
}

// LogPositions asks how far the operation logs are.
type LogPositions struct{}

func (m *LogPositions) code(c *codec) {}

// LogPositionsReply answers [LogPositions].
type LogPositionsReply struct{ Logs []LogPosition }

func (m *LogPositionsReply) code(c *codec) { list(c, &m.Logs, MaxList, (*codec).logPosition) }

// Processes.

// CreateProcess starts a program.
type CreateProcess struct {
	Parent    uint64
	Home      int32 // the machine; -1 for any
	UID, GID  uint32
	Cores     uint16
	Slices    uint32
	Path, Dir string
	Args, Env []string
}

func (m *CreateProcess) code(c *codec) {
	c.u64(&m.Parent).i32(&m.Home).u32(&m.UID).u32(&m.GID).u16(&m.Cores).u32(&m.Slices).str(&m.Path, MaxPath)
	c.str(&m.Dir, MaxPath).strs(&m.Args, MaxArgs, MaxArg).strs(&m.Env, MaxArgs, MaxArg)
}

// CreateProcessReply answers [CreateProcess].
type CreateProcessReply struct {
	PID  uint64
	Home uint16
}

func (m *CreateProcessReply) code(c *codec) { c.u64(&m.PID).u16(&m.Home) }

// ExitProcess tells that a process has ended.
type ExitProcess struct {
	PID            uint64
	Status, Signal int32
	Usage          Usage
}

func (m *ExitProcess) code(c *codec) { c.u64(&m.PID).i32(&m.Status).i32(&m.Signal).usage(&m.Usage) }

// KillProcess ends a process on all machines, without asking it.
type KillProcess struct {
	PID    uint64
	Reason string
}

func (m *KillProcess) code(c *codec) { c.u64(&m.PID).str(&m.Reason, MaxText) }

// SignalProcess sends a signal.
type SignalProcess struct {
	PID, TID    uint64 // TID 0 for whichever thread
	Signal      int32
	Code        int32
	Sender, UID uint32
	Value       uint64
}

func (m *SignalProcess) code(c *codec) {
	c.u64(&m.PID).u64(&m.TID).i32(&m.Signal).i32(&m.Code).u32(&m.Sender).u32(&m.UID).u64(&m.Value)
}

// WaitProcess answers when a process has ended.
type WaitProcess struct{ PID uint64 }

func (m *WaitProcess) code(c *codec) { c.u64(&m.PID) }

// WaitProcessReply answers [WaitProcess].
type WaitProcessReply struct {
	Status, Signal int32
	Usage          Usage
}

func (m *WaitProcessReply) code(c *codec) { c.i32(&m.Status).i32(&m.Signal).usage(&m.Usage) }

// StartThread starts a thread of a process on the receiving machine.
type StartThread struct {
	PID, TID, Entry, Stack, TLS uint64
	Machine                     int32
	Log                         uint32
	Position                    uint64 // apply the log up to here first
}

func (m *StartThread) code(c *codec) {
	c.u64(&m.PID).u64(&m.TID).u64(&m.Entry).u64(&m.Stack).u64(&m.TLS).i32(&m.Machine).u32(&m.Log)
	c.u64(&m.Position)
}

// StartThreadReply answers [StartThread].
type StartThreadReply struct{ Machine, Core uint16 }

func (m *StartThreadReply) code(c *codec) { c.u16(&m.Machine).u16(&m.Core) }

// ExitThread tells that a thread has ended.
type ExitThread struct {
	PID, TID uint64
	Status   int32
}

func (m *ExitThread) code(c *codec) { c.u64(&m.PID).u64(&m.TID).i32(&m.Status) }

// Futex wakes waiters of an address of a process that runs on several machines.
type Futex struct {
	PID, Address uint64
	Count        uint32
}

func (m *Futex) code(c *codec) { c.u64(&m.PID).u64(&m.Address).u32(&m.Count) }

// FutexReply answers [Futex].
type FutexReply struct{ Woken uint32 }

func (m *FutexReply) code(c *codec) { c.u32(&m.Woken) }
