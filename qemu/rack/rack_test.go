package rack

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/qemu/rack/control"
	"dinos/qemu/rack/statedir"
	"dinos/shmem/layout"
	"dinos/shmem/proto"
)

// patience bounds every wait of these tests.
const patience = 20 * time.Second

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// config is that of a rack of fakes.
func config(t *testing.T, f *fleet) Config {
	base, err := os.MkdirTemp("", "drk")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(base) })
	image := filepath.Join(base, "kernel.elf")
	require.NoError(t, os.WriteFile(image, []byte("ELF"), 0o600))
	return Config{Name: "test", Base: base, Ckernel: image, Dkernel: image, Shared: 64 << 20, Room: 4, Logs: 4, Accel: AccelTCG, BootTimeout: patience,
		start: f.start}
}

// up starts a rack of fakes.
func up(t *testing.T, f *fleet, edit func(*Config)) *Rack {
	cfg := config(t, f)
	if edit != nil {
		edit(&cfg)
	}
	r, err := Start(within(t), cfg, nil)
	require.NoError(t, err)
	t.Cleanup(func() {
		r.Close()
		left, err := os.ReadDir(cfg.Base)
		require.NoError(t, err)
		for _, e := range left {
			require.Equal(t, "kernel.elf", e.Name(), "nothing else stays")
		}
		require.NoFileExists(t, statedir.MemoryPath(cfg.Base, cfg.Name))
	})
	return r
}

// eventually waits until f is true.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func (s *Status) kernel(name string) KernelStatus {
	for _, k := range s.Kernels {
		if k.Name == name {
			return k
		}
	}
	return KernelStatus{}
}

func TestUp(t *testing.T) {
	f := newFleet()
	cfg := config(t, f)
	var said []string
	r, err := Start(within(t), cfg, func(e Event) { said = append(said, e.String()) })
	require.NoError(t, err)
	defer r.Close()
	s := r.Status(within(t), true)
	require.Equal(t, "answers", s.Ckernel)
	require.Equal(t, "up", s.State)
	require.Len(t, s.Kernels, 3)
	for i, k := range s.Kernels {
		require.Equal(t, "running", k.Machine)
		require.Equal(t, "up", k.State)
		require.Equal(t, "up", k.Member, k.Name)
		require.Equal(t, uint64(1), k.Generation)
		require.Equal(t, uint64(DefaultCores), k.Cores)
		require.Equal(t, fmt.Sprintf("dinos.peer=%d dinos.name=%s dinos.rack=%d", i, k.Name, s.Generation), k.CommandLn)
	}
	require.True(t, s.Check.Clean, "%+v", s.Check)
	require.NotZero(t, s.Slices)
	require.Equal(t, s.Slices, s.FreeSlices)
	require.Equal(t, uint64(2*DefaultCores), s.FreeCores)
	require.Contains(t, strings.Join(said, "\n"), "rack: 3 kernels, TCG: asked for, 64 MiB of shared memory")
	require.Contains(t, strings.Join(said, "\n"), "dkernel2: up after")

	st, err := statedir.Load(cfg.Base, "test")
	require.NoError(t, err)
	require.Equal(t, s.Generation, st.Generation)
	require.Equal(t, os.Getpid(), st.Launcher.PID)
	log, err := os.ReadFile(filepath.Join(r.Dir(), "dkernel1.log"))
	require.NoError(t, err)
	require.Contains(t, string(log), "main after")

	r.Shutdown("test")
	for _, k := range []string{"ckernel", "dkernel1", "dkernel2"} {
		require.Equal(t, "ended with the rack", r.Status(within(t), false).kernel(k).Ended)
		exit, err := f.the(k).Wait(nil)
		require.NoError(t, err)
		require.Equal(t, "pass", exit.String(), "%s ended in order", k)
	}
	r.Close()
	<-r.Ended()
	require.NoFileExists(t, st.Memory)
	_, err = statedir.Load(cfg.Base, "test")
	require.ErrorIs(t, err, statedir.ErrNone)
}

