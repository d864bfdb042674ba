package sys

import (
	"unsafe"

	"dinos/kernel/linux"
)

// Structures of the ABI are Go structures without pointers and without hidden padding, so that their bytes are what programs see.

func asBytes[T any](p *T) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(p)), unsafe.Sizeof(*p)) }

// load reads a T of a program: linux.EFAULT.
func load[T any](t *Task, addr uint64) (v T, err error) {
	if _, err := t.Mem.CopyIn(asBytes(&v), addr); err != nil {
		return v, linux.EFAULT
	}
	return v, nil
}

// store writes *v to a program: linux.EFAULT.
func store[T any](t *Task, addr uint64, v *T) error {
	if _, err := t.Mem.CopyOut(addr, asBytes(v)); err != nil {
		return linux.EFAULT
	}
	return nil
}

// loadSlice reads consecutive values.
func loadSlice[T any](t *Task, addr uint64, v []T) error {
	if len(v) == 0 {
		return nil
	}
	b := unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), uintptr(len(v))*unsafe.Sizeof(v[0]))
	if _, err := t.Mem.CopyIn(b, addr); err != nil {
		return linux.EFAULT
	}
	return nil
}

// storeSlice writes them.
func storeSlice[T any](t *Task, addr uint64, v []T) error {
	if len(v) == 0 {
		return nil
	}
	b := unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), uintptr(len(v))*unsafe.Sizeof(v[0]))
	if _, err := t.Mem.CopyOut(addr, b); err != nil {
		return linux.EFAULT
	}
	return nil
}

// view is b as a string, as long as b does not change.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
