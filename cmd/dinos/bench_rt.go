package main

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"dinos/boot/build"
	"dinos/kernel/rtbench"
	"dinos/qemu/linuxguest"
	"dinos/qemu/vm"
)

// rtOptions are the flags of bench rt.
type rtOptions struct {
	cpus   []int
	rounds int
	mem    size
	quick  bool
	only   []string
}

func newBenchRTCmd() *cobra.Command {
	opt := rtOptions{mem: 2 << 30}
	cmd := &cobra.Command{
		Use:   "rt",
		Short: "the Go runtime on dinos beside Linux in the same QEMU",
		Long: `Rt runs the same Go benchmarks (package kernel/rtbench) inside a dinos kernel and as a static ELF on Debian's Linux kernel in the
same QEMU, with the same vCPUs and memory, in turn for some rounds. For every benchmark it prints the medians over the
rounds of the p50 and of the p99, and the ratios dinos/Linux: below 1 dinos is faster. "min" is the best single sample, which a busy host disturbs least.`,
		Args: cobra.NoArgs,
	}
	opt.bind(cmd, []int{1, 2, 4}, benchRT)
	return cmd
}

// bind adds the flags to a command, which runs bench. table is nil, or gets every measurement.
func (o *rtOptions) bind(cmd *cobra.Command, cpus []int, bench func(ctx context.Context, opt rtOptions, out, log, table io.Writer) error) {
	fs := cmd.Flags()
	fs.IntSliceVar(&o.cpus, "smp", cpus, "numbers of vCPUs")
	fs.IntVar(&o.rounds, "rounds", 3, "rounds")
	fs.Var(&o.mem, "mem", "memory of each machine")
	fs.BoolVar(&o.quick, "quick", false, "few samples: a test of the benchmark, not of the systems")
	fs.StringSliceVar(&o.only, "only", nil, "rows whose names contain one of these")
	withCSV := csvFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if o.rounds < 1 || len(o.cpus) == 0 {
			return fmt.Errorf("bench %s: want at least one round and one number of vCPUs", cmd.Name())
		}
		ctx, stop := endable(cmd)
		defer stop()
		return withCSV(func(table io.Writer) error { return bench(ctx, *o, cmd.OutOrStdout(), cmd.ErrOrStderr(), table) })
	}
}

// args are the arguments of a program that runs the benchmarks.
func (o *rtOptions) args() []string {
	if o.quick {
		return append([]string{"-quick"}, o.only...)
	}
	return o.only
}

// rtKey names a row of the table.
type rtKey struct {
	name string
	cpus int
}

// rtRow collects the results of the two systems over the rounds.
type rtRow struct {
	unit         string
	dinos, linux []rtbench.Result
}

func benchRT(ctx context.Context, opt rtOptions, out, log, table io.Writer) error {
	dir, err := vm.NewRunDir()
	if err != nil {
		return err
	}
	defer dir.Close()
	image := dir.Join("ktest.elf")
	if err := build.Kernel(ctx, build.Options{Package: "dinos/cmd/ktest"}, image); err != nil {
		return err
	}
	accel := vm.DetectAccel()
	c := comparison{rounds: opt.rounds, cpus: opt.cpus, log: log}
	err = c.run(ctx, func(ctx context.Context, cpus int) ([]rtbench.Result, error) {
		return rtOnDinos(ctx, opt, image, cpus, accel)
	}, func(ctx context.Context, cpus int) ([]rtbench.Result, error) {
		return linuxguest.RunBench(ctx, linuxguest.Options{SMP: cpus, MemMiB: int(opt.mem >> 20), Args: opt.args(), Accel: &accel, Log: log})
	})
	if err != nil {
		return err
	}
	return c.report(out, table)
}

// comparison runs the same benchmarks on dinos and on Linux in turn.
type comparison struct {
	rounds int
	cpus   []int
	log    io.Writer
	rows   map[rtKey]*rtRow
	order  []rtKey
}

// run does the rounds; each function runs all benchmarks once, on so many vCPUs.
func (c *comparison) run(ctx context.Context, dinos, linux func(ctx context.Context, cpus int) ([]rtbench.Result, error)) error {
	c.rows = map[rtKey]*rtRow{}
	for round := range c.rounds {
		for _, cpus := range c.cpus {
			fmt.Fprintf(c.log, "round %d of %d, %d vCPUs: dinos\n", round+1, c.rounds, cpus)
			list, err := dinos(ctx, cpus)
			if err != nil {
				return err
			}
			c.add(cpus, list, func(row *rtRow, r rtbench.Result) { row.dinos = append(row.dinos, r) })
			fmt.Fprintf(c.log, "round %d of %d, %d vCPUs: Linux\n", round+1, c.rounds, cpus)
			if list, err = linux(ctx, cpus); err != nil {
				return err
			}
			c.add(cpus, list, func(row *rtRow, r rtbench.Result) { row.linux = append(row.linux, r) })
		}
	}
	return nil
}

