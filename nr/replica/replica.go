// Package replica keeps one replica of a sequential structure up to date by an operation log, or by several, and
// makes it linearizable: flat combining for updates, a distributed readers-writer lock for reads.
//
// # One log
//
// Each thread of the kernel has a context. To apply an op a thread takes the combiner lock, or leaves the op in its context
// for whoever has it. The combiner collects the waiting ops, appends them with one swap of the log's tail, then consumes the log up
// to the last of them, applying every op to the structure under the write lock, and hands the responses out. A read
// loads the completed tail, has the replica catch up to it (by itself if nobody else combines) and reads under the read lock.
//
// The read lock is one word per context, on a line of its own, so that readers do not disturb each other. A
// writer raises a flag and waits for every context's word.
//
// # Several logs
//
// With several logs the structure comes in parts, one per log, each with its own combiner lock and write lock. An op across
// all logs goes to the cross log, at position x, and a marker x into each of the others. A replica that meets marker x in
// any log stops there, sees to it that x is marked in all logs (in place of an issuer that died), brings each of its
// parts to its marker, raises the completed tails of all logs above their markers, and applies the op to all parts at once.
//
// Why this is linearizable. No op behind marker x takes effect before x is marked in all logs, so ops that are invoked
// after such an op has completed are placed behind x in every log; and since the completed tails are raised first, a read
// invoked after that sees x in every log. Markers rise alike in all logs, so cross ops have one order.
//
// A read across all logs fixes a cut by holding all combiner locks, and is valid if no completed tail is above the cut
// when looked at afterwards: an op that completed before any op in the cut was invoked is then in the cut as well.
// After some vain attempts it appends a barrier to the cross log and reads there.
//
// # Locks
//
// The combiner locks are ordered: logs by index, then the cross log. A combiner of one log holds only that one; whoever needs all
// takes them in order. Under a combiner lock a write lock may be taken, several of them by index. A reader holds
// its context's word and takes nothing else. Nobody waits for shared memory to change while holding a lock: such a step is
// given up with an outcome, the locks are released, the Waiter is asked, and the step is begun again. The exception
// is the write lock, which waits for the readers of this replica.
package replica

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"dinos/nr/oplog"
)

// Errors besides those of package oplog.
var (
	// ErrStalled: the Waiter gave up. The text says who is waited for, and whether the op is in the log.
	ErrStalled = errors.New("nr: stalled")
	// ErrPending: the handle's last update is in the log and undecided. Resume waits for it.
	ErrPending = errors.New("nr: an update of this handle is pending")
	// ErrRoute: the op's log does not exist, or the replica does not subscribe to it.
	ErrRoute = errors.New("nr: op cannot be served here")
	// ErrThreads: no context is free.
	ErrThreads = errors.New("nr: no free thread context")
	// ErrPanic: the structure panicked; the replica's state is undefined.
	ErrPanic = errors.New("nr: structure panicked")
	// ErrSnapshot: the snapshot cannot be made or used.
	ErrSnapshot = errors.New("nr: bad snapshot")
)

// Structure is sequential code that knows nothing of replication. Apply must be deterministic: the same ops in the
// same order give the same state and responses on every kernel. It must cope with any op value, as peers are not trusted.
// Read must not change anything that another Read can see.
type Structure[O, R any] interface {
	Read(op O) R
	Apply(op O) R
}

// OperandStructure is a Structure with ops that carry bytes. data is valid during the call only.
type OperandStructure[O, R any] interface {
	ReadOperand(op O, data []byte) R
	ApplyOperand(op O, data []byte) R
}

// Snapshotter is a Structure that can be copied to another kernel. Snapshot runs while no op is applied, Restore
// on a new structure. Restore must cope with any bytes.
type Snapshotter interface {
	Snapshot(w io.Writer) error
	Restore(r io.Reader) error
}

// AllLogs is the route of an op that concerns all logs.
const AllLogs = -1

