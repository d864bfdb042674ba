package realmode

import (
	"encoding/binary"
	"flag"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/boot/emit/emittest"
)

var rewriteGolden = flag.Bool("rewrite", false, "rewrite the expected listing in testdata")

// TestListing disassembles the code in its three modes and compares it with the reviewed listing.
func TestListing(t *testing.T) {
	const page = 0x8000
	l, err := assemble(page)
	require.NoError(t, err)
	got, err := emittest.Listing(l, map[string]uint64{
		"gdtr":  uint64(l.Labels["gdtr"] - page), // an offset in the data segment
		"cr0PE": cr0PE, "cr0": cr0, "cr4": cr4, "cr4pge": cr4 | pge, "efer": efer, "sceLM": sceLM, "page": page,
		"cr3Word": page + cr3Offset, "argOffset": argOffset, "stackOffset": stackOffset, "entryOffset": entryOffset, "takenOffset": TakenOffset,
	})
	require.NoError(t, err)
	if *rewriteGolden {
		require.NoError(t, os.WriteFile("testdata/ap.golden", []byte(got), 0o644))
	}
	want, err := os.ReadFile("testdata/ap.golden")
	require.NoError(t, err)
	require.Equal(t, string(want), got, "run with -rewrite and review the difference")
}

func TestInstall(t *testing.T) {
	page := make([]byte, PageSize)
	for i := range page {
		page[i] = 0xcc
	}
	require.NoError(t, Install(page, 0x9f000))
	require.Equal(t, byte(0xfa), page[0])
	require.Equal(t, make([]byte, PageSize-MailboxOffset), page[MailboxOffset:])
	require.Equal(t, uint8(0x9f), Vector(0x9f000))

	for _, phys := range []uint64{0, 1, 0x8001, 0xa0000, 1 << 20, 1 << 40} {
		require.ErrorContains(t, Install(page, phys), "physical address", "%#x", phys)
	}
	require.ErrorContains(t, Install(page[1:], 0x8000), "page of 4095 bytes")
}

func TestSetMailbox(t *testing.T) {
	page := make([]byte, PageSize)
	page[TakenOffset] = 1
	require.NoError(t, SetMailbox(page, Mailbox{CR3: 0x101000, Entry: 2, Stack: 3, Arg: 4}))
	for i, want := range []uint64{0x101000, 2, 3, 4, 0} {
		require.Equal(t, want, binary.LittleEndian.Uint64(page[MailboxOffset+8*i:]))
	}
	before := append([]byte(nil), page...)
	for _, m := range []Mailbox{
		{CR3: 1 << 32, Entry: 1, Stack: 1}, {Entry: 1, Stack: 1}, {CR3: 0x1008, Entry: 1, Stack: 1},
		{CR3: 0x1000, Stack: 1}, {CR3: 0x1000, Entry: 1},
	} {
		require.Error(t, SetMailbox(page, m), "%+v", m)
	}
	require.Equal(t, before, page, "a refused mailbox must not be written")
}
