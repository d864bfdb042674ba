package rack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"dinos/qemu/rack/statedir"
	"dinos/qemu/vm"
	"dinos/shmem/layout"
)

// A ckernel that ends unasked is started again: at once, but slower if it goes on ending soon, and not at all if it does not come up any more.
const (
	maxFailed    = 5 // lives in a row that did not come up
	shortLife    = 3 * time.Second
	maxShort     = 5 // lives in a row that were short, until there are pauses
	restartPause = time.Second
)

// kernel is a kernel of the rack, whether its machine runs or not.
type kernel struct {
	peer  int
	name  string
	block *layout.Machine
	log   *logFile

	op sync.Mutex // one operation at a time

	// Guarded by Rack.mu.
	m        machine          // nil while none runs
	gone     chan struct{}    // closed when the end of m was dealt with
	proc     statedir.Process // of m
	before   uint64           // generation in the block before m was started: m's life is a later one
	since    time.Time        // when m was started
	paused   bool
	why      string // why we end m; "" if we do not
	ended    string // how the last machine ended
	endedAt  time.Time
	restarts int // by the launcher
	failed   int // lives in a row that did not come up
	short    int // lives in a row that were short
}

// newKernel adds a kernel without a machine. The peer number is free.
func (r *Rack) newKernel(p int) (*kernel, error) {
	block, err := r.shared.Machine(r.shared.Region, p)
	if err != nil {
		return nil, err
	}
	k := &kernel{peer: p, name: r.shared.PeerName(p), block: block}
	if k.log, err = openLog(r.dir.Join(k.name + ".log")); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ending || r.kernels[p] != nil {
		k.log.Close()
		if r.ending {
			return nil, ErrClosed
		}
		return nil, fmt.Errorf("%s: %w: it exists", k.name, ErrState)
	}
	r.kernels[p] = k
	return k, nil
}

// kernel finds a kernel by its name.
func (r *Rack) kernel(name string) (*kernel, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for _, k := range r.kernels {
		if k == nil {
			continue
		}
		if k.name == name {
			return k, nil
		}
		names = append(names, k.name)
	}
	return nil, fmt.Errorf("%w: %q; this rack has %v", ErrNoKernel, name, names)
}

// commandLine is what a kernel learns from its host: who it is, and in which rack. See package kernel/link.
func (r *Rack) commandLine(k *kernel) string {
	s := fmt.Sprintf("dinos.peer=%d dinos.name=%s dinos.rack=%d", k.peer, k.name, r.shared.Generation)
	if r.cfg.Append != "" {
		s += " " + r.cfg.Append
	}
	return s
}

// life is a machine that was started for a kernel.
type life struct {
	m      machine
	gone   chan struct{} // as kernel.gone
	before uint64        // as kernel.before
}

// startMachine starts a machine for k, whose op is held and which has none.
func (r *Rack) startMachine(k *kernel) (l life, err error) {
	r.mu.Lock()
	ending := r.ending
	r.mu.Unlock()
	if ending {
		return l, ErrClosed
	}
	socket, _, err := r.server.Connect()
	if err != nil {
		return l, err
	}
	defer socket.Close()
	device, extra := r.server.Devices(vm.FirstFile)
	cfg := vm.Config{Name: k.name, Accel: &r.accel, CPUs: r.cfg.Cores, Memory: r.cfg.Memory, Image: r.cfg.Dkernel, Initrd: r.cfg.Initrd, Append: r.commandLine(k),
		Devices: []string{device}, Extra: extra, Files: []*os.File{socket}, Output: k.log}
	if k.peer == layout.Ckernel {
		cfg.CPUs, cfg.Image, cfg.Initrd = r.cfg.CkernelCore, r.cfg.Ckernel, ""
	}
	l.before, l.gone = k.block.Generation.Load(), make(chan struct{})
	if l.m, err = r.cfg.start(cfg); err != nil {
		return l, err
	}
	// A machine that has ended already has no process; then there is nothing to look for either.
	proc, _ := statedir.NewProcess(l.m.PID())
	r.mu.Lock()
	k.m, k.proc, k.before, k.gone = l.m, proc, l.before, l.gone
	k.since, k.paused, k.why, k.ended = time.Now(), false, "", ""
	r.save()
	ending = r.ending
	r.mu.Unlock()
	r.background.Go(func() { r.watch(k, l.m) })
	if ending { // Close may not have seen it
		r.end(k, "the rack ends")
		return l, ErrClosed
	}
	return l, nil
}

// watch waits for the end of a machine and deals with it.
func (r *Rack) watch(k *kernel, m machine) {
	exit, err := m.Wait(context.Background())
	m.Close()
	life := k.block.Generation.Load()
	r.mu.Lock()
	began := life > k.before
	unasked := k.why == ""
	if k.ended = k.why; unasked {
		k.ended = ending(exit, err)
	}
	k.m, k.endedAt, k.paused = nil, time.Now(), false
	k.failed, k.short = k.failed+1, k.short+1
	if began && layout.State(k.block.State.Load()) == layout.StateUp {
		k.failed = 0
	}
	if k.endedAt.Sub(k.since) > shortLife {
		k.short = 0
	}
	text, gone := k.ended, k.gone
	r.save()
	r.mu.Unlock()
	fmt.Fprintf(k.log, "--- %s: %s\n", k.name, text)
	r.events.add(k.name, "%s", text)
	if began {
		r.lifeOver(k, life, text)
	}
	close(gone)
	if k.peer == layout.Ckernel && unasked {
		r.restartCkernel(k)
	}
}

