package sys

import (
	"dinos/dkernel/vfs"
	"dinos/kernel/linux"
)

// Calls that take paths.

const cwd = linux.AT_FDCWD

// fd decodes a descriptor: an int, whatever the upper half of the register is.
func fd(v uint64) int { return int(int32(v)) }

func pathCalls() []Call {
	return []Call{
		{"open", func(t *Task, a *Args) (uint64, error) { return t.openat(cwd, a[0], a[1], a[2]) }, Full, ""},
		{"openat", func(t *Task, a *Args) (uint64, error) { return t.openat(fd(a[0]), a[1], a[2], a[3]) }, Full, ""},
		{"creat", func(t *Task, a *Args) (uint64, error) {
			return t.openat(cwd, a[0], linux.O_CREAT|linux.O_WRONLY|linux.O_TRUNC, a[1])
		}, Full, ""},
		{"openat2", sysOpenat2, Full, ""},
		{"stat", func(t *Task, a *Args) (uint64, error) { return t.stat(cwd, a[0], 0, a[1]) }, Full, ""},
		{"lstat", func(t *Task, a *Args) (uint64, error) { return t.stat(cwd, a[0], linux.AT_SYMLINK_NOFOLLOW, a[1]) }, Full, ""},
		{"newfstatat", func(t *Task, a *Args) (uint64, error) { return t.stat(fd(a[0]), a[1], fd(a[3]), a[2]) }, Full, ""},
		{"fstat", sysFstat, Full, ""},
		{"statx", sysStatx, Full, ""},
		{"access", func(t *Task, a *Args) (uint64, error) { return t.access(cwd, a[0], a[1], 0) }, Full, ""},
		{"faccessat", func(t *Task, a *Args) (uint64, error) { return t.access(fd(a[0]), a[1], a[2], 0) }, Full, ""},
		{"faccessat2", func(t *Task, a *Args) (uint64, error) { return t.access(fd(a[0]), a[1], a[2], fd(a[3])) }, Full, ""},
		{"mkdir", path1(func(t *Task, p string, a *Args) error { return t.C.MkdirAt(cwd, p, uint32(a[1])) }), Full, ""},
		{"mkdirat", pathAt(func(t *Task, d int, p string, a *Args) error { return t.C.MkdirAt(d, p, uint32(a[2])) }), Full, ""},
		{"mknod", path1(func(t *Task, p string, a *Args) error { return t.C.MknodAt(cwd, p, uint32(a[1]), dev(a[2])) }), Full, ""},
		{"mknodat", pathAt(func(t *Task, d int, p string, a *Args) error { return t.C.MknodAt(d, p, uint32(a[2]), dev(a[3])) }), Full, ""},
		{"rmdir", path1(func(t *Task, p string, a *Args) error { return t.C.UnlinkAt(cwd, p, linux.AT_REMOVEDIR) }), Full, ""},
		{"unlink", path1(func(t *Task, p string, a *Args) error { return t.C.UnlinkAt(cwd, p, 0) }), Full, ""},
		{"unlinkat", pathAt(func(t *Task, d int, p string, a *Args) error { return t.C.UnlinkAt(d, p, fd(a[2])) }), Full, ""},
		{"rename", func(t *Task, a *Args) (uint64, error) { return t.rename(cwd, a[0], cwd, a[1], 0) }, Full, ""},
		{"renameat", func(t *Task, a *Args) (uint64, error) { return t.rename(fd(a[0]), a[1], fd(a[2]), a[3], 0) }, Full, ""},
		{"renameat2", func(t *Task, a *Args) (uint64, error) { return t.rename(fd(a[0]), a[1], fd(a[2]), a[3], a[4]) }, Full, ""},
		{"link", func(t *Task, a *Args) (uint64, error) { return t.link(cwd, a[0], cwd, a[1], 0) }, Full, ""},
		{"linkat", func(t *Task, a *Args) (uint64, error) { return t.link(fd(a[0]), a[1], fd(a[2]), a[3], fd(a[4])) }, Full, ""},
		{"symlink", func(t *Task, a *Args) (uint64, error) { return t.symlink(a[0], cwd, a[1]) }, Full, ""},
		{"symlinkat", func(t *Task, a *Args) (uint64, error) { return t.symlink(a[0], fd(a[1]), a[2]) }, Full, ""},
		{"readlink", func(t *Task, a *Args) (uint64, error) { return t.readlink(cwd, a[0], a[1], a[2]) }, Full, ""},
		{"readlinkat", func(t *Task, a *Args) (uint64, error) { return t.readlink(fd(a[0]), a[1], a[2], a[3]) }, Full, ""},
		{"chmod", path1(func(t *Task, p string, a *Args) error { return t.C.FchmodAt(cwd, p, uint32(a[1]), 0) }), Full, ""},
		{"fchmodat", pathAt(func(t *Task, d int, p string, a *Args) error { return t.C.FchmodAt(d, p, uint32(a[2]), 0) }), Full, ""},
		{"fchmodat2", pathAt(func(t *Task, d int, p string, a *Args) error { return t.C.FchmodAt(d, p, uint32(a[2]), fd(a[3])) }), Full, ""},
		{"fchmod", func(t *Task, a *Args) (uint64, error) { return 0, t.C.Fchmod(fd(a[0]), uint32(a[1])) }, Full, ""},
		{"chown", path1(func(t *Task, p string, a *Args) error { return t.C.FchownAt(cwd, p, uint32(a[1]), uint32(a[2]), 0) }), Full, ""},
		{"lchown", path1(func(t *Task, p string, a *Args) error {
			return t.C.FchownAt(cwd, p, uint32(a[1]), uint32(a[2]), linux.AT_SYMLINK_NOFOLLOW)
		}), Full, ""},
		{"fchownat", pathAt(func(t *Task, d int, p string, a *Args) error {
			return t.C.FchownAt(d, p, uint32(a[2]), uint32(a[3]), fd(a[4]))
		}), Full, ""},
		{"fchown", func(t *Task, a *Args) (uint64, error) { return 0, t.C.Fchown(fd(a[0]), uint32(a[1]), uint32(a[2])) }, Full, ""},
		{"utimensat", sysUtimensat, Full, ""},
		{"futimesat", func(t *Task, a *Args) (uint64, error) { return t.utimes(fd(a[0]), a[1], a[2]) }, Full, ""},
		{"utimes", func(t *Task, a *Args) (uint64, error) { return t.utimes(cwd, a[0], a[1]) }, Full, ""},
		{"utime", sysUtime, Full, ""},
		{"truncate", path1(func(t *Task, p string, a *Args) error { return t.C.Truncate(p, int64(a[1])) }), Full, ""},
		{"ftruncate", func(t *Task, a *Args) (uint64, error) { return 0, t.C.Ftruncate(fd(a[0]), int64(a[1])) }, Full, ""},
		{"chdir", path1(func(t *Task, p string, a *Args) error { return t.C.Chdir(p) }), Full, ""},
		{"fchdir", func(t *Task, a *Args) (uint64, error) { return 0, t.C.Fchdir(fd(a[0])) }, Full, ""},
		{"chroot", path1(func(t *Task, p string, a *Args) error { return t.C.Chroot(p) }), Full, ""},
		{"getcwd", sysGetcwd, Full, ""},
		{"umask", func(t *Task, a *Args) (uint64, error) { return uint64(t.C.FS.SetUmask(uint32(a[0]))), nil }, Full, ""},
		{"statfs", func(t *Task, a *Args) (uint64, error) {
			p, err := t.str(a[0])
			if err != nil {
				return 0, err
			}
			var s linux.Statfs
			if err := t.C.Statfs(p, &s); err != nil {
				return 0, err
			}
			return 0, store(t, a[1], &s)
		}, Full, ""},
		{"fstatfs", func(t *Task, a *Args) (uint64, error) {
			var s linux.Statfs
			if err := t.C.Fstatfs(fd(a[0]), &s); err != nil {
				return 0, err
			}
			return 0, store(t, a[1], &s)
		}, Full, ""},
		{"setxattr", func(t *Task, a *Args) (uint64, error) { return t.setxattr(vfs.XattrTarget{}, a) }, Full, ""},
		{"lsetxattr", func(t *Task, a *Args) (uint64, error) { return t.setxattr(vfs.XattrTarget{NoFollow: true}, a) }, Full, ""},
		{"fsetxattr", func(t *Task, a *Args) (uint64, error) { return t.setxattr(vfs.XattrTarget{UseFD: true}, a) }, Full, ""},
		{"getxattr", func(t *Task, a *Args) (uint64, error) { return t.getxattr(vfs.XattrTarget{}, a) }, Full, ""},
		{"lgetxattr", func(t *Task, a *Args) (uint64, error) { return t.getxattr(vfs.XattrTarget{NoFollow: true}, a) }, Full, ""},
		{"fgetxattr", func(t *Task, a *Args) (uint64, error) { return t.getxattr(vfs.XattrTarget{UseFD: true}, a) }, Full, ""},
		{"listxattr", func(t *Task, a *Args) (uint64, error) { return t.listxattr(vfs.XattrTarget{}, a) }, Full, ""},
		{"llistxattr", func(t *Task, a *Args) (uint64, error) { return t.listxattr(vfs.XattrTarget{NoFollow: true}, a) }, Full, ""},
		{"flistxattr", func(t *Task, a *Args) (uint64, error) { return t.listxattr(vfs.XattrTarget{UseFD: true}, a) }, Full, ""},
		{"removexattr", func(t *Task, a *Args) (uint64, error) { return t.removexattr(vfs.XattrTarget{}, a) }, Full, ""},
		{"lremovexattr", func(t *Task, a *Args) (uint64, error) { return t.removexattr(vfs.XattrTarget{NoFollow: true}, a) }, Full, ""},
		{"fremovexattr", func(t *Task, a *Args) (uint64, error) { return t.removexattr(vfs.XattrTarget{UseFD: true}, a) }, Full, ""},
	}
}

