package pci

import (
	"encoding/binary"
	"fmt"
)

// ECAM is configuration space as memory (PCIe, 7.2.2): 4 KiB a function.
type ECAM struct {
	Regs        Registers // from the first function of FirstBus on
	First, Last uint8     // buses
}

// ECAMPerBus is how many bytes of ECAM a bus takes.
const ECAMPerBus = 1 << 20

func (e *ECAM) offset(a Address, off uint16) (uint64, bool) {
	return uint64(a.Bus-e.First)<<20 | uint64(a.Device&31)<<15 | uint64(a.Function&7)<<12 | uint64(off&0xffc),
		a.Bus >= e.First && a.Bus <= e.Last
}

// Read32 implements Config.
func (e *ECAM) Read32(a Address, off uint16) uint32 {
	at, ok := e.offset(a, off)
	if !ok {
		return 0xffff_ffff
	}
	return e.Regs.Load32(at)
}

// Write32 implements Config.
func (e *ECAM) Write32(a Address, off uint16, v uint32) {
	if at, ok := e.offset(a, off); ok {
		e.Regs.Store32(at, v)
	}
}

// Segment is an entry of the MCFG table: where the ECAM of some buses is. Base is the address of bus First.
type Segment struct {
	Base        uint64
	Group       uint16
	First, Last uint8
}

// Bytes returns how large the segment's ECAM is.
func (s Segment) Bytes() uint64 { return (uint64(s.Last-s.First) + 1) * ECAMPerBus }

// The MCFG table: PCI Firmware Specification 3.2, 4.1.2.
const (
	mcfgHeader  = 44
	mcfgEntry   = 16
	maxSegments = 64
)

// ParseMCFG parses an MCFG table, of which length and checksum have been verified.
func ParseMCFG(b []byte) ([]Segment, error) {
	n := (len(b) - mcfgHeader) / mcfgEntry
	if len(b) < mcfgHeader+mcfgEntry || (len(b)-mcfgHeader)%mcfgEntry != 0 || n > maxSegments {
		return nil, fmt.Errorf("MCFG of %d bytes, want %d and 1 to %d entries of %d", len(b), mcfgHeader, maxSegments, mcfgEntry)
	}
	list := make([]Segment, n)
	for i := range list {
		e := b[mcfgHeader+i*mcfgEntry:]
		s := Segment{Group: binary.LittleEndian.Uint16(e[8:]), First: e[10], Last: e[11]}
		base := binary.LittleEndian.Uint64(e)
		// The table gives the address that bus 0 has or would have.
		s.Base = base + uint64(s.First)*ECAMPerBus
		if base%ECAMPerBus != 0 || base == 0 || base >= 1<<52 || s.Last < s.First {
			return nil, fmt.Errorf("MCFG entry %d: buses %d to %d at %#x make no sense", i, s.First, s.Last, base)
		}
		list[i] = s
	}
	return list, nil
}
