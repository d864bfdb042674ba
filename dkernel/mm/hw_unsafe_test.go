package mm

import "unsafe"

func misaligned(b []byte) bool { return uintptr(unsafe.Pointer(unsafe.SliceData(b)))%pageSize != 0 }
