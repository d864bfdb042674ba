//go:build !kernel

package machine

import "dinos/kernel/pci"

// ports stands in for the type in ports_kernel.go where this package is only looked at: a kernel is never built without the tag.
type ports struct{}

const noPorts = "package machine was built without the tag kernel: kernels are built by boot/build"

// Read32 implements pci.Config.
func (*ports) Read32(pci.Address, uint16) uint32 { panic(noPorts) }

// Write32 implements pci.Config.
func (*ports) Write32(pci.Address, uint16, uint32) { panic(noPorts) }
