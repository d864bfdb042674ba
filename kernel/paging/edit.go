package paging

// edit is a call of Unmap or Protect in progress.
type edit struct {
	s          *Space
	set, clear Attr
	visit      func(Leaf)
	reclaim    bool
	flush      Flush
}

// Unmap removes every leaf in [va, va+n), each shown to visit (which may be nil)
// as it was at that moment, Accessed and Dirty included. Pages that are not
// mapped are skipped: Flush.Leaves tells whether anything was. Large leaves that
// reach over an end of the range are split.
//
// Errors: ErrNoMemory (for a split), ErrMisaligned, ErrNonCanonical.
func (s *Space) Unmap(va, n uint64, visit func(Leaf)) (Flush, error) {
	lin, end, err := check(va, n)
	if err != nil {
		return Flush{}, err
	}
	e := edit{s: s, visit: visit}
	e.reclaim = s.Reclaim == ReclaimAll || s.Reclaim == ReclaimUser && lin>>47 == 0
	if t := s.single(lin, end); t != nil {
		// A neighbour that stays keeps the table; since n < 2 MiB, both are outside.
		if !e.reclaim || t.load(index(lin, levelPT)-1)|t.load(index(end, levelPT)) != 0 {
			e.unmap(t, levelPT, lin, end)
			return e.flush, nil
		}
	}
	if err := s.splitEnds(lin, end); err != nil {
		return Flush{}, err
	}
	e.unmap(s.root, levelPML4, lin, end)
	return e.flush, nil
}

// single returns the level 1 table that holds all of a range of less than 2 MiB, or
// nil. Such a range needs no split and no descent.
func (s *Space) single(lin, end uint64) *Table {
	if end-lin >= Size2M || (lin^(end-1))>>21 != 0 {
		return nil
	}
	if t, level, _ := s.find(lin); level == levelPT {
		return t
	}
	return nil
}

func (d *edit) unmap(t *Table, level int, lin, end uint64) {
	size := uint64(1) << shift(level)
	for lin < end {
		next := min(end, lin&^(size-1)+size)
		i := index(lin, level)
		e := t.load(i)
		switch {
		case e == 0:
		case level > levelPT && isTable(e):
			child := d.s.window.table(e)
			d.unmap(child, level-1, lin, next)
			// The tables right below the PML4's upper half are shared by all spaces.
			shared := level == levelPML4 && lin>>47 != 0
			if d.reclaim && !shared && (next-lin == size || child.empty(index(lin, level-1))) {
				t.store(i, 0)
				d.s.push(&d.flush.tables, e&addrMask)
				d.flush.cover(canonical(lin&^(Size4K-1)), Size4K)
			}
		default:
			e = t.swap(i, 0)
			d.note(lin, e, level, e&uint64(Present) != 0)
			if d.visit != nil {
				d.visit(leafOf(lin, e, level))
			}
		}
		lin = next
	}
}

// note records that the leaf e changed, and whether processors may have cached it.
func (d *edit) note(lin, e uint64, level int, cached bool) {
	d.flush.Leaves++
	if cached {
		d.flush.cover(canonical(lin), 1<<shift(level))
		d.flush.Global = d.flush.Global || e&uint64(Global) != 0
	}
}

// Protect clears the attributes clear, then sets set, in every leaf of
// [va, va+n). Pages that are not mapped are skipped: Flush.Leaves counts the leaves
// that changed. Large leaves that reach over an end of the range are split.
//
// Errors: ErrNoMemory (for a split), ErrMisaligned, ErrNonCanonical, ErrBadAttr.
func (s *Space) Protect(va, n uint64, set, clear Attr) (Flush, error) {
	lin, end, err := check(va, n)
	if err != nil {
		return Flush{}, err
	}
	if (set|clear)&^allAttr != 0 {
		return Flush{}, ErrBadAttr
	}
	e := edit{s: s, set: set, clear: clear}
	if t := s.single(lin, end); t != nil {
		e.protect(t, levelPT, lin, end)
		return e.flush, nil
	}
	if err := s.splitEnds(lin, end); err != nil {
		return Flush{}, err
	}
	e.protect(s.root, levelPML4, lin, end)
	return e.flush, nil
}

func (d *edit) protect(t *Table, level int, lin, end uint64) {
	size := uint64(1) << shift(level)
	for lin < end {
		next := min(end, lin&^(size-1)+size)
		i := index(lin, level)
		for {
			e := t.load(i)
			if e == 0 {
				break
			}
			if level > levelPT && isTable(e) {
				d.protect(d.s.window.table(e), level-1, lin, next)
				break
			}
			pa, old := decode(e, level)
			now := old&^d.clear | d.set
			if now == old {
				break
			}
			// The processor may set Accessed or Dirty at any moment.
			if t.cas(i, e, encode(pa, now, level)) {
				d.note(lin, e, level, old&Present != 0 && stricter(old, now))
				break
			}
		}
		lin = next
	}
}

// stricter tells whether a processor that has old cached could do what now
// forbids, or do it wrongly.
func stricter(old, now Attr) bool {
	const rights, memory = Present | Writable | User | Accessed | Dirty, WriteThrough | CacheDisable | PAT | Global
	return old&^now&rights != 0 || now&^old&NoExecute != 0 || (old^now)&memory != 0
}

