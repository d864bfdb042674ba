package vfstest_test

import (
	"runtime"
	"syscall"
	"unsafe"

	"dinos/kernel/linux"
)

// call makes a system call of the host. Strings are paths; byte slices and pointers to structures are passed by address.
func call(nr uintptr, args ...any) (uintptr, syscall.Errno) {
	var a [6]uintptr
	var keep []any
	for i, x := range args {
		switch x := x.(type) {
		case int:
			a[i] = uintptr(x)
		case int64:
			a[i] = uintptr(x)
		case uint32:
			a[i] = uintptr(x)
		case string:
			p, err := syscall.BytePtrFromString(x)
			if err != nil {
				return 0, syscall.EINVAL
			}
			keep = append(keep, p)
			a[i] = uintptr(unsafe.Pointer(p))
		case []byte:
			if len(x) > 0 {
				a[i] = uintptr(unsafe.Pointer(&x[0]))
			}
			keep = append(keep, x)
		case *syscall.Stat_t:
			a[i] = uintptr(unsafe.Pointer(x))
			keep = append(keep, x)
		case *syscall.Flock_t:
			a[i] = uintptr(unsafe.Pointer(x))
			keep = append(keep, x)
		case *[2]syscall.Timespec:
			a[i] = uintptr(unsafe.Pointer(x))
			keep = append(keep, x)
		case *int64:
			a[i] = uintptr(unsafe.Pointer(x))
			keep = append(keep, x)
		default:
			panic("call: unknown kind of argument")
		}
	}
	// What keep refers to is on the heap, which does not move.
	r, _, e := syscall.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
	runtime.KeepAlive(keep)
	return r, e
}

// open2 is openat2(2) of the host.
func (h *host) open2(path string, how linux.OpenHow) string {
	fd, e := call(437, h.dir, path, unsafe.Slice((*byte)(unsafe.Pointer(&how)), unsafe.Sizeof(how)), int(unsafe.Sizeof(how)))
	if e != 0 {
		return errName(e)
	}
	return h.close(int(fd))
}
