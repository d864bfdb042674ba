package vfstest_test

import (
	"encoding/binary"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/dkernel/uio"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

// events shows what read(2) of an inotify descriptor returned. Cookies are numbered as they come.
func events(b []byte) string {
	var out []string
	cookies := map[uint32]int{}
	for len(b) > 0 {
		wd, mask, cookie, n := int32(binary.LittleEndian.Uint32(b)), binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])
		name, _, _ := strings.Cut(string(b[16:16+n]), "\x00")
		if cookie != 0 && cookies[cookie] == 0 {
			cookies[cookie] = len(cookies) + 1
		}
		out = append(out, fmt.Sprintf("%d:%#x:%d:%s/%d", wd, mask, cookies[cookie], name, n))
		b = b[16+n:]
	}
	return strings.Join(out, " ")
}

// TestInotifyOracle makes the same changes here and on the host, and compares the events after each.
func TestInotifyOracle(t *testing.T) {
	h := newHost(t)
	defer h.end()
	o := newOurs(t, h)
	hfd, err := syscall.InotifyInit1(syscall.IN_NONBLOCK | syscall.IN_CLOEXEC)
	require.NoError(t, err)
	defer syscall.Close(hfd)
	ofd, err := o.InotifyInit(linux.IN_NONBLOCK)
	require.NoError(t, err)
	both := func(do func(s side) string) {
		require.Equal(t, do(h), do(o))
	}
	watch := func(path string, mask uint32) {
		a, err1 := syscall.InotifyAddWatch(hfd, h.path+deep+"/"+path, mask)
		b, err2 := o.InotifyAdd(ofd, deep+"/"+path, mask)
		require.Equal(t, errName(err1), errName(err2), path)
		if err1 == nil {
			require.Equal(t, a, b)
		}
	}
	check := func(what string) {
		b := make([]byte, 8192)
		n, err := syscall.Read(hfd, b)
		want := errName(err)
		if err == nil {
			want = events(b[:n])
		}
		var io uio.IO
		io.Bytes(b)
		k, err := o.Read(ofd, &io)
		got := errName(err)
		if err == nil {
			got = events(b[:k])
		}
		require.Equal(t, want, got, what)
	}
	var hf, of int
	openFile := func(path string, flags uint32) {
		both(func(s side) string {
			fd, res := s.open(path, flags, 0o644)
			if s == side(h) {
				hf = fd
			} else {
				of = fd
			}
			return res
		})
	}
	fd := func(s side) int {
		if s == side(h) {
			return hf
		}
		return of
	}
	both(func(s side) string { return s.mkdir("d", 0o755) })
	both(func(s side) string { return s.mkdir("e", 0o755) })
	watch("d", linux.IN_ALL_EVENTS)
	watch("e", linux.IN_ALL_EVENTS|linux.IN_ONLYDIR)
	check("nothing")
	openFile("d/f", linux.O_CREAT|linux.O_RDWR)
	check("create")
	watch("d/f", linux.IN_ALL_EVENTS)
	watch("d/f", linux.IN_ONLYDIR|linux.IN_OPEN)
	watch("nothing", linux.IN_OPEN)
	watch("d", 0)
	for _, step := range []struct {
		what string
		do   func(s side) string
	}{
		{"write", func(s side) string { return s.write(fd(s), "hello") }},
		{"write twice", func(s side) string { s.write(fd(s), "hello"); return s.write(fd(s), "again") }},
		{"pread", func(s side) string { return s.pread(fd(s), 3, 0) }},
		{"read nothing", func(s side) string { return s.pread(fd(s), 3, 100) }},
		{"ftruncate", func(s side) string { return s.ftruncate(fd(s), 2) }},
		{"truncate", func(s side) string { return s.truncate("d/f", 1) }},
		{"chmod", func(s side) string { return s.chmod("d/f", 0o600) }},
		{"chmod of a directory", func(s side) string { return s.chmod("d", 0o700) }},
		{"utimes", func(s side) string { return s.utimes("d/f", 5, 6) }},
		{"setxattr", func(s side) string { return s.setxattr("d/f", "user.a", "1", 0) }},
		{"link", func(s side) string { return s.link("d/f", "e/g", 0) }},
		{"rename in", func(s side) string { return s.rename("d/f", "d/h", 0) }},
		{"rename to", func(s side) string { return s.rename("d/h", "e/h", 0) }},
		{"write after it moved", func(s side) string { return s.write(fd(s), "x") }},
		{"exchange", func(s side) string { s.mkdir("d/dir", 0o755); return s.rename("d/dir", "e/h", 2) }},
		{"rename over", func(s side) string { s.mknod("e/over", 0o600); return s.rename("e/over", "e/g", 0) }},
		{"rename of a directory", func(s side) string { return s.rename("e/h", "e/i", 0) }},
		{"symlink", func(s side) string { return s.symlink("x", "e/l") }},
		{"getdents", func(s side) string {
			n, res := s.open("e", linux.O_DIRECTORY, 0)
			if res != "ok" {
				return res
			}
			defer s.close(n)
			return s.getdents(n)
		}},
		{"unlink", func(s side) string { return s.unlink("e/l", 0) }},
		{"rmdir", func(s side) string { return s.unlink("e/i", linux.AT_REMOVEDIR) }},
		{"unlink of what is open", func(s side) string { return s.unlink("d/dir", 0) }},
		{"fchmod of it", func(s side) string { return s.write(fd(s), "y") }},
		{"close", func(s side) string { return s.close(fd(s)) }},
		{"unlink the last", func(s side) string { return s.unlink("e/g", 0) }},
		{"remove the directory", func(s side) string { return s.unlink("e", linux.AT_REMOVEDIR) }},
	} {
		both(step.do)
		check(step.what)
	}
	watch("d", linux.IN_MASK_CREATE|linux.IN_OPEN)
	watch("d", linux.IN_CREATE|linux.IN_ONESHOT)
	both(func(s side) string { return s.mknod("d/1", 0o600) })
	both(func(s side) string { return s.mknod("d/2", 0o600) })
	check("one shot")
	watch("d", linux.IN_ALL_EVENTS)
	both(func(s side) string { s.mknod("d/3", 0o600); return s.unlink("d/3", 0) })
	_, err1 := syscall.InotifyRmWatch(hfd, 99)
	require.Equal(t, errName(err1), errName(o.InotifyRemove(ofd, 99)))
	check("in the end")
	require.NoError(t, o.Files.Close(o.Caller, ofd))
}

