package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"dinos/boot/build"
	"dinos/qemu/rack/statedir"
	"dinos/qemu/vm"
)

func newBenchBootCmd() *cobra.Command {
	var rounds, cpus int
	cmd := &cobra.Command{
		Use:   "boot",
		Short: "how long a kernel takes to start, how large it is and what it uses while idle",
		Long: `Boot starts cmd/dkernel for some rounds and prints medians: the size of the image, the time from the start of QEMU to the first
line of main, the time in the guest from the kernel's entry to there, and the share of one host core that the machine uses over ten
seconds in which nothing happens.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return benchBoot(cmd.Context(), rounds, cpus, cmd.OutOrStdout())
		},
	}
	cmd.Flags().IntVar(&rounds, "rounds", 5, "rounds")
	cmd.Flags().IntVar(&cpus, "smp", 4, "vCPUs")
	return cmd
}

func benchBoot(ctx context.Context, rounds, cpus int, out io.Writer) error {
	if rounds < 1 {
		return errors.New("bench boot: want at least one round")
	}
	dir, err := vm.NewRunDir()
	if err != nil {
		return err
	}
	defer dir.Close()
	image := dir.Join("dkernel.elf")
	if err := build.Kernel(ctx, build.Options{Package: "dinos/cmd/dkernel"}, image); err != nil {
		return err
	}
	st, err := os.Stat(image)
	if err != nil {
		return err
	}
	var wall, guest, idle []float64
	for i := range rounds {
		w, g, busy, err := startOnce(ctx, image, cpus, i == 0)
		if err != nil {
			return err
		}
		wall, guest = append(wall, w), append(guest, g)
		if i == 0 {
			idle = append(idle, busy)
		}
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "image\t%.1f MB\t(goal 12 MB)\n", float64(st.Size())/1e6)
	fmt.Fprintf(w, "QEMU start to first line of main\t%.0f ms\t(goal 300 ms)\n", middle(wall))
	fmt.Fprintf(w, "kernel entry to main, guest time\t%.0f ms\t(goal 60 ms)\n", middle(guest))
	fmt.Fprintf(w, "idle, %d vCPUs, 10 s\t%.1f %% of a core\t(goal 3 %%)\n", cpus, middle(idle))
	return w.Flush()
}

// middle returns the median of v, which it sorts.
func middle(v []float64) float64 {
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// startOnce boots image and returns ms from QEMU's start to the kernel's first line, ms of guest time in that line, and, if
// asked, the percentage of a core used while idle.
func startOnce(ctx context.Context, image string, cpus int, measureIdle bool) (wall, guest, idle float64, err error) {
	start := time.Now()
	v, err := vm.Start(vm.Config{Name: "dkernel", Image: image, CPUs: cpus})
	if err != nil {
		return 0, 0, 0, err
	}
	defer v.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	const before, after = "main after ", " ms"
	line, _, err := v.Console().Find(ctx, 0, func(s string) bool { return strings.Contains(s, before) })
	if err != nil {
		return 0, 0, 0, v.Hang("no first line: " + err.Error())
	}
	wall = float64(time.Since(start).Microseconds()) / 1000
	_, rest, _ := strings.Cut(line, before)
	text, _, _ := strings.Cut(rest, after)
	if guest, err = strconv.ParseFloat(text, 64); err != nil {
		return 0, 0, 0, fmt.Errorf("first line %q: %w", line, err)
	}
	if !measureIdle {
		return wall, guest, 0, nil
	}
	time.Sleep(2 * time.Second) // the runtime's start-up work ends
	const window = 10 * time.Second
	qemu, err := statedir.NewProcess(v.PID())
	if err != nil {
		return 0, 0, 0, err
	}
	t0, err := qemu.CPUTime()
	if err != nil {
		return 0, 0, 0, err
	}
	time.Sleep(window)
	t1, err := qemu.CPUTime()
	return wall, guest, 100 * float64(t1-t0) / float64(window), err
}
