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

// Setsockopt is setsockopt(2).
func Setsockopt(fd, level, name int, v []byte) error {
	p := unsafe.Pointer(unsafe.SliceData(v))
	_, _, e := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name), uintptr(p), uintptr(len(v)), 0)
	runtime.KeepAlive(p)
	if e != 0 {
		return linux.Errno(e)
	}
	return nil
}

// Getsockopt is getsockopt(2) with room for n bytes.
func Getsockopt(fd, level, name, n int) ([]byte, error) {
	b := make([]byte, n+1)
	l := int32(n)
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name), uintptr(unsafe.Pointer(&b[0])),
		uintptr(unsafe.Pointer(&l)), 0)
	if e != 0 {
		return nil, linux.Errno(e)
	}
	return b[:l], nil
}

// Name is getsockname(2), or getpeername(2) if peer: the address as it is.
func Name(fd int, peer bool) ([]byte, error) {
	b := make([]byte, 128)
	l := int32(len(b))
	call := uintptr(unix.SYS_GETSOCKNAME)
	if peer {
		call = unix.SYS_GETPEERNAME
	}
	_, _, e := unix.Syscall(call, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&l)))
	if e != 0 {
		return nil, linux.Errno(e)
	}
	return b[:l], nil
}
