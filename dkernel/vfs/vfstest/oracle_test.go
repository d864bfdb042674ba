package vfstest_test

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"dinos/dkernel/vfs"
	"dinos/kernel/linux"
)

// paths are few, so that operations meet; with all kinds of ends.
var paths = []string{"a", "b", "c", "d", "d/a", "d/b", "d/e", "d/e/f", "d/e/g", "l", "d/l", "a/", "d/", "d/e/", "l/", "n", ".", "..", "d/.", "d/..",
	"d/e/../b", "l/x", "a/x", "./d//e///f", "", "l/../a", "d/e/.", "x/y"}

var targets = []string{"a", "d", "d/e", "../a", ".", "l", "d/l", "nowhere", "e/f", "..", "../w/d/", "a/"}

// world is the same sequence of operations on both sides.
type world struct {
	t    *rapid.T
	h, o side
	hfd  []int
	ofd  []int
	log  []string
	// allocated: fallocate was called. What it has added is a hole to Linux' SEEK_HOLE until it is written, and data to ours.
	allocated bool
	users     bool
}

// same runs an operation on both and compares.
func (w *world) same(what string, do func(s side) string) {
	w.log = append(w.log, what)
	want, got := do(w.h), do(w.o)
	if want != got {
		for _, l := range w.log {
			w.t.Log(l)
		}
		w.t.Fatalf("%s: Linux says %s, we say %s", what, want, got)
	}
}

func (w *world) path(name string) string { return rapid.SampledFrom(paths).Draw(w.t, name) }

func (w *world) flags() uint32 {
	f := rapid.SampledFrom([]uint32{0, 1, 2, 2, 2}).Draw(w.t, "acc")
	for _, x := range []uint32{linux.O_CREAT, linux.O_CREAT, linux.O_EXCL, linux.O_TRUNC, linux.O_APPEND, linux.O_DIRECTORY, linux.O_NOFOLLOW, linux.O_PATH, linux.O_NONBLOCK} {
		if rapid.IntRange(0, 5).Draw(w.t, "f") == 0 {
			f |= x
		}
	}
	if rapid.IntRange(0, 15).Draw(w.t, "tmp") == 0 {
		f |= linux.O_TMPFILE
	}
	return f
}

// fd picks an open file; -1, -1 is none.
func (w *world) fd(name string) (hfd, ofd int) {
	if len(w.hfd) == 0 {
		return -1, -1
	}
	i := rapid.IntRange(0, len(w.hfd)-1).Draw(w.t, name)
	return w.hfd[i], w.ofd[i]
}

// with runs an operation on an open file.
func (w *world) with(what string, do func(s side, fd int) string) {
	h, o := w.fd("fd")
	w.same(fmt.Sprintf("%s of %d", what, o), func(s side) string {
		if s == w.h {
			return do(s, h)
		}
		return do(s, o)
	})
}

func (w *world) open() {
	p, f, m := w.path("path"), w.flags(), rapid.SampledFrom([]uint32{0, 0o644, 0o755, 0o4755, 0o2777, 0o600}).Draw(w.t, "mode")
	var a, b int
	w.same(fmt.Sprintf("open %q %#o %#o", p, f, m), func(s side) string {
		fd, res := s.open(p, f, m)
		if s == w.h {
			a = fd
		} else {
			b = fd
		}
		return res
	})
	if a >= 0 && b >= 0 {
		if len(w.hfd) == 6 {
			w.closeAt(0)
		}
		w.hfd, w.ofd = append(w.hfd, a), append(w.ofd, b)
	}
}

func (w *world) closeAt(i int) {
	h, o := w.hfd[i], w.ofd[i]
	w.hfd, w.ofd = append(w.hfd[:i:i], w.hfd[i+1:]...), append(w.ofd[:i:i], w.ofd[i+1:]...)
	w.same(fmt.Sprintf("close %d", o), func(s side) string {
		if s == w.h {
			return s.close(h)
		}
		return s.close(o)
	})
}

func (w *world) offset() int64 {
	return rapid.SampledFrom([]int64{0, 1, 5, 100, 4095, 4096, 4097, 8192, 12288, 20000, 70000, 1 << 33}).Draw(w.t, "off")
}

func (w *world) len() int64 {
	return rapid.SampledFrom([]int64{0, 1, 10, 4096, 4097, 9000}).Draw(w.t, "n")
}

