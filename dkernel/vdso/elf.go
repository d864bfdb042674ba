package vdso

import (
	"encoding/binary"
	"fmt"
	"slices"

	"dinos/kernel/linux"
)

const (
	soname  = "linux-vdso.so.1"
	version = "LINUX_2.6"
)

// functions are the exported ones, in the order of the symbol table. Each is there as __vdso_NAME and, weak, as NAME.
var functions = [...]string{"clock_gettime", "gettimeofday", "time", "clock_getres", "getcpu"}

// Sections, in the order of the file; their numbers are those of the section header table.
const (
	secNull = iota
	secHash
	secGNUHash
	secDynsym
	secDynstr
	secVersym
	secVerdef
	secDynamic
	secEHFrameHdr
	secEHFrame
	secText
	secShstrtab
	numSections
)

var sectionNames = [numSections]string{"", ".hash", ".gnu.hash", ".dynsym", ".dynstr", ".gnu.version", ".gnu.version_d",
	".dynamic", ".eh_frame_hdr", ".eh_frame", ".text", ".shstrtab"}

// section is an entry of the section header table (System V gABI, "Sections").
type section struct {
	kind, link, info   uint32
	flags, align, each uint64
	addr               int
	data               []byte
}

// Numbers of the gABI, of the GNU extensions to it and of symbol versioning (LSB Core, "Symbol Versioning").
const (
	shtProgbits, shtStrtab, shtHash, shtDynamic, shtDynsym  = 1, 3, 5, 6, 11
	shtGNUHash, shtGNUVerdef, shtGNUVersym                  = 0x6ffffff6, 0x6ffffffd, 0x6fffffff
	shfAlloc, shfExecinstr                                  = 2, 4
	dtHash, dtStrtab, dtSymtab, dtStrsz, dtSyment, dtSoname = 4, 5, 6, 10, 11, 14
	dtGNUHash, dtVersym, dtVerdef, dtVerdefnum              = 0x6ffffef5, 0x6ffffff0, 0x6ffffffc, 0x6ffffffd
	stbGlobal, stbWeak, sttFunc                             = 1, 2, 2
	verBase, verLinux                                       = 1, 2 // indices of the two version definitions
)

// strtab is a string table under construction.
type strtab struct{ data []byte }

func (s *strtab) add(name string) uint32 {
	at := len(s.data)
	s.data = append(append(s.data, name...), 0)
	return uint32(at)
}

// le has append functions with short names.
var le = binary.LittleEndian