func TestKillAndRestart(t *testing.T) {
	f := newFleet()
	r := up(t, f, nil)
	require.NoError(t, r.Kill("dkernel2"))
	s := r.Status(within(t), true)
	k := s.kernel("dkernel2")
	require.Equal(t, []any{"gone", "gone", "killed", "", 0}, []any{k.Machine, k.State, k.Ended, k.Member, k.PID})
	require.Equal(t, []string{"2@1 killed"}, f.told(), "the ckernel was told before anything else happened")
	require.True(t, s.Check.Clean, "%+v", s.Check)
	require.Equal(t, uint64(DefaultCores), s.FreeCores)

	require.ErrorIs(t, r.Kill("dkernel2"), ErrState)
	require.ErrorIs(t, r.Pause(within(t), "dkernel2"), ErrState)
	require.ErrorIs(t, r.Stop(within(t), "dkernel2"), ErrState)
	for _, name := range []string{"dkernel9", "", "host", "dkernel"} {
		require.ErrorIs(t, r.Kill(name), ErrNoKernel)
		require.ErrorIs(t, r.Restart(within(t), name), ErrNoKernel)
	}
	require.ErrorContains(t, r.Kill("x"), "this rack has [ckernel dkernel1 dkernel2]")

	require.NoError(t, r.Restart(within(t), "dkernel2"))
	k = r.Status(within(t), false).kernel("dkernel2")
	require.Equal(t, []any{"running", "up", uint64(2)}, []any{k.Machine, k.State, k.Generation})
	require.NoError(t, r.Restart(within(t), "dkernel2"), "one that runs, too")
	require.Equal(t, uint64(3), r.Status(within(t), false).kernel("dkernel2").Generation)
	require.Equal(t, []string{"2@1 killed", "2@2 killed to be restarted"}, f.told())

	require.NoError(t, r.Stop(within(t), "dkernel1"))
	require.Equal(t, "stopped", r.Status(within(t), false).kernel("dkernel1").Ended)
	log, err := os.ReadFile(filepath.Join(r.Dir(), "dkernel1.log"))
	require.NoError(t, err)
	require.Contains(t, string(log), "--- dkernel1: stopped\n")
}

// TestDies: a data kernel whose machine dies of something else stays away, and everybody knows why.
func TestDies(t *testing.T) {
	f := newFleet()
	r := up(t, f, nil)
	f.the("dkernel1").die()
	eventually(t, "dkernel1 is gone", func() bool { return r.Status(within(t), false).kernel("dkernel1").Machine == "gone" })
	eventually(t, "the ckernel is told", func() bool { return len(f.told()) == 1 })
	require.Equal(t, []string{"1@1 run QEMU: signal: killed"}, f.told())
	require.Contains(t, r.Status(within(t), false).kernel("dkernel1").Ended, "signal: killed")
}

// TestFence: a kernel that hangs is declared dead by the ckernel, and then really ended.
func TestFence(t *testing.T) {
	f := newFleet()
	r := up(t, f, nil)
	events, stop := r.events.subscribe()
	defer stop()
	require.NoError(t, r.Pause(within(t), "dkernel2"))
	require.ErrorIs(t, r.Pause(within(t), "dkernel2"), ErrState)
	start := time.Now()
	eventually(t, "dkernel2 is gone", func() bool { return r.Status(within(t), false).kernel("dkernel2").Machine == "gone" })
	require.Less(t, time.Since(start), 10*time.Second)
	k := r.Status(within(t), false).kernel("dkernel2")
	require.Equal(t, "killed for the ckernel, which declared generation 1 dead: no heartbeat", k.Ended)
	require.Equal(t, "dkernel2: paused", (<-events).String())
	require.Equal(t, "dkernel2: "+k.Ended, (<-events).String())
	require.NoError(t, r.Restart(within(t), "dkernel2"))
	require.Equal(t, uint64(2), r.Status(within(t), false).kernel("dkernel2").Generation)
}

