package elftest

import "dinos/kernel/linux"

// Hello writes text to standard output and exits with status.
func Hello(typ uint16, text string, status uint64) ([]byte, error) {
	return Build(typ, func(a *Asm) { hello(a, text, status) })
}

func hello(a *Asm, text string, status uint64) {
	a.Write(1, "text", len(text))
	a.Exit(status)
	a.Data("text", []byte(text)...)
}

// Calls makes a system call n times and exits with status 0: something to time.
func Calls(typ uint16, n, nr uint64, args ...Arg) ([]byte, error) {
	return Build(typ, func(a *Asm) {
		a.Repeat("again", n, func() { a.Syscall(nr, args...) })
		a.Exit(0)
	})
}

// Spin runs n times around a loop without any system call, for ever if n is 0, and exits with status.
func Spin(typ uint16, n, status uint64) ([]byte, error) {
	return Build(typ, func(a *Asm) {
		a.Repeat("again", n, func() {})
		a.Exit(status)
	})
}

// Fault executes an instruction that traps; it exits with status 0 if it does not.
func Fault(typ uint16, text string, code ...byte) ([]byte, error) {
	return Build(typ, func(a *Asm) {
		a.Op(text, code...)
		a.Exit(0)
	})
}

// Entry is what DumpStart writes in front of the stack: the registers at the first instruction.
type Entry struct {
	R15, R14, R13, R12, R11, R10, R9, R8, RBP, RDI, RSI, RDX, RCX, RBX, RAX, RFLAGS, RSP uint64
}

// EntrySize is the size of Entry as it is written, in little-endian order.
const EntrySize = 17 * 8

// DumpStart writes an Entry and then everything from the stack pointer to the end of the stack to standard output.
func DumpStart(typ uint16) ([]byte, error) { return Build(typ, dumpStart) }

func dumpStart(a *Asm) {
	a.Push(RSP) // stores what RSP was before
	a.Op("pushfq", 0x9c)
	for _, r := range []Reg{RAX, RBX, RCX, RDX, RSI, RDI, RBP, R8, R9, R10, R11, R12, R13, R14, R15} {
		a.Push(r)
	}
	a.Syscall(linux.SYS_WRITE, Imm(1), In(RSP), Imm(EntrySize))
	a.Op("lea rbx, ptr [rsp+0x88]", 0x48, 0x8d, 0x9c, 0x24, EntrySize, 0, 0, 0)
	// Page by page, until a page is not there: then write says EFAULT.
	a.Label("page")
	a.Mov(RAX, RBX)
	a.Op("and eax, 0xfff", 0x25, 0xff, 0x0f, 0, 0)
	a.Set(RDX, 4096)
	a.Sub(RDX, RAX)
	a.Syscall(linux.SYS_WRITE, Imm(1), In(RBX))
	a.Add(RBX, RAX)
	a.Test(RAX)
	a.Jump(Positive, "page")
	a.Exit(0)
}

// Args writes its arguments, each followed by a zero byte, to standard output, and exits with their number.
func Args(typ uint16) ([]byte, error) { return Build(typ, args) }

func args(a *Asm) {
	a.Op("mov r12, qword ptr [rsp]", 0x4c, 0x8b, 0x24, 0x24)
	a.Op("lea rbx, ptr [rsp+0x8]", 0x48, 0x8d, 0x5c, 0x24, 0x08)
	a.Mov(R13, R12)
	a.Label("arg")
	a.Test(R12)
	a.Jump(Zero, "end")
	a.Op("mov rsi, qword ptr [rbx]", 0x48, 0x8b, 0x33)
	a.Set(RDX, 0)
	a.Label("char")
	a.Op("inc rdx", 0x48, 0xff, 0xc2)
	a.Op("cmp byte ptr [rsi+rdx-0x1], 0x0", 0x80, 0x7c, 0x16, 0xff, 0)
	a.Jump(NotZero, "char")
	a.Set(RDI, 1)
	a.Syscall(linux.SYS_WRITE)
	a.Op("lea rbx, ptr [rbx+0x8]", 0x48, 0x8d, 0x5b, 0x08)
	a.Op("dec r12", 0x49, 0xff, 0xcc)
	a.Jump(Always, "arg")
	a.Label("end")
	a.Syscall(linux.SYS_EXIT_GROUP, In(R13))
}
