// Package ctl is a data kernel's side of the control plane: it registers with the control kernel, beats, asks for cores and slices and gives
// them back, hears of members that come and go, keeps the rack's clock, and notices that this life was fenced.
//
//	n, err := ctl.New(cfg)
//	rpc.Handle(n.Mux(), rpc.Worker, serveThis)   // what other packages serve
//	err = n.Run(ctx)                             // until shutdown (nil), or the kernel must stop at once (error)
//	<-n.Ready()                                  // meanwhile, elsewhere: this kernel is a member
//	cores, err := n.RequestCores(ctx, proto.Want{Process: pid, Machine: -1}, 1, 4)
//
// # A restarted ckernel
//
// Calls that its end cut off are repeated, by this package, until they are answered or the caller's context ends. A call may have been
// served although its answer never came. So after each such failure the node claims all that it was told of; the ckernel takes back
// what the node does not know, and then the call is repeated. Releases need no repetition: not to claim is to release.
//
// # Concurrency
//
// All methods may be called by any goroutine. Requests hold Node.op shared while they are under way, a claim holds it alone: what is granted
// while a claim is on its way would be taken back. The order of locks: Node.op, Node.mu, those of package rpc.
package ctl

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"dinos/shmem/grant"
	"dinos/shmem/layout"
	"dinos/shmem/logdir"
	"dinos/shmem/peer"
	"dinos/shmem/proto"
	"dinos/shmem/rpc"
)

// Limits and pauses.
const (
	registerPause   = 20 * time.Millisecond // between two tries
	registerTimeout = 250 * time.Millisecond
	heartbeatBeats  = 2 // beats between two heartbeats through the rings
	heartbeatLimit  = 250 * time.Millisecond
	leaveWithin     = 3 * time.Second
	events          = 256 // membership changes that may wait for Config.OnMember
)

// Errors.
var (
	// ErrRefused: the ckernel will not have this kernel as a member, and says why.
	ErrRefused = errors.New("ctl: the ckernel refuses this kernel")
	// ErrEnded: this life is no member any more.
	ErrEnded = errors.New("ctl: no member of the rack any more")
	// ErrHalted: Halt was called.
	ErrHalted = errors.New("ctl: halted")
	// ErrNotGranted: the ckernel's answer names what the table of grants does not say.
	ErrNotGranted = errors.New("ctl: the table of grants says otherwise")
)

// Config is a data kernel.
type Config struct {
	Peer peer.Config // Self is the dkernel's number; Kind, OnPeer and OnTick are New's
	// Shutdown is called once when the ckernel or the host tool asks this kernel to end, or Run's context has ended. It ends what the kernel
	// does; what it holds is given back after that. nil does nothing.
	Shutdown func(reason string, reboot bool)
	// Reclaim is called when the ckernel wants something back; who holds it releases it when it can. nil answers CodeUnsupported.
	Reclaim func(cores []proto.Core, slices []proto.Slice, within time.Duration)
	// OnMember is told of machines that came, left or died, in order, by a goroutine of its own. State is a layout.State. If it is slow some
	// are left out; Members is always up to date.
	OnMember func(m proto.Member, reason string)
	// Processes are for Status; nil is none.
	Processes func() []proto.ProcessInfo
}

// Node is a life of a data kernel.
type Node struct {
	cfg    Config
	peer   *peer.Peer
	reader atomic.Pointer[grant.Reader]
	dir    logdir.Dir
	clock  clock

	ctx      context.Context // ends when Run does
	cancel   context.CancelCauseFunc
	ready    chan struct{} // closed once this kernel is a member
	renew    chan struct{} // has a value if the ckernel must be registered with again
	missed   chan struct{} // has a value if changes of the membership were missed
	ask      chan shutdown // the wish to end
	news     chan change
	once     sync.Once
	gone     atomic.Bool // Leave was sent
	sequence atomic.Uint64

	op      sync.RWMutex // see the package documentation
	leaving bool         // guarded by op

	mu      sync.Mutex
	member  bool          // registered with the present ckernel
	joined  chan struct{} // closed when member becomes true
	owe     bool          // an answer may have been lost: claim
	claims  uint64        // how often was claimed
	epoch   uint64        // of members
	members map[int]proto.Member
	held    map[grant.Unit]uint64 // grants by unit, as the ckernel's answers told
}

type shutdown struct {
	reason string
	reboot bool
}

type change struct {
	member proto.Member
	reason string
}

