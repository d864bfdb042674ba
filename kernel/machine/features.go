package machine

import (
	"fmt"
	"strings"

	"dinos/kernel/paging"
	"dinos/kernel/x86"
)

// features are what CPUID says (SDM vol. 2A, CPUID), as far as the kernel cares.
type features struct {
	apic, rdrand, rdseed, hypervisor          bool
	smep, smap, umip, fsgsbase, page1G, xsave bool
	cx16, rdtscp                              bool
	xcr0                                      uint64    // components of XSAVE for ring 3
	vendor                                    [3]uint32 // of the hypervisor
}

func (f *features) read() {
	_, _, c, d := x86.CPUID(1, 0)
	f.cx16 = c>>13&1 != 0
	f.xsave = c>>26&1 != 0
	f.rdrand = c>>30&1 != 0
	f.hypervisor = c>>31 != 0
	f.apic = d>>9&1 != 0
	if top, _, _, _ := x86.CPUID(0, 0); top >= 7 {
		_, b, c, _ := x86.CPUID(7, 0)
		f.fsgsbase = b&1 != 0
		f.smep = b>>7&1 != 0
		f.rdseed = b>>18&1 != 0
		f.smap = b>>20&1 != 0
		f.umip = c>>2&1 != 0
	}
	if top, _, _, _ := x86.CPUID(0x80000000, 0); top >= 0x80000001 {
		_, _, _, d := x86.CPUID(0x80000001, 0)
		f.page1G = d>>26&1 != 0
		f.rdtscp = d>>27&1 != 0
	}
	if f.xsave {
		const x87SSE, avx, avx512 = 3, 1 << 2, 7 << 5 // SDM vol. 1, 13.1
		a, _, _, d := x86.CPUID(13, 0)
		can := uint64(d)<<32 | uint64(a)
		f.xcr0 = can & (x87SSE | avx)
		if can&avx512 == avx512 {
			f.xcr0 |= avx512
		}
	}
	if f.hypervisor {
		_, b, c, d := x86.CPUID(0x40000000, 0)
		f.vendor = [3]uint32{b, c, d}
	}
}

// require ends the boot on a CPU the kernel does not support. Long mode, NX, SSE2 and SYSCALL have been checked by the trampoline.
func (f *features) require() {
	switch {
	case !f.apic:
		refuse("CPU lacks a local APIC", 0)
	case !f.fsgsbase:
		refuse("CPU lacks FSGSBASE (Ivy Bridge or later; QEMU: -cpu max)", 0)
	case !f.cx16:
		refuse("CPU lacks CMPXCHG16B", 0)
	}
}

// enable turns on in this CPU what the kernel uses. OSXSAVE stays off until the runtime has looked at CPUID: kernel code saves
// XMM registers only, so the runtime must not find AVX.
func (f *features) enable() {
	cr4 := x86.ReadCR4() | x86.CR4FSGSBASE
	for _, o := range [...]struct {
		has bool
		bit uint64
	}{{f.smep, x86.CR4SMEP}, {f.smap, x86.CR4SMAP}, {f.umip, x86.CR4UMIP}} {
		if o.has {
			cr4 |= o.bit
		}
	}
	x86.WriteCR4(cr4)
	x86.WriteCR0(x86.ReadCR0() | x86.CR0WP)
}

// name makes RDTSCP in ring 3 tell which CPU this is.
func (f *features) name(cpu uint64) {
	if f.rdtscp {
		x86.WriteMSR(x86.MSRTSCAux, cpu)
	}
}

// enableVectors lets ring 3 use all vector registers that the kernel keeps for it. After the runtime has looked at CPUID.
func (f *features) enableVectors() {
	if f.xcr0 != 0 {
		x86.WriteCR4(x86.ReadCR4() | x86.CR4OSXSAVE)
		x86.WriteXCR0(f.xcr0)
	}
}

func (f *features) largestPage() uint64 {
	if f.page1G {
		return paging.Size1G
	}
	return paging.Size2M
}

// String lists the optional features that are in use.
func (f *features) String() string {
	var s []string
	for _, o := range [...]struct {
		has  bool
		name string
	}{
		{f.smep, "SMEP"}, {f.smap, "SMAP"}, {f.umip, "UMIP"}, {f.page1G, "1 GiB pages"}, {f.rdrand, "RDRAND"}, {f.rdseed, "RDSEED"}, {f.xsave, "XSAVE"},
	} {
		if o.has {
			s = append(s, o.name)
		}
	}
	return strings.Join(s, " ")
}

// hypervisorName says what runs the machine.
func (f *features) hypervisorName() string {
	if !f.hypervisor {
		return "hardware"
	}
	var b []byte
	for _, w := range f.vendor {
		b = append(b, byte(w), byte(w>>8), byte(w>>16), byte(w>>24))
	}
	switch name := strings.TrimRight(string(b), "\x00"); name {
	case "TCGTCGTCGTCG":
		return "QEMU (TCG)"
	case "KVMKVMKVM":
		return "KVM"
	default:
		return fmt.Sprintf("hypervisor %q", name)
	}
}

// isTCG reports whether QEMU emulates the CPU.
func (f *features) isTCG() bool { return f.vendor == [3]uint32{0x54474354, 0x43544743, 0x47435447} }
