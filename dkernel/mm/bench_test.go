package mm

import (
	"testing"

	"dinos/kernel/linux"
)

func benchSpace(b *testing.B) (*machine, *Space) {
	m := newMachine(b, 32, nil)
	return m, m.space()
}

func BenchmarkCopyIn1(b *testing.B)    { benchCopy(b, 1) }
func BenchmarkCopyIn8(b *testing.B)    { benchCopy(b, 8) }
func BenchmarkCopyIn4096(b *testing.B) { benchCopy(b, 4096) }

func benchCopy(b *testing.B, n int) {
	_, s := benchSpace(b)
	a := s.must(b, MapArgs{Len: 2 * pageSize, Prot: rw, Flags: private | linux.MAP_POPULATE})
	buf := make([]byte, n)
	for b.Loop() {
		_, _ = s.CopyIn(buf, a)
	}
}

func BenchmarkCopyOut8(b *testing.B) {
	_, s := benchSpace(b)
	a := s.must(b, MapArgs{Len: 2 * pageSize, Prot: rw, Flags: private | linux.MAP_POPULATE})
	buf := make([]byte, 8)
	for b.Loop() {
		_, _ = s.CopyOut(a, buf)
	}
}

func BenchmarkLoad32(b *testing.B) {
	_, s := benchSpace(b)
	a := s.must(b, MapArgs{Len: 2 * pageSize, Prot: rw, Flags: private | linux.MAP_POPULATE})
	for b.Loop() {
		_, _ = s.Load32(a)
	}
}

func BenchmarkCompareAndSwap32(b *testing.B) {
	_, s := benchSpace(b)
	a := s.must(b, MapArgs{Len: 2 * pageSize, Prot: rw, Flags: private | linux.MAP_POPULATE})
	for b.Loop() {
		_, _ = s.CompareAndSwap32(a, 0, 0)
	}
}

func BenchmarkFutexKey(b *testing.B) {
	_, s := benchSpace(b)
	a := s.must(b, MapArgs{Len: 2 * pageSize, Prot: rw, Flags: private | linux.MAP_POPULATE})
	for b.Loop() {
		_, _ = s.FutexKey(a, false)
	}
}

// BenchmarkMapPage is map(): one page of a file at successive addresses.
func BenchmarkMapPage(b *testing.B) {
	m, s := benchSpace(b)
	benchMapPage(b, m, s)
}

// BenchmarkMapPageLogged is the same through a log, with one replica.
func BenchmarkMapPageLogged(b *testing.B) {
	m, s := benchSpace(b)
	if err := promoteOne(s); err != nil {
		b.Fatal(err)
	}
	benchMapPage(b, m, s)
}

