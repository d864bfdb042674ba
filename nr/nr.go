// Package nr keeps a sequential data structure the same on several kernels that share memory, by node replication:
// every kernel has a replica of its own in its own heap, updates go through an operation log in the shared memory,
// reads are served by the local replica. Both are linearizable.
//
// The structure is plain Go behind [Structure]: Apply changes it, Read does not. It knows nothing of
// replication, but Apply must be deterministic. Ops are fixed-size values without pointers; what does not
// fit travels as an operand, a byte slice that is copied through the shared memory. Responses never leave the kernel
// and can be any type.
//
//	inst, err := nr.New(cfg)            // on this heap; nr.Format and nr.Open for memory that kernels share
//	rep, err := inst.First()            // the first replica
//	h, err := rep.Register()            // one handle per goroutine
//	resp, err := h.Apply(op)            // on all replicas
//	resp, err = h.Read(op)              // on this one, up to date
//
// More replicas come from a snapshot, at any time and while updates go on: an existing replica's Donate writes it,
// [Instance.Join] on the new kernel reads it. A replica leaves by Close. One that died or does not respond is
// evicted by whoever decides about membership: [Instance.Evict] fences it, so that it can never write again
// even if it was only slow, and frees the log of it. Its next operation fails with [ErrEvicted].
//
// A structure whose ops commute by key can be kept in parts with a log each ([Config].Logs and Route), which are then
// updated in parallel; ops across all parts stay linearizable. A replica may subscribe to some of the logs only.
//
// Layout and protocol are documented in package oplog, the replica's side with its locks in package replica.
package nr

import (
	"fmt"
	"io"

	"dinos/nr/oplog"
	"dinos/nr/replica"
	"dinos/shmem/region"
)

// The types that users meet; see package replica.
type (
	Structure[O, R any]        = replica.Structure[O, R]
	OperandStructure[O, R any] = replica.OperandStructure[O, R]
	Snapshotter                = replica.Snapshotter
	Replica[O, R any]          = replica.Replica[O, R]
	Handle[O, R any]           = replica.Handle[O, R]
	Waiter                     = replica.Waiter
	Wait                       = replica.Wait
	Spin                       = replica.Spin
	ID                         = oplog.ID
	MemberInfo                 = replica.MemberInfo
)

// The errors; each is wrapped in a text that names what was found. See packages oplog and replica.
var (
	ErrConfig    = oplog.ErrConfig
	ErrCorrupt   = oplog.ErrCorrupt
	ErrEvicted   = oplog.ErrEvicted
	ErrNoSlot    = oplog.ErrNoSlot
	ErrBehind    = oplog.ErrBehind
	ErrStale     = oplog.ErrStale
	ErrFull      = oplog.ErrFull
	ErrExhausted = oplog.ErrExhausted
	ErrOperand   = oplog.ErrOperand
	ErrStalled   = replica.ErrStalled
	ErrPending   = replica.ErrPending
	ErrRoute     = replica.ErrRoute
	ErrThreads   = replica.ErrThreads
	ErrPanic     = replica.ErrPanic
	ErrSnapshot  = replica.ErrSnapshot
)

// AllLogs is what Route returns for an op that concerns all logs.
const AllLogs = replica.AllLogs

// Defaults of a [Config].
const (
	DefaultEntries  = 1 << 14
	DefaultReplicas = oplog.MaxSlots
	DefaultThreads  = 64
	crossEntries    = 1 << 10
)

// Config says what is replicated. All kernels use the same one; Entries to ArenaBytes matter to Format only.
type Config[O, R any] struct {
	// New makes the empty structure, or its empty part for one of several logs.
	New func(log int) Structure[O, R]

	// Logs is the number of logs; 0 means 1. With more than one, Route names the log of an op, or AllLogs. It must
	// depend on the op alone.
	Logs  int
	Route func(op O) int
	// ApplyAll and ReadAll serve the ops that Route sends to all logs, with the parts by log. On a replica
	// that does not subscribe to all logs some parts are nil for ApplyAll.
	ApplyAll func(parts []Structure[O, R], op O) R
	ReadAll  func(parts []Structure[O, R], op O) R

	Entries    uint64 // ops that each log holds, a power of two; 0 means DefaultEntries
	Replicas   int    // how many may be there at a time, 1 to 64; 0 means DefaultReplicas
	ArenaBytes uint64 // memory for operands, per log and replica; an operand may take half of it
	Generation uint64 // which life of the shared memory this is

	Threads int    // handles per replica; 0 means DefaultThreads
	Waiter  Waiter // nil means Spin
	// Patience is how often a replica looks at an entry that was reserved and then left, before it passes over it. 0
	// means oplog.DefaultPatience.
	Patience int
	// Probe is called before each step of the protocol, for step schedulers.
	Probe func(oplog.Point)
}

