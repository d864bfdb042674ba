package frame

import "unsafe"

// StackHash is a number that is mostly the same for a goroutine and different for different ones, to spread them over caches and
// counters: from where its stack is. The runtime does not tell which processor this is. The highest bits are the best.
func StackHash() uint64 {
	var here byte
	return uint64(uintptr(unsafe.Pointer(&here))>>13) * 0x9e3779b97f4a7c15 // Fibonacci hashing (Knuth, TAOCP 3, 6.4)
}

// misaligned reports whether b does not start on a page border.
func misaligned(b []byte) bool {
	return uintptr(unsafe.Pointer(unsafe.SliceData(b)))%Size != 0
}

// Words is the memory of f as words, for atomic access.
func (p *Pool) Words(f Frame) *[Size / 8]uint64 {
	return (*[Size / 8]uint64)(unsafe.Pointer(unsafe.SliceData(p.Bytes(f))))
}

// Words32 is the memory of f as 32-bit words, for atomic access.
func (p *Pool) Words32(f Frame) *[Size / 4]uint32 {
	return (*[Size / 4]uint32)(unsafe.Pointer(unsafe.SliceData(p.Bytes(f))))
}

// Word32 is the aligned 32-bit word at a physical address, for atomic access.
func (p *Pool) Word32(pa uint64) *uint32 {
	return (*uint32)(unsafe.Pointer(unsafe.SliceData(p.At(pa&^3, 4))))
}
