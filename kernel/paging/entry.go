package paging

import "sync/atomic"

// Sizes of the leaves, in bytes.
const (
	Size4K = 1 << 12
	Size2M = 1 << 21
	Size1G = 1 << 30
)

// Attr is a set of attributes of a leaf. The values are the bits of a 4 KiB
// entry, Intel SDM vol. 3A table 4-20; Large leaves keep PAT elsewhere, which this
// package hides.
//
// A leaf without Present is mapped but faults on every access (PROT_NONE): it
// keeps its frame and its other attributes.
type Attr uint64

// Attributes.
const (
	Present      Attr = 1 << 0
	Writable     Attr = 1 << 1
	User         Attr = 1 << 2
	WriteThrough Attr = 1 << 3 // PWT, bit 0 of the index into the PAT register
	CacheDisable Attr = 1 << 4 // PCD, bit 1
	Accessed     Attr = 1 << 5 // set by the processor
	Dirty        Attr = 1 << 6 // set by the processor
	PAT          Attr = 1 << 7 // bit 2
	Global       Attr = 1 << 8 // survives a CR3 load when CR4.PGE is on
	Soft0        Attr = 1 << 9 // Soft0..Soft3 are ignored by the processor
	Soft1        Attr = 1 << 10
	Soft2        Attr = 1 << 52
	Soft3        Attr = 1 << 53
	NoExecute    Attr = 1 << 63 // needs EFER.NXE

	// Uncached is the strong uncacheable type with the PAT register's reset value.
	Uncached = WriteThrough | CacheDisable

	allAttr = Present | Writable | User | Uncached | Accessed | Dirty | PAT | Global |
		Soft0 | Soft1 | Soft2 | Soft3 | NoExecute
)

// Memory returns the attributes that select entry i (0–7) of the PAT register.
func Memory(i int) Attr {
	return Attr(i&1)*WriteThrough | Attr(i>>1&1)*CacheDisable | Attr(i>>2&1)*PAT
}

// Layout of an entry.
const (
	pageSize = 1 << 7  // PS: a leaf, above level 1
	mapped   = 1 << 11 // ignored by the processor; keeps a leaf without Present for frame 0 from being 0
	patLarge = 5       // PAT is 5 bits higher in a large leaf, at bit 12
	addrMask = 1<<52 - Size4K
	maxPhys  = 1 << 52

	// A table's entry allows everything: the leaf decides (SDM §4.6). Accessed is
	// set so that the processor need not.
	tableBits = uint64(Present | Writable | Accessed)

	// link marks the entry 0 of a table that was taken out of the tree; the next
	// such table's address is above. It must look not present to a processor that
	// still has the table in its paging-structure caches.
	link = 1 << 1
)

// Levels. A table of level l has entries that each cover 1 << shift(l) bytes.
const (
	levelPT = 1 + iota
	levelPD
	levelPDPT
	levelPML4
)

func shift(level int) uint { return uint(3+9*level) & 63 }

func index(lin uint64, level int) uint64 { return lin >> shift(level) & 511 }

// levelOf returns the level whose leaves have size bytes, 0 if none.
func levelOf(size uint64) int {
	switch size {
	case Size4K:
		return levelPT
	case Size2M:
		return levelPD
	case Size1G:
		return levelPDPT
	}
	return 0
}

// Table is one page of entries.
type Table [512]uint64

func (t *Table) load(i uint64) uint64     { return atomic.LoadUint64(&t[i&511]) }
func (t *Table) store(i uint64, e uint64) { atomic.StoreUint64(&t[i&511], e) }
func (t *Table) swap(i uint64, e uint64) uint64 {
	return atomic.SwapUint64(&t[i&511], e)
}
func (t *Table) cas(i uint64, old, e uint64) bool {
	return atomic.CompareAndSwapUint64(&t[i&511], old, e)
}

// empty tells whether no entry is in use. It looks near entry i first, where a
// neighbour of what was just removed is likeliest.
func (t *Table) empty(i uint64) bool {
	if t.load(i-1)|t.load(i)|t.load(i+1) != 0 {
		return false
	}
	for i := range t {
		if t.load(uint64(i)) != 0 {
			return false
		}
	}
	return true
}

// isTable tells whether e, of a table above level 1, points to a table.
func isTable(e uint64) bool {
	return e&(uint64(Present)|pageSize) == uint64(Present)
}

// Leaf is one mapping as found in the tables.
type Leaf struct {
	VA   uint64 // first address
	PA   uint64 // physical address that VA maps to
	Size uint64 // Size4K, Size2M or Size1G
	Attr Attr
}

// encode makes a leaf's entry.
func encode(pa uint64, a Attr, level int) uint64 {
	if level == levelPT {
		return pa | uint64(a) | mapped
	}
	return pa | uint64(a&^PAT) | uint64(a&PAT)<<patLarge | pageSize | mapped
}

// decode is the inverse of encode.
func decode(e uint64, level int) (pa uint64, a Attr) {
	if level == levelPT {
		return e & addrMask, Attr(e) & allAttr
	}
	a = Attr(e)&allAttr&^PAT | Attr(e>>patLarge)&PAT
	return e & addrMask &^ (1<<shift(level) - 1), a
}

func leafOf(lin, e uint64, level int) Leaf {
	pa, a := decode(e, level)
	size := uint64(1) << shift(level)
	return Leaf{VA: canonical(lin &^ (size - 1)), PA: pa, Size: size, Attr: a}
}

// canonical extends bit 47 of a 48-bit linear address.
func canonical(lin uint64) uint64 { return uint64(int64(lin<<16) >> 16) }
