package runtime

import _ "unsafe" // for go:linkname

// These functions are for a kernel that writes its last report. Nothing in the distribution offers what they do. Their
// names are pushed so that package machine may call them.

// dinosCrashBegin ends garbage collection as far as allocation and write barriers can tell: kernel code has no P, so it could not
// even store a pointer while a collection is in progress.
//
//go:linkname dinosCrashBegin
//go:nosplit
func dinosCrashBegin() {
	writeBarrier.enabled = false
	gcBlackenEnabled = 0
	gcphase = _GCoff
}

// dinosCrashP stands in for a P, which allocation and sync.Pool want; nobody else's may be used, its owner was stopped anywhere.
var dinosCrashP p

// dinosCrashHeap makes the heap usable on a stack that the scheduler does not know, after dinosCrashBegin and once
// everything else has been stopped. What the heap's locks protect may be in any state; the caller must survive a throw.
//
//go:linkname dinosCrashHeap
func dinosCrashHeap() {
	mp := getg().m
	mp.g0 = getg()
	mp.mallocing = 0
	mp.locks = 1 // no preemption, no profiling
	pp := &dinosCrashP
	mp.p.set(pp)
	if pp.mcache == nil {
		pp.status = _Prunning
		pp.wbBuf.reset()
		pp.mcache = allocmcache()
	}
}
