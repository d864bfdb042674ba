package serve

import (
	"time"

	"dinos/shmem/layout"
	"dinos/shmem/proto"
)

// rackTSC is the rack's time stamp counter, 0 while that is not known.
func (s *Server) rackTSC() uint64 {
	if !s.known.Load() {
		return 0
	}
	return s.peer.TSC() + uint64(s.offset.Load())
}

// now is the rack's time in nanoseconds.
func (s *Server) now() uint64 {
	tsc := s.rackTSC()
	ns, ok := s.peer.Nanoseconds(tsc)
	if tsc == 0 || !ok {
		return uint64(max(s.peer.Clock().Now(), 0))
	}
	return ns
}

// findClock decides what the rack's clock is: this machine's counter, or, after a restart, what the dkernels have kept it going by, so that
// it does not jump. The best of a few answers counts.
func (s *Server) findClock() {
	const tries = 4
	defer s.known.Store(true)
	best := ^uint64(0)
	deadline := s.peer.Clock().Now() + int64(time.Second)
	for s.peer.Clock().Now() < deadline && best == ^uint64(0) && s.ctx.Err() == nil {
		left := 0
		for i, gen := range *s.members.Load() {
			if gen == 0 {
				continue
			}
			left++
			c, err := s.peer.Conn(i)
			if err != nil {
				continue
			}
			for range tries {
				var a proto.HeartbeatReply
				delta, half, known, err := s.peer.Exchange(s.ctx, c, &proto.Heartbeat{}, &a, 100*time.Millisecond)
				if err != nil || !known {
					break
				}
				if half < best {
					best = half
					s.offset.Store(delta)
				}
			}
			if best != ^uint64(0) {
				break
			}
		}
		if left == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	b := s.peer.Block(layout.Ckernel)
	b.TSCDelta.Store(uint64(s.offset.Load()))
	if best == ^uint64(0) {
		best = 0
	}
	b.TSCError.Store(best)
}
