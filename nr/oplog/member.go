package oplog

import (
	"fmt"

	"dinos/shmem/region"
)

// Member is a replica's membership in a log: its slot, how far it has consumed, what it knows of fences, its operand
// arena. It belongs to one goroutine at a time.
type Member struct {
	log    *Log
	id     ID
	mine   *word  // our slot word
	word   uint64 // what we last wrote there; anything else means that we were evicted
	live   uint64 // upper bits of our slot word while it is live
	pos    uint64 // next position to consume
	room   uint64 // lower bound of head
	batch  int
	fences [MaxSlots]Gen // newest fenced incarnation of each slot, below pos
	gone   error         // why the membership ended
	meta   [MaxBatch]uint64
	arena  arena
}

func newMember(l *Log, id ID, pos uint64, fences [MaxSlots]Gen) *Member {
	m := &Member{log: l, id: id, mine: l.slots[id.Slot], word: slotWord(id.Gen, Live, pos), pos: pos, fences: fences,
		live: slotWord(id.Gen, Live, 0) >> posBits, batch: int(min(MaxBatch, l.cfg.Entries/2))}
	m.arena.init(l, id)
	return m
}

// ID is the member's slot and incarnation, Pos the next position it consumes, Log its log.
func (m *Member) ID() ID      { return m.id }
func (m *Member) Pos() uint64 { return m.pos }
func (m *Member) Log() *Log   { return m.log }

// Fences is, by slot, the newest incarnation whose entries are ignored from Pos on; a joiner takes it over.
func (m *Member) Fences() [MaxSlots]Gen { return m.fences }

// Batch is how many ops one Append takes at most; MaxOperand the largest operand in bytes.
func (m *Member) Batch() int      { return m.batch }
func (m *Member) MaxOperand() int { return int(m.log.cfg.ArenaBytes / 2) }

// lost ends the membership after shared memory has contradicted it: because of an eviction, or else because of what.
func (m *Member) lost(format string, args ...any) error {
	if m.gone == nil {
		w := m.mine.Load()
		switch {
		case slotGen(w) != m.id.Gen || slotState(w) != Live:
			m.gone = fmt.Errorf("%w: %v", ErrEvicted, m.id)
		default:
			m.gone = m.log.Alive()
		}
		if m.gone == nil {
			m.gone = m.log.corrupt(format, args...)
		}
	}
	return m.gone
}

// Check reports the loss of the membership as soon as it can be known, without other effect.
func (m *Member) Check() error {
	if m.gone != nil {
		return m.gone
	}
	if w := m.mine.Load(); w != m.word {
		return m.lost("slot word is %#x, want %#x", w, m.word)
	}
	return nil
}

// Live reports whether the member still holds its slot. Unlike the other methods it may be called by any goroutine.
func (m *Member) Live() bool { return m.mine.Load()>>posBits == m.live }

// Append appends len(at) ops, up to Batch: op i is ops[i*w:(i+1)*w] in words, its operand data[i]. It returns how many
// are published, at[:n] receiving their positions, which rise. n < len(at) without error means that the ring or the arena has
// no room now: the caller must consume, and wait for others to. After an error the membership is over; the fate of the
// ops behind the first n is unknown.
func (m *Member) Append(ops []uint64, data [][]byte, at []uint64) (n int, err error) {
	if err := m.Check(); err != nil {
		return 0, err
	}
	l, width := m.log, m.log.opWords
	count, err := m.operands(data[:len(at)])
	if err != nil {
		return 0, err
	}
	wasted := uint64(0) // positions lost; a ringful of them is as good as a full ring
	for n < count && wasted <= l.cfg.Entries {
		k := uint64(count - n)
		t, ok, err := l.reserve(k, &m.room)
		if err != nil {
			m.gone = err
			return n, err
		}
		if !ok {
			break
		}
		if err := m.Check(); err != nil {
			return n, err
		}
		for p := t; p < t+k; p++ {
			ok, err := m.put(p, ops[n*width:(n+1)*width], m.meta[n])
			if err != nil {
				return n, err
			}
			if !ok {
				wasted++
				continue
			}
			at[n] = p
			n++
		}
	}
	if m.arena.size > 0 {
		m.arena.settle(m.meta[:count], at[:n])
	}
	return n, nil
}