func (w *world) text() string {
	n := int(w.len())
	b := make([]byte, n)
	c := byte(rapid.IntRange('a', 'z').Draw(w.t, "c"))
	for i := range b {
		b[i] = c
	}
	return string(b)
}

func (w *world) dataOp() {
	switch rapid.IntRange(0, 13).Draw(w.t, "data op") {
	case 0, 1:
		x := w.text()
		w.with(fmt.Sprintf("write %d", len(x)), func(s side, fd int) string { return s.write(fd, x) })
	case 2:
		x, off := w.text(), w.offset()
		w.with(fmt.Sprintf("pwrite %d at %d", len(x), off), func(s side, fd int) string { return s.pwrite(fd, x, off) })
	case 3:
		n := int(w.len())
		w.with(fmt.Sprintf("read %d", n), func(s side, fd int) string { return s.read(fd, n) })
	case 4:
		n, off := int(w.len()), w.offset()
		w.with(fmt.Sprintf("pread %d at %d", n, off), func(s side, fd int) string { return s.pread(fd, n, off) })
	case 5, 6:
		off, wh := w.offset(), rapid.IntRange(0, 5).Draw(w.t, "whence")
		if w.allocated && wh >= linux.SEEK_DATA {
			return
		}
		w.with(fmt.Sprintf("lseek %d %d", off, wh), func(s side, fd int) string { return s.lseek(fd, off, wh) })
	case 7:
		n := w.offset()
		w.with(fmt.Sprintf("ftruncate %d", n), func(s side, fd int) string { return s.ftruncate(fd, n) })
	case 8:
		m := rapid.SampledFrom([]uint32{0, 1, 2, 3, 3, 3, 8, 16}).Draw(w.t, "mode")
		off, n := min(w.offset(), 70000), w.len()
		w.allocated = true
		w.with(fmt.Sprintf("fallocate %d %d %d", m, off, n), func(s side, fd int) string { return s.fallocate(fd, m, off, n) })
	case 9:
		w.with("getdents", func(s side, fd int) string { return s.getdents(fd) })
	case 10:
		w.with("fstat", func(s side, fd int) string { return s.fstat(fd) })
	case 11:
		w.with("getfl", func(s side, fd int) string { return s.getfl(fd) })
	case 12:
		f := rapid.SampledFrom([]uint32{0, linux.O_APPEND, linux.O_NONBLOCK, linux.O_APPEND | linux.O_NONBLOCK, linux.O_SYNC, linux.O_NOATIME}).Draw(w.t, "fl")
		w.with(fmt.Sprintf("setfl %#o", f), func(s side, fd int) string { return s.setfl(fd, f) })
	case 13:
		w.twoFiles()
	}
}

func (w *world) twoFiles() {
	h1, o1 := w.fd("in")
	h2, o2 := w.fd("out")
	a, b, n := w.offset(), w.offset(), int(w.len())
	if n == 0 { // up to the end of a file of gigabytes, otherwise
		return
	}
	pick := func(s side) (int, int) {
		if s == w.h {
			return h1, h2
		}
		return o1, o2
	}
	if rapid.Bool().Draw(w.t, "sendfile") {
		w.same(fmt.Sprintf("sendfile %d to %d, %d", o1, o2, n), func(s side) string {
			in, out := pick(s)
			return s.sendfile(out, in, n)
		})
		return
	}
	w.same(fmt.Sprintf("copy_file_range %d at %d to %d at %d, %d", o1, a, o2, b, n), func(s side) string {
		in, out := pick(s)
		return s.copyRange(in, a, out, b, n)
	})
}

func (w *world) lockOp() {
	if rapid.Bool().Draw(w.t, "flock") {
		op := rapid.SampledFrom([]int{linux.LOCK_SH, linux.LOCK_EX, linux.LOCK_UN, 0, 3}).Draw(w.t, "op") | linux.LOCK_NB
		w.with(fmt.Sprintf("flock %d", op), func(s side, fd int) string { return s.flock(fd, op) })
		return
	}
	cmd := rapid.SampledFrom([]int{linux.F_OFD_SETLK, linux.F_OFD_SETLK, linux.F_OFD_GETLK, linux.F_SETLK, linux.F_GETLK}).Draw(w.t, "cmd")
	kind := int16(rapid.IntRange(0, 2).Draw(w.t, "kind"))
	start, n := rapid.Int64Range(0, 30).Draw(w.t, "start"), rapid.Int64Range(-5, 20).Draw(w.t, "n")
	w.with(fmt.Sprintf("lock %d %d %d+%d", cmd, kind, start, n), func(s side, fd int) string { return s.lock(fd, cmd, kind, start, n) })
}

