package peer

import (
	"errors"
	"fmt"

	"dinos/shmem/layout"
	"dinos/shmem/region"
	"dinos/shmem/ring"
	"dinos/shmem/rpc"
)

// mend looks after the connection to a peer: makes it if there is none, and has rings made anew that are damaged.
func (p *Peer) mend(peer int) {
	c := p.conns[peer].Load()
	corrupt := c != nil && errors.Is(c.Err(), rpc.ErrCorrupt)
	if c != nil && c.Err() == nil && p.misled(peer, c) {
		p.cfg.Log(fmt.Sprintf("peer: %s is not generation %d: connecting anew", p.Name(peer), c.Peer()))
		c.Close()
	}
	if c != nil && c.Err() == nil && c.Peer() == 0 && p.runs(peer) != 0 {
		c.Close() // its greeting came before this peer had attached to the ring
	}
	missing := c == nil || errors.Is(c.Err(), rpc.ErrClosed)
	if p.self < peer {
		p.mendAsLower(peer, corrupt, missing)
	} else if corrupt || missing {
		p.mendAsHigher(peer, missing)
	}
}

// runs is the life of a peer that has attached to its rings, 0 if the block does not say so.
func (p *Peer) runs(peer int) uint32 {
	b := p.blocks[peer]
	g := b.Generation.Load()
	if g == 0 || b.Mailbox[mailCheck].Load() != p.checkOf(peer, g) || b.Mailbox[mailRuns].Load() != g {
		return 0
	}
	return uint32(g)
}

// misled reports whether a connection takes its peer for a life that has never been, because a frame was damaged: it would ignore all
// that the peer really sends. The block must say so twice, since it may be damaged, too, for a beat.
func (p *Peer) misled(peer int, c *rpc.Conn) bool {
	b, took := p.blocks[peer], c.Peer()
	g := b.Generation.Load()
	if took == 0 || g == 0 || b.Mailbox[mailCheck].Load() != p.checkOf(peer, g) || int32(took-uint32(g)) <= 0 {
		p.odd[peer] = 0
		return false
	}
	p.odd[peer]++
	return p.odd[peer] > 1
}

func (p *Peer) mendAsLower(peer int, corrupt, missing bool) {
	ask, bit := p.blocks[peer].Mailbox[mailRings], uint64(1)<<p.self
	if ask.Load()&bit != 0 || corrupt {
		p.remake(peer)
		ask.And(^bit)
		p.ring(peer)
	}
	if !corrupt && !missing {
		return // its end finds out by itself
	}
	if p.connect(peer) == nil {
		return
	}
	p.remake(peer) // not even the header is sound
	p.ring(peer)
	if err := p.connect(peer); err != nil && !errors.Is(err, rpc.ErrClosed) {
		p.cfg.Log(fmt.Sprintf("peer: %v", err))
	}
}

func (p *Peer) mendAsHigher(peer int, missing bool) {
	ask, bit := p.blocks[p.self].Mailbox[mailRings], uint64(1)<<peer
	switch {
	case ask.Load()&bit != 0:
		return // the lower peer has not come to it yet, or does not live
	case missing || p.asked[peer]:
		err := p.connect(peer)
		if p.asked[peer] = err != nil; err == nil || errors.Is(err, rpc.ErrClosed) {
			return
		}
		p.cfg.Log(fmt.Sprintf("peer: %v", err))
	}
	p.asked[peer] = true
	ask.Or(bit)
	p.ring(peer)
}

// remake makes the rings between this peer and a higher one anew.
func (p *Peer) remake(peer int) {
	text := "made the rings to " + p.Name(peer) + " anew"
	for _, pair := range [][2]int{{p.self, peer}, {peer, p.self}} {
		r, bytes, err := p.rack.RingRegion(p.rack.Region, pair[0], pair[1])
		if err == nil {
			err = ring.Format(r, bytes, p.ringGeneration(r))
		}
		if err != nil { // the layout was checked, so that cannot be
			text = "rings to " + p.Name(peer) + ": " + err.Error()
		}
	}
	p.cfg.Log("peer: " + text)
}

