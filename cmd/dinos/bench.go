package main

import "github.com/spf13/cobra"

func newBenchCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "bench", Short: "measure, and compare with others"}
	cmd.AddCommand(newBenchBootCmd(), newBenchNRCmd(), newBenchOSCmd(), newBenchRackCmd(), newBenchRPCCmd(), newBenchRTCmd(), newBenchSchedCmd())
	return cmd
}
