package vfstest_test

import (
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/dkernel/uio"
	"dinos/dkernel/vfs"
	"dinos/dkernel/vfs/tmpfs"
	"dinos/dkernel/vfs/vfstest"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

func open(t testing.TB, c *vfs.Caller, path string, flags uint32) int {
	t.Helper()
	fd, err := c.OpenAt(at, path, flags, 0o644)
	require.NoError(t, err, path)
	return fd
}

// share makes another thread of c's process.
func share(c *vfs.Caller) *vfs.Caller {
	n := *c
	n.Files = c.Files.Share()
	return &n
}

// Threads that open, close, duplicate and use descriptors at random: nothing leaks, nothing is used after its release.
func TestFDTableRace(t *testing.T) {
	r := vfstest.New(t, 2)
	vfstest.WriteFile(t, r.Caller, "/f", "x")
	var wg sync.WaitGroup
	for i := range 4 {
		c := share(r.Caller)
		wg.Add(1)
		go func() {
			defer wg.Done()
			rng := rand.New(rand.NewPCG(1, uint64(i)))
			for range 2000 {
				fd := rng.IntN(200)
				switch rng.IntN(7) {
				case 0:
					_, _ = c.OpenAt(at, "/f", linux.O_RDWR, 0)
				case 1:
					_ = c.Files.Close(c, fd)
				case 2:
					_, _ = c.Files.Dup2(c, rng.IntN(200), fd, 1024)
				case 3:
					_, _ = vfstest.Read(c, fd, 1)
				case 4:
					n := c.Files.Fork()
					n.Leave(c)
				case 5:
					_ = c.Files.CloseRange(c, uint32(fd), uint32(fd+5), 0)
				case 6:
					_, _ = c.Files.Dup(fd, 0, 1024, true)
				}
			}
			c.Files.Leave(c)
		}()
	}
	wg.Wait()
	r.Files.Leave(r.Caller)
	require.Zero(t, r.V.OpenFiles())
	require.NoError(t, r.UnlinkAt(at, "/f", 0))
	require.Zero(t, r.Frames())
}

func TestFDTable(t *testing.T) {
	r := vfstest.New(t, 2)
	c := r.Caller
	c.OpenLimit = 100
	vfstest.WriteFile(t, c, "/f", "x")
	for want := range 100 {
		require.Equal(t, want, open(t, c, "/f", 0))
	}
	_, err := c.OpenAt(at, "/new", linux.O_CREAT, 0o600)
	require.Equal(t, linux.EMFILE, err)
	var a vfs.Attr
	require.Equal(t, linux.ENOENT, c.StatAt(at, "/new", 0, &a), "nothing is made without a descriptor for it")
	vfstest.Close(t, c, 40)
	vfstest.Close(t, c, 7)
	require.Equal(t, 7, open(t, c, "/f", linux.O_CLOEXEC))
	fd, err := c.Files.Dup(7, 30, 100, false)
	require.NoError(t, err)
	require.Equal(t, 40, fd)
	_, err = c.Files.Dup(7, 30, 100, false)
	require.Equal(t, linux.EMFILE, err)
	_, err = c.Files.Dup(7, 100, 100, false)
	require.Equal(t, linux.EINVAL, err)
	_, err = c.Files.Dup3(c, 7, 7, 100, 0)
	require.Equal(t, linux.EINVAL, err)
	_, err = c.Files.Dup2(c, 7, 100, 100)
	require.Equal(t, linux.EBADF, err)
	_, err = c.Files.Dup2(c, 7, 5000, 10_000)
	require.NoError(t, err)
	require.Equal(t, 101, c.Files.Count())
	child := c.Files.Fork()
	require.NoError(t, c.Files.CloseRange(c, 50, 1<<32-1, 0))
	require.Equal(t, 50, c.Files.Count())
	require.Equal(t, 101, child.Count())
	require.NoError(t, child.CloseRange(c, 0, 9, linux.CLOSE_RANGE_CLOEXEC))
	child.Exec(c)
	require.Equal(t, 91, child.Count())
	require.Equal(t, 10, child.Next(0))
	require.Equal(t, linux.EINVAL, child.CloseRange(c, 5, 4, 0))
	child.Leave(c)
	c.Files.Leave(c)
	require.Zero(t, r.V.OpenFiles())
}

// The hot paths allocate nothing.
func TestAllocs(t *testing.T) {
	r := vfstest.New(t, 2)
	c := r.Caller
	require.NoError(t, c.MkdirAt(at, "/tmp", 0o755))
	vfstest.WriteFile(t, c, "/tmp/f", strings.Repeat("x", 5000))
	fd := open(t, c, "/tmp/f", linux.O_RDWR)
	var a vfs.Attr
	var io uio.IO
	p := make([]byte, 1)
	for name, f := range map[string]func(){
		"read":  func() { io.Bytes(p); _, _ = c.Read(fd, &io); _, _ = c.Lseek(fd, 0, 0) },
		"pread": func() { io.Bytes(p); _, _ = c.Pread(fd, &io, 4096) },
		"write": func() { io.Bytes(p); _, _ = c.Pwrite(fd, &io, 3) },
		"stat":  func() { _ = c.StatAt(at, "/tmp/../tmp/f", 0, &a) },
		"fstat": func() { _ = c.Fstat(fd, &a) },
		"error": func() { _ = c.StatAt(at, "/tmp/nothing", 0, &a) },
	} {
		require.Zero(t, testing.AllocsPerRun(100, f), name)
	}
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() {
		n, _ := c.OpenAt(at, "/tmp/f", 0, 0)
		_ = c.Files.Close(c, n)
	}), 1.0, "open: the description")
}

