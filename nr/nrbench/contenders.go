package nrbench

import (
	"sync"

	"dinos/nr"
)

// Add adds N to the counter.
type Add struct{ N uint64 }

// Counter is the smallest structure there is.
type Counter struct{ sum uint64 }

// NewCounter makes a Counter for nr.Config.
func NewCounter(int) nr.Structure[Add, uint64] { return new(Counter) }

// Read returns the sum.
func (c *Counter) Read(Add) uint64 { return c.sum }

// Apply adds and returns the sum.
func (c *Counter) Apply(op Add) uint64 {
	c.sum += op.N
	return c.sum
}

// Put stores Val under Key; a read of it looks Key up.
type Put struct{ Key, Val uint64 }

// Map is a Go map.
type Map struct{ m map[uint64]uint64 }

// Read returns the value of the key.
func (m *Map) Read(op Put) uint64 { return m.m[op.Key] }

// Apply stores, as the other contenders do, without looking at the value before.
func (m *Map) Apply(op Put) uint64 {
	m.m[op.Key] = op.Val
	return 0
}

func filled(keys int) map[uint64]uint64 {
	m := make(map[uint64]uint64, keys)
	for k := range uint64(keys) {
		m[k] = k
	}
	return m
}

// kv is a contender: a shared map. thread gives the accessors of a thread, settle ends a measurement.
type kv interface {
	thread(t int) (get func(k uint64) (uint64, error), set func(k, v uint64) error, err error)
	settle() error
}

type contender struct {
	name     string
	replicas int // it takes as many threads at least
	make     func(keys, threads int) (kv, error)
}

const baseline = "RWMutex"

var contenders = []contender{
	{"Mutex", 0, func(n, _ int) (kv, error) { return &mutexMap{m: filled(n)}, nil }},
	{baseline, 0, func(n, _ int) (kv, error) { return &rwMap{m: filled(n)}, nil }},
	{"RWMutex, 64 shards", 0, func(n, _ int) (kv, error) { return newSharded(n), nil }},
	{"sync.Map", 0, func(n, _ int) (kv, error) {
		m := new(syncMap)
		for k := range uint64(n) {
			m.m.Store(k, k)
		}
		return m, nil
	}},
	{"nr, 1 replica", 1, func(n, t int) (kv, error) { return newReplicated(n, 1, 1) }},
	{"nr, 2 replicas", 2, func(n, t int) (kv, error) { return newReplicated(n, 2, 1) }},
	{"nr, 2 replicas, 4 logs", 2, func(n, t int) (kv, error) { return newReplicated(n, 2, 4) }},
}

type plain struct{}

func (plain) settle() error { return nil }

type mutexMap struct {
	plain
	mu sync.Mutex
	m  map[uint64]uint64
}

func (m *mutexMap) thread(int) (func(uint64) (uint64, error), func(k, v uint64) error, error) {
	return func(k uint64) (uint64, error) {
			m.mu.Lock()
			v := m.m[k]
			m.mu.Unlock()
			return v, nil
		}, func(k, v uint64) error {
			m.mu.Lock()
			m.m[k] = v
			m.mu.Unlock()
			return nil
		}, nil
}

type rwMap struct {
	plain
	mu sync.RWMutex
	m  map[uint64]uint64
}

func (m *rwMap) get(k uint64) (uint64, error) {
	m.mu.RLock()
	v := m.m[k]
	m.mu.RUnlock()
	return v, nil
}

func (m *rwMap) set(k, v uint64) error {
	m.mu.Lock()
	m.m[k] = v
	m.mu.Unlock()
	return nil
}

func (m *rwMap) thread(int) (func(uint64) (uint64, error), func(k, v uint64) error, error) {
	return m.get, m.set, nil
}

type sharded struct {
	plain
	shards [64]struct {
		rwMap
		_ [64]byte
	}
}

func newSharded(keys int) *sharded {
	s := new(sharded)
	for i := range s.shards {
		s.shards[i].m = make(map[uint64]uint64, keys/len(s.shards))
	}
	for k := range uint64(keys) {
		s.shards[k%64].m[k] = k
	}
	return s
}

func (s *sharded) thread(int) (func(uint64) (uint64, error), func(k, v uint64) error, error) {
	return func(k uint64) (uint64, error) { return s.shards[k%64].get(k) },
		func(k, v uint64) error { return s.shards[k%64].set(k, v) }, nil
}

type syncMap struct {
	plain
	m sync.Map
}

func (m *syncMap) thread(int) (func(uint64) (uint64, error), func(k, v uint64) error, error) {
	return func(k uint64) (uint64, error) {
			v, _ := m.m.Load(k)
			return v.(uint64), nil
		}, func(k, v uint64) error {
			m.m.Store(k, v)
			return nil
		}, nil
}

// replicated spreads the threads over its replicas.
type replicated struct {
	reps    []*nr.Replica[Put, uint64]
	handles map[int]*nr.Handle[Put, uint64]
}

func newReplicated(keys, replicas, logs int) (*replicated, error) {
	cfg := nr.Config[Put, uint64]{Logs: logs, Replicas: replicas, New: func(log int) nr.Structure[Put, uint64] {
		m := make(map[uint64]uint64, keys/logs)
		for k := uint64(log); k < uint64(keys); k += uint64(logs) {
			m[k] = k
		}
		return &Map{m}
	}}
	if logs > 1 {
		cfg.Route = func(op Put) int { return int(op.Key % uint64(logs)) }
	}
	in, err := nr.New(cfg)
	if err != nil {
		return nil, err
	}
	r := &replicated{handles: map[int]*nr.Handle[Put, uint64]{}}
	for range replicas {
		rep, err := in.First()
		if err != nil {
			return nil, err
		}
		r.reps = append(r.reps, rep)
	}
	return r, nil
}

func (r *replicated) thread(t int) (func(uint64) (uint64, error), func(k, v uint64) error, error) {
	h := r.handles[t]
	if h == nil {
		var err error
		if h, err = r.reps[t%len(r.reps)].Register(); err != nil {
			return nil, nil, err
		}
		r.handles[t] = h
	}
	return func(k uint64) (uint64, error) { return h.Read(Put{Key: k}) },
		func(k, v uint64) error {
			_, err := h.Apply(Put{k, v})
			return err
		}, nil
}

func (r *replicated) settle() error {
	for _, rep := range r.reps {
		if err := rep.Sync(); err != nil {
			return err
		}
	}
	return nil
}
