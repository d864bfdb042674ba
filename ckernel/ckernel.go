// Package ckernel is the control kernel: it knows who belongs to a rack and who may use which cores and memory. It is the root that
// puts the control kernel together; so far that is the machine and a prompt.
package ckernel

import (
	"dinos/kernel/machine"
	"dinos/kernel/monitor"
)

// Run is the kernel's work once the machine is up. It does not return without an error.
func Run(m *machine.Machine) error {
	m.Describe()
	return monitor.Run(m)
}
