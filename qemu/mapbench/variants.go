package main

import (
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// variants are the operations; i counts up.
var variants = map[string]func(w *worker, i uintptr) error{
	// map: the headline.
	"map": func(w *worker, i uintptr) error { return w.place(w.base + i*page) },
	// anon: fresh zero pages instead of the same one.
	"anon": func(w *worker, i uintptr) error {
		return mmap(w.base+i*page, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED|unix.MAP_POPULATE, -1)
	},
	// map+unmap: one page comes and goes.
	"map+unmap": func(w *worker, i uintptr) error {
		if err := w.place(w.base); err != nil {
			return err
		}
		return munmap(w.base)
	},
	// shared: all threads map at successive addresses of one region.
	"shared": func(w *worker, _ uintptr) error { return w.place(first*region + uintptr(next.Add(1))*page) },
	// mprotect: the rights of one present page change.
	"mprotect": func(w *worker, i uintptr) error {
		if i == 0 {
			if err := w.place(w.base); err != nil {
				return err
			}
		}
		prot := uintptr(unix.PROT_READ)
		if i&1 != 0 {
			prot |= unix.PROT_WRITE
		}
		_, _, e := unix.RawSyscall(unix.SYS_MPROTECT, w.base, page, prot)
		return errno("mprotect", e)
	},
	// unmap: thread 0 maps and unmaps a page; the others spin in user mode, so that they have to be told.
	spinning: func(w *worker, i uintptr) error {
		if w.id > 0 {
			for range 1000 {
				spin.Load()
			}
			return nil
		}
		if err := w.place(w.base); err != nil {
			return err
		}
		return munmap(w.base)
	},
}

// spinning is the variant in which only thread 0 counts.
const spinning = "unmap"

// next is where the next page of the shared region goes, spin what idle threads look at.
var next, spin atomic.Uint64

func variantNames() (names []string) {
	for n := range variants {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// place maps the worker's page.
func (w *worker) place(at uintptr) error {
	return mmap(at, unix.MAP_SHARED|unix.MAP_FIXED|unix.MAP_POPULATE, w.fd)
}

func mmap(at uintptr, flags, fd int) error {
	_, _, e := unix.RawSyscall6(unix.SYS_MMAP, at, page, unix.PROT_READ|unix.PROT_WRITE, uintptr(flags), uintptr(fd), 0)
	return errno("mmap", e)
}

func munmap(at uintptr) error {
	_, _, e := unix.RawSyscall(unix.SYS_MUNMAP, at, page, 0)
	return errno("munmap", e)
}

// failure is a system call that failed.
type failure struct {
	call string
	e    unix.Errno
}

func (f *failure) Error() string { return f.call + ": " + f.e.Error() }

func errno(call string, e unix.Errno) error {
	if e == 0 {
		return nil
	}
	return &failure{call, e}
}
