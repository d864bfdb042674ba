package cluster

import (
	"dinos/shmem/logdir"
	"dinos/shmem/proto"
)

// logUse is what a log is used for.
type logUse struct {
	used  bool
	label logdir.Label
}

// recoverLogs reads the labels. A log whose label is damaged serves nobody new, and whoever has it goes on with it.
func (c *Cluster) recoverLogs() {
	for i := range c.logs {
		if l, err := c.cfg.Logs.Read(i); err == nil {
			c.logs[i] = logUse{true, l}
		}
	}
}

// assignLog serves AssignLog.
func (c *Cluster) assignLog(r *Request, q *proto.AssignLog) {
	free := -1
	for i := range c.logs {
		u := &c.logs[i]
		switch {
		case !u.used && free < 0 && !c.cfg.Logs.InUse(i):
			free = i
		case u.used && u.label.Process == q.Process && u.label.Part == q.Part:
			c.assigned(r, i)
			return
		}
	}
	if free < 0 {
		c.refuse(r, proto.CodeExhausted, "no log for part %d of process %d: all %d are in use", q.Part, q.Process, len(c.logs))
		return
	}
	c.makeLog(r, free, q.Process, q.Part)
}

// assigned answers with a log that is assigned already. Until it is formatted its maker is asked to; if that one is gone the next who asks is.
func (c *Cluster) assigned(r *Request, i int) {
	l := c.logs[i].label
	maker := l.Maker >= 1 && l.Maker < len(c.members) && c.members[l.Maker].status == up && c.members[l.Maker].info.Generation == l.Life
	if !maker && !c.cfg.Logs.Ready(i, l.Generation) {
		c.makeLog(r, i, l.Process, l.Part)
		return
	}
	c.reply(r, &proto.AssignLogReply{Log: uint32(i), Generation: l.Generation,
		Fresh: l.Maker == r.From && !c.cfg.Logs.Ready(i, l.Generation)})
}

// makeLog assigns log i anew; the asker formats it.
func (c *Cluster) makeLog(r *Request, i int, process uint64, part uint32) {
	c.made++
	l := logdir.Label{Process: process, Part: part, Generation: c.cfg.Generation<<32 | c.made, Maker: r.From,
		Life: c.members[r.From].info.Generation}
	if err := c.cfg.Logs.Write(i, l); err != nil {
		c.fail(r, err)
		return
	}
	c.logs[i] = logUse{true, l}
	c.reply(r, &proto.AssignLogReply{Log: uint32(i), Generation: l.Generation, Fresh: true})
}

// releaseLog serves ReleaseLog.
func (c *Cluster) releaseLog(r *Request, q *proto.ReleaseLog) {
	for i := range c.logs {
		u := &c.logs[i]
		if !u.used || u.label.Process != q.Process || u.label.Part != q.Part {
			continue
		}
		if c.cfg.Logs.InUse(i) {
			c.refuse(r, proto.CodeConflict, "log %d of part %d of process %d still has replicas", i, q.Part, q.Process)
			return
		}
		c.clearLog(i)
		break
	}
	c.reply(r, &proto.Done{}) // also if there is none: it was released before
}

// logsOfProcess releases the logs of a process that has ended.
func (c *Cluster) logsOfProcess(pid uint64) {
	for i := range c.logs {
		if pid != 0 && c.logs[i].used && c.logs[i].label.Process == pid {
			c.clearLog(i)
		}
	}
}

func (c *Cluster) clearLog(i int) {
	if err := c.cfg.Logs.Clear(i); err != nil {
		c.logf("log %d: %v", i, err)
		return
	}
	c.logs[i] = logUse{}
}
