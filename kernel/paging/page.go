package paging

// Page is a lean Lookup of a 4 KiB leaf at a canonical address: where va lies in physical memory, and the leaf's attributes. They are
// 0 if nothing is mapped there, or a larger leaf. Kernels call it for each access to a program's memory, so it calls nothing.
func (s *Space) Page(va uint64) (pa uint64, a Attr) {
	e := s.root.load(va >> 39)
	if !isTable(e) {
		return 0, 0
	}
	if e = s.window.table(e).load(va >> 30); !isTable(e) {
		return 0, 0
	}
	if e = s.window.table(e).load(va >> 21); !isTable(e) {
		return 0, 0
	}
	if e = s.window.table(e).load(va >> 12); e == 0 {
		return 0, 0
	}
	return e&addrMask | va&(Size4K-1), Attr(e) & allAttr
}
