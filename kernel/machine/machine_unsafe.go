package machine

import (
	"fmt"
	"syscall"
	"unsafe"

	"dinos/boot/record"
	"dinos/boot/stub"
	"dinos/kernel/linux"
	"dinos/kernel/mem"
	"dinos/kernel/paging"
	"dinos/kernel/trap"
	"dinos/kernel/x86"
)

// phys returns the T at physical address pa, through the direct map.
func phys[T any](pa uint64) *T { return (*T)(unsafe.Add(nil, record.DirectMap+pa)) }

// physBytes returns n bytes of physical memory through the direct map.
func physBytes(pa, n uint64) []byte { return unsafe.Slice(phys[byte](pa), n) }

func cpuAddress(c *trap.CPU) uint64 { return uint64(uintptr(unsafe.Pointer(c))) }

// window spans the direct map of all memory, for page tables.
func window(top uint64) paging.Window {
	top = max(top, record.BootMapSize)
	return paging.Window{Tables: unsafe.Slice(phys[paging.Table](0), top/mem.FrameSize)}
}

// placeBlocks finds room for n descriptors of the frame allocator in RAM that holds nothing yet.
func placeBlocks(n int) (blocks []mem.Block, where, size uint64) {
	size = (uint64(n)*uint64(unsafe.Sizeof(mem.Block{})) + mem.FrameSize - 1) &^ (mem.FrameSize - 1)
	where = found.early.hole(size)
	if where == 0 {
		refuse("no room for the descriptors of all memory, bytes: ", size)
	}
	return unsafe.Slice(phys[mem.Block](where), n), where, size
}

// initialStack is where the runtime's first thread starts; the runtime takes 64 KiB below the arguments for its own.
var initialStack [80 << 10]byte

// arguments are the strings and words that a program finds above its initial stack pointer (System V ABI, AMD64, 3.4.1).
var arguments struct {
	name   [8]byte
	random [16]byte
	env    [2][64]byte
}

// runtimeStack builds the argument block of the runtime's first thread and returns its stack pointer.
func runtimeStack() uint64 {
	a := &arguments
	copy(a.name[:], "dinos\x00")
	kernel.Random(a.random[:])
	words := [...]uint64{
		1, addr(&a.name[0]), 0, // argc, argv
		0, // no environment
		linux.AT_PAGESZ, mem.FrameSize,
		linux.AT_RANDOM, addr(&a.random[0]),
		linux.AT_NULL, 0,
	}
	sp := (addr(&initialStack[0]) + uint64(len(initialStack)) - uint64(len(words))*8) &^ 15
	for i, w := range words {
		*(*uint64)(unsafe.Add(nil, sp+uint64(i)*8)) = w
	}
	return sp
}

func addr[T any](p *T) uint64 { return uint64(uintptr(unsafe.Pointer(p))) }

// load8 reads the word at virtual address va.
func load8(va uint64) uint64 { return *(*uint64)(unsafe.Add(nil, va)) }

// bytesAt returns n bytes at virtual address va.
func bytesAt(va, n uint64) []byte { return unsafe.Slice((*byte)(unsafe.Add(nil, va)), n) }

// flushTables makes the CPU forget what it knows of the tables at root.
func flushTables(root uint64) {
	cr4 := x86.ReadCR4()
	x86.WriteCR4(cr4 &^ x86.CR4PGE)
	x86.WriteCR3(root)
	x86.WriteCR4(cr4)
}

// inText reports whether pc is in the kernel's code.
func inText(pc uint64) bool { return pc >= stub.Record.TextStart && pc < stub.Record.TextEnd }

// Pin binds the calling thread to one CPU. The caller has locked its goroutine to the thread.
func Pin(cpu int) error {
	if cpu < 0 || cpu >= kernel.NumCPU() {
		return fmt.Errorf("pin to CPU %d: there are %d", cpu, kernel.NumCPU())
	}
	set := uint64(1) << cpu
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(set), uintptr(unsafe.Pointer(&set))); errno != 0 {
		return fmt.Errorf("pin to CPU %d: %w", cpu, errno)
	}
	return nil
}
