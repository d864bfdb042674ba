package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/qemu/rack"
	"dinos/qemu/rack/control"
	"dinos/qemu/rack/statedir"
	"dinos/shmem/grant"
	"dinos/shmem/layout"
	"dinos/shmem/region"
)

// newRun gives the test racks of its own.
func newRun(t *testing.T) (base string) {
	dir, err := os.MkdirTemp("", "drt")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	t.Setenv("XDG_RUNTIME_DIR", dir)
	t.Setenv("XDG_STATE_HOME", dir)
	t.Setenv(nameVariable, "")
	base, err = statedir.Base()
	require.NoError(t, err)
	return base
}

// fakeLauncher is a rack whose launcher answers from handlers.
func fakeLauncher(t *testing.T, base, name string, handlers map[string]control.Handler) *statedir.Dir {
	d, err := statedir.Create(base, name)
	require.NoError(t, err)
	require.NoError(t, d.Save(&statedir.State{Name: name}))
	s, err := control.Listen(d.Join(statedir.ControlName), handlers)
	require.NoError(t, err)
	t.Cleanup(func() { s.Close(); d.Close(false) })
	return d
}

func status(ctx context.Context, s *control.Session) (any, error) {
	var a struct{ Check bool }
	if err := s.Args(&a); err != nil {
		return nil, err
	}
	st := &rack.Status{Rack: "r", State: "up", Accelerator: "TCG: a test", UptimeMs: 1234, Shared: 2 << 30, Ckernel: "answers", Slices: 955, FreeSlices: 900,
		FreeCores: 3, Kernels: []rack.KernelStatus{
			{Name: "ckernel", Machine: "running", State: "up", Member: "up", Cores: 2, Generation: 1, UptimeMs: 1000, BeatMs: 7, PID: 42},
			{Name: "dkernel1", Machine: "paused", State: "up", Member: "up", Cores: 2, CoresHeld: 1, SlicesHeld: 55, Generation: 3, BeatMs: -1, PID: 43},
			{Name: "dkernel2", Machine: "gone", State: "gone", Ended: "killed", EndedMs: 2500, Generation: 1},
		}}
	if a.Check {
		st.Check = &rack.Check{Ckernel: []string{"slice 7 has two owners"}, Host: []string{}}
	}
	return st, nil
}

func TestStatusCommand(t *testing.T) {
	base := newRun(t)
	_, err := dinos("", "status")
	require.ErrorContains(t, err, "start one with 'dinos up'")
	fakeLauncher(t, base, "r", map[string]control.Handler{"status": status})
	out, err := dinos("", "status")
	require.NoError(t, err)
	for _, want := range []string{`rack "r" up for 1.2s, TCG: a test`, "shared memory 2G: 900 of 955 slices free; 3 cores free",
		"ckernel   up      up      0/2    0       0          1           1s      7 ms  42", "dkernel1  paused  up      1/2    55", "dkernel2  gone    -",
		"dkernel2: killed, 2.5s ago"} {
		require.Contains(t, out, want)
	}
	out, err = dinos("", "status", "--json", "--name", "r")
	require.NoError(t, err)
	var s rack.Status
	require.NoError(t, json.Unmarshal([]byte(out), &s))
	require.Equal(t, uint64(55), s.Kernels[1].SlicesHeld)
	out, err = dinos("", "status", "--check")
	require.ErrorIs(t, err, errUnclean)
	require.Equal(t, exitGuest, exitStatus(err))
	require.Contains(t, out, "! ckernel: slice 7 has two owners")

	_, err = dinos("", "status", "--name", "other")
	require.ErrorIs(t, err, statedir.ErrNone)
	_, err = dinos("", "status", "--name", "../x")
	require.ErrorIs(t, err, statedir.ErrName)
	fakeLauncher(t, base, "s", nil)
	_, err = dinos("", "status")
	require.ErrorContains(t, err, "choose with --name one of r, s")
	out, err = dinos("", "racks")
	require.NoError(t, err)
	require.Equal(t, "r  running\ns  running\n", out)
}

