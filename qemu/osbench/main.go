// Command osbench measures system calls: what a program pays for the kernel. It is an ordinary static Linux program, which runs
// unmodified on dinos and on Linux, so that the two can be set side by side ("dinos bench os").
//
// It makes the calls itself, without the Go runtime in between, and keeps its threads and handlers out of the runtime's sight where
// the runtime would add a price of its own.
//
// Results are lines as package kernel/rtbench prints them. Arguments select rows by parts of their names.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"dinos/kernel/rtbench"
)

// row is one measurement: run does n operations.
type row struct {
	name string
	n    int    // operations in a sample
	prep func() // before the samples; it may be nil
	run  func(n int)
	done func()
	cpus int // that it needs
}

func main() {
	quick := flag.Bool("quick", false, "take few samples")
	samples := flag.Int("samples", 0, "samples of each row (default 41, with -quick 5)")
	flag.Parse()
	if *samples <= 0 {
		*samples = 41
		if *quick {
			*samples = 5
		}
	}
	debug.SetGCPercent(-1) // nothing here needs it, and it would come in between
	runtime.LockOSThread()
	dir, err := os.MkdirTemp(scratch(), "osbench")
	if err != nil {
		fail("scratch directory", err)
	}
	defer os.RemoveAll(dir)
	for _, r := range rows(dir) {
		if selected(r.name, flag.Args()) {
			measure(&r, *samples)
		}
	}
}

// scratch is where files are in memory: /dev/shm, or /tmp on dinos, which is as well.
func scratch() string {
	if st, err := os.Stat("/dev/shm"); err == nil && st.IsDir() {
		return "/dev/shm"
	}
	return "/tmp"
}

func selected(name string, parts []string) bool {
	return len(parts) == 0 || slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(name, p) })
}

func fail(what string, err error) {
	fmt.Fprintf(os.Stderr, "osbench: %s: %v\n", what, err)
	os.Exit(1)
}

// check ends the program if a call that is measured fails: what does nothing is quick.
func check(what string, e syscall.Errno) {
	if e != 0 {
		fail(what, e)
	}
}

func measure(r *row, samples int) {
	res := rtbench.Result{Name: r.name, Unit: "ns", CPUs: runtime.NumCPU()}
	if r.cpus > runtime.NumCPU() {
		res.Skip = fmt.Sprintf("needs %d CPUs", r.cpus)
		report(res)
		return
	}
	if r.prep != nil {
		r.prep()
	}
	r.run(max(r.n/10, 1)) // warm up
	times := make([]float64, samples)
	for i := range times {
		start := time.Now()
		r.run(r.n)
		times[i] = float64(time.Since(start).Nanoseconds()) / float64(r.n)
	}
	if r.done != nil {
		r.done()
	}
	slices.Sort(times)
	res.N, res.Min, res.P50, res.P99 = samples, times[0], times[samples/2], times[(samples*99+99)/100-1]
	report(res)
}

func report(r rtbench.Result) {
	b, err := json.Marshal(r)
	if err != nil {
		fail(r.Name, err)
	}
	fmt.Printf("%s%s\n", rtbench.Prefix, b)
}
