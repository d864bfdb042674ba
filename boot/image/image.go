package image

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"

	"dinos/boot/record"
)

// Note type and name of a PVH entry point; Xen xen/include/public/elfnote.h.
const (
	notePhys32Entry = 18
	noteName        = "Xen\x00"
)

// DefaultRecord is the symbol of the record in this project's kernels.
const DefaultRecord = "dinos/boot/stub.Record"

// Options configures Rewrite.
type Options struct {
	// Record is the symbol of the kernel's record.Info; "" means DefaultRecord.
	Record string
}

// segment is a PT_LOAD of the input; addresses and sizes as in its program header.
type segment struct {
	flags                elf.ProgFlag
	off, vaddr           uint64
	filesz, memsz        uint64
	kind                 string // "text", "rodata" or "data"
	writable, executable bool
}

// end is the page-aligned end of the segment in memory.
func (s segment) end() uint64 { return (s.vaddr + s.memsz + pageSize - 1) &^ (pageSize - 1) }

func (s segment) phys() uint64 { return s.vaddr - record.ImageBase }

func (s segment) pte() uint64 {
	e := uint64(pteLeaf | pteGlobal)
	if s.writable {
		e |= pteWrite
	}
	if !s.executable {
		e |= pteNX
	}
	return e
}

// Rewrite returns the bootable form of the linked kernel in, and the record that it wrote into it. It does not
// modify in. Every error says what is wrong with in and what would be right.
func Rewrite(in []byte, opt Options) ([]byte, record.Info, error) {
	if opt.Record == "" {
		opt.Record = DefaultRecord
	}
	k, err := parse(in)
	if err != nil {
		return nil, record.Info{}, fmt.Errorf("image: %w", err)
	}
	recOff, err := k.findRecord(opt.Record)
	if err != nil {
		return nil, record.Info{}, fmt.Errorf("image: %w", err)
	}
	t, err := bootTables(record.PhysBase+pageSize, k.segs)
	if err != nil {
		return nil, record.Info{}, fmt.Errorf("image: %w", err)
	}
	info := k.info(t.base)
	tramp, err := trampoline(uint32(t.base), info.PhysEnd, k.entry)
	if err != nil {
		return nil, record.Info{}, fmt.Errorf("image: %w", err)
	}
	if len(tramp.Code) > pageSize-stackSize {
		return nil, record.Info{}, fmt.Errorf("image: trampoline of %d bytes leaves no room for its stack", len(tramp.Code))
	}

	out := bytes.Clone(in)
	copy(out[recOff:], info.Bytes())
	return appendBoot(out, k.segs, tramp.Code, t), info, nil
}

// info describes the image that will be made of k.
func (k *kernel) info(pml4 uint64) record.Info {
	i := record.Info{
		Magic: record.Magic, Version: record.Version, PML4: pml4,
		PhysStart: record.PhysBase, PhysEnd: k.segs[len(k.segs)-1].end() - record.ImageBase,
	}
	for _, s := range k.segs {
		switch s.kind {
		case "text":
			i.TextStart, i.TextEnd = s.vaddr, s.end()
		case "rodata":
			i.RodataStart, i.RodataEnd = s.vaddr, s.end()
		case "data":
			i.DataStart, i.DataEnd = s.vaddr, s.end()
		}
	}
	return i
}

// appendBoot adds to a copy of the input what makes it bootable. All that was there keeps its file offset, so
// sections stay valid; the new program headers follow at the end and the ELF header points at them.
func appendBoot(out []byte, segs []segment, tramp []byte, t *tables) []byte {
	pad := func(align int) {
		out = append(out, make([]byte, -len(out)&(align-1))...)
	}
	pad(pageSize)
	bootOff := len(out)
	out = append(out, tramp...)
	pad(pageSize)
	out = append(out, t.bytes()...)
	bootLen := uint64(len(out) - bootOff)

	le := binary.LittleEndian
	noteOff := len(out)
	for _, v := range []uint32{uint32(len(noteName)), 8, notePhys32Entry} {
		out = le.AppendUint32(out, v)
	}
	out = append(out, noteName...)
	out = le.AppendUint64(out, record.PhysBase)
	noteLen := uint64(len(out) - noteOff)

	pad(8)
	le.PutUint64(out[phoffAt:], uint64(len(out)))
	le.PutUint16(out[phnumAt:], uint16(2+len(segs)))
	ph := func(p elf.Prog64) {
		// Writing fixed-size values to a buffer cannot fail.
		var b bytes.Buffer
		binary.Write(&b, le, p)
		out = append(out, b.Bytes()...)
	}
	ph(elf.Prog64{Type: uint32(elf.PT_NOTE), Flags: uint32(elf.PF_R), Off: uint64(noteOff),
		Filesz: noteLen, Memsz: noteLen, Align: 4})
	ph(elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_W | elf.PF_X), Off: uint64(bootOff),
		Vaddr: record.PhysBase, Paddr: record.PhysBase, Filesz: bootLen, Memsz: bootLen, Align: pageSize})
	for _, s := range segs {
		ph(elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(s.flags), Off: s.off,
			Vaddr: s.vaddr, Paddr: s.phys(), Filesz: s.filesz, Memsz: s.memsz, Align: pageSize})
	}
	return out
}
