package peer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"dinos/shmem/layout"
	"dinos/shmem/proto"
	"dinos/shmem/region"
	"dinos/shmem/rpc"
)

// Limits and defaults.
const (
	DefaultBeat = 100 * time.Millisecond
	// Vector is the doorbell vector of rings.
	Vector = 0
	// maxGeneration keeps generations comparable in the 32 bits that frames have of them.
	maxGeneration = 1 << 31

	mailRings = 0 // mailbox word: peers that are asked to make the rings between us anew
	mailCheck = 1 // mailbox word: tells a generation from damage
	mailZero  = 2 // mailbox word of the ckernel: the host tool says that the slices of this rack (its generation) are zero
	mailFence = 3 // mailbox word: tells a fence from damage; by the ckernel
	mailRuns  = 4 // mailbox word: the generation, once this life has attached to its rings
)

// Errors.
var (
	// ErrConfig: no peer can be made so.
	ErrConfig = errors.New("peer: bad configuration")
	// ErrExhausted: generations are used up.
	ErrExhausted = errors.New("peer: generations of the machine block are used up")
	// ErrFenced: the control kernel has declared this life dead. It owns nothing any more.
	ErrFenced = errors.New("peer: this life was fenced")
	// ErrReplaced: another life has taken the machine block.
	ErrReplaced = errors.New("peer: another life took the machine block")
	// ErrNoConn: there is no connection to the peer now.
	ErrNoConn = errors.New("peer: no connection")
)

// Config is a peer.
type Config struct {
	Memory   region.Region // of the rack, formatted
	Self     int           // peer number; Host for the host tool
	Kind     byte          // 'c', 'd' or 'h'
	Name     string
	Doorbell int // ivshmem id of this machine
	// Ring rings a vector of the doorbell of the machine with that ivshmem id. Any goroutine calls it; it must not block.
	Ring    func(id, vector int)
	Clock   rpc.Clock     // nil is Go's
	Sleeper rpc.Sleeper   // nil is a ChanSleeper
	TSC     func() uint64 // the machine's time stamp counter; nil is Clock
	TSCHz   uint64        // its rate; 0 with TSC nil
	Random  func() uint64 // not for secrets
	Cores   int
	RAM     uint64        // bytes of private memory
	Beat    time.Duration // 0 is DefaultBeat
	Spin    time.Duration // of the loop and of callers, see rpc; 0 is rpc.DefaultSpin, negative none
	Workers int           // handlers per connection, see rpc
	Calls   int           // under way per connection, see rpc
	Timeout time.Duration // of calls that name none

	OnPeer  func(peer int, generation uint32)              // a peer showed a new life; may be called with locks held: it must not block
	OnPanic func(peer int, v any, stack []byte)            // a handler panicked; nil lets the panic go on
	OnTick  func() error                                   // once a beat, by Run's goroutine; an error ends Run
	Stats   func(set func(stat layout.Stat, value uint64)) // adds the machine's own statistics, once a second
	Log     func(text string)                              // what people should read; nil drops it
}

// Host as Config.Self is the host tool.
const Host = -1

// Peer is an end of the rack.
type Peer struct {
	cfg  Config
	rack *layout.Rack
	self int
	gen  uint64
	loop *rpc.Loop
	mux  rpc.Mux

	blocks []*layout.Machine
	conns  []atomic.Pointer[rpc.Conn]
	told   []atomic.Uint32 // the life of each peer that OnPeer was told of
	asked  []bool          // which lower peers were asked to make rings anew; Tick's
	odd    []int           // how often in a row a peer was not who the connection says; Tick's
	state  atomic.Uint64   // the layout.State that the block is to show
	beats  uint64
	last   int64 // when Tick collected the statistics

	mu      sync.Mutex
	running bool
	ended   bool
	retired totals // of connections that were replaced
}

