// Package ring is bounded message queues in shared memory: [Tx] and [Rx] are the two ends of a ring with one sender and
// one receiver and messages of any size, [MultiTx] and [MultiRx] those of a ring with many senders and fixed slots.
//
// # Layout
//
// Words are 64 bits, little endian, offsets in bytes from the start of the ring, which starts on a cache line. Layout
// version 1 of both kinds:
//
//	0x000  magic · version · generation (region.Header)
//	0x018  size of the data in bytes (single), or number of slots (multi); a power of two
//	0x020  bytes of a slot (multi), 0 (single)
//	0x080  tail      written by the sender(s)
//	0x088  tx sleep  1 while the sender sleeps until there is room; set by the sender, cleared by whoever wakes it
//	0x100  head      written by the receiver
//	0x108  rx sleep  1 while the receiver sleeps; set by the receiver, cleared by whoever wakes it
//	0x180  data
//
// # One sender
//
// tail and head count words of data, modulo 2^48; the upper 16 bits are the ring's generation modulo 2^16. A message is
// one word, length:32 | mark:32, and its bytes, padded to words; it may wrap around the end of the data. The mark is a
// hash of position and generation: a receiver that lost step with its sender meets a wrong one.
//
// Each end keeps its own index in private memory and only publishes it. What it reads of its peer is checked: an index
// that is not within the ring, a length beyond the tail or a wrong mark gives [ErrCorrupt], which sticks to that end
// until the ring is made anew by [Format]. Nothing that a peer writes can make an end touch memory outside the data, copy
// more than the caller's buffer holds, or loop.
//
// Messages are copied out before anybody looks at them, so that a peer cannot change them between check and use.
//
// # Restarts
//
// A restarted sender goes on at the published tail, a restarted receiver skips to it (what is in the ring was meant for its
// past life), each without the other's help. Only a corrupt ring is made anew: Format raises the generation, the old ends
// get [ErrReset] and attach again; an index that an old end still publishes carries the old generation and is ignored.
//
// # Sleep and doorbells
//
//	sender                          receiver (Arm)
//	store tail                      store rx sleep = 1
//	load rx sleep                   load tail; if there is something, do not sleep
//	if 1: swap to 0, ring doorbell  sleep until the doorbell
//
// Each stores first and loads then, and the stores are locked instructions, so at least one of the two sees the other:
// either the receiver does not sleep or the sender rings. The swap makes it one doorbell per sleep. A sender that
// waits for room uses tx sleep and head the same way.
//
// # Many senders
//
// Slot i has a word lap:32 | generation:16 | sender:8 | state:8 and a length word, then the message. A sender claims the
// slot at tail by a compare-and-swap on the slot's own word, which so names its owner; then anybody may move tail on. It
// stores the message and turns the slot ready by a second compare-and-swap. A sender that dies between the two blocks
// the receiver visibly: [MultiRx.Blocked] names it and [MultiRx.Skip] passes over the slot once that sender is known to
// be fenced. Senders keep no state of their own, so their restart needs nothing.
//
// # Concurrency
//
// Each end belongs to one goroutine at a time, except MultiTx, which any number may use. Nothing here blocks, allocates
// (except for errors that end the use of a ring) or takes locks.
package ring
