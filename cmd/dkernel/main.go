// Command dkernel is the data kernel: it runs the processes of a rack on its cores and memory.
package main

import (
	"dinos/kernel/machine"
	"dinos/kernel/monitor"
)

func main() { machine.Main("dkernel", run) }

// run is the kernel's work once the machine is up.
func run(m *machine.Machine) error {
	m.Describe()
	return monitor.Run(m)
}
