package mm

import "unsafe"

// stackIndex is a number that is mostly the same for a goroutine and different for different ones: from where its stack is.
func stackIndex() uint64 {
	var here byte
	return uint64(uintptr(unsafe.Pointer(&here))>>13) * 0x9e3779b97f4a7c15 >> 56
}