func (w *world) nameOp() {
	p, q := w.path("path"), w.path("other")
	mode := rapid.SampledFrom([]uint32{0, 0o644, 0o755, 0o700, 0o1777, 0o2755, 0o6755}).Draw(w.t, "mode")
	switch rapid.IntRange(0, 19).Draw(w.t, "name op") {
	case 0, 1, 2:
		w.same(fmt.Sprintf("mkdir %q %#o", p, mode), func(s side) string { return s.mkdir(p, mode) })
	case 3:
		k := rapid.SampledFrom([]uint32{0, linux.S_IFREG, linux.S_IFSOCK, linux.S_IFDIR, linux.S_IFLNK, 0o170000}).Draw(w.t, "kind")
		w.same(fmt.Sprintf("mknod %q %#o", p, k|mode), func(s side) string { return s.mknod(p, k|mode) })
	case 4, 5:
		w.same(fmt.Sprintf("unlink %q", p), func(s side) string { return s.unlink(p, 0) })
	case 6:
		w.same(fmt.Sprintf("rmdir %q", p), func(s side) string { return s.unlink(p, linux.AT_REMOVEDIR) })
	case 7, 8, 9:
		f := rapid.SampledFrom([]uint32{0, 0, 0, 1, 2, 2, 3, 8}).Draw(w.t, "flags")
		w.same(fmt.Sprintf("rename %q %q %d", p, q, f), func(s side) string { return s.rename(p, q, f) })
	case 10, 11:
		f := rapid.SampledFrom([]int{0, 0, linux.AT_SYMLINK_FOLLOW, 1}).Draw(w.t, "flags")
		w.same(fmt.Sprintf("link %q %q %d", p, q, f), func(s side) string { return s.link(p, q, f) })
	case 12, 13:
		to := rapid.SampledFrom(targets).Draw(w.t, "target")
		w.same(fmt.Sprintf("symlink %q %q", to, p), func(s side) string { return s.symlink(to, p) })
	case 14:
		w.same(fmt.Sprintf("readlink %q", p), func(s side) string { return s.readlink(p) })
	case 15:
		w.same(fmt.Sprintf("chmod %q %#o", p, mode), func(s side) string { return s.chmod(p, mode) })
	case 16:
		n := min(w.offset(), 70000)
		w.same(fmt.Sprintf("truncate %q %d", p, n), func(s side) string { return s.truncate(p, n) })
	case 17:
		if w.users { // it is about the real user, who stays the same
			return
		}
		m := rapid.Uint32Range(0, 8).Draw(w.t, "access")
		w.same(fmt.Sprintf("access %q %d", p, m), func(s side) string { return s.access(p, m) })
	case 18:
		a, m := rapid.Int64Range(1, 1000).Draw(w.t, "atime"), rapid.Int64Range(1, 1000).Draw(w.t, "mtime")
		w.same(fmt.Sprintf("utimes %q %d %d", p, a, m), func(s side) string { return s.utimes(p, a, m) })
	case 19:
		w.xattrOp(p)
	}
}

func (w *world) xattrOp(p string) {
	n := rapid.SampledFrom([]string{"user.a", "user.b", "user.", "a", "nonsense.x", ""}).Draw(w.t, "xattr")
	switch rapid.IntRange(0, 3).Draw(w.t, "xattr op") {
	case 0:
		f := rapid.IntRange(0, 3).Draw(w.t, "flags")
		w.same(fmt.Sprintf("setxattr %q %q %d", p, n, f), func(s side) string { return s.setxattr(p, n, "value", f) })
	case 1:
		w.same(fmt.Sprintf("getxattr %q %q", p, n), func(s side) string { return s.getxattr(p, n) })
	case 2:
		w.same(fmt.Sprintf("listxattr %q", p), func(s side) string { return s.listxattr(p) })
	case 3:
		w.same(fmt.Sprintf("removexattr %q %q", p, n), func(s side) string { return s.removexattr(p, n) })
	}
}