func lock(kind int16, start, n int64) *linux.Flock {
	return &linux.Flock{Type: kind, Start: start, Len: n}
}

func TestLocksBlock(t *testing.T) {
	r := vfstest.New(t, 2)
	vfstest.WriteFile(t, r.Caller, "/f", "0123456789")
	a, b := r.Caller, r.NewCaller()
	fa, fb := open(t, a, "/f", linux.O_RDWR), open(t, b, "/f", linux.O_RDWR)
	const w, un = linux.F_WRLCK, linux.F_UNLCK
	require.NoError(t, a.RecordLock(fa, linux.F_SETLK, lock(w, 0, 1)))
	require.Equal(t, linux.EAGAIN, b.RecordLock(fb, linux.F_SETLK, lock(linux.F_RDLCK, 0, 0)))
	require.NoError(t, b.RecordLock(fb, linux.F_SETLK, lock(w, 5, 1)))
	done := make(chan error, 1)
	asleep := make(chan bool, 1)
	b.Sleeper = wait.NewSleeper(func() int64 { return 0 }, func() bool {
		select {
		case asleep <- true:
		default:
		}
		return false
	})
	go func() { done <- b.RecordLock(fb, linux.F_SETLKW, lock(w, 0, 1)) }()
	<-asleep
	require.Equal(t, linux.EDEADLK, a.RecordLock(fa, linux.F_SETLKW, lock(w, 5, 1)), "b waits for a, so a must not wait for b")
	require.NoError(t, a.RecordLock(fa, linux.F_SETLK, lock(un, 0, 0)))
	require.NoError(t, <-done)
	// Closing any descriptor of the file drops all locks of the process.
	other := open(t, b, "/f", 0)
	go func() { done <- a.RecordLock(fa, linux.F_SETLKW, lock(w, 0, 0)) }()
	vfstest.Close(t, b, other)
	require.NoError(t, <-done)
	// A child does not inherit them.
	child := r.NewCaller()
	child.Files = a.Files.Fork()
	require.Equal(t, linux.EAGAIN, child.RecordLock(fa, linux.F_SETLK, lock(w, 0, 1)))
	child.Files.Leave(child)
	require.Equal(t, linux.EAGAIN, b.RecordLock(fb, linux.F_SETLK, lock(w, 0, 1)))
	// flock belongs to the description.
	require.NoError(t, a.Flock(fa, linux.LOCK_EX))
	go func() { done <- b.Flock(fb, linux.LOCK_SH) }()
	vfstest.Close(t, a, fa)
	require.NoError(t, <-done)
}