// TestFenceSpares: an order to end an earlier life does not reach a later one, nor is a machine hit whose kernel has not begun.
func TestFenceSpares(t *testing.T) {
	f := newFleet()
	r := up(t, f, nil)
	require.NoError(t, r.Restart(within(t), "dkernel1"))
	for gen := range uint64(2) {
		require.NoError(t, r.fence(&proto.Fence{Peer: 1, Generation: gen}))
	}
	require.Equal(t, "up", r.Status(within(t), false).kernel("dkernel1").State)
	for _, p := range []uint16{0, 3, 4, 5, 6, 99} {
		require.ErrorContains(t, r.fence(&proto.Fence{Peer: p, Generation: 1}), "no dkernel of this rack")
	}
	f.mu.Lock()
	f.plans["dkernel1"] = []plan{hang}
	f.mu.Unlock()
	ctx, cancel := context.WithCancel(within(t))
	failed := make(chan error)
	go func() { failed <- r.Restart(ctx, "dkernel1") }()
	eventually(t, "it is started", func() bool {
		return r.Status(within(t), false).kernel("dkernel1").State == "starting"
	})
	require.NoError(t, r.fence(&proto.Fence{Peer: 1, Generation: 2}), "that life is over, this is none yet")
	require.Equal(t, "running", r.Status(within(t), false).kernel("dkernel1").Machine)
	cancel()
	require.ErrorIs(t, <-failed, context.Canceled)
	require.NoError(t, r.Restart(within(t), "dkernel1"))
	require.NoError(t, r.fence(&proto.Fence{Peer: 1, Generation: 3}))
	k := r.Status(within(t), false).kernel("dkernel1")
	require.Equal(t, []any{"gone", "killed for the ckernel, which declared generation 3 dead"}, []any{k.Machine, k.Ended})
}

func TestAdd(t *testing.T) {
	f := newFleet()
	r := up(t, f, func(c *Config) { c.Dkernels, c.Room = 1, 3 })
	name, err := r.Add(within(t))
	require.NoError(t, err)
	require.Equal(t, "dkernel2", name)
	require.NoError(t, r.Kill("dkernel1"))
	name, err = r.Add(within(t))
	require.NoError(t, err)
	require.Equal(t, "dkernel3", name, "the number of one that does not run is its own")
	_, err = r.Add(within(t))
	require.ErrorIs(t, err, ErrFull)
	require.Len(t, r.Status(within(t), false).Kernels, 4)
}

// TestCkernel: a ckernel that dies is started again in the same memory and finds the members; one that was killed on purpose is not.
func TestCkernel(t *testing.T) {
	f := newFleet()
	r := up(t, f, nil)
	f.the("ckernel").die()
	eventually(t, "the ckernel is back", func() bool {
		s := r.Status(within(t), false)
		return s.Ckernel == "answers" && s.kernel("ckernel").Generation == 2
	})
	s := r.Status(within(t), true)
	require.Equal(t, 1, s.kernel("ckernel").Restarts)
	require.Equal(t, "up", s.kernel("dkernel1").Member)
	require.Equal(t, uint64(1), s.kernel("dkernel1").Generation, "it went on meanwhile")
	require.True(t, s.Check.Clean, "%+v", s.Check)

	require.NoError(t, r.Kill("ckernel"))
	s = r.Status(within(t), true)
	require.Equal(t, "gone", s.kernel("ckernel").Machine)
	require.Contains(t, s.Ckernel, "dead")
	require.Contains(t, s.Check.Ckernel[0], "not asked")
	require.False(t, s.Check.Clean)
	require.NoError(t, r.Kill("dkernel2"), "nobody can be told, and that takes no time")
	require.NoError(t, r.Restart(within(t), "ckernel"))
	eventually(t, "the new ckernel is told", func() bool { return slices.Contains(f.told(), "2@1 killed") })
	require.Empty(t, r.Status(within(t), false).kernel("dkernel2").Member)
	require.Equal(t, "up", r.Status(within(t), false).kernel("dkernel1").Member)
}

