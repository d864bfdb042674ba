package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"dinos/nr/oplog"
)

// MaxLogs is the largest number of logs of one structure, without the cross log.
const MaxLogs = 64

// primary is the log that every replica belongs to, whatever it subscribes to: the place where slots are handed out.
func (g *Group[O, R]) primary() *oplog.Log {
	if g.Cross != nil {
		return g.Cross
	}
	return g.Logs[0]
}

// First makes a replica of the empty structure, which follows the logs from their beginning. It subscribes to all
// logs. It works as long as no entry of the logs has been reused; later replicas come from a snapshot.
func First[O, R any](g *Group[O, R]) (*Replica[O, R], error) {
	if err := g.check(); err != nil {
		return nil, err
	}
	t := ticket{Next: 0, Mask: 1<<len(g.Logs) - 1}
	if err := g.claim(&t); err != nil {
		return nil, err
	}
	parts := make([]Structure[O, R], len(g.Logs))
	for i := range parts {
		parts[i] = g.New(i)
	}
	return g.activate(&t, parts)
}

// Place is where a replica stands in a log.
type place struct {
	Pos    uint64
	Fences [oplog.MaxSlots]oplog.Gen
}

// ticket is the head of a snapshot: the slot that was claimed for the joiner, and where it starts.
type ticket struct {
	Magic uint64
	Slot  uint32
	Gen   uint32
	Logs  uint32
	Mask  uint64 // logs subscribed to
	Next  uint64 // cross op
	Cross place
	Parts []place // of the subscribed logs, in order
}

const ticketMagic = 0x31706e7368706172 // "raphsnp1"

func (t *ticket) id() oplog.ID { return oplog.ID{Slot: int(t.Slot), Gen: oplog.Gen(t.Gen)} }

// claim takes a slot in all logs that t subscribes to, at t's positions, and notes it in t.
func (g *Group[O, R]) claim(t *ticket) error {
	t.Magic, t.Logs = ticketMagic, uint32(len(g.Logs))
	if len(t.Parts) == 0 {
		t.Parts = make([]place, len(g.Logs))
	}
	avoid := uint64(0)
	for {
		start := t.Parts[0].Pos
		if g.Cross != nil {
			start = t.Next
		}
		id, err := g.primary().Claim(start, avoid)
		if err != nil {
			return err
		}
		t.Slot, t.Gen = uint32(id.Slot), uint32(id.Gen)
		err = g.claimOthers(t, id)
		if err == nil {
			return nil
		}
		g.unclaim(id)
		if !errors.Is(err, oplog.ErrStale) {
			return err
		}
		avoid |= 1 << id.Slot // still quarantined in some other log
	}
}

func (g *Group[O, R]) claimOthers(t *ticket, id oplog.ID) error {
	if g.Cross == nil {
		return nil
	}
	k := 0
	for i, l := range g.Logs {
		if t.Mask>>i&1 == 0 {
			continue
		}
		if err := l.ClaimSlot(id, t.Parts[k].Pos); err != nil {
			return err
		}
		k++
	}
	return nil
}

func (g *Group[O, R]) unclaim(id oplog.ID) {
	for _, l := range g.Logs {
		l.Unclaim(id)
	}
	if g.Cross != nil {
		g.Cross.Unclaim(id)
	}
}

// activate makes the replica that t has claimed slots for.
func (g *Group[O, R]) activate(t *ticket, parts []Structure[O, R]) (*Replica[O, R], error) {
	members := make([]*oplog.Member, len(g.Logs))
	var cross *oplog.Member
	undo := func(err error) (*Replica[O, R], error) {
		for _, m := range append(members, cross) {
			if m != nil {
				_ = m.Leave() // the first error is the one to report
			}
		}
		g.unclaim(t.id())
		return nil, err
	}
	var err error
	k := 0
	for i, l := range g.Logs {
		if t.Mask>>i&1 == 0 {
			continue
		}
		if members[i], err = l.Activate(t.id(), t.Parts[k].Fences); err != nil {
			return undo(err)
		}
		if got := members[i].Pos(); got != t.Parts[k].Pos {
			return undo(fmt.Errorf("%w: log %d is held at %d, the snapshot is of %d", ErrSnapshot, i, got, t.Parts[k].Pos))
		}
		k++
	}
	if g.Cross != nil {
		if cross, err = g.Cross.Activate(t.id(), t.Cross.Fences); err != nil {
			return undo(err)
		}
		if cross.Pos() != t.Next {
			return undo(fmt.Errorf("%w: the cross log is held at %d, the snapshot is of %d", ErrSnapshot, cross.Pos(), t.Next))
		}
	}
	return build(g, t.id(), members, cross, parts), nil
}