func TestMemfdSeals(t *testing.T) {
	r := vfstest.New(t, 2)
	c := r.Caller
	fd, err := r.Root.MemfdCreate(c, "x", linux.MFD_ALLOW_SEALING)
	require.NoError(t, err)
	_, err = vfstest.Write(c, fd, "hello")
	require.NoError(t, err)
	to := func(s uint64) error { _, err := c.Fcntl(fd, linux.F_ADD_SEALS, s); return err }
	require.Equal(t, linux.EINVAL, to(1<<20))
	require.NoError(t, to(linux.F_SEAL_GROW))
	_, err = vfstest.Write(c, fd, "more")
	require.Equal(t, linux.EPERM, err)
	require.Equal(t, linux.EPERM, c.Ftruncate(fd, 10))
	require.NoError(t, c.Ftruncate(fd, 4))
	o, err := c.Object(fd, true, 3)
	require.NoError(t, err)
	require.NoError(t, to(linux.F_SEAL_SHRINK|linux.F_SEAL_WRITE))
	require.Equal(t, linux.EPERM, c.Ftruncate(fd, 3))
	_, err = c.Lseek(fd, 0, 0)
	require.NoError(t, err)
	_, err = vfstest.Write(c, fd, "w")
	require.Equal(t, linux.EPERM, err)
	_, err = c.Object(fd, true, 3)
	require.Equal(t, linux.EPERM, err)
	require.NoError(t, to(linux.F_SEAL_SEAL))
	require.Equal(t, linux.EPERM, to(linux.F_SEAL_WRITE))
	n, err := c.Fcntl(fd, linux.F_GET_SEALS, 0)
	require.NoError(t, err)
	require.EqualValues(t, 15, n)
	o.Release()
	vfstest.Close(t, c, fd)
	_, err = r.Root.MemfdCreate(c, strings.Repeat("n", 250), 0)
	require.Equal(t, linux.EINVAL, err)
	require.Zero(t, r.Frames())
	_, inodes := r.Root.Usage()
	require.EqualValues(t, 1, inodes)
}

// Faults, truncation and writes at once: in the end all frames are back.
func TestPagesRace(t *testing.T) {
	r := vfstest.New(t, 4)
	vfstest.WriteFile(t, r.Caller, "/f", "")
	fd := open(t, r.Caller, "/f", linux.O_RDWR)
	o, err := r.Object(fd, true, 3)
	require.NoError(t, err)
	var wg sync.WaitGroup
	for i := range 4 {
		c := share(r.Caller)
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer c.Files.Leave(c)
			rng := rand.New(rand.NewPCG(2, uint64(i)))
			var io uio.IO
			buf := make([]byte, 9000)
			for range 500 {
				off := rng.Int64N(40_000)
				switch rng.IntN(5) {
				case 0:
					io.Bytes(buf)
					_, _ = c.Pwrite(fd, &io, off)
				case 1:
					_ = c.Ftruncate(fd, off)
				case 2:
					if p, err := o.Page(uint64(off/4096), true); err == nil {
						r.Pool.Unref(p)
					} else if err != linux.ENXIO {
						t.Error(err)
					}
				case 3:
					_ = c.Fallocate(fd, linux.FALLOC_FL_PUNCH_HOLE|linux.FALLOC_FL_KEEP_SIZE, off, 5000)
				case 4:
					io.Bytes(make([]byte, 9000))
					_, _ = c.Pread(fd, &io, off)
				}
			}
		}()
	}
	wg.Wait()
	require.NoError(t, r.Ftruncate(fd, 0))
	pages, _ := r.Root.Usage()
	require.Zero(t, pages)
	require.Zero(t, r.Frames())
	o.Release()
}

