package region

import (
	"fmt"
	"sync/atomic"
	"unsafe"
)

// Region is a bounds-checked view of shared bytes. The zero Region is empty: every access to it is out of range.
type Region struct {
	base unsafe.Pointer // keeps a heap slab alive; never handed out
	size uint64
}

// New is a region over b, whose first byte must be aligned to [LineSize]. b stays the caller's: the region neither
// grows nor frees it.
func New(b []byte) (Region, error) {
	if len(b) == 0 {
		return Region{}, nil
	}
	base := unsafe.Pointer(unsafe.SliceData(b))
	if rest := uintptr(base) & (LineSize - 1); rest != 0 {
		return Region{}, fmt.Errorf("%w: memory starts %d bytes behind a cache line, want a multiple of %d (Slab makes one)",
			ErrMisaligned, rest, LineSize)
	}
	return Region{base: base, size: uint64(len(b))}, nil
}

// Slab is n zero bytes on the Go heap, aligned for [New].
func Slab(n int) []byte {
	b := make([]byte, n+LineSize)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (LineSize - 1)
	return b[skip : int(skip)+n : int(skip)+n]
}

// at is the address of off, which the caller has checked.
func (r Region) at(off Off) unsafe.Pointer { return unsafe.Add(r.base, uintptr(off)) }

// word is the checked word at off.
func (r Region) word(off Off) *atomic.Uint64 { return (*atomic.Uint64)(r.at(off)) }

// U32 is the word at off, for use without further checks.
func (r Region) U32(off Off) (*atomic.Uint32, error) {
	if err := r.check(off, 4, 4); err != nil {
		return nil, err
	}
	return (*atomic.Uint32)(r.at(off)), nil
}

// U64 is the word at off, for use without further checks.
func (r Region) U64(off Off) (*atomic.Uint64, error) {
	if err := r.check(off, 8, 8); err != nil {
		return nil, err
	}
	return r.word(off), nil
}

// Bytes is [off, off+n) as a slice. Peers may change it at any moment: copy before deciding anything by it.
func (r Region) Bytes(off Off, n uint64) ([]byte, error) {
	if err := r.check(off, n, 1); err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, nil
	}
	return unsafe.Slice((*byte)(r.at(off)), n), nil
}

// Words is an array of records in a region, each of a whole number of 64-bit words, checked once when it is made. An
// index is masked, so no value of it reaches outside; the count is a power of two.
type Words struct {
	base   unsafe.Pointer
	stride uintptr // bytes from record to record
	mask   uint64  // count-1
}

// Words is the array of count records of stride bytes at off. count must be a power of two, off and stride multiples of 8.
func (r Region) Words(off Off, stride, count uint64) (Words, error) {
	if count == 0 || count&(count-1) != 0 {
		return Words{}, fmt.Errorf("%w: %d records, want a power of two", ErrRange, count)
	}
	if stride == 0 || stride&7 != 0 {
		return Words{}, fmt.Errorf("%w: records of %d bytes, want a multiple of 8", ErrMisaligned, stride)
	}
	if stride > r.size || count > r.size/stride {
		return Words{}, fmt.Errorf("%w: %d records of %d bytes in a region of %#x", ErrRange, count, stride, r.size)
	}
	if err := r.check(off, stride*count, 8); err != nil {
		return Words{}, err
	}
	return Words{base: r.at(off), stride: uintptr(stride), mask: count - 1}, nil
}

// At is the first word of record i modulo the count.
func (w *Words) At(i uint64) Record {
	return Record{unsafe.Add(w.base, uintptr(i&w.mask)*w.stride)}
}

// Record is one record of a [Words]. Its methods take word indices that the caller bounds by the stride.
type Record struct{ p unsafe.Pointer }

// Word is word i of the record.
func (r Record) Word(i int) *atomic.Uint64 { return (*atomic.Uint64)(unsafe.Add(r.p, i*8)) }

// Load copies words [i, i+len(dst)) of the record to dst, relaxed.
func (r Record) Load(i int, dst []uint64) {
	p := unsafe.Add(r.p, i*8)
	for k := range dst {
		dst[k] = LoadRelaxed((*atomic.Uint64)(unsafe.Add(p, k*8)))
	}
}

// Store copies src to words [i, i+len(src)) of the record, relaxed.
func (r Record) Store(i int, src []uint64) {
	p := unsafe.Add(r.p, i*8)
	for k := range src {
		StoreRelaxed((*atomic.Uint64)(unsafe.Add(p, k*8)), src[k])
	}
}
