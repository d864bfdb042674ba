package oplog

import (
	"bufio"
	"fmt"
	"io"

	"dinos/shmem/region"
)

// Entry describes an entry of the log to tools.
type Entry struct {
	Pos    uint64
	Lap    uint32
	Kind   Kind
	ID     ID       // who wrote or reserved it; of a fence, who is fenced
	Cross  uint32   // of a marker, the cross number modulo 2^24
	Offset uint32   // operand in the arena of ID.Slot
	Length uint32   // 0: no operand
	Op     []uint64 // words of the op
}

// Entry reads the entry at position pos as it is now; peers may change it meanwhile.
func (l *Log) Entry(pos uint64) Entry {
	rec := l.ring.At(pos)
	w := rec.Word(0).Load()
	e := Entry{Pos: pos, Lap: entryLap(w), Kind: entryKind(w)}
	switch e.Kind {
	case KindMarker:
		e.Cross = uint32(w>>8) & 0xffffff
	case KindOp:
		meta := region.LoadRelaxed(rec.Word(1))
		e.Offset, e.Length = uint32(meta>>32), uint32(meta)
		e.Op = make([]uint64, l.opWords)
		rec.Load(entryHeader/8, e.Op)
		fallthrough
	case KindReserved, KindRetired, KindFence:
		e.ID = ID{entrySlot(w), entryGen(w)}
	}
	return e
}

// String is the entry in one line.
func (e Entry) String() string {
	s := fmt.Sprintf("%d lap %d %v", e.Pos, e.Lap, e.Kind)
	switch e.Kind {
	case KindMarker:
		s += fmt.Sprintf(" cross %d", e.Cross)
	case KindOp:
		s += fmt.Sprintf(" by %d.%d %x", e.ID.Slot, e.ID.Gen, e.Op)
		if e.Length > 0 {
			s += fmt.Sprintf(" operand %d bytes at %#x", e.Length, e.Offset)
		}
	case KindReserved, KindRetired, KindFence:
		s += fmt.Sprintf(" %d.%d", e.ID.Slot, e.ID.Gen)
	}
	return s
}

// Dump writes header, slots and the newest entries of the log as text, up to last entries. It takes no locks and trusts
// nothing, so it serves to look at a broken log, too.
func (l *Log) Dump(out io.Writer, last int) error {
	w := bufio.NewWriter(out)
	c := l.cfg
	fmt.Fprintf(w, "log: generation %d, %d entries of %d bytes, op %d bytes, %d slots, arena %d bytes, fingerprint %#x\n",
		c.Generation, c.Entries, c.stride(), c.OpSize, c.Slots, c.ArenaBytes, c.Fingerprint)
	hw, cw := l.head.Load(), l.cross.Load()
	head, tail := position(hw), l.Tail()
	fmt.Fprintf(w, "head %d epoch %d, completed %d, tail %d, crossed %d behind %d\n", head, upper(hw), l.Completed(), tail,
		upper(cw), position(cw))
	for _, s := range l.Slots() {
		if s.Gen != 0 {
			fmt.Fprintf(w, "slot %d.%d %v at %d\n", s.Slot, s.Gen, s.State, s.Tail)
		}
	}
	n := min(uint64(max(last, 0)), c.Entries, tail)
	if tail >= head && tail-head < n {
		n = tail - head
	}
	for pos := tail - n; pos < tail; pos++ {
		e := l.Entry(pos)
		note := ""
		if want := l.lap(pos); e.Lap != want {
			note = fmt.Sprintf(" (want lap %d)", want)
		}
		fmt.Fprintf(w, "  %v%s\n", e, note)
	}
	return w.Flush()
}
