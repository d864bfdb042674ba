package loader

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/dkernel/loader/elftest"
	"dinos/kernel/linux"
)

// interesting values of fields of an ELF file.
var interesting = []uint64{0, 1, 2, 7, 55, 56, 64, 100, 0xfff, 0x1000, 0x1001, 0x1800, 0x10000, 0x11000, 0x400000, 0x400123, 0x411000, 0x7fff0000, 1 << 32,
	1<<47 - 1<<20, 1<<47 - 0x22000, 1<<47 - 8192, 1<<47 - 4096, 1 << 47, 1<<62 - 1, 1 << 62, 1 << 63, ^uint64(0) - 0xfff, ^uint64(0)}

// fields of a header and of one program header: offset and size.
var ehdrFields = [][2]int{{0, 4}, {4, 1}, {5, 1}, {6, 1}, {16, 2}, {18, 2}, {20, 4}, {24, 8}, {32, 8}, {40, 8}, {48, 4}, {52, 2}, {54, 2}, {56, 2}}
var phdrFields = [][2]int{{0, 4}, {4, 4}, {8, 8}, {16, 8}, {24, 8}, {32, 8}, {40, 8}, {48, 8}}
var phdrTypes = []uint64{0, linux.PT_LOAD, linux.PT_LOAD, linux.PT_DYNAMIC, linux.PT_TLS, linux.PT_GNU_STACK, linux.PT_GNU_PROPERTY, 0x70000000}

// mutant is a program with a few fields changed, and maybe cut off.
func mutant(rnd *rand.Rand, good [][]byte) []byte {
	b := append([]byte(nil), good[rnd.IntN(len(good))]...)
	for range 1 + rnd.IntN(3) {
		base, field := 0, ehdrFields[rnd.IntN(len(ehdrFields))]
		if rnd.IntN(4) > 0 {
			base = linux.ElfEhdrSize + linux.ElfPhdrSize*rnd.IntN(4)
			field = phdrFields[rnd.IntN(len(phdrFields))]
		}
		at, size := base+field[0], field[1]
		var word [8]byte
		copy(word[:size], b[at:])
		v := binary.LittleEndian.Uint64(word[:])
		switch {
		case base > 0 && field[0] == 0:
			v = phdrTypes[rnd.IntN(len(phdrTypes))]
		case rnd.IntN(3) == 0:
			v += interesting[rnd.IntN(len(interesting))]
		case rnd.IntN(8) == 0:
			v ^= 1 << rnd.IntN(8*size)
		default:
			v = interesting[rnd.IntN(len(interesting))]
		}
		binary.LittleEndian.PutUint64(word[:], v)
		copy(b[at:], word[:size])
	}
	if rnd.IntN(10) == 0 {
		b = b[:rnd.IntN(len(b))]
	}
	return b
}

// segmented are programs with several segments in one page of the file, in order and not.
func segmented(t testing.TB) [][]byte {
	var out [][]byte
	for _, typ := range []uint16{linux.ET_EXEC, linux.ET_DYN} {
		b, err := elftest.Hello(typ, "hello", 0)
		require.NoError(t, err)
		base := uint64(0)
		if typ == linux.ET_EXEC {
			base = elftest.Base
		}
		rw, rx := uint32(linux.PF_R|linux.PF_W), uint32(linux.PF_R|linux.PF_X)
		data := elftest.File{Type: typ, Entry: base + 0x1100, Segments: []elftest.Segment{
			{Type: linux.PT_LOAD, Flags: linux.PF_R, Vaddr: base, Filesz: 0x200, Memsz: 0x200, Align: 4096},
			{Type: linux.PT_LOAD, Flags: rx, Off: 0x100, Vaddr: base + 0x1100, Filesz: 0x80, Memsz: 0x80, Align: 4096, Data: make([]byte, 0x700)},
			{Type: linux.PT_LOAD, Flags: rw, Off: 0x200, Vaddr: base + 0x2200, Filesz: 0x180, Memsz: 0x3000, Align: 4096},
			{Type: linux.PT_GNU_STACK, Flags: rw, Align: 16},
		}}
		out = append(out, b, data.Bytes())
		data.Segments[0], data.Segments[2] = data.Segments[2], data.Segments[0]
		if typ == linux.ET_EXEC {
			out = append(out, data.Bytes())
		}
	}
	return out
}

// TestMutantsAgainstLinux: what Linux refuses is refused here, with the same errno if Linux gives one; what it loads is loaded
// to the same place, with the same stack.
func TestMutantsAgainstLinux(t *testing.T) {
	f := newFiles(t)
	good := segmented(t)
	for i, b := range good {
		require.True(t, f.compare(t, f.add(t, "good", b), []string{"good"}, nil), "%d", i)
	}
	rnd := rand.New(rand.NewPCG(5, 6))
	loaded := 0
	for i := range 400 {
		b := mutant(rnd, good)
		if why := differs(b); why != "" {
			continue
		}
		func() {
			defer func() {
				if t.Failed() {
					t.Logf("mutant %d:\n% x", i, b)
				}
			}()
			if f.compare(t, f.add(t, "mutant", b), []string{"mutant"}, nil) {
				loaded++
			}
		}()
	}
	require.Greater(t, loaded, 50)
	t.Logf("Linux loads %d", loaded)
}

// differs says why the model of an address space does something else with a file than Linux does.
func differs(b []byte) string {
	var head [headSize]byte
	copy(head[:], b)
	x, err := parseELF("mutant", &memFile{data: b}, &head)
	if err == nil && x.dyn && x.size >= 2<<20 {
		return "Linux aligns it so that it could use huge pages"
	}
	if x != nil && x.dyn && len(x.loads) > 0 && x.loads[0].filesz == 0 {
		return "Linux puts it at address 0, if root runs it"
	}
	return ""
}
