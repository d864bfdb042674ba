package image

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/boot/emit/emittest"
)

var rewriteGolden = flag.Bool("rewrite", false, "rewrite the expected listings in testdata")

// TestTrampolineListing disassembles the trampoline, compares each instruction with the mnemonic beside its bytes,
// and the whole with the reviewed listing.
func TestTrampolineListing(t *testing.T) {
	const entry, pml4, end = 0xffffffff80261f80, 0x101000, 0x325000
	l, err := trampoline(pml4, end, entry)
	require.NoError(t, err)
	consts := map[string]uint64{
		"stack": 0x101000, "magic": startInfoMagic, "idBit": idBit, "cr4": cr4, "cr4pge": cr4 | pge, "pml4": pml4, "efer": efer,
		"lmNX": lmNX, "sce": sce, "cr0": cr0, "entry": entry, "spins": 1 << 16, "lsr": com1LSR, "lsrEmpty": lsrEmpty, "com1": com1,
		"exitPort": 0xf4, "exitRefused": 0x13, "last": end - 4, "no_syscall_mask": uint64(syscallFeature.mask),
	}
	for _, f := range append(append([]cpuFeature(nil), basicFeatures...), extendedFeatures...) {
		consts[f.label+"_mask"] = uint64(f.mask)
	}
	got, err := emittest.Listing(l, consts)
	require.NoError(t, err)
	golden(t, "trampoline.golden", got)
}

// TestRefuseBothModes decodes the bytes of refuse as 32-bit and as 64-bit code: same instructions, same lengths.
func TestRefuseBothModes(t *testing.T) {
	l, err := trampoline(0x101000, 0x325000, 0xffffffff80261f80)
	require.NoError(t, err)
	wide := *l
	wide.Lines = append(wide.Lines[:0:0], l.Lines...)
	n := 0
	for i := range wide.Lines {
		line := &wide.Lines[i]
		if line.Addr < l.Labels["refuse"] || line.Addr >= l.Labels["gdt"] {
			line.Bits = 0
			continue
		}
		n++
		if line.Bits == 64 {
			line.Bits = 32
		}
		if line.Text == "lodsb byte ptr [rsi]" {
			line.Text = "lodsb byte ptr [esi]"
		}
	}
	require.Greater(t, n, 10)
	_, err = emittest.Listing(&wide, map[string]uint64{
		"spins": 1 << 16, "lsr": com1LSR, "lsrEmpty": lsrEmpty, "com1": com1, "exitPort": 0xf4, "exitRefused": 0x13,
	})
	require.NoError(t, err)
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewriteGolden {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got, "run with -rewrite and review the difference")
}
