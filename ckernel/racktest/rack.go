// Package racktest is a rack in one process: a ckernel, dkernels and a host tool that are goroutines over one piece of memory. Machines
// can be killed, hung, resumed and started anew, as QEMU does it with real ones.
package racktest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"dinos/ckernel/cluster"
	"dinos/ckernel/serve"
	"dinos/dkernel/ctl"
	"dinos/shmem/layout"
	"dinos/shmem/peer"
	"dinos/shmem/proto"
	"dinos/shmem/region"
	"dinos/shmem/rpc"
)

// Options of a rack. Zero fields have defaults.
type Options struct {
	Dkernels int
	Cores    int // of each dkernel
	Slices   int // of the rack
	Timing   cluster.Timing
	Seed     uint64
	Verbose  bool
}

// Rack is a rack.
type Rack struct {
	T    testing.TB
	O    Options
	Mem  region.Region
	K    *layout.Rack
	Host *peer.Peer

	mu       sync.Mutex
	bells    []func() // by ivshmem id, which is the peer number here
	machines []*Machine
	events   []proto.Membership
	lines    []string
	host     *Machine
	stopped  bool
}

// Machine is a life of a machine.
type Machine struct {
	Peer   int
	Node   *ctl.Node     // of a dkernel
	Server *serve.Server // of the ckernel
	Err    error         // of Run, after Done
	Done   chan struct{}

	gate   gate
	cancel context.CancelFunc
	users  sync.WaitGroup // loads, which stop when the machine does
	quit   chan struct{}  // closed when loads are to stop
	mu     sync.Mutex
	hung   bool
}

// gate lets a machine's goroutines through, unless it hangs: all of them look at the clock soon.
type gate struct {
	start time.Time
	mu    sync.RWMutex
}

func (g *gate) pass() { g.mu.RLock(); g.mu.RUnlock() }

// Now implements rpc.Clock.
func (g *gate) Now() int64 {
	g.pass()
	return int64(time.Since(g.start))
}

// New makes the memory of a rack and starts its host tool.
func New(t testing.TB, o Options) *Rack {
	if o.Dkernels == 0 {
		o.Dkernels = 2
	}
	if o.Cores == 0 {
		o.Cores = 4
	}
	if o.Slices == 0 {
		o.Slices = 12
	}
	if o.Timing.Beat == 0 {
		o.Timing.Beat = peer.DefaultBeat
	}
	c := layout.Config{Machines: 1 + o.Dkernels, RingBytes: 32 << 10, HostRingBytes: 32 << 10, InboxSlots: 16, Logs: 4, LogBytes: 64 << 10}
	size, err := layout.MinSize(c, uint64(o.Slices))
	if err != nil {
		t.Fatal(err)
	}
	r := &Rack{T: t, O: o}
	if r.Mem, err = region.New(region.Slab(int(size))); err != nil {
		t.Fatal(err)
	}
	if r.K, err = layout.Format(r.Mem, c, 1+o.Seed); err != nil {
		t.Fatal(err)
	}
	if err := peer.MarkZero(r.K); err != nil {
		t.Fatal(err)
	}
	r.bells, r.machines = make([]func(), r.K.Peers()), make([]*Machine, r.K.Peers())
	r.startHost()
	t.Cleanup(r.Close)
	return r
}

// config is what all machines have in common.
func (r *Rack) config(m *Machine) peer.Config {
	seed := rand.New(rand.NewPCG(r.O.Seed, uint64(m.Peer)))
	var mu sync.Mutex
	return peer.Config{Memory: r.Mem, Self: m.Peer, Doorbell: m.Peer, Cores: r.O.Cores, RAM: 64 << 20, Name: r.K.PeerName(m.Peer), Beat: r.O.Timing.Beat,
		Clock: &m.gate, Spin: -1, Random: func() uint64 { mu.Lock(); defer mu.Unlock(); return seed.Uint64() },
		Ring: func(id, _ int) {
			m.gate.pass()
			r.mu.Lock()
			var f func()
			if id < len(r.bells) {
				f = r.bells[id]
			}
			r.mu.Unlock()
			if f != nil {
				f()
			}
		},
		Log: func(text string) { r.log("%s: %s", r.K.PeerName(m.Peer), text) }}
}

