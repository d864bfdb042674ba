// Package region gives offset-typed access to a block of bytes that several kernels map: a heap slab in a test, an
// mmap'ed file, a fixed physical range handed over as a slice.
//
// Nothing in a region is a pointer. Whoever attaches asks for a word by its [Off] once, is refused if it is misaligned or
// out of range, and from then on uses the *atomic.Uint64 (or [Words]) it was given: the check is paid at attach time,
// not on the hot path. Offsets that were read from the region itself come from a peer, and are checked the same way
// each time they are used.
//
// Byte order is little endian and words are naturally aligned; the platform is amd64. The relaxed accessors rely on its
// total store order: a plain aligned store is a release, a plain aligned load an acquire. Under the race detector they are
// real atomics, so that heap slabs can be tested with -race.
//
// A Region is a value without state of its own and may be used by any number of goroutines. It must not outlive the
// mapping behind it.
package region

import (
	"errors"
	"fmt"
)

// Off is an offset in bytes from the start of a region. 0 is a valid offset (the header lives there), so structures
// that need a nil offset use 0 for it only where the header cannot be meant.
type Off uint64

// LineSize is the size in bytes of a cache line; PadSize the distance that keeps two hot words from sharing a line
// or an adjacent-line prefetch pair.
const (
	LineSize = 64
	PadSize  = 128
)

// Errors of this package; every returned error wraps one of them and names the offset and the limit.
var (
	ErrRange      = errors.New("region: out of range")
	ErrMisaligned = errors.New("region: misaligned")
	ErrHeader     = errors.New("region: bad header")
)

// Len is the size of the region in bytes.
func (r Region) Len() uint64 { return r.size }

// check reports whether [off, off+n) lies inside the region at the alignment (a power of two).
func (r Region) check(off Off, n, align uint64) error {
	if uint64(off) > r.size || n > r.size-uint64(off) {
		return fmt.Errorf("%w: %d bytes at offset %#x of a region of %#x", ErrRange, n, uint64(off), r.size)
	}
	if uint64(off)&(align-1) != 0 {
		return fmt.Errorf("%w: offset %#x, want a multiple of %d", ErrMisaligned, uint64(off), align)
	}
	return nil
}

// Sub is the part [off, off+n) as a region of its own. off must be a multiple of [LineSize], so that alignment
// within the part is alignment in the whole.
func (r Region) Sub(off Off, n uint64) (Region, error) {
	if err := r.check(off, n, LineSize); err != nil {
		return Region{}, err
	}
	if n == 0 {
		return Region{}, nil
	}
	return Region{base: r.at(off), size: n}, nil
}

// LoadU32, StoreU32 and the other single-word forms check the offset on each call. They are for offsets read
// from a peer and for cold paths; hot paths take the word once by [Region.U32] or [Region.U64].
func (r Region) LoadU32(off Off) (uint32, error) {
	p, err := r.U32(off)
	if err != nil {
		return 0, err
	}
	return p.Load(), nil
}

// StoreU32 stores v at off.
func (r Region) StoreU32(off Off, v uint32) error {
	p, err := r.U32(off)
	if err == nil {
		p.Store(v)
	}
	return err
}

// CompareAndSwapU32 replaces old by new at off and reports whether it did.
func (r Region) CompareAndSwapU32(off Off, old, new uint32) (bool, error) {
	p, err := r.U32(off)
	if err != nil {
		return false, err
	}
	return p.CompareAndSwap(old, new), nil
}

// AddU32 adds delta at off and returns the sum.
func (r Region) AddU32(off Off, delta uint32) (uint32, error) {
	p, err := r.U32(off)
	if err != nil {
		return 0, err
	}
	return p.Add(delta), nil
}

// SwapU32 stores v at off and returns what was there.
func (r Region) SwapU32(off Off, v uint32) (uint32, error) {
	p, err := r.U32(off)
	if err != nil {
		return 0, err
	}
	return p.Swap(v), nil
}

// LoadU64 loads the word at off.
func (r Region) LoadU64(off Off) (uint64, error) {
	p, err := r.U64(off)
	if err != nil {
		return 0, err
	}
	return p.Load(), nil
}

// StoreU64 stores v at off.
func (r Region) StoreU64(off Off, v uint64) error {
	p, err := r.U64(off)
	if err == nil {
		p.Store(v)
	}
	return err
}

// CompareAndSwapU64 replaces old by new at off and reports whether it did.
func (r Region) CompareAndSwapU64(off Off, old, new uint64) (bool, error) {
	p, err := r.U64(off)
	if err != nil {
		return false, err
	}
	return p.CompareAndSwap(old, new), nil
}

// AddU64 adds delta at off and returns the sum.
func (r Region) AddU64(off Off, delta uint64) (uint64, error) {
	p, err := r.U64(off)
	if err != nil {
		return 0, err
	}
	return p.Add(delta), nil
}

// SwapU64 stores v at off and returns what was there.
func (r Region) SwapU64(off Off, v uint64) (uint64, error) {
	p, err := r.U64(off)
	if err != nil {
		return 0, err
	}
	return p.Swap(v), nil
}

// LoadBytes copies len(dst) bytes at off, a multiple of 8, into dst. A writer on another kernel may change them
// meanwhile: each 8-byte word is read once and untorn, the whole is not a snapshot.
func (r Region) LoadBytes(dst []byte, off Off) error {
	n := uint64(len(dst))
	if err := r.check(off, n, 8); err != nil || n == 0 {
		return err
	}
	if tail := n &^ 7; tail != n {
		// The last word is partial; reading all of it needs it to be inside.
		if err := r.check(off, tail+8, 8); err != nil {
			return err
		}
	}
	r.loadBytes(dst, off)
	return nil
}

// StoreBytes copies src to off, a multiple of 8, in whole words: up to 7 bytes behind src are set to zero, and must
// lie inside the region.
func (r Region) StoreBytes(off Off, src []byte) error {
	if len(src) == 0 {
		return r.check(off, 0, 8)
	}
	if err := r.check(off, (uint64(len(src))+7)&^7, 8); err != nil {
		return err
	}
	r.storeBytes(off, src)
	return nil
}

// Zero sets [off, off+n) to zero; both must be multiples of 8.
func (r Region) Zero(off Off, n uint64) error {
	if err := r.check(off, n, 8); err != nil {
		return err
	}
	if n&7 != 0 {
		return fmt.Errorf("%w: length %d, want a multiple of 8", ErrMisaligned, n)
	}
	for i := uint64(0); i < n; i += 8 {
		StoreRelaxed(r.word(off+Off(i)), 0)
	}
	return nil
}
