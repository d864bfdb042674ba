package paging

// chain is a list of tables that are not part of any tree, linked through their
// entries 0, so that holding them takes no other memory. A link has the bit link
// set; 0 ends the list.
type chain struct {
	head, tail uint64
}

// push adds a table, overwriting its entry 0.
func (s *Space) push(c *chain, phys uint64) {
	s.window.table(phys).store(0, c.head)
	if c.head == 0 {
		c.tail = phys | link
	}
	c.head = phys | link
}

// pop removes a table, which is then as it was but for a clear entry 0, and returns
// its address. The chain must not be empty.
func (s *Space) pop(c *chain) uint64 {
	phys := c.head &^ link
	t := s.window.table(phys)
	c.head = t.load(0)
	t.store(0, 0)
	return phys
}

// take allocates n clear tables onto c; if it cannot, it allocates none.
func (s *Space) take(c *chain, n int) bool {
	for range n {
		phys, ok := s.frames.AllocTable()
		if !ok {
			s.drop(c)
			return false
		}
		clear(s.window.table(phys)[:])
		s.push(c, phys)
	}
	return true
}

// drop frees the tables of c.
func (s *Space) drop(c *chain) {
	for c.head != 0 {
		s.frames.FreeTable(s.pop(c))
	}
}

// Flush is what processors may still have cached after a change: translations of
// addresses among Pages 4 KiB pages from Start. INVLPG of each page does it, also
// for large leaves; so does a load of CR3 unless Global. Both also drop the cached
// structure entries of tables to be released. The zero Flush needs nothing.
type Flush struct {
	Start  uint64
	Pages  uint64 // in the smallest range that covers all changes; 0: nothing to do
	Leaves int    // leaves that were changed or removed, including ones that need no flush
	Global bool   // some were global
	tables chain
}

// cover extends f to [va, va+size).
func (f *Flush) cover(va, size uint64) {
	pages := size / Size4K
	if f.Pages == 0 {
		f.Start, f.Pages = va, pages
		return
	}
	start := min(f.Start, va)
	// Page counts, not end addresses: the last page ends at 2^64.
	f.Pages = max((f.Start-start)/Size4K+f.Pages, (va-start)/Size4K+pages)
	f.Start = start
}

// Add adds g, also a Flush of s, to f, so that several changes share one
// invalidation. Only f may be released then.
func (s *Space) Add(f *Flush, g Flush) {
	if g.Pages != 0 {
		f.cover(g.Start, g.Pages*Size4K)
	}
	f.Leaves += g.Leaves
	f.Global = f.Global || g.Global
	if g.tables.head != 0 {
		if f.tables.head == 0 {
			f.tables = g.tables
		} else {
			s.window.table(g.tables.tail&^link).store(0, f.tables.head)
			f.tables.head = g.tables.head
		}
	}
}

// Release gives back the tables that the changes of f emptied. f must have been
// carried out on every processor; it is zero afterwards.
func (s *Space) Release(f *Flush) {
	s.drop(&f.tables)
	*f = Flush{}
}
