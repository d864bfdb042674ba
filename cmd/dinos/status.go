package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"dinos/qemu/rack"
)

// errUnclean is that an audit found something; what it is was printed.
var errUnclean = errors.New("the audit of ownership is not clean")

func newStatusCmd(ref rackRef) *cobra.Command {
	var asJSON, check bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "how the rack and its kernels are",
		Long: `Status prints the rack and its kernels: what each says of itself, what the ckernel says of it, its cores (held by grants of those it has),
the slices that it holds, the generation of its life, how long that lasts and how old its last heartbeat is.

With --check, the ckernel audits its view of who owns which core and slice, and this host the table in shared memory; the exit status is not 0
if either finds something wrong.`,
		Args: cobra.NoArgs,
		RunE: ref.onRack(func(ctx context.Context, r *rack.Remote, cmd *cobra.Command, _ []string) error {
			s, err := r.Status(ctx, check)
			if err != nil {
				return err
			}
			if asJSON {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				err = e.Encode(s)
			} else {
				err = printStatus(cmd.OutOrStdout(), s)
			}
			if err == nil && s.Check != nil && !s.Check.Clean {
				err = errUnclean
			}
			return err
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	cmd.Flags().BoolVar(&check, "check", false, "audit who owns which core and slice")
	ref.bind(cmd)
	return cmd
}

func printStatus(out io.Writer, s *rack.Status) error {
	fmt.Fprintf(out, "rack %q %s for %v, %s, launcher %d\n", s.Rack, s.State, ago(s.UptimeMs), s.Accelerator, s.Launcher)
	shared := size(s.Shared)
	if s.GrantTable == "" {
		fmt.Fprintf(out, "shared memory %v: %d of %d slices free; %d cores free; epoch %d\n", &shared, s.FreeSlices, s.Slices, s.FreeCores, s.Epoch)
	} else {
		fmt.Fprintf(out, "shared memory %v: %d slices; no grants: %s\n", &shared, s.Slices, s.GrantTable)
	}
	if s.Ckernel != "answers" {
		fmt.Fprintf(out, "the ckernel does not answer: %s\n", s.Ckernel)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KERNEL\tSTATE\tMEMBER\tCORES\tSLICES\tPROCESSES\tGENERATION\tUPTIME\tBEAT\tPID\t")
	for _, k := range s.Kernels {
		state := k.State
		if k.Machine == "paused" {
			state = "paused"
		}
		uptime, beat, pid := "-", "-", "-"
		if k.Machine != "gone" {
			uptime, pid = ago(k.UptimeMs).String(), strconv.Itoa(k.PID)
			if k.BeatMs >= 0 {
				beat = fmt.Sprintf("%d ms", k.BeatMs)
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d/%d\t%d\t%d\t%d\t%s\t%s\t%s\t\n", k.Name, state, cmp.Or(k.Member, "-"), k.CoresHeld, k.Cores, k.SlicesHeld, k.Processes,
			k.Generation, uptime, beat, pid)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, k := range s.Kernels {
		if k.Machine == "gone" {
			fmt.Fprintf(out, "%s: %s, %v ago\n", k.Name, k.Ended, ago(k.EndedMs))
		} else if k.Restarts > 0 {
			fmt.Fprintf(out, "%s: started again %d times\n", k.Name, k.Restarts)
		}
	}
	if c := s.Check; c != nil {
		for _, p := range c.Ckernel {
			fmt.Fprintf(out, "! ckernel: %s\n", p)
		}
		for _, p := range c.Host {
			fmt.Fprintf(out, "! shared memory: %s\n", p)
		}
		if c.Clean {
			fmt.Fprintf(out, "check: %d slices and %d cores, each with one owner (%d held by dkernels, %d by processes)\n", c.Slices, c.Cores, c.Dkernels, c.Procs)
		}
	}
	return nil
}

// ago rounds a time for people.
func ago(ms int64) time.Duration {
	d := time.Duration(ms) * time.Millisecond
	switch {
	case d >= time.Minute:
		return d.Round(time.Second)
	case d >= time.Second:
		return d.Round(100 * time.Millisecond)
	}
	return d
}
