package mm

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"dinos/dkernel/frame"
	"dinos/kernel/linux"
)

// addresses and sizes that programs should not pass.
var oddNumbers = []uint64{0, 1, 8, k - 1, k, k + 1, minAddr - k, minAddr, 1 << 40, low32, high32, userTop - k, userTop - 1, userTop, userTop + k, 1 << 47,
	0xffff800000000000, 0xffffffff80000000, 1 << 63, ^uint64(0) - k + 1, ^uint64(0) - 1, ^uint64(0)}

// state is what is mapped, as far as a few mappings go.
type state struct {
	counts
	brk  uint64
	n    int
	list [8]span
}

// Every call with every odd argument: an error that changes nothing, or success; never a panic.
func TestOddArguments(t *testing.T) {
	run(t, nil, func(m *machine, s *Space) {
		f := m.file(4)
		s.must(t, MapArgs{Addr: 1 << 40, Len: 4 * k, Prot: rw, Flags: private | fixed | linux.MAP_POPULATE})
		s.SetBreakStart(1 << 30)
		one := make([]byte, 16)
		now := func() (st state) { // dump takes too long
			st.counts, st.brk = s.tree.count, s.tree.brk
			for v := s.tree.first; v != nil && st.n < len(st.list); v = v.next {
				st.list[st.n] = v.span
				st.n++
			}
			return st
		}
		before := now()
		calls := map[string]func(a, n uint64) error{
			"private": func(a, n uint64) error {
				_, err := s.Map(MapArgs{Addr: a, Len: n, Prot: rw, Flags: private})
				return err
			},
			"fixed": func(a, n uint64) error { _, err := s.Map(MapArgs{Addr: a, Len: n, Flags: private | fixed}); return err },
			"shared": func(a, n uint64) error {
				_, err := s.Map(MapArgs{Addr: a, Len: n, Prot: rw, Flags: shared})
				return err
			},
			"file": func(a, n uint64) error {
				_, err := s.Map(MapArgs{Addr: a, Len: n, Prot: rw, Flags: linux.MAP_SHARED | linux.MAP_POPULATE, Object: f})
				return err
			},
			"offset": func(a, n uint64) error {
				_, err := s.Map(MapArgs{Len: k, Offset: a, Prot: rw, Flags: linux.MAP_SHARED, Object: f})
				return err
			},
			"unmap":    func(a, n uint64) error { return s.Unmap(a, n) },
			"protect":  func(a, n uint64) error { return s.Protect(a, n, linux.PROT_READ) },
			"dontneed": func(a, n uint64) error { return s.Advise(a, n, linux.MADV_DONTNEED) },
			"random":   func(a, n uint64) error { return s.Advise(a, n, linux.MADV_RANDOM) },
			"remove":   func(a, n uint64) error { return s.Advise(a, n, linux.MADV_REMOVE) },
			"populate": func(a, n uint64) error { return s.Advise(a, n, linux.MADV_POPULATE_WRITE) },
			"advice":   func(a, n uint64) error { return s.Advise(a, k, int(n)) },
			"sync":     func(a, n uint64) error { return s.Sync(a, n, linux.MS_SYNC) },
			"lock":     func(a, n uint64) error { return s.Lock(a, n, 0) },
			"unlock":   func(a, n uint64) error { return s.Unlock(a, n) },
			"incore":   func(a, n uint64) error { return s.Incore(a, n, one) },
			"grow":     func(a, n uint64) error { _, err := s.Remap(1<<40, k, n, linux.MREMAP_MAYMOVE, a); return err },
			"move": func(a, n uint64) error {
				_, err := s.Remap(a, n, n, linux.MREMAP_MAYMOVE|linux.MREMAP_FIXED, n)
				return err
			},
			"keep": func(a, n uint64) error {
				_, err := s.Remap(a, n, n, linux.MREMAP_MAYMOVE|linux.MREMAP_DONTUNMAP, n)
				return err
			},
			"in":   func(a, n uint64) error { _, err := s.CopyIn(one, a); return err },
			"out":  func(a, n uint64) error { _, err := s.CopyOut(a, one); return err },
			"zero": func(a, n uint64) error { _, err := s.Zero(a, 9); return err },
			"str":  func(a, n uint64) error { _, err := s.String(a, 9); return err },
			"key":  func(a, n uint64) error { _, err := s.FutexKey(a, true); return err },
			"load": func(a, n uint64) error { _, err := s.Load64(a); return err },
			"cas":  func(a, n uint64) error { _, err := s.CompareAndSwap32(a, 0, 1); return err },
		}
		for name, call := range calls {
			for _, a := range oddNumbers {
				for _, n := range oddNumbers {
					err := call(a, n)
					after := now()
					if err != nil && name != "dontneed" && name != "random" && name != "out" && name != "cas" && name != "zero" {
						require.Equal(t, before, after, "%s(%#x, %#x): %v", name, a, n, err)
					}
					if after != before { // it was possible: back to the beginning
						require.NoError(t, s.tree.check(), "%s(%#x, %#x)", name, a, n)
						require.NoError(t, s.Unmap(0, userTop))
						s.must(t, MapArgs{Addr: 1 << 40, Len: 4 * k, Prot: rw, Flags: private | fixed | linux.MAP_POPULATE})
						before = now()
					}
				}
				s.Break(a)
				require.NotEqual(t, NoMemory, s.Fault(a, rw))
				before = now()
			}
		}
		for _, a := range []uint64{userTop, userTop + 8, 1 << 47, 0xffff800000000000, 0xfffffffffffffff8, 0} {
			n, err := s.CopyOut(a, one)
			require.Equal(t, linux.EFAULT, err)
			require.Zero(t, n)
			require.Equal(t, MapError, s.Fault(a, linux.PROT_READ))
		}
		s.Break(0)
		f.resize(0)
	})
}