func (c *Config) defaults(k *layout.Rack) error {
	if c.Self == Host {
		c.Self = k.Host()
	}
	if c.Clock == nil {
		c.Clock = rpc.NewSystemClock()
	}
	if c.Sleeper == nil {
		c.Sleeper = rpc.NewChanSleeper(c.Clock)
	}
	if c.TSC == nil {
		clock := c.Clock
		c.TSC, c.TSCHz = func() uint64 { return uint64(clock.Now()) }, 1e9
	}
	if c.Beat == 0 {
		c.Beat = DefaultBeat
	}
	if c.Spin == 0 {
		c.Spin = rpc.DefaultSpin
	}
	if c.Log == nil {
		c.Log = func(string) {}
	}
	switch {
	case c.Self < 0 || c.Self >= k.Peers():
		return fmt.Errorf("%w: peer %d, this rack has 0 to %d", ErrConfig, c.Self, k.Peers()-1)
	case c.Ring == nil || c.Random == nil:
		return fmt.Errorf("%w: Ring and Random must be given", ErrConfig)
	case c.Beat < 0:
		return fmt.Errorf("%w: beat %v, want more than 0", ErrConfig, c.Beat)
	case c.TSCHz == 0:
		return fmt.Errorf("%w: TSC without TSCHz", ErrConfig)
	case c.Cores < 0 || c.Cores > layout.MaxCores:
		return fmt.Errorf("%w: %d cores, want 0 to %d", ErrConfig, c.Cores, layout.MaxCores)
	}
	return nil
}

// Open attaches to the rack and takes the machine block of cfg.Self for a new life. The former life must be over. Errors: those of
// [layout.Open], ErrConfig, ErrExhausted.
func Open(cfg Config) (*Peer, error) {
	k, err := layout.Open(cfg.Memory)
	if err != nil {
		return nil, err
	}
	if err := cfg.defaults(k); err != nil {
		return nil, err
	}
	p := &Peer{cfg: cfg, rack: k, self: cfg.Self, conns: make([]atomic.Pointer[rpc.Conn], k.Peers()), told: make([]atomic.Uint32, k.Peers()), asked: make([]bool, k.Peers()),
		odd: make([]int, k.Peers())}
	for i := range k.Peers() {
		b, err := k.Machine(k.Region, i)
		if err != nil {
			return nil, err
		}
		p.blocks = append(p.blocks, b)
	}
	if err := p.begin(); err != nil {
		return nil, err
	}
	p.loop = rpc.NewLoop(cfg.Clock, cfg.Sleeper, max(cfg.Spin, 0))
	return p, nil
}

// begin takes the block.
func (p *Peer) begin() error {
	b := p.blocks[p.self]
	fence := b.Fence.Load()
	if fence != 0 && b.Mailbox[mailFence].Load() != p.checkOf(p.self, fence) {
		p.cfg.Log(fmt.Sprintf("peer: fence %d of %s does not fit its check", fence, p.rack.PeerName(p.self)))
		b.Fence.CompareAndSwap(fence, 0) // the ckernel knows better, and stores it again
		fence = 0
	}
	check := uint64(0)
	g := b.Generation.Load()
	if g != 0 {
		check = p.check(g)
	}
	if g >= maxGeneration || b.Mailbox[mailCheck].Load() != check {
		// Which lives there were is known no more, but hardly so many since the last fence.
		next := fence + 1<<16 + p.cfg.Random()>>48
		p.cfg.Log(fmt.Sprintf("peer: generation %d of %s does not fit its check, going on at %d", g, p.rack.PeerName(p.self), next+1))
		b.Generation.Store(next)
	}
	if max(fence, b.Generation.Load()) >= maxGeneration-1 {
		return fmt.Errorf("%w: %s has had %d lives, want the rack formatted anew", ErrExhausted, p.rack.PeerName(p.self), b.Generation.Load())
	}
	p.gen = b.Begin(p.cfg.Kind, p.cfg.Doorbell, uint64(p.cfg.Clock.Now()))
	b.Mailbox[mailRings].Store(0)
	p.state.Store(uint64(layout.StateBooting))
	p.restate()
	return nil
}

// check is the check word of an own generation.
func (p *Peer) check(gen uint64) uint64 { return p.checkOf(p.self, gen) }

