package vm

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"dinos/kernel/testproto"
)

// Machine is a QEMU machine type.
type Machine string

const (
	MicroVM Machine = "microvm" // no firmware to wait for: the default
	Q35     Machine = "q35"
	PC      Machine = "pc"
)

// options are the machine's properties.
func (m Machine) options() (string, error) {
	switch m {
	case MicroVM:
		// QEMU would add virtio-mmio devices to the kernel's command line, in Linux's notation.
		return "microvm,pcie=on,rtc=on,auto-kernel-cmdline=off", nil
	case Q35, PC:
		return string(m), nil
	}
	return "", fmt.Errorf("machine %q, want %s, %s or %s", m, MicroVM, Q35, PC)
}

// Limits and defaults of a Config.
const (
	DefaultMemory  = 512 << 20
	MinMemory      = 1 << 20
	MaxMemory      = 1 << 40
	MaxCPUs        = 64
	MaxCommandLine = 4095 // bytes: the kernel reads 4096 with the NUL

	defaultBinary = "qemu-system-x86_64"
)

// Config describes a machine. The zero value of a field means its default.
type Config struct {
	Name    string  // in messages; "vm"
	Binary  string  // QEMU; qemu-system-x86_64 in PATH
	Machine Machine // MicroVM
	Accel   *Accel  // DetectAccel
	CPU     string  // -cpu; "max,-erms" under TCG, "host" under KVM
	CPUs    int     // vCPUs at start, 1 to MaxCPUs; 1
	Memory  uint64  // bytes, a multiple of 1 MiB; DefaultMemory
	Image   string  // path of a bootable image, required
	Append  string  // the kernel's command line
	Initrd  string  // path of the module

	Devices []string   // values of -device
	Extra   []string   // further arguments
	Files   []*os.File // inherited by QEMU as descriptors FirstFile and up; the caller keeps and closes its own

	Paused bool   // do not start the vCPUs: for a debugger
	GDB    string // -gdb, as in "unix:/path,server=on,wait=off" or "tcp:localhost:1234"; none

	// Output receives everything that the guest writes to its console, as it comes; Write is not called concurrently.
	// A failing or slow Output does not hold the guest up for ever, but a blocking one does.
	Output io.Writer
}

// FirstFile is the descriptor in QEMU of Config.Files[0]; the others follow. It is for arguments like fd=4.
const FirstFile = 4

// qmpFile is the descriptor in QEMU of its end of the QMP socket: the first of exec.Cmd.ExtraFiles.
const qmpFile = 3

// withDefaults returns c with every default filled in, or an error that names the field that is wrong.
func (c Config) withDefaults() (Config, error) {
	if c.Name == "" {
		c.Name = "vm"
	}
	if c.Binary == "" {
		c.Binary = defaultBinary
	}
	if c.Machine == "" {
		c.Machine = MicroVM
	}
	if c.Accel == nil {
		a := DetectAccel()
		c.Accel = &a
	}
	if c.CPU == "" {
		c.CPU = c.Accel.cpu()
	}
	if c.CPUs == 0 {
		c.CPUs = 1
	}
	if c.Memory == 0 {
		c.Memory = DefaultMemory
	}
	return c, c.check()
}

func (c *Config) check() error {
	if _, err := c.Machine.options(); err != nil {
		return err
	}
	switch {
	case c.CPUs < 1 || c.CPUs > MaxCPUs:
		return fmt.Errorf("%d vCPUs, want 1 to %d", c.CPUs, MaxCPUs)
	case c.Memory < MinMemory || c.Memory > MaxMemory || c.Memory%(1<<20) != 0:
		return fmt.Errorf("%d bytes of memory, want a multiple of 1 MiB from %d to %d", c.Memory, MinMemory, uint64(MaxMemory))
	case len(c.Append) > MaxCommandLine:
		return fmt.Errorf("command line of %d bytes, want at most %d", len(c.Append), MaxCommandLine)
	case strings.ContainsFunc(c.Append, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
		return fmt.Errorf("command line %q has control characters", c.Append)
	case c.Image == "":
		return errors.New("no image: want the path of a bootable kernel")
	}
	if err := checkFile("image", c.Image); err != nil {
		return err
	}
	if c.Initrd != "" {
		return checkFile("initrd", c.Initrd)
	}
	return nil
}

// checkFile wants a regular file that can be read. QEMU's own messages do not always name it.
func checkFile(what, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return fmt.Errorf("%s: %s is not a regular file", what, path)
	}
	return nil
}

// args returns QEMU's arguments for a checked c.
func (c *Config) args() []string {
	machine, _ := c.Machine.options()
	a := []string{"-name", strings.ReplaceAll(c.Name, ",", ",,"), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", machine}
	a = append(a, c.Accel.args()...)
	a = append(a,
		"-cpu", c.CPU,
		// With a single possible vCPU, TCG would not make atomics atomic towards other machines.
		"-smp", fmt.Sprintf("%d,maxcpus=%d", c.CPUs, max(c.CPUs, 2)),
		"-m", strconv.FormatUint(c.Memory>>20, 10)+"M",
		"-device", fmt.Sprintf("isa-debug-exit,iobase=%#x,iosize=4", testproto.DebugExitPort),
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-chardev", fmt.Sprintf("socket,id=qmp,fd=%d", qmpFile), "-mon", "chardev=qmp,mode=control",
		// QMP reports no events before its handshake, not even why a guest ended: the vCPUs wait for it.
		"-S",
		"-kernel", c.Image)
	if c.Append != "" {
		a = append(a, "-append", c.Append)
	}
	if c.Initrd != "" {
		a = append(a, "-initrd", c.Initrd)
	}
	for _, d := range c.Devices {
		a = append(a, "-device", d)
	}
	if c.GDB != "" {
		a = append(a, "-gdb", c.GDB)
	}
	return append(a, c.Extra...)
}
