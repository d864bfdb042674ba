package thread

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// machine drives a Table as a kernel does and checks it against what it knows of each thread.
type machine struct {
	t     *rapid.T
	tab   Table
	ncpu  int
	now   int64
	state map[ID]State
	key   map[ID]uint64
	until map[ID]int64
	allow map[ID]uint64
	order map[uint64][]ID // waiters by key, first come first
}

func newMachine(t *rapid.T, ncpu int) *machine {
	m := &machine{t: t, ncpu: ncpu, state: map[ID]State{}, key: map[ID]uint64{}, until: map[ID]int64{}, allow: map[ID]uint64{}, order: map[uint64][]ID{}}
	m.tab.Init()
	for c := range ncpu {
		m.tab.AddCPU(c)
	}
	first := m.tab.Create(0)
	m.tab.Adopt(0, first, 0)
	m.state[first], m.allow[first] = Running, 1<<MaxCPUs-1
	for c := 1; c < ncpu; c++ {
		require.Equal(t, None, m.tab.Next(c, 0))
	}
	return m
}

// cpu draws a CPU that runs something, -1 if none does.
func (m *machine) cpu() int {
	var busy []int
	for c := range m.ncpu {
		if m.tab.Current(c) != None {
			busy = append(busy, c)
		}
	}
	if len(busy) == 0 {
		return -1
	}
	return rapid.SampledFrom(busy).Draw(m.t, "cpu")
}

// next lets CPU c pick a thread, and every CPU of the set kick look at its queue.
func (m *machine) next(c int, kick uint64) {
	if m.tab.Current(c) == None {
		kick |= 1 << c
	}
	for i := range m.ncpu {
		if kick&(1<<i) == 0 || m.tab.Current(i) != None {
			continue
		}
		work := false
		for id, st := range m.state {
			work = work || st == Runnable && m.allow[id]&(1<<i) != 0
		}
		id := m.tab.Next(i, m.now)
		if id == None {
			require.False(m.t, work, "CPU %d goes idle while a thread that it may run waits", i)
			require.NotZero(m.t, m.tab.Idle()&(1<<i))
			continue
		}
		require.True(m.t, work)
		require.Equal(m.t, Runnable, m.state[id], "thread %d was picked", id)
		require.NotZero(m.t, m.allow[id]&(1<<i), "thread %d may not run on CPU %d", id, i)
		m.state[id] = Running
	}
}

// woke records that the table made id runnable.
func (m *machine) woke(id ID) {
	if k := m.key[id]; k != 0 {
		for i, w := range m.order[k] {
			if w == id {
				m.order[k] = append(m.order[k][:i:i], m.order[k][i+1:]...)
				break
			}
		}
	}
	m.state[id], m.key[id], m.until[id] = Runnable, 0, Never
}

func (m *machine) create() {
	c := m.cpu()
	if c < 0 {
		return
	}
	id := m.tab.Create(c)
	if id == None {
		require.Len(m.t, m.state, MaxThreads)
		return
	}
	_, used := m.state[id]
	require.False(m.t, used, "thread %d exists twice", id)
	m.tab.Inherit(id, m.tab.Current(c))
	m.allow[id] = m.allow[m.tab.Current(c)]
	m.state[id] = Runnable
	m.next(c, m.tab.WakeThread(id))
}

func (m *machine) exit() {
	c := m.cpu()
	if c < 0 || len(m.state) == 1 {
		return
	}
	delete(m.state, m.tab.Current(c))
	m.tab.Exit(c)
	m.next(c, 0)
}

func (m *machine) block() {
	c := m.cpu()
	if c < 0 {
		return
	}
	id := m.tab.Current(c)
	key := rapid.Uint64Range(0, 4).Draw(m.t, "key") << 2
	until := Never
	if key == 0 || rapid.Bool().Draw(m.t, "timed") {
		until = m.now + rapid.Int64Range(0, 50).Draw(m.t, "ns")
	}
	m.tab.Block(c, key, until)
	m.state[id], m.key[id], m.until[id] = Blocked, key, until
	if key != 0 {
		m.order[key] = append(m.order[key], id)
	}
	m.next(c, 0)
}

func (m *machine) wake() {
	key := rapid.Uint64Range(1, 4).Draw(m.t, "key") << 2
	n := rapid.IntRange(0, 3).Draw(m.t, "n")
	want := append([]ID(nil), m.order[key]...)
	if len(want) > n {
		want = want[:n]
	}
	woken, kick := m.tab.Wake(key, n)
	require.Equal(m.t, len(want), woken)
	for _, id := range want {
		require.Equal(m.t, Runnable, m.tab.State(id), "first come, first served")
		require.False(m.t, m.tab.TimedOut(id))
		m.woke(id)
	}
	m.next(m.anyCPU(), kick)
}

func (m *machine) anyCPU() int { return rapid.IntRange(0, m.ncpu-1).Draw(m.t, "any") }