// The instance header: region.Header, number of logs u64, then offset and size of each log and of the cross log.
const (
	groupMagic   = 0x3170756f7267726e // "nrgroup1"
	groupVersion = 1
	groupLogs    = region.HeaderSize
	groupTable   = groupLogs + 8
	groupHeader  = (groupTable + 16*(replica.MaxLogs+1) + region.PadSize - 1) / region.PadSize * region.PadSize
)

type extent struct{ off, size uint64 }

// shape is the log configurations of cfg, the cross log last, and where they lie.
func (cfg *Config[O, R]) shape() ([]oplog.Config, []extent, uint64, error) {
	size, fp, err := replica.CheckOp[O]()
	if err != nil {
		return nil, nil, 0, err
	}
	n := max(cfg.Logs, 1)
	if cfg.Logs < 0 || n > replica.MaxLogs {
		return nil, nil, 0, fmt.Errorf("%w: %d logs, want 1 to %d", ErrConfig, cfg.Logs, replica.MaxLogs)
	}
	one := oplog.Config{Entries: cfg.Entries, OpSize: uint32(size), Slots: cfg.Replicas, ArenaBytes: cfg.ArenaBytes,
		Fingerprint: fp, Generation: cfg.Generation}
	if one.Entries == 0 {
		one.Entries = DefaultEntries
	}
	if one.Slots == 0 {
		one.Slots = DefaultReplicas
	}
	var logs []oplog.Config
	for range n {
		logs = append(logs, one)
	}
	if n > 1 {
		cross := one
		cross.Entries, cross.ArenaBytes = min(one.Entries, crossEntries), 0
		cross.OpSize = uint32(replica.CrossOpSize(size))
		logs = append(logs, cross)
	}
	off := uint64(groupHeader)
	var at []extent
	for _, c := range logs {
		size, err := c.Size()
		if err != nil {
			return nil, nil, 0, err
		}
		size = (size + region.PadSize - 1) / region.PadSize * region.PadSize
		at = append(at, extent{off, size})
		off += size
	}
	return logs, at, off, nil
}

// Size is how many bytes of shared memory cfg takes.
func (cfg Config[O, R]) Size() (uint64, error) {
	_, _, n, err := cfg.shape()
	return n, err
}

// Format lays out the logs in mem, which starts on a cache line and has at least cfg.Size() bytes. Nobody may be
// using mem. Replicas of an earlier life of mem find themselves evicted.
func Format[O, R any](mem []byte, cfg Config[O, R]) error {
	logs, at, size, err := cfg.shape()
	if err != nil {
		return err
	}
	if uint64(len(mem)) < size {
		return fmt.Errorf("%w: memory of %d bytes, want %d", ErrConfig, len(mem), size)
	}
	r, err := region.New(mem)
	if err != nil {
		return err
	}
	if err := r.InvalidateHeader(0); err != nil {
		return err
	}
	for i, c := range logs {
		sub, err := r.Sub(region.Off(at[i].off), at[i].size)
		if err != nil {
			return err
		}
		if err := oplog.Format(sub, c); err != nil {
			return err
		}
		if err := r.StoreU64(region.Off(groupTable+16*i), at[i].off); err != nil {
			return err
		}
		if err := r.StoreU64(region.Off(groupTable+16*i+8), at[i].size); err != nil {
			return err
		}
	}
	if err := r.StoreU64(groupLogs, uint64(max(cfg.Logs, 1))); err != nil {
		return err
	}
	return r.WriteHeader(0, region.Header{Magic: groupMagic, Version: groupVersion, Generation: cfg.Generation})
}

// Instance is a kernel's access to a replicated structure. It is safe for concurrent use.
type Instance[O, R any] struct {
	group *replica.Group[O, R]
}

// New formats heap memory for cfg and opens it: replicas for the goroutines of one process.
func New[O, R any](cfg Config[O, R]) (*Instance[O, R], error) {
	size, err := cfg.Size()
	if err != nil {
		return nil, err
	}
	mem := region.Slab(int(size))
	if err := Format(mem, cfg); err != nil {
		return nil, err
	}
	return Open(mem, cfg)
}

