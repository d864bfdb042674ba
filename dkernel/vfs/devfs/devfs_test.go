package devfs_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/dkernel/uio"
	"dinos/dkernel/vfs"
	"dinos/dkernel/vfs/devfs"
	"dinos/dkernel/vfs/vfstest"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

const at = linux.AT_FDCWD

func newDev(t *testing.T) (*vfstest.Rig, *devfs.Dev, *[]string) {
	r := vfstest.New(t, 2)
	var log []string
	d := devfs.New(r.V, devfs.Config{Random: func(p []byte) {
		for i := range p {
			p[i] = 0xa5
		}
	}, Log: func(s string) { log = append(log, s) }, ShmSize: 8192})
	require.NoError(t, d.Mount(r.Caller, "/dev"))
	return r, d, &log
}

func open(t *testing.T, r *vfstest.Rig, path string) int {
	fd, err := r.OpenAt(at, path, linux.O_RDWR, 0)
	require.NoError(t, err, path)
	return fd
}

func TestMemoryDevices(t *testing.T) {
	r, _, log := newDev(t)
	for _, c := range []struct {
		path     string
		dev      uint64
		read     string
		write    error
		seek     int64
		mappable error
		poll     bool
	}{
		{"/dev/null", 0x103, "", nil, 0, linux.ENODEV, false},
		{"/dev/zero", 0x105, "\x00\x00\x00", nil, 0, nil, false},
		{"/dev/full", 0x107, "\x00\x00\x00", linux.ENOSPC, 0, linux.ENODEV, false},
		{"/dev/random", 0x108, "\xa5\xa5\xa5", nil, 0, linux.ENODEV, true},
		{"/dev/urandom", 0x109, "\xa5\xa5\xa5", nil, 0, linux.ENODEV, true},
	} {
		fd := open(t, r, c.path)
		got, err := vfstest.Read(r.Caller, fd, 3)
		require.NoError(t, err, c.path)
		require.Equal(t, c.read, got, c.path)
		n, err := vfstest.Write(r.Caller, fd, "hello")
		if c.write != nil {
			require.Equal(t, c.write, err, c.path)
		} else {
			require.NoError(t, err, c.path)
			require.Equal(t, 5, n, c.path)
		}
		pos, err := r.Lseek(fd, 77, linux.SEEK_SET)
		require.NoError(t, err)
		require.Equal(t, c.seek, pos)
		var a vfs.Attr
		require.NoError(t, r.Fstat(fd, &a))
		require.Equal(t, c.dev, a.Rdev, c.path)
		require.EqualValues(t, linux.S_IFCHR|0o666, a.Mode)
		o, err := r.Object(fd, true, 3)
		if c.mappable == nil {
			require.NoError(t, err)
			require.Nil(t, o, "anonymous memory")
		} else {
			require.Equal(t, c.mappable, err, c.path)
		}
		ref, err := r.Files.Get(fd)
		require.NoError(t, err)
		require.Equal(t, wait.Readable|wait.Writable, ref.Poll())
		require.Equal(t, c.poll, ref.Queue() != nil, "%s: can be given to epoll", c.path)
		ref.Put()
		_, err = r.Ioctl(fd, 0x5401, 0)
		require.Error(t, err)
		vfstest.Close(t, r.Caller, fd)
	}
	fd, err := r.OpenAt(at, "/dev/kmsg", linux.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = vfstest.Write(r.Caller, fd, "<6>hello")
	require.NoError(t, err)
	require.Equal(t, []string{"<6>hello"}, *log)
	_, err = vfstest.Write(r.Caller, fd, strings.Repeat("x", 2000))
	require.Equal(t, linux.EINVAL, err)
}

func TestLargeReads(t *testing.T) {
	r, _, _ := newDev(t)
	for path, b := range map[string]byte{"/dev/zero": 0, "/dev/urandom": 0xa5} {
		fd := open(t, r, path)
		p := make([]byte, 100_000)
		for i := range p {
			p[i] = 1
		}
		var io uio.IO
		io.Bytes(p)
		n, err := r.Read(fd, &io)
		require.NoError(t, err)
		require.EqualValues(t, len(p), n)
		for _, x := range p {
			require.Equal(t, b, x)
		}
	}
}

func TestNames(t *testing.T) {
	r, d, _ := newDev(t)
	for path, want := range map[string]string{"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0", "/dev/stderr": "/proc/self/fd/2"} {
		got, err := r.ReadlinkAt(at, path)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	_, err := r.OpenAt(at, "/dev/tty", linux.O_RDWR, 0)
	require.Equal(t, linux.ENXIO, err, "nobody has registered terminals")
	r.V.RegisterMajor(136, func(*vfs.Caller, *vfs.Description, *vfs.Inode, uint32) (vfs.File, error) { return vfs.BaseFile{}, nil })
	user := r.As(1000, 100)
	d.Pts.Add(user, 3, vfs.MkDev(136, 3))
	var a vfs.Attr
	require.NoError(t, r.StatAt(at, "/dev/pts/3", 0, &a))
	require.EqualValues(t, linux.S_IFCHR|0o620, a.Mode)
	require.EqualValues(t, []uint32{1000, 5}, []uint32{a.UID, a.GID})
	_, err = user.OpenAt(at, "/dev/pts/3", linux.O_RDWR, 0)
	require.NoError(t, err)
	d.Pts.Remove(3)
	require.Equal(t, linux.ENOENT, r.StatAt(at, "/dev/pts/3", 0, &a))
	vfstest.WriteFile(t, user, "/dev/shm/x", "shared")
	var s linux.Statfs
	require.NoError(t, r.Statfs("/dev/shm", &s))
	require.EqualValues(t, []uint64{2, 1}, []uint64{s.Blocks, s.Bfree})
	fd, err := user.OpenAt(at, "/dev/shm/big", linux.O_CREAT|linux.O_RDWR, 0o600)
	require.NoError(t, err)
	n, err := vfstest.Write(user, fd, strings.Repeat("x", 8192))
	require.NoError(t, err)
	require.Equal(t, 4096, n)
	_, err = vfstest.Write(user, fd, "x")
	require.Equal(t, linux.ENOSPC, err)
}
