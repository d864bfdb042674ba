// Package testrack puts kernels into machines that share memory, without a launcher: for tests, which do to the memory and the
// machines what they want, and for benchmarks, which want nothing else to run.
package testrack

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"dinos/qemu/doorbell"
	"dinos/qemu/vm"
	"dinos/shmem/layout"
	"dinos/shmem/region"
)

// Config describes a Rack. The zero value of a field means its default.
type Config struct {
	Layout     layout.Config // Size 64 MiB, Machines 8
	Bytes      uint64        // of shared memory, a power of two; Layout.Size
	Generation uint64        // of the rack; 1
	Kernel     vm.Config     // of each machine, but for what the rack says
	Output     io.Writer     // gets all consoles; nowhere. Must be safe for concurrent use
}

// Rack is shared memory and its doorbells. The host is a peer that does nothing: its machine block is empty.
type Rack struct {
	*layout.Rack
	Doorbells *doorbell.Server
	cfg       Config
}

// New makes and formats the memory.
func New(c Config) (*Rack, error) {
	if c.Layout.Size == 0 {
		c.Layout.Size = 64 << 20
	}
	if c.Layout.Machines == 0 {
		c.Layout.Machines = 8
	}
	if c.Bytes == 0 {
		c.Bytes = c.Layout.Size
	}
	if c.Generation == 0 {
		c.Generation = 1
	}
	s, err := doorbell.New(doorbell.Config{Vectors: 2, Size: c.Bytes})
	if err != nil {
		return nil, err
	}
	r := &Rack{Doorbells: s, cfg: c}
	m, err := region.New(s.Memory())
	if err == nil {
		r.Rack, err = layout.Format(m, c.Layout, c.Generation)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return r, nil
}

// Close ends the doorbells and unmaps the memory. Machines are closed before.
func (r *Rack) Close() error { return r.Doorbells.Close() }

// Start starts the image as a peer, with append added to the command line that makes it one.
func (r *Rack) Start(peer int, image, append string) (*vm.VM, error) {
	f, _, err := r.Doorbells.Connect()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	device, extra := r.Doorbells.Devices(vm.FirstFile)
	c := r.cfg.Kernel
	c.Name, c.Image = r.PeerName(peer), image
	c.Append = fmt.Sprintf("dinos.peer=%d dinos.name=%s dinos.rack=%d %s", peer, c.Name, r.Generation, append)
	c.Devices, c.Extra, c.Files = []string{device}, extra, []*os.File{f}
	if c.Output == nil {
		c.Output = r.cfg.Output
	}
	return vm.Start(c)
}

// Block is a peer's machine block.
func (r *Rack) Block(peer int) (*layout.Machine, error) { return r.Machine(r.Region, peer) }

// Await waits until ok, looking each millisecond. It fails when ctx is done or one of the machines has ended; what says what
// was waited for.
func Await(ctx context.Context, what string, machines []*vm.VM, ok func() bool) error {
	for !ok() {
		for _, m := range machines {
			select {
			case <-m.Exited():
				if _, err := m.Wait(ctx); err != nil {
					return fmt.Errorf("waiting for %s: %w", what, err)
				}
				return fmt.Errorf("waiting for %s: %s has ended", what, m.Config().Name)
			default:
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}
