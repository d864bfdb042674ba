package cluster

import (
	"strings"

	"dinos/sched"
	"dinos/shmem/grant"
	"dinos/shmem/proto"
)

// drain serves Drain: nothing new is placed on the machine, and its kernel is asked to have its processes go elsewhere. It is refused if
// they would find no place.
func (c *Cluster) drain(r *Request, q *proto.Drain) {
	if int(q.Machine) < 1 || int(q.Machine) >= len(c.members) || c.members[q.Machine].status != up {
		c.refuse(r, proto.CodeNotFound, "machine %d is no dkernel of the rack now", q.Machine)
		return
	}
	m, id := &c.members[q.Machine], uint32(q.Machine)
	c.resize()
	switch {
	case q.Undo == !m.drained: // as it is
	case q.Undo:
		if err := c.cfg.Placement.Undrain(id); err != nil {
			c.fail(r, err)
			return
		}
		m.drained = false
	default:
		moves, err := c.cfg.Placement.Drain(id)
		if err != nil {
			c.fail(r, err)
			return
		}
		// That there is a place for all is what the moves are good for. Their processes ask for it themselves: who moves knows when
		// what it had may be released.
		for _, v := range moves {
			if err := c.cfg.Placement.Cancel(v.ID); err != nil {
				c.logf("scheduler: %v", err)
			}
		}
		m.drained = true
		c.askBack(int(q.Machine))
	}
	c.reply(r, &proto.DrainReply{Cores: uint32(m.process.cores + m.kernel.cores), Slices: uint32(m.process.slices + m.kernel.slices)})
}

// askBack asks a kernel to release what the processes on it hold.
func (c *Cluster) askBack(peer int) {
	var cores, list []grant.Name
	for u, e := range c.cfg.Table.All() {
		if e.State != grant.Held || e.Owner.Peer != peer || e.Owner.Process == 0 {
			continue
		}
		if n := (grant.Name{Unit: u, Grant: e.Grant}); u.Core {
			cores = append(cores, n)
		} else {
			list = append(list, n)
		}
	}
	for len(cores)+len(list) > 0 {
		a, b := min(len(cores), proto.MaxList), min(len(list), proto.MaxList)
		c.do(Call{peer, &proto.Reclaim{Cores: c.coreMessage(cores[:a]), Slices: sliceMessage(list[:b])}})
		cores, list = cores[a:], list[b:]
	}
}

// policies is the placement as something with policies.
func (c *Cluster) policies(r *Request) Policies {
	p, ok := c.cfg.Placement.(Policies)
	if !ok {
		c.refuse(r, proto.CodeUnsupported, "this ckernel places without policies")
		return nil
	}
	return p
}

func (c *Cluster) schedShow(r *Request, q *proto.SchedShow) {
	p := c.policies(r)
	if p == nil {
		return
	}
	c.resize()
	var text string
	var err error
	name, inForce := p.Policy()
	switch q.What {
	case "":
		text = p.Show()
	case "dump":
		text = p.Dump()
	case "policy":
		text = inForce
	default:
		if text, err = p.ShowPolicy(q.What); err != nil {
			c.refuse(r, proto.CodeNotFound, "%v", err)
			return
		}
	}
	if int64(q.Offset) > int64(len(text)) {
		c.refuse(r, proto.CodeMalformed, "offset %d, the text has %d bytes", q.Offset, len(text))
		return
	}
	part := text[q.Offset:]
	c.reply(r, &proto.SchedShowReply{Name: name, Total: uint32(len(text)), Text: []byte(cut(part, proto.MaxData))})
}

func (c *Cluster) schedSet(r *Request, q *proto.SchedSet) {
	p := c.policies(r)
	if p == nil {
		return
	}
	text := string(q.Text)
	if text == "" {
		var err error
		if text, err = p.ShowPolicy(q.Name); err != nil {
			c.refuse(r, proto.CodeNotFound, "%v", err)
			return
		}
	}
	said, err := p.Set(q.Name, text)
	if err != nil {
		c.fail(r, err)
		return
	}
	c.logf("policy %s is in force", q.Name)
	c.reply(r, &proto.SchedSetReply{Text: []byte(cut(said, proto.MaxData))})
}

func (c *Cluster) schedExplain(r *Request, q *proto.SchedExplain) {
	p := c.policies(r)
	if p == nil {
		return
	}
	c.resize()
	for _, l := range strings.Split(string(q.Requests), "\n") {
		if f := strings.Fields(l); len(f) > 0 && f[0] != "request" && !strings.HasPrefix(f[0], "#") {
			c.refuse(r, proto.CodeMalformed, "line %q: want lines of \"request\"", cut(l, 80))
			return
		}
	}
	text, err := sched.ExplainFile(p.Dump() + string(q.Requests))
	if err != nil {
		c.refuse(r, proto.CodeMalformed, "%v", err)
		return
	}
	c.reply(r, &proto.SchedExplainReply{Text: []byte(cut(text, proto.MaxData))})
}

func cut(s string, n int) string { return s[:min(len(s), n)] }
