package loader

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"dinos/dkernel/mm"
	"dinos/kernel/linux"
)

// memFile is an executable in memory.
type memFile struct {
	data   []byte
	attr   Attr
	opened *int // counts those that are open
	fail   error
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	if f.fail != nil {
		return 0, f.fail
	}
	if off < 0 {
		panic("negative offset")
	}
	if off >= int64(len(f.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) Object() mm.Object { return &memObject{data: f.data} }
func (f *memFile) Attr() Attr        { return f.attr }
func (f *memFile) Close() {
	if f.opened != nil {
		*f.opened--
	}
}

// memObject is what of an mm.Object the model below needs.
type memObject struct {
	mm.Object
	data []byte
	name string
}

// mapping is one of the model's.
type mapping struct {
	start, end uint64
	prot       int
	grows      bool
	obj        *memObject
	off        uint64
	pages      map[uint64][]byte // by address, made when written
}

// space is a model of an address space: slow, and strict about what it is asked for.
type space struct {
	layout mm.Layout
	maps   []*mapping // sorted
	brk    uint64
	limit  uint64 // bytes that can be promised at once; 0: all
	low    bool   // page 0 may be mapped
	calls  int
	failAt int // the call of this number fails
}

func (s *space) fault() bool {
	s.calls++
	return s.calls == s.failAt
}

func (s *space) Map(a mm.MapArgs) (uint64, error) {
	addr, length, prot, flags, obj, off := a.Addr, a.Len, a.Prot, a.Flags, a.Object, a.Offset
	if s.fault() {
		return 0, linux.ENOMEM
	}
	if (addr|length|off)%pageSize != 0 || length == 0 || flags&linux.MAP_PRIVATE == 0 || (obj == nil) != (flags&linux.MAP_ANONYMOUS != 0) {
		panic(fmt.Sprintf("bad mmap: %#x %#x %#x %#x", addr, length, flags, off))
	}
	if length > taskSize || off > 1<<63 {
		return 0, linux.ENOMEM
	}
	if s.limit != 0 && obj == nil && prot&linux.PROT_WRITE != 0 && flags&linux.MAP_NORESERVE == 0 && length > s.limit {
		return 0, linux.ENOMEM
	}
	fixed := flags&(linux.MAP_FIXED|linux.MAP_FIXED_NOREPLACE) != 0
	if !fixed {
		addr = s.find(length)
		if addr == 0 {
			return 0, linux.ENOMEM
		}
	}
	if addr > taskSize-length {
		return 0, linux.ENOMEM
	}
	if addr < 65536 && !s.low {
		return 0, linux.EPERM
	}
	if flags&linux.MAP_FIXED_NOREPLACE != 0 && s.overlaps(addr, addr+length) {
		return 0, linux.EEXIST
	}
	s.unmap(addr, addr+length)
	m := &mapping{start: addr, end: addr + length, prot: prot, off: off, grows: flags&linux.MAP_GROWSDOWN != 0, pages: map[uint64][]byte{}}
	if obj != nil {
		m.obj = obj.(*memObject)
	}
	s.maps = append(s.maps, m)
	slices.SortFunc(s.maps, func(a, b *mapping) int {
		if a.start < b.start {
			return -1
		}
		return 1
	})
	return addr, nil
}

func (s *space) overlaps(start, end uint64) bool {
	return slices.ContainsFunc(s.maps, func(m *mapping) bool { return m.start < end && start < m.end })
}

// find looks for room as Linux does.
func (s *space) find(length uint64) uint64 {
	if s.layout.Legacy {
		addr := s.layout.MmapBase
		for _, m := range s.maps {
			if m.end > addr && m.start < addr+length {
				addr = m.end
			}
		}
		return addr
	}
	if length > s.layout.MmapBase {
		return 0
	}
	addr := s.layout.MmapBase - length
	for _, m := range slices.Backward(s.maps) {
		if m.end > addr && m.start < addr+length {
			if m.start < length {
				return 0
			}
			addr = m.start - length
		}
	}
	return addr
}

func (s *space) unmap(start, end uint64) {
	var out []*mapping
	for _, m := range s.maps {
		if m.end <= start || end <= m.start {
			out = append(out, m)
			continue
		}
		if m.start < start {
			left := *m
			left.end = start
			out = append(out, &left)
		}
		if m.end > end {
			right := *m
			right.start = end
			if m.obj != nil {
				right.off += end - m.start
			}
			out = append(out, &right)
		}
	}
	s.maps = out
}

func (s *space) Unmap(addr, length uint64) error {
	if s.fault() {
		return linux.ENOMEM
	}
	if (addr|length)%pageSize != 0 || length == 0 {
		panic("bad munmap")
	}
	s.unmap(addr, addr+length)
	return nil
}

func (s *space) SetBreakStart(addr uint64) {
	if addr%pageSize != 0 {
		panic("bad break")
	}
	s.brk = addr
}

func (s *space) SetStack(addr uint64) {
	if s.page(addr, linux.PROT_READ) == nil {
		panic("no stack there")
	}
}

// page returns the bytes of a page as the program sees them, nil if it may not use it so.
func (s *space) page(addr uint64, prot int) []byte {
	addr = pageDown(addr)
	for _, m := range s.maps {
		if addr < m.start || addr >= m.end || m.prot&prot != prot {
			continue
		}
		if p := m.pages[addr]; p != nil {
			return p
		}
		p := make([]byte, pageSize)
		if m.obj != nil {
			off := m.off + addr - m.start
			if off >= pageUp(uint64(len(m.obj.data))) {
				return nil // SIGBUS
			}
			if off < uint64(len(m.obj.data)) {
				copy(p, m.obj.data[off:])
			}
		}
		if prot&linux.PROT_WRITE != 0 {
			m.pages[addr] = p
		}
		return p
	}
	return nil
}

func (s *space) CopyIn(dst []byte, addr uint64) (int, error) {
	return s.each(addr, uint64(len(dst)), linux.PROT_READ, func(p []byte, n int) { copy(dst[n:], p) })
}

func (s *space) CopyOut(addr uint64, src []byte) (int, error) {
	if s.fault() {
		return 0, linux.EFAULT
	}
	return s.each(addr, uint64(len(src)), linux.PROT_WRITE, func(p []byte, n int) { copy(p, src[n:]) })
}

func (s *space) Zero(addr, n uint64) (uint64, error) {
	if s.fault() {
		return 0, linux.EFAULT
	}
	done, err := s.each(addr, n, linux.PROT_WRITE, func(p []byte, _ int) { clear(p) })
	return uint64(done), err
}

func (s *space) each(addr, n uint64, prot int, f func(p []byte, done int)) (int, error) {
	done := 0
	for uint64(done) < n {
		at := addr + uint64(done)
		p := s.page(at, prot)
		if p == nil {
			return done, linux.EFAULT
		}
		p = p[at%pageSize:]
		p = p[:min(uint64(len(p)), n-uint64(done))]
		f(p, done)
		done += len(p)
	}
	return done, nil
}

// list prints the mappings like /proc/PID/maps.
func (s *space) list() string {
	out := ""
	for _, m := range s.maps {
		perm := []byte("---p")
		for i, c := range "rwx" {
			if m.prot>>i&1 != 0 {
				perm[i] = byte(c)
			}
		}
		name := ""
		if m.obj != nil {
			name = " file"
			if m.obj.name != "" {
				name = " " + m.obj.name
			}
		}
		if m.grows {
			name = " [stack]"
		}
		out += fmt.Sprintf("%x-%x %s %x%s\n", m.start, m.end, perm, m.off, name)
	}
	return out
}

// merge joins lines of list, or of /proc/PID/maps, that belong together: how many mappings there are is nobody's business.
func merge(list string) string {
	type line struct {
		start, end, off uint64
		perm, name      string
	}
	var out []line
	for text := range strings.Lines(list) {
		var l line
		_, _ = fmt.Sscanf(text, "%x-%x %s %x %s", &l.start, &l.end, &l.perm, &l.off, &l.name)
		if n := len(out); n > 0 {
			p := &out[n-1]
			if p.end == l.start && p.perm == l.perm && p.name == l.name && (l.name == "" || p.off+p.end-p.start == l.off) {
				p.end = l.end
				continue
			}
		}
		out = append(out, l)
	}
	return fmt.Sprintf("%x", out)
}
