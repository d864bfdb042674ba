package vm

import (
	"context"
	"errors"
	"io"
	"sync"
)

// ErrDropped is returned for a line that the console no longer holds.
var ErrDropped = errors.New("console line has been dropped: too many followed")

const (
	maxLines = 1 << 16 // kept; older ones are dropped
	maxLine  = 1 << 16 // bytes; longer lines are split
	tailSize = 60      // lines in errors
)

// Console collects what a guest writes to its serial port, as lines. It is safe for concurrent use.
type Console struct {
	tee io.Writer // only used by feed's goroutine

	mu      sync.Mutex
	lines   []string      // guarded by mu
	first   int           // number of lines[0]; guarded by mu
	partial []byte        // the line under way; guarded by mu
	closed  bool          // guarded by mu
	changed chan struct{} // closed and replaced at each change; guarded by mu
}

func newConsole(tee io.Writer) *Console {
	return &Console{tee: tee, changed: make(chan struct{})}
}

// NewConsole returns a console that collects lines from r until its end. It is for tests of what reads consoles.
func NewConsole(r io.Reader) *Console {
	c := newConsole(nil)
	go c.feed(r)
	return c
}

// feed reads r to its end.
func (c *Console) feed(r io.Reader) {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if c.tee != nil {
				if _, werr := c.tee.Write(buf[:n]); werr != nil {
					c.tee = nil // the guest goes on
				}
			}
			c.add(buf[:n])
		}
		if err != nil {
			c.close()
			return
		}
	}
}

func (c *Console) add(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, ch := range b {
		if ch == '\n' || len(c.partial) == maxLine {
			c.push()
		}
		if ch != '\n' {
			c.partial = append(c.partial, ch)
		}
	}
	c.notify()
}

// push ends the line under way; c.mu is held.
func (c *Console) push() {
	line := c.partial
	for len(line) > 0 && line[len(line)-1] == '\r' {
		line = line[:len(line)-1]
	}
	c.lines = append(c.lines, string(line))
	c.partial = c.partial[:0]
	if len(c.lines) > maxLines {
		drop := len(c.lines) / 2
		c.lines = append([]string(nil), c.lines[drop:]...)
		c.first += drop
	}
}

func (c *Console) notify() {
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *Console) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.partial) > 0 {
		c.push()
	}
	c.closed = true
	c.notify()
}

// Line returns line n, counted from 0 since the start, without its line end. It waits for the line to be complete; at the
// end of the console the error is io.EOF, when ctx is done it is ctx's.
func (c *Console) Line(ctx context.Context, n int) (string, error) {
	for {
		c.mu.Lock()
		line, ok, closed, changed := "", false, c.closed, c.changed
		if i := n - c.first; i >= 0 && i < len(c.lines) {
			line, ok = c.lines[i], true
		}
		dropped := n < c.first
		c.mu.Unlock()
		switch {
		case ok:
			return line, nil
		case dropped:
			return "", ErrDropped
		case closed:
			return "", io.EOF
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// Find returns the first line from number n on that match accepts, and its number. It waits like Line.
func (c *Console) Find(ctx context.Context, n int, match func(string) bool) (string, int, error) {
	for ; ; n++ {
		line, err := c.Line(ctx, n)
		if err != nil || match(line) {
			return line, n, err
		}
	}
}

// Tail returns the last lines, including one that is not complete.
func (c *Console) Tail() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := append([]string(nil), c.lines[max(0, len(c.lines)-tailSize):]...)
	if len(c.partial) > 0 {
		t = append(t, string(c.partial))
	}
	return t
}

// tail keeps the last bytes that are written to it. It is safe for concurrent use.
type tail struct {
	mu sync.Mutex
	b  []byte // guarded by mu
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if over := len(t.b) - 8<<10; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
