package cluster

import (
	"errors"
	"fmt"
	"slices"

	"dinos/sched"
	"dinos/sched/model"
	"dinos/shmem/grant"
	"dinos/shmem/proto"
)

// recount brings the books of what is held where up to date with the table.
func (c *Cluster) recount() {
	for i := range c.members {
		c.members[i].kernel, c.members[i].process = units{}, units{}
	}
	for u, e := range c.cfg.Table.All() {
		if e.State == grant.Held {
			c.count(u, e.Owner, 1)
		}
	}
}

// count books that o holds one more or less unit.
func (c *Cluster) count(u grant.Unit, o grant.Owner, by int64) {
	if o.Peer < 1 || o.Peer >= len(c.members) {
		return
	}
	m := &c.members[o.Peer]
	if m.info.Generation != o.Generation {
		return
	}
	if o.Process == 0 {
		m.kernel.add(u, by)
	} else {
		m.process.add(u, by)
	}
}

// resize tells the scheduler what each member can give to processes: its cores but those that its kernel holds, and of the pool of slices what
// processes hold there and what is free.
func (c *Cluster) resize() {
	free := int64(c.cfg.Table.Counts().FreeSlices)
	for i := range c.members {
		m := &c.members[i]
		if m.status != up {
			continue
		}
		cores := int64(m.info.Cores) - m.kernel.cores
		if err := c.cfg.Placement.Resize(uint32(i), m.info.Generation, cores, min(m.process.slices+free, model.MaxSlices)); err != nil {
			c.logf("scheduler: %v", err)
		}
	}
}

// freeCores are the cores of a member that nobody holds.
func (c *Cluster) freeCores(peer int) int64 {
	m := &c.members[peer]
	return int64(m.info.Cores) - m.kernel.cores - m.process.cores
}

// checkWant refuses what nobody can be given.
func (c *Cluster) checkWant(r *Request, w proto.Want, least, most int64) bool {
	switch {
	case most < 1 || least > most || most > proto.MaxList:
		c.refuse(r, proto.CodeMalformed, "%d to %d units, want at least 1 and at most %d", least, most, proto.MaxList)
	case w.Process == 0 && w.Machine != -1 && w.Machine != int32(r.From):
		c.refuse(r, proto.CodeDenied, "for the kernel itself on machine %d, want its own, %d", w.Machine, r.From)
	case w.Process >= sched.MaxProcess:
		c.refuse(r, proto.CodeMalformed, "process %d, want less than 2^62", w.Process)
	case w.Machine != -1 && (w.Machine < 1 || int(w.Machine) >= len(c.members) || c.members[w.Machine].status != up):
		c.refuse(r, proto.CodeNotFound, "machine %d is no dkernel of the rack now", w.Machine)
	default:
		return true
	}
	return false
}

// requestCores serves RequestCores.
func (c *Cluster) requestCores(r *Request, q *proto.RequestCores) {
	least, most := max(int64(q.Min), 1), int64(q.Max)
	if !c.checkWant(r, q.Want, least, most) {
		return
	}
	if q.Want.Process == 0 {
		free := c.freeCores(r.From)
		if free < least {
			c.refuse(r, proto.CodeExhausted, "%d cores for the kernel of %s, which has %d free", least, name(r.From), free)
			return
		}
		c.give(r, []sched.Grant{{Dkernel: uint32(r.From), Generation: c.members[r.From].info.Generation, Cores: min(most, free)}}, 0)
		return
	}
	free := int64(0)
	for i := range c.members {
		if c.members[i].status == up {
			free += c.freeCores(i)
		}
	}
	c.placed(r, q.Want, least, most, free, true)
}

