package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"dinos/qemu/rack"
	"dinos/qemu/rack/statedir"
)

// nameVariable names the rack that commands mean without --name.
const nameVariable = "DINOS_RACK"

// rackRef says which rack a command is about.
type rackRef struct {
	name  string // "" for the only one
	fixed bool   // the name is not the command line's to choose: at the prompt of a rack
	up    bool   // only racks that somebody started, not one for another program
}

// bind adds --name to a command.
func (f *rackRef) bind(cmd *cobra.Command) {
	if !f.fixed {
		cmd.Flags().StringVar(&f.name, "name", os.Getenv(nameVariable), "the rack (default $"+nameVariable+", or the only one there is)")
	}
}

// resolve returns the directory of all racks and the name of the one that is meant.
func (f *rackRef) resolve() (base, name string, err error) {
	if base, err = statedir.Base(); err != nil || f.name != "" {
		return base, f.name, err
	}
	list, err := statedir.List(base)
	if err != nil {
		return "", "", err
	}
	var running, all []string
	for _, e := range list {
		if f.up && strings.HasPrefix(e.Name, ownRackPrefix) {
			continue
		}
		all = append(all, e.Name)
		if e.Running {
			running = append(running, e.Name)
		}
	}
	switch {
	case len(running) == 1:
		return base, running[0], nil
	case len(running) == 0 && len(all) == 1:
		return base, all[0], nil // dead, but there is something to see
	case len(all) == 0:
		return "", "", fmt.Errorf("%w: none runs; start one with 'dinos up'", statedir.ErrNone)
	}
	return "", "", fmt.Errorf("there are several racks: choose with --name one of %s", strings.Join(all, ", "))
}

// connect finds the rack that is meant, which must run.
func (f *rackRef) connect() (*rack.Remote, error) {
	base, name, err := f.resolve()
	if err != nil {
		return nil, err
	}
	return rack.Connect(base, name)
}

// connectIfAny is connect, but nil if the command line names no rack and none runs.
func (f *rackRef) connectIfAny() (*rack.Remote, error) {
	if f.name != "" {
		return f.connect()
	}
	base, name, err := f.resolve()
	if errors.Is(err, statedir.ErrNone) || err == nil && !statedir.Running(base, name) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return rack.Connect(base, name)
}

// interruptible is a context that an interrupt from the terminal ends.
func interruptible(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(cmd.Context(), os.Interrupt)
}

// endable is a context that an interrupt from the terminal ends, and whoever asks this process to end.
func endable(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
}

// onRack is the RunE of a command about a rack that runs: do gets the rack, and a context that an interrupt from the terminal ends.
func (f *rackRef) onRack(do func(ctx context.Context, r *rack.Remote, cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx, stop := interruptible(cmd)
		defer stop()
		r, err := f.connect()
		if err != nil {
			return err
		}
		return do(ctx, r, cmd, args)
	}
}

// newRackCmds are the commands about a rack that runs, for the command line and for the prompt.
func newRackCmds(ref rackRef) []*cobra.Command {
	list := []*cobra.Command{newStatusCmd(ref), newTopCmd(ref), newLogCmd(ref), newEventsCmd(ref), newDumpCmd(ref)}
	for _, k := range []struct {
		name, short string
		do          func(*rack.Remote, context.Context, string) error
	}{
		{"kill", "end a kernel's machine at once, as a power failure would", (*rack.Remote).Kill},
		{"stop", "have a kernel end in order", (*rack.Remote).Stop},
		{"restart", "start a kernel again, ending it first if it runs", (*rack.Remote).Restart},
		{"pause", "halt a kernel's processors, as if it hung: the rack will declare it dead", (*rack.Remote).Pause},
		{"resume", "let a paused kernel go on", (*rack.Remote).Resume},
	} {
		list = append(list, newKernelCmd(ref, k.name, k.short, k.do))
	}
	return append(list, newAddCmd(ref), newRunCmd(ref), newSchedCmd(ref), newDownCmd(ref))
}

// newKernelCmd makes a command that does something with kernels of a running rack.
func newKernelCmd(ref rackRef, name, short string, do func(*rack.Remote, context.Context, string) error) *cobra.Command {
	cmd := &cobra.Command{
		Use:   name + " KERNEL...",
		Short: short,
		Args:  cobra.MinimumNArgs(1),
		ValidArgsFunction: func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return kernelNames(cmd, &ref)
		},
		RunE: ref.onRack(func(ctx context.Context, r *rack.Remote, _ *cobra.Command, args []string) error {
			for _, k := range args {
				if err := do(r, ctx, k); err != nil {
					return err
				}
			}
			return nil
		}),
	}
	ref.bind(cmd)
	return cmd
}

// kernelNames completes the name of a kernel.
func kernelNames(cmd *cobra.Command, ref *rackRef) ([]string, cobra.ShellCompDirective) {
	var names []string
	if r, err := ref.connect(); err == nil {
		if s, err := r.Status(cmd.Context(), false); err == nil {
			for _, k := range s.Kernels {
				names = append(names, k.Name)
			}
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func newAddCmd(ref rackRef) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add-dkernel",
		Short: "start one more dkernel and print its name",
		Args:  cobra.NoArgs,
		RunE: ref.onRack(func(ctx context.Context, r *rack.Remote, cmd *cobra.Command, _ []string) error {
			name, err := r.Add(ctx)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), name)
			return err
		}),
	}
	ref.bind(cmd)
	return cmd
}

func newRacksCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "racks",
		Short: "list the racks on this host, running and dead",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			base, err := statedir.Base()
			if err != nil {
				return err
			}
			list, err := statedir.List(base)
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, e := range list {
				state := "running"
				if !e.Running {
					state = "dead ('dinos down' removes it)"
				}
				fmt.Fprintf(w, "%s\t%s\n", e.Name, state)
			}
			return w.Flush()
		},
	}
}

func newEventsCmd(ref rackRef) *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "events",
		Short: "what happened to the rack: kernels that came, ended, were declared dead",
		Args:  cobra.NoArgs,
		RunE: ref.onRack(func(ctx context.Context, r *rack.Remote, cmd *cobra.Command, _ []string) error {
			show := func(e rack.Event) {
				fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", e.Time.Format("15:04:05.000"), e)
			}
			list, err := r.Events(ctx)
			if err != nil {
				return err
			}
			for _, e := range list {
				show(e)
			}
			if !follow {
				return nil
			}
			return r.Follow(ctx, show)
		}),
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what happens from now on")
	ref.bind(cmd)
	return cmd
}
