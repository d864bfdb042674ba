package vfstest_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/dkernel/cred"
	"dinos/dkernel/uio"
	"dinos/dkernel/vfs"
	"dinos/dkernel/vfs/vfstest"
	"dinos/kernel/linux"
)

// side is a system that runs operations: Linux here, or ours. Results are texts that must be the same on both. Paths are relative
// to a directory of the side's own.
type side interface {
	open(path string, flags, mode uint32) (fd int, res string)
	close(fd int) string
	read(fd, n int) string
	pread(fd, n int, off int64) string
	write(fd int, data string) string
	pwrite(fd int, data string, off int64) string
	lseek(fd int, off int64, whence int) string
	ftruncate(fd int, n int64) string
	fallocate(fd int, mode uint32, off, n int64) string
	getdents(fd int) string
	fstat(fd int) string
	getfl(fd int) string
	setfl(fd int, flags uint32) string
	lock(fd int, cmd int, kind int16, start, n int64) string
	flock(fd, op int) string
	copyRange(in int, inOff int64, out int, outOff int64, n int) string
	sendfile(out, in int, n int) string
	dirfd() int
	mkdir(path string, mode uint32) string
	mknod(path string, mode uint32) string
	unlink(path string, flags int) string
	rename(a, b string, flags uint32) string
	link(a, b string, flags int) string
	symlink(target, path string) string
	readlink(path string) string
	stat(path string, flags int) string
	chmod(path string, mode uint32) string
	chown(path string, uid, gid uint32) string
	access(path string, mode uint32) string
	utimes(path string, a, m int64) string
	truncate(path string, n int64) string
	setxattr(path, name, value string, flags int) string
	getxattr(path, name string) string
	listxattr(path string) string
	removexattr(path, name string) string
	// become acts as another user from here on, as setfsuid(2) and setfsgid(2) do.
	become(id int)
	end()
}

// deep is where the directory of a side is. Links that lead up must not leave what is alike on both sides.
const deep = "/1/2/3/4/5/6/w"

func errName(err error) string {
	if err == nil {
		return "ok"
	}
	var h syscall.Errno
	if errors.As(err, &h) {
		return linux.Errno(h).Name()
	}
	return err.(linux.Errno).Name()
}

// statText is what of a stat is the same everywhere. onTmpfs adds what only another tmpfs has alike.
func statText(mode uint32, nlink uint64, uid, gid uint32, size, blocks int64, onTmpfs bool) string {
	s := fmt.Sprintf("mode %o uid %d gid %d", mode, uid, gid)
	if mode&linux.S_IFMT != linux.S_IFDIR || onTmpfs {
		s += fmt.Sprintf(" size %d nlink %d", size, nlink)
	}
	if mode&linux.S_IFMT == linux.S_IFREG && onTmpfs {
		s += fmt.Sprintf(" blocks %d", blocks)
	}
	return s
}

// host is Linux.
type host struct {
	t     testing.TB
	path  string
	dir   int
	tmpfs bool
}