// build lays the file out: headers, sections in order, the section header table. File offsets are addresses.
func build(cpu CPUSource) (*Image, error) {
	var sec [numSections]section
	names := make([]string, 0, 2*len(functions))
	for _, f := range functions {
		names = append(names, "__vdso_"+f, f)
	}
	str := strtab{data: []byte{0}}
	strNames := make([]uint32, len(names))
	for i, n := range names {
		strNames[i] = str.add(n)
	}
	strSoname, strVersion := str.add(soname), str.add(version)

	sec[secHash] = section{kind: shtHash, link: secDynsym, flags: shfAlloc, align: 8, each: 4, data: sysvHash(names)}
	sec[secGNUHash] = section{kind: shtGNUHash, link: secDynsym, flags: shfAlloc, align: 8, data: gnuHash(names)}
	sec[secDynsym] = section{kind: shtDynsym, link: secDynstr, info: 1, flags: shfAlloc, align: 8, each: 24, data: make([]byte, 24*(len(names)+1))}
	sec[secDynstr] = section{kind: shtStrtab, flags: shfAlloc, align: 1, data: str.data}
	sec[secVersym] = section{kind: shtGNUVersym, link: secDynsym, flags: shfAlloc, align: 2, each: 2, data: versym(len(names))}
	sec[secVerdef] = section{kind: shtGNUVerdef, link: secDynstr, info: 2, flags: shfAlloc, align: 8, data: verdef(strSoname, strVersion)}
	sec[secDynamic] = section{kind: shtDynamic, link: secDynstr, flags: shfAlloc, align: 8, each: 16, data: make([]byte, 16*numDynamic)}
	sec[secEHFrameHdr] = section{kind: shtProgbits, flags: shfAlloc, align: 4, data: make([]byte, 20)}
	sec[secEHFrame] = section{kind: shtProgbits, flags: shfAlloc, align: 8, data: make([]byte, ehFrameSize)}
	sec[secText] = section{kind: shtProgbits, flags: shfAlloc | shfExecinstr, align: 64}
	at := linux.ElfEhdrSize + numSegments*linux.ElfPhdrSize
	place := func(s *section) {
		at = (at + int(s.align) - 1) &^ (int(s.align) - 1)
		s.addr = at
		at += len(s.data)
	}
	for i := secHash; i < secText; i++ {
		place(&sec[i])
	}
	text := (at + 63) &^ 63
	linked, err := code(uint32(text), cpu)
	if err != nil {
		return nil, fmt.Errorf("vdso: %w", err)
	}
	sec[secText].data = linked.Code
	place(&sec[secText])
	shstr := strtab{}
	var shNames [numSections]uint32
	for i, n := range sectionNames {
		shNames[i] = shstr.add(n)
	}
	sec[secShstrtab] = section{kind: shtStrtab, align: 1, data: shstr.data}
	place(&sec[secShstrtab])
	shoff := (at + 7) &^ 7

	img := &Image{Symbols: make(map[string]uint32)}
	fillSymbols(sec[secDynsym].data, strNames, linked.Labels, sec[secText].addr+len(linked.Code), img.Symbols)
	fillDynamic(&sec, strSoname, len(str.data))
	fillUnwind(&sec)
	img.Bytes = make([]byte, (shoff+numSections*64+PageSize-1)&^(PageSize-1))
	writeHeaders(img.Bytes, &sec, shoff, &shNames)
	for i := range sec {
		copy(img.Bytes[sec[i].addr:], sec[i].data)
	}
	return img, nil
}

// fillSymbols writes the symbol table: two names for each function, which ends where the next one starts.
func fillSymbols(data []byte, names []uint32, labels map[string]uint32, end int, out map[string]uint32) {
	for i, f := range functions {
		addr := labels[f] - PageSize
		next := uint32(end)
		if i+1 < len(functions) {
			next = labels[functions[i+1]] - PageSize
		}
		out[f] = addr
		for j, bind := range [...]byte{stbGlobal, stbWeak} {
			sym := data[24*(1+2*i+j):]
			le.PutUint32(sym, names[2*i+j])
			sym[4] = bind<<4 | sttFunc
			le.PutUint16(sym[6:], secText)
			le.PutUint64(sym[8:], uint64(addr))
			le.PutUint64(sym[16:], uint64(next-addr))
		}
	}
}

const numDynamic = 11

func fillDynamic(sec *[numSections]section, strSoname uint32, strSize int) {
	d := sec[secDynamic].data[:0]
	for _, e := range [numDynamic][2]int{
		{dtSoname, int(strSoname)}, {dtHash, sec[secHash].addr}, {dtGNUHash, sec[secGNUHash].addr}, {dtStrtab, sec[secDynstr].addr},
		{dtSymtab, sec[secDynsym].addr}, {dtStrsz, strSize}, {dtSyment, 24}, {dtVersym, sec[secVersym].addr},
		{dtVerdef, sec[secVerdef].addr}, {dtVerdefnum, 2}, {0, 0},
	} {
		d = le.AppendUint64(le.AppendUint64(d, uint64(e[0])), uint64(e[1]))
	}
}

// Segments.
const (
	segLoad = iota
	segDynamic
	segUnwind
	segStack
	numSegments
)

