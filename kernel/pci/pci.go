// Package pci finds the functions of a PCI bus, sizes and places their base address registers and sets up their MSI-X
// interrupts. Source: PCI Local Bus Specification 3.0 (LB), PCI Express Base Specification 4.0 (PCIe), PCI-to-PCI Bridge
// Architecture Specification 1.2.
//
// The package is pure: configuration space and device registers are reached through the interfaces Config and Registers.
// What a device answers is distrusted: whatever configuration space reads as, and even if it reads differently each
// time, every function ends after a bounded number of accesses, with a typed error where something makes no sense.
//
// Concurrency: functions that write to a device's configuration space read and modify it; the caller does not run two
// of them for one device at the same time.
package pci

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// Address is where a function is on the bus, in segment 0.
type Address struct{ Bus, Device, Function uint8 }

// String formats a as usual, "00:1f.2".
func (a Address) String() string {
	return fmt.Sprintf("%02x:%02x.%x", a.Bus, a.Device, a.Function)
}

func (a Address) compare(b Address) int {
	return cmp.Or(cmp.Compare(a.Bus, b.Bus), cmp.Compare(a.Device, b.Device), cmp.Compare(a.Function, b.Function))
}

// Config accesses configuration space in aligned 32-bit words: off is a multiple of 4 below 256. Reads where there is no
// function return all ones; writes there do nothing. Implementations may be used concurrently.
type Config interface {
	Read32(a Address, off uint16) uint32
	Write32(a Address, off uint16, v uint32)
}

// Registers accesses a device's memory in aligned 32-bit words, off bytes from its start.
type Registers interface {
	Load32(off uint64) uint32
	Store32(off uint64, v uint32)
}

// Registers of configuration space (LB, 6.1).
const (
	regID           = 0x00
	regCommand      = 0x04 // status is in the upper half, where writing a 1 clears
	regClass        = 0x08
	regHeader       = 0x0c
	regBAR          = 0x10
	regBuses        = 0x18 // of a bridge: primary, secondary, subordinate
	regSubsystem    = 0x2c
	regCapabilities = 0x34

	firstCapability = 0x40
	configSize      = 0x100

	statusCapabilities = 1 << 20
	multifunction      = 1 << 23

	devicesPerBus      = 32
	functionsPerDevice = 8
)

// Command bits (LB, 6.2.2).
const (
	CommandIO     = 1 << 0  // answer accesses to I/O ports
	CommandMemory = 1 << 1  // answer accesses to memory
	CommandMaster = 1 << 2  // may access memory, which includes sending MSI-X messages
	CommandNoINTx = 1 << 10 // must not assert the shared interrupt line

	commandDecode = CommandIO | CommandMemory
	commandMask   = 1<<16 - 1
)

// Values of other registers.
const (
	classHostBridge = 0x0600
	classISABridge  = 0x0601

	headerDevice = 0
	headerBridge = 1
	barsOfDevice = 6
	barsOfBridge = 2

	capabilityMSIX = 0x11
)

// MaxFunctions is how many functions Scan accepts.
const MaxFunctions = 1024

// Errors, wrapped in an *Error that names the function.
var (
	ErrBAR         = errors.New("base address register makes no sense")
	ErrCapability  = errors.New("capability list makes no sense")
	ErrMSIX        = errors.New("MSI-X capability makes no sense")
	ErrBridge      = errors.New("bus numbers of the bridge make no sense")
	ErrUnnumbered  = errors.New("bridge has no bus numbers: firmware did not set it up, what is behind it cannot be reached")
	ErrTooMany     = fmt.Errorf("more than %d functions", MaxFunctions)
	ErrNoRoom      = errors.New("no room in the windows of the host bridge")
	ErrBehind      = errors.New("device behind a bridge that firmware did not set up memory for")
	ErrUnassigned  = errors.New("memory of the device has no address")
	ErrNoVector    = errors.New("no such MSI-X vector")
	ErrUnsupported = errors.New("the device has no such capability")
)

// Error is a problem with one function.
type Error struct {
	Address Address
	Detail  string // the register and its value; may be ""
	Err     error
}