// TestCkernelGivesUp: a ckernel that does not come up any more is left alone at last.
func TestCkernelGivesUp(t *testing.T) {
	f := newFleet()
	r := up(t, f, func(c *Config) { c.Dkernels = NoDkernels })
	for i := range uint64(maxShort - 1) {
		f.the("ckernel").die()
		eventually(t, "the ckernel is up", func() bool {
			k := r.Status(within(t), false).kernel("ckernel")
			return k.State == "up" && k.Generation == i+2
		})
	}
	f.mu.Lock()
	f.plans["ckernel"] = slices.Repeat([]plan{refuse}, maxFailed+1)
	f.mu.Unlock()
	require.NoError(t, r.Kill("ckernel"))
	require.ErrorContains(t, r.Restart(within(t), "ckernel"), "no soul")
	eventually(t, "it is given up", func() bool {
		list := r.events.recent()
		return strings.Contains(list[len(list)-1].Text, "not started again: it did not come up 6 times")
	})
	k := r.Status(within(t), false).kernel("ckernel")
	require.Equal(t, "gone", k.Machine)
	require.Equal(t, maxShort-1+maxFailed, k.Restarts)
	require.NoError(t, r.Restart(within(t), "ckernel"))
	require.Equal(t, "answers", r.Status(within(t), false).Ckernel)
}

// TestStartFails: the error names the kernel and shows its console, and nothing stays.
func TestStartFails(t *testing.T) {
	for _, c := range []struct {
		name, kernel string
		plan         plan
		timeout      time.Duration
		want         []string
	}{
		{"refuses", "dkernel2", refuse, patience, []string{"dkernel2: refused to boot", "--- console of dkernel2, last lines", "no soul"}},
		{"ckernel refuses", "ckernel", refuse, patience, []string{"ckernel: refused to boot", "no soul"}},
		{"hangs", "dkernel1", hang, 300 * time.Millisecond, []string{"dkernel1: not a member of the rack after", "it says that it is empty",
			"dinos dkernel1: main", "--- vCPU 0: halted"}},
		{"no machine", "dkernel1", noStart, patience, []string{"dkernel1: start QEMU: no such luck"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFleet()
			f.plans[c.kernel] = []plan{c.plan}
			cfg := config(t, f)
			cfg.BootTimeout = c.timeout
			_, err := Start(within(t), cfg, nil)
			for _, w := range c.want {
				require.ErrorContains(t, err, w)
			}
			_, err = statedir.Load(cfg.Base, cfg.Name)
			require.ErrorIs(t, err, statedir.ErrNone)
			require.NoFileExists(t, statedir.MemoryPath(cfg.Base, cfg.Name))
			require.False(t, statedir.Running(cfg.Base, cfg.Name))
		})
	}
	f := newFleet()
	f.plans["dkernel1"] = []plan{hang}
	cfg := config(t, f)
	cfg.Keep = true
	ctx, cancel := context.WithTimeout(within(t), 100*time.Millisecond)
	defer cancel()
	_, err := Start(ctx, cfg, nil)
	require.Error(t, err)
	require.FileExists(t, statedir.MemoryPath(cfg.Base, cfg.Name), "kept for those who want to know why")
	require.NoError(t, statedir.Remove(cfg.Base, cfg.Name))
}

func TestRestartFails(t *testing.T) {
	f := newFleet()
	r := up(t, f, nil)
	f.mu.Lock()
	f.plans["dkernel1"] = []plan{refuse}
	f.mu.Unlock()
	err := r.Restart(within(t), "dkernel1")
	var boot *BootError
	require.ErrorAs(t, err, &boot)
	require.ErrorContains(t, err, "no soul")
	require.Equal(t, "refused to boot", r.Status(within(t), false).kernel("dkernel1").Ended)
	require.NoError(t, r.Restart(within(t), "dkernel1"))
}

