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

// account is f with vmAccount if such memory counts towards what the system has promised.
func (f flags) account() flags {
	if f&(vmWrite|vmShared|vmNoReserve) == vmWrite {
		f |= vmAccount
	}
	return f
}

// may are the limits for prot, as flags.
func may(prot flags) flags { return prot * vmMayRead }

// span is a range of addresses with one purpose and one set of rights.
type span struct {
	start, end uint64
	off        uint64   // page index in the object of start
	bind       *binding // nil: anonymous and private
	flags      flags
}

// vma is a span that is part of a list and of a tree, both in the order of addresses, which never overlap.
type vma struct {
	span
	prev, next *vma
	parent     *vma
	left       *vma
	right      *vma
	maxGap     uint64 // the largest gap below a vma of this subtree
	height     int8
}

func (v *span) pages() uint64 { return (v.end - v.start) >> pageShift }

// index is the page of the object at addr.
func (v *span) index(addr uint64) uint64 {
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
func (v *span) joins(w *span) (ok, repeat bool) {
	if v.end != w.start || v.bind != w.bind || (v.flags^w.flags)&vmKeep != 0 {
		return false, false
	}
	if v.bind == nil {
		return true, false
	}
	if v.off == w.off && (v.flags&vmRepeat != 0 || v.end-v.start == pageSize) && (w.flags&vmRepeat != 0 || w.end-w.start == pageSize) {
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
	prev := t.before(next)
	v.prev, v.next = prev, next
	if prev != nil {
		prev.next = v
	} else {
		t.first = v
	}
	if next != nil {
		next.prev = v
	} else {
		t.last = v
	}
	t.n++
	// One of the two has room on the side of v, since they are neighbours.
	switch {
	case next != nil && next.left == nil:
		next.left, v.parent = v, next
	case prev != nil:
		prev.right, v.parent = v, prev
	default:
		t.root, v.parent = v, nil
	}
	v.left, v.right = nil, nil
	v.update()
	t.fix(v.parent)
	t.changed(next)
}

// remove takes v out.
func (t *vmas) remove(v *vma) {
	if t.hit == v {
		t.hit = nil
	}
	low := t.detach(v)
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
	t.fix(low)
	t.changed(v.next)
	v.bind = nil
	v.next = t.spare
	t.spare = v
}

// detach takes v out of the tree and returns the lowest node that has to be fixed.
func (t *vmas) detach(v *vma) (low *vma) {
	if v.left == nil || v.right == nil {
		c := v.left
		if c == nil {
			c = v.right
		}
		t.replace(v, c)
		return v.parent
	}
	m := v.next // the least of the right subtree
	if low = m.parent; low == v {
		low = m
	} else {
		t.replace(m, m.right)
		m.right = v.right
		m.right.parent = m
	}
	t.replace(v, m)
	m.left = v.left
	m.left.parent = m
	m.height, m.maxGap = v.height, v.maxGap
	if low == m {
		m.height = 0 // whatever it gets is a change
	}
	return low
}

// replace puts c, which may be nil, where v hangs.
func (t *vmas) replace(v, c *vma) {
	switch p := v.parent; {
	case p == nil:
		t.root = c
	case p.left == v:
		p.left = c
	default:
		p.right = c
	}
	if c != nil {
		c.parent = v.parent
	}
}

// changed makes up for a changed gap below v, which may be nil.
func (t *vmas) changed(v *vma) { t.fix(v) }

// fix brings up to date what n and those above it know of their subtrees, and balances them, until nothing changes any more.
func (t *vmas) fix(n *vma) {
	for n != nil {
		height, gap := n.height, n.maxGap
		if d := n.update(); d > 1 || d < -1 {
			n = t.balance(n, d)
		} else if n.height == height && n.maxGap == gap {
			return
		}
		n = n.parent
	}
}

// update computes what n knows of its subtree, and returns by how much its left side is taller.
func (n *vma) update() int8 {
	low, high := n.gap()
	g := high - low
	var l, r int8
	if c := n.left; c != nil {
		l = c.height
		g = max(g, c.maxGap)
	}
	if c := n.right; c != nil {
		r = c.height
		g = max(g, c.maxGap)
	}
	n.maxGap, n.height = g, max(l, r)+1
	return l - r
}

func (n *vma) tall() int8 {
	if n == nil {
		return 0
	}
	return n.height
}

// balance rotates n, whose left side is taller by d, and returns what is in its place.
func (t *vmas) balance(n *vma, d int8) *vma {
	if d > 0 {
		if n.left.left.tall() < n.left.right.tall() {
			t.rotateLeft(n.left)
		}
		return t.rotateRight(n)
	}
	if n.right.right.tall() < n.right.left.tall() {
		t.rotateRight(n.right)
	}
	return t.rotateLeft(n)
}

func (t *vmas) rotateLeft(n *vma) *vma {
	r := n.right
	t.replace(n, r)
	if n.right = r.left; n.right != nil {
		n.right.parent = n
	}
	r.left, n.parent = n, r
	n.update()
	r.update()
	return r
}

func (t *vmas) rotateRight(n *vma) *vma {
	l := n.left
	t.replace(n, l)
	if n.left = l.right; n.left != nil {
		n.left.parent = n
	}
	l.right, n.parent = n, l
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
