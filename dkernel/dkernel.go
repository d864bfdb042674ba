// Package dkernel is the data kernel: it runs the processes of a rack on its cores and memory. It is the root that puts the data
// kernel together; so far that is the machine and a prompt.
package dkernel

import (
	"dinos/kernel/machine"
	"dinos/kernel/monitor"
)

// Run is the kernel's work once the machine is up. It does not return without an error.
func Run(m *machine.Machine) error {
	m.Describe()
	return monitor.Run(m)
}
