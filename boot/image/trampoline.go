package image

import (
	"fmt"

	"dinos/boot/emit"
	"dinos/boot/record"
	"dinos/kernel/testproto"
)

// Register bits and CPUID bits that the trampoline uses; Intel SDM volume 3 section 2.5, volume 2 "CPUID".
const (
	cr0   = 1<<31 | 1<<16 | 1<<5 | 1<<4 | 1<<1 | 1<<0 // PG WP NE ET MP PE
	cr4   = 1<<5 | 1<<9 | 1<<10                       // PAE OSFXSR OSXMMEXCPT
	pge   = 1 << 7                                    // CR4.PGE
	efer  = 0xc000_0080                               // MSR
	lmNX  = 1<<8 | 1<<11                              // EFER: LME NXE
	sce   = 1 << 0                                    // EFER: SCE
	idBit = 1 << 21                                   // EFLAGS.ID

	startInfoMagic = 0x336e_c578 // hvm_start_info.magic

	com1     = 0x3f8
	com1LSR  = com1 + 5
	lsrEmpty = 0x20 // transmitter holding register empty

	pageSize  = 4096
	stackSize = 64 // bytes at the end of the trampoline's page; it pushes at most 4
)

// cpuFeature is a bit of EDX of a CPUID leaf that must be set.
type cpuFeature struct {
	label, name string
	mask        uint32
}

var basicFeatures = []cpuFeature{
	{"no_pae", "PAE", 1 << 6},
	{"no_pge", "PGE (global pages)", 1 << 13},
	{"no_fxsr", "FXSR", 1 << 24},
	{"no_sse2", "SSE2", 1 << 26},
}

var extendedFeatures = []cpuFeature{
	{"no_lm", "long mode", 1 << 29},
	{"no_nx", "NX (no-execute pages)", 1 << 20},
}

// syscallFeature is checked in 64-bit mode, because Intel CPUs report it only there.
var syscallFeature = cpuFeature{"no_syscall", "SYSCALL", 1 << 11}

// trampoline assembles the code at record.PhysBase for an image that ends at physEnd; it ends in a jump to entry.
// Its stack is the end of its page.
func trampoline(pml4 uint32, physEnd, entry uint64) (*emit.Linked, error) {
	p := emit.New(uint32(record.PhysBase), 32)
	p.Op("cli", 0xfa)
	p.Op("cld", 0xfc)
	p.Op("mov esp, {stack}", emit.Imm32(uint32(record.PhysBase+pageSize), 0xbc)...)
	p.Op("mov edi, ebx", 0x89, 0xdf) // CPUID overwrites ebx
	p.Op("cmp dword ptr [edi], {magic}", emit.Imm32(startInfoMagic, 0x81, 0x3f)...)
	mustBe(p, "no_info", 0x74, "je")
	checkRAM(p, uint32(physEnd-4))
	checkCPU(p)
	enterLongMode(p, pml4)
	p.Bits(64)
	p.Label("long")
	longMode(p, pml4, entry)
	refuse(p)

	// Selector order as in package record: null, code, data. The accessed bits are set, so that the CPU need not write here.
	p.Align(8)
	p.Data("gdt", emit.Imm64(0x00cf_93_000000_ffff, emit.Imm64(0x00af_9b_000000_ffff, emit.Imm64(0)...)...)...)
	p.DataRef("gdtr", []byte{3*8 - 1, 0}, "gdt")

	p.Data("no_info_msg", message("EBX does not point at a PVH start info (magic 0x336ec578): boot with -kernel on QEMU or another PVH loader")...)
	p.Data("no_cpuid_msg", message("CPU lacks CPUID")...)
	p.Data("no_ram_msg", message(fmt.Sprintf("too little RAM: the image ends at %d KiB", physEnd>>10))...)
	for _, f := range append(append([]cpuFeature{syscallFeature}, basicFeatures...), extendedFeatures...) {
		p.Data(f.label+"_msg", message("CPU lacks "+f.name)...)
	}
	return p.Link()
}

func message(s string) []byte { return append([]byte("dinos: boot: "+s+"\r\n"), 0) }

