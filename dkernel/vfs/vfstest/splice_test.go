package vfstest_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/dkernel/uio"
	"dinos/dkernel/vfs"
	"dinos/dkernel/vfs/vfstest"
	"dinos/kernel/linux"
)

// pipe is a pipe of 16 bytes that never waits; both ends are the same File.
type pipe struct {
	vfs.BaseFile
	data []byte
	held int // what Peek returned and Consume has not taken yet
}

func (p *pipe) Read(_ *vfs.Caller, _ *vfs.Description, io *uio.IO, _ *int64) (int64, error) {
	if len(p.data) == 0 {
		return 0, linux.EAGAIN
	}
	n, err := io.Write(p.data)
	p.data = p.data[n:]
	return int64(n), err
}

func (p *pipe) Write(_ *vfs.Caller, _ *vfs.Description, io *uio.IO, _ *int64) (int64, error) {
	b := make([]byte, min(int(io.Len()), 16-len(p.data)))
	if len(b) == 0 {
		return 0, linux.EAGAIN
	}
	n, err := io.Read(b)
	p.data = append(p.data, b[:n]...)
	return int64(n), err
}

func (p *pipe) Peek(_ *vfs.Caller, _ *vfs.Description, b []byte, _ bool) (int, error) {
	if len(p.data) == 0 {
		return 0, linux.EAGAIN
	}
	p.held = copy(b, p.data)
	return p.held, nil
}

func (p *pipe) Consume(_ *vfs.Caller, _ *vfs.Description, n int) {
	if n > p.held {
		panic("more than was seen")
	}
	p.data, p.held = p.data[n:], 0
}

func (p *pipe) PipeSize(*vfs.Description) int                               { return 16 }
func (p *pipe) SetPipeSize(*vfs.Caller, *vfs.Description, int) (int, error) { return 16, nil }
func (p *pipe) Same(o vfs.File) bool                                        { return o == vfs.File(p) }

func newPipe(t *testing.T, r *vfstest.Rig) (p *pipe, rd, wr int) {
	p = &pipe{}
	dn := r.V.NewPipe(r.Caller)
	ends := [2]int{}
	for i, f := range []uint32{linux.O_RDONLY, linux.O_WRONLY} {
		fd, err := r.Files.Install(r.NewNameless(dn, p, f, vfs.Stream), 0, 1024, false)
		require.NoError(t, err)
		ends[i] = fd
	}
	return p, ends[0], ends[1]
}

