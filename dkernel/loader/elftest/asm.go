package elftest

import (
	"fmt"

	"dinos/boot/emit"
	"dinos/kernel/linux"
)

// Reg is a general register.
type Reg uint8

// The registers, by their numbers in machine code.
const (
	RAX Reg = iota
	RCX
	RDX
	RBX
	RSP
	RBP
	RSI
	RDI
	R8
	R9
	R10
	R11
	R12
	R13
	R14
	R15
)

var regNames = [...]string{"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"}

func (r Reg) String() string { return regNames[r] }

func (r Reg) low() byte  { return byte(r) & 7 }
func (r Reg) high() byte { return byte(r) >> 3 }

// Asm is a program under construction (package emit), with the instructions that test programs are made of. Code must be
// position-independent for a static PIE; what is here is.
type Asm struct{ *emit.Program }

// Mov is dst = src.
func (a *Asm) Mov(dst, src Reg) {
	a.Op(fmt.Sprintf("mov %s, %s", dst, src), 0x48|src.high()<<2|dst.high(), 0x89, 0xc0|src.low()<<3|dst.low())
}

// Set is r = v.
func (a *Asm) Set(r Reg, v uint64) {
	text := fmt.Sprintf("mov %s, %#x", r, v)
	if int64(v) == int64(int32(v)) {
		a.Op(text, emit.Imm32(uint32(v), 0x48|r.high(), 0xc7, 0xc0|r.low())...)
		return
	}
	a.Op(text, emit.Imm64(v, 0x48|r.high(), 0xb8|r.low())...)
}

// Lea is r = the address of label.
func (a *Asm) Lea(r Reg, label string) {
	a.OpRef(fmt.Sprintf("lea %s, ptr [%s]", r, label), []byte{0x48 | r.high()<<2, 0x8d, r.low()<<3 | 5}, emit.Rel32, label)
}

// Push stores r below the stack.
func (a *Asm) Push(r Reg) {
	if r >= R8 {
		a.Op("push "+r.String(), 0x41, 0x50|r.low())
		return
	}
	a.Op("push "+r.String(), 0x50|r.low())
}

// Add is dst += src.
func (a *Asm) Add(dst, src Reg) {
	a.Op(fmt.Sprintf("add %s, %s", dst, src), 0x48|src.high()<<2|dst.high(), 0x01, 0xc0|src.low()<<3|dst.low())
}

// Sub is dst -= src.
func (a *Asm) Sub(dst, src Reg) {
	a.Op(fmt.Sprintf("sub %s, %s", dst, src), 0x48|src.high()<<2|dst.high(), 0x29, 0xc0|src.low()<<3|dst.low())
}

// Test sets the flags by r.
func (a *Asm) Test(r Reg) {
	a.Op(fmt.Sprintf("test %s, %s", r, r), 0x48|r.high()<<2|r.high(), 0x85, 0xc0|r.low()<<3|r.low())
}

// Cond is the condition of a jump.
type Cond byte

// Conditions, signed.
const (
	Always   Cond = 0xeb
	Zero     Cond = 0x74
	NotZero  Cond = 0x75
	Negative Cond = 0x78
	Positive Cond = 0x7f // not zero either
)

// Jump goes to label, which is near.
func (a *Asm) Jump(c Cond, label string) {
	name := map[Cond]string{Always: "jmp", Zero: "je", NotZero: "jne", Negative: "js", Positive: "jg"}[c]
	a.OpRef(name+" "+label, []byte{byte(c)}, emit.Rel8, label)
}

// Repeat runs body n times, with R12 counting down; body must keep R12 and be short. label is its name.
func (a *Asm) Repeat(label string, n uint64, body func()) {
	a.Set(R12, n)
	a.Label(label)
	body()
	a.Op("dec r12", 0x49, 0xff, 0xcc)
	a.Jump(NotZero, label)
}

// Arg is an argument of a system call.
type Arg struct {
	value uint64
	label string
	reg   Reg
	isReg bool
}

// Imm is a number, At the address of a label, In the content of a register, which must not be one that an argument before it
// was put into.
func Imm(v uint64) Arg    { return Arg{value: v} }
func At(label string) Arg { return Arg{label: label} }
func In(r Reg) Arg        { return Arg{reg: r, isReg: true} }

var argRegs = [...]Reg{RDI, RSI, RDX, R10, R8, R9}

// Syscall makes a system call; the result is in RAX, RCX and R11 are lost.
func (a *Asm) Syscall(nr uint64, args ...Arg) {
	for i, arg := range args {
		switch {
		case arg.isReg:
			a.Mov(argRegs[i], arg.reg)
		case arg.label != "":
			a.Lea(argRegs[i], arg.label)
		default:
			a.Set(argRegs[i], arg.value)
		}
	}
	a.Set(RAX, nr)
	a.Op("syscall", 0x0f, 0x05)
}

// Write writes size bytes at label to file descriptor fd.
func (a *Asm) Write(fd uint64, label string, size int) {
	a.Syscall(linux.SYS_WRITE, Imm(fd), At(label), Imm(uint64(size)))
}

// Exit ends the process.
func (a *Asm) Exit(status uint64) { a.Syscall(linux.SYS_EXIT_GROUP, Imm(status)) }

// text is where the code starts: behind the file header and three program headers.
const text = linux.ElfEhdrSize + 3*linux.ElfPhdrSize + 8

// BSS is the size of the zeroed memory at the label "bss".
const BSS = 1 << 16

const bssOffset = 0x10000

// Build makes a program of type ET_EXEC, at Base, or ET_DYN, a static PIE. It has one read-only executable segment with code and
// constants, one of BSS bytes of memory, and a stack that cannot be executed. The first instruction is the entry point.
func Build(typ uint16, code func(a *Asm)) ([]byte, error) {
	b, _, err := BuildListed(typ, code)
	return b, err
}

// BuildListed is Build, with the code for a check by package emittest.
func BuildListed(typ uint16, code func(a *Asm)) ([]byte, *emit.Linked, error) {
	base := uint64(0)
	if typ == linux.ET_EXEC {
		base = Base
	}
	a := &Asm{emit.New(uint32(base+text), 64)}
	a.LabelAt("bss", uint32(base+bssOffset))
	code(a)
	l, err := a.Link()
	if err != nil {
		return nil, nil, fmt.Errorf("elftest: %w", err)
	}
	if len(l.Code) > bssOffset-text {
		return nil, nil, fmt.Errorf("elftest: a program of %d bytes of code, more than %d", len(l.Code), bssOffset-text)
	}
	size := uint64(text + len(l.Code))
	f := File{Type: typ, Entry: base + text, Segments: []Segment{
		{Type: linux.PT_LOAD, Flags: linux.PF_R | linux.PF_X, Vaddr: base, Filesz: size, Memsz: size, Align: 4096},
		{Type: linux.PT_LOAD, Flags: linux.PF_R | linux.PF_W, Vaddr: base + bssOffset, Memsz: BSS, Align: 4096},
		{Type: linux.PT_GNU_STACK, Flags: linux.PF_R | linux.PF_W, Align: 16},
	}}
	b := f.Bytes()
	b = append(b, make([]byte, text-len(b))...)
	return append(b, l.Code...), l, nil
}
