package boottest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/boot/build"
	"dinos/dkernel/loader/elftest"
	"dinos/qemu/vm"
	"dinos/qemu/vmtest"
)

// Programs on a dkernel without a rack. What they have to print, Linux says: they run on the host first.

// programTime is how long a program may take, on a machine that does other things.
const programTime = 10 * time.Minute

// dkernelImage returns the image of the dkernel.
func dkernelImage(t *testing.T) string {
	t.Helper()
	vmtest.RequireQEMU(t)
	name := filepath.Join(filepath.Dir(image), "dkernel.elf")
	if _, err := os.Stat(name); err != nil {
		if err := build.Kernel(t.Context(), build.Options{Package: "dinos/cmd/dkernel"}, name); err != nil {
			t.Fatalf("host: %v", err)
		}
	}
	return name
}

// onDkernel runs the program, which is the whole root file system, and returns what it printed and whether it ended with status 0.
func onDkernel(t *testing.T, program, command string, cpus int) (string, error) {
	t.Helper()
	out, err := endIn(t, vm.Config{Image: dkernelImage(t), Initrd: program, Append: `init="` + command + `"`, CPUs: cpus, Memory: 512 << 20}, programTime)
	_, out, _ = strings.Cut(out, "this kernel is alone\n")
	return out, err
}

// static builds a static program from a directory of testdata.
func static(t *testing.T, name string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	c := exec.Command("go", "build", "-o", file, "./testdata/"+name)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := c.CombinedOutput()
	require.NoError(t, err, "host: %s", out)
	return file
}

// TestHello: the smallest program, of both kinds, and its status.
func TestHello(t *testing.T) {
	for _, typ := range []uint16{2, 3} { // ET_EXEC, ET_DYN
		b, err := elftest.Hello(typ, "hello, ring 3\n", 0)
		require.NoError(t, err)
		file := filepath.Join(t.TempDir(), "hello")
		require.NoError(t, os.WriteFile(file, b, 0o755))
		out, err := onDkernel(t, file, "/hello", 1)
		require.NoError(t, err, "console:\n%s", out)
		require.Contains(t, out, "hello, ring 3\n")
	}
	b, err := elftest.Hello(2, "bye\n", 7)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "bye")
	require.NoError(t, os.WriteFile(file, b, 0o755))
	out, err := onDkernel(t, file, "/bye", 1)
	require.Error(t, err)
	require.Contains(t, out, "/bye ended with status 0x700")
}

// TestTour: a Go program that does a little of everything prints what it prints on Linux.
func TestTour(t *testing.T) {
	file := static(t, "tour")
	want, err := exec.Command(file).Output()
	require.NoError(t, err)
	for _, cpus := range []int{1, 2, 4} {
		out, err := onDkernel(t, file, "/bin/tour", cpus)
		require.NoError(t, err, "console:\n%s", out)
		out, missed, _ := strings.Cut(out, "dinos: system calls that are not served:\n")
		require.Equal(t, string(want), out, "%d CPUs", cpus)
		require.Equal(t, "  tour: syscall_9999: 1 times\n", missed)
	}
}

// TestSyscallFuzz: random system calls leave the kernel standing, and the program that started them as it was. With DINOS_LONG=1 a million of them.
func TestSyscallFuzz(t *testing.T) {
	calls := "30000"
	if os.Getenv("DINOS_LONG") == "1" {
		calls = "1000000"
	}
	seed := fmt.Sprint(time.Now().UnixNano() % 1e9)
	t.Logf("seed %s", seed)
	out, err := onDkernel(t, static(t, "sysfuzz"), "/bin/sysfuzz "+seed+" "+calls, 2)
	require.NoError(t, err, "console:\n%s", out)
	require.Contains(t, out, "made about "+calls+" calls")
	require.NotContains(t, out, "descriptors")
}
