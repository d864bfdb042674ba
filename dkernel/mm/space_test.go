package mm

import (
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/dkernel/frame"
	"dinos/dkernel/uio"
	"dinos/kernel/linux"
)

const (
	rw      = linux.PROT_READ | linux.PROT_WRITE
	private = linux.MAP_PRIVATE | linux.MAP_ANONYMOUS
	shared  = linux.MAP_SHARED | linux.MAP_ANONYMOUS
	fixed   = linux.MAP_FIXED
	k       = pageSize
)

var _ uio.Memory = (*Space)(nil)

func (s *Space) must(t testing.TB, a MapArgs) uint64 {
	t.Helper()
	addr, err := s.Map(a)
	require.NoError(t, err)
	return addr
}

// run calls f with a machine and an address space, and checks that nothing is left of it.
func run(t *testing.T, change func(*Config), f func(m *machine, s *Space)) {
	t.Helper()
	m := newMachine(t, 8, change)
	tables := m.tables.left()
	s := m.space()
	f(m, s)
	require.NoError(t, s.tree.check())
	s.Put()
	m.clean(tables)
	m.sys.Close()
	require.Zero(t, m.pool.Stats().Used)
}

func TestForkCopies(t *testing.T) {
	run(t, nil, func(m *machine, s *Space) {
		a := s.must(t, MapArgs{Len: 10 * k, Prot: rw, Flags: private})
		require.Equal(t, s.tree.layout.MmapBase-10*k, a)
		_, err := s.CopyOut(a+k-3, []byte("hello\x00"))
		require.NoError(t, err)
		c, err := s.Fork()
		require.NoError(t, err)
		require.NotEqual(t, s.ID(), c.ID())
		require.NotEqual(t, s.Root(), c.Root())
		used := m.pool.Stats().Used
		_, err = c.CopyOut(a+k-3, []byte("child"))
		require.NoError(t, err)
		require.Equal(t, used+2, m.pool.Stats().Used, "two pages were copied")
		_, err = s.CopyOut(a+k-3, []byte("again"))
		require.NoError(t, err)
		require.Equal(t, used+2, m.pool.Stats().Used, "the last owner writes in place")
		for _, x := range []struct {
			s    *Space
			want string
		}{{s, "again"}, {c, "child"}} {
			str, err := x.s.String(a+k-3, 100)
			require.NoError(t, err)
			require.Equal(t, x.want, str)
		}
		require.True(t, c.Get())
		c.Put()
		c.Put()
		require.False(t, c.Get())
	})
}

// Pages that were only read are one page of zeros.
func TestZeroPage(t *testing.T) {
	run(t, nil, func(m *machine, s *Space) {
		a := s.must(t, MapArgs{Len: 100 * k, Prot: rw, Flags: private})
		used := m.pool.Stats().Used
		for i := range uint64(100) {
			v, err := s.Load64(a + i*k)
			require.NoError(t, err)
			require.Zero(t, v)
		}
		require.Equal(t, used, m.pool.Stats().Used)
		require.Zero(t, s.Stat().Own+s.Stat().File)
		require.NoError(t, s.Store64(a+5*k, 1))
		require.EqualValues(t, 1, s.Stat().Own)
		require.NoError(t, s.Advise(a, 100*k, linux.MADV_DONTNEED))
		require.Zero(t, s.Stat().Own)
		require.EqualValues(t, 1, s.Stat().Peak)
		v, _ := s.Load64(a + 6*k)
		require.Zero(t, v)
	})
}

func TestBreak(t *testing.T) {
	run(t, nil, func(m *machine, s *Space) {
		require.Zero(t, s.Break(0))
		s.SetBreakStart(0x1000010)
		require.EqualValues(t, 0x1000010, s.Break(0))
		require.EqualValues(t, 0x1000010, s.Break(0x1000000), "below the start")
		require.EqualValues(t, 0x1005123, s.Break(0x1005123))
		require.NoError(t, s.Store64(0x1005ff8, 3))
		require.Equal(t, linux.EFAULT, s.Store64(0x1006000, 3))
		require.Equal(t, "[heap]", s.Regions(0, 1)[0].Info.Name)
		require.EqualValues(t, 0x1001000, s.Break(0x1001000))
		require.Equal(t, linux.EFAULT, s.Store64(0x1001000, 3))
		s.Break(0x1006000)
		v, err := s.Load64(0x1005ff8)
		require.NoError(t, err)
		require.Zero(t, v, "it was given back")
		s.must(t, MapArgs{Addr: 0x1008000, Len: k, Flags: private | fixed})
		require.EqualValues(t, 0x1006000, s.Break(0x1009000), "something is in the way")
		require.EqualValues(t, 0x1008000, s.Break(0x1008000))
		require.EqualValues(t, 0x1008000, s.Break(1<<63))
		require.EqualValues(t, 0x1008000, s.Break(^uint64(0)))
		lim := DefaultLimits
		lim.Data = 8 * k
		s.SetLimits(lim)
		require.EqualValues(t, 0x1008000, s.Break(0x1008001))
	})
}

