package cpio_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	lib "github.com/cavaliergopher/cpio"
	"github.com/stretchr/testify/require"

	"dinos/dkernel/vfs"
	"dinos/dkernel/vfs/cpio"
	"dinos/dkernel/vfs/tmpfs"
	"dinos/dkernel/vfs/vfstest"
	"dinos/kernel/linux"
)

const at = linux.AT_FDCWD

type file struct {
	name  string
	mode  lib.FileMode
	body  string
	inode int64
	links int
}

func archive(t testing.TB, files ...file) []byte {
	var b bytes.Buffer
	w := lib.NewWriter(&b)
	for _, f := range files {
		h := &lib.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.body)), Uid: 7, Guid: 8, ModTime: time.Unix(1e9, 0), Inode: f.inode, Links: f.links}
		if f.mode&lib.ModeType == lib.TypeSymlink {
			h.Linkname, h.Size = f.body, int64(len(f.body))
		}
		require.NoError(t, w.WriteHeader(h))
		_, err := w.Write([]byte(f.body))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

func unpack(t testing.TB, data []byte) (*vfstest.Rig, cpio.Stats, error) {
	r := vfstest.New(t, 2)
	s, err := cpio.Unpack(r.V, r.Root, data)
	return r, s, err
}

func TestUnpack(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 1000)
	data := archive(t,
		file{name: "bin", mode: lib.TypeDir | 0o755}, file{name: "bin/busybox", mode: lib.TypeReg | 0o4755, body: big},
		file{name: "./bin/sh", mode: lib.TypeSymlink | 0o777, body: "busybox"}, file{name: "/etc/deep/x", mode: lib.TypeReg | 0o600, body: "x"},
		file{name: "one", mode: lib.TypeReg | 0o644, inode: 5, links: 2}, file{name: "two", mode: lib.TypeReg | 0o644, inode: 5, links: 2, body: "both"},
		file{name: "pipe", mode: lib.TypeFifo | 0o600}, file{name: "empty", mode: lib.TypeReg | 0o644},
		file{name: "etc/deep/x", mode: lib.TypeReg | 0o600, body: "later wins"})
	data = append(data, archive(t, file{name: "second", mode: lib.TypeReg | 0o644, body: "archive"})...)
	r, s, err := unpack(t, data)
	require.NoError(t, err)
	require.Equal(t, cpio.Stats{Files: 7, Dirs: 1, Links: 1, Others: 1, Bytes: int64(len(big)) + 1 + 4 + 10 + 7}, s)
	require.Zero(t, r.Frames(), "contents stay in the archive")
	for path, want := range map[string]string{"/bin/sh": big, "/etc/deep/x": "later wins", "/one": "both", "/two": "both", "/second": "archive", "/empty": ""} {
		got, err := vfstest.ReadFile(r.Caller, path)
		require.NoError(t, err, path)
		require.Equal(t, want, got, path)
	}
	var a vfs.Attr
	require.NoError(t, r.StatAt(at, "/bin/busybox", 0, &a))
	require.EqualValues(t, linux.S_IFREG|0o4755, a.Mode)
	require.Equal(t, []uint32{7, 8}, []uint32{a.UID, a.GID})
	require.EqualValues(t, 1e18, a.Mtime)
	require.NoError(t, r.StatAt(at, "/one", 0, &a))
	require.EqualValues(t, 2, a.Nlink)
}

// What is written does not change the archive, and what is not written stays as it was there.
func TestWriteToUnpacked(t *testing.T) {
	body := strings.Repeat("a", 3*4096+100)
	data := archive(t, file{name: "f", mode: lib.TypeReg | 0o644, body: body})
	before := bytes.Clone(data)
	r, _, err := unpack(t, data)
	require.NoError(t, err)
	want := []byte(body)
	fd, err := r.OpenAt(at, "/f", linux.O_RDWR, 0)
	require.NoError(t, err)
	write := func(off int64, s string) {
		_, err := r.Lseek(fd, off, linux.SEEK_SET)
		require.NoError(t, err)
		_, err = vfstest.Write(r.Caller, fd, s)
		require.NoError(t, err)
		if n := int(off) + len(s); n > len(want) {
			want = append(want, make([]byte, n-len(want))...)
		}
		copy(want[off:], s)
	}
	check := func() {
		got, err := vfstest.ReadFile(r.Caller, "/f")
		require.NoError(t, err)
		require.Equal(t, string(want), got)
	}
	write(5000, "hello")
	require.Equal(t, 1, r.Frames())
	check()
	write(3*4096+50, strings.Repeat("b", 5000))
	check()
	require.NoError(t, r.Ftruncate(fd, 4100))
	want = want[:4100]
	require.NoError(t, r.Ftruncate(fd, 9000))
	want = append(want, make([]byte, 4900)...)
	check()
	require.NoError(t, r.Fallocate(fd, linux.FALLOC_FL_PUNCH_HOLE|linux.FALLOC_FL_KEEP_SIZE, 10, 20))
	clear(want[10:30])
	check()
	write(4096, strings.Repeat("c", 4096))
	check()
	vfstest.Close(t, r.Caller, fd)
	require.NoError(t, r.UnlinkAt(at, "/f", 0))
	require.Zero(t, r.Frames())
	require.Equal(t, before, data)
}

