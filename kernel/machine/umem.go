package machine

import (
	"errors"

	"dinos/boot/record"
	"dinos/kernel/mem"
	"dinos/kernel/trap"
)

// Memory for programs of a machine that runs alone: its own. In a rack it comes from the shared memory.

// OwnMemory is all memory of the machine by physical address, and where slices of 2 MiB of it are taken and given back: slice i
// is the bytes from i times 2 MiB on.
func OwnMemory() ([]byte, OwnSlices) { return physBytes(0, found.topRAM), OwnSlices{} }

// OwnSlices takes slices from the machine's frames. It implements frame.Source.
type OwnSlices struct{}

// keepFree is how much memory programs leave to the kernel's own heap and page tables: a quarter, at least 16 MiB.
func keepFree(total uint64) uint64 { return max(total/4, 16<<20) }

// errNoSlice: there is no memory left for programs.
var errNoSlice = errors.New("machine: no memory left for programs")

// Take takes a slice.
func (OwnSlices) Take() (slice uint64, err error) {
	var pa uint64
	if err := lockedVM(func(*trap.CPU) error {
		st := kernel.Frames.Stats()
		if st.Free*mem.FrameSize < keepFree(st.Total*mem.FrameSize)+mem.BlockSize {
			return mem.ErrNoMemory
		}
		p, err := kernel.Frames.Alloc2M()
		pa = p
		return err
	}); err != nil {
		return 0, errNoSlice
	}
	return pa / mem.BlockSize, nil
}

// Give gives a slice back.
func (OwnSlices) Give(slice uint64) {
	given(lockedVM(func(*trap.CPU) error { return kernel.Frames.Free2M(slice * mem.BlockSize) }))
}

// Physical is the physical address of b, which is in the direct map: shared memory, for example.
func Physical(b []byte) uint64 { return addr(&b[0]) - record.DirectMap }
