// Package trace keeps the last events of each CPU in a ring that is always on and is printed when the kernel crashes.
// Recording costs a few stores: no lock, no allocation, no formatting. A ring belongs to one CPU, which records with
// interrupts off; a crashed machine reads all of them after the other CPUs have stopped.
package trace

import "dinos/kernel/klog"

// Kind says what happened and how the three arguments read.
type Kind uint32

// The kinds of events.
const (
	None Kind = iota
	Syscall
	Fault
	Interrupt
	Switch
	Idle
	Kick
	Signal
	Clone
	Exit
	OutOfMemory
	numKinds
)

// format is how a kind is printed: its name and its arguments' names, x: marks hexadecimal.
var format = [numKinds][4]string{
	None:        {"none", "", "", ""},
	Syscall:     {"syscall", "nr", "x:a", "x:b"},
	Fault:       {"fault", "vector", "x:rip", "x:addr"},
	Interrupt:   {"interrupt", "x:vector", "x:rip", ""},
	Switch:      {"switch", "thread", "", ""},
	Idle:        {"idle", "", "", ""},
	Kick:        {"kick", "x:cpus", "", ""},
	Signal:      {"signal", "thread", "signal", "x:rip"},
	Clone:       {"clone", "thread", "x:stack", ""},
	Exit:        {"exit", "thread", "", ""},
	OutOfMemory: {"out of memory", "x:addr", "x:rip", ""},
}

// Event is one entry.
type Event struct {
	Time    int64 // ns since boot
	A, B, C uint64
	Kind    Kind
}

// Size is the number of events a ring keeps; a power of two.
const Size = 256

// Ring holds the last Size events of one CPU. The zero value is empty.
type Ring struct {
	events [Size]Event
	next   uint64
}

// Record adds an event.
func (r *Ring) Record(now int64, k Kind, a, b, c uint64) {
	r.events[r.next%Size] = Event{now, a, b, c, k}
	r.next++
}

// Last calls f with the last n events, oldest first.
func (r *Ring) Last(n int, f func(*Event)) {
	count := min(uint64(n), r.next, Size)
	for i := r.next - count; i < r.next; i++ {
		f(&r.events[i%Size])
	}
}

// Format appends e to l.
func (e *Event) Format(l *klog.Line) {
	l.Dec(uint64(e.Time) / 1000).Str(" us ")
	if e.Kind >= numKinds {
		l.Str("kind ").Dec(uint64(e.Kind))
		return
	}
	f := &format[e.Kind]
	l.Str(f[0])
	for i, v := range [3]uint64{e.A, e.B, e.C} {
		name := f[i+1]
		if name == "" {
			continue
		}
		l.Byte(' ')
		if len(name) > 2 && name[:2] == "x:" {
			l.Str(name[2:]).Byte('=').Hex(v)
		} else {
			l.Str(name).Byte('=').Dec(v)
		}
	}
}
