// Package record defines what boot/image tells the kernel about the image it was booted from, and the fixed
// addresses on which both sides agree.
//
// The kernel declares one variable
//
//	var Record = record.Info{Magic: record.Magic, Version: record.Version}
//
// boot/image finds it by its symbol and overwrites it in the file; the kernel reads it at boot. It must be initialised
// like that, statically and not all zero: otherwise the linker places it in the bss, which is not in the file.
package record

import "encoding/binary"

const (
	// Magic is the bytes "dinosrec", read as a little-endian number.
	Magic uint64 = 0x636572736f6e6964
	// Version changes with every change of Info.
	Version uint64 = 1
	// Size is the size of Info in bytes.
	Size = 11 * 8
)

const (
	// ImageBase is the virtual address of physical address 0 in the mapping of the kernel image:
	// the image's physical addresses are its virtual addresses minus ImageBase.
	ImageBase uint64 = 0xffff_ffff_8000_0000
	// ImageWindow is how many bytes from ImageBase on an image may occupy: what one page directory maps.
	ImageWindow uint64 = 1 << 30
	// LinkAddress is where the text section has to be linked (go build -ldflags "-T -0x7fe00000").
	LinkAddress uint64 = ImageBase + 0x20_0000
	// DirectMap is the virtual address of physical address 0 in the direct map.
	DirectMap uint64 = 0xffff_8000_0000_0000
	// BootMapSize is how much physical memory the boot page tables map, directly and by identity.
	BootMapSize uint64 = 4 << 30
	// DeviceHole is the physical address from which on, up to BootMapSize, the boot page tables map uncached.
	DeviceHole uint64 = 3 << 30
	// PhysBase is the physical address of the trampoline, the first byte of the image in memory.
	PhysBase uint64 = 1 << 20
)

// Selectors of the boot GDT, which the trampolines leave loaded.
const (
	KernelCode = 0x08
	KernelData = 0x10
)

// Info describes the image in memory. Phys* and PML4 are physical addresses, the others virtual; each range
// is [start, end) and page-aligned. [PhysStart, PhysEnd) covers everything that was loaded: trampoline,
// boot page tables and all segments including the bss.
type Info struct {
	Magic, Version         uint64
	PhysStart, PhysEnd     uint64
	PML4                   uint64
	TextStart, TextEnd     uint64
	RodataStart, RodataEnd uint64
	DataStart, DataEnd     uint64
}

// Bytes returns i as it lies in memory.
func (i Info) Bytes() []byte {
	b := make([]byte, 0, Size)
	for _, v := range [...]uint64{
		i.Magic, i.Version, i.PhysStart, i.PhysEnd, i.PML4,
		i.TextStart, i.TextEnd, i.RodataStart, i.RodataEnd, i.DataStart, i.DataEnd,
	} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

// Filled reports whether boot/image wrote i, as opposed to i being blank or of another version.
func (i *Info) Filled() bool {
	return i.Magic == Magic && i.Version == Version && i.PhysEnd > i.PhysStart
}
