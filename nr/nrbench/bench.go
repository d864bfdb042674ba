// Package nrbench measures node replication against what else Go offers for a shared map, and against its own
// targets. All contenders of a table run in turn, several rounds of them, in one process; the table shows each one's best
// round, so that a busy machine spoils the figures less than it would.
package nrbench

import (
	"encoding/csv"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"text/tabwriter"
	"time"

	"dinos/nr"
)

// Options of Run. The zero value means the defaults.
type Options struct {
	Keys     int           // in the map; 0 means 1 << 20
	Threads  []int         // 0 means 1 and 2
	Writes   []int         // shares of writes in percent; nil means 0, 10, 50, 100
	Rounds   int           // 0 means 5
	CatchUp  int           // ops that the lagging replica is behind; 0 means 1 << 20
	Duration time.Duration // of one measurement; 0 means 200 ms
	CSV      io.Writer     // all measurements, one a line; may be nil
}

func (o *Options) defaults() error {
	if o.Keys == 0 {
		o.Keys = 1 << 20
	}
	if o.Threads == nil {
		o.Threads = []int{1, 2}
	}
	if o.Writes == nil {
		o.Writes = []int{0, 10, 50, 100}
	}
	if o.Rounds == 0 {
		o.Rounds = 5
	}
	if o.CatchUp == 0 {
		o.CatchUp = 1 << 20
	}
	if o.Duration == 0 {
		o.Duration = 200 * time.Millisecond
	}
	for _, w := range o.Writes {
		if w < 0 || w > 100 {
			return fmt.Errorf("nrbench: write share %d %%, want 0 to 100", w)
		}
	}
	for _, t := range o.Threads {
		if t < 1 {
			return fmt.Errorf("nrbench: %d threads, want at least 1", t)
		}
	}
	if o.Keys < 1 || o.Rounds < 1 || o.CatchUp < 1 || o.Duration < 0 {
		return fmt.Errorf("nrbench: %d keys, %d rounds, %d ops to catch up, %v each: want positive values", o.Keys, o.Rounds,
			o.CatchUp, o.Duration)
	}
	return nil
}

// Run measures, prints the tables to w and, if asked, writes every single measurement as CSV.
func Run(w io.Writer, o Options) error {
	if err := o.defaults(); err != nil {
		return err
	}
	var out *csv.Writer
	if o.CSV != nil {
		out = csv.NewWriter(o.CSV)
		if err := out.Write([]string{"benchmark", "contender", "threads", "write_percent", "round", "ns_per_op", "mops_per_s"}); err != nil {
			return err
		}
	}
	fmt.Fprintf(w, "%s %s/%s, GOMAXPROCS %d\n\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0))
	if err := targets(w, out, o); err != nil {
		return err
	}
	if err := maps(w, out, o); err != nil {
		return err
	}
	if out != nil {
		out.Flush()
		return out.Error()
	}
	return nil
}

func record(out *csv.Writer, bench, who string, threads, writes, round int, ns float64) error {
	if out == nil {
		return nil
	}
	return out.Write([]string{bench, who, strconv.Itoa(threads), strconv.Itoa(writes), strconv.Itoa(round),
		strconv.FormatFloat(ns, 'f', 2, 64), strconv.FormatFloat(1e3/ns, 'f', 3, 64)})
}

// targets measures what the design promises: uncontended updates and reads, and catching up.
func targets(w io.Writer, out *csv.Writer, o Options) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "counter, 1 replica\tns/op\tlimit\t\t")
	for _, t := range []struct {
		name  string
		limit float64
		run   func(time.Duration) (float64, error)
	}{
		{"Apply", 120, func(d time.Duration) (float64, error) { return counter(d, true) }},
		{"Read", 25, func(d time.Duration) (float64, error) { return counter(d, false) }},
		{"catch up, per op", 100, func(time.Duration) (float64, error) { return CatchUp(o.CatchUp) }},
	} {
		best := 0.0
		for round := range o.Rounds {
			ns, err := t.run(o.Duration)
			if err != nil {
				return err
			}
			if err := record(out, "target", t.name, 1, 0, round, ns); err != nil {
				return err
			}
			if best == 0 || ns < best {
				best = ns
			}
		}
		note := ""
		if best > t.limit {
			note = "MISSED"
		}
		fmt.Fprintf(tw, "%s\t%.1f\t%.0f\t%s\t\n", t.name, best, t.limit, note)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w)
	return err
}

