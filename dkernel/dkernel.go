// Package dkernel is the data kernel: it runs the processes of a rack on its cores and memory. It is the root that puts the data
// kernel together.
package dkernel

import (
	"context"
	"fmt"
	"os"

	"dinos/dkernel/ctl"
	"dinos/dkernel/launch"
	"dinos/dkernel/programs"
	"dinos/dkernel/slices"
	"dinos/dkernel/vfs/hostfs"
	"dinos/kernel/join"
	"dinos/kernel/machine"
	"dinos/kernel/monitor"
	"dinos/kernel/rpcbench"
	"dinos/shmem/layout"
	"dinos/shmem/proto"
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
	l := launch.New()
	l.Handle(n.Mux())
	go func() { join.End(m.Name, n.Run(context.Background())) }()
	go func() {
		<-n.Ready()
		if err := startPrograms(m, n, l); err != nil {
			fmt.Printf("dinos %s: no programs can be run: %v\n", m.Name, err)
		}
	}()
	if bench == "rpc" {
		go benchmark(m, n)
	}
	return monitor.Run(m)
}

// startPrograms makes the kernel, now a member of the rack, able to run programs.
func startPrograms(m *machine.Machine, n *ctl.Node, l *launch.Launcher) error {
	rack := n.Peer().Rack()
	memory, err := rack.Region.Bytes(0, rack.Region.Len())
	if err != nil {
		return err
	}
	complain := func(err error) { machine.Print(fmt.Sprintf("dinos %s: %v", m.Name, err)) }
	var root []byte
	if len(m.Boot.Modules) > 0 {
		root = m.Module(0)
	}
	p, err := programs.New(programs.Config{Machine: m, Memory: memory, Base: machine.Physical(memory), Root: root, RootName: "/init",
		Source: slices.New(n, rack, n.Self(), complain), Hostname: m.Name, Exited: l.Exited})
	if err != nil {
		return err
	}
	if err := p.MountHost(hostCalls{n}); err != nil {
		complain(fmt.Errorf("no directory of the host at /host: %w", err))
	}
	l.Serve(launch.Config{Kernel: p.Kernel, System: p.Procs, VFS: p.VFS, Home: uint16(n.Self()), NewRoot: p.NewRoot, Now: func() int64 { return int64(machine.Now()) }})
	return nil
}

// hostCalls sends file messages to the host tool, over whatever connection there is at the moment.
type hostCalls struct{ n *ctl.Node }

// Call implements hostfs.Calls.
func (h hostCalls) Call(req proto.Request, reply proto.Message) error {
	c, err := h.n.Conn(h.n.Peer().Rack().Host())
	if err != nil {
		return err
	}
	return hostfs.Conn{C: c}.Call(req, reply)
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
