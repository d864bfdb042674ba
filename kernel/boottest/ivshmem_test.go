package boottest

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/qemu/doorbell"
	"dinos/qemu/vm"
	"dinos/qemu/vmtest"
	"dinos/shmem/region"
)

// TestPCI: devices on every kind of machine, with memory above and below 4 GiB; and a machine without a bus.
func TestPCI(t *testing.T) {
	for _, m := range []vm.Machine{vm.MicroVM, vm.Q35, vm.PC} {
		t.Run(string(m), func(t *testing.T) {
			vmtest.Run(t, vmtest.Options{Tests: []string{"pci", "device-memory"}, VM: vm.Config{
				Image: testImage(t), Machine: m, CPUs: 2,
				Devices: []string{"virtio-rng-pci", "ivshmem-plain,memdev=small", "ivshmem-plain,memdev=large"},
				Extra: []string{"-object", "memory-backend-ram,id=small,size=1M,share=on",
					"-object", "memory-backend-ram,id=large,size=8G,share=on"},
			}})
		})
	}
	t.Run("none", func(t *testing.T) {
		out, err := end(t, vm.Config{Extra: []string{"-machine", "pcie=off"}, Append: "test=pci"})
		require.NoError(t, err)
		require.Contains(t, out, "the machine has no PCI bus")
	})
}

// sharedPattern is what package ktest calls by the same name.
func sharedPattern(side, i uint64) uint64 { return (i + 1) * (0x9e3779b97f4a7c15 + 2*side) }

// TestSharedMemory: kernel and host read what the other has written, in memory below and above 4 GiB.
func TestSharedMemory(t *testing.T) {
	for _, c := range []struct {
		machine vm.Machine
		size    uint64
	}{{vm.MicroVM, 16 << 20}, {vm.MicroVM, 8 << 30}, {vm.Q35, 16 << 20}, {vm.Q35, 8 << 30}, {vm.PC, 16 << 20}, {vm.PC, 256 << 20}} {
		t.Run(fmt.Sprintf("%s-%dM", c.machine, c.size>>20), func(t *testing.T) {
			f, b := sharedFile(t, c.size)
			host := make(chan error, 1)
			go func() { host <- playPattern(t.Context(), b) }()
			vmtest.Run(t, vmtest.Options{Tests: []string{"shared"}, VM: vm.Config{
				Image: testImage(t), Machine: c.machine, CPUs: 2, Append: "ivshmem=pattern",
				Devices: []string{"ivshmem-plain,memdev=shared"}, Files: []*os.File{f},
				Extra: []string{"-object", fmt.Sprintf("memory-backend-file,id=shared,share=on,size=%d,mem-path=/proc/self/fd/%d", c.size, vm.FirstFile)},
			}})
			require.NoError(t, <-host)
		})
	}
}

