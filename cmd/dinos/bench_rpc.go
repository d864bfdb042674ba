package main

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"dinos/boot/build"
	"dinos/kernel/rpcbench"
	"dinos/kernel/rtbench"
	"dinos/qemu/linuxguest"
	"dinos/qemu/testrack"
	"dinos/qemu/vm"
	"dinos/shmem/layout"
)

// rpcOptions are the flags of bench rpc.
type rpcOptions struct {
	rounds, dkernels, smp int
	quick, noTCP          bool
}

func newBenchRPCCmd() *cobra.Command {
	opt := rpcOptions{}
	cmd := &cobra.Command{
		Use:   "rpc",
		Short: "RPCs between kernels beside TCP between two Linux machines in the same QEMU",
		Long: `Rpc starts a ckernel and dkernels and measures null RPCs between them: with both ends awake, with both halted before each call
(a doorbell wakes them), and in a pipeline, from one dkernel and from several at once. Beside it, a small message and its answer
over TCP between two Linux machines: same QEMU, accelerator and vCPUs, virtio-net devices that a socket connects. "min" is the
best sample, which a busy host disturbs least; the rest are medians over the rounds.`,
		Args: cobra.NoArgs,
	}
	withCSV := csvFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, stop := endable(cmd)
		defer stop()
		return withCSV(func(table io.Writer) error { return benchRPC(ctx, opt, cmd.OutOrStdout(), cmd.ErrOrStderr(), table) })
	}
	fs := cmd.Flags()
	fs.IntVar(&opt.rounds, "rounds", 5, "rounds")
	fs.IntVar(&opt.dkernels, "dkernels", 4, "the largest number of dkernels that call at once")
	fs.IntVar(&opt.smp, "smp", 1, "vCPUs of each machine")
	fs.BoolVar(&opt.quick, "quick", false, "few calls: a test of the benchmark, not of the system")
	fs.BoolVar(&opt.noTCP, "no-tcp", false, "do not start Linux")
	return cmd
}

// rpcSample is a result of one kernel in one round.
type rpcSample struct {
	what   string // the row
	system string // dinos or linux
	round  int
	peer   int
	r      rtbench.Result
}

func benchRPC(ctx context.Context, opt rpcOptions, out, log, table io.Writer) error {
	if opt.rounds < 1 || opt.dkernels < 1 || opt.dkernels >= layout.MaxMachines || opt.smp < 1 {
		return fmt.Errorf("bench rpc: %d rounds, %d dkernels, %d vCPUs: want at least 1 of each, and at most %d dkernels",
			opt.rounds, opt.dkernels, opt.smp, layout.MaxMachines-1)
	}
	accel := vm.DetectAccel()
	fmt.Fprintf(log, "accelerator: %s\n", accel.Why)
	var samples []rpcSample
	images, clean, err := rpcImages(ctx)
	if err != nil {
		return err
	}
	defer clean()
	for round := range opt.rounds {
		s, err := rpcOneRound(ctx, opt, accel, images, log, fmt.Sprintf("round %d of %d", round+1, opt.rounds))
		if err != nil {
			return err
		}
		for i := range s {
			s[i].round = round + 1
		}
		samples = append(samples, s...)
	}
	if table != nil {
		if err := writeRPCCSV(table, samples); err != nil {
			return err
		}
	}
	return printRPC(out, opt, samples)
}

// rpcRack is a rack for the benchmark.
type rpcRack struct {
	*testrack.Rack
	blocks   []*layout.Machine
	machines []*vm.VM
	consoles []*strings.Builder
	seq      uint16
}

func (r *rpcRack) close() {
	for _, m := range r.machines {
		m.Close()
	}
	r.Close()
}

// rpcImages builds the kernels: [true] is the ckernel. clean removes them.
func rpcImages(ctx context.Context) (images map[bool]string, clean func(), err error) {
	dir, err := vm.NewRunDir()
	if err != nil {
		return nil, nil, err
	}
	images = map[bool]string{true: dir.Join("ckernel.elf"), false: dir.Join("dkernel.elf")}
	for c, pkg := range map[bool]string{true: "dinos/cmd/ckernel", false: "dinos/cmd/dkernel"} {
		if err := build.Kernel(ctx, build.Options{Package: pkg}, images[c]); err != nil {
			dir.Close()
			return nil, nil, err
		}
	}
	return images, func() { dir.Close() }, nil
}