func TestStackGrows(t *testing.T) {
	run(t, nil, func(m *machine, s *Space) {
		top := s.tree.layout.StackTop
		stack := s.must(t, MapArgs{Addr: top - 4*k, Len: 4 * k, Prot: rw, Flags: private | fixed | linux.MAP_GROWSDOWN | linux.MAP_STACK})
		s.SetStack(top - k)
		require.NoError(t, s.Store64(stack-100*k, 1), "far below is fine")
		require.Equal(t, "[stack]", s.Regions(0, 1)[0].Info.Name)
		require.EqualValues(t, 104, s.Stat().Stack)
		require.Equal(t, Resolved, s.Fault(stack-200*k, linux.PROT_WRITE))
		require.Equal(t, MapError, s.Fault(top-(8<<20)-k, linux.PROT_WRITE), "RLIMIT_STACK")
		require.Equal(t, Resolved, s.Fault(top-(8<<20), linux.PROT_READ))

		// Mappings keep their distance, and so does the stack.
		lim := DefaultLimits
		lim.Stack = Unlimited
		s.SetLimits(lim)
		low := top - 8<<20
		require.Less(t, s.must(t, MapArgs{Addr: low - 10*k, Len: k, Prot: rw, Flags: private}), low-stackGuard)
		s.must(t, MapArgs{Addr: low - 400*k, Len: k, Prot: rw, Flags: private | fixed})
		require.Equal(t, Resolved, s.Fault(low-100*k, linux.PROT_WRITE))
		require.Equal(t, MapError, s.Fault(low-200*k, linux.PROT_WRITE))
		require.NoError(t, s.Protect(low-400*k, k, 0))
		require.Equal(t, Resolved, s.Fault(low-200*k, linux.PROT_WRITE), "what cannot be accessed is guard enough")
		require.NoError(t, s.Protect(top-k, k, linux.PROT_READ|linux.PROT_GROWSDOWN))
		require.Equal(t, AccError, s.Fault(low, linux.PROT_WRITE), "down to the start")
	})
}

func TestFilePages(t *testing.T) {
	run(t, nil, func(m *machine, s *Space) {
		f := m.file(40)
		a := s.must(t, MapArgs{Len: 64 * k, Prot: rw, Flags: linux.MAP_SHARED, Object: f})
		b := s.must(t, MapArgs{Len: 64 * k, Prot: rw, Flags: linux.MAP_PRIVATE, Object: f})
		require.EqualValues(t, 2, f.refs.Load(), "one reference for the address space")
		for i := range uint64(40) {
			require.NoError(t, s.Store64(a+i*k, i+1))
		}
		require.Equal(t, BusError, s.Fault(a+40*k, linux.PROT_READ))
		require.Equal(t, linux.EFAULT, s.Store64(b+40*k, 1))
		flushes := m.flushes.Load()
		require.Equal(t, Resolved, s.Fault(b+20*k, linux.PROT_READ))
		require.Equal(t, flushes, m.flushes.Load(), "nothing was there before")
		require.EqualValues(t, 40+16, s.Stat().File, "16 pages came at once")
		require.NoError(t, s.Store64(b+21*k, 99))
		v, _ := s.Load64(a + 21*k)
		require.EqualValues(t, 22, v)
		v, _ = s.Load64(b + 22*k)
		require.EqualValues(t, 23, v)

		vec := make([]byte, 64)
		require.NoError(t, s.Incore(b, 64*k, vec))
		require.EqualValues(t, 1, vec[0], "in the page cache")
		require.EqualValues(t, 0, vec[41])
		require.Equal(t, linux.ENOMEM, s.Incore(a, 65*k, make([]byte, 65)))
		require.Equal(t, linux.EINVAL, s.Incore(b+1, k, vec))

		f.resize(10)
		require.Equal(t, BusError, s.Fault(b+21*k, linux.PROT_READ), "copies beyond the end go, too")
		f.resize(40)
		v, _ = s.Load64(b + 21*k)
		require.Zero(t, v)
		require.NoError(t, s.Store64(b+5*k, 7))
		require.NoError(t, s.Advise(a+5*k, k, linux.MADV_REMOVE))
		v, _ = s.Load64(a + 5*k)
		require.Zero(t, v)
		v, _ = s.Load64(b + 5*k)
		require.EqualValues(t, 7, v, "a hole leaves copies alone")
		require.NoError(t, s.Unmap(a, 64*k))
		require.EqualValues(t, 2, f.refs.Load())
		require.NoError(t, s.Unmap(b, 64*k))
		require.EqualValues(t, 1, f.refs.Load())
		require.True(t, f.maps.Empty())
		f.resize(0)
	})
}

