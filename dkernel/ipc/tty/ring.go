package tty

// ring is a queue of bytes that grows up to a limit.
type ring struct {
	buf   []byte // length is a power of two, or none
	head  uint32 // oldest byte, counted on for ever
	n     int
	limit int
}

func (r *ring) room() int { return r.limit - r.n }

func (r *ring) grow(n int) {
	size := max(256, len(r.buf))
	for size < n {
		size *= 2
	}
	if size == len(r.buf) {
		return
	}
	buf := make([]byte, size)
	r.peek(buf)
	r.buf, r.head = buf, 0
}

// put appends as much of p as there is room for.
func (r *ring) put(p []byte) int {
	p = p[:max(0, min(len(p), r.room()))]
	if len(p) == 0 {
		return 0
	}
	r.grow(r.n + len(p))
	at := (int(r.head) + r.n) & (len(r.buf) - 1)
	c := copy(r.buf[at:], p)
	copy(r.buf, p[c:])
	r.n += len(p)
	return len(p)
}

// putc appends a byte; the caller knows that there is room.
func (r *ring) putc(c byte) {
	if r.n == len(r.buf) {
		r.grow(r.n + 1)
	}
	r.buf[(int(r.head)+r.n)&(len(r.buf)-1)] = c
	r.n++
}

// peek copies the oldest bytes to p.
func (r *ring) peek(p []byte) int {
	p = p[:min(len(p), r.n)]
	if len(p) == 0 {
		return 0
	}
	c := copy(p, r.buf[int(r.head)&(len(r.buf)-1):])
	copy(p[c:], r.buf)
	return len(p)
}

// skip drops the n oldest bytes.
func (r *ring) skip(n int) {
	r.head += uint32(n)
	r.n -= n
}

// take moves the oldest bytes to p.
func (r *ring) take(p []byte) int {
	n := r.peek(p)
	r.skip(n)
	return n
}

// first is the oldest bytes that lie in one piece.
func (r *ring) first() []byte {
	if r.n == 0 {
		return nil
	}
	at := int(r.head) & (len(r.buf) - 1)
	return r.buf[at:min(at+r.n, len(r.buf))]
}

// truncate drops all but the n oldest bytes.
func (r *ring) truncate(n int) { r.n = min(r.n, n) }