func TestHostile(t *testing.T) {
	good := archive(t, file{name: "dir/file", mode: lib.TypeReg | 0o644, body: "contents"}, file{name: "link", mode: lib.TypeSymlink | 0o777, body: "dir"})
	change := func(off int, s string) []byte {
		b := bytes.Clone(good)
		copy(b[off:], s)
		return b
	}
	name := len("07070100000000") - 8 // of the first field
	field := func(i int, v string) []byte { return change(name+8*i, v) }
	for _, c := range []struct {
		what string
		data []byte
		want string
	}{
		{"magic", change(0, "070707"), "newc"},
		{"not hexadecimal", field(1, "0000g000"), "hexadecimal"},
		{"sign", field(6, "+0000008"), "hexadecimal"},
		{"size beyond", field(6, "00ffffff"), "ends in the middle"},
		{"largest size", field(6, "ffffffff"), "ends in the middle"},
		{"no name", field(11, "00000000"), "invalid"},
		{"long name", field(11, "0000ffff"), "invalid"},
		{"name not ended", field(11, "00000004"), "name"},
		{"no type", field(1, "00000000"), "type"},
		{"unknown type", field(1, "000031a4"), "type"},
		{"cut", good[:50], "ends in the middle"},
		{"cut in the name", good[:115], "ends in the middle"},
		{"cut in the data", good[:124], "ends in the middle"},
		{"rubbish behind", append(bytes.Clone(good), "rubbish"...), "ends in the middle"},
		{"dots", archive(t, file{name: "a/../../b", mode: lib.TypeReg, body: "x"}), "part"},
		{"root is a file", archive(t, file{name: ".", mode: lib.TypeReg, body: "x"}), "directory"},
		{"deep", archive(t, file{name: strings.Repeat("a/", 300) + "b", mode: lib.TypeReg}), "too many"},
		{"long part", archive(t, file{name: strings.Repeat("n", 300), mode: lib.TypeReg}), "too long"},
		{"below a file", archive(t, file{name: "f", mode: lib.TypeReg}, file{name: "f/x", mode: lib.TypeReg}), "not a directory"},
		{"loop", archive(t, file{name: "l", mode: lib.TypeSymlink, body: "l"}, file{name: "l/x", mode: lib.TypeReg}), "symbolic"},
	} {
		_, _, err := unpack(t, c.data)
		require.ErrorContains(t, err, c.want, c.what)
		require.ErrorContains(t, err, "cpio archive, byte ", c.what)
	}
}

// A link in the archive leads nowhere outside.
func TestConfined(t *testing.T) {
	r := vfstest.New(t, 2)
	require.NoError(t, r.MkdirAt(at, "/outside", 0o755))
	data := archive(t, file{name: "up", mode: lib.TypeSymlink, body: "../../.."}, file{name: "up/x", mode: lib.TypeReg, body: "x"})
	_, err := cpio.Unpack(r.V, r.Root, data)
	require.NoError(t, err)
	got, err := vfstest.ReadFile(r.Caller, "/x")
	require.NoError(t, err)
	require.Equal(t, "x", got)
}

func TestChecksum(t *testing.T) {
	b := archive(t, file{name: "f", mode: lib.TypeReg | 0o644, body: "abc"})
	copy(b, "070702")
	sum := func(n uint32) []byte {
		c := bytes.Clone(b)
		copy(c[102:], fmt.Sprintf("%08x", n))
		return c
	}
	_, _, err := unpack(t, sum('a'+'b'+'c'))
	require.NoError(t, err)
	_, _, err = unpack(t, sum(5))
	require.ErrorContains(t, err, "checksum")
}

func FuzzUnpack(f *testing.F) {
	f.Add(archive(f, file{name: "d", mode: lib.TypeDir | 0o755}, file{name: "d/f", mode: lib.TypeReg | 0o644, body: "hi", inode: 3, links: 2},
		file{name: "g", mode: lib.TypeReg, inode: 3, links: 2}, file{name: "l", mode: lib.TypeSymlink, body: "d"}))
	f.Add([]byte{0, 0, 0, 0})
	r := vfstest.New(f, 2)
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<16 {
			return
		}
		v := vfs.New(vfs.Config{Now: func() int64 { return 1 }, Frames: r.Pool})
		fs := newRoot(t, v)
		_, err := cpio.Unpack(v, fs, data)
		var e *cpio.Error
		if err != nil {
			require.ErrorAs(t, err, &e)
			require.LessOrEqual(t, e.Offset, int64(len(data)))
		}
		require.Zero(t, r.Frames())
	})
}

func newRoot(t testing.TB, v *vfs.VFS) *tmpfs.FS {
	fs := tmpfs.New(v, tmpfs.Config{})
	require.NoError(t, v.MountRoot(fs.FS, "rootfs", 0))
	return fs
}
