package mm

// Region is a mapping as /proc/PID/maps shows it.
type Region struct {
	Start, End uint64
	Prot       int // linux.PROT_*
	Shared     bool
	Offset     uint64 // in bytes
	Info       Info   // zero of private memory, but for "[heap]" and "[stack]"
}

// SetStack says in which mapping the stack is, for Regions.
func (s *Space) SetStack(addr uint64) { s.stackAt.Store(addr) }

// Regions lists the mappings from the first that ends above addr on, at most limit of them, in order. It is one moment's state.
func (s *Space) Regions(addr uint64, limit int) (out []Region) {
	stack := s.stackAt.Load()
	var objs []Object
	s.engine.view(func(t *tree) {
		for v := t.at(addr); v != nil && len(out) < limit; v = v.next {
			r := Region{Start: v.start, End: v.end, Prot: v.flags.prot(), Shared: v.flags&vmShared != 0}
			if v.bind == nil {
				switch {
				case v.start < t.brk && v.end > t.brkStart && t.brk != t.brkStart:
					r.Info.Name = "[heap]"
				case v.start <= stack && stack < v.end:
					r.Info.Name = "[stack]"
				}
				out, objs = append(out, r), append(objs, nil)
				continue
			}
			r.Offset = v.off << pageShift
			if v.flags&vmRepeat == 0 {
				out, objs = append(out, r), append(objs, v.bind.obj)
				continue
			}
			// To a program each page is a mapping of its own.
			for a := max(v.start, addr&^(pageSize-1)); a < v.end && len(out) < limit; a += pageSize {
				r.Start, r.End = a, a+pageSize
				out, objs = append(out, r), append(objs, v.bind.obj)
			}
		}
	})
	for i, o := range objs {
		if o != nil {
			out[i].Info = o.Info()
		}
	}
	return out
}

// Stat are sizes of an address space, in pages (/proc/PID/statm and status).
type Stat struct {
	Total, Data, Stack, Exec, Shared, Locked uint64 // mapped
	Own, File                                uint64 // present: RSS is the sum
	Peak                                     uint64 // the most that were present
	Maps                                     uint64 // number of mappings
	BreakStart, Break                        uint64 // addresses
}

// Stat is what there is at this moment.
func (s *Space) Stat() (st Stat) {
	s.engine.view(func(t *tree) {
		c := &t.count
		st = Stat{Total: c.total, Data: c.data, Stack: c.stack, Exec: c.exec, Shared: c.shared, Locked: c.locked, Own: c.own, File: c.file, Peak: t.peak,
			Maps: uint64(t.n), BreakStart: t.brkStart, Break: t.brk}
	})
	return st
}
