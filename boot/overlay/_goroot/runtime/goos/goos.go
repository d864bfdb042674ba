// Package goos exists for the drivers of github.com/usbarmory/tamago, which expect the package of this name that
// TamaGo's own toolchain has. It holds variables that they store hooks in. Nothing here calls the hooks: the
// kernels of this project serve the runtime through its Linux system calls.
package goos

import "unsafe"

// Memory layout of a TamaGo runtime; set by its package amd64 and not used here.
var (
	RamStart       uint
	RamSize        uint
	RamStackOffset uint
	Bloc           uintptr
)

// Hooks of a TamaGo runtime; set by its package amd64 and not used here.
var (
	Exit   func(code int32)
	Idle   func(until int64)
	ProcID func() uint64
	Task   func(sp, mp, gp, fn unsafe.Pointer)
	Wake   func(procid uint64)
)
