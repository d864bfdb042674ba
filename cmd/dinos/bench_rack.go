package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"dinos/qemu/rack"
	"dinos/qemu/rack/statedir"
)

// rackOptions are the flags of bench rack.
type rackOptions struct {
	dkernels []int
	cores    int
	rounds   int
	idle     time.Duration
}

// rackGoals are what is to be reached: up times by the number of dkernels, and percent of a core of an idle rack of four.
var rackGoals = map[int]string{2: "1.5 s", 4: "2.5 s"}

func newBenchRackCmd() *cobra.Command {
	var opt rackOptions
	cmd := &cobra.Command{
		Use:   "rack",
		Short: "how long a rack takes to start, to lose and regain kernels, and what it uses while idle",
		Long: `Rack starts a rack of each size for some rounds, in a process of its own as 'dinos up' does, and prints medians and the best round:
from the command until all kernels are members, until a killed dkernel is gone and the ckernel knows, until one that hangs is no member, until a
killed dkernel is a member again, until a killed ckernel answers again, and until the rack has ended in order. Once per size it
also looks at the processor time that the rack's processes use while nothing happens.`,
		Args: cobra.NoArgs,
	}
	withCSV := csvFlag(cmd)
	cmd.Flags().IntSliceVar(&opt.dkernels, "dkernels", []int{2, 4}, "sizes of racks")
	cmd.Flags().IntVar(&opt.cores, "cores", rack.DefaultCores, "of each kernel")
	cmd.Flags().IntVar(&opt.rounds, "rounds", 5, "rounds")
	cmd.Flags().DurationVar(&opt.idle, "idle", 10*time.Second, "how long to look at an idle rack")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, stop := endable(cmd)
		defer stop()
		return withCSV(func(w io.Writer) error { return benchRack(ctx, opt, cmd.OutOrStdout(), cmd.ErrOrStderr(), w) })
	}
	return cmd
}

// rackRow is one thing that is measured, by round; in ms, or percent.
type rackRow struct {
	dkernels int
	what     string
	unit     string
	goal     string
	values   []float64
}

func benchRack(ctx context.Context, opt rackOptions, out, log, table io.Writer) error {
	if opt.rounds < 1 || opt.idle < time.Second || len(opt.dkernels) == 0 {
		return errors.New("bench rack: want at least one round and one size, and a second of idling")
	}
	cfg := rack.Config{Name: fmt.Sprintf("bench-%d", os.Getpid()), Cores: opt.cores}
	if err := images(&cfg); err != nil {
		return err
	}
	var rows []*rackRow
	for _, n := range opt.dkernels {
		cfg.Dkernels = n
		if n < 1 {
			return fmt.Errorf("bench rack: %d dkernels, want at least 1", n)
		}
		b := &rackBench{dkernels: n}
		for round := range opt.rounds {
			fmt.Fprintf(log, "%d dkernels, round %d of %d\n", n, round+1, opt.rounds)
			idle := time.Duration(0)
			if round == opt.rounds-1 {
				idle = opt.idle
			}
			if err := b.round(ctx, cfg, idle); err != nil {
				return err
			}
		}
		rows = append(rows, b.rows...)
	}
	if table != nil {
		if err := writeRackCSV(table, rows); err != nil {
			return err
		}
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "dkernels\twhat\tunit\tbest\tmedian\tworst\tgoal\t")
	for _, r := range rows {
		v := slices.Clone(r.values)
		fmt.Fprintf(w, "%d\t%s\t%s\t%.1f\t%.1f\t%.1f\t%s\t\n", r.dkernels, r.what, r.unit, slices.Min(v), middle(v), slices.Max(v), r.goal)
	}
	return w.Flush()
}

func writeRackCSV(out io.Writer, rows []*rackRow) error {
	w := csv.NewWriter(out)
	w.Write([]string{"dkernels", "what", "unit", "round", "value"})
	for _, r := range rows {
		for i, v := range r.values {
			w.Write([]string{strconv.Itoa(r.dkernels), r.what, r.unit, strconv.Itoa(i + 1), strconv.FormatFloat(v, 'f', 3, 64)})
		}
	}
	w.Flush()
	return w.Error()
}

