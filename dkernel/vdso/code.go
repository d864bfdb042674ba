package vdso

import (
	"fmt"

	"dinos/boot/emit"
)

// The functions keep to the C calling convention and use no stack, so that they run on the smallest one and one rule of the
// unwind table covers them. Mnemonics are those of x86asm; a test disassembles the image and compares.

// System calls behind the functions (arch/x86/entry/syscalls/syscall_64.tbl).
const (
	sysGettimeofday = 96
	sysTime         = 201
	sysClockGettime = 228
	sysClockGetres  = 229
	sysGetcpu       = 309
)

// assembler is a program with what the functions share.
type assembler struct{ *emit.Program }

func (p assembler) jump(name string, op byte, label string) {
	p.OpRef(name+" "+label, []byte{op}, emit.Rel8, label)
}

// far is a conditional jump with a distance of 32 bits; op is the short one's.
func (p assembler) far(name string, op byte, label string) {
	p.OpRef(name+" "+label, []byte{0x0f, op + 0x10}, emit.Rel32, label)
}

// code assembles the functions to run at text bytes behind the start of the image. Addresses in it count from the data page.
func code(text uint32, cpu CPUSource) (*emit.Linked, error) {
	p := assembler{emit.New(PageSize+text, 64)}
	p.LabelAt("data", 0)
	p.clockGettime()
	p.gettimeofday()
	p.time()
	p.clockGetres()
	p.getcpu(cpu)
	return p.Link()
}

// function begins a function at a cache line of its own.
func (p assembler) function(name string) {
	p.Align(64)
	p.Label(name)
}

// syscall passes the call on: the arguments are still where they were.
func (p assembler) syscall(label string, nr uint32) {
	p.Label(label)
	p.Op(fmt.Sprintf("mov eax, %#x", nr), emit.Imm32(nr, 0xb8)...)
	p.Op("syscall", 0x0f, 0x05)
	p.Op("ret", 0xc3)
}

func (p assembler) retZero() {
	p.Op("xor eax, eax", 0x31, 0xc0)
	p.Op("ret", 0xc3)
}

// served goes on if the data page says that the clock EDI is served, with R8 the page; else it goes to the label slow.
func (p assembler) served(slow string) {
	p.Op("cmp edi, 0xf", 0x83, 0xff, maxClock)
	p.far("ja", 0x77, slow)
	p.OpRef("lea r8, ptr [data]", []byte{0x4c, 0x8d, 0x05}, emit.Rel32, "data")
	p.Op("mov ecx, dword ptr [r8+0x4]", 0x41, 0x8b, 0x48, offServed)
	p.Op("bt ecx, edi", 0x0f, 0xa3, 0xf9)
	p.far("jae", 0x73, slow)
}

// read leaves the ns of the served clock RDI in RAX, and keeps RDI, RSI and R8. The loop is a sequence lock: an odd number means
// that the kernel is writing, a change that it has written. The loads need no fences, since x86 keeps them in order; LFENCE keeps
// RDTSC between them (SDM vol. 2B, RDTSC).
func (p assembler) read(name string) {
	again, waits, later := name+".again", name+".wait", name+".later"
	p.jump("jmp", 0xeb, again)
	p.Label(waits)
	p.Op("pause", 0xf3, 0x90)
	p.Label(again)
	p.Op("mov r9d, dword ptr [r8]", 0x45, 0x8b, 0x08)
	p.Op("test r9b, 0x1", 0x41, 0xf6, 0xc1, 0x01)
	p.jump("jne", 0x75, waits)
	p.Op("mov rcx, qword ptr [r8+0x8]", 0x49, 0x8b, 0x48, offBase)
	p.Op("mov r10, qword ptr [r8+0x10]", 0x4d, 0x8b, 0x50, offMult)
	p.Op("mov r11, qword ptr [r8+8*rdi+0x40]", 0x4d, 0x8b, 0x5c, 0xf8, offOffsets)
	p.Op("lfence", 0x0f, 0xae, 0xe8)
	p.Op("rdtsc", 0x0f, 0x31)
	p.Op("cmp r9d, dword ptr [r8]", 0x45, 0x3b, 0x08)
	p.jump("jne", 0x75, waits)
	p.Op("shl rdx, 0x20", 0x48, 0xc1, 0xe2, 0x20)
	p.Op("or rax, rdx", 0x48, 0x09, 0xd0)
	p.Op("sub rax, rcx", 0x48, 0x29, 0xc8)
	p.jump("jae", 0x73, later)
	p.Op("xor eax, eax", 0x31, 0xc0) // another CPU's counter may be behind
	p.Label(later)
	p.Op("mul r10", 0x49, 0xf7, 0xe2)
	p.Op("shrd rax, rdx, 0x20", 0x48, 0x0f, 0xac, 0xd0, 0x20)
	p.Op("add rax, r11", 0x4c, 0x01, 0xd8)
}

