package pci

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// BARKind is what a base address register decodes.
type BARKind uint8

// Kinds. Memory64 takes the next register too, whose kind is NoBAR.
const (
	NoBAR BARKind = iota
	IO
	Memory32
	Memory64
)

// BAR is a base address register, with its size in bytes, a power of two. Addr is a multiple of Size, or 0 if the register
// has not been assigned an address. For IO both are ports.
type BAR struct {
	Kind     BARKind
	Prefetch bool // reading has no side effects: may be cached, if the device says so
	Addr     uint64
	Size     uint64
}

// Memory reports whether b is memory of either kind.
func (b BAR) Memory() bool { return b.Kind == Memory32 || b.Kind == Memory64 }

// Assigned reports whether b has an address.
func (b BAR) Assigned() bool { return b.Addr != 0 }

// Bits of a base address register (LB, 6.2.5.1).
const (
	barIO       = 1 << 0
	barType     = 3 << 1
	barType64   = 2 << 1
	barPrefetch = 1 << 3
	barIOFlags  = 3
	barFlags    = 0xf
)

func barOffset(i int) uint16 { return uint16(regBAR + 4*i) }

// quiet turns address decoding of d off, so that its registers can be written, and returns what turns it on again. Host
// and ISA bridges are left alone: memory and the console may be behind them.
func quiet(c Config, d *Device) (restore func()) {
	cmd := c.Read32(d.Address, regCommand) & commandMask
	if cmd&commandDecode == 0 || d.Class == classHostBridge || d.Class == classISABridge {
		return func() {}
	}
	c.Write32(d.Address, regCommand, cmd&^commandDecode)
	return func() { c.Write32(d.Address, regCommand, cmd) }
}

// bars reads and sizes the first n base address registers of d.
func (s *scanner) bars(d *Device, n int) {
	defer quiet(s.c, d)()
	for i := 0; i < n; i++ {
		b, wide, err := s.size(d.Address, i, n)
		if err != "" {
			s.problem(d.Address, ErrBAR, "BAR %d: %s", i, err)
		} else {
			d.BARs[i] = b
		}
		if wide {
			i++
		}
	}
}

// probe returns a register's value and which of its bits can be set.
func (s *scanner) probe(a Address, i int) (value, mask uint32) {
	value = s.c.Read32(a, barOffset(i))
	s.c.Write32(a, barOffset(i), 0xffff_ffff)
	mask = s.c.Read32(a, barOffset(i))
	s.c.Write32(a, barOffset(i), value)
	return value, mask
}

// size decodes register i of n. wide tells that it also takes the next one; err says what is wrong, "" if nothing.
func (s *scanner) size(a Address, i, n int) (b BAR, wide bool, err string) {
	v, mask := s.probe(a, i)
	addr, bits := uint64(v), uint64(mask)
	switch {
	case mask == 0:
		return BAR{}, false, ""
	case v&barIO != 0:
		b.Kind = IO
		addr &^= barIOFlags
		bits &^= barIOFlags
		if bits>>16 == 0 {
			bits |= 0xffff << 16 // a device may decode 16 bits only
		}
		bits |= 0xffff_ffff << 32
	case v&barType == barType64:
		if i+1 >= n {
			return b, false, "64 bits wide, but the last one"
		}
		wide = true
		b.Kind = Memory64
		hi, hiMask := s.probe(a, i+1)
		addr = addr&^barFlags | uint64(hi)<<32
		bits = bits&^barFlags | uint64(hiMask)<<32
	case v&barType == 0:
		b.Kind = Memory32
		addr &^= barFlags
		bits = bits&^barFlags | 0xffff_ffff<<32
	default:
		return b, false, fmt.Sprintf("%#x is of an unknown type", v)
	}
	b.Prefetch = b.Kind != IO && v&barPrefetch != 0
	b.Addr, b.Size = addr, -bits
	switch {
	case b.Size == 0 || b.Size&(b.Size-1) != 0 || b.Kind != Memory64 && b.Size>>32 != 0:
		return b, wide, fmt.Sprintf("bits %#x can be set, which is no size", bits)
	case addr&(b.Size-1) != 0:
		return b, wide, fmt.Sprintf("address %#x is no multiple of the size %#x", addr, b.Size)
	}
	return b, wide, ""
}

