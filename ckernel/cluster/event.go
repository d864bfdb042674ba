package cluster

import (
	"fmt"
	"reflect"

	"dinos/shmem/grant"
	"dinos/shmem/layout"
	"dinos/shmem/proto"
)

// Event is something that happened: one of the types below.
type Event interface{ step(c *Cluster) }

// Start is the first event: what the ckernel finds in the machine blocks, and in the table of grants if it was damaged.
type Start struct {
	Now    int64
	Blocks []Block
	Found  []grant.Violation
}

// Block is what a machine block says.
type Block struct {
	Peer       int
	Generation uint64
	State      layout.State
	Fence      uint64
	Doorbell   uint64 // ivshmem id, plus 1
	Cores      uint64
	Memory     uint64
}

// Tick is a look at the heartbeats, which comes every Timing.Beat.
type Tick struct {
	Now   int64 // nanoseconds of a clock that does not go back
	Beats []Beat
}

// Beat is a heartbeat word as it is.
type Beat struct {
	Peer  int
	Count uint64
}

// Request is a request of a peer that wants a Reply with its token.
type Request struct {
	Token      uint64
	From       int
	Generation uint32 // of the sender, as frames have it
	Message    proto.Request
}

// Cancel says that nobody waits for the reply any more.
type Cancel struct{ Token uint64 }

// Over is certain knowledge that a life of a machine is over, and all before it: the host tool has confirmed a Fence, or reports an end.
type Over struct {
	Peer       int
	Generation uint64
	Reason     string
}

// Zeroed is the shell's word that a slice was zeroed.
type Zeroed struct{ Name grant.Name }

// Unknown is a kernel's answer to a Probe: it does not run that process.
type Unknown struct {
	Peer    int
	Process uint64
}

// Action is something to be done: one of the types below.
type Action interface{ String() string }

// Reply answers a request: with a message, or with an error.
type Reply struct {
	Token   uint64
	Message proto.Message
	Err     *proto.ErrorReply
}

// Notify sends an event to a peer; To is a machine or the host tool.
type Notify struct {
	To      int
	Message proto.Request
}

// Call sends a request to a peer whose answer nobody waits for, such as Shutdown and Reclaim.
type Call struct {
	To      int
	Message proto.Request
}

// StoreFence stores the fence word of a machine.
type StoreFence struct {
	Peer       int
	Generation uint64
}

// StoreEpoch stores the epoch of the membership: in the superblock, and in the blocks of all members.
type StoreEpoch struct{ Epoch uint64 }

// PeerDied tells the connections that a life is over, so that nobody waits for its answers.
type PeerDied struct {
	Peer       int
	Generation uint64
}

// HostFence asks the host tool to make sure that a life is over; Over is its answer.
type HostFence struct {
	Peer       int
	Generation uint64
	Reason     string
}

// Evict takes the replicas of a life out of all logs. Certain says that it does not run any more.
type Evict struct {
	Peer       int
	Generation uint64
	Certain    bool
}

// Zero writes zeros to a slice; Zeroed is the answer.
type Zero struct{ Name grant.Name }

// Probe asks a kernel whether it runs a process of which slices have come to its machine. Unknown is the answer if it does not. If it does,
// it is its kernel that says ExitProcess one day.
type Probe struct {
	Peer    int
	Process uint64
}

// Log tells people.
type Log struct{ Text string }

// Stop ends the ckernel; Err is nil if that is in order.
type Stop struct{ Err error }

func (a Reply) String() string {
	if a.Err != nil {
		return fmt.Sprintf("reply %d: %v: %s", a.Token, a.Err.Code, a.Err.Text)
	}
	return fmt.Sprintf("reply %d: %T%+v", a.Token, a.Message, deref(a.Message))
}
func (a Notify) String() string {
	return fmt.Sprintf("notify %d: %v%+v", a.To, a.Message.Type(), deref(a.Message))
}
func (a Call) String() string {
	return fmt.Sprintf("call %d: %v%+v", a.To, a.Message.Type(), deref(a.Message))
}
func (a StoreFence) String() string {
	return fmt.Sprintf("fence word of %d: %d", a.Peer, a.Generation)
}
func (a StoreEpoch) String() string { return fmt.Sprintf("epoch %d", a.Epoch) }
func (a PeerDied) String() string {
	return fmt.Sprintf("connections: %d@%d died", a.Peer, a.Generation)
}
func (a HostFence) String() string {
	return fmt.Sprintf("host: fence %d@%d (%s)", a.Peer, a.Generation, a.Reason)
}
func (a Evict) String() string {
	return fmt.Sprintf("evict %d@%d certain=%v", a.Peer, a.Generation, a.Certain)
}
func (a Zero) String() string { return fmt.Sprintf("zero %v", a.Name) }
func (a Probe) String() string {
	return fmt.Sprintf("probe %d: process %d", a.Peer, a.Process)
}
func (a Log) String() string  { return "log: " + a.Text }
func (a Stop) String() string { return fmt.Sprintf("stop: %v", a.Err) }

// deref is what a message holds, for %+v.
func deref(m any) any { return reflect.Indirect(reflect.ValueOf(m)).Interface() }