// split divides the ns in RAX: seconds to RDX, the rest to RCX. It is n/10⁹ = (n/2⁹ · ⌈2⁷⁵/(10⁹/2⁹)⌉) / 2⁷⁵, exact for all n below
// 2⁶³: the multiplier is too large by less than 2²¹/2⁷⁵, which n/2⁹ < 2⁵⁴ cannot raise to a unit of the quotient's last place.
func (p assembler) split() {
	p.Op("mov rcx, rax", 0x48, 0x89, 0xc1)
	p.Op("shr rax, 0x9", 0x48, 0xc1, 0xe8, 0x09)
	p.Op("mov r10, 0x44b82fa09b5a53", emit.Imm64(0x44b82fa09b5a53, 0x49, 0xba)...)
	p.Op("mul r10", 0x49, 0xf7, 0xe2)
	p.Op("shr rdx, 0xb", 0x48, 0xc1, 0xea, 0x0b)
	p.Op("imul rax, rdx, 0x3b9aca00", emit.Imm32(1e9, 0x48, 0x69, 0xc2)...)
	p.Op("sub rcx, rax", 0x48, 0x29, 0xc1)
}

// clockGettime is int clock_gettime(clockid_t clock, struct timespec *to).
func (p assembler) clockGettime() {
	p.function("clock_gettime")
	p.served("clock_gettime.slow")
	p.read("clock_gettime")
	p.split()
	p.Op("mov qword ptr [rsi], rdx", 0x48, 0x89, 0x16)
	p.Op("mov qword ptr [rsi+0x8], rcx", 0x48, 0x89, 0x4e, 0x08)
	p.retZero()
	p.syscall("clock_gettime.slow", sysClockGettime)
}

// gettimeofday is int gettimeofday(struct timeval *to, struct timezone *zone); either may be NULL, the zone is always zero.
func (p assembler) gettimeofday() {
	const name = "gettimeofday"
	p.function(name)
	p.Op("mov rax, rdi", 0x48, 0x89, 0xf8)
	p.OpRef("lea r8, ptr [data]", []byte{0x4c, 0x8d, 0x05}, emit.Rel32, "data")
	p.Op("test byte ptr [r8+0x4], 0x1", 0x41, 0xf6, 0x40, offServed, 1)
	p.far("je", 0x74, name+".slow")
	p.Op("test rsi, rsi", 0x48, 0x85, 0xf6)
	p.jump("je", 0x74, name+".nozone")
	p.Op("mov qword ptr [rsi], 0x0", 0x48, 0xc7, 0x06, 0, 0, 0, 0)
	p.Label(name + ".nozone")
	p.Op("mov rsi, rax", 0x48, 0x89, 0xc6)
	p.Op("xor edi, edi", 0x31, 0xff) // CLOCK_REALTIME
	p.Op("test rsi, rsi", 0x48, 0x85, 0xf6)
	p.jump("je", 0x74, name+".done")
	p.read(name)
	p.split()
	p.Op("mov qword ptr [rsi], rdx", 0x48, 0x89, 0x16)
	// n/1000 = n · ⌈2³⁸/1000⌉ / 2³⁸ for n below 10⁹.
	p.Op("imul rcx, rcx, 0x10624dd3", emit.Imm32(0x10624dd3, 0x48, 0x69, 0xc9)...)
	p.Op("shr rcx, 0x26", 0x48, 0xc1, 0xe9, 0x26)
	p.Op("mov qword ptr [rsi+0x8], rcx", 0x48, 0x89, 0x4e, 0x08)
	p.Label(name + ".done")
	p.retZero()
	p.syscall(name+".slow", sysGettimeofday)
}

