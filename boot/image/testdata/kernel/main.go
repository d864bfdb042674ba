// Command kernel is the smallest program that boot/image can make bootable: the tests of that package
// boot it. Its entry never reaches the Go runtime; it checks in assembly what the trampoline promised,
// says so on COM1 and leaves through isa-debug-exit.
package main

// Info has the layout of record.Info; it is spelled out here so that the program has no imports.
type Info struct {
	Magic, Version, PhysStart, PhysEnd, PML4   uint64
	TextStart, TextEnd, RodataStart, RodataEnd uint64
	DataStart, DataEnd                         uint64
}

// Record is filled in by boot/image.
var Record = Info{Magic: 0x636572736f6e6964, Version: 1}

// Zeros must be zero at entry: it lies in the bss.
var Zeros [64 << 10]byte

func main() {}
