package boottest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/qemu/vm"
)

// deadline bounds a boot that ends by itself.
const deadline = 90 * time.Second

// end boots cfg, waits for the machine to end by itself and returns how it did, with everything it printed.
func end(t *testing.T, cfg vm.Config) (console string, err error) {
	t.Helper()
	return endIn(t, cfg, deadline)
}

// endIn is end with another deadline.
func endIn(t *testing.T, cfg vm.Config, deadline time.Duration) (console string, err error) {
	t.Helper()
	if cfg.Image == "" {
		cfg.Image = testImage(t)
	}
	if cfg.Memory == 0 {
		cfg.Memory = 128 << 20
	}
	var out strings.Builder
	cfg.Output = &out
	v, err := vm.Start(cfg)
	require.NoError(t, err)
	defer v.Close()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	_, err = v.Wait(ctx)
	var h *vm.HostError
	if errors.As(err, &h) {
		t.Fatalf("host: %v", err)
	}
	return strings.ReplaceAll(out.String(), "\r", ""), err
}

// fails requires that err is the guest's failure f.
func fails(t *testing.T, err error, f vm.Failure, console string) {
	t.Helper()
	var g *vm.GuestError
	require.ErrorAs(t, err, &g, "the machine should have failed; console:\n%s", console)
	require.Equal(t, f, g.Failure, "console:\n%s\n%v", console, err)
}

// TestRefusal: what a kernel cannot run on, or cannot make sense of, ends with one line that says why.
func TestRefusal(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  vm.Config
		want string
	}{
		{"16 MB", vm.Config{Memory: 16 << 20}, "dinos: boot: too little memory: want a machine with at least 32 MiB"},
		{"16 MB q35", vm.Config{Memory: 16 << 20, Machine: vm.Q35}, "dinos: boot: too little memory: want a machine with at least 32 MiB"},
		{"no FSGSBASE", vm.Config{CPU: "max,-fsgsbase"}, "dinos: boot: CPU lacks FSGSBASE"},
		{"no long mode", vm.Config{CPU: "max,-lm"}, "dinos: boot: CPU lacks long mode"},
		{"no ACPI", vm.Config{Extra: []string{"-machine", "acpi=off"}}, "dinos: boot: no ACPI tables"},
		{"unclosed quote", vm.Config{Append: `test="cpus`}, "dinos: boot: command line: byte "},
		{"unknown key", vm.Config{Append: "tset=all"}, "tset"},
		{"unknown test", vm.Config{Append: "test=nosuch"}, `no test "nosuch"`},
		{"garbage", vm.Config{Append: "==,=\xff;"}, "dinos: boot: command line: byte 0"},
		{"bad number", vm.Config{Append: "seconds=99999999999999999999"}, "seconds"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			out, err := end(t, c.cfg)
			fails(t, err, vm.Refused, out)
			require.Contains(t, out, c.want)
			require.Equal(t, 1, strings.Count(out, "dinos: boot:"), "one line, not\n%s", out)
		})
	}
}

// TestInitrd: a module is found, kept, and where it was put.
func TestInitrd(t *testing.T) {
	file := filepath.Join(t.TempDir(), "module")
	require.NoError(t, os.WriteFile(file, []byte(strings.Repeat("dinos module ", 100_000)), 0o644))
	out, err := end(t, vm.Config{Initrd: file, Append: "test=module,memory"})
	require.NoError(t, err, "console:\n%s", out)
	out, err = end(t, vm.Config{Append: "test=module"})
	require.NoError(t, err, "console:\n%s", out)
	require.Contains(t, out, `"event":"skip"`)
}
