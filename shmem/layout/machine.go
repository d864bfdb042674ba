package layout

import (
	"fmt"
	"sync/atomic"

	"dinos/shmem/region"
)

// State is what a peer says it is (self), or is said to be (fence).
type State uint64

// The states of a peer, in the order of its life.
const (
	StateEmpty    State = iota // no machine ever took this block
	StateBooting               // it has its memory and its doorbell, not its rings
	StateJoining               // it asks to be registered
	StateUp                    // member of the rack
	StateLeaving               // gives back what it holds
	StateDown                  // ended in order
	StateCrashing              // writes its crash report
	StateDead                  // declared so by the ckernel, which says it in messages; no block holds it
	states
)

func (s State) String() string {
	if s < states {
		return [...]string{"empty", "booting", "joining", "up", "leaving", "down", "crashing", "dead"}[s]
	}
	return fmt.Sprintf("state(%d)", uint64(s))
}

// Offsets in a machine block. The line in front names the writer; a line has one, but for the mailbox.
const (
	// Written by the machine when it starts, and its state whenever that changes.
	OffGeneration = 0x00 // its life: one more than was here before; stored before state
	OffState      = 0x08
	OffDoorbell   = 0x10 // its ivshmem peer id, plus 1; 0 is none
	OffKind       = 0x18 // free for the kernel: 'c', 'd', 'h'
	OffCores      = 0x20
	OffMemory     = 0x28 // bytes of private memory
	OffStarted    = 0x30 // nanoseconds of the rack's clock

	// Written by the machine, all the time. Alone on their line, since others poll them.
	OffHeartbeat = 0x80 // counts up
	OffBeatTSC   = 0x88 // its time stamp counter at the last beat

	// The clock exchange: the asker stores its counter and then ping, the machine answers with its own and then pong = ping.
	OffTSCHz    = 0x100 // by the machine
	OffPong     = 0x108 // by the machine
	OffPongTSC  = 0x110 // by the machine
	OffPing     = 0x140 // by the ckernel
	OffPingTSC  = 0x148 // by the ckernel
	OffTSCDelta = 0x150 // by the ckernel: what to add to the machine's counter to get the rack's, two's complement
	OffTSCError = 0x158 // by the ckernel: half the round trip, in cycles

	// Written by the ckernel.
	OffFence = 0x180 // lives up to this generation are dead: their machine stops when it sees that
	OffEpoch = 0x188 // of the membership that the machine is part of

	// Written by whoever the use of the word says; for what must work before there are rings.
	OffMailbox   = 0x200
	MailboxWords = 8

	// Written by the machine.
	OffStats  = 0x280
	StatWords = 48
)

// The block is not larger than its stride and groups are on lines of their own. A negative length does not compile.
var (
	_ [MachineBytes - OffStats - 8*StatWords]byte
	_ [OffStats - OffMailbox - 8*MailboxWords]byte
	_ [OffHeartbeat - OffStarted - 8]byte
	_ [OffPing - OffPongTSC - 8]byte
	_ [OffFence - OffTSCError - 8]byte
	_ [-(MachineBytes % region.PadSize)]byte
	_ [-(SuperBytes % region.PadSize)]byte
	_ [-(OffPing % region.LineSize)]byte
	_ [StatWords - int(Stats)]byte
)

// Stat names a word of the statistics. Numbers are part of the layout: only add before Stats.
type Stat int

// The statistics. Counters count up from the machine's start; levels go both ways.
const (
	StatUptime         Stat = iota // ns
	StatIdle                       // ns of all cores
	StatCalls                      // RPCs sent
	StatServed                     // RPCs answered
	StatCallErrors                 // RPCs that failed
	StatBytesOut                   // in rings
	StatBytesIn                    // in rings
	StatDoorbellsRung              //
	StatDoorbellsTaken             // interrupts
	StatCores                      // level: cores held
	StatSlices                     // level: slices held
	StatFreeFrames                 // level
	StatProcesses                  // level
	StatThreads                    // level
	StatSyscalls                   //
	StatFaults                     // page faults
	StatShootdowns                 // translations dropped for others
	StatLogAppends                 // ops appended to logs
	StatLogApplied                 // ops applied
	StatGoroutines                 // level
	StatHeap                       // level: bytes
	StatGCs                        //
	StatUnknownCalls               // system calls that are not supported
	StatDropped                    // log lines and trace events lost
	Stats
)

// statNames has a name for each.
var statNames = [Stats]string{"uptime_ns", "idle_ns", "calls", "served", "call_errors", "bytes_out", "bytes_in",
	"doorbells_rung", "doorbells_taken", "cores", "slices", "free_frames", "processes", "threads", "syscalls", "faults",
	"shootdowns", "log_appends", "log_applied", "goroutines", "heap_bytes", "gcs", "unknown_calls", "dropped"}