// mustBe continues after itself when the condition of the short jump skip holds, and refuses to boot with
// the message of label when not. It fits both 32-bit and 64-bit mode.
func mustBe(p *emit.Program, label string, skip byte, mnemonic string) {
	p.OpRef(mnemonic+" "+label+"_ok", []byte{skip}, emit.Rel8, label+"_ok")
	p.OpRef("mov esi, {"+label+"_msg}", []byte{0xbe}, emit.Addr32, label+"_msg")
	p.OpRef("mov eax, {refuse}", []byte{0xb8}, emit.Addr32, "refuse") // too far for a short jump
	p.Op("jmp "+p.Reg("ax"), 0xff, 0xe0)
	p.Label(label + "_ok")
}

// checkRAM refuses when the last word of the image, at address last, does not keep what is written to it.
func checkRAM(p *emit.Program, last uint32) {
	p.Op("mov eax, dword ptr [{last}]", emit.Imm32(last, 0xa1)...)
	p.Op("mov ecx, eax", 0x89, 0xc1)
	p.Op("not eax", 0xf7, 0xd0)
	p.Op("mov dword ptr [{last}], eax", emit.Imm32(last, 0xa3)...)
	p.Op("cmp dword ptr [{last}], eax", emit.Imm32(last, 0x39, 0x05)...)
	p.Op("mov dword ptr [{last}], ecx", emit.Imm32(last, 0x89, 0x0d)...) // keeps the flags
	mustBe(p, "no_ram", 0x74, "je")
}

// checkCPU refuses CPUs without the features that the rest relies on.
func checkCPU(p *emit.Program) {
	// CPUID exists where EFLAGS.ID can be changed.
	p.Op("pushfd", 0x9c)
	p.Op("pop eax", 0x58)
	p.Op("mov ecx, eax", 0x89, 0xc1)
	p.Op("xor eax, {idBit}", emit.Imm32(idBit, 0x35)...)
	p.Op("push eax", 0x50)
	p.Op("popfd", 0x9d)
	p.Op("pushfd", 0x9c)
	p.Op("pop eax", 0x58)
	p.Op("xor eax, ecx", 0x31, 0xc8)
	mustBe(p, "no_cpuid", 0x75, "jne")

	p.Op("mov eax, 0x1", emit.Imm32(1, 0xb8)...)
	p.Op("cpuid", 0x0f, 0xa2)
	for _, f := range basicFeatures {
		p.Op("test edx, {"+f.label+"_mask}", emit.Imm32(f.mask, 0xf7, 0xc2)...)
		mustBe(p, f.label, 0x75, "jne")
	}

	// A CPU without the extended leaf has none of its features: clear edx instead of asking.
	p.Op("mov eax, 0x80000000", emit.Imm32(0x8000_0000, 0xb8)...)
	p.Op("cpuid", 0x0f, 0xa2)
	p.Op("xor edx, edx", 0x31, 0xd2)
	p.Op("cmp eax, 0x80000001", emit.Imm32(0x8000_0001, 0x3d)...)
	p.OpRef("jb no_leaf", []byte{0x72}, emit.Rel8, "no_leaf")
	p.Op("mov eax, 0x80000001", emit.Imm32(0x8000_0001, 0xb8)...)
	p.Op("cpuid", 0x0f, 0xa2)
	p.Label("no_leaf")
	for _, f := range extendedFeatures {
		p.Op("test edx, {"+f.label+"_mask}", emit.Imm32(f.mask, 0xf7, 0xc2)...)
		mustBe(p, f.label, 0x75, "jne")
	}
}

// enterLongMode follows Intel SDM volume 3 section 10.8.5, and ends in the far jump to 64-bit code.
func enterLongMode(p *emit.Program, pml4 uint32) {
	p.Op("mov eax, {cr4}", emit.Imm32(cr4, 0xb8)...)
	p.Op("mov cr4, eax", 0x0f, 0x22, 0xe0)
	p.Op("mov eax, {pml4}", emit.Imm32(pml4, 0xb8)...)
	p.Op("mov cr3, eax", 0x0f, 0x22, 0xd8)
	p.Op("mov ecx, {efer}", emit.Imm32(efer, 0xb9)...)
	p.Op("rdmsr", 0x0f, 0x32)
	p.Op("or eax, {lmNX}", emit.Imm32(lmNX, 0x0d)...)
	p.Op("wrmsr", 0x0f, 0x30)
	p.Op("mov eax, {cr0}", emit.Imm32(cr0, 0xb8)...)
	p.Op("mov cr0, eax", 0x0f, 0x22, 0xc0)
	p.OpRef("lgdt ptr [{gdtr}]", []byte{0x0f, 0x01, 0x15}, emit.Addr32, "gdtr")
	p.OpRef("jmp far {long}, 0x8", []byte{0xea}, emit.Addr32, "long", record.KernelCode, 0)
}