// splitEnds splits large leaves that lie across lin or end. The translations stay
// the same, so a cached large one does no harm outside the range, and inside
// INVLPG of any of its pages drops it (SDM §4.10.2.4 and §4.10.4.1).
func (s *Space) splitEnds(lin, end uint64) error {
	need := s.splits(lin)
	if end&(1<<48-1) != 0 {
		need += s.splits(end)
	}
	if need == 0 {
		return nil
	}
	var c chain
	if !s.take(&c, need) {
		return ErrNoMemory
	}
	s.split(lin, lin, &c)
	if end&(1<<48-1) != 0 {
		s.split(end, end, &c)
	}
	s.drop(&c) // both ends were in one leaf
	return nil
}

// splits returns how many tables it takes until lin is not inside a leaf.
func (s *Space) splits(lin uint64) int {
	_, level, e := s.find(lin)
	n := 0
	if e != 0 {
		for level > levelPT && lin&(1<<shift(level)-1) != 0 {
			n++
			level--
		}
	}
	return n
}

// split breaks the leaf at lin down until the multiple of its size is bound.
func (s *Space) split(lin, bound uint64, c *chain) {
	for {
		t, level, e := s.find(lin)
		if e == 0 || level == levelPT || bound&(1<<shift(level)-1) == 0 {
			return
		}
		s.splitOne(t, level, lin, c)
	}
}

// splitOne replaces the leaf of level at lin in t by a table from c.
func (s *Space) splitOne(t *Table, level int, lin uint64, c *chain) {
	phys := s.pop(c)
	child := s.window.table(phys)
	i, size := index(lin, level), uint64(1)<<shift(level-1)
	for {
		e := t.load(i)
		pa, a := decode(e, level)
		for k := range child {
			child[k] = encode(pa+uint64(k)*size, a, level-1) // not linked yet
		}
		// The processor may set Accessed or Dirty at any moment.
		if t.cas(i, e, phys|tableEntry(lin)) {
			return
		}
	}
}

// Split breaks the leaf that contains va into leaves of size bytes (Size4K or
// Size2M) in the parts that va is in. A leaf of at most size bytes stays as it is.
//
// Errors: ErrNotMapped, ErrNonCanonical, ErrNoMemory, ErrBadAttr.
func (s *Space) Split(va, size uint64) (Flush, error) {
	to := levelOf(size)
	if to == 0 || to == levelPDPT {
		return Flush{}, ErrBadAttr
	}
	if canonical(va) != va {
		return Flush{}, ErrNonCanonical
	}
	lin := va & (1<<48 - 1)
	_, level, e := s.find(lin)
	if e == 0 {
		return Flush{}, ErrNotMapped
	}
	if level <= to {
		return Flush{}, nil
	}
	var c chain
	if !s.take(&c, level-to) {
		return Flush{}, ErrNoMemory
	}
	d := edit{s: s}
	whole := leafOf(lin, e, level)
	d.note(whole.VA, e, level, e&uint64(Present) != 0)
	for level > to {
		t, l, _ := s.find(lin)
		s.splitOne(t, l, lin, &c)
		level = l - 1
	}
	return d.flush, nil
}

// Merge replaces the table of 512 leaves that covers the size bytes (Size2M or
// Size1G) around va by one leaf. They must map one aligned run of memory with
// equal attributes, Accessed and Dirty aside. The leaf is marked Accessed, and
// Dirty if it is writable, since the processor may have set the small ones' bits
// meanwhile. Until the flush, an access may take a page fault that a retry resolves.
//
// Errors: ErrNotMapped if there is no such table, ErrNotUniform, ErrNonCanonical,
// ErrBadAttr.
func (s *Space) Merge(va, size uint64) (Flush, error) {
	level := levelOf(size)
	if level < levelPD {
		return Flush{}, ErrBadAttr
	}
	if canonical(va) != va {
		return Flush{}, ErrNonCanonical
	}
	lin := va & (1<<48 - 1) &^ (size - 1)
	t := s.root
	for l := levelPML4; l > level; l-- {
		e := t.load(index(lin, l))
		if !isTable(e) {
			return Flush{}, ErrNotMapped
		}
		t = s.window.table(e)
	}
	i := index(lin, level)
	e := t.load(i)
	if !isTable(e) {
		return Flush{}, ErrNotMapped
	}
	child := s.window.table(e)
	const seen = Accessed | Dirty
	pa, a := decode(child.load(0), level-1)
	a &^= seen
	for k := range uint64(512) {
		c := child.load(k)
		p, b := decode(c, level-1)
		if c == 0 || level-1 > levelPT && isTable(c) || b&^seen != a || p != pa+k<<shift(level-1) {
			return Flush{}, ErrNotUniform
		}
	}
	if pa&(size-1) != 0 {
		return Flush{}, ErrNotUniform
	}
	a |= Accessed
	if a&Writable != 0 {
		a |= Dirty
	}
	t.store(i, encode(pa, a, level))
	d := edit{s: s}
	d.note(lin, encode(pa, a, level), level, true)
	s.push(&d.flush.tables, e&addrMask)
	return d.flush, nil
}
