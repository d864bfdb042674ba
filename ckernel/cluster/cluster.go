package cluster

import (
	"errors"
	"fmt"
	"iter"
	"time"

	"dinos/sched"
	"dinos/shmem/grant"
	"dinos/shmem/layout"
	"dinos/shmem/logdir"
	"dinos/shmem/proto"
)

// Defaults and limits.
const (
	DefaultDead  = 600 * time.Millisecond
	DefaultRings = 800 * time.Millisecond

	// grace is what a member that a restarted ckernel finds has, besides Timing.Rings, until it must be heard of.
	grace = int64(time.Second)
	// fenceAgain is how often the host is asked to fence a life until it has.
	fenceAgain = int64(500 * time.Millisecond)
	// shutdownWithin is how long members have to leave when the rack ends, before they are fenced.
	shutdownWithin = int64(5 * time.Second)
	zeroAtOnce     = 4    // slices that the shell zeroes at a time
	maxWaits       = 1024 // requests that wait for slices
	maxProcesses   = 1 << 16
	// maxGeneration keeps what may be damage from making all later lives of a machine stale; see package peer.
	maxGeneration = 1 << 31
)

// Timing says how long silence may be.
type Timing struct {
	Beat  time.Duration // between two beats of a machine, and between two looks
	Dead  time.Duration // without a beat
	Rings time.Duration // without a request, while beats go on
}

// Table is the table of grants; *grant.Table implements it.
type Table interface {
	Online(peer int, generation uint64, n int) error
	Grant(u grant.Unit, o grant.Owner) (grant.Name, error)
	GrantSlices(o grant.Owner, n int, dst []grant.Name) ([]grant.Name, error)
	GrantCores(o grant.Owner, n int, dst []grant.Name) ([]grant.Name, error)
	Release(by grant.Owner, names ...grant.Name) (int, error)
	StartZero(by grant.Owner, n int, dst []grant.Name) ([]grant.Name, error)
	Zeroed(by grant.Owner, n grant.Name) error
	Reclaim(peer int, generation uint64) ([]grant.Unit, error)
	ReclaimProcess(process uint64) ([]grant.Unit, error)
	Settle(u grant.Unit, o grant.Owner) (grant.Name, error)
	Transfer(n grant.Name, to grant.Owner) (grant.Name, error)
	Inherited(u grant.Unit) bool
	Entry(u grant.Unit) (grant.Entry, error)
	All() iter.Seq2[grant.Unit, grant.Entry]
	Counts() grant.Counts
	Audit(lives grant.Lives) *grant.Report
	Repair() ([]grant.Violation, error)
}

// Placement decides where the requests of processes go; *sched.Scheduler implements it.
type Placement interface {
	Join(d sched.Dkernel) error
	Leave(id uint32, generation uint64) ([]sched.Lost, error)
	SetAlive(id uint32, generation uint64, alive bool) error
	Resize(id uint32, generation uint64, cores, slices int64) error
	Start(process uint64) error
	Exit(process uint64) ([]sched.Grant, error)
	Request(batch []sched.Request) []sched.Decision
	Release(process uint64, grants []sched.Grant) error
	Restore(process uint64, grants []sched.Grant) error
	Holds(process uint64) []sched.Grant
	Drain(id uint32) ([]sched.Move, error)
	Undrain(id uint32) error
	Cancel(move uint64) error
}

// Policies is what a Placement has besides if people can look at it and change it.
type Policies interface {
	Show() string
	Dump() string
	Policy() (name, text string)
	ShowPolicy(name string) (string, error)
	Set(name, text string) (string, error)
}

// Logs is the directory of logs; logdir.Dir implements it but for InUse.
type Logs interface {
	Count() int
	Read(i int) (logdir.Label, error)
	Write(i int, l logdir.Label) error
	Clear(i int) error
	Ready(i int, generation uint64) bool
	InUse(i int) bool // there are replicas in it
}

// Config is a cluster.
type Config struct {
	Rack       uint64 // its generation
	Machines   int
	Generation uint64 // of this life of the ckernel
	Self       proto.Member
	Timing     Timing // zero fields but Beat are the defaults
	Epoch      uint64 // of the membership so far
	Table      Table
	Placement  Placement
	Logs       Logs
}

// status is where a peer's last known life is.
type status uint8

const (
	absent status = iota
	up
	dead // declared, not yet certain
)

