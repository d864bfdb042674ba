// Package oracle lets tests ask the Linux they run on what the right answer is.
package oracle

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"dinos/kernel/linux"
)

// Errno is err of a call of package unix, as the kernel's own.
func Errno(err error) error {
	if e, ok := err.(unix.Errno); ok {
		return linux.Errno(e)
	}
	return err
}

// Ioctl is ioctl(2) with a pointer to arg.
func Ioctl(fd int, req uint32, arg []byte) error {
	p := unsafe.Pointer(unsafe.SliceData(arg))
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(req), uintptr(p))
	runtime.KeepAlive(p)
	if e != 0 {
		return linux.Errno(e)
	}
	return nil
}

// IoctlInt is ioctl(2) with a number.
func IoctlInt(fd int, req uint32, arg uintptr) error {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(req), arg)
	if e != 0 {
		return linux.Errno(e)
	}
	return nil
}