// checkOf is the check word of a generation or fence: it depends on the rack and the block.
func (p *Peer) checkOf(peer int, gen uint64) uint64 {
	x := gen*0x9e3779b97f4a7c15 ^ p.rack.Generation<<8 ^ uint64(peer) // Fibonacci hashing (Knuth, TAOCP 3, 6.4)
	x ^= x >> 29
	return x*0xbf58476d1ce4e5b9 | 1
}

// restate stores the words of the own block that only this machine writes, where they are not as they should be.
func (p *Peer) restate() {
	b := p.blocks[p.self]
	for _, w := range []struct {
		p *atomic.Uint64
		v uint64
	}{{b.Generation, p.gen}, {b.Mailbox[mailCheck], p.check(p.gen)}, {b.Doorbell, uint64(p.cfg.Doorbell + 1)}, {b.Kind, uint64(p.cfg.Kind)},
		{b.Cores, uint64(p.cfg.Cores)}, {b.Memory, p.cfg.RAM}, {b.TSCHz, p.cfg.TSCHz}, {b.State, p.state.Load()}} {
		if w.p.Load() != w.v {
			w.p.Store(w.v)
		}
	}
}

// Rack is the shared memory. Self is this peer's number, Generation its life's.
func (p *Peer) Rack() *layout.Rack { return p.rack }
func (p *Peer) Self() int          { return p.self }
func (p *Peer) Generation() uint64 { return p.gen }

// Name is what people call a peer.
func (p *Peer) Name(peer int) string { return p.rack.PeerName(peer) }

// Mux has the handlers of requests that any peer sends. Fill it before Run. Handlers ask PeerOf who it was.
func (p *Peer) Mux() *rpc.Mux { return &p.mux }

// Beat is the time between two beats.
func (p *Peer) Beat() time.Duration { return p.cfg.Beat }

// Clock is the clock of deadlines. TSC is the machine's time stamp counter.
func (p *Peer) Clock() rpc.Clock { return p.cfg.Clock }
func (p *Peer) TSC() uint64      { return p.cfg.TSC() }

// Block is the machine block of a peer that exists.
func (p *Peer) Block(peer int) *layout.Machine { return p.blocks[peer] }

// Fence declares all lives of a peer up to a generation dead: they stop when they see it. Only the ckernel does that; it calls this again
// now and then, in case that somebody wrote to the words.
func (p *Peer) Fence(peer int, gen uint64) {
	b := p.blocks[peer]
	if check := p.checkOf(peer, gen); b.Fence.Load() != gen || b.Mailbox[mailFence].Load() != check {
		b.Fence.Store(gen)
		b.Mailbox[mailFence].Store(check)
	}
}

// FenceOf is the generation up to which the lives of a peer are declared dead, 0 if none is or the word is damaged.
func (p *Peer) FenceOf(peer int) uint64 {
	f := p.blocks[peer].Fence.Load()
	if p.blocks[peer].Mailbox[mailFence].Load() != p.checkOf(peer, f) {
		return 0
	}
	return f
}

// MarkZero is the host tool's word, right after layout.Format, that all slices of the rack are zero: the ckernel need not zero them.
func MarkZero(k *layout.Rack) error {
	b, err := k.Machine(k.Region, layout.Ckernel)
	if err != nil {
		return err
	}
	b.Mailbox[mailZero].Store(k.Generation)
	return nil
}

// TakeZero reports whether MarkZero was called for this rack, once.
func (p *Peer) TakeZero() bool {
	return p.rack.Generation != 0 && p.blocks[layout.Ckernel].Mailbox[mailZero].CompareAndSwap(p.rack.Generation, 0)
}

// Exchange asks a peer for the rack's time stamp counter. delta is what to add to this machine's counter to get it, uncertain is half the
// round trip; both in cycles. A peer that does not know answers 0: known is false.
func (p *Peer) Exchange(ctx context.Context, c *rpc.Conn, q *proto.Heartbeat, a *proto.HeartbeatReply, timeout time.Duration) (delta int64, uncertain uint64, known bool, err error) {
	q.TSC = p.TSC()
	if err := c.Call(ctx, q, a, timeout); err != nil {
		return 0, 0, false, err
	}
	half := (p.TSC() - q.TSC) / 2
	return int64(a.TSC - (q.TSC + half)), half, a.TSC != 0, nil
}

