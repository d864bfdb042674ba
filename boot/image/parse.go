package image

import (
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"dinos/boot/record"
)

// Sizes and offsets of the ELF64 header; System V ABI, chapter 4.
const (
	ehdrSize = 64
	phdrSize = 56
	shdrSize = 64
	phoffAt  = 0x20
	phnumAt  = 0x38
)

// linkHint ends the messages about a wrong link address.
const linkHint = `link with -ldflags "-T -0x7fe00000"`

// kernel is a checked input.
type kernel struct {
	file  *elf.File
	data  []byte
	entry uint64
	segs  []segment // ascending, each on pages of its own
}

// parse checks in and returns what Rewrite needs of it.
func parse(in []byte) (*kernel, error) {
	if err := checkHeader(in); err != nil {
		return nil, err
	}
	f, err := elf.NewFile(bytes.NewReader(in))
	if err != nil {
		return nil, fmt.Errorf("section or program headers are damaged: %w; want a complete file written by the Go linker", err)
	}
	k := &kernel{file: f, data: in, entry: f.Entry}
	if err := k.loadSegments(); err != nil {
		return nil, err
	}
	return k, k.checkEntry()
}

// checkHeader checks the ELF header and that the tables it names lie in the file.
func checkHeader(in []byte) error {
	le := binary.LittleEndian
	switch size := len(in); {
	case size >= 4 && string(in[:4]) != elf.ELFMAG:
		return fmt.Errorf("not an ELF file: it starts with % x, want 7f 45 4c 46", in[:4])
	case size < ehdrSize:
		return fmt.Errorf("truncated: %d bytes, an ELF64 header alone has %d", size, ehdrSize)
	case elf.Class(in[elf.EI_CLASS]) != elf.ELFCLASS64:
		return fmt.Errorf("%v, want ELFCLASS64: build with GOARCH=amd64", elf.Class(in[elf.EI_CLASS]))
	case elf.Data(in[elf.EI_DATA]) != elf.ELFDATA2LSB:
		return fmt.Errorf("%v, want ELFDATA2LSB (little-endian): build with GOARCH=amd64", elf.Data(in[elf.EI_DATA]))
	}
	if m := elf.Machine(le.Uint16(in[0x12:])); m != elf.EM_X86_64 {
		return fmt.Errorf("machine is %v, want EM_X86_64: build with GOARCH=amd64", m)
	}
	if t := elf.Type(le.Uint16(in[0x10:])); t != elf.ET_EXEC {
		return fmt.Errorf("type is %v, want ET_EXEC: build with -buildmode=exe and CGO_ENABLED=0", t)
	}
	if err := checkTable(in, "program", le.Uint64(in[phoffAt:]), le.Uint16(in[phnumAt:]), le.Uint16(in[0x36:]), phdrSize); err != nil {
		return err
	}
	shoff, n := le.Uint64(in[0x28:]), le.Uint16(in[0x3c:])
	if err := checkTable(in, "section", shoff, n, le.Uint16(in[0x3a:]), shdrSize); err != nil {
		return err
	}
	return checkSections(in, in[shoff:][:uint64(n)*shdrSize])
}

// checkSections wants the content of every section in the file, given the section headers.
func checkSections(in, table []byte) error {
	le := binary.LittleEndian
	for i := 0; len(table) > 0; i, table = i+1, table[shdrSize:] {
		off, size := le.Uint64(table[0x18:]), le.Uint64(table[0x20:])
		if t := elf.SectionType(le.Uint32(table[4:])); t == elf.SHT_NOBITS || t == elf.SHT_NULL {
			continue
		}
		if len := uint64(len(in)); off > len || size > len-off {
			return fmt.Errorf("truncated: section %d has %#x bytes at file offset %#x, the file has %#x", i, size, off, len)
		}
	}
	return nil
}

func checkTable(in []byte, what string, off uint64, n, size, want uint16) error {
	if n == 0 {
		return fmt.Errorf("no %s headers: want a file linked by go build, not stripped of them", what)
	}
	if size != want {
		return fmt.Errorf("%s headers of %d bytes, want %d", what, size, want)
	}
	if len := uint64(len(in)); off > len || uint64(n)*uint64(size) > len-off {
		return fmt.Errorf("truncated: %d %s headers at %#x do not fit in a file of %d bytes", n, what, off, len)
	}
	return nil
}

// loadSegments fills k.segs from the PT_LOAD headers and checks them one by one and against each other.
func (k *kernel) loadSegments() error {
	for i, p := range k.file.Progs {
		switch p.Type {
		case elf.PT_INTERP, elf.PT_DYNAMIC:
			return fmt.Errorf("program header %d is %v: the image must be static, build with CGO_ENABLED=0", i, p.Type)
		case elf.PT_LOAD:
		default:
			continue
		}
		if p.Memsz == 0 {
			continue
		}
		s, err := newSegment(&p.ProgHeader, uint64(len(k.data)))
		if err != nil {
			return fmt.Errorf("program header %d: %w", i, err)
		}
		k.segs = append(k.segs, s)
	}
	slices.SortFunc(k.segs, func(a, b segment) int { return cmp.Compare(a.vaddr, b.vaddr) })
	kinds := map[string]int{}
	for i, s := range k.segs {
		kinds[s.kind]++
		if i > 0 && k.segs[i-1].end() > s.vaddr {
			p := k.segs[i-1]
			return fmt.Errorf("segments overlap or share a page: %s [%#x, %#x) and %s at %#x; want each on pages of its own",
				p.kind, p.vaddr, p.vaddr+p.memsz, s.kind, s.vaddr)
		}
	}
	for _, kind := range []string{"text", "rodata", "data"} {
		if kinds[kind] != 1 {
			return fmt.Errorf("%d %s segments, want 1: link with the internal linker of go build (CGO_ENABLED=0)", kinds[kind], kind)
		}
	}
	return nil
}

