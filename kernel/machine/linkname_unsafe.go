package machine

import _ "unsafe" // for go:linkname

// dinosCrashBegin is in boot/overlay: the only way to store pointers while a collection is in progress and there is no P.
//
//go:linkname dinosCrashBegin runtime.dinosCrashBegin
func dinosCrashBegin()

// dinosCrashHeap is in boot/overlay: the only way to allocate on a stack the scheduler does not know.
//
//go:linkname dinosCrashHeap runtime.dinosCrashHeap
func dinosCrashHeap()

// systemstack is how the runtime runs code on that stack; there is no exported way.
//
//go:linkname systemstack runtime.systemstack
func systemstack(f func())
