package info

import (
	"fmt"
	"slices"
)

// Caps on ACPI tables.
const (
	MaxTable     = 64 << 10 // bytes in one table
	MaxCPUs      = 1024
	MaxIOAPICs   = 64
	MaxOverrides = 64
)

// CPU is a processor in the MADT.
type CPU struct {
	APIC uint32 // local APIC ID
	UID  uint32 // ACPI processor UID
	// Enabled processors can be started. Those that are only Onlinable may be added later.
	Enabled, Onlinable bool
}

// IOAPIC is an I/O interrupt controller in the MADT. Its inputs are global system interrupts GSI, GSI+1 and so on.
type IOAPIC struct {
	ID   uint8
	Addr uint32 // physical
	GSI  uint32
}

// Override says that ISA interrupt IRQ is connected to the global system interrupt GSI.
type Override struct {
	IRQ       uint8
	GSI       uint32
	ActiveLow bool // else active high, which is also what "conforms to the bus" means for ISA
	Level     bool // else edge-triggered, likewise
}

// MADT is the Multiple APIC Description Table; ACPI 6.5 section 5.2.12.
type MADT struct {
	LAPIC     uint64 // physical address of the local APICs
	PIC8259   bool   // the machine also has 8259 PICs, which must be masked
	CPUs      []CPU  // in the order of the table, which starts with the boot processor; IDs are unique
	IOAPICs   []IOAPIC
	Overrides []Override
}

// Enabled returns how many processors can be started.
func (m *MADT) Enabled() int {
	n := 0
	for _, c := range m.CPUs {
		if c.Enabled {
			n++
		}
	}
	return n
}

const (
	rsdpSignature = "RSD PTR "
	rsdpV1Size    = 20
	rsdpV2Size    = 36
	tableHeader   = 36
)

func sum(b []byte) (s uint8) {
	for _, v := range b {
		s += v
	}
	return s
}

// FindRSDP returns the address of the RSDP in the areas that ACPI 6.5 section 5.2.5.1 names. It is for loaders that do
// not pass it on.
func FindRSDP(mem Memory) (uint64, error) {
	// The segment of the extended BIOS data area is at 0x40e; its first KiB may hold the RSDP.
	if b, err := mem.read("EBDA segment", 0x40e, 2); err == nil {
		if at := uint64(le.Uint16(b)) << 4; at >= 0x8_0000 && at < 0xa_0000 {
			if rsdp, ok := mem.scanRSDP(at, 1<<10); ok {
				return rsdp, nil
			}
		}
	}
	if rsdp, ok := mem.scanRSDP(0xe_0000, 0x2_0000); ok {
		return rsdp, nil
	}
	return 0, bad("RSDP", 0xe_0000, "not found up to 0x100000: the machine must have ACPI")
}

func (mem Memory) scanRSDP(from, n uint64) (uint64, bool) {
	b, err := mem.read("RSDP", from, n)
	if err != nil {
		return 0, false
	}
	for off := 0; off+rsdpV1Size <= len(b); off += 16 {
		if c := b[off:][:rsdpV1Size]; string(c[:8]) == rsdpSignature && sum(c) == 0 {
			return from + uint64(off), true
		}
	}
	return 0, false
}

// Table returns a copy of the ACPI table with the given signature, header included, found through the RSDP at
// physical address rsdp. Lengths and checksums on the way have been verified.
func Table(mem Memory, rsdp uint64, signature string) ([]byte, error) {
	root, entry, err := mem.rootTable(rsdp)
	if err != nil {
		return nil, err
	}
	rootSig, width := "RSDT", 4
	if entry {
		rootSig, width = "XSDT", 8
	}
	list, err := mem.table(rootSig, root)
	if err != nil {
		return nil, err
	}
	body := list[tableHeader:]
	if len(body)%width != 0 {
		return nil, bad(rootSig+".length", root+4, "%d, want %d plus a multiple of %d", len(list), tableHeader, width)
	}
	for i := 0; i < len(body); i += width {
		at := uint64(le.Uint32(body[i:]))
		if width == 8 {
			at = le.Uint64(body[i:])
		}
		head, err := mem.read(fmt.Sprintf("%s.entry[%d]", rootSig, i/width), at, 4)
		if err != nil {
			return nil, err
		}
		if string(head) == signature {
			return mem.table(signature, at)
		}
	}
	return nil, bad(rootSig, root, "lists no table %s", signature)
}

// rootTable checks the RSDP and returns the address of the XSDT (wide) or, if there is none, of the RSDT.
func (mem Memory) rootTable(rsdp uint64) (root uint64, wide bool, err error) {
	b, err := mem.read("RSDP", rsdp, rsdpV1Size)
	if err != nil {
		return 0, false, err
	}
	if string(b[:8]) != rsdpSignature {
		return 0, false, bad("RSDP.signature", rsdp, "%q, want %q", b[:8], rsdpSignature)
	}
	if s := sum(b); s != 0 {
		return 0, false, bad("RSDP.checksum", rsdp+8, "bytes add up to %#x, want 0", s)
	}
	root = uint64(le.Uint32(b[16:]))
	if b[15] < 2 {
		return root, false, nil
	}
	if b, err = mem.read("RSDP", rsdp, rsdpV2Size); err != nil {
		return 0, false, err
	}
	if s := sum(b); s != 0 {
		return 0, false, bad("RSDP.extended_checksum", rsdp+32, "bytes add up to %#x, want 0", s)
	}
	if x := le.Uint64(b[24:]); x != 0 {
		return x, true, nil
	}
	return root, false, nil
}

