package testproto

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Prefix starts the line of an event. Log without a line end may stand before it.
const Prefix = "##dinos-test "

// Key is the key of the kernel's command line that selects tests: test=all or test=NAME,NAME.
const Key = "test"

// All is the value of Key for every test.
const All = "all"

// Kinds of events.
const (
	Run  = "run"  // the test starts
	Pass = "pass" // it passed,
	Fail = "fail" // failed,
	Skip = "skip" // or was not applicable; Msg says why
	Done = "done" // no test follows
)

// Event is one line of the protocol.
type Event struct {
	Test  string  `json:"test,omitempty"`
	Event string  `json:"event"`
	MS    float64 `json:"ms,omitempty"` // duration in ms, as the guest's clock has it
	Msg   string  `json:"msg,omitempty"`
	// Counts of tests, in a Done event.
	Passed  int `json:"pass,omitempty"`
	Failed  int `json:"fail,omitempty"`
	Skipped int `json:"skip,omitempty"`
}

// maxMsg bounds a message, in bytes: a serial port takes about as many in a tenth of a second.
const maxMsg = 8 << 10

// Line returns e as a line, without its end. Messages that are too long lose their middle.
func (e Event) Line() string {
	if over := len(e.Msg) - maxMsg; over > 0 {
		e.Msg = fmt.Sprintf("%s\n... %d bytes ...\n%s", e.Msg[:maxMsg/2], over, e.Msg[len(e.Msg)-maxMsg/2:])
	}
	if math.IsNaN(e.MS) || math.IsInf(e.MS, 0) {
		e.MS = 0 // JSON has none
	}
	b, err := json.Marshal(e)
	if err != nil {
		panic(err) // strings, ints and a finite float always marshal
	}
	return Prefix + string(b)
}

// Parse returns the event in a console line. ok is false if there is none. An error means a line that claims to be an event
// and is not.
func Parse(line string) (e Event, ok bool, err error) {
	i := strings.Index(line, Prefix)
	if i < 0 {
		return Event{}, false, nil
	}
	if err := json.Unmarshal([]byte(line[i+len(Prefix):]), &e); err != nil {
		return Event{}, true, fmt.Errorf("test event %q: %w", line[i:], err)
	}
	switch e.Event {
	case Run, Pass, Fail, Skip:
		if e.Test == "" {
			return Event{}, true, fmt.Errorf("test event %q: names no test", line[i:])
		}
	case Done:
		if e.Test != "" || e.Passed < 0 || e.Failed < 0 || e.Skipped < 0 {
			return Event{}, true, fmt.Errorf("test event %q: want no test and counts of at least 0", line[i:])
		}
	default:
		return Event{}, true, fmt.Errorf("test event %q: want event run, pass, fail, skip or done", line[i:])
	}
	return e, true, nil
}

// Select returns the names that value, of the command line's Key, selects from all: in the order of value, or of all if
// it is All. Names must not contain commas, spaces or quotes.
func Select(value string, all []string) ([]string, error) {
	if value == All {
		return slices.Clone(all), nil
	}
	var out []string
	for name := range strings.SplitSeq(value, ",") {
		switch {
		case name == "":
			return nil, errors.New("test: empty name: want test=all or test=NAME,NAME")
		case !slices.Contains(all, name):
			return nil, fmt.Errorf("test: no test %q; there are %s", name, strings.Join(all, ", "))
		case slices.Contains(out, name):
			return nil, fmt.Errorf("test: %q given twice", name)
		}
		out = append(out, name)
	}
	return out, nil
}