func TestKernelCommands(t *testing.T) {
	base := newRun(t)
	var asked []string
	note := func(_ context.Context, s *control.Session) (any, error) {
		var a struct{ Kernel string }
		if err := s.Args(&a); err != nil {
			return nil, err
		}
		asked = append(asked, s.Command+" "+a.Kernel)
		if a.Kernel == "dkernel9" {
			return nil, control.Errorf(control.CodeNotFound, "no such kernel: dkernel9")
		}
		return "dkernel3", nil
	}
	h := map[string]control.Handler{"sched": func(_ context.Context, s *control.Session) (any, error) {
		var a struct{ Do, Name, Text string }
		err := s.Args(&a)
		return fmt.Sprintf("%s %q %q", a.Do, a.Name, a.Text), err
	}}
	for _, name := range []string{"kill", "stop", "pause", "resume", "restart", "add-dkernel"} {
		h[name] = note
	}
	fakeLauncher(t, base, "r", h)
	for _, args := range [][]string{{"kill", "dkernel1", "dkernel2"}, {"stop", "dkernel1"}, {"pause", "dkernel1"}, {"resume", "dkernel1"}, {"restart", "ckernel"}} {
		_, err := dinos("", args...)
		require.NoError(t, err)
	}
	out, err := dinos("", "add-dkernel")
	require.NoError(t, err)
	require.Equal(t, "dkernel3\n", out)
	_, err = dinos("", "kill", "dkernel9", "dkernel1")
	require.ErrorContains(t, err, "no such kernel: dkernel9")
	require.Equal(t, []string{"kill dkernel1", "kill dkernel2", "stop dkernel1", "pause dkernel1", "resume dkernel1", "restart ckernel", "add-dkernel ",
		"kill dkernel9"}, asked)
	_, err = dinos("", "kill")
	require.ErrorContains(t, err, "requires at least 1 arg")

	policy := filepath.Join(t.TempDir(), "mine.sql")
	require.NoError(t, os.WriteFile(policy, []byte("POLICY"), 0o600))
	for want, args := range map[string][]string{
		`show "" ""`: {"show"}, `show "dump" ""`: {"show", "--text"}, `show "ours" ""`: {"show", "--policy", "ours"}, `show "policy" ""`: {"show", "--policy", ""},
		`set "mine" "POLICY"`: {"set", policy}, `explain "" ""`: {"explain"}, `explain "" "POLICY"`: {"explain", "--requests", policy},
	} {
		out, err := dinos("", append([]string{"sched"}, args...)...)
		require.NoError(t, err)
		require.Equal(t, want+"\n", out)
	}
	_, err = dinos("", "sched", "set", "--check", policy)
	require.ErrorContains(t, err, "bad policy (mine)", "that is no policy, as this program itself finds")
}

// TestSchedWithoutRack: the commands on files do not need one.
func TestSchedWithoutRack(t *testing.T) {
	newRun(t)
	out, err := dinos("", "sched", "show", "--text")
	require.NoError(t, err)
	state := filepath.Join(t.TempDir(), "state")
	require.NoError(t, os.WriteFile(state, []byte(out), 0o600))
	_, err = dinos("", "sched", "show", state)
	require.NoError(t, err)
	_, err = dinos("", "sched", "explain")
	require.ErrorContains(t, err, "a running rack is asked")
}

