package ktest

import (
	"os"

	"dinos/kernel/machine"
	"dinos/kernel/x86"
)

// crashes are ways to fail. Each is a plain function so that it can run on a goroutine, on the runtime's system stack, in kernel code
// and in an interrupt.
var crashes = map[string]func(){
	"nil":       func() { *nowhere = 1 },
	"divide":    func() { sink = 1 / zero },
	"overflow":  func() { sink = recurse(1) },
	"undefined": x86.Undefined,
	"double":    func() { machine.LoseFaultStack(); *nowhere = 1 },
	"guard":     func() { x86.Store32(machine.GuardPage(), 1) },
	"nmi":       machine.RaiseNMI,
	"rodata":    writeRodata,
	"protect":   func() { x86.Load32(1 << 63) },
	"execute":   func() { jump(&stackCode) },
	"text":      writeText,
	"panic":     func() { panic("deliberate") },
	"exit":      func() { os.Exit(2) },
	"memory":    eat,
	"alloc":     churn,
	"hang": func() {
		for zero == 0 {
		}
	},
}

// Variables, so that the compiler does not see what is coming.
var (
	nowhere   *int
	zero      int
	sink      int
	stackCode = [16]byte{0xc3} // RET, in data: not executable
	hoard     [][]byte
)

// recurse never returns; the array makes it quick about it.
//
//go:noinline
func recurse(n int) int {
	var pad [64]int
	pad[n&63] = n
	return recurse(n+1) + pad[(n+1)&63]
}

// churn makes garbage; where there is an allocator that is nothing to crash for.
func churn() {
	for i := range 4000 {
		hoard = append(hoard[:0], make([]byte, 64<<10+i))
	}
}

// eat takes all memory.
func eat() {
	for {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		hoard = append(hoard, b)
	}
}
