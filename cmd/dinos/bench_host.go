package main

import (
	"io"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"dinos/nr/nrbench"
	"dinos/sched/schedbench"
)

// csvFlag adds --csv to a command and returns a function that runs f with the file, nil if none was asked for.
func csvFlag(cmd *cobra.Command) func(f func(io.Writer) error) error {
	path := cmd.Flags().String("csv", "", "also write every measurement to this file")
	return func(f func(io.Writer) error) error {
		if *path == "" {
			return f(nil)
		}
		out, err := os.Create(*path)
		if err != nil {
			return err
		}
		if err := f(out); err != nil {
			out.Close()
			return err
		}
		return out.Close()
	}
}

// csvNumber is a measurement as text.
func csvNumber(v float64) string { return strconv.FormatFloat(v, 'g', 8, 64) }

func newBenchNRCmd() *cobra.Command {
	var opt nrbench.Options
	cmd := &cobra.Command{
		Use:   "nr",
		Short: "node replication beside Go's locks and maps, on this machine",
		Args:  cobra.NoArgs,
	}
	withCSV := csvFlag(cmd)
	cmd.Flags().IntVar(&opt.Keys, "keys", 0, "keys in the map (default 1048576)")
	cmd.Flags().IntVar(&opt.Rounds, "rounds", 0, "rounds (default 3)")
	cmd.Flags().DurationVar(&opt.Duration, "duration", 0, "of one measurement (default 300ms)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return withCSV(func(w io.Writer) error {
			opt.CSV = w
			return nrbench.Run(cmd.OutOrStdout(), opt)
		})
	}
	return cmd
}

func newBenchSchedCmd() *cobra.Command {
	opt := schedbench.Options{Seed: 1}
	cmd := &cobra.Command{
		Use:   "sched",
		Short: "the scheduler's latency and quality, on this machine",
		Args:  cobra.NoArgs,
	}
	withCSV := csvFlag(cmd)
	cmd.Flags().Uint64Var(&opt.Seed, "seed", 1, "of the workloads")
	cmd.Flags().BoolVar(&opt.Quick, "quick", false, "a tenth of the rounds")
	cmd.Flags().BoolVar(&opt.NoExact, "no-exact", false, "do not compare with CBC, even if it is installed (Debian: coinor-cbc)")
	cmd.Flags().StringSliceVar(&opt.Policies, "policy", nil, "policies to time (default locality,ours)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return withCSV(func(w io.Writer) error {
			opt.CSV = w
			return schedbench.Run(cmd.OutOrStdout(), opt)
		})
	}
	return cmd
}