// table reads a whole table and checks its header.
func (mem Memory) table(signature string, at uint64) ([]byte, error) {
	h, err := mem.read(signature, at, tableHeader)
	if err != nil {
		return nil, err
	}
	if string(h[:4]) != signature {
		return nil, bad(signature+".signature", at, "%q, want %q", h[:4], signature)
	}
	n := uint64(le.Uint32(h[4:]))
	if n < tableHeader || n > MaxTable {
		return nil, bad(signature+".length", at+4, "%d, want %d to %d", n, tableHeader, MaxTable)
	}
	b, err := mem.read(signature, at, n)
	if err != nil {
		return nil, err
	}
	if s := sum(b); s != 0 {
		return nil, bad(signature+".checksum", at+9, "bytes add up to %#x, want 0", s)
	}
	return slices.Clone(b), nil
}

// Entry types of the MADT that are used; others are skipped.
const (
	madtLAPIC        = 0
	madtIOAPIC       = 1
	madtOverride     = 2
	madtLAPICAddress = 5
	madtX2APIC       = 9
)

// Lengths of those entries.
var madtLength = map[uint8]int{madtLAPIC: 8, madtIOAPIC: 12, madtOverride: 10, madtLAPICAddress: 12, madtX2APIC: 16}

const madtEntries = 44 // offset of the first entry

// ReadMADT finds and parses the MADT.
func ReadMADT(mem Memory, rsdp uint64) (*MADT, error) {
	b, err := Table(mem, rsdp, "APIC")
	if err != nil {
		return nil, err
	}
	return ParseMADT(b)
}

// ParseMADT parses a table that Table returned. Addresses in its errors are offsets in b.
func ParseMADT(b []byte) (*MADT, error) {
	if len(b) < madtEntries {
		return nil, bad("MADT.length", 4, "%d, want at least %d", len(b), madtEntries)
	}
	m := &MADT{LAPIC: uint64(le.Uint32(b[36:])), PIC8259: le.Uint32(b[40:])&1 != 0}
	for i, off := 0, madtEntries; off < len(b); i++ {
		field := fmt.Sprintf("MADT.entry[%d]", i)
		e := b[off:]
		if len(e) < 2 || int(e[1]) < 2 || int(e[1]) > len(e) {
			return nil, bad(field+".length", uint64(off+1), "entry does not fit in the table of %d bytes", len(b))
		}
		e = e[:e[1]]
		if want := madtLength[e[0]]; len(e) < want {
			return nil, bad(field+".length", uint64(off+1), "%d for type %d, want %d", len(e), e[0], want)
		}
		if err := m.add(e); err != nil {
			return nil, &Error{field, uint64(off), err}
		}
		off += len(e)
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	return m, nil
}

// add takes in one entry of the table, whose length has been checked.
func (m *MADT) add(e []byte) error {
	switch e[0] {
	case madtLAPIC:
		return m.addCPU(CPU{APIC: uint32(e[3]), UID: uint32(e[2])}, le.Uint32(e[4:]))
	case madtX2APIC:
		return m.addCPU(CPU{APIC: le.Uint32(e[4:]), UID: le.Uint32(e[12:])}, le.Uint32(e[8:]))
	case madtLAPICAddress:
		m.LAPIC = le.Uint64(e[4:])
	case madtIOAPIC:
		if len(m.IOAPICs) == MaxIOAPICs {
			return fmt.Errorf("more than %d I/O APICs", MaxIOAPICs)
		}
		m.IOAPICs = append(m.IOAPICs, IOAPIC{ID: e[2], Addr: le.Uint32(e[4:]), GSI: le.Uint32(e[8:])})
	case madtOverride:
		if len(m.Overrides) == MaxOverrides {
			return fmt.Errorf("more than %d interrupt overrides", MaxOverrides)
		}
		flags := le.Uint16(e[8:])
		m.Overrides = append(m.Overrides, Override{
			IRQ: e[3], GSI: le.Uint32(e[4:]), ActiveLow: flags&3 == 3, Level: flags>>2&3 == 3,
		})
	}
	return nil
}

func (m *MADT) addCPU(c CPU, flags uint32) error {
	if len(m.CPUs) == MaxCPUs {
		return fmt.Errorf("more than %d processors", MaxCPUs)
	}
	c.Enabled, c.Onlinable = flags&1 != 0, flags&2 != 0
	m.CPUs = append(m.CPUs, c)
	return nil
}

// check checks what entries have in common.
func (m *MADT) check() error {
	if m.LAPIC == 0 || m.LAPIC%4096 != 0 || m.LAPIC >= physLimit {
		return bad("MADT.local_apic_address", 36, "%#x, want the address of a page", m.LAPIC)
	}
	seen := make(map[uint32]bool, len(m.CPUs))
	for _, c := range m.CPUs {
		// Unusable entries may all carry ID 0xff.
		if (c.Enabled || c.Onlinable) && seen[c.APIC] {
			return bad("MADT", 0, "local APIC ID %d belongs to two processors", c.APIC)
		}
		seen[c.APIC] = seen[c.APIC] || c.Enabled || c.Onlinable
	}
	if m.Enabled() == 0 {
		return bad("MADT", 0, "no enabled processor among %d", len(m.CPUs))
	}
	return nil
}