// New takes the machine block.
func New(cfg Config) (*Node, error) {
	n := &Node{ready: make(chan struct{}), renew: make(chan struct{}, 1), missed: make(chan struct{}, 1), ask: make(chan shutdown, 1), news: make(chan change, events),
		joined: make(chan struct{}), members: map[int]proto.Member{}, held: map[grant.Unit]uint64{}}
	n.ctx, n.cancel = context.WithCancelCause(context.Background())
	cfg.Peer.Kind = 'd'
	cfg.Peer.OnPeer = func(peer int, _ uint32) {
		if peer == layout.Ckernel {
			n.again()
		}
	}
	stats := cfg.Peer.Stats
	cfg.Peer.Stats = func(set func(layout.Stat, uint64)) {
		cores, slices := n.Holds()
		set(layout.StatCores, uint64(cores))
		set(layout.StatSlices, uint64(slices))
		if stats != nil {
			stats(set)
		}
	}
	p, err := peer.Open(cfg.Peer)
	if err != nil {
		return nil, err
	}
	if p.Self() == layout.Ckernel || p.Self() == p.Rack().Host() {
		return nil, fmt.Errorf("%w: a dkernel as peer %d, want 1 to %d", peer.ErrConfig, p.Self(), p.Rack().Config.Machines-1)
	}
	n.cfg, n.peer, n.dir = cfg, p, logdir.Of(p.Rack())
	n.clock.tsc = p.TSC
	n.register()
	return n, nil
}

// Peer is this kernel's end of the rack, Mux where other packages register their handlers before Run.
func (n *Node) Peer() *peer.Peer { return n.peer }
func (n *Node) Mux() *rpc.Mux    { return n.peer.Mux() }

// Self is this machine's number, Generation its life's.
func (n *Node) Self() int          { return n.peer.Self() }
func (n *Node) Generation() uint64 { return n.peer.Generation() }

// Doorbell is what the doorbell's interrupt calls. It does not block.
func (n *Node) Doorbell() { n.peer.Doorbell() }

// Conn is the connection to a peer; see [peer.Peer.Conn].
func (n *Node) Conn(peer int) (*rpc.Conn, error) { return n.peer.Conn(peer) }

// Ready is closed once this kernel is a member of the rack.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// Done is closed when this life is over. Whatever uses what was granted to it must stop then.
func (n *Node) Done() <-chan struct{} { return n.ctx.Done() }

// Shutdown asks this kernel to end, as the ckernel does.
func (n *Node) Shutdown(reason string, reboot bool) {
	select {
	case n.ask <- shutdown{reason, reboot}:
	default: // it ends already
	}
}

// Halt ends this life at once, without telling anybody: as a machine does that loses its power, or a kernel that must not go on. Run returns
// ErrHalted.
func (n *Node) Halt() { n.cancel(ErrHalted) }

// Run registers, retrying until the ckernel is up, and serves until ctx ends or a shutdown was asked for (nil: it has left the rack in order, or
// there was no ckernel to tell), or this life was fenced (peer.ErrFenced, peer.ErrReplaced) or refused (ErrRefused): then the kernel must stop
// at once. It may be called once.
func (n *Node) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	inner, end := context.WithCancel(context.Background())
	served := make(chan error, 1)
	n.peer.SetState(layout.StateJoining)
	wg.Go(func() {
		err := n.peer.Run(inner)
		n.cancel(err)
		served <- err
	})
	wg.Go(n.attend)
	wg.Go(n.pulse)
	wg.Go(n.tell)
	defer end()
	var q shutdown
	select {
	case err := <-served:
		return n.ended(err)
	case <-n.ctx.Done(): // refused, or halted
		end()
		<-served
		return context.Cause(n.ctx)
	case <-ctx.Done():
		q.reason = context.Cause(ctx).Error()
	case q = <-n.ask:
	}
	n.peer.SetState(layout.StateLeaving)
	if n.cfg.Shutdown != nil {
		n.cfg.Shutdown(q.reason, q.reboot)
	}
	err := n.leave(q.reason)
	n.cancel(ErrEnded)
	end()
	if serr := n.ended(<-served); serr != nil {
		return serr
	}
	if err == nil {
		n.peer.SetState(layout.StateDown)
	}
	return err
}

// ended is what the end of the peer means: to be fenced is what follows a Leave.
func (n *Node) ended(err error) error {
	if n.gone.Load() && errors.Is(err, peer.ErrFenced) {
		return nil
	}
	return err
}