// dev decodes a device number as mknod(2) gets it: 32 bits.
func dev(v uint64) uint64 { return v & 0xffffffff }

// path1 makes a handler of a call whose first argument is a path and that returns nothing.
func path1(do func(t *Task, p string, a *Args) error) func(*Task, *Args) (uint64, error) {
	return func(t *Task, a *Args) (uint64, error) {
		p, err := t.str(a[0])
		if err != nil {
			return 0, err
		}
		return 0, do(t, p, a)
	}
}

// pathAt is path1 for calls that begin with a directory.
func pathAt(do func(t *Task, dir int, p string, a *Args) error) func(*Task, *Args) (uint64, error) {
	return func(t *Task, a *Args) (uint64, error) {
		p, err := t.str(a[1])
		if err != nil {
			return 0, err
		}
		return 0, do(t, fd(a[0]), p, a)
	}
}

func (t *Task) openat(dir int, path, flags, mode uint64) (uint64, error) {
	p, err := t.str(path)
	if err != nil {
		return 0, err
	}
	n, err := t.C.OpenAt(dir, p, uint32(flags), uint32(mode))
	return uint64(n), err
}

func sysOpenat2(t *Task, a *Args) (uint64, error) {
	// struct open_how may be larger in later versions: what is not known must be zero.
	how, err := extensible[linux.OpenHow](t, a[2], a[3])
	if err != nil {
		return 0, err
	}
	p, err := t.str(a[1])
	if err != nil {
		return 0, err
	}
	n, err := t.C.OpenAt2(fd(a[0]), p, how)
	return uint64(n), err
}

