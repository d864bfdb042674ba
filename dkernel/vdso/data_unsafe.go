package vdso

import (
	"sync/atomic"
	"unsafe"
)

// page is the data page. It is Go's view of what code.go addresses by offset; a test compares the two.
type page struct {
	seq     atomic.Uint32
	served  atomic.Uint32
	base    atomic.Uint64
	mult    atomic.Uint64
	_       [offOffsets - 0x18]byte
	offsets [maxClock + 1]atomic.Int64
}

const (
	_ = uint(unsafe.Offsetof(page{}.seq)-offSeq) + uint(offSeq-unsafe.Offsetof(page{}.seq))
	_ = uint(unsafe.Offsetof(page{}.served)-offServed) + uint(offServed-unsafe.Offsetof(page{}.served))
	_ = uint(unsafe.Offsetof(page{}.base)-offBase) + uint(offBase-unsafe.Offsetof(page{}.base))
	_ = uint(unsafe.Offsetof(page{}.mult)-offMult) + uint(offMult-unsafe.Offsetof(page{}.mult))
	_ = uint(unsafe.Offsetof(page{}.offsets)-offOffsets) + uint(offOffsets-unsafe.Offsetof(page{}.offsets))
)

func pageOf(data []byte) *page {
	p := unsafe.Pointer(unsafe.SliceData(data))
	if uintptr(p)%8 != 0 {
		panic("vdso: the data page must be aligned to 8 bytes")
	}
	return (*page)(p)
}

// set writes the page under its sequence lock. All stores are atomic and x86 keeps stores in order, so a reader that finds
// the same even number before and after has read one version.
func (p *page) set(base, mult uint64, served uint32, offsets *[maxClock + 1]int64) {
	p.seq.Add(1)
	p.base.Store(base)
	p.mult.Store(mult)
	for i, v := range offsets {
		p.offsets[i].Store(v)
	}
	p.served.Store(served)
	p.seq.Add(1)
}
