package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"dinos/qemu/vm"
)

func newBootCmd() *cobra.Command {
	var flags machineFlags
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "boot IMAGE",
		Short: "boot an image in a virtual machine, its console on this terminal",
		Long: `Boot runs IMAGE under QEMU until it exits, with its serial console on this terminal. An interrupt (^C) stops the machine.

The exit status is 0 if the kernel said that all is well, 1 if it failed, crashed, reset, refused to boot or, with --timeout,
hung, and 2 if the machine could not be run.`,
		Example: `  dinos boot bin/dkernel.elf --smp 4 --mem 1G --append "test=all"`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := endable(cmd)
			defer stop()
			if timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, timeout)
				defer cancel()
			}
			return boot(ctx, flags.config(args[0]), cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	flags.bind(cmd)
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "take the kernel for hung after this long, and show what it was doing (default none)")
	return cmd
}

// boot runs one machine to its end.
func boot(ctx context.Context, cfg vm.Config, in io.Reader, out io.Writer) error {
	cfg.Output = out
	v, err := vm.Start(cfg)
	if err != nil {
		return err
	}
	defer v.Close()
	defer quietTerminal(in)()
	// Ends when in does, or with the process: a read from a terminal cannot be interrupted.
	go io.Copy(v.Input(), in)
	_, err = v.Wait(ctx)
	var g *vm.GuestError
	switch {
	case errors.As(err, &g):
		g.Console = nil // has been seen
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("interrupted: %s stopped", cfg.Name)
	}
	return err
}