func (t *Task) stat(dir int, path uint64, flags int, to uint64) (uint64, error) {
	p, err := t.str(path)
	if err != nil {
		if path != 0 || flags&linux.AT_EMPTY_PATH == 0 {
			return 0, err
		}
		p = "" // since Linux 6.11
	}
	var a vfs.Attr
	if err := t.C.StatAt(dir, p, flags, &a); err != nil {
		return 0, err
	}
	var s linux.Stat
	a.Stat(&s)
	return 0, store(t, to, &s)
}

func sysFstat(t *Task, a *Args) (uint64, error) {
	var at vfs.Attr
	if err := t.C.Fstat(fd(a[0]), &at); err != nil {
		return 0, err
	}
	var s linux.Stat
	at.Stat(&s)
	return 0, store(t, a[1], &s)
}

func sysStatx(t *Task, a *Args) (uint64, error) {
	const reserved = 1 << 31
	flags := fd(a[2])
	if a[3]&reserved != 0 || flags&linux.AT_STATX_SYNC_TYPE == linux.AT_STATX_SYNC_TYPE {
		return 0, linux.EINVAL
	}
	p, err := t.str(a[1])
	if err != nil {
		if a[1] != 0 || flags&linux.AT_EMPTY_PATH == 0 {
			return 0, err
		}
		p = ""
	}
	var at vfs.Attr
	if err := t.C.StatAt(fd(a[0]), p, flags&^linux.AT_STATX_SYNC_TYPE, &at); err != nil {
		return 0, err
	}
	var s linux.Statx
	at.Statx(&s)
	return 0, store(t, a[4], &s)
}

