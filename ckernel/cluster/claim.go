package cluster

import (
	"cmp"
	"maps"
	"slices"

	"dinos/shmem/grant"
	"dinos/shmem/proto"
)

// claim serves Claim.
func (c *Cluster) claim(r *Request, q *proto.Claim) {
	m := &c.members[r.From]
	if q.First || m.claim == nil {
		m.claim = map[grant.Unit]bool{}
	}
	a := &proto.ClaimReply{Cores: slices.Clone(q.Cores), Slices: slices.Clone(q.Slices)}
	for i, n := range coreNames(q.Cores) {
		a.Cores[i].Grant = c.claimed(r.From, n)
	}
	for i, n := range sliceNames(q.Slices) {
		a.Slices[i].Grant = c.claimed(r.From, n)
	}
	if q.Last {
		quiet := q.First && len(q.Cores)+len(q.Slices) == 0 // it gives back all it has
		for _, u := range sorted(c.holder) {
			if h := c.holder[u]; h == r.From && !m.claim[u] {
				c.orphan(u, quiet)
			}
		}
		m.claim = nil
		c.heard(r.From)
	}
	c.reply(r, a)
	if q.Last {
		c.retry()
	}
}

// claimed notes that a peer knows of a grant; 0 if it does not hold that.
func (c *Cluster) claimed(peer int, n grant.Name) uint64 {
	e, err := c.cfg.Table.Entry(n.Unit)
	if err != nil {
		return 0
	}
	m := &c.members[peer]
	if e.State == grant.Lost && (!n.Unit.Core || n.Unit.Machine == peer) {
		// Its entry was damaged while there was no ckernel. The claim is all that is left; whose process had it is not known.
		o := grant.Owner{Peer: peer, Generation: m.info.Generation}
		err := c.tableDo(func() (err error) { n, err = c.cfg.Table.Settle(n.Unit, o); return err })
		if err != nil {
			c.logf("grant table: %v", err)
			return 0
		}
		c.logf("%v was lost and is claimed by %s", n.Unit, name(peer))
		c.count(n.Unit, o, 1)
		e.State, e.Owner, e.Grant = grant.Held, o, n.Grant
		c.holder[n.Unit] = peer
	}
	h, ok := c.holder[n.Unit]
	if !c.current(n, e) || !ok || h != peer && h != nobody && h != shared && e.Owner.Peer != peer {
		return 0
	}
	c.holder[n.Unit] = peer
	m.claim[n.Unit] = true
	return e.Grant
}

// orphan takes back a unit that was granted, but of which nobody was ever told.
func (c *Cluster) orphan(u grant.Unit, quiet bool) {
	e, err := c.cfg.Table.Entry(u)
	if err != nil || e.State != grant.Held {
		return
	}
	if !quiet {
		c.logf("%v of %v was never taken up, and is taken back", u, e.Owner)
	}
	c.takeBack([]grant.Name{{Unit: u, Grant: e.Grant}})
}

// heard notes that a recovered member has claimed what it knows of, or never will. After the last one what nobody claimed is taken back.
func (c *Cluster) heard(peer int) {
	m := &c.members[peer]
	if m.claimed {
		return
	}
	m.claimed = true
	if c.unheard--; c.unheard > 0 {
		return
	}
	for _, u := range sorted(c.holder) {
		if c.holder[u] == nobody && c.memberOf(u) {
			c.orphan(u, false)
		}
	}
	c.settle()
	c.probeShared()
}

// memberOf reports whether the owner of a unit is up. What the dead have is taken back when they are gone.
func (c *Cluster) memberOf(u grant.Unit) bool {
	p := c.ownerPeer(u)
	return p > 0 && c.members[p].status == up
}

// settle ends that units are lost that nobody has claimed.
func (c *Cluster) settle() {
	if c.cfg.Table.Counts().Lost == 0 {
		return
	}
	var lost []grant.Unit
	for u, e := range c.cfg.Table.All() {
		if e.State == grant.Lost {
			lost = append(lost, u)
		}
	}
	for _, u := range lost {
		o := grant.Owner{}
		if u.Core && c.members[u.Machine].status == up && u.Index < uint64(c.members[u.Machine].info.Cores) {
			o = grant.Owner{Peer: u.Machine, Generation: c.members[u.Machine].info.Generation}
		}
		err := c.tableDo(func() error {
			n, err := c.cfg.Table.Settle(u, o)
			if err == nil && o.Peer != 0 { // free again
				_, err = c.cfg.Table.Release(o, n)
			}
			return err
		})
		c.logf("%v was lost and nobody claims it: %v", u, errText(err))
	}
}

func errText(err error) string {
	if err == nil {
		return "free again"
	}
	return err.Error()
}

// sorted are the units of a map in order, so that what is done is the same each time.
func sorted(m map[grant.Unit]int) []grant.Unit {
	return slices.SortedFunc(maps.Keys(m), func(a, b grant.Unit) int {
		switch {
		case a.Core == b.Core:
			return cmp.Or(cmp.Compare(a.Machine, b.Machine), cmp.Compare(a.Index, b.Index))
		case b.Core: // slices come first
			return -1
		}
		return 1
	})
}
