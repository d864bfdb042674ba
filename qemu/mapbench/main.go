// Command mapbench measures the throughput of map(): mapping a page into a process that runs on several cores (DiNOS, figure 3). It is an ordinary
// static Linux program, which runs unmodified on Linux and on dinos.
//
// Each thread owns one page of a memfd and maps it again and again at successive 4 KiB addresses in a region of its own, 512 GiB
// apart from the others' (an entry of the top-level page table), and never unmaps it: mmap(2) with MAP_SHARED, MAP_FIXED and
// MAP_POPULATE. All threads begin behind a barrier; what they did is counted in windows of one second.
//
// Output is a line per window, "window threads maps per second", and at last a line of JSON behind "##mapbench ".
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
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Prefix begins the line with the result.
const Prefix = "##mapbench "

// Result is the outcome of a run.
type Result struct {
	Variant string    `json:"variant"`
	Threads int       `json:"threads"`
	Windows []float64 `json:"windows"` // operations a second, of all threads together
	Latency *Latency  `json:"latency,omitempty"`
}

// Latency has percentiles of one operation in ns, over the samples of all threads.
type Latency struct {
	P50     int64 `json:"p50"`
	P90     int64 `json:"p90"`
	P99     int64 `json:"p99"`
	P999    int64 `json:"p999"`
	Max     int64 `json:"max"`
	Samples int   `json:"samples"`
}

const (
	page   = 4096
	region = 1 << 39 // what an entry of the top-level page table covers
	first  = 8       // the region of thread 0: below are program and heap
	batch  = 64      // operations between looks at the clock's word
)

type worker struct {
	id   int
	base uintptr
	fd   int
	op   func(w *worker, i uintptr) error
	done atomic.Uint64
	_    [64]byte // the counters are read by another core
	lat  []int64
}

func main() {
	threads := flag.Int("threads", 1, "threads, each on a core of its own")
	windows := flag.Int("windows", 11, "windows; the first is to warm up and not reported")
	window := flag.Duration("window", time.Second, "length of a window")
	variant := flag.String("variant", "map", "what is measured: "+strings.Join(variantNames(), ", "))
	samples := flag.Int("latency", 0, "take so many single latencies per thread instead of windows")
	flag.Parse()
	op, ok := variants[*variant]
	if !ok || flag.NArg() > 0 || *threads < 1 || *threads > 128 || *windows < 2 || *window <= 0 || *samples < 0 {
		fmt.Fprintf(os.Stderr, "mapbench: bad arguments: variants are %s; 1 to 128 threads; 2 windows or more\n", strings.Join(variantNames(), ", "))
		os.Exit(2)
	}
	debug.SetGCPercent(-1)
	runtime.GOMAXPROCS(*threads + 1)
	res := Result{Variant: *variant, Threads: *threads}
	ws, err := prepare(*threads, op)
	if err == nil {
		if *samples > 0 {
			err = latencies(ws, *samples, &res)
		} else {
			err = throughput(ws, *windows, *window, &res)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mapbench:", err)
		os.Exit(1)
	}
	b, _ := json.Marshal(res)
	fmt.Printf("%s%s\n", Prefix, b)
}

// prepare gives each thread its page and its region.
func prepare(n int, op func(*worker, uintptr) error) ([]*worker, error) {
	ws := make([]*worker, n)
	for i := range ws {
		fd, err := unix.MemfdCreate("mapbench", unix.MFD_CLOEXEC)
		if err != nil {
			return nil, fmt.Errorf("memfd_create: %w", err)
		}
		if err := unix.Ftruncate(fd, page); err != nil {
			return nil, fmt.Errorf("ftruncate: %w", err)
		}
		ws[i] = &worker{id: i, base: uintptr(first+i) * region, fd: fd, op: op}
	}
	return ws, nil
}

// start runs f for each worker in a thread bound to a core, behind a barrier.
func start(ws []*worker, f func(w *worker) error) (wait func() error) {
	var ready, done sync.WaitGroup
	var once sync.Once
	var failed error
	gate := make(chan struct{})
	for _, w := range ws {
		ready.Add(1)
		done.Add(1)
		go func() {
			defer done.Done()
			runtime.LockOSThread()
			var set unix.CPUSet
			set.Set(w.id % runtime.NumCPU())
			err := unix.SchedSetaffinity(0, &set)
			ready.Done()
			<-gate
			if err == nil {
				err = f(w)
			}
			if err != nil {
				once.Do(func() { failed = fmt.Errorf("thread %d: %w", w.id, err) })
			}
		}()
	}
	ready.Wait()
	close(gate)
	return func() error { done.Wait(); return failed }
}

func throughput(ws []*worker, windows int, length time.Duration, res *Result) error {
	var stop atomic.Bool
	wait := start(ws, func(w *worker) error {
		for i := uintptr(0); !stop.Load(); {
			for range batch {
				if err := w.op(w, i); err != nil {
					return err
				}
				i++
			}
			w.done.Add(batch)
		}
		return nil
	})
	counted := ws
	if res.Variant == spinning {
		counted = ws[:1] // the others do not map
	}
	sum := func() (n uint64) {
		for _, w := range counted {
			n += w.done.Load()
		}
		return n
	}
	before, at := sum(), time.Now()
	for i := range windows {
		time.Sleep(time.Until(at.Add(length)))
		now, t := sum(), time.Now()
		rate := float64(now-before) / t.Sub(at).Seconds()
		before, at = now, t
		if i > 0 {
			res.Windows = append(res.Windows, rate)
			fmt.Printf("%d %d %.0f\n", i, len(ws), rate)
		}
	}
	stop.Store(true)
	return wait()
}

func latencies(ws []*worker, samples int, res *Result) error {
	wait := start(ws, func(w *worker) error {
		w.lat = make([]int64, samples)
		for i := range w.lat {
			t := time.Now()
			if err := w.op(w, uintptr(i)); err != nil {
				return err
			}
			w.lat[i] = time.Since(t).Nanoseconds()
		}
		return nil
	})
	if err := wait(); err != nil {
		return err
	}
	var all []int64
	for _, w := range ws {
		all = append(all, w.lat...)
	}
	slices.Sort(all)
	at := func(p float64) int64 { return all[min(int(p*float64(len(all))), len(all)-1)] }
	res.Latency = &Latency{P50: at(.5), P90: at(.9), P99: at(.99), P999: at(.999), Max: all[len(all)-1], Samples: len(all)}
	return nil
}