// TestOracle runs random operations on the host's Linux and here: each must give the same.
func TestOracle(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) { oracle(t, rt, false) })
}

// TestOracleUsers does so with several users, whose permissions differ.
func TestOracleUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can act as others")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	rapid.Check(t, func(rt *rapid.T) { oracle(t, rt, true) })
}

func oracle(t *testing.T, rt *rapid.T, users bool) {
	h := newHost(t)
	defer h.end()
	o := newOurs(t, h)
	w := &world{t: rt, h: h, o: o, users: users}
	if users {
		require.NoError(t, os.Chmod(h.path+deep, 0o777))
		require.NoError(t, o.FchmodAt(linux.AT_FDCWD, deep, 0o777, 0))
		defer h.become(0)
	}
	defer func() {
		for _, fd := range w.hfd {
			h.close(fd)
		}
	}()
	for range rapid.IntRange(1, 60).Draw(rt, "steps") {
		switch rapid.IntRange(0, 10).Draw(rt, "op") {
		case 0, 1, 2:
			w.open()
		case 3, 4, 5:
			w.nameOp()
		case 6, 7:
			w.dataOp()
		case 8:
			w.lockOp()
		case 9:
			if len(w.hfd) > 0 {
				w.closeAt(rapid.IntRange(0, len(w.hfd)-1).Draw(rt, "close"))
			}
		case 10:
			w.userOp()
		}
	}
	if users {
		w.become(0)
	}
	for _, p := range paths {
		w.same(fmt.Sprintf("lstat %q", p), func(s side) string { return s.stat(p, linux.AT_SYMLINK_NOFOLLOW) })
		w.same(fmt.Sprintf("stat %q", p), func(s side) string { return s.stat(p, 0) })
	}
	for len(w.hfd) > 0 {
		w.closeAt(0)
	}
	defer func() {
		if rt.Failed() {
			for _, l := range w.log {
				rt.Log(l)
			}
		}
	}()
	clean(rt, o)
}

func (w *world) become(id int) {
	w.log = append(w.log, fmt.Sprintf("become %d", id))
	w.h.become(id)
	w.o.become(id)
}

// userOp changes who acts, or whose a file is.
func (w *world) userOp() {
	if !w.users {
		return
	}
	id := rapid.SampledFrom([]int{0, 1000, 1001}).Draw(w.t, "user")
	if rapid.Bool().Draw(w.t, "become") {
		w.become(id)
		return
	}
	p, g := w.path("path"), rapid.SampledFrom([]uint32{0, 1000, 1001, 1<<32 - 1}).Draw(w.t, "group")
	u := uint32(id)
	if rapid.Bool().Draw(w.t, "keep") {
		u = 1<<32 - 1
	}
	w.same(fmt.Sprintf("chown %q %d %d", p, u, g), func(s side) string { return s.chown(p, u, g) })
}

// clean removes all files and checks that nothing is left of them.
func clean(t require.TestingT, o *ours) {
	c := o.NewCaller()
	var rm func(p string)
	rm = func(p string) {
		var a vfs.Attr
		require.NoError(t, c.StatAt(linux.AT_FDCWD, p, linux.AT_SYMLINK_NOFOLLOW, &a), p)
		if a.Mode&linux.S_IFMT != linux.S_IFDIR {
			require.NoError(t, c.UnlinkAt(linux.AT_FDCWD, p, 0), p)
			return
		}
		fd, err := c.OpenAt(linux.AT_FDCWD, p, linux.O_DIRECTORY, 0)
		require.NoError(t, err, p)
		b := make([]byte, 1<<16)
		io := from("")
		io.Bytes(b)
		n, err := c.Getdents(fd, io, false)
		require.NoError(t, err)
		require.NoError(t, c.Files.Close(c, fd))
		for _, e := range parseDents(b[:n]) {
			if name := e[:strings.LastIndexByte(e, ':')]; name != "." && name != ".." {
				rm(p + "/" + name)
			}
		}
		if p != "/" {
			require.NoError(t, c.UnlinkAt(linux.AT_FDCWD, p, linux.AT_REMOVEDIR), p)
		}
	}
	rm("/") // links lead out of /w
	o.end()
	pages, inodes := o.Root.Usage()
	require.Zero(t, pages)
	require.EqualValues(t, 1, inodes, "the root is left")
	require.Zero(t, o.Frames())
	require.Zero(t, o.V.OpenFiles())
}
