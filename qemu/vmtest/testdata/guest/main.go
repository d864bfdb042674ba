// Command guest is the kernel that the tests of qemu/vmtest boot. It never reaches the Go runtime: its assembly prints one of the
// scripts below, chosen by the first letter of the command line.
package main

// Info has the layout of record.Info; it is spelled out here so that the program has no imports.
type Info struct {
	Magic, Version, PhysStart, PhysEnd, PML4   uint64
	TextStart, TextEnd, RodataStart, RodataEnd uint64
	DataStart, DataEnd                         uint64
}

// Record is filled in by boot/image.
var Record = Info{Magic: 0x636572736f6e6964, Version: 1}

// Script ends with an exit that says that tests failed.
var Script = "booting\r\n" +
	`##dinos-test {"test":"first","event":"run"}` + "\r\n" +
	`##dinos-test {"test":"first","event":"pass","ms":1.5,"msg":"42 in the guest's message"}` + "\r\n" +
	`##dinos-test {"test":"second","event":"run"}` + "\r\n" +
	`##dinos-test {"test":"second","event":"skip","msg":"no device"}` + "\r\n" +
	`##dinos-test {"test":"third","event":"run"}` + "\r\n" +
	`##dinos-test {"test":"third","event":"fail","msg":"guest: third is wrong"}` + "\r\n" +
	`##dinos-test {"event":"done","pass":1,"fail":1,"skip":1}` + "\r\n"

// Hang is followed by an endless loop.
var Hang = `##dinos-test {"test":"stuck","event":"run"}` + "\r\n"

// Stack is used from its end.
var Stack [8 << 10]byte

func main() {}
