package link

import (
	"errors"
	"fmt"
	"time"

	"dinos/kernel/ivshmem"
	"dinos/kernel/pci"
	"dinos/shmem/layout"
	"dinos/shmem/peer"
	"dinos/shmem/region"
	"dinos/shmem/rpc"
)

// Errors; each returned error wraps one of them or of package layout, and says what was found and what would be right.
var (
	// ErrIdentity: the command line does not say which peer this kernel is, or says what cannot be.
	ErrIdentity = errors.New("link: bad identity")
	// ErrDevice: there is no ivshmem device, or not exactly one.
	ErrDevice = errors.New("link: no usable ivshmem device")
	// ErrRack: the memory holds another rack than the command line says.
	ErrRack = errors.New("link: other rack")
	// ErrMachine: the machine must not share memory with others.
	ErrMachine = errors.New("link: machine cannot take part in a rack")
)

// Vectors is how many doorbells the device must have: that of the rings.
const Vectors = peer.Vector + 1

// Spin is how long the loop, and a caller, poll before they sleep. Waking a kernel costs its peer some µs and itself tens of
// them, so it pays to wait for about as long.
const Spin = 50 * time.Microsecond

// Device is what is needed of an ivshmem device; *ivshmem.Device has it.
type Device interface {
	ID() int
	Memory() []byte
	Ring(peer, vector int) error
	Event(vector int) (pci.Event, error)
}

// Machine describes the machine that a kernel runs on.
type Machine struct {
	Possible int // CPUs that it could have
	Cores    int // that it has
	RAM      uint64
	TSC      func() uint64
	TSCHz    uint64
	Clock    rpc.Clock
	Random   func() uint64
}

// Attach makes the configuration of a peer from the machine, its device and its identity, for a kernel of kind 'c' or 'd'. The
// caller adds what is its own. Nothing is written to the memory; what is in it is checked so far that peer.Open of a correct
// machine block succeeds.
func Attach(m Machine, dev Device, id Identity, kind byte) (peer.Config, *Sleeper, error) {
	fail := func(err error) (peer.Config, *Sleeper, error) { return peer.Config{}, nil, err }
	if err := check(m, id, kind); err != nil {
		return fail(err)
	}
	r, err := region.New(dev.Memory())
	if err != nil {
		return fail(err)
	}
	k, err := layout.Open(r)
	switch {
	case err != nil:
		return fail(err)
	case id.Rack != 0 && id.Rack != k.Generation:
		return fail(fmt.Errorf("%w: generation %d in memory, the command line says %s=%d", ErrRack, k.Generation, WordRack, id.Rack))
	case id.Peer >= k.Config.Machines:
		return fail(fmt.Errorf("%w: %s=%d, this rack has room for peers 0 to %d", ErrIdentity, WordPeer, id.Peer, k.Config.Machines-1))
	}
	e, err := dev.Event(peer.Vector)
	if err != nil {
		return fail(err)
	}
	ev, ok := e.(Event)
	if !ok {
		return fail(fmt.Errorf("%w: its events cannot be raised", ErrDevice))
	}
	s := NewSleeper(ev, m.Clock)
	cfg := peer.Config{
		Memory: r, Self: id.Peer, Kind: kind, Name: id.Name, Doorbell: dev.ID(), Cores: m.Cores, RAM: m.RAM,
		TSC: m.TSC, TSCHz: m.TSCHz, Clock: m.Clock, Sleeper: s, Random: m.Random, Spin: Spin,
		Ring: func(id, vector int) {
			// Both were checked, and a doorbell tells nothing else: who is not there does not hear it.
			_ = dev.Ring(id, vector)
		},
		Stats: func(set func(layout.Stat, uint64)) { set(layout.StatDoorbellsTaken, s.Rings()) },
	}
	if cfg.Name == "" {
		cfg.Name = k.PeerName(id.Peer)
	}
	return cfg, s, nil
}

// check is nil if the machine may share memory with others as id.
func check(m Machine, id Identity, kind byte) error {
	switch {
	case !id.Given:
		return fmt.Errorf("%w: the machine has an ivshmem device, so the command line must say %s=N", ErrIdentity, WordPeer)
	case (id.Peer == layout.Ckernel) != (kind == 'c'):
		return fmt.Errorf("%w: %s=%d for a kernel of kind %q: 0 is the ckernel, dkernels are 1 and up", ErrIdentity, WordPeer, id.Peer, kind)
	case m.Possible < 2:
		// With one possible CPU QEMU's TCG emulates LOCK by plain accesses, which are not atomic towards other machines.
		return fmt.Errorf("%w: it can have no more than 1 CPU, and then its atomics may not be atomic for others (QEMU: -smp 1,maxcpus=2)", ErrMachine)
	}
	return nil
}

// Find returns the ivshmem device among devices; nil if there is none.
func Find(devices []*pci.Device) (*pci.Device, error) {
	var found *pci.Device
	for _, d := range devices {
		if !ivshmem.Is(d) {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("%w: %v and %v, want one", ErrDevice, found, d)
		}
		found = d
	}
	return found, nil
}
