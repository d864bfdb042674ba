package mm

import (
	"bytes"
	"sync/atomic"

	"dinos/dkernel/frame"
	"dinos/kernel/linux"
	"dinos/kernel/paging"
)

// access returns the frame of the page at addr for reading or writing. The caller has become a reader with the token; on success it
// still is one, else not any more. It brings the page in if it is not there.
func (s *Space) access(addr uint64, write bool, k *token) frame.Frame {
	for {
		*k = s.readers.enter()
		if f := s.frameAt(addr, write); f != frame.None {
			return f
		}
		s.readers.leave(*k)
		prot := linux.PROT_READ
		if write {
			prot = linux.PROT_WRITE
		}
		switch s.Fault(addr, prot) {
		case Resolved:
		case NoMemory:
			s.starved.Store(true)
			return frame.None
		default:
			return frame.None
		}
	}
}

// part is how much of n bytes lies in the page of addr.
func part(addr, n uint64) uint64 { return min(n, pageSize-addr&(pageSize-1)) }

// inPage reports whether n bytes at addr are in one page of a program's.
func inPage(addr, n uint64) bool { return addr&(pageSize-1)+n <= pageSize && addr < userTop }

// What a leaf must have for the kernel to read or write by it.
const (
	canRead  = paging.Present
	canWrite = paging.Present | paging.Writable
)

// CopyIn copies len(dst) bytes at addr to dst. It returns how many were copied; the error is linux.EFAULT if not all. It implements
// uio.Memory, as do CopyOut and Zero.
func (s *Space) CopyIn(dst []byte, addr uint64) (int, error) {
	if inPage(addr, uint64(len(dst))) {
		k := s.readers.enter()
		pa, a := s.tree.pt.Page(addr)
		if a&canRead == canRead {
			copy(dst, s.sys.frames.At(pa, uint64(len(dst))))
			s.readers.leave(k)
			return len(dst), nil
		}
		s.readers.leave(k)
	}
	return s.copyIn(dst, addr)
}

func (s *Space) copyIn(dst []byte, addr uint64) (int, error) {
	done := 0
	var k token
	for done < len(dst) {
		f := s.access(addr, false, &k)
		if f == frame.None {
			return done, linux.EFAULT
		}
		n := part(addr, uint64(len(dst)-done))
		off := addr & (pageSize - 1)
		copy(dst[done:done+int(n)], s.sys.frames.Bytes(f)[off:off+n])
		s.readers.leave(k)
		done += int(n)
		addr += n
	}
	return done, nil
}

// CopyOut copies src to addr.
func (s *Space) CopyOut(addr uint64, src []byte) (int, error) {
	if inPage(addr, uint64(len(src))) {
		k := s.readers.enter()
		pa, a := s.tree.pt.Page(addr)
		if a&canWrite == canWrite {
			copy(s.sys.frames.At(pa, uint64(len(src))), src)
			s.readers.leave(k)
			return len(src), nil
		}
		s.readers.leave(k)
	}
	return s.copyOut(addr, src)
}

func (s *Space) copyOut(addr uint64, src []byte) (int, error) {
	done := 0
	var k token
	for done < len(src) {
		f := s.access(addr, true, &k)
		if f == frame.None {
			return done, linux.EFAULT
		}
		n := part(addr, uint64(len(src)-done))
		off := addr & (pageSize - 1)
		copy(s.sys.frames.Bytes(f)[off:off+n], src[done:done+int(n)])
		s.readers.leave(k)
		done += int(n)
		addr += n
	}
	return done, nil
}

// Zero stores n zero bytes at addr.
func (s *Space) Zero(addr, n uint64) (uint64, error) {
	var k token
	for done := uint64(0); done < n; {
		f := s.access(addr, true, &k)
		if f == frame.None {
			return done, linux.EFAULT
		}
		c := part(addr, n-done)
		off := addr & (pageSize - 1)
		if c == pageSize {
			s.sys.frames.Zero(f)
		} else {
			clear(s.sys.frames.Bytes(f)[off : off+c])
		}
		s.readers.leave(k)
		done += c
		addr += c
	}
	return n, nil
}

// String is the string at addr, up to its zero byte. Errors: linux.EFAULT; linux.ENAMETOOLONG if there is no zero byte among the
// first limit bytes.
func (s *Space) String(addr uint64, limit int) (string, error) {
	var short [64]byte
	out := short[:0]
	var k token
	for len(out) < limit {
		f := s.access(addr, false, &k)
		if f == frame.None {
			return "", linux.EFAULT
		}
		n := part(addr, uint64(limit-len(out)))
		off := addr & (pageSize - 1)
		b := s.sys.frames.Bytes(f)[off : off+n]
		i := bytes.IndexByte(b, 0)
		if i >= 0 {
			b = b[:i]
		}
		out = append(out, b...)
		s.readers.leave(k)
		if i >= 0 {
			// A program that writes meanwhile may have put a zero byte behind our back.
			if i := bytes.IndexByte(out, 0); i >= 0 {
				out = out[:i]
			}
			return string(out), nil
		}
		addr += n
	}
	return "", linux.ENAMETOOLONG
}

