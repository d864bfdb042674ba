package main

import (
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersionCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "print which source this tool was built from",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			bi, ok := debug.ReadBuildInfo()
			if !ok {
				return fmt.Errorf("this binary has no build information: build it with go build")
			}
			rev, dirty := "unknown revision", ""
			for _, s := range bi.Settings {
				switch {
				case s.Key == "vcs.revision":
					rev = s.Value
				case s.Key == "vcs.modified" && s.Value == "true":
					dirty = " (modified)"
				}
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "dinos %s%s, %s\n", rev, dirty, bi.GoVersion)
			return err
		},
	}
}