func (t *Task) access(dir int, path, mode uint64, flags int) (uint64, error) {
	p, err := t.str(path)
	if err != nil {
		return 0, err
	}
	return 0, t.C.AccessAt(dir, p, uint32(mode), flags)
}

func (t *Task) rename(fromDir int, from uint64, toDir int, to, flags uint64) (uint64, error) {
	p, err := t.str(from)
	if err != nil {
		return 0, err
	}
	q, err := t.str2(to)
	if err != nil {
		return 0, err
	}
	return 0, t.C.RenameAt(fromDir, p, toDir, q, uint32(flags))
}

func (t *Task) link(fromDir int, from uint64, toDir int, to uint64, flags int) (uint64, error) {
	p, err := t.str(from)
	if err != nil {
		return 0, err
	}
	q, err := t.str2(to)
	if err != nil {
		return 0, err
	}
	return 0, t.C.LinkAt(fromDir, p, toDir, q, flags)
}

func (t *Task) symlink(target uint64, dir int, path uint64) (uint64, error) {
	p, err := t.str(target)
	if err != nil {
		return 0, err
	}
	q, err := t.str2(path)
	if err != nil {
		return 0, err
	}
	return 0, t.C.SymlinkAt(p, dir, q)
}

func (t *Task) readlink(dir int, path, to, size uint64) (uint64, error) {
	if int32(size) <= 0 {
		return 0, linux.EINVAL
	}
	p, err := t.str(path)
	if err != nil {
		return 0, err
	}
	s, err := t.C.ReadlinkAt(dir, p)
	if err != nil {
		return 0, err
	}
	return t.fill(to, uint64(int32(size)), []byte(s))
}

func sysGetcwd(t *Task, a *Args) (uint64, error) {
	s, err := t.C.Getcwd()
	if err != nil {
		return 0, err
	}
	if uint64(len(s))+1 > a[1] {
		return 0, linux.ERANGE
	}
	return uint64(len(s)) + 1, t.out(a[0], append([]byte(s), 0))
}

func sysUtimensat(t *Task, a *Args) (uint64, error) {
	var times *[2]linux.Timespec
	if a[2] != 0 {
		ts, err := load[[2]linux.Timespec](t, a[2])
		if err != nil {
			return 0, err
		}
		times = &ts
	}
	return t.utimensat(fd(a[0]), a[1], times, fd(a[3]))
}