func TestTop(t *testing.T) {
	base := newRun(t)
	n := uint64(0)
	fakeLauncher(t, base, "r", map[string]control.Handler{"sample": func(context.Context, *control.Session) (any, error) {
		n++
		return &rack.Sample{Rack: "r", TimeNs: int64(n * 2e9), Slices: 10, FreeSlices: 4, Kernels: []rack.KernelSample{
			{Name: "ckernel", State: "up", Generation: 1, Cores: 2, CPUNs: int64(n * 1e9), Stats: map[string]uint64{"calls": 1000 * n, "served": 5e6 * n, "idle_ns": n * 3e9}},
			{Name: "dkernel1", State: "up", Generation: n, Cores: 2, Stats: map[string]uint64{"calls": 500}},
		}, Logs: []rack.LogSample{{Log: 3, Head: 5, Completed: 90 * n, Tail: 100 * n, Replicas: []rack.ReplicaSample{{Slot: 2, State: "joining", At: 7}, {Slot: 0, State: "live", At: 100 * n}}}}}, nil
	}})
	out, err := dinos("", "top", "--once", "-d", "10ms")
	require.NoError(t, err)
	lines := strings.Split(out, "\n")
	require.Equal(t, `rack "r", up 4s, 4 of 10 slices free`, lines[0])
	fields := func(line string) string { return strings.Join(strings.Fields(line), " ") }
	require.Contains(t, fields(lines[2]), "ckernel up 0/2 0 50 % 25 % 500 2.5M")
	require.Contains(t, fields(lines[3]), "dkernel1 up 0/2 0 0 % - 250", "a new life counts from 0")
	require.Equal(t, "3 5 180 200 50 0:0, 2:193 joining", fields(lines[6]))
	_, err = dinos("", "top", "-d", "1ms")
	require.ErrorContains(t, err, "want at least 10ms")
}

func TestShort(t *testing.T) {
	for want, v := range map[string]float64{"0": 0, "7": 7, "1.5": 1.5, "12": 12.3, "999": 999, "1k": 1000, "1.2k": 1234, "57M": 57e6, "1000T": 1e15} {
		require.Equal(t, want, short(v))
	}
}

