package unix

import (
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/dkernel/ipc/ipctest"
	"dinos/dkernel/ipc/socket"
	"dinos/dkernel/vfs/vfstest"
	"dinos/kernel/linux"
)

func path(name string) []byte { return append([]byte{linux.AF_UNIX, 0}, name...) }

// Names in the file system.
func TestPaths(t *testing.T) {
	rig := vfstest.New(t, 4)
	w := &world{t: t, th: ipctest.NewThread(rig.V), net: socket.New(), sys: New(ipctest.Now)}
	w.net.Register(linux.AF_UNIX, w.sys)
	c := &w.th.Caller
	ls := w.create(linux.SOCK_STREAM)
	require.NoError(t, w.bind(w.th, ls, path("/server\x00rest")))
	require.NoError(t, socket.Listen(c, ls, 5))
	name, err := w.name(ls, false)
	require.NoError(t, err)
	require.Equal(t, "/server\x00", name)
	_, err = c.OpenAt(linux.AT_FDCWD, "/server", linux.O_RDWR, 0)
	require.Equal(t, linux.ENXIO, err)
	other := w.create(linux.SOCK_STREAM)
	require.Equal(t, linux.EADDRINUSE, w.bind(w.th, other, path("/server")))
	require.Equal(t, linux.ENOENT, w.bind(w.th, other, path("/none/x")))
	require.Equal(t, linux.ENOENT, w.connect(w.th, other, path("/none")))
	require.Equal(t, linux.EPROTOTYPE, w.connect(w.th, w.create(linux.SOCK_DGRAM), path("/server")))

	cl := w.create(linux.SOCK_STREAM)
	require.NoError(t, w.connect(w.th, cl, path("server")))
	w.put(atInt, socket.Int(110))
	sv, err := socket.Accept4(c, ls, atName, atInt, 0)
	require.NoError(t, err)
	require.Equal(t, socket.Int(2), w.get(atInt, 4), "the client has no name")
	_, err = w.th.Write(cl, []byte("hi"))
	require.NoError(t, err)
	r := w.recvmsg(w.th, sv, 10, 0, 0)
	require.Equal(t, "hi", r.data)
	name, err = w.name(cl, true)
	require.NoError(t, err)
	require.Equal(t, "/server\x00", name)

	// Permissions are those of the file.
	user := ipctest.NewThread(rig.V)
	user.Cred = rig.As(1000, 1000).Cred
	u, err := w.net.Create(&user.Caller, linux.AF_UNIX, linux.SOCK_STREAM, 0)
	require.NoError(t, err)
	require.Equal(t, linux.EACCES, w.connect(user, u, path("/server")))

	// The name outlives the socket, and the socket its name.
	w.th.Close(ls)
	require.Equal(t, linux.ECONNREFUSED, w.connect(w.th, other, path("/server")))
	require.Equal(t, linux.EADDRINUSE, w.bind(w.th, other, path("/server")))
	require.NoError(t, c.UnlinkAt(linux.AT_FDCWD, "/server", 0))
	require.NoError(t, w.bind(w.th, other, path("/server")))
	require.NoError(t, socket.Listen(c, other, 0))
	require.NoError(t, c.UnlinkAt(linux.AT_FDCWD, "/server", 0))
	require.Equal(t, linux.ENOENT, w.connect(w.th, w.create(linux.SOCK_STREAM), path("/server")))
}
