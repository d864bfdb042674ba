package oplog

import (
	"fmt"
	"sync/atomic"

	"dinos/shmem/region"
)

type word = atomic.Uint64

// DefaultPatience is how often a consumer looks at an unstamped entry before it makes a no-op of it.
const DefaultPatience = 256

// casTries bounds loops around a compare-and-swap. Each failure means that somebody else succeeded, so that only a
// peer that scribbles on the word without end comes near it.
const casTries = 1 << 24

// Log is an attachment to a log. All its fields are fixed when it is made; it is safe for concurrent use.
type Log struct {
	tail, ctail, head, cross *word
	slots                    [MaxSlots]*word
	ring                     region.Words
	arenas                   region.Region
	region                   region.Region
	cfg                      Config
	shift                    uint
	opWords                  int
	patience                 int
	probe                    func(Point)
}

// Config is the shape of the log, as its header says.
func (l *Log) Config() Config { return l.cfg }

// SetPatience sets how often a consumer looks at an unstamped entry before it makes a no-op of it; n ≥ 1. Call it
// before the log is shared between goroutines.
func (l *Log) SetPatience(n int) { l.patience = max(n, 1) }

// SetProbe has f called before each access to shared memory that matters to the protocol. It is for step schedulers and
// tests; nil, the default, costs a predicted branch. Call it before the log is shared between goroutines.
func (l *Log) SetProbe(f func(Point)) { l.probe = f }

// Point is a step of the protocol, named for the access that comes next.
type Point uint8

// The steps of this package. Package replica has more, from PointReplica up.
const (
	PtReserve Point = iota
	PtStamp
	PtStore
	PtPublish
	PtFetch
	PtTake // move the local tail
	PtCtail
	PtScan
	PtHead
	PtHole
	PtClaim
	PtEpoch
	PtActivate
	PtLeave
	PtEvict
	PtFence
	PtMarker
	PtCross
	PointReplica
)

func (l *Log) at(p Point) {
	if l.probe != nil {
		l.probe(p)
	}
}

func (l *Log) lap(pos uint64) uint32 { return uint32(pos>>l.shift) + 1 }

// Tail is the next position to be reserved, Completed the completed tail, Head the oldest position still kept.
func (l *Log) Tail() uint64      { return position(l.tail.Load()) }
func (l *Log) Completed() uint64 { return position(l.ctail.Load()) }
func (l *Log) Head() uint64      { return position(l.head.Load()) }

// Alive refuses a log that was made anew since Open.
func (l *Log) Alive() error {
	if err := l.region.CheckGeneration(0, l.cfg.Generation); err != nil {
		return fmt.Errorf("%w: the log was made anew: %w", ErrEvicted, err)
	}
	return nil
}

func (l *Log) corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
}

// reserve takes n positions from tail. room is a cached lower bound of head, brought up to date when it is too
// low. ok is false if the ring has no room for n; nothing is reserved then.
func (l *Log) reserve(n uint64, room *uint64) (t uint64, ok bool, err error) {
	for range casTries {
		t, st, err := l.reserveAt(l.tail.Load(), n, room)
		if st != reserveRaced || err != nil {
			return t, st == reserveDone, err
		}
	}
	return 0, false, l.corrupt("tail keeps changing")
}

type reserveStatus uint8

const (
	reserveDone reserveStatus = iota
	reserveFull
	reserveRaced
)

// reserveAt is one attempt to move tail from t to t+n.
func (l *Log) reserveAt(t, n uint64, room *uint64) (uint64, reserveStatus, error) {
	if t > maxPos {
		return 0, reserveFull, fmt.Errorf("%w: tail %d, want up to %d", ErrExhausted, t, uint64(maxPos))
	}
	if t+n > *room+l.cfg.Entries || t < *room {
		if ok, err := l.makeRoom(t, n, room); !ok || err != nil {
			return 0, reserveFull, err
		}
	}
	l.at(PtReserve)
	if !l.tail.CompareAndSwap(t, t+n) {
		return 0, reserveRaced, nil
	}
	return t, reserveDone, nil
}

// makeRoom brings room up to date for n entries at t and moves head if that is not enough.
func (l *Log) makeRoom(t, n uint64, room *uint64) (bool, error) {
	for range 2 {
		head := l.Head()
		if t > maxPos || head > t || t-head > l.cfg.Entries {
			// Somebody else may have gone on since t was read; only a stable contradiction is corruption.
			if l.tail.Load() != t {
				return true, nil
			}
			return false, l.corrupt("tail %d, head %d, want head ≤ tail ≤ head+%d", t, head, l.cfg.Entries)
		}
		*room = head
		if t+n <= head+l.cfg.Entries {
			return true, nil
		}
		if _, err := l.Collect(); err != nil {
			return false, err
		}
	}
	return false, nil
}

