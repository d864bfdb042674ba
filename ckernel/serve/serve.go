// Package serve is the control kernel without its machine: membership, grants and scheduling of package cluster, served to the dkernels and
// the host tool over shared memory. It is pure; package ckernel gives it memory, doorbells and a clock.
//
// # Restart
//
// All that a ckernel must not forget is in shared memory: machine blocks, the table of grants, labels of logs, fences, the epoch. Run takes it
// over from a former life (which is fenced out of the table by that), and asks the dkernels to claim what they hold. What is lost is the
// policy of the scheduler, unless Config.Policy names it, and which requests were under way: callers repeat those.
//
// # Concurrency
//
// One mutex guards the cluster and what it decides is done under it, in its order; none of that blocks. What may block (asking the
// host, evicting replicas, zeroing slices) has goroutines of its own, which come back with an event. The order of locks: rpc's receive
// lock of a connection (an inline handler runs under it), Server.mu, journal.mu, all other locks of package rpc.
package serve

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"dinos/ckernel/cluster"
	"dinos/sched"
	"dinos/sched/solve"
	"dinos/shmem/grant"
	"dinos/shmem/layout"
	"dinos/shmem/logdir"
	"dinos/shmem/peer"
	"dinos/shmem/proto"
	"dinos/shmem/region"
)

// Config is a control kernel.
type Config struct {
	Peer     peer.Config    // Self, Kind, OnTick are New's
	Policy   string         // of the scheduler, one that ships; "" is the default
	Seed     uint64         // of the scheduler's choices
	Budget   solve.Budget   // of its rounds; zero is sched.DefaultBudget
	Timing   cluster.Timing // zero fields are the defaults; Beat is New's
	LogLines int            // that are kept of all kernels; 0 is DefaultLogLines
	Zeroed   bool           // all slices of a new rack are known to be zero; the host tool says so by peer.MarkZero, too
}

// Server is a life of the control kernel.
type Server struct {
	cfg     Config
	peer    *peer.Peer
	rack    *layout.Rack
	dir     logdir.Dir
	journal *journal

	// offset is what to add to this machine's time stamp counter to get the rack's, known once that is decided.
	offset  atomic.Int64
	known   atomic.Bool
	members atomic.Pointer[[]uint64] // generations of the members by peer, 0 for none: what needs no lock to be looked at

	ctx    context.Context // of what runs besides Run
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	cluster *cluster.Cluster
	table   *grant.Table
	waiting map[uint64]chan cluster.Reply // by token
	token   uint64
	fences  []uint64 // by peer, as decided
	asking  map[life]bool
	zero    chan grant.Name
	evict   chan eviction
	end     error  // why Run ends
	ended   bool   // Run is to end
	over    bool   // Run ends: events have no effect any more
	shown   uint64 // epoch of members
	checked int64  // when the table was compared with the view last
}

// life names a life of a machine.
type life struct {
	peer int
	gen  uint64
}

// New takes the ckernel's machine block. What a former life of it left in shared memory is recovered by Run.
func New(cfg Config) (*Server, error) {
	s := &Server{waiting: map[uint64]chan cluster.Reply{}, asking: map[life]bool{}, zero: make(chan grant.Name, 64), evict: make(chan eviction, 1024)}
	cfg.Peer.Self, cfg.Peer.Kind, cfg.Peer.OnTick = layout.Ckernel, 'c', s.tick
	if cfg.Peer.Workers == 0 {
		cfg.Peer.Workers = 64 // those that wait for a process to end are among them
	}
	log := cfg.Peer.Log
	if log == nil {
		log = func(string) {}
	}
	cfg.Peer.Log = func(text string) {
		log(text)
		s.say(text)
	}
	if cfg.LogLines == 0 {
		cfg.LogLines = DefaultLogLines
	}
	s.journal = newJournal(cfg.LogLines)
	p, err := peer.Open(cfg.Peer)
	if err != nil {
		return nil, err
	}
	cfg.Timing.Beat = p.Beat() // that is when the cluster looks
	s.cfg, s.peer, s.rack, s.dir = cfg, p, p.Rack(), logdir.Of(p.Rack())
	s.fences = make([]uint64, s.rack.Config.Machines)
	gens := make([]uint64, s.rack.Peers())
	s.members.Store(&gens)
	s.register()
	return s, nil
}

