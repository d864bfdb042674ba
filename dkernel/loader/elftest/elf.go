// Package elftest makes small static programs: ELF files of any shape, good or bad, and machine code for ring 3 that needs no
// toolchain. Tests of the loader run them on the host, boot tests in the kernel.
package elftest

import (
	"encoding/binary"

	"dinos/kernel/linux"
)

// Base is where Build puts position-dependent programs.
const Base = 0x400000

// Segment is a program header, and what the file has there.
type Segment struct {
	Type, Flags   uint32
	Off, Vaddr    uint64
	Filesz, Memsz uint64
	Align         uint64
	Data          []byte // written at Off; may be shorter or longer than Filesz
}

// File is an ELF64 file. The zero value of a field that has a usual value stands for that value; Raw changes any byte afterwards.
type File struct {
	Type, Machine uint16 // ET_EXEC, EM_X86_64
	Entry         uint64
	Phoff         uint64 // behind the header
	Phentsize     uint16 // 56
	Phnum         uint16 // len(Segments)
	Segments      []Segment
	Raw           func(b []byte) []byte
}

// Bytes is the file.
func (f *File) Bytes() []byte {
	or := func(v, usual uint64) uint64 {
		if v == 0 {
			return usual
		}
		return v
	}
	le := binary.LittleEndian
	phoff := or(f.Phoff, linux.ElfEhdrSize)
	size := phoff + uint64(len(f.Segments))*linux.ElfPhdrSize
	for _, s := range f.Segments {
		if len(s.Data) > 0 {
			size = max(size, s.Off+uint64(len(s.Data)))
		}
	}
	b := make([]byte, size)
	copy(b, linux.ELFMAG+"\x02\x01\x01")
	h := b[16:16]
	h = le.AppendUint16(le.AppendUint16(h, uint16(or(uint64(f.Type), linux.ET_EXEC))), uint16(or(uint64(f.Machine), linux.EM_X86_64)))
	h = le.AppendUint32(h, 1)
	h = le.AppendUint64(le.AppendUint64(le.AppendUint64(h, f.Entry), phoff), 0)
	h = le.AppendUint32(h, 0)
	h = le.AppendUint16(le.AppendUint16(h, linux.ElfEhdrSize), uint16(or(uint64(f.Phentsize), linux.ElfPhdrSize)))
	le.AppendUint16(h, uint16(or(uint64(f.Phnum), uint64(len(f.Segments)))))
	p := b[phoff:phoff]
	for _, s := range f.Segments {
		p = le.AppendUint32(le.AppendUint32(p, s.Type), s.Flags)
		for _, v := range [...]uint64{s.Off, s.Vaddr, s.Vaddr, s.Filesz, s.Memsz, s.Align} {
			p = le.AppendUint64(p, v)
		}
		if len(s.Data) > 0 {
			copy(b[s.Off:], s.Data)
		}
	}
	if f.Raw != nil {
		b = f.Raw(b)
	}
	return b
}