func writeHeaders(out []byte, sec *[numSections]section, shoff int, names *[numSections]uint32) {
	copy(out, linux.ELFMAG+"\x02\x01\x01")
	h := out[16:16]
	h = le.AppendUint32(le.AppendUint16(le.AppendUint16(h, linux.ET_DYN), linux.EM_X86_64), 1)
	h = le.AppendUint64(le.AppendUint64(le.AppendUint64(h, uint64(sec[secText].addr)), linux.ElfEhdrSize), uint64(shoff))
	h = le.AppendUint32(h, 0)
	for _, v := range [...]uint16{linux.ElfEhdrSize, linux.ElfPhdrSize, numSegments, 64, numSections, secShstrtab} {
		h = le.AppendUint16(h, v)
	}
	segment := func(kind, flags uint32, s *section, align int) {
		h = le.AppendUint32(le.AppendUint32(h, kind), flags)
		for _, v := range [...]int{s.addr, s.addr, s.addr, len(s.data), len(s.data), align} {
			h = le.AppendUint64(h, uint64(v))
		}
	}
	segment(linux.PT_LOAD, linux.PF_R|linux.PF_X, &section{data: out}, PageSize)
	segment(linux.PT_DYNAMIC, linux.PF_R, &sec[secDynamic], 8)
	segment(linux.PT_GNU_EH_FRAME, linux.PF_R, &sec[secEHFrameHdr], 4)
	segment(linux.PT_GNU_STACK, linux.PF_R|linux.PF_W, &section{}, 16)

	t := out[shoff:shoff]
	for i := range sec {
		s := &sec[i]
		addr := s.addr
		if s.flags == 0 {
			addr = 0
		}
		t = le.AppendUint32(le.AppendUint32(t, names[i]), s.kind)
		t = le.AppendUint64(le.AppendUint64(le.AppendUint64(le.AppendUint64(t, s.flags), uint64(addr)), uint64(s.addr)), uint64(len(s.data)))
		t = le.AppendUint32(le.AppendUint32(t, s.link), s.info)
		t = le.AppendUint64(le.AppendUint64(t, s.align), s.each)
	}
}

// elfHash is the gABI's hash of a symbol name.
func elfHash(name string) uint32 {
	h := uint32(0)
	for i := range len(name) {
		h = h<<4 + uint32(name[i])
		g := h & 0xf0000000
		h ^= g>>24 ^ g
	}
	return h
}

// sysvHash is DT_HASH: symbols 1 … n in chains by elfHash.
func sysvHash(names []string) []byte {
	const buckets = 7
	table := make([]uint32, 2+buckets+len(names)+1)
	table[0], table[1] = buckets, uint32(len(names)+1)
	for i, n := range names {
		b := 2 + elfHash(n)%buckets
		table[2+buckets+i+1], table[b] = table[b], uint32(i+1)
	}
	return words(table)
}

// gnuHash is DT_GNU_HASH. One bucket holds all symbols, which spares sorting the symbol table; one Bloom word tells
// most other names apart.
func gnuHash(names []string) []byte {
	const shift = 6
	var bloom uint64
	var chain []uint32
	for _, n := range names {
		h := uint32(5381)
		for i := range len(n) {
			h = h*33 + uint32(n[i])
		}
		bloom |= 1<<(h%64) | 1<<(h>>shift%64)
		chain = append(chain, h&^1)
	}
	chain[len(chain)-1] |= 1
	return words(slices.Concat([]uint32{1, 1, 1, shift, uint32(bloom), uint32(bloom >> 32), 1}, chain))
}

func versym(n int) []byte {
	out := le.AppendUint16(nil, 0)
	for range n {
		out = le.AppendUint16(out, verLinux)
	}
	return out
}

// verdef defines the versions: the object itself, and the one of all symbols.
func verdef(strSoname, strVersion uint32) []byte {
	entry := func(out []byte, flags, index uint16, name string, str, next uint32) []byte {
		for _, v := range [...]uint16{1, flags, index, 1} { // version of the structure, …, number of names
			out = le.AppendUint16(out, v)
		}
		for _, v := range [...]uint32{elfHash(name), 20, next, str, 0} {
			out = le.AppendUint32(out, v)
		}
		return out
	}
	return entry(entry(nil, 1 /* VER_FLG_BASE */, verBase, soname, strSoname, 28), 0, verLinux, version, strVersion, 0)
}

func words(v []uint32) []byte {
	var out []byte
	for _, w := range v {
		out = le.AppendUint32(out, w)
	}
	return out
}
