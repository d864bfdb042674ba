// Package vdso makes the vDSO: a small shared object in every program's address space whose functions answer clock_gettime,
// clock_getres, gettimeofday, time and getcpu without entering the kernel (vdso(7)).
//
// In a program's memory the image lies directly behind a page of data:
//
//	[vvar]  PageSize bytes, read-only: the clock, which a Writer keeps up to date; the same page for all programs of a kernel
//	[vdso]  Image.Bytes, whole pages, read and execute; AT_SYSINFO_EHDR is its address
//
// The functions read the time stamp counter and scale it as package kernel/clock does, so that a program sees the same
// clock through them and through the system calls. What they cannot answer (other clocks, a kernel that has not set the clock) they
// pass on as a system call.
package vdso

import (
	"fmt"

	"dinos/kernel/linux"
)

// PageSize is the size of the data page, and what Image.Bytes is a multiple of.
const PageSize = 4096

// CoarseResolution is what clock_getres tells of the clocks CLOCK_*_COARSE, in ns: a tick of 250 Hz, as on Debian's Linux.
// The clocks themselves are as exact as the others, since this kernel has no tick that could drive them.
const CoarseResolution = 4_000_000

// Served is the set of clocks that the functions answer, bit c for clock c.
const Served = 1<<linux.CLOCK_REALTIME | 1<<linux.CLOCK_MONOTONIC | 1<<linux.CLOCK_MONOTONIC_RAW |
	1<<linux.CLOCK_REALTIME_COARSE | 1<<linux.CLOCK_MONOTONIC_COARSE | 1<<linux.CLOCK_BOOTTIME | 1<<linux.CLOCK_TAI

// CPUSource says how getcpu learns where it runs.
type CPUSource uint8

const (
	// CPUFromSyscall asks the kernel.
	CPUFromSyscall CPUSource = iota
	// CPUFromRDTSCP reads IA32_TSC_AUX, which the kernel has set to CPU | node<<12 on every CPU, as Linux does. The CPU must
	// have RDTSCP (CPUID 80000001H, EDX bit 27).
	CPUFromRDTSCP
)

// Image is a vDSO.
type Image struct {
	Bytes   []byte            // the ELF file as it lies in memory, whole pages
	Symbols map[string]uint32 // offsets of the functions, for tests and for backtraces
}

// New makes the image. It costs some 100 µs; a kernel makes one.
func New(cpu CPUSource) (*Image, error) {
	if cpu > CPUFromRDTSCP {
		return nil, fmt.Errorf("vdso: no such source of the CPU number: %d", cpu)
	}
	return build(cpu)
}