func (e *Error) Error() string {
	if e.Detail == "" {
		return fmt.Sprintf("pci %v: %v", e.Address, e.Err)
	}
	return fmt.Sprintf("pci %v: %s: %v", e.Address, e.Detail, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// Device is a function of a PCI device.
type Device struct {
	Address
	Vendor, Product            uint16
	SubsystemVendor, Subsystem uint16 // 0 for bridges
	Revision                   uint8
	Class                      uint16 // base class and subclass
	Interface                  uint8  // programming interface, which the class defines
	Bridge                     bool   // to the bus Secondary
	Secondary                  uint8
	BARs                       [barsOfDevice]BAR
	Capabilities               []Capability
	MSIX                       *MSIX // nil if there is none, or if it makes no sense
}

// Is reports whether d is of the given vendor and product.
func (d *Device) Is(vendor, product uint16) bool { return d.Vendor == vendor && d.Product == product }

// String formats what d is.
func (d *Device) String() string {
	return fmt.Sprintf("%v %s (%04x:%04x)", d.Address, d.Name(), d.Vendor, d.Product)
}

// Scan returns all functions that can be reached from bus 0 through bridges with bus numbers, ordered by address. The error
// joins an *Error for each problem; the functions are valid in spite of it. Address decoding of each function is
// off for the time that its registers are being sized.
func Scan(c Config) ([]*Device, error) {
	s := scanner{c: c}
	s.add(0)
	for len(s.queue) > 0 && s.full == nil {
		b := s.queue[0]
		s.queue = s.queue[1:]
		for dev := range uint8(devicesPerBus) {
			s.device(b, dev)
		}
	}
	slices.SortFunc(s.found, func(a, b *Device) int { return a.Address.compare(b.Address) })
	return s.found, errors.Join(append(s.problems, s.full)...)
}

type scanner struct {
	c        Config
	seen     [256]bool // buses that were or are in the queue
	queue    []uint8
	found    []*Device
	problems []error
	full     error // ErrTooMany
}

func (s *scanner) add(bus uint8) {
	s.seen[bus] = true
	s.queue = append(s.queue, bus)
}

func (s *scanner) problem(a Address, err error, format string, args ...any) {
	s.problems = append(s.problems, &Error{a, fmt.Sprintf(format, args...), err})
}

// absent tells whether the first register shows that there is no function. Besides all ones some hosts read as 0.
func absent(id uint32) bool {
	return id&0xffff == 0xffff || id&0xffff == 0
}

func (s *scanner) device(bus, dev uint8) {
	first := Address{bus, dev, 0}
	if absent(s.c.Read32(first, regID)) {
		return // function 0 must exist if any does (LB, 3.2.2.3.4)
	}
	n := uint8(1)
	if s.c.Read32(first, regHeader)&multifunction != 0 {
		n = functionsPerDevice
	}
	for fn := range n {
		a := Address{bus, dev, fn}
		id := s.c.Read32(a, regID)
		if absent(id) {
			continue
		}
		if len(s.found) == MaxFunctions {
			s.full = &Error{a, "", ErrTooMany}
			return
		}
		s.found = append(s.found, s.function(a, id))
	}
}

// function reads everything about the function at a.
func (s *scanner) function(a Address, id uint32) *Device {
	class := s.c.Read32(a, regClass)
	d := &Device{Address: a, Vendor: uint16(id), Product: uint16(id >> 16),
		Revision: uint8(class), Interface: uint8(class >> 8), Class: uint16(class >> 16)}
	switch s.c.Read32(a, regHeader) >> 16 & 0x7f {
	case headerDevice:
		sub := s.c.Read32(a, regSubsystem)
		d.SubsystemVendor, d.Subsystem = uint16(sub), uint16(sub>>16)
		s.bars(d, barsOfDevice)
	case headerBridge:
		d.Bridge = true
		s.bars(d, barsOfBridge)
		s.bridge(d)
	default:
		return d // CardBus, or a type that did not exist yet: nothing more is known about its registers
	}
	s.capabilities(d)
	return d
}

// bridge adds the bus behind d to the queue.
func (s *scanner) bridge(d *Device) {
	v := s.c.Read32(d.Address, regBuses)
	secondary, last := uint8(v>>8), uint8(v>>16)
	switch {
	case secondary == 0:
		s.problem(d.Address, ErrUnnumbered, "secondary bus 0")
	case secondary <= d.Bus || last < secondary || s.seen[secondary]:
		s.problem(d.Address, ErrBridge, "secondary bus %d, last bus %d", secondary, last)
	default:
		d.Secondary = secondary
		s.add(secondary)
	}
}

// Enable sets bits of d's command register. CommandMemory is refused while memory of d has no address, since it would
// then answer at address 0.
func (d *Device) Enable(c Config, bits uint32) error {
	if bits&CommandMemory != 0 {
		for i, b := range d.BARs {
			if b.Memory() && !b.Assigned() {
				return &Error{d.Address, fmt.Sprintf("BAR %d of %#x bytes", i, b.Size), ErrUnassigned}
			}
		}
	}
	v := c.Read32(d.Address, regCommand) & commandMask
	c.Write32(d.Address, regCommand, v|bits&commandMask)
	return nil
}

// Disable clears bits of d's command register.
func (d *Device) Disable(c Config, bits uint32) {
	c.Write32(d.Address, regCommand, c.Read32(d.Address, regCommand)&commandMask&^bits)
}