// newLife tells of a life of a peer, once: a frame or the peer's block has shown it.
func (p *Peer) newLife(peer int, gen uint32) {
	if p.cfg.OnPeer != nil && p.told[peer].Swap(gen) != gen {
		p.cfg.OnPeer(peer, gen)
	}
}

// connect makes a connection and puts it in the place of a former one.
func (p *Peer) connect(peer int) error {
	cfg, err := rpc.PeerConfig(p.rack, p.self, peer)
	if err != nil {
		return err
	}
	cfg.Generation, cfg.Peer, cfg.Handlers = uint32(p.gen), p.runs(peer), &p.mux
	cfg.Calls, cfg.Workers, cfg.Timeout, cfg.Spin = p.cfg.Calls, p.cfg.Workers, p.cfg.Timeout, p.cfg.Spin
	cfg.Notify = func() { p.ring(peer) }
	cfg.OnPeer = func(gen uint32) { p.newLife(peer, gen) }
	if p.cfg.OnPanic != nil {
		cfg.OnPanic = func(v any, stack []byte) { p.cfg.OnPanic(peer, v, stack) }
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return rpc.ErrClosed
	}
	cfg.OnConn = func(c *rpc.Conn) { // before its handlers ask whose it is
		if old := p.conns[peer].Swap(c); old != nil {
			p.retired.add(old)
		}
	}
	if _, err := p.loop.Connect(cfg); err != nil {
		return err
	}
	if cfg.Peer != 0 {
		p.newLife(peer, cfg.Peer) // no frame will: the connection knows it from the start
	}
	return nil
}

// ringGeneration is one that differs, also in the 16 bits that indices carry, from what the ring says it has. What it had
// before it was damaged nobody knows; chance keeps that apart.
func (p *Peer) ringGeneration(r region.Region) uint64 {
	old, _ := r.LoadU64(16) // the generation of its region.Header; a ring is larger than that
	for {
		if g := p.cfg.Random(); g&0xffff != old&0xffff && g != 0 {
			return g
		}
	}
}

// ring rings the doorbell of a peer that has one.
func (p *Peer) ring(peer int) {
	// A broken id is checked for sense; a wrong one wakes the wrong machine, and the right one looks once a beat anyway.
	if id, err := p.blocks[peer].DoorbellID(maxDoorbell); err == nil {
		p.cfg.Ring(id, Vector)
	}
}

// maxDoorbell is the greatest ivshmem peer id: 16 bits in the doorbell register.
const maxDoorbell = 1<<16 - 1

// totals are counters of connections.
type totals struct{ calls, served, errors, in, out, bells uint64 }

func (t *totals) add(c *rpc.Conn) {
	s := &c.Stats
	t.calls += s.Calls.Load()
	t.served += s.Served.Load()
	t.errors += s.Errors.Load()
	t.in += s.BytesIn.Load()
	t.out += s.BytesOut.Load()
	t.bells += c.Doorbells()
}

// statistics stores the words of the own block that this package knows of, and has the configuration add others.
func (p *Peer) statistics() {
	p.mu.Lock()
	t := p.retired
	p.mu.Unlock()
	for i := range p.conns {
		if c := p.conns[i].Load(); c != nil {
			t.add(c)
		}
	}
	b := p.blocks[p.self]
	set := func(s layout.Stat, v uint64) { b.Stat[s].Store(v) }
	set(layout.StatUptime, uint64(p.cfg.Clock.Now())-b.Started.Load())
	set(layout.StatCalls, t.calls)
	set(layout.StatServed, t.served)
	set(layout.StatCallErrors, t.errors)
	set(layout.StatBytesIn, t.in)
	set(layout.StatBytesOut, t.out)
	set(layout.StatDoorbellsRung, t.bells)
	runtimeStatistics(set)
	if p.cfg.Stats != nil {
		p.cfg.Stats(set)
	}
}
