package rack

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"dinos/qemu/rack/statedir"
	"dinos/qemu/vm"
	"dinos/shmem/layout"
)

// Defaults and limits of a Config.
const (
	DefaultName        = "rack"
	DefaultDkernels    = 2
	DefaultRoom        = 7 // dkernels that there is room for, if no more are asked for
	DefaultCores       = 2
	DefaultShared      = 2 << 30
	DefaultLogs        = 64
	DefaultBootTimeout = 30 * time.Second
	MaxDkernels        = layout.MaxMachines - 1

	// vectors of the doorbells. The rings use the first, the second is free for kernels among each other.
	vectors = 2
)

// ErrConfig: no rack can be made from the configuration.
var ErrConfig = errors.New("rack: bad configuration")

// AccelMode chooses how guests' code is executed.
type AccelMode string

// The modes.
const (
	AccelAuto AccelMode = "auto" // KVM where the processor really has it, else TCG
	AccelTCG  AccelMode = "tcg"
	AccelKVM  AccelMode = "kvm" // or fail
)

// Config describes a rack. The zero value of a field means its default.
type Config struct {
	Name        string        // DefaultName; see statedir.CheckName
	Base        string        `json:"-"` // where state directories are; statedir.Base
	Dkernels    int           // at the start; NoDkernels for none
	Room        int           // how many dkernels there may be at a time; at least Dkernels, DefaultRoom
	Cores       int           // of each dkernel
	CkernelCore int           // of the ckernel; Cores
	Memory      uint64        // of each kernel, bytes; vm.DefaultMemory
	Shared      uint64        // bytes, a power of two; DefaultShared, or less if there is no room for it
	Logs        int           // areas for logs of node replication; DefaultLogs
	Accel       AccelMode     // AccelAuto
	Ckernel     string        // path of the ckernel's image
	Dkernel     string        // path of the dkernels' image
	Initrd      string        // path of the dkernels' module; none
	Share       string        // directory of this host that kernels may mount; none
	ShareWrite  bool          // they may change it, as the user who runs the rack
	Append      string        // more for the kernels' command lines
	BootTimeout time.Duration // for all kernels to become members; DefaultBootTimeout
	Keep        bool          // leave directory and memory when the rack ends, for those who want to look

	// start replaces vm.Start in tests.
	start func(vm.Config) (machine, error)
}

// NoDkernels as Config.Dkernels asks for none.
const NoDkernels = -1

func orDefault[T comparable](p *T, v T) {
	if *p == *new(T) {
		*p = v
	}
}

// withDefaults fills in the defaults and checks what package vm does not.
func (c Config) withDefaults() (Config, error) {
	orDefault(&c.Name, DefaultName)
	orDefault(&c.Dkernels, DefaultDkernels)
	c.Dkernels = max(c.Dkernels, NoDkernels)
	if c.Dkernels == NoDkernels {
		c.Dkernels = 0
	}
	orDefault(&c.Room, max(DefaultRoom, c.Dkernels))
	orDefault(&c.Cores, DefaultCores)
	orDefault(&c.CkernelCore, c.Cores)
	orDefault(&c.Memory, vm.DefaultMemory)
	orDefault(&c.Logs, DefaultLogs)
	orDefault(&c.Accel, AccelAuto)
	orDefault(&c.BootTimeout, DefaultBootTimeout)
	if c.Base == "" {
		base, err := statedir.Base()
		if err != nil {
			return c, err
		}
		c.Base = base
	}
	if c.start == nil {
		c.start = startVM
	}
	if err := c.sizeShared(statedir.MemoryPath(c.Base, c.Name)); err != nil {
		return c, err
	}
	return c, c.check()
}

// minShared is the least that is taken instead of DefaultShared.
const minShared = 256 << 20

// sizeShared chooses how much memory is shared, and sees to it that it exists: a page that the file system has no room for is a fatal signal
// when it is touched, in whichever QEMU that happens.
func (c *Config) sizeShared(path string) error {
	var st unix.Statfs_t
	dir := filepath.Dir(path)
	if err := unix.Statfs(dir, &st); err != nil {
		return &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	free := st.Bavail * uint64(st.Bsize)
	if c.Shared == 0 {
		for c.Shared = DefaultShared; c.Shared > free && c.Shared > minShared; c.Shared /= 2 {
		}
	}
	if c.Shared > free {
		return fmt.Errorf("%w: %d MiB of shared memory, but %s has only %d MiB left; ask for less, or make it larger ('mount -o remount,size=4G %s')",
			ErrConfig, c.Shared>>20, dir, free>>20, dir)
	}
	return nil
}

func (c *Config) check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrConfig, fmt.Sprintf(format, args...))
	}
	if err := statedir.CheckName(c.Name); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	for _, n := range []int{c.Cores, c.CkernelCore} {
		if n < 1 || n > layout.MaxCores || n > vm.MaxCPUs {
			return bad("%d cores, want 1 to %d", n, min(layout.MaxCores, vm.MaxCPUs))
		}
	}
	switch {
	case c.Dkernels > MaxDkernels || c.Room > MaxDkernels:
		return bad("%d dkernels, want at most %d", max(c.Dkernels, c.Room), MaxDkernels)
	case c.Room < c.Dkernels:
		return bad("room for %d dkernels, want at least the %d to start with", c.Room, c.Dkernels)
	case c.Shared&(c.Shared-1) != 0:
		return bad("%d bytes of shared memory, want a power of two like 1G: it is a PCI device's", c.Shared)
	case c.BootTimeout < 0:
		return bad("boot timeout %v, want more than 0", c.BootTimeout)
	}
	for _, image := range [][2]string{{"ckernel", c.Ckernel}, {"dkernel", c.Dkernel}} {
		if st, err := os.Stat(image[1]); err != nil {
			return bad("image of the %s: %v; 'make build' makes it", image[0], err)
		} else if !st.Mode().IsRegular() {
			return bad("image of the %s: %s is not a regular file", image[0], image[1])
		}
	}
	if st, err := os.Stat(c.Share); c.Share != "" && (err != nil || !st.IsDir()) {
		return bad("shared directory %s: it is none (%v)", c.Share, err)
	}
	if _, err := layout.Compute(c.layout()); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	_, err := c.Accel.choose()
	return err
}

// layout is what the shared memory is to hold.
func (c *Config) layout() layout.Config {
	return layout.Config{Size: c.Shared, Machines: 1 + c.Room, Logs: c.Logs}
}

// choose finds the accelerator.
func (m AccelMode) choose() (vm.Accel, error) {
	switch m {
	case AccelTCG:
		return vm.Accel{Why: "TCG: asked for"}, nil
	case AccelAuto:
		return vm.DetectAccel(), nil
	case AccelKVM:
		a := vm.DetectAccel()
		if !a.KVM {
			return a, fmt.Errorf("%w: this host has no KVM that works (%s); use --accel tcg or auto", ErrConfig, a.Why)
		}
		return a, nil
	}
	return vm.Accel{}, fmt.Errorf("%w: accelerator %q, want auto, tcg or kvm", ErrConfig, m)
}
