package pci

import "fmt"

// Capability is an entry of a function's capability list (LB, 6.7).
type Capability struct {
	ID     uint8
	Offset uint8 // of its header in configuration space
}

// capabilities reads the list, which is a chain of offsets that the device made up.
func (s *scanner) capabilities(d *Device) {
	if s.c.Read32(d.Address, regCommand)&statusCapabilities == 0 {
		return
	}
	var seen [configSize / 4]bool
	off := uint8(s.c.Read32(d.Address, regCapabilities)) &^ 3
	for off != 0 {
		if off < firstCapability || seen[off/4] {
			s.problem(d.Address, ErrCapability, "entry at offset %#x", off)
			return
		}
		seen[off/4] = true
		h := s.c.Read32(d.Address, uint16(off))
		c := Capability{ID: uint8(h), Offset: off}
		d.Capabilities = append(d.Capabilities, c)
		if c.ID == capabilityMSIX && d.MSIX == nil {
			s.msix(d, off, h)
		}
		off = uint8(h>>8) &^ 3
	}
}

// msix reads the MSI-X capability at off, whose first register is h.
func (s *scanner) msix(d *Device, off uint8, h uint32) {
	if off > configSize-12 {
		s.problem(d.Address, ErrMSIX, "it ends outside configuration space, at offset %#x", off)
		return
	}
	m := &MSIX{Offset: off, Vectors: int(h>>16&0x7ff) + 1}
	m.Table = location(s.c.Read32(d.Address, uint16(off)+4))
	m.Pending = location(s.c.Read32(d.Address, uint16(off)+8))
	if err := m.check(d); err != nil {
		s.problem(d.Address, ErrMSIX, "%v", err)
		return
	}
	d.MSIX = m
}

func location(v uint32) Location { return Location{BAR: int(v & 7), Offset: v &^ 7} }

func (m *MSIX) check(d *Device) error {
	for _, l := range []struct {
		what string
		Location
		size uint64
	}{
		{"table", m.Table, uint64(m.Vectors) * entrySize},
		{"pending bits", m.Pending, uint64(m.Vectors+63) / 64 * 8},
	} {
		if l.BAR >= len(d.BARs) || !d.BARs[l.BAR].Memory() {
			return fmt.Errorf("%s of %d vectors in BAR %d, which is no memory", l.what, m.Vectors, l.BAR)
		}
		if size := d.BARs[l.BAR].Size; uint64(l.Offset) > size || l.size > size-uint64(l.Offset) {
			return fmt.Errorf("%s of %d vectors at offset %#x of BAR %d, which has %#x bytes", l.what, m.Vectors, l.Offset, l.BAR, size)
		}
	}
	return nil
}
