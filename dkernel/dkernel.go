// Package dkernel is the data kernel: it runs the processes of a rack on its cores and memory. It is the root that puts the data
// kernel together.
package dkernel

import (
	"context"
	"fmt"
	"os"

	"dinos/dkernel/ctl"
	"dinos/kernel/join"
	"dinos/kernel/machine"
	"dinos/kernel/monitor"
	"dinos/kernel/rpcbench"
	"dinos/shmem/layout"
	"dinos/shmem/rpc"
)

// Run is the kernel's work once the machine is up. It does not return without an error.
func Run(m *machine.Machine) error {
	m.Describe()
	bench, err := m.Args.String("bench", "")
	if err != nil {
		return err
	}
	cfg, alone, err := join.Rack(m, 'd')
	if err != nil {
		return err
	}
	if alone {
		return runAlone(m)
	}
	n, err := ctl.New(ctl.Config{Peer: cfg})
	if err != nil {
		return err
	}
	go func() { join.End(m.Name, n.Run(context.Background())) }()
	if bench == "rpc" {
		go benchmark(m, n)
	}
	return monitor.Run(m)
}

// benchmark serves "dinos bench rpc".
func benchmark(m *machine.Machine, n *ctl.Node) {
	p := n.Peer()
	b := rpcbench.Bench{Conn: func() (*rpc.Conn, error) { return p.Conn(layout.Ckernel) }, Me: p.Block(p.Self()), Clock: p.Clock(),
		Out: os.Stdout, CPUs: m.MADT.Enabled()}
	if err := b.Run(context.Background()); err != nil {
		fmt.Printf("dinos %s: %v\n", m.Name, err)
	}
}