// again has the node register again. It does not block.
func (n *Node) again() {
	select {
	case n.renew <- struct{}{}:
	default:
	}
}

// attend keeps this kernel a member: registers, with each ckernel again, and claims what it owes. It may wait for requests under way, so
// it does not beat.
func (n *Node) attend() {
	t := time.NewTicker(heartbeatBeats * n.peer.Beat())
	defer t.Stop()
	for {
		if !n.isMember() {
			if !n.join() {
				return
			}
			n.claimOwed()
		}
		select {
		case <-n.ctx.Done():
			return
		case <-n.renew:
			n.lost()
		case <-n.missed:
			n.refresh()
		case <-t.C:
			n.claimOwed()
		}
	}
}

// pulse beats through the rings.
func (n *Node) pulse() {
	t := time.NewTicker(heartbeatBeats * n.peer.Beat())
	defer t.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-t.C:
			if n.isMember() {
				n.beat()
			}
		}
	}
}

func (n *Node) isMember() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.member
}

// lost notes that the ckernel may not know this kernel, nor what it has.
func (n *Node) lost() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.owe = true
	if n.member {
		n.member, n.joined = false, make(chan struct{})
	}
}

// join registers, until that succeeds (true) or makes no sense any more.
func (n *Node) join() bool {
	b := n.peer.Rack()
	q := &proto.Register{Generation: n.peer.Generation(), Rack: b.Generation, Doorbell: uint16(n.cfg.Peer.Doorbell), Cores: uint16(n.cfg.Peer.Cores),
		Memory: n.cfg.Peer.RAM, TSCHz: n.peer.Block(n.Self()).TSCHz.Load(), Name: n.cfg.Peer.Name}
	for {
		// What rings from now on is a newer ckernel than this registers with.
		select {
		case <-n.renew:
		default:
		}
		var a proto.RegisterReply
		c, err := n.peer.Conn(layout.Ckernel)
		if err == nil {
			err = c.Call(n.ctx, q, &a, registerTimeout)
		}
		if err == nil {
			n.accepted(&a)
			return true
		}
		var remote *rpc.RemoteError
		if errors.As(err, &remote) {
			switch remote.Code {
			case proto.CodeDenied:
				n.cancel(fmt.Errorf("%w: %s", peer.ErrFenced, remote.Text))
				return false
			case proto.CodeConflict, proto.CodeMalformed, proto.CodeNotFound, proto.CodeUnsupported:
				n.cancel(fmt.Errorf("%w: %s", ErrRefused, remote.Text))
				return false
			}
		}
		select {
		case <-n.ctx.Done():
			return false
		case <-time.After(registerPause):
		case <-n.renew:
		}
	}
}

// accepted takes over the answer to a Register.
func (n *Node) accepted(a *proto.RegisterReply) {
	n.mu.Lock()
	n.member = true
	close(n.joined)
	n.takeMembers(a.Epoch, a.Members)
	n.mu.Unlock()
	n.once.Do(func() {
		n.peer.SetState(layout.StateUp)
		close(n.ready)
	})
}

// wait waits until this kernel is a member.
func (n *Node) wait(ctx context.Context) error {
	n.mu.Lock()
	joined := n.joined
	n.mu.Unlock()
	select {
	case <-joined:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-n.ctx.Done():
		return n.over()
	}
}

// over is why this life is over.
func (n *Node) over() error { return fmt.Errorf("%w: %w", ErrEnded, context.Cause(n.ctx)) }

// beat proves to the ckernel that the rings work, and measures the clock.
func (n *Node) beat() {
	c, err := n.peer.Conn(layout.Ckernel)
	if err != nil {
		return // the peer mends it
	}
	n.mu.Lock()
	epoch := n.epoch
	n.mu.Unlock()
	var a proto.HeartbeatReply
	delta, half, known, err := n.peer.Exchange(n.ctx, c, &proto.Heartbeat{Sequence: n.sequence.Add(1), Epoch: epoch}, &a, heartbeatLimit)
	var remote *rpc.RemoteError
	switch {
	case errors.As(err, &remote) && remote.Code == proto.CodeNotMember:
		n.lost()
	case err == nil:
		if known {
			n.clock.sample(delta, half)
		}
		if a.Epoch != epoch {
			select {
			case n.missed <- struct{}{}:
			default:
			}
		}
	}
}