// An object that writes back hears of every first write after it did.
func TestNotify(t *testing.T) {
	run(t, nil, func(m *machine, s *Space) {
		f := m.file(4)
		f.notify = true
		a := s.must(t, MapArgs{Len: 4 * k, Prot: rw, Flags: linux.MAP_SHARED | linux.MAP_POPULATE, Object: f})
		require.Empty(t, f.dirty, "reading is no news")
		require.NoError(t, s.Store64(a+k, 1))
		require.NoError(t, s.Store64(a+k+8, 1))
		require.Equal(t, map[uint64]bool{1: true}, f.dirty)
		require.NoError(t, s.Sync(a, 4*k, linux.MS_ASYNC))
		require.Empty(t, f.synced)
		require.NoError(t, s.Sync(a, 4*k, linux.MS_SYNC))
		require.Equal(t, []uint64{1}, f.synced)
		require.NoError(t, s.Protect(a, 4*k, linux.PROT_READ))
		require.NoError(t, s.Protect(a, 4*k, rw))
		require.Empty(t, f.dirty)
		require.NoError(t, s.Store64(a+k, 2))
		require.Equal(t, map[uint64]bool{1: true}, f.dirty)
		v, _ := s.Load64(a + k)
		require.EqualValues(t, 2, v)
		f.resize(0)
	})
}

func TestExecutableCopies(t *testing.T) {
	var m *machine
	copies := 0
	run(t, func(c *Config) {
		c.Executable = func(_ Object, _ uint64, f frame.Frame) (frame.Frame, error) {
			copies++
			g, err := m.pool.Alloc()
			if err == nil {
				m.pool.Copy(g, f)
			}
			m.pool.Unref(f)
			return g, err
		}
	}, func(mm *machine, s *Space) {
		m = mm
		f := m.file(4)
		w := s.must(t, MapArgs{Len: 4 * k, Prot: rw, Flags: linux.MAP_SHARED, Object: f})
		require.NoError(t, s.Store64(w, 5))
		a := s.must(t, MapArgs{Len: 4 * k, Prot: linux.PROT_READ, Flags: linux.MAP_PRIVATE, Object: f})
		read := func() uint64 { v, err := s.Load64(a); require.NoError(t, err); return v }
		require.EqualValues(t, 5, read())
		require.Zero(t, copies)
		require.NoError(t, s.Protect(a, 4*k, linux.PROT_READ|linux.PROT_EXEC))
		require.EqualValues(t, 5, read())
		require.Equal(t, Resolved, s.Fault(a, linux.PROT_EXEC))
		require.Equal(t, 1, copies)
		require.NoError(t, s.Store64(w, 6))
		require.EqualValues(t, 5, read(), "code that runs does not change")
		f.resize(0)
	})
}

