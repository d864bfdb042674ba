// Package oplog is an operation log in shared memory: a bounded ring of fixed-size entries to which any number of
// kernels append and which up to 64 replicas consume, each at its own pace and each from its own Go heap.
//
// It follows the log of node replication (Calciu et al., "Black-box Concurrent Data Structures for NUMA Architectures",
// ASPLOS 2017) and adds what that log lacks: replicas that come and go, eviction of one that died or stalls,
// recovery of entries whose writer never finished, and distrust of every word that a peer could have written.
//
// # Layout
//
// All words are 64 bits, little endian, offsets in bytes from the start of the log, which starts on a cache line.
// Nothing is a pointer. Layout version 1:
//
//	0x000  magic "nroplog1" · version · generation (region.Header)
//	0x018  entries      power of two
//	0x020  op size      bytes of one op
//	0x028  slots        how many replicas may attach, 1..64
//	0x030  arena size   bytes of operand arena per slot, 0 for none
//	0x038  fingerprint  of the op type, so that two builds do not misread each other
//	0x080  tail         next position to reserve
//	0x100  ctail        completed tail: everything below was consumed by some replica, perhaps seen by its readers
//	0x180  head         epoch:16 | position:48; entries below it may be reused
//	0x200  cross        markers placed, modulo 2^16, :16 | position behind the last one:48 (several logs only)
//	0x280  slots × 0x80 slot word: incarnation:14 | state:2 | local tail:48
//	       entries × stride, stride = 16 + op size rounded up to a cache line:
//	           +0  state  lap:32 | incarnation:16 | slot:8 | kind:8; for a marker lap:32 | cross number:24 | kind:8
//	           +8  meta   operand offset:32 | operand length:32, in the arena of the entry's slot
//	           +16 op
//	       slots × arena size
//
// A position counts entries since the log was made and never wraps (48 bits: nine years at a million ops a second; then
// [ErrExhausted]). Position p lives in entry p modulo entries and has lap p/entries + 1: the liveness mark of the original
// log, widened to a number so that it names the lap instead of its parity. Memory starts zero, which is lap 0: never used.
//
// # Append
//
// A writer owns a slot (word: live, incarnation G). To append n ops it
//
//  1. reserves: compare-and-swaps tail from t to t+n, if t+n ≤ head+entries. One such swap serves the whole batch.
//  2. stamps each entry: state (lap-1, anything resolved) → (lap, slot, G, reserved).
//  3. stores op and meta with plain stores.
//  4. publishes: state (lap, slot, G, reserved) → (lap, slot, G, op).
//
// Steps 2 and 4 are compare-and-swaps because of recovery: whoever resolves a hole first wins, and the loser knows it.
// A writer whose stamp fails has lost that position to a no-op and reserves another one.
//
// # Consume, and what frees entries
//
// A replica copies published entries out, in order, into private memory, and only then moves its local tail with a
// compare-and-swap on its slot word. Success proves that it was not evicted up to that point, so that no entry it copied
// was reused meanwhile; op bytes are never looked at in shared memory. head is the least local tail of all live or
// joining slots. Any writer that finds the ring full recomputes it: read head, read the slots, compare-and-swap head.
// Before it lets anybody see the effect of position p, a replica raises ctail above p; a reader on any replica loads ctail
// first and waits until its replica has consumed that far. So a value seen once is seen by every later read.
//
// # Slots, incarnations, fencing
//
//	free(G) → joining(G+1) → live(G+1) → free(G+1)        leave
//	                 └──────────┴→ evicted(G+1) → free(G+1)   evict, then release
//
// A joiner takes a slot with its local tail at the position of the snapshot it starts from, then bumps head's epoch,
// which succeeds only if head is not past that position. A collector that read the slots before the joiner took its
// slot fails at its swap of head, because the epoch has changed; one that reads them later sees the joiner. A slot whose
// incarnation has reached its maximum is not handed out again, so an incarnation never comes back.
//
// Eviction is decided by the membership authority and has three steps, each idempotent, so that a second authority
// can finish what a first one began:
//
//  1. the slot word becomes evicted. From here on head does not wait for the slot, and its owner's next consumption or
//     append fails: it learns that it was evicted and that its pending ops have an unknown fate.
//  2. a fence (slot, G) is put into the log, in one compare-and-swap on an entry's state. Every replica ignores entries of
//     (slot, ≤G) that come behind the fence, so that all replicas agree about a writer that was between its last look at its
//     slot word and its publication. Entries before the fence count.
//  3. every hole below the fence is resolved. An unstamped entry becomes a no-op, whoever reserved it; an entry
//     stamped by (slot, G) becomes retired.
//
// After step 3 nothing that the evicted writer still does has an effect: what it stamped is lost, what it has not stamped
// yet it cannot, what it reserves from now on lies behind the fence.
//
// # Holes
//
// A combiner may die between reserving and publishing. Nobody waits for it for ever: a consumer that meets an unstamped entry
// for longer than the patience turns it into a no-op (safe against a live but slow writer, which reserves again), and
// one that meets an entry stamped by an incarnation that was evicted retires it. An entry stamped by a live incarnation
// is waited for; the Blocker names it, for the kernel to report to the authority.
//
// Retired is not the same as no-op. A slow writer that had stamped its entry may wake up years later in the middle of step 3
// of its append and store op words, with plain stores, into an entry that the ring has long reused. So an entry stamped by
// an evicted incarnation is taken out of use: it counts as a no-op in each lap until the incarnation is released, which
// the evicted replica does itself when it learns of its eviction, or the authority when it knows that the kernel is dead. The
// same release frees the slot and its operand arena. At most one batch of entries is out of use per evicted slot.
//
// # Several logs
//
// A structure whose ops commute by key may use several logs, each one of these. Ops that concern all of them go to one more
// log, the cross log; its position x is tied into every other log by a marker, again a single swap that anybody can do in
// place of an issuer that died. The first marker x in a log counts, later ones are skipped. See package replica for the barrier.
//
// # Concurrency
//
// A Log is safe for any number of goroutines and kernels. A Member and its Chunk belong to one goroutine at a time: package
// replica guards them by the combiner lock. All loops are bounded by the ring, by the number of slots or by a retry limit.
package oplog
