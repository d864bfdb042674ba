package rack

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/qemu/rack/control"
	"dinos/qemu/rack/statedir"
)

// launcherArg makes the test binary a launcher of a rack of fakes; the argument behind it is the kernel that hangs, or "none".
const launcherArg = "launcher-of-fakes"

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == launcherArg {
		f := newFleet()
		f.plans[os.Args[2]] = []plan{hang}
		if err := serveLauncher(f.start); err != nil {
			fmt.Fprintln(os.Stderr, "launcher:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// spawn starts a launcher process.
func spawn(t *testing.T, ctx context.Context, cfg Config, hangs string) (*Remote, error) {
	self, err := os.Executable()
	require.NoError(t, err)
	return Spawn(ctx, self, []string{launcherArg, hangs}, cfg, nil)
}

// empty fails if anything is left of racks in base.
func empty(t *testing.T, cfg Config) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(cfg.Base, "rack-*"))
	require.NoError(t, err)
	require.Empty(t, left)
	require.NoFileExists(t, statedir.MemoryPath(cfg.Base, cfg.Name))
}

func TestLauncher(t *testing.T) {
	cfg := config(t, newFleet())
	r, err := spawn(t, within(t), cfg, "none")
	require.NoError(t, err)
	s, err := r.Status(within(t), true)
	require.NoError(t, err)
	require.True(t, s.Check.Clean)
	require.NotEqual(t, os.Getpid(), s.Launcher)
	require.NoError(t, r.Kill(within(t), "dkernel1"))
	require.NoError(t, r.Restart(within(t), "dkernel1"))

	_, err = spawn(t, within(t), cfg, "none")
	var e *control.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, control.CodeConflict, e.Code)
	require.ErrorContains(t, err, fmt.Sprintf("process %d", s.Launcher))

	require.NoError(t, r.Down(within(t), true))
	require.FileExists(t, statedir.MemoryPath(cfg.Base, cfg.Name), "kept")
	_, err = Connect(cfg.Base, cfg.Name)
	require.ErrorContains(t, err, "is dead")
	require.NoError(t, statedir.Remove(cfg.Base, cfg.Name))
	empty(t, cfg)
}

// TestLauncherKilled: what a killed launcher leaves goes with the next rack, and its name is free.
func TestLauncherKilled(t *testing.T) {
	cfg := config(t, newFleet())
	r, err := spawn(t, within(t), cfg, "none")
	require.NoError(t, err)
	s, err := r.Status(within(t), false)
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(s.Launcher, syscall.SIGKILL))
	eventually(t, "the name is free", func() bool { return !statedir.Running(cfg.Base, cfg.Name) })
	_, err = r.Status(within(t), false)
	require.ErrorIs(t, err, control.ErrNoServer)
	require.FileExists(t, statedir.MemoryPath(cfg.Base, cfg.Name), "for those who want to look")

	next := cfg
	next.Name, next.Dkernels = "next", NoDkernels
	n, err := spawn(t, within(t), next, "none")
	require.NoError(t, err)
	require.NoFileExists(t, statedir.MemoryPath(cfg.Base, cfg.Name))
	require.NoDirExists(t, statedir.Path(cfg.Base, cfg.Name))
	s, err = n.Status(within(t), false)
	require.NoError(t, err)
	require.Len(t, s.Kernels, 1)
	r, err = spawn(t, within(t), cfg, "none")
	require.NoError(t, err)
	require.NoError(t, n.Down(within(t), false))
	require.NoError(t, r.Down(within(t), false))
	empty(t, cfg)
}

// TestLauncherTold: a signal ends the rack in order.
func TestLauncherTold(t *testing.T) {
	cfg := config(t, newFleet())
	r, err := spawn(t, within(t), cfg, "none")
	require.NoError(t, err)
	s, err := r.Status(within(t), false)
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(s.Launcher, syscall.SIGTERM))
	eventually(t, "the rack has ended", func() bool { return !statedir.Running(cfg.Base, cfg.Name) })
	empty(t, cfg)
}

// TestLauncherFails: the error comes from the launcher, or its end does; nothing stays.
func TestLauncherFails(t *testing.T) {
	cfg := config(t, newFleet())
	cfg.BootTimeout = 300 * time.Millisecond
	_, err := spawn(t, within(t), cfg, "dkernel2")
	var e *control.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, control.CodeGuest, e.Code)
	require.ErrorContains(t, err, "dkernel2: not a member of the rack")
	require.ErrorContains(t, err, "--- console of dkernel2, last lines\ndinos dkernel2: main")
	eventually(t, "nothing stays", func() bool { return !statedir.Running(cfg.Base, cfg.Name) })
	empty(t, cfg)

	// Whoever started it loses patience.
	cfg.BootTimeout = patience
	ctx, cancel := context.WithTimeout(within(t), 200*time.Millisecond)
	defer cancel()
	_, err = spawn(t, ctx, cfg, "dkernel2")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	empty(t, cfg)

	_, err = Spawn(within(t), "/bin/true", nil, cfg, nil)
	require.ErrorContains(t, err, "ended without saying why")
	_, err = Spawn(within(t), "/none", nil, cfg, nil)
	require.ErrorContains(t, err, "start the launcher")
	cfg.Name = "A"
	_, err = Spawn(within(t), "/none", nil, cfg, nil)
	require.ErrorContains(t, err, "bad rack name")
}

// TestHold: the rack ends with who holds it.
func TestHold(t *testing.T) {
	cfg := config(t, newFleet())
	r, err := spawn(t, within(t), cfg, "none")
	require.NoError(t, err)
	release, err := r.Hold(context.Background())
	require.NoError(t, err)
	_, err = r.Status(within(t), false)
	require.NoError(t, err)
	release()
	eventually(t, "the rack has ended", func() bool { return !statedir.Running(cfg.Base, cfg.Name) })
	empty(t, cfg)
}
