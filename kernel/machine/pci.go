package machine

import (
	"errors"
	"fmt"

	"dinos/boot/info"
	"dinos/boot/record"
	"dinos/kernel/mem"
	"dinos/kernel/paging"
	"dinos/kernel/pci"
	"dinos/kernel/trap"
	"dinos/kernel/x86"
)

// Where QEMU's microvm has PCI Express (QEMU 7.2, include/hw/i386/microvm.h). It has neither an MCFG table nor firmware.
const (
	microvmECAM    = 0xe000_0000
	microvmECAMEnd = 0xf000_0000
	microvmMMIO    = 0xc000_0000
)

// PCI is the PCI bus of the machine. It is safe for concurrent use, but see package pci for two drivers of one device.
type PCI struct {
	m       *Machine
	config  pci.Config
	how     string // the kind of access, for people
	windows pci.Windows
	devices []*pci.Device
	problem error
}

// PCI returns the PCI bus, nil if the machine has none.
func (m *Machine) PCI() *PCI { return m.pci }

// Devices returns the PCI devices, ordered by address.
func (m *Machine) Devices() []*pci.Device {
	if m.pci == nil {
		return nil
	}
	return m.pci.devices
}

// findPCI looks for a PCI bus and gives addresses to devices that have none. What is wrong with the bus or a device is no
// reason not to boot: it is remembered for Describe.
func (m *Machine) findPCI(rsdp uint64) *PCI {
	p := &PCI{m: m}
	if err := p.open(rsdp); err != nil {
		p.problem = err
		return p
	}
	if p.config == nil {
		return nil
	}
	var scan error
	p.devices, scan = pci.Scan(p.config)
	p.problem = errors.Join(scan, pci.Assign(p.config, p.devices, p.windows))
	return p
}

// open finds out how configuration space is reached: where the MCFG table says; else by the I/O ports, if they
// are there; else where a microvm has it. If nothing is there either, config stays nil.
func (p *PCI) open(rsdp uint64) error {
	if b, err := info.Table(physical, rsdp, "MCFG"); err == nil {
		list, err := pci.ParseMCFG(b)
		if err != nil {
			return err
		}
		for _, s := range list {
			if s.Group == 0 && s.First == 0 {
				p.how = fmt.Sprintf("ECAM at %#x", s.Base)
				return p.ecam(s)
			}
		}
	}
	if hasPorts() {
		p.how = "I/O ports"
		p.config = &ports{}
		return nil
	}
	s := pci.Segment{Base: microvmECAM, Last: (microvmECAMEnd-microvmECAM)/pci.ECAMPerBus - 1}
	// Without a bus there is nothing at that address, which QEMU reads as 0.
	if id := *phys[uint32](s.Base); uint16(id) == 0 || uint16(id) == 0xffff {
		return nil
	}
	p.how = fmt.Sprintf("ECAM at %#x, set up by this kernel", s.Base)
	p.windows = microvmWindows()
	return p.ecam(s)
}

func (p *PCI) ecam(s pci.Segment) error {
	regs, err := p.m.mapRegisters(s.Base, s.Bytes())
	if err == nil {
		p.config = &pci.ECAM{Regs: regs, First: s.First, Last: s.Last}
	}
	return err
}

// hasPorts reports whether configuration mechanism 1 is there: its address register holds what is written to it.
func hasPorts() bool {
	const address, enable = 0xcf8, 1 << 31
	old := x86.In32(address)
	x86.Out32(address, enable)
	ok := x86.In32(address) == enable
	x86.Out32(address, old)
	return ok
}

// microvmWindows returns where memory of devices can be: below the ECAM, and in the last quarter of the physical
// addresses, as far as the direct map reaches.
func microvmWindows() pci.Windows {
	w := pci.Windows{Memory32: pci.Window{Base: microvmMMIO, Size: microvmECAM - microvmMMIO}}
	bits := uint32(36)
	if most, _, _, _ := x86.CPUID(0x8000_0000, 0); most >= 0x8000_0008 {
		eax, _, _, _ := x86.CPUID(0x8000_0008, 0)
		bits = eax & 0xff
	}
	base, end := uint64(3)<<(bits-2), min(uint64(1)<<bits, maxPhysical)
	if base < end {
		w.Memory64 = pci.Window{Base: base, Size: end - base}
	}
	return w
}

// MapDevice returns the n bytes of device memory at physical address pa, mapped into the direct map with attr: 0 for memory
// that may be cached, paging.Uncached for registers. Neighbours in the same pages get the same attributes, so
// registers and cached memory must not share one. It is an error if RAM is there, or page tables cannot be had. The compiler
// chooses how wide it reads a slice: registers are for Registers.
func (m *Machine) MapDevice(pa, n uint64, attr paging.Attr) ([]byte, error) {
	start := pa &^ (mem.FrameSize - 1)
	end := (pa + n + mem.FrameSize - 1) &^ (mem.FrameSize - 1)
	fail := func(err error) ([]byte, error) {
		return nil, fmt.Errorf("device memory at [%#x, +%#x): %w", pa, n, err)
	}
	if n == 0 || n > maxPhysical || pa >= maxPhysical || end > maxPhysical {
		return fail(fmt.Errorf("want 1 byte or more below %#x, the end of the direct map", uint64(maxPhysical)))
	}
	for _, r := range m.Boot.Memory {
		if r.Kind == info.RAM && r.Start < end && start < r.End {
			return fail(fmt.Errorf("RAM is at [%#x, %#x)", r.Start, r.End))
		}
	}
	if err := lockedVM(func(*trap.CPU) error { return mapDevice(start, end-start, attr) }); err != nil {
		return fail(err)
	}
	return physBytes(pa, n), nil
}