// Open attaches to memory that Format has laid out, on this or another kernel. What it finds there is checked
// against mem and against cfg's op type and number of logs.
func Open[O, R any](mem []byte, cfg Config[O, R]) (*Instance[O, R], error) {
	want, _, _, err := cfg.shape()
	if err != nil {
		return nil, err
	}
	if cfg.New == nil {
		return nil, fmt.Errorf("%w: New is missing", ErrConfig)
	}
	r, err := region.New(mem)
	if err != nil {
		return nil, err
	}
	if _, err := r.ReadHeader(0, groupMagic, groupVersion); err != nil {
		return nil, fmt.Errorf("nr: not a formatted instance: %w", err)
	}
	n, err := r.LoadU64(groupLogs)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if n != uint64(max(cfg.Logs, 1)) {
		return nil, fmt.Errorf("%w: the memory has %d logs, want %d", ErrConfig, n, max(cfg.Logs, 1))
	}
	g := &replica.Group[O, R]{New: cfg.New, Route: cfg.Route, ApplyAll: cfg.ApplyAll, ReadAll: cfg.ReadAll,
		Threads: cfg.Threads, Waiter: cfg.Waiter, Probe: cfg.Probe}
	if g.Threads == 0 {
		g.Threads = DefaultThreads
	}
	if g.Waiter == nil {
		g.Waiter = Spin{}
	}
	for i, c := range want {
		l, err := openLog(r, i, c)
		if err != nil {
			return nil, err
		}
		if cfg.Patience > 0 {
			l.SetPatience(cfg.Patience)
		}
		l.SetProbe(cfg.Probe)
		if i == int(n) {
			g.Cross = l
		} else {
			g.Logs = append(g.Logs, l)
		}
	}
	return &Instance[O, R]{g}, nil
}

func openLog(r region.Region, i int, want oplog.Config) (*oplog.Log, error) {
	l, err := openAny(r, i)
	if err != nil {
		return nil, err
	}
	if got := l.Config(); got.OpSize != want.OpSize || got.Fingerprint != want.Fingerprint {
		return nil, fmt.Errorf("%w: log %d was made for another op type: %d bytes, fingerprint %#x, want %d bytes, %#x", ErrConfig, i,
			got.OpSize, got.Fingerprint, want.OpSize, want.Fingerprint)
	}
	return l, nil
}

// openAny opens log i of the instance in r, whatever its ops.
func openAny(r region.Region, i int) (*oplog.Log, error) {
	off, err := r.LoadU64(region.Off(groupTable + 16*i))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	size, err := r.LoadU64(region.Off(groupTable + 16*i + 8))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	sub, err := r.Sub(region.Off(off), size)
	if err != nil {
		return nil, fmt.Errorf("%w: log %d: %w", ErrCorrupt, i, err)
	}
	l, err := oplog.Open(sub)
	if err != nil {
		return nil, fmt.Errorf("log %d: %w", i, err)
	}
	return l, nil
}

// First makes a replica of the empty structure. It works while nothing of the logs has been reused, so in particular on
// freshly formatted memory, more than once; later replicas come by Join.
func (in *Instance[O, R]) First() (*Replica[O, R], error) { return replica.First(in.group) }

// Join makes a replica from the snapshot that Donate of an existing replica wrote, on whatever kernel.
func (in *Instance[O, R]) Join(snapshot io.Reader) (*Replica[O, R], error) {
	return replica.Join(in.group, snapshot)
}

// Evict fences a replica for good, see replica.Group.Evict. Only the membership authority may decide that.
func (in *Instance[O, R]) Evict(id ID, dead bool) error { return in.group.Evict(id, dead) }

// Release frees the slot of an evicted replica whose kernel is known not to run any more.
func (in *Instance[O, R]) Release(id ID) error { return in.group.Release(id) }

// Members lists the replicas: joining, live and evicted ones whose slot is still quarantined.
func (in *Instance[O, R]) Members() []MemberInfo { return in.group.Members() }

// Logs are the logs of the instance, for tools; the cross log, if there is one, comes last.
func (in *Instance[O, R]) Logs() []*oplog.Log {
	logs := append([]*oplog.Log(nil), in.group.Logs...)
	if in.group.Cross != nil {
		logs = append(logs, in.group.Cross)
	}
	return logs
}
