package rack

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"
)

// maxLog bounds a log file; a kernel that babbles must not fill the disk. The former part is kept once, as FILE.1.
const maxLog = 16 << 20

// logFile is an append-only file of at most maxLog bytes, with one predecessor. It is safe for concurrent use. Failures to write are not the
// kernel's: they are reported once, by the text at the place where output is missing, when it works again.
type logFile struct {
	path string
	mu   sync.Mutex
	f    *os.File // nil if it could not be opened
	size int64
	lost int64
}

func openLog(path string) (*logFile, error) {
	l := &logFile{path: path}
	return l, l.open()
}

func (l *logFile) open() (err error) {
	if l.f, err = os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600); err != nil {
		return err
	}
	st, err := l.f.Stat()
	if err == nil {
		l.size = st.Size()
	}
	return err
}

// Write appends b. It never fails: see logFile.
func (l *logFile) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f != nil && l.size+int64(len(b)) > maxLog {
		l.f.Close()
		l.f = nil
		os.Rename(l.path, l.path+".1")
	}
	if l.f == nil && l.open() != nil {
		l.lost += int64(len(b))
		return len(b), nil
	}
	if l.lost > 0 {
		if n, err := fmt.Fprintf(l.f, "\n--- %d bytes are missing here: they could not be written\n", l.lost); err == nil {
			l.size, l.lost = l.size+int64(n), 0
		}
	}
	n, err := l.f.Write(b)
	l.size += int64(n)
	if err != nil {
		l.lost += int64(len(b) - n)
	}
	return len(b), nil
}

func (l *logFile) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f != nil {
		l.f.Close()
		l.f = nil
	}
}

// Event is something that happened to the rack.
type Event struct {
	Time   time.Time `json:"time"`
	Kernel string    `json:"kernel,omitempty"` // whom it happened to; "" for the rack
	Text   string    `json:"text"`
}

func (e Event) String() string {
	who := e.Kernel
	if who == "" {
		who = "rack"
	}
	return who + ": " + e.Text
}

const (
	keptEvents  = 256 // in memory
	queueEvents = 64  // that a subscriber may be behind
)

// events is the rack's own log: a file with a line of JSON an event, the last ones in memory, and who wants to hear of new ones.
type events struct {
	file *logFile

	mu   sync.Mutex
	last []Event             // guarded by mu
	subs map[chan Event]bool // guarded by mu
}

func newEvents(path string) (*events, error) {
	f, err := openLog(path)
	return &events{file: f, subs: map[chan Event]bool{}}, err
}

func (e *events) add(kernel, format string, args ...any) {
	ev := Event{time.Now(), kernel, fmt.Sprintf(format, args...)}
	if b, err := json.Marshal(ev); err == nil {
		e.file.Write(append(b, '\n'))
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.last = append(e.last, ev)
	e.last = e.last[max(0, len(e.last)-keptEvents):]
	for ch := range e.subs {
		select {
		case ch <- ev:
		default: // a subscriber that is so far behind misses some
		}
	}
}

// recent returns the last events.
func (e *events) recent() []Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]Event(nil), e.last...)
}

// subscribe returns a channel of what happens from now on, until stop is called.
func (e *events) subscribe() (ch chan Event, stop func()) {
	ch = make(chan Event, queueEvents)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.subs[ch] = true
	return ch, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.subs, ch)
	}
}
