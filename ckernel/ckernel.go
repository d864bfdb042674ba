// Package ckernel is the control kernel: it knows who belongs to a rack and who may use which cores and memory. It is the root that
// puts the control kernel together.
package ckernel

import (
	"context"

	"dinos/ckernel/serve"
	"dinos/kernel/join"
	"dinos/kernel/machine"
	"dinos/kernel/monitor"
)

// Run is the kernel's work once the machine is up. It does not return without an error.
func Run(m *machine.Machine) error {
	m.Describe()
	cfg, alone, err := join.Rack(m, 'c')
	if err != nil {
		return err
	}
	if alone {
		return monitor.Run(m)
	}
	s, err := serve.New(serve.Config{Peer: cfg, Seed: cfg.Random()})
	if err != nil {
		return err
	}
	go func() { join.End(m.Name, s.Run(context.Background())) }()
	return monitor.Run(m)
}