func TestSplice(t *testing.T) {
	r := vfstest.New(t, 2)
	c := r.Caller
	vfstest.WriteFile(t, c, "/in", strings.Repeat("0123456789", 10))
	in, out := open(t, c, "/in", linux.O_RDWR), open(t, c, "/out", linux.O_CREAT|linux.O_RDWR)
	p, rd, wr := newPipe(t, r)
	q, rd2, wr2 := newPipe(t, r)
	// A file into a pipe: no more than fits, and the position says what was taken.
	n, err := c.Splice(in, nil, wr, nil, 1000, 0)
	require.NoError(t, err)
	require.EqualValues(t, 16, n)
	pos, err := c.Lseek(in, 0, linux.SEEK_CUR)
	require.NoError(t, err)
	require.EqualValues(t, 16, pos)
	_, err = c.Splice(in, nil, wr, nil, 1000, linux.SPLICE_F_NONBLOCK)
	require.Equal(t, linux.EAGAIN, err)
	pos, _ = c.Lseek(in, 0, linux.SEEK_CUR)
	require.EqualValues(t, 16, pos, "nothing is lost")
	// tee leaves what it copies.
	n, err = c.Tee(rd, wr2, 10, 0)
	require.NoError(t, err)
	require.EqualValues(t, 10, n)
	require.Equal(t, "0123456789012345", string(p.data))
	require.Equal(t, "0123456789", string(q.data))
	// A pipe into a pipe that has room for 6 bytes: the others stay.
	n, err = c.Splice(rd, nil, wr2, nil, 16, 0)
	require.NoError(t, err)
	require.EqualValues(t, 6, n)
	require.Equal(t, "6789012345", string(p.data))
	require.Equal(t, "0123456789012345", string(q.data))
	// A pipe into a file, at an offset.
	off := int64(5)
	n, err = c.Splice(rd, nil, out, &off, 100, 0)
	require.NoError(t, err)
	require.EqualValues(t, 10, n)
	require.EqualValues(t, 15, off)
	got, err := vfstest.ReadFile(c, "/out")
	require.NoError(t, err)
	require.Equal(t, "\x00\x00\x00\x00\x006789012345", got)
	// A write that fails takes nothing out of the pipe.
	c.FileSizeLimit = 3
	off = 5
	_, err = c.Splice(rd2, nil, out, &off, 100, 0)
	require.Equal(t, linux.EFBIG, err)
	require.Len(t, q.data, 16)
	c.FileSizeLimit = vfs.Unlimited
	for what, err := range map[string]error{
		"no pipe":     do(c.Splice(in, nil, out, nil, 5, 0)),
		"itself":      do(c.Splice(rd2, nil, wr2, nil, 5, 0)),
		"flags":       do(c.Splice(rd2, nil, out, nil, 5, 64)),
		"tee a file":  do(c.Tee(in, wr, 5, 0)),
		"tee itself":  do(c.Tee(rd2, wr2, 5, 0)),
		"to a pipe 2": do(c.CopyFileRange(in, nil, wr, nil, 5, 0)),
		"sendfile":    do(c.Sendfile(out, rd2, nil, 5)),
	} {
		require.Equal(t, linux.EINVAL, err, what)
	}
	require.Equal(t, linux.ESPIPE, do(c.Splice(rd2, &off, out, nil, 5, 0)))
	require.Equal(t, linux.EBADF, do(c.Splice(wr2, nil, out, nil, 5, 0)))
	require.Equal(t, linux.EBADF, do(c.Sendfile(rd, in, nil, 5)))
	n, err = c.Sendfile(wr, in, nil, 50)
	require.NoError(t, err)
	require.EqualValues(t, 16, n, "what the pipe takes")
}

func do(_ int64, err error) error { return err }

// TestResolve compares openat2(2) with the host's.
func TestResolve(t *testing.T) {
	h := newHost(t)
	defer h.end()
	o := newOurs(t, h)
	for _, s := range []side{h, o} {
		require.Equal(t, "ok", s.mkdir("d", 0o755))
		require.Equal(t, "ok", s.mknod("f", 0o600))
		require.Equal(t, "ok", s.mknod("d/f", 0o600))
		for _, l := range [][2]string{{"f", "l"}, {"../f", "d/up"}, {"/f", "d/abs"}, {"d", "dl"}, {"../../..", "d/far"}, {"/", "root"}} {
			require.Equal(t, "ok", s.symlink(l[0], l[1]))
		}
	}
	paths := []string{"f", "l", "d/f", "dl/f", "d/up", "d/abs", "/f", "../w/f", "d/../f", "d/far/f", "d/../../w/f", "root/f", ".", "..", "/", "nothing", "d/far", "/../../f", ""}
	for flags := uint64(0); flags < 32; flags++ {
		for _, p := range paths {
			how := linux.OpenHow{Flags: linux.O_PATH, Resolve: flags &^ 1}
			want := h.open2(p, how)
			fd, err := o.OpenAt2(o.dir, p, how)
			got := errName(err)
			if err == nil {
				vfstest.Close(t, o.Caller, fd)
			}
			// Without RESOLVE_IN_ROOT or BENEATH the roots differ.
			if how.Resolve&(linux.RESOLVE_IN_ROOT|linux.RESOLVE_BENEATH) == 0 && (strings.HasPrefix(p, "/") || strings.Contains(p, "root") || strings.Contains(p, "abs")) {
				continue
			}
			require.Equal(t, want, got, "%q %#x", p, how.Resolve)
		}
	}
	for _, how := range []linux.OpenHow{{Resolve: 64}, {Mode: 0o600}, {Flags: 1 << 40}, {Flags: linux.O_PATH | linux.O_RDWR}, {Flags: linux.O_CREAT, Mode: 0o10000}, {Flags: linux.O_CREAT, Mode: 0o600}, {Flags: linux.O_TMPFILE | linux.O_RDWR, Mode: 0o600}} {
		want := h.open2("f", how)
		_, err := o.OpenAt2(o.dir, "f", how)
		require.Equal(t, want, errName(err), "%+v", how)
	}
}
