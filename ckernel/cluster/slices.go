package cluster

import (
	"slices"

	"dinos/sched"
	"dinos/shmem/grant"
	"dinos/shmem/proto"
)

// wait is a request for slices that waits for some to be zeroed.
type wait struct {
	r Request
	q *proto.RequestSlices
}

// requestSlices serves RequestSlices.
func (c *Cluster) requestSlices(r *Request, q *proto.RequestSlices) {
	if !c.checkWant(r, q.Want, max(int64(q.Min), 1), int64(q.Max)) {
		return
	}
	// Those that came before go first.
	if len(c.waits) == 0 && c.slicesNow(r, q) {
		return
	}
	if len(c.waits) >= maxWaits {
		c.refuse(r, proto.CodeBusy, "%d requests wait for slices to be zeroed", len(c.waits))
		return
	}
	c.waits = append(c.waits, wait{*r, q})
	c.retry() // it may be hopeless
}

// slicesNow answers a request for slices, unless it can be served later.
func (c *Cluster) slicesNow(r *Request, q *proto.RequestSlices) bool {
	least, most := max(int64(q.Min), 1), int64(q.Max)
	n := c.cfg.Table.Counts()
	free, soon := int64(n.FreeSlices), int64(n.FreeSlices)+int64(n.DirtySlices)+int64(c.zeroing)
	switch {
	case free < least && soon >= least:
		return false
	case free < least:
		c.refuse(r, proto.CodeExhausted, "%d slices, the rack has %d free and %d to be zeroed", least, free, soon-free)
	case q.Want.Process == 0:
		m := &c.members[r.From]
		c.give(r, []sched.Grant{{Dkernel: uint32(r.From), Generation: m.info.Generation, Slices: min(most, free)}}, 0)
	default:
		c.placed(r, q.Want, least, most, free, false)
	}
	return true
}

// retry serves requests that wait, in order.
func (c *Cluster) retry() {
	for len(c.waits) > 0 {
		w := c.waits[0]
		if !c.slicesNow(&w.r, w.q) {
			return
		}
		c.waits = slices.Delete(c.waits, 0, 1)
	}
}

// dropWaits forgets the requests of a peer that is no member any more.
func (c *Cluster) dropWaits(peer int) {
	c.waits = slices.DeleteFunc(c.waits, func(w wait) bool {
		if w.r.From == peer {
			c.refuse(&w.r, proto.CodeNotMember, "%s is no member any more", name(peer))
		}
		return w.r.From == peer
	})
}

// zero has dirty slices zeroed, a few at a time.
func (c *Cluster) zero() {
	me := grant.Owner{Generation: c.cfg.Generation}
	for c.zeroing < zeroAtOnce && c.cfg.Table.Counts().DirtySlices > 0 && !c.stopped {
		var names []grant.Name
		err := c.tableDo(func() (err error) { names, err = c.cfg.Table.StartZero(me, zeroAtOnce-c.zeroing, names); return err })
		for _, n := range names {
			c.zeroing++
			c.do(Zero{n})
		}
		if err != nil {
			c.logf("grant table: %v", err)
			return
		}
	}
}

func (e Zeroed) step(c *Cluster) {
	c.zeroing--
	me := grant.Owner{Generation: c.cfg.Generation}
	if err := c.tableDo(func() error { return c.cfg.Table.Zeroed(me, e.Name) }); err != nil {
		c.logf("grant table: %v", err)
	}
	c.retry()
}
