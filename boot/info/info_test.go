package info

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var errNoRAM = errors.New("no memory there")

// flat is physical memory that starts at base and has nothing behind its end.
type flat struct {
	base uint64
	b    []byte
}

func (f *flat) memory(phys, n uint64) ([]byte, error) {
	if phys < f.base || phys-f.base > uint64(len(f.b)) || n > uint64(len(f.b))-(phys-f.base) {
		return nil, errNoRAM
	}
	return f.b[phys-f.base:][:n:n], nil
}

func (f *flat) at(phys uint64, parts ...any) {
	b := f.b[phys-f.base:]
	for _, p := range parts {
		n, err := binary.Encode(b, binary.LittleEndian, p)
		if err != nil {
			panic(err)
		}
		b = b[n:]
	}
}

// Where the tests' records lie.
const (
	startInfo = 0x10000
	memmap    = 0x10100
	modlist   = 0x10800
	cmdline   = 0x11ff0 // crosses a page
	modtext   = 0x13000
	rsdpAt    = 0x13100
	xsdtAt    = 0x13200
	madtAt    = 0x13400
)

func record() *flat {
	f := &flat{base: 0x10000, b: make([]byte, 0x4000)}
	f.at(startInfo, []uint32{Magic, 1, 0, 1}, []uint64{modlist, cmdline, rsdpAt, memmap}, []uint32{5, 0})
	// Out of order; neighbours of one kind; an unknown type; an empty entry.
	f.at(memmap, []uint64{0x100000, 0x700000, 1, 0, 0x9fc00, 1, 0x9fc00, 0x400, 2, 0x800000, 0x800000, 1, 0, 0, 0})
	f.at(modlist, []uint64{0x900000, 0x12345, modtext, 0})
	f.at(cmdline, []byte("test=all seed=0x12 mem=\"1 G\"\x00"))
	f.at(modtext, []byte("root\x00"))
	f.at(rsdpAt, rsdp(2, 0xdead, xsdtAt))
	f.at(xsdtAt, table("XSDT", binary.LittleEndian.AppendUint64(nil, madtAt)))
	f.at(madtAt, table("APIC", madtBody))
	return f
}

func fix(b []byte, at, n int) []byte {
	b[at] = 0
	b[at] = -sum(b[:n])
	return b
}

func rsdp(rev byte, rsdt uint32, xsdt uint64) []byte {
	b := make([]byte, 36)
	copy(b, rsdpSignature)
	b[15] = rev
	binary.LittleEndian.PutUint32(b[16:], rsdt)
	b[20] = 36
	binary.LittleEndian.PutUint64(b[24:], xsdt)
	return fix(fix(b, 8, 20), 32, 36)
}

func table(sig string, body []byte) []byte {
	b := append(make([]byte, tableHeader), body...)
	copy(b, sig)
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)))
	return fix(b, 9, len(b))
}

var madtBody = []byte{
	0, 0, 0xe0, 0xfe, 1, 0, 0, 0,
	0, 8, 0, 0, 1, 0, 0, 0,
	0, 8, 1, 4, 2, 0, 0, 0,
	0, 8, 2, 0xff, 0, 0, 0, 0, 0, 8, 3, 0xff, 0, 0, 0, 0, // unusable, twice the same ID
	9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0,
	1, 12, 3, 0, 0, 0, 0xc0, 0xfe, 24, 0, 0, 0,
	2, 10, 0, 0, 2, 0, 0, 0, 0, 0,
	2, 10, 0, 9, 9, 0, 0, 0, 0xf, 0,
	4, 6, 0xff, 0, 0, 1, // LAPIC NMI: skipped
	5, 12, 0, 0, 0, 0, 0xe1, 0xfe, 0, 0, 0, 0,
}

func TestParse(t *testing.T) {
	i, err := Parse(record().memory, startInfo)
	require.NoError(t, err)
	require.Equal(t, &Info{
		Version: 1, CommandLine: `test=all seed=0x12 mem="1 G"`, RSDP: rsdpAt,
		Memory:  []Range{{0, 0x9fc00, RAM}, {0x9fc00, 0xa0000, Reserved}, {0x100000, 0x1000000, RAM}},
		Modules: []Module{{0x900000, 0x912345, "root"}},
	}, i)
	require.Equal(t, uint64(0xf00000+0x9fc00), i.RAM())
}

func TestParseVersion0(t *testing.T) {
	f := record()
	f.at(startInfo+4, uint32(0))
	f.b = f.b[:0x13000-f.base] // the page where the command line ends is the last
	f.at(startInfo+nrModsOff, uint32(0))
	i, err := Parse(f.memory, startInfo)
	require.NoError(t, err)
	require.Nil(t, i.Memory)
	require.Zero(t, i.RAM())
}

