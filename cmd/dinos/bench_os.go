package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"dinos/boot/build"
	"dinos/kernel/rtbench"
	"dinos/qemu/linuxguest"
	"dinos/qemu/vm"
)

func newBenchOSCmd() *cobra.Command {
	opt := rtOptions{mem: 1 << 30}
	cmd := &cobra.Command{
		Use:   "os",
		Short: "what a program pays for the kernel, on dinos beside Linux in the same QEMU",
		Long: `Os runs one static Linux program (package qemu/osbench) on a dkernel and on Debian's Linux kernel in the same QEMU, with the same vCPUs and
memory, in turn for some rounds: system calls, page faults, mappings, processes, threads, wake-ups, files. For every row it prints
the medians over the rounds of the smallest sample, the p50 and the p99, and the ratios dinos/Linux: below 1 dinos is faster.`,
		Args: cobra.NoArgs,
	}
	opt.bind(cmd, []int{2}, benchOS)
	return cmd
}

func benchOS(ctx context.Context, opt rtOptions, out, log, table io.Writer) error {
	for _, o := range opt.only {
		if strings.ContainsAny(o, `'"`) {
			return fmt.Errorf("bench os: --only %q: a part of a row's name has no quotes", o)
		}
	}
	dir, err := vm.NewRunDir()
	if err != nil {
		return err
	}
	defer dir.Close()
	image, program := dir.Join("dkernel.elf"), dir.Join("osbench")
	if err := build.Kernel(ctx, build.Options{Package: "dinos/cmd/dkernel"}, image); err != nil {
		return err
	}
	if err := linuxguest.BuildStatic(ctx, "dinos/qemu/osbench", program); err != nil {
		return err
	}
	args := opt.args()
	accel := vm.DetectAccel()
	c := comparison{rounds: opt.rounds, cpus: opt.cpus, log: log}
	err = c.run(ctx, func(ctx context.Context, cpus int) ([]rtbench.Result, error) {
		text, err := onDkernel(ctx, vm.Config{Image: image, Initrd: program, CPUs: cpus, Memory: uint64(opt.mem), Accel: &accel}, "/bin/osbench", args)
		if err != nil {
			return nil, err
		}
		return rtResults(text)
	}, func(ctx context.Context, cpus int) ([]rtbench.Result, error) {
		text, exit, err := linuxguest.RunProgram(ctx, linuxguest.Options{Path: program, SMP: cpus, MemMiB: int(opt.mem >> 20), Args: args, Accel: &accel, Log: log})
		if err == nil && exit != 0 {
			err = fmt.Errorf("osbench on Linux ended with status %d: %s", exit, text)
		}
		if err != nil {
			return nil, err
		}
		return rtResults(string(text))
	})
	if err != nil {
		return err
	}
	return c.report(out, table)
}

// onDkernel runs a program, which is all of the root file system, on a dkernel without a rack, and returns its console.
func onDkernel(ctx context.Context, cfg vm.Config, path string, args []string) (string, error) {
	line := path
	for _, a := range args {
		line += " '" + a + "'"
	}
	var console strings.Builder
	cfg.Name, cfg.Append, cfg.Output = "dinos", `init="`+line+`"`, &console
	v, err := vm.Start(cfg)
	if err != nil {
		return "", err
	}
	defer v.Close()
	if _, err := v.Wait(ctx); err != nil {
		return "", fmt.Errorf("%w; console:\n%s", err, console.String())
	}
	return console.String(), nil
}
