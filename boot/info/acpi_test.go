package info

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReadMADT(t *testing.T) {
	m, err := ReadMADT(record().memory, rsdpAt)
	require.NoError(t, err)
	require.Equal(t, &MADT{
		LAPIC: 0xfee10000, PIC8259: true,
		CPUs: []CPU{
			{0, 0, true, false}, {4, 1, false, true}, {0xff, 2, false, false}, {0xff, 3, false, false}, {0x100, 7, true, false},
		},
		IOAPICs:   []IOAPIC{{3, 0xfec00000, 24}},
		Overrides: []Override{{0, 2, false, false}, {9, 9, true, true}},
	}, m)
	require.Equal(t, 2, m.Enabled())
}

// TestRSDT: revision 0, and revision 2 without an XSDT, lead to the RSDT with its 32-bit entries.
func TestRSDT(t *testing.T) {
	for _, rev := range []byte{0, 2} {
		f := record()
		f.at(rsdpAt, rsdp(rev, xsdtAt, 0))
		f.at(xsdtAt, table("RSDT", binary.LittleEndian.AppendUint32(nil, madtAt)))
		m, err := ReadMADT(f.memory, rsdpAt)
		require.NoError(t, err)
		require.Len(t, m.CPUs, 5)
	}
}

func TestFindRSDP(t *testing.T) {
	f := &flat{0x400, make([]byte, 0x100000-0x400)}
	_, err := FindRSDP(f.memory)
	require.ErrorContains(t, err, "not found")
	f.at(0xf5a00, rsdp(0, 1, 0))
	f.at(0xf0000, []byte(rsdpSignature)) // a decoy: the checksum is wrong
	at, err := FindRSDP(f.memory)
	require.NoError(t, err)
	require.Equal(t, uint64(0xf5a00), at)

	f.at(0x40e, uint16(0x9fc0))
	f.at(0x9fc10, rsdp(2, 1, 1))
	at, err = FindRSDP(f.memory)
	require.NoError(t, err)
	require.Equal(t, uint64(0x9fc10), at, "the EBDA comes first")
}

