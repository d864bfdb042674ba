package linuxguest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"dinos/kernel/rtbench"
	"dinos/qemu/vm"
)

// netModules are the drivers of a virtio network device on PCI, in the order in which they need each other.
func netModules() []string {
	return []string{"virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "failover", "net_failover", "virtio_net"}
}

// RunTCP measures round trips of small messages by TCP between two Linux machines with virtio-net devices, which a pair of
// sockets connects: awake times, with the reader asleep (tcp-block) and polling (tcp-poll), and idle times with a pause before each
// (tcp-idle). o needs no program.
func RunTCP(ctx context.Context, o Options, awake, idle int) ([]rtbench.Result, error) {
	dir, err := vm.NewRunDir()
	if err != nil {
		return nil, fmt.Errorf("linuxguest: %w", err)
	}
	defer dir.Close()
	o.Program, o.Path = nil, dir.Join("tcpbench")
	if err := BuildStatic(ctx, "dinos/qemu/linuxguest/tcpbench", o.Path); err != nil {
		return nil, err
	}
	o.Modules = netModules()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("linuxguest: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	run := func(side int, args ...string) ([]byte, error) {
		f := os.NewFile(uintptr(pair[side]), "net")
		defer f.Close()
		o := o
		o.Files = []*os.File{f}
		o.Devices = []string{fmt.Sprintf("virtio-net-pci,netdev=n,mac=52:54:00:00:00:%02d", 1+side)}
		o.Extra = []string{"-netdev", fmt.Sprintf("socket,id=n,fd=%d", vm.FirstFile)}
		o.Args = append([]string{fmt.Sprintf("-addr=10.0.0.%d", 1+side)}, args...)
		out, exit, err := RunProgram(ctx, o)
		if err == nil && exit != 0 {
			err = fmt.Errorf("linuxguest: tcpbench exited with status %d: %s", exit, out)
		}
		if err != nil {
			cancel() // the other one waits for ever
		}
		return out, err
	}
	served := make(chan error, 1)
	go func() {
		_, err := run(0, "-serve")
		served <- err
	}()
	out, err := run(1, "-peer=10.0.0.1", "-awake="+strconv.Itoa(awake), "-idle="+strconv.Itoa(idle))
	if err := errors.Join(err, <-served); err != nil {
		return nil, err
	}
	var results []rtbench.Result
	for line := range strings.Lines(string(out)) {
		r, ok, err := rtbench.Parse(line)
		if err != nil {
			return nil, err
		}
		if ok {
			results = append(results, r)
		}
	}
	if len(results) != 3 {
		return nil, fmt.Errorf("linuxguest: tcpbench printed %d results, want 3: %s", len(results), out)
	}
	return results, nil
}
