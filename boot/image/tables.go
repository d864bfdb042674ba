package image

import (
	"encoding/binary"
	"fmt"

	"dinos/boot/record"
)

// Page-table entry bits; Intel SDM volume 3 section 5.5. Accessed and dirty are set from the start, so that the CPU need not write them.
const (
	ptePresent  = 1 << 0
	pteWrite    = 1 << 1
	pteWT       = 1 << 3
	pteCD       = 1 << 4
	pteAccessed = 1 << 5
	pteDirty    = 1 << 6
	pteLarge    = 1 << 7
	pteGlobal   = 1 << 8
	pteNX       = 1 << 63

	pteTable    = ptePresent | pteWrite | pteAccessed
	pteLeaf     = ptePresent | pteAccessed | pteDirty
	pteUncached = pteCD | pteWT // PAT entry 3, UC at reset

	entries   = 512
	largePage = 2 << 20
)

// tables is a contiguous run of page-table pages at physical address base. The first is the PML4.
type tables struct {
	base  uint64
	pages [][]byte
}

func (t *tables) page() int {
	t.pages = append(t.pages, make([]byte, pageSize))
	return len(t.pages) - 1
}

func (t *tables) phys(page int) uint64 { return t.base + uint64(page)*pageSize }

func (t *tables) set(page, index int, e uint64) {
	binary.LittleEndian.PutUint64(t.pages[page][index*8:], e)
}

// child appends a table and hangs it into page at index.
func (t *tables) child(page, index int) int {
	c := t.page()
	t.set(page, index, t.phys(c)|pteTable)
	return c
}

func (t *tables) bytes() []byte {
	b := make([]byte, 0, len(t.pages)*pageSize)
	for _, p := range t.pages {
		b = append(b, p...)
	}
	return b
}

// bootTables builds the tables that the package documentation describes, at physical address base.
func bootTables(base uint64, segs []segment) (*tables, error) {
	t := &tables{base: base}
	pml4 := t.page()
	t.linear(t.child(pml4, 0), func(phys uint64) uint64 {
		if phys < largePage {
			return ptePresent
		}
		return ptePresent | pteNX
	})
	t.linear(t.child(pml4, 256), func(uint64) uint64 { return ptePresent | pteGlobal | pteNX })

	pdpt := t.child(pml4, 511)
	pd := t.child(pdpt, int(record.ImageBase>>30)%entries)
	pt := map[uint64]int{} // by index in pd
	for _, s := range segs {
		for v := s.vaddr; v < s.end(); v += pageSize {
			off := v - record.ImageBase
			i := off / largePage
			if _, ok := pt[i]; !ok {
				pt[i] = t.child(pd, int(i))
			}
			t.set(pt[i], int(off/pageSize%entries), off|s.pte())
		}
	}
	if end, first := t.phys(len(t.pages)), segs[0].phys(); end > first {
		return nil, fmt.Errorf("page tables for %d MiB of image end at %#x, above its first segment at %#x: make the image smaller",
			(segs[len(segs)-1].end()-segs[0].vaddr)>>20, end, first)
	}
	return t, nil
}

// linear fills the table pdpt with record.BootMapSize of 2 MiB pages of supervisor memory, writable and with the attributes that
// attr gives for each, and uncached in the device hole.
func (t *tables) linear(pdpt int, attr func(phys uint64) uint64) {
	var pd int
	for phys := uint64(0); phys < record.BootMapSize; phys += largePage {
		i := phys / largePage
		if i%entries == 0 {
			pd = t.child(pdpt, int(i/entries))
		}
		e := phys | attr(phys) | pteLeaf | pteWrite | pteLarge
		if phys >= record.DeviceHole {
			e |= pteUncached
		}
		t.set(pd, int(i%entries), e)
	}
}
