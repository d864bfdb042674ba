//go:build race

package region

import (
	"encoding/binary"
	"sync/atomic"
)

// LoadRelaxed is an atomic load here, so that the race detector sees the synchronisation that amd64 gives for free.
func LoadRelaxed(p *atomic.Uint64) uint64 { return p.Load() }

// StoreRelaxed is an atomic store here; see LoadRelaxed.
func StoreRelaxed(p *atomic.Uint64, v uint64) { p.Store(v) }

func (r Region) loadBytes(dst []byte, off Off) {
	var w [8]byte
	for i := 0; i < len(dst); i += 8 {
		binary.LittleEndian.PutUint64(w[:], r.word(off+Off(i)).Load())
		copy(dst[i:], w[:])
	}
}

func (r Region) storeBytes(off Off, src []byte) {
	for i := 0; i < len(src); i += 8 {
		var w [8]byte
		copy(w[:], src[i:])
		r.word(off + Off(i)).Store(binary.LittleEndian.Uint64(w[:]))
	}
}