// restartCkernel starts the control kernel again. Without one, nothing new happens in the rack.
func (r *Rack) restartCkernel(k *kernel) {
	r.mu.Lock()
	pause := k.short > maxShort
	r.mu.Unlock()
	if pause {
		select {
		case <-time.After(restartPause):
		case <-r.ctx.Done():
		}
	}
	k.op.Lock()
	defer k.op.Unlock()
	booted := r.shared.State.Load() == uint64(layout.RackUp) // a start that fails is reported by who waits for it
	r.mu.Lock()
	skip, giveUp := k.m != nil || r.ending || k.why != "" || !booted, k.failed > maxFailed
	if !skip && !giveUp {
		k.restarts++
	}
	r.mu.Unlock()
	switch {
	case skip:
	case giveUp:
		r.events.add(k.name, "not started again: it did not come up %d times in a row; 'restart %s' tries once more", maxFailed+1, k.name)
	default:
		r.events.add(k.name, "started again")
		if _, err := r.startMachine(k); err != nil && !errors.Is(err, ErrClosed) {
			r.events.add(k.name, "not started again: %v", err)
		}
	}
}

// end kills the machine of k, if there is one, and waits until its end was dealt with.
func (r *Rack) end(k *kernel, why string) bool {
	r.mu.Lock()
	m, gone := k.m, k.gone
	if m != nil && k.why == "" {
		k.why = why
	}
	r.mu.Unlock()
	if m == nil {
		return false
	}
	m.Close()
	<-gone
	return true
}

// Kill ends a kernel's machine as a power failure would, and returns when it is gone.
func (r *Rack) Kill(name string) error {
	k, err := r.kernel(name)
	if err != nil {
		return err
	}
	k.op.Lock()
	defer k.op.Unlock()
	if !r.end(k, "killed") {
		return r.notRunning(k)
	}
	return nil
}

// notRunning is why nothing can be done with a kernel that has no machine.
func (r *Rack) notRunning(k *kernel) error {
	return fmt.Errorf("%s: %w: it does not run (%s)", k.name, ErrState, r.lastEnd(k))
}

func (r *Rack) lastEnd(k *kernel) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return k.ended
}

// Stop asks a kernel to end in order, and ends it if it does not.
func (r *Rack) Stop(ctx context.Context, name string) error {
	k, err := r.kernel(name)
	if err != nil {
		return err
	}
	k.op.Lock()
	defer k.op.Unlock()
	r.mu.Lock()
	gone, runs := k.gone, k.m != nil
	if runs {
		k.why = "stopped"
	}
	r.mu.Unlock()
	if !runs {
		return r.notRunning(k)
	}
	ctx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	err = r.askToEnd(ctx, k, "stopped by the host")
	if err == nil {
		select {
		case <-gone:
			return nil
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	r.events.add(k.name, "did not end in order (%v): killed", err)
	r.end(k, "stopped")
	return nil
}

// Pause stops a kernel's vCPUs, as if it hung; Resume lets them go on.
func (r *Rack) Pause(ctx context.Context, name string) error { return r.pause(ctx, name, true) }

// Resume ends a Pause. A kernel that was declared dead meanwhile is gone.
func (r *Rack) Resume(ctx context.Context, name string) error { return r.pause(ctx, name, false) }

func (r *Rack) pause(ctx context.Context, name string, pause bool) error {
	k, err := r.kernel(name)
	if err != nil {
		return err
	}
	k.op.Lock()
	defer k.op.Unlock()
	r.mu.Lock()
	m, paused := k.m, k.paused
	r.mu.Unlock()
	switch {
	case m == nil:
		return r.notRunning(k)
	case paused == pause:
		return fmt.Errorf("%s: %w: paused is %v already", name, ErrState, paused)
	}
	act, text := m.Resume, "resumed"
	if pause {
		act, text = m.Pause, "paused"
	}
	if err := act(ctx); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	r.mu.Lock()
	k.paused = pause && k.m == m
	r.mu.Unlock()
	r.events.add(name, "%s", text)
	return nil
}

// Restart starts a kernel again, after killing it if it runs, and returns when it is a member.
func (r *Rack) Restart(ctx context.Context, name string) error {
	k, err := r.kernel(name)
	if err != nil {
		return err
	}
	k.op.Lock()
	defer k.op.Unlock()
	r.end(k, "killed to be restarted")
	return r.startAndWait(ctx, k)
}

// Add starts one more dkernel, with the lowest number that none had, and returns its name when it is a member.
func (r *Rack) Add(ctx context.Context) (string, error) {
	for p := 1; p < len(r.kernels); p++ {
		r.mu.Lock()
		taken := r.kernels[p] != nil
		r.mu.Unlock()
		if taken {
			continue
		}
		k, err := r.newKernel(p)
		if errors.Is(err, ErrState) {
			continue // somebody else added it meanwhile
		}
		if err != nil {
			return "", err
		}
		k.op.Lock()
		defer k.op.Unlock()
		return k.name, r.startAndWait(ctx, k)
	}
	return "", fmt.Errorf("%w: it has room for %d dkernels, also those that do not run ('restart' starts them); 'up --room' makes more", ErrFull, r.cfg.Room)
}

// startAndWait starts k's machine; op is held. The error is a *BootError if the kernel does not become a member.
func (r *Rack) startAndWait(ctx context.Context, k *kernel) error {
	start := time.Now()
	l, err := r.startMachine(k)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.BootTimeout)
	defer cancel()
	if err := r.await(ctx, k, l, nil); err != nil {
		return err
	}
	r.events.add(k.name, "up after %v", time.Since(start).Round(time.Millisecond))
	return nil
}
