package vdso

import (
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"dinos/boot/emit"
	"dinos/kernel/linux"
)

// mapped is a vDSO in the memory of this process, whose functions can be called.
type mapped struct {
	writer *Writer
	image  *Image
	memory []byte // data page and image
	page   []byte // stubs
	stubs  []*uintptr
	next   int
}

// function has the form of a call: two pointers in, an int out.
type function func(a, b unsafe.Pointer) int64

// clockFunction is one whose first argument is a clock id.
type clockFunction func(id int, b unsafe.Pointer) int64

func mapVDSO(t testing.TB, cpu CPUSource) *mapped {
	img, err := New(cpu)
	require.NoError(t, err)
	mem, err := syscall.Mmap(-1, 0, 2*PageSize+len(img.Bytes), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, syscall.Munmap(mem)) })
	m := &mapped{image: img, page: mem[:PageSize], memory: mem[PageSize:]}
	copy(m.memory[PageSize:], img.Bytes)
	m.writer = NewWriter(m.memory[:PageSize])
	require.NoError(t, syscall.Mprotect(m.memory[PageSize:], syscall.PROT_READ|syscall.PROT_EXEC))
	return m
}

// stub makes a function of machine code that Go can call: arguments come in RAX and RBX, the result is in RAX, R14 and XMM15 must
// stay (cmd/compile/abi-internal.md).
func (m *mapped) stub(t testing.TB, code []byte) function {
	require.NoError(t, syscall.Mprotect(m.page, syscall.PROT_READ|syscall.PROT_WRITE))
	at := m.page[m.next:]
	m.next += (copy(at, code) + 15) &^ 15
	require.NoError(t, syscall.Mprotect(m.page, syscall.PROT_READ|syscall.PROT_EXEC))
	entry := new(uintptr)
	*entry = uintptr(unsafe.Pointer(&at[0]))
	m.stubs = append(m.stubs, entry) // a func value is a pointer to a pointer to code
	return *(*function)(unsafe.Pointer(&m.stubs[len(m.stubs)-1]))
}

// at makes a function callable, given its offset in the image.
func (m *mapped) at(t testing.TB, offset uint64) function {
	p := emit.New(0, 64)
	p.Op("mov rdi, rax", 0x48, 0x89, 0xc7)
	p.Op("mov rsi, rbx", 0x48, 0x89, 0xde)
	target := uint64(uintptr(unsafe.Pointer(&m.memory[PageSize]))) + offset
	p.Op("mov r11, target", emit.Imm64(target, 0x49, 0xbb)...)
	p.Op("jmp r11", 0x41, 0xff, 0xe3)
	l, err := p.Link()
	require.NoError(t, err)
	return m.stub(t, l.Code)
}

func (m *mapped) function(t testing.TB, name string) function {
	require.Contains(t, m.image.Symbols, name)
	return m.at(t, uint64(m.image.Symbols[name]))
}

func (m *mapped) clockFunction(t testing.TB, name string) clockFunction {
	f := m.function(t, name)
	return *(*clockFunction)(unsafe.Pointer(&f))
}

// tsc makes a function that reads the time stamp counter after everything before it and before everything after it.
func (m *mapped) tsc(t testing.TB) func() uint64 {
	f := m.stub(t, []byte{0x0f, 0xae, 0xe8, 0x0f, 0x31, 0x0f, 0xae, 0xe8, 0x48, 0xc1, 0xe2, 0x20, 0x48, 0x09, 0xd0, 0xc3})
	return func() uint64 { return uint64(f(nil, nil)) }
}

func pointer[T any](p *T) unsafe.Pointer { return unsafe.Pointer(p) }

func realClock(id int, ts *linux.Timespec) syscall.Errno {
	_, _, e := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, uintptr(id), uintptr(unsafe.Pointer(ts)), 0)
	return e
}

func setAffinity(set []byte) syscall.Errno {
	_, _, e := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, 0, uintptr(len(set)), uintptr(unsafe.Pointer(&set[0])))
	return e
}
