package sys

import (
	"dinos/dkernel/uio"
	"dinos/dkernel/vfs"
	"dinos/kernel/linux"
)

// Calls on descriptors.

func fileCalls() []Call {
	return []Call{
		{"read", func(t *Task, a *Args) (uint64, error) { return count(t.C.Read(fd(a[0]), t.user(a[1], a[2]))) }, Full, ""},
		{"write", func(t *Task, a *Args) (uint64, error) { return count(t.C.Write(fd(a[0]), t.user(a[1], a[2]))) }, Full, ""},
		{"pread64", func(t *Task, a *Args) (uint64, error) {
			return count(t.C.Pread(fd(a[0]), t.user(a[1], a[2]), int64(a[3])))
		}, Full, ""},
		{"pwrite64", func(t *Task, a *Args) (uint64, error) {
			return count(t.C.Pwrite(fd(a[0]), t.user(a[1], a[2]), int64(a[3])))
		}, Full, ""},
		{"readv", vector(func(t *Task, n int, io *uio.IO, a *Args) (int64, error) { return t.C.Read(n, io) }), Full, ""},
		{"writev", vector(func(t *Task, n int, io *uio.IO, a *Args) (int64, error) { return t.C.Write(n, io) }), Full, ""},
		{"preadv", vector(func(t *Task, n int, io *uio.IO, a *Args) (int64, error) { return t.C.Pread(n, io, int64(a[3])) }), Full, ""},
		{"pwritev", vector(func(t *Task, n int, io *uio.IO, a *Args) (int64, error) { return t.C.Pwrite(n, io, int64(a[3])) }), Full, ""},
		{"preadv2", vector(func(t *Task, n int, io *uio.IO, a *Args) (int64, error) {
			return t.C.ReadV2(n, io, int64(a[3]), uint32(a[5]))
		}), Full, ""},
		{"pwritev2", vector(func(t *Task, n int, io *uio.IO, a *Args) (int64, error) {
			return t.C.WriteV2(n, io, int64(a[3]), uint32(a[5]))
		}), Full, ""},
		{"lseek", func(t *Task, a *Args) (uint64, error) {
			return count(t.C.Lseek(fd(a[0]), int64(a[1]), int(int32(a[2]))))
		}, Full, ""},
		{"close", func(t *Task, a *Args) (uint64, error) { return 0, t.C.Files.Close(t.C, fd(a[0])) }, Full, ""},
		{"close_range", sysCloseRange, Full, ""},
		{"dup", func(t *Task, a *Args) (uint64, error) {
			return number(t.C.Files.Dup(fd(a[0]), 0, t.C.OpenLimit, false))
		}, Full, ""},
		{"dup2", func(t *Task, a *Args) (uint64, error) {
			return number(t.C.Files.Dup2(t.C, fd(a[0]), fd(a[1]), t.C.OpenLimit))
		}, Full, ""},
		{"dup3", func(t *Task, a *Args) (uint64, error) {
			return number(t.C.Files.Dup3(t.C, fd(a[0]), fd(a[1]), t.C.OpenLimit, uint32(a[2])))
		}, Full, ""},
		{"fcntl", sysFcntl, Full, ""},
		{"ioctl", func(t *Task, a *Args) (uint64, error) { return t.C.Ioctl(fd(a[0]), uint32(a[1]), a[2]) }, Partial, "what the file knows; others ENOTTY"},
		{"getdents", func(t *Task, a *Args) (uint64, error) {
			return count(t.C.Getdents(fd(a[0]), t.user(a[1], uint64(uint32(a[2]))), true))
		}, Full, ""},
		{"getdents64", func(t *Task, a *Args) (uint64, error) {
			return count(t.C.Getdents(fd(a[0]), t.user(a[1], uint64(uint32(a[2]))), false))
		}, Full, ""},
		{"fsync", func(t *Task, a *Args) (uint64, error) { return 0, t.C.Fsync(fd(a[0]), false) }, Full, ""},
		{"fdatasync", func(t *Task, a *Args) (uint64, error) { return 0, t.C.Fsync(fd(a[0]), true) }, Full, ""},
		{"sync", func(t *Task, a *Args) (uint64, error) { t.C.Sync(); return 0, nil }, Full, ""},
		{"syncfs", func(t *Task, a *Args) (uint64, error) { return 0, t.C.Syncfs(fd(a[0])) }, Full, ""},
		{"sync_file_range", func(t *Task, a *Args) (uint64, error) {
			return 0, t.C.SyncFileRange(fd(a[0]), int64(a[1]), int64(a[2]), uint32(a[3]))
		}, Full, ""},
		{"fadvise64", func(t *Task, a *Args) (uint64, error) {
			return 0, t.C.Fadvise(fd(a[0]), int64(a[1]), int64(a[2]), int(int32(a[3])))
		}, Full, ""},
		{"readahead", func(t *Task, a *Args) (uint64, error) { return 0, t.C.Readahead(fd(a[0])) }, Full, ""},
		{"fallocate", func(t *Task, a *Args) (uint64, error) {
			return 0, t.C.Fallocate(fd(a[0]), uint32(a[1]), int64(a[2]), int64(a[3]))
		}, Full, ""},
		{"flock", func(t *Task, a *Args) (uint64, error) { return 0, t.C.Flock(fd(a[0]), int(int32(a[1]))) }, Full, ""},
		{"sendfile", sysSendfile, Full, ""},
		{"splice", sysSplice, Full, ""},
		{"tee", func(t *Task, a *Args) (uint64, error) {
			return count(t.C.Tee(fd(a[0]), fd(a[1]), int64(a[2]), uint32(a[3])))
		}, Full, ""},
		{"vmsplice", vector(func(t *Task, n int, io *uio.IO, a *Args) (int64, error) { return t.C.Vmsplice(n, io, uint32(a[3])) }), Full, ""},
		{"copy_file_range", sysCopyFileRange, Full, ""},
		{"inotify_init", func(t *Task, a *Args) (uint64, error) { return number(t.C.InotifyInit(0)) }, Full, ""},
		{"inotify_init1", func(t *Task, a *Args) (uint64, error) { return number(t.C.InotifyInit(uint32(a[0]))) }, Full, ""},
		{"inotify_add_watch", func(t *Task, a *Args) (uint64, error) {
			p, err := t.str(a[1])
			if err != nil {
				return 0, err
			}
			return number(t.C.InotifyAdd(fd(a[0]), p, uint32(a[2])))
		}, Full, ""},
		{"inotify_rm_watch", func(t *Task, a *Args) (uint64, error) { return 0, t.C.InotifyRemove(fd(a[0]), int32(a[1])) }, Full, ""},
	}
}