// rpcOneRound measures everything once, in turn, so that what disturbs the host disturbs all.
func rpcOneRound(ctx context.Context, opt rpcOptions, accel vm.Accel, images map[bool]string, log io.Writer, title string) ([]rpcSample, error) {
	var samples []rpcSample
	for _, n := range rpcRackSizes(opt.dkernels) {
		fmt.Fprintf(log, "%s: %d dkernels\n", title, n)
		s, err := rpcRound(ctx, opt, accel, images, n)
		if err != nil {
			return nil, err
		}
		samples = append(samples, s...)
	}
	if opt.noTCP {
		return samples, nil
	}
	fmt.Fprintf(log, "%s: Linux\n", title)
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	awake, idle := 2000, 200
	if opt.quick {
		awake, idle = 50, 10
	}
	list, err := linuxguest.RunTCP(ctx, linuxguest.Options{SMP: opt.smp, MemMiB: 256, Accel: &accel, Log: log}, awake, idle)
	if err != nil {
		return nil, err
	}
	what := map[string]string{"tcp-block": rowTCPBlock, "tcp-poll": rowTCPPoll, "tcp-idle": rowTCPIdle}
	for _, r := range list {
		samples = append(samples, rpcSample{system: "Linux", what: what[r.Name], r: r})
	}
	return samples, nil
}

// Rows that are compared.
const (
	rowAwake    = "null RPC, both awake"
	rowHalted   = "null RPC, both halted"
	rowTCPBlock = "TCP round trip, one after the other, blocking"
	rowTCPPoll  = "TCP round trip, one after the other, polling"
	rowTCPIdle  = "TCP round trip, both idle"
)

// rpcRackSizes are 1, 2, 4, … up to n.
func rpcRackSizes(n int) []int {
	var list []int
	for k := 1; k < n; k *= 2 {
		list = append(list, k)
	}
	return append(list, n)
}

// rpcRound measures on a rack of n dkernels.
func rpcRound(ctx context.Context, opt rpcOptions, accel vm.Accel, images map[bool]string, n int) ([]rpcSample, error) {
	r, err := startRPCRack(ctx, opt, accel, images, n)
	if err != nil {
		return nil, err
	}
	defer r.close()
	scale := func(arg uint32) uint32 {
		if opt.quick {
			return max(arg/50, 10)
		}
		return arg
	}
	var samples []rpcSample
	add := func(what string, kind rpcbench.Kind, arg uint32) {
		if err != nil {
			return
		}
		var s []rpcSample
		s, err = r.measure(ctx, kind, scale(arg))
		for i := range s {
			s[i].what = what
		}
		samples = append(samples, s...)
	}
	if n == 1 {
		add(rowAwake, rpcbench.Awake, 30_000)
		add(rowHalted, rpcbench.Halted, 300)
	}
	add(fmt.Sprintf("null RPCs, %d dkernels, one at a time each", n), rpcbench.Awake, 10_000)
	add(fmt.Sprintf("null RPCs, %d dkernels, pipelined", n), rpcbench.Pipelined, 1000)
	return samples, err
}

