package pipe

import (
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/dkernel/ipc/ipctest"
	"dinos/dkernel/uio"
	"dinos/dkernel/vfs"
	"dinos/dkernel/vfs/vfstest"
	"dinos/kernel/linux"
)

// FIFOs by name, and splice(2), tee(2) and vmsplice(2) through pipes.
func TestNamedAndSpliced(t *testing.T) {
	rig := vfstest.New(t, 4)
	Register(rig.V)
	th := ipctest.NewThread(rig.V)
	c := &th.Caller
	require.NoError(t, c.MknodAt(linux.AT_FDCWD, "/fifo", linux.S_IFIFO|0o600, 0))
	_, err := c.OpenAt(linux.AT_FDCWD, "/fifo", linux.O_WRONLY|linux.O_NONBLOCK, 0)
	require.Equal(t, linux.ENXIO, err)
	require.Zero(t, th.Files.Count())
	reader := th.Sibling()
	fds := make(chan int)
	go func() {
		fd, err := reader.OpenAt(linux.AT_FDCWD, "/fifo", linux.O_RDONLY, 0)
		if err != nil {
			t.Error(err)
		}
		fds <- fd
	}()
	w, err := c.OpenAt(linux.AT_FDCWD, "/fifo", linux.O_WRONLY, 0)
	require.NoError(t, err)
	r := <-fds
	_, err = th.Write(w, []byte("through a name"))
	require.NoError(t, err)

	a, b, err := Pipe2(c, 0)
	require.NoError(t, err)
	n, err := c.Tee(r, b, 7, 0)
	require.NoError(t, err)
	require.EqualValues(t, 7, n)
	require.Equal(t, 7, th.Desc(a).File().(*Pipe).Len())
	require.Equal(t, 14, th.Desc(r).File().(*Pipe).Len(), "tee takes nothing")
	n, err = c.Splice(r, nil, b, nil, 100, 0)
	require.NoError(t, err)
	require.EqualValues(t, 14, n)
	file, err := c.OpenAt(linux.AT_FDCWD, "/file", linux.O_RDWR|linux.O_CREAT, 0o600)
	require.NoError(t, err)
	n, err = c.Splice(a, nil, file, nil, 100, 0)
	require.NoError(t, err)
	require.EqualValues(t, 21, n)
	text, err := vfstest.ReadFile(c, "/file")
	require.NoError(t, err)
	require.Equal(t, "throughthrough a name", text)
	off := int64(7)
	n, err = c.Splice(file, &off, b, nil, 100, 0)
	require.NoError(t, err)
	require.EqualValues(t, 14, n)
	_, err = c.Splice(a, nil, b, nil, 1, 0)
	require.Equal(t, linux.EINVAL, err, "a pipe into itself")
	_, _ = th.Mem.CopyOut(ipctest.Base, []byte("given"))
	var io uio.IO
	io.User(th.Mem, ipctest.Base, 5)
	n, err = c.Vmsplice(b, &io, 0)
	require.NoError(t, err)
	require.EqualValues(t, 5, n)
	p := make([]byte, 100)
	k, err := th.Read(a, p)
	require.NoError(t, err)
	require.Equal(t, "through a namegiven", string(p[:k]))
	_, err = c.Splice(a, nil, file, nil, 1, linux.SPLICE_F_NONBLOCK)
	require.Equal(t, linux.EAGAIN, err)
	th.Close(w)
	k, err = th.Read(r, p)
	require.NoError(t, err)
	require.Zero(t, k)
}

// A pipe that is opened by way of /proc/PID/fd/N is the same pipe, and nobody has to be at its other end (fs/pipe.c, fifo_open).
func TestReopenPipe(t *testing.T) {
	th, r, w := open(t, 0)
	d := th.Files.Lookup(w)
	defer d.Unref()
	p, ok := d.Inode().Private().(*Pipe)
	require.True(t, ok, "the inode knows its pipe")
	require.Same(t, d.File(), vfs.File(p))
	_, err := th.Write(w, []byte("left"))
	require.NoError(t, err)
	require.NoError(t, th.Files.Close(&th.Caller, w))
	dn := th.FS.VFS().NewPipe(&th.Caller)
	again := th.NewNameless(dn, p, linux.O_RDONLY, vfs.Stream)
	dn.Inode().Unref()
	require.NoError(t, p.Open(&th.Caller, again))
	again.Unref()
	b := make([]byte, 8)
	n, err := th.Read(r, b)
	require.NoError(t, err)
	require.Equal(t, "left", string(b[:n]))
	late := th.NewNameless(th.FS.VFS().NewPipe(&th.Caller), p, linux.O_WRONLY|linux.O_NONBLOCK, vfs.Stream)
	require.NoError(t, th.Files.Close(&th.Caller, r))
	require.NoError(t, p.Open(&th.Caller, late), "no ENXIO either")
	late.Unref()
}
