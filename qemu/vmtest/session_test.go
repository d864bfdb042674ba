package vmtest

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/boot/build"
	"dinos/boot/image"
	"dinos/kernel/testproto"
	"dinos/qemu/vm"
)

// fake is a machine whose console is a text.
type fake struct {
	console *vm.Console
	exit    testproto.Exit
	err     error  // of Wait
	hung    string // detail of Hang
	hangErr error
}

func (f *fake) Console() *vm.Console                         { return f.console }
func (f *fake) Wait(context.Context) (testproto.Exit, error) { return f.exit, f.err }
func (f *fake) Hang(detail string) error                     { f.hung = detail; return f.hangErr }

// console returns a session over a guest that prints lines, and then ends, or says nothing more.
func console(hang bool, tests []string, lines ...string) (*session, *fake) {
	r, w := io.Pipe()
	go func() {
		io.WriteString(w, strings.Join(append(lines, ""), "\r\n"))
		if !hang {
			w.Close()
		}
	}()
	f := &fake{console: vm.NewConsole(r), exit: testproto.ExitPass}
	return newSession(f, Options{VM: vm.Config{Name: "fake"}, Tests: tests, Boot: time.Second}), f
}

func ev(kind, test string) string { return testproto.Event{Test: test, Event: kind}.Line() }

func done(pass, fail, skip int) string {
	return testproto.Event{Event: testproto.Done, Passed: pass, Failed: fail, Skipped: skip}.Line()
}

// all runs a session to its end and returns the events and the error.
func all(s *session) (events []testproto.Event, err error) {
	for {
		e, err := s.next(time.Minute)
		if err != nil {
			return events, err
		}
		events = append(events, e)
		if e.Event == testproto.Done {
			return events, s.finish()
		}
	}
}

func TestSession(t *testing.T) {
	s, _ := console(false, []string{"a", "b"}, "booting", ev("run", "a"), "log", ev("pass", "a"), ev("run", "b"), "no line end "+ev("skip", "b"), done(1, 0, 1))
	events, err := all(s)
	require.NoError(t, err)
	require.Len(t, events, 5)

	s, f := console(false, nil, ev("run", "a"), ev("fail", "a"), done(0, 1, 0))
	f.exit, f.err = testproto.ExitFail, &vm.GuestError{Failure: vm.Failed}
	_, err = all(s)
	require.NoError(t, err, "a failed test is not a failed run")
}

func TestSessionGuestFaults(t *testing.T) {
	for _, c := range []struct {
		name  string
		tests []string
		lines []string
		edit  func(*fake)
		want  string
	}{
		{"garbage", nil, []string{testproto.Prefix + "{"}, nil, "test protocol: test event"},
		{"nested", nil, []string{ev("run", "a"), ev("run", "b")}, nil, "b starts while a runs"},
		{"end without start", nil, []string{ev("pass", "a")}, nil, `a ends while "" runs`},
		{"other end", nil, []string{ev("run", "a"), ev("pass", "b")}, nil, `b ends while "a" runs`},
		{"other test", []string{"b"}, []string{ev("run", "a")}, nil, "a starts, want b"},
		{"test left out", []string{"a", "b"}, []string{ev("run", "a"), ev("pass", "a"), done(1, 0, 0)}, nil, "done without having run b"},
		{"done in a test", nil, []string{ev("run", "a"), done(1, 0, 0)}, nil, "done while a runs"},
		{"wrong counts", nil, []string{ev("run", "a"), ev("fail", "a"), done(1, 0, 0)}, nil, "events say 0, 1, 0"},
		{"no test at all", nil, []string{done(0, 0, 0)}, nil, "done without having run any test"},
		{"exit too early", nil, []string{ev("run", "a")}, nil, "as if it had passed, in test a"},
		{"silent exit", nil, nil, nil, "as if it had passed, before the first line"},
		{"passes although a test failed", nil, []string{ev("run", "a"), ev("fail", "a"), done(0, 1, 0)}, nil, "1 tests failed, but the exit is pass"},
		{"fails although all passed", nil, []string{ev("run", "a"), ev("pass", "a"), done(1, 0, 0)},
			func(f *fake) { f.exit, f.err = testproto.ExitFail, &vm.GuestError{Failure: vm.Failed} }, "0 tests failed, but the exit is tests failed"},
		{"crash in a test", nil, []string{"log", ev("run", "a"), "PANIC"},
			func(f *fake) { f.err = &vm.GuestError{VM: "fake", Failure: vm.Crashed} }, "in test a: fake: guest crashed"},
		{"crash after done", nil, []string{ev("run", "a"), ev("pass", "a"), done(1, 0, 0)},
			func(f *fake) { f.err = &vm.GuestError{VM: "fake", Failure: vm.Crashed} }, "after the last test: fake: guest crashed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, f := console(false, c.tests, c.lines...)
			if c.edit != nil {
				c.edit(f)
			}
			_, err := all(s)
			var g *vm.GuestError
			require.ErrorAs(t, err, &g)
			require.ErrorContains(t, err, c.want)
			require.True(t, strings.HasPrefix(blame(err), "guest: "))
		})
	}
}

