package main

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"dinos/qemu/vm"
)

func newGDBCmd() *cobra.Command {
	var flags machineFlags
	var listen, console string
	cmd := &cobra.Command{
		Use:   "gdb IMAGE [-- GDB-ARGUMENT...]",
		Short: "boot an image under gdb, stopped at its first 64-bit instruction",
		Long: `Gdb starts IMAGE in a paused machine and gdb with its symbols, and lets it run to the kernel's entry, where page tables and
64-bit mode are set up. The machine ends with gdb.

Breakpoints set later work as usual. In code that runs before its memory is mapped, use hbreak. Each vCPU is a thread:
"thread apply all bt" shows all stacks.

With --listen gdb is not started: the machine waits, paused at its very first instruction, for a debugger at that address.`,
		Example: `  dinos gdb bin/dkernel.elf --smp 2 --console console.log
  dinos gdb bin/dkernel.elf -- -ex 'break main.main' -ex continue
  dinos gdb bin/dkernel.elf --listen tcp:localhost:1234`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if n := cmd.ArgsLenAtDash(); len(args) > 1 && n != 1 {
				return fmt.Errorf("unexpected argument %q: arguments for gdb follow --", args[1])
			}
			cfg := flags.config(args[0])
			cfg.Paused, cfg.Output = true, cmd.OutOrStdout()
			if console != "" {
				f, err := os.Create(console)
				if err != nil {
					return err
				}
				defer f.Close()
				cfg.Output = f
			}
			if listen != "" {
				return serveGDB(cmd.Context(), cfg, listen, cmd.ErrOrStderr())
			}
			return runGDB(cfg, args[1:], cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags.bind(cmd)
	cmd.Flags().StringVar(&listen, "listen", "", "only serve a debugger at this address, as in tcp:localhost:1234")
	cmd.Flags().StringVar(&console, "console", "", "write the kernel's console to this file (default this terminal)")
	return cmd
}

// serveGDB runs a paused machine until it ends or is interrupted.
func serveGDB(ctx context.Context, cfg vm.Config, listen string, msg io.Writer) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg.GDB = listen
	v, err := vm.Start(cfg)
	if err != nil {
		return err
	}
	defer v.Close()
	addr := strings.TrimPrefix(listen, "tcp:")
	fmt.Fprintf(msg, "paused; attach with: gdb %s -ex 'target remote %s'\n", cfg.Image, addr)
	_, err = v.Wait(ctx)
	return err
}

// runGDB runs gdb on a paused machine.
func runGDB(cfg vm.Config, args []string, in io.Reader, out, stderr io.Writer) error {
	gdb, err := exec.LookPath("gdb")
	if err != nil {
		return fmt.Errorf("%w: install gdb, or use --listen and another debugger", err)
	}
	k, err := readKernel(cfg.Image)
	if err != nil {
		return err
	}
	dir, err := vm.NewRunDir()
	if err != nil {
		return err
	}
	defer dir.Close()
	socket := dir.Join("gdb")
	cfg.GDB = "unix:" + socket + ",server=on,wait=off"
	v, err := vm.Start(cfg)
	if err != nil {
		return err
	}
	defer v.Close()

	// An interrupt typed at gdb stops the guest, not us.
	signal.Ignore(os.Interrupt)
	defer signal.Reset(os.Interrupt)
	cmd := exec.Command(gdb, append(gdbArgs(cfg.Image, socket, k), args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("gdb: %w", err)
	}
	return nil
}

// gdbArgs makes gdb load image, attach and run to the entry point. There the breakpoint must be one of hardware: the
// memory is not mapped when it is set.
func gdbArgs(image, socket string, k kernel) []string {
	args := []string{"-q"}
	if k.script != "" {
		args = append(args, "-iex", "add-auto-load-safe-path "+k.script)
	}
	return append(args,
		"-ex", "set confirm off", "-ex", "set pagination off",
		"-ex", "target remote "+socket,
		"-ex", fmt.Sprintf("thbreak *%#x", k.entry), "-ex", "continue",
		image)
}

// kernel is what gdb's command line needs of an image.
type kernel struct {
	entry  uint64 // address of the first 64-bit instruction
	script string // path of Go's printers for gdb, which the linker noted; "" if it did not
}

func readKernel(image string) (kernel, error) {
	f, err := elf.Open(image)
	if err != nil {
		var bad *elf.FormatError
		if errors.As(err, &bad) {
			return kernel{}, fmt.Errorf("%s is not a kernel image: %w; want what dinos image or dinos build wrote", image, err)
		}
		return kernel{}, err
	}
	defer f.Close()
	if len(f.Progs) == 0 || f.Progs[0].Type != elf.PT_NOTE {
		return kernel{}, fmt.Errorf("%s is not bootable: want what dinos image or dinos build wrote", image)
	}
	k := kernel{entry: f.Entry}
	if s := f.Section(".debug_gdb_scripts"); s != nil {
		// A byte that says "Python file", the path, a NUL.
		if b, err := s.Data(); err == nil && len(b) > 2 && b[0] == 1 {
			path, _, _ := strings.Cut(string(b[1:]), "\x00")
			k.script = path
		}
	}
	return k, nil
}