// Peer is the ckernel's end of the rack. More handlers can be registered on its Mux before Run.
func (s *Server) Peer() *peer.Peer { return s.peer }

// Doorbell is what the doorbell's interrupt calls. It does not block.
func (s *Server) Doorbell() { s.peer.Doorbell() }

// say adds a line of this kernel's own to the journal.
func (s *Server) say(text string) {
	now := uint64(0)
	if s.peer != nil {
		now = s.now()
	}
	s.journal.add(line{time: now, machine: layout.Ckernel, text: text})
}

// ErrHalted: Halt was called.
var ErrHalted = errors.New("serve: halted")

// Halt ends this life at once, without a word: as a machine does that loses its power. Run returns ErrHalted.
func (s *Server) Halt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.ended, s.over, s.end = true, true, ErrHalted
	}
	if s.cancel != nil {
		s.cancel()
	}
}

// Run serves until ctx ends, the rack is shut down (nil), or another ckernel takes over (peer.ErrFenced, peer.ErrReplaced, grant.ErrFenced).
func (s *Server) Run(ctx context.Context) error {
	s.mu.Lock()
	s.ctx, s.cancel = context.WithCancel(ctx)
	s.mu.Unlock()
	defer s.cancel()
	if err := s.start(); err != nil {
		return err
	}
	s.wg.Go(s.zeroer)
	s.wg.Go(s.evicter)
	s.wg.Go(s.findClock)
	err := s.peer.Run(s.ctx)
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	s.cancel()
	s.wg.Wait()
	s.journal.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		err = s.end
	}
	if err == nil {
		s.peer.SetState(layout.StateDown)
	}
	return err
}

// start recovers what a former life left, or begins a new rack.
func (s *Server) start() error {
	table, found, err := s.takeTable()
	if err != nil {
		return fmt.Errorf("serve: grant table: %w", err)
	}
	place, err := s.newScheduler()
	if err != nil {
		return err
	}
	b := s.peer.Block(layout.Ckernel)
	s.table = table
	s.cluster, err = cluster.New(cluster.Config{Rack: s.rack.Generation, Machines: s.rack.Config.Machines, Generation: s.peer.Generation(),
		Timing: s.cfg.Timing, Epoch: s.rack.Epoch.Load(), Table: table, Placement: place, Logs: logs{s.dir},
		Self: proto.Member{Doorbell: uint16(s.cfg.Peer.Doorbell), Cores: uint16(b.Cores.Load()), Memory: s.cfg.Peer.RAM, Name: s.cfg.Peer.Name}})
	if err != nil {
		return err
	}
	e := cluster.Start{Now: s.peer.Clock().Now(), Found: found}
	for i := 1; i < s.rack.Config.Machines; i++ {
		b := s.peer.Block(i)
		s.fences[i] = s.peer.FenceOf(i)
		e.Blocks = append(e.Blocks, cluster.Block{Peer: i, Generation: b.Generation.Load(), State: layout.State(b.State.Load()),
			Fence: s.fences[i], Doorbell: b.Doorbell.Load(), Cores: b.Cores.Load(), Memory: b.Memory.Load()})
	}
	s.rack.TSC.Store(layout.Ckernel)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.step(e)
	s.peer.SetState(layout.StateUp)
	return nil
}

