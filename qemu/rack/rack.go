package rack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"dinos/qemu/doorbell"
	"dinos/qemu/hostfiles"
	"dinos/qemu/rack/statedir"
	"dinos/qemu/vm"
	"dinos/shmem/layout"
	"dinos/shmem/peer"
	"dinos/shmem/region"
	"dinos/shmem/rpc"
)

// Times.
const (
	callTimeout  = time.Second     // of questions to a kernel
	fenceTimeout = 2 * time.Second // for the ckernel to take note that a life is over
	endTimeout   = 3 * time.Second // for kernels to end in order
	pollBoot     = time.Millisecond
)

// Errors of operations on a rack.
var (
	// ErrNoKernel: the rack has no such kernel.
	ErrNoKernel = errors.New("no such kernel")
	// ErrState: the kernel is not in a state for that.
	ErrState = errors.New("cannot be done now")
	// ErrFull: there is no room for another dkernel.
	ErrFull = errors.New("the rack is full")
	// ErrClosed: the rack has ended.
	ErrClosed = errors.New("the rack has ended")
)

// Rack is a rack that runs. Its methods may be called concurrently.
type Rack struct {
	cfg     Config
	accel   vm.Accel
	dir     *statedir.Dir
	memory  *os.File
	release func() // of the mapping
	server  *doorbell.Server
	shared  *layout.Rack
	peer    *peer.Peer
	events  *events
	started time.Time
	beats   []beat            // by peer
	files   *hostfiles.Server // nil if nothing is shared

	ctx        context.Context // ends with the rack
	cancel     context.CancelFunc
	background sync.WaitGroup

	mu      sync.Mutex
	kernels []*kernel      // by peer, nil if there never was one; guarded by mu
	ending  bool           // no machine is started any more; guarded by mu
	state   statedir.State // guarded by mu
	ended   chan struct{}  // closed when Close is through
	close   sync.Once
}

// Progress hears how a start goes on.
type Progress func(Event)

// Start starts a rack and returns when all its kernels are members. Errors: ErrConfig, statedir.ErrRunning, *BootError, those of the
// host. On error nothing stays, but what Config.Keep asks to keep.
func Start(ctx context.Context, cfg Config, progress Progress) (*Rack, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if progress == nil {
		progress = func(Event) {}
	}
	accel, err := cfg.Accel.choose()
	if err != nil {
		return nil, err
	}
	dir, err := statedir.Create(cfg.Base, cfg.Name)
	if err != nil {
		return nil, err
	}
	r := &Rack{cfg: cfg, accel: accel, dir: dir, started: time.Now(), ended: make(chan struct{}), kernels: make([]*kernel, 1+cfg.Room),
		beats: make([]beat, 1+cfg.Room)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	if err := r.prepare(); err != nil {
		r.Close()
		return nil, err
	}
	progress(Event{Time: time.Now(), Text: fmt.Sprintf("%d kernels, %s, %d MiB of shared memory", 1+cfg.Dkernels, accel.Why, cfg.Shared>>20)})
	if err := r.boot(ctx, progress); err != nil {
		r.events.add("", "start failed: %v", err)
		r.Close()
		return nil, err
	}
	r.shared.State.Store(uint64(layout.RackUp))
	r.events.add("", "up after %v", time.Since(r.started).Round(time.Millisecond))
	return r, nil
}

// prepare makes all that the machines need.
func (r *Rack) prepare() (err error) {
	if r.events, err = newEvents(r.dir.Join("events.log")); err != nil {
		return err
	}
	path := statedir.MemoryPath(r.cfg.Base, r.cfg.Name)
	options, err := json.Marshal(r.cfg)
	if err != nil {
		return err
	}
	self, err := statedir.NewProcess(os.Getpid())
	if err != nil {
		return err
	}
	r.state = statedir.State{Name: r.cfg.Name, Boot: statedir.BootID(), Launcher: self, Memory: path, Keep: r.cfg.Keep,
		// Nobody had this number for a rack before, unless the clock was turned back.
		Generation: uint64(r.started.UnixNano()), Started: r.started, Options: options}
	if err := r.dir.Save(&r.state); err != nil { // before there is anything to clean up
		return err
	}
	if r.memory, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return fmt.Errorf("shared memory: %w", err)
	}
	if err := r.memory.Truncate(int64(r.cfg.Shared)); err != nil {
		return fmt.Errorf("shared memory of %d bytes: %w", r.cfg.Shared, err)
	}
	if r.server, err = doorbell.New(doorbell.Config{Vectors: vectors, Memory: r.memory}); err != nil {
		return err
	}
	bytes, release, err := mapShared(r.memory, int(r.cfg.Shared))
	if err != nil {
		return err
	}
	r.release = release
	mem, err := region.New(bytes)
	if err != nil {
		return err
	}
	if r.shared, err = layout.Format(mem, r.cfg.layout(), r.state.Generation); err != nil {
		return err
	}
	if err := peer.MarkZero(r.shared); err != nil { // the file is new
		return err
	}
	r.shared.BootTime.Store(uint64(r.started.UnixNano()))
	return r.join(mem)
}

