// Command guest is the kernel that the tests of qemu/vm boot. It never reaches the Go runtime: its assembly says hello, prints
// its command line and does what the first letter of that says.
package main

// Info has the layout of record.Info; it is spelled out here so that the program has no imports.
type Info struct {
	Magic, Version, PhysStart, PhysEnd, PML4   uint64
	TextStart, TextEnd, RodataStart, RodataEnd uint64
	DataStart, DataEnd                         uint64
}

// Record is filled in by boot/image.
var Record = Info{Magic: 0x636572736f6e6964, Version: 1}

// Stack is used from its end.
var Stack [8 << 10]byte

func main() {}
