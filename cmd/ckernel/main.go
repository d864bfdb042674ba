// Command ckernel is the control kernel: it knows who belongs to a rack and who may use which cores and memory.
package main

import (
	"dinos/kernel/machine"
	"dinos/kernel/monitor"
)

func main() { machine.Main("ckernel", run) }

// run is the kernel's work once the machine is up.
func run(m *machine.Machine) error {
	m.Describe()
	return monitor.Run(m)
}
