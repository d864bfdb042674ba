package statedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// newBase is a base with a path that is short enough for sockets.
func newBase(t *testing.T) string {
	base, err := os.MkdirTemp("", "dsd")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(base) })
	return base
}

// sleeper starts a process that does nothing for long.
func sleeper(t *testing.T) (*exec.Cmd, Process) {
	cmd := exec.Command("sleep", "1000")
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	p, err := NewProcess(cmd.Process.Pid)
	require.NoError(t, err)
	return cmd, p
}

func TestCheckName(t *testing.T) {
	for _, good := range []string{"rack", "r2-d2", "0", strings.Repeat("a", 31)} {
		require.NoError(t, CheckName(good))
	}
	for _, bad := range []string{"", "-a", "A", "a b", "../x", "a.lock", "a\n", "ü", strings.Repeat("a", 32)} {
		require.ErrorIs(t, CheckName(bad), ErrName, "%q", bad)
		_, err := Create(newBase(t), bad)
		require.ErrorIs(t, err, ErrName)
	}
}

func TestLife(t *testing.T) {
	base := newBase(t)
	d, err := Create(base, "one")
	require.NoError(t, err)
	self, err := NewProcess(os.Getpid())
	require.NoError(t, err)
	s := &State{Name: "one", Generation: 7, Boot: BootID(), Launcher: self, Memory: MemoryPath(base, "one")}
	require.NoError(t, d.Save(s))
	require.NoError(t, os.WriteFile(s.Memory, []byte("x"), 0o600))

	_, err = Create(base, "one")
	require.ErrorIs(t, err, ErrRunning)
	require.ErrorContains(t, err, fmt.Sprintf("process %d", os.Getpid()))
	require.ErrorIs(t, Remove(base, "one"), ErrRunning)
	require.True(t, Running(base, "one"))
	require.False(t, Running(base, "two"))

	two, err := Create(base, "two")
	require.NoError(t, err, "another name is another rack")
	list, err := List(base)
	require.NoError(t, err)
	require.Equal(t, []Entry{{"one", true}, {"two", true}}, list)
	got, err := Load(base, "one")
	require.NoError(t, err)
	require.Equal(t, uint64(7), got.Generation)
	_, err = Load(base, "three")
	require.ErrorIs(t, err, ErrNone)

	require.NoError(t, two.Close(false))
	require.NoError(t, d.Close(false))
	require.NoFileExists(t, s.Memory)
	left, err := os.ReadDir(base)
	require.NoError(t, err)
	require.Empty(t, left)
	require.ErrorIs(t, Remove(base, "one"), ErrNone)
}

// die leaves the rack as its launcher's death would: nobody holds the lock any more.
func die(d *Dir) { d.lock.Close() }

// TestSweep: the next rack, whatever its name, kills the processes of dead ones and removes their files.
func TestSweep(t *testing.T) {
	base := newBase(t)
	cmd, p := sleeper(t)
	d, err := Create(base, "dead")
	require.NoError(t, err)
	memory := MemoryPath(base, "dead")
	require.NoError(t, os.WriteFile(memory, nil, 0o600))
	require.NoError(t, d.Save(&State{Name: "dead", Boot: BootID(), Kernels: []Kernel{{1, "dkernel1", p}}, Memory: memory}))
	die(d)
	list, err := List(base)
	require.NoError(t, err)
	require.Equal(t, []Entry{{"dead", false}}, list)

	next, err := Create(base, "next")
	require.NoError(t, err)
	err = cmd.Wait()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, "signal: killed", exit.Error())
	require.NoFileExists(t, memory)
	require.NoDirExists(t, d.Path)
	require.NoError(t, next.Close(false))
}

// TestOthersLive: a process that only has the number of one of the rack's, or ran before the host was booted, is not touched.
func TestOthersLive(t *testing.T) {
	base := newBase(t)
	_, p := sleeper(t)
	other := p
	other.Start++
	for name, s := range map[string]*State{
		"later":  {Boot: BootID(), Kernels: []Kernel{{0, "ckernel", other}}},
		"reboot": {Boot: "another", Kernels: []Kernel{{0, "ckernel", p}}},
		"init":   {Boot: BootID(), Kernels: []Kernel{{0, "ckernel", Process{PID: 1}}, {1, "dkernel1", Process{PID: -1}}, {2, "dkernel2", Process{}}}},
	} {
		d, err := Create(base, name)
		require.NoError(t, err)
		s.Name = name
		require.NoError(t, d.Save(s))
		die(d)
		require.NoError(t, Remove(base, name))
		require.True(t, p.alive(BootID()), name)
	}
}

