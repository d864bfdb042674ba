package oplog

import "fmt"

// ID names a replica's life in a log: its slot and the incarnation that holds it.
type ID struct {
	Slot int
	Gen  Gen
}

func (id ID) String() string { return fmt.Sprintf("slot %d incarnation %d", id.Slot, id.Gen) }

// SlotInfo describes a slot to tools and to the membership authority.
type SlotInfo struct {
	ID
	State State
	Tail  uint64 // consumed up to here
}

// Slots describes all slots, whatever their state.
func (l *Log) Slots() []SlotInfo {
	out := make([]SlotInfo, l.cfg.Slots)
	for i := range out {
		w := l.slots[i].Load()
		out[i] = SlotInfo{ID{i, slotGen(w)}, slotState(w), position(w)}
	}
	return out
}

func (l *Log) slot(id ID) (*word, error) {
	if id.Slot < 0 || id.Slot >= l.cfg.Slots || id.Gen == 0 || id.Gen > MaxGen {
		return nil, fmt.Errorf("%w: %v, want slot 0 to %d", ErrStale, id, l.cfg.Slots-1)
	}
	return l.slots[id.Slot], nil
}

// Claim takes a free slot for a replica that starts at position pos: it pins the log there until the replica is
// activated, leaves or is evicted. Of the free slots it takes the one with the lowest incarnation. avoid has a bit set for
// each slot that will not do.
func (l *Log) Claim(pos, avoid uint64) (ID, error) {
	for range casTries {
		best, bw := -1, uint64(0)
		for i := range l.cfg.Slots {
			w := l.slots[i].Load()
			if avoid>>i&1 == 0 && slotState(w) == Free && slotGen(w) < MaxGen && (best < 0 || slotGen(w) < slotGen(bw)) {
				best, bw = i, w
			}
		}
		if best < 0 {
			return ID{}, fmt.Errorf("%w of %d", ErrNoSlot, l.cfg.Slots)
		}
		id := ID{best, slotGen(bw) + 1}
		ok, err := l.claim(id, bw, pos)
		if ok || err != nil {
			return id, err
		}
	}
	return ID{}, l.corrupt("slots keep changing")
}

// ClaimSlot takes the slot id for a replica that holds the same slot in another log already.
func (l *Log) ClaimSlot(id ID, pos uint64) error {
	s, err := l.slot(id)
	if err != nil {
		return err
	}
	w := s.Load()
	if slotState(w) != Free || slotGen(w) >= id.Gen {
		return fmt.Errorf("%w: %v wanted, slot is %v with incarnation %d", ErrStale, id, slotState(w), slotGen(w))
	}
	ok, err := l.claim(id, w, pos)
	if err == nil && !ok {
		err = fmt.Errorf("%w: %v was taken meanwhile", ErrStale, id)
	}
	return err
}

// claim moves slot word was to joining at pos, then has head's epoch confirm that pos is still in the log.
func (l *Log) claim(id ID, was, pos uint64) (bool, error) {
	s := l.slots[id.Slot]
	mine := slotWord(id.Gen, Joining, pos)
	l.at(PtClaim)
	if !s.CompareAndSwap(was, mine) {
		return false, nil
	}
	for range casTries {
		hw := l.head.Load()
		if t := l.Tail(); position(hw) > pos || pos > t {
			s.CompareAndSwap(mine, slotWord(id.Gen, Free, 0))
			return false, fmt.Errorf("%w: position %d, the log has %d to %d", ErrBehind, pos, position(hw), t)
		}
		l.at(PtEpoch)
		if l.head.CompareAndSwap(hw, withUpper(upper(hw)+1, position(hw))) {
			return true, nil
		}
	}
	return false, l.corrupt("head keeps changing")
}

// Unclaim gives a claimed slot back before it was activated.
func (l *Log) Unclaim(id ID) {
	s, err := l.slot(id)
	if err != nil {
		return
	}
	if w := s.Load(); slotGen(w) == id.Gen && slotState(w) == Joining {
		s.CompareAndSwap(w, slotWord(id.Gen, Free, 0))
	}
}

// Activate makes the joining replica id live and returns its membership. fences is what the replica whose snapshot
// it starts from knew, by slot.
func (l *Log) Activate(id ID, fences [MaxSlots]Gen) (*Member, error) {
	s, err := l.slot(id)
	if err != nil {
		return nil, err
	}
	w := s.Load()
	pos := position(w)
	if slotGen(w) != id.Gen || slotState(w) != Joining {
		return nil, fmt.Errorf("%w: %v is %v with incarnation %d, want joining", ErrStale, id, slotState(w), slotGen(w))
	}
	m := newMember(l, id, pos, fences)
	l.at(PtActivate)
	if !s.CompareAndSwap(w, m.word) {
		return nil, fmt.Errorf("%w: %v was evicted while it joined", ErrEvicted, id)
	}
	return m, nil
}

