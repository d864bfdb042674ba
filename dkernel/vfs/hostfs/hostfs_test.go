package hostfs_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/dkernel/mm"
	"dinos/dkernel/uio"
	"dinos/dkernel/vfs"
	"dinos/dkernel/vfs/hostfs"
	"dinos/dkernel/vfs/vfstest"
	"dinos/kernel/linux"
	"dinos/qemu/hostfiles"
	"dinos/shmem/layout"
	"dinos/shmem/proto"
	"dinos/shmem/region"
	"dinos/shmem/rpc"
)

const at = linux.AT_FDCWD

// rig is a VFS with a directory of this machine at /host, over rings and the launcher's server.
type rig struct {
	*vfstest.Rig
	dir   string
	fail  atomic.Bool // calls fail as if the launcher was gone
	calls atomic.Int64
	conn  hostfs.Conn
}

// Call implements hostfs.Calls.
func (r *rig) Call(q proto.Request, a proto.Message) error {
	r.calls.Add(1)
	if r.fail.Load() {
		return errors.New("nobody there")
	}
	return r.conn.Call(q, a)
}

func newRig(t *testing.T, fresh int64) *rig {
	r := &rig{Rig: vfstest.New(t, 2), dir: t.TempDir()}
	s, err := hostfiles.New(r.dir, false)
	require.NoError(t, err)
	mem, err := region.New(region.Slab(8 << 20))
	require.NoError(t, err)
	rack, err := layout.Format(mem, layout.Config{Machines: 2, Logs: layout.NoLogs}, 1)
	require.NoError(t, err)
	clock := rpc.NewSystemClock()
	var loops [2]*rpc.Loop
	for i := range loops {
		loops[i] = rpc.NewLoop(clock, rpc.NewChanSleeper(clock), rpc.DefaultSpin)
	}
	var mux rpc.Mux
	s.Handle(&mux)
	connect := func(self, peer int, m *rpc.Mux) *rpc.Conn {
		cfg, err := rpc.PeerConfig(rack, self, peer)
		require.NoError(t, err)
		cfg.Generation, cfg.Handlers, cfg.Notify = 1, m, loops[peer].Wake
		c, err := loops[self].Connect(cfg)
		require.NoError(t, err)
		return c
	}
	connect(0, 1, &mux)
	r.conn = hostfs.Conn{C: connect(1, 0, nil), Timeout: 20 * time.Second}
	for _, l := range loops {
		go l.Run()
	}
	t.Cleanup(func() {
		for _, l := range loops {
			l.Stop()
		}
		s.Close()
	})
	f, err := hostfs.New(r.V, hostfs.Config{Calls: r, Fresh: fresh})
	require.NoError(t, err)
	require.NoError(t, r.MkdirAt(at, "/host", 0o755))
	p, err := r.Walk(at, "/host", vfs.Follow)
	require.NoError(t, err)
	require.NoError(t, r.V.Mount(f.FS, f.Root(), p, "host", linux.MS_NODEV))
	return r
}

func (r *rig) host(t *testing.T, name string) string {
	b, err := os.ReadFile(filepath.Join(r.dir, name))
	require.NoError(t, err)
	return string(b)
}

func TestBothWays(t *testing.T) {
	r := newRig(t, 0)
	big := strings.Repeat("0123456789", 10_000)
	require.NoError(t, os.WriteFile(filepath.Join(r.dir, "in"), []byte(big), 0o644))
	got, err := vfstest.ReadFile(r.Caller, "/host/in")
	require.NoError(t, err)
	require.Equal(t, big, got)
	require.NoError(t, r.MkdirAt(at, "/host/d", 0o755))
	vfstest.WriteFile(t, r.Caller, "/host/d/out", big)
	require.Equal(t, big, r.host(t, "d/out"))
	var a vfs.Attr
	require.NoError(t, r.StatAt(at, "/host/d/out", 0, &a))
	require.EqualValues(t, len(big), a.Size)
	require.EqualValues(t, linux.S_IFREG|0o644, a.Mode)
	// What the host changes is seen.
	require.NoError(t, os.WriteFile(filepath.Join(r.dir, "in"), []byte("new"), 0o600))
	got, err = vfstest.ReadFile(r.Caller, "/host/in")
	require.NoError(t, err)
	require.Equal(t, "new", got)
	require.NoError(t, os.Remove(filepath.Join(r.dir, "in")))
	require.Equal(t, linux.ENOENT, r.StatAt(at, "/host/in", 0, &a))
	require.NoError(t, os.Mkdir(filepath.Join(r.dir, "in"), 0o755))
	require.NoError(t, r.StatAt(at, "/host/in/.", 0, &a))
	require.Zero(t, r.Frames())
}