// time is time_t time(time_t *to); to may be NULL.
func (p assembler) time() {
	const name = "time"
	p.function(name)
	p.OpRef("lea r8, ptr [data]", []byte{0x4c, 0x8d, 0x05}, emit.Rel32, "data")
	p.Op("test byte ptr [r8+0x4], 0x1", 0x41, 0xf6, 0x40, offServed, 1)
	p.far("je", 0x74, name+".slow")
	p.Op("mov rsi, rdi", 0x48, 0x89, 0xfe)
	p.Op("xor edi, edi", 0x31, 0xff) // CLOCK_REALTIME
	p.read(name)
	p.split()
	p.Op("test rsi, rsi", 0x48, 0x85, 0xf6)
	p.jump("je", 0x74, name+".done")
	p.Op("mov qword ptr [rsi], rdx", 0x48, 0x89, 0x16)
	p.Label(name + ".done")
	p.Op("mov rax, rdx", 0x48, 0x89, 0xd0)
	p.Op("ret", 0xc3)
	p.syscall(name+".slow", sysTime)
}

// clockGetres is int clock_getres(clockid_t clock, struct timespec *to); to may be NULL.
func (p assembler) clockGetres() {
	const name = "clock_getres"
	p.function(name)
	p.served(name + ".slow")
	p.Op("test rsi, rsi", 0x48, 0x85, 0xf6)
	p.jump("je", 0x74, name+".done")
	p.Op("mov eax, 0x1", emit.Imm32(1, 0xb8)...)
	p.Op("mov ecx, 0x60", emit.Imm32(coarse, 0xb9)...)
	p.Op("bt ecx, edi", 0x0f, 0xa3, 0xf9)
	p.jump("jae", 0x73, name+".fine")
	p.Op("mov eax, 0x3d0900", emit.Imm32(CoarseResolution, 0xb8)...)
	p.Label(name + ".fine")
	p.Op("mov qword ptr [rsi], 0x0", 0x48, 0xc7, 0x06, 0, 0, 0, 0)
	p.Op("mov qword ptr [rsi+0x8], rax", 0x48, 0x89, 0x46, 0x08)
	p.Label(name + ".done")
	p.retZero()
	p.syscall(name+".slow", sysClockGetres)
}

// getcpu is int getcpu(unsigned *cpu, unsigned *node, void *unused); both may be NULL.
func (p assembler) getcpu(cpu CPUSource) {
	const name = "getcpu"
	p.function(name)
	if cpu == CPUFromRDTSCP {
		p.Op("rdtscp", 0x0f, 0x01, 0xf9)
		p.Op("mov eax, ecx", 0x89, 0xc8)
		p.Op("and ecx, 0xfff", emit.Imm32(0xfff, 0x81, 0xe1)...)
		p.Op("shr eax, 0xc", 0xc1, 0xe8, 0x0c)
		p.Op("test rdi, rdi", 0x48, 0x85, 0xff)
		p.jump("je", 0x74, name+".nocpu")
		p.Op("mov dword ptr [rdi], ecx", 0x89, 0x0f)
		p.Label(name + ".nocpu")
		p.Op("test rsi, rsi", 0x48, 0x85, 0xf6)
		p.jump("je", 0x74, name+".done")
		p.Op("mov dword ptr [rsi], eax", 0x89, 0x06)
		p.Label(name + ".done")
		p.retZero()
		return
	}
	p.syscall(name+".slow", sysGetcpu)
}
