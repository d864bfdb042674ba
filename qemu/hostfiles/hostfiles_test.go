package hostfiles

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"dinos/shmem/layout"
	"dinos/shmem/proto"
	"dinos/shmem/region"
	"dinos/shmem/rpc"
)

// kernel is the other end: it calls a server over real rings.
type kernel struct {
	t *testing.T
	c *rpc.Conn
}

func newKernel(t *testing.T, dir string, readOnly bool) *kernel {
	s, err := New(dir, readOnly)
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
	k := &kernel{t, connect(1, 0, nil)}
	for _, l := range loops {
		go l.Run()
	}
	t.Cleanup(func() {
		for _, l := range loops {
			l.Stop()
		}
		s.Close()
	})
	return k
}

func (k *kernel) call(req proto.Request, reply proto.Message) unix.Errno {
	err := k.c.Call(context.Background(), req, reply, 10*time.Second)
	var r *rpc.RemoteError
	if errors.As(err, &r) && r.Code == proto.CodeErrno {
		return unix.Errno(r.Errno)
	}
	require.NoError(k.t, err)
	return 0
}

func (k *kernel) open(path string, flags, mode uint32) (uint64, unix.Errno) {
	var a proto.OpenReply
	e := k.call(&proto.Open{Path: path, Flags: flags, Mode: mode}, &a)
	return a.Handle, e
}

const ok = unix.Errno(0)

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	k := newKernel(t, dir, false)
	h, e := k.open("a.txt", unix.O_CREAT|unix.O_RDWR|unix.O_EXCL, 0o640)
	require.Equal(t, ok, e)
	var w proto.WriteReply
	require.Equal(t, ok, k.call(&proto.Write{Handle: h, Data: []byte("hello")}, &w))
	require.Equal(t, proto.WriteReply{Count: 5, Size: 5}, w)
	require.Equal(t, ok, k.call(&proto.Write{Handle: h, Append: true, Data: []byte(", world")}, &w))
	require.EqualValues(t, 12, w.Size)
	var r proto.ReadReply
	require.Equal(t, ok, k.call(&proto.Read{Handle: h, Offset: 3, Count: 5}, &r))
	require.Equal(t, "lo, w", string(r.Data))
	var s proto.StatReply
	require.Equal(t, ok, k.call(&proto.SetAttr{Handle: h, Set: setMode | setSize | setModified, Attr: proto.Attr{Mode: 0o600, Size: 4, Modified: 1e18}}, &proto.SetAttrReply{}))
	require.Equal(t, ok, k.call(&proto.Stat{Path: "a.txt"}, &s))
	require.EqualValues(t, 4, s.Attr.Size)
	require.EqualValues(t, 0o600, s.Attr.Mode)
	require.EqualValues(t, int64(1e18), s.Attr.Modified)
	require.EqualValues(t, unix.S_IFREG, s.Attr.Type)
	b, err := os.ReadFile(filepath.Join(dir, "a.txt"))
	require.NoError(t, err)
	require.Equal(t, "hell", string(b))
	require.Equal(t, ok, k.call(&proto.Sync{Handle: h}, &proto.Done{}))
	require.Equal(t, ok, k.call(&proto.Close{Handle: h}, &proto.Done{}))
	require.Equal(t, unix.EBADF, k.call(&proto.Close{Handle: h}, &proto.Done{}))
	require.Equal(t, unix.EBADF, k.call(&proto.Read{Handle: h, Count: 1}, &r))
	_, e = k.open("a.txt", unix.O_CREAT|unix.O_EXCL, 0)
	require.Equal(t, unix.EEXIST, e)
	_, e = k.open("b/c", 0, 0)
	require.Equal(t, unix.ENOENT, e)
}