// One page mapped again and again is one mapping inside, and many to the program.
func TestRepeatedPage(t *testing.T) {
	run(t, nil, func(m *machine, s *Space) {
		f := m.file(2)
		base := uint64(1) << 40
		one := func(i uint64) {
			s.must(t, MapArgs{Addr: base + i*k, Len: k, Prot: rw, Flags: linux.MAP_SHARED | fixed | linux.MAP_POPULATE, Object: f, Offset: k})
		}
		for i := range uint64(1000) {
			one(i)
		}
		require.Equal(t, 1, s.tree.n)
		require.EqualValues(t, 1000, s.Stat().File)
		require.NoError(t, s.Store64(base+999*k, 42))
		v, err := s.Load64(base + 3*k)
		require.NoError(t, err)
		require.EqualValues(t, 42, v)
		rs := s.Regions(base+500*k, 10)
		require.Len(t, rs, 10)
		require.Equal(t, Region{Start: base + 500*k, End: base + 501*k, Prot: rw, Shared: true, Offset: k, Info: f.Info()}, rs[0])
		a, err := s.FutexKey(base+8, true)
		require.NoError(t, err)
		b, _ := s.FutexKey(base+700*k+8, true)
		require.Equal(t, a, b)

		require.NoError(t, s.Unmap(base+500*k, k))
		require.Equal(t, 2, s.tree.n)
		one(500)
		require.Equal(t, 1, s.tree.n)
		require.NoError(t, s.Protect(base+10*k, k, linux.PROT_READ))
		require.Equal(t, 3, s.tree.n)
		require.NoError(t, s.Protect(base+10*k, k, rw))
		require.Equal(t, 1, s.tree.n)
		to, err := s.Remap(base+20*k, k, k, linux.MREMAP_MAYMOVE|linux.MREMAP_FIXED, base+2000*k)
		require.NoError(t, err)
		v, _ = s.Load64(to)
		require.EqualValues(t, 42, v)
		_, err = s.Remap(base+30*k, 2*k, 2*k, linux.MREMAP_MAYMOVE|linux.MREMAP_FIXED, base+3000*k)
		require.Equal(t, linux.EFAULT, err, "these are two mappings")
		f.resize(1)
		require.Equal(t, BusError, s.Fault(base, linux.PROT_READ))
		require.Zero(t, s.Stat().File)
		f.resize(0)
	})
}

func TestSharedAnonymous(t *testing.T) {
	run(t, nil, func(m *machine, s *Space) {
		a := s.must(t, MapArgs{Len: 8 * k, Prot: rw, Flags: shared})
		c, err := s.Fork()
		require.NoError(t, err)
		require.NoError(t, c.Store64(a+k, 5))
		v, err := s.Load64(a + k)
		require.NoError(t, err)
		require.EqualValues(t, 5, v)
		ka, err := s.FutexKey(a+4, true)
		require.NoError(t, err)
		kc, err := c.FutexKey(a+4, true)
		require.NoError(t, err)
		require.Equal(t, ka, kc)
		ka, _ = s.FutexKey(a+4, false)
		kc, _ = c.FutexKey(a+4, false)
		require.NotEqual(t, ka, kc)
		// A second view, as of mremap(2) with an old length of 0.
		b, err := s.Remap(a, 0, 8*k, linux.MREMAP_MAYMOVE, 0)
		require.NoError(t, err)
		v, _ = s.Load64(b + k)
		require.EqualValues(t, 5, v)
		require.NoError(t, s.Advise(a, 8*k, linux.MADV_REMOVE))
		v, _ = c.Load64(a + k)
		require.Zero(t, v)
		big, err := s.Remap(a, 8*k, 16*k, linux.MREMAP_MAYMOVE, 0)
		require.NoError(t, err)
		require.Equal(t, BusError, s.Fault(big+8*k, linux.PROT_READ), "it does not grow")
		c.Put()
	})
}

