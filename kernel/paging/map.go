package paging

// job is a call of Map in progress.
type job struct {
	s     *Space
	attr  Attr
	top   int    // level of the largest leaves allowed
	delta uint64 // physical minus linear address
	spare chain
}

// Map maps [va, va+n) to [pa, pa+n) with attr, in leaves as large as alignment,
// the tables that exist and largest (Size4K, Size2M or Size1G) allow.
//
// Errors: ErrMapped if any page of the range is mapped; ErrNoMemory, ErrMisaligned,
// ErrNonCanonical, ErrPhysRange, ErrBadAttr.
func (s *Space) Map(va, pa, n uint64, attr Attr, largest uint64) error {
	lin, end, err := check(va, n)
	if err != nil {
		return err
	}
	top := levelOf(largest)
	switch {
	case pa&(Size4K-1) != 0:
		return ErrMisaligned
	case pa >= maxPhys || n > maxPhys-pa:
		return ErrPhysRange
	case attr&^allAttr != 0 || top == 0:
		return ErrBadAttr
	}
	if n == Size4K {
		if t, level, e := s.find(lin); e != 0 {
			return ErrMapped
		} else if level == levelPT {
			t.store(index(lin, levelPT), encode(pa, attr, levelPT))
			return nil
		}
	}
	j := job{s: s, attr: attr, top: top, delta: pa - lin}
	need, ok := j.plan(s.root, levelPML4, lin, end)
	if !ok {
		return ErrMapped
	}
	if !s.take(&j.spare, need) {
		return ErrNoMemory
	}
	j.fill(s.root, levelPML4, lin, end)
	return nil
}

// leaf tells whether the part [lin, next) of an absent entry of level becomes a
// leaf of that level.
func (j *job) leaf(level int, lin, next uint64) bool {
	size := uint64(1) << shift(level)
	return level <= j.top && next-lin == size && (lin|(lin+j.delta))&(size-1) == 0
}

// plan returns how many tables fill will need in the range; false if something is
// mapped there. t is nil for a table that does not exist yet.
func (j *job) plan(t *Table, level int, lin, end uint64) (need int, ok bool) {
	if level == levelPT {
		if t != nil {
			for i := lin; i < end; i += Size4K {
				if t.load(index(i, levelPT)) != 0 {
					return 0, false
				}
			}
		}
		return 0, true
	}
	size := uint64(1) << shift(level)
	for lin < end {
		next := min(end, lin&^(size-1)+size)
		var e uint64
		if t != nil {
			e = t.load(index(lin, level))
		}
		switch {
		case e == 0 && j.leaf(level, lin, next):
		case e == 0:
			below, _ := j.plan(nil, level-1, lin, next)
			need += 1 + below
		case isTable(e):
			below, ok := j.plan(j.s.window.table(e), level-1, lin, next)
			if !ok {
				return 0, false
			}
			need += below
		default:
			return 0, false
		}
		lin = next
	}
	return need, true
}

// fill writes the leaves of the range. A new table is linked when it is complete.
func (j *job) fill(t *Table, level int, lin, end uint64) {
	size := uint64(1) << shift(level)
	for lin < end {
		next := min(end, lin&^(size-1)+size)
		i := index(lin, level)
		e := uint64(0)
		if level > levelPT {
			e = t.load(i)
		}
		switch {
		case e != 0:
			j.fill(j.s.window.table(e), level-1, lin, next)
		case j.leaf(level, lin, next):
			t.store(i, encode(lin+j.delta, j.attr, level))
		default:
			phys := j.s.pop(&j.spare)
			j.fill(j.s.window.table(phys), level-1, lin, next)
			t.store(i, phys|tableEntry(lin))
		}
		lin = next
	}
}

// tableEntry returns the attributes of a table entry for lin: user code may pass
// through those of the lower half only.
func tableEntry(lin uint64) uint64 {
	if lin>>47 != 0 {
		return tableBits
	}
	return tableBits | uint64(User)
}
