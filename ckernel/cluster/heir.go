package cluster

import (
	"maps"
	"slices"

	"dinos/sched"
	"dinos/shmem/grant"
)

// shared as a holder: the slice came to a process's surviving part, whose kernel may use it without ever having been told of it by name.
// Nothing but the end of the process, or a release, takes it back.
const shared = -2

// bequeath gives the slices that processes have at lives of a machine up to a generation, which are gone, to where else these processes
// are: threads there may have them mapped, and zeroing them for somebody else would break in on these. Slices of processes that are
// nowhere else are left to be taken back. It returns how many came where, for rebookHeirs.
func (c *Cluster) bequeath(peer int, gen uint64) inherited {
	heirs := map[uint64]int{} // by process
	more := inherited{}
	for _, old := range c.willed(peer, gen) {
		e, err := c.cfg.Table.Entry(old.Unit)
		if err != nil {
			continue
		}
		pid, holder := e.Owner.Process, c.holder[old.Unit]
		to := holder
		if holder < 1 || holder == peer || c.members[holder].status != up {
			if _, ok := heirs[pid]; !ok {
				heirs[pid] = c.heir(pid, peer)
			}
			if to, holder = heirs[pid], shared; to == nobody {
				continue
			}
		}
		o := grant.Owner{Peer: to, Generation: c.members[to].info.Generation, Process: pid}
		var now grant.Name
		if err := c.tableDo(func() (err error) { now, err = c.cfg.Table.Transfer(old, o); return err }); err != nil {
			c.logf("grant table: %v", err)
			continue
		}
		c.moved[old] = now.Grant
		c.holder[old.Unit] = holder
		if more[to] == nil {
			more[to] = map[uint64]int64{}
		}
		more[to][pid]++
	}
	for _, to := range slices.Sorted(maps.Keys(more)) {
		for _, pid := range slices.Sorted(maps.Keys(more[to])) {
			if h, ok := heirs[pid]; ok && h == to {
				c.do(Probe{to, pid})
			}
			c.logf("%d slices of process %d at %s are at %s now", more[to][pid], pid, name(peer), name(to))
		}
	}
	return more
}

// inherited counts slices by machine and process.
type inherited map[int]map[uint64]int64

// willed are the slices that processes have at lives of a machine.
func (c *Cluster) willed(peer int, gen uint64) (list []grant.Name) {
	for u, e := range c.cfg.Table.All() {
		if !u.Core && e.State == grant.Held && e.Owner.Peer == peer && e.Owner.Generation <= gen && e.Owner.Process != 0 {
			list = append(list, grant.Name{Unit: u, Grant: e.Grant})
		}
	}
	return list
}

// heir is a machine besides peer where a process is: its home, or one where it has something. nobody if there is none.
func (c *Cluster) heir(pid uint64, peer int) int {
	if h, ok := c.home[pid]; ok && h != peer && c.members[h].status == up {
		return h
	}
	for _, e := range c.cfg.Table.All() {
		if e.State == grant.Held && e.Owner.Process == pid && e.Owner.Peer != peer && c.members[e.Owner.Peer].status == up {
			return e.Owner.Peer
		}
	}
	return nobody
}

// rebookHeirs tells the scheduler what has come where. What the dead machine had it forgets when that one leaves.
func (c *Cluster) rebookHeirs(more inherited) {
	for _, to := range slices.Sorted(maps.Keys(more)) {
		m := &c.members[to]
		if err := c.cfg.Placement.Resize(uint32(to), m.info.Generation, int64(m.info.Cores)-m.kernel.cores, m.process.slices); err != nil {
			c.logf("scheduler: %v", err)
		}
		for _, pid := range slices.Sorted(maps.Keys(more[to])) {
			g := sched.Grant{Dkernel: uint32(to), Generation: m.info.Generation, Slices: more[to][pid]}
			if err := c.cfg.Placement.Restore(pid, []sched.Grant{g}); err != nil {
				c.logf("scheduler: %v", err)
			}
		}
	}
}

// current reports whether a name is that of the grant in force, or of one that became it by a transfer.
func (c *Cluster) current(n grant.Name, e grant.Entry) bool {
	for e.State == grant.Held && !e.Same(n) {
		next, ok := c.moved[n]
		if !ok || next <= n.Grant {
			return false
		}
		n.Grant = next
	}
	return e.State == grant.Held
}

// unhold forgets what was noted of a unit that is held no more.
func (c *Cluster) unhold(u grant.Unit) {
	delete(c.holder, u)
	for n := range c.moved {
		if n.Unit == u {
			delete(c.moved, n)
		}
	}
}

// probeShared asks about the processes whose slices have come to a machine that was not told of them: another life of the ckernel may have
// died before it did.
func (c *Cluster) probeShared() {
	asked := map[uint64]bool{}
	for _, u := range sorted(c.holder) {
		e, err := c.cfg.Table.Entry(u)
		if c.holder[u] != shared || err != nil || asked[e.Owner.Process] {
			continue
		}
		asked[e.Owner.Process] = true
		c.do(Probe{e.Owner.Peer, e.Owner.Process})
	}
}

// step of Unknown ends a process that nobody else answers for either.
func (e Unknown) step(c *Cluster) {
	if c.unheard > 0 {
		return // who holds what is not known yet; all are asked again when it is
	}
	if h, ok := c.home[e.Process]; ok && h != e.Peer {
		return
	}
	for u, en := range c.cfg.Table.All() {
		if en.State != grant.Held || en.Owner.Process != e.Process {
			continue
		}
		// A machine where it is, or that asked for something of it, may run it.
		if h := c.holder[u]; en.Owner.Peer != e.Peer || h >= 1 && h != e.Peer && c.members[h].status == up {
			return
		}
	}
	c.logf("process %d runs nowhere any more", e.Process)
	if err := c.endProcess(e.Process); err != nil {
		c.logf("grant table: %v", err)
	}
	c.retry()
}
