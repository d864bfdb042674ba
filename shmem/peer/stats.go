package peer

import (
	"runtime/metrics"

	"dinos/shmem/layout"
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