func TestParseMalformed(t *testing.T) {
	for _, c := range []struct {
		name  string
		patch func(f *flat)
		field string
		addr  uint64
		msg   string
	}{
		{"magic", func(f *flat) { f.at(startInfo, uint32(0x1badb002)) }, "start_info.magic", startInfo, "0x1badb002, want 0x336ec578"},
		{"truncated", func(f *flat) { f.b = f.b[:39] }, "start_info", startInfo, "no memory there"},
		{"truncated v1", func(f *flat) { f.b = f.b[:cmdline+4096-f.base]; f.at(startInfo+memmapOff, uint64(0x14000-10)) }, "memmap", 0x14000 - 10, "no memory there"},
		{"rsdp", func(f *flat) { f.at(startInfo+rsdpOff, uint64(1<<52)) }, "start_info.rsdp_paddr", startInfo + 32, "outside physical memory"},
		{"command line address", func(f *flat) { f.at(startInfo+cmdlineOff, ^uint64(0)) }, "start_info.cmdline_paddr", ^uint64(0), "outside physical memory"},
		{"endless command line", func(f *flat) { f.at(cmdline, bytes.Repeat([]byte("x"), 4096)) }, "start_info.cmdline_paddr", cmdline, "no end within 4096 bytes"},
		{"command line at the end", func(f *flat) { f.at(0x13ff8, []byte("xxxxxxxx")); f.at(startInfo+cmdlineOff, uint64(0x13ff8)) }, "start_info.cmdline_paddr", 0x14000, "no memory there"},
		{"no ranges", func(f *flat) { f.at(startInfo+nrMemmapOff, uint32(0)) }, "start_info.memmap_entries", startInfo + 48, "0 entries, want 1 to 128"},
		{"many ranges", func(f *flat) { f.at(startInfo+nrMemmapOff, ^uint32(0)) }, "start_info.memmap_entries", startInfo + 48, "want 1 to 128"},
		{"memmap at 0", func(f *flat) { f.at(startInfo+memmapOff, uint64(0)) }, "memmap", 0, "address is 0"},
		{"range wraps", func(f *flat) { f.at(memmap+24+8, ^uint64(0)) }, "memmap[1].size", memmap + 32, "ends outside"},
		{"overlap", func(f *flat) { f.at(memmap+8, uint64(0x700001)) }, "memmap[3]", memmap + 72, "RAM [0x800000, 0x1000000) overlaps entry 0, RAM [0x100000, 0x800001)"},
		{"many modules", func(f *flat) { f.at(startInfo+nrModsOff, uint32(17)) }, "start_info.nr_modules", startInfo + 12, "17 modules, want at most 16"},
		{"module list at 0", func(f *flat) { f.at(startInfo+modlistOff, uint64(0)) }, "modlist", 0, "address is 0"},
		{"module wraps", func(f *flat) { f.at(modlist+8, ^uint64(0)) }, "modlist[0].size", modlist + 8, "ends outside"},
		{"module outside RAM", func(f *flat) { f.at(modlist, uint64(0xfff000)) }, "modlist[0].paddr", modlist, "is not in RAM"},
		{"module text", func(f *flat) { f.at(modlist+16, uint64(1)) }, "modlist[0].cmdline_paddr", 1, "no memory there"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := record()
			c.patch(f)
			i, err := Parse(f.memory, startInfo)
			require.Nil(t, i)
			var e *Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, c.field, e.Field)
			require.Equal(t, c.addr, e.Addr, "%#x", e.Addr)
			require.ErrorContains(t, err, c.msg)
		})
	}
	_, err := Parse(record().memory, 0)
	require.ErrorContains(t, err, "address is 0")
	short := func(phys, n uint64) ([]byte, error) { return make([]byte, n-1), nil }
	_, err = Parse(short, startInfo)
	require.ErrorContains(t, err, "39 of 40 bytes can be read")
}

// TestTruncated cuts memory everywhere: no prefix of the records may be accepted, or crash.
func TestTruncated(t *testing.T) {
	whole := record()
	need := modtext + uint64(len("root")) + 1 - whole.base
	for n := range uint64(len(whole.b)) {
		f := &flat{whole.base, whole.b[:n]}
		_, err := Parse(f.memory, startInfo)
		if n < need {
			require.ErrorIs(t, err, errNoRAM, "%#x", n)
		}
		_, err = ReadMADT(f.memory, rsdpAt)
		if n < madtAt+tableHeader+uint64(len(madtBody))-f.base {
			require.ErrorIs(t, err, errNoRAM, "%#x", n)
		} else {
			require.NoError(t, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	good := record()
	f.Add(uint16(0), []byte{})
	for off := uint16(4); off < 56; off += 4 {
		f.Add(off, []byte{0xff, 0xff, 0xff, 0xff})
		f.Add(off+(memmap-startInfo), []byte{0, 0, 0, 0x80})
	}
	f.Fuzz(func(t *testing.T, off uint16, change []byte) {
		m := &flat{good.base, bytes.Clone(good.b)}
		copy(m.b[int(off)%len(m.b):], change)
		i, err := Parse(m.memory, startInfo)
		if err != nil {
			var e *Error
			require.ErrorAs(t, err, &e)
			return
		}
		require.LessOrEqual(t, len(i.CommandLine), MaxCommandLine)
		require.LessOrEqual(t, len(i.Modules), MaxModules)
		require.LessOrEqual(t, len(i.Memory), MaxRanges)
		for k, r := range i.Memory {
			require.Less(t, r.Start, r.End)
			require.NotContains(t, r.Kind.String(), "type")
			if k > 0 {
				p := i.Memory[k-1]
				require.LessOrEqual(t, p.End, r.Start)
				require.False(t, p.End == r.Start && p.Kind == r.Kind)
			}
		}
	})
}

func TestKindString(t *testing.T) {
	require.Equal(t, "RAM", RAM.String())
	require.Equal(t, "persistent", PMEM.String())
	require.Equal(t, "type 0", Kind(0).String())
	require.Equal(t, "type 4294967295", Kind(1<<32-1).String())
}

func ExampleError() {
	f := record()
	f.at(startInfo, uint32(7))
	_, err := Parse(f.memory, startInfo)
	fmt.Println(strings.ReplaceAll(err.Error(), "  ", " "))
	// Output: boot: start_info.magic at 0x10000: 0x7, want 0x336ec578
}
