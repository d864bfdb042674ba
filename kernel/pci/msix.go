package pci

import "fmt"

// MSIX is a function's MSI-X capability (LB, 6.8.2): its interrupts are writes to memory, one address and value a vector.
type MSIX struct {
	Offset         uint8 // of the capability in configuration space
	Vectors        int   // 1 to 2048
	Table, Pending Location
}

// Location is a place in the memory of a device.
type Location struct {
	BAR    int
	Offset uint32
}

// Message is what a device writes to raise an interrupt.
type Message struct {
	Addr uint64
	Data uint32
}

// Bits of the capability's first register, and entries of the table.
const (
	msixEnable = 1 << 31
	msixMask   = 1 << 30 // all vectors

	entrySize      = 16
	entryAddr      = 0
	entryAddrHigh  = 4
	entryData      = 8
	entryControl   = 12
	controlMasked  = 1
	controlReserve = ^uint32(controlMasked)
)

// Table is the table of a device's MSI-X vectors. Methods for different vectors may be called concurrently.
type Table struct {
	regs Registers
	off  uint64 // of the table in regs
	n    int
	a    Address
}

// Event is a count that interrupts of a device raise.
type Event interface {
	// Wait blocks until the count is not 0, sets it to 0 and returns what it was. One goroutine waits at a time.
	Wait() (uint64, error)
}

// EnableMSIX turns d's MSI-X interrupts on, every vector masked, and the interrupt line off. regs is the memory
// behind base address register d.MSIX.Table.BAR. The device also needs CommandMaster.
func (d *Device) EnableMSIX(c Config, regs Registers) (*Table, error) {
	if d.MSIX == nil {
		return nil, &Error{d.Address, "MSI-X", ErrUnsupported}
	}
	t := &Table{regs, uint64(d.MSIX.Table.Offset), d.MSIX.Vectors, d.Address}
	off := uint16(d.MSIX.Offset)
	v := c.Read32(d.Address, off) | msixEnable | msixMask
	// With everything masked first, since an earlier user may have left vectors unmasked.
	c.Write32(d.Address, off, v)
	for i := range t.n {
		t.control(i, true)
	}
	if err := d.Enable(c, CommandNoINTx); err != nil {
		return nil, err
	}
	c.Write32(d.Address, off, v&^msixMask)
	return t, nil
}

// DisableMSIX turns d's MSI-X interrupts off. The interrupt line stays off.
func (d *Device) DisableMSIX(c Config) {
	if d.MSIX != nil {
		off := uint16(d.MSIX.Offset)
		c.Write32(d.Address, off, c.Read32(d.Address, off)&^msixEnable)
	}
}

// Vectors returns how many vectors there are.
func (t *Table) Vectors() int { return t.n }

// Set makes vector i send m. It is masked afterwards.
func (t *Table) Set(i int, m Message) error {
	if err := t.check(i); err != nil {
		return err
	}
	// A device may send the message at any moment unless masked (LB, 6.8.2.9).
	t.control(i, true)
	at := t.entry(i)
	t.regs.Store32(at+entryAddr, uint32(m.Addr))
	t.regs.Store32(at+entryAddrHigh, uint32(m.Addr>>32))
	t.regs.Store32(at+entryData, m.Data)
	return nil
}

// Mask holds the messages of vector i back. The device remembers that there was one.
func (t *Table) Mask(i int) error { return t.mask(i, true) }

// Unmask lets the messages of vector i pass, first of all one that was held back.
func (t *Table) Unmask(i int) error { return t.mask(i, false) }

func (t *Table) mask(i int, on bool) error {
	if err := t.check(i); err != nil {
		return err
	}
	t.control(i, on)
	return nil
}

func (t *Table) check(i int) error {
	if i < 0 || i >= t.n {
		return &Error{t.a, fmt.Sprintf("vector %d of %d", i, t.n), ErrNoVector}
	}
	return nil
}

func (t *Table) entry(i int) uint64 { return t.off + uint64(i)*entrySize }

func (t *Table) control(i int, masked bool) {
	at := t.entry(i) + entryControl
	v := t.regs.Load32(at) & controlReserve
	if masked {
		v |= controlMasked
	}
	t.regs.Store32(at, v)
}
