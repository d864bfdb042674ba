package thread

// The timers of a CPU are a binary min-heap of threads by deadline; every thread knows its position, so that a wake-up
// removes its timer in O(log n). A thread's timer is on the CPU on which it blocked, which is thread.cpu until
// it becomes runnable.

func (t *Table) addTimer(c int, id ID) {
	q := &t.cpus[c]
	q.ntimers++
	t.threads[id].cpu = int32(c)
	t.up(q, q.ntimers-1, id)
}

func (t *Table) dropTimer(id ID) {
	q := &t.cpus[t.threads[id].cpu]
	i := int(t.threads[id].timer)
	t.threads[id].timer = -1
	q.ntimers--
	last := q.timers[q.ntimers]
	if i == q.ntimers {
		return
	}
	if i > 0 && t.threads[last].deadline < t.threads[q.timers[(i-1)/2]].deadline {
		t.up(q, i, last)
	} else {
		t.down(q, i, last)
	}
}

// up places id at position i or above.
func (t *Table) up(q *cpu, i int, id ID) {
	for i > 0 {
		p := (i - 1) / 2
		if t.threads[q.timers[p]].deadline <= t.threads[id].deadline {
			break
		}
		t.place(q, i, q.timers[p])
		i = p
	}
	t.place(q, i, id)
}

// down places id at position i or below.
func (t *Table) down(q *cpu, i int, id ID) {
	for {
		k := 2*i + 1
		if k >= q.ntimers {
			break
		}
		if k+1 < q.ntimers && t.threads[q.timers[k+1]].deadline < t.threads[q.timers[k]].deadline {
			k++
		}
		if t.threads[id].deadline <= t.threads[q.timers[k]].deadline {
			break
		}
		t.place(q, i, q.timers[k])
		i = k
	}
	t.place(q, i, id)
}

func (t *Table) place(q *cpu, i int, id ID) {
	q.timers[i] = id
	t.threads[id].timer = int32(i)
}
