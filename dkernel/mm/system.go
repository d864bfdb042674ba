package mm

import (
	"errors"
	"sync/atomic"

	"dinos/dkernel/frame"
	"dinos/kernel/linux"
	"dinos/kernel/paging"
	"dinos/kernel/ureg"
)

// Limits and places of the address space, as Linux has them for x86-64.
const (
	pageShift = 12
	pageSize  = 1 << pageShift

	userTop      = ureg.UserTop
	minAddr      = 65536           // vm.mmap_min_addr
	stackGuard   = 256 * pageSize  // what a stack keeps free below itself (stack_guard_gap)
	low32        = 0x40000000      // MAP_32BIT
	high32       = 0x80000000      //
	unmappedBase = 0x2aaaaaaab000  // TASK_SIZE/3: from where places are searched upwards
	maxMapCount  = 65530           // vm.max_map_count
	noLimit      = ^uint64(0) >> 1 // pages; sums with it do not overflow
)

func pageUp(a uint64) uint64 { return (a + pageSize - 1) &^ (pageSize - 1) }

// Range is a range of addresses, in 4 KiB pages.
type Range struct{ Start, Pages uint64 }

// Hardware is what address spaces need of the machine they run on. Its methods may be called by any number of goroutines.
type Hardware interface {
	// NewTables makes pt an empty address space with the kernel's half (paging.Space.InitUserIn). The frames of tables come from the
	// kernel's own memory, by a paging.Frames that may be used by several goroutines. The error is linux.ENOMEM.
	NewTables(pt *paging.Space) error
	// Flush returns when no CPU uses a translation of s in the ranges that it read from the tables before the call. It is called with
	// no lock held but those of fork and of the objects involved; faults on other CPUs must be able to go on.
	Flush(s *Space, ranges []Range)
	// Retire returns when no CPU has the tables of s loaded, nor will load them again. They are freed after it.
	Retire(s *Space)
}

// Config says what a System works with. Frames and Hardware are needed.
type Config struct {
	Frames   *frame.Pool
	Hardware Hardware
	Random   func() uint64 // not used: package loader chooses layouts
	// Memory is how many pages there are for programs in all: the yardstick of overcommitment. nil: no bound.
	Memory  func() uint64
	MaxMaps int // mappings of an address space; 0 means vm.max_map_count's default, 65530
	// Executable, if set, returns the frame to use where page index of an object is mapped executable and private, instead of f, with
	// a reference; f's goes over to it. It is for machines that do not see that another one has written their code.
	Executable func(obj Object, index uint64, f frame.Frame) (frame.Frame, error)
	// AnonAround is how many pages a fault in fresh anonymous memory brings when the last one was at the page before: up to 16. 0 means 1.
	AnonAround int
}

// System is what all address spaces of a dkernel have in common.
type System struct {
	frames     *frame.Pool
	hw         Hardware
	memory     func() uint64
	maxMaps    uint64
	exec       func(obj Object, index uint64, f frame.Frame) (frame.Frame, error)
	anonAround int
	zero       frame.Frame // what untouched memory reads as

	ids       atomic.Uint64
	committed atomic.Int64
	mode      atomic.Int32
	ratio     atomic.Int32
}

// NewSystem makes a System. The error says what c lacks, or is linux.ENOMEM.
func NewSystem(c Config) (*System, error) {
	if c.Frames == nil || c.Hardware == nil {
		return nil, errors.New("mm: Config lacks Frames or Hardware")
	}
	y := &System{frames: c.Frames, hw: c.Hardware, memory: c.Memory, maxMaps: uint64(c.MaxMaps), exec: c.Executable,
		anonAround: min(max(c.AnonAround, 1), maxAround)}
	if c.MaxMaps <= 0 {
		y.maxMaps = maxMapCount
	}
	if y.memory == nil {
		y.memory = func() uint64 { return noLimit }
	}
	y.ratio.Store(50)
	var err error
	y.zero, err = c.Frames.AllocZero()
	return y, err
}

// Close gives back what the System itself holds. No address space must be left.
func (y *System) Close() { y.frames.Unref(y.zero) }

// SetOvercommit sets vm.overcommit_memory and vm.overcommit_ratio. The error is linux.EINVAL.
func (y *System) SetOvercommit(mode, ratio int) error {
	if mode < linux.OVERCOMMIT_GUESS || mode > linux.OVERCOMMIT_NEVER || ratio < 0 {
		return linux.EINVAL
	}
	y.mode.Store(int32(mode))
	y.ratio.Store(int32(min(ratio, 1<<20)))
	return nil
}

// Overcommit is what SetOvercommit has set.
func (y *System) Overcommit() (mode, ratio int) { return int(y.mode.Load()), int(y.ratio.Load()) }

// Committed is how many pages have been promised, and how many may be if overcommitment is off (/proc/meminfo).
func (y *System) Committed() (pages, limit uint64) {
	return uint64(max(y.committed.Load(), 0)), y.memory() / 100 * uint64(y.ratio.Load())
}

// promise reports whether n more pages may be promised, and counts nothing: what was promised is counted when it is done.
func (y *System) promise(n uint64) bool {
	switch y.mode.Load() {
	case linux.OVERCOMMIT_ALWAYS:
		return true
	case linux.OVERCOMMIT_NEVER:
		pages, limit := y.Committed()
		return pages+n <= limit
	}
	return n <= y.memory()
}

// accountable is f with vmAccount if a new mapping with flags f counts as promised.
func (y *System) accountable(f flags) flags {
	if y.mode.Load() == linux.OVERCOMMIT_NEVER {
		f &^= vmNoReserve
	}
	return f.account()
}

// unref takes away an issuer's reference.
func (y *System) unref(f frame.Frame) {
	if f != y.zero && f != frame.None {
		y.frames.Unref(f)
	}
}