func TestSparse(t *testing.T) {
	r := vfstest.New(t, 2)
	fd := open(t, r.Caller, "/f", linux.O_CREAT|linux.O_RDWR)
	var io uio.IO
	for _, off := range []int64{0, 1 << 32, 1 << 45, 1<<63 - 4097} {
		io.Bytes([]byte("x"))
		_, err := r.Pwrite(fd, &io, off)
		require.NoError(t, err)
	}
	require.Equal(t, 4, r.Frames())
	p := make([]byte, 100_000)
	io.Bytes(p)
	n, err := r.Pread(fd, &io, 1<<40)
	require.NoError(t, err)
	require.EqualValues(t, len(p), n)
	require.Equal(t, 4, r.Frames(), "holes cost nothing")
	at, err := r.Lseek(fd, 1<<33, linux.SEEK_DATA)
	require.NoError(t, err)
	require.EqualValues(t, 1<<45, at)
	io.Bytes([]byte("x"))
	_, err = r.Pwrite(fd, &io, 1<<63-1)
	require.Equal(t, linux.EINVAL, err)
	require.NoError(t, r.Ftruncate(fd, 1<<33))
	require.Equal(t, 2, r.Frames())
}

func TestLimits(t *testing.T) {
	r := vfstest.New(t, 2)
	f := tmpfs.New(r.V, tmpfs.Config{Size: 3 * 4096, Inodes: 4})
	mount(t, r, "/small", f.FS, 0)
	vfstest.WriteFile(t, r.Caller, "/small/a", strings.Repeat("x", 8192))
	fd := open(t, r.Caller, "/small/b", linux.O_CREAT|linux.O_RDWR)
	n, err := vfstest.Write(r.Caller, fd, strings.Repeat("y", 8192))
	require.NoError(t, err)
	require.Equal(t, 4096, n)
	_, err = vfstest.Write(r.Caller, fd, "z")
	require.Equal(t, linux.ENOSPC, err)
	require.Equal(t, linux.ENOSPC, r.Fallocate(fd, 0, 0, 1<<40))
	require.NoError(t, r.MkdirAt(at, "/small/d", 0o755))
	require.Equal(t, linux.ENOSPC, r.MkdirAt(at, "/small/e", 0o755))
	_, err = r.OpenAt(at, "/small/e", linux.O_CREAT, 0)
	require.Equal(t, linux.ENOSPC, err)
	require.NoError(t, r.UnlinkAt(at, "/small/a", 0))
	require.NoError(t, r.MkdirAt(at, "/small/e", 0o755))
	// RLIMIT_FSIZE.
	sig := 0
	r.FileSizeLimit, r.Signal = 10_000, func(s int) { sig = s }
	n, err = vfstest.Write(r.Caller, fd, strings.Repeat("y", 8192))
	require.NoError(t, err)
	require.Equal(t, 10_000-4096, n)
	_, err = vfstest.Write(r.Caller, fd, "y")
	require.Equal(t, linux.EFBIG, err)
	require.Equal(t, 25, sig)
	// Memory that is really gone.
	r.FileSizeLimit = vfs.Unlimited
	fd = open(t, r.Caller, "/all", linux.O_CREAT|linux.O_RDWR)
	for err == nil || err == linux.EFBIG {
		_, err = vfstest.Write(r.Caller, fd, strings.Repeat("z", 1<<20))
	}
	require.Equal(t, linux.ENOMEM, err)
	require.NoError(t, r.Ftruncate(fd, 0))
	vfstest.WriteFile(t, r.Caller, "/again", "works")
}

func mount(t testing.TB, r *vfstest.Rig, at_ string, f *vfs.FS, flags uint32) {
	if err := r.MkdirAt(at, at_, 0o755); err != linux.EEXIST {
		require.NoError(t, err)
	}
	p, err := r.Walk(at, at_, vfs.Follow)
	require.NoError(t, err)
	require.NoError(t, r.V.Mount(f, f.Root(), p, "tmpfs", flags))
}

