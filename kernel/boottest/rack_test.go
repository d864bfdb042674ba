package boottest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/boot/build"
	"dinos/kernel/rpcbench"
	"dinos/qemu/doorbell"
	"dinos/qemu/testrack"
	"dinos/qemu/vm"
	"dinos/qemu/vmtest"
	"dinos/shmem/layout"
	"dinos/shmem/proto"
	"dinos/shmem/region"
	"dinos/shmem/ring"
)

// kernelImage returns the image of the ckernel or of the dkernel.
func kernelImage(t *testing.T, name string) string {
	t.Helper()
	vmtest.RequireQEMU(t)
	path := filepath.Join(filepath.Dir(image), name+".elf")
	if _, err := os.Stat(path); err != nil {
		if err := build.Kernel(t.Context(), build.Options{Package: "dinos/cmd/" + name}, path); err != nil {
			t.Fatalf("host: %v", err)
		}
	}
	return path
}

// kernels is a rack of real kernels, without a launcher: nobody answers for the host.
type kernels struct {
	*testrack.Rack
	t   *testing.T
	vms []*vm.VM // by peer
	seq uint16
}

func newKernels(t *testing.T, machine vm.Machine, dkernels int) *kernels {
	images := []string{kernelImage(t, "ckernel"), kernelImage(t, "dkernel")}
	r, err := testrack.New(testrack.Config{Layout: layout.Config{Machines: 4},
		Kernel: vm.Config{Machine: machine, CPUs: 1, Memory: 128 << 20}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	k := &kernels{Rack: r, t: t, vms: make([]*vm.VM, 1+dkernels)}
	for peer := range k.vms {
		k.start(peer, images[min(peer, 1)])
	}
	k.registered(k.vms...)
	return k
}

func (k *kernels) start(peer int, image string) {
	m, err := k.Start(peer, image, "bench=rpc")
	require.NoError(k.t, err)
	k.t.Cleanup(m.Close)
	k.vms[peer] = m
}

func (k *kernels) block(peer int) *layout.Machine {
	b, err := k.Block(peer)
	require.NoError(k.t, err)
	return b
}

// await waits until ok; it fails when one of the machines alive ends.
func (k *kernels) await(what string, alive []*vm.VM, ok func() bool) {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(k.t.Context(), deadline)
	defer cancel()
	err := testrack.Await(ctx, what, alive, ok)
	if err != nil {
		for _, m := range k.vms {
			k.t.Logf("console of %s:\n%s", m.Config().Name, strings.Join(m.Console().Tail(), "\n"))
		}
		var s strings.Builder
		layout.Dump(&s, k.Region, "machines", layout.DumpOptions{})
		k.t.Log(s.String())
	}
	require.NoError(k.t, err)
}

// registered waits until all machines are members.
func (k *kernels) registered(alive ...*vm.VM) {
	k.t.Helper()
	k.await("all kernels to be members", alive, func() bool {
		for peer := range k.vms {
			if k.block(peer).State.Load() != uint64(layout.StateUp) {
				return false
			}
		}
		return true
	})
}

// ask has dkernels make calls to the ckernel, and returns a function that waits until they have.
func (k *kernels) ask(kind rpcbench.Kind, n uint32, peers ...int) (wait func()) {
	k.seq++
	c := rpcbench.Command{Sequence: k.seq, Kind: kind, Arg: n}
	for _, p := range peers {
		rpcbench.Ask(k.block(p), c)
	}
	return func() {
		k.t.Helper()
		k.await(fmt.Sprintf("%d calls, %v", n, kind), k.vms, func() bool {
			return !slices.ContainsFunc(peers, func(p int) bool { return !rpcbench.Done(k.block(p), c) })
		})
	}
}

// TestRack: a ckernel and two dkernels register, and call awake and halted and in a pipeline.
func TestRack(t *testing.T) {
	for _, m := range []vm.Machine{vm.MicroVM, vm.Q35} {
		t.Run(string(m), func(t *testing.T) {
			k := newKernels(t, m, 2)
			k.ask(rpcbench.Awake, 500, 1, 2)()
			k.ask(rpcbench.Halted, 20, 1, 2)()
			k.ask(rpcbench.Pipelined, 100, 1, 2)()
			require.EqualValues(t, 1, k.block(0).Generation.Load())
			require.Equal(t, uint64('d'), k.block(2).Kind.Load())
			require.NotZero(t, k.Epoch.Load())
		})
	}
}

// TestRackDeath: a dkernel that is killed, and one that hangs, are declared dead; the one that hung stops as soon as it runs
// again; both come back in new lives, and the other one goes on all the time.
func TestRackDeath(t *testing.T) {
	k := newKernels(t, vm.MicroVM, 2)
	fenced := func(peer int, gen uint64, alive ...*vm.VM) {
		k.await(fmt.Sprintf("generation %d of %s to be fenced", gen, k.PeerName(peer)), alive, func() bool { return k.block(peer).Fenced(gen) })
	}
	k.vms[2].Close()
	start := time.Now()
	fenced(2, 1, k.vms[:2]...)
	t.Logf("a dkernel that was killed was declared dead after %v", time.Since(start))
	k.vms = k.vms[:2]
	k.ask(rpcbench.Awake, 100, 1)()

	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	hung := k.vms[1]
	start = time.Now()
	require.NoError(t, hung.Monitor().Run(ctx, "stop", nil, nil))
	fenced(1, 1, k.vms[0])
	t.Logf("a dkernel that hung was declared dead after %v", time.Since(start))
	require.NoError(t, hung.Monitor().Run(ctx, "cont", nil, nil))
	_, err := hung.Wait(ctx)
	fails(t, err, vm.Fenced, "")
	text := strings.Join(hung.Console().Tail(), "\n")
	require.Contains(t, text, "dinos dkernel1: fenced: ")
	require.NotContains(t, text, "CRASH")
}

// TestRackCkernel: a ckernel that is killed and started again finds its dkernel where it was.
func TestRackCkernel(t *testing.T) {
	k := newKernels(t, vm.MicroVM, 1)
	k.ask(rpcbench.Awake, 100, 1)()
	k.vms[0].Close()
	k.start(0, kernelImage(t, "ckernel"))
	k.await("the second life of the ckernel", k.vms, func() bool {
		b := k.block(0)
		return b.Generation.Load() == 2 && b.State.Load() == uint64(layout.StateUp)
	})
	k.ask(rpcbench.Awake, 100, 1)()
	require.EqualValues(t, 1, k.block(1).Generation.Load())
	require.False(t, k.block(1).Fenced(1))
}

// TestRackStorm: doorbells without end, of the vector that kernels wait for, do not keep them from their calls.
func TestRackStorm(t *testing.T) {
	k := newKernels(t, vm.MicroVM, 1)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for peer := range 2 {
		id, err := k.block(peer).DoorbellID(doorbell.MaxPeers)
		require.NoError(t, err)
		wg.Go(func() {
			n := 0
			for ; ctx.Err() == nil; n++ {
				if err := k.Doorbells.Ring(id, 0); err != nil {
					t.Errorf("peer %d: %v", peer, err)
					return
				}
			}
			t.Logf("rang %s %d times", k.PeerName(peer), n)
		})
	}
	wait := k.ask(rpcbench.Awake, 300, 1)
	wait()
	k.ask(rpcbench.Halted, 20, 1)()
	cancel()
	wg.Wait()
	require.False(t, k.block(1).Fenced(1))
}

// TestRackGreedyPeer: a peer that calls without end and never takes an answer is cut off, and harms nobody else.
func TestRackGreedyPeer(t *testing.T) {
	k := newKernels(t, vm.MicroVM, 1)
	out, bytes, err := k.RingRegion(k.Region, k.Host(), layout.Ckernel)
	require.NoError(t, err)
	tx, err := ring.AttachTx(out, bytes, nil)
	require.NoError(t, err)
	body, err := proto.Encode(nil, &proto.Null{Payload: make([]byte, 8<<10)})
	require.NoError(t, err)
	f := proto.Frame{Kind: proto.KindCall, Type: proto.TypeNull, From: 1}
	var head [proto.FrameBytes]byte
	calls := k.ask(rpcbench.Awake, 300, 1)
	id, err := k.block(0).DoorbellID(doorbell.MaxPeers)
	require.NoError(t, err)
	const enough = 8 << 10 // calls; what the kernel queues for one peer is less than their answers
	k.await("the greedy peer to be cut off", k.vms, func() bool {
		for f.ID < enough {
			f.ID++
			f.Put(&head)
			if err := tx.Push(head[:], body); err == ring.ErrFull {
				f.ID--
				break
			} else if err != nil {
				return true // its ring was made anew
			}
		}
		if err := tx.Flush(); err != nil {
			return true
		}
		require.NoError(t, k.Doorbells.Ring(id, 0))
		return false
	})
	calls()
	t.Logf("cut off after %d calls", f.ID)
	k.ask(rpcbench.Awake, 100, 1)()
}

// TestRackBroken: words of the kernels' blocks and rings are overwritten while they call: they go on, or come to an end in order.
func TestRackBroken(t *testing.T) {
	k := newKernels(t, vm.MicroVM, 1)
	r, _, err := k.RingRegion(k.Region, 1, 0)
	require.NoError(t, err)
	for round, off := range []region.Off{0x00, 0x08, 0x10, 0x18, 0x80, 0x88, 0x100, 0x108, 0x180, 0x188} {
		require.NoError(t, r.StoreU64(off, 0x0123456789abcdef+uint64(round)))
		// The bench makes its calls until one gets through, and a call under way may fail: then it says so and goes on.
		k.ask(rpcbench.Awake, 20, 1)()
	}
}

// TestRackFlips flips bits in everything that controls a rack, while its kernels call and beat. Words decide over life and death, so a kernel
// may come to an end in order, and is started again then; it must neither crash nor stop answering.
func TestRackFlips(t *testing.T) {
	flips := 300
	if os.Getenv("DINOS_LONG") == "1" {
		flips = 20_000
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	k := newKernels(t, vm.MicroVM, 1)
	areas := []layout.Area{{Off: 0, Stride: layout.SuperBytes, Count: 1}, k.Machines, k.Grants, k.Inboxes, k.Rings, k.HostRings}
	images := []string{kernelImage(t, "ckernel"), kernelImage(t, "dkernel")}
	superblock := make([]byte, layout.SuperBytes)
	require.NoError(t, k.Region.LoadBytes(superblock, 0))
	mail := k.Machines.At(1) + layout.OffMailbox + 8*rpcbench.MailCommand
	ended := 0
	for i := range flips {
		a := areas[random.IntN(len(areas))]
		off := a.Off + region.Off(random.Uint64N(a.Bytes()/8)*8)
		if random.IntN(2) == 0 { // headers and blocks, not only the data that is most of it
			off = a.At(random.Uint64N(a.Count)) + region.Off(random.Uint64N(min(a.Stride, 512)/8)*8)
		}
		if off >= mail && off < mail+16 {
			continue // of the benchmark, which does what it is told
		}
		v, err := k.Region.LoadU64(off)
		require.NoError(t, err)
		require.NoError(t, k.Region.StoreU64(off, v^1<<random.IntN(64)))
		if i%50 == 0 {
			k.ask(rpcbench.Awake, 200, 1)
		}
		time.Sleep(time.Duration(random.IntN(10)) * time.Millisecond)
		for peer, m := range k.vms {
			select {
			case <-m.Exited():
			default:
				continue
			}
			_, err := m.Wait(t.Context())
			text := strings.Join(m.Console().Tail(), "\n")
			require.NotContains(t, text, "CRASH", "flip %d, of %#x", i, off)
			var g *vm.GuestError
			require.ErrorAs(t, err, &g, "%s ended, flip %d, of %#x", k.PeerName(peer), i, off)
			require.Contains(t, []vm.Failure{vm.Fenced, vm.Failed}, g.Failure, "flip %d, of %#x: %v", i, off, err)
			ended++
			// The next life needs a superblock; that of the others was read when they started.
			require.NoError(t, k.Region.StoreBytes(0, superblock))
			k.start(peer, images[min(peer, 1)])
		}
	}
	t.Logf("%d flips, %d lives came to an end", flips, ended)
	for peer, m := range k.vms {
		text := strings.Join(m.Console().Tail(), "\n")
		require.NotContains(t, text, "CRASH", k.PeerName(peer))
		fmt.Fprint(m.Input(), "status\r") // it still does what it is told
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		_, _, err := m.Console().Find(ctx, 0, func(s string) bool { return strings.HasPrefix(s, "up ") && strings.Contains(s, "goroutines") })
		cancel()
		require.NoError(t, err, "%s does not answer:\n%s", k.PeerName(peer), text)
	}
	k.ask(rpcbench.Awake, 200, 1)() // what is broken is mended
}

// TestRackRefusal: what does not fit is refused by one line that names it, and the memory stays as it was.
func TestRackRefusal(t *testing.T) {
	for name, c := range map[string]struct {
		append string
		spoil  func(r *testrack.Rack)
		bytes  uint64
		want   string
	}{
		"version":     {spoil: func(r *testrack.Rack) { r.Region.StoreU64(8, 99) }, want: "layout: other layout version: 99 in memory"},
		"unformatted": {spoil: func(r *testrack.Rack) { r.Region.StoreU64(0, 0) }, want: "layout: no rack in this memory"},
		"corrupt":     {spoil: func(r *testrack.Rack) { r.Region.StoreU64(0x20, 5) }, want: "layout: superblock is corrupt"},
		"generation":  {spoil: func(r *testrack.Rack) { r.Rack.Generation = 12 }, want: "link: other rack: generation 1 in memory, the command line says dinos.rack=12"},
		"unknown key": {append: "dinos.peeer=1", want: "dinos.peeer"},
		"given twice": {append: "dinos.peer=1", want: "dinos.peer: given twice"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := testrack.New(testrack.Config{Layout: layout.Config{Machines: 2, Logs: layout.NoLogs, Size: 8 << 20}, Kernel: vm.Config{Memory: 128 << 20}})
			require.NoError(t, err)
			defer r.Close()
			if c.spoil != nil {
				c.spoil(r)
			}
			m, err := r.Start(1, kernelImage(t, "dkernel"), c.append)
			require.NoError(t, err)
			refused(t, m, c.want)
			b, err := r.Block(1)
			require.NoError(t, err)
			require.Zero(t, b.Generation.Load())
		})
	}
}

// refused waits for the refusal of a machine.
func refused(t *testing.T, m *vm.VM, want string) {
	t.Helper()
	defer m.Close()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	_, err := m.Wait(ctx)
	text := strings.Join(m.Console().Tail(), "\n")
	fails(t, err, vm.Refused, text)
	require.Contains(t, text, want)
	require.Equal(t, 1, strings.Count(text, "dinos: boot:"), "one line, not\n%s", text)
}

// TestLinkRefusal: devices that are missing, too many, too small or of the wrong kind; and kernels that are alone.
func TestLinkRefusal(t *testing.T) {
	small := []string{"-object", "memory-backend-ram,id=a,size=1M,share=on", "-object", "memory-backend-ram,id=b,size=1M,share=on"}
	for name, c := range map[string]struct {
		kernel string
		cfg    vm.Config
		want   string
	}{
		"no device":    {"dkernel", vm.Config{Append: "dinos.peer=1"}, "the machine has no ivshmem device"},
		"no doorbells": {"dkernel", vm.Config{Append: "dinos.peer=1", Devices: []string{"ivshmem-plain,memdev=a"}, Extra: small}, "ivshmem: the device has no doorbells"},
		"two devices": {"ckernel", vm.Config{Append: "dinos.peer=0", Devices: []string{"ivshmem-plain,memdev=a", "ivshmem-plain,memdev=b"},
			Extra: small}, "link: no usable ivshmem device: "},
		"rack only": {"ckernel", vm.Config{Append: "dinos.rack=1"}, "dinos.rack is given without dinos.peer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.cfg.Image, c.cfg.Memory = kernelImage(t, c.kernel), 128<<20
			m, err := vm.Start(c.cfg)
			require.NoError(t, err)
			refused(t, m, c.want)
		})
	}
	for name, c := range map[string]struct {
		kernel, append string
		size           uint64
		want           string
	}{
		"far too small":  {"dkernel", "dinos.peer=1", 4096, "layout: no rack in this memory"},
		"no identity":    {"dkernel", "", 1 << 20, "must say dinos.peer=N"},
		"ckernel as one": {"ckernel", "dinos.peer=1", 1 << 20, "0 is the ckernel"},
		"dkernel as 0":   {"dkernel", "dinos.peer=0", 1 << 20, "dkernels are 1 and up"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := doorbell.New(doorbell.Config{Vectors: 1, Size: c.size})
			require.NoError(t, err)
			defer s.Close()
			refused(t, startPeer(t, s, c.kernel, c.append), c.want)
		})
	}
	t.Run("too small", func(t *testing.T) {
		t.Parallel()
		// The superblock of a larger rack in a smaller memory.
		large := region.Slab(8 << 20)
		r, err := region.New(large)
		require.NoError(t, err)
		_, err = layout.Format(r, layout.Config{Machines: 2, Logs: layout.NoLogs}, 1)
		require.NoError(t, err)
		s, err := doorbell.New(doorbell.Config{Vectors: 1, Size: 4 << 20})
		require.NoError(t, err)
		defer s.Close()
		copy(s.Memory(), large)
		refused(t, startPeer(t, s, "dkernel", "dinos.peer=1"), "layout: memory too small: 4194304 bytes, the rack was formatted for 8388608")
	})
	t.Run("alone", func(t *testing.T) {
		t.Parallel()
		for _, kernel := range []string{"ckernel", "dkernel"} {
			m, err := vm.Start(vm.Config{Image: kernelImage(t, kernel), Memory: 128 << 20})
			require.NoError(t, err)
			defer m.Close()
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			defer cancel()
			_, _, err = m.Console().Find(ctx, 0, func(s string) bool { return strings.Contains(s, "no ivshmem device: this kernel is alone") })
			require.NoError(t, err)
			fmt.Fprint(m.Input(), "off\r")
			_, err = m.Wait(ctx)
			require.NoError(t, err)
		}
	})
}

// startPeer starts a kernel with a device of the server, whatever is in its memory.
func startPeer(t *testing.T, s *doorbell.Server, kernel, append string) *vm.VM {
	f, _, err := s.Connect()
	require.NoError(t, err)
	defer f.Close()
	device, extra := s.Devices(vm.FirstFile)
	m, err := vm.Start(vm.Config{Image: kernelImage(t, kernel), Memory: 128 << 20, Append: append, Devices: []string{device}, Extra: extra, Files: []*os.File{f}})
	require.NoError(t, err)
	return m
}