func TestLocking(t *testing.T) {
	run(t, nil, func(m *machine, s *Space) {
		lim := DefaultLimits
		lim.MemLock = 4 * k
		s.SetLimits(lim)
		a := s.must(t, MapArgs{Len: 8 * k, Prot: rw, Flags: private})
		require.Equal(t, linux.ENOMEM, s.Lock(a, 5*k, 0))
		require.NoError(t, s.Lock(a+1, 3*k, 0), "four pages")
		require.EqualValues(t, 4, s.Stat().Locked)
		require.EqualValues(t, 4, s.Stat().Own)
		require.NoError(t, s.Lock(a, k, 0), "again is fine")
		require.Equal(t, linux.EINVAL, s.Advise(a, k, linux.MADV_DONTNEED))
		require.Equal(t, linux.EBUSY, s.Sync(a, k, linux.MS_INVALIDATE))
		_, err := s.Map(MapArgs{Len: k, Prot: rw, Flags: private | linux.MAP_LOCKED})
		require.Equal(t, linux.EAGAIN, err)
		_, err = s.Remap(a, 4*k, 9*k, linux.MREMAP_MAYMOVE, 0)
		require.Equal(t, linux.EAGAIN, err)
		require.NoError(t, s.Unlock(a, 2*k))
		require.EqualValues(t, 2, s.Stat().Locked)
		require.Equal(t, linux.ENOMEM, s.LockAll(linux.MCL_CURRENT))
		require.Equal(t, linux.EINVAL, s.LockAll(0))
		require.Equal(t, linux.EINVAL, s.LockAll(linux.MCL_ONFAULT))
		require.Equal(t, linux.ENOMEM, s.Lock(a+7*k, 2*k, 0), "a hole")
		s.UnlockAll()
		require.Zero(t, s.Stat().Locked)
		lim.MemLock = 0
		s.SetLimits(lim)
		require.Equal(t, linux.EPERM, s.Lock(a, k, 0))
		require.Equal(t, linux.EPERM, s.LockAll(linux.MCL_FUTURE))
		lim.IPCLock = true
		s.SetLimits(lim)
		require.NoError(t, s.LockAll(linux.MCL_CURRENT|linux.MCL_FUTURE))
		require.EqualValues(t, 8, s.Stat().Own)
		s.must(t, MapArgs{Len: 2 * k, Prot: rw, Flags: private})
		require.EqualValues(t, 10, s.Stat().Own)
		s.SetBreakStart(0x1000000)
		s.Break(0x1003000)
		require.EqualValues(t, 13, s.Stat().Own)
		c, err := s.Fork()
		require.NoError(t, err)
		require.Zero(t, c.Stat().Locked)
		c.Put()
		require.NoError(t, s.LockAll(linux.MCL_FUTURE|linux.MCL_ONFAULT))
		s.must(t, MapArgs{Len: 2 * k, Prot: rw, Flags: private})
		require.EqualValues(t, 13, s.Stat().Own)
		require.EqualValues(t, 15, s.Stat().Locked)
	})
}

func TestLimits(t *testing.T) {
	run(t, func(c *Config) { c.MaxMaps = 6; c.Memory = func() uint64 { return 1000 } }, func(m *machine, s *Space) {
		lim := DefaultLimits
		lim.AS = 100 * k
		lim.Data = 50 * k
		s.SetLimits(lim)
		_, err := s.Map(MapArgs{Len: 101 * k, Flags: private})
		require.Equal(t, linux.ENOMEM, err)
		_, err = s.Map(MapArgs{Len: 51 * k, Prot: rw, Flags: private})
		require.Equal(t, linux.ENOMEM, err)
		a := s.must(t, MapArgs{Len: 90 * k, Flags: private})
		require.Equal(t, linux.ENOMEM, s.Protect(a, 51*k, rw))
		require.NoError(t, s.Protect(a, 50*k, rw))
		require.NoError(t, s.Unmap(a, 90*k))
		s.SetLimits(DefaultLimits)

		_, err = s.Map(MapArgs{Len: 1001 * k, Prot: rw, Flags: private})
		require.Equal(t, linux.ENOMEM, err, "more than there is")
		require.NoError(t, s.Unmap(s.must(t, MapArgs{Len: 1001 * k, Prot: rw, Flags: private | linux.MAP_NORESERVE}), 1001*k))
		require.NoError(t, m.sys.SetOvercommit(linux.OVERCOMMIT_NEVER, 10))
		_, err = s.Map(MapArgs{Len: 101 * k, Prot: rw, Flags: private | linux.MAP_NORESERVE})
		require.Equal(t, linux.ENOMEM, err)
		a = s.must(t, MapArgs{Len: 60 * k, Prot: rw, Flags: private})
		pages, limit := m.sys.Committed()
		require.EqualValues(t, []uint64{60, 100}, []uint64{pages, limit})
		_, err = s.Fork()
		require.Equal(t, linux.ENOMEM, err)
		require.NoError(t, s.Unmap(a, 60*k))
		require.Equal(t, linux.EINVAL, m.sys.SetOvercommit(3, 50))
		require.NoError(t, m.sys.SetOvercommit(linux.OVERCOMMIT_ALWAYS, 50))
		s.must(t, MapArgs{Len: 5000 * k, Prot: rw, Flags: private})

		a = s.must(t, MapArgs{Len: 20 * k, Prot: rw, Flags: private | linux.MAP_NORESERVE})
		for i := uint64(1); ; i += 2 {
			if err := s.Unmap(a+i*k, k); err != nil {
				require.Equal(t, linux.ENOMEM, err)
				break
			}
			require.Less(t, s.tree.n, 7)
		}
		require.Equal(t, linux.ENOMEM, s.Protect(a, k, 0))
		_, err = s.Map(MapArgs{Len: k, Flags: private})
		require.Equal(t, linux.ENOMEM, err)
	})
}

