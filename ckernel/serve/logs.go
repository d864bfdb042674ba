package serve

import (
	"fmt"
	"slices"
	"time"

	"dinos/nr"
	"dinos/nr/oplog"
	"dinos/shmem/logdir"
	"dinos/shmem/proto"
	"dinos/shmem/rpc"
)

// logs is the directory of logs for the cluster.
type logs struct{ logdir.Dir }

// open is the authority over log i, if it is in use and formatted.
func (l logs) open(i int) (*nr.Authority, logdir.Label, error) {
	label, err := l.Read(i)
	if err != nil {
		return nil, label, err
	}
	if !l.Ready(i, label.Generation) {
		return nil, label, fmt.Errorf("log %d is not formatted yet", i)
	}
	mem, err := l.Memory(i)
	if err != nil {
		return nil, label, err
	}
	a, err := nr.Attach(mem)
	return a, label, err
}

// InUse reports whether there are replicas in log i. A log that cannot be read has none that could go on.
func (l logs) InUse(i int) bool {
	a, _, err := l.open(i)
	if err != nil {
		return false
	}
	for _, m := range a.Members() {
		if m.State == oplog.Live || m.State == oplog.Joining {
			return true
		}
	}
	return false
}

// eviction takes the replicas of a life out of the logs.
type eviction struct {
	peer    int
	gen     uint64
	certain bool
	tries   int
	unowned []replica // whose machine nobody had said yet
}

// replica is one in a log.
type replica struct {
	log int
	id  nr.ID
}

const (
	evictTries = 50
	evictPause = 100 * time.Millisecond
	ownerPause = time.Second // within which a living machine says whose a replica is
)

// queueEviction has the evicter do it. mu is held.
func (s *Server) queueEviction(e eviction) {
	select {
	case s.evict <- e:
	default:
		s.cfg.Peer.Log(fmt.Sprintf("too many evictions wait; replicas of %s generation %d stay until the next", s.peer.Name(e.peer), e.gen))
	}
}

// evicter evicts, one life after the other: that a life is certainly over comes after that it is dead.
func (s *Server) evicter() {
	for {
		select {
		case e := <-s.evict:
			s.evictAll(e)
		case <-s.ctx.Done():
			return
		}
	}
}

// later queues an eviction again after a while.
func (s *Server) later(e eviction, pause time.Duration) {
	if e.tries++; e.tries > evictTries {
		s.cfg.Peer.Log(fmt.Sprintf("evicting %s generation %d: given up", s.peer.Name(e.peer), e.gen))
		return
	}
	time.AfterFunc(pause, func() {
		select {
		case s.evict <- e:
		default:
		}
	})
}

func (s *Server) evictAll(e eviction) {
	var failed error
	var unowned []replica
	for i := range s.dir.Count() {
		a, _, err := logs{s.dir}.open(i)
		if err != nil {
			continue
		}
		for _, m := range a.Members() {
			var err error
			peer, gen, ok := s.dir.Owner(i, m.Slot, int(m.Gen))
			switch {
			case ok && (peer != e.peer || int32(gen-uint32(e.gen)) > 0):
			case ok:
				err = a.Evict(m.ID, e.certain)
			case m.State != oplog.Evicted && slices.Contains(e.unowned, replica{i, m.ID}):
				// It was there before and nobody has claimed it since: its machine died between the two. If not, it hears of it.
				err = a.Evict(m.ID, false)
			case m.State != oplog.Evicted:
				unowned = append(unowned, replica{i, m.ID})
			}
			if err != nil {
				failed = fmt.Errorf("log %d: %v: %w", i, m.ID, err)
			}
		}
	}
	switch {
	case failed != nil:
		if e.tries == 0 {
			s.cfg.Peer.Log(fmt.Sprintf("evicting %s generation %d: %v", s.peer.Name(e.peer), e.gen, failed))
		}
		s.later(e, evictPause)
	case e.certain && len(unowned) > 0 && e.unowned == nil:
		e.unowned = unowned
		s.later(e, ownerPause)
	}
}

// logPositions serves LogPositions.
func (s *Server) logPositions(_ *rpc.Request, _ *proto.LogPositions, a *proto.LogPositionsReply) error {
	for i := range s.dir.Count() {
		au, label, err := logs{s.dir}.open(i)
		if err != nil {
			continue
		}
		for _, l := range au.Logs() {
			p := proto.LogPosition{Log: uint32(i), Part: label.Part, Process: label.Process, Generation: label.Generation, Head: l.Head(), Tail: l.Tail()}
			for _, slot := range l.Slots() {
				if slot.State == oplog.Free {
					continue
				}
				r := proto.ReplicaPosition{Slot: uint16(slot.Slot), State: uint8(slot.State), Machine: -1, Tail: slot.Tail}
				if peer, _, ok := s.dir.Owner(i, slot.Slot, int(slot.Gen)); ok {
					r.Machine = int32(peer)
				}
				p.Replicas = append(p.Replicas, r)
			}
			a.Logs = append(a.Logs, p)
		}
	}
	return nil
}