// newSegment checks one PT_LOAD header of a file of size bytes.
func newSegment(p *elf.ProgHeader, size uint64) (segment, error) {
	s := segment{
		flags: p.Flags, off: p.Off, vaddr: p.Vaddr, filesz: p.Filesz, memsz: p.Memsz,
		writable: p.Flags&elf.PF_W != 0, executable: p.Flags&elf.PF_X != 0,
	}
	switch {
	case p.Vaddr == record.PhysBase:
		return s, fmt.Errorf("segment at %#x: the file is already bootable, want the kernel as go build linked it", p.Vaddr)
	case s.writable && s.executable:
		return s, fmt.Errorf("segment at %#x is writable and executable (%v), want one or the other", p.Vaddr, p.Flags)
	case p.Flags&elf.PF_R == 0:
		return s, fmt.Errorf("segment at %#x is not readable (%v)", p.Vaddr, p.Flags)
	case s.executable:
		s.kind = "text"
	case s.writable:
		s.kind = "data"
	default:
		s.kind = "rodata"
	}
	// A page below the text is where the Go linker puts the ELF header.
	low, high := record.LinkAddress-pageSize, record.ImageBase+record.ImageWindow
	switch {
	case p.Vaddr < low || p.Vaddr >= high || p.Memsz > high-p.Vaddr:
		return s, fmt.Errorf("%s segment [%#x, +%#x) is outside [%#x, %#x): %s", s.kind, p.Vaddr, p.Memsz, low, high, linkHint)
	case p.Vaddr%pageSize != 0:
		return s, fmt.Errorf("%s segment at %#x is not page-aligned: link without -R", s.kind, p.Vaddr)
	case p.Filesz > p.Memsz:
		return s, fmt.Errorf("%s segment at %#x has %#x bytes in the file, more than its %#x in memory", s.kind, p.Vaddr, p.Filesz, p.Memsz)
	case p.Off > size || p.Filesz > size-p.Off:
		return s, fmt.Errorf("truncated: %s segment has %#x bytes at file offset %#x, the file has %#x", s.kind, p.Filesz, p.Off, size)
	}
	return s, nil
}

// checkEntry wants the entry point in the file's part of the text.
func (k *kernel) checkEntry() error {
	if k.entry == 0 {
		return errors.New("no entry point: link with -ldflags \"-E SYMBOL\", SYMBOL being an assembly function without a Go declaration")
	}
	for _, s := range k.segs {
		if s.kind == "text" && k.entry >= s.vaddr && k.entry-s.vaddr < s.filesz {
			return nil
		}
	}
	return fmt.Errorf("entry point %#x is not in the text segment: %s and -E with an assembly function", k.entry, linkHint)
}

// findRecord returns the file offset of the record of that name.
func (k *kernel) findRecord(name string) (uint64, error) {
	syms, err := k.file.Symbols()
	if err != nil {
		return 0, fmt.Errorf("cannot read the symbol table: %w; the kernel must be linked without -s", err)
	}
	i := slices.IndexFunc(syms, func(s elf.Symbol) bool { return s.Name == name })
	if i < 0 {
		return 0, fmt.Errorf("no symbol %s: the kernel must declare it as a record.Info and use it", name)
	}
	sym := syms[i]
	if sym.Size != record.Size {
		return 0, fmt.Errorf("symbol %s has %d bytes, a record.Info of version %d has %d", name, sym.Size, record.Version, record.Size)
	}
	for _, s := range k.segs {
		if s.kind != "data" || sym.Value < s.vaddr || sym.Value-s.vaddr >= s.memsz {
			continue
		}
		rel := sym.Value - s.vaddr
		if s.filesz < record.Size || rel > s.filesz-record.Size {
			return 0, fmt.Errorf("symbol %s is in the bss, not in the file: initialise its Magic and Version", name)
		}
		off := s.off + rel
		magic, version := binary.LittleEndian.Uint64(k.data[off:]), binary.LittleEndian.Uint64(k.data[off+8:])
		if magic != record.Magic || version != record.Version {
			return 0, fmt.Errorf("symbol %s starts with magic %#x version %d, want %#x version %d: initialise it so, and rewrite only once",
				name, magic, version, record.Magic, record.Version)
		}
		return off, nil
	}
	return 0, fmt.Errorf("symbol %s at %#x is not in the data segment: it must be a variable", name, sym.Value)
}