// placed has the scheduler place what a process wants: as many as it can have of most, at least as many as least.
func (c *Cluster) placed(r *Request, w proto.Want, least, most, free int64, cores bool) {
	pid := w.Process
	if c.cfg.Placement.Holds(pid) == nil {
		// It is not known, or holds nothing: only the former can be started.
		if err := c.cfg.Placement.Start(pid); err != nil && !refused(err, sched.Invalid) {
			c.fail(r, err)
			return
		}
		if _, ok := c.home[pid]; !ok {
			c.SetHome(pid, r.From)
		}
	}
	c.resize()
	q := sched.Request{ID: r.Token, Process: pid}
	if w.Spread {
		q.Shape = sched.Spread
	}
	if w.Machine >= 0 {
		q.Pinned = []uint32{uint32(w.Machine)}
	}
	var err error
	tried := int64(0)
	for _, n := range []int64{min(most, free), least} {
		if n < least || n == tried {
			continue
		}
		tried = n
		if q.Cores = n; !cores {
			q.Cores, q.Slices = 0, n
		}
		d := c.cfg.Placement.Request([]sched.Request{q})[0]
		if d.Err == nil {
			c.give(r, d.Grants, pid)
			return
		}
		err = d.Err
	}
	if err == nil {
		kind := "slices"
		if cores {
			kind = "cores"
		}
		c.refuse(r, proto.CodeExhausted, "%d %s for process %d, %d are free in the rack", least, kind, pid, free)
		return
	}
	c.fail(r, err)
}

// refused reports whether err is a refusal of the scheduler, of one of these kinds.
func refused(err error, kinds ...sched.Kind) bool {
	var r *sched.Refusal
	return errors.As(err, &r) && slices.Contains(kinds, r.Kind)
}

// give takes out of the table what the scheduler has decided (or, for process 0, what a kernel gets itself) and answers. If the table
// refuses, the scheduler's books go back.
func (c *Cluster) give(r *Request, grants []sched.Grant, pid uint64) {
	grants = slices.Clone(grants) // the scheduler's are valid until its next call
	var names []grant.Name
	var err error
	for _, g := range grants {
		o := grant.Owner{Peer: int(g.Dkernel), Generation: g.Generation, Process: pid}
		if err = c.tableDo(func() (err error) { names, err = c.cfg.Table.GrantCores(o, int(g.Cores), names); return err }); err != nil {
			break
		}
		if err = c.tableDo(func() (err error) { names, err = c.cfg.Table.GrantSlices(o, int(g.Slices), names); return err }); err != nil {
			break
		}
	}
	for _, n := range names {
		c.holder[n.Unit] = r.From
		if e, err := c.cfg.Table.Entry(n.Unit); err == nil {
			c.count(n.Unit, e.Owner, 1)
		}
	}
	if err != nil {
		c.takeBack(names)
		// What the table has not given is still down at the scheduler.
		if pid != 0 {
			c.rebook(pid)
		}
		c.fail(r, err)
		return
	}
	c.reply(r, c.granted(names, r))
}

// granted is the answer with the units that were granted.
func (c *Cluster) granted(names []grant.Name, r *Request) proto.Message {
	if _, ok := r.Message.(*proto.RequestCores); ok {
		return &proto.RequestCoresReply{Cores: c.coreMessage(names)}
	}
	return &proto.RequestSlicesReply{Slices: sliceMessage(names)}
}

// book adds a unit to what the scheduler is told of.
func book(g *sched.Grant, u grant.Unit) {
	if u.Core {
		g.Cores++
	} else {
		g.Slices++
	}
}

// rebook makes the scheduler's books of a process what the table says.
func (c *Cluster) rebook(pid uint64) {
	have := map[uint32]sched.Grant{}
	for u, e := range c.cfg.Table.All() {
		if e.State == grant.Held && e.Owner.Process == pid {
			g := have[uint32(e.Owner.Peer)]
			g.Dkernel, g.Generation = uint32(e.Owner.Peer), e.Owner.Generation
			book(&g, u)
			have[g.Dkernel] = g
		}
	}
	var too []sched.Grant
	for _, b := range c.cfg.Placement.Holds(pid) {
		g := have[b.Dkernel]
		b.Cores, b.Slices = max(b.Cores-g.Cores, 0), max(b.Slices-g.Slices, 0)
		if b.Cores > 0 || b.Slices > 0 {
			too = append(too, b)
		}
	}
	if len(too) > 0 {
		if err := c.cfg.Placement.Release(pid, too); err != nil {
			c.logf("scheduler: %v", err)
		}
	}
}