func TestSessionHang(t *testing.T) {
	s, f := console(true, nil, "log", ev("run", "a"))
	f.hangErr = &vm.GuestError{VM: "fake", Failure: vm.Hung, Dump: "stacks"}
	_, err := s.next(time.Minute)
	require.NoError(t, err)
	_, err = s.next(10 * time.Millisecond)
	require.ErrorContains(t, err, "stacks")
	require.Equal(t, "no test event for 10ms, in test a", f.hung)

	f.hangErr = nil // it ended well while it was being asked
	_, err = s.next(time.Millisecond)
	var g *vm.GuestError
	require.ErrorAs(t, err, &g)

	f.hangErr = &vm.HostError{VM: "fake", Err: errors.New("QEMU is stuck")}
	_, err = s.next(time.Millisecond)
	require.Equal(t, "host: fake: : QEMU is stuck", blame(err))
}

func TestSessionHostFault(t *testing.T) {
	s, f := console(false, nil, ev("run", "a"))
	f.err = &vm.HostError{VM: "fake", Op: "run QEMU", Err: errors.New("signal: killed")}
	_, err := all(s)
	require.True(t, strings.HasPrefix(blame(err), "host: "), blame(err))
	require.ErrorContains(t, err, "in test a")
}

func TestOptions(t *testing.T) {
	o, err := Options{VM: vm.Config{Append: "quiet"}}.withDefaults()
	require.NoError(t, err)
	require.Equal(t, "quiet test=all", o.VM.Append)
	o, err = Options{Tests: []string{"a", "b"}}.withDefaults()
	require.NoError(t, err)
	require.Equal(t, "test=a,b", o.VM.Append)
	_, err = Options{VM: vm.Config{Append: "x test=a"}}.withDefaults()
	require.ErrorContains(t, err, "use Options.Tests")
}

// TestRunAsSubtests runs innerEnv's test, which must fail, in a process of its own and looks at what go test would show.
func TestRunAsSubtests(t *testing.T) {
	RequireQEMU(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestInner$", "-test.v")
	cmd.Env = append(os.Environ(), innerEnv+"=1")
	out, err := cmd.CombinedOutput()
	require.Error(t, err)
	for _, want := range []string{
		"--- PASS: TestInner/booted/first", "42 in the guest's message", "--- SKIP: TestInner/booted/second",
		"--- FAIL: TestInner/booted/third", "guest: the test failed", "guest: third is wrong",
		"--- FAIL: TestInner/hangs", "guest made no progress: no test event for", "in test stuck", "vCPU 0:", "the machine is lost",
		"--- FAIL: TestInner/missing", "host: missing: configure: image: open /nowhere",
	} {
		require.Contains(t, string(out), want, "%s", out)
	}
}

const innerEnv = "DINOS_VMTEST_INNER"

func TestInner(t *testing.T) {
	if os.Getenv(innerEnv) == "" {
		t.Skip("only runs inside TestRunAsSubtests")
	}
	img := testGuest(t)
	t.Run("booted", func(t *testing.T) { Run(t, Options{VM: vm.Config{Image: img, Append: "script=1", Memory: 64 << 20}}) })
	t.Run("hangs", func(t *testing.T) {
		Run(t, Options{VM: vm.Config{Image: img, Append: "hang", Memory: 64 << 20}, Test: 100 * time.Millisecond})
	})
	t.Run("missing", func(t *testing.T) { Run(t, Options{VM: vm.Config{Name: "missing", Image: "/nowhere"}}) })
}

// testGuest builds testdata/guest.
func testGuest(t *testing.T) string {
	return Image(t, build.Options{Package: "./testdata/guest", Entry: "entry64", Image: image.Options{Record: "main.Record"}})
}
