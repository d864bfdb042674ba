package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dinos/qemu/rack"
	"dinos/qemu/rack/statedir"
	"dinos/qemu/vm"
)

// launcherCommand is the hidden command that up runs in the background.
const launcherCommand = "launcher"

func newUpCmd() *cobra.Command {
	cfg := rack.Config{}
	mem, shared := size(vm.DefaultMemory), size(rack.DefaultShared)
	var interactive bool
	var accel string
	cmd := &cobra.Command{
		Use:   "up",
		Short: "start a rack: a ckernel and dkernels with shared memory",
		Long: `Up starts a ckernel and dkernels, each in a virtual machine, and returns when all are members of the rack; they go on in the background,
under a launcher that 'dinos down' ends. Several racks may run at a time under different names.

With -i a prompt follows, or if the standard input is no terminal, commands are read from there; at its end the rack ends, too.`,
		Example: `  dinos up --dkernels 4 --cores 1
  echo status | dinos up -i`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.Memory, cfg.Accel = uint64(mem), rack.AccelMode(accel)
			if cmd.Flags().Changed("shmem") { // else it may be less, if there is no room
				cfg.Shared = uint64(shared)
			}
			ctx, stop := endable(cmd)
			defer stop()
			if err := images(&cfg); err != nil {
				return err
			}
			if err := busyboxRoot(&cfg); err != nil {
				return err
			}
			if cfg.Dkernels == 0 {
				cfg.Dkernels = rack.NoDkernels
			}
			r, err := up(ctx, cfg, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if !interactive {
				return nil
			}
			stop() // from here on an interrupt is for the command under way
			return promptAndDown(cmd.Context(), r, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&cfg.Name, "name", cmp.Or(os.Getenv(nameVariable), rack.DefaultName), "of the rack")
	fs.IntVar(&cfg.Dkernels, "dkernels", rack.DefaultDkernels, "how many to start with")
	fs.IntVar(&cfg.Room, "room", 0, fmt.Sprintf("how many dkernels there may be at a time (default %d, or --dkernels)", rack.DefaultRoom))
	fs.IntVar(&cfg.Cores, "cores", rack.DefaultCores, "of each dkernel")
	fs.IntVar(&cfg.CkernelCore, "ckernel-cores", 0, "of the ckernel (default as --cores)")
	fs.Var(&mem, "mem", "memory of each kernel's own, with K, M, G or T; a plain number is MiB")
	fs.Var(&shared, "shmem", "shared memory, a power of two")
	fs.IntVar(&cfg.Logs, "logs", rack.DefaultLogs, "room for logs of replicated state")
	fs.StringVar(&accel, "accel", string(rack.AccelAuto), "auto, tcg or kvm")
	fs.StringVar(&cfg.Ckernel, "ckernel", "", "image of the ckernel (default ckernel.elf beside this program)")
	fs.StringVar(&cfg.Dkernel, "dkernel", "", "image of the dkernels (default dkernel.elf beside this program)")
	fs.StringVar(&cfg.Initrd, "initrd", "", "archive (cpio) with the dkernels' files (default: this host's busybox, if it is static, in /bin)")
	fs.StringVar(&cfg.Share, "share", "/", "directory of this host that the kernels mount at /host; empty for none")
	fs.BoolVar(&cfg.ShareWrite, "share-write", true, "let them change it, with the rights of who runs the rack")
	fs.StringVar(&cfg.Append, "append", "", "more for the kernels' command lines")
	fs.DurationVar(&cfg.BootTimeout, "timeout", rack.DefaultBootTimeout, "how long kernels may take to become members")
	fs.BoolVar(&cfg.Keep, "keep", false, "leave memory and logs when the rack ends, for 'dinos dump' and 'dinos log'")
	fs.BoolVarP(&interactive, "interactive", "i", false, "give a prompt, and end the rack with it")
	return cmd
}

// images fills in the images that were built beside this program.
func images(cfg *rack.Config) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for name, path := range map[string]*string{"ckernel.elf": &cfg.Ckernel, "dkernel.elf": &cfg.Dkernel} {
		if *path == "" {
			*path = filepath.Join(filepath.Dir(self), name)
		}
	}
	return nil
}

// up starts a rack in the background and shows on log how it goes.
func up(ctx context.Context, cfg rack.Config, log io.Writer) (*rack.Remote, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	p := newProgress(log)
	r, err := rack.Spawn(ctx, self, []string{launcherCommand}, cfg, p.event)
	p.end()
	if err != nil {
		if errors.Is(err, context.Canceled) {
			return nil, fmt.Errorf("interrupted: rack %q was not started", cfg.Name)
		}
		return nil, err
	}
	fmt.Fprintf(log, "rack %q is up after %.2f s\n", cfg.Name, time.Since(start).Seconds())
	return r, nil
}

// progress shows on a terminal a line with the state of all kernels, and elsewhere a line a kernel.
type progress struct {
	w        io.Writer
	terminal bool
	order    []string
	state    map[string]string
}

func newProgress(w io.Writer) *progress {
	return &progress{w: w, terminal: isTerminal(w), state: map[string]string{}}
}

func (p *progress) event(e rack.Event) {
	if e.Kernel == "" {
		fmt.Fprintln(p.w, e.Text)
		return
	}
	if _, ok := p.state[e.Kernel]; !ok {
		p.order = append(p.order, e.Kernel)
	}
	p.state[e.Kernel] = e.Text
	switch {
	case p.terminal:
		var parts []string
		for _, k := range p.order {
			word, _, _ := strings.Cut(p.state[k], " ")
			parts = append(parts, k+" "+word)
		}
		fmt.Fprintf(p.w, "\r\x1b[K%s", strings.Join(parts, ", "))
	case strings.HasPrefix(e.Text, "up"):
		fmt.Fprintf(p.w, "  %-10s %s\n", e.Kernel, e.Text)
	}
}

func (p *progress) end() {
	if p.terminal {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

// newLauncherCmd is the process that holds a rack. Up starts it.
func newLauncherCmd() *cobra.Command {
	return &cobra.Command{
		Use:    launcherCommand,
		Short:  "hold a rack (started by up)",
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE:   func(*cobra.Command, []string) error { return rack.Launch() },
	}
}

func newDownCmd(ref rackRef) *cobra.Command {
	var keep, all bool
	cmd := &cobra.Command{
		Use:   "down",
		Short: "end a rack, or remove what a dead one left",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := interruptible(cmd)
			defer stop()
			if !all {
				base, name, err := ref.resolve()
				if err != nil {
					return err
				}
				return down(ctx, base, name, keep)
			}
			base, err := statedir.Base()
			if err != nil {
				return err
			}
			list, err := statedir.List(base)
			for _, e := range list {
				err = errors.Join(err, down(ctx, base, e.Name, keep))
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "leave memory and logs, for 'dinos dump' and 'dinos log'")
	if !ref.fixed {
		cmd.Flags().BoolVar(&all, "all", false, "all racks")
	}
	ref.bind(cmd)
	return cmd
}

// down ends a running rack and removes a dead one.
func down(ctx context.Context, base, name string, keep bool) error {
	if !statedir.Running(base, name) {
		return statedir.Remove(base, name)
	}
	r, err := rack.Connect(base, name)
	if err != nil {
		return err
	}
	return r.Down(ctx, keep)
}