func TestLegacyLayout(t *testing.T) {
	m := newMachine(t, 2, nil)
	s, err := m.sys.NewSpace(Layout{StackTop: userTop, MmapBase: unmappedBase, Legacy: true}, DefaultLimits)
	require.NoError(t, err)
	require.EqualValues(t, unmappedBase, s.must(t, MapArgs{Len: k, Flags: private}))
	require.EqualValues(t, low32, s.must(t, MapArgs{Len: k, Flags: private | linux.MAP_32BIT}))
	s.Put()
}

func TestString(t *testing.T) {
	run(t, nil, func(m *machine, s *Space) {
		a := s.must(t, MapArgs{Len: 3 * k, Prot: rw, Flags: private})
		require.NoError(t, s.Unmap(a+2*k, k))
		long := make([]byte, k+100)
		for i := range long {
			long[i] = 'x'
		}
		_, err := s.CopyOut(a+50, long)
		require.NoError(t, err)
		str, err := s.String(a+50, 1<<20)
		require.NoError(t, err)
		require.Equal(t, string(long), str)
		_, err = s.String(a+50, k)
		require.Equal(t, linux.ENAMETOOLONG, err)
		_, err = s.CopyOut(a+2*k-5, []byte("abcde"))
		require.NoError(t, err)
		_, err = s.String(a+2*k-5, 100)
		require.Equal(t, linux.EFAULT, err)
		n, err := s.Zero(a+k-5, k)
		require.NoError(t, err)
		require.EqualValues(t, k, n)
		n, err = s.Zero(a+k, 2*k)
		require.Equal(t, linux.EFAULT, err)
		require.EqualValues(t, k, n, "what could be done is done")
	})
}

func TestWords(t *testing.T) {
	run(t, nil, func(m *machine, s *Space) {
		a := s.must(t, MapArgs{Len: 2 * k, Prot: rw, Flags: private})
		for _, at := range []uint64{a, a + k - 4, a + 8} { // not present at first, then present
			for range 2 {
				require.NoError(t, s.Store32(at, 0x01020304))
				v, err := s.Load32(at)
				require.NoError(t, err)
				require.EqualValues(t, 0x01020304, v)
				ok, err := s.CompareAndSwap32(at, 1, 2)
				require.NoError(t, err)
				require.False(t, ok)
				ok, err = s.CompareAndSwap32(at, 0x01020304, 2)
				require.NoError(t, err)
				require.True(t, ok)
				v, _ = s.Load32(at)
				require.EqualValues(t, 2, v)
			}
		}
		require.NoError(t, s.Store64(a+8, 1<<40|7))
		v, err := s.Load64(a + 8)
		require.NoError(t, err)
		require.EqualValues(t, 1<<40|7, v)
		ok, err := s.CompareAndSwap64(a+8, 1<<40|7, 9)
		require.NoError(t, err)
		require.True(t, ok)
		ok, _ = s.CompareAndSwap64(a+8, 1, 9)
		require.False(t, ok)
		require.NoError(t, s.Protect(a, k, linux.PROT_READ))
		_, err = s.CompareAndSwap32(a, 2, 3)
		require.Equal(t, linux.EFAULT, err)
		require.Equal(t, linux.EFAULT, s.Store32(a, 3))
		w, err := s.Load32(a)
		require.NoError(t, err)
		require.EqualValues(t, 2, w)
		require.NoError(t, s.Protect(a, k, 0))
		_, err = s.Load32(a)
		require.Equal(t, linux.EFAULT, err)
		_, err = s.CompareAndSwap64(a+1, 0, 0)
		require.Equal(t, linux.EINVAL, err)
		for _, at := range []uint64{userTop, 1 << 47, 0xffff800000000000, ^uint64(0) &^ 7} {
			_, err = s.Load32(at)
			require.Equal(t, linux.EFAULT, err)
			_, err = s.CompareAndSwap32(at, 0, 0)
			require.Equal(t, linux.EFAULT, err)
			n, err := s.CopyIn(make([]byte, 8), at)
			require.Equal(t, linux.EFAULT, err)
			require.Zero(t, n)
		}
	})
}
