package ctl

import (
	"context"
	"fmt"
	"time"

	"dinos/shmem/proto"
)

// Log is an operation log that was assigned to a structure.
type Log struct {
	Index      int
	Generation uint64
	Memory     []byte // for nr.Format and nr.Open
	Fresh      bool   // this kernel formats it, and then calls LogReady
}

// AssignLog is the log of a part of a process's replicated structure, or (0) of one of the rack. If another kernel formats it, AssignLog
// waits until that is done; should that kernel die first, it is this one that gets it fresh. Errors: *rpc.RemoteError (CodeExhausted: all logs
// are in use), ctx's, ErrEnded.
func (n *Node) AssignLog(ctx context.Context, process uint64, part uint32) (Log, error) {
	for {
		var a proto.AssignLogReply
		if err := n.repeat(ctx, &proto.AssignLog{Process: process, Part: part}, &a); err != nil {
			return Log{}, err
		}
		l := Log{Index: int(a.Log), Generation: a.Generation, Fresh: a.Fresh}
		var err error
		if l.Memory, err = n.dir.Memory(l.Index); err != nil {
			return Log{}, fmt.Errorf("ctl: assigned log: %w", err)
		}
		if l.Fresh || n.dir.Ready(l.Index, l.Generation) {
			return l, nil
		}
		for range 20 {
			if err := n.rest(ctx, 5*time.Millisecond, fmt.Errorf("ctl: log %d is not formatted yet", l.Index)); err != nil {
				return Log{}, err
			}
			if n.dir.Ready(l.Index, l.Generation) {
				return l, nil
			}
		}
	}
}

// LogReady tells the other kernels that a fresh log is formatted now.
func (n *Node) LogReady(l Log) error {
	have, err := n.dir.Read(l.Index)
	if err != nil {
		return err
	}
	if have.Generation != l.Generation {
		return fmt.Errorf("%w: log %d is of generation %d, it was assigned as %d", ErrNotGranted, l.Index, have.Generation, l.Generation)
	}
	return n.dir.SetReady(l.Index, l.Generation)
}

// LogReplica says that the replica in a slot of the log, in that incarnation, is this machine's, so that it is evicted if this machine dies. Say
// so as soon as it has joined.
func (n *Node) LogReplica(l Log, slot, incarnation int) error {
	return n.dir.SetOwner(l.Index, slot, incarnation, n.Self(), n.Generation())
}

// ReleaseLog gives a log back after the last replica has left; with replicas in it is a *rpc.RemoteError of CodeConflict.
func (n *Node) ReleaseLog(ctx context.Context, process uint64, part uint32) error {
	return n.repeat(ctx, &proto.ReleaseLog{Process: process, Part: part}, &proto.Done{})
}