// maps compares the contenders at every number of threads and share of writes.
func maps(w io.Writer, out *csv.Writer, o Options) error {
	for _, threads := range o.Threads {
		tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintf(tw, "Mops/s, map of %d keys, %d threads\t", o.Keys, threads)
		for _, share := range o.Writes {
			fmt.Fprintf(tw, "%d %% writes\t", share)
		}
		fmt.Fprintln(tw)
		best := make([][]float64, len(contenders))
		for i := range best {
			best[i] = make([]float64, len(o.Writes))
		}
		all := make([]kv, len(contenders))
		for i, c := range contenders {
			if c.replicas > threads {
				continue
			}
			var err error
			if all[i], err = c.make(o.Keys, threads); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
		// In turn: what else the machine does hits all contenders alike.
		for round := range o.Rounds {
			runtime.GC() // not during a measurement
			for j, share := range o.Writes {
				for i, m := range all {
					if m == nil {
						continue
					}
					ns, err := measure(m, o.Keys, threads, share, o.Duration)
					if err != nil {
						return fmt.Errorf("%s: %w", contenders[i].name, err)
					}
					if err := record(out, "map", contenders[i].name, threads, share, round, ns); err != nil {
						return err
					}
					best[i][j] = max(best[i][j], 1e3/ns)
				}
			}
		}
		base := slices.IndexFunc(contenders, func(c contender) bool { return c.name == baseline })
		for i, c := range contenders {
			if c.replicas > threads {
				continue
			}
			fmt.Fprintf(tw, "%s\t", c.name)
			for j := range o.Writes {
				fmt.Fprintf(tw, "%.2f (%.2f×)\t", best[i][j], best[i][j]/best[base][j])
			}
			fmt.Fprintln(tw)
		}
		if err := tw.Flush(); err != nil {
			return err
		}
		fmt.Fprintf(w, "(× is relative to %s)\n\n", baseline)
	}
	return nil
}

// batch is how many ops a thread does between looks at the clock.
const batch = 256

// measure has threads work on m for d and returns the wall time per op of all together.
func measure(m kv, keys, threads, share int, d time.Duration) (float64, error) {
	var (
		wg    sync.WaitGroup
		begin = make(chan struct{})
		total = make([]int, threads)
		errs  = make([]error, threads)
		spent = make([]time.Duration, threads)
	)
	for t := range threads {
		get, set, err := m.thread(t)
		if err != nil {
			return 0, err
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := rand.New(rand.NewPCG(uint64(t), 1))
			<-begin
			start := time.Now()
			for spent[t] < d && errs[t] == nil {
				for range batch {
					x := r.Uint64()
					key := x >> 32 % uint64(keys)
					if int(x&0xffff)*100 < share<<16 {
						errs[t] = set(key, x)
					} else {
						_, errs[t] = get(key)
					}
					if errs[t] != nil {
						break
					}
				}
				total[t] += batch
				spent[t] = time.Since(start)
			}
		}()
	}
	close(begin)
	wg.Wait()
	n, wall := 0, time.Duration(0)
	for t := range threads {
		if errs[t] != nil {
			return 0, errs[t]
		}
		n += total[t]
		wall = max(wall, spent[t])
	}
	return float64(wall.Nanoseconds()) / float64(n), m.settle()
}

func counter(d time.Duration, apply bool) (float64, error) {
	in, err := nr.New(nr.Config[Add, uint64]{New: NewCounter})
	if err != nil {
		return 0, err
	}
	rep, err := in.First()
	if err != nil {
		return 0, err
	}
	h, err := rep.Register()
	if err != nil {
		return 0, err
	}
	n := 0
	start := time.Now()
	for time.Since(start) < d {
		for range 4 * batch {
			if apply {
				_, err = h.Apply(Add{1})
			} else {
				_, err = h.Read(Add{})
			}
			if err != nil {
				return 0, err
			}
		}
		n += 4 * batch
	}
	return float64(time.Since(start).Nanoseconds()) / float64(n), nil
}

// CatchUp appends n ops on one replica while another one looks away, and returns the time per op that the other one
// takes to catch up, in ns.
func CatchUp(n int) (float64, error) {
	entries := uint64(1)
	for entries < uint64(n) {
		entries <<= 1
	}
	in, err := nr.New(nr.Config[Add, uint64]{New: NewCounter, Entries: entries, Replicas: 2})
	if err != nil {
		return 0, err
	}
	a, err := in.First()
	if err != nil {
		return 0, err
	}
	b, err := in.First()
	if err != nil {
		return 0, err
	}
	h, err := a.Register()
	if err != nil {
		return 0, err
	}
	for range n {
		if _, err := h.Apply(Add{1}); err != nil {
			return 0, err
		}
	}
	if got := b.Behind(); got != uint64(n) {
		return 0, fmt.Errorf("nrbench: the replica is %d ops behind, want %d", got, n)
	}
	runtime.GC()
	start := time.Now()
	if err := b.Sync(); err != nil {
		return 0, err
	}
	spent := time.Since(start)
	hb, err := b.Register()
	if err != nil {
		return 0, err
	}
	if v, err := hb.Read(Add{}); err != nil || v != uint64(n) {
		return 0, fmt.Errorf("nrbench: the replica has %d after %d ops, %w", v, n, err)
	}
	return float64(spent.Nanoseconds()) / float64(n), nil
}