// put publishes an op at the reserved position p; false means that p was lost to recovery.
func (m *Member) put(p uint64, op []uint64, meta uint64) (bool, error) {
	l := m.log
	rec := l.ring.At(p)
	e := rec.Word(0)
	w := e.Load()
	lap := l.lap(p)
	if entryLap(w) != lap-1 {
		if entryLap(w) == lap && (entryKind(w) == KindNoop || entryKind(w) == KindRetired) {
			return false, nil
		}
		return false, m.lost("position %d, reserved by %v, has lap %d, want %d", p, m.id, entryLap(w), lap-1)
	}
	if l.quarantined(w) {
		l.at(PtHole)
		l.fill(e, w, lap)
		return false, nil
	}
	if entryKind(w) == KindReserved {
		return false, m.lost("position %d is unresolved below head", p-l.cfg.Entries)
	}
	reserved := entryWord(lap, m.id.Gen, m.id.Slot, KindReserved)
	l.at(PtStamp)
	if !e.CompareAndSwap(w, reserved) {
		return false, nil
	}
	l.at(PtStore)
	region.StoreRelaxed(rec.Word(1), meta)
	rec.Store(entryHeader/8, op)
	l.at(PtPublish)
	if !e.CompareAndSwap(reserved, reserved-uint64(KindReserved)+uint64(KindOp)) {
		return false, m.lost("position %d, stamped by %v, was changed to %#x", p, m.id, e.Load())
	}
	return true, nil
}

// Item is an op that Fetch copied out.
type Item struct {
	Pos  uint64
	Mine bool // appended by this very member
	Data []byte
}

// Chunk is what one Fetch brings: private copies.
type Chunk struct {
	Items []Item
	Ops   []uint64 // op i in words [i*w, (i+1)*w)
	data  []byte   // operands, behind each other
	used  int
}

// NewChunk is a chunk for members of l.
func (l *Log) NewChunk() *Chunk {
	return &Chunk{Items: make([]Item, 0, MaxBatch), Ops: make([]uint64, MaxBatch*l.opWords), data: make([]byte, l.cfg.ArenaBytes/2)}
}

// Stop says why Fetch came back before the limit.
type Stop uint8

// The reasons.
const (
	AtLimit   Stop = iota // the limit, or the chunk is full: fetch again
	AtHole                // the next position is not published: see Blocked
	AtBarrier             // the next position is the marker of the cross op that comes next
)

// Fetch copies the published entries from Pos up to limit into c, as many as fit, and moves Pos and the local tail
// behind them. Ops of fenced incarnations, no-ops and markers below cross are passed over. cross is the next op of the cross log that
// this replica has not applied; a log without markers ignores it.
func (m *Member) Fetch(c *Chunk, limit, cross uint64) (Stop, error) {
	c.Items = c.Items[:0]
	c.used = 0
	if m.gone != nil {
		return AtLimit, m.gone
	}
	l := m.log
	m.log.at(PtFetch)
	stop := AtLimit
	pos := m.pos
	// The ring bounds the walk, whatever the limit is.
	limit = min(limit, pos+l.cfg.Entries)
walk:
	for pos < limit && len(c.Items) < cap(c.Items) {
		rec := l.ring.At(pos)
		w := rec.Word(0).Load()
		if entryLap(w) != l.lap(pos) {
			stop = AtHole
			break
		}
		switch entryKind(w) {
		case KindOp:
			ok, err := m.take(c, pos, w, rec)
			if err != nil {
				return stop, err
			}
			if !ok {
				break walk // the operand does not fit this chunk any more
			}
		case KindNoop, KindRetired:
		case KindFence:
			if s := entrySlot(w); s < l.cfg.Slots {
				m.fences[s] = max(m.fences[s], entryGen(w))
			}
		case KindMarker:
			if d := markerDelta(w, cross); d == 0 {
				stop = AtBarrier
				break walk
			} else if d > 0 {
				return stop, m.lost("position %d has the marker of cross op %d+%d, want up to %d", pos, cross, d, cross)
			}
		case KindReserved:
			stop = AtHole
			break walk
		default:
			return stop, m.lost("position %d has %v", pos, entryKind(w))
		}
		pos++
	}
	if pos == m.pos {
		return stop, nil
	}
	next := slotWord(m.id.Gen, Live, pos)
	l.at(PtTake)
	if !m.mine.CompareAndSwap(m.word, next) {
		c.Items = c.Items[:0]
		return stop, m.lost("slot word is %#x, want %#x", m.mine.Load(), m.word)
	}
	m.word, m.pos = next, pos
	return stop, nil
}

