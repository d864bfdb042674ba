package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"dinos/qemu/vm"
)

// machineFlags are the flags of the commands that start one machine.
type machineFlags struct {
	machine, cpu, append, initrd string
	smp                          int
	mem                          size
	devices                      []string
}

func (f *machineFlags) bind(cmd *cobra.Command) {
	f.mem = vm.DefaultMemory
	fs := cmd.Flags()
	fs.StringVar(&f.machine, "machine", string(vm.MicroVM), "microvm, q35 or pc")
	fs.StringVar(&f.cpu, "cpu", "", `QEMU's -cpu (default "max,-erms", or "host" with KVM)`)
	fs.IntVar(&f.smp, "smp", 1, "vCPUs")
	fs.Var(&f.mem, "mem", "memory, with K, M, G or T; a plain number is MiB")
	fs.StringVar(&f.append, "append", "", "the kernel's command line")
	fs.StringVar(&f.initrd, "initrd", "", "file to load as the kernel's module")
	fs.StringArrayVar(&f.devices, "device", nil, "QEMU's -device, may be repeated")
}

// config returns the machine for an image. vm.Start checks the values.
func (f *machineFlags) config(image string) vm.Config {
	return vm.Config{
		Name: "kernel", Image: image, Machine: vm.Machine(f.machine), CPU: f.cpu, CPUs: f.smp, Memory: uint64(f.mem),
		Append: f.append, Initrd: f.initrd, Devices: f.devices,
	}
}

// size is a flag that is a number of bytes.
type size uint64

const sizeUnits = "KMGT" // powers of 1024

func (s *size) String() string {
	n, unit := uint64(*s), ""
	for i := 0; i < len(sizeUnits) && n >= 1024 && n%1024 == 0; i++ {
		n, unit = n/1024, sizeUnits[i:i+1]
	}
	return strconv.FormatUint(n, 10) + unit
}

func (s *size) Set(text string) error {
	digits, shift := text, 20
	if text != "" {
		if k := strings.IndexByte(sizeUnits, text[len(text)-1]); k >= 0 {
			digits, shift = text[:len(text)-1], 10*(k+1)
		}
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || n == 0 || n<<shift>>shift != n {
		return fmt.Errorf("%q, want a size like 512M or 2G", text)
	}
	*s = size(n << shift)
	return nil
}

// Type names the flag's type in the help text.
func (s *size) Type() string { return "size" }
