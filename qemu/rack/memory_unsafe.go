package rack

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapShared maps a file. release takes the file's pages away and leaves memory of nobody's in their place: a goroutine of package rpc may
// be in the middle of a store to a ring when its connection is closed, and must not crash the process for that. What stays is a
// range of addresses, without memory unless somebody stores there.
func mapShared(f *os.File, size int) (b []byte, release func(), err error) {
	b, err = unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", f.Name(), os.NewSyscallError("mmap", err))
	}
	return b, func() {
		flags := unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_NORESERVE | unix.MAP_FIXED
		if _, err := unix.MmapPtr(-1, 0, unsafe.Pointer(unsafe.SliceData(b)), uintptr(size), unix.PROT_READ|unix.PROT_WRITE, flags); err != nil {
			return // then the file's pages stay as long as the process
		}
	}, nil
}
