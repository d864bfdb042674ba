// Command dinos is the tool of the project's user: it makes images bootable, boots them and debugs them.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		if p := (*programError)(nil); !errors.As(err, &p) { // how a program ended is the status' business
			fmt.Fprintln(os.Stderr, "dinos:", err)
		}
		os.Exit(exitStatus(err))
	}
}

// run executes one command line. All commands read in and write out; diagnostics of running machines go to os.Stderr.
func run(args []string, in io.Reader, out io.Writer) error {
	root := &cobra.Command{
		Use:           "dinos",
		Short:         "a rack-scale operating system, and the tool that boots it",
		SilenceErrors: true, // main prints them
		SilenceUsage:  true, // a failed boot is not a wrong command line
	}
	root.AddCommand(newBenchCmd(), newBootCmd(), newBuildCmd(), newGDBCmd(), newImageCmd(), newSyscallsCmd(), newVersionCmd())
	root.AddCommand(newUpCmd(), newPromptCmd(), newRacksCmd(), newLauncherCmd())
	root.AddCommand(newRackCmds(rackRef{})...)
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(os.Stderr)
	return root.ExecuteContext(context.Background())
}