func (t *Task) utimensat(dir int, path uint64, times *[2]linux.Timespec, flags int) (uint64, error) {
	if path == 0 {
		return 0, t.C.UtimensAt(dir, "", true, times, flags)
	}
	p, err := t.str(path)
	if err != nil {
		return 0, err
	}
	return 0, t.C.UtimensAt(dir, p, false, times, flags)
}

// utimes is utimes(2) and futimesat(2): struct timeval.
func (t *Task) utimes(dir int, path, at uint64) (uint64, error) {
	var times *[2]linux.Timespec
	if at != 0 {
		ts, err := load[[2]linux.Timespec](t, at)
		if err != nil {
			return 0, err
		}
		for i := range ts {
			if uint64(ts[i].Nsec) >= 1e6 {
				return 0, linux.EINVAL
			}
			ts[i].Nsec *= 1000
		}
		times = &ts
	}
	return t.utimensat(dir, path, times, 0)
}

func sysUtime(t *Task, a *Args) (uint64, error) {
	var times *[2]linux.Timespec
	if a[1] != 0 {
		s, err := load[[2]int64](t, a[1])
		if err != nil {
			return 0, err
		}
		times = &[2]linux.Timespec{{Sec: s[0]}, {Sec: s[1]}}
	}
	return t.utimensat(cwd, a[0], times, 0)
}

// xattr fills in the file and the name of a call of the xattr family.
func (t *Task) xattr(x *vfs.XattrTarget, file, name uint64) (string, error) {
	if x.UseFD {
		x.FD = fd(file)
	} else {
		p, err := t.str(file)
		if err != nil {
			return "", err
		}
		x.Path = p
	}
	if name == 0 {
		return "", nil
	}
	b, err := t.bytesZ(name, t.other[:linux.XATTR_NAME_MAX+2])
	if err == linux.ENAMETOOLONG || err == nil && (len(b) == 0 || len(b) > linux.XATTR_NAME_MAX) {
		return "", linux.ERANGE
	}
	return string(b), err
}

func (t *Task) setxattr(x vfs.XattrTarget, a *Args) (uint64, error) {
	if a[1] == 0 {
		return 0, linux.EFAULT
	}
	name, err := t.xattr(&x, a[0], a[1])
	if err != nil {
		return 0, err
	}
	if a[3] > linux.XATTR_SIZE_MAX {
		return 0, linux.E2BIG
	}
	v := make([]byte, a[3])
	if _, err := t.Mem.CopyIn(v, a[2]); err != nil {
		return 0, linux.EFAULT
	}
	return 0, t.C.SetXattr(x, name, v, fd(a[4]))
}

func (t *Task) getxattr(x vfs.XattrTarget, a *Args) (uint64, error) {
	if a[1] == 0 {
		return 0, linux.EFAULT
	}
	name, err := t.xattr(&x, a[0], a[1])
	if err != nil {
		return 0, err
	}
	v, err := t.C.GetXattr(x, name, int(min(a[3], linux.XATTR_SIZE_MAX)))
	if err != nil || a[3] == 0 {
		return uint64(len(v)), err
	}
	return uint64(len(v)), t.out(a[2], v)
}

func (t *Task) listxattr(x vfs.XattrTarget, a *Args) (uint64, error) {
	if _, err := t.xattr(&x, a[0], 0); err != nil {
		return 0, err
	}
	v, err := t.C.ListXattr(x, int(min(a[2], linux.XATTR_SIZE_MAX)))
	if err != nil || a[2] == 0 {
		return uint64(len(v)), err
	}
	return uint64(len(v)), t.out(a[1], v)
}

func (t *Task) removexattr(x vfs.XattrTarget, a *Args) (uint64, error) {
	if a[1] == 0 {
		return 0, linux.EFAULT
	}
	name, err := t.xattr(&x, a[0], a[1])
	if err != nil {
		return 0, err
	}
	return 0, t.C.RemoveXattr(x, name)
}