// sharedFile makes a sparse file that has no name any more, and maps it.
func sharedFile(t *testing.T, size uint64) (*os.File, []byte) {
	dir := "/dev/shm"
	if _, err := os.Stat(dir); err != nil {
		dir = t.TempDir()
	}
	f, err := os.CreateTemp(dir, "dinos-boottest-")
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	require.NoError(t, os.Remove(f.Name()))
	require.NoError(t, f.Truncate(int64(size)))
	b, err := syscall.Mmap(int(f.Fd()), 0, int(size), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	require.NoError(t, err)
	t.Cleanup(func() { syscall.Munmap(b) })
	return f, b
}

// playPattern is the host's part of the kernel's test "shared".
func playPattern(ctx context.Context, b []byte) error {
	r, err := region.New(b)
	if err != nil {
		return err
	}
	kernel, _ := r.U64(0)
	host, _ := r.U64(8)
	if err := await(ctx, kernel, 1); err != nil {
		return err
	}
	words := uint64(len(b)) / 8
	for _, p := range [][2]uint64{{2, 1 << 17}, {words - 1<<17, words}} {
		for i := p[0]; i < p[1]; i++ {
			if got := binary.LittleEndian.Uint64(b[i*8:]); got != sharedPattern(0, i) {
				return fmt.Errorf("word %d is %#x, want %#x", i, got, sharedPattern(0, i))
			}
			binary.LittleEndian.PutUint64(b[i*8:], sharedPattern(1, i))
		}
	}
	host.Store(1)
	return nil
}

func await(ctx context.Context, w *atomic.Uint64, v uint64) error {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	for w.Load() < v {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the kernel did not take its turn: %w", ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

const rounds = 1000

// rack is a doorbell server and configurations of machines with its doorbells.
type rack struct {
	t      *testing.T
	server *doorbell.Server
	shared region.Region
}

func newRack(t *testing.T) *rack {
	s, err := doorbell.New(doorbell.Config{Vectors: 2, Size: 1 << 20})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	r, err := region.New(s.Memory())
	require.NoError(t, err)
	return &rack{t, s, r}
}

// machine returns the configuration of a new peer that plays part with another.
func (r *rack) machine(m vm.Machine, name string) (cfg vm.Config, id int) {
	f, id, err := r.server.Connect()
	require.NoError(r.t, err)
	r.t.Cleanup(func() { f.Close() })
	device, extra := r.server.Devices(vm.FirstFile)
	return vm.Config{Name: name, Image: testImage(r.t), Machine: m, CPUs: 2, Devices: []string{device}, Extra: extra, Files: []*os.File{f}}, id
}

// word returns a word of a peer's page; see package ktest.
func (r *rack) word(id int, field uint64) *atomic.Uint64 {
	w, err := r.shared.U64(region.Off(uint64(1+id)*4096 + field))
	require.NoError(r.t, err)
	return w
}

const boxReady, boxValue = 0, 128

// peersAre waits until these are the peers.
func (r *rack) peersAre(want ...int) {
	timeout := time.After(deadline)
	for {
		ids, changed := r.server.Peers()
		if slices.Equal(ids, want) {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			r.t.Fatalf("peers are %v, want %v", ids, want)
		}
	}
}

// TestTwoKernels: two kernels in two machines ping each other by doorbell and through memory, and their atomics are atomic.
func TestTwoKernels(t *testing.T) {
	for _, m := range []vm.Machine{vm.MicroVM, vm.Q35} {
		t.Run(string(m), func(t *testing.T) {
			r := newRack(t)
			a, idA := r.machine(m, "caller")
			b, idB := r.machine(vm.MicroVM, "answerer")
			a.Append = fmt.Sprintf("ivshmem=call peer=%d rounds=%d", idB, rounds)
			b.Append = fmt.Sprintf("ivshmem=answer peer=%d rounds=%d", idA, rounds)
			t.Run("machines", func(t *testing.T) {
				for test, cfg := range map[string]vm.Config{"call": a, "answer": b} {
					t.Run(cfg.Name, func(t *testing.T) {
						t.Parallel()
						vmtest.Run(t, vmtest.Options{VM: cfg, Tests: []string{test}})
					})
				}
			})
			a.Files[0].Close()
			b.Files[0].Close()
			r.peersAre(0)
		})
	}
}

// TestHostRings: the host rings a kernel and is rung back.
func TestHostRings(t *testing.T) {
	r := newRack(t)
	cfg, id := r.machine(vm.MicroVM, "kernel")
	cfg.Append = fmt.Sprintf("ivshmem=host peer=%d rounds=%d", r.server.ID(), rounds)
	host := make(chan error, 1)
	go func() { host <- r.callKernel(id) }()
	vmtest.Run(t, vmtest.Options{VM: cfg, Tests: []string{"answer-host"}})
	require.NoError(t, <-host)
}

// TestStorm: a peer that rings without end, on a vector that nobody waits for, does not keep a kernel from its work.
func TestStorm(t *testing.T) {
	r := newRack(t)
	cfg, id := r.machine(vm.MicroVM, "kernel")
	cfg.Append = fmt.Sprintf("ivshmem=host peer=%d rounds=%d", r.server.ID(), rounds)
	host := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		err := await(ctx, r.word(id, boxReady), 1)
		rung := 0
		for ; err == nil && ctx.Err() == nil; rung++ {
			err = r.server.Ring(id, 1)
		}
		t.Logf("rang %d times", rung)
		host <- err
	}()
	err := make(chan error, 1)
	go func() { err <- r.callKernel(id) }()
	vmtest.Run(t, vmtest.Options{VM: cfg, Tests: []string{"answer-host"}})
	require.NoError(t, <-err)
	cancel()
	require.NoError(t, <-host)
}

// callKernel is the caller's part of the kernel's test "answer-host".
func (r *rack) callKernel(id int) error {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	mine, theirs := r.word(r.server.ID(), boxValue), r.word(id, boxValue)
	if err := await(ctx, r.word(id, boxReady), 1); err != nil {
		return err
	}
	var took []time.Duration
	for i := uint64(1); i <= rounds; i++ {
		start := time.Now()
		mine.Store(i)
		if err := r.server.Ring(id, 0); err != nil {
			return err
		}
		for theirs.Load() < i {
			if _, err := r.server.Wait(ctx, 0); err != nil {
				return fmt.Errorf("round %d: %w", i, err)
			}
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	r.t.Logf("doorbell round trip, host to kernel and back: p50 %v, p99 %v, min %v", took[rounds/2], took[rounds*99/100], took[0])
	return nil
}

// TestPeerDies: the server notices when a machine is killed, and others can join after that, through a socket with a name too.
func TestPeerDies(t *testing.T) {
	r := newRack(t)
	path := filepath.Join(t.TempDir(), "doorbell")
	require.NoError(t, r.server.Listen(path))
	for i := range 3 {
		cfg, id := r.machine(vm.MicroVM, "kernel")
		if i == 2 {
			cfg.Extra = []string{"-chardev", "socket,id=doorbell,path=" + path}
			cfg.Files[0].Close()
			cfg.Files = nil
			id++ // the ID before was that of the socket which is closed now
		}
		cfg.Append = "test=answer-host ivshmem=host peer=0"
		v, err := vm.Start(cfg)
		require.NoError(t, err)
		defer v.Close()
		for _, f := range cfg.Files {
			f.Close()
		}
		require.NoError(t, await(t.Context(), r.word(id, boxReady), 1), "%v", v.Console().Tail())
		r.peersAre(0, id)
		v.Close()
		r.peersAre(0)
		require.ErrorIs(t, r.server.Ring(id, 0), doorbell.ErrNoPeer)
	}
}
