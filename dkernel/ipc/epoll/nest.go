package epoll

// What follows is called with nesting held, so that the graph of epolls stays as it is. It has no loops.

// nested returns the epolls that ep watches.
func (ep *Epoll) nested() (out []*Epoll) {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	for k := range ep.items {
		if t, ok := k.d.File().(*Epoll); ok {
			out = append(out, t)
		}
	}
	return out
}

// depth is the length of the longest chain of epolls below ep, which is at most maxNests.
func (ep *Epoll) depth() (n int) {
	for _, t := range ep.nested() {
		n = max(n, 1+t.depth())
	}
	return n
}

// reaches tells whether target is ep or is watched through it.
func (ep *Epoll) reaches(target *Epoll) bool {
	if ep == target {
		return true
	}
	for _, t := range ep.nested() {
		if t.reaches(target) {
			return true
		}
	}
	return false
}

// height is the length of the longest chain of epolls above ep.
func (ep *Epoll) height() (n int) {
	for a := range ep.above {
		n = max(n, 1+a.height())
	}
	return n
}