// takeTable opens the table of grants: a former life's, or a new one.
func (s *Server) takeTable() (*grant.Table, []grant.Violation, error) {
	table, found, err := grant.Recover(s.rack)
	if !errors.Is(err, grant.ErrUnformatted) {
		return table, found, err
	}
	header := err
	sound, err := grant.Mend(s.rack)
	switch {
	case err != nil:
		return nil, nil, err
	case sound > 0:
		s.cfg.Peer.Log(fmt.Sprintf("grant table: %v; its %d entries are sound, so the header was made anew", header, sound))
		return grant.Recover(s.rack)
	}
	zeroed := s.peer.TakeZero() || s.cfg.Zeroed
	table, err = grant.Format(s.rack, zeroed)
	return table, nil, err
}

func (s *Server) newScheduler() (cluster.Placement, error) {
	c, err := sched.New(sched.Options{Seed: s.cfg.Seed, Budget: s.cfg.Budget})
	if err != nil {
		return nil, err
	}
	if s.cfg.Policy != "" {
		text, err := c.ShowPolicy(s.cfg.Policy)
		if err != nil {
			return nil, err
		}
		if err := c.SetPolicy(s.cfg.Policy, text); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// tick is a look at the heartbeats, once a beat.
func (s *Server) tick() error {
	now := s.peer.Clock().Now()
	e := cluster.Tick{Now: now}
	for i := 1; i < s.rack.Config.Machines; i++ {
		e.Beats = append(e.Beats, cluster.Beat{Peer: i, Count: s.peer.Block(i).Heartbeat.Load()})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.step(e)
	for i := 1; i < len(s.fences); i++ {
		s.peer.Fence(i, s.fences[i])
	}
	s.rack.Epoch.Store(s.cluster.Epoch())
	if now-s.checked >= int64(time.Second) && !s.ended {
		s.checked = now
		found, err := s.table.Repair()
		for _, v := range found {
			s.cfg.Peer.Log(fmt.Sprintf("grant table: %v; repaired", v))
		}
		if errors.Is(err, grant.ErrFenced) {
			s.stop(err)
		}
		if damaged, err := s.rack.Restate(); damaged {
			s.cfg.Peer.Log(fmt.Sprintf("superblock was damaged; written again (%v)", err))
		}
	}
	if s.ended {
		return errEnded
	}
	return nil
}

// errEnded ends the peer's Run; the reason is in Server.end.
var errEnded = errors.New("serve: ended")

// stop ends Run. mu is held.
func (s *Server) stop(err error) {
	if !s.ended {
		s.ended, s.end = true, err
		// Replies that were just sent have a beat to get out, and the doorbells to ring.
		time.AfterFunc(s.peer.Beat(), s.cancel)
	}
}

// step has the cluster take an event, and does what it says. mu is held.
func (s *Server) step(e cluster.Event) {
	if s.cluster == nil || s.over {
		return
	}
	for _, a := range s.cluster.Step(e) {
		s.do(a)
	}
	if epoch := s.cluster.Epoch(); epoch != s.shown {
		gens := make([]uint64, s.rack.Peers())
		s.cluster.Members(func(i int, gen uint64) { gens[i] = gen })
		s.members.Store(&gens)
		s.shown = epoch
	}
}

// do performs an action. mu is held; it does not block.
func (s *Server) do(a cluster.Action) {
	switch a := a.(type) {
	case cluster.Reply:
		if ch := s.waiting[a.Token]; ch != nil {
			delete(s.waiting, a.Token)
			ch <- a // it has room for one
		}
	case cluster.Notify:
		if c, err := s.peer.Conn(a.To); err == nil {
			_ = c.Event(a.Message) // who does not get it asks when it sees the epoch
		}
	case cluster.Call:
		s.wg.Go(func() { s.call(a) })
	case cluster.StoreFence:
		s.fences[a.Peer] = a.Generation
		s.peer.Fence(a.Peer, a.Generation)
	case cluster.StoreEpoch:
		s.rack.Epoch.Store(a.Epoch)
		for i := range s.rack.Config.Machines {
			s.peer.Block(i).Epoch.Store(a.Epoch)
		}
	case cluster.PeerDied:
		if c, err := s.peer.Conn(a.Peer); err == nil {
			c.PeerDied(uint32(a.Generation))
		}
	case cluster.HostFence:
		s.askHost(a)
	case cluster.Probe:
		s.wg.Go(func() { s.probe(a) })
	case cluster.Evict:
		s.queueEviction(eviction{peer: a.Peer, gen: a.Generation, certain: a.Certain})
	case cluster.Zero:
		s.zero <- a.Name // the cluster has fewer under way than this holds
	case cluster.Log:
		s.cfg.Peer.Log(a.Text)
	case cluster.Stop:
		s.stop(a.Err)
	}
}

// call sends a request whose answer says only whether it arrived.
func (s *Server) call(a cluster.Call) {
	c, err := s.peer.Conn(a.To)
	if err == nil {
		err = c.Call(s.ctx, a.Message, &proto.Done{}, 2*time.Second)
	}
	if err != nil && s.ctx.Err() == nil {
		s.cfg.Peer.Log(fmt.Sprintf("%v to %s: %v", a.Message.Type(), s.peer.Name(a.To), err))
	}
}

// probe asks a kernel whether it runs a process, as kill(2) does with signal 0, until it answers or is gone.
func (s *Server) probe(a cluster.Probe) {
	gen := (*s.members.Load())[a.Peer]
	for range probeTries {
		c, err := s.peer.Conn(a.Peer)
		if err == nil {
			err = c.Call(s.ctx, &proto.SignalProcess{PID: a.Process}, &proto.Done{}, time.Second)
		}
		switch {
		case err == nil:
			return
		case elsewhere(err):
			s.mu.Lock()
			s.step(cluster.Unknown{Peer: a.Peer, Process: a.Process})
			s.mu.Unlock()
			return
		}
		select {
		case <-time.After(probePause):
		case <-s.ctx.Done():
			return
		}
		if now := (*s.members.Load())[a.Peer]; now != gen {
			return // what it had went on to somebody else, or was taken back
		}
	}
	s.cfg.Peer.Log(fmt.Sprintf("%s does not say whether it runs process %d", s.peer.Name(a.Peer), a.Process))
}

const (
	probeTries = 50
	probePause = 200 * time.Millisecond
)

// askHost has the host tool make sure that a life is over. mu is held.
func (s *Server) askHost(a cluster.HostFence) {
	key := life{a.Peer, a.Generation}
	if s.asking[key] {
		return
	}
	s.asking[key] = true
	s.wg.Go(func() {
		c, err := s.peer.Conn(s.rack.Host())
		if err == nil {
			err = c.Call(s.ctx, &proto.Fence{Peer: uint16(a.Peer), Generation: a.Generation, Reason: a.Reason}, &proto.Done{}, 5*time.Second)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.asking, key)
		if err == nil {
			s.step(cluster.Over{Peer: a.Peer, Generation: a.Generation, Reason: "fenced by the host tool"})
		}
	})
}

// zeroer writes zeros to slices, in pieces, so that it does not keep a core from others.
func (s *Server) zeroer() {
	const piece = 64 << 10
	for {
		var n grant.Name
		select {
		case n = <-s.zero:
		case <-s.ctx.Done():
			return
		}
		off, err := s.rack.Slice(n.Unit.Index)
		for done := uint64(0); done < layout.SliceSize && err == nil; done += piece {
			err = s.rack.Region.Zero(off+region.Off(done), piece)
			runtime.Gosched()
		}
		if err != nil { // the table has no slice outside the rack
			s.cfg.Peer.Log(fmt.Sprintf("zeroing %v: %v", n.Unit, err))
			continue
		}
		s.mu.Lock()
		s.step(cluster.Zeroed{Name: n})
		s.mu.Unlock()
	}
}
