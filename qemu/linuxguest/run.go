package linuxguest

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cavaliergopher/cpio"

	"dinos/qemu/linuxguest/marks"
	"dinos/qemu/vm"
)

// Options say what to run and on what. The zero value of a field means its default.
type Options struct {
	Program []byte   // static x86-64 ELF file
	Path    string   // or its path
	Args    []string // without the program's name

	SMP     int        // vCPUs; 1
	MemMiB  int        // 512
	Machine vm.Machine // vm.MicroVM
	Accel   *vm.Accel  // vm.DetectAccel
	Kernel  string     // path of a vmlinux or bzImage; FindKernel's
	Append  string     // added to the kernel's command line

	Modules []string   // kernel modules, by name, in the order in which the program loads them: files /modules/0.ko, /modules/1.ko, …
	Devices []string   // values of QEMU's -device
	Extra   []string   // further arguments of QEMU
	Files   []*os.File // inherited by QEMU as descriptors vm.FirstFile and up

	Log     io.Writer // says what is downloaded; os.Stderr
	Console io.Writer // receives everything on the console as it comes; nowhere
}

// RunProgram boots Linux, runs a program and returns what it wrote to its standard
// output and error, and its exit status (128 + the signal that ended it). ctx
// should have a deadline; when it passes, the guest is taken for hung.
//
// The error is nil whatever the status. A *vm.GuestError means that Linux did not
// get to the program's end, a *vm.HostError that QEMU failed; any other is about
// the options or the preparations.
func RunProgram(ctx context.Context, o Options) (output []byte, exit int, err error) {
	if o.Log == nil {
		o.Log = os.Stderr
	}
	program, err := o.program()
	if err != nil {
		return nil, 0, err
	}
	dir, err := vm.NewRunDir()
	if err != nil {
		return nil, 0, fmt.Errorf("linuxguest: %w", err)
	}
	defer dir.Close()
	kernel, err := o.kernel(ctx, dir)
	if err != nil {
		return nil, 0, err
	}
	modules, err := o.modules(ctx)
	if err != nil {
		return nil, 0, err
	}
	initrd := dir.Join("initrd")
	if err := o.writeInitrd(ctx, dir, initrd, program, modules); err != nil {
		return nil, 0, err
	}
	var console bytes.Buffer
	var sink io.Writer = &console
	if o.Console != nil {
		sink = io.MultiWriter(&console, o.Console)
	}
	machine, err := vm.Start(vm.Config{
		Name: "linux", Machine: o.Machine, Accel: o.Accel, CPUs: o.SMP, Memory: uint64(o.MemMiB) << 20,
		Image: kernel, Initrd: initrd, Append: o.commandLine(), Output: sink, Devices: o.Devices, Extra: o.Extra, Files: o.Files,
	})
	if err != nil {
		return nil, 0, err
	}
	defer machine.Close()
	_, err = machine.Wait(ctx)
	machine.Close() // the console is complete only then
	output, exit, perr := parse(console.Bytes())
	if err != nil {
		return output, 0, errors.Join(perr, err)
	}
	return output, exit, perr
}

// program returns the program's bytes, checked.
func (o *Options) program() ([]byte, error) {
	data, name := o.Program, "Options.Program"
	switch {
	case data != nil && o.Path != "":
		return nil, errors.New("linuxguest: both Options.Program and Options.Path are set, want one")
	case data == nil && o.Path == "":
		return nil, errors.New("linuxguest: no program: want Options.Program or Options.Path")
	case data == nil:
		name = o.Path
		var err error
		if data, err = os.ReadFile(o.Path); err != nil {
			return nil, fmt.Errorf("linuxguest: program: %w", err)
		}
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("linuxguest: program %s: %w", name, err)
	}
	if f.Machine != elf.EM_X86_64 || f.Type != elf.ET_EXEC && f.Type != elf.ET_DYN {
		return nil, fmt.Errorf("linuxguest: program %s is %v %v, want an executable for EM_X86_64", name, f.Machine, f.Type)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return nil, fmt.Errorf("linuxguest: program %s is dynamically linked, want a static one (CGO_ENABLED=0, or -static)", name)
		}
	}
	for _, a := range o.Args {
		if strings.ContainsRune(a, 0) {
			return nil, fmt.Errorf("linuxguest: argument %q contains a NUL", a)
		}
	}
	return data, nil
}

// kernel returns the path of an uncompressed kernel.
func (o *Options) kernel(ctx context.Context, dir *vm.RunDir) (string, error) {
	if o.Kernel == "" {
		k, err := FindKernel(ctx, "", o.Log)
		return k.Path, err
	}
	path := dir.Join("vmlinux")
	if err := unpack(o.Kernel, path); err != nil {
		return "", fmt.Errorf("linuxguest: kernel: %w", err)
	}
	return path, nil
}

