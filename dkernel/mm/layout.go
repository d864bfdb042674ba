package mm

// Layout is where an address space puts things. Package loader chooses it.
type Layout struct {
	StackTop uint64 // end of the stack; the loader puts the stack below
	MmapBase uint64 // mappings go below it, from the top down; or above it, if Legacy
	Legacy   bool   // from the bottom up, as with ADDR_COMPAT_LAYOUT
}