func TestInotifyQueue(t *testing.T) {
	h := &host{t: t}
	o := newOurs(t, h)
	fd, err := o.InotifyInit(0)
	require.NoError(t, err)
	_, err = o.InotifyAdd(fd, deep, linux.IN_CREATE|linux.IN_DELETE)
	require.NoError(t, err)
	ref, err := o.Files.Get(fd)
	require.NoError(t, err)
	require.Zero(t, ref.Poll())
	done := make(chan string)
	go func() {
		c := o.NewCaller()
		b := make([]byte, 200)
		var io uio.IO
		io.Bytes(b)
		n, _ := ref.Read(c, &io)
		done <- events(b[:n])
	}()
	require.Equal(t, "ok", o.mknod("x", 0o600))
	require.Equal(t, fmt.Sprintf("1:%#x:0:x/16", linux.IN_CREATE), <-done)
	for range 9000 {
		o.unlink("x", 0)
		o.mknod("x", 0o600)
	}
	require.Equal(t, wait.Readable, ref.Poll())
	quick := o.NewCaller()
	quick.Sleeper = nil
	n, over := 0, false
	for {
		b := make([]byte, 1<<16)
		var io uio.IO
		io.Bytes(b)
		k, err := ref.Read(quick, &io)
		if err != nil {
			break
		}
		n += int(k) / 32
		over = over || strings.Contains(events(b[:k]), fmt.Sprintf("-1:%#x:0:/0", linux.IN_Q_OVERFLOW))
	}
	require.Equal(t, 16384, n)
	require.True(t, over)
	var io uio.IO
	io.Bytes(make([]byte, 10))
	o.unlink("x", 0)
	_, err = ref.Read(o.Caller, &io)
	require.Equal(t, linux.EINVAL, err)
	ref.Put()
}
