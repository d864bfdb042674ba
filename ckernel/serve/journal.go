package serve

import (
	"fmt"
	"slices"
	"sync"

	"dinos/shmem/proto"
	"dinos/shmem/rpc"
)

// DefaultLogLines are the lines of all kernels that the ckernel keeps.
const DefaultLogLines = 4096

// line is a line of a kernel's log.
type line struct {
	number  uint64
	time    uint64 // ns of the rack's clock
	machine int
	text    string
}

// journal keeps the last lines. Any goroutine may use it; it never waits for readers.
type journal struct {
	mu     sync.Mutex
	lines  []line // a ring
	next   uint64 // number of the next line
	more   chan struct{}
	closed bool
}

func newJournal(n int) *journal {
	return &journal{lines: make([]line, max(n, 1)), more: make(chan struct{})}
}

func (j *journal) add(l line) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return
	}
	l.number = j.next
	j.lines[j.next%uint64(len(j.lines))] = l
	j.next++
	close(j.more)
	j.more = make(chan struct{})
}

func (j *journal) close() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.closed {
		j.closed = true
		close(j.more)
	}
}

// from are the lines from a number on that are still there, and a channel that is closed when there are more. end says that there will be none.
func (j *journal) from(number uint64) (lines []line, more <-chan struct{}, end bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := uint64(len(j.lines))
	for i := max(number, j.next-min(j.next, n)); i < j.next; i++ {
		lines = append(lines, j.lines[i%n])
	}
	return lines, j.more, j.closed
}

// logLine serves LogLine of any kernel, member or not: it may want to say why it cannot become one.
func (s *Server) logLine(r *rpc.Request, q *proto.LogLine, _ *proto.Done) error {
	from := s.peer.PeerOf(r.Conn)
	if from < 0 {
		return nil
	}
	s.journal.add(line{time: q.TimeNs, machine: from, text: q.Text})
	if host, err := s.peer.Conn(s.rack.Host()); err == nil && from != s.rack.Host() {
		text := proto.CutText(s.peer.Name(from) + ": " + q.Text)
		_ = host.Event(&proto.LogLine{TimeNs: q.TimeNs, CPU: q.CPU, Level: q.Level, Text: text})
	}
	return nil
}

// readLog serves ReadLog.
func (s *Server) readLog(t *rpc.Stream, q *proto.ReadLog) error {
	if q.Machine < -1 || int(q.Machine) >= s.rack.Peers() {
		return rpc.Errorf(proto.CodeNotFound, "machine %d, want 0 to %d, or -1 for all", q.Machine, s.rack.Peers()-1)
	}
	if err := t.Accept(&proto.ReadLogReply{}); err != nil {
		return err
	}
	next, first := uint64(0), true
	for {
		lines, more, end := s.journal.from(next)
		if n := len(lines); n > 0 {
			next = lines[n-1].number + 1
		}
		lines = slices.DeleteFunc(lines, func(l line) bool { return q.Machine >= 0 && l.machine != int(q.Machine) })
		if n := int(q.Lines); first && n > 0 && len(lines) > n {
			lines = lines[len(lines)-n:]
		}
		first = false
		for _, l := range lines {
			if _, err := fmt.Fprintf(t, "[%5d.%06d] %s: %s\n", l.time/1e9, l.time/1e3%1e6, s.peer.Name(l.machine), l.text); err != nil {
				return err
			}
		}
		if !q.Follow || end {
			return nil
		}
		select {
		case <-more:
		case <-s.ctx.Done():
			return nil
		}
	}
}
