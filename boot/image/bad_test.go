package image

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
)

// Program headers of testdata/kernel as the Go linker orders them.
const (
	phText = 2 + iota
	phRodata
	phData
)

type patch func(b []byte)

func put16(off int, v uint16) patch {
	return func(b []byte) { binary.LittleEndian.PutUint16(b[off:], v) }
}

func put64(off int, v uint64) patch {
	return func(b []byte) { binary.LittleEndian.PutUint64(b[off:], v) }
}

func put8(off int, v byte) patch { return func(b []byte) { b[off] = v } }

// Offsets of fields of the i-th program header.
func phField(i, field int) int { return ehdrSize + i*phdrSize + field }

func TestMalformed(t *testing.T) {
	good := testKernel(t)
	f, err := elf.NewFile(bytes.NewReader(good))
	require.NoError(t, err)
	for i, flags := range map[int]elf.ProgFlag{phText: elf.PF_R | elf.PF_X, phRodata: elf.PF_R, phData: elf.PF_R | elf.PF_W} {
		require.Equal(t, elf.PT_LOAD, f.Progs[i].Type)
		require.Equal(t, flags, f.Progs[i].Flags)
	}
	rodata := f.Progs[phRodata]
	const flags, off, vaddr, filesz, memsz = 4, 8, 16, 32, 40

	for _, c := range []struct {
		name  string
		patch patch
		want  string
	}{
		{"not ELF", put8(0, 'M'), "not an ELF file: it starts with 4d 45 4c 46, want 7f 45 4c 46"},
		{"32-bit", put8(elf.EI_CLASS, 1), "ELFCLASS32, want ELFCLASS64"},
		{"class 9", put8(elf.EI_CLASS, 9), "want ELFCLASS64"},
		{"big-endian", put8(elf.EI_DATA, 2), "ELFDATA2MSB, want ELFDATA2LSB"},
		{"arm64", put16(0x12, uint16(elf.EM_AARCH64)), "machine is EM_AARCH64, want EM_X86_64"},
		{"386", put16(0x12, uint16(elf.EM_386)), "machine is EM_386, want EM_X86_64"},
		{"shared", put16(0x10, uint16(elf.ET_DYN)), "type is ET_DYN, want ET_EXEC"},
		{"version", put8(elf.EI_VERSION, 7), "damaged"},
		{"no program headers", put16(phnumAt, 0), "no program headers"},
		{"many program headers", put16(phnumAt, 0xffff), "truncated: 65535 program headers"},
		{"far program headers", put64(phoffAt, 1<<63), "truncated: 6 program headers"},
		{"program header size", put16(0x36, 32), "program headers of 32 bytes, want 56"},
		{"no section headers", put16(0x3c, 0), "no section headers"},
		{"far section headers", put64(0x28, ^uint64(0)), "section headers at 0xffffffffffffffff do not fit"},
		{"section header size", put16(0x3a, 40), "section headers of 40 bytes, want 64"},
		{"no entry", put64(0x18, 0), "no entry point"},
		{"entry outside", put64(0x18, 0x401000), "entry point 0x401000 is not in the text segment"},
		{"entry in rodata", put64(0x18, rodata.Vaddr), "is not in the text segment"},
		{"dynamic", put64(phField(0, 0), uint64(elf.PT_DYNAMIC)), "must be static"},
		{"interpreter", put64(phField(0, 0), uint64(elf.PT_INTERP)), "must be static"},
		{"low segment", put64(phField(phText, vaddr), 0x401000), "is outside [0xffffffff801ff000, 0xffffffffc0000000): link with"},
		{"segment over the end", put64(phField(phData, memsz), 1<<31), "is outside"},
		{"segment wraps", put64(phField(phData, memsz), ^uint64(0)), "is outside"},
		{"unaligned", put64(phField(phText, vaddr), 0xffffffff801ff010), "is not page-aligned"},
		{"file larger than memory", put64(phField(phRodata, memsz), 1), "more than its 0x1 in memory"},
		{"data beyond the file", put64(phField(phRodata, off), 1<<40), "truncated: rodata segment"},
		{"offset wraps", put64(phField(phRodata, off), 1<<63-1), "truncated: rodata segment"},
		{"overlap", put64(phField(phText, vaddr), rodata.Vaddr), "overlap"},
		{"shared page", put64(phField(phText, memsz), rodata.Vaddr-0xffffffff801ff000+1), "segments overlap or share a page: text"},
		{"writable text", put8(phField(phText, flags), 7), "writable and executable"},
		{"unreadable", put8(phField(phData, flags), 2), "not readable"},
		{"two texts", put8(phField(phRodata, flags), 5), "2 text segments, want 1"},
		{"no rodata", put64(phField(phRodata, 0), uint64(elf.PT_NULL)), "0 rodata segments, want 1"},
		{"empty data", put64(phField(phData, memsz), 0), "0 data segments, want 1"},
		{"record not blank", func(b []byte) {
			i := bytes.Index(b, []byte("dinosrec\x01"))
			b[i] = 'D'
		}, "symbol main.Record starts with magic"},
		{"record version", func(b []byte) {
			i := bytes.Index(b, []byte("dinosrec\x01"))
			b[i+8] = 9
		}, "version 9, want"},
		{"bss record", put64(phField(phData, filesz), 0), "symbol main.Record is in the bss"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := bytes.Clone(good)
			c.patch(b)
			out, _, err := Rewrite(b, testOptions)
			require.ErrorContains(t, err, c.want)
			require.Nil(t, out)
		})
	}

	t.Run("missing symbol", func(t *testing.T) {
		_, _, err := Rewrite(good, Options{})
		require.ErrorContains(t, err, "no symbol dinos/boot/stub.Record")
	})
	t.Run("symbol of another size", func(t *testing.T) {
		_, _, err := Rewrite(good, Options{Record: "main.Zeros"})
		require.ErrorContains(t, err, "symbol main.Zeros has 65536 bytes")
	})
	t.Run("already bootable", func(t *testing.T) {
		img, _, err := Rewrite(good, testOptions)
		require.NoError(t, err)
		_, _, err = Rewrite(img, testOptions)
		require.ErrorContains(t, err, "already bootable")
	})
}