// member is what is known of a dkernel's machine.
type member struct {
	status
	info    proto.Member // of the last life; Generation 0 if there was none
	joined  int64
	beat    uint64 // as seen last
	silence int64  // counted since the beat moved
	mute    int64  // counted since something came through the rings
	asked   int64  // when the host was asked to fence it last
	reason  string
	drained bool
	leaving bool // it was asked to shut down
	claimed bool // it has told what it holds, or is new
	claim   map[grant.Unit]bool
	kernel  units // held by the kernel for itself
	process units // held by processes there
}

// units are cores and slices.
type units struct{ cores, slices int64 }

func (u *units) add(unit grant.Unit, n int64) {
	if unit.Core {
		u.cores += n
	} else {
		u.slices += n
	}
}

// Cluster is the state machine.
type Cluster struct {
	cfg     Config
	epoch   uint64
	now     int64
	started bool
	members []member              // by peer; 0 is not used
	holder  map[grant.Unit]int    // of all held units: a peer; nobody, if it is not known; shared
	moved   map[grant.Name]uint64 // grants that were transferred: by the old name the new grant
	unheard int                   // recovered members that have not claimed yet
	home    map[uint64]int        // by process
	waits   []wait
	zeroing int
	logs    []logUse
	made    uint64 // logs assigned anew by this life
	probes  uint64 // processes that never were, see PickHome
	ending  int64  // when members that have not left are fenced; 0 if the rack goes on
	stopped bool
	out     []Action
}

const nobody = -1

// New is a cluster that knows nothing yet: the first event is Start. Errors name what is wrong with cfg.
func New(cfg Config) (*Cluster, error) {
	t := &cfg.Timing
	if t.Dead == 0 {
		t.Dead = DefaultDead
	}
	if t.Rings == 0 {
		t.Rings = DefaultRings
	}
	switch {
	case cfg.Machines < layout.MinMachines || cfg.Machines > layout.MaxMachines:
		return nil, fmt.Errorf("cluster: %d machines, want %d to %d", cfg.Machines, layout.MinMachines, layout.MaxMachines)
	case cfg.Table == nil || cfg.Placement == nil || cfg.Logs == nil:
		return nil, errors.New("cluster: Table, Placement and Logs must be given")
	case cfg.Generation == 0:
		return nil, errors.New("cluster: generation 0, want that of the ckernel's life")
	case t.Beat <= 0 || t.Dead < 2*t.Beat || t.Rings < 2*t.Beat:
		return nil, fmt.Errorf("cluster: beat %v, dead %v, rings %v: want a beat, and silence to be at least two", t.Beat, t.Dead, t.Rings)
	}
	return &Cluster{cfg: cfg, epoch: cfg.Epoch, members: make([]member, cfg.Machines), holder: map[grant.Unit]int{}, moved: map[grant.Name]uint64{},
		home: map[uint64]int{}, logs: make([]logUse, cfg.Logs.Count())}, nil
}

// Step takes an event and returns what is to be done, in this order. The slice is valid until the next Step.
func (c *Cluster) Step(e Event) []Action {
	clear(c.out)
	c.out = c.out[:0]
	if !c.stopped {
		e.step(c)
		if c.started {
			c.zero()
		}
	}
	return c.out
}

func (c *Cluster) do(a Action) { c.out = append(c.out, a) }

func (c *Cluster) logf(format string, args ...any) { c.do(Log{fmt.Sprintf(format, args...)}) }

// host is the peer number of the host tool.
func (c *Cluster) host() int { return c.cfg.Machines }

// Epoch is the number of changes of the membership.
func (c *Cluster) Epoch() uint64 { return c.epoch }

// Members calls f for each member that is up.
func (c *Cluster) Members(f func(peer int, generation uint64)) {
	for i := range c.members {
		if c.members[i].status == up {
			f(i, c.members[i].info.Generation)
		}
	}
}

// Home is the machine where a process was started; not ok if it is not known.
func (c *Cluster) Home(process uint64) (peer int, ok bool) {
	peer, ok = c.home[process]
	return peer, ok
}

// SetHome notes where a process was started.
func (c *Cluster) SetHome(process uint64, peer int) {
	if len(c.home) < maxProcesses {
		c.home[process] = peer
	}
}

// tableDo does something to the table of grants, which somebody may have written to: then the ckernel's view is written again, and it is
// done once more. That another ckernel has taken the table over ends this one.
func (c *Cluster) tableDo(f func() error) error {
	err := f()
	if errors.Is(err, grant.ErrTampered) {
		c.logf("grant table: %v; repairing", err)
		if _, rerr := c.cfg.Table.Repair(); rerr != nil {
			err = rerr
		} else {
			err = f()
		}
	}
	if errors.Is(err, grant.ErrFenced) && !c.stopped {
		c.stopped = true
		c.do(Stop{err})
	}
	return err
}