// join makes the host a peer of the rack.
func (r *Rack) join(mem region.Region) (err error) {
	r.peer, err = peer.Open(peer.Config{
		Memory: mem, Self: peer.Host, Kind: 'h', Name: "host", Doorbell: r.server.ID(), Random: rand.Uint64,
		// That the other end has gone in the meantime is no news: its end is dealt with where it is seen.
		Ring:   func(id, vector int) { _ = r.server.Ring(id, vector) },
		OnTick: r.watchBeats,
		OnPeer: r.newLife,
		OnPanic: func(p int, v any, stack []byte) {
			r.events.add(r.shared.PeerName(p), "a message of it made the launcher panic: %v\n%s", v, stack)
		},
		Log: func(text string) { r.events.add("", "%s", text) },
	})
	if err != nil {
		return err
	}
	r.handle(r.peer.Mux())
	if r.cfg.Share != "" {
		if r.files, err = hostfiles.New(r.cfg.Share, !r.cfg.ShareWrite); err != nil {
			return fmt.Errorf("shared directory: %w", err)
		}
		r.files.Handle(r.peer.Mux())
	}
	r.peer.SetState(layout.StateUp)
	r.background.Go(func() {
		if err := r.peer.Run(r.ctx); err != nil {
			r.events.add("host", "the host is no peer any more: %v", err)
		}
	})
	r.background.Go(func() {
		for {
			if _, err := r.server.Wait(r.ctx, peer.Vector); err != nil {
				return
			}
			r.peer.Doorbell()
		}
	})
	return nil
}

// newLife closes what a former life of a kernel has left open, and tells a new ckernel who ended while there was none. It is called with locks
// of package rpc held.
func (r *Rack) newLife(p int, life uint32) {
	r.background.Go(func() {
		if c, err := r.conn(p); err == nil && r.files != nil {
			r.files.Drop(c, life)
		}
		if p == layout.Ckernel {
			r.tellAll()
		}
	})
}

// conn is the connection to a kernel.
func (r *Rack) conn(p int) (*rpc.Conn, error) { return r.peer.Conn(p) }

// Name returns the rack's name.
func (r *Rack) Name() string { return r.cfg.Name }

// Dir returns the path of the rack's directory.
func (r *Rack) Dir() string { return r.dir.Path }

// Ended is closed when the rack has ended.
func (r *Rack) Ended() <-chan struct{} { return r.ended }

// save writes state.json anew. mu is held.
func (r *Rack) save() {
	r.state.Kernels = r.state.Kernels[:0]
	for _, k := range r.kernels {
		if k != nil && k.m != nil {
			r.state.Kernels = append(r.state.Kernels, statedir.Kernel{Peer: k.peer, Name: k.name, Process: k.proc})
		}
	}
	if err := r.dir.Save(&r.state); err != nil {
		// The machines die with this process all the same.
		r.events.add("", "%v", err)
	}
}

// Keep says whether directory and memory stay when the rack has ended.
func (r *Rack) Keep(keep bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state.Keep = keep
	r.save()
}

// Shutdown asks all kernels to end in order, and ends those that do not in time. The memory stays until Close.
func (r *Rack) Shutdown(reason string) {
	r.mu.Lock()
	was := r.ending
	r.ending = true
	r.mu.Unlock()
	if r.shared != nil && !was {
		r.shared.State.Store(uint64(layout.RackStopping))
		r.shutdownKernels(reason)
	}
	var wg sync.WaitGroup
	for _, k := range r.all() {
		wg.Go(func() { r.end(k, "the rack ends") })
	}
	wg.Wait()
}

// all returns the kernels there are.
func (r *Rack) all() []*kernel {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []*kernel
	for _, k := range r.kernels {
		if k != nil {
			list = append(list, k)
		}
	}
	return list
}

// Close ends the rack: kernels that still run are killed. It returns when nothing of it is left. No other method may be under way or follow,
// but Ended.
func (r *Rack) Close() {
	r.close.Do(func() {
		r.mu.Lock()
		r.ending = true
		keep := r.state.Keep
		r.mu.Unlock()
		for _, k := range r.all() {
			r.end(k, "the rack ends")
		}
		r.cancel()
		r.background.Wait()
		for _, k := range r.all() {
			k.log.Close()
		}
		if r.events != nil {
			r.events.file.Close()
		}
		if r.files != nil {
			r.files.Close()
		}
		if r.server != nil {
			r.server.Close()
		}
		if r.release != nil {
			r.release()
		}
		if r.memory != nil {
			r.memory.Close()
		}
		r.dir.Close(keep)
		close(r.ended)
	})
	<-r.ended
}
