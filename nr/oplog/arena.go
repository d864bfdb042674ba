package oplog

import (
	"fmt"

	"dinos/shmem/region"
)

// An operand arena is the part of a log in which one slot puts the variable-size arguments of its ops: a ring of bytes
// whose only writer is the slot's replica. An operand is in use until head has passed its op. The bookkeeping is private to the
// writer; a reader trusts only the bounds it has checked.
type arena struct {
	base region.Off // of the slot's part in Log.arenas
	size uint64
	next uint64 // bytes handed out since the start; offset in the arena modulo size
	low  uint64 // everything below was freed
	recs []operandRec
	r, w uint64 // recs[r:w] are in use, modulo arenaRecords
}

type operandRec struct{ pos, end uint64 }

const (
	arenaRecords = 512 // a power of two
	unplaced     = ^uint64(0)
)

func (a *arena) init(l *Log, id ID) {
	a.size = l.cfg.ArenaBytes
	if a.size == 0 {
		return
	}
	a.base = region.Off(uint64(id.Slot) * a.size)
	a.recs = make([]operandRec, arenaRecords)
	// The slot's former owner may have ops in the log whose operands are still to be read: the arena is taken until head
	// has passed everything that was there when the slot was claimed.
	if t := l.Tail(); id.Gen > 1 && t > 0 {
		a.recs[0] = operandRec{t - 1, a.size}
		a.w, a.next = 1, a.size
	}
}

// alloc finds n bytes; ok is false if there is no room until head moves on.
func (a *arena) alloc(l *Log, n uint64) (off uint64, ok bool) {
	n = roundUp(n, 8)
	start := a.next
	if rest := a.size - start%a.size; rest < n {
		start += rest // no operand wraps around
	}
	for pass := 0; ; pass++ {
		if start+n-a.low <= a.size && a.w-a.r < arenaRecords {
			a.recs[a.w%arenaRecords] = operandRec{unplaced, start + n}
			a.w++
			a.next = start + n
			return start % a.size, true
		}
		if pass == 2 {
			return 0, false
		}
		if pass == 1 {
			if _, err := l.Collect(); err != nil {
				return 0, false
			}
		}
		for head := l.Head(); a.r < a.w && a.recs[a.r%arenaRecords].pos < head; a.r++ {
			a.low = a.recs[a.r%arenaRecords].end
		}
		if a.r == a.w {
			// Empty: an operand of half the arena then fits wherever next is.
			a.low = start
		}
	}
}

// settle notes the positions at of the first ops of a batch and frees the operands of the others; meta is by op.
func (a *arena) settle(meta, at []uint64) {
	placed := a.w
	for _, m := range meta {
		if m != 0 {
			placed--
		}
	}
	for i, m := range meta {
		if m == 0 {
			continue
		}
		if i >= len(at) {
			break
		}
		a.recs[placed%arenaRecords].pos = at[i]
		placed++
	}
	if placed < a.w {
		a.w = placed
		a.next = a.low
		if placed > a.r {
			a.next = a.recs[(placed-1)%arenaRecords].end
		}
	}
}

// operands stores the operands of a batch and fills m.meta. It returns how many ops, from the first on, have theirs.
func (m *Member) operands(data [][]byte) (int, error) {
	l := m.log
	for i, d := range data {
		m.meta[i] = 0
		if len(d) > m.MaxOperand() {
			return 0, fmt.Errorf("%w: %d bytes, want up to %d", ErrOperand, len(d), m.MaxOperand())
		}
	}
	for i, d := range data {
		if len(d) == 0 {
			continue
		}
		off, ok := m.arena.alloc(l, uint64(len(d)))
		if !ok {
			return i, nil
		}
		if err := l.arenas.StoreBytes(m.arena.base+region.Off(off), d); err != nil {
			return 0, err
		}
		m.meta[i] = off<<32 | uint64(len(d))
	}
	return len(data), nil
}

// fetchOperand copies an operand of slot into c; false means that c has no room for it.
func (m *Member) fetchOperand(c *Chunk, it *Item, slot int, meta uint64) (bool, error) {
	l := m.log
	off, n := meta>>32, meta&(1<<32-1)
	if n == 0 || n > uint64(len(c.data)) || off > l.cfg.ArenaBytes || n > l.cfg.ArenaBytes-off || off&7 != 0 {
		return false, m.lost("position %d has an operand of %d bytes at %#x, want up to %d inside an arena of %#x", it.Pos, n, off,
			len(c.data), l.cfg.ArenaBytes)
	}
	if n > uint64(len(c.data)-c.used) {
		return false, nil
	}
	it.Data = c.data[c.used : c.used+int(n) : c.used+int(n)]
	if err := l.arenas.LoadBytes(it.Data, region.Off(uint64(slot)*l.cfg.ArenaBytes+off)); err != nil {
		return false, m.lost("position %d: %v", it.Pos, err)
	}
	c.used += int(n)
	return true, nil
}
