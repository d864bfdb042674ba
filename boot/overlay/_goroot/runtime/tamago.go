package runtime

// The functions in this file are those that TamaGo's toolchain adds to package runtime, for its drivers.

// MemRegion returns the physical range in which package dma refuses to place buffers: none. The kernel's frame
// allocator keeps device memory and Go memory apart, by frame and not by range.
func MemRegion() (start, end uint64) { return 0, 0 }

// CPU returns the name of the processor for TamaGo's package amd64. It is unknown to the runtime.
func CPU() string { return "" }