func TestNames(t *testing.T) {
	dir := t.TempDir()
	k := newKernel(t, dir, false)
	done := &proto.Done{}
	require.Equal(t, ok, k.call(&proto.Mkdir{Path: "d", Mode: 0o777}, done))
	require.Equal(t, ok, k.call(&proto.Symlink{Path: "d/l", Target: "../x"}, done))
	var l proto.ReadlinkReply
	require.Equal(t, ok, k.call(&proto.Readlink{Path: "d/l"}, &l))
	require.Equal(t, "../x", l.Target)
	h, e := k.open("x", unix.O_CREAT|unix.O_WRONLY, 0o600)
	require.Equal(t, ok, e)
	var s proto.StatReply
	require.Equal(t, ok, k.call(&proto.Stat{Path: "d/l"}, &s))
	require.EqualValues(t, unix.S_IFLNK, s.Attr.Type)
	require.Equal(t, ok, k.call(&proto.Stat{Path: "d/l", Follow: true}, &s))
	require.EqualValues(t, unix.S_IFREG, s.Attr.Type)
	require.Equal(t, ok, k.call(&proto.Link{From: "x", To: "d/y"}, done))
	require.Equal(t, ok, k.call(&proto.Stat{Handle: h}, &s))
	require.EqualValues(t, 2, s.Attr.Links)
	require.Equal(t, ok, k.call(&proto.Rename{From: "x", To: "d/z"}, done))
	require.Equal(t, unix.ENOTEMPTY, k.call(&proto.Unlink{Path: "d", RemoveDir: true}, done))
	require.Equal(t, ok, k.call(&proto.Unlink{Path: "d/y"}, done))
	require.Equal(t, unix.EISDIR, k.call(&proto.Unlink{Path: "d"}, done))
	require.Equal(t, unix.EBUSY, k.call(&proto.Unlink{Path: "d/..", RemoveDir: true}, done))

	for i := range 300 {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "d", strconv.Itoa(i)), nil, 0o600))
	}
	d, e := k.open("d", unix.O_DIRECTORY, 0)
	require.Equal(t, ok, e)
	names := map[string]bool{}
	for off, rounds := uint64(0), 0; ; rounds++ {
		var g proto.GetdentsReply
		require.Equal(t, ok, k.call(&proto.Getdents{Handle: d, Offset: off, Count: 1024}, &g))
		if len(g.Entries) == 0 {
			require.Greater(t, rounds, 3)
			break
		}
		for _, x := range g.Entries {
			require.False(t, names[x.Name], x.Name)
			names[x.Name] = true
			off = x.Next
		}
	}
	require.Len(t, names, 304) // with . .. l z
	require.True(t, names["299"] && names["z"] && names[".."])
	var f proto.StatfsReply
	require.Equal(t, ok, k.call(&proto.Statfs{Path: "d"}, &f))
	require.NotZero(t, f.BlockSize)
}

// Nothing outside of the directory is reached.
func TestConfined(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "in")
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(top, "secret"), []byte("s"), 0o600))
	require.NoError(t, os.Symlink(filepath.Join(top, "secret"), filepath.Join(dir, "abs")))
	require.NoError(t, os.Symlink("../secret", filepath.Join(dir, "rel")))
	k := newKernel(t, dir, false)
	for _, p := range []string{"../secret", "abs", "rel", "/../secret", "./../../" + top + "/secret", "rel/../../secret"} {
		_, e := k.open(p, 0, 0)
		require.Contains(t, []unix.Errno{unix.ENOENT, unix.ENOTDIR}, e, p)
		require.NotEqual(t, ok, k.call(&proto.Unlink{Path: p + "x"}, &proto.Done{}), p)
	}
	require.FileExists(t, filepath.Join(top, "secret"))
	_, err := New(filepath.Join(dir, "none"), false)
	require.ErrorContains(t, err, "none")
}

func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "f"), []byte("s"), 0o600))
	k := newKernel(t, dir, true)
	_, e := k.open("f", unix.O_RDONLY, 0)
	require.Equal(t, ok, e)
	_, e = k.open("f", unix.O_RDWR, 0)
	require.Equal(t, unix.EROFS, e)
	_, e = k.open("f", unix.O_TRUNC, 0)
	require.Equal(t, unix.EROFS, e)
	require.Equal(t, unix.EROFS, k.call(&proto.Unlink{Path: "f"}, &proto.Done{}))
	require.Equal(t, unix.EROFS, k.call(&proto.SetAttr{Path: "f", Set: setMode}, &proto.SetAttrReply{}))
}

// Handles are bounded, and closing one does not disturb who is using it.
func TestHandles(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "f"), make([]byte, 100), 0o600))
	k := newKernel(t, dir, false)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				h, e := k.open("f", 0, 0)
				if e != ok {
					t.Errorf("open: %v", e)
					return
				}
				wg.Go(func() {
					var r proto.ReadReply
					if e := k.call(&proto.Read{Handle: h, Count: 100}, &r); e != unix.EBADF && (e != ok || len(r.Data) != 100) {
						t.Errorf("read: %v, %d bytes", e, len(r.Data))
					}
				})
				if e := k.call(&proto.Close{Handle: h}, &proto.Done{}); e != ok {
					t.Errorf("close: %v", e)
				}
			}
		})
	}
	wg.Wait()
	if testing.Short() {
		return
	}
	var lim unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &lim)
	if lim.Cur < MaxHandles+100 {
		t.Skipf("only %d descriptors", lim.Cur)
	}
	for range MaxHandles {
		_, e := k.open("f", 0, 0)
		require.Equal(t, ok, e)
	}
	_, e := k.open("f", 0, 0)
	require.Equal(t, unix.EMFILE, e)
}
