package image

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/boot/record"
)

var testOptions = Options{Record: "main.Record"}

// linked returns testdata/kernel as go build links it. The flags of the link come last.
var linked = sync.OnceValues(func() ([]byte, error) { return link("-T -0x7fe00000 -E entry64") })

func link(ldflags string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "dinos-image")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "k.elf")
	cmd := exec.Command("go", "build", "-ldflags", ldflags, "-o", out, "./testdata/kernel")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, err
	}
	return os.ReadFile(out)
}

func testKernel(t testing.TB) []byte {
	t.Helper()
	in, err := linked()
	require.NoError(t, err)
	return bytes.Clone(in)
}

// memory is what a PVH loader makes of an image: the PT_LOAD segments at their physical addresses.
type memory struct {
	t    *testing.T
	base uint64
	b    []byte
}

func load(t *testing.T, img []byte) *memory {
	f, err := elf.NewFile(bytes.NewReader(img))
	require.NoError(t, err)
	m := &memory{t: t, base: record.PhysBase}
	for _, p := range f.Progs {
		if p.Type != elf.PT_LOAD {
			continue
		}
		require.GreaterOrEqual(t, p.Paddr, record.PhysBase)
		if end := p.Paddr + p.Memsz - m.base; end > uint64(len(m.b)) {
			m.b = append(m.b, make([]byte, end-uint64(len(m.b)))...)
		}
		_, err := p.ReadAt(m.b[p.Paddr-m.base:][:p.Filesz], 0)
		require.NoError(t, err)
	}
	return m
}

func (m *memory) word(phys uint64) uint64 {
	require.GreaterOrEqual(m.t, phys, m.base)
	require.LessOrEqual(m.t, phys+8, m.base+uint64(len(m.b)))
	return binary.LittleEndian.Uint64(m.b[phys-m.base:])
}

// walk translates v as the MMU does, Intel SDM volume 3 section 5.5. Attributes are those of the leaf,
// restricted by the levels above.
func (m *memory) walk(pml4, v uint64) (phys, attr uint64, ok bool) {
	table, write, user, nx := pml4, uint64(pteWrite), uint64(4), uint64(0)
	for shift := uint(39); ; shift -= 9 {
		e := m.word(table + (v>>shift&511)*8)
		if e&ptePresent == 0 {
			return 0, 0, false
		}
		write, user, nx = write&e, user&e, nx|e&pteNX
		addr := e & 0x000f_ffff_ffff_f000
		leaf := shift == 12 || shift == 21 && e&pteLarge != 0
		if !leaf {
			require.Zero(m.t, e&(pteCD|pteWT|pteGlobal), "upper level entry %#x", e)
			table = addr
			continue
		}
		off := v & (1<<shift - 1)
		require.Zero(m.t, addr&(1<<shift-1), "misaligned frame in entry %#x for %#x", e, v)
		return addr | off, write | user | nx | e&(pteCD|pteWT|pteGlobal|pteAccessed|pteDirty), true
	}
}

