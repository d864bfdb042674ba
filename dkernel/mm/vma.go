package mm

import "dinos/kernel/linux"

// flags of a vma. The low three are PROT_READ, PROT_WRITE and PROT_EXEC.
type flags uint64

const (
	vmRead flags = 1 << iota
	vmWrite
	vmExec
	vmShared
	vmMayRead // what mprotect may grant
	vmMayWrite
	vmMayExec
	vmGrowsDown
	vmLocked
	vmOnFault // with vmLocked: as pages come
	vmDontFork
	vmWipeOnFork
	vmDontDump
	vmNoReserve
	vmAccount // counts towards what the system has promised
	vmRandom
	vmSequential
	vmHuge
	vmNoHuge
	vmNotify // the object wants to know of writes
	vmAnon   // may have pages of its own, which fork copies
	vmMixed  // may have pages that must not be made writable at once
	vmRepeat // every page is page off of the object

	vmProt = vmRead | vmWrite | vmExec
	vmMay  = vmMayRead | vmMayWrite | vmMayExec
	// vmKeep is what two neighbours must agree on to be one.
	vmKeep = ^(vmAnon | vmMixed | vmRepeat)
)

// may are the limits for prot, as flags.
func may(prot flags) flags { return prot * vmMayRead }

// vma is a range of addresses with one purpose and one set of rights. It is part of a list and of a tree, both in the order of
// addresses, which never overlap.
type vma struct {
	start, end uint64
	off        uint64   // page index in the object of start
	bind       *binding // nil: anonymous and private
	flags      flags
	height     int8
	prev, next *vma
	left       *vma
	right      *vma
	maxGap     uint64 // the largest gap below a vma of this subtree
}

func (v *vma) pages() uint64 { return (v.end - v.start) >> pageShift }

// index is the page of the object at addr.
func (v *vma) index(addr uint64) uint64 {
	if v.flags&vmRepeat != 0 {
		return v.off
	}
	return v.off + (addr-v.start)>>pageShift
}

// gap is the free range below v that mappings may use: a stack keeps a distance to what is below it.
func (v *vma) gap() (low, high uint64) {
	low, high = minAddr, v.start
	if v.prev != nil {
		low = max(low, v.prev.end)
	}
	if v.flags&vmGrowsDown != 0 {
		high -= min(high, stackGuard)
	}
	return low, max(low, high)
}

// joins reports whether v and w, which follow each other without a gap, are one mapping; and if so, whether as a repetition.
func (v *vma) joins(w *vma) (ok, repeat bool) {
	if v.end != w.start || v.bind != w.bind || (v.flags^w.flags)&vmKeep != 0 {
		return false, false
	}
	if v.bind == nil {
		return true, false
	}
	one := func(u *vma) bool { return u.flags&vmRepeat != 0 || u.end-u.start == pageSize }
	if v.off == w.off && one(v) && one(w) {
		return true, true
	}
	return (v.flags|w.flags)&vmRepeat == 0 && v.off+v.pages() == w.off, false
}

// vmas is an ordered set of vmas: an AVL tree that knows its gaps, and a list.
type vmas struct {
	root, first, last *vma
	n                 int
	hit               *vma // what update operations found last
	spare             *vma // removed ones, linked by next
}

// at is the first vma that ends above addr, nil if there is none.
func (t *vmas) at(addr uint64) *vma {
	if h := t.hit; h != nil && h.start <= addr && addr < h.end {
		return h
	}
	var best *vma
	for n := t.root; n != nil; {
		if addr >= n.end {
			n = n.right
			continue
		}
		best = n
		if addr >= n.start {
			break
		}
		n = n.left
	}
	return best
}

// before is the last vma that ends at or below addr, given at(addr).
func (t *vmas) before(next *vma) *vma {
	if next == nil {
		return t.last
	}
	return next.prev
}

// take returns an unused vma.
func (t *vmas) take() *vma {
	if v := t.spare; v != nil {
		t.spare = v.next
		*v = vma{}
		return v
	}
	return new(vma)
}

// insert adds v before next.
func (t *vmas) insert(v, next *vma) {
	v.prev, v.next = t.before(next), next
	if v.prev != nil {
		v.prev.next = v
	} else {
		t.first = v
	}
	if next != nil {
		next.prev = v
	} else {
		t.last = v
	}
	t.n++
	t.root = insertNode(t.root, v)
	t.changed(next)
}

