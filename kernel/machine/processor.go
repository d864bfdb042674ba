package machine

import (
	"encoding/binary"
	"strings"

	"dinos/kernel/x86"
)

// Processor describes the processors, which are all alike, with the words of Linux' /proc/cpuinfo.
type Processor struct {
	Vendor, Model            string
	Family, Number, Stepping int
	PhysBits, VirtBits       int
	Flags                    string
}

// flagNames are names of features by register and bit, in the order in which Linux shows them (arch/x86/include/asm/cpufeatures.h);
// those that programs in ring 3 look for.
var flagNames = []struct {
	leaf, subleaf uint32
	reg           int // of EAX, EBX, ECX, EDX
	names         string
}{
	{1, 0, 3, "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - dts acpi mmx fxsr sse sse2 ss ht tm ia64 pbe"},
	{0x80000001, 0, 3, "- - - - - - - - - - - syscall - - - - - - - mp nx - mmxext - - fxsr_opt pdpe1gb rdtscp - lm 3dnowext 3dnow"},
	{1, 0, 2, "pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm - pcid dca sse4_1 sse4_2 x2apic movbe popcnt " +
		"tsc_deadline_timer aes xsave - avx f16c rdrand hypervisor"},
	{0x80000001, 0, 2, "lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch"},
	{7, 0, 1, "fsgsbase tsc_adjust sgx bmi1 hle avx2 - smep bmi2 erms invpcid rtm - - mpx - avx512f avx512dq rdseed adx smap avx512ifma - clflushopt " +
		"clwb - avx512pf avx512er avx512cd sha_ni avx512bw avx512vl"},
	{7, 0, 2, "- avx512vbmi umip pku ospke waitpkg avx512_vbmi2 - gfni vaes vpclmulqdq avx512_vnni avx512_bitalg - avx512_vpopcntdq - la57 - - - - - rdpid"},
	{13, 1, 0, "xsaveopt xsavec xgetbv1 xsaves"},
}

// ReadProcessor asks CPUID (SDM vol. 2A).
func ReadProcessor() Processor {
	var p Processor
	top, b, c, d := x86.CPUID(0, 0)
	p.Vendor = registerText(b, d, c)
	extended, _, _, _ := x86.CPUID(0x80000000, 0)
	if extended >= 0x80000004 {
		for leaf := uint32(0x80000002); leaf <= 0x80000004; leaf++ {
			a, b, c, d := x86.CPUID(leaf, 0)
			p.Model += registerText(a, b, c, d)
		}
		p.Model = strings.TrimSpace(strings.TrimRight(p.Model, "\x00"))
	}
	a, _, _, _ := x86.CPUID(1, 0)
	p.Family, p.Number, p.Stepping = int(a>>8&15), int(a>>4&15), int(a&15)
	if p.Family == 6 || p.Family == 15 {
		p.Number |= int(a>>16&15) << 4
	}
	if p.Family == 15 {
		p.Family += int(a >> 20 & 255)
	}
	p.PhysBits, p.VirtBits = 36, 48
	if extended >= 0x80000008 {
		a, _, _, _ := x86.CPUID(0x80000008, 0)
		p.PhysBits, p.VirtBits = int(a&255), int(a>>8&255)
	}
	var flags []string
	for _, f := range flagNames {
		if f.leaf < 0x80000000 && f.leaf > top || f.leaf > extended && f.leaf >= 0x80000000 {
			continue
		}
		var r [4]uint32
		r[0], r[1], r[2], r[3] = x86.CPUID(f.leaf, f.subleaf)
		for i, name := range strings.Fields(f.names) {
			if name != "-" && r[f.reg]>>i&1 != 0 {
				flags = append(flags, name)
			}
		}
	}
	p.Flags = strings.Join(flags, " ")
	return p
}

// registerText is what CPUID says in letters.
func registerText(regs ...uint32) string {
	var b []byte
	for _, r := range regs {
		b = binary.LittleEndian.AppendUint32(b, r)
	}
	return string(b)
}
