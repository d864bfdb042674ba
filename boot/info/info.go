// Package info parses what the machine tells a kernel at boot: the PVH start info with its command line, memory map
// and modules (Xen xen/include/public/arch-x86/hvm/start_info.h), and the ACPI tables that list the processors
// and interrupt controllers (ACPI 6.5 chapter 5).
//
// Everything is read through a [Memory] and is distrusted: counts are capped by the Max constants, so allocation
// is bounded whatever memory holds, and every error is an [*Error] that names the field and its address.
package info

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
)

// Caps on what is accepted.
const (
	MaxCommandLine = 4096 // bytes, with the terminating NUL
	MaxRanges      = 128  // memory map entries
	MaxModules     = 16
)

// Memory returns the n bytes of physical memory at phys, or an error when they cannot be read. The bytes may be
// the memory itself: package info does not write to them, and keeps none.
type Memory func(phys, n uint64) ([]byte, error)

// Error is what is wrong with a boot record or table.
type Error struct {
	Field string // as in the specification, "start_info.magic" or "MADT.entry[3].length"
	Addr  uint64 // physical address of the field
	Err   error  // what is wrong, and what would be right
}

func (e *Error) Error() string {
	return fmt.Sprintf("boot: %s at %#x: %v", e.Field, e.Addr, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

func bad(field string, addr uint64, format string, args ...any) error {
	return &Error{field, addr, fmt.Errorf(format, args...)}
}

// Kind is the type of a memory range, numbered as in the memory map.
type Kind uint32

const (
	RAM      Kind = 1
	Reserved Kind = 2 // also all types that are not known
	ACPI     Kind = 3 // ACPI tables: RAM once they are read
	NVS      Kind = 4
	Unusable Kind = 5
	Disabled Kind = 6
	PMEM     Kind = 7
)

var kindNames = [...]string{RAM: "RAM", Reserved: "reserved", ACPI: "ACPI", NVS: "ACPI NVS", Unusable: "unusable", Disabled: "disabled", PMEM: "persistent"}

// String names k.
func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return "type " + strconv.FormatUint(uint64(k), 10)
}

// Range is a range of physical memory, [Start, End).
type Range struct {
	Start, End uint64
	Kind       Kind
}

// Module is a file that the loader placed in memory, [Start, End); the first is QEMU's -initrd.
type Module struct {
	Start, End  uint64
	CommandLine string
}

// Info is a checked start info.
type Info struct {
	Version     uint32
	Flags       uint32
	CommandLine string
	// Memory is ascending, without overlaps, empty ranges and neighbours of the same kind. It is nil in
	// version 0 of the start info, which has no memory map.
	Memory  []Range
	Modules []Module
	RSDP    uint64 // physical address, 0 if the loader did not say
}

// RAM returns the sum of the sizes of all ranges of kind RAM, in bytes.
func (i *Info) RAM() uint64 {
	var n uint64
	for _, r := range i.Memory {
		if r.Kind == RAM {
			n += r.End - r.Start
		}
	}
	return n
}

// Magic is the first word of a start info.
const Magic = 0x336ec578

// Offsets of the start info's fields, and sizes of its parts.
const (
	versionOff  = 4
	flagsOff    = 8
	nrModsOff   = 12
	modlistOff  = 16
	cmdlineOff  = 24
	rsdpOff     = 32
	sizeV0      = 40
	memmapOff   = 40
	nrMemmapOff = 48
	sizeV1      = 56

	modEntrySize = 32
	memEntrySize = 24
)

// physLimit is the end of the physical address space: 52 bits are all that page tables can hold.
const physLimit = 1 << 52

var le = binary.LittleEndian

// read is mem with a typed error and without trust in its length.
func (mem Memory) read(field string, phys, n uint64) ([]byte, error) {
	if phys == 0 {
		return nil, bad(field, phys, "address is 0")
	}
	if phys >= physLimit || n > physLimit-phys {
		return nil, bad(field, phys, "%d bytes there lie outside physical memory", n)
	}
	b, err := mem(phys, n)
	if err != nil {
		return nil, &Error{field, phys, err}
	}
	if uint64(len(b)) != n {
		return nil, bad(field, phys, "%d of %d bytes can be read", len(b), n)
	}
	return b, nil
}

// Parse reads the start info at physical address addr and everything it points to but ACPI tables.
func Parse(mem Memory, addr uint64) (*Info, error) {
	b, err := mem.read("start_info", addr, sizeV0)
	if err != nil {
		return nil, err
	}
	if m := le.Uint32(b); m != Magic {
		return nil, bad("start_info.magic", addr, "%#x, want %#x", m, Magic)
	}
	i := &Info{Version: le.Uint32(b[versionOff:]), Flags: le.Uint32(b[flagsOff:]), RSDP: le.Uint64(b[rsdpOff:])}
	if i.RSDP >= physLimit {
		return nil, bad("start_info.rsdp_paddr", addr+rsdpOff, "%#x is outside physical memory", i.RSDP)
	}
	if at := le.Uint64(b[cmdlineOff:]); at != 0 {
		if i.CommandLine, err = mem.text("start_info.cmdline_paddr", at); err != nil {
			return nil, err
		}
	}
	nmods, modlist := le.Uint32(b[nrModsOff:]), le.Uint64(b[modlistOff:])
	// Versions are compatible upwards: a later one only adds fields.
	if i.Version >= 1 {
		if b, err = mem.read("start_info", addr, sizeV1); err != nil {
			return nil, err
		}
		n := le.Uint32(b[nrMemmapOff:])
		if n == 0 || n > MaxRanges {
			return nil, bad("start_info.memmap_entries", addr+nrMemmapOff, "%d entries, want 1 to %d", n, MaxRanges)
		}
		if i.Memory, err = mem.ranges(le.Uint64(b[memmapOff:]), n); err != nil {
			return nil, err
		}
	}
	if nmods > MaxModules {
		return nil, bad("start_info.nr_modules", addr+nrModsOff, "%d modules, want at most %d", nmods, MaxModules)
	}
	if i.Modules, err = mem.modules(modlist, nmods, i.Memory); err != nil {
		return nil, err
	}
	return i, nil
}

// text returns the NUL-terminated string at phys. It reads page by page: the next may not exist.
func (mem Memory) text(field string, phys uint64) (string, error) {
	var s []byte
	for at := phys; len(s) < MaxCommandLine; {
		n := min(4096-at%4096, MaxCommandLine-uint64(len(s)))
		b, err := mem.read(field, at, n)
		if err != nil {
			return "", err
		}
		if end := slices.Index(b, 0); end >= 0 {
			return string(append(s, b[:end]...)), nil
		}
		s, at = append(s, b...), at+n
	}
	return "", bad(field, phys, "no end within %d bytes: want a NUL-terminated string", MaxCommandLine)
}

// ranges reads and normalises the memory map of n entries at phys.
func (mem Memory) ranges(phys uint64, n uint32) ([]Range, error) {
	b, err := mem.read("memmap", phys, uint64(n)*memEntrySize)
	if err != nil {
		return nil, err
	}
	type entry struct {
		Range
		index int
	}
	all := make([]entry, 0, n)
	for i := range int(n) {
		e := b[i*memEntrySize:]
		start, size, kind := le.Uint64(e), le.Uint64(e[8:]), Kind(le.Uint32(e[16:]))
		if size == 0 {
			continue // QEMU's microvm counts one such entry at the end
		}
		if start >= physLimit || size > physLimit-start {
			return nil, bad(fmt.Sprintf("memmap[%d].size", i), phys+uint64(i)*memEntrySize+8, "[%#x, +%#x) ends outside physical memory", start, size)
		}
		if kind < RAM || kind > PMEM {
			kind = Reserved
		}
		all = append(all, entry{Range{start, start + size, kind}, i})
	}
	slices.SortFunc(all, func(a, b entry) int { return cmp.Compare(a.Start, b.Start) })
	out := make([]Range, 0, len(all))
	for i, e := range all {
		if i > 0 && all[i-1].End > e.Start {
			p := all[i-1]
			return nil, bad(fmt.Sprintf("memmap[%d]", e.index), phys+uint64(e.index)*memEntrySize,
				"%v [%#x, %#x) overlaps entry %d, %v [%#x, %#x)", e.Kind, e.Start, e.End, p.index, p.Kind, p.Start, p.End)
		}
		if k := len(out) - 1; k >= 0 && out[k].End == e.Start && out[k].Kind == e.Kind {
			out[k].End = e.End
			continue
		}
		out = append(out, e.Range)
	}
	return out, nil
}

// modules reads the list of n modules at phys. Where there is a memory map, a module must lie in RAM.
func (mem Memory) modules(phys uint64, n uint32, ram []Range) ([]Module, error) {
	if n == 0 {
		return nil, nil
	}
	b, err := mem.read("modlist", phys, uint64(n)*modEntrySize)
	if err != nil {
		return nil, err
	}
	out := make([]Module, 0, n)
	for i := range int(n) {
		e, at := b[i*modEntrySize:], phys+uint64(i)*modEntrySize
		start, size, text := le.Uint64(e), le.Uint64(e[8:]), le.Uint64(e[16:])
		if start >= physLimit || size > physLimit-start {
			return nil, bad(fmt.Sprintf("modlist[%d].size", i), at+8, "[%#x, +%#x) ends outside physical memory", start, size)
		}
		m := Module{Start: start, End: start + size}
		if ram != nil && size > 0 && !slices.ContainsFunc(ram, func(r Range) bool {
			return r.Kind == RAM && r.Start <= m.Start && m.End <= r.End
		}) {
			return nil, bad(fmt.Sprintf("modlist[%d].paddr", i), at, "module [%#x, %#x) is not in RAM: give the machine more memory", m.Start, m.End)
		}
		if text != 0 {
			if m.CommandLine, err = mem.text(fmt.Sprintf("modlist[%d].cmdline_paddr", i), text); err != nil {
				return nil, err
			}
		}
		out = append(out, m)
	}
	return out, nil
}
