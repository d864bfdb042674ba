package machine

import (
	"dinos/boot/info"
	"dinos/boot/record"
	"dinos/boot/stub"
	"dinos/kernel/mem"
)

// early is what must be known before there is a heap: where memory is and how many CPUs to tell the runtime of. Package
// info, which parses the same records completely, needs the heap; start does that later and compares. What is read here
// is checked as far as it must be to end in an error and not in a fault: every address against the boot page tables, every count.
type early struct {
	ram   [info.MaxRanges]mem.Range
	nram  int
	keep  [info.MaxModules + 1]mem.Range // RAM that holds something: modules, the start info
	nkeep int
}

// Offsets in hvm_start_info and its lists (Xen, start_info.h), and in ACPI tables (ACPI 6.5, chapter 5).
const (
	siVersion, siModules, siModlist, siRSDP, siMemmap, siEntries = 4, 12, 16, 32, 40, 48

	memmapEntry, modlistEntry = 24, 32

	rsdpRevision, rsdpRSDT, rsdpXSDT = 15, 16, 24
	tableLength, tableHeader         = 4, 36
	madtFirst                        = 44
	maxTable                         = 1 << 20

	sigRSDP = 0x2052545020445352 // "RSD PTR "
	sigMADT = 0x43495041         // "APIC"
)

// maxPhysical is the end of the direct map: it must not run into the window of the Go runtime.
const maxPhysical = SpaceBase - record.DirectMap

// early32 reads a word; what the boot page tables do not map cannot be read.
func early32(what string, pa uint64) uint64 {
	if pa > record.BootMapSize-4 {
		refuse2("boot record: ", what, " is out of reach at ", pa)
	}
	return uint64(*phys[uint32](pa))
}

func early64(what string, pa uint64) uint64 { return early32(what, pa) | early32(what, pa+4)<<32 }

func (e *early) read(si uint64) {
	if v := early32("start_info", si); v != info.Magic {
		refuse("boot record: start_info has no magic: ", v)
	}
	if v := early32("start_info", si+siVersion); v < 1 {
		refuse("boot record: start_info is too old, want version 1 with a memory map: ", v)
	}
	e.readMemory(early64("start_info", si+siMemmap), early32("start_info", si+siEntries))
	e.readModules(early64("start_info", si+siModlist), early32("start_info", si+siModules))
	e.readCPUs(early64("start_info", si+siRSDP))
}

func (e *early) readMemory(at, n uint64) {
	if n == 0 || n > info.MaxRanges {
		refuse("boot record: memory map has an impossible number of entries: ", n)
	}
	for i := range n {
		p := at + i*memmapEntry
		start, size := early64("memory map", p), early64("memory map", p+8)
		if info.Kind(early32("memory map", p+16)) != info.RAM || size == 0 {
			continue
		}
		if start+size < start || start+size > maxPhysical {
			refuse("boot record: RAM ends outside physical memory: ", start)
		}
		e.ram[e.nram] = mem.Range{Start: start, Size: size}
		e.nram++
		found.ram += size
		found.topRAM = max(found.topRAM, start+size)
	}
	if found.ram < MinRAM {
		refuse("too little memory: want a machine with at least 32 MiB, usable KiB: ", found.ram>>10)
	}
}

func (e *early) readModules(at, n uint64) {
	if n > info.MaxModules {
		refuse("boot record: impossible number of modules: ", n)
	}
	for i := range n {
		start, size := early64("module list", at+i*modlistEntry), early64("module list", at+i*modlistEntry+8)
		if start+size < start || start+size > found.topRAM {
			refuse("boot record: module is not in RAM: ", start)
		}
		if size != 0 {
			e.keep[e.nkeep] = mem.Range{Start: start, Size: size}
			e.nkeep++
		}
	}
}

// readCPUs takes the APIC IDs of the enabled CPUs from the MADT; the first CPU is the one that runs this.
func (e *early) readCPUs(rsdp uint64) {
	for p := uint64(0xe0000); rsdp == 0 && p < 0x100000; p += 16 {
		if early64("RSDP", p) == sigRSDP {
			rsdp = p
		}
	}
	if rsdp == 0 || early64("RSDP", rsdp) != sigRSDP {
		refuse("no ACPI tables: the machine must have ACPI (QEMU: not acpi=off); RSDP: ", rsdp)
	}
	root, width := early32("RSDP", rsdp+rsdpRSDT), uint64(4)
	if early32("RSDP", rsdp+rsdpRevision)&0xff >= 2 {
		root, width = early64("RSDP", rsdp+rsdpXSDT), 8
	}
	n := early32("ACPI root table", root+tableLength)
	if n < tableHeader || n > maxTable {
		refuse("ACPI root table has an impossible length: ", n)
	}
	for at := root + tableHeader; at+width <= root+n; at += width {
		if t := early32("ACPI root table", at); early32("ACPI table", t) == sigMADT {
			e.readMADT(t)
			return
		}
	}
	refuse("ACPI has no MADT: cannot tell how many CPUs there are; root table: ", root)
}

func (e *early) readMADT(t uint64) {
	n := early32("MADT", t+tableLength)
	if n < madtFirst || n > maxTable {
		refuse("MADT has an impossible length: ", n)
	}
	possible := 0
	for p := t + madtFirst; p+2 <= t+n; {
		head := early32("MADT", p)
		kind, size := head&0xff, head>>8&0xff
		if size < 2 {
			refuse("MADT entry has an impossible length: ", size)
		}
		if kind == 0 { // processor local APIC
			possible++
			if early32("MADT", p+4)&1 != 0 {
				if found.ncpu == MaxCPUs {
					refuse("too many CPUs, the limit is: ", MaxCPUs)
				}
				found.cpus[found.ncpu] = head >> 24
				found.ncpu++
			}
		}
		p += size
	}
	switch {
	case found.ncpu == 0:
		refuse("MADT lists no enabled CPU; entries: ", uint64(possible))
	case possible < 2 && found.features.isTCG():
		refuse("atomics are not atomic between VMs with one possible CPU: start QEMU with -smp 1,maxcpus=2; possible CPUs: ", uint64(possible))
	}
}

// hole returns the address of size free bytes, page-aligned, below 4 GiB, above the image and clear of what is kept; 0 if there is none.
func (e *early) hole(size uint64) uint64 {
	at := stub.Record.PhysEnd
	for moved := true; moved; {
		moved = false
		for _, k := range e.keep[:e.nkeep] {
			if at < k.Start+k.Size && k.Start < at+size {
				at = (k.Start + k.Size + mem.FrameSize - 1) &^ (mem.FrameSize - 1)
				moved = true
			}
		}
	}
	for _, r := range e.ram[:e.nram] {
		if at >= r.Start && at+size <= r.Start+r.Size && at+size <= record.BootMapSize {
			return at
		}
	}
	return 0
}
