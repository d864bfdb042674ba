package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"dinos/dkernel/sys"
)

func newSyscallsCmd() *cobra.Command {
	var level string
	cmd := &cobra.Command{
		Use:   "syscalls",
		Short: "the Linux system calls that dkernels serve, and how well",
		Long: "The Linux system calls of x86-64 by number: full, partial (the note says what is missing), refused (an error that Linux gives too where\n" +
			"a feature is not there or not allowed), none (ENOSYS; the kernel counts who asks).",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			levels := map[sys.Level]int{}
			known := false
			for _, l := range []sys.Level{sys.None, sys.Refused, sys.Partial, sys.Full} {
				known = known || l.String() == level
			}
			if level != "" && !known {
				return fmt.Errorf("--level %s: want full, partial, refused or none", level)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NR\tNAME\tLEVEL\tNOTE")
			sys.NewTable().Each(func(nr int, c sys.Call, _ uint64) {
				levels[c.Level]++
				if level == "" || c.Level.String() == level {
					fmt.Fprintf(w, "%d\t%s\t%v\t%s\n", nr, c.Name, c.Level, c.Note)
				}
			})
			if err := w.Flush(); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%d full, %d partial, %d refused, %d none\n", levels[sys.Full], levels[sys.Partial], levels[sys.Refused], levels[sys.None])
			return err
		},
	}
	cmd.Flags().StringVar(&level, "level", "", "only those served so: full, partial, refused or none")
	return cmd
}
