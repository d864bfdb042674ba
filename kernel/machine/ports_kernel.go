//go:build kernel

package machine

import (
	"sync"

	intel "github.com/usbarmory/tamago/soc/intel/pci"

	"dinos/kernel/pci"
)

// ports is configuration space through I/O ports (PCI Local Bus Specification 3.0, 3.2.2.3.2), by TamaGo's driver. That imports
// TamaGo's package dma, which compiles only with the files that boot/overlay adds to the Go distribution: hence
// the build tag, which boot/build sets, and ports_host.go for go vet and the like.
type ports struct {
	mu sync.Mutex // an access is two: the address, then the data
}

// Read32 implements pci.Config.
func (p *ports) Read32(a pci.Address, off uint16) uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := intel.Device{Bus: uint32(a.Bus), Slot: uint32(a.Device)}
	return d.Read(uint32(a.Function), uint32(off))
}

// Write32 implements pci.Config.
func (p *ports) Write32(a pci.Address, off uint16, v uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := intel.Device{Bus: uint32(a.Bus), Slot: uint32(a.Device)}
	d.Write(uint32(a.Function), uint32(off), v)
}