// Group is what the replicas of one structure have in common.
type Group[O, R any] struct {
	Logs  []*oplog.Log
	Cross *oplog.Log // nil with a single log
	// New makes the empty part of the structure that is kept by a log.
	New func(log int) Structure[O, R]
	// Route names the log of an op, or AllLogs. It must be a function of the op. Nil: log 0.
	Route func(op O) int
	// ApplyAll and ReadAll serve ops across all logs, with the parts by log; parts of logs that the replica does not
	// subscribe to are nil. ReadAll is not called on such a replica.
	ApplyAll func(parts []Structure[O, R], op O) R
	ReadAll  func(parts []Structure[O, R], op O) R
	Threads  int // contexts per replica
	Waiter   Waiter
	Probe    func(oplog.Point) // see oplog.Log.SetProbe

	// local are the replicas of this group value, which is to say of this kernel, by slot.
	local [oplog.MaxSlots]atomic.Pointer[Replica[O, R]]
}

// The steps of this package, for probes.
const (
	PtLock oplog.Point = oplog.PointReplica + iota
	PtUnlock
	PtCompleted
	PtReadLock
	PtReadCheck
	PtRead
	PtReadUnlock
	PtWriteLock
	PtReaders
	PtApply
	PtWriteUnlock
	PtWait
)

// crossWords is what an op in the cross log has in front: a word that tells an op from a barrier.
const (
	crossWords         = 1
	crossOp     uint64 = 0
	crossReader uint64 = 1
)

// CrossOpSize is the op size of the cross log for ops of n bytes.
func CrossOpSize(n int) int { return 8*crossWords + (n+7)/8*8 }

// Replica is one replica. It is safe for concurrent use; ops go through a [Handle].
type Replica[O, R any] struct {
	group   *Group[O, R]
	id      oplog.ID
	parts   []part[O, R] // by log; member nil where not subscribed
	cross   part[O, R]   // of the cross log; no structure
	all     []Structure[O, R]
	oneAll  bool   // single log with ops across "all"
	next    uint64 // next cross op to be applied; written under all combiner locks, read under any
	ctxs    []context[O, R]
	high    atomic.Int32 // contexts ever used
	failure atomic.Pointer[error]
}

// part is a replica's side of one log.
type part[O, R any] struct {
	lock    atomic.Uint32 // combiner lock
	_       [124]byte
	applied atomic.Uint64 // position; the structure contains everything below
	writer  atomic.Uint32 // raised while the structure changes
	_       [116]byte
	pending atomic.Int32 // contexts that wait to be collected
	_       [124]byte

	// Fixed.
	index   int
	width   int // words of an op
	s       Structure[O, R]
	operand OperandStructure[O, R] // s, if it takes operands
	log     *oplog.Log
	member  *oplog.Member
	chunk   *oplog.Chunk

	// Guarded by lock.
	out      []sent // appended and not yet applied, by rising position
	batch    []int32
	ops      []uint64
	data     [][]byte
	at       []uint64
	by       oplog.Blocker // of the last atHole or atRoom
	tries    int           // steps in a row that stopped at a hole at position triesAt
	triesAt  uint64
	crossing uint64 // of the last atBarrier
	self     int32  // context whose owner combines in the first step of its op, or -1
	selfSent bool   // that op is in the log
	selfDone bool   // and has its response
	applying bool
}

// sent is an op of ours in the log.
type sent struct {
	pos uint64
	ctx int32
}

func (g *Group[O, R]) check() error {
	switch {
	case len(g.Logs) > MaxLogs:
		return fmt.Errorf("%w: %d logs, want up to %d", oplog.ErrConfig, len(g.Logs), MaxLogs)
	case len(g.Logs) == 0 || (len(g.Logs) > 1) != (g.Cross != nil):
		return fmt.Errorf("%w: %d logs with cross log %v, want one log without or several with it", oplog.ErrConfig, len(g.Logs),
			g.Cross != nil)
	case g.New == nil:
		return fmt.Errorf("%w: New is missing", oplog.ErrConfig)
	case len(g.Logs) > 1 && g.Route == nil:
		return fmt.Errorf("%w: Route is missing with %d logs", oplog.ErrConfig, len(g.Logs))
	case g.Waiter == nil:
		return fmt.Errorf("%w: Waiter is missing; Spin is one", oplog.ErrConfig)
	case g.Threads < 1 || g.Threads > 1<<16:
		return fmt.Errorf("%w: %d threads, want 1 to %d", oplog.ErrConfig, g.Threads, 1<<16)
	case g.Cross != nil && g.Cross.Config().Entries > oplog.MaxCrossEntries:
		return fmt.Errorf("%w: cross log of %d entries, want up to %d", oplog.ErrConfig, g.Cross.Config().Entries, oplog.MaxCrossEntries)
	}
	size := opSize[O]()
	for i, l := range g.Logs {
		if got := int(l.Config().OpSize); got != size {
			return fmt.Errorf("%w: log %d has ops of %d bytes, want %d", oplog.ErrConfig, i, got, size)
		}
	}
	if g.Cross != nil && int(g.Cross.Config().OpSize) != CrossOpSize(size) {
		return fmt.Errorf("%w: cross log has ops of %d bytes, want %d", oplog.ErrConfig, g.Cross.Config().OpSize, CrossOpSize(size))
	}
	return nil
}