// Window is a range of physical addresses that the host bridge passes on to the bus; empty if Size is 0.
type Window struct{ Base, Size uint64 }

// Windows are where memory of devices may be placed. Memory32 lies below 4 GiB.
type Windows struct{ Memory32, Memory64 Window }

// span is a range of addresses in use.
type span struct{ start, last uint64 }

// placement is a register that needs an address.
type placement struct {
	d *Device
	i int
}

func (p placement) bar() *BAR { return &p.d.BARs[p.i] }

// Assign gives an address to all memory of devices that has none, and writes it to the devices, whose decoding stays as it
// was. What firmware has assigned is never moved. Registers of 64 bits go into w.Memory64, and into w.Memory32
// if there is no room. Ports are left alone: no driver here needs them.
//
// The error joins an *Error for each register that could not be given an address; the others have got theirs.
func Assign(c Config, devices []*Device, w Windows) error {
	var todo []placement
	var taken []span
	var errs []error
	for _, d := range devices {
		for i, b := range d.BARs {
			switch {
			case !b.Memory():
			case b.Assigned():
				taken = append(taken, span{b.Addr, b.Addr + b.Size - 1})
			case d.Bus != 0:
				errs = append(errs, &Error{d.Address, fmt.Sprintf("BAR %d of %#x bytes", i, b.Size), ErrBehind})
			default:
				todo = append(todo, placement{d, i})
			}
		}
	}
	// Large ones first: with sizes that are powers of two, no room is lost to alignment.
	slices.SortStableFunc(todo, func(a, b placement) int { return cmp.Compare(b.bar().Size, a.bar().Size) })
	slices.SortFunc(taken, func(a, b span) int { return cmp.Compare(a.start, b.start) })
	for _, p := range todo {
		b := p.bar()
		addr, ok := uint64(0), false
		if b.Kind == Memory64 {
			addr, ok = place(w.Memory64, b.Size, taken)
		}
		if !ok {
			addr, ok = place(w.Memory32, b.Size, taken)
		}
		err := ErrNoRoom
		if ok {
			err = p.write(c, addr)
		}
		if err != nil {
			errs = append(errs, &Error{p.d.Address, fmt.Sprintf("BAR %d of %#x bytes", p.i, b.Size), err})
			continue
		}
		s := span{addr, addr + b.Size - 1}
		at, _ := slices.BinarySearchFunc(taken, s, func(a, b span) int { return cmp.Compare(a.start, b.start) })
		taken = slices.Insert(taken, at, s)
	}
	return errors.Join(errs...)
}

// place returns the first address in w, a multiple of size and not 0, where size bytes overlap nothing of taken, which is
// sorted by start.
func place(w Window, size uint64, taken []span) (uint64, bool) {
	at := max(w.Base, 1)
	for i := 0; ; i++ {
		up := (at + size - 1) &^ (size - 1)
		if up < at || up < w.Base || up-w.Base > w.Size || size > w.Size-(up-w.Base) {
			return 0, false
		}
		at = up
		for i < len(taken) && taken[i].last < at {
			i++
		}
		if i == len(taken) || taken[i].start > at+size-1 {
			return at, true
		}
		if at = taken[i].last + 1; at == 0 {
			return 0, false
		}
	}
}

// write puts addr into the register, and sees whether it stays there.
func (p placement) write(c Config, addr uint64) error {
	defer quiet(c, p.d)()
	put := func(v uint64) (got uint64) {
		c.Write32(p.d.Address, barOffset(p.i), uint32(v))
		got = uint64(c.Read32(p.d.Address, barOffset(p.i)) &^ barFlags)
		if p.bar().Kind == Memory64 {
			c.Write32(p.d.Address, barOffset(p.i+1), uint32(v>>32))
			got |= uint64(c.Read32(p.d.Address, barOffset(p.i+1))) << 32
		}
		return got
	}
	if got := put(addr); got != addr {
		put(0)
		return fmt.Errorf("%w: it was set to %#x and reads %#x", ErrBAR, addr, got)
	}
	p.bar().Addr = addr
	return nil
}