func TestConfig(t *testing.T) {
	f := newFleet()
	for want, edit := range map[string]func(*Config){
		"bad rack name":                func(c *Config) { c.Name = "A" },
		"-1 cores":                     func(c *Config) { c.Cores = -1 },
		"MiB of shared memory, but":    func(c *Config) { c.Shared = 1 << 60 },
		"65 cores":                     func(c *Config) { c.Cores = 65 },
		"32 dkernels, want at most 31": func(c *Config) { c.Dkernels = 32 },
		"room for 2":                   func(c *Config) { c.Dkernels, c.Room = 3, 2 },
		"want a power of two like 1G":  func(c *Config) { c.Shared = 3 << 20 },
		"memory too small":             func(c *Config) { c.Shared = 4 << 20 },
		"image of the dkernel":         func(c *Config) { c.Dkernel = "/none" },
		"not a regular file":           func(c *Config) { c.Ckernel = "/" },
		"shared directory /none":       func(c *Config) { c.Share = "/none" },
		`accelerator "xen"`:            func(c *Config) { c.Accel = "xen" },
		"boot timeout":                 func(c *Config) { c.BootTimeout = -1 },
	} {
		cfg := config(t, f)
		edit(&cfg)
		_, err := Start(within(t), cfg, nil)
		require.ErrorIs(t, err, ErrConfig, want)
		require.ErrorContains(t, err, want)
	}
	require.Empty(t, f.starts)
}

// TestNames: two racks at once, but not two of a name.
func TestNames(t *testing.T) {
	f, g := newFleet(), newFleet()
	r := up(t, f, nil)
	cfg := config(t, g)
	cfg.Base = r.cfg.Base
	_, err := Start(within(t), cfg, nil)
	require.ErrorIs(t, err, statedir.ErrRunning)
	require.Empty(t, g.starts)
	cfg.Name = "other"
	other, err := Start(within(t), cfg, nil)
	require.NoError(t, err)
	require.NoError(t, other.Kill("dkernel1"))
	require.Equal(t, "up", r.Status(within(t), false).kernel("dkernel1").State)
	other.Close()
	require.Equal(t, "answers", r.Status(within(t), false).Ckernel)
}

// TestCheck: damage that the ckernel or this host sees is told.
func TestCheck(t *testing.T) {
	f := newFleet()
	r := up(t, f, nil)
	c := f.the("ckernel").server
	c.mu.Lock()
	c.damage = []string{"slice 7 has two owners"}
	c.mu.Unlock()
	ck := r.Status(within(t), true).Check
	require.False(t, ck.Clean)
	require.Equal(t, []string{"slice 7 has two owners"}, ck.Ckernel)
	require.Empty(t, ck.Host)
	w, err := r.shared.Region.U64(r.shared.Grants.Off + layout.GrantHeaderBytes + 8)
	require.NoError(t, err)
	w.Add(1)
	ck = r.Status(within(t), true).Check
	require.Len(t, ck.Host, 1)
	require.Contains(t, ck.Host[0], "slice 0")
}

