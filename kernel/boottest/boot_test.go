// Package boottest boots the kernels in QEMU and looks at what they do: the tests inside the test image, how kernels refuse
// machines they cannot run on, how they report crashes, and what they use while idle.
package boottest

import (
	"os"
	"testing"

	"dinos/boot/build"
	"dinos/qemu/vm"
	"dinos/qemu/vmtest"
)

// image is the test image, built once for all tests.
var image string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "dinos-boottest-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	image = dir + "/ktest.elf"
	return m.Run()
}

// testImage returns the test image.
func testImage(t *testing.T) string {
	t.Helper()
	vmtest.RequireQEMU(t)
	if _, err := os.Stat(image); err != nil {
		if err := build.Kernel(t.Context(), build.Options{Package: "dinos/cmd/ktest"}, image); err != nil {
			t.Fatalf("host: %v", err)
		}
	}
	return image
}

// TestGuest runs the tests inside the test image on machines of every kind and several sizes.
func TestGuest(t *testing.T) {
	for _, c := range []struct {
		name    string
		machine vm.Machine
		cpus    int
		seconds string
	}{
		{"microvm-1", vm.MicroVM, 1, "3"},
		{"microvm-4", vm.MicroVM, 4, "5"},
		{"q35-2", vm.Q35, 2, "2"},
		{"pc-3", vm.PC, 3, "2"},
		{"microvm-8", vm.MicroVM, 8, "3"},
		{"microvm-16", vm.MicroVM, 16, "2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if os.Getenv("DINOS_LONG") == "1" {
				c.seconds = map[int]string{4: "60"}[c.cpus]
				if c.seconds == "" {
					c.seconds = "10"
				}
			}
			vmtest.Run(t, vmtest.Options{VM: vm.Config{
				Image: testImage(t), Machine: c.machine, CPUs: c.cpus, Memory: 512 << 20, Append: "seconds=" + c.seconds,
			}})
		})
	}
}