func TestNames(t *testing.T) {
	r := newRig(t, int64(time.Hour)) // everything is believed: our own changes must be seen all the same
	c := r.Caller
	vfstest.WriteFile(t, c, "/host/a", "a")
	require.NoError(t, c.LinkAt(at, "/host/a", at, "/host/b", 0))
	var a vfs.Attr
	require.NoError(t, c.StatAt(at, "/host/b", 0, &a))
	require.EqualValues(t, 2, a.Nlink)
	require.NoError(t, c.UnlinkAt(at, "/host/a", 0))
	require.NoError(t, c.FchmodAt(at, "/host/b", 0o600, 0))
	require.NoError(t, c.SymlinkAt("b", at, "/host/l"))
	got, err := vfstest.ReadFile(c, "/host/l")
	require.NoError(t, err)
	require.Equal(t, "a", got)
	require.NoError(t, c.MkdirAt(at, "/host/d", 0o755))
	require.NoError(t, c.RenameAt(at, "/host/b", at, "/host/d/c", 0))
	require.Equal(t, "a", r.host(t, "d/c"))
	vfstest.WriteFile(t, c, "/host/x", "x")
	require.NoError(t, c.RenameAt(at, "/host/x", at, "/host/d/c", linux.RENAME_EXCHANGE))
	require.Equal(t, "x", r.host(t, "d/c"))
	require.Equal(t, "a", r.host(t, "x"))
	require.Equal(t, linux.ENOTEMPTY, c.UnlinkAt(at, "/host/d", linux.AT_REMOVEDIR))
	require.Equal(t, linux.EXDEV, c.RenameAt(at, "/host/d/c", at, "/c", 0))
	require.Equal(t, linux.EPERM, c.MknodAt(at, "/host/fifo", linux.S_IFIFO, 0))
	require.NoError(t, c.RenameAt(at, "/host/d", at, "/host/e", 0))
	require.NoError(t, c.UnlinkAt(at, "/host/e/c", 0))
	require.NoError(t, c.UnlinkAt(at, "/host/e", linux.AT_REMOVEDIR))
	_, err = os.Stat(filepath.Join(r.dir, "e"))
	require.True(t, os.IsNotExist(err))
	require.NoError(t, c.UtimensAt(at, "/host/x", false, &[2]linux.Timespec{{Sec: 5}, {Sec: 6}}, 0))
	st, err := os.Stat(filepath.Join(r.dir, "x"))
	require.NoError(t, err)
	require.EqualValues(t, 6, st.ModTime().Unix())
	require.NoError(t, c.Truncate("/host/x", 3))
	require.Equal(t, "a\x00\x00", r.host(t, "x"))
	before := r.calls.Load()
	require.NoError(t, c.StatAt(at, "/host/x", 0, &a))
	require.Equal(t, before, r.calls.Load(), "believed")
}

func TestUnlinkedAndAppend(t *testing.T) {
	r := newRig(t, 0)
	fd, err := r.OpenAt(at, "/host/f", linux.O_CREAT|linux.O_RDWR|linux.O_APPEND, 0o600)
	require.NoError(t, err)
	_, err = vfstest.Write(r.Caller, fd, "one")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(r.dir, "f"), []byte("from the host "), 0o600))
	_, err = vfstest.Write(r.Caller, fd, "two")
	require.NoError(t, err)
	require.Equal(t, "from the host two", r.host(t, "f"))
	require.NoError(t, r.UnlinkAt(at, "/host/f", 0))
	_, err = vfstest.Write(r.Caller, fd, "three")
	require.NoError(t, err)
	_, err = r.Lseek(fd, 0, 0)
	require.NoError(t, err)
	got, err := vfstest.Read(r.Caller, fd, 100)
	require.NoError(t, err)
	require.Equal(t, "from the host twothree", got)
	var a vfs.Attr
	require.NoError(t, r.Fstat(fd, &a))
	require.EqualValues(t, 22, a.Size)
	require.Zero(t, a.Nlink)
	vfstest.Close(t, r.Caller, fd)
}