func benchMapPage(b *testing.B, m *machine, s *Space) {
	f := m.file(1)
	addr := uint64(1) << 40
	a := MapArgs{Len: pageSize, Prot: rw, Flags: linux.MAP_SHARED | linux.MAP_FIXED | linux.MAP_POPULATE, Object: f}
	b.ReportAllocs()
	i := uint64(0)
	for b.Loop() {
		if i == 1<<18 { // tables are few here
			b.StopTimer()
			if err := s.Unmap(addr, i*pageSize); err != nil {
				b.Fatal(err)
			}
			i = 0
			b.StartTimer()
		}
		a.Addr = addr + i*pageSize
		if _, err := s.Map(a); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func BenchmarkMapUnmapPage(b *testing.B) {
	m, s := benchSpace(b)
	f := m.file(1)
	addr := uint64(1) << 40
	a := MapArgs{Addr: addr, Len: pageSize, Prot: rw, Flags: linux.MAP_SHARED | linux.MAP_FIXED | linux.MAP_POPULATE, Object: f}
	b.ReportAllocs()
	for b.Loop() {
		_, _ = s.Map(a)
		_ = s.Unmap(addr, pageSize)
	}
}

func BenchmarkMmapMunmap(b *testing.B) {
	_, s := benchSpace(b)
	s.must(b, MapArgs{Len: 2 * pageSize, Prot: rw, Flags: private | linux.MAP_POPULATE})
	b.ReportAllocs()
	for b.Loop() {
		a, _ := s.Map(MapArgs{Len: 16 * pageSize, Prot: rw, Flags: private})
		_ = s.Unmap(a, 16*pageSize)
	}
}

func BenchmarkMmapTouchMunmap(b *testing.B) {
	_, s := benchSpace(b)
	s.must(b, MapArgs{Len: 2 * pageSize, Prot: rw, Flags: private | linux.MAP_POPULATE})
	b.ReportAllocs()
	for b.Loop() {
		a, _ := s.Map(MapArgs{Len: pageSize, Prot: rw, Flags: private})
		_ = s.Fault(a, linux.PROT_WRITE)
		_ = s.Unmap(a, pageSize)
	}
}

func BenchmarkFaultAnon(b *testing.B) {
	_, s := benchSpace(b)
	const n = 4096
	a := s.must(b, MapArgs{Len: n * pageSize, Prot: rw, Flags: private})
	b.ReportAllocs()
	i := uint64(0)
	for b.Loop() {
		if i == n {
			b.StopTimer()
			_ = s.Advise(a, n*pageSize, linux.MADV_DONTNEED)
			i = 0
			b.StartTimer()
		}
		if s.Fault(a+i*pageSize, linux.PROT_WRITE) != Resolved {
			b.Fatal("no memory")
		}
		i++
	}
}

func BenchmarkFaultShared(b *testing.B) {
	m, s := benchSpace(b)
	f := m.file(1)
	a := s.must(b, MapArgs{Len: pageSize, Prot: rw, Flags: linux.MAP_SHARED, Object: f})
	s.must(b, MapArgs{Addr: a - 8*pageSize, Len: pageSize, Prot: rw, Flags: private | linux.MAP_POPULATE})
	b.ReportAllocs()
	for b.Loop() {
		_ = s.Fault(a, linux.PROT_WRITE)
		_ = s.Advise(a, pageSize, linux.MADV_DONTNEED)
	}
}

func BenchmarkProtectPairTouch(b *testing.B) {
	_, s := benchSpace(b)
	a := s.must(b, MapArgs{Len: 4 * pageSize, Prot: rw, Flags: private | linux.MAP_POPULATE})
	b.ReportAllocs()
	for b.Loop() {
		_ = s.Protect(a, pageSize, linux.PROT_READ)
		_ = s.Protect(a, pageSize, rw)
		_ = s.Fault(a, linux.PROT_WRITE)
	}
}

// BenchmarkForkExit forks a process like a small shell: 12 mappings, 60 pages of its own.
func BenchmarkForkExit(b *testing.B) {
	m, s := benchSpace(b)
	f := m.file(300)
	s.must(b, MapArgs{Addr: 0x400000, Len: 300 * pageSize, Prot: linux.PROT_READ | linux.PROT_EXEC, Flags: linux.MAP_PRIVATE | fixed, Object: f})
	_, _ = s.fill(0x400000, 0x400000+300*pageSize, linux.PROT_READ)
	for i := range uint64(10) {
		s.must(b, MapArgs{Addr: 0x800000 + i*16*pageSize, Len: 6 * pageSize, Prot: rw, Flags: private | fixed | linux.MAP_POPULATE})
	}
	b.ReportAllocs()
	for b.Loop() {
		c, err := s.Fork()
		if err != nil {
			b.Fatal(err)
		}
		c.Put()
	}
}

func BenchmarkNewSpace(b *testing.B) {
	m, _ := benchSpace(b)
	b.ReportAllocs()
	for b.Loop() {
		m.space().Put()
	}
}

func BenchmarkBreak(b *testing.B) {
	_, s := benchSpace(b)
	s.SetBreakStart(0x1000000)
	b.ReportAllocs()
	for b.Loop() {
		s.Break(0x1000000 + 64*pageSize)
		s.Break(0x1000000)
	}
}
