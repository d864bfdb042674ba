package linuxguest

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"dinos/kernel/rtbench"
	"dinos/qemu/vm"
)

// RunBench runs the benchmarks of package kernel/rtbench on Linux; o needs no program,
// and its Args are rtbench's (patterns of names, -quick).
func RunBench(ctx context.Context, o Options) ([]rtbench.Result, error) {
	dir, err := vm.NewRunDir()
	if err != nil {
		return nil, fmt.Errorf("linuxguest: %w", err)
	}
	defer dir.Close()
	o.Program, o.Path = nil, dir.Join("rtbench")
	if err := BuildStatic(ctx, "dinos/qemu/linuxguest/rtbench", o.Path); err != nil {
		return nil, err
	}
	out, exit, err := RunProgram(ctx, o)
	if err != nil {
		return nil, err
	}
	var results []rtbench.Result
	for line := range strings.Lines(string(out)) {
		r, ok, err := rtbench.Parse(line)
		if err != nil {
			return results, err
		}
		if ok {
			results = append(results, r)
		}
	}
	if exit != 0 {
		return results, fmt.Errorf("linuxguest: rtbench exited with status %d: %s", exit, out)
	}
	if len(results) == 0 {
		return nil, errors.New("linuxguest: rtbench printed no results")
	}
	return results, nil
}