func TestFlagErrors(t *testing.T) {
	run(t, nil, func(m *machine, s *Space) {
		f := m.file(4)
		ro := m.file(4)
		ro.access = MayRead
		wo := m.file(4)
		wo.access = MayWrite
		nx := m.file(4)
		nx.access = MayRead | NoExec
		const p, sh = linux.MAP_PRIVATE, linux.MAP_SHARED
		for _, c := range []struct {
			want error
			a    MapArgs
		}{
			{linux.EINVAL, MapArgs{Len: 0, Flags: private}},
			{linux.EINVAL, MapArgs{Len: k, Flags: linux.MAP_ANONYMOUS}},
			{linux.EINVAL, MapArgs{Len: k, Flags: linux.MAP_ANONYMOUS | linux.MAP_SHARED_VALIDATE}},
			{linux.EINVAL, MapArgs{Len: k, Flags: linux.MAP_ANONYMOUS | linux.MAP_DROPPABLE}},
			{linux.EINVAL, MapArgs{Len: k, Flags: p, Object: f, Offset: 1}},
			{linux.EINVAL, MapArgs{Addr: minAddr + 1, Len: k, Flags: private | fixed}},
			{linux.EPERM, MapArgs{Addr: 0, Len: k, Flags: private | fixed}},
			{linux.EINVAL, MapArgs{Len: k, Flags: shared | linux.MAP_GROWSDOWN}},
			{linux.ENOMEM, MapArgs{Len: k, Flags: private | linux.MAP_HUGETLB}},
			{linux.EBADF, MapArgs{Len: k, Flags: p}},
			{linux.EOPNOTSUPP, MapArgs{Len: k, Flags: linux.MAP_SHARED_VALIDATE | linux.MAP_SYNC, Object: f}},
			{linux.EOVERFLOW, MapArgs{Len: 2 * k, Flags: sh, Object: f, Offset: ^uint64(0) &^ (k - 1)}},
			{linux.EACCES, MapArgs{Len: k, Prot: rw, Flags: sh, Object: ro}},
			{linux.EACCES, MapArgs{Len: k, Prot: linux.PROT_READ, Flags: p, Object: wo}},
			{linux.EPERM, MapArgs{Len: k, Prot: linux.PROT_EXEC, Flags: p, Object: nx}},
			{nil, MapArgs{Len: k, Prot: rw, Flags: p, Object: ro}},
			{nil, MapArgs{Len: k, Prot: rw, Flags: linux.MAP_SHARED_VALIDATE, Object: f}},
			{nil, MapArgs{Len: k, Prot: rw, Flags: private | linux.MAP_STACK | linux.MAP_NORESERVE | linux.MAP_DENYWRITE}},
		} {
			a, err := s.Map(c.a)
			require.Equal(t, c.want, err, "%+v", c.a)
			if err == nil {
				require.NoError(t, s.Unmap(a, k))
			}
		}
		a := s.must(t, MapArgs{Len: k, Prot: linux.PROT_READ, Flags: sh, Object: ro})
		require.Equal(t, linux.EACCES, s.Protect(a, k, rw))
		b := s.must(t, MapArgs{Len: k, Prot: linux.PROT_READ, Flags: sh, Object: nx})
		require.Equal(t, linux.EACCES, s.Protect(b, k, linux.PROT_EXEC))
		for _, prot := range []int{1 << 5, linux.PROT_GROWSUP, linux.PROT_GROWSDOWN | linux.PROT_GROWSUP, linux.PROT_GROWSDOWN} {
			require.Equal(t, linux.EINVAL, s.Protect(a, k, prot))
		}
		for _, how := range []int{linux.MREMAP_FIXED, linux.MREMAP_DONTUNMAP, 8} {
			_, err := s.Remap(a, k, k, how, 1<<40)
			require.Equal(t, linux.EINVAL, err)
		}
		_, err := s.Remap(a, k, 2*k, linux.MREMAP_MAYMOVE|linux.MREMAP_DONTUNMAP, 0)
		require.Equal(t, linux.EINVAL, err)
		require.Equal(t, linux.EINVAL, s.Sync(a, k, linux.MS_SYNC|linux.MS_ASYNC))
		require.Equal(t, linux.EINVAL, s.Advise(a, k, linux.MADV_MERGEABLE))
		require.Equal(t, linux.EINVAL, s.Advise(a, k, linux.MADV_FREE), "not private")
		require.Equal(t, linux.EACCES, s.Advise(a, k, linux.MADV_REMOVE))
		require.Equal(t, linux.EINVAL, s.Lock(a, k, 2))
		_, err = s.Load32(a + 2)
		require.Equal(t, linux.EINVAL, err)
		_, err = s.Load64(a + 4)
		require.Equal(t, linux.EINVAL, err)
		_, err = s.FutexKey(a+1, false)
		require.Equal(t, linux.EINVAL, err)
		require.NoError(t, s.Unmap(a, k))
		require.NoError(t, s.Unmap(b, k))
	})
}