func TestReadDir(t *testing.T) {
	r := newRig(t, 0)
	want := map[string]bool{".": true, "..": true}
	for i := range 500 {
		n := "file-with-a-long-name-" + strings.Repeat("x", i%40) + string(rune('a'+i%26)) + time.Duration(i).String()
		want[n] = true
		require.NoError(t, os.WriteFile(filepath.Join(r.dir, n), nil, 0o600))
	}
	fd, err := r.OpenAt(at, "/host", linux.O_DIRECTORY, 0)
	require.NoError(t, err)
	got := map[string]bool{}
	for {
		b := make([]byte, 2000)
		var io uio.IO
		io.Bytes(b)
		n, err := r.Getdents(fd, &io, false)
		require.NoError(t, err)
		if n == 0 {
			break
		}
		for b = b[:n]; len(b) > 0; {
			size := int(b[16]) | int(b[17])<<8
			name, _, _ := strings.Cut(string(b[19:size]), "\x00")
			require.False(t, got[name], "%s twice", name)
			got[name] = true
			b = b[size:]
		}
	}
	require.Equal(t, want, got)
	vfstest.Close(t, r.Caller, fd)
}

// Pages are shared by mappings and kept in step with read(2) and write(2); what is written to them reaches the host.
func TestPages(t *testing.T) {
	r := newRig(t, 0)
	body := strings.Repeat("a", 10_000)
	require.NoError(t, os.WriteFile(filepath.Join(r.dir, "f"), []byte(body), 0o600))
	fd, err := r.OpenAt(at, "/host/f", linux.O_RDWR, 0)
	require.NoError(t, err)
	o, err := r.Object(fd, true, linux.PROT_READ|linux.PROT_WRITE)
	require.NoError(t, err)
	require.True(t, o.Notify())
	require.Equal(t, mm.MayRead|mm.MayWrite, o.Access())
	p, err := o.Page(1, true)
	require.NoError(t, err)
	require.Equal(t, byte('a'), r.Pool.Bytes(p)[0])
	copy(r.Pool.Bytes(p), "mapped")
	var io uio.IO
	b := make([]byte, 8)
	io.Bytes(b)
	_, err = r.Pread(fd, &io, 4095)
	require.NoError(t, err)
	require.Equal(t, "amappeda", string(b), "read(2) sees it before the host does")
	require.Equal(t, body, r.host(t, "f"))
	io.Bytes([]byte("WRITTEN"))
	_, err = r.Pwrite(fd, &io, 4099)
	require.NoError(t, err)
	require.Equal(t, "mapWRITTEN", string(r.Pool.Bytes(p)[:10]), "the mapping sees what write(2) wrote")
	require.NoError(t, o.Sync(0, 5, true))
	require.Equal(t, body[:4096]+"mapWRITTEN"+body[4106:], r.host(t, "f"))
	_, err = o.Page(3, false)
	require.Equal(t, linux.ENXIO, err, "beyond the end: SIGBUS")
	last, err := o.Page(2, false)
	require.NoError(t, err)
	require.Equal(t, "a\x00", string(r.Pool.Bytes(last)[10_000-8192-1:10_000-8192+1]))
	r.Pool.Unref(last)
	r.Pool.Unref(p)
	require.NoError(t, r.Ftruncate(fd, 5))
	_, err = o.Page(1, false)
	require.Equal(t, linux.ENXIO, err)
	vfstest.Close(t, r.Caller, fd)
	o.Release()
	require.Zero(t, r.Frames())
}

func TestHostGone(t *testing.T) {
	r := newRig(t, 0)
	vfstest.WriteFile(t, r.Caller, "/host/f", "x")
	fd, err := r.OpenAt(at, "/host/f", linux.O_RDWR, 0)
	require.NoError(t, err)
	r.fail.Store(true)
	var a vfs.Attr
	require.Equal(t, linux.EIO, r.StatAt(at, "/host/f", 0, &a))
	_, err = vfstest.Read(r.Caller, fd, 1)
	require.Equal(t, linux.EIO, err)
	_, err = vfstest.Write(r.Caller, fd, "y")
	require.Equal(t, linux.EIO, err)
	vfstest.Close(t, r.Caller, fd)
	require.NoError(t, r.StatAt(at, "/", 0, &a))
	r.fail.Store(false)
	require.NoError(t, r.StatAt(at, "/host/f", 0, &a))
	require.Zero(t, r.V.OpenFiles())
}
