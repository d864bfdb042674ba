package boottest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/qemu/vm"
	"dinos/qemu/vmtest"
)

// TestPCI: devices on every kind of machine, with memory above and below 4 GiB; and a machine without a bus.
func TestPCI(t *testing.T) {
	for _, m := range []vm.Machine{vm.MicroVM, vm.Q35, vm.PC} {
		t.Run(string(m), func(t *testing.T) {
			vmtest.Run(t, vmtest.Options{Tests: []string{"pci"}, VM: vm.Config{
				Image: testImage(t), Machine: m, CPUs: 2,
				Devices: []string{"virtio-rng-pci", "ivshmem-plain,memdev=small", "ivshmem-plain,memdev=large"},
				Extra: []string{"-object", "memory-backend-ram,id=small,size=1M,share=on",
					"-object", "memory-backend-ram,id=large,size=8G,share=on"},
			}})
		})
	}
	t.Run("none", func(t *testing.T) {
		out, err := end(t, vm.Config{Extra: []string{"-machine", "pcie=off"}, Append: "test=pci"})
		require.NoError(t, err)
		require.Contains(t, out, "the machine has no PCI bus")
	})
}