func (c *comparison) add(cpus int, list []rtbench.Result, to func(*rtRow, rtbench.Result)) {
	for _, r := range list {
		k := rtKey{r.Name, cpus}
		if c.rows[k] == nil {
			c.rows[k] = &rtRow{unit: r.Unit}
			c.order = append(c.order, k)
		}
		if r.Skip == "" {
			to(c.rows[k], r)
		}
	}
}

// report prints the table, and writes every result to table, unless that is nil.
func (c *comparison) report(out, table io.Writer) error {
	if table != nil {
		if err := writeRTCSV(table, c.rows, c.order); err != nil {
			return err
		}
	}
	return printRT(out, c.rows, c.order)
}

// rtOnDinos runs the benchmarks in the test image.
func rtOnDinos(ctx context.Context, opt rtOptions, image string, cpus int, accel vm.Accel) ([]rtbench.Result, error) {
	which := "all"
	if len(opt.only) > 0 {
		which = strings.Join(opt.only, ",")
	}
	args := "bench=" + which
	if opt.quick {
		args += " quick"
	}
	var console strings.Builder
	v, err := vm.Start(vm.Config{Name: "dinos", Image: image, CPUs: cpus, Memory: uint64(opt.mem), Append: args, Accel: &accel, Output: &console})
	if err != nil {
		return nil, err
	}
	defer v.Close()
	if _, err := v.Wait(ctx); err != nil {
		return nil, err
	}
	return rtResults(console.String())
}

// rtResults are the results in the output of a guest.
func rtResults(output string) (list []rtbench.Result, err error) {
	for line := range strings.Lines(output) {
		r, ok, err := rtbench.Parse(strings.TrimRight(line, "\r\n"))
		if err != nil {
			return nil, err
		}
		if ok {
			list = append(list, r)
		}
	}
	return list, nil
}

// median returns the median of one column of the results.
func median(list []rtbench.Result, f func(rtbench.Result) float64) float64 {
	v := make([]float64, len(list))
	for i, r := range list {
		v[i] = f(r)
	}
	return middle(v)
}

func rtMin(r rtbench.Result) float64 { return r.Min }
func rtP50(r rtbench.Result) float64 { return r.P50 }
func rtP99(r rtbench.Result) float64 { return r.P99 }

func printRT(out io.Writer, rows map[rtKey]*rtRow, order []rtKey) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "benchmark\tvCPUs\tunit\tdinos min\tp50\tp99\tLinux min\tp50\tp99\tratio min\tp50\tp99\t")
	for _, k := range order {
		r := rows[k]
		if len(r.dinos) == 0 || len(r.linux) == 0 {
			fmt.Fprintf(w, "%s\t%d\t%s\tnot run\t\t\t\t\t\t\t\t\t\n", k.name, k.cpus, r.unit)
			continue
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t", k.name, k.cpus, r.unit)
		for _, list := range [][]rtbench.Result{r.dinos, r.linux} {
			fmt.Fprintf(w, "%.4g\t%.4g\t%.4g\t", median(list, rtMin), median(list, rtP50), median(list, rtP99))
		}
		for _, f := range []func(rtbench.Result) float64{rtMin, rtP50, rtP99} {
			fmt.Fprintf(w, "%.2f\t", median(r.dinos, f)/median(r.linux, f))
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

func writeRTCSV(out io.Writer, rows map[rtKey]*rtRow, order []rtKey) error {
	w := csv.NewWriter(out)
	w.Write([]string{"benchmark", "vcpus", "system", "round", "unit", "min", "p50", "p99", "samples"})
	for _, k := range order {
		for system, list := range map[string][]rtbench.Result{"dinos": rows[k].dinos, "linux": rows[k].linux} {
			for i, r := range list {
				w.Write([]string{k.name, strconv.Itoa(k.cpus), system, strconv.Itoa(i + 1), r.Unit, csvNumber(r.Min), csvNumber(r.P50), csvNumber(r.P99), strconv.Itoa(r.N)})
			}
		}
	}
	w.Flush()
	return w.Error()
}