// mapDevice maps whole pages. Those below 4 GiB have been mapped by the boot page tables, perhaps with other attributes;
// others may have been by an earlier call. Kernel code, under the lock of the address space.
func mapDevice(pa, n uint64, attr paging.Attr) error {
	va := record.DirectMap + pa
	mapped := uint64(0)
	if err := kernel.Tables.Walk(va, n, func(l paging.Leaf) bool {
		mapped += min(l.VA+l.Size, va+n) - max(l.VA, va)
		return true
	}); err != nil {
		return err
	}
	if mapped == 0 {
		return kernel.Tables.Map(va, pa, n, attr|paging.Present|paging.Writable|paging.Global|paging.NoExecute, found.features.largestPage())
	}
	if mapped < n {
		return paging.ErrMapped
	}
	f, err := kernel.Tables.Protect(va, n, attr, paging.Uncached&^attr)
	if err == nil {
		kernel.Machine().Flush(f)
		kernel.Tables.Release(&f)
	}
	return err
}

// registers are registers of a device.
type registers struct{ va, n uint64 }

func (m *Machine) mapRegisters(pa, n uint64) (registers, error) {
	_, err := m.MapDevice(pa, n, paging.Uncached)
	return registers{record.DirectMap + pa, n}, err
}

func (r registers) at(off uint64) uint64 {
	if off > r.n-4 || off%4 != 0 {
		panic(fmt.Sprintf("register at offset %#x of %#x", off, r.n))
	}
	return r.va + off
}

// Load32 implements pci.Registers.
func (r registers) Load32(off uint64) uint32 { return x86.Load32(r.at(off)) }

// Store32 implements pci.Registers.
func (r registers) Store32(off uint64, v uint32) { x86.Store32(r.at(off), v) }

// Problem returns what is wrong with the bus or with devices on it, nil if nothing.
func (p *PCI) Problem() error { return p.problem }

// Config returns configuration space.
func (p *PCI) Config() pci.Config { return p.config }

// bar returns d's base address register i, which must be memory with an address.
func (p *PCI) bar(d *pci.Device, i int) (pci.BAR, error) {
	if i < 0 || i >= len(d.BARs) || !d.BARs[i].Memory() || !d.BARs[i].Assigned() {
		return pci.BAR{}, &pci.Error{Address: d.Address, Detail: fmt.Sprintf("BAR %d", i), Err: pci.ErrUnassigned}
	}
	return d.BARs[i], nil
}

// Registers maps the memory behind d's base address register i for registers.
func (p *PCI) Registers(d *pci.Device, i int) (pci.Registers, error) {
	b, err := p.bar(d, i)
	if err != nil {
		return nil, err
	}
	return p.m.mapRegisters(b.Addr, max(b.Size, 4))
}

// Memory maps the memory behind d's base address register i, cached.
func (p *PCI) Memory(d *pci.Device, i int) ([]byte, error) {
	b, err := p.bar(d, i)
	if err != nil {
		return nil, err
	}
	return p.m.MapDevice(b.Addr, b.Size, 0)
}

// Interrupt gives MSI-X vector i of a device an interrupt vector and returns the Event that it raises. The vectors of
// one machine are spread over its CPUs.
func (p *PCI) Interrupt(t *pci.Table, i int) (pci.Event, error) {
	v, err := p.m.NewVector()
	if err != nil {
		return nil, err
	}
	e, err := NewEvent(fmt.Sprintf("MSI-X %d", v))
	if err != nil {
		return nil, err
	}
	if err := e.Bind(v); err != nil {
		return nil, err
	}
	if err := t.Set(i, message(v, found.cpus[v%found.ncpu])); err != nil {
		return nil, err
	}
	if err := t.Unmask(i); err != nil {
		return nil, err
	}
	return e, nil
}

// message is what a device writes to raise vector v on the CPU with the given APIC ID (SDM vol. 3A, 11.11): fixed delivery,
// physical destination, edge-triggered.
func message(v int, apicID uint64) pci.Message {
	return pci.Message{Addr: 0xfee0_0000 | apicID<<12, Data: uint32(v)}
}

// describe prints the devices.
func (p *PCI) describe() {
	if p == nil {
		fmt.Println("  pci      none (QEMU: -machine microvm,pcie=on)")
		return
	}
	fmt.Printf("  pci      %s\n", p.how)
	for _, d := range p.devices {
		fmt.Printf("           %v", d)
		for i, b := range d.BARs {
			switch {
			case b.Kind == pci.IO && b.Assigned():
				fmt.Printf(", %d ports at %#x", b.Size, b.Addr)
			case b.Memory() && b.Assigned():
				fmt.Printf(", %s at %#x", bytesText(b.Size), b.Addr)
			case b.Memory():
				fmt.Printf(", %s of BAR %d nowhere", bytesText(b.Size), i)
			}
		}
		if d.MSIX != nil {
			fmt.Printf(", %d vectors", d.MSIX.Vectors)
		}
		fmt.Println()
	}
	if p.problem != nil {
		fmt.Printf("  problem  %v\n", p.problem)
	}
}

// bytesText formats a power of two.
func bytesText(n uint64) string {
	for _, u := range []struct {
		shift int
		name  string
	}{{30, "GiB"}, {20, "MiB"}, {10, "KiB"}} {
		if n>>u.shift > 0 {
			return fmt.Sprintf("%d %s", n>>u.shift, u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}
