package peer

import (
	"math/bits"
	"runtime/metrics"

	"dinos/shmem/layout"
	"dinos/shmem/proto"
)

// runtimeStatistics are those of Go's runtime. Reading metrics, other than runtime.ReadMemStats, does not stop the world.
func runtimeStatistics(set func(layout.Stat, uint64)) {
	s := []metrics.Sample{{Name: "/sched/goroutines:goroutines"}, {Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/cycles/total:gc-cycles"}}
	metrics.Read(s)
	for i, stat := range []layout.Stat{layout.StatGoroutines, layout.StatHeap, layout.StatGCs} {
		if s[i].Value.Kind() == metrics.KindUint64 {
			set(stat, s[i].Value.Uint64())
		}
	}
}

// Values are the statistics in the block of a peer that exists, for a message.
func (p *Peer) Values(peer int) []proto.Value {
	list := make([]proto.Value, 0, layout.Stats)
	for k := range layout.Stats {
		list = append(list, proto.Value{Index: uint16(k), Value: p.blocks[peer].Stat[k].Load()})
	}
	return list
}

// Nanoseconds is a moment of the rack's time stamp counter in nanoseconds. The ckernel's block says at what rate that counts; not ok if it
// does not, or makes no sense.
func (p *Peer) Nanoseconds(tsc uint64) (ns uint64, ok bool) {
	hz := p.blocks[layout.Ckernel].TSCHz.Load()
	hi, lo := bits.Mul64(tsc, 1e9)
	if hi >= hz { // not known yet, a broken word, or some 500 years
		return 0, false
	}
	ns, _ = bits.Div64(hi, lo, hz)
	return ns, true
}
