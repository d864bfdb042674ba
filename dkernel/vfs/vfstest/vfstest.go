// Package vfstest has what tests of file systems and files need: a VFS on memory of the test's own, with a tmpfs as its root.
package vfstest

import (
	"errors"
	"sync"
	"testing"
	"time"

	"dinos/dkernel/cred"
	"dinos/dkernel/frame"
	"dinos/dkernel/uio"
	"dinos/dkernel/vfs"
	"dinos/dkernel/vfs/tmpfs"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

// Rig is a VFS whose root is a tmpfs, and a process of root's.
type Rig struct {
	*vfs.Caller
	V      *vfs.VFS
	Root   *tmpfs.FS
	Pool   *frame.Pool
	source *source
}

// source hands out the slices of a memory.
type source struct {
	mu   sync.Mutex
	free []uint64
}

func (s *source) Take() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.free) == 0 {
		return 0, errors.New("no slice left")
	}
	n := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	return n, nil
}

func (s *source) Give(n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = append(s.free, n)
}

// New makes a Rig with that many slices of 2 MiB (the first frame of the first is not used).
func New(t testing.TB, slices int) *Rig {
	t.Helper()
	src := &source{}
	for i := range slices {
		src.free = append(src.free, uint64(slices-1-i))
	}
	p, err := frame.New(frame.Config{Memory: aligned(slices * frame.SliceSize), Base: 1 << 40, Source: src})
	if err != nil {
		t.Fatal(err)
	}
	v := vfs.New(vfs.Config{Now: func() int64 { return time.Now().UnixNano() }, Frames: p})
	root := tmpfs.New(v, tmpfs.Config{Mode: 0o755})
	if err := v.MountRoot(root.FS, "tmpfs", 0); err != nil {
		t.Fatal(err)
	}
	r := &Rig{V: v, Root: root, Pool: p, source: src}
	r.Caller = r.NewCaller()
	return r
}

// NewCaller makes another process of root's, at the root directory, with an empty descriptor table.
func (r *Rig) NewCaller() *vfs.Caller {
	start := time.Now()
	return &vfs.Caller{
		Cred: cred.Root(), FS: r.V.NewFSContext(), Files: vfs.NewFDTable(), PID: 1, TID: 1, FileSizeLimit: vfs.Unlimited, OpenLimit: 1024,
		Sleeper: wait.NewSleeper(func() int64 { return int64(time.Since(start)) }, nil),
	}
}

// As returns a process like r's main one with another user and no capabilities.
func (r *Rig) As(uid, gid uint32, groups ...uint32) *vfs.Caller {
	c := r.NewCaller()
	c.Cred = &cred.Cred{UID: uid, EUID: uid, SUID: uid, FSUID: uid, GID: gid, EGID: gid, SGID: gid, FSGID: gid, Groups: groups}
	return c
}

// WriteFile makes a file with contents.
func WriteFile(t testing.TB, c *vfs.Caller, path string, data string) {
	t.Helper()
	fd, err := c.OpenAt(linux.AT_FDCWD, path, linux.O_CREAT|linux.O_WRONLY|linux.O_TRUNC, 0o644)
	if err != nil {
		t.Fatalf("opening %s: %v", path, err)
	}
	if n, err := Write(c, fd, data); err != nil || n != len(data) {
		t.Fatalf("writing %s: %d, %v", path, n, err)
	}
	if err := c.Files.Close(c, fd); err != nil {
		t.Fatal(err)
	}
}

// ReadFile reads all of a file.
func ReadFile(c *vfs.Caller, path string) (string, error) {
	fd, err := c.OpenAt(linux.AT_FDCWD, path, linux.O_RDONLY, 0)
	if err != nil {
		return "", err
	}
	defer c.Files.Close(c, fd)
	var all []byte
	for {
		b, err := Read(c, fd, 4096)
		if err != nil || b == "" {
			return string(all), err
		}
		all = append(all, b...)
	}
}

// Read is read(2) of up to n bytes.
func Read(c *vfs.Caller, fd, n int) (string, error) {
	b := make([]byte, n)
	var io uio.IO
	io.Bytes(b)
	k, err := c.Read(fd, &io)
	return string(b[:k]), err
}

// Write is write(2).
func Write(c *vfs.Caller, fd int, data string) (int, error) {
	var io uio.IO
	io.Bytes([]byte(data))
	n, err := c.Write(fd, &io)
	return int(n), err
}

// Close closes a descriptor and fails the test if that fails.
func Close(t testing.TB, c *vfs.Caller, fd int) {
	t.Helper()
	if err := c.Files.Close(c, fd); err != nil {
		t.Fatalf("closing %d: %v", fd, err)
	}
}

// Frames is how many frames are in use.
func (r *Rig) Frames() int { return r.Pool.Stats().Used }
