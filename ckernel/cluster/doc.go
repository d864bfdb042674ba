// Package cluster is the control kernel's decisions: who is a member of the rack and who owns what. It is a deterministic state machine
// without clock, goroutine or I/O: Step takes an event (a request of a peer, a look at the heartbeats, the host tool's word that a machine
// is gone) and returns what is to be done. What it changes itself is behind interfaces and as deterministic: the table of grants, the
// scheduler's books, the directory of logs.
//
// # Membership
//
//	          Register                  Leave
//	absent ───────────────▶ up ───────────────────▶ absent
//	   ▲                     │ no heartbeat, cut off, or the host says so
//	   │ certain             ▼
//	   └────────────────── dead
//
// A life (peer and generation) is declared dead when its heartbeat has not moved for Timing.Dead, or nothing came through its rings for
// Timing.Rings although it moves: it is cut off. It is fenced then: the fence word in its machine block tells it to stop, and the host tool
// is asked to make sure that it does. What it owned stays its own, unusable for anybody, until that is certain: the host has confirmed it, or
// the machine's next life registers, which exists only because the former is over. Then cores and slices are taken back.
//
// Time is counted as the ckernel saw it: of the time between two looks no more than a beat and a half counts as silence. So a ckernel that
// was not scheduled for a while does not take all others for dead, who had no chance to be seen; it takes several looks of its own.
//
// # Ownership
//
// The table of grants says who owns what; the scheduler counts what processes hold where. What a kernel holds for itself the
// scheduler does not know: it makes the machine smaller by so much. Slices come from a pool that all machines share, so a machine's capacity
// is what processes hold there and all that is free.
//
// The slices of a process may be mapped wherever it runs. So when a machine is gone, those that a process had there go to another part of
// it, if there is one, and are not zeroed; cores and the kernel's own slices are taken back.
//
// A request for slices that are still to be zeroed waits for that, in the order of arrival. Slices that were given back are zeroed by the
// shell, a few at a time.
//
// Each held unit has a holder in the books: the peer that asked for it and answers for it. An answer may get lost, and with a ckernel all
// of these notes are. So holders claim what they know of (proto.Claim); what a holder does not claim was never told to anybody, and is taken
// back; after a restart as soon as all members have claimed.
//
// # Concurrency
//
// A Cluster belongs to one goroutine at a time.
package cluster
