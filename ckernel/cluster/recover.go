package cluster

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"dinos/sched"
	"dinos/sched/model"
	"dinos/shmem/grant"
	"dinos/shmem/layout"
	"dinos/shmem/proto"
)

// step of Start finds out who is there and who has what: nothing in a new rack, and in one whose ckernel was restarted what machine blocks
// and table of grants say. A life is taken for a member until it proves silent; one that is fenced, or was followed by another, is not.
func (e Start) step(c *Cluster) {
	if c.started {
		return
	}
	c.started, c.now = true, e.Now
	for _, v := range e.Found {
		c.logf("grant table: %v", v)
	}
	owner := make([]uint64, len(c.members)) // the last life that owns something
	for _, en := range c.cfg.Table.All() {
		if p := en.Owner.Peer; p >= 1 && p < len(c.members) {
			owner[p] = max(owner[p], en.Owner.Generation)
		}
	}
	past := make([]uint64, len(c.members)) // lives up to these are over
	for _, b := range e.Blocks {
		if b.Peer >= 1 && b.Peer < len(c.members) {
			past[b.Peer] = c.recoverMember(b, owner[b.Peer])
		}
	}
	for u, en := range c.cfg.Table.All() {
		switch {
		case en.State == grant.Held && c.cfg.Table.Inherited(u):
			c.holder[u] = shared
		case en.State == grant.Held:
			c.holder[u] = nobody
		}
	}
	for peer, gen := range past {
		if gen == 0 {
			continue
		}
		c.bequeath(peer, gen)
		if _, err := c.reclaim(peer, gen); err != nil {
			c.logf("grant table: %v", err)
		}
	}
	c.recount()
	c.recoverProcesses()
	c.recoverLogs()
	c.epoch++
	c.do(StoreEpoch{c.epoch})
	for i := range c.members {
		if c.members[i].status == dead {
			c.askHost(i)
		}
	}
	if c.unheard == 0 {
		c.settle()
		c.probeShared()
	}
}

// recoverMember decides what a machine is. owner is the last life that the table of grants knows, 0 if it knows none. past is the last life
// that has something and is certainly over, 0 for none.
func (c *Cluster) recoverMember(b Block, owner uint64) (past uint64) {
	m := &c.members[b.Peer]
	gen := b.Generation
	if gen >= maxGeneration {
		gen = owner // damaged: its machine, if it lives, puts that right
	}
	if gen > owner && owner != 0 {
		past, owner = gen-1, 0 // a new life begins only when the former is over
	}
	gen = max(gen, owner)
	m.info = proto.Member{Generation: gen, Cores: uint16(min(b.Cores, layout.MaxCores)), Memory: b.Memory}
	if b.Doorbell > 0 {
		m.info.Doorbell = uint16(b.Doorbell - 1)
	}
	m.claimed = true
	fenced := gen <= b.Fence
	switch {
	case gen == 0, fenced && owner == 0:
		return past
	case owner == 0 && b.State != layout.StateUp && b.State != layout.StateLeaving:
		// It has not registered yet, or has ended. What it owns is nothing, and it may register still.
		m.info.Generation = gen - 1
		return past
	case fenced, b.State == layout.StateDown, b.State == layout.StateEmpty:
		m.status, m.reason = dead, "it was fenced before the ckernel was restarted"
		if !fenced {
			m.reason = "it has ended and not left"
			c.do(StoreFence{b.Peer, gen})
		}
	default:
		m.status, m.joined, m.claimed = up, c.now, false
		m.mute = -grace
		c.unheard++
	}
	m.info.Cores = c.tableCores(b.Peer)
	if err := c.cfg.Placement.Join(sched.Dkernel{ID: uint32(b.Peer), Cores: int64(m.info.Cores), Generation: gen, Alive: m.status == up}); err != nil {
		c.logf("scheduler: %v", err)
	}
	c.logf("%s generation %d: %s", name(b.Peer), gen, cmp.Or(m.reason, fmt.Sprintf("found, with %d cores", m.info.Cores)))
	return past
}

// tableCores is how many cores of a machine the table knows. The machine block says it, too, but may be damaged.
func (c *Cluster) tableCores(peer int) uint16 {
	n := uint16(0)
	for u, e := range c.cfg.Table.All() {
		if u.Core && u.Machine == peer && e.State != grant.Absent {
			n++
		}
	}
	return n
}

// recoverProcesses tells the scheduler what processes hold.
func (c *Cluster) recoverProcesses() {
	held := map[uint64]map[int]*sched.Grant{}
	for u, e := range c.cfg.Table.All() {
		if e.State != grant.Held || e.Owner.Process == 0 {
			continue
		}
		p := held[e.Owner.Process]
		if p == nil {
			p = map[int]*sched.Grant{}
			held[e.Owner.Process] = p
		}
		g := p[e.Owner.Peer]
		if g == nil {
			g = &sched.Grant{Dkernel: uint32(e.Owner.Peer), Generation: e.Owner.Generation}
			p[e.Owner.Peer] = g
		}
		book(g, u)
	}
	c.roomy()
	for _, pid := range slices.Sorted(maps.Keys(held)) {
		var list []sched.Grant
		for _, peer := range slices.Sorted(maps.Keys(held[pid])) {
			list = append(list, *held[pid][peer])
		}
		if err := c.cfg.Placement.Restore(pid, list); err != nil {
			c.logf("scheduler: %v", err)
		}
	}
}

// roomy lets every machine have all slices, so that what is held can be booked in any order.
func (c *Cluster) roomy() {
	for i := range c.members {
		if m := &c.members[i]; m.status != absent {
			n := min(int64(c.cfg.Table.Counts().Slices), model.MaxSlices)
			if err := c.cfg.Placement.Resize(uint32(i), m.info.Generation, int64(m.info.Cores), n); err != nil {
				c.logf("scheduler: %v", err)
			}
		}
	}
}
