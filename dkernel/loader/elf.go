package loader

import (
	"encoding/binary"
	"io"
	"math/bits"

	"dinos/kernel/linux"
)

// executable is what is used of an ELF file.
type executable struct {
	dyn     bool // ET_DYN: it runs anywhere
	entry   uint64
	phnum   uint16
	phdr    uint64 // address of the program headers before relocation; 0 if no segment has them
	stack   stackKind
	loads   []segment
	low     uint64 // first page of the segments
	size    uint64 // from low to the end of the last one
	align   uint64 // the largest p_align that is a power of two; at least a page
	brk     uint64
	codeLow uint64 // start and end of code and data, as /proc/PID/stat shows them
	codeEnd uint64
	dataLow uint64
	dataEnd uint64
}

// stackKind is what PT_GNU_STACK says.
type stackKind uint8

const (
	stackPlain      stackKind = iota // nothing: not executable, on x86-64
	stackExecutable                  // PF_X
)

// segment is a PT_LOAD.
type segment struct {
	prot          int
	off, vaddr    uint64
	filesz, memsz uint64
}

// readFull reads p from off, as much as the file has; the rest of p is zero.
func readFull(f File, p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) {
		c, err := f.ReadAt(p[n:], off+int64(n))
		n += c
		if err == io.EOF || err == nil && c == 0 {
			break
		}
		if err != nil {
			return n, err
		}
	}
	clear(p[n:])
	return n, nil
}

// kind names what a file is that cannot be executed, so that the error says more than the errno.
func kind(head *[headSize]byte) string {
	le := binary.LittleEndian
	switch {
	case string(head[:4]) != linux.ELFMAG:
		return "it is neither an ELF file nor a script that starts with #!"
	case head[4] == 1 && le.Uint16(head[18:]) == linux.EM_386:
		return "it is a 32-bit program; only 64-bit programs for x86-64 run here"
	case head[4] == 1:
		return "it is a 32-bit ELF file; only 64-bit programs for x86-64 run here"
	case head[5] == 2:
		return "it is a big-endian ELF file; only programs for x86-64 run here"
	}
	switch le.Uint16(head[18:]) {
	case linux.EM_X86_64:
	case 183:
		return "it is a program for ARM64; only programs for x86-64 run here"
	case 243:
		return "it is a program for RISC-V; only programs for x86-64 run here"
	default:
		return "it is an ELF file for another machine; only programs for x86-64 run here"
	}
	switch le.Uint16(head[16:]) {
	case 1:
		return "it is an object file, not a linked program"
	case 4:
		return "it is a core dump, not a program"
	}
	return "it is no executable ELF file"
}

// parseELF checks a file whose first bytes are head. Everything in it is an allegation.
func parseELF(path string, f File, head *[headSize]byte) (*executable, error) {
	le := binary.LittleEndian
	typ := le.Uint16(head[16:])
	// As on Linux, the rest of e_ident, e_version, e_flags and e_ehsize are not looked at.
	if string(head[:4]) != linux.ELFMAG || le.Uint16(head[18:]) != linux.EM_X86_64 || typ != linux.ET_EXEC && typ != linux.ET_DYN {
		return nil, fail(linux.ENOEXEC, path, "%s", kind(head))
	}
	x := &executable{dyn: typ == linux.ET_DYN, entry: le.Uint64(head[24:]), phnum: le.Uint16(head[56:]), align: pageSize}
	if size := le.Uint16(head[54:]); size != linux.ElfPhdrSize {
		return nil, fail(linux.ENOEXEC, path, "program headers of %d bytes (e_phentsize), not %d", size, linux.ElfPhdrSize)
	}
	phoff := le.Uint64(head[32:])
	n := int(x.phnum) * linux.ElfPhdrSize
	if n == 0 || n > maxPhdrs {
		return nil, fail(linux.ENOEXEC, path, "%d program headers (e_phnum), not 1 to %d", x.phnum, maxPhdrs/linux.ElfPhdrSize)
	}
	if phoff > 1<<62 {
		return nil, fail(linux.ENOEXEC, path, "program headers at %#x (e_phoff), outside of the file", phoff)
	}
	var small [14 * linux.ElfPhdrSize]byte
	ph := small[:]
	if n > len(ph) {
		ph = make([]byte, n)
	}
	ph = ph[:n]
	if c, err := readFull(f, ph, int64(phoff)); err != nil {
		return nil, failed(err, path, "reading the program headers")
	} else if c < n {
		return nil, fail(linux.ENOEXEC, path, "program headers at %#x (e_phoff), outside of the file", phoff)
	}
	if err := x.interpreter(path, f, ph); err != nil {
		return nil, err
	}
	return x, x.segments(path, phoff, ph)
}