// Load32 loads the 32-bit word at addr, atomically with respect to programs on all CPUs. Errors of this and the next ones:
// linux.EFAULT; linux.EINVAL if addr is not aligned.
func (s *Space) Load32(addr uint64) (v uint32, err error) {
	k := s.readers.enter()
	if pa, a := s.tree.pt.Page(addr); a&canRead == canRead && addr%4 == 0 && addr < userTop {
		v = atomic.LoadUint32(s.sys.frames.Word32(pa))
		s.readers.leave(k)
		return v, nil
	}
	s.readers.leave(k)
	w, err := s.word32(addr, false, &k)
	if err == nil {
		v = atomic.LoadUint32(w)
		s.readers.leave(k)
	}
	return v, err
}

// Store32 stores v.
func (s *Space) Store32(addr uint64, v uint32) error {
	var k token
	w, err := s.word32(addr, true, &k)
	if err == nil {
		atomic.StoreUint32(w, v)
		s.readers.leave(k)
	}
	return err
}

// CompareAndSwap32 replaces old by v, and reports whether it did.
func (s *Space) CompareAndSwap32(addr uint64, old, v uint32) (swapped bool, err error) {
	k := s.readers.enter()
	if pa, a := s.tree.pt.Page(addr); a&canWrite == canWrite && addr%4 == 0 && addr < userTop {
		swapped = atomic.CompareAndSwapUint32(s.sys.frames.Word32(pa), old, v)
		s.readers.leave(k)
		return swapped, nil
	}
	s.readers.leave(k)
	w, err := s.word32(addr, true, &k)
	if err == nil {
		swapped = atomic.CompareAndSwapUint32(w, old, v)
		s.readers.leave(k)
	}
	return swapped, err
}

// Load64 loads the 64-bit word at addr.
func (s *Space) Load64(addr uint64) (v uint64, err error) {
	var k token
	w, err := s.word64(addr, false, &k)
	if err == nil {
		v = atomic.LoadUint64(w)
		s.readers.leave(k)
	}
	return v, err
}

// Store64 stores v.
func (s *Space) Store64(addr, v uint64) error {
	var k token
	w, err := s.word64(addr, true, &k)
	if err == nil {
		atomic.StoreUint64(w, v)
		s.readers.leave(k)
	}
	return err
}

// CompareAndSwap64 replaces old by v, and reports whether it did.
func (s *Space) CompareAndSwap64(addr, old, v uint64) (swapped bool, err error) {
	var k token
	w, err := s.word64(addr, true, &k)
	if err == nil {
		swapped = atomic.CompareAndSwapUint64(w, old, v)
		s.readers.leave(k)
	}
	return swapped, err
}

// word32 is the word at addr; unless there is an error, the caller is a reader.
func (s *Space) word32(addr uint64, write bool, k *token) (*uint32, error) {
	if addr%4 != 0 {
		return nil, linux.EINVAL
	}
	f := s.access(addr, write, k)
	if f == frame.None {
		return nil, linux.EFAULT
	}
	return &s.sys.frames.Words32(f)[addr%pageSize/4], nil
}

func (s *Space) word64(addr uint64, write bool, k *token) (*uint64, error) {
	if addr%8 != 0 {
		return nil, linux.EINVAL
	}
	f := s.access(addr, write, k)
	if f == frame.None {
		return nil, linux.EFAULT
	}
	return &s.sys.frames.Words(f)[addr%pageSize/8], nil
}

// Key names a futex: equal keys are the same word. The zero Key names none.
type Key struct {
	Owner  uint64 // the ID of an address space, or of contents with the highest bit set
	Offset uint64 // the address, or the offset in the contents
}

// FutexKey is the key of the word at addr. If shared is false it is only good within this address space. Errors: linux.EFAULT if nothing
// is mapped at addr; linux.EINVAL if it is not aligned.
func (s *Space) FutexKey(addr uint64, shared bool) (Key, error) {
	if addr%4 != 0 {
		return Key{}, linux.EINVAL
	}
	if addr >= userTop {
		return Key{}, linux.EFAULT
	}
	if !shared {
		return Key{s.id, addr}, nil
	}
	for {
		var l look
		s.engine.read(addr&^(pageSize-1), linux.PROT_READ, &l)
		switch {
		case l.seen == seenNone || l.seen == seenDenied:
			return Key{}, linux.EFAULT
		case l.seen == seenGrow:
			if s.Fault(addr, linux.PROT_READ) != Resolved {
				return Key{}, linux.EFAULT
			}
		case l.flags&vmShared != 0:
			return Key{l.bind.id | 1<<63, l.index<<pageShift | addr&(pageSize-1)}, nil
		default:
			return Key{s.id, addr}, nil
		}
	}
}