func (r *Rack) log(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	line := fmt.Sprintf(format, args...)
	r.lines = append(r.lines, line)
	if r.O.Verbose && !r.stopped {
		r.T.Log(line)
	}
}

// Lines are what the kernels said.
func (r *Rack) Lines() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.lines...)
}

// Events are the membership changes that the host tool was told of.
func (r *Rack) Events() []proto.Membership {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]proto.Membership(nil), r.events...)
}

func (r *Rack) startHost() {
	m := &Machine{Peer: r.K.Host(), Done: make(chan struct{}), gate: gate{start: time.Now()}}
	cfg := r.config(m)
	cfg.Kind, cfg.Cores = 'h', 0
	p, err := peer.Open(cfg)
	if err != nil {
		r.T.Fatal(err)
	}
	rpc.Handle(p.Mux(), rpc.Worker, func(_ *rpc.Request, q *proto.Fence, _ *proto.Done) error {
		if int(q.Peer) >= r.K.Config.Machines {
			return rpc.Errorf(proto.CodeNotFound, "no machine %d", q.Peer)
		}
		if p.Block(int(q.Peer)).Generation.Load() <= q.Generation {
			r.end(int(q.Peer), q.Generation)
		}
		return nil
	})
	rpc.Handle(p.Mux(), rpc.Inline, func(_ *rpc.Request, q *proto.Membership, _ *proto.Done) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.events = append(r.events, *q)
		return nil
	})
	rpc.Handle(p.Mux(), rpc.Inline, func(_ *rpc.Request, q *proto.LogLine, _ *proto.Done) error { return nil })
	p.SetState(layout.StateUp)
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel, r.host, r.Host = cancel, m, p
	r.bells[m.Peer] = p.Doorbell
	go func() {
		defer close(m.Done)
		m.Err = p.Run(ctx)
	}()
}

// StartCkernel starts a life of the ckernel. The former must be over.
func (r *Rack) StartCkernel() *Machine {
	m := &Machine{Peer: layout.Ckernel, Done: make(chan struct{}), quit: make(chan struct{}), gate: gate{start: time.Now()}}
	s, err := serve.New(serve.Config{Peer: r.config(m), Timing: r.O.Timing, Seed: r.O.Seed})
	if err != nil {
		r.T.Fatal(err)
	}
	m.Server = s
	r.run(m, s.Doorbell, s.Run)
	return m
}

// StartDkernel starts a life of a dkernel. change may change its configuration.
func (r *Rack) StartDkernel(i int, change ...func(*ctl.Config)) *Machine {
	return r.StartDkernelWith(i, change, func(*ctl.Node) {})
}

// StartDkernelWith is StartDkernel with a function that registers handlers.
func (r *Rack) StartDkernelWith(i int, change []func(*ctl.Config), handlers func(*ctl.Node)) *Machine {
	m := &Machine{Peer: i, Done: make(chan struct{}), quit: make(chan struct{}), gate: gate{start: time.Now()}}
	cfg := ctl.Config{Peer: r.config(m)}
	for _, f := range change {
		f(&cfg)
	}
	shutdown := cfg.Shutdown
	cfg.Shutdown = func(reason string, reboot bool) {
		if shutdown != nil {
			shutdown(reason, reboot)
		}
		m.quiet() // what a kernel holds it gives back when nobody uses it any more
	}
	n, err := ctl.New(cfg)
	if err != nil {
		r.T.Fatal(err)
	}
	m.Node = n
	handlers(n)
	r.run(m, n.Doorbell, n.Run)
	return m
}

