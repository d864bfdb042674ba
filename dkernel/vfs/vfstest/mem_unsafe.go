package vfstest

import (
	"unsafe"

	"dinos/dkernel/frame"
)

// aligned is n bytes that start at a page, as memory that is split into frames must.
func aligned(n int) []byte {
	b := make([]byte, n+frame.Size)
	off := -uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (frame.Size - 1)
	return b[off : off+uintptr(n) : off+uintptr(n)]
}
