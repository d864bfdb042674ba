package mm

import (
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/dkernel/frame"
	"dinos/kernel/linux"
)

// late looks at the page at addr for a write, lets the world change, and then does what the fault would have done by what it saw. It
// must come too late: the page is then what it has become meanwhile.
func late(t *testing.T, s *Space, addr uint64, want seen, change func()) {
	t.Helper()
	var l look
	s.engine.read(addr, rw, &l)
	require.Equal(t, want, l.seen)
	change()
	before := s.tree.dump()
	if l.seen == seenReuse {
		r := s.do(&op{Kind: opReuse, Addr: addr, Old: uint64(l.old), Epoch: l.epoch})
		require.Equal(t, stale, r.err)
	} else {
		out, again := s.bring(addr, linux.PROT_WRITE, &l)
		require.True(t, again, "outcome %d", out)
	}
	require.Equal(t, before, s.tree.dump())
	require.NoError(t, s.tree.check())
}

func TestLateFaults(t *testing.T) {
	run(t, nil, func(m *machine, s *Space) {
		f := m.file(4)
		const a = uint64(1) << 40
		file := func(flags int) {
			s.must(t, MapArgs{Addr: a, Len: 4 * k, Prot: rw, Flags: flags | fixed, Object: f})
		}
		anon := func() { s.must(t, MapArgs{Addr: a, Len: 4 * k, Prot: rw, Flags: private | fixed}) }
		unmap := func() { require.NoError(t, s.Unmap(a, 4*k)) }
		touch := func() { require.NoError(t, s.Store64(a, 1)) }
		fork := func() { // nobody keeps the child
			c, err := s.Fork()
			require.NoError(t, err)
			c.Put()
		}

		// A page that has not been there.
		for _, change := range []func(){unmap, touch, func() { file(linux.MAP_SHARED) }, func() { require.NoError(t, s.Protect(a, k, 0)) }} {
			anon()
			late(t, s, a, seenAnon, change)
		}

		// A page of a file.
		for _, how := range []int{linux.MAP_SHARED, linux.MAP_PRIVATE} {
			for _, change := range []func(){unmap, anon, touch,
				func() { s.must(t, MapArgs{Addr: a, Len: k, Prot: rw, Flags: how | fixed, Object: f, Offset: k}) },
			} {
				file(how)
				late(t, s, a, seenFile, change)
			}
		}

		// A page of a file that is truncated between Page and the operation.
		for _, how := range []int{linux.MAP_SHARED, linux.MAP_PRIVATE} {
			file(how)
			var l look
			s.engine.read(a+3*k, rw, &l)
			fr, err := f.Page(3, true)
			require.NoError(t, err)
			f.resize(1)
			out, again := s.put(&op{Kind: opInstall, Addr: a + 3*k, Frame: uint64(fr), Object: l.bind.handle, Off: 3, Epoch: l.epoch})
			require.True(t, again, "outcome %d", out)
			require.Equal(t, BusError, s.Fault(a+3*k, linux.PROT_READ))
			f.resize(4)
		}

		// A copy of a frame that is not there any more.
		for _, change := range []func(){unmap, func() { anon(); touch() }, touch, func() { file(linux.MAP_SHARED); touch() }} {
			anon()
			touch()
			c, err := s.Fork()
			require.NoError(t, err)
			late(t, s, a, seenCopy, change)
			c.Put()
		}

		// A frame that was the last one's, and then was shared again.
		for _, change := range []func(){unmap, fork, anon} {
			anon()
			touch()
			fork()
			late(t, s, a, seenReuse, change)
		}

		// While a fork waits for other CPUs nothing may be copied or written.
		anon()
		touch()
		c, err := s.Fork()
		require.NoError(t, err)
		var l look
		s.engine.read(a, rw, &l)
		require.Equal(t, seenCopy, l.seen)
		s.do(&op{Kind: opFork})
		var during look
		s.engine.read(a, rw, &during)
		require.Equal(t, seenWait, during.seen)
		_, again := s.bring(a, linux.PROT_WRITE, &l)
		require.True(t, again)
		s.do(&op{Kind: opForked})
		require.Equal(t, Resolved, s.Fault(a, linux.PROT_WRITE))
		c.Put()
		unmap()
		f.resize(0)
	})
}

// Pages that come with their neighbours do not replace anything, nor go where they do not belong.
func TestLateAround(t *testing.T) {
	run(t, nil, func(m *machine, s *Space) {
		const a = uint64(1) << 40
		s.must(t, MapArgs{Addr: a, Len: 8 * k, Prot: rw, Flags: private | fixed})
		require.NoError(t, s.Store64(a+2*k, 22))
		require.NoError(t, s.Unmap(a+6*k, 2*k))
		var frames [8]frame.Frame
		for i := range frames {
			f, err := m.pool.AllocZero()
			require.NoError(t, err)
			frames[i] = f
		}
		m.pool.Unref(frames[4])
		frames[4] = frame.None
		var r resp
		s.engine.applyFrames(&op{Kind: opAround, Addr: a, Flags: putOwn}, frames[:], &r)
		require.EqualValues(t, 0b101011, r.mask)
		v, err := s.Load64(a + 2*k)
		require.NoError(t, err)
		require.EqualValues(t, 22, v)
		for i, f := range frames {
			if r.mask&(1<<i) == 0 {
				s.sys.unref(f)
			}
		}
	})
}
