// Package poll is poll(2) and select(2), over any files.
package poll

import (
	"encoding/binary"
	"sync"

	"dinos/dkernel/vfs"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

// watch is a file that is waited for.
type watch struct {
	ref   vfs.Ref
	entry wait.Entry
	q     *wait.Queue
	fd    int32
	want  wait.Events // asked for
	count wait.Events // what ends the waiting
	got   wait.Events
}

// set is what one call waits for. It is kept for the next one, so that nothing is allocated.
type set struct {
	watches []watch
	buf     []byte
}

var sets = sync.Pool{New: func() any { return new(set) }}

// keep is how many watches of a set are kept.
const keep = 1024

// grow makes room for n watches.
func (s *set) grow(n int) {
	if cap(s.watches) < n {
		s.watches = make([]watch, n)
	}
	s.watches = s.watches[:n]
}

// bytes is a buffer of n bytes.
func (s *set) bytes(n int) []byte {
	if cap(s.buf) < n {
		s.buf = make([]byte, n)
	}
	return s.buf[:n]
}

// done gives up all files.
func (s *set) done() {
	for i := range s.watches {
		w := &s.watches[i]
		if w.ref.Description != nil {
			w.ref.Put()
		}
		w.ref, w.q, w.entry.W = vfs.Ref{}, nil, nil
	}
	if cap(s.watches) <= keep {
		sets.Put(s)
	}
}

// look asks all files and returns how many have something.
func (s *set) look() (n int) {
	for i := range s.watches {
		w := &s.watches[i]
		if w.fd < 0 {
			continue
		}
		if w.ref.Description == nil {
			w.got = wait.Nval
		} else {
			w.got = w.ref.Poll() & w.count
		}
		if w.got != 0 {
			n++
		}
	}
	return n
}

// wait looks until something is there. Errors: linux.ERESTARTNOHAND after a signal.
func (s *set) wait(c *vfs.Caller, deadline int64) (n int, err error) {
	if n = s.look(); n > 0 || deadline <= 0 || c.Sleeper == nil {
		return n, nil
	}
	for i := range s.watches {
		w := &s.watches[i]
		if w.ref.Description == nil {
			continue
		}
		if w.q = w.ref.Queue(); w.q != nil {
			w.entry.W, w.entry.Mask = c.Sleeper, w.want
			w.q.Add(&w.entry)
		}
	}
	for {
		if n = s.look(); n > 0 {
			break
		}
		if err = c.Sleeper.Sleep(deadline); err != nil {
			n = s.look()
			break
		}
	}
	for i := range s.watches {
		if w := &s.watches[i]; w.q != nil {
			w.q.Remove(&w.entry)
		}
	}
	if n > 0 || err == linux.ETIMEDOUT {
		return n, nil
	}
	return 0, linux.ERESTARTNOHAND
}

const pollSize = 8 // of struct pollfd

// Poll is poll(2) and ppoll(2) of n structures at addr. It returns how many of them have events. The deadline is the Sleeper's, 0 is not to
// wait. Errors: linux.EINVAL if n is more than the limit of open files, linux.EFAULT, linux.ERESTARTNOHAND after a signal
// (poll(2) of Linux goes on with the time that was left, which its caller may make of it).
func Poll(c *vfs.Caller, addr uint64, n int, deadline int64) (int, error) {
	if n < 0 || n > c.OpenLimit {
		return 0, linux.EINVAL
	}
	s := sets.Get().(*set)
	defer s.done()
	s.grow(0)
	b := s.bytes(n * pollSize)
	if _, err := c.Mem.CopyIn(b, addr); err != nil {
		return 0, err
	}
	s.grow(n)
	le := binary.LittleEndian
	for i := range s.watches {
		w := &s.watches[i]
		w.fd, w.want, w.got = int32(le.Uint32(b[i*pollSize:])), wait.Events(le.Uint16(b[i*pollSize+4:])), 0
		w.count = w.want | wait.Always
		if w.fd >= 0 {
			w.ref, _ = c.Files.Get(int(w.fd))
		}
	}
	got, err := s.wait(c, deadline)
	if err != nil {
		return 0, err
	}
	for i := range s.watches {
		le.PutUint16(b[i*pollSize+6:], uint16(s.watches[i].got))
	}
	if _, err := c.Mem.CopyOut(addr, b); err != nil {
		return 0, err
	}
	return got, nil
}

// What of the events of poll(2) counts for the three sets of select(2).
const (
	readable    = wait.In | wait.RdNorm | wait.RdBand | wait.Hup | wait.Err
	writable    = wait.Out | wait.WrNorm | wait.WrBand | wait.Err
	exceptional = wait.Pri
)

var wants = [3]wait.Events{readable, writable, exceptional}

// Select is select(2) and pselect6(2) of descriptors below n; the addresses are those of the sets, 0 for none. It returns how many
// bits the sets have then. The deadline is the Sleeper's, 0 is not to wait. Errors: linux.EINVAL, linux.EBADF for a descriptor
// that is not open, linux.EFAULT, linux.ERESTARTNOHAND after a signal; then the sets stay as they are.
func Select(c *vfs.Caller, n int, addrs [3]uint64, deadline int64) (int, error) {
	if n < 0 {
		return 0, linux.EINVAL
	}
	n = min(n, c.Files.Size())
	s := sets.Get().(*set)
	defer s.done()
	s.grow(0)
	size := (n + 63) / 64 * 8
	b := s.bytes(3 * size)
	for i, a := range addrs {
		if a == 0 {
			clear(b[i*size : (i+1)*size])
		} else if _, err := c.Mem.CopyIn(b[i*size:(i+1)*size], a); err != nil {
			return 0, err
		}
	}
	if err := s.chosen(c, b, n, size); err != nil {
		return 0, err
	}
	if _, err := s.wait(c, deadline); err != nil {
		return 0, err
	}
	clear(b)
	got := 0
	for i := range s.watches {
		w := &s.watches[i]
		for k, want := range wants {
			if w.want&want&^(wait.Hup|wait.Err) != 0 && w.got&want != 0 {
				b[k*size+int(w.fd)/8] |= 1 << (w.fd % 8)
				got++
			}
		}
	}
	for i, a := range addrs {
		if a != 0 {
			if _, err := c.Mem.CopyOut(a, b[i*size:(i+1)*size]); err != nil {
				return 0, err
			}
		}
	}
	return got, nil
}

// chosen makes a watch of each descriptor that is in a set.
func (s *set) chosen(c *vfs.Caller, b []byte, n, size int) error {
	count := 0
	for i := range size {
		x := b[i] | b[size+i] | b[2*size+i]
		for ; x != 0; x &= x - 1 {
			count++
		}
	}
	s.grow(count)
	k := 0
	for fd := range n {
		var want wait.Events
		for i, w := range wants {
			if b[i*size+fd/8]>>(fd%8)&1 != 0 {
				want |= w
			}
		}
		if want == 0 {
			continue
		}
		w := &s.watches[k]
		ref, err := c.Files.Get(fd)
		if err != nil {
			return err
		}
		w.ref, w.fd, w.want, w.count, w.got = ref, int32(fd), want, want, 0
		k++
	}
	s.grow(k)
	return nil
}
