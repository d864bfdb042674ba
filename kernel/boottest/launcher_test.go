package boottest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/boot/build"
	racks "dinos/qemu/rack"
	"dinos/qemu/rack/statedir"
	"dinos/qemu/vmtest"
	"dinos/shmem/grant"
	"dinos/shmem/layout"
	"dinos/shmem/region"
)

// rackPatience bounds every wait for something in a rack.
const rackPatience = time.Minute

// rackFiles has the tool and the kernels of a rack, built once.
var rackFiles struct {
	sync.Mutex
	dir string
}

// rackBin returns a directory with dinos, ckernel.elf and dkernel.elf.
func rackBin(t *testing.T) string {
	t.Helper()
	vmtest.RequireQEMU(t)
	rackFiles.Lock()
	defer rackFiles.Unlock()
	if rackFiles.dir != "" {
		return rackFiles.dir
	}
	dir := filepath.Join(filepath.Dir(image), "rack")
	require.NoError(t, os.MkdirAll(dir, 0o700))
	for _, k := range []string{"ckernel", "dkernel"} {
		if err := build.Kernel(t.Context(), build.Options{Package: "dinos/cmd/" + k}, filepath.Join(dir, k+".elf")); err != nil {
			t.Fatalf("host: %v", err)
		}
	}
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "dinos"), "dinos/cmd/dinos").CombinedOutput()
	require.NoError(t, err, "%s", out)
	rackFiles.dir = dir
	return dir
}

// shortDir is a directory with a path that is short enough for sockets.
func shortDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "drb")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// startRack starts a rack in this process. When the test has failed, it shows the consoles and the shared memory.
func startRack(t *testing.T, base, name string, edit func(*racks.Config)) *racks.Rack {
	t.Helper()
	bin := rackBin(t)
	cfg := racks.Config{Name: name, Base: base, Dkernels: 2, Room: 4, Shared: 256 << 20, Memory: 256 << 20, BootTimeout: rackPatience,
		Ckernel: filepath.Join(bin, "ckernel.elf"), Dkernel: filepath.Join(bin, "dkernel.elf")}
	if edit != nil {
		edit(&cfg)
	}
	start := time.Now()
	r, err := racks.Start(t.Context(), cfg, nil)
	require.NoError(t, err)
	t.Logf("rack %s with %d dkernels is up after %v", name, cfg.Dkernels, time.Since(start).Round(time.Millisecond))
	t.Cleanup(func() {
		if t.Failed() {
			showRack(t, r.Dir(), statedir.MemoryPath(base, name))
		}
		r.Close()
		require.NoFileExists(t, statedir.MemoryPath(base, name))
		require.NoDirExists(t, statedir.Path(base, name))
	})
	return r
}

