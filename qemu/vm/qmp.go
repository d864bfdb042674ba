package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
)

// Event is an asynchronous message of QEMU; QEMU "QMP Reference Manual".
type Event struct {
	Name string
	Data json.RawMessage
}

// Monitor is a QMP connection. It is safe for concurrent use.
//
// Own code and not a library: those at hand come with a libvirt client, and their commands have no deadline.
type Monitor struct {
	conn net.Conn
	wmu  sync.Mutex // serialises writes to conn; taken before mu, never the other way round

	mu      sync.Mutex
	next    int                   // id of the next command; guarded by mu
	pending map[int]chan qmpReply // guarded by mu
	events  []Event               // the last ones; guarded by mu
	err     error                 // why the connection ended; guarded by mu
	done    chan struct{}         // closed when it has
}

type qmpReply struct {
	ID     *int            `json:"id"`
	Return json.RawMessage `json:"return"`
	Error  *QMPError       `json:"error"`
	Event  string          `json:"event"`
	Data   json.RawMessage `json:"data"`
}

// QMPError is QEMU's refusal of a command.
type QMPError struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func (e *QMPError) Error() string { return fmt.Sprintf("QMP: %s (%s)", e.Desc, e.Class) }

// errMonitorClosed is why commands fail after the connection has ended.
var errMonitorClosed = errors.New("QMP connection is closed")

const maxEvents = 64

// newMonitor owns conn. QEMU's greeting and the reply to the handshake are read like all else.
func newMonitor(conn net.Conn) *Monitor {
	m := &Monitor{conn: conn, pending: map[int]chan qmpReply{}, done: make(chan struct{})}
	go m.read()
	return m
}

func (m *Monitor) read() {
	dec := json.NewDecoder(m.conn)
	for {
		var r qmpReply
		if err := dec.Decode(&r); err != nil {
			m.mu.Lock()
			m.err = fmt.Errorf("%w: %v", errMonitorClosed, err)
			m.mu.Unlock()
			close(m.done)
			return
		}
		m.mu.Lock()
		switch {
		case r.Event != "":
			m.events = append(m.events, Event{r.Event, r.Data})
			m.events = m.events[max(0, len(m.events)-maxEvents):]
		case r.ID != nil:
			if ch := m.pending[*r.ID]; ch != nil {
				ch <- r // has room
				delete(m.pending, *r.ID)
			}
		}
		m.mu.Unlock()
	}
}

// Events returns the last events that QEMU sent.
func (m *Monitor) Events() []Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Event(nil), m.events...)
}

// Run executes a command and stores its result in out, unless that is nil. args may be nil. The error is a *QMPError if
// QEMU refused the command.
func (m *Monitor) Run(ctx context.Context, command string, args, out any) error {
	ch := make(chan qmpReply, 1)
	m.mu.Lock()
	id := m.next
	m.next++
	m.pending[id] = ch
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.pending, id)
		m.mu.Unlock()
	}()

	msg := map[string]any{"execute": command, "id": id}
	if args != nil {
		msg["arguments"] = args
	}
	b, err := json.Marshal(msg)
	if err != nil {
		return err
	}
	if err := m.write(ctx, b); err != nil {
		select {
		case <-m.done: // whatever the write failed with, this is why
			err = errMonitorClosed
		default:
		}
		return fmt.Errorf("QMP %s: %w", command, err)
	}
	select {
	case r := <-ch:
		return finish(command, r, out)
	case <-ctx.Done():
		return fmt.Errorf("QMP %s: no answer: %w", command, ctx.Err())
	case <-m.done:
	}
	select { // the reply may have come just before the end
	case r := <-ch:
		return finish(command, r, out)
	default:
		m.mu.Lock()
		defer m.mu.Unlock()
		return fmt.Errorf("QMP %s: %w", command, m.err)
	}
}

func finish(command string, r qmpReply, out any) error {
	if r.Error != nil {
		return r.Error
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(r.Return, out); err != nil {
		return fmt.Errorf("QMP %s: unexpected result: %w", command, err)
	}
	return nil
}

func (m *Monitor) write(ctx context.Context, b []byte) error {
	m.wmu.Lock()
	defer m.wmu.Unlock()
	deadline, _ := ctx.Deadline()
	if err := m.conn.SetWriteDeadline(deadline); err != nil {
		return err
	}
	_, err := m.conn.Write(append(b, '\n'))
	return err
}

// HMP executes a command of the human monitor on behalf of vCPU cpu and returns what it prints.
func (m *Monitor) HMP(ctx context.Context, line string, cpu int) (string, error) {
	var out string
	err := m.Run(ctx, "human-monitor-command", map[string]any{"command-line": line, "cpu-index": cpu}, &out)
	return out, err
}

// handshake leaves negotiation mode, without which QEMU takes no commands.
func (m *Monitor) handshake(ctx context.Context) error {
	return m.Run(ctx, "qmp_capabilities", nil, nil)
}

// shutdownReason returns the reason of the last SHUTDOWN event, "" if there was none.
func (m *Monitor) shutdownReason() string {
	var reason string
	for _, e := range m.Events() {
		var d struct {
			Reason string `json:"reason"`
		}
		if e.Name == "SHUTDOWN" && json.Unmarshal(e.Data, &d) == nil {
			reason = d.Reason
		}
	}
	return reason
}
