package pci

import "fmt"

// names are those of the devices of QEMU's machines, and of those that one is likely to add.
var names = map[[2]uint16]string{
	{0x8086, 0x1237}: "440FX host bridge",
	{0x8086, 0x7000}: "PIIX3 ISA bridge",
	{0x8086, 0x7010}: "PIIX3 IDE controller",
	{0x8086, 0x7113}: "PIIX4 power management",
	{0x8086, 0x29c0}: "Q35 host bridge",
	{0x8086, 0x2918}: "ICH9 LPC bridge",
	{0x8086, 0x2922}: "ICH9 SATA controller",
	{0x8086, 0x2930}: "ICH9 SMBus controller",
	{0x8086, 0x100e}: "e1000 network card",
	{0x8086, 0x10d3}: "e1000e network card",
	{0x1b36, 0x0001}: "QEMU PCI bridge",
	{0x1b36, 0x0008}: "QEMU PCIe host bridge",
	{0x1b36, 0x000c}: "QEMU PCIe root port",
	{0x1b36, 0x000e}: "QEMU PCIe-PCI bridge",
	{0x1b36, 0x000d}: "QEMU xHCI controller",
	{0x1b36, 0x0010}: "QEMU NVMe controller",
	{0x1234, 0x1111}: "QEMU VGA",
	{0x1af4, 0x1110}: "ivshmem shared memory",
	{0x1af4, 0x1000}: "virtio network card",
	{0x1af4, 0x1001}: "virtio block device",
	{0x1af4, 0x1003}: "virtio console",
	{0x1af4, 0x1005}: "virtio random numbers",
	{0x1af4, 0x1009}: "virtio 9P",
	{0x1af4, 0x1041}: "virtio network card",
	{0x1af4, 0x1042}: "virtio block device",
	{0x1af4, 0x1043}: "virtio console",
	{0x1af4, 0x1044}: "virtio random numbers",
	{0x1af4, 0x1049}: "virtio 9P",
}

// classes name what is not in names (PCI Code and ID Assignment Specification 1.11).
var classes = map[uint16]string{
	0x0100: "SCSI controller",
	0x0101: "IDE controller",
	0x0106: "SATA controller",
	0x0108: "NVMe controller",
	0x0200: "Ethernet controller",
	0x0300: "VGA",
	0x0500: "memory controller",
	0x0600: "host bridge",
	0x0601: "ISA bridge",
	0x0604: "PCI bridge",
	0x0c03: "USB controller",
	0x0c05: "SMBus controller",
}

// Name returns what d is, in words.
func (d *Device) Name() string {
	if n, ok := names[[2]uint16{d.Vendor, d.Product}]; ok {
		return n
	}
	if n, ok := classes[d.Class]; ok {
		return n
	}
	return fmt.Sprintf("device of class %04x", d.Class)
}