// showRack logs the ends of all logs of a rack, and what its memory says of machines, grants and rings.
func showRack(t *testing.T, dir, memory string) {
	logs, _ := filepath.Glob(filepath.Join(dir, "*.log"))
	for _, path := range logs {
		b, _ := os.ReadFile(path)
		t.Logf("--- %s\n%s", filepath.Base(path), b[max(0, len(b)-4000):])
	}
	f, err := os.Open(memory)
	if err != nil {
		t.Log(err)
		return
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Log(err)
		return
	}
	b, err := syscall.Mmap(int(f.Fd()), 0, int(st.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		t.Log(err)
		return
	}
	defer syscall.Munmap(b)
	mem, err := region.New(b)
	if err != nil {
		t.Log(err)
		return
	}
	var out bytes.Buffer
	for _, part := range []string{"super", "machines", "grants", "rings"} {
		if err := layout.Dump(&out, mem, part, layout.DumpOptions{Grants: grant.Dump, Messages: 4}); err != nil {
			fmt.Fprintf(&out, "%s: %v\n", part, err)
		}
	}
	t.Logf("--- shared memory\n%s", out.String())
}

// rackKernel is the status of a kernel.
func rackKernel(t *testing.T, r *racks.Rack, name string) racks.KernelStatus {
	t.Helper()
	for _, k := range r.Status(t.Context(), false).Kernels {
		if k.Name == name {
			return k
		}
	}
	t.Fatalf("no %s", name)
	panic("unreachable")
}

// rackUntil waits until f is true and returns how long that took.
func rackUntil(t *testing.T, what string, f func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	for !f() {
		if time.Since(start) > rackPatience {
			t.Fatalf("not within %v: %s", rackPatience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(start)
}

// requireClean audits the rack and wants these kernels to be members, and no others, as soon as what has ended is reclaimed.
func requireClean(t *testing.T, r *racks.Rack, members ...string) {
	t.Helper()
	var s *racks.Status
	var up []string
	rackUntil(t, fmt.Sprintf("the members are %v, and cores of no others", members), func() bool {
		s, up = r.Status(t.Context(), true), nil
		cores := uint64(0)
		for _, k := range s.Kernels {
			if k.Peer != layout.Ckernel && k.Member == "up" {
				up = append(up, k.Name)
				cores += k.Cores - k.CoresHeld
			}
		}
		return s.Ckernel == "answers" && slices.Equal(up, members) && s.FreeCores == cores
	})
	require.True(t, s.Check.Clean, "%+v", s.Check)
}

// TestUp: a fresh rack, a dkernel that is killed, brought back, added.
func TestUp(t *testing.T) {
	r := startRack(t, shortDir(t), "rack", nil)
	requireClean(t, r, "dkernel1", "dkernel2")
	s := r.Status(t.Context(), false)
	require.NotZero(t, s.Slices)
	held := uint64(0)
	for _, k := range s.Kernels {
		held += k.SlicesHeld
		require.Equal(t, uint64(1), k.Generation)
		require.Equal(t, uint64(racks.DefaultCores), k.Cores)
		require.NotZero(t, k.PID)
	}
	require.LessOrEqual(t, s.FreeSlices+held, s.Slices)
	start := time.Now()
	require.NoError(t, r.Kill("dkernel2"))
	k := rackKernel(t, r, "dkernel2")
	t.Logf("killed and gone after %v", time.Since(start).Round(time.Millisecond))
	require.Equal(t, "gone", k.Machine)
	require.NotEqual(t, "up", k.Member, "the ckernel knows it before the command returns")
	requireClean(t, r, "dkernel1")

	start = time.Now()
	require.NoError(t, r.Restart(t.Context(), "dkernel2"))
	t.Logf("back after %v", time.Since(start).Round(time.Millisecond))
	require.Equal(t, uint64(2), rackKernel(t, r, "dkernel2").Generation)
	requireClean(t, r, "dkernel1", "dkernel2")
	name, err := r.Add(t.Context())
	require.NoError(t, err)
	require.Equal(t, "dkernel3", name)
	requireClean(t, r, "dkernel1", "dkernel2", "dkernel3")

	start = time.Now()
	r.Shutdown("the test is over")
	t.Logf("ended in order after %v", time.Since(start).Round(time.Millisecond))
	for _, name := range []string{"ckernel", "dkernel1", "dkernel2", "dkernel3"} {
		b, err := os.ReadFile(filepath.Join(r.Dir(), name+".log"))
		require.NoError(t, err)
		require.Contains(t, string(b), "--- "+name+": ended with the rack")
	}
	b, err := os.ReadFile(filepath.Join(r.Dir(), "events.log"))
	require.NoError(t, err)
	require.NotContains(t, string(b), "did not end in order")
	require.NotContains(t, string(b), "could not be asked")
}

// TestUpDeaths: dkernels that die of a signal, or hang, are declared dead, fenced and reclaimed; the others go on.
func TestUpDeaths(t *testing.T) {
	r := startRack(t, shortDir(t), "deaths", nil)
	require.NoError(t, syscall.Kill(rackKernel(t, r, "dkernel1").PID, syscall.SIGKILL))
	took := rackUntil(t, "dkernel1 is no member", func() bool { return rackKernel(t, r, "dkernel1").Member != "up" })
	t.Logf("QEMU killed: no member after %v", took.Round(time.Millisecond))
	rackUntil(t, "dkernel1 is gone", func() bool { return rackKernel(t, r, "dkernel1").Machine == "gone" })
	requireClean(t, r, "dkernel2")

	require.NoError(t, r.Pause(t.Context(), "dkernel2"))
	took = rackUntil(t, "dkernel2 is no member", func() bool { return rackKernel(t, r, "dkernel2").Member != "up" })
	t.Logf("hung: no member after %v", took.Round(time.Millisecond))
	rackUntil(t, "dkernel2 was ended for the ckernel", func() bool { return rackKernel(t, r, "dkernel2").Machine == "gone" })
	require.Contains(t, rackKernel(t, r, "dkernel2").Ended, "killed for the ckernel, which declared generation 1 dead")
	requireClean(t, r)
	for _, name := range []string{"dkernel2", "dkernel1"} {
		require.NoError(t, r.Restart(t.Context(), name))
	}
	requireClean(t, r, "dkernel1", "dkernel2")
}

// TestUpCkernel: a ckernel that dies is started again and finds members and grants in shared memory; the dkernels notice nothing.
func TestUpCkernel(t *testing.T) {
	r := startRack(t, shortDir(t), "ckernel", nil)
	for life := range uint64(3) {
		require.NoError(t, syscall.Kill(rackKernel(t, r, "ckernel").PID, syscall.SIGKILL))
		took := rackUntil(t, "the ckernel is back", func() bool {
			s := r.Status(t.Context(), false)
			return s.Ckernel == "answers" && s.Kernels[0].Generation == life+2
		})
		t.Logf("the ckernel answers again after %v", took.Round(time.Millisecond))
		for _, name := range []string{"dkernel1", "dkernel2"} {
			rackUntil(t, name+" is a member", func() bool { return rackKernel(t, r, name).Member == "up" })
			require.Equal(t, uint64(1), rackKernel(t, r, name).Generation, "%s went on", name)
		}
		requireClean(t, r, "dkernel1", "dkernel2")
	}
	// One that dies while there is no ckernel is found missing by the next.
	require.NoError(t, r.Kill("ckernel"))
	require.NoError(t, r.Kill("dkernel1"))
	require.NoError(t, r.Restart(t.Context(), "ckernel"))
	rackUntil(t, "dkernel1 is no member", func() bool {
		s := r.Status(t.Context(), false)
		return s.Ckernel == "answers" && rackKernel(t, r, "dkernel1").Member != "up"
	})
	requireClean(t, r, "dkernel2")
}

// TestUpTwice: racks side by side have nothing to do with each other.
func TestUpTwice(t *testing.T) {
	base := shortDir(t)
	one := func(c *racks.Config) { c.Dkernels = 1 }
	a, b := startRack(t, base, "a", one), startRack(t, base, "b", one)
	require.NotEqual(t, a.Status(t.Context(), false).Generation, b.Status(t.Context(), false).Generation)
	require.NoError(t, a.Kill("dkernel1"))
	requireClean(t, a)
	requireClean(t, b, "dkernel1")
	a.Close()
	requireClean(t, b, "dkernel1")
}

// TestUpRandom: random things happen to the kernels while somebody asks and audits without pause, and after each the audit is clean.
// DINOS_LONG=1 has 500 of them.
func TestUpRandom(t *testing.T) {
	r := startRack(t, shortDir(t), "random", func(c *racks.Config) { c.Cores, c.CkernelCore = 1, 2 })
	n, seed := 14, uint64(time.Now().UnixNano())
	if os.Getenv("DINOS_LONG") == "1" {
		n = 500
	}
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	asked := 0
	load.Go(func() {
		for ; ctx.Err() == nil; asked++ {
			r.Status(ctx, asked%8 == 0)
			r.Sample()
		}
	})
	defer load.Wait()
	defer cancel()
	count := map[string]int{}
	for i := range n {
		name := fmt.Sprintf("dkernel%d", 1+rng.IntN(2))
		what := []string{"kill", "signal", "hang", "restart", "stop", "ckernel"}[rng.IntN(6)]
		if what == "ckernel" {
			name = "ckernel"
		} else if rackKernel(t, r, name).Machine == "gone" {
			what = "restart"
		}
		count[what]++
		rackEvent(t, r, fmt.Sprintf("event %d: %s %s", i, what, name), what, name)
	}
	t.Logf("%v, %d times asked meanwhile", count, asked)
}

// rackEvent does something to a kernel, waits for what must follow, and audits.
func rackEvent(t *testing.T, r *racks.Rack, text, what, name string) {
	k := rackKernel(t, r, name)
	var err error
	switch what {
	case "kill":
		err = r.Kill(name)
	case "signal":
		err = syscall.Kill(k.PID, syscall.SIGKILL)
	case "hang":
		err = r.Pause(t.Context(), name)
	case "stop":
		err = r.Stop(t.Context(), name)
	case "restart":
		err = r.Restart(t.Context(), name)
	case "ckernel":
		require.NoError(t, syscall.Kill(k.PID, syscall.SIGKILL), text)
		rackUntil(t, text+": it is back", func() bool {
			s := r.Status(t.Context(), false)
			return s.Ckernel == "answers" && s.Kernels[0].Generation > k.Generation
		})
	}
	require.NoError(t, err, text)
	if what != "restart" && what != "ckernel" {
		rackUntil(t, text+": it is gone", func() bool { return rackKernel(t, r, name).Machine == "gone" })
	}
	s := r.Status(t.Context(), true)
	require.True(t, s.Check.Clean, "%s: %+v", text, s.Check)
}

// tool runs the built dinos with a state directory of its own.
type tool struct {
	t   *testing.T
	bin string
	run string
}

func newTool(t *testing.T) *tool {
	d := &tool{t, rackBin(t), shortDir(t)}
	t.Cleanup(func() {
		if t.Failed() {
			dirs, _ := filepath.Glob(filepath.Join(d.run, "dinos", "rack-*"))
			for _, dir := range dirs {
				if st, err := os.Stat(dir); err == nil && st.IsDir() {
					showRack(t, dir, statedir.MemoryPath(filepath.Join(d.run, "dinos"), strings.TrimPrefix(filepath.Base(dir), "rack-")))
				}
			}
		}
		d.do("", "down", "--all")
		left, _ := filepath.Glob(filepath.Join(d.run, "dinos", "*"))
		require.Empty(t, left)
	})
	return d
}

// do runs one command line.
func (d *tool) do(stdin string, args ...string) (stdout, stderr string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*rackPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(d.bin, "dinos"), args...)
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+d.run, "XDG_STATE_HOME="+d.run, "DINOS_RACK=")
	cmd.Stdin = strings.NewReader(stdin)
	var out, diag bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diag
	err = cmd.Run()
	return out.String(), diag.String(), err
}

// must runs one that works.
func (d *tool) must(args ...string) string {
	d.t.Helper()
	out, diag, err := d.do("", args...)
	require.NoError(d.t, err, "%v: %s", args, diag)
	return out
}

// TestUpPrompt is what make qemu-run does when its input is a pipe.
func TestUpPrompt(t *testing.T) {
	d := newTool(t)
	out, diag, err := d.do("status --check\nkill dkernel2\nstatus\nrestart dkernel2\nstatus --check\n", "up", "-i", "--shmem", "256M")
	require.NoError(t, err, "%s%s", out, diag)
	require.Contains(t, diag, `rack "rack" is up after`)
	parts := strings.Split(out, "rack> ")
	require.Len(t, parts, 6, out)
	require.Contains(t, parts[1], "check: ")
	require.Contains(t, parts[3], "dkernel2: killed")
	require.Contains(t, parts[5], "check: ")
	require.NotContains(t, parts[5], "dkernel2: killed")
	_, diag, err = d.do("", "status")
	require.Error(t, err)
	require.Contains(t, diag, "none runs", "the rack ended with its prompt")
}

// TestUpLauncherKilled: a launcher that is killed takes its machines along, and the next start removes the rest.
func TestUpLauncherKilled(t *testing.T) {
	d := newTool(t)
	var s racks.Status
	up := func() {
		d.must("up", "--dkernels", "1", "--shmem", "256M")
		require.NoError(t, json.Unmarshal([]byte(d.must("status", "--json")), &s))
	}
	up()
	_, diag, err := d.do("", "up", "--dkernels", "1")
	require.Error(t, err)
	require.Contains(t, diag, "a rack of this name runs already")
	pids := []int{s.Kernels[0].PID, s.Kernels[1].PID}
	memory, first := s.Memory, s.Generation
	require.NoError(t, syscall.Kill(s.Launcher, syscall.SIGKILL))
	for _, pid := range pids {
		rackUntil(t, fmt.Sprintf("process %d is gone", pid), func() bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) || zombie(pid) })
	}
	require.FileExists(t, memory)
	require.Contains(t, d.must("dump", "super"), fmt.Sprintf("rack generation %d", first), "a dead rack can be looked at")
	require.Contains(t, d.must("log", "-n", "0", "dkernel1"), "main after")
	up()
	require.NotEqual(t, first, s.Generation)
	d.must("down")
	require.NoFileExists(t, memory)
}

// zombie reports whether a process has ended and only waits for its parent to notice, which may be an init that does not.
func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(b), ") ")
	return err == nil && strings.HasPrefix(rest, "Z")
}

// TestUpRefused: a kernel that does not come up is named, with what it said.
func TestUpRefused(t *testing.T) {
	d := newTool(t)
	_, diag, err := d.do("", "up", "--append", "dinos.peer=7", "--shmem", "256M")
	require.Error(t, err)
	require.Regexp(t, `dinos: (ckernel|dkernel[12]): refused to boot`, diag)
	require.Contains(t, diag, "given twice")
	require.Regexp(t, `--- console of (ckernel|dkernel[12]), last lines`, diag)
}
