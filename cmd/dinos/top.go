package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sort"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"dinos/qemu/rack"
)

func newTopCmd(ref rackRef) *cobra.Command {
	var once, asJSON bool
	interval := time.Second
	cmd := &cobra.Command{
		Use:   "top",
		Short: "what the kernels are doing: cores, slices, calls and system calls a second, log positions",
		Args:  cobra.NoArgs,
		PreRunE: func(*cobra.Command, []string) error {
			if interval < 10*time.Millisecond {
				return fmt.Errorf("interval %v, want at least 10ms", interval)
			}
			return nil
		},
		RunE: ref.onRack(func(ctx context.Context, r *rack.Remote, cmd *cobra.Command, _ []string) error {
			return top(ctx, r, cmd.OutOrStdout(), interval, once, asJSON)
		}),
	}
	cmd.Flags().BoolVar(&once, "once", false, "print one interval and end, for scripts")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print samples of the counters as JSON, one a line")
	cmd.Flags().DurationVarP(&interval, "interval", "d", interval, "between two looks")
	ref.bind(cmd)
	return cmd
}

// top shows the rack until ctx is done.
func top(ctx context.Context, r *rack.Remote, out io.Writer, interval time.Duration, once, asJSON bool) error {
	terminal := isTerminal(out)
	before, err := r.Sample(ctx)
	if err != nil {
		return err
	}
	for {
		select {
		case <-time.After(interval):
		case <-ctx.Done():
			return nil
		}
		now, err := r.Sample(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		var b strings.Builder
		if asJSON {
			if err := json.NewEncoder(&b).Encode(now); err != nil {
				return err
			}
		} else {
			if terminal && !once {
				b.WriteString("\x1b[H\x1b[2J") // home, clear
			}
			printTop(&b, before, now)
		}
		if _, err := io.WriteString(out, b.String()); err != nil || once {
			return err
		}
		before = now
	}
}

// rates gives what a kernel's counters grew by in a second. A new life counts from 0.
type rates struct {
	before, now *rack.KernelSample
	seconds     float64
}

func (r rates) of(stat string) float64 {
	n := r.now.Stats[stat]
	if r.before != nil && r.before.Generation == r.now.Generation {
		n -= min(n, r.before.Stats[stat])
	}
	return float64(n) / r.seconds
}

func printTop(out io.Writer, before, now *rack.Sample) {
	seconds := float64(now.TimeNs-before.TimeNs) / 1e9
	old := map[string]*rack.KernelSample{}
	for i := range before.Kernels {
		old[before.Kernels[i].Name] = &before.Kernels[i]
	}
	fmt.Fprintf(out, "rack %q, up %v, %d of %d slices free\n", now.Rack, time.Duration(now.TimeNs).Round(time.Second), now.FreeSlices, now.Slices)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "KERNEL\tSTATE\tCORES\tSLICES\tHOST CPU\tBUSY\tCALLS/s\tSERVED/s\tRING\tBELLS/s\tSYSCALLS/s\tFAULTS/s\tLOG OPS/s\tPROCESSES\tTHREADS\tHEAP\t")
	for i := range now.Kernels {
		k := &now.Kernels[i]
		r := rates{old[k.Name], k, seconds}
		cpu := 0.0
		if r.before != nil && k.CPUNs >= r.before.CPUNs {
			cpu = float64(k.CPUNs-r.before.CPUNs) / 1e9 / seconds
		}
		busy := "-" // what its cores did not idle
		if idle := r.of("idle_ns") / 1e9; k.Stats["idle_ns"] > 0 {
			busy = fmt.Sprintf("%.0f %%", 100*max(0, float64(k.Cores)-idle)/float64(max(k.Cores, 1)))
		}
		fmt.Fprintf(w, "%s\t%s\t%d/%d\t%d\t%.0f %%\t%s\t%s\t%s\t%s/s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\t\n", k.Name, k.State, k.CoresHeld, k.Cores, k.SlicesHeld,
			100*cpu, busy, short(r.of("calls")), short(r.of("served")), short(r.of("bytes_in")+r.of("bytes_out")), short(r.of("doorbells_rung")),
			short(r.of("syscalls")), short(r.of("faults")), short(r.of("log_applied")), k.Stats["processes"], k.Stats["threads"], short(float64(k.Stats["heap_bytes"])))
	}
	w.Flush()
	printLogs(out, before, now, seconds)
}

// printLogs shows where each log and its replicas are.
func printLogs(out io.Writer, before, now *rack.Sample, seconds float64) {
	if len(now.Logs) == 0 {
		return
	}
	tails := map[int]uint64{}
	for _, l := range before.Logs {
		tails[l.Log] = l.Tail
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "LOG\tHEAD\tCOMPLETED\tTAIL\tOPS/s\tREPLICAS BEHIND\t")
	for _, l := range now.Logs {
		sort.Slice(l.Replicas, func(i, j int) bool { return l.Replicas[i].Slot < l.Replicas[j].Slot })
		var behind []string
		for _, p := range l.Replicas {
			text := fmt.Sprintf("%d:%d", p.Slot, l.Tail-min(l.Tail, p.At))
			if p.State != "live" {
				text += " " + p.State
			}
			behind = append(behind, text)
		}
		grown := l.Tail - min(l.Tail, tails[l.Log])
		fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%s\t%s\t\n", l.Log, l.Head, l.Completed, l.Tail, short(float64(grown)/seconds), cmp.Or(strings.Join(behind, ", "), "none"))
	}
	w.Flush()
}

// short prints a number with three digits and a unit.
func short(v float64) string {
	units := []string{"", "k", "M", "G", "T"}
	i := 0
	for ; v >= 999.5 && i < len(units)-1; i++ {
		v /= 1000
	}
	if v < 10 && v != float64(int(v)) {
		return fmt.Sprintf("%.1f%s", v, units[i])
	}
	return fmt.Sprintf("%.0f%s", v, units[i])
}