func TestMounts(t *testing.T) {
	r := vfstest.New(t, 2)
	c := r.Caller
	types := map[string]vfs.FSMaker{"tmpfs": tmpfs.Maker(1 << 30)}
	require.NoError(t, c.MkdirAt(at, "/m", 0o755))
	require.Equal(t, linux.ENODEV, c.MountAt("x", "/m", "ext4", 0, "", types))
	require.Equal(t, linux.EINVAL, c.MountAt("x", "/m", "tmpfs", 0, "size=nonsense", types))
	require.Equal(t, linux.EPERM, r.As(5, 5).MountAt("x", "/m", "tmpfs", 0, "", types))
	require.NoError(t, c.MountAt("x", "/m", "tmpfs", linux.MS_NOEXEC, "size=16k,mode=700", types))
	vfstest.WriteFile(t, c, "/m/f", "inside")
	require.NoError(t, c.MkdirAt(at, "/m/d", 0o755))
	var a vfs.Attr
	require.NoError(t, c.StatAt(at, "/m", 0, &a))
	require.EqualValues(t, linux.S_IFDIR|0o700, a.Mode)
	require.Equal(t, linux.EBUSY, c.UnlinkAt(at, "/m", linux.AT_REMOVEDIR))
	require.Equal(t, linux.EBUSY, c.RenameAt(at, "/m", at, "/n", 0))
	require.Equal(t, linux.EXDEV, c.LinkAt(at, "/m/f", at, "/f", 0))
	require.NoError(t, c.StatAt(at, "/m/d/../../m/f", 0, &a))
	_, err := c.OpenExec(at, "/m/f", 0)
	require.Equal(t, linux.EACCES, err)
	// The same directory elsewhere, read-only.
	require.NoError(t, c.MkdirAt(at, "/b", 0o755))
	require.NoError(t, c.MountAt("/m", "/b", "", linux.MS_BIND, "", nil))
	require.NoError(t, c.MountAt("", "/b", "", linux.MS_REMOUNT|linux.MS_BIND|linux.MS_RDONLY, "", nil))
	got, err := vfstest.ReadFile(c, "/b/f")
	require.NoError(t, err)
	require.Equal(t, "inside", got)
	for _, err := range []error{c.MkdirAt(at, "/b/x", 0), c.UnlinkAt(at, "/b/f", 0), c.FchmodAt(at, "/b/f", 0, 0), c.Truncate("/b/f", 0), c.AccessAt(at, "/b/f", linux.W_OK, 0), c.RenameAt(at, "/b/f", at, "/b/g", 0), c.SetXattr(vfs.XattrTarget{Path: "/b/f"}, "user.a", nil, 0)} {
		require.Equal(t, linux.EROFS, err)
	}
	_, err = c.OpenAt(at, "/b/f", linux.O_RDWR, 0)
	require.Equal(t, linux.EROFS, err)
	var lines []string
	for _, m := range r.V.MountInfos(c.FS.Root()) {
		lines = append(lines, m.Point+" "+m.Options+" "+m.Super)
	}
	require.Equal(t, []string{"/ rw,relatime rw", "/m rw,noexec,relatime rw,size=16k,mode=700", "/b ro,relatime rw,size=16k,mode=700"}, lines)
	fd := open(t, c, "/m/f", 0)
	require.Equal(t, linux.EBUSY, c.UmountAt("/m", 0))
	vfstest.Close(t, c, fd)
	require.NoError(t, c.UmountAt("/m", 0))
	require.Equal(t, linux.EINVAL, c.UmountAt("/m", 0))
	require.Equal(t, linux.EINVAL, c.UmountAt("/", 0))
	require.NoError(t, c.StatAt(at, "/b/f", 0, &a), "still there")
	require.NoError(t, c.UmountAt("/b", linux.MNT_DETACH))
	require.Equal(t, linux.ENOENT, c.StatAt(at, "/b/f", 0, &a))
}