// takeBack releases units whoever owns them, and books it.
func (c *Cluster) takeBack(names []grant.Name) {
	for _, n := range names {
		if e, err := c.cfg.Table.Entry(n.Unit); err == nil && e.State == grant.Held && e.Grant == n.Grant {
			if err := c.let([]grant.Name{n}, e.Owner); err != nil {
				c.logf("grant table: %v", err)
			}
		}
	}
}

// let releases names that o holds, and tells the scheduler.
func (c *Cluster) let(names []grant.Name, o grant.Owner) error {
	done := 0
	err := c.tableDo(func() error {
		n, err := c.cfg.Table.Release(o, names[done:]...)
		done += n
		return err
	})
	back := sched.Grant{Dkernel: uint32(o.Peer), Generation: o.Generation}
	for _, n := range names[:done] {
		c.unhold(n.Unit)
		c.count(n.Unit, o, -1)
		book(&back, n.Unit)
	}
	if o.Process != 0 && done > 0 {
		if err := c.cfg.Placement.Release(o.Process, []sched.Grant{back}); err != nil {
			c.logf("scheduler: %v", err)
		}
	}
	return err
}

// release serves ReleaseCores and ReleaseSlices: all of it or none.
func (c *Cluster) release(r *Request, names []grant.Name) {
	by := map[grant.Owner][]grant.Name{}
	var owners []grant.Owner
	seen := map[grant.Unit]bool{}
	for _, n := range names {
		e, err := c.cfg.Table.Entry(n.Unit)
		switch {
		case err != nil:
			c.fail(r, err)
			return
		case !c.current(n, e) || e.Owner.Peer != r.From && c.holder[n.Unit] != r.From:
			c.refuse(r, proto.CodeDenied, "%v is not held by %s, the table says %v by %v (grant %#x)", n, name(r.From), e.State, e.Owner, e.Grant)
			return
		case seen[n.Unit]:
			c.refuse(r, proto.CodeMalformed, "%v twice in one release", n)
			return
		}
		seen[n.Unit] = true
		n.Grant = e.Grant
		if by[e.Owner] == nil {
			owners = append(owners, e.Owner)
		}
		by[e.Owner] = append(by[e.Owner], n)
	}
	for _, o := range owners {
		if err := c.let(by[o], o); err != nil {
			c.fail(r, err) // another ckernel took over, or the versions are used up
			return
		}
	}
	c.reply(r, &proto.Done{})
	c.retry()
}

// exitProcess serves ExitProcess: it runs nowhere any more, and all it had is taken back.
func (c *Cluster) exitProcess(r *Request, q *proto.ExitProcess) {
	if h, ok := c.home[q.PID]; ok && h != r.From {
		c.refuse(r, proto.CodeDenied, "process %d was started on %s, which says when it has ended", q.PID, name(h))
		return
	}
	if q.PID == 0 {
		c.refuse(r, proto.CodeMalformed, "process 0, want a process")
		return
	}
	if err := c.endProcess(q.PID); err != nil {
		c.fail(r, err)
		return
	}
	c.reply(r, &proto.Done{})
	c.retry()
}

// endProcess takes back all that a process has.
func (c *Cluster) endProcess(pid uint64) error {
	var units []grant.Unit
	err := c.tableDo(func() error {
		more, err := c.cfg.Table.ReclaimProcess(pid)
		units = append(units, more...)
		return err
	})
	for _, u := range units {
		c.unhold(u)
	}
	c.recount()
	if err != nil {
		return err
	}
	if _, err := c.cfg.Placement.Exit(pid); err != nil && !refused(err, sched.UnknownProcess, sched.DeadProcess) {
		c.logf("scheduler: %v", err)
	}
	delete(c.home, pid)
	c.logsOfProcess(pid)
	return nil
}

