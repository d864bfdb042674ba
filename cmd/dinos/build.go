package main

import (
	"github.com/spf13/cobra"

	"dinos/boot/build"
)

func newBuildCmd() *cobra.Command {
	var opt build.Options
	cmd := &cobra.Command{
		Use:     "build PACKAGE OUT",
		Short:   "build a kernel and make it bootable",
		Long:    `Build runs the stock go command on PACKAGE, a kernel of this module, with the flags that kernels need, and makes the result bootable.`,
		Example: `  dinos build ./cmd/dkernel bin/dkernel.elf`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.Package = args[0]
			return build.Kernel(cmd.Context(), opt, args[1])
		},
	}
	cmd.Flags().StringSliceVar(&opt.Tags, "tags", nil, "build tags")
	cmd.Flags().StringVar(&opt.Entry, "entry", build.DefaultEntry, "entry symbol")
	cmd.Flags().StringVar(&opt.Image.Record, "record", "", "symbol of the boot record (default that of boot/stub)")
	return cmd
}