// SetState says in the machine block what this machine does.
func (p *Peer) SetState(s layout.State) {
	p.state.Store(uint64(s))
	p.blocks[p.self].State.Store(uint64(s))
}

// State is what SetState said last.
func (p *Peer) State() layout.State { return layout.State(p.state.Load()) }

// Doorbell is what the interrupt of the doorbell calls: there may be something in the rings. It does not block.
func (p *Peer) Doorbell() { p.loop.Wake() }

// Conn is the connection to a peer. The error wraps ErrNoConn while there is none: before Run, after it, before the peer was up for
// the first time (it would not see what was sent before), and while rings that were damaged are made anew. A caller asks again for each call, since a mended connection is another one.
func (p *Peer) Conn(peer int) (*rpc.Conn, error) {
	if peer < 0 || peer >= len(p.conns) || peer == p.self {
		return nil, fmt.Errorf("%w: to peer %d, want 0 to %d but %d", ErrNoConn, peer, len(p.conns)-1, p.self)
	}
	c := p.conns[peer].Load()
	if c == nil {
		return nil, fmt.Errorf("%w: to %s yet", ErrNoConn, p.Name(peer))
	}
	if err := c.Err(); err != nil {
		return nil, fmt.Errorf("%w: to %s: %w", ErrNoConn, p.Name(peer), err)
	}
	if c.Peer() == 0 {
		return nil, fmt.Errorf("%w: %s was not up yet", ErrNoConn, p.Name(peer))
	}
	return c, nil
}

// PeerOf is the number of the peer at the other end of a connection, -1 if the connection was replaced.
func (p *Peer) PeerOf(c *rpc.Conn) int {
	for i := range p.conns {
		if p.conns[i].Load() == c {
			return i
		}
	}
	return -1
}

// Run connects to all peers and serves until ctx ends (nil), this life is fenced (ErrFenced, ErrReplaced), or OnTick
// fails. It may be called once. The state in the block is the caller's to set.
func (p *Peer) Run(ctx context.Context) error {
	p.mu.Lock()
	if p.running {
		p.mu.Unlock()
		return fmt.Errorf("%w: Run was called before", ErrConfig)
	}
	p.running = true
	p.mu.Unlock()
	served := make(chan struct{})
	go func() {
		defer close(served)
		p.loop.Run()
	}()
	defer func() {
		p.mu.Lock()
		p.ended = true
		p.mu.Unlock()
		p.loop.Stop()
		<-served
	}()
	t := time.NewTicker(p.cfg.Beat)
	defer t.Stop()
	for {
		if err := p.Tick(); err != nil {
			return err
		}
		if p.cfg.OnTick != nil {
			if err := p.cfg.OnTick(); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// Tick is a beat: see the package documentation. Run calls it.
func (p *Peer) Tick() error {
	b := p.blocks[p.self]
	if f := b.Fence.Load(); f >= p.gen && b.Mailbox[mailFence].Load() == p.checkOf(p.self, f) {
		return fmt.Errorf("%w: %s generation %d, fence %d", ErrFenced, p.Name(p.self), p.gen, b.Fence.Load())
	}
	if g := b.Generation.Load(); g != p.gen && b.Mailbox[mailCheck].Load() == p.check(g) {
		return fmt.Errorf("%w: %s generation %d, this is %d", ErrReplaced, p.Name(p.self), g, p.gen)
	}
	p.restate()
	p.beats++
	b.BeatTSC.Store(p.cfg.TSC())
	b.Heartbeat.Store(p.beats)
	if ping := b.Ping.Load(); ping != b.Pong.Load() {
		b.PongTSC.Store(p.cfg.TSC())
		b.Pong.Store(ping)
	}
	for i := range p.conns {
		if i != p.self {
			p.mend(i)
		}
	}
	if b.Mailbox[mailRuns].Load() != p.gen {
		b.Mailbox[mailRuns].Store(p.gen)
	}
	if now := p.cfg.Clock.Now(); now-p.last >= int64(time.Second) || p.last == 0 {
		p.last = now
		p.statistics()
	}
	p.loop.Check() // a flag or index that somebody broke costs at most a beat
	return nil
}
