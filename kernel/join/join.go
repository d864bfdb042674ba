// Package join is the step of both kernels from the machine to its rack.
package join

import (
	"errors"
	"fmt"

	"dinos/kernel/ivshmem"
	"dinos/kernel/link"
	"dinos/kernel/machine"
	"dinos/kernel/testproto"
	"dinos/shmem/layout"
	"dinos/shmem/peer"
	"dinos/shmem/rpc"
)

// clock is the machine's time since boot as the clock of package rpc. With a pointer as receiver, a call through the interface
// is not one call more.
type clock struct{ _ byte }

// Now implements [rpc.Clock].
func (*clock) Now() int64 { return int64(machine.Now()) }

var _ rpc.Clock = (*clock)(nil)

// Rack opens the memory of the rack that the machine is part of, for a kernel of kind 'c' or 'd'. Without an ivshmem device
// there is none: it says so, and alone is true. From here on the kernel goes by its name in the rack.
func Rack(m *machine.Machine, kind byte) (cfg peer.Config, alone bool, err error) {
	id, err := link.ParseIdentity(m.Args)
	if err != nil {
		return cfg, false, err
	}
	d, err := link.Find(m.Devices())
	if err != nil {
		return cfg, false, err
	}
	if d == nil {
		if id.Given {
			return cfg, false, fmt.Errorf("%w: the command line has %s=%d, but the machine has no ivshmem device (QEMU: -device ivshmem-doorbell)",
				link.ErrDevice, link.WordPeer, id.Peer)
		}
		fmt.Printf("dinos %s: no ivshmem device: this kernel is alone\n", m.Name)
		return cfg, true, nil
	}
	dev, err := ivshmem.Open(m.PCI(), d, link.Vectors)
	if err != nil {
		return cfg, false, err
	}
	ram, _ := machine.Memory()
	_, hz := machine.Stamp()
	cfg, _, err = link.Attach(link.Machine{Possible: len(m.MADT.CPUs), Cores: m.MADT.Enabled(), RAM: ram, TSCHz: hz, Clock: &clock{},
		TSC: func() uint64 { tsc, _ := machine.Stamp(); return tsc }, Random: machine.Random64}, dev, id, kind)
	if err != nil {
		return cfg, false, err
	}
	m.Name = cfg.Name
	cfg.Stats = func(set func(layout.Stat, uint64)) {
		var idle int64
		for _, ns := range machine.IdleTimes() {
			idle += ns
		}
		set(layout.StatIdle, uint64(idle))
		_, free := machine.Memory()
		set(layout.StatFreeFrames, free>>12)
	}
	cfg.Log = func(text string) { machine.Print(cfg.Name + ": " + text) }
	fmt.Printf("dinos %s: peer %d, doorbell %d, %d MiB of shared memory\n", cfg.Name, cfg.Self, cfg.Doorbell, cfg.Memory.Len()>>20)
	return cfg, false, nil
}

// End ends the machine as err, which ended the kernel's place in the rack, says: nil is an end in order. It says so in one line.
func End(name string, err error) {
	switch {
	case err == nil:
		fmt.Printf("dinos %s: left the rack\n", name)
		machine.Exit(testproto.ExitPass)
	case errors.Is(err, peer.ErrFenced), errors.Is(err, peer.ErrReplaced):
		fmt.Printf("dinos %s: fenced: %v\n", name, err)
		machine.Exit(testproto.ExitFenced)
	}
	fmt.Printf("dinos %s: %v\n", name, err)
	machine.Exit(testproto.ExitFail)
}
