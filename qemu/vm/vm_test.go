package vm

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/boot/image"
	"dinos/kernel/testproto"
)

// guest builds the test kernel once and returns the path of its image.
var guest = sync.OnceValues(func() (string, error) {
	in, out := filepath.Join(scratch, "guest.elf"), filepath.Join(scratch, "guest.img")
	cmd := exec.Command("go", "build", "-ldflags", "-T -0x7fe00000 -E entry64", "-o", in, "./testdata/guest")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return "", err
	}
	elf, err := os.ReadFile(in)
	if err != nil {
		return "", err
	}
	img, _, err := image.Rewrite(elf, image.Options{Record: "main.Record"})
	if err != nil {
		return "", err
	}
	return out, os.WriteFile(out, img, 0o644)
})

var scratch string

func TestMain(m *testing.M) {
	if img := os.Getenv(ownerEnv); img != "" {
		owner(img)
	}
	dir, err := os.MkdirTemp("", "dinos-vm-test")
	if err != nil {
		panic(err)
	}
	scratch = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// start boots the test kernel with one letter of instructions; see testdata/guest.
func start(t *testing.T, what string, edit func(*Config)) *VM {
	t.Helper()
	if _, err := exec.LookPath(defaultBinary); err != nil {
		t.Skip("QEMU is not installed")
	}
	img, err := guest()
	require.NoError(t, err)
	cfg := Config{Name: t.Name(), Image: img, Append: what, Memory: 64 << 20}
	if edit != nil {
		edit(&cfg)
	}
	v, err := Start(cfg)
	require.NoError(t, err)
	t.Cleanup(v.Close)
	return v
}

func deadline(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// patience is far more than any guest here needs, on a busy host.
const patience = 60 * time.Second

func TestPass(t *testing.T) {
	for _, m := range []Machine{MicroVM, Q35, PC} {
		for _, cpus := range []int{1, 3} {
			t.Run(string(m), func(t *testing.T) {
				v := start(t, "pass", func(c *Config) { c.Machine, c.CPUs = m, cpus })
				e, err := v.Wait(deadline(t, patience))
				require.NoError(t, err)
				require.Equal(t, testproto.ExitPass, e)
				require.Equal(t, []string{"hello", "pass"}, v.Console().Tail())
			})
		}
	}
}

func TestGuestFailures(t *testing.T) {
	for _, c := range []struct {
		what    string
		failure Failure
		text    string
	}{
		{"fail", Failed, "reported failure"},
		{"crash", Crashed, "crashed"},
		{"refuse", Refused, "refused to boot"},
		{"other", Exited, "with 0x55, which means nothing"},
		{"triple", Reset, "triple fault"},
	} {
		t.Run(c.what, func(t *testing.T) {
			v := start(t, c.what, nil)
			_, err := v.Wait(deadline(t, patience))
			var g *GuestError
			require.ErrorAs(t, err, &g)
			require.Equal(t, c.failure, g.Failure)
			require.ErrorContains(t, err, c.text)
			require.Equal(t, []string{"hello", c.what}, g.Console)
			var h *HostError
			require.False(t, errors.As(err, &h))
		})
	}
}

// TestRefusedBoot: the trampoline's refusals arrive as such.
func TestRefusedBoot(t *testing.T) {
	for cpu, want := range map[string]string{
		"max,-lm": "CPU lacks long mode", "max,-nx": "CPU lacks NX", "max,-sse2": "CPU lacks SSE2",
		"max,-syscall": "CPU lacks SYSCALL", "max,-pge": "CPU lacks PGE", "486": "CPU lacks PAE",
	} {
		t.Run(cpu, func(t *testing.T) {
			v := start(t, "pass", func(c *Config) { c.CPU, c.Accel = cpu, &Accel{Why: "TCG: as tested"} })
			_, err := v.Wait(deadline(t, patience))
			var g *GuestError
			require.ErrorAs(t, err, &g)
			require.Equal(t, Refused, g.Failure)
			require.Len(t, g.Console, 1)
			require.Contains(t, g.Console[0], "dinos: boot: "+want)
		})
	}
	v := start(t, "pass", func(c *Config) { c.Memory = 2 << 20 })
	_, err := v.Wait(deadline(t, patience))
	require.ErrorContains(t, err, "dinos: boot: too little RAM: the image ends at")
}

func TestHang(t *testing.T) {
	v := start(t, "spin", nil)
	_, _, err := v.Console().Find(deadline(t, patience), 0, func(s string) bool { return s == "in" }) // the loop
	require.NoError(t, err)
	_, err = v.Wait(deadline(t, 10*time.Millisecond))
	var g *GuestError
	require.ErrorAs(t, err, &g)
	require.Equal(t, Hung, g.Failure)
	require.Contains(t, g.Dump, "was running")
	require.Contains(t, g.Dump, "vCPU 0: running, CPL 0")
	// The guest calls outer → inner → spin, with frame pointers.
	at := -1
	for _, fn := range []string{"spin+0x", "inner+0x", "outer+0x"} {
		next := strings.Index(g.Dump, fn)
		require.Greater(t, next, at, "%s in\n%s", fn, g.Dump)
		at = next
	}
	require.Contains(t, g.Dump, "entry_amd64.s:")
	require.Contains(t, g.Dump, "R15=")
	require.NotContains(t, g.Dump, "XMM")
	requireGone(t, v.PID())
}

// TestHaltedDump: a halted vCPU without frame pointers shows the code addresses on its stack.
func TestHaltedDump(t *testing.T) {
	v := start(t, "halt", nil)
	_, _, err := v.Console().Find(deadline(t, patience), 0, func(s string) bool { return s == "halt" })
	require.NoError(t, err)
	var dump string
	require.Eventually(t, func() bool {
		require.NoError(t, v.Monitor().Run(deadline(t, patience), "cont", nil, nil))
		dump, err = v.Dump(deadline(t, patience))
		return err == nil && strings.Contains(dump, "halted")
	}, patience, 10*time.Millisecond)
	require.Contains(t, dump, "entry64+0x")
	require.Regexp(t, `entry64\+0x\w+ entry_amd64.s:\d+ \?`, dump)
}

func TestCancel(t *testing.T) {
	v := start(t, "spin", nil)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := v.Wait(ctx)
	var h *HostError
	require.ErrorAs(t, err, &h)
	require.ErrorIs(t, err, context.Canceled)
	requireGone(t, v.PID())
	_, err = v.Wait(context.Background())
	require.ErrorIs(t, err, errKilled)
	require.ErrorIs(t, v.Monitor().Run(deadline(t, patience), "query-status", nil, nil), errMonitorClosed)
}

func TestEcho(t *testing.T) {
	var tee strings.Builder
	v := start(t, "echo", func(c *Config) { c.Output = &tee })
	_, n, err := v.Console().Find(deadline(t, patience), 0, func(s string) bool { return s == "echo" })
	require.NoError(t, err)
	_, err = v.Input().Write([]byte("how do you do\n."))
	require.NoError(t, err)
	line, err := v.Console().Line(deadline(t, patience), n+1)
	require.NoError(t, err)
	require.Equal(t, "how do you do", line)
	_, err = v.Wait(deadline(t, patience))
	require.NoError(t, err)
	require.Equal(t, "hello\r\necho\r\nhow do you do\n.", tee.String())
}

func TestMonitor(t *testing.T) {
	v := start(t, "spin", func(c *Config) { c.Paused = true })
	var status struct{ Status string }
	require.NoError(t, v.Monitor().Run(deadline(t, patience), "query-status", nil, &status))
	require.Equal(t, "prelaunch", status.Status)
	var q *QMPError
	require.ErrorAs(t, v.Monitor().Run(deadline(t, patience), "no-such-command", nil, nil), &q)
	require.Equal(t, "CommandNotFound", q.Class)
	require.Error(t, v.Monitor().Run(deadline(t, patience), "query-status", nil, new(int)))
	require.Empty(t, v.Console().Tail())
	require.NoError(t, v.Monitor().Run(deadline(t, patience), "quit", nil, nil))
	_, err := v.Wait(deadline(t, patience))
	require.ErrorContains(t, err, "told to quit")
}

func TestHostErrors(t *testing.T) {
	start(t, "pass", nil).Close() // skips without QEMU
	img, err := guest()
	require.NoError(t, err)
	for _, c := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"no image", Config{}, "no image"},
		{"image missing", Config{Image: "/nowhere"}, "image: open /nowhere: no such file"},
		{"image is a directory", Config{Image: scratch}, "is not a regular file"},
		{"initrd missing", Config{Image: img, Initrd: "/nowhere"}, "initrd: open /nowhere"},
		{"machine", Config{Image: img, Machine: "virt"}, `machine "virt", want microvm, q35 or pc`},
		{"vCPUs", Config{Image: img, CPUs: 65}, "65 vCPUs, want 1 to 64"},
		{"negative", Config{Image: img, CPUs: -1}, "-1 vCPUs"},
		{"memory", Config{Image: img, Memory: 1<<20 + 1}, "1048577 bytes of memory"},
		{"command line", Config{Image: img, Append: strings.Repeat("x", 4096)}, "command line of 4096 bytes"},
		{"control character", Config{Image: img, Append: "a\nb"}, "control characters"},
		{"no QEMU", Config{Image: img, Binary: "no-such-qemu"}, "install qemu-system-x86"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Start(c.cfg)
			var h *HostError
			require.ErrorAs(t, err, &h)
			require.ErrorContains(t, err, c.want)
		})
	}
	// What only QEMU can refuse comes with its words, from Start or from Wait.
	v, err := Start(Config{Image: img, Devices: []string{"no-such-device"}})
	if err == nil {
		_, err = v.Wait(deadline(t, patience))
	}
	var h *HostError
	require.ErrorAs(t, err, &h)
	require.ErrorContains(t, err, "no-such-device")
}

func requireGone(t *testing.T, pid int) {
	t.Helper()
	_, err := os.Stat(filepath.Join("/proc", strconv.Itoa(pid)))
	require.ErrorIs(t, err, os.ErrNotExist)
}