// longMode is the 64-bit part: it sets what is left and jumps to the kernel.
func longMode(p *emit.Program, pml4 uint32, entry uint64) {
	p.Op("mov eax, 0x10", emit.Imm32(record.KernelData, 0xb8)...)
	p.Op("mov ds, ax", 0x8e, 0xd8)
	p.Op("mov es, ax", 0x8e, 0xc0)
	p.Op("mov ss, ax", 0x8e, 0xd0)
	p.Op("xor eax, eax", 0x31, 0xc0)
	p.Op("mov fs, ax", 0x8e, 0xe0)
	p.Op("mov gs, ax", 0x8e, 0xe8)

	p.Op("mov eax, 0x80000001", emit.Imm32(0x8000_0001, 0xb8)...)
	p.Op("cpuid", 0x0f, 0xa2)
	p.Op("test edx, {no_syscall_mask}", emit.Imm32(syscallFeature.mask, 0xf7, 0xc2)...)
	mustBe(p, syscallFeature.label, 0x75, "jne")
	p.Op("mov ecx, {efer}", emit.Imm32(efer, 0xb9)...)
	p.Op("rdmsr", 0x0f, 0x32)
	p.Op("or eax, {sce}", 0x83, 0xc8, sce)
	p.Op("wrmsr", 0x0f, 0x30)

	// PGE goes on after paging, Intel SDM volume 3 section 2.5.
	p.Op("mov eax, {cr4pge}", emit.Imm32(cr4|pge, 0xb8)...)
	p.Op("mov cr4, rax", 0x0f, 0x22, 0xe0)

	p.Op("mov edi, edi", 0x89, 0xff) // clears the upper half, which the mode switch left undefined
	p.Op("mov esi, {pml4}", emit.Imm32(pml4, 0xbe)...)
	p.Op("mov rax, {entry}", emit.Imm64(entry, 0x48, 0xb8)...)
	p.Op("jmp rax", 0xff, 0xe0)
}

// refuse prints the message at esi on COM1, leaves through isa-debug-exit and, where there is no such device, halts.
// It is entered from 32-bit and from 64-bit code: its bytes mean the same in both.
func refuse(p *emit.Program) {
	p.Label("refuse")
	p.Op("mov ecx, {spins}", emit.Imm32(1<<16, 0xb9)...) // a stuck UART must not keep us here
	p.Label("wait")
	p.Op("mov edx, {lsr}", emit.Imm32(com1LSR, 0xba)...)
	p.Op("in al, dx", 0xec)
	p.Op("test al, {lsrEmpty}", 0xa8, lsrEmpty)
	p.OpRef("loope wait", []byte{0xe1}, emit.Rel8, "wait")
	p.Op("lodsb byte ptr ["+p.Reg("si")+"]", 0xac)
	p.Op("test al, al", 0x84, 0xc0)
	p.OpRef("je exit", []byte{0x74}, emit.Rel8, "exit")
	p.Op("mov edx, {com1}", emit.Imm32(com1, 0xba)...)
	p.Op("out dx, al", 0xee)
	p.OpRef("jmp refuse", []byte{0xeb}, emit.Rel8, "refuse")
	p.Label("exit")
	p.Op("mov edx, {exitPort}", emit.Imm32(testproto.DebugExitPort, 0xba)...)
	p.Op("mov eax, {exitRefused}", emit.Imm32(uint32(testproto.ExitRefused), 0xb8)...)
	p.Op("out dx, eax", 0xef)
	p.Label("halt")
	p.Op("cli", 0xfa)
	p.Op("hlt", 0xf4)
	p.OpRef("jmp halt", []byte{0xeb}, emit.Rel8, "halt")
}