func TestTables(t *testing.T) {
	in := testKernel(t)
	img, info, err := Rewrite(in, testOptions)
	require.NoError(t, err)
	m := load(t, img)
	const ad = pteAccessed | pteDirty

	for phys := uint64(0); phys < record.BootMapSize; phys += 2<<20 - 4096 { // hits first and last pages of large pages
		want := uint64(ad | pteWrite)
		if phys >= record.DeviceHole {
			want |= pteCD | pteWT
		}
		got, attr, ok := m.walk(info.PML4, record.DirectMap+phys)
		require.True(t, ok)
		require.Equal(t, phys, got)
		require.Equal(t, want|pteNX|pteGlobal, attr, "direct map of %#x", phys)

		got, attr, ok = m.walk(info.PML4, phys)
		require.True(t, ok)
		require.Equal(t, phys, got)
		if phys >= 2<<20 {
			want |= pteNX
		}
		require.Equal(t, want, attr, "identity map of %#x", phys)
	}

	want := func(v uint64) (attr uint64, ok bool) {
		switch {
		case v >= info.TextStart && v < info.TextEnd:
			return ad | pteGlobal, true
		case v >= info.RodataStart && v < info.RodataEnd:
			return ad | pteGlobal | pteNX, true
		case v >= info.DataStart && v < info.DataEnd:
			return ad | pteGlobal | pteNX | pteWrite, true
		}
		return 0, false
	}
	mapped := 0
	for v := record.ImageBase; v < record.ImageBase+record.PhysBase+uint64(len(m.b))+8<<20; v += 4096 {
		attr, mustMap := want(v)
		got, gotAttr, ok := m.walk(info.PML4, v)
		require.Equal(t, mustMap, ok, "%#x", v)
		if ok {
			mapped++
			require.Equal(t, v-record.ImageBase, got)
			require.Equal(t, attr, gotAttr, "%#x", v)
		}
	}
	require.Greater(t, mapped, 200)

	// Nothing else is mapped.
	for i := uint64(0); i < 512; i++ {
		require.Equal(t, i == 0 || i == 256 || i == 511, m.word(info.PML4+i*8) != 0, "PML4[%d]", i)
	}
	for _, v := range []uint64{4 << 30, 511 << 30, record.DirectMap + 4<<30, record.ImageBase - 1<<30, 0xffff_ffff_c000_0000} {
		_, _, ok := m.walk(info.PML4, v)
		require.False(t, ok, "%#x", v)
	}
}

func TestRecord(t *testing.T) {
	in := testKernel(t)
	orig := bytes.Clone(in)
	img, info, err := Rewrite(in, testOptions)
	require.NoError(t, err)
	require.Equal(t, orig, in, "the input must stay as it is")
	require.True(t, info.Filled())

	f, err := elf.NewFile(bytes.NewReader(img))
	require.NoError(t, err)
	syms, err := f.Symbols()
	require.NoError(t, err, "symbols must survive")
	addr := map[string]uint64{}
	for _, s := range syms {
		addr[s.Name] = s.Value
	}
	m := load(t, img)
	at := addr["main.Record"] - record.ImageBase - m.base
	require.Equal(t, info.Bytes(), m.b[at:at+record.Size])

	require.Equal(t, uint64(record.PhysBase), info.PhysStart)
	require.Equal(t, (addr["runtime.end"]-record.ImageBase+4095)&^4095, info.PhysEnd)
	require.Equal(t, record.LinkAddress-4096, info.TextStart)
	for _, r := range []struct{ start, sym, end string }{
		{"runtime.text", "runtime.etext", "text"}, {"runtime.rodata", "runtime.erodata", "rodata"}, {"runtime.noptrdata", "runtime.end", "data"},
	} {
		lo, hi := info.TextStart, info.TextEnd
		switch r.end {
		case "rodata":
			lo, hi = info.RodataStart, info.RodataEnd
		case "data":
			lo, hi = info.DataStart, info.DataEnd
		}
		require.LessOrEqual(t, lo, addr[r.start])
		require.GreaterOrEqual(t, hi, addr[r.sym])
		require.Zero(t, (lo|hi)%4096)
	}

	// Debuggers read the output: the line table still knows the assembly of the entry.
	d, err := f.DWARF()
	require.NoError(t, err)
	_, err = d.Reader().SeekPC(addr["entry64"])
	require.NoError(t, err)
	require.Equal(t, addr["entry64"], f.Entry)
}

// TestNote finds the entry point as a PVH loader does.
func TestNote(t *testing.T) {
	img, _, err := Rewrite(testKernel(t), testOptions)
	require.NoError(t, err)
	f, err := elf.NewFile(bytes.NewReader(img))
	require.NoError(t, err)
	for _, p := range f.Progs {
		if p.Type != elf.PT_NOTE {
			continue
		}
		b := make([]byte, p.Filesz)
		_, err := p.ReadAt(b, 0)
		require.NoError(t, err)
		require.Equal(t, []byte{4, 0, 0, 0, 8, 0, 0, 0, 18, 0, 0, 0, 'X', 'e', 'n', 0, 0, 0, 0x10, 0, 0, 0, 0, 0}, b)
		return
	}
	t.Fatal("no PT_NOTE")
}
