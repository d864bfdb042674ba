package mm

import "sync"

// Mappings is which address spaces map an object's contents. The zero value is ready for use; an inode has one.
//
// Its methods may be called with locks of the object held that Object's methods take.
type Mappings struct {
	mu     sync.Mutex // before all locks of address spaces
	spaces []mapper   // in the order they came; guarded by mu
}

// mapper is an address space that has n bindings to the contents id.
type mapper struct {
	s  *Space
	id uint64
	n  int
}

func (m *Mappings) add(s *Space, id uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.spaces {
		if e := &m.spaces[i]; e.s == s {
			e.n++
			return
		}
	}
	m.spaces = append(m.spaces, mapper{s, id, 1})
}

func (m *Mappings) remove(s *Space, id uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.spaces {
		if e := &m.spaces[i]; e.s == s {
			if e.n--; e.n == 0 {
				// The order stays: a child is behind its parent.
				m.spaces = append(m.spaces[:i], m.spaces[i+1:]...)
			}
			return
		}
	}
}

// Empty reports whether no address space maps the contents.
func (m *Mappings) Empty() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.spaces) == 0
}

// Zap takes the pages first to last (^uint64(0): to the end) out of all address spaces. When it returns, no program can use their frames
// any more. The object has taken them out of its own books before, so that faults do not find them again. With
// copies, what private mappings have copied of them goes as well, as when a file is truncated.
func (m *Mappings) Zap(first, last uint64, copies bool) { m.each(opZap, first, last, copies) }

// Clean makes the next write to each of the pages first to last ask Object.Page with write again. When it returns, no program can write
// to them without that. An object that writes pages back does it in this order, so that no write is lost: it takes away its marks that
// the pages are dirty, calls Clean, reads the pages.
func (m *Mappings) Clean(first, last uint64) { m.each(opClean, first, last, false) }

func (m *Mappings) each(kind uint32, first, last uint64, copies bool) {
	if last < first {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	o := op{Kind: kind, Off: first, Len: min(last, ^uint64(0)-1) - first + 1}
	if copies {
		o.Flags = 1
	}
	for _, e := range m.spaces {
		o.Object = e.id
		e.s.do(&o)
	}
}
