package run

import (
	"dinos/dkernel/mm"
	"dinos/kernel/linux"
	"dinos/kernel/machine"
	"dinos/kernel/paging"
)

// Hardware implements mm.Hardware on this machine.
type Hardware struct{}

// NewTables implements mm.Hardware.
func (Hardware) NewTables(pt *paging.Space) error {
	if err := machine.InitUser(pt); err != nil {
		return linux.ENOMEM
	}
	return nil
}

// wholeSpace is more pages than anybody drops one by one.
const wholeSpace = 1 << 36

// Flush implements mm.Hardware. Several ranges cost as many interrupts to other CPUs as one: they are dropped with everything.
func (Hardware) Flush(s *mm.Space, ranges []mm.Range) {
	switch len(ranges) {
	case 0:
	case 1:
		machine.FlushUser(s.Root(), ranges[0].Start, ranges[0].Pages)
	default:
		machine.FlushUser(s.Root(), 0, wholeSpace)
	}
}

// Retire implements mm.Hardware.
func (Hardware) Retire(s *mm.Space) { machine.RetireUser(s.Root()) }