// interpreter refuses a program that asks for a dynamic linker.
func (x *executable) interpreter(path string, f File, ph []byte) error {
	le := binary.LittleEndian
	for ; len(ph) > 0; ph = ph[linux.ElfPhdrSize:] {
		if le.Uint32(ph) != linux.PT_INTERP {
			continue
		}
		off, size := le.Uint64(ph[8:]), le.Uint64(ph[32:])
		if size < 2 || size > pathMax {
			return fail(linux.ENOEXEC, path, "an interpreter's path of %d bytes (PT_INTERP), not 2 to %d", size, pathMax)
		}
		name := make([]byte, size)
		if off > 1<<62 {
			off = 1 << 62
		}
		c, err := readFull(f, name, int64(off))
		if err != nil {
			return failed(err, path, "reading the interpreter's path")
		}
		if c < len(name) || name[size-1] != 0 {
			return fail(linux.ENOEXEC, path, "an interpreter's path without end (PT_INTERP)")
		}
		for i, b := range name {
			if b == 0 {
				name = name[:i]
				break
			}
		}
		return fail(linux.ELIBBAD, path, "it is dynamically linked (it asks for the interpreter %s); only static programs run here: "+
			"link it with -static or -static-pie, a Go program with CGO_ENABLED=0", name)
	}
	return nil
}

// segments collects the PT_LOADs. PT_TLS, PT_GNU_PROPERTY, PT_DYNAMIC and the rest are the program's own business.
func (x *executable) segments(path string, phoff uint64, ph []byte) error {
	le := binary.LittleEndian
	x.codeLow = ^uint64(0)
	x.low = ^uint64(0)
	end := uint64(0)
	for i := 0; len(ph) > 0; i, ph = i+1, ph[linux.ElfPhdrSize:] {
		flags := le.Uint32(ph[4:])
		switch le.Uint32(ph) {
		case linux.PT_GNU_STACK:
			x.stack = stackPlain
			if flags&linux.PF_X != 0 {
				x.stack = stackExecutable
			}
		case linux.PT_LOAD:
			s := segment{off: le.Uint64(ph[8:]), vaddr: le.Uint64(ph[16:]), filesz: le.Uint64(ph[32:]), memsz: le.Uint64(ph[40:])}
			if flags&linux.PF_R != 0 {
				s.prot |= linux.PROT_READ
			}
			if flags&linux.PF_W != 0 {
				s.prot |= linux.PROT_WRITE
			}
			if flags&linux.PF_X != 0 {
				s.prot |= linux.PROT_EXEC
			}
			if err := s.check(path, i); err != nil {
				return err
			}
			if s.off <= phoff && phoff-s.off < s.filesz {
				x.phdr = phoff - s.off + s.vaddr
			}
			if a := le.Uint64(ph[48:]); bits.OnesCount64(a) == 1 {
				x.align = max(x.align, a)
			}
			x.low = min(x.low, s.vaddr&^(pageSize-1))
			end = max(end, s.vaddr+s.memsz)
			x.account(&s)
			x.loads = append(x.loads, s)
		}
	}
	if len(x.loads) > 0 {
		x.size = end - x.low
	}
	if x.codeEnd == 0 {
		x.codeLow = 0
	}
	if x.dyn && len(x.loads) > 0 && x.loads[0].filesz == 0 { // Linux puts such a program at address 0, or fails
		return fail(linux.EINVAL, path, "its first segment (PT_LOAD) has nothing in the file")
	}
	if x.entry >= taskSize && !x.dyn {
		return fail(linux.EINVAL, path, "it starts at %#x (e_entry), which is no address of a program", x.entry)
	}
	return nil
}

// check is everything that can be said about a segment without an address space. It keeps all sums below 2⁴⁸.
func (s *segment) check(path string, i int) error {
	switch {
	case s.filesz > s.memsz:
		return fail(linux.EINVAL, path, "segment %d has %d bytes in the file but only %d in memory", i, s.filesz, s.memsz)
	case s.memsz > taskSize || s.vaddr > taskSize-s.memsz:
		return fail(linux.EINVAL, path, "segment %d, %d bytes at %#x, is outside of a program's addresses", i, s.memsz, s.vaddr)
	case s.filesz != 0 && s.off%pageSize != s.vaddr%pageSize:
		return fail(linux.EINVAL, path, "segment %d is at %#x in the file and %#x in memory: not at the same place in a page", i, s.off, s.vaddr)
	case s.filesz != 0 && s.off > 1<<63-1-taskSize-pageSize:
		return fail(linux.EINVAL, path, "segment %d is at %#x in the file, more than a file can have", i, s.off)
	}
	return nil
}

// account widens what /proc tells about the program, and the start of brk.
func (x *executable) account(s *segment) {
	if s.prot&linux.PROT_EXEC != 0 {
		x.codeLow = min(x.codeLow, s.vaddr)
		x.codeEnd = max(x.codeEnd, s.vaddr+s.filesz)
	}
	x.dataLow = max(x.dataLow, s.vaddr)
	x.dataEnd = max(x.dataEnd, s.vaddr+s.filesz)
	x.brk = max(x.brk, s.vaddr+s.memsz)
}
