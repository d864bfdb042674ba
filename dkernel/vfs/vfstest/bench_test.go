package vfstest_test

import (
	"testing"

	"dinos/dkernel/uio"
	"dinos/dkernel/vfs"
	"dinos/dkernel/vfs/vfstest"
	"dinos/kernel/linux"
)

const at = linux.AT_FDCWD

func benchRig(b *testing.B) (*vfstest.Rig, int) {
	r := vfstest.New(b, 4)
	if err := r.MkdirAt(at, "/tmp", 0o1777); err != nil {
		b.Fatal(err)
	}
	vfstest.WriteFile(b, r.Caller, "/tmp/file", string(make([]byte, 1<<20)))
	fd, err := r.OpenAt(at, "/tmp/file", linux.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	return r, fd
}

func BenchmarkOpenClose(b *testing.B) {
	r, _ := benchRig(b)
	for b.Loop() {
		fd, _ := r.OpenAt(at, "/tmp/file", linux.O_RDONLY, 0)
		_ = r.Files.Close(r.Caller, fd)
	}
}

func BenchmarkStat(b *testing.B) {
	r, _ := benchRig(b)
	var a vfs.Attr
	for b.Loop() {
		_ = r.StatAt(at, "/tmp/file", 0, &a)
	}
}

func BenchmarkFstat(b *testing.B) {
	r, fd := benchRig(b)
	var a vfs.Attr
	for b.Loop() {
		_ = r.Fstat(fd, &a)
	}
}

func benchRead(b *testing.B, n int) {
	r, fd := benchRig(b)
	p := make([]byte, n)
	var io uio.IO
	b.SetBytes(int64(n))
	for b.Loop() {
		io.Bytes(p)
		_, _ = r.Pread(fd, &io, 0)
	}
}

func benchWrite(b *testing.B, n int) {
	r, fd := benchRig(b)
	p := make([]byte, n)
	var io uio.IO
	b.SetBytes(int64(n))
	for b.Loop() {
		io.Bytes(p)
		_, _ = r.Pwrite(fd, &io, 0)
	}
}

func BenchmarkRead1(b *testing.B)   { benchRead(b, 1) }
func BenchmarkRead4K(b *testing.B)  { benchRead(b, 4096) }
func BenchmarkRead1M(b *testing.B)  { benchRead(b, 1<<20) }
func BenchmarkWrite1(b *testing.B)  { benchWrite(b, 1) }
func BenchmarkWrite4K(b *testing.B) { benchWrite(b, 4096) }
func BenchmarkWrite1M(b *testing.B) { benchWrite(b, 1<<20) }

// The calls with a position, which take its lock as well.
func BenchmarkReadSeq1(b *testing.B) {
	r, fd := benchRig(b)
	p := make([]byte, 1)
	var io uio.IO
	for b.Loop() {
		io.Bytes(p)
		if n, _ := r.Read(fd, &io); n == 0 {
			_, _ = r.Lseek(fd, 0, linux.SEEK_SET)
		}
	}
}

func BenchmarkCreateUnlink(b *testing.B) {
	r, _ := benchRig(b)
	for b.Loop() {
		fd, _ := r.OpenAt(at, "/tmp/new", linux.O_CREAT|linux.O_RDWR, 0o600)
		_ = r.Files.Close(r.Caller, fd)
		_ = r.UnlinkAt(at, "/tmp/new", 0)
	}
}
