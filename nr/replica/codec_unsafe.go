package replica

import "unsafe"

// opSize is the size in bytes of an op.
func opSize[O any]() int {
	var o O
	return int(unsafe.Sizeof(o))
}

// encode copies op to dst, which has room for it in whole words; the rest of the last word is zero.
func encode[O any](dst []uint64, op *O) {
	if len(dst) == 0 {
		return
	}
	n := int(unsafe.Sizeof(*op))
	dst[len(dst)-1] = 0
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&dst[0])), 8*len(dst)), unsafe.Slice((*byte)(unsafe.Pointer(op)), n))
}

// decode copies an op out of src, which is private memory of at least its size. O has no pointers and no field for
// which some bit pattern is invalid; CheckOp has seen to that.
func decode[O any](src []uint64) O {
	var o O
	if len(src)*8 < int(unsafe.Sizeof(o)) {
		return o
	}
	return *(*O)(unsafe.Pointer(unsafe.SliceData(src)))
}
