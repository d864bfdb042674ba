// Package ktest is the table of tests that run inside a kernel. The image cmd/ktest is nothing but this; qemu/vmtest runs it
// from go test.
//
// Command line: bench=NAME,NAME or bench=all runs benchmarks of package rtbench (quick: few samples); test=NAME,NAME or test=all (the default) selects; seconds=N is how long soaks run; crash=NAME brings the
// kernel down in one of several ways, to test how it reports that; ivshmem=PART says which part somebody else plays over shared
// memory, peer=ID who, and rounds=N for how long.
package ktest

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"dinos/kernel/machine"
	"dinos/kernel/rtbench"
	"dinos/kernel/testproto"
)

// Main runs what the command line selects and ends the machine. It returns only if the command line is wrong.
func Main(m *machine.Machine) error {
	if err := m.Args.Known(testproto.Key, "seconds", "crash", "in", "bench", "quick", "ivshmem", "peer", "rounds"); err != nil {
		return err
	}
	name, err := m.Args.String("crash", "")
	if err != nil {
		return err
	}
	if name != "" {
		where, err := m.Args.String("in", "goroutine")
		if err != nil {
			return err
		}
		return crash(name, where)
	}
	if m.Args.Has("bench") {
		return bench(m)
	}
	value, err := m.Args.String(testproto.Key, testproto.All)
	if err != nil {
		return err
	}
	secs, err := m.Args.Uint("seconds", 2, 1, 3600)
	if err != nil {
		return err
	}
	s := suite{m: m, soak: time.Duration(secs) * time.Second}
	r := testproto.Runner{Tests: s.tests(), Print: machine.Print, Now: machine.Now}
	exit, err := r.Run(value)
	if err != nil {
		return err
	}
	machine.Exit(exit)
	return nil
}

// suite holds what tests need.
type suite struct {
	m    *machine.Machine
	soak time.Duration
}

// crash brings the kernel down.
func crash(name, where string) error {
	do, ok := crashes[name]
	if !ok {
		var names []string
		for n := range crashes {
			names = append(names, n)
		}
		slices.Sort(names)
		return fmt.Errorf("command line: crash=%s: want one of %s", name, strings.Join(names, ", "))
	}
	switch where {
	case "goroutine":
		do()
	case "kernel":
		machine.InKernel(do)
	case "interrupt":
		machine.InInterrupt(do)
	case "system":
		machine.OnSystemStack(do)
	default:
		return fmt.Errorf("command line: in=%s: want goroutine, system, kernel or interrupt", where)
	}
	time.Sleep(time.Second)
	return fmt.Errorf("crash=%s in=%s did not bring the kernel down", name, where)
}

// bench runs the benchmarks whose names contain one of the given parts.
func bench(m *machine.Machine) error {
	value, err := m.Args.String("bench", testproto.All)
	if err != nil {
		return err
	}
	quick, err := m.Args.Bool("quick")
	if err != nil {
		return err
	}
	var parts []string
	if value != testproto.All {
		parts = strings.Split(value, ",")
	}
	if err := rtbench.Run(rtbench.Env{Out: os.Stdout, Pin: machine.Pin, Quick: quick}, parts...); err != nil {
		return err
	}
	machine.Exit(testproto.ExitPass)
	return nil
}