// build makes a replica from its memberships: by log, nil where not subscribed, and of the cross log.
func build[O, R any](g *Group[O, R], id oplog.ID, members []*oplog.Member, cross *oplog.Member, s []Structure[O, R]) *Replica[O, R] {
	r := &Replica[O, R]{group: g, id: id, parts: make([]part[O, R], len(g.Logs)), all: s,
		ctxs: make([]context[O, R], g.Threads), oneAll: len(g.Logs) == 1 && g.ApplyAll != nil && g.Route != nil}
	for i := range r.parts {
		p := &r.parts[i]
		p.init(i, g.Logs[i], members[i], g.Threads, 0)
		if s[i] != nil {
			p.s = s[i]
			p.operand, _ = s[i].(OperandStructure[O, R])
		}
	}
	if cross != nil {
		r.cross.init(CrossLog, g.Cross, cross, g.Threads, crossWords)
		r.next = cross.Pos()
		r.cross.applied.Store(r.next)
	}
	g.local[id.Slot].Store(r)
	return r
}

func (p *part[O, R]) init(i int, l *oplog.Log, m *oplog.Member, threads, extra int) {
	p.index, p.log, p.member, p.self = i, l, m, -1
	p.width = extra + (opSize[O]()+7)/8
	if m == nil {
		return
	}
	p.applied.Store(m.Pos())
	p.chunk = l.NewChunk()
	p.out = make([]sent, 0, threads)
	p.batch = make([]int32, 0, m.Batch())
	p.ops = make([]uint64, m.Batch()*p.width)
	p.data = make([][]byte, m.Batch())
	p.at = make([]uint64, m.Batch())
}

// ID is the replica's slot and incarnation, the same in all its logs.
func (r *Replica[O, R]) ID() oplog.ID { return r.id }

// Err is why the replica has failed, or nil: it was evicted, shared memory is corrupt, or the structure panicked.
func (r *Replica[O, R]) Err() error {
	if e := r.failure.Load(); e != nil {
		return *e
	}
	return nil
}

// fail makes err the replica's end, unless it has come already.
func (r *Replica[O, R]) fail(err error) outcome {
	r.failure.CompareAndSwap(nil, &err)
	return failed
}

func (r *Replica[O, R]) at(p oplog.Point) {
	if r.group.Probe != nil {
		r.group.Probe(p)
	}
}

// part finds the part that serves op; the cross part for ops across several logs.
func (r *Replica[O, R]) route(op O) (*part[O, R], error) {
	i := 0
	if r.group.Route != nil {
		i = r.group.Route(op)
	}
	if uint(i) < uint(len(r.parts)) {
		if p := &r.parts[i]; p.member != nil {
			return p, nil
		}
		return nil, fmt.Errorf("%w: %v does not subscribe to log %d", ErrRoute, r.id, i)
	}
	if i != AllLogs {
		return nil, fmt.Errorf("%w: routed to log %d, want 0 to %d or AllLogs", ErrRoute, i, len(r.parts)-1)
	}
	if len(r.parts) == 1 {
		return &r.parts[0], nil
	}
	for i := range r.parts {
		if r.parts[i].member == nil {
			return nil, fmt.Errorf("%w: op across all logs, %v does not subscribe to log %d", ErrRoute, r.id, i)
		}
	}
	return &r.cross, nil
}