// modules returns the contents of the modules.
func (o *Options) modules(ctx context.Context) ([][]byte, error) {
	if len(o.Modules) == 0 {
		return nil, nil
	}
	if o.Kernel != "" {
		return nil, errors.New("linuxguest: Options.Modules needs FindKernel's kernel, not Options.Kernel")
	}
	paths, err := FindModules(ctx, "", o.Modules, o.Log)
	if err != nil {
		return nil, err
	}
	data := make([][]byte, len(paths))
	for i, p := range paths {
		if data[i], err = os.ReadFile(p); err != nil {
			return nil, fmt.Errorf("linuxguest: %w", err)
		}
	}
	return data, nil
}

// commandLine is the kernel's. microvm has no timer by which Linux could calibrate
// the TSC, which under TCG is the host's; and TCG's processors do not have the
// features by which Linux trusts it.
func (o *Options) commandLine() string {
	args := []string{"console=ttyS0", "quiet", "loglevel=3", "panic=-1", "no_timer_check", "tsc=reliable", "rdinit=/init"}
	if khz, ok := hostKHz(); ok {
		args = append(args, "tsc_early_khz="+strconv.Itoa(khz))
	}
	if o.Append != "" {
		args = append(args, o.Append)
	}
	return strings.Join(args, " ")
}

// hostKHz returns the host's nominal processor frequency.
func hostKHz() (int, bool) {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(info)) {
		key, value, _ := strings.Cut(line, ":")
		if strings.TrimSpace(key) == "cpu MHz" {
			mhz, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			return int(mhz * 1000), err == nil && mhz > 0
		}
	}
	return 0, false
}

// writeInitrd makes the initramfs.
func (o *Options) writeInitrd(ctx context.Context, dir *vm.RunDir, path string, program []byte, modules [][]byte) error {
	initPath := dir.Join("init")
	if err := BuildStatic(ctx, "dinos/qemu/linuxguest/init", initPath); err != nil {
		return err
	}
	init, err := os.ReadFile(initPath)
	if err != nil {
		return fmt.Errorf("linuxguest: %w", err)
	}
	var args strings.Builder
	for _, a := range o.Args {
		args.WriteString(a)
		args.WriteByte(0)
	}
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("linuxguest: %w", err)
	}
	defer f.Close()
	w := cpio.NewWriter(f)
	type entry struct {
		name string
		mode cpio.FileMode
		data []byte
	}
	files := []entry{
		{"init", cpio.TypeReg | 0o755, init},
		{"program", cpio.TypeReg | 0o755, program},
		{"args", cpio.TypeReg | 0o644, []byte(args.String())},
		{"modules", cpio.TypeDir | 0o755, nil},
	}
	for i, m := range modules {
		files = append(files, entry{fmt.Sprintf("modules/%d.ko", i), cpio.TypeReg | 0o644, m})
	}
	for _, file := range files {
		h := &cpio.Header{Name: file.name, Mode: file.mode, Size: int64(len(file.data)), Links: 1}
		if err := w.WriteHeader(h); err != nil {
			return fmt.Errorf("linuxguest: initramfs: %w", err)
		}
		if _, err := w.Write(file.data); err != nil {
			return fmt.Errorf("linuxguest: initramfs: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("linuxguest: initramfs: %w", err)
	}
	return f.Close()
}

// BuildStatic builds the main package pkg as a static ELF file for Linux at path.
// It needs the go command and to be run inside the package's module.
func BuildStatic(ctx context.Context, pkg, path string) error {
	c := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, pkg)
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=")
	if out, err := c.CombinedOutput(); err != nil {
		wd, _ := filepath.Abs(".")
		return fmt.Errorf("linuxguest: go build %s in %s: %w: %s", pkg, wd, err, bytes.TrimSpace(out))
	}
	return nil
}

// parse finds the program's output and exit status on the console.
func parse(console []byte) (output []byte, exit int, err error) {
	_, rest, ok := bytes.Cut(console, []byte(marks.Begin))
	if !ok {
		return nil, 0, errors.New("linuxguest: Linux did not get to process 1" + failure(console))
	}
	_, rest, _ = bytes.Cut(rest, []byte("\n")) // the release
	// The last mark counts: the program may print the same bytes, but not after it.
	i := bytes.LastIndex(rest, []byte("\n"+marks.Exit))
	if i < 0 {
		return rest, 0, errors.New("linuxguest: the program did not end" + failure(rest))
	}
	line, _, _ := bytes.Cut(rest[i+1+len(marks.Exit):], []byte("\n"))
	exit, err = strconv.Atoi(string(bytes.TrimSpace(line)))
	if err != nil {
		return rest[:i], 0, fmt.Errorf("linuxguest: bad exit status: %w", err)
	}
	return rest[:i], exit, nil
}

// failure returns what process 1 says went wrong, as the end of a message.
func failure(console []byte) string {
	_, rest, ok := bytes.Cut(console, []byte(marks.Fail))
	if !ok {
		return ""
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	return ": " + strings.TrimSpace(string(line))
}