// Donate claims a slot for a new replica and writes a snapshot of this one to w, from which Join makes the new one. logs are
// the logs it subscribes to; nil means all. Ops of this replica's threads wait while w takes the snapshot, other replicas go on
// until the ring, which is held for the joiner from here on, is full. If the joiner never comes, evict the returned ID.
func (r *Replica[O, R]) Donate(w io.Writer, logs []int) (oplog.ID, error) {
	mask, err := r.mask(logs)
	if err != nil {
		return oplog.ID{}, err
	}
	for attempt := 0; ; attempt++ {
		if !r.lockAll() {
			return oplog.ID{}, r.Err()
		}
		if r.cross.member == nil || r.cross.member.Pos() == r.next {
			break
		}
		// Half way into a cross op. There is no position to start from before it is done.
		out, by := r.crossOne()
		r.unlockAll()
		if out == failed {
			return oplog.ID{}, r.Err()
		}
		if out != progressed && !r.wait(waitFor(out), CrossLog, by, attempt) {
			return oplog.ID{}, stalled(waitFor(out), by)
		}
	}
	defer r.unlockAll()
	t := ticket{Mask: mask, Next: r.next}
	if r.cross.member != nil {
		t.Cross = place{r.next, r.cross.member.Fences()}
	}
	for i := range r.parts {
		if mask>>i&1 != 0 {
			t.Parts = append(t.Parts, place{r.parts[i].member.Pos(), r.parts[i].member.Fences()})
		}
	}
	if err := r.group.claim(&t); err != nil {
		return oplog.ID{}, err
	}
	if err := r.writeSnapshot(w, &t); err != nil {
		r.group.unclaim(t.id())
		return oplog.ID{}, err
	}
	return t.id(), nil
}

// mask is the set of logs, all of which this replica must have.
func (r *Replica[O, R]) mask(logs []int) (uint64, error) {
	mask := uint64(0)
	if logs == nil {
		mask = 1<<len(r.parts) - 1
	}
	for _, i := range logs {
		if i < 0 || i >= len(r.parts) {
			return 0, fmt.Errorf("%w: log %d, want 0 to %d", ErrRoute, i, len(r.parts)-1)
		}
		mask |= 1 << i
	}
	if mask == 0 {
		return 0, fmt.Errorf("%w: no log to subscribe to", ErrRoute)
	}
	for i := range r.parts {
		if mask>>i&1 == 0 {
			continue
		}
		if r.parts[i].member == nil {
			return 0, fmt.Errorf("%w: the donor %v does not subscribe to log %d", ErrRoute, r.id, i)
		}
		if _, ok := r.parts[i].s.(Snapshotter); !ok {
			return 0, fmt.Errorf("%w: %T is no Snapshotter", ErrSnapshot, r.parts[i].s)
		}
	}
	return mask, nil
}

func (r *Replica[O, R]) writeSnapshot(w io.Writer, t *ticket) error {
	for _, v := range []any{t.Magic, t.Slot, t.Gen, t.Logs, t.Mask, t.Next, t.Cross, t.Parts} {
		if err := binary.Write(w, binary.LittleEndian, v); err != nil {
			return fmt.Errorf("%w: %w", ErrSnapshot, err)
		}
	}
	for i := range r.parts {
		if t.Mask>>i&1 == 0 {
			continue
		}
		f := frameWriter{w: w}
		if err := r.parts[i].s.(Snapshotter).Snapshot(&f); err != nil {
			return fmt.Errorf("%w: part %d: %w", ErrSnapshot, i, err)
		}
		if err := f.end(); err != nil {
			return fmt.Errorf("%w: part %d: %w", ErrSnapshot, i, err)
		}
	}
	return nil
}

// Join makes the replica for which Donate wrote the snapshot that rd reads. Once it returns, the replica catches up with
// its first operation. If it fails, the claimed slot is given back, as far as rd told which one it is.
func Join[O, R any](g *Group[O, R], rd io.Reader) (*Replica[O, R], error) {
	if err := g.check(); err != nil {
		return nil, err
	}
	t, err := readTicket(rd, len(g.Logs))
	if err != nil {
		return nil, err
	}
	parts := make([]Structure[O, R], len(g.Logs))
	for i := range parts {
		if t.Mask>>i&1 == 0 {
			continue
		}
		parts[i] = g.New(i)
		if err := restore(parts[i], rd); err != nil {
			g.unclaim(t.id())
			return nil, fmt.Errorf("%w: part %d: %w", ErrSnapshot, i, err)
		}
	}
	return g.activate(t, parts)
}

func restore(s any, rd io.Reader) error {
	sn, ok := s.(Snapshotter)
	if !ok {
		return fmt.Errorf("%T is no Snapshotter", s)
	}
	f := frameReader{r: rd}
	if err := sn.Restore(&f); err != nil {
		return err
	}
	if n, err := io.Copy(io.Discard, &f); err != nil || n > 0 {
		return fmt.Errorf("%d bytes not read by %T, %v", n, s, err)
	}
	return nil
}