// Evict fences the replica id for good: after a successful return nothing it does has an effect on the log, and nobody
// waits for it. It does not wait for the replica. The slot stays quarantined until Release.
//
// Evict may be repeated, also by another authority after the first one died half way. If the ring is full because
// yet another replica does not consume, it fails with ErrFull and the blocker's name; the replica is then evicted but
// not fenced, and Evict must be called again.
func (l *Log) Evict(id ID) error {
	s, err := l.slot(id)
	if err != nil {
		return err
	}
	for range casTries {
		w := s.Load()
		if slotGen(w) < id.Gen {
			return fmt.Errorf("%w: %v never was, the slot is %v with incarnation %d", ErrStale, id, slotState(w), slotGen(w))
		}
		if slotGen(w) > id.Gen || slotState(w) == Free {
			return nil // it left, or was released: it has stopped by itself
		}
		if slotState(w) == Evicted {
			return l.fence(id)
		}
		l.at(PtEvict)
		if s.CompareAndSwap(w, slotWord(id.Gen, Evicted, position(w))) {
			return l.fence(id)
		}
	}
	return l.corrupt("slot %d keeps changing", id.Slot)
}

// Bar is Evict for a log that id may not have claimed its slot in yet: if so, it never can.
func (l *Log) Bar(id ID) error {
	s, err := l.slot(id)
	if err != nil {
		return err
	}
	for range casTries {
		w := s.Load()
		if slotGen(w) >= id.Gen || slotState(w) != Free {
			break
		}
		l.at(PtEvict)
		if s.CompareAndSwap(w, slotWord(id.Gen, Free, 0)) {
			return nil
		}
	}
	return l.Evict(id)
}

func (l *Log) fence(id ID) error {
	pos, ok, err := l.place(PtFence, func(lap uint32) uint64 { return entryWord(lap, id.Gen, id.Slot, KindFence) }, nil)
	if err != nil {
		return err
	}
	if !ok {
		return l.full()
	}
	// Everything below the fence that id could still write is resolved now.
	for p := max(l.Head(), pos-min(pos, l.cfg.Entries)); p < pos; p++ {
		e := l.ring.At(p).Word(0)
		lap := l.lap(p)
		for range casTries {
			w := e.Load()
			if entryLap(w) == lap && entryKind(w) == KindReserved && entrySlot(w) == id.Slot && entryGen(w) == id.Gen {
				l.at(PtHole)
				e.CompareAndSwap(w, entryWord(lap, id.Gen, id.Slot, KindRetired))
			} else if entryLap(w) == lap-1 {
				l.at(PtHole)
				l.fill(e, w, lap)
			} else {
				break
			}
		}
	}
	return nil
}

// full describes who keeps the ring full.
func (l *Log) full() error {
	slowest, err := l.Collect()
	if err != nil {
		return err
	}
	if slowest < 0 {
		return fmt.Errorf("%w: %d entries, no replica attached", ErrFull, l.cfg.Entries)
	}
	w := l.slots[slowest].Load()
	return fmt.Errorf("%w: %d entries, waiting for %v at %d", ErrFull, l.cfg.Entries, ID{slowest, slotGen(w)}, position(w))
}

// Release frees the slot of an evicted replica. Whoever calls it vouches that the replica has stopped storing: the
// replica itself, having learned of its eviction, or an authority that knows its kernel is dead.
func (l *Log) Release(id ID) error {
	s, err := l.slot(id)
	if err != nil {
		return err
	}
	w := s.Load()
	if slotGen(w) != id.Gen || slotState(w) != Evicted {
		return fmt.Errorf("%w: %v is %v with incarnation %d, want evicted", ErrStale, id, slotState(w), slotGen(w))
	}
	s.CompareAndSwap(w, slotWord(id.Gen, Free, 0)) // failing means that the other one has released it
	return nil
}

// StampForTest reserves the next position in the name of id, as far as the stamp, and leaves it there: the hole that a
// writer makes which dies in the middle. It serves tests and failure injection.
func (l *Log) StampForTest(id ID) error {
	room := uint64(0)
	pos, ok, err := l.reserve(1, &room)
	if err != nil {
		return err
	}
	if !ok {
		return l.full()
	}
	e := l.ring.At(pos).Word(0)
	w := e.Load()
	if entryLap(w) != l.lap(pos)-1 || !e.CompareAndSwap(w, entryWord(l.lap(pos), id.Gen, id.Slot, KindReserved)) {
		return fmt.Errorf("%w: position %d was taken", ErrStale, pos)
	}
	return nil
}