// Operations with any values do not break a tree: those of peers are not to be trusted.
func TestHostileOps(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newMachine(t, 2, nil)
		s := m.space()
		var frames []uint64
		for range 20 {
			f, err := m.pool.AllocZero()
			require.NoError(t, err)
			m.pool.Ref(f)
			frames = append(frames, uint64(f))
		}
		f := m.file(4)
		b := s.pin(f)
		number := func(label string) uint64 {
			switch rapid.IntRange(0, 5).Draw(rt, label) {
			case 0:
				return oddNumbers[rapid.IntRange(0, len(oddNumbers)-1).Draw(rt, label)]
			case 1:
				return frames[rapid.IntRange(0, 19).Draw(rt, label)]
			case 2:
				return rapid.Uint64().Draw(rt, label)
			case 3:
				return uint64(rapid.IntRange(0, 40).Draw(rt, label))
			default:
				return 1<<40 + uint64(rapid.IntRange(0, 64).Draw(rt, label))*k
			}
		}
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			o := op{Kind: uint32(rapid.IntRange(0, int(opFuture)+1).Draw(rt, "kind")), Issuer: 7,
				Addr: number("addr"), Len: number("len"), To: number("to"), ToLen: number("tolen"), Flags: number("flags"), Mode: number("mode"),
				Off: number("off"), Frame: number("frame"), Old: number("old"), Epoch: s.tree.epoch.Load(),
				LimitAS: noLimit, LimitData: noLimit, LimitLock: noLimit, MaxMaps: 100}
			if rapid.Bool().Draw(rt, "small") {
				o.Len &= 0xffff
			}
			if rapid.Bool().Draw(rt, "object") {
				o.Object = b.handle
			}
			if o.Kind == opView {
				continue
			}
			if o.Kind == opAround {
				s.tree.do(&o, []frame.Frame{frame.Frame(number("f0")), frame.Frame(number("f1"))}, &resp{})
			} else {
				s.tree.do(&o, nil, &resp{})
				s.tree.look(o.Addr, flags(o.Flags)&(vmExec|vmRead), &look{})
			}
			if s.tree.out != nil {
				s.tree.pt.Release(&s.tree.out.flush)
			}
			if err := s.tree.root.check(); err != nil {
				rt.Fatalf("%+v: %v", o, err)
			}
		}
	})
}

