// Package ivshmem drives QEMU's inter-VM shared memory device (QEMU, docs/specs/ivshmem-spec.txt): memory that several machines
// and the host have mapped, and doorbells, with which one interrupts another. ivshmem-plain has only the memory.
//
// The package is pure: the machine is behind the interface Bus. What is in the memory is the business of package shmem/region
// and those above it; here it is bytes, which others may change at any moment.
package ivshmem

import (
	"errors"
	"fmt"

	"dinos/kernel/pci"
)

// Vendor and Product identify the device.
const (
	Vendor  = 0x1af4
	Product = 0x1110
)

// What is behind the base address registers.
const (
	barRegisters = 0
	barMemory    = 2
)

// Registers. Interrupt mask and status, at 0 and 4, are for the interrupt line, which is not used.
const (
	regID         = 8
	regDoorbell   = 12
	registersSize = 16

	// revision 0, before QEMU 2.6, could be without an ID or memory for a while after reset.
	revision = 1
)

// MaxPeer is the highest ID that a doorbell can reach.
const MaxPeer = 1<<16 - 1

// Errors.
var (
	ErrDevice     = errors.New("ivshmem: device cannot be used")
	ErrNoDoorbell = errors.New("ivshmem: the device has no doorbells (QEMU: ivshmem-doorbell)")
	ErrPeer       = fmt.Errorf("ivshmem: no such peer: IDs are 0 to %d", MaxPeer)
	ErrVector     = errors.New("ivshmem: no such vector")
)

// Bus is what the driver needs of a machine; machine.PCI has it.
type Bus interface {
	Config() pci.Config
	// Registers maps what is behind a base address register, uncached.
	Registers(d *pci.Device, bar int) (pci.Registers, error)
	// Memory maps it as memory.
	Memory(d *pci.Device, bar int) ([]byte, error)
	// Interrupt makes a vector of the device raise the returned Event.
	Interrupt(t *pci.Table, vector int) (pci.Event, error)
}

// Device is an ivshmem device in use. Its methods may be called concurrently.
type Device struct {
	d      *pci.Device
	regs   pci.Registers
	memory []byte
	id     int
	events []pci.Event
}

// Is reports whether d is an ivshmem device.
func Is(d *pci.Device) bool { return d.Is(Vendor, Product) }

// Open starts using d with the first vectors of its doorbells; with 0 it may be an ivshmem-plain. A device is opened once. If that
// fails the device can send no interrupts.
func Open(b Bus, d *pci.Device, vectors int) (*Device, error) {
	fail := func(format string, args ...any) (*Device, error) {
		return nil, fmt.Errorf("%w: %v: "+format, append([]any{ErrDevice, d}, args...)...)
	}
	has := 0
	if d.MSIX != nil {
		has = d.MSIX.Vectors
	}
	switch {
	case !Is(d):
		return fail("want %04x:%04x", Vendor, Product)
	case d.Revision != revision:
		return fail("revision %d, want %d", d.Revision, revision)
	case !d.BARs[barRegisters].Memory() || d.BARs[barRegisters].Size < registersSize:
		return fail("BAR %d is no memory of %d bytes or more", barRegisters, registersSize)
	case !d.BARs[barMemory].Memory():
		return fail("BAR %d is no memory", barMemory)
	case has == 0 && vectors > 0:
		return nil, fmt.Errorf("%w: %v", ErrNoDoorbell, d)
	case vectors < 0 || vectors > has:
		return fail("it has %d vectors, want %d", has, vectors)
	}
	s := &Device{d: d}
	if err := s.open(b, vectors); err != nil {
		d.DisableMSIX(b.Config())
		d.Disable(b.Config(), pci.CommandMaster)
		return fail("%w", err)
	}
	return s, nil
}

func (s *Device) open(b Bus, vectors int) (err error) {
	// A message is a write to memory, which a device may do only as a bus master.
	if err := s.d.Enable(b.Config(), pci.CommandMemory|pci.CommandMaster); err != nil {
		return err
	}
	if s.regs, err = b.Registers(s.d, barRegisters); err != nil {
		return err
	}
	if s.memory, err = b.Memory(s.d, barMemory); err != nil {
		return err
	}
	if s.d.MSIX == nil {
		return nil
	}
	id := s.regs.Load32(regID)
	if id > MaxPeer {
		return fmt.Errorf("its ID is %#x, want at most %#x", id, MaxPeer)
	}
	s.id = int(id)
	regs, err := b.Registers(s.d, s.d.MSIX.Table.BAR)
	if err != nil {
		return err
	}
	t, err := s.d.EnableMSIX(b.Config(), regs)
	if err != nil {
		return err
	}
	for i := range vectors {
		e, err := b.Interrupt(t, i)
		if err != nil {
			return err
		}
		s.events = append(s.events, e)
	}
	return nil
}

// Doorbells reports whether peers can be rung.
func (s *Device) Doorbells() bool { return s.d.MSIX != nil }

// ID returns the machine's own ID among the peers, 0 without doorbells.
func (s *Device) ID() int { return s.id }

// Memory returns the shared memory, mapped cached: it is coherent, being the same memory.
func (s *Device) Memory() []byte { return s.memory }

// Event returns the Event that rings of a vector raise. Rings that come faster than the Event is waited for coalesce, on the way
// here too, so the count says that there were some, not how many.
func (s *Device) Event(vector int) (pci.Event, error) {
	if vector < 0 || vector >= len(s.events) {
		return nil, fmt.Errorf("%w: %d of %d in use", ErrVector, vector, len(s.events))
	}
	return s.events[vector], nil
}

// Ring rings doorbell vector of a peer. What was stored before is visible to whoever answers. The device says nothing of
// a peer that does not exist, or that does not have the vector. It costs an exit to QEMU: some µs.
func (s *Device) Ring(peer, vector int) error {
	switch {
	case s.d.MSIX == nil:
		return ErrNoDoorbell
	case peer < 0 || peer > MaxPeer:
		return fmt.Errorf("%w, not %d", ErrPeer, peer)
	case vector < 0 || vector >= s.d.MSIX.Vectors:
		// Peers have as many as we have: the server gives all the same number.
		return fmt.Errorf("%w: %d of %d", ErrVector, vector, s.d.MSIX.Vectors)
	}
	s.regs.Store32(regDoorbell, uint32(peer)<<16|uint32(vector))
	return nil
}