// TestDamagedState: nothing in state.json stops the cleaning, nor makes it touch other files.
func TestDamagedState(t *testing.T) {
	base := newBase(t)
	precious := filepath.Join(base, "precious")
	require.NoError(t, os.WriteFile(precious, nil, 0o600))
	for _, text := range []string{"", "{", "null", `{"Name":"other"}`, fmt.Sprintf(`{"Name":"r","Memory":%q}`, precious)} {
		d, err := Create(base, "r")
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(d.Join(stateName), []byte(text), 0o600))
		die(d)
		require.NoError(t, Remove(base, "r"), "%s", text)
		require.NoDirExists(t, d.Path)
		require.FileExists(t, precious)
	}
}

func TestKeep(t *testing.T) {
	base := newBase(t)
	d, err := Create(base, "kept")
	require.NoError(t, err)
	require.NoError(t, d.Save(&State{Name: "kept", Keep: true}))
	memory := MemoryPath(base, "kept")
	require.NoError(t, os.WriteFile(memory, nil, 0o600))
	require.NoError(t, d.Close(true))
	other, err := Create(base, "other")
	require.NoError(t, err)
	defer other.Close(false)
	require.FileExists(t, memory, "another rack leaves it alone")
	_, err = Load(base, "kept")
	require.NoError(t, err)
	d, err = Create(base, "kept")
	require.NoError(t, err)
	require.NoFileExists(t, memory, "the next one of that name does not")
	require.NoError(t, d.Close(false))
}

// TestOneOwner: of many who want a name at a time one has it, and nobody who only looks takes it away.
func TestOneOwner(t *testing.T) {
	base := newBase(t)
	var owners, won atomic.Int32
	stop := make(chan struct{})
	var look, run sync.WaitGroup
	look.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				Running(base, "r")
				List(base)
			}
		}
	})
	for range 8 {
		run.Go(func() {
			for range 20 {
				d, err := Create(base, "r")
				if err != nil {
					if !errors.Is(err, ErrRunning) {
						t.Error(err)
					}
					continue
				}
				if n := owners.Add(1); n != 1 {
					t.Errorf("%d owners", n)
				}
				won.Add(1)
				owners.Add(-1)
				if err := d.Close(false); err != nil {
					t.Error(err)
				}
			}
		})
	}
	run.Wait()
	close(stop)
	look.Wait()
	require.Equal(t, int32(160), won.Load(), "who finds the name taken by one that goes waits")
}

func TestBase(t *testing.T) {
	dir := newBase(t)
	t.Setenv("XDG_RUNTIME_DIR", dir)
	base, err := Base()
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, "dinos"), base)
	st, err := os.Stat(base)
	require.NoError(t, err)
	require.Equal(t, fs.ModeDir|0o700, st.Mode())
	require.NoError(t, os.Chmod(base, 0o755))
	_, err = Base()
	require.ErrorContains(t, err, "mode 0700")
	require.NoError(t, os.Chmod(base, 0o700))
	_, err = Create(filepath.Join(base, strings.Repeat("x", 90)), "r")
	require.ErrorContains(t, err, "control socket")
}

func TestCPUTime(t *testing.T) {
	p, err := NewProcess(os.Getpid())
	require.NoError(t, err)
	before, err := p.CPUTime()
	require.NoError(t, err)
	for start := time.Now(); time.Since(start) < 10*time.Second; {
		if now, err := p.CPUTime(); err != nil || now > before {
			require.NoError(t, err)
			break
		}
	}
	after, err := p.CPUTime()
	require.NoError(t, err)
	require.Greater(t, after, before)
	p.Start++
	_, err = p.CPUTime()
	require.ErrorIs(t, err, fs.ErrNotExist)
}