// scenario does a bit of everything, and goes on after what fails for lack of memory.
func scenario(m *machine, f *file) error {
	ok := func(err error) error {
		if err != nil && err != linux.ENOMEM && err != linux.EFAULT {
			return fmt.Errorf("unexpected %v", err)
		}
		return nil
	}
	s, err := m.sys.NewSpace(testLayout, DefaultLimits)
	if err != nil {
		return ok(err)
	}
	defer s.Put()
	var errs []error
	try := func(err error) { errs = append(errs, ok(err)) }
	a, err := s.Map(MapArgs{Len: 20 * k, Prot: rw, Flags: private | linux.MAP_POPULATE})
	try(err)
	b, err := s.Map(MapArgs{Addr: 1 << 40, Len: 8 * k, Prot: rw, Flags: shared})
	try(err)
	p, err := s.Map(MapArgs{Addr: 1 << 41, Len: 4 * k, Prot: rw, Flags: linux.MAP_PRIVATE, Object: f})
	try(err)
	_, err = s.Map(MapArgs{Addr: 1 << 42, Len: k, Prot: rw, Flags: linux.MAP_SHARED | linux.MAP_POPULATE, Object: f})
	try(err)
	for _, addr := range []uint64{a, a + 30*k, b, b + k, p, p + k} {
		_, err := s.Load64(addr)
		try(err)
		try(s.Store64(addr, 1))
	}
	if c, err := s.Fork(); err == nil {
		try(c.Store64(a, 2))
		try(s.Store64(a+k, 2))
		_, err := c.Remap(a, 20*k, 20*k, linux.MREMAP_MAYMOVE|linux.MREMAP_FIXED, 1<<43)
		try(err)
		errs = append(errs, c.tree.check())
		c.Put()
	} else {
		try(err)
	}
	_, err = s.Remap(a, k, 600*k, linux.MREMAP_MAYMOVE, 0)
	try(err)
	try(s.Advise(a+k, 5*k, linux.MADV_POPULATE_WRITE))
	errs = append(errs, s.tree.check())
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// Wherever memory ends, nothing breaks and nothing leaks.
func TestOutOfMemory(t *testing.T) {
	for _, of := range []string{"frames", "tables"} {
		m := newMachine(t, 1, nil)
		tables := m.tables.left()
		f := m.file(4)
		for n := range 90 {
			var held []frame.Frame
			if of == "frames" {
				for {
					g, err := m.pool.Alloc()
					if err != nil {
						break
					}
					held = append(held, g)
				}
				for range n {
					m.pool.Unref(held[len(held)-1])
					held = held[:len(held)-1]
				}
			} else {
				m.tables.budget = n
			}
			require.NoError(t, scenario(m, f), "with %d %s", n, of)
			for _, g := range held {
				m.pool.Unref(g)
			}
			m.tables.budget = -1
			f.resize(0)
			f.size = 4
			require.EqualValues(t, 1, f.refs.Load())
			m.clean(tables)
		}
	}
}

// A copy for a program that fails for lack of memory says so.
func TestStarved(t *testing.T) {
	m := newMachine(t, 1, nil)
	s := m.space()
	a := s.must(t, MapArgs{Len: 600 * k, Prot: rw, Flags: private})
	require.Equal(t, linux.EFAULT, s.Store64(1<<40, 1))
	require.False(t, s.Starved())
	n, err := s.Zero(a, 600*k)
	require.Equal(t, linux.EFAULT, err)
	require.Less(t, n, uint64(600*k))
	require.True(t, s.Starved())
	require.False(t, s.Starved())
	require.Equal(t, NoMemory, s.Fault(a+599*k, linux.PROT_WRITE))
	require.Equal(t, Resolved, s.Fault(a+599*k, linux.PROT_READ), "zeros are always there")
}