// TestRemote: all commands through the control socket.
func TestRemote(t *testing.T) {
	f := newFleet()
	r := up(t, f, nil)
	srv, down, err := r.Serve()
	require.NoError(t, err)
	defer srv.Close()
	c, err := Connect(r.cfg.Base, "test")
	require.NoError(t, err)
	_, err = Connect(r.cfg.Base, "none")
	require.ErrorIs(t, err, statedir.ErrNone)

	s, err := c.Status(within(t), true)
	require.NoError(t, err)
	require.True(t, s.Check.Clean)
	fctx, stop := context.WithCancel(within(t))
	heard, followed := make(chan Event, 10), make(chan error)
	go func() { followed <- c.Follow(fctx, func(e Event) { heard <- e }) }()
	eventually(t, "somebody listens", func() bool { r.events.mu.Lock(); defer r.events.mu.Unlock(); return len(r.events.subs) == 1 })
	require.NoError(t, c.Kill(within(t), "dkernel1"))
	require.Equal(t, "dkernel1: killed", (<-heard).String())
	stop()
	require.NoError(t, <-followed)
	require.NoError(t, c.Restart(within(t), "dkernel1"))
	require.NoError(t, c.Pause(within(t), "dkernel1"))
	require.NoError(t, c.Resume(within(t), "dkernel1"))
	require.NoError(t, c.Stop(within(t), "dkernel1"))
	name, err := c.Add(within(t))
	require.NoError(t, err)
	require.Equal(t, "dkernel3", name)
	text, err := c.SchedShow(within(t), "policy")
	require.NoError(t, err)
	require.Equal(t, "what: policy", text)
	text, err = c.SchedShow(within(t), "")
	require.NoError(t, err)
	require.Equal(t, strings.Repeat("0123456789", 5000), text, "in parts")
	text, err = c.SchedSet(within(t), "mine", "policy")
	require.NoError(t, err)
	require.Equal(t, "set mine", text)
	text, err = c.SchedExplain(within(t), "this")
	require.NoError(t, err)
	require.Equal(t, "because this", text)
	list, err := c.Events(within(t))
	require.NoError(t, err)
	require.NotEmpty(t, list)

	code := func(err error) control.Code {
		var e *control.Error
		if !errors.As(err, &e) {
			return control.Code(fmt.Sprint(err))
		}
		return e.Code
	}
	require.Equal(t, control.CodeNotFound, code(c.Kill(within(t), "dkernel7")))
	require.Equal(t, control.CodeConflict, code(c.Kill(within(t), "dkernel1")))
	_, err = c.SchedSet(within(t), "mine", "bad")
	require.Equal(t, control.CodeUsage, code(err))
	_, err = c.SchedSet(within(t), "mine", strings.Repeat("x", proto.MaxData+1))
	require.ErrorContains(t, err, "want at most")

	smp, err := c.Sample(within(t))
	require.NoError(t, err)
	require.Len(t, smp.Kernels, 4)
	require.NotZero(t, smp.FreeSlices)

	ended := make(chan error)
	go func() { ended <- c.Down(within(t), false) }()
	<-down
	srv.Close()
	r.Close()
	require.NoError(t, <-ended)
	_, err = c.Status(within(t), false)
	require.ErrorIs(t, err, control.ErrNoServer)
}

// TestRandomEvents: whatever happens to data kernels, the rack goes on and nothing is owned twice.
func TestRandomEvents(t *testing.T) {
	f := newFleet()
	r := up(t, f, nil)
	rng, seed := newRand()
	t.Logf("seed %d", seed)
	for range 60 {
		name := fmt.Sprintf("dkernel%d", 1+rng.IntN(2))
		var err error
		switch op := rng.IntN(7); op {
		case 0:
			err = r.Kill(name)
		case 1, 2:
			err = r.Restart(within(t), name)
		case 3:
			err = r.Pause(within(t), name)
		case 4:
			err = r.Resume(within(t), name)
		case 5:
			f.the(name).die()
		case 6:
			f.the("ckernel").die()
			eventually(t, "the ckernel is back", func() bool {
				if r.Status(within(t), false).kernel("ckernel").Machine == "gone" {
					_ = r.Restart(within(t), "ckernel") // it may have been given up
				}
				return r.Status(within(t), false).Ckernel == "answers"
			})
		}
		var boot *BootError
		if err != nil && !errors.Is(err, ErrState) && !errors.As(err, &boot) {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"dkernel1", "dkernel2"} {
		require.NoError(t, r.Restart(within(t), name))
	}
	eventually(t, "all is well", func() bool {
		s := r.Status(within(t), true)
		return s.Check.Clean && s.kernel("dkernel1").Member == "up" && s.kernel("dkernel2").Member == "up"
	})
}

func newRand() (*rand.Rand, uint64) {
	seed := uint64(time.Now().UnixNano())
	return rand.New(rand.NewPCG(seed, 0)), seed
}
