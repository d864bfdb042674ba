// Package mm is the address spaces of programs: mappings, page faults, copy-on-write, and the kernel's access to programs' memory.
//
// # Structure
//
// A [Space] is a sequential structure behind operations, as package nr wants it. The structure (tree) has the mappings, in a tree that
// knows its gaps, and a replica of the page tables. An operation (op) is a fixed-size value without pointers; frames are
// chosen by whoever issues it and travel in it. A Space with one replica applies operations under a mutex; when a second replica is to
// join, the same tree goes under a log (engine.attach).
//
// Reading page tables needs no operation and no lock: lookups of pages that are present, copies from and to programs, futex words.
//
// A page fault is resolved in three steps: look at the mapping; get a frame and its contents, with no lock held; install it by an
// operation that finds out whether what the frame is for is still there. If not, begin again.
//
// # Frames
//
// An entry of the page tables holds one reference to its frame, not one for each replica. What an operation takes out is handed
// to its issuer, who makes sure that nobody can use it any more, and then frees it: Hardware.Flush for the processors, readers.wait
// for the kernel's own accesses.
//
// A leaf has two bits of its own. leafOwn says that the frame belongs to the address space, and not to an object. leafOwned says that
// it may be made writable without asking anybody: fork takes it away.
//
// # Locks
//
// In this order:
//
//	Space.forkMu      fork, until processors have forgotten what they could write to; faults that would copy wait for it
//	locks of objects  taken by them in Object's methods, held by them when they call Mappings
//	Mappings.mu
//	engine.mu         the tree; that of a parent before that of the child that is being made
//	Space.mu          bindings; that of a parent before that of a child
//	readers.mu, and locks of frame.Pool and of Hardware
//
// A reader (readers.enter to leave) takes no lock and does not block. Objects are called with no lock held, but for Retain, Access, Info,
// ID and Notify, which must not block.
//
// # What Linux does and mm does not
//
// Swap, huge pages (MAP_HUGETLB finds none), KSM, protection keys, userfaultfd. MADV_FREE drops pages at once, which it may.
package mm