// Collect moves head to the least local tail of all replicas, and returns the slot that holds it there, or -1 if none does.
func (l *Log) Collect() (slowest int, err error) {
	hw := l.head.Load()
	l.at(PtScan)
	t := l.Tail()
	head := position(hw)
	least, slowest := t, -1
	for i := range l.cfg.Slots {
		l.at(PtScan)
		w := l.slots[i].Load()
		if s := slotState(w); s != Live && s != Joining {
			continue
		}
		p := position(w)
		if p < head && slotState(w) == Joining {
			continue // a claim that came too late: its swap of head's epoch is going to fail
		}
		if p < head && l.head.Load() == hw && l.slots[i].Load() == w {
			return i, l.corrupt("replica slot %d at %d is behind head %d", i, p, head)
		}
		if p < least || slowest < 0 {
			least, slowest = min(p, least), i
		}
	}
	if slowest < 0 || least <= head {
		return slowest, nil
	}
	l.at(PtHead)
	l.head.CompareAndSwap(hw, withUpper(upper(hw), least))
	return slowest, nil
}

// Complete raises the completed tail to pos: entries below pos are published, and their effects may be seen from now on.
func (l *Log) Complete(pos uint64) error {
	for range casTries {
		c := l.ctail.Load()
		if c >= pos {
			return nil
		}
		l.at(PtCtail)
		if l.ctail.CompareAndSwap(c, pos) {
			return nil
		}
	}
	return l.corrupt("completed tail keeps changing")
}

// Blocker says why a position cannot be passed.
type Blocker struct {
	Pos  uint64
	Slot int // who holds it; -1 if nobody has stamped the entry yet
	Gen  Gen
}

func (b Blocker) String() string {
	if b.Slot < 0 {
		return fmt.Sprintf("position %d reserved by nobody known", b.Pos)
	}
	return fmt.Sprintf("position %d reserved by slot %d incarnation %d", b.Pos, b.Slot, b.Gen)
}

// resolve looks at position pos, below tail, which was not published when last looked at. It recovers the hole if that
// is due. done means that pos is worth another look; otherwise b names who is waited for.
func (l *Log) resolve(pos uint64, attempt int) (b Blocker, done bool, err error) {
	e := l.ring.At(pos).Word(0)
	w := e.Load()
	lap := l.lap(pos)
	switch {
	case entryLap(w) == lap && entryKind(w) != KindReserved:
		return b, true, nil
	case entryLap(w) == lap:
		b = Blocker{pos, entrySlot(w), entryGen(w)}
		if b.Slot >= l.cfg.Slots {
			return b, false, l.corrupt("position %d reserved by slot %d of %d", pos, b.Slot, l.cfg.Slots)
		}
		sw := l.slots[b.Slot].Load()
		if slotGen(sw) == b.Gen && (slotState(sw) == Live || slotState(sw) == Joining) {
			return b, false, nil
		}
		l.at(PtHole)
		e.CompareAndSwap(w, entryWord(lap, b.Gen, b.Slot, KindRetired))
		return b, true, nil
	case entryLap(w) == lap-1:
		if attempt < l.patience {
			return Blocker{pos, -1, 0}, false, nil
		}
		l.at(PtHole)
		l.fill(e, w, lap)
		return b, true, nil
	}
	return Blocker{pos, -1, 0}, false, l.corrupt("position %d has lap %d, want %d or %d", pos, entryLap(w), lap-1, lap)
}

// fill makes the unstamped entry e, last seen as w, a no-op of lap, or leaves it retired for another lap.
func (l *Log) fill(e *word, w uint64, lap uint32) {
	if l.quarantined(w) {
		e.CompareAndSwap(w, entryWord(lap, entryGen(w), entrySlot(w), KindRetired))
		return
	}
	e.CompareAndSwap(w, entryWord(lap, 0, 0, KindNoop))
}

// quarantined reports whether a stale writer may still store into the entry with state w.
func (l *Log) quarantined(w uint64) bool {
	if entryKind(w) != KindRetired {
		return false
	}
	s := entrySlot(w)
	if s >= l.cfg.Slots {
		return true // nonsense in the log; not using the entry is safe
	}
	sw := l.slots[s].Load()
	return slotGen(sw) == entryGen(w) && slotState(sw) == Evicted
}

// place puts the resolved state made by mk into the next free entry, in one swap and without a slot of its own.
// ok is false if the ring is full.
func (l *Log) place(pt Point, mk func(lap uint32) uint64, still func() bool) (pos uint64, ok bool, err error) {
	room := uint64(0)
	// An entry may be lost to recovery or be retired; a whole ring of such is given up.
	for range l.cfg.Entries + 1 {
		// tail is read before still is asked: had anything been appended since, the reservation fails.
		t := l.tail.Load()
		if still != nil && !still() {
			return 0, true, nil
		}
		pos, st, err := l.reserveAt(t, 1, &room)
		if st == reserveFull || err != nil {
			return 0, false, err
		}
		if st == reserveRaced {
			continue
		}
		e := l.ring.At(pos).Word(0)
		w := e.Load()
		lap := l.lap(pos)
		if entryLap(w) != lap-1 {
			continue
		}
		l.at(pt)
		if l.quarantined(w) {
			l.fill(e, w, lap)
		} else if e.CompareAndSwap(w, mk(lap)) {
			return pos, true, nil
		}
	}
	return 0, false, nil
}
