package machine

import (
	"encoding/binary"

	"dinos/kernel/trap"
	"dinos/kernel/x86"
)

// Facts about the machine for who runs programs on it.

// Random fills p with random bytes; see ARCHITECTURE.md for how good they are.
func Random(p []byte) {
	kernel.Run(func(*trap.CPU) { kernel.Random(p) })
}

// Random64 returns 64 random bits.
func Random64() uint64 {
	var b [8]byte
	Random(b[:])
	return binary.LittleEndian.Uint64(b[:])
}

// HWCap is what programs find in AT_HWCAP: CPUID leaf 1, EDX.
func HWCap() uint64 {
	_, _, _, d := x86.CPUID(1, 0)
	return uint64(d)
}

// HasRDTSCP reports whether RDTSCP tells programs which CPU they run on.
func HasRDTSCP() bool { return found.features.rdtscp }

// ClockScale is what turns time stamps into the time of Now: a stamp tsc is (tsc-base)*mult>>32 ns. wall is Unix time in ns at
// time 0.
func ClockScale() (base, mult uint64, wall int64) {
	base, mult = kernel.Clock.Scale()
	return base, mult, kernel.Clock.Wall(0)
}

// IdleTimes returns how long each CPU has had nothing to run since boot, ns.
func IdleTimes() []int64 {
	list := make([]int64, kernel.NumCPU())
	for i := range list {
		list[i] = kernel.IdleTime(i)
	}
	return list
}

// TSC returns the time stamp counter.
func TSC() uint64 { return x86.TSC() }
