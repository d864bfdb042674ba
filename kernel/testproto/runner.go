package testproto

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

// Test is an entry of a kernel's table of tests.
type Test struct {
	Name string
	Func func(t *T)
}

// T is what a running test reports to. Like a testing.T it serves testify's require and assert. Its methods may be called
// by any goroutine, but FailNow, Fatalf and Skipf only by the test's own.
type T struct {
	name string

	mu      sync.Mutex
	failed  bool     // guarded by mu
	skipped bool     // guarded by mu
	ended   bool     // the function returned or called one of the methods that end it; guarded by mu
	log     []string // guarded by mu
}

// Name returns the test's name.
func (t *T) Name() string { return t.name }

// Helper is for the interfaces of test libraries; the runner shows no source lines.
func (t *T) Helper() {}

// Logf adds a line to the message of the test's event.
func (t *T) Logf(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.log = append(t.log, fmt.Sprintf(format, args...))
}

// Errorf is Logf and marks the test as failed.
func (t *T) Errorf(format string, args ...any) {
	t.Logf(format, args...)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed = true
}

// FailNow marks the test as failed and ends it.
func (t *T) FailNow() {
	t.mu.Lock()
	t.failed, t.ended = true, true
	t.mu.Unlock()
	runtime.Goexit()
}

// Fatalf is Errorf and FailNow.
func (t *T) Fatalf(format string, args ...any) {
	t.Errorf(format, args...)
	t.FailNow()
}

// Skipf says why the test does not apply, and ends it.
func (t *T) Skipf(format string, args ...any) {
	t.Logf(format, args...)
	t.mu.Lock()
	t.skipped, t.ended = true, true
	t.mu.Unlock()
	runtime.Goexit()
}

// event returns the outcome.
func (t *T) event() Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := Event{Test: t.name, Event: Pass, Msg: strings.Join(t.log, "\n")}
	switch {
	case t.failed:
		e.Event = Fail
	case t.skipped:
		e.Event = Skip
	}
	return e
}

// Runner runs tests in a guest.
type Runner struct {
	Tests []Test
	Print func(line string)    // writes a line to the console
	Now   func() time.Duration // a monotonic clock
}

// Run runs the tests that value, of the command line's Key, selects, and returns how the machine is to exit. A test
// that panics has failed; the others go on.
func (r *Runner) Run(value string) (Exit, error) {
	byName := make(map[string]Test, len(r.Tests))
	names := make([]string, 0, len(r.Tests))
	for _, t := range r.Tests {
		if _, dup := byName[t.Name]; dup || t.Name == "" || strings.ContainsAny(t.Name, ", \t\"\\") {
			return ExitFail, fmt.Errorf("test table: name %q is empty, given twice, or has commas, spaces, quotes or backslashes", t.Name)
		}
		byName[t.Name] = t
		names = append(names, t.Name)
	}
	chosen, err := Select(value, names)
	if err != nil {
		return ExitFail, err
	}
	done := Event{Event: Done}
	for _, name := range chosen {
		switch r.one(byName[name]) {
		case Pass:
			done.Passed++
		case Skip:
			done.Skipped++
		default:
			done.Failed++
		}
	}
	r.Print(done.Line())
	if done.Failed > 0 {
		return ExitFail, nil
	}
	return ExitPass, nil
}

// one runs a test, prints its events and returns the outcome.
func (r *Runner) one(test Test) string {
	r.Print(Event{Test: test.Name, Event: Run}.Line())
	t := &T{name: test.Name}
	start := r.Now()
	ended := make(chan struct{})
	go func() { // its own goroutine, so that FailNow can end it
		defer close(ended)
		defer func() {
			t.mu.Lock()
			ok := t.ended
			t.mu.Unlock()
			if v := recover(); v != nil {
				t.Errorf("panic: %v\n%s", v, debug.Stack())
			} else if !ok {
				t.Errorf("the test ended its goroutine with runtime.Goexit")
			}
		}()
		test.Func(t)
		t.mu.Lock()
		t.ended = true
		t.mu.Unlock()
	}()
	<-ended
	e := t.event()
	e.MS = float64(r.Now()-start) / float64(time.Millisecond)
	r.Print(e.Line())
	return e.Event
}