func count(n int64, err error) (uint64, error) { return uint64(n), err }

func number(n int, err error) (uint64, error) { return uint64(n), err }

// vector makes a handler of a call with an array of struct iovec.
func vector(do func(t *Task, n int, io *uio.IO, a *Args) (int64, error)) func(*Task, *Args) (uint64, error) {
	return func(t *Task, a *Args) (uint64, error) {
		io, err := t.iovec(a[1], a[2])
		if err != nil {
			return 0, err
		}
		n, err := do(t, fd(a[0]), io, a)
		return uint64(n), err
	}
}

func sysCloseRange(t *Task, a *Args) (uint64, error) {
	const unshare = 1 << 1
	flags := uint32(a[2])
	if flags&unshare != 0 {
		t.T.UnshareFiles()
	}
	return 0, t.C.Files.CloseRange(t.C, uint32(a[0]), uint32(a[1]), flags&^unshare)
}

func sysFcntl(t *Task, a *Args) (uint64, error) {
	n, cmd := fd(a[0]), int(int32(a[1]))
	switch cmd {
	case linux.F_GETLK, linux.F_SETLK, linux.F_SETLKW, linux.F_OFD_GETLK, linux.F_OFD_SETLK, linux.F_OFD_SETLKW:
		l, err := load[linux.Flock](t, a[2])
		if err != nil {
			return 0, err
		}
		if err := t.C.RecordLock(n, cmd, &l); err != nil {
			return 0, err
		}
		if cmd == linux.F_GETLK || cmd == linux.F_OFD_GETLK {
			return 0, store(t, a[2], &l)
		}
		return 0, nil
	case linux.F_SETOWN_EX, linux.F_GETOWN_EX:
		return t.ownerEx(n, cmd, a[2])
	}
	return t.C.Fcntl(n, cmd, a[2])
}

// fOwner is struct f_owner_ex.
type fOwner struct{ Kind, ID int32 }

// ownerEx is fcntl(F_SETOWN_EX) and F_GETOWN_EX.
func (t *Task) ownerEx(n, cmd int, addr uint64) (uint64, error) {
	r, err := t.C.Files.Get(n)
	if err != nil {
		return 0, err
	}
	defer r.Put()
	old := vfs.Owner{}
	if o := r.Owner(); o != nil {
		old = *o
	}
	if cmd == linux.F_GETOWN_EX {
		return 0, store(t, addr, &fOwner{old.Kind, old.ID})
	}
	v, err := load[fOwner](t, addr)
	if err != nil {
		return 0, err
	}
	if v.Kind < linux.F_OWNER_TID || v.Kind > linux.F_OWNER_PGRP {
		return 0, linux.EINVAL
	}
	r.SetOwner(&vfs.Owner{Kind: v.Kind, ID: v.ID, Sig: old.Sig})
	return 0, nil
}

// offset reads an optional file offset.
func (t *Task) offset(addr uint64) (*int64, error) {
	if addr == 0 {
		return nil, nil
	}
	off, err := load[int64](t, addr)
	return &off, err
}

func (t *Task) storeOffset(addr uint64, off *int64) error {
	if off == nil {
		return nil
	}
	return store(t, addr, off)
}

func sysSendfile(t *Task, a *Args) (uint64, error) {
	off, err := t.offset(a[2])
	if err != nil {
		return 0, err
	}
	n, err := t.C.Sendfile(fd(a[0]), fd(a[1]), off, int64(a[3]))
	if err != nil {
		return 0, err
	}
	return uint64(n), t.storeOffset(a[2], off)
}

// twoOffsets serves splice(2) and copy_file_range(2).
func (t *Task) twoOffsets(a *Args, do func(in, out *int64) (int64, error)) (uint64, error) {
	in, err := t.offset(a[1])
	if err != nil {
		return 0, err
	}
	out, err := t.offset(a[3])
	if err != nil {
		return 0, err
	}
	n, err := do(in, out)
	if err != nil {
		return 0, err
	}
	if err := t.storeOffset(a[1], in); err != nil {
		return 0, err
	}
	return uint64(n), t.storeOffset(a[3], out)
}

func sysSplice(t *Task, a *Args) (uint64, error) {
	return t.twoOffsets(a, func(in, out *int64) (int64, error) {
		return t.C.Splice(fd(a[0]), in, fd(a[2]), out, int64(a[4]), uint32(a[5]))
	})
}

func sysCopyFileRange(t *Task, a *Args) (uint64, error) {
	return t.twoOffsets(a, func(in, out *int64) (int64, error) {
		return t.C.CopyFileRange(fd(a[0]), in, fd(a[2]), out, int64(a[4]), uint32(a[5]))
	})
}