func newHost(t testing.TB) *host {
	h := &host{t: t}
	var st syscall.Statfs_t
	base := ""
	if syscall.Statfs("/dev/shm", &st) == nil && st.Type == linux.TMPFS_MAGIC {
		base, h.tmpfs = "/dev/shm", true
	}
	p, err := os.MkdirTemp(base, "dinos-vfs-")
	require.NoError(t, err)
	h.path = p
	require.NoError(t, os.Chmod(p, 0o755))
	require.NoError(t, os.MkdirAll(p+deep, 0o755))
	h.dir, err = syscall.Open(p+deep, syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	require.NoError(t, err)
	return h
}

func (h *host) end() {
	_ = syscall.Close(h.dir)
	_ = os.RemoveAll(h.path)
}

// do makes a call whose only result is whether it worked.
func (h *host) do(nr uintptr, args ...any) string {
	_, e := call(nr, args...)
	if e != 0 {
		return errName(e)
	}
	return "ok"
}

// num makes a call that returns a number.
func (h *host) num(nr uintptr, args ...any) string {
	r, e := call(nr, args...)
	if e != 0 {
		return errName(e)
	}
	return strconv.Itoa(int(r))
}

// data makes a call that fills a buffer.
func (h *host) data(b []byte, nr uintptr, args ...any) string {
	r, e := call(nr, args...)
	if e != 0 {
		return errName(e)
	}
	return fmt.Sprintf("%q", b[:r])
}

func (h *host) dirfd() int { return h.dir }
func (h *host) open(path string, flags, mode uint32) (int, string) {
	r, e := call(syscall.SYS_OPENAT, h.dir, path, flags|linux.O_CLOEXEC, mode)
	if e != 0 {
		return -1, errName(e)
	}
	return int(r), "ok"
}
func (h *host) close(fd int) string { return h.do(syscall.SYS_CLOSE, fd) }
func (h *host) read(fd, n int) string {
	b := make([]byte, n)
	return h.data(b, syscall.SYS_READ, fd, b, n)
}
func (h *host) pread(fd, n int, off int64) string {
	b := make([]byte, n)
	return h.data(b, syscall.SYS_PREAD64, fd, b, n, off)
}
func (h *host) write(fd int, data string) string {
	return h.num(syscall.SYS_WRITE, fd, []byte(data), len(data))
}
func (h *host) pwrite(fd int, data string, off int64) string {
	return h.num(syscall.SYS_PWRITE64, fd, []byte(data), len(data), off)
}
func (h *host) lseek(fd int, off int64, whence int) string {
	return h.num(syscall.SYS_LSEEK, fd, off, whence)
}
func (h *host) ftruncate(fd int, n int64) string { return h.do(syscall.SYS_FTRUNCATE, fd, n) }
func (h *host) fallocate(fd int, mode uint32, off, n int64) string {
	return h.do(syscall.SYS_FALLOCATE, fd, mode, off, n)
}
func (h *host) getdents(fd int) string {
	if e := h.lseek(fd, 0, 0); e != "0" {
		return e
	}
	var all []string
	for {
		b := make([]byte, 1024)
		r, e := call(syscall.SYS_GETDENTS64, fd, b, len(b))
		if e != 0 {
			return errName(e)
		}
		if r == 0 {
			h.lseek(fd, 0, 0)
			return dents(all)
		}
		all = append(all, parseDents(b[:r])...)
	}
}
func (h *host) statText(s *syscall.Stat_t) string {
	return statText(s.Mode, s.Nlink, s.Uid, s.Gid, s.Size, s.Blocks, h.tmpfs) + times(s.Atim.Nano(), s.Mtim.Nano())
}
func (h *host) fstat(fd int) string {
	var s syscall.Stat_t
	if e := h.do(syscall.SYS_FSTAT, fd, &s); e != "ok" {
		return e
	}
	return h.statText(&s)
}
func (h *host) getfl(fd int) string {
	return h.num(syscall.SYS_FCNTL, fd, linux.F_GETFL, 0)
}
func (h *host) setfl(fd int, flags uint32) string {
	return h.do(syscall.SYS_FCNTL, fd, linux.F_SETFL, flags)
}
func (h *host) lock(fd int, cmd int, kind int16, start, n int64) string {
	f := &syscall.Flock_t{Type: kind, Start: start, Len: n}
	if e := h.do(syscall.SYS_FCNTL, fd, cmd, f); e != "ok" {
		return e
	}
	return lockText(cmd, f.Type, f.Start, f.Len)
}
func (h *host) flock(fd, op int) string { return h.do(syscall.SYS_FLOCK, fd, op) }
func (h *host) copyRange(in int, inOff int64, out int, outOff int64, n int) string {
	return h.num(326, in, &inOff, out, &outOff, n, 0)
}
func (h *host) sendfile(out, in int, n int) string {
	return h.num(syscall.SYS_SENDFILE, out, in, 0, n)
}
func (h *host) mkdir(path string, mode uint32) string {
	return h.do(syscall.SYS_MKDIRAT, h.dir, path, mode)
}
func (h *host) mknod(path string, mode uint32) string {
	return h.do(syscall.SYS_MKNODAT, h.dir, path, mode, 0)
}
func (h *host) unlink(path string, flags int) string {
	return h.do(syscall.SYS_UNLINKAT, h.dir, path, flags)
}
func (h *host) rename(a, b string, flags uint32) string {
	return h.do(316, h.dir, a, h.dir, b, flags)
}
func (h *host) link(a, b string, flags int) string {
	return h.do(syscall.SYS_LINKAT, h.dir, a, h.dir, b, flags)
}
func (h *host) symlink(target, path string) string {
	return h.do(syscall.SYS_SYMLINKAT, target, h.dir, path)
}
func (h *host) readlink(path string) string {
	b := make([]byte, 4096)
	return h.data(b, syscall.SYS_READLINKAT, h.dir, path, b, len(b))
}
func (h *host) stat(path string, flags int) string {
	var s syscall.Stat_t
	if e := h.do(syscall.SYS_NEWFSTATAT, h.dir, path, &s, flags); e != "ok" {
		return e
	}
	return h.statText(&s)
}
func (h *host) chmod(path string, mode uint32) string {
	return h.do(syscall.SYS_FCHMODAT, h.dir, path, mode)
}
func (h *host) chown(path string, uid, gid uint32) string {
	return h.do(syscall.SYS_FCHOWNAT, h.dir, path, uid, gid, 0)
}
func (h *host) access(path string, mode uint32) string {
	return h.do(syscall.SYS_FACCESSAT, h.dir, path, mode)
}
func (h *host) utimes(path string, a, m int64) string {
	return h.do(syscall.SYS_UTIMENSAT, h.dir, path, &[2]syscall.Timespec{{Sec: a}, {Sec: m, Nsec: 5}}, 0)
}
func (h *host) truncate(path string, n int64) string {
	return h.do(syscall.SYS_TRUNCATE, h.path+deep+"/"+path, n)
}
func (h *host) setxattr(path, name, value string, flags int) string {
	return h.do(syscall.SYS_SETXATTR, h.path+deep+"/"+path, name, []byte(value), len(value), flags)
}
func (h *host) getxattr(path, name string) string {
	b := make([]byte, 64)
	return h.data(b, syscall.SYS_GETXATTR, h.path+deep+"/"+path, name, b, len(b))
}
func (h *host) listxattr(path string) string {
	b := make([]byte, 256)
	r, e := call(syscall.SYS_LISTXATTR, h.path+deep+"/"+path, b, len(b))
	if e != 0 {
		return errName(e)
	}
	return names(b[:r])
}
func (h *host) removexattr(path, name string) string {
	return h.do(syscall.SYS_REMOVEXATTR, h.path+deep+"/"+path, name)
}

// become needs the goroutine locked to its thread: that is whose ids these are.
func (h *host) become(id int) {
	// To root first, or the group could not be changed.
	_, _ = call(syscall.SYS_SETFSUID, 0)
	_, _ = call(syscall.SYS_SETFSGID, id)
	_, _ = call(syscall.SYS_SETFSUID, id)
}

// times shows times that the test has set itself; others are the clock's.
func times(a, m int64) string {
	s := ""
	for _, t := range []int64{a, m} {
		if t > 0 && t < 1e15 {
			s += " t" + strconv.FormatInt(t, 10)
		} else {
			s += " now"
		}
	}
	return s
}

func lockText(cmd int, kind int16, start, n int64) string {
	if cmd != linux.F_GETLK && cmd != linux.F_OFD_GETLK {
		return "ok"
	}
	if kind == linux.F_UNLCK {
		return "unlocked"
	}
	return fmt.Sprintf("lock %d at %d+%d", kind, start, n)
}

func names(b []byte) string {
	n := strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
	slices.Sort(n)
	return strings.Join(slices.DeleteFunc(n, func(s string) bool { return strings.HasPrefix(s, "security.") }), " ")
}

func parseDents(b []byte) (out []string) {
	for len(b) > 0 {
		n := binary.LittleEndian.Uint16(b[16:])
		name, _, _ := strings.Cut(string(b[19:n]), "\x00")
		out = append(out, fmt.Sprintf("%s:%d", name, b[18]))
		b = b[n:]
	}
	return out
}

func dents(all []string) string {
	slices.Sort(all)
	return strings.Join(all, " ")
}

// ours is the VFS.
type ours struct {
	*vfstest.Rig
	dir int
	h   *host
}

// hostCred are the credentials that this test runs with on the host.
func hostCred(t testing.TB) *cred.Cred {
	c := cred.Root()
	b, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	for _, l := range strings.Split(string(b), "\n") {
		if f := strings.Fields(l); len(f) == 2 && f[0] == "CapEff:" {
			n, err := strconv.ParseUint(f[1], 16, 64)
			require.NoError(t, err)
			c.Effective, c.Permitted = cred.Caps(n), cred.Caps(n)
		}
	}
	u, g := uint32(os.Geteuid()), uint32(os.Getegid())
	c.UID, c.EUID, c.SUID, c.FSUID = u, u, u, u
	c.GID, c.EGID, c.SGID, c.FSGID = g, g, g, g
	gs, err := os.Getgroups()
	require.NoError(t, err)
	for _, x := range gs {
		c.Groups = append(c.Groups, uint32(x))
	}
	return c
}

func newOurs(t testing.TB, h *host) *ours {
	o := &ours{Rig: vfstest.New(t, 3), h: h}
	o.Caller.Cred = hostCred(t)
	for name, x := range map[string]*atomic.Int32{"hardlinks": &o.V.Protect.Hardlinks, "symlinks": &o.V.Protect.Symlinks, "regular": &o.V.Protect.Regular} {
		b, err := os.ReadFile("/proc/sys/fs/protected_" + name)
		require.NoError(t, err)
		n, err := strconv.Atoi(strings.TrimSpace(string(b)))
		require.NoError(t, err)
		x.Store(int32(n))
	}
	mask := syscall.Umask(0)
	syscall.Umask(mask)
	root := o.NewCaller()
	for i := 2; i <= len(deep); i += 2 {
		require.NoError(t, root.MkdirAt(linux.AT_FDCWD, deep[:i], 0o755))
		require.NoError(t, root.FchownAt(linux.AT_FDCWD, deep[:i], o.Cred.FSUID, o.Cred.FSGID, 0))
	}
	o.FS.SetUmask(uint32(mask))
	var err error
	o.dir, err = o.OpenAt(linux.AT_FDCWD, deep, linux.O_DIRECTORY, 0)
	require.NoError(t, err)
	return o
}

// fsCaps are the capabilities that go when the file system user is not root (capabilities(7), "Effect of user ID changes").
const fsCaps = cred.Caps(1<<cred.CHOWN | 1<<cred.DAC_OVERRIDE | 1<<cred.DAC_READ_SEARCH | 1<<cred.FOWNER | 1<<cred.FSETID | 1<<cred.LINUX_IMMUTABLE | 1<<cred.MKNOD | 1<<32)

func (o *ours) become(id int) {
	c := *hostCred(o.h.t)
	c.FSUID, c.FSGID = uint32(id), uint32(id)
	if id != 0 {
		c.Effective &^= fsCaps
	}
	o.Cred = &c
}

func (o *ours) end() { o.Files.Leave(o.Caller) }

func num(n int64, err error) string {
	if err != nil {
		return errName(err)
	}
	return strconv.FormatInt(n, 10)
}

func bytesOf(n int, do func(io *uio.IO) (int64, error)) string {
	b := make([]byte, n)
	var io uio.IO
	io.Bytes(b)
	k, err := do(&io)
	if err != nil {
		return errName(err)
	}
	return fmt.Sprintf("%q", b[:k])
}

func from(data string) *uio.IO {
	var io uio.IO
	io.Bytes([]byte(data))
	return &io
}

func (o *ours) dirfd() int { return o.dir }
func (o *ours) open(path string, flags, mode uint32) (int, string) {
	fd, err := o.OpenAt(o.dir, path, flags, mode)
	return fd, errName(err)
}
func (o *ours) close(fd int) string { return errName(o.Files.Close(o.Caller, fd)) }
func (o *ours) read(fd, n int) string {
	return bytesOf(n, func(io *uio.IO) (int64, error) { return o.Read(fd, io) })
}
func (o *ours) pread(fd, n int, off int64) string {
	return bytesOf(n, func(io *uio.IO) (int64, error) { return o.Pread(fd, io, off) })
}
func (o *ours) write(fd int, data string) string { return num(o.Write(fd, from(data))) }
func (o *ours) pwrite(fd int, data string, off int64) string {
	return num(o.Pwrite(fd, from(data), off))
}
func (o *ours) lseek(fd int, off int64, whence int) string { return num(o.Lseek(fd, off, whence)) }
func (o *ours) ftruncate(fd int, n int64) string           { return errName(o.Ftruncate(fd, n)) }
func (o *ours) fallocate(fd int, mode uint32, off, n int64) string {
	return errName(o.Fallocate(fd, mode, off, n))
}
func (o *ours) getdents(fd int) string {
	if e := o.lseek(fd, 0, 0); e != "0" {
		return e
	}
	var all []string
	for {
		b := make([]byte, 1024)
		var io uio.IO
		io.Bytes(b)
		n, err := o.Getdents(fd, &io, false)
		if err != nil {
			return errName(err)
		}
		if n == 0 {
			o.lseek(fd, 0, 0)
			return dents(all)
		}
		all = append(all, parseDents(b[:n])...)
	}
}
func (o *ours) statText(a *vfs.Attr) string {
	return statText(a.Mode, uint64(a.Nlink), a.UID, a.GID, a.Size, a.Blocks, o.h.tmpfs) + times(a.Atime, a.Mtime)
}
func (o *ours) fstat(fd int) string {
	var a vfs.Attr
	if err := o.Fstat(fd, &a); err != nil {
		return errName(err)
	}
	return o.statText(&a)
}
func (o *ours) getfl(fd int) string {
	n, err := o.Fcntl(fd, linux.F_GETFL, 0)
	return num(int64(n), err)
}
func (o *ours) setfl(fd int, flags uint32) string {
	_, err := o.Fcntl(fd, linux.F_SETFL, uint64(flags))
	return errName(err)
}
func (o *ours) lock(fd int, cmd int, kind int16, start, n int64) string {
	f := &linux.Flock{Type: kind, Start: start, Len: n}
	if err := o.RecordLock(fd, cmd, f); err != nil {
		return errName(err)
	}
	return lockText(cmd, f.Type, f.Start, f.Len)
}
func (o *ours) flock(fd, op int) string { return errName(o.Flock(fd, op)) }
func (o *ours) copyRange(in int, inOff int64, out int, outOff int64, n int) string {
	return num(o.CopyFileRange(in, &inOff, out, &outOff, int64(n), 0))
}
func (o *ours) sendfile(out, in int, n int) string { return num(o.Sendfile(out, in, nil, int64(n))) }
func (o *ours) mkdir(path string, mode uint32) string {
	return errName(o.MkdirAt(o.dir, path, mode))
}
func (o *ours) mknod(path string, mode uint32) string {
	return errName(o.MknodAt(o.dir, path, mode, 0))
}
func (o *ours) unlink(path string, flags int) string { return errName(o.UnlinkAt(o.dir, path, flags)) }
func (o *ours) rename(a, b string, flags uint32) string {
	return errName(o.RenameAt(o.dir, a, o.dir, b, flags))
}
func (o *ours) link(a, b string, flags int) string {
	return errName(o.LinkAt(o.dir, a, o.dir, b, flags))
}
func (o *ours) symlink(target, path string) string { return errName(o.SymlinkAt(target, o.dir, path)) }
func (o *ours) readlink(path string) string {
	s, err := o.ReadlinkAt(o.dir, path)
	if err != nil {
		return errName(err)
	}
	return fmt.Sprintf("%q", s)
}
func (o *ours) stat(path string, flags int) string {
	var a vfs.Attr
	if err := o.StatAt(o.dir, path, flags, &a); err != nil {
		return errName(err)
	}
	return o.statText(&a)
}
func (o *ours) chmod(path string, mode uint32) string {
	return errName(o.FchmodAt(o.dir, path, mode, 0))
}
func (o *ours) chown(path string, uid, gid uint32) string {
	return errName(o.FchownAt(o.dir, path, uid, gid, 0))
}
func (o *ours) access(path string, mode uint32) string {
	return errName(o.AccessAt(o.dir, path, mode, 0))
}
func (o *ours) utimes(path string, a, m int64) string {
	return errName(o.UtimensAt(o.dir, path, false, &[2]linux.Timespec{{Sec: a}, {Sec: m, Nsec: 5}}, 0))
}
func (o *ours) truncate(path string, n int64) string { return errName(o.Truncate(deep+"/"+path, n)) }
func (o *ours) setxattr(path, name, value string, flags int) string {
	return errName(o.SetXattr(vfs.XattrTarget{Path: deep + "/" + path}, name, []byte(value), flags))
}
func (o *ours) getxattr(path, name string) string {
	b, err := o.GetXattr(vfs.XattrTarget{Path: deep + "/" + path}, name, 64)
	if err != nil {
		return errName(err)
	}
	return fmt.Sprintf("%q", b)
}
func (o *ours) listxattr(path string) string {
	b, err := o.ListXattr(vfs.XattrTarget{Path: deep + "/" + path}, 256)
	if err != nil {
		return errName(err)
	}
	return names(b)
}
func (o *ours) removexattr(path, name string) string {
	return errName(o.RemoveXattr(vfs.XattrTarget{Path: deep + "/" + path}, name))
}