func TestACPIMalformed(t *testing.T) {
	madt := func(edit func(b []byte) []byte) func(*flat) {
		return func(f *flat) { f.at(madtAt, table("APIC", edit(bytes.Clone(madtBody)))) }
	}
	many := func(n int, entry ...byte) func(*flat) {
		return madt(func(b []byte) []byte { return append(b[:8], bytes.Repeat(entry, n)...) })
	}
	for _, c := range []struct {
		name  string
		patch func(f *flat)
		want  string
	}{
		{"rsdp signature", func(f *flat) { f.at(rsdpAt, byte('X')) }, "RSDP.signature"},
		{"rsdp checksum", func(f *flat) { f.at(rsdpAt+9, byte('X')) }, "RSDP.checksum"},
		{"rsdp extended checksum", func(f *flat) { f.at(rsdpAt+33, byte('X')) }, "RSDP.extended_checksum"},
		{"xsdt address", func(f *flat) { f.at(rsdpAt, rsdp(2, 0, 1<<60)) }, "outside physical memory"},
		{"no root", func(f *flat) { f.at(rsdpAt, rsdp(2, 0, 0)) }, "RSDT at 0x0: address is 0"},
		{"xsdt signature", func(f *flat) { f.at(xsdtAt, byte('Y')) }, "XSDT.signature"},
		{"xsdt checksum", func(f *flat) { f.at(xsdtAt+20, byte('Y')) }, "XSDT.checksum"},
		{"xsdt odd length", func(f *flat) { f.at(xsdtAt, table("XSDT", make([]byte, 12))) }, "XSDT.length at 0x13204: 48, want 36 plus a multiple of 8"},
		{"xsdt entry", func(f *flat) { f.at(xsdtAt, table("XSDT", make([]byte, 8))) }, "XSDT.entry[0]"},
		{"no madt", func(f *flat) { f.at(xsdtAt, table("XSDT", nil)) }, "lists no table APIC"},
		{"madt short", func(f *flat) { f.at(madtAt+4, uint32(35)) }, "APIC.length at 0x13404: 35, want 36 to 65536"},
		{"madt huge", func(f *flat) { f.at(madtAt+4, ^uint32(0)) }, "want 36 to 65536"},
		{"madt checksum", func(f *flat) { f.at(madtAt+44, byte(9)) }, "APIC.checksum"},
		{"madt body", func(f *flat) { f.at(madtAt, table("APIC", madtBody[:4])) }, "MADT.length at 0x4: 40, want at least 44"},
		{"entry of length 0", madt(func(b []byte) []byte { b[9] = 0; return b }), "MADT.entry[0].length at 0x2d: entry does not fit"},
		{"entry of length 1", madt(func(b []byte) []byte { b[9] = 1; return b }), "entry does not fit"},
		{"entry too short", madt(func(b []byte) []byte { b[9] = 7; return b }), "MADT.entry[0].length at 0x2d: 7 for type 0, want 8"},
		{"entry too long", madt(func(b []byte) []byte { b[len(b)-11] = 13; return b }), "does not fit"},
		{"one stray byte", madt(func(b []byte) []byte { return append(b, 0) }), "does not fit"},
		{"same ID", madt(func(b []byte) []byte { b[16+3] = 0; return b }), "local APIC ID 0 belongs to two processors"},
		{"no processor", madt(func(b []byte) []byte { return b[:8] }), "no enabled processor among 0"},
		{"LAPIC address", madt(func(b []byte) []byte { b[len(b)-8] = 1; return b }), "MADT.local_apic_address"},
		{"many processors", many(MaxCPUs+1, 0, 8, 0, 0, 0, 0, 0, 0), "more than 1024 processors"},
		{"many I/O APICs", many(MaxIOAPICs+1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), "more than 64 I/O APICs"},
		{"many overrides", many(MaxOverrides+1, 2, 10, 0, 0, 0, 0, 0, 0, 0, 0), "more than 64 interrupt overrides"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := record()
			f.b = append(f.b, make([]byte, 0x10000)...)
			c.patch(f)
			m, err := ReadMADT(f.memory, rsdpAt)
			require.ErrorContains(t, err, c.want)
			require.Nil(t, m)
			var e *Error
			require.ErrorAs(t, err, &e)
		})
	}
}

func FuzzParseMADT(f *testing.F) {
	f.Add(table("APIC", madtBody))
	f.Add(table("APIC", madtBody[:30]))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseMADT(b)
		if err != nil {
			require.Nil(t, m)
			var e *Error
			require.ErrorAs(t, err, &e)
			return
		}
		require.NotZero(t, m.Enabled())
		require.LessOrEqual(t, len(m.CPUs), len(b)/8)
	})
}

func FuzzTable(f *testing.F) {
	good := record()
	f.Add(uint16(0), []byte{})
	f.Add(uint16(24), []byte{0xff, 0xff})
	f.Fuzz(func(t *testing.T, off uint16, change []byte) {
		m := &flat{good.base, bytes.Clone(good.b)}
		copy(m.b[rsdpAt-m.base:][int(off)%0x800:], change)
		// Checksums stop most changes; repair them so that what they guard is reached.
		fix(fix(m.b[rsdpAt-m.base:], 8, 20), 32, 36)
		for _, at := range []uint64{xsdtAt, madtAt} {
			h := m.b[at-m.base:]
			if n := int(binary.LittleEndian.Uint32(h[4:])); n >= tableHeader && n <= len(h) {
				fix(h, 9, n)
			}
		}
		_, err := ReadMADT(m.memory, rsdpAt)
		if err != nil {
			var e *Error
			require.ErrorAs(t, err, &e)
		}
	})
}