// remove takes v out.
func (t *vmas) remove(v *vma) {
	if t.hit == v {
		t.hit = nil
	}
	t.root = removeNode(t.root, v)
	if v.prev != nil {
		v.prev.next = v.next
	} else {
		t.first = v.next
	}
	if v.next != nil {
		v.next.prev = v.prev
	} else {
		t.last = v.prev
	}
	t.n--
	t.changed(v.next)
	v.bind = nil
	v.next = t.spare
	t.spare = v
}

// changed makes up for a changed gap below v, which may be nil.
func (t *vmas) changed(v *vma) {
	if v != nil {
		t.root.refresh(v.start)
	}
}

func (n *vma) refresh(start uint64) {
	if start < n.start {
		n.left.refresh(start)
	} else if start > n.start {
		n.right.refresh(start)
	}
	n.update()
}

func (n *vma) tall() int8 {
	if n == nil {
		return 0
	}
	return n.height
}

// update computes what n knows of its subtree.
func (n *vma) update() {
	low, high := n.gap()
	g, h := high-low, int8(0)
	if l := n.left; l != nil {
		g, h = max(g, l.maxGap), l.height
	}
	if r := n.right; r != nil {
		g, h = max(g, r.maxGap), max(h, r.height)
	}
	n.maxGap, n.height = g, h+1
}

func insertNode(n, v *vma) *vma {
	if n == nil {
		v.left, v.right = nil, nil
		v.update()
		return v
	}
	if v.start < n.start {
		n.left = insertNode(n.left, v)
	} else {
		n.right = insertNode(n.right, v)
	}
	return n.balance()
}

func removeNode(n, v *vma) *vma {
	switch {
	case v.start < n.start:
		n.left = removeNode(n.left, v)
	case v.start > n.start:
		n.right = removeNode(n.right, v)
	case n.left == nil:
		return n.right
	case n.right == nil:
		return n.left
	default:
		m := n.right
		for m.left != nil {
			m = m.left
		}
		m.right, m.left = removeNode(n.right, m), n.left
		n = m
	}
	return n.balance()
}

func (n *vma) balance() *vma {
	switch d := n.left.tall() - n.right.tall(); {
	case d > 1:
		if n.left.left.tall() < n.left.right.tall() {
			n.left = n.left.rotateLeft()
		}
		return n.rotateRight()
	case d < -1:
		if n.right.right.tall() < n.right.left.tall() {
			n.right = n.right.rotateRight()
		}
		return n.rotateLeft()
	}
	n.update()
	return n
}

func (n *vma) rotateLeft() *vma {
	r := n.right
	n.right, r.left = r.left, n
	n.update()
	r.update()
	return r
}

func (n *vma) rotateRight() *vma {
	l := n.left
	n.left, l.right = l.right, n
	n.update()
	l.update()
	return l
}

// highest is the highest start of size free bytes in [low, high), 0 if there are none.
func (t *vmas) highest(size, low, high uint64) uint64 {
	from := max(low, minAddr)
	if t.last != nil {
		from = max(from, t.last.end)
	}
	if from < high && high-from >= size {
		return high - size
	}
	return t.root.highest(size, low, high)
}

func (n *vma) highest(size, low, high uint64) uint64 {
	if n == nil || n.maxGap < size {
		return 0
	}
	if n.end < high {
		if a := n.right.highest(size, low, high); a != 0 {
			return a
		}
	}
	from, to := n.gap()
	from, to = max(from, low), min(to, high)
	if from < to && to-from >= size {
		return to - size
	}
	if n.start <= low {
		return 0
	}
	return n.left.highest(size, low, high)
}

// lowest is the lowest start of size free bytes in [low, high), 0 if there are none.
func (t *vmas) lowest(size, low, high uint64) uint64 {
	if a := t.root.lowest(size, low, high); a != 0 {
		return a
	}
	from := max(low, minAddr)
	if t.last != nil {
		from = max(from, t.last.end)
	}
	if from < high && high-from >= size {
		return from
	}
	return 0
}

func (n *vma) lowest(size, low, high uint64) uint64 {
	if n == nil || n.maxGap < size {
		return 0
	}
	if n.start > low {
		if a := n.left.lowest(size, low, high); a != 0 {
			return a
		}
	}
	from, to := n.gap()
	from, to = max(from, low), min(to, high)
	if from < to && to-from >= size {
		return from
	}
	if n.end >= high {
		return 0
	}
	return n.right.lowest(size, low, high)
}

// prot are the rights as mmap(2) has them.
func (f flags) prot() int { return int(f & vmProt) }

func protFlags(prot int) flags {
	return flags(prot) & (linux.PROT_READ | linux.PROT_WRITE | linux.PROT_EXEC)
}