// take copies the op at pos into c, unless it is fenced. false means that the chunk has no room for its operand.
func (m *Member) take(c *Chunk, pos, w uint64, rec region.Record) (bool, error) {
	slot, gen := entrySlot(w), entryGen(w)
	if slot >= m.log.cfg.Slots {
		return false, m.lost("position %d was written by slot %d of %d", pos, slot, m.log.cfg.Slots)
	}
	if gen <= m.fences[slot] {
		return true, nil
	}
	i := len(c.Items)
	it := Item{Pos: pos, Mine: slot == m.id.Slot && gen == m.id.Gen}
	if meta := region.LoadRelaxed(rec.Word(1)); meta != 0 {
		ok, err := m.fetchOperand(c, &it, slot, meta)
		if !ok || err != nil {
			return false, err
		}
	}
	rec.Load(entryHeader/8, c.Ops[i*m.log.opWords:(i+1)*m.log.opWords])
	c.Items = append(c.Items, it)
	return true, nil
}

// Blocked is asked when Fetch stopped AtHole, with how often that has happened in a row. It recovers the hole if that
// is due and returns done; otherwise b says who is waited for.
func (m *Member) Blocked(attempt int) (b Blocker, done bool, err error) {
	if m.gone != nil {
		return b, false, m.gone
	}
	t := m.log.Tail()
	if m.pos >= t || t-m.pos > m.log.cfg.Entries {
		return b, false, m.lost("tail %d with %v at %d, want up to %d more", t, m.id, m.pos, m.log.cfg.Entries)
	}
	b, done, err = m.log.resolve(m.pos, attempt)
	if err != nil {
		err = m.lost("%v", err)
	}
	return b, done, err
}

// Limit checks that position p of shared memory can be a limit for Fetch: not more than a ring ahead.
func (m *Member) Limit(p uint64) error {
	if p > m.pos && p-m.pos > m.log.cfg.Entries {
		return m.lost("position %d with %v at %d, want up to %d more", p, m.id, m.pos, m.log.cfg.Entries)
	}
	return nil
}

// Full describes who keeps the ring full, for the caller whose Append came back short.
func (m *Member) Full() (Blocker, error) {
	slowest, err := m.log.Collect()
	if err != nil {
		return Blocker{}, err
	}
	if slowest < 0 {
		return Blocker{Pos: m.log.Head(), Slot: -1}, nil
	}
	w := m.log.slots[slowest].Load()
	return Blocker{position(w), slowest, slotGen(w)}, nil
}

// Leave gives the slot back. The member must have consumed what it appended. An evicted member releases its quarantine,
// which says that it has stopped storing; so Leave is the last thing that is done with a member, in either case.
func (m *Member) Leave() error {
	w := m.mine.Load()
	if slotGen(w) != m.id.Gen {
		return nil
	}
	m.gone = fmt.Errorf("%w: %v has left", ErrStale, m.id)
	if slotState(w) == Evicted {
		return m.log.Release(m.id)
	}
	m.log.at(PtLeave)
	if !m.mine.CompareAndSwap(w, slotWord(m.id.Gen, Free, 0)) {
		return m.log.Release(m.id) // evicted in this moment
	}
	return nil
}