// rackBench measures racks of one size.
type rackBench struct {
	dkernels int
	rows     []*rackRow
}

func (b *rackBench) add(what, unit, goal string, v float64) {
	for _, r := range b.rows {
		if r.what == what {
			r.values = append(r.values, v)
			return
		}
	}
	b.rows = append(b.rows, &rackRow{b.dkernels, what, unit, goal, []float64{v}})
}

// since adds a time in ms.
func (b *rackBench) since(start time.Time, what, goal string) {
	b.add(what, "ms", goal, float64(time.Since(start).Microseconds())/1000)
}

// round starts a rack, does what is measured, and ends it.
func (b *rackBench) round(ctx context.Context, cfg rack.Config, idle time.Duration) (err error) {
	start := time.Now()
	r, err := up(ctx, cfg, io.Discard)
	if err != nil {
		return err
	}
	b.since(start, "start: command to all registered", rackGoals[b.dkernels])
	defer func() {
		start := time.Now()
		err = errors.Join(err, r.Down(context.WithoutCancel(ctx), false))
		b.since(start, "end in order", "")
	}()
	if idle > 0 {
		if err := b.idle(ctx, r, idle); err != nil {
			return err
		}
	}
	start = time.Now()
	if err := r.Kill(ctx, "dkernel1"); err != nil {
		return err
	}
	b.since(start, "kill dkernel1: gone, ckernel told", "1 s")
	start = time.Now()
	if err := r.Restart(ctx, "dkernel1"); err != nil {
		return err
	}
	b.since(start, "restart dkernel1: member again", "")
	start = time.Now()
	if err := r.Pause(ctx, "dkernel1"); err != nil {
		return err
	}
	if err := rackAwait(ctx, r, func(s *rack.Status) bool { return s.Kernels[1].Member != "up" }); err != nil {
		return err
	}
	b.since(start, "dkernel1 hangs: no member", "1 s")
	s, err := r.Status(ctx, false)
	if err != nil {
		return err
	}
	start = time.Now()
	if err := syscall.Kill(s.Kernels[0].PID, syscall.SIGKILL); err != nil {
		return err
	}
	gen := s.Kernels[0].Generation
	err = rackAwait(ctx, r, func(s *rack.Status) bool { return s.Ckernel == "answers" && s.Kernels[0].Generation > gen })
	b.since(start, "ckernel killed: answers again", "")
	return err
}

// rackAwait waits for something in a rack.
func rackAwait(ctx context.Context, r *rack.Remote, f func(*rack.Status) bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		s, err := r.Status(ctx, false)
		if err != nil {
			return err
		}
		if f(s) {
			return nil
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// idle measures the processor time of a rack in which nothing happens.
func (b *rackBench) idle(ctx context.Context, r *rack.Remote, window time.Duration) error {
	time.Sleep(2 * time.Second) // the runtimes' start-up work ends
	used := func() (sum time.Duration, err error) {
		s, err := statedir.Load(r.Base, r.Name)
		if err != nil {
			return 0, err
		}
		for _, p := range append([]statedir.Kernel{{Process: s.Launcher}}, s.Kernels...) {
			d, err := p.CPUTime()
			if err != nil {
				return 0, err
			}
			sum += d
		}
		return sum, nil
	}
	t0, err := used()
	if err != nil {
		return err
	}
	start := time.Now()
	select {
	case <-time.After(window):
	case <-ctx.Done():
		return ctx.Err()
	}
	t1, err := used()
	if err != nil {
		return err
	}
	goal := ""
	if b.dkernels == 4 {
		goal = "10 %"
	}
	b.add("idle, of a host core", "%", goal, 100*float64(t1-t0)/float64(time.Since(start)))
	return nil
}
