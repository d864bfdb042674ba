package machine

import (
	"dinos/boot/record"
	"dinos/boot/stub"
	"dinos/kernel/mem"
)

// early is what must be known before the heap exists.
type early struct {
	ram   [128]mem.Range
	nram  int
	keep  [32]mem.Range // RAM that holds something: modules
	nkeep int
}

func (e *early) read(si uint64) {
	n := *phys[uint32](si + 48)
	at := *phys[uint64](si + 40)
	for i := range min(uint64(n), uint64(len(e.ram))) {
		p := at + i*24
		start, size, kind := *phys[uint64](p), *phys[uint64](p + 8), *phys[uint32](p + 16)
		if kind == 1 && size != 0 {
			e.ram[e.nram] = mem.Range{Start: start, Size: size}
			e.nram++
			found.ram += size
			found.topRAM = max(found.topRAM, start+size)
		}
	}
	mods := *phys[uint32](si + 12)
	ml := *phys[uint64](si + 16)
	for i := range uint64(mods) {
		e.keep[e.nkeep] = mem.Range{Start: *phys[uint64](ml + i*32), Size: *phys[uint64](ml + i*32 + 8)}
		e.nkeep++
	}
	rsdp := *phys[uint64](si + 32)
	for p := uint64(0xe0000); rsdp == 0 && p < 0x100000; p += 16 {
		if *phys[uint64](p) == 0x2052545020445352 {
			rsdp = p
		}
	}
	e.cpus(rsdp)
}

func (e *early) cpus(rsdp uint64) {
	root, w := uint64(*phys[uint32](rsdp + 16)), uint64(4)
	if *phys[uint8](rsdp + 15) >= 2 {
		root, w = *phys[uint64](rsdp + 24), 8
	}
	n := (uint64(*phys[uint32](root + 4)) - 36) / w
	for i := range n {
		t := uint64(*phys[uint32](root + 36 + w*i))
		if *phys[uint32](t) != 0x43495041 { // APIC
			continue
		}
		end := t + uint64(*phys[uint32](t + 4))
		for p := t + 44; p < end; p += uint64(*phys[uint8](p + 1)) {
			if *phys[uint8](p) == 0 && *phys[uint32](p + 4)&1 != 0 {
				found.cpus[found.ncpu] = uint64(*phys[uint8](p + 3))
				found.ncpu++
			}
		}
	}
	_ = record.DirectMap
}

// hole returns the address of size free bytes above the image, below 4 GiB, clear of what is kept; 0 if there is none.
func (e *early) hole(size uint64) uint64 {
	at := stub.Record.PhysEnd
	for _, r := range e.ram[:e.nram] {
		if at >= r.Start && at+size <= r.Start+r.Size {
			return at
		}
	}
	return 0
}
