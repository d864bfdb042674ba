package main

// mutant is a way to be wrong: small edits, each of a text that occurs once in its file.
type mutant struct {
	name  string
	edits []edit
}

type edit struct{ file, old, new string }

const (
	logGo     = "nr/oplog/log.go"
	memberGo  = "nr/oplog/member.go"
	slotsGo   = "nr/oplog/slots.go"
	readGo    = "nr/replica/read.go"
	combineGo = "nr/replica/combine.go"
	crossGo   = "nr/replica/cross.go"
)

var mutants = []mutant{
	{"skip the completed-tail wait", []edit{{readGo, "p.applied.Load() < done {", "false && p.applied.Load() < done {"}}},
	{"drop the lap mark", []edit{{memberGo, "if entryLap(w) != l.lap(pos) {", "if entryKind(w) == KindVirgin {"}}},
	{"head passes a live replica", []edit{{logGo, "s != Live && s != Joining {", "s != Live && s != Joining || i == 1 {"}}},
	{"head passes a joiner", []edit{{logGo, "s != Live && s != Joining {", "s != Live {"}}},
	{"forget a response", []edit{{combineGo, "r.ctxs[o.ctx].state.Store(ctxDone)", "_ = o"}}},
	{"complete own ops only", []edit{{combineGo, "p.log.Complete(pos)", "p.log.Complete(pos * uint64(min(1, len(p.out))))"}}},
	{"publish without a swap", []edit{{memberGo, "!e.CompareAndSwap(reserved, reserved-uint64(KindReserved)+uint64(KindOp)) {",
		"e.Store(reserved - uint64(KindReserved) + uint64(KindOp)); false {"}}},
	{"stamp without a swap", []edit{{memberGo, "!e.CompareAndSwap(w, reserved) {", "e.Store(reserved); false {"}}},
	{"a lost position counts as appended", []edit{{memberGo, "if !e.CompareAndSwap(w, reserved) {\n\t\treturn false, nil",
		"if !e.CompareAndSwap(w, reserved) {\n\t\treturn true, nil"}}},
	{"an abandoned entry is reused", []edit{{logGo, "return slotGen(sw) == entryGen(w) && slotState(sw) == Evicted", "return false && sw == 0"}}},
	// A writer that looks at its slot behind its reservation is never behind the fence; only together are the two unsafe.
	{"the fence is ignored", []edit{{memberGo, "if gen <= m.fences[slot] {", "if false {"},
		{memberGo, "m.Check(); err != nil {\n\t\t\treturn n, err", "error(nil); err != nil {\n\t\t\treturn n, err"}}},
	{"the fence leaves holes open", []edit{{slotsGo, "} else if entryLap(w) == lap-1 {", "} else if false {"}}},
	{"the fence leaves stamps open", []edit{{slotsGo, "entryKind(w) == KindReserved && entrySlot(w) == id.Slot", "false && entrySlot(w) == id.Slot"}}},
	{"a joiner is not announced", []edit{{slotsGo, "if l.head.CompareAndSwap(hw, withUpper(upper(hw)+1, position(hw))) {",
		"if l.head.Load() == hw {"}}},
	{"the evicted replica goes on", []edit{{memberGo, "if !m.mine.CompareAndSwap(m.word, next) {", "if m.mine.Store(next); false {"}}},
	{"one entry too many", []edit{{logGo, "if t+n <= head+l.cfg.Entries {", "if t+n <= head+l.cfg.Entries+1 {"},
		{logGo, "if t+n > *room+l.cfg.Entries ||", "if t+n > *room+l.cfg.Entries+1 ||"}}},
	{"updates do not wait for readers", []edit{{combineGo, "c.reading.Load() == me; attempt++", "false && c.reading.Load() == me; attempt++"}}},
	{"readers do not wait for updates", []edit{{readGo, "\tif p.writer.Load() != 0 {", "\tif false && p.writer.Load() != 0 {"}}},
	{"a cross op completes in no log", []edit{{crossGo, "p.log.Complete(behind)", "p.log.Complete(0 * behind)"}}},
	{"a second marker counts", []edit{{memberGo, "markerDelta(w, cross); d == 0 {", "markerDelta(w, cross); d <= 0 {"}}},
	{"any cut will do", []edit{{crossGo, "if p.log.Completed() > p.applied.Load() {", "if p == nil {"}}},
	{"a failed replica donates", []edit{{crossGo, "\tif r.failure.Load() != nil {\n\t\t// A failed", "\tif false {\n\t\t// A failed"}}},
}
