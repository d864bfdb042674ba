package machine

import (
	"dinos/kernel/clock"
	"dinos/kernel/trap"
	"dinos/kernel/x86"
)

// initClock measures the time stamp counter and the APIC timer; time 0 is time stamp entry. QEMU and KVM run the APIC timer at 1 GHz by definition
// (hw/intc/apic.c, arch/x86/kvm/lapic.c), so it is the reference there.
func initClock(entry uint64) {
	a := &kernel.APIC
	a.Enable(0xf0, 0xff)
	const ref = 1_000_000_000
	best := uint64(0)
	// The host may take the CPU away between two reads: of some short measurements the fastest pairs are right, and the
	// median of three is a frequency nobody disturbed.
	var hz [3]uint64
	for i := range hz {
		a.Arm(1<<32 - 1)
		t0, l0 := x86.TSC(), a.Left()
		for l0-a.Left() < 300_000 {
		}
		t1, l1 := x86.TSC(), a.Left()
		hz[i] = clock.Hz(t1-t0, uint64(l0-l1), ref)
	}
	a.Arm(0)
	best = max(min(hz[0], hz[1]), min(max(hz[0], hz[1]), hz[2]))
	kernel.Clock = clock.New(entry, best)
	kernel.TimerTicks = ref / 1_000_000
	vdso.base, vdso.mult = kernel.Clock.Scale()
	installVDSO()
}

// vdsoData is what vdsoClockGettime needs of the clock.
type vdsoData struct{ base, mult, wall uint64 }

var vdso vdsoData

// setWall declares that it is unix ns since the epoch now.
func setWall(unix int64) {
	kernel.Run(func(*trap.CPU) {
		now := kernel.Now()
		kernel.Clock.SetWall(now, unix)
		vdso.wall = uint64(unix - now)
	})
}

// installVDSO makes the Go runtime read the clock by vdsoClockGettime.
func installVDSO()

// initRandom seeds the random numbers: from RDSEED and RDRAND where the CPU has them. Without, the real-time clock and the
// jitter of the time stamp counter against the APIC timer are all there is: enough for hash seeds, not for secrets.
func initRandom() {
	f := &found.features
	for range 64 {
		if f.rdseed {
			if v, ok := x86.RDSEED(); ok {
				kernel.Seed(v)
			}
		}
		if f.rdrand {
			if v, ok := x86.RDRAND(); ok {
				kernel.Seed(v)
			}
		}
		kernel.Seed(x86.TSC()<<32 ^ uint64(kernel.APIC.Left()))
	}
	for _, reg := range [...]uint8{0, 2, 4, 7, 8, 9} { // CMOS: seconds, minutes, hours, day, month, year
		x86.Out8(0x70, reg)
		kernel.Seed(uint64(x86.In8(0x71)))
	}
}
