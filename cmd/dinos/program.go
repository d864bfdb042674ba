package main

import (
	"context"
	"fmt"
	"io"

	"dinos/qemu/rack"
)

// runProgram is what the prompt does with a line that is no command of its own: it will run a program on the rack, with its standard input and
// output here. The rack's kernels cannot do that yet.
func runProgram(_ context.Context, _ *rack.Remote, args []string, _ io.Reader, _ io.Writer) error {
	return fmt.Errorf("%q is no command ('help' lists them), and this rack does not run programs yet", args[0])
}
