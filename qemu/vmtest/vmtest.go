// Package vmtest runs the tests inside a kernel from go test: one virtual machine, one subtest for each test that the
// guest announces (package testproto).
//
// A failure says whose it is. "guest:" is the kernel's: the test failed, or the kernel crashed, reset, hung (with a dump of
// registers and stacks), or broke the protocol. "host:" is the harness's or the machine's, and says nothing about the kernel.
package vmtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dinos/boot/build"
	"dinos/kernel/testproto"
	"dinos/qemu/vm"
)

// Default deadlines. They are generous because the host may be busy; a guest that is well never meets them.
const (
	DefaultBoot = 60 * time.Second
	DefaultTest = 120 * time.Second
)

// Options says what to run. The zero value of a field means its default.
type Options struct {
	VM    vm.Config     // the machine; Append must not select tests
	Tests []string      // names in the guest's table; all of them
	Boot  time.Duration // from the start to the first event, and from the last to the exit; DefaultBoot
	Test  time.Duration // for each test; DefaultTest
}

// Run boots opt.VM and makes a subtest of t of each guest test. It returns when the machine is gone.
func Run(t *testing.T, opt Options) {
	t.Helper()
	opt, err := opt.withDefaults()
	if err != nil {
		t.Fatalf("host: %v", err)
	}
	v, err := vm.Start(opt.VM)
	if err != nil {
		t.Fatalf("host: %v", err)
	}
	defer v.Close()
	s := newSession(v, opt)
	for {
		e, err := s.next(opt.Boot)
		if err != nil {
			t.Fatal(blame(err))
		}
		if e.Event == testproto.Done {
			break
		}
		t.Run(e.Test, func(t *testing.T) {
			if e, err = s.next(opt.Test); err != nil {
				t.Fatal(blame(err))
			}
			report(t, e)
		})
		if err != nil {
			t.Fatal("the machine is lost: tests after this one did not run")
		}
	}
	if err := s.finish(); err != nil {
		t.Fatal(blame(err))
	}
}

// report ends a subtest as the guest's test ended.
func report(t *testing.T, e testproto.Event) {
	if e.Msg != "" {
		t.Log(e.Msg)
	}
	t.Logf("%.1f ms in the guest", e.MS)
	switch e.Event {
	case testproto.Fail:
		t.Error("guest: the test failed")
	case testproto.Skip:
		t.Skip("the guest skipped it")
	}
}

// blame says whose failure err is.
func blame(err error) string {
	var h *vm.HostError
	if errors.As(err, &h) {
		return "host: " + err.Error()
	}
	return "guest: " + err.Error()
}

func (o Options) withDefaults() (Options, error) {
	if o.Boot == 0 {
		o.Boot = DefaultBoot
	}
	if o.Test == 0 {
		o.Test = DefaultTest
	}
	for _, f := range strings.Fields(o.VM.Append) {
		if f == testproto.Key || strings.HasPrefix(f, testproto.Key+"=") {
			return o, fmt.Errorf("vmtest: VM.Append has %q: use Options.Tests", f)
		}
	}
	choice := testproto.All
	if len(o.Tests) > 0 {
		choice = strings.Join(o.Tests, ",")
	}
	o.VM.Append = strings.TrimSpace(o.VM.Append + " " + testproto.Key + "=" + choice)
	if o.VM.Name == "" {
		o.VM.Name = "test"
	}
	return o, nil
}

// Image builds the kernel in package pkg and returns the path of its image, which lasts as long as t.
func Image(t testing.TB, opt build.Options) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "kernel.elf")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	if err := build.Kernel(ctx, opt, out); err != nil {
		t.Fatalf("host: %v", err)
	}
	return out
}

// RequireQEMU skips t where there is no QEMU, unless the environment says DINOS_REQUIRE_QEMU=1: then it fails, so that a CI
// machine cannot lose its boot tests silently.
func RequireQEMU(t testing.TB) {
	t.Helper()
	err := vm.Installed()
	switch {
	case err == nil:
	case os.Getenv("DINOS_REQUIRE_QEMU") == "1":
		t.Fatalf("host: %v", err)
	default:
		t.Skipf("no boot tests: %v", err)
	}
}
