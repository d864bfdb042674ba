package rack

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"dinos/shmem/layout"
)

// BootError is that a kernel did not become a member of the rack.
type BootError struct {
	Kernel  string
	Reason  string
	Console []string // its last lines
	Dump    string   // what its vCPUs were doing, if it hung
}

// consoleLines are shown of a kernel that fails.
const consoleLines = 20

func (e *BootError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", e.Kernel, e.Reason)
	if len(e.Console) == 0 {
		b.WriteString("; its console is empty")
	} else {
		fmt.Fprintf(&b, "\n--- console of %s, last lines\n%s", e.Kernel, strings.Join(e.Console[max(0, len(e.Console)-consoleLines):], "\n"))
	}
	if e.Dump != "" {
		fmt.Fprintf(&b, "\n%s", strings.TrimRight(e.Dump, "\n"))
	}
	return b.String()
}

// boot starts the first machines, all at once, and waits until they are members.
func (r *Rack) boot(ctx context.Context, progress Progress) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.BootTimeout)
	defer cancel()
	errs := make(chan error, 1+r.cfg.Dkernels)
	var mu sync.Mutex
	say := func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		progress(e)
	}
	for p := range 1 + r.cfg.Dkernels {
		k, err := r.newKernel(p)
		if err != nil {
			return err
		}
		go func() {
			k.op.Lock()
			defer k.op.Unlock()
			l, err := r.startMachine(k)
			if err == nil {
				err = r.await(ctx, k, l, say)
			}
			errs <- err
		}()
	}
	var first error
	for range 1 + r.cfg.Dkernels {
		// The first failure is the cause; the others are let off by cancel.
		if err := <-errs; err != nil && first == nil {
			first = err
			cancel()
		}
	}
	return first
}

// await waits until k, in the life l, is a member. say, unless nil, hears what the kernel says of itself.
func (r *Rack) await(ctx context.Context, k *kernel, l life, say Progress) error {
	start := time.Now()
	shown := layout.StateEmpty
	tick := time.NewTicker(pollBoot)
	defer tick.Stop()
	for {
		// A new life clears the state before it raises the generation, so what is read behind it is of that life.
		gen := k.block.Generation.Load()
		if state := layout.State(k.block.State.Load()); gen > l.before && state != shown && state <= layout.StateCrashing {
			shown = state
			if say != nil {
				say(Event{time.Now(), k.name, fmt.Sprintf("%v after %v", state, time.Since(start).Round(time.Millisecond))})
			}
		}
		if shown == layout.StateUp && r.hears(k, gen) {
			return nil
		}
		select {
		case <-tick.C:
		case <-l.gone:
			return &BootError{Kernel: k.name, Reason: r.lastEnd(k), Console: l.m.Console().Tail()}
		case <-ctx.Done():
			return r.late(ctx, k, l.m, shown, time.Since(start))
		}
	}
}

// late says what a kernel was doing that did not become a member in time.
func (r *Rack) late(ctx context.Context, k *kernel, m machine, shown layout.State, after time.Duration) error {
	if ctx.Err() != context.DeadlineExceeded {
		return ctx.Err()
	}
	e := &BootError{Kernel: k.name, Console: m.Console().Tail(),
		Reason: fmt.Sprintf("not a member of the rack after %v; it says that it is %v", after.Round(time.Millisecond), shown)}
	dctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if dump, err := m.Dump(dctx); err == nil {
		e.Dump, _, _ = strings.Cut(dump, "--- registers") // the stacks say where it is
	}
	return e
}

// hears reports whether a call reaches this life of k. A connection that was made after the kernel's greeting knows no life at all, and calls
// whatever there is; one that knows a former life must hear the greeting first.
func (r *Rack) hears(k *kernel, life uint64) bool {
	c, err := r.conn(k.peer)
	if err != nil {
		return false
	}
	p := c.Peer()
	return p == 0 || p == uint32(life)
}
