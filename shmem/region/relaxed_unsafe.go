//go:build !race

package region

import (
	"sync/atomic"
	"unsafe"
)

// LoadRelaxed loads a word without ordering it against later loads of other words beyond what amd64 gives (acquire).
func LoadRelaxed(p *atomic.Uint64) uint64 { return *(*uint64)(unsafe.Pointer(p)) }

// StoreRelaxed stores a word as a plain move: a release on amd64, without the fence of atomic.Uint64.Store. Use it
// for words that a later atomic operation publishes.
func StoreRelaxed(p *atomic.Uint64, v uint64) { *(*uint64)(unsafe.Pointer(p)) = v }

func (r Region) loadBytes(dst []byte, off Off) {
	copy(dst, unsafe.Slice((*byte)(r.at(off)), len(dst)))
}

func (r Region) storeBytes(off Off, src []byte) {
	n := copy(unsafe.Slice((*byte)(r.at(off)), len(src)), src)
	clear(unsafe.Slice((*byte)(r.at(off)), (n+7)&^7)[n:])
}