func (r *Rack) run(m *Machine, bell func(), run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	r.mu.Lock()
	r.machines[m.Peer] = m
	r.bells[m.Peer] = bell
	r.mu.Unlock()
	go func() {
		defer close(m.Done)
		m.Err = run(ctx)
		if m.Err != nil && !errors.Is(m.Err, ctl.ErrHalted) && !errors.Is(m.Err, serve.ErrHalted) {
			r.log("%s ended: %v", r.K.PeerName(m.Peer), m.Err)
		}
	}()
}

// Machine is the last life of a machine, nil if it had none.
func (r *Rack) Machine(i int) *Machine {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.machines[i]
}

// Alive reports whether a machine has not ended.
func (m *Machine) Alive() bool {
	select {
	case <-m.Done:
		return false
	default:
		return true
	}
}

// Hang stops a machine as QMP's stop does: nothing of it goes on, until Resume or Kill.
func (m *Machine) Hang() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.hung {
		m.hung = true
		m.gate.mu.Lock()
	}
}

// Resume ends Hang.
func (m *Machine) Resume() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.hung {
		m.hung = false
		m.gate.mu.Unlock()
	}
}

// Stop ends a machine in order, and waits for that. One that hangs is resumed: it could not hear of it.
func (m *Machine) Stop() error {
	m.Resume()
	m.cancel()
	<-m.Done
	m.quiet()
	return m.Err
}

// Kill ends a life at once, hanging or not, and waits until it is over. It does not tell the ckernel.
func (m *Machine) Kill() {
	switch {
	case m.Node != nil:
		m.Node.Halt()
	case m.Server != nil:
		go m.Server.Halt() // it takes a lock that a hanging goroutine may hold
	}
	m.Resume()
	<-m.Done
	m.quiet()
}

// use begins a load; false if the machine is ending.
func (m *Machine) use() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.quit:
		return false
	default:
		m.users.Add(1)
		return true
	}
}

// quiet stops the loads, and waits for them.
func (m *Machine) quiet() {
	m.mu.Lock()
	select {
	case <-m.quit:
	default:
		close(m.quit)
	}
	m.mu.Unlock()
	m.users.Wait()
}

// end has the life of a dkernel end, if it is that one or a former one.
func (r *Rack) end(i int, generation uint64) {
	if m := r.Machine(i); m != nil && m.Node != nil && m.Node.Generation() <= generation {
		m.Kill()
	}
}

// Report tells the ckernel that a life is over, as the host tool does when QEMU ends. It repeats itself until ctx ends.
func (r *Rack) Report(ctx context.Context, m *Machine) error {
	return r.Call(ctx, &proto.Fence{Peer: uint16(m.Peer), Generation: m.Node.Generation(), Reason: "killed"}, &proto.Done{})
}

// Call sends a request of the host tool to the ckernel, again and again until it is answered or ctx ends.
func (r *Rack) Call(ctx context.Context, q proto.Request, a proto.Message) error {
	for {
		c, err := r.Host.Conn(layout.Ckernel)
		if err == nil {
			err = c.Call(ctx, q, a, 2*time.Second)
		}
		var remote *rpc.RemoteError
		if err == nil || errors.As(err, &remote) && remote.Code != proto.CodeStale && remote.Code != proto.CodeBusy && remote.Code != proto.CodeCanceled {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Audit is what the ckernel's audit finds.
func (r *Rack) Audit(ctx context.Context) []string {
	var a proto.AuditReply
	if err := r.Call(ctx, &proto.Audit{}, &a); err != nil {
		return []string{err.Error()}
	}
	return a.Problems
}

// Close ends all machines.
func (r *Rack) Close() {
	r.mu.Lock()
	if r.stopped {
		r.mu.Unlock()
		return
	}
	r.stopped = true
	machines := append([]*Machine(nil), r.machines...)
	r.mu.Unlock()
	for i := len(machines) - 1; i >= 0; i-- {
		if m := machines[i]; m != nil {
			m.Kill()
		}
	}
	r.host.cancel()
	<-r.host.Done
}
