// Package futex is futex(2): threads sleep until others wake them, by the address of a word in their memory.
//
// Waiters are in buckets by key, each with its lock. The order that loses no wake-up: a waiter counts itself in its bucket and then
// reads the word, with the bucket locked; a waker's program has changed the word, then the waker looks at the count (after a
// full barrier), then at the list. No allocation is made on the way to sleep.
//
// Lock order: bucket.mu (two of them: by index), then those of Memory's Load32 and CompareAndSwap32. A Sleeper is roused with a
// bucket locked.
package futex

import (
	"dinos/dkernel/wait"
)

// Key names a futex: the same for all who mean the same word, in whatever address space. It is a value without pointers that means
// the same on every dkernel. Package mm makes keys: of private futexes from the space's id and the address, of shared ones
// from the object's id and the offset.
type Key struct{ Object, Offset uint64 }

// Memory is the address space of a waiter or waker. Each method fails with linux.EFAULT at addresses that are not allowed.
type Memory interface {
	// FutexKey returns the key of the word at addr. write: the memory must be writable, so that a private copy is made.
	FutexKey(addr uint64, shared, write bool) (Key, error)
	// Load32 reads the word at addr, a multiple of 4, in one piece.
	Load32(addr uint64) (uint32, error)
	// CompareAndSwap32 replaces the word at addr if it is old, and returns what it was.
	CompareAndSwap32(addr uint64, old, new uint32) (was uint32, err error)
}

// Remote is the way to waiters on other dkernels. Nobody of this dkernel's Table is locked during its calls, but for
// Waiting, which is called with a bucket locked and must not block.
type Remote interface {
	// Wake wakes up to n waiters of key elsewhere whose bitset meets bits, and returns how many.
	Wake(key Key, n int, bits uint32) int
	// Waiting tells that the number of local waiters of key has changed by delta.
	Waiting(key Key, delta int)
}

// Call is what all operations need of the thread that makes them.
type Call struct {
	Mem      Memory
	Sleeper  *wait.Sleeper
	Waiter   *Waiter // the thread's, not in use
	Owner    *Owner  // the thread, as the owner of PI futexes
	Deadline int64   // on the Sleeper's clock, or wait.Forever
}