// TestTruncated cuts the file at and around every boundary of its headers, segments and sections.
func TestTruncated(t *testing.T) {
	good := testKernel(t)
	f, err := elf.NewFile(bytes.NewReader(good))
	require.NoError(t, err)
	cuts := map[uint64]bool{}
	around := func(at uint64) {
		for _, c := range []uint64{at - 1, at, at + 1} {
			if c < uint64(len(good)) {
				cuts[c] = true
			}
		}
	}
	for i := range uint64(ehdrSize + 1) {
		cuts[i] = true
	}
	shoff := binary.LittleEndian.Uint64(good[0x28:])
	for i := range f.Progs {
		around(ehdrSize + uint64(i)*phdrSize)
		around(f.Progs[i].Off)
		around(f.Progs[i].Off + f.Progs[i].Filesz)
	}
	for i, s := range f.Sections {
		around(shoff + uint64(i+1)*64)
		if s.Type != elf.SHT_NOBITS {
			around(s.Offset)
			around(s.Offset + s.FileSize)
		}
	}
	for cut := range cuts {
		out, _, err := Rewrite(good[:cut], testOptions)
		require.ErrorContains(t, err, "truncated", "cut at %#x", cut)
		require.Nil(t, out)
	}
}

func TestLinkedElsewhere(t *testing.T) {
	for _, c := range []struct{ flags, want string }{
		{"-E entry64", `is outside [0xffffffff801ff000, 0xffffffffc0000000): link with -ldflags "-T -0x7fe00000"`},
		{"-s -T -0x7fe00000 -E entry64", "must be linked without -s"},
	} {
		b, err := link(c.flags)
		require.NoError(t, err)
		_, _, err = Rewrite(b, testOptions)
		require.ErrorContains(t, err, c.want)
	}
}

// FuzzRewrite damages a good file: whatever Rewrite accepts must load within the physical range that it claims.
func FuzzRewrite(f *testing.F) {
	good := testKernel(f)
	f.Add(uint32(0), []byte{0x7f}, uint32(0))
	f.Add(uint32(0x18), []byte{0, 0}, uint32(100))
	for i := range 6 {
		f.Add(uint32(phField(i, 0)), []byte{1, 0, 0, 0, 7}, uint32(0))
		f.Add(uint32(phField(i, 8)), binary.LittleEndian.AppendUint64(nil, ^uint64(0)), uint32(0))
		f.Add(uint32(phField(i, 40)), binary.LittleEndian.AppendUint64(nil, 1<<62), uint32(0))
	}
	f.Fuzz(func(t *testing.T, at uint32, change []byte, cut uint32) {
		b := bytes.Clone(good)
		// Most of the file is code; aim at the headers and the section table.
		copy(b[at%4096:], change)
		b = b[:len(b)-int(cut)%len(b)]
		img, info, err := Rewrite(b, testOptions)
		if err != nil {
			return
		}
		out, err := elf.NewFile(bytes.NewReader(img))
		require.NoError(t, err)
		for _, p := range out.Progs {
			if p.Type == elf.PT_LOAD {
				require.LessOrEqual(t, p.Filesz, p.Memsz)
				require.GreaterOrEqual(t, p.Paddr, info.PhysStart)
				require.LessOrEqual(t, p.Paddr+p.Memsz, info.PhysEnd)
				require.LessOrEqual(t, p.Off+p.Filesz, uint64(len(img)))
			}
		}
	})
}
