package nrtest

import (
	"encoding/binary"
	"fmt"
	"io"

	"dinos/nr"

	"github.com/anishathalye/porcupine"
)

// Keys is how many accounts a Bank has over all its parts.
const Keys = 4

// The ops of a Bank.
const (
	Get    uint8 = iota // value of Key
	Add                 // add Arg to Key; returns the sum
	Set                 // set Key to Arg; returns the value before
	Sum                 // across all: sum of all values
	AddAll              // across all: add Arg to each key; returns the sum of all before
)

// Op is an op of a Bank. ID is unique, so that journals can be compared.
type Op struct {
	Kind, Key uint8
	Arg       uint16
	ID        uint32
}

func (o Op) String() string {
	switch o.Kind {
	case Get:
		return fmt.Sprintf("get %d", o.Key)
	case Add:
		return fmt.Sprintf("add %d to %d", o.Arg, o.Key)
	case Set:
		return fmt.Sprintf("set %d to %d", o.Key, o.Arg)
	case Sum:
		return "sum"
	case AddAll:
		return fmt.Sprintf("add %d to all", o.Arg)
	}
	return fmt.Sprintf("op(%d)", o.Kind)
}

// State is the state of a whole bank: the sequential specification.
type State [Keys]uint16

// Step is the sequential specification.
func (s State) Step(o Op) (State, uint32) {
	sum := func() uint32 {
		n := uint32(0)
		for _, v := range s {
			n += uint32(v)
		}
		return n
	}
	k := o.Key % Keys
	switch o.Kind {
	case Get:
		return s, uint32(s[k])
	case Add:
		s[k] += o.Arg
		return s, uint32(s[k])
	case Set:
		old := s[k]
		s[k] = o.Arg
		return s, uint32(old)
	case Sum:
		return s, sum()
	case AddAll:
		old := sum()
		for i := range s {
			s[i] += o.Arg
		}
		return s, old
	}
	return s, 0
}

// Bank is a part of a bank: the keys that are Part modulo Parts. Journal is what was applied, in order.
//
// Each value is kept twice. A reader that meets an update half way finds the copies different, which it must never.
type Bank struct {
	vals    State
	copies  State
	journal []uint32
	pause   func() // called half way through, may be nil
}

// Torn is what a read returns that met an update half way.
const Torn = 0xdead

func (b *Bank) halfway() {
	if b.pause != nil {
		b.pause()
	}
}

// Read implements nr.Structure.
func (b *Bank) Read(o Op) uint32 {
	before := b.copies
	b.halfway()
	if b.vals != before {
		return Torn
	}
	_, out := b.vals.Step(o)
	return out
}

// Apply implements nr.Structure.
func (b *Bank) Apply(o Op) (out uint32) {
	b.journal = append(b.journal, o.ID)
	b.vals, out = b.vals.Step(o)
	b.halfway()
	b.copies = b.vals
	return out
}

// Snapshot implements nr.Snapshotter.
func (b *Bank) Snapshot(w io.Writer) error {
	if err := binary.Write(w, binary.LittleEndian, b.vals); err != nil {
		return err
	}
	return binary.Write(w, binary.LittleEndian, b.journal)
}

// Restore implements nr.Snapshotter.
func (b *Bank) Restore(r io.Reader) error {
	if err := binary.Read(r, binary.LittleEndian, &b.vals); err != nil {
		return err
	}
	b.copies = b.vals
	rest, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if len(rest)%4 != 0 {
		return fmt.Errorf("journal of %d bytes, want a multiple of 4", len(rest))
	}
	for i := 0; i < len(rest); i += 4 {
		b.journal = append(b.journal, binary.LittleEndian.Uint32(rest[i:]))
	}
	return nil
}

func across(parts []nr.Structure[Op, uint32], o Op, apply bool) uint32 {
	sum := uint32(0)
	for _, p := range parts {
		if p == nil {
			continue
		}
		b := p.(*Bank)
		if b.vals != b.copies {
			return Torn
		}
		for k := range b.vals {
			sum += uint32(b.vals[k])
		}
	}
	if !apply {
		return sum
	}
	for i, p := range parts {
		if p == nil {
			continue
		}
		b := p.(*Bank)
		b.journal = append(b.journal, o.ID)
		for k := range b.vals {
			if k%len(parts) == i {
				b.vals[k] += o.Arg
			}
		}
		b.halfway()
		b.copies = b.vals
	}
	return sum
}

// BankConfig is a bank over so many logs.
func BankConfig(logs int) nr.Config[Op, uint32] {
	return nr.Config[Op, uint32]{
		New:  func(int) nr.Structure[Op, uint32] { return new(Bank) },
		Logs: logs,
		Route: func(o Op) int {
			if o.Kind >= Sum {
				return nr.AllLogs
			}
			return int(o.Key) % Keys % logs
		},
		ApplyAll: func(parts []nr.Structure[Op, uint32], o Op) uint32 { return across(parts, o, true) },
		ReadAll:  func(parts []nr.Structure[Op, uint32], o Op) uint32 { return across(parts, o, false) },
	}
}

// Outcome is the output of an op in a history.
type Outcome struct {
	Value uint32
	Known bool // false: the caller never learned it, and the op may have had no effect at all
}

// Model is the bank for porcupine.
func Model() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return State{} },
		Step: func(state, input, output any) (bool, any) {
			next, want := state.(State).Step(input.(Op))
			out := output.(Outcome)
			return !out.Known || out.Value == want, next
		},
		DescribeOperation: func(input, output any) string {
			if out := output.(Outcome); out.Known {
				return fmt.Sprintf("%v → %d", input, out.Value)
			}
			return fmt.Sprintf("%v → ?", input)
		},
		DescribeState: func(state any) string { return fmt.Sprint(state) },
	}
}