func coreNames(cores []proto.Core) []grant.Name {
	names := make([]grant.Name, len(cores))
	for i, k := range cores {
		names[i] = grant.Name{Unit: grant.Core(int(k.Machine), int(k.Core)), Grant: k.Grant}
	}
	return names
}

func sliceNames(list []proto.Slice) []grant.Name {
	names := make([]grant.Name, len(list))
	for i, s := range list {
		names[i] = grant.Name{Unit: grant.Slice(s.Slice), Grant: s.Grant}
	}
	return names
}

func (c *Cluster) coreMessage(names []grant.Name) []proto.Core {
	var list []proto.Core
	for _, n := range names {
		list = append(list, proto.Core{Machine: uint16(n.Unit.Machine), Core: uint16(n.Unit.Index), Grant: n.Grant,
			Generation: c.members[n.Unit.Machine].info.Generation})
	}
	return list
}

func sliceMessage(names []grant.Name) []proto.Slice {
	var list []proto.Slice
	for _, n := range names {
		list = append(list, proto.Slice{Slice: n.Unit.Index, Grant: n.Grant})
	}
	return list
}

// Audit checks the table against the members and this machine's own books against both. Problems are for people.
func (c *Cluster) Audit() (*grant.Report, []string) {
	p := c.cfg.Table.Audit(func(peer int) (uint64, bool) {
		if peer == 0 {
			return c.cfg.Generation, true
		}
		m := &c.members[peer]
		return m.info.Generation, m.status != absent // what the dead had is theirs until they are gone
	})
	var list []string
	for _, v := range p.Violations {
		list = append(list, v.String())
	}
	list = append(list, c.auditBooks()...)
	if len(list) > proto.MaxList {
		list = list[:proto.MaxList]
	}
	for i := range list {
		list[i] = proto.CutText(list[i])
	}
	return p, list
}

// auditBooks compares the counts, the holders and the scheduler with the table.
func (c *Cluster) auditBooks() (list []string) {
	bad := func(format string, args ...any) { list = append(list, "books: "+fmt.Sprintf(format, args...)) }
	type at struct {
		pid  uint64
		peer int
	}
	kernel, process, sum, held := make([]units, len(c.members)), make([]units, len(c.members)), map[at]units{}, 0
	for u, e := range c.cfg.Table.All() {
		if e.State != grant.Held {
			continue
		}
		held++
		if _, ok := c.holder[u]; !ok {
			bad("%v is held by %v, but has no holder", u, e.Owner)
		}
		if e.Owner.Process == 0 {
			kernel[e.Owner.Peer].add(u, 1)
			continue
		}
		process[e.Owner.Peer].add(u, 1)
		s := sum[at{e.Owner.Process, e.Owner.Peer}]
		s.add(u, 1)
		sum[at{e.Owner.Process, e.Owner.Peer}] = s
	}
	if held != len(c.holder) {
		bad("%d units are held, %d have a holder", held, len(c.holder))
	}
	for i := 1; i < len(c.members); i++ {
		if m := &c.members[i]; m.kernel != kernel[i] || m.process != process[i] {
			bad("%s holds %v and its processes %v, counted were %v and %v", name(i), kernel[i], process[i], m.kernel, m.process)
		}
	}
	for k, s := range sum {
		got := units{}
		for _, g := range c.cfg.Placement.Holds(k.pid) {
			if int(g.Dkernel) == k.peer {
				got = units{g.Cores, g.Slices}
			}
		}
		if got != s {
			bad("process %d holds %v at %s, the scheduler says %v", k.pid, s, name(k.peer), got)
		}
	}
	slices.Sort(list)
	return list
}