// A detached mount goes with all that is on it, however deep.
func TestDetachNested(t *testing.T) {
	r := vfstest.New(t, 2)
	c := r.Caller
	types := map[string]vfs.FSMaker{"tmpfs": tmpfs.Maker(1 << 30)}
	for _, dir := range []string{"/a", "/a/b", "/a/b/c"} {
		require.NoError(t, c.MkdirAt(at, dir, 0o755))
		require.NoError(t, c.MountAt("none", dir, "tmpfs", 0, "", types))
	}
	require.Len(t, r.V.MountInfos(vfs.Path{}), 4)
	require.NoError(t, c.UmountAt("/a", linux.MNT_DETACH))
	require.Len(t, r.V.MountInfos(vfs.Path{}), 1, "reachable or not")
	require.NoError(t, c.UnlinkAt(at, "/a", linux.AT_REMOVEDIR))
}

func TestChroot(t *testing.T) {
	r := vfstest.New(t, 2)
	c := r.Caller
	require.NoError(t, c.MkdirAt(at, "/jail", 0o755))
	require.NoError(t, c.MkdirAt(at, "/jail/in", 0o755))
	vfstest.WriteFile(t, c, "/secret", "s")
	require.NoError(t, c.SymlinkAt("/../../secret", at, "/jail/link"))
	require.NoError(t, c.Chdir("/jail/in"))
	require.NoError(t, c.Chroot("/jail"))
	cwd, err := c.Getcwd()
	require.NoError(t, err)
	require.Equal(t, "/in", cwd)
	var a vfs.Attr
	for _, p := range []string{"/secret", "../../secret", "/../secret", "link", "/link"} {
		require.Equal(t, linux.ENOENT, c.StatAt(at, p, 0, &a), p)
	}
	require.NoError(t, c.UnlinkAt(at, "/in", linux.AT_REMOVEDIR))
	_, err = c.Getcwd()
	require.Equal(t, linux.ENOENT, err)
	_, err = c.OpenAt(at, "x", linux.O_CREAT, 0)
	require.Equal(t, linux.ENOENT, err, "nothing is made in a removed directory")
}

// Random changes of names by several threads: the tree stays a tree, and all of it can be removed.
func TestNamesRace(t *testing.T) {
	r := vfstest.New(t, 2)
	o := &ours{Rig: r}
	var wg sync.WaitGroup
	for i := range 4 {
		c := r.NewCaller()
		wg.Add(1)
		go func() {
			defer wg.Done()
			rng := rand.New(rand.NewPCG(3, uint64(i)))
			name := func() string {
				var b strings.Builder
				for range 1 + rng.IntN(3) {
					b.WriteByte('/')
					b.WriteByte(byte('a' + rng.IntN(3)))
				}
				return b.String()
			}
			for range 3000 {
				switch p, q := name(), name(); rng.IntN(9) {
				case 0, 1:
					_ = c.MkdirAt(at, p, 0o755)
				case 2:
					if fd, err := c.OpenAt(at, p, linux.O_CREAT|linux.O_RDWR, 0o600); err == nil {
						_, _ = vfstest.Write(c, fd, "data")
						_ = c.Files.Close(c, fd)
					}
				case 3, 4:
					_ = c.RenameAt(at, p, at, q, uint32(rng.IntN(3)))
				case 5:
					_ = c.LinkAt(at, p, at, q, 0)
				case 6:
					_ = c.UnlinkAt(at, p, 0)
				case 7:
					_ = c.UnlinkAt(at, p, linux.AT_REMOVEDIR)
				case 8:
					if c.Chdir(p) == nil {
						_, _ = c.Getcwd()
						_ = c.Chdir("/")
					}
				}
			}
			c.Files.Leave(c)
		}()
	}
	wg.Wait()
	clean(t, o)
}