func TestLog(t *testing.T) {
	base := newRun(t)
	d := fakeLauncher(t, base, "r", nil)
	write := func(name, text string) {
		f, err := os.OpenFile(d.Join(name+".log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		require.NoError(t, err)
		_, err = f.WriteString(text)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	write("ckernel", "one\r\ntwo\r\nthree\r\n")
	write("dkernel1", "hello\nwor")
	write("events", "{}\n")
	out, err := dinos("", "log", "-n", "2")
	require.NoError(t, err)
	require.Equal(t, "ckernel: two\nckernel: three\ndkernel1: hello\ndkernel1: wor\n", out)
	out, err = dinos("", "log", "-n", "0", "ckernel")
	require.NoError(t, err)
	require.Equal(t, "one\ntwo\nthree\n", out)
	out, err = dinos("", "log", "events")
	require.NoError(t, err)
	require.Equal(t, "{}\n", out)
	_, err = dinos("", "log", "dkernel7")
	require.ErrorContains(t, err, `no log of "dkernel7"; there are ckernel, dkernel1, launcher, events`)
	_, err = dinos("", "log", "../../x")
	require.ErrorContains(t, err, "no log of")

	r, w := io.Pipe()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	done := make(chan error)
	go func() {
		err := showLogs(ctx, w, d.Path, "r", nil, 1, true)
		w.Close()
		done <- err
	}()
	next := func() string {
		b := make([]byte, 100)
		n, err := r.Read(b)
		require.NoError(t, err)
		return string(b[:n])
	}
	require.Equal(t, "ckernel: three\n", next())
	require.Equal(t, "dkernel1: wor\n", next())
	write("dkernel1", "ld\n")
	require.Equal(t, "dkernel1: ld\n", next())
	write("ckernel", "fo")
	write("ckernel", "ur\n")
	require.Equal(t, "ckernel: four\n", next())
	require.NoError(t, os.Rename(d.Join("ckernel.log"), d.Join("ckernel.log.1")))
	write("ckernel", "five\n")
	require.Equal(t, "ckernel: five\n", next())
	write("dkernel2", "new\n")
	require.Equal(t, "dkernel2: new\n", next())
	require.NoError(t, os.RemoveAll(d.Path))
	require.NoError(t, <-done, "the rack has ended")
}

func TestDump(t *testing.T) {
	base := newRun(t)
	d := fakeLauncher(t, base, "r", nil)
	_, err := dinos("", "dump")
	require.ErrorContains(t, err, `rack "r" has no memory any more`)
	b := region.Slab(64 << 20)
	mem, err := region.New(b)
	require.NoError(t, err)
	k, err := layout.Format(mem, layout.Config{Machines: 3, Logs: 2}, 77)
	require.NoError(t, err)
	_, err = grant.Format(k, true)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(statedir.MemoryPath(base, "r"), b, 0o600))
	out, err := dinos("", "dump")
	require.NoError(t, err)
	for _, want := range []string{"rack generation 77", "map: 67108864 bytes", "machine 2 (dkernel2)", "grant table: magic"} {
		require.Contains(t, out, want)
	}
	out, err = dinos("", "dump", "machine:1", "log:0", "ring:1:0")
	require.NoError(t, err)
	require.Contains(t, out, "log 0 at")
	require.Contains(t, out, "no log:")
	require.Contains(t, out, "ring dkernel1 to ckernel")
	_, err = dinos("", "dump", "nothing")
	require.ErrorContains(t, err, "want one of all, map")
	out, err = dinos("", "dump", "--file", statedir.MemoryPath(base, "r"), "super")
	require.NoError(t, err)
	require.Contains(t, out, "machines         3")
	for _, bad := range []string{d.Join("state.json"), d.Path, "/none"} {
		_, err = dinos("", "dump", "--file", bad)
		require.Error(t, err)
	}
}

func TestDown(t *testing.T) {
	base := newRun(t)
	d, err := statedir.Create(base, "dead")
	require.NoError(t, err)
	require.NoError(t, d.Save(&statedir.State{Name: "dead", Keep: true}))
	require.NoError(t, d.Close(true))
	out, err := dinos("", "racks")
	require.NoError(t, err)
	require.Contains(t, out, "dead  dead")
	_, err = dinos("", "status")
	require.ErrorContains(t, err, `rack "dead" is dead`)
	_, err = dinos("", "down")
	require.NoError(t, err)
	_, err = dinos("", "down", "--name", "dead")
	require.ErrorIs(t, err, statedir.ErrNone)
	_, err = dinos("", "down", "--all")
	require.NoError(t, err)
}

// TestPromptBatch: commands from a pipe, with errors that do not stop those behind them.
func TestPromptBatch(t *testing.T) {
	base := newRun(t)
	var killed []string
	fakeRun := func(_ context.Context, s *control.Session) (any, error) {
		var p rack.Program
		if err := s.Args(&p); err != nil {
			return nil, err
		}
		if p.Path != "/usr/bin/wc" && p.Path != "/x" {
			return nil, control.Errorf(control.CodeNotFound, "%s: no such file", p.Path)
		}
		s.Event("started", rack.Ended{PID: 5})
		b, err := io.ReadAll(s.Channel(control.Stdin))
		fmt.Fprintf(s.Channel(control.Stdout), "%d bytes %q %v\n", len(b), p.Args, p.Terminal)
		fmt.Fprintf(s.Channel(control.Stderr), "diagnosis\n")
		status := syscall.WaitStatus(0)
		if p.Path == "/x" {
			status = 9
		} else if len(p.Args) > 1 {
			status = 3 << 8
		}
		return rack.Ended{PID: 5, Status: status}, err
	}
	fakeLauncher(t, base, "r", map[string]control.Handler{"status": status, "run": fakeRun, "kill": func(_ context.Context, s *control.Session) (any, error) {
		var a struct{ Kernel string }
		err := s.Args(&a)
		killed = append(killed, a.Kernel)
		return nil, err
	}})
	out, err := dinos("status\n\n# a remark\nkill 'dkernel1' \"dkernel2\"\nfrobnicate x\nkill\nhelp\nhelp kill\nstatus --nonsense\nkill \"x\nexit\nkill dkernel3\n", "prompt")
	require.ErrorContains(t, err, "4 commands failed")
	require.Equal(t, []string{"dkernel1", "dkernel2"}, killed)
	for _, want := range []string{"r> status\n", `rack "r" up`, `"frobnicate" is no command ('help' lists them), nor a program: frobnicate: there is none in /bin, /usr/bin`, "requires at least 1 arg", "  add-dkernel  start one more", "unknown flag: --nonsense",
		`the quote " does not end`, "end a kernel's machine at once"} {
		require.Contains(t, out, want)
	}
	require.NotContains(t, out, "--name", "which rack is no question here")
	require.NotContains(t, out, "completion")
	out, err = dinos("wc\nwc -l\n/x\nstatus", "prompt")
	require.ErrorContains(t, err, "2 commands failed")
	for _, want := range []string{`0 bytes ["wc"] false`, "diagnosis\n", `0 bytes ["wc" "-l"] false`, "dinos: the program ended with status 3\n",
		"dinos: the program was ended by signal 9 (killed)\n", "dkernel2: killed"} {
		require.Contains(t, out, want)
	}
	out, err = dinos("hello", "run", "wc", "--", "-l")
	require.Equal(t, 3, exitStatus(err))
	require.Equal(t, `5 bytes ["wc" "--" "-l"] false`+"\n", out)
	_, err = dinos("", "run", "-t", "/x")
	require.Equal(t, 128+9, exitStatus(err))
	_, err = dinos("", "run", "/y")
	require.ErrorContains(t, err, "/y: no such file")
	out, err = dinos("status", "prompt")
	require.NoError(t, err, "the last line needs no end")
	require.Contains(t, out, "dkernel2: killed")
}

func TestSplitWords(t *testing.T) {
	for line, want := range map[string][]string{
		"": nil, "  ": nil, "a b\tc": {"a", "b", "c"}, `"a b" c`: {"a b", "c"}, `a\ b`: {"a b"}, `'a\ b'`: {`a\ b`}, `"a\"b"`: {`a"b`}, `""`: {""}, `a"b"c`: {"abc"},
		"a # b": {"a"}, "a#b": {"a#b"},
	} {
		got, err := splitWords(line)
		require.NoError(t, err, line)
		require.Equal(t, want, got, line)
	}
	for _, bad := range []string{`"a`, `'`, `a\`} {
		_, err := splitWords(bad)
		require.Error(t, err, bad)
	}
}

func TestCompleter(t *testing.T) {
	base := newRun(t)
	fakeLauncher(t, base, "r", map[string]control.Handler{"status": status})
	r, err := rack.Connect(base, "r")
	require.NoError(t, err)
	complete := func(line string) []string {
		ends, n := (&completer{r}).Do([]rune(line), len([]rune(line)))
		var list []string
		for _, e := range ends {
			list = append(list, line[len(line)-n:]+string(e))
		}
		return list
	}
	require.ElementsMatch(t, []string{"stop ", "status "}, complete("st"))
	require.Equal(t, []string{"ckernel ", "dkernel1 ", "dkernel2 "}, complete("kill "))
	require.Equal(t, []string{"dkernel1 ", "dkernel2 "}, complete("kill ckernel d"))
	require.ElementsMatch(t, []string{"map ", "machines ", "machine:"}, complete("dump ma"))
	require.Equal(t, []string{"set "}, complete("sched se"))
	require.Empty(t, complete("nothing "))
}

// TestUpRefuses: what cannot be started is told at once, by this process.
func TestUpRefuses(t *testing.T) {
	base := newRun(t)
	for want, args := range map[string][]string{
		"bad rack name":           {"--name", "A"},
		"image of the ckernel":    {"--ckernel", "/none"},
		"want a size like":        {"--mem", "x"},
		"want a power of two":     {"--shmem", "3G", "--ckernel", "main.go", "--dkernel", "main.go"},
		`accelerator "fast"`:      {"--accel", "fast", "--ckernel", "main.go", "--dkernel", "main.go"},
		"want at most 31":         {"--dkernels", "99"},
		`unknown command "extra"`: {"extra"},
	} {
		_, err := dinos("", append([]string{"up"}, args...)...)
		require.ErrorContains(t, err, want)
	}
	left, err := os.ReadDir(base)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestProgress(t *testing.T) {
	var b bytes.Buffer
	p := newProgress(&b)
	for _, e := range []rack.Event{{Text: "3 kernels"}, {Kernel: "ckernel", Text: "booting after 1ms"}, {Kernel: "ckernel", Text: "up after 2ms"}} {
		p.event(e)
	}
	p.end()
	require.Equal(t, "3 kernels\n  ckernel    up after 2ms\n", b.String())
}
