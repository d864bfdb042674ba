package oplog

// Crossed reports whether the markers up to and including x are in the log, and the position behind the last marker known.
func (l *Log) Crossed(x uint64) (bool, uint64) {
	w := l.cross.Load()
	return int16(upper(w)-uint16(x)) > 0, position(w)
}

// Mark puts marker x into the log if it is not known to be there. All markers below x must be. ok is false if the ring is
// full. Anybody may do it, with or without a slot; of several markers x the first counts.
//
// x is compared modulo 2^16: no caller is further than the cross log's ring from the others, which is why that ring
// has at most MaxCrossEntries entries.
func (l *Log) Mark(x uint64) (ok bool, err error) {
	missing := func() bool { placed, _ := l.Crossed(x); return !placed }
	pos, ok, err := l.place(PtMarker, func(lap uint32) uint64 { return markerWord(lap, x) }, missing)
	if !ok || err != nil {
		return ok, err
	}
	return true, l.Marked(x, pos)
}

// Marked notes that marker x was seen at position pos, for those who ask Crossed: who placed it may have died before it could.
func (l *Log) Marked(x, pos uint64) error {
	for range casTries {
		w := l.cross.Load()
		if upper(w) != uint16(x) {
			return nil // noted, by somebody who was quicker
		}
		l.at(PtCross)
		if l.cross.CompareAndSwap(w, withUpper(uint16(x)+1, pos+1)) {
			return nil
		}
	}
	return l.corrupt("cross word keeps changing")
}

// MaxCrossEntries bounds the ring of a cross log.
const MaxCrossEntries = 1 << 14