func (s Stat) String() string {
	if s >= 0 && s < Stats {
		return statNames[s]
	}
	return fmt.Sprintf("stat(%d)", int(s))
}

// machineFields are the named words of a block, for Dump. %s is the format of a state.
var machineFields = []struct {
	name   string
	off    region.Off
	format string
}{
	{"generation", OffGeneration, "%d"}, {"state", OffState, "%s"}, {"doorbell", OffDoorbell, "%d"}, {"kind", OffKind, "%q"},
	{"cores", OffCores, "%d"}, {"memory", OffMemory, "%d"}, {"started", OffStarted, "%d"},
	{"heartbeat", OffHeartbeat, "%d"}, {"beat_tsc", OffBeatTSC, "%d"},
	{"tsc_hz", OffTSCHz, "%d"}, {"ping", OffPing, "%d"}, {"ping_tsc", OffPingTSC, "%d"}, {"pong", OffPong, "%d"},
	{"pong_tsc", OffPongTSC, "%d"}, {"tsc_delta", OffTSCDelta, "%#x"}, {"tsc_error", OffTSCError, "%d"},
	{"fence", OffFence, "%d"}, {"epoch", OffEpoch, "%d"},
}

// Machine is a peer's block. Its words are checked to be inside; what they say is not. Any number of goroutines may use it.
type Machine struct {
	Slot int

	Generation, State, Doorbell, Kind, Cores, Memory, Started *atomic.Uint64
	Heartbeat, BeatTSC                                        *atomic.Uint64
	TSCHz, Pong, PongTSC, Ping, PingTSC, TSCDelta, TSCError   *atomic.Uint64
	Fence, Epoch                                              *atomic.Uint64
	Mailbox                                                   [MailboxWords]*atomic.Uint64
	Stat                                                      [Stats]*atomic.Uint64
}

// Machine is the block of a peer in r.
func (l *Layout) Machine(r region.Region, slot int) (*Machine, error) {
	if err := l.peer(slot); err != nil {
		return nil, err
	}
	r, err := r.Sub(l.Machines.At(uint64(slot)), MachineBytes)
	if err != nil {
		return nil, err
	}
	m := &Machine{Slot: slot}
	take := func(p **atomic.Uint64, off region.Off) {
		if err == nil {
			*p, err = r.U64(off)
		}
	}
	take(&m.Generation, OffGeneration)
	take(&m.State, OffState)
	take(&m.Doorbell, OffDoorbell)
	take(&m.Kind, OffKind)
	take(&m.Cores, OffCores)
	take(&m.Memory, OffMemory)
	take(&m.Started, OffStarted)
	take(&m.Heartbeat, OffHeartbeat)
	take(&m.BeatTSC, OffBeatTSC)
	take(&m.TSCHz, OffTSCHz)
	take(&m.Pong, OffPong)
	take(&m.PongTSC, OffPongTSC)
	take(&m.Ping, OffPing)
	take(&m.PingTSC, OffPingTSC)
	take(&m.TSCDelta, OffTSCDelta)
	take(&m.TSCError, OffTSCError)
	take(&m.Fence, OffFence)
	take(&m.Epoch, OffEpoch)
	for i := range m.Mailbox {
		take(&m.Mailbox[i], OffMailbox+region.Off(8*i))
	}
	for i := range m.Stat {
		take(&m.Stat[i], OffStats+region.Off(8*i))
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// Begin takes the block for a new life of its machine and returns that life's generation. The machine's former life must
// be over. Generations of a machine only grow, and pass over what the ckernel has fenced.
func (m *Machine) Begin(kind byte, doorbell int, startedNs uint64) uint64 {
	gen := max(m.Generation.Load(), m.Fence.Load()) + 1
	m.State.Store(uint64(StateEmpty))
	m.Generation.Store(gen)
	m.Doorbell.Store(uint64(doorbell + 1))
	m.Kind.Store(uint64(kind))
	m.Started.Store(startedNs)
	for _, s := range m.Stat {
		s.Store(0)
	}
	m.Heartbeat.Add(1)
	m.State.Store(uint64(StateBooting))
	return gen
}

// Fenced reports whether the life gen of the machine was declared dead.
func (m *Machine) Fenced(gen uint64) bool { return gen <= m.Fence.Load() }

// DoorbellID is the ivshmem peer id of the machine. max is the largest that can exist.
func (m *Machine) DoorbellID(max int) (int, error) {
	d := m.Doorbell.Load()
	if d == 0 || d > uint64(max)+1 {
		return 0, fmt.Errorf("%w: doorbell word %d of peer %d, want 1 to %d", ErrNoSuch, d, m.Slot, max+1)
	}
	return int(d - 1), nil
}
