// Command rtbench runs the benchmarks of package kernel/rtbench on Linux, the
// yardstick for the kernels. Arguments select benchmarks by parts of their names;
// -quick takes few samples.
package main

import (
	"flag"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"dinos/kernel/rtbench"
)

func main() {
	quick := flag.Bool("quick", false, "take few samples")
	flag.Parse()
	env := rtbench.Env{Out: os.Stdout, Quick: *quick, Pin: func(cpu int) error {
		var set unix.CPUSet
		set.Set(cpu)
		return unix.SchedSetaffinity(0, &set)
	}}
	if err := rtbench.Run(env, flag.Args()...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