func startRPCRack(ctx context.Context, opt rpcOptions, accel vm.Accel, images map[bool]string, n int) (*rpcRack, error) {
	t, err := testrack.New(testrack.Config{Layout: layout.Config{Machines: n + 1},
		Kernel: vm.Config{CPUs: opt.smp, Memory: 256 << 20, Accel: &accel}})
	if err != nil {
		return nil, err
	}
	r := &rpcRack{Rack: t}
	for peer := range n + 1 {
		b, err := t.Block(peer)
		if err != nil {
			r.close()
			return nil, err
		}
		m, err := t.Start(peer, images[peer == layout.Ckernel], "bench=rpc")
		if err != nil {
			r.close()
			return nil, err
		}
		r.blocks, r.machines = append(r.blocks, b), append(r.machines, m)
	}
	// A few calls of each show that all are there.
	if _, err := r.measure(ctx, rpcbench.Awake, 10); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// measure has all dkernels run a command at once and returns their results.
func (r *rpcRack) measure(ctx context.Context, kind rpcbench.Kind, arg uint32) ([]rpcSample, error) {
	r.seq++
	c := rpcbench.Command{Sequence: r.seq, Kind: kind, Arg: arg}
	for _, b := range r.blocks[1:] {
		rpcbench.Ask(b, c)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	err := testrack.Await(ctx, fmt.Sprintf("the benchmark %v", kind), r.machines, func() bool {
		return !slices.ContainsFunc(r.blocks[1:], func(b *layout.Machine) bool { return !rpcbench.Done(b, c) })
	})
	if err != nil {
		return nil, err
	}
	var samples []rpcSample
	for i, m := range r.machines[1:] {
		name := c.Name()
		line, _, err := m.Console().Find(ctx, 0, func(s string) bool { return strings.Contains(s, rtbench.Prefix) && strings.Contains(s, `"`+name+`"`) })
		if err != nil {
			return nil, fmt.Errorf("%s: result of %s: %w", m.Config().Name, name, err)
		}
		res, _, err := rtbench.Parse(line)
		if err != nil {
			return nil, err
		}
		samples = append(samples, rpcSample{system: "dinos", peer: i + 1, r: res})
	}
	return samples, nil
}

// rpcRow is a row of the table: medians over the rounds and the kernels, in µs, but for the best sample of all.
type rpcRow struct {
	name          string
	min, p50, p99 float64
	rate          float64 // of all kernels together, thousands a second
}

func rpcRows(opt rpcOptions, samples []rpcSample) (rows []rpcRow, byWhat map[string]rpcRow) {
	by := map[string][]rpcSample{}
	byWhat = map[string]rpcRow{}
	var order []string
	for _, s := range samples {
		if by[s.what] == nil {
			order = append(order, s.what)
		}
		by[s.what] = append(by[s.what], s)
	}
	for _, what := range order {
		list := by[what]
		results := make([]rtbench.Result, len(list))
		r := rpcRow{name: list[0].system + ": " + what, min: list[0].r.Min / 1000}
		for i, s := range list {
			results[i] = s.r
			r.min = min(r.min, s.r.Min/1000)
			r.rate += 1e6 / s.r.P50 / float64(opt.rounds)
		}
		r.p50, r.p99 = median(results, rtP50)/1000, median(results, rtP99)/1000
		rows = append(rows, r)
		byWhat[what] = r
	}
	return rows, byWhat
}

func printRPC(out io.Writer, opt rpcOptions, samples []rpcSample) error {
	rows, by := rpcRows(opt, samples)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(out, "%d host CPUs, %d vCPUs a machine; µs\n", runtime.NumCPU(), opt.smp)
	if used := (opt.dkernels + 1) * opt.smp; used > runtime.NumCPU() {
		fmt.Fprintf(out, "%d vCPUs share the host's %d: rows with more dkernels than that measure the host's scheduler, too\n", used, runtime.NumCPU())
	}
	fmt.Fprintln(w, "\tmin\tp50\tp99\tall together, 1000/s\t")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%.2f\t%.2f\t%.2f\t%.0f\t\n", r.name, r.min, r.p50, r.p99, r.rate)
	}
	if err := w.Flush(); err != nil || opt.noTCP {
		return err
	}
	// Beside the better of Linux's ways.
	tcp := by[rowTCPBlock]
	if p := by[rowTCPPoll]; p.p50 < tcp.p50 {
		tcp = p
	}
	for _, c := range []struct {
		what       string
		tcp, dinos rpcRow
	}{{"awake", tcp, by[rowAwake]}, {"halted", by[rowTCPIdle], by[rowHalted]}} {
		fmt.Fprintf(out, "TCP takes as long as %.1f (min), %.1f (p50), %.1f (p99) RPCs, %s\n",
			c.tcp.min/c.dinos.min, c.tcp.p50/c.dinos.p50, c.tcp.p99/c.dinos.p99, c.what)
	}
	return nil
}

func writeRPCCSV(out io.Writer, samples []rpcSample) error {
	w := csv.NewWriter(out)
	w.Write([]string{"what", "system", "round", "peer", "unit", "min", "p50", "p99", "samples"})
	for _, s := range samples {
		w.Write([]string{s.what, s.system, strconv.Itoa(s.round), strconv.Itoa(s.peer), s.r.Unit,
			csvNumber(s.r.Min), csvNumber(s.r.P50), csvNumber(s.r.P99), strconv.Itoa(s.r.N)})
	}
	w.Flush()
	return w.Error()
}