func readTicket(rd io.Reader, logs int) (*ticket, error) {
	t := new(ticket)
	for _, v := range []any{&t.Magic, &t.Slot, &t.Gen, &t.Logs, &t.Mask, &t.Next, &t.Cross} {
		if err := binary.Read(rd, binary.LittleEndian, v); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrSnapshot, err)
		}
	}
	if t.Magic != ticketMagic || int(t.Logs) != logs || t.Mask == 0 || t.Mask>>logs != 0 ||
		t.Slot >= oplog.MaxSlots || t.Gen == 0 || t.Gen > uint32(oplog.MaxGen) {
		return nil, fmt.Errorf("%w: magic %#x, %d logs, mask %#x, slot %d incarnation %d; want magic %#x, %d logs", ErrSnapshot,
			t.Magic, t.Logs, t.Mask, t.Slot, t.Gen, uint64(ticketMagic), logs)
	}
	for i := range logs {
		if t.Mask>>i&1 == 0 {
			continue
		}
		var p place
		if err := binary.Read(rd, binary.LittleEndian, &p); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrSnapshot, err)
		}
		t.Parts = append(t.Parts, p)
	}
	return t, nil
}

// Close takes the replica out of all logs. All its updates must be decided (ErrPending otherwise). After an eviction Close releases
// the slot: it says that this kernel has stopped writing to the logs. Operations fail from now on.
func (r *Replica[O, R]) Close() error {
	for i := range len(r.parts) + 1 {
		p := r.lockable(i)
		for attempt := 0; p != nil && !p.lock.CompareAndSwap(0, 1); attempt++ {
			if errors.Is(r.Err(), ErrPanic) {
				break // the lock's holder is gone
			}
			r.wait(ForCombiner, p.index, oplog.Blocker{}, attempt)
		}
	}
	defer r.unlockAll()
	for i := range len(r.parts) + 1 {
		if p := r.lockable(i); p != nil && r.Err() == nil && (len(p.out) > 0 || p.waiting()) {
			return ErrPending
		}
	}
	r.fail(fmt.Errorf("%w: %v is closed", oplog.ErrStale, r.id))
	r.group.local[r.id.Slot].CompareAndSwap(r, nil)
	var errs []error
	for i := range len(r.parts) + 1 {
		if p := r.lockable(i); p != nil {
			errs = append(errs, p.member.Leave())
		}
	}
	return errors.Join(errs...)
}

// Evict fences replica id in all logs, for the membership authority; it needs no replica of its own. After a nil return nothing
// that id still does has an effect, and nobody waits for it. dead vouches that its kernel does not run any more: the slot
// is then free at once, otherwise when the evicted replica closes. Evict may be repeated; an ErrFull names another replica that
// holds a log, and asks for Evict to be called again once that one has consumed or has been evicted.
func (g *Group[O, R]) Evict(id oplog.ID, dead bool) error {
	// The primary log first: from then on no claim of id can succeed there, and the others follow. It is released last, so
	// that id is seen until all is done.
	errs := []error{g.primary().Evict(id)}
	for _, l := range g.Logs {
		if l == g.primary() {
			continue
		}
		if err := l.Bar(id); !errors.Is(err, oplog.ErrStale) { // stale: it cannot have claimed this one
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil || !dead {
		return err
	}
	if err := g.Release(id); !errors.Is(err, oplog.ErrStale) {
		return err
	}
	return nil
}

// Release frees the slot of an evicted replica that is known not to run any more.
func (g *Group[O, R]) Release(id oplog.ID) error {
	for _, l := range g.Logs {
		if l != g.primary() {
			_ = l.Release(id) // stale where not subscribed
		}
	}
	return g.primary().Release(id)
}

// MemberInfo describes a replica.
type MemberInfo struct {
	oplog.ID
	State  oplog.State
	Behind map[int]uint64 // entries not yet consumed, by subscribed log and CrossLog
}

// Members lists the slots that are not free in some log. A state other than that of the primary log, if it is free there,
// is what a kernel left that died while it claimed or gave back a slot: Evict serves for that, too.
func (g *Group[O, R]) Members() []MemberInfo {
	var out []MemberInfo
	add := func(log int, l *oplog.Log) {
		for _, s := range l.Slots() {
			if s.State == oplog.Free {
				continue
			}
			k := slices.IndexFunc(out, func(m MemberInfo) bool { return m.ID == s.ID })
			if k < 0 {
				k = len(out)
				out = append(out, MemberInfo{s.ID, s.State, map[int]uint64{}})
			}
			out[k].Behind[log] = l.Tail() - min(s.Tail, l.Tail())
		}
	}
	if g.Cross != nil {
		add(CrossLog, g.Cross)
	}
	for i, l := range g.Logs {
		add(i, l)
	}
	return out
}