func (m *machine) expire() {
	m.now += rapid.Int64Range(0, 2*Slice).Draw(m.t, "passed")
	for c := range m.ncpu {
		due := m.tab.Deadline(c) <= m.now
		kick := m.tab.Expire(c, m.now)
		for id, until := range m.until {
			if m.state[id] == Blocked && m.tab.State(id) == Runnable {
				require.LessOrEqual(m.t, until, m.now, "thread %d was woken early", id)
				require.True(m.t, due)
				require.True(m.t, m.tab.TimedOut(id))
				m.woke(id)
			}
		}
		m.next(c, kick)
	}
	for id, until := range m.until {
		require.False(m.t, m.state[id] == Blocked && until <= m.now, "thread %d sleeps past its deadline", id)
	}
}

func (m *machine) preempt() {
	c := m.cpu()
	if c < 0 {
		return
	}
	if m.tab.Due(c, m.now) {
		require.Positive(m.t, m.tab.Queued(c), "nobody waits, yet the slice ends")
	}
	m.state[m.tab.Current(c)] = Runnable
	m.next(c, m.tab.Yield(c))
}

func (m *machine) bind() {
	c := m.cpu()
	if c < 0 {
		return
	}
	set := rapid.Uint64Range(1, 1<<m.ncpu-1).Draw(m.t, "set")
	id := m.tab.Current(c)
	m.allow[id] = set
	if !m.tab.Allow(c, set) {
		m.state[id] = Runnable
		m.next(c, m.tab.Yield(c))
	}
}

// check compares the whole table.
func (m *machine) check() {
	now, peak := m.tab.Live()
	require.Equal(m.t, len(m.state), now)
	require.GreaterOrEqual(m.t, peak, now)
	running := 0
	for id, s := range m.state {
		require.Equal(m.t, s, m.tab.State(id), "thread %d", id)
		if s == Running {
			running++
			require.Equal(m.t, id, m.tab.Current(m.tab.CPU(id)))
		}
		if s == Runnable {
			// Work conservation: no CPU that may run it is idle without having been kicked.
			require.Zero(m.t, m.tab.Idle()&m.allow[id]&(1<<m.ncpu-1), "thread %d waits while a CPU is idle", id)
		}
	}
	for c := range m.ncpu {
		require.Equal(m.t, m.tab.Current(c) == None, m.tab.Idle()&(1<<c) != 0, "CPU %d", c)
	}
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(t, rapid.IntRange(1, 5).Draw(t, "cpus"))
		step := func(f func()) func(*rapid.T) { return func(r *rapid.T) { m.t = r; f() } }
		t.Repeat(map[string]func(*rapid.T){
			"create": step(m.create), "exit": step(m.exit), "block": step(m.block), "wake": step(m.wake),
			"expire": step(m.expire), "preempt": step(m.preempt), "bind": step(m.bind), "": step(m.check),
		})
	})
}

// A thread that was asleep runs before one that used up its slice, but not before the current one has had a while.
func TestPolicy(t *testing.T) {
	var tab Table
	tab.Init()
	tab.AddCPU(0)
	a, b, c := tab.Create(0), tab.Create(0), tab.Create(0)
	tab.Adopt(0, a, 0)
	tab.WakeThread(b)
	require.Equal(t, int64(WakeGranularity), tab.Deadline(0))
	require.False(t, tab.Due(0, WakeGranularity-1))
	require.True(t, tab.Due(0, WakeGranularity))
	tab.Yield(0)
	require.Equal(t, b, tab.Next(0, 10))
	require.Equal(t, 10+int64(Slice), tab.Deadline(0), "a has used its slice and waits for a whole one of b's")
	tab.WakeThread(c)
	require.Equal(t, 10+int64(WakeGranularity), tab.Deadline(0))
	tab.Yield(0)
	require.Equal(t, c, tab.Next(0, 20))
	tab.Block(0, 0, Never)
	require.Equal(t, a, tab.Next(0, 30))
	tab.Block(0, 0, Never)
	require.Equal(t, b, tab.Next(0, 40))
	require.Equal(t, Never, tab.Deadline(0), "alone: no timer")
}

func TestTableFull(t *testing.T) {
	var tab Table
	tab.Init()
	tab.AddCPU(0)
	for range MaxThreads {
		require.NotEqual(t, None, tab.Create(0))
	}
	require.Equal(t, None, tab.Create(0))
}

// Kernel code must not allocate.
func TestNoAllocation(t *testing.T) {
	var tab Table
	tab.Init()
	tab.AddCPU(0)
	tab.AddCPU(1)
	a, b := tab.Create(0), tab.Create(0)
	tab.Adopt(0, a, 0)
	tab.WakeThread(b)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		tab.Block(0, 64, 1000)
		tab.Next(0, 1)
		tab.Wake(64, 1)
		tab.Yield(0)
		tab.Next(0, 2)
		tab.Expire(0, 2000)
	}))
}

func BenchmarkFutexPair(b *testing.B) {
	var tab Table
	tab.Init()
	tab.AddCPU(0)
	x, y := tab.Create(0), tab.Create(0)
	tab.Adopt(0, x, 0)
	tab.WakeThread(y)
	for i := range b.N {
		tab.Block(0, 64, Never)
		tab.Next(0, int64(i))
		tab.Wake(64, 1)
	}
}
